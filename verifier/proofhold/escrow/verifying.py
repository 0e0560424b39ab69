"""The verification of a recorded claim: its leases, the wait for an opening, and the ruling that ends it.

What many ask for at the same moment, a lease or a ruling, is read, decided and written for all together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from proofhold.canonical import DIGEST_PATTERN, Digest
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow import disputing, guarding, guards, moves, queue, reports, timers
from proofhold.escrow.books import Books
from proofhold.escrow.driver import Joint, Operation, Transaction
from proofhold.escrow.escrow import (
    MAX_ATTEMPTS,
    MAX_LEASE_S,
    MAX_RECEIPT_BYTES,
    Applied,
    CaptureRecord,
    Decision,
    Ruled,
    Ruling,
)
from proofhold.escrow.moves import Noted
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import Event, State
from proofhold.escrow.tables import (
    ACCOUNT,
    ATTEMPT,
    CAPTURE,
    DECISION,
    GUARD_HOLD,
    JOB,
    ONE_USE,
    TRANSFER,
    WORK,
)
from proofhold.guard import Observation

T = TypeVar("T")
R = TypeVar("R")

MAX_RULINGS = 8192
"""How many rulings one transaction takes."""

Outcome: TypeAlias = Applied | Refused
"""What became of one ruling of many."""

_EVENT_OF_RULING = {
    Ruling.RELEASE: Event.ACCEPTED,
    Ruling.REFUND: Event.REFUTED,
    Ruling.DISPUTE: Event.DISPUTE,
}
_LEAST_FAVOURABLE = {Ruling.RELEASE: Observation.UNCHECKED, Ruling.REFUND: Observation.FAILED}
"""What the guard is told where the caller does not say: nothing that a provider could gain by."""


def begin_verification(hold: Digest, seq: int, *, lease_s: int, now: int) -> Operation[CaptureRecord]:
    """Take a lease: see `Escrow`."""
    guards.require_time(now)
    if not 1 <= lease_s <= MAX_LEASE_S:
        raise Misuse(f"lease_s: got {lease_s}, expected 1 to {MAX_LEASE_S}")
    return Joint(_begin_all, (hold, seq, lease_s, now))


def end_verification(hold: Digest, seq: int, *, now: int) -> Operation[CaptureRecord]:
    """Give a lease back: see `Escrow`."""
    guards.require_time(now)

    def operation(tx: Transaction) -> CaptureRecord:
        books = Books(tx)
        capture = timers.advance(books, moves.load(books, hold, seq), now=now)
        if capture.state is State.VERIFYING and capture.attempts < MAX_ATTEMPTS:
            moves.move_capture(books, capture, Event.GIVE_BACK, now=now)
        return reports.capture_record(books.flush(), hold, seq)

    return operation


def await_opening(hold: Digest, seq: int, *, now: int) -> Operation[CaptureRecord]:
    """Wait for an opening: see `Escrow`."""
    guards.require_time(now)

    def operation(tx: Transaction) -> CaptureRecord:
        books = Books(tx)
        capture = timers.advance(books, moves.require_claimed(moves.load(books, hold, seq)), now=now)
        moves.move_capture(books, capture, Event.OPENINGS_NEEDED, now=now)
        return reports.capture_record(books.flush(), hold, seq)

    return operation


def opened(hold: Digest, seq: int, *, opening: Digest, now: int) -> Operation[CaptureRecord]:
    """Take note of an opening: see `Escrow`."""
    guards.require_time(now)

    def operation(tx: Transaction) -> CaptureRecord:
        books = Books(tx)
        capture = timers.advance(books, moves.require_claimed(moves.load(books, hold, seq)), now=now)
        if disputing.find(books, hold, seq, "challenge") is not None:
            raise Refused("escrow.challenged", "a challenge waits for its own answer, not for an opening")
        noted = Noted(verification_due=now + capture.job.verification_s)
        moves.move_capture(books, capture, Event.OPENED, now=now, cause=opening, noted=noted)
        return reports.capture_record(books.flush(), hold, seq)

    return operation


def apply(ruled: Ruled, *, now: int) -> Operation[Applied]:
    """Carry out one ruling: see `Escrow`."""
    _require_ruling(ruled, now)
    return Joint(_apply_all, (ruled, now))


def apply_many(rulings: Sequence[Ruled], *, now: int) -> Operation[tuple[Outcome, ...]]:
    """Carry out many rulings in one transaction: see `Escrow`."""
    if len(rulings) > MAX_RULINGS:
        raise Misuse(f"{len(rulings)} rulings at once, expected at most {MAX_RULINGS}")
    for ruled in rulings:
        _require_ruling(ruled, now)
    return partial(_apply_all, rulings=[(ruled, now) for ruled in rulings])


def take_one_use(books: Books, hold: Digest, seq: int, digests: Iterable[Digest]) -> None:
    """Let signed payloads serve a capture, as they serve no other (P6).

    Raises:
        Refused: ``claim.reused_evidence``.

    """
    for digest in sorted(set(digests)):
        row = books.find(ONE_USE, digest)
        if row is None:
            books.insert(ONE_USE, digest, hold, seq)
        elif (row["hold"], row["seq"]) != (hold, seq):
            text = f"the claim's evidence rests on {digest}, which served another claim"
            raise Refused("claim.reused_evidence", text, Fault.PROVIDER)


def _require_ruling(ruled: Ruled, now: int) -> None:
    guards.require_time(now)
    if not re.fullmatch(DIGEST_PATTERN, ruled.receipt_digest):
        raise Misuse(f"receipt digest: got {ruled.receipt_digest[:80]!r}")
    if not 0 < len(ruled.receipt) <= MAX_RECEIPT_BYTES:
        raise Misuse(f"receipt: {len(ruled.receipt)} bytes, expected 1 to {MAX_RECEIPT_BYTES}")


def _begin_all(
    tx: Transaction, wanted: Sequence[tuple[Digest, int, int, int]]
) -> tuple[CaptureRecord | Refused, ...]:
    """Take leases, each for a capture, for so many seconds, as of its own time."""
    books = Books(tx)
    moves.fetch(books, sorted({(hold, seq) for hold, seq, *_ in wanted}))
    books.fetch(GUARD_HOLD, sorted({(hold,) for hold, *_ in wanted}))
    taken = _attempt_each(books, wanted, _begin)
    return tuple(
        one if isinstance(one, Refused) else reports.capture_record(tx, hold, seq)
        for one, (hold, seq, *_) in zip(taken, wanted, strict=True)
    )


def _begin(books: Books, wanted: tuple[Digest, int, int, int]) -> None:
    hold, seq, lease_s, now = wanted
    capture = timers.advance(books, moves.require_claimed(moves.load(books, hold, seq)), now=now)
    if capture.state is State.VERIFYING:
        raise Refused("escrow.leased", f"its verification is under way, until {capture.due} at most")
    moves.move_capture(books, capture, Event.LEASE, now=now, noted=Noted(lease_s=lease_s, begun=True))


def _apply_all(tx: Transaction, rulings: Sequence[tuple[Ruled, int]]) -> tuple[Outcome, ...]:
    """Carry out rulings, each as of its own time: read for all, decide one by one, write for all."""
    books = Books(tx)
    _fetch_for(books, [ruled for ruled, _ in rulings])
    return tuple(_attempt_each(books, rulings, _apply))


def _attempt_each(books: Books, wanted: Iterable[T], decide: Callable[[Books, T], R]) -> list[R | Refused]:
    """Decide one by one, a refusal being that of one alone, and write for all."""
    outcomes: list[R | Refused] = []
    for one in wanted:
        try:
            with books.attempt():
                outcomes.append(decide(books, one))
        except Refused as refusal:
            outcomes.append(refusal)
    books.flush()
    return outcomes


def _apply(books: Books, wanted: tuple[Ruled, int]) -> Applied:
    ruled, now = wanted
    hold, seq, ruling = ruled.hold, ruled.seq, ruled.ruling
    capture = moves.load(books, hold, seq)
    stands = books.find(DECISION, hold, seq, ruling.value)
    if stands is not None:
        first = Decision(ruling, stands["receipt_digest"], bytes(stands["receipt"]), stands["at"])
        return Applied(first, capture.state, repeated=True)
    capture = timers.advance(books, moves.require_claimed(capture), now=now)
    if ruling is Ruling.RELEASE:
        take_one_use(books, hold, seq, ruled.one_use)
    observation = ruled.observation or _LEAST_FAVOURABLE.get(ruling)
    if observation is Observation.UNCHECKED:
        guarding.require_unraised(books, hold)
    noted = Noted(observation=observation)
    event, cause = _EVENT_OF_RULING[ruling], ruled.receipt_digest
    capture = moves.move_capture(books, capture, event, now=now, cause=cause, noted=noted)
    books.insert(DECISION, hold, seq, ruling.value, ruled.receipt_digest, ruled.receipt, now)
    capture = queue.acknowledge(books, capture, ruling.value, now=now)
    # A dispute of no length ends where it begins: the refund at once, the bond stays frozen.
    capture = timers.advance(books, capture, now=now)
    decision = Decision(ruling, ruled.receipt_digest, ruled.receipt, now)
    return Applied(decision, capture.state, repeated=False)


def _fetch_for(books: Books, rulings: Sequence[Ruled]) -> None:
    """Read with a few statements everything that many rulings are going to ask for."""
    captures = sorted({(ruled.hold, ruled.seq) for ruled in rulings})
    holds = sorted({(hold,) for hold, _ in captures})
    moves.fetch(books, captures)
    books.fetch(DECISION, [(r.hold, r.seq, r.ruling.value) for r in rulings])
    books.fetch(GUARD_HOLD, holds)
    books.fetch(WORK, captures)
    books.fetch(ATTEMPT, [(*at, row["leases"]) for at in captures if (row := books.find(CAPTURE, *at))])
    books.fetch(ONE_USE, [(digest,) for ruled in rulings for digest in ruled.one_use])
    books.fetch(TRANSFER, [(f"free:{hold}",) for (hold,) in holds])
    jobs = [(hold, moves.job_of(books, hold).document) for (hold,) in holds if books.find(JOB, hold)]
    bonds = [("bond", hold, job.currency.code) for hold, job in jobs if job.bond]
    providers = {("party", job.provider, job.currency.code) for _, job in jobs}
    books.fetch(ACCOUNT, [*bonds, *sorted(providers)])
    guarded = [row for (hold,) in holds if (row := books.find(GUARD_HOLD, hold)) is not None]
    guarding.prepare(books, guarded)
