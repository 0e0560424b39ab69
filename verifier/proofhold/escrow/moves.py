"""Moving a capture and its bond: a compare-and-set, its log, its outbox row and its money, all or nothing.

Nothing else writes a state. Every move looks its row up in the table of `states` first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from proofhold.canonical import Digest
from proofhold.core import Fault
from proofhold.escrow import guarding, ledger, metering
from proofhold.escrow.books import Books
from proofhold.escrow.ledger import Account, AccountKind
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.escrow.states import (
    RELEASE_SIDE,
    BondEvent,
    BondState,
    By,
    Event,
    Row,
    State,
    bond_move,
    move,
)
from proofhold.escrow.tables import CAPTURE, HOLD, JOB, PAYMENT
from proofhold.guard import Observation
from proofhold.job import MAX_CAPTURES, Claim, Job, SignedClaim, SignedJob
from proofhold.keys import Signed

JOBS_KEPT = 4096
"""How many jobs stay in memory once read, some 6 KiB each; and how many claims."""

_OVER = (BondState.FREE, BondState.SLASHED)
"""Where a bond's way ends."""
_OF_A_CAPTURE = (BondEvent.FREE, BondEvent.FREEZE, BondEvent.PENALISE, BondEvent.SLASH)
"""What one capture asks of the bond; it may have to answer for others."""


class Capture(NamedTuple):
    """A capture and its hold's bond as they stand inside of a transaction. Times are unix seconds.

    A named tuple: a settlement makes several, and a frozen dataclass takes four times as long to copy.
    """

    hold: Digest
    seq: int
    job: Job
    state: State
    due: int | None
    verification_due: int | None
    attempts: int
    """How many checks of it are known to have begun."""
    amount: int | None
    claimed_at: int | None
    changed_at: int
    bond_state: BondState
    bond_due: int | None
    base: int = 0
    """What the claim of the capture before came to, in atomic units."""
    blamed: bool = False
    """Whether the bond is kept because of this capture."""
    leases: int = 0
    """How often it was leased: the newest lease's number, which fences older ones off."""

    @property
    def hold_account(self) -> Account:
        """Where the price lies."""
        return Account(AccountKind.HOLD, self.hold, self.job.currency.code)

    @property
    def bond_account(self) -> Account:
        """Where the bond lies."""
        return Account(AccountKind.BOND, self.hold, self.job.currency.code)

    def party(self, owner: str) -> Account:
        """Name a party's account in the job's currency."""
        return Account(AccountKind.PARTY, owner, self.job.currency.code)


@dataclass(frozen=True, slots=True)
class Noted:
    """What a move writes beside the state, where it writes it: None leaves a column as it is."""

    amount: int | None = None
    claimed_at: int | None = None
    verification_due: int | None = None
    lease_s: int = 0
    begun: bool = False
    """Whether a check begins with the lease; a worker that takes many at once says so later."""
    observation: Observation | None = None
    """What a verdict tells the guard, in whose books it goes."""


@lru_cache(maxsize=JOBS_KEPT)
def read_job(data: bytes) -> SignedJob:
    """Read a job that was stored. It never changes, and is read with every move of its hold."""
    return Signed.decode(Job, data)


@lru_cache(maxsize=JOBS_KEPT)
def read_claim(data: bytes) -> SignedClaim:
    """Read a claim that was stored."""
    return Signed.decode(Claim, data)


def job_of(books: Books, hold: Digest) -> SignedJob:
    """Read the job of a hold that is there."""
    return read_job(bytes((books.find(JOB, hold) or {})["body"]))


