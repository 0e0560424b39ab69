"""The residuals of one way to run a model: every segment run again from what that way committed to.

Exactly what a check does, over many inputs: the provider's side is the runtime or the substitute, the
verifier's side is onnxruntime as the check uses it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proofhold.compile.native import refusals_as_data
from proofhold.compile.replay.calibration.cheats import CHEATS, can_be_made
from proofhold.compile.replay.calibration.runtimes import Feed, Run, open_session, run_all
from proofhold.compile.replay.pin import draw
from proofhold.locks import ReplayLock
from proofhold.replay.compare import residual
from proofhold.replay.surgery import Port, expose, extract, parse

VERIFIERS_RUNTIME = "onnxruntime/ORT_ENABLE_ALL/1"
WHOLE = "whole"
"""The last column: the outputs against a run of the whole model, as where a claim commits to no trace."""


@refusals_as_data
def measure_runtime(published: bytes, lock: bytes, request: bytes) -> bytes:
    """Measure an honest runtime; gives a row of residuals for each input, a column a segment and one `WHOLE`.

    `request` is JSON: `name` of the runtime, `seeds` of the inputs.
    """
    asked = json.loads(request)
    return _measured(published, published, ReplayLock.decode(lock), asked["name"], asked["seeds"])


@refusals_as_data
def measure_cheat(published: bytes, lock: bytes, request: bytes) -> bytes:
    """Measure a substitute; as `measure_runtime`, `name` being one of `CHEATS`."""
    asked = json.loads(request)
    pinned = ReplayLock.decode(lock)
    # The cuts are outputs before the substitute is made: whatever remakes the graph keeps those.
    source = _exposed(published, pinned) if asked["name"] == "int8_dynamic" else published
    substitute = CHEATS[asked["name"]](source)
    return _measured(published, substitute, pinned, VERIFIERS_RUNTIME, asked["seeds"])


@refusals_as_data
def measure_norms(published: bytes, lock: bytes, request: bytes) -> bytes:
    """Measure the root mean square of each cut's and each output's norm; gives JSON, name to number.

    `request` is JSON: `seeds` of the inputs.
    """
    pinned, seeds = ReplayLock.decode(lock), json.loads(request)["seeds"]
    runs = run_all(VERIFIERS_RUNTIME, _exposed(published, pinned), [_feed(pinned, seed) for seed in seeds])
    names = [name for segment in pinned.segments for name in segment.outputs]
    squares = {name: [np.square(run[name].astype(np.float64)).sum() for run in runs] for name in names}
    return json.dumps({name: float(np.sqrt(np.mean(each))) for name, each in squares.items()}).encode()


@refusals_as_data
def has_weights(published: bytes) -> bytes:
    """Tell whether substitutes can be made of a model: ``yes`` or nothing."""
    return b"yes" if can_be_made(published) else b""


def _measured(published: bytes, served: bytes, lock: ReplayLock, runtime: str, seeds: Sequence[int]) -> bytes:
    feeds = [_feed(lock, seed) for seed in seeds]
    cuts = {boundary.name for boundary in lock.boundaries}
    given = {value.name for value in parse(served).graph.output}
    exposed = served if cuts <= given and cuts else _exposed(served, lock)
    runs = run_all(runtime, exposed, feeds)
    outputs = [spec.name for spec in lock.outputs]
    whole, segments = _verifier(published, lock)
    rows = []
    for feed, run in zip(feeds, runs, strict=True):
        committed = {**feed, **run}
        row = []
        for segment, rerun in zip(lock.segments, segments, strict=True):
            redone = rerun({name: committed[name] for name in segment.inputs})
            row.append(_worst(lock, segment.outputs, committed, redone))
        rows.append([*row, _worst(lock, outputs, run, whole(feed))])
    # JSON has no infinity; a residual of 10 and one of infinity say the same.
    return json.dumps([[min(value, 1e9) for value in row] for row in rows]).encode()


def _feed(lock: ReplayLock, seed: int) -> Feed:
    return {tensor.name: tensor.numpy() for tensor in draw(lock.inputs, seed)}


def _worst(
    lock: ReplayLock, names: Sequence[str], claimed: Mapping[str, Any], ours: Mapping[str, Any]
) -> float:
    return max(residual(np.asarray(claimed[n]), np.asarray(ours[n]), lock.norms.get(n, 0.0)) for n in names)


def _ports(lock: ReplayLock, names: Sequence[str]) -> list[Port]:
    forms = {leaf.name: leaf for leaf in lock.leaves}
    return [Port(name, forms[name].dtype, forms[name].shape) for name in names]


def _exposed(model: bytes, lock: ReplayLock) -> bytes:
    inputs = _ports(lock, [spec.name for spec in lock.inputs])
    return expose(parse(model), inputs, _ports(lock, [b.name for b in lock.boundaries]))


def _fixed(model: bytes, lock: ReplayLock) -> bytes:
    return expose(parse(model), _ports(lock, [spec.name for spec in lock.inputs]), ())


@functools.lru_cache(maxsize=1)
def _verifier(published: bytes, lock: ReplayLock) -> tuple[Run, tuple[Run, ...]]:
    """Make the verifier's sessions of a model once: the whole of it, and each segment."""
    model = parse(published)
    segments = tuple(
        open_session(
            VERIFIERS_RUNTIME, extract(model, _ports(lock, segment.inputs), _ports(lock, segment.outputs))
        )
        for segment in lock.segments
    )
    return open_session(VERIFIERS_RUNTIME, _fixed(published, lock)), segments
