"""The escrow over a driver: a method hands one operation to the database, and waits until it is durable."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from proofhold import sampling
from proofhold.canonical import Digest
from proofhold.contention import SignedChallenge, SignedDisputeAnswer
from proofhold.errors import Misuse
from proofhold.escrow import (
    audit,
    carrying,
    disputing,
    guarding,
    guards,
    ledger,
    moves,
    operations,
    payments,
    reports,
    timers,
    verifying,
)
from proofhold.escrow.books import Books
from proofhold.escrow.driver import Database, Operation, Transaction
from proofhold.escrow.escrow import (
    Adjudged,
    Adjudication,
    Applied,
    CaptureRecord,
    Difference,
    DisputeRecord,
    HoldRecord,
    Pumped,
    Ruled,
    Ruling,
    Transition,
)
from proofhold.escrow.guarding import GuardRecord
from proofhold.escrow.ledger import Balance
from proofhold.escrow.queue import WorkQueue
from proofhold.escrow.rail import Rail
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import RELEASE_SIDE
from proofhold.escrow.store import Store
from proofhold.guard import Demand, Observation, Terms, demand
from proofhold.job import (
    MAX_PERIOD_S,
    NAME_PATTERN,
    Delivery,
    ModelReference,
    SignedClaim,
    SignedDecline,
    SignedJob,
    SignedResolution,
)
from proofhold.keys import KEY_PATTERN, Key
from proofhold.money import Currency
from proofhold.payload import Payload, Tensor, decode_payload

T = TypeVar("T")


class LedgerEscrow:
    """An `Escrow` over a `Database`. May be used from any thread, and its database by several processes."""

    def __init__(self, database: Database) -> None:
        """Take an open database: use a driver's `create` or `open`."""
        self._database = database
        row, operators = database.read(_who)
        if row is None:
            raise Misuse("the escrow was never given a name: it was not made by `create`")
        self.id: str = row
        self.operators: tuple[Key, ...] = operators
        self.store: Store = database

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def export_to(self, path: Path) -> int:
        """Write everything into a new file, and give the number of rows: see `carrying`."""
        return carrying.export_to(self._database, path)

    @property
    def queue(self) -> WorkQueue:
        """The queue of what is to be checked."""
        return WorkQueue(self._database)

    @property
    def asynchronous(self) -> AsyncEscrow:
        """The same escrow for callers in an event loop."""
        return AsyncEscrow(self, self._database)

    def deposit(self, account: str, amount: int, currency: Currency, *, key: str, now: int) -> Balance:
        """Put money in: see `Escrow`."""
        return self._database.write(operations.deposit(account, amount, currency, key=key, now=now))

    def withdraw(self, account: str, amount: int, currency: Currency, *, key: str, now: int) -> Balance:
        """Take money out: see `Escrow`."""
        return self._database.write(operations.withdraw(account, amount, currency, key=key, now=now))

    def draw_secret(self, nonce: bytes) -> Digest:
        """Draw a job's sampling secret: see `Escrow`."""
        return self._database.write(operations.draw_secret(nonce, os.urandom(sampling.SECRET_BYTES)))

    def draw_projection(self, nonce: bytes) -> Digest:
        """Draw a valuable job's second secret: see `Escrow`."""
        return self._database.write(operations.draw_projection(nonce, os.urandom(sampling.SECRET_BYTES)))

    def fund(self, job: SignedJob, *, now: int) -> HoldRecord:
        """Fund a job: see `Escrow`."""
        return self._database.write(operations.fund(self.id, job, now=now))

    def decline(self, decline: SignedDecline, *, now: int) -> HoldRecord:
        """Decline a funded job: see `Escrow`."""
        return self._database.write(operations.decline(decline, now=now))

    def record_claim(
        self, claim: SignedClaim, output: Payload, *, now: int, one_use: Iterable[Digest] = ()
    ) -> HoldRecord:
        """Record a claim: see `Escrow`."""
        return _claimed(
            self._database.write(operations.record_claim(claim, output, now=now, one_use=one_use))
        )

    def reveal(self, hold: Digest, seq: int) -> bytes:
        """Reveal the sampling secret: see `Escrow`."""

        def operation(tx: Transaction) -> bytes:
            capture = moves.require_claimed(_load(tx, hold, seq))
            sql = "SELECT secret FROM secret WHERE commitment = ?"
            return bytes(tx.execute(sql, (capture.job.sampling_commitment,)).fetchone()["secret"])

        return self._database.read(operation)

    def record_openings(self, hold: Digest, seq: int, *, openings: Digest, now: int) -> bytes:
        """Record a valuable job's openings and reveal its second secret: see `Escrow`."""
        return self._database.write(operations.record_openings(hold, seq, openings=openings, now=now))

    def is_raised(self, hold: Digest) -> bool:
        """Tell whether a hold's claims must be checked: see `Escrow`."""
        return self._database.read(lambda tx: guarding.is_raised(Books(tx, writing=False), hold))

    def begin_verification(self, hold: Digest, seq: int, *, lease_s: int, now: int) -> CaptureRecord:
        """Take a lease: see `Escrow`."""
        return self._database.write(verifying.begin_verification(hold, seq, lease_s=lease_s, now=now))

    def end_verification(self, hold: Digest, seq: int, *, now: int) -> CaptureRecord:
        """Give a lease back: see `Escrow`."""
        return self._database.write(verifying.end_verification(hold, seq, now=now))

    def await_opening(self, hold: Digest, seq: int, *, now: int) -> CaptureRecord:
        """Wait for an opening: see `Escrow`."""
        return self._database.write(verifying.await_opening(hold, seq, now=now))

    def opened(self, hold: Digest, seq: int, *, opening: Digest, now: int) -> CaptureRecord:
        """Take note of an opening: see `Escrow`."""
        return self._database.write(verifying.opened(hold, seq, opening=opening, now=now))

    def apply(
        self,
        hold: Digest,
        seq: int,
        ruling: Ruling,
        *,
        receipt_digest: Digest,
        receipt: bytes,
        now: int,
        one_use: Iterable[Digest] = (),
        observation: Observation | None = None,
        rehearse: bool = False,
    ) -> Applied:
        """Carry out a ruling: see `Escrow`."""
        ruled = Ruled(hold, seq, ruling, receipt_digest, receipt, tuple(one_use), observation)
        operation = verifying.apply(ruled, now=now)
        return self._rehearse(operation) if rehearse else self._database.write(operation)

    def apply_many(self, rulings: Sequence[Ruled], *, now: int) -> tuple[Applied | Refused, ...]:
        """Carry out many rulings in one transaction: see `Escrow`."""
        return self._database.write(verifying.apply_many(rulings, now=now))

    def resolve(self, resolution: SignedResolution, *, now: int) -> HoldRecord:
        """Resolve a dispute: see `Escrow`."""
        return self._database.write(operations.resolve(resolution, operators=self.operators, now=now))

    def challenge(self, challenge: SignedChallenge, *, now: int) -> HoldRecord:
        """Challenge a disputed claim: see `Escrow`."""
        return self._database.write(operations.challenge(challenge, now=now))

    def answer(self, answer: SignedDisputeAnswer, tensors: Sequence[Tensor], *, now: int) -> HoldRecord:
        """Record the answer to a challenge: see `Escrow`."""
        return self._database.write(operations.answer(answer, tensors, now=now))

    def dispute(self, hold: Digest, seq: int) -> DisputeRecord:
        """Read a dispute: see `Escrow`."""

        def operation(tx: Transaction) -> DisputeRecord:
            _load(tx, hold, seq)
            return disputing.record(Books(tx, writing=False), hold, seq)

        return self._database.read(operation)

    def adjudicate(
        self, hold: Digest, seq: int, outcome: Adjudged, *, transcript: bytes, now: int
    ) -> Adjudication:
        """End a dispute by a transcript: see `Escrow`."""
        operation = operations.adjudicate(hold, seq, outcome, transcript=transcript, now=now)
        return self._database.write(operation)

    def run_timers(self, now: int) -> tuple[Transition, ...]:
        """Do what time does: see `Escrow`."""
        guards.require_time(now)
        return timers.run_timers(self._database, now=now)

    def pump(self, rail: Rail, *, now: int) -> Pumped:
        """Drive the payments: see `Escrow`."""
        guards.require_time(now)
        return payments.pump(self._database, rail, now=now)

    def deliver(self, hold: Digest, seq: int) -> Payload:
        """Deliver the output: see `Escrow`."""

        def operation(tx: Transaction) -> Payload:
            capture = moves.require_claimed(_load(tx, hold, seq))
            if capture.job.delivery is Delivery.WITH_VERDICT and capture.state not in RELEASE_SIDE:
                text = f"the job delivers with the verdict, and the capture is {capture.state}"
                raise Refused("escrow.not_delivered", text)
            return decode_payload(reports.find_document(tx, hold, seq, "output") or b"")

        return self._database.read(operation)

    def hold(self, hold: Digest) -> HoldRecord:
        """Read a hold: see `Escrow`."""
        return self._database.read(partial(reports.hold_record, hold=hold))

    def equivocation(self, hold: Digest, seq: int) -> SignedClaim | None:
        """Read the evidence of an equivocation: see `Escrow`."""

        def operation(tx: Transaction) -> SignedClaim | None:
            _load(tx, hold, seq)
            return reports.find_claim(tx, hold, seq, kind="equivocation")

        return self._database.read(operation)

    def history(self, hold: Digest) -> tuple[Transition, ...]:
        """Read a hold's moves: see `Escrow`."""

        def operation(tx: Transaction) -> tuple[Transition, ...]:
            reports.hold_record(tx, hold)
            return reports.history(tx, hold)

        return self._database.read(operation)

    def set_guard(self, currency: Currency, terms: Terms, *, now: int) -> None:
        """Guard a currency: see `Escrow`."""
        self._database.write(operations.set_guard(currency, terms, now=now))

    def set_two_keys(self, currency: Currency, above: int) -> None:
        """Ask for two operators' keys above a price: see `Escrow`."""
        self._database.write(operations.set_two_keys(currency, above))

    def guard(self, currency: str) -> Terms | None:
        """Read a currency's guard: see `Escrow`."""
        return self._database.read(lambda tx: guarding.find_terms(Books(tx, writing=False), currency))

    def demand(
        self, provider: Key, model: ModelReference, currency: str, *, price: int, bond: int = 0
    ) -> Demand | None:
        """Say what a job would have to carry: see `Escrow`."""

        def operation(tx: Transaction) -> Demand | None:
            books = Books(tx, writing=False)
            terms = guarding.find_terms(books, currency)
            if terms is None:
                return None
            name = guarding.model_name(model)
            standing = guarding.find_standing(books, provider, name, currency, terms)
            return demand(terms, standing, price=price, bond=bond)

        return self._database.read(operation)

    def guard_records(self, provider: Key) -> tuple[GuardRecord, ...]:
        """Read what the guard knows of a provider: see `Escrow`."""
        return self._database.read(lambda tx: guarding.records(Books(tx, writing=False), provider))

    def balances(self) -> tuple[Balance, ...]:
        """Read the accounts: see `Escrow`."""
        return self._database.read(ledger.balances)

    def audit(self) -> tuple[Difference, ...]:
        """Audit the books: see `Escrow`."""
        return self._database.read(audit.audit)

    def _rehearse(self, operation: Operation[T]) -> T:
        """Run an operation for its result, or for what it raises, and undo whatever it did."""
        results: list[T] = []

        def undone(tx: Transaction) -> None:
            results.append(operation(tx))
            raise _Undo

        with contextlib.suppress(_Undo):
            self._database.write(undone)
        return results[-1]


