"""The judge of a dispute: a pure function of a transcript and the model's file, which anyone repeats.

It follows what the provider signed: the claim's trace root to the opened leaves, the answer to its tensors,
the job to model and lock. Then it evaluates the operators behind the charged tensor in float64 and compares.
It convicts by a bound that no honest float32 run exceeds, or by a digest that the provider itself signed and
contradicts; by nothing else. The steps:

1. The documents are signed by whom they must be, and about one another.
2. Every opened leaf is in the trace, every tensor of the answer is the one that was signed.
3. The leaves are what the lock says they are, those of the input and of the output what job and claim say.
4. The region of the charged tensor is evaluated on the committed inputs, and compared within its bound.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from proofhold import canonical
from proofhold.canonical import Digest, Json, file_digest
from proofhold.core import Fault
from proofhold.job import OnnxModel
from proofhold.locks import Contract
from proofhold.payload import Tensor, Tensors
from proofhold.records import Record
from proofhold.replay.bounds.enclosure import NoBound
from proofhold.replay.compare import relative_l2
from proofhold.replay.contradiction import Comparison, compare, compare_one
from proofhold.replay.pinpoint import pinpoint
from proofhold.replay.regions import MAX_NODES, Graph, Region, entries_of
from proofhold.replay.trace import TraceHasher
from proofhold.replay.transcript import Transcript


class Judged(StrEnum):
    """What a transcript shows."""

    CONVICTED = "convicted"
    """The provider signed what no honest run gives."""
    ACQUITTED = "acquitted"
    """What was charged is what an honest run may give, and its segment within its tolerance."""
    UNDECIDED = "undecided"
    """Nobody can say: off by more than honest runs are and less than any might be; or there is no bound."""
    DISMISSED = "dismissed"
    """It is no case: not signed, not about this, not complete. Nothing follows from it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge found, with the code of why, and the numbers where there are any."""

    outcome: Judged
    code: str
    message: str
    fault: Fault = Fault.NOBODY
    operators: tuple[str, ...] = ()
    """The operators behind the charged tensor, in the model's order."""
    comparison: Comparison | None = None

    def to_json(self) -> Json:
        """Give what was found in words and codes; numbers that JSON does not know stand in the message."""
        return {
            "code": self.code,
            "fault": self.fault,
            "message": self.message,
            "operators": list(self.operators),
            "outcome": self.outcome,
        }

    @classmethod
    def read(cls, data: bytes) -> Judgement:
        """Read what `judge_task` wrote.

        Raises:
            Malformed: anything else.

        """
        record = Record(canonical.decode(data, max_bytes=2**20, what="judgement"), what="judgement")
        judgement = cls(
            outcome=record.choice("outcome", Judged),
            code=record.text("code"),
            message=record.text("message", max_chars=2**16),
            fault=record.choice("fault", Fault),
            operators=tuple(str(name) for name in record.items("operators", max_items=MAX_NODES)),
        )
        record.close()
        return judgement


class _Ended(Exception):
    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement.message)
        self.judgement = judgement


def judge(transcript: Transcript, graph: Graph, model: Digest) -> Judgement:
    """Judge a dispute.

    Args:
        transcript: from anyone.
        graph: of the published model.
        model: the SHA-256 of the file that the graph was parsed from.

    """
    try:
        _check_documents(transcript, model)
        committed = _check_tensors(transcript)
        _check_ends(transcript)
        judgement = _judge_charge(transcript, graph, committed)
    except _Ended as ended:
        judgement = ended.judgement
    by_verifier = transcript.charge.envelope.is_signed_by_exactly([transcript.job.document.verifier])
    if judgement.outcome in (Judged.ACQUITTED, Judged.UNDECIDED) and not by_verifier:
        # Anyone may convict. A case is lost, or left open, only by whom the job trusts to make it: else a
        # buyer would charge what has no bound and have its money back, or a provider itself, and be paid.
        text = f"it is not the verifier who charged it; {judgement.message}"
        return replace(judgement, outcome=Judged.DISMISSED, code="dispute.no_standing", message=text)
    return judgement


def judge_file(transcript: bytes, model: bytes) -> Judgement:
    """Judge the bytes of a transcript with those of a model.

    Raises:
        Malformed: either does not parse.

    """
    return judge(Transcript.decode(transcript), Graph.parse(model), file_digest(model))


def judge_task(transcript: bytes, model: bytes) -> bytes:
    """Judge in a worker: a task for a `Runner`."""
    return canonical.encode(judge_file(transcript, model).to_json())


