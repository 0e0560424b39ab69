"""Settling a dispute: what an answer and a transcript do to a hold (PROTOCOL P12).

The escrow keeps them and knows nothing of tensors; here they are read, judged in a worker, and compared with
the hold's own record (P4). Only what was recomputed in this very process moves anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proofhold.canonical import Digest
from proofhold.catalogue import Catalogue, Entry
from proofhold.contention import SignedDisputeAnswer
from proofhold.core import Fault
from proofhold.escrow.escrow import Adjudged, Adjudication, Escrow, HoldRecord
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import State
from proofhold.job import OnnxModel, SignedClaim
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor
from proofhold.replay.accusation import objections
from proofhold.replay.judge import Judged, Judgement, judge_task
from proofhold.replay.regions import Graph
from proofhold.replay.transcript import Transcript
from proofhold.runner import Runner
from proofhold.settlement import Clock, system_clock


@dataclass(frozen=True, slots=True)
class Settled:
    """What a transcript showed, and how it ended the dispute; `adjudication` is None where it is no case."""

    judgement: Judgement
    adjudication: Adjudication | None
    state: State
    """Where the capture stands now."""


def record_answer(
    answer: SignedDisputeAnswer,
    tensors: Sequence[Tensor],
    *,
    catalogue: Catalogue,
    escrow: Escrow,
    clock: Clock = system_clock,
) -> HoldRecord:
    """Have the escrow record a provider's answer, if it is one.

    An answer that hides what it was asked for is none: the clock of the challenge goes on.

    Raises:
        Refused: ``answer.none``, it is no answer to the challenge; ``dispute.model``, the catalogue lacks
            the model or its lock; or the escrow's own reasons.

    """
    record = escrow.hold(answer.document.job)
    claim = _claim_of(record, answer.document.seq)
    entry, lock = _entry_of(record, catalogue)
    nonce = bytes.fromhex(record.job.document.nonce)
    why = objections(answer, claim, lock, Graph.parse(entry.model_bytes()), nonce)
    if why:
        raise Refused("answer.none", f"this answers nothing: {why}", Fault.PROVIDER)
    return escrow.answer(answer, tensors, now=clock())


def adjudicate(
    transcript: bytes,
    *,
    catalogue: Catalogue,
    escrow: Escrow,
    runner: Runner,
    clock: Clock = system_clock,
) -> Settled:
    """Replay a transcript and let it end the dispute that it is about. Twice is as good as once.

    Args:
        transcript: a file, from anyone.
        catalogue: holds the model that its job names.
        escrow: holds the money.
        runner: where it is judged.
        clock: unix seconds.

    Raises:
        Malformed: it does not parse.
        Refused: ``dispute.claim``, another claim is recorded; ``dispute.answer``, it acquits or leaves open
            on another answer than the recorded one; ``dispute.model``; or the escrow's own reasons.
        RunnerError: it was not judged.

    """
    read = Transcript.decode(transcript)
    record = escrow.hold(read.job.digest)
    seq = read.claim.document.seq
    claim = _claim_of(record, seq)
    if claim.digest != read.claim.digest:
        text = f"it is about the claim {read.claim.digest}, recorded is {claim.digest}"
        raise Refused("dispute.claim", text)
    entry, _ = _entry_of(record, catalogue)
    judgement = Judgement.read(runner.run(judge_task, transcript, entry.model_bytes()))
    if judgement.outcome is Judged.DISMISSED:
        return Settled(judgement, None, record.capture(seq).state)
    if judgement.outcome is not Judged.CONVICTED:
        _require_recorded_answer(escrow, record.id, seq, read)
    outcome = Adjudged(judgement.outcome.value)
    adjudication = escrow.adjudicate(record.id, seq, outcome, transcript=transcript, now=clock())
    return Settled(judgement, adjudication, escrow.hold(record.id).capture(seq).state)


def _require_recorded_answer(escrow: Escrow, hold: Digest, seq: int, transcript: Transcript) -> None:
    recorded = escrow.dispute(hold, seq).answer
    named = None if transcript.answer is None else transcript.answer.digest
    if recorded is None or recorded.digest != named:
        # A provider could sign a second, harmless one; a contradiction counts in any that it signed.
        text = f"it is about the answer {named}, recorded is {None if recorded is None else recorded.digest}"
        raise Refused("dispute.answer", text)


def _claim_of(record: HoldRecord, seq: int) -> SignedClaim:
    claim = record.capture(seq).claim
    if claim is None:
        raise Refused("escrow.not_claimed", f"no claim on capture {seq} is recorded")
    return claim


def _entry_of(record: HoldRecord, catalogue: Catalogue) -> tuple[Entry, ReplayLock]:
    reference = record.job.document.model
    entry = catalogue.by_digest(reference.onnx) if isinstance(reference, OnnxModel) else None
    if (
        entry is None
        or entry.replay is None
        or not isinstance(reference, OnnxModel)
        or entry.replay.digest != reference.replay_lock
    ):
        text = "the job's model, with the replay lock that it names, is not in this catalogue"
        raise Refused("dispute.model", text, Fault.VERIFIER)
    return entry, entry.replay


__all__ = ["Settled", "adjudicate", "record_answer"]
