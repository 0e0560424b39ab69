"""Payments of another protocol that a verdict stands in front of, each by its payment identifier.

The money of such a payment does not lie in this escrow: somebody else settles it, and asks here first. What
is kept is what the identifier stands for, the verdict, and how far settling has come, so that one payment is
answered once and settled once whoever asks, and how often.

    depositing ──► open ──► settling ──► settled
                    │          ├───────► unknown ──► settled, failed, or settling again by its transaction
                    └► refused └───────► failed
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from proofhold.canonical import Digest
from proofhold.escrow.escrow import Ruling
from proofhold.escrow.refusals import Refused
from proofhold.escrow.store import Store, StoreTransaction

MAX_ANSWER_BYTES = 4 * 2**20
SETTLING_LEASE_S = 300
"""How long whoever settles may take. Past it nobody knows what became of the payment."""


class Status(StrEnum):
    """How far a payment has come."""

    DEPOSITING = "depositing"
    """Its deposit is under way: nothing was answered yet."""
    OPEN = "open"
    SETTLING = "settling"
    SETTLED = "settled"
    UNKNOWN = "unknown"
    """It may have settled: only asking the other protocol tells. It is never paid again blindly."""
    FAILED = "failed"
    """It did not settle, by the word of whoever settles."""
    REFUSED = "refused"
    """The verdict speaks against it."""


class Deposit(StrEnum):
    """What is known of a deposit that was made before the answer."""

    SENT = "sent"
    """It may lie where it was sent to."""
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class GatedPayment:
    """One payment as it stands."""

    id: str
    binding: Digest
    status: Status
    lease_end: int
    """Unix seconds."""
    job: Digest | None
    seq: int | None
    outcome: str | None
    """A ruling or ``keep``, or None before a verdict."""
    amount: int | None
    """What the verdict lets settle at most, in atomic units."""
    receipt: bytes | None
    reference: str | None
    answer: bytes | None
    deposit: Deposit | None
    """What became of its deposit, if it had one."""


class PaymentBook:
    """The gated payments of one escrow."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, payment: str) -> GatedPayment | None:
        """Give a payment, or None if it was never seen."""
        return self._store.read(lambda tx: _find(tx, payment))

    def unsettled(self, *, now: int) -> tuple[GatedPayment, ...]:
        """Give the payments that somebody has to look after, oldest first.

        Those of which nobody knows whether they settled, or that are being settled; and those whose deposit
        may lie where it was sent to for good, since whoever had them in hand has gone silent, or was to give
        the deposit back and has not said that it did.
        """

        def operation(tx: StoreTransaction) -> tuple[GatedPayment, ...]:
            sql = (
                "SELECT id FROM gated_payment WHERE status IN ('settling', 'unknown') OR (deposit = 'sent'"
                " AND status <> 'settled' AND lease_end <= ?) ORDER BY changed_at, id"
            )
            return tuple(_require(tx, row["id"]) for row in tx.execute(sql, (now,)).fetchall())

        return self._store.read(operation)

    def open(
        self, payment: str, binding: Digest, *, now: int, lease_s: int, deposit: bool = False
    ) -> GatedPayment:
        """Take a payment in hand: whoever gets it back answers it, all others are refused meanwhile.

        Args:
            payment: its identifier.
            binding: what it stands for.
            now: unix seconds.
            lease_s: for how long.
            deposit: whether its deposit is only now on its way; answering comes after.

        Returns:
            The payment. One that is past answering (settling, settled, unknown, failed, refused) comes as
            it is, and is in nobody's hands.

        Raises:
            Refused: ``payment.mismatch``, the identifier stands for something else; ``payment.in_progress``.

        """
        status = Status.DEPOSITING if deposit else Status.OPEN

        def operation(tx: Any) -> GatedPayment:
            tx.execute(
                "INSERT INTO gated_payment (id, binding, status, lease_end, changed_at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (payment, binding, status, 0, now),
            )
            found = _require(tx, payment)
            if found.binding != binding:
                raise Refused("payment.mismatch", "the payment identifier stands for another payment")
            if found.status not in (Status.DEPOSITING, Status.OPEN):
                return found
            adopts = found.status is Status.DEPOSITING and not deposit
            if found.lease_end > now and not adopts:
                raise Refused("payment.in_progress", "the same payment is being answered")
            _set(tx, found, found.status if deposit else Status.OPEN, now, lease_end=now + lease_s)
            if deposit:
                _set_deposit(tx, payment, Deposit.SENT)
            return _require(tx, payment)

        return self._store.write(operation)

    def give_back(self, payment: str, *, now: int) -> None:
        """Let go of a payment that could not be answered, so that the next attempt need not wait."""

        def operation(tx: Any) -> None:
            found = _require(tx, payment)
            if found.status is Status.OPEN:
                _set(tx, found, Status.OPEN, now, lease_end=0)

        self._store.write(operation)

    def keep_answer(self, payment: str, answer: bytes) -> None:
        """Keep what the provider answered, to judge and to give as often as it takes. The first counts."""

        def operation(tx: StoreTransaction) -> None:
            sql = "UPDATE gated_payment SET answer = ? WHERE id = ? AND answer IS NULL"
            tx.execute(sql, (answer, payment))

        self._store.write(operation)

    def decide(
        self,
        payment: str,
        binding: Digest,
        *,
        job: Digest,
        seq: int,
        outcome: str,
        amount: int,
        receipt: bytes,
        now: int,
    ) -> GatedPayment:
        """Record the verdict on a payment. Only one that kept it open may be followed by another.

        Raises:
            Refused: ``payment.mismatch``; ``payment.reused_verdict``, the same capture pays another payment;
                ``payment.decided``, another outcome stands.

        """

        def operation(tx: Any) -> GatedPayment:
            tx.execute(
                "INSERT INTO gated_payment (id, binding, status, lease_end, changed_at)"
                " VALUES (?, ?, 'open', 0, ?) ON CONFLICT (id) DO NOTHING",
                (payment, binding, now),
            )
            found = _require(tx, payment)
            if found.binding != binding:
                raise Refused("payment.mismatch", "the payment identifier stands for another payment")
            if found.outcome not in (None, "keep"):
                if (found.outcome, found.job, found.seq) != (outcome, job, seq):
                    raise Refused("payment.decided", f"the payment was decided before: {found.outcome}")
                return found
            # One that failed has paid nothing: its payer was told to make another, which this may be.
            sql = (
                "UPDATE gated_payment SET job = NULL, seq = NULL"
                " WHERE job = ? AND seq = ? AND id <> ? AND status = 'failed'"
            )
            tx.execute(sql, (job, seq, payment))
            sql = "SELECT id FROM gated_payment WHERE job = ? AND seq = ? AND id <> ?"
            if tx.execute(sql, (job, seq, payment)).fetchone() is not None:
                raise Refused("payment.reused_verdict", "this capture of the job pays another payment")
            done = tx.execute(
                "UPDATE gated_payment SET job = ?, seq = ?, outcome = ?, amount = ?, receipt = ?"
                " WHERE id = ? AND (outcome IS NULL OR outcome = 'keep')",
                (job, seq, outcome, amount, receipt, payment),
            )
            _require_one(done.rowcount)
            if outcome in (Ruling.REFUND, Ruling.DISPUTE) and found.status is Status.OPEN:
                _set(tx, found, Status.REFUSED, now)
            return _require(tx, payment)

        return self._store.write(operation)

    def begin_settling(self, payment: str, binding: Digest, amount: int, *, now: int) -> GatedPayment:
        """Take a payment that was decided to be released for settling: one caller gets it.

        Returns:
            The payment as it now stands: SETTLING for the one who settles, SETTLED where it was done before.

        Raises:
            Refused: ``payment.no_verdict``, ``payment.refused``, ``payment.mismatch``, ``payment.amount``,
                ``payment.in_progress``, ``payment.failed`` or ``payment.settlement_unknown``.

        """

        def operation(tx: Any) -> GatedPayment:
            found = _find(tx, payment)
            if found is None or found.outcome is None:
                raise Refused("payment.no_verdict", "no verdict lets this payment settle")
            if found.binding != binding:
                raise Refused("payment.mismatch", "the payment identifier stands for another payment")
            if found.outcome != Ruling.RELEASE:
                raise Refused("payment.refused", "the verdict does not let this payment settle")
            if found.status is Status.SETTLED:
                return found
            if found.amount is None or amount > found.amount:
                raise Refused("payment.amount", "more would be settled than was judged")
            return _take(tx, found, now)

        found = self._store.write(operation)
        if found.status is Status.UNKNOWN:
            raise Refused("payment.settlement_unknown", "it may have settled before: ask, do not pay again")
        return found

    def end_settling(self, payment: str, status: Status, *, reference: str, now: int) -> None:
        """Record how settling ended: SETTLED, FAILED or UNKNOWN. What settled stays settled."""

        def operation(tx: Any) -> None:
            found = _require(tx, payment)
            if found.status is not Status.SETTLED:
                _set(tx, found, status, now, reference=reference or found.reference)

        self._store.write(operation)

    def end_deposit(self, payment: str, deposit: Deposit | None, *, reference: str = "", now: int) -> None:
        """Record that a deposit was given back, or (None) that it was never made.

        What nobody has answered or settled by then never will be: the payment has failed.
        """

        def operation(tx: Any) -> None:
            found = _require(tx, payment)
            _set_deposit(tx, payment, deposit)
            if found.status not in (Status.SETTLED, Status.REFUSED):
                _set(tx, found, Status.FAILED, now, reference=reference or found.reference)

        self._store.write(operation)