def _check_documents(transcript: Transcript, model: Digest) -> None:
    """Compare who signed what, and about what (step 1)."""
    job, claim, charge = transcript.job.document, transcript.claim.document, transcript.charge.document
    answer = transcript.answer
    claim_digest = transcript.claim.digest
    reference = job.model
    checks = [
        (
            transcript.job.envelope.is_signed_by_exactly(job.signers),
            "job",
            "buyer and provider signed the job",
        ),
        (
            transcript.claim.envelope.is_signed_by_exactly([job.provider]),
            "claim",
            "the provider alone signed the claim",
        ),
        (claim.job == transcript.job.digest, "claim", "the claim is about this job"),
        (claim.trace_root is not None, "claim", "the claim commits to a trace"),
        (isinstance(reference, OnnxModel) and reference.onnx == model, "model", "the job names this model"),
        (transcript.lock.model == model, "lock", "the lock is about this model"),
        (
            isinstance(reference, OnnxModel) and reference.replay_lock == transcript.lock_digest,
            "lock",
            "the job names this lock",
        ),
        (charge.claim == claim_digest, "charge", "the charge is about this claim"),
        (
            charge.answer == (None if answer is None else answer.digest),
            "charge",
            "the charge is about this answer",
        ),
        (bool(transcript.charge.envelope.signers()), "charge", "somebody signed the charge"),
    ]
    if answer is not None:
        about = (answer.document.job, answer.document.seq, answer.document.claim)
        checks += [
            (
                answer.envelope.is_signed_by_exactly([job.provider]),
                "answer",
                "the provider alone signed the answer",
            ),
            (about == (claim.job, claim.seq, claim_digest), "answer", "the answer is about this claim"),
            (answer.document.segment < len(transcript.lock.segments), "answer", "the model has that segment"),
        ]
    for holds, what, expected in checks:
        if not holds:
            raise _dismissed(what, f"expected: {expected}")


def _check_tensors(transcript: Transcript) -> dict[str, Tensor]:
    """Tie every tensor to what the provider signed, and give them by name (steps 2 and 3)."""
    hasher = TraceHasher(bytes.fromhex(transcript.job.document.nonce))
    lock, root = transcript.lock, transcript.claim.document.trace_root
    if root is None or not transcript.opening.fits(root, hasher, {}):
        raise _dismissed("opening", "a leaf is not in the trace that the claim commits to")
    if transcript.opening.size != len(lock.leaves):
        text = f"the trace has {transcript.opening.size} leaves, the lock says {len(lock.leaves)}"
        raise _convicted("dispute.trace_form", text)
    committed: dict[str, Tensor] = {}
    for index, tensor in transcript.opened.items():
        leaf = lock.leaves[index]
        if (tensor.name, tensor.dtype, tensor.shape) != (leaf.name, leaf.dtype, leaf.shape):
            text = (
                f"leaf {index} is {tensor.name} {tensor.dtype}{list(tensor.shape)}, "
                f"the lock says {leaf.name} {leaf.dtype}{list(leaf.shape)}"
            )
            raise _convicted("dispute.trace_form", text)
        committed[tensor.name] = tensor
    leaves = {leaf.name for leaf in lock.leaves}
    for tensor in transcript.tensors:
        signed = None if transcript.answer is None else transcript.answer.document.hash_of(tensor.name)
        if signed != hasher.leaf(tensor).hex():
            raise _dismissed("tensor", f"{tensor.name} is not the tensor whose hash the provider signed")
        if tensor.name in leaves:
            # The claim came first: what the answer says of its leaves counts for nothing.
            raise _dismissed("tensor", f"{tensor.name} is a leaf of the trace, and not opened as one")
        committed[tensor.name] = tensor
    return committed


def _check_ends(transcript: Transcript) -> None:
    """Compare input and output leaves, where all are opened, with the digests of job and claim (step 3)."""
    lock, opened = transcript.lock, transcript.opened
    nonce = bytes.fromhex(transcript.job.document.nonce)
    first, last = len(lock.inputs), len(lock.leaves) - len(lock.outputs)
    for what, indices, expected in (
        ("input", range(first), transcript.job.document.input),
        ("output", range(last, len(lock.leaves)), transcript.claim.document.output),
    ):
        if all(index in opened for index in indices):
            got = Tensors(tuple(opened[index] for index in indices)).digest(nonce)
            if got != expected:
                text = f"the trace commits to an {what} of digest {got}, signed is {expected}"
                raise _convicted(f"dispute.{what}", text)