class _Undo(Exception):
    """Ends a transaction without a trace."""


class AsyncEscrow:
    """What a service in an event loop asks of an escrow with every request; all else is the escrow's own.

    The same operations, the same promises: a call has happened, durably, when it returns. Whoever calls while
    too many wait is refused with ``escrow.busy`` at once, since an event loop cannot be held up.
    """

    def __init__(self, escrow: LedgerEscrow, database: Database) -> None:
        """Use `LedgerEscrow.asynchronous`."""
        self._escrow = escrow
        self._database = database

    async def fund(self, job: SignedJob, *, now: int) -> HoldRecord:
        """Fund a job: see `Escrow`."""
        return await self._write(operations.fund(self._escrow.id, job, now=now))

    async def record_claim(
        self, claim: SignedClaim, output: Payload, *, now: int, one_use: Iterable[Digest] = ()
    ) -> HoldRecord:
        """Record a claim: see `Escrow`."""
        return _claimed(await self._write(operations.record_claim(claim, output, now=now, one_use=one_use)))

    async def begin_verification(self, hold: Digest, seq: int, *, lease_s: int, now: int) -> CaptureRecord:
        """Take a lease: see `Escrow`."""
        return await self._write(verifying.begin_verification(hold, seq, lease_s=lease_s, now=now))

    async def end_verification(self, hold: Digest, seq: int, *, now: int) -> CaptureRecord:
        """Give a lease back: see `Escrow`."""
        return await self._write(verifying.end_verification(hold, seq, now=now))

    async def apply(self, ruled: Ruled, *, now: int) -> Applied:
        """Carry out a ruling: see `Escrow`."""
        return await self._write(verifying.apply(ruled, now=now))

    async def apply_many(self, rulings: Sequence[Ruled], *, now: int) -> tuple[Applied | Refused, ...]:
        """Carry out many rulings in one transaction: see `Escrow`."""
        return await self._write(verifying.apply_many(rulings, now=now))

    async def hold(self, hold: Digest) -> HoldRecord:
        """Read a hold: see `Escrow`."""
        return await asyncio.to_thread(self._escrow.hold, hold)

    async def _write(self, operation: Operation[T]) -> T:
        # Shielded: a caller that is cancelled learns nothing, but what it asked for happens or does not.
        return await asyncio.shield(asyncio.wrap_future(self._database.submit(operation)))


