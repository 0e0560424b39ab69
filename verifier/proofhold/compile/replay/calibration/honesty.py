"""Is a runtime that is far off still an honest one? Asked of its operators, by the bounds of disputes.

A runtime may have a mistake: one version of the reference evaluator normalises a batch by its own mean, as in
training. What it gives is no run of the model, and a tolerance that allowed it would allow everything else.
Rounding is told from mistakes where a dispute tells them apart: no float32 arithmetic gives an operator's
result from that operator's own inputs.
"""

from __future__ import annotations

import json

import numpy as np
import onnx

from proofhold.compile.native import refusals_as_data
from proofhold.compile.replay.calibration.runtimes import run_all
from proofhold.compile.replay.pin import draw
from proofhold.locks import ReplayLock
from proofhold.payload import ITEM_BYTES, MAX_RANK, Tensor
from proofhold.replay.accusation import examine
from proofhold.replay.regions import Graph
from proofhold.replay.surgery import Port, expose, parse

SUSPICIOUS = 1e-3
"""A hundred times what an honest segment may usually be off: only then is a runtime looked at so closely."""


@refusals_as_data
def find_mistake(published: bytes, lock: bytes, request: bytes) -> bytes:
    """Look for an operator that a runtime gets wrong; gives words, or nothing where rounding explains all.

    `request` is JSON: `name` of the runtime, `seeds` of the inputs, of which the first is taken.
    """
    asked, pinned = json.loads(request), ReplayLock.decode(lock)
    drawn = draw(pinned.inputs, asked["seeds"][0])
    graph = Graph.parse(published)
    inputs = [Port(spec.name, spec.dtype, spec.shape) for spec in pinned.inputs]
    shown = parse(expose(parse(published), inputs, ()))
    own = {value.name for value in shown.graph.output}
    made = [name for node in shown.graph.node for name in node.output if name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in own)
    feed = {tensor.name: tensor.numpy() for tensor in drawn}
    [run] = run_all(asked["name"], shown.SerializeToString(), [feed])
    tensors = {tensor.name: tensor for tensor in drawn}
    for name, value in run.items():
        array = np.asarray(value)
        if array.dtype.name in ITEM_BYTES and array.ndim <= MAX_RANK:
            tensors[name] = Tensor.of(name, array)
    for found in examine(graph, [name for name in made if name in tensors], tensors):
        if found.ratio > 1.0 and found.region is not None:
            operators = ", ".join(graph.nodes[place].op_type for place in found.region.nodes)
            return f"{operators}: {found.tensor} is {found.ratio:.3g} times its bound off".encode()
    return b""
