"""Exchanges that are judged by their trace: an honest provider, and the ways not to be one.

Every provider here is given by the tensors that it commits to; a dishonest one commits to other tensors than
those of the model's run, and opens whatever it likes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import replay_models
from judging import BUYER, NONCE, NOW, PROVIDER, SECRET, make_job, runner
from proofhold.backends.replay import ReplayBackend
from proofhold.catalogue import Entry
from proofhold.compile.replay.pin import draw
from proofhold.contention import ProductOpening
from proofhold.core import Answer, Check, NeedKind
from proofhold.exchange import Exchange
from proofhold.job import PPM, Claim, Job, OnnxModel
from proofhold.keys import Signed, SigningKey
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor, Tensors
from proofhold.replay.opening import Opening
from proofhold.replay.products import pieces_of, read_pieces
from proofhold.replay.rerun import Rerunner
from proofhold.replay.segments import held_by_verifier, sent_with
from proofhold.replay.trace import Trace
from proofhold.sampling import draw_segment, seed

Run = Mapping[str, Tensor]


@dataclass(frozen=True)
class Committed:
    """A claim with the run that its provider committed to."""

    entry: Entry
    exchange: Exchange
    trace: Trace
    run: Run

    @property
    def lock(self) -> ReplayLock:
        assert self.entry.replay is not None
        return self.entry.replay

    @property
    def segment(self) -> int:
        """The segment that the fixture's secret draws."""
        return draw_segment(seed(SECRET, self.exchange.claim.digest), len(self.lock.segments))

    def opening(self, segment: int | None = None) -> Answer:
        """Open a segment as an honest provider does, whatever was committed to."""
        at = self.segment if segment is None else segment
        sent = {index: self.run[self.lock.leaves[index].name] for index in sent_with(self.lock, at)}
        opening = Opening.of(self.trace, sent, held_by_verifier(self.lock))
        return Answer(NeedKind.OPENING, opening.encode())

    def judged(self, *answers: Answer) -> Check:
        """What the backend says, once the secret is revealed."""
        backend = ReplayBackend(runner())
        given = (Answer(NeedKind.REVEAL, SECRET), *answers)
        return backend.check(None, self.exchange, self.entry, answers=given, now=NOW)


def job_on(entry: Entry, inputs: Tensors, **changes: Any) -> Job:
    """A job on a model that has a replay lock alone, always drawn."""
    assert entry.replay is not None
    terms = {
        "model": OnnxModel(entry.model, None, entry.replay.digest),
        "evidence_kinds": ("replay",),
        "sampling_rate_ppm": PPM,
    }
    return make_job(inputs, **(terms | changes))


def honest_run(entry: Entry, number: int = 0) -> tuple[Tensors, Run]:
    """An input of the domain, and every leaf of the model's run on it."""
    lock = entry.replay
    assert lock is not None
    inputs = draw(lock.inputs, number)
    cuts = [boundary.name for boundary in lock.boundaries]
    traced = Rerunner(entry, runner()).traced(NONCE, inputs, wanted=cuts)
    return Tensors(inputs), {t.name: t for t in (*inputs, *traced.cuts, *traced.outputs)}


def commit(
    entry: Entry,
    run: Run,
    inputs: Tensors,
    *,
    output: Tensors | None = None,
    leaves: tuple[Tensor, ...] | None = None,
    job: Job | None = None,
) -> Committed:
    """Sign a claim on a run; on another output than the run's, or with other leaves, if those are given."""
    lock = entry.replay
    assert lock is not None
    outputs = output or Tensors(tuple(run[spec.name] for spec in lock.outputs))
    document = job or job_on(entry, inputs)
    signed = Signed.new(document, BUYER, PROVIDER)
    committed = leaves or tuple(run[leaf.name] for leaf in lock.leaves)
    nonce = bytes.fromhex(document.nonce)
    trace = Trace.of(nonce, committed)
    claim = Claim(
        job=signed.digest,
        seq=0,
        amount=document.price,
        output=outputs.digest(nonce),
        trace_root=trace.root,
    )
    return Committed(entry, Exchange(signed, inputs, Signed.new(claim, PROVIDER), outputs), trace, run)


def honest(name: str = "chain", number: int = 0) -> Committed:
    entry = replay_models.entry(name)
    inputs, run = honest_run(entry, number)
    return commit(entry, run, inputs)


def with_weights(model: bytes, change: Callable[[Any], Any]) -> bytes:
    """The model with every matrix of weights changed."""
    parsed = onnx.ModelProto()
    parsed.ParseFromString(model)
    for tensor in parsed.graph.initializer:
        if len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
    data: bytes = parsed.SerializeToString(deterministic=True)
    return data


def half(weights: Any) -> Any:
    return weights.astype(np.float16).astype(np.float32)


def cheap(name: str = "chain", number: int = 0) -> Committed:
    """A whole run on half-precision weights, committed to as it was."""
    entry = replay_models.entry(name)
    lock = entry.replay
    assert lock is not None
    data = with_weights(replay_models.MODELS[name](), half)
    other = hashlib.sha256(data).hexdigest()
    cheaper = Entry(name, other, None, replace(lock, model=other), data)
    inputs, run = honest_run(cheaper, number)
    return commit(entry, run, inputs)


def nudged(tensor: Tensor, by: float = 0.01) -> Tensor:
    """The tensor with one element changed."""
    values = tensor.numpy().copy()
    values.flat[0] += by
    return Tensor.of(tensor.name, values)


def signed_results(
    exchange: Exchange, results: tuple[Tensor, ...], key: SigningKey = PROVIDER
) -> list[Answer]:
    """Sign for results as a provider does, whatever they are."""
    pieces = pieces_of(results)
    found = read_pieces(pieces)
    assert found is not None
    document = ProductOpening(job=exchange.job.digest, seq=0, claim=exchange.claim.digest, products=found[0])
    signed = Signed.new(document, key)
    return [Answer(NeedKind.OPENING, body) for body in (signed.encode(), *pieces)]
