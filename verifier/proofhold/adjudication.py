"""Settling a dispute: what an answer and a transcript do to a hold (PROTOCOL P12).

The escrow keeps them and knows nothing of tensors; here they are read, judged in a worker, and compared with
the hold's own record (P4). Only what was recomputed in this very process moves anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proofhold.canonical import Digest
from proofhold.catalogue import Catalogue, Entry
from proofhold.contention import Acknowledgement, SignedAcknowledgement, SignedDisputeAnswer
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Adjudged, Adjudication, Escrow, HoldRecord
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import State
from proofhold.job import OnnxModel, SignedClaim
from proofhold.keys import Signed, SigningKey
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


def take_answer(
    answer: SignedDisputeAnswer,
    tensors: Sequence[Tensor],
    *,
    catalogue: Catalogue,
    escrow: Escrow,
    key: SigningKey,
    clock: Clock = system_clock,
) -> SignedAcknowledgement:
    """Have the escrow record a provider's answer, and acknowledge it: what a settlement service does (P12).

    Args:
        answer: the provider's.
        tensors: those whose hashes it signs.
        catalogue: holds the model that the job names.
        escrow: keeps both.
        key: the job's verifier's.
        clock: unix seconds.

    Raises:
        Misuse: the key is not that of the job's verifier.
        Refused: as `record_answer`.

    """
    _require_verifier(escrow.hold(answer.document.job), key)
    record_answer(answer, tensors, catalogue=catalogue, escrow=escrow, clock=clock)
    return acknowledge_answer(answer.document.job, escrow=escrow, key=key, seq=answer.document.seq)


def acknowledge_answer(
    hold_id: Digest, *, escrow: Escrow, key: SigningKey, seq: int = 0
) -> SignedAcknowledgement:
    """Sign that a dispute's answer is on record, and since when: the same words whenever they are asked for.

    Raises:
        Misuse: the key is not that of the job's verifier.
        Refused: ``answer.missing``, none is on record.

    """
    _require_verifier(escrow.hold(hold_id), key)
    dispute = escrow.dispute(hold_id, seq)
    if dispute.answer is None or dispute.answered_at is None:
        raise Refused("answer.missing", "no answer to a challenge is on record")
    document = Acknowledgement(job=hold_id, seq=seq, opening=dispute.answer.digest, at=dispute.answered_at)
    return Signed.new(document, key)


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


def _require_verifier(record: HoldRecord, key: SigningKey) -> None:
    verifier = record.job.document.verifier
    if key.public != verifier:
        raise Misuse(f"the key {key.public} is not the verifier's that the job names, {verifier}")


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


__all__ = ["Settled", "acknowledge_answer", "adjudicate", "record_answer", "take_answer"]