def load(books: Books, hold: Digest, seq: int) -> Capture:
    """Read a capture.

    Raises:
        Refused: ``escrow.unknown_hold`` or ``escrow.unknown_capture``.

    """
    held = books.find(HOLD, hold)
    if held is None:
        raise Refused("escrow.unknown_hold", f"no hold {hold[:80]} here")
    row = books.find(CAPTURE, hold, seq) if 0 <= seq <= MAX_CAPTURES else None
    if row is None:
        raise Refused("escrow.unknown_capture", f"the hold has no capture {seq}")
    return Capture(
        hold=hold,
        seq=seq,
        job=job_of(books, hold).document,
        state=State(row["state"]),
        due=row["due"],
        verification_due=row["verification_due"],
        attempts=row["attempts"],
        amount=row["amount"],
        claimed_at=row["claimed_at"],
        changed_at=row["changed_at"],
        bond_state=BondState(held["bond_state"]),
        bond_due=held["bond_due"],
        base=row["base"],
        blamed=bool(row["blamed"]),
        leases=row["leases"],
    )


def fetch(books: Books, captures: Iterable[tuple[Digest, int]]) -> None:
    """Read what `load` is going to ask for, of many captures at once: their holds first, which locks them."""
    keys = list(captures)
    holds = [(hold,) for hold, _ in keys]
    books.fetch(HOLD, holds)
    books.fetch(JOB, holds)
    books.fetch(CAPTURE, keys)


def require_claimed(capture: Capture) -> Capture:
    """Refuse a capture that has no claim yet.

    Raises:
        Refused: ``escrow.not_claimed``.

    """
    if capture.claimed_at is None:
        raise Refused("escrow.not_claimed", f"no claim is recorded, and the capture is {capture.state}")
    return capture


def create(books: Books, hold: Digest, signed: SignedJob, *, unbonding_s: int, now: int) -> None:
    """Write a new hold, its first capture and its bond; the price and the bond move into it.

    Raises:
        Refused: ``escrow.balance``, with the party at fault; or what the guard objects.

    """
    job = signed.document
    row, bond = move(None, Event.FUND), bond_move(None, BondEvent.RESERVE)
    if row is None or bond is None:
        raise EscrowFailure("escrow.table", "the table of states lacks the row that funds")
    guarding.enter(books, job)
    values = (job.sampling_commitment, now, bond.target.value, None, unbonding_s, 0, 0)
    books.insert(HOLD, hold, *values)
    books.insert(JOB, hold, signed.encode())
    capture = _add_capture(books, hold, job, 0, row, base=0, now=now, cause=hold)
    _log_bond(books, capture, None, bond.event, bond.target, now=now)
    buyer, provider = capture.party(job.buyer), capture.party(job.provider)
    ledger.transfer(books, f"fund:{hold}", buyer, capture.hold_account, job.price, at=now, fault=Fault.BUYER)
    if job.bond:
        ledger.transfer(
            books, f"bond:{hold}", provider, capture.bond_account, job.bond, at=now, fault=Fault.PROVIDER
        )
    guarding.admit(books, hold, job)


def open_next(books: Books, capture: Capture, *, now: int) -> None:
    """Let what a claim left of a metered hold be claimed in turn, or go back to the buyer in the end."""
    if metering.is_last(capture.job, capture.seq, capture.amount):
        return
    row = move(None, Event.NEXT)
    if row is None:
        raise EscrowFailure("escrow.table", "the table of states lacks the row that goes on")
    seq, base = capture.seq + 1, capture.amount or 0
    _add_capture(books, capture.hold, capture.job, seq, row, base=base, now=now, cause="")


def move_capture(
    books: Books, capture: Capture, event: Event, *, now: int, cause: str = "", noted: Noted | None = None
) -> Capture:
    """Move a capture, with everything that belongs to the move, and give it as it is then.

    Args:
        books: those of the transaction that all of it belongs to.
        capture: as it was read in this transaction.
        event: what happens.
        now: unix seconds.
        cause: the digest of the document that makes it happen, for the log.
        noted: what else to write down.

    Raises:
        Refused: ``escrow.wrong_state``, ``escrow.clock_backwards`` or ``escrow.lost_race``.

    """
    row = move(capture.state, event)
    if row is None:
        text = f"{event}: not possible on a capture that is {capture.state}"
        raise Refused("escrow.decided" if capture.state.is_decided else "escrow.wrong_state", text)
    if row.by is By.RAIL:
        now = max(now, capture.changed_at)  # what the rail says decides nothing: the time is for the log
    elif now < capture.changed_at:
        text = f"it is {now}, but the capture last moved at {capture.changed_at}"
        raise Refused("escrow.clock_backwards", text)
    moved = _moved(capture, row, now, noted or Noted())
    books.update(
        CAPTURE,
        (moved.hold, moved.seq),
        state=moved.state.value,
        due=moved.due,
        verification_due=moved.verification_due,
        attempts=moved.attempts,
        leases=moved.leases,
        amount=moved.amount,
        claimed_at=moved.claimed_at,
        changed_at=moved.changed_at,
    )
    _log(books, capture, row, now=now, cause=cause)
    if moved.state.is_decided and not capture.state.is_decided:
        _order_payments(books, moved)
        _count(books, moved, undecided=-1)
    told = None if noted is None else noted.observation
    guarding.observe(books, moved.hold, event, moved.state, told, amount=moved.amount or 0)
    return move_bond(books, moved, row.bond, now=now)


