"""Looking for what contradicts itself in a segment's tensors: an accuser's work, and a provider's own check.

Every tensor is compared with what its own region gives for the others. If the segment's end is not what its
beginning gives, at least one of these comparisons must fail: were each within its bound, the end would be
what an honest run may give (docs/dispute.md, "Why one of them is caught").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proofhold.contention import Charge, SignedCharge, SignedDisputeAnswer
from proofhold.errors import Misuse
from proofhold.job import SignedClaim, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor
from proofhold.replay.bounds.enclosure import NoBound
from proofhold.replay.contradiction import Comparison, compare
from proofhold.replay.opening import Opening
from proofhold.replay.regions import Graph, Region
from proofhold.replay.trace import Trace, TraceHasher
from proofhold.replay.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Examined:
    """One tensor against its region: how far it is off, or why nobody can say."""

    tensor: str
    region: Region | None
    comparison: Comparison | None
    """None where there is no bound, or the tensor has another form than the model gives it."""
    unbounded: str = ""

    @property
    def ratio(self) -> float:
        """How many times the bound it is off; infinite for a wrong form, 0 where there is no bound."""
        if self.comparison is not None:
            return self.comparison.ratio
        return 0.0 if self.unbounded else float("inf")


def examine(graph: Graph, targets: Sequence[str], tensors: Mapping[str, Tensor]) -> Iterator[Examined]:
    """Compare tensors with what their regions give, in the order of `targets`.

    Args:
        graph: the published model.
        targets: which tensors: those of a segment's answer, and its ends.
        tensors: everything that is committed to: the targets, and what the segment begins with.

    """
    for target in targets:
        region = None
        try:
            region = graph.region(target, tensors)
            yield Examined(target, region, compare(tensors[target], graph.enclose(region, tensors)))
        except NoBound as error:
            yield Examined(target, region, None, str(error))


def objections(
    answer: SignedDisputeAnswer, claim: SignedClaim, lock: ReplayLock, graph: Graph, nonce: bytes
) -> str:
    """Say why an answer is none, though the provider signed it; empty where it is one.

    Its leaves must give the claim's root, it must name the ends of its segment as the claim does, and leave
    no more than one product in one piece.
    """
    document = answer.document
    trace = Trace(TraceHasher(nonce), tuple(bytes.fromhex(leaf) for leaf in document.leaves))
    if trace.root != claim.document.trace_root or len(trace.leaves) != len(lock.leaves):
        return "its leaves do not give the root that the claim commits to"
    if document.segment >= len(lock.segments):
        return f"the model has {len(lock.segments)} segments, it answers for segment {document.segment}"
    segment = lock.segments[document.segment]
    ends = {*segment.inputs, *segment.outputs}
    for leaf, hashed in zip(lock.leaves, document.leaves, strict=True):
        if leaf.name in ends and document.hash_of(leaf.name) != hashed:
            return f"it lacks {leaf.name}, at an end of the segment, as the claim commits to it"
    named = {tensor.name for tensor in document.tensors} | {leaf.name for leaf in lock.leaves}
    for target in sorted(
        {*(tensor.name for tensor in document.tensors), *segment.outputs} - {*segment.inputs}
    ):
        try:
            region = graph.region(target, named)
        except NoBound:
            continue  # no tensor of the model: it is not looked at
        if region.is_coarse:
            return f"{target} lies {region.products} products behind what it shows, expected at most one"
    return ""


def charge(
    job: SignedJob,
    claim: SignedClaim,
    lock: ReplayLock,
    graph: Graph,
    answer: SignedDisputeAnswer,
    tensors: Sequence[Tensor],
    key: SigningKey,
    *,
    target: str | None = None,
) -> tuple[Transcript, Examined]:
    """Look for the worst contradiction in an answer, charge it, and put the transcript together.

    Args:
        job: of the claim.
        claim: what is disputed.
        lock: of the model.
        graph: the published model.
        answer: the provider's.
        tensors: those that the answer names, in its order.
        key: the accuser's.
        target: charge this tensor, whatever the others are like.

    Raises:
        Misuse: no such tensor; or the answer names nothing that can be charged.

    """
    document = answer.document
    segment = lock.segments[document.segment]
    trace = Trace(
        TraceHasher(bytes.fromhex(job.document.nonce)), tuple(bytes.fromhex(leaf) for leaf in document.leaves)
    )
    by_name = {tensor.name: tensor for tensor in tensors}
    targets = [name for name in by_name if name not in segment.inputs and graph.producer(name) is not None]
    if target is not None:
        targets = [name for name in targets if name == target]
    if not targets:
        raise Misuse(f"the answer names {target[:80] if target else 'nothing'} that could be charged")
    found = worst(list(examine(graph, targets, by_name)))
    element = None if found.comparison is None else found.comparison.element
    accusation = Charge(claim=claim.digest, answer=answer.digest, tensor=found.tensor, element=element)
    signed = Signed.new(accusation, key)
    return gather(job, claim, lock, graph, answer, signed, trace, by_name), found


def worst(examined: Sequence[Examined]) -> Examined:
    """Give the one to charge: the furthest off; the first of those without a bound if all else is well."""
    highest = max(examined, key=lambda one: one.ratio)
    if highest.ratio > 1.0:
        return highest
    return next((one for one in examined if one.unbounded), highest)


def gather(
    job: SignedJob,
    claim: SignedClaim,
    lock: ReplayLock,
    graph: Graph,
    answer: SignedDisputeAnswer | None,
    charge: SignedCharge,
    trace: Trace,
    tensors: Mapping[str, Tensor],
) -> Transcript:
    """Put the transcript of a charge together: the charged tensor, and what its region takes, no more.

    Args:
        job: names model, lock and verifier.
        claim: commits to the trace.
        lock: says which leaf is which tensor.
        graph: the published model.
        answer: what the provider answered, if it did.
        charge: names the tensor.
        trace: all hashes of the claim's leaves, as an answer lists them.
        tensors: at least those that are used, by name.

    Raises:
        Misuse: a tensor that is used is not there.
        NoBound: the charged tensor takes what nobody committed to.

    """
    named = () if answer is None else tuple(t.name for t in answer.document.tensors)
    places = {leaf.name: index for index, leaf in enumerate(lock.leaves)}
    target = charge.document.tensor
    used = {target, *graph.region(target, {*places, *named}).entries}
    if answer is not None:
        # Its ends tell whether the segment as a whole is within its tolerance, should the charge fail.
        segment = lock.segments[answer.document.segment]
        used |= {*segment.inputs, *segment.outputs}
    missing = sorted(used - tensors.keys())
    if missing:
        raise Misuse(f"the transcript would lack {', '.join(missing)[:200]}")
    opened = {places[name]: tensors[name] for name in used if name in places}
    return Transcript(
        job=job,
        claim=claim,
        lock_file=lock.encode(),
        charge=charge,
        opening=Opening.of(trace, opened),
        answer=answer,
        tensors=tuple(tensors[name] for name in sorted(used - places.keys())),
    )


__all__ = ["Examined", "charge", "examine", "gather", "objections", "worst"]
