"""Running a segment once more for the tensors inside of it: what a challenged provider does.

Operator by operator, nothing fused, every tensor is the result of the operator that the model names. Fused,
as the claim was run, only what products take is asked for: it exists in either run, and asking for it breaks
no fusion. Both are tasks for a `Runner`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from proofhold import canonical
from proofhold.canonical import file_digest
from proofhold.errors import Misuse
from proofhold.locks import ReplayLock, Segment
from proofhold.payload import ITEM_BYTES, Tensor
from proofhold.replay.bounds.rules import PRODUCTS
from proofhold.replay.packed import pack_tensors, unpack_tensors
from proofhold.replay.rerun import MAX_RUN_BYTES, ports
from proofhold.runner import DEFAULT_DEADLINE_S, Runner


def run_stepwise(
    runner: Runner,
    model: bytes,
    lock: ReplayLock,
    segment: Segment,
    inputs: Sequence[Tensor],
    *,
    fused: bool = False,
    deadline_s: float = DEFAULT_DEADLINE_S,
) -> Mapping[str, Tensor]:
    """Give the tensors that a segment computes from those that it takes, by name.

    All of them, or as they come in a `fused` run those that its products take.

    Raises:
        RunnerError: no result.
        Malformed: the worker sent something else than tensors.

    """
    request = {
        "fused": fused,
        "inputs": list(segment.inputs),
        "model": lock.model,
        "outputs": list(segment.outputs),
        "ports": ports(lock),
    }
    encoded = runner.run(
        run_steps, canonical.encode(request), model, pack_tensors(inputs), deadline_s=deadline_s
    )
    return {tensor.name: tensor for tensor in unpack_tensors(encoded, max_bytes=MAX_RUN_BYTES)}


def run_steps(request: bytes, model: bytes, tensors: bytes) -> bytes:
    """Run a segment with every tensor as an output; the task behind `run_stepwise`.

    Raises:
        Misuse: the model is not the one that the lock names.

    """
    import onnxruntime

    asked = json.loads(request)
    if file_digest(model) != asked["model"]:
        raise Misuse(f"the model has SHA-256 {file_digest(model)}, expected {asked['model']}")
    exposed, names = _exposed(model, asked)
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if asked["fused"] else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(exposed, options, providers=["CPUExecutionProvider"])
    feed = {tensor.name: tensor.numpy() for tensor in unpack_tensors(tensors, max_bytes=MAX_RUN_BYTES)}
    taken = {port.name for port in session.get_inputs()}
    values = session.run(names, {name: value for name, value in feed.items() if name in taken})
    given = zip(names, values, strict=True)
    return pack_tensors(
        [
            Tensor.of(n, v)
            for n, v in given
            if getattr(v, "dtype", None) is not None and v.dtype.name in ITEM_BYTES
        ]
    )


def _exposed(model: bytes, asked: Mapping[str, Any]) -> tuple[bytes, list[str]]:
    from onnx import helper

    from proofhold.replay.surgery import Port, extract, parse

    given, ends = (
        [Port(name, asked["ports"][name][0], tuple(asked["ports"][name][1])) for name in asked[side]]
        for side in ("inputs", "outputs")
    )
    segment = parse(extract(parse(model), given, ends))
    names = [name for node in segment.graph.node for name in node.output if name]
    if asked["fused"]:
        taken = {name for node in segment.graph.node if node.op_type in PRODUCTS for name in node.input}
        names = [name for name in names if name in taken or name in asked["outputs"]]
    known = {value.name for value in segment.graph.output}
    segment.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    data: bytes = segment.SerializeToString(deterministic=True)
    return data, names