def establish(tx: Transaction, *, escrow: str, operators: Iterable[Key], unbonding_s: int = 0) -> None:
    """Write down who a new escrow is."""
    tx.execute('INSERT INTO escrow ("only", id, unbonding_s) VALUES (1, ?, ?)', (escrow, unbonding_s))
    for key in sorted(set(operators)):
        tx.execute("INSERT INTO operator (key) VALUES (?)", (key,))


def require_terms(escrow: str, operators: Iterable[Key], unbonding_s: int) -> None:
    """Refuse a malformed name of an escrow or of an operator, or a delay that is none.

    Raises:
        Misuse: it is one.

    """
    if not 0 <= unbonding_s <= MAX_PERIOD_S:
        raise Misuse(f"unbonding_s: got {unbonding_s}, expected 0 to {MAX_PERIOD_S}")
    if not re.fullmatch(NAME_PATTERN, escrow, re.ASCII):
        raise Misuse(f"escrow: got {escrow[:80]!r}, expected lower-case letters, digits, dots, dashes")
    for key in operators:
        if not re.fullmatch(KEY_PATTERN, key, re.ASCII):
            raise Misuse(f"operator: got {key[:80]!r}, expected a key such as ed25519:3b6a27…")


def _who(tx: Transaction) -> tuple[str | None, tuple[Key, ...]]:
    row = tx.execute("SELECT id FROM escrow").fetchone()
    operators = tx.execute("SELECT key FROM operator ORDER BY key").fetchall()
    return None if row is None else str(row["id"]), tuple(str(operator["key"]) for operator in operators)


def _load(tx: Transaction, hold: Digest, seq: int) -> moves.Capture:
    return moves.load(Books(tx, writing=False), hold, seq)


def _claimed(outcome: tuple[HoldRecord, Refused | None]) -> HoldRecord:
    record, refused = outcome
    if refused is not None:
        raise refused
    return record
