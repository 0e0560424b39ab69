"""Reading the escrow: records of holds, the log of moves, and the audit of the books against themselves."""

from __future__ import annotations

from proofhold.canonical import Digest
from proofhold.escrow.books import Books
from proofhold.escrow.driver import Row, Transaction
from proofhold.escrow.escrow import (
    BondRecord,
    CaptureRecord,
    Decision,
    HoldRecord,
    Ruling,
    Transition,
)
from proofhold.escrow.moves import Capture, job_of, read_claim, read_job
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import BondState, State
from proofhold.escrow.tables import DOCUMENT, HOLD
from proofhold.job import SignedClaim

# A dispute may be followed by a release or a refund, and nothing by anything else.
_DECISIONS = (
    "SELECT * FROM decision WHERE hold = ? AND seq = ?"
    " ORDER BY at, CASE ruling WHEN 'dispute' THEN 0 ELSE 1 END"
)
_TRANSITION = "SELECT hold, seq, subject, source, event, target, at, cause FROM transition"


def hold_record(tx: Transaction, hold: Digest) -> HoldRecord:
    """Read a hold as it stands.

    Raises:
        Refused: ``escrow.unknown_hold``.

    """
    row = tx.execute("SELECT * FROM hold JOIN job ON hold = id WHERE id = ?", (hold,)).fetchone()
    if row is None:
        raise Refused("escrow.unknown_hold", f"no hold {hold[:80]} here")
    job = read_job(bytes(row["body"]))
    captures = tx.execute("SELECT * FROM capture WHERE hold = ? ORDER BY seq", (hold,)).fetchall()
    return HoldRecord(
        id=hold,
        job=job,
        funded_at=row["funded_at"],
        bond=BondRecord(BondState(row["bond_state"]), job.document.bond, row["bond_due"]),
        captures=tuple(_capture_record(tx, capture) for capture in captures),
    )


def capture_record(tx: Transaction, hold: Digest, seq: int) -> CaptureRecord:
    """Read one capture, which must exist."""
    sql = "SELECT * FROM capture WHERE hold = ? AND seq = ?"
    return _capture_record(tx, tx.execute(sql, (hold, seq)).fetchone())


def record_in_books(books: Books, capture: Capture) -> HoldRecord:
    """Give a hold with one of its captures as books have them: one that is claimed, and not decided."""
    held = books.find(HOLD, capture.hold) or {}
    claim = books.find(DOCUMENT, capture.hold, capture.seq, "claim")
    record = CaptureRecord(
        hold=capture.hold,
        seq=capture.seq,
        state=capture.state,
        due=capture.due,
        attempts=capture.attempts,
        claim=None if claim is None else read_claim(bytes(claim["body"])),
        claimed_at=capture.claimed_at,
        changed_at=capture.changed_at,
        decisions=(),
        base=capture.base,
    )
    job = job_of(books, capture.hold)
    bond = BondRecord(capture.bond_state, job.document.bond, capture.bond_due)
    return HoldRecord(capture.hold, job, held["funded_at"], bond, (record,))


def find_document(tx: Transaction, hold: Digest, seq: int, kind: str) -> bytes | None:
    """Read a stored document of one kind, or None."""
    sql = "SELECT body FROM document WHERE hold = ? AND seq = ? AND kind = ?"
    row = tx.execute(sql, (hold, seq, kind)).fetchone()
    return None if row is None else bytes(row["body"])


def find_claim(tx: Transaction, hold: Digest, seq: int, *, kind: str = "claim") -> SignedClaim | None:
    """Read the recorded claim of a capture (or the one that contradicts it, by its kind), or None."""
    body = find_document(tx, hold, seq, kind)
    return None if body is None else read_claim(body)


def history(tx: Transaction, hold: Digest) -> tuple[Transition, ...]:
    """Read every move of a hold, oldest first."""
    rows = tx.execute(f"{_TRANSITION} WHERE hold = ? ORDER BY id", (hold,))
    return tuple(Transition(*row) for row in rows)


def _capture_record(tx: Transaction, row: Row) -> CaptureRecord:
    hold, seq = row["hold"], row["seq"]
    decisions = tx.execute(_DECISIONS, (hold, seq))
    return CaptureRecord(
        hold=hold,
        seq=seq,
        state=State(row["state"]),
        due=row["due"],
        attempts=row["attempts"],
        claim=find_claim(tx, hold, seq),
        claimed_at=row["claimed_at"],
        changed_at=row["changed_at"],
        base=row["base"],
        decisions=tuple(_decision(decision) for decision in decisions.fetchall()),
    )


def _decision(row: Row) -> Decision:
    return Decision(Ruling(row["ruling"]), row["receipt_digest"], bytes(row["receipt"]), row["at"])