def _judge_charge(transcript: Transcript, graph: Graph, committed: Mapping[str, Tensor]) -> Judgement:
    """Evaluate what lies behind the charged tensor and compare (step 4)."""
    target, element = transcript.charge.document.tensor, transcript.charge.document.element
    if target not in committed:
        raise _dismissed("incomplete", f"the charged tensor {target[:80]} is not in the transcript")
    if graph.producer(target) is None:
        raise _dismissed("incomplete", f"{target[:80]} is computed by no operator")
    if transcript.lock.contract is not Contract.FLOAT32:
        raise _undecided("dispute.contract", f"the contract is {transcript.lock.contract}, not float32")
    try:
        region = graph.region(target, _named(transcript))
        operators = tuple(graph.nodes[place].op_type for place in region.nodes)
        missing = sorted(set(region.entries) - committed.keys())
        if missing:
            raise _dismissed("incomplete", f"{', '.join(missing)[:200]} is not in the transcript")
        comparison, shape = _compare(graph, region, committed, element)
    except NoBound as error:
        raise _undecided("dispute.no_bound", str(error)) from error
    if comparison is None:
        if element is not None and element >= committed[target].numpy().size:
            raise _dismissed("incomplete", f"{target[:80]} has no element {element}")
        form = f"{committed[target].dtype}{list(committed[target].shape)}"
        text = f"{target} is signed as {form}, the model gives {list(shape)}"
        return Judgement(Judged.CONVICTED, "dispute.form", text, Fault.PROVIDER, operators)
    return _compared(transcript, graph, committed, region, operators, comparison)


def _compare(
    graph: Graph, region: Region, committed: Mapping[str, Tensor], element: int | None
) -> tuple[Comparison | None, tuple[int, ...]]:
    """Compare the charged tensor with its region, at one element alone where that can be done."""
    tensor = committed[region.target]
    if element is not None and element < tensor.numpy().size:
        narrowed = pinpoint(graph, region, entries_of(region, committed), element)
        if narrowed is not None:
            same = tensor.shape == narrowed.shape
            return compare_one(tensor, narrowed.enclosure, element) if same else None, narrowed.shape
    enclosure = graph.enclose(region, committed)
    return compare(tensor, enclosure, element), enclosure.value.shape


def _compared(
    transcript: Transcript,
    graph: Graph,
    committed: Mapping[str, Tensor],
    region: Region,
    operators: tuple[str, ...],
    comparison: Comparison,
) -> Judgement:
    c = comparison
    numbers = (
        f"element {c.element}: signed {c.committed:.9g}, its inputs give {c.computed:.9g} ± {c.bound:.3g}"
    )
    if c.is_contradiction:
        text = f"{region.target} contradicts its own inputs, {numbers}"
        code = "dispute.contradiction"
        return Judgement(Judged.CONVICTED, code, text, Fault.PROVIDER, operators, comparison)
    if region.is_coarse or transcript.answer is None:
        text = f"{region.target} lies {region.products} products behind what was shown; {numbers}"
        return Judgement(Judged.UNDECIDED, "dispute.coarse", text, Fault.NOBODY, operators, comparison)
    residual = _residual(transcript, graph, committed, transcript.answer.document.segment)
    tolerance = transcript.lock.segments[transcript.answer.document.segment].relative_l2
    text = (
        f"{region.target} is within its bound, {numbers}; its segment is off by {residual:.3g} in relative L2"
    )
    if not residual <= tolerance:
        # More than honest runs differ by, and less than they might: nobody is paid, nothing is taken.
        text = f"{text}, expected at most {tolerance:g}"
        return Judgement(Judged.UNDECIDED, "dispute.tolerance", text, Fault.NOBODY, operators, comparison)
    return Judgement(Judged.ACQUITTED, "dispute.within_bound", text, Fault.NOBODY, operators, comparison)


def _residual(transcript: Transcript, graph: Graph, committed: Mapping[str, Tensor], index: int) -> float:
    """Give how far the ends of a segment are from what float64 makes of its beginning: the furthest."""
    segment = transcript.lock.segments[index]
    missing = sorted({*segment.inputs, *segment.outputs} - committed.keys())
    if missing:
        raise _dismissed("incomplete", f"{', '.join(missing)[:200]} is not in the transcript")
    taken = {name: committed[name] for name in segment.inputs}
    distances = []
    for name in segment.outputs:
        try:
            value = graph.enclose(graph.region(name, taken), taken).value
        except NoBound as error:
            raise _undecided("dispute.no_bound", str(error)) from error
        norm = transcript.lock.norms.get(name, 0.0)
        distances.append(relative_l2(committed[name], Tensor.of(name, np.asarray(value)), norm))
    return max(distances)


def _named(transcript: Transcript) -> Collection[str]:
    """Name everything that the provider committed to, in the transcript or not."""
    answer = transcript.answer
    named = () if answer is None else tuple(tensor.name for tensor in answer.document.tensors)
    return {*(leaf.name for leaf in transcript.lock.leaves), *named}


def _dismissed(what: str, message: str) -> _Ended:
    return _Ended(Judgement(Judged.DISMISSED, f"dispute.{what}", message))


def _undecided(code: str, message: str) -> _Ended:
    return _Ended(Judgement(Judged.UNDECIDED, code, message))


def _convicted(code: str, message: str) -> _Ended:
    return _Ended(Judgement(Judged.CONVICTED, code, message, Fault.PROVIDER))


__all__ = ["Judged", "Judgement", "judge", "judge_file", "judge_task"]