def move_bond(books: Books, capture: Capture, event: BondEvent, *, now: int) -> Capture:
    """Do to the bond what a move of the capture, or time, does to it.

    Raises:
        EscrowFailure: the bond's table knows no such move.

    """
    if event is BondEvent.KEEP:
        return capture
    if event in _OF_A_CAPTURE:
        # With its penalty a capture has paid for its silence; what it is blamed for otherwise stays open.
        capture = _blame(books, capture, blamed=event in (BondEvent.FREEZE, BondEvent.SLASH))
        hold = books.find(HOLD, capture.hold) or {}
        if capture.bond_state in _OVER and capture.job.captures > 1:
            return capture  # another capture of the hold has ended the bond's way before
        if hold["undecided"] or hold["blamed"]:  # it answers for the other captures of the hold
            if event is BondEvent.FREE:
                return capture
            if event is BondEvent.PENALISE:
                event = BondEvent.FINE
        if event is BondEvent.FREE and hold["unbonding_s"] and capture.claimed_at is not None:
            event = BondEvent.UNBOND
    row = bond_move(capture.bond_state, event)
    if row is None:
        raise EscrowFailure("escrow.bond", f"{event}: not possible on a bond that is {capture.bond_state}")
    due = _bond_due(books, capture, row.target, now)
    books.update(HOLD, (capture.hold,), bond_state=row.target.value, bond_due=due)
    _log_bond(books, capture, capture.bond_state, event, row.target, now=now)
    _pay_bond(books, capture, event, row.target, now=now)
    return capture._replace(bond_state=row.target, bond_due=due)


def _blame(books: Books, capture: Capture, *, blamed: bool) -> Capture:
    """Keep count of the captures that the bond is kept for."""
    if blamed == capture.blamed:
        return capture
    books.update(CAPTURE, (capture.hold, capture.seq), blamed=int(blamed))
    _count(books, capture, blamed=1 if blamed else -1)
    return capture._replace(blamed=blamed)


def _count(books: Books, capture: Capture, *, undecided: int = 0, blamed: int = 0) -> None:
    row = books.find(HOLD, capture.hold) or {}
    counts = {"undecided": row["undecided"] + undecided, "blamed": row["blamed"] + blamed}
    books.update(HOLD, (capture.hold,), **counts)


def _bond_due(books: Books, capture: Capture, target: BondState, now: int) -> int | None:
    match target:
        case BondState.FROZEN:
            return _freeze_due(capture, now)
        case BondState.UNBONDING:
            return now + int((books.find(HOLD, capture.hold) or {})["unbonding_s"])
        case _:
            return None


def _add_capture(
    books: Books, hold: Digest, job: Job, seq: int, row: Row, *, base: int, now: int, cause: str
) -> Capture:
    values = (row.target.value, _claim_due(job), None, 0, None, None, now, base, 0, 0)
    books.insert(CAPTURE, hold, seq, *values)
    capture = load(books, hold, seq)
    _count(books, capture, undecided=1)
    _log(books, capture, row, now=now, cause=cause)
    return capture