def _set_deposit(tx: Any, payment: str, deposit: Deposit | None) -> None:
    tx.execute("UPDATE gated_payment SET deposit = ? WHERE id = ?", (deposit, payment))


def _take(tx: Any, found: GatedPayment, now: int) -> GatedPayment:
    match found.status:
        case Status.OPEN | Status.DEPOSITING:
            pass
        case Status.SETTLING if found.lease_end > now:
            raise Refused("payment.in_progress", "the same payment is being settled")
        case Status.SETTLING:
            # Whoever settled has gone silent: written down, so that it shows among the unsettled.
            _set(tx, found, Status.UNKNOWN, now)
            return _require(tx, found.id)
        case Status.UNKNOWN if found.reference:
            pass  # its transaction is known: settling again asks about that one
        case Status.UNKNOWN:
            return found
        case Status.FAILED:
            raise Refused("payment.failed", "the payment failed to settle: its payer has to make another")
        case _:
            raise Refused("payment.refused", "the verdict does not let this payment settle")
    _set(tx, found, Status.SETTLING, now, lease_end=now + SETTLING_LEASE_S)
    return _require(tx, found.id)


def _set(
    tx: Any,
    found: GatedPayment,
    status: Status,
    now: int,
    *,
    lease_end: int = 0,
    reference: str | None = None,
) -> None:
    """Move a payment on, if it still is as it was found."""
    done = tx.execute(
        "UPDATE gated_payment SET status = ?, lease_end = ?, reference = ?, changed_at = ?"
        " WHERE id = ? AND status = ? AND lease_end = ?",
        (
            *(status, lease_end, reference or found.reference, now),
            *(found.id, found.status, found.lease_end),
        ),
    )
    _require_one(done.rowcount)


def _require_one(rows: int) -> None:
    if rows != 1:
        raise Refused("payment.in_progress", "somebody else has just taken the same payment in hand")


def _require(tx: Any, payment: str) -> GatedPayment:
    found = _find(tx, payment)
    if found is None:
        raise Refused("payment.unknown", "no such payment here")
    return found


def _find(tx: Any, payment: str) -> GatedPayment | None:
    row = tx.execute("SELECT * FROM gated_payment WHERE id = ?", (payment,)).fetchone()
    if row is None:
        return None
    return GatedPayment(
        id=row["id"],
        binding=row["binding"],
        status=Status(row["status"]),
        lease_end=row["lease_end"],
        job=row["job"],
        seq=row["seq"],
        outcome=row["outcome"],
        amount=row["amount"],
        receipt=None if row["receipt"] is None else bytes(row["receipt"]),
        reference=row["reference"],
        answer=None if row["answer"] is None else bytes(row["answer"]),
        deposit=None if row["deposit"] is None else Deposit(row["deposit"]),
    )
