"""Disputes in the books: the challenge, the answer with its tensors, and how a transcript ended it (P12).

Every function works inside of the caller's transaction. Whether a transcript convicts is not known here:
whoever hands one in has replayed it (`settlement.adjudicate`), and anybody can replay it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from proofhold.canonical import Digest, file_digest
from proofhold.contention import (
    MAX_ANSWER_BYTES,
    Challenge,
    DisputeAnswer,
    SignedChallenge,
    SignedDisputeAnswer,
)
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow import guarding, moves, timers
from proofhold.escrow.books import Books
from proofhold.escrow.escrow import MAX_TRANSCRIPT_BYTES, Adjudged, Adjudication, DisputeRecord
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import REFUND_SIDE, RELEASE_SIDE, BondEvent, BondState, Event
from proofhold.escrow.tables import ADJUDICATION, DISPUTE, DOCUMENT
from proofhold.job import Claim
from proofhold.keys import Signed
from proofhold.payload import Tensor
from proofhold.replay.packed import pack_tensors, unpack_tensors
from proofhold.replay.trace import TraceHasher

_EVENTS = {
    Adjudged.CONVICTED: Event.ADJUDICATED_REFUND,
    Adjudged.ACQUITTED: Event.ADJUDICATED_RELEASE,
    Adjudged.UNDECIDED: Event.ADJUDICATED_UNDECIDED,
}


def challenge(books: Books, signed: SignedChallenge, *, now: int) -> None:
    """Record the verifier's challenge: from now the provider has `answer_s` to answer.

    Raises:
        Refused: see `Escrow.challenge`.

    """
    document = signed.document
    capture = moves.load(books, document.job, document.seq)
    if not signed.envelope.is_signed_by_exactly([capture.job.verifier]):
        raise Refused("challenge.signature", "the challenge does not carry the verifier's signature alone")
    recorded = _recorded_claim(books, document.job, document.seq)
    if document.claim != recorded:
        raise Refused("challenge.claim", f"it names the claim {document.claim}, recorded is {recorded}")
    first = find(books, document.job, document.seq, "challenge")
    if first == signed.encode():
        return
    if first is not None:
        # A second one would start the clocks anew, and the dispute would never end.
        raise Refused("challenge.repeated", "this capture was challenged before", Fault.VERIFIER)
    capture = timers.advance(books, capture, now=now)
    moves.move_capture(books, capture, Event.CHALLENGE, now=now, cause=signed.digest)
    _keep(books, document.job, document.seq, "challenge", signed.digest, signed.encode(), now)


def answer(books: Books, signed: SignedDisputeAnswer, tensors: Sequence[Tensor], *, now: int) -> None:
    """Record the provider's answer, once the tensors that came with it are those that it signs.

    Raises:
        Refused: see `Escrow.answer`.

    """
    document = signed.document
    capture = moves.load(books, document.job, document.seq)
    if not signed.envelope.is_signed_by_exactly([capture.job.provider]):
        raise Refused("answer.signature", "the answer does not carry the provider's signature alone")
    recorded = _recorded_claim(books, document.job, document.seq)
    if document.claim != recorded:
        raise Refused("answer.claim", f"it names the claim {document.claim}, recorded is {recorded}")
    first = find(books, document.job, document.seq, "answer")
    if first == signed.encode():
        return
    if first is not None:
        raise Refused("answer.repeated", "the first answer is final", Fault.PROVIDER)
    asked = find(books, document.job, document.seq, "challenge")
    segment = None if asked is None else Signed.decode(Challenge, asked).document.segment
    if segment != document.segment:
        text = f"it answers for segment {document.segment}, challenged is {segment}"
        raise Refused("answer.segment", text)
    _require_tensors(signed, tensors, bytes.fromhex(capture.job.nonce))
    capture = timers.advance(books, capture, now=now)
    moves.move_capture(books, capture, Event.ANSWER, now=now, cause=signed.digest)
    packed = pack_tensors(tensors)
    _keep(books, document.job, document.seq, "answer", signed.digest, signed.encode(), now)
    _keep(books, document.job, document.seq, "tensors", file_digest(packed), packed, now)


def adjudicate(
    books: Books, hold: Digest, seq: int, outcome: Adjudged, transcript: bytes, *, now: int
) -> Adjudication:
    """End a dispute as a transcript says: the first one for good.

    Raises:
        Refused: see `Escrow.adjudicate`.

    """
    if not 0 < len(transcript) <= MAX_TRANSCRIPT_BYTES:
        raise Misuse(f"transcript: {len(transcript)} bytes, expected 1 to {MAX_TRANSCRIPT_BYTES}")
    digest = file_digest(transcript)
    capture = moves.load(books, hold, seq)
    stands = find_adjudication(books, hold, seq)
    if stands is not None:
        if (stands.outcome, stands.transcript_digest) == (outcome, digest):
            return stands
        raise Refused("escrow.adjudicated", f"another transcript has {stands.outcome} the provider")
    capture = timers.advance(books, capture, now=now)
    # The database slashes nothing without a transcript on file.
    books.insert(ADJUDICATION, hold, seq, outcome.value, digest, transcript, now)
    event = _EVENTS[outcome]
    if capture.state in RELEASE_SIDE and capture.bond_state is BondState.UNBONDING:
        # The provider was paid, and then shown to have cheated: its bond is still there to answer for it.
        if outcome is Adjudged.CONVICTED:
            moves.move_bond(books, capture, BondEvent.SLASH, now=max(now, capture.changed_at))
    elif capture.state in REFUND_SIDE and capture.bond_state is BondState.FROZEN:
        # The buyer has the money back already (a dispute of no length): what is left to decide is the bond.
        bond = BondEvent.SLASH if outcome is Adjudged.CONVICTED else BondEvent.FREE
        moves.move_bond(books, capture, bond, now=max(now, capture.changed_at))
        if outcome is Adjudged.ACQUITTED:
            guarding.clear(books, hold)
    else:
        moves.move_capture(books, capture, event, now=now, cause=digest)
    return Adjudication(outcome, digest, transcript, now)


def record(books: Books, hold: Digest, seq: int) -> DisputeRecord:
    """Read everything about one dispute."""
    challenged, answered, tensors = (
        find(books, hold, seq, kind) for kind in ("challenge", "answer", "tensors")
    )
    return DisputeRecord(
        challenge=None if challenged is None else Signed.decode(Challenge, challenged),
        answer=None if answered is None else Signed.decode(DisputeAnswer, answered),
        answered_at=(books.find(DISPUTE, hold, seq, "answer") or {}).get("at"),
        tensors=() if tensors is None else unpack_tensors(tensors, max_bytes=2 * MAX_ANSWER_BYTES),
        adjudication=find_adjudication(books, hold, seq),
    )


def find(books: Books, hold: Digest, seq: int, kind: str) -> bytes | None:
    """Read what was said of one kind in a dispute, or None."""
    row = books.find(DISPUTE, hold, seq, kind)
    return None if row is None else bytes(row["body"])


def find_adjudication(books: Books, hold: Digest, seq: int) -> Adjudication | None:
    """Read how a transcript ended a capture's dispute, or None."""
    row = books.find(ADJUDICATION, hold, seq)
    if row is None:
        return None
    return Adjudication(
        Adjudged(row["outcome"]), row["transcript_digest"], bytes(row["transcript"]), row["at"]
    )