def _pay_bond(books: Books, capture: Capture, event: BondEvent, target: BondState, *, now: int) -> None:
    """Take from the bond, and empty its account where its way ends: what is taken goes to the treasury (P12).

    The buyer's loss is the price, which comes back out of the hold: it never profits from a bond. Where the
    price was released before the transcript came, the loss is made good first.
    """
    is_over, is_fine = target in _OVER, event is BondEvent.FINE
    if not is_over and not is_fine:
        return
    job, left = capture.job, ledger.balance_of(books, capture.bond_account)  # less what silence cost before
    penalty = min(job.withholding_penalty, left)
    taken = {BondEvent.SLASH: left, BondEvent.PENALISE: penalty, BondEvent.FINE: penalty}.get(event, 0)
    lost = (capture.amount or 0) - capture.base if capture.state in RELEASE_SIDE else 0
    returned = min(taken, lost)
    treasury = Account(AccountKind.TREASURY, "", job.currency.code)
    why = f"fine:{capture.hold}:{capture.seq}" if is_fine else f"slash:{capture.hold}"
    for key, account, amount in (
        (why, treasury, taken - returned),
        (f"amends:{capture.hold}", capture.party(job.buyer), returned),
        (f"free:{capture.hold}", capture.party(job.provider), left - taken if is_over else 0),
    ):
        if amount:
            ledger.transfer(books, key, capture.bond_account, account, amount, at=now)


def _moved(capture: Capture, row: Row, now: int, noted: Noted) -> Capture:
    verification_due = capture.verification_due if noted.verification_due is None else noted.verification_due
    return capture._replace(
        state=row.target,
        due=_due(row.target, capture.job, verification_due, now, noted.lease_s),
        verification_due=verification_due,
        changed_at=now,
        # An opening is another thing to check: what went wrong before it came is not counted against it.
        attempts=0 if row.event is Event.OPENED else capture.attempts + noted.begun,
        leases=capture.leases + (row.event is Event.LEASE),
        amount=capture.amount if noted.amount is None else noted.amount,
        claimed_at=capture.claimed_at if noted.claimed_at is None else noted.claimed_at,
    )


def _due(state: State, job: Job, verification_due: int | None, now: int, lease_s: int) -> int | None:
    """Give the first second at which the timer of a state just entered fires; None where none runs."""
    match state:
        case State.FUNDED:
            return _claim_due(job)
        case State.EXPIRED:
            return now
        case State.CLAIMED:
            return verification_due
        case State.VERIFYING:
            lease_end = now + lease_s
            return lease_end if verification_due is None else min(lease_end, verification_due)
        case State.ANSWERING:
            return now + job.answer_s
        case State.DISPUTED:
            return now + job.dispute_s
        case _:
            return None


def _claim_due(job: Job) -> int:
    return job.claim_by + 1  # a claim of the second claim_by itself is in time


def _freeze_due(capture: Capture, now: int) -> int:
    # A bond that were free before its dispute ends could not answer for it.
    due = now + max(capture.job.freeze_s, capture.job.dispute_s)
    if capture.state is State.ANSWERING and capture.due is not None:
        due = max(due, capture.due)  # nor for its silence, if it were free before the answer is due
    return due if capture.bond_due is None else max(due, capture.bond_due)


def _order_payments(books: Books, capture: Capture) -> None:
    release = capture.state is State.RELEASING
    orders = metering.orders(capture.job, capture.seq, capture.base, capture.amount, release=release)
    for direction, (account, amount) in orders.items():
        values = (direction.value, amount, account, "new", None, 0, 0, None)
        books.insert(PAYMENT, capture.hold, capture.seq, *values)


def _log(books: Books, capture: Capture, row: Row, *, now: int, cause: str) -> None:
    source = None if row.source is None else row.source.value
    books.log(capture.hold, capture.seq, "capture", source, row.event.value, row.target.value, now, cause)


def _log_bond(
    books: Books,
    capture: Capture,
    source: BondState | None,
    event: BondEvent,
    target: BondState,
    *,
    now: int,
) -> None:
    left = None if source is None else source.value
    books.log(capture.hold, capture.seq, "bond", left, event.value, target.value, now, "")
