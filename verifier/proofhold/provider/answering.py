"""Answering a challenge: show every step of one segment, so that it agrees with what the claim committed to.

The claim was made by a run that fuses operators; the answer is one that does not. Both are honest, and their
last bits differ. So the tensors just before the segment's end may have to be left out: then the end is judged
in one piece with the product before it, whose bound covers the difference. What is handed in is examined
first, by the judge's own code: a provider that is honest knows that it cannot be convicted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from proofhold.catalogue import Entry
from proofhold.contention import (
    MAX_ANSWER_TENSORS,
    Challenge,
    DisputeAnswer,
    NamedHash,
    SignedChallenge,
    SignedDisputeAnswer,
)
from proofhold.errors import Misuse, ProofholdError
from proofhold.exchange import Exchange
from proofhold.keys import Signed, SigningKey
from proofhold.locks import ReplayLock, Segment
from proofhold.payload import Tensor, Tensors
from proofhold.replay.accusation import examine
from proofhold.replay.bounds.rules import PRODUCTS
from proofhold.replay.regions import Graph
from proofhold.replay.rerun import Rerunner
from proofhold.replay.steps import run_stepwise
from proofhold.replay.trace import Trace
from proofhold.runner import Runner


class NoAnswer(ProofholdError):
    """No answer agrees with what was claimed: the committed ends are not what an honest run gives."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A signed answer, and the tensors that go with it, in its order."""

    document: SignedDisputeAnswer
    tensors: tuple[Tensor, ...]
    ratio: float
    """How far the furthest of them is off, in units of its bound: at most 1."""


def answer_exchange(
    challenge: SignedChallenge, exchange: Exchange, entry: Entry, key: SigningKey, *, runner: Runner
) -> Answered:
    """Answer a challenge of our claim: run the model once more for its cuts, and the segment step by step.

    Args:
        challenge: names the segment.
        exchange: ours: the job, its input, the claim and its output.
        entry: the catalogue's entry of the job's model.
        key: ours.
        runner: where the model runs.

    Raises:
        Misuse: the challenge is of another claim, the claim has no trace, or a run gives another trace here.
        NoAnswer: no run made here agrees with what was claimed.
        RunnerError: no result.

    """
    lock, root = entry.replay, exchange.claim.document.trace_root
    if challenge.document.claim != exchange.claim.digest:
        raise Misuse(
            f"the challenge is of the claim {challenge.document.claim}, ours is {exchange.claim.digest}"
        )
    if lock is None or root is None or not isinstance(exchange.input, Tensors):
        raise Misuse("this claim commits to no trace: there is nothing to answer for")
    if challenge.document.segment >= len(lock.segments):
        raise Misuse(f"segment {challenge.document.segment}, expected 0 to {len(lock.segments) - 1}")
    segment = lock.segments[challenge.document.segment]
    cuts = [boundary.name for boundary in lock.boundaries]
    traced = Rerunner(entry, runner).traced(
        bytes.fromhex(exchange.job.document.nonce), exchange.input.items, wanted=cuts
    )
    if traced.trace.root != root:
        raise Misuse(f"running again gives the root {traced.trace.root}, the claim has {root}")
    run = {tensor.name: tensor for tensor in (*exchange.input.items, *traced.cuts, *traced.outputs)}
    model = entry.model_bytes()
    taken = [run[name] for name in segment.inputs]
    return answer_challenge(
        challenge,
        graph=Graph.parse(model),
        lock=lock,
        trace=traced.trace,
        ends={name: run[name] for name in (*segment.inputs, *segment.outputs)},
        runs=(run_stepwise(runner, model, lock, segment, taken, fused=fused) for fused in (False, True)),
        key=key,
    )


def answer_challenge(
    challenge: SignedChallenge,
    *,
    graph: Graph,
    lock: ReplayLock,
    trace: Trace,
    ends: Mapping[str, Tensor],
    runs: Iterable[Mapping[str, Tensor]],
    key: SigningKey,
) -> Answered:
    """Choose what to show of a segment, and sign it.

    Args:
        challenge: names the segment.
        graph: the published model.
        lock: says where the segment lies.
        trace: the hashes of all leaves of the claim's run.
        ends: the committed tensors that the segment takes and gives, by name.
        runs: what running it again gave (`replay.steps`), in the order in which to try them.
        key: the provider's.

    Raises:
        NoAnswer: nothing that these runs gave agrees with the committed ends.

    """
    document = challenge.document
    segment = lock.segments[document.segment]
    for steps, left_out in itertools.product(runs, tuple(candidates(graph, segment))):
        shown = {
            name: tensor
            for name, tensor in steps.items()
            if name not in ends and name not in left_out and not graph.is_fixed(name, segment.inputs)
        }
        if len(shown) + len(ends) > MAX_ANSWER_TENSORS:
            continue
        found = list(examine(graph, [*shown, *segment.outputs], {**shown, **ends}))
        coarse = any(one.region is not None and one.region.is_coarse for one in found)
        ratio = max((one.ratio for one in found), default=0.0)
        if ratio <= 1.0 and not coarse:
            return Answered(*sign_answer(document, trace, {**shown, **ends}, key), ratio)
    raise NoAnswer(f"segment {document.segment}: the committed ends contradict every run of it made here")


def candidates(graph: Graph, segment: Segment) -> Iterator[frozenset[str]]:
    """Give what to leave out, the least first: nothing, then what lies behind the last products."""
    yield frozenset()
    tail = _tail(graph, segment)
    if tail:
        yield tail


def _tail(graph: Graph, segment: Segment) -> frozenset[str]:
    """Name the tensors that lead from the last products to the ends of a segment, and nowhere else."""
    places = graph.between(segment.outputs, segment.inputs)
    readers: dict[str, set[int]] = {}
    for place in places:
        for name in graph.nodes[place].input:
            readers.setdefault(name, set()).add(place)
    inside: set[int] = set()
    tail: set[str] = set()
    waiting = list(segment.outputs)
    while waiting:
        name = waiting.pop()
        maker = next((place for place in places if name in graph.nodes[place].output), None)
        if maker is None or name in segment.inputs:
            continue
        inside.add(maker)
        if graph.nodes[maker].op_type not in PRODUCTS:
            for read in graph.nodes[maker].input:
                if read and read not in tail and readers[read] <= inside:
                    tail.add(read)
                    waiting.append(read)
    return frozenset(tail - set(segment.inputs) - set(segment.outputs))


def sign_answer(
    challenge: Challenge, trace: Trace, tensors: Mapping[str, Tensor], key: SigningKey
) -> tuple[SignedDisputeAnswer, tuple[Tensor, ...]]:
    """Sign the hashes of tensors as the answer to a challenge, and give them in its order."""
    shown = tuple(tensors[name] for name in sorted(tensors))
    document = DisputeAnswer(
        job=challenge.job,
        seq=challenge.seq,
        claim=challenge.claim,
        segment=challenge.segment,
        leaves=tuple(leaf.hex() for leaf in trace.leaves),
        tensors=tuple(NamedHash(tensor.name, trace.hasher.leaf(tensor).hex()) for tensor in shown),
    )
    return Signed.new(document, key), shown