def _recorded_claim(books: Books, hold: Digest, seq: int) -> Digest | None:
    row = books.find(DOCUMENT, hold, seq, "claim")
    return None if row is None else Signed.decode(Claim, bytes(row["body"])).digest


def _require_tensors(signed: SignedDisputeAnswer, tensors: Sequence[Tensor], nonce: bytes) -> None:
    size = sum(len(tensor.data) for tensor in tensors)
    if size > MAX_ANSWER_BYTES:
        text = f"{size} bytes of tensors, expected at most {MAX_ANSWER_BYTES}"
        raise Refused("answer.tensors", text, Fault.PROVIDER)
    hasher = TraceHasher(nonce)
    got = [(tensor.name, hasher.leaf(tensor).hex()) for tensor in tensors]
    if got != [(named.name, named.hash) for named in signed.document.tensors]:
        # Anybody may have put them there: the answer stays open until the true ones come (P1).
        raise Refused("answer.tensors", "the tensors are not, one by one, those that it signs")


def _keep(books: Books, hold: Digest, seq: int, kind: str, digest: Digest, body: bytes, now: int) -> None:
    books.insert(DISPUTE, hold, seq, kind, digest, body, now)


__all__ = ["adjudicate", "answer", "challenge", "find", "find_adjudication", "record"]
