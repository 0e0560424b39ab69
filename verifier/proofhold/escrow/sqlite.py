"""The embedded escrow: one SQLite file, one transaction an operation."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from proofhold import sampling
from proofhold.canonical import DIGEST_BYTES, Digest
from proofhold.contention import SignedChallenge, SignedDisputeAnswer
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow import audit, disputing, guarding, guards, ledger, moves, payments, reports, timers
from proofhold.escrow.database import Database, Transaction
from proofhold.escrow.escrow import (
    MAX_ATTEMPTS,
    MAX_LEASE_S,
    MAX_RECEIPT_BYTES,
    Adjudged,
    Adjudication,
    Applied,
    CaptureRecord,
    Decision,
    Difference,
    DisputeRecord,
    HoldRecord,
    Pumped,
    Ruling,
    Transition,
)
from proofhold.escrow.guarding import GuardRecord
from proofhold.escrow.ledger import Account, AccountKind, Balance
from proofhold.escrow.moves import Noted
from proofhold.escrow.rail import Rail
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import RELEASE_SIDE, Event, State
from proofhold.escrow.store import Store
from proofhold.guard import Demand, Observation, Standing, Terms, demand
from proofhold.job import (
    NAME_PATTERN,
    Delivery,
    ModelReference,
    ResolutionOutcome,
    SignedClaim,
    SignedDecline,
    SignedJob,
    SignedResolution,
)
from proofhold.keys import KEY_PATTERN, Key
from proofhold.money import Currency
from proofhold.payload import Payload, Tensor, decode_payload, encode_payload

T = TypeVar("T")

_EVENT_OF_RULING = {
    Ruling.RELEASE: Event.ACCEPTED,
    Ruling.REFUND: Event.REFUTED,
    Ruling.DISPUTE: Event.DISPUTE,
}
_LEAST_FAVOURABLE = {Ruling.RELEASE: Observation.UNCHECKED, Ruling.REFUND: Observation.FAILED}
"""What the guard is told where the caller does not say: nothing that a provider could gain by."""
_EVENT_OF_RESOLUTION = {
    ResolutionOutcome.RELEASE: Event.RESOLVED_RELEASE,
    ResolutionOutcome.REFUND: Event.RESOLVED_REFUND,
}


class SqliteEscrow:
    """An `Escrow` in one file. May be used from several threads, and the file by several processes."""

    def __init__(self, database: Database) -> None:
        """Take an open database: use `create` or `open`."""
        self._database = database
        with database.reading() as tx:
            row = tx.execute("SELECT id FROM escrow").fetchone()
            operators = tx.execute("SELECT key FROM operator ORDER BY key").fetchall()
        if row is None:
            raise Misuse("the escrow was never given a name: it was not made by `create`")
        self.id: str = row["id"]
        self.operators: tuple[Key, ...] = tuple(row["key"] for row in operators)
        self.store: Store = database

    @classmethod
    def create(cls, path: Path, *, escrow: str, operators: Iterable[Key] = ()) -> Self:
        """Make a new escrow.

        Args:
            path: its file, which must not exist; nobody but its owner may read it.
            escrow: its name, which jobs carry.
            operators: keys whose signatures resolve disputes; without one, only verdicts and time do.

        Raises:
            Misuse: the file exists, or a name is malformed.

        """
        keys = sorted(set(operators))
        if not re.fullmatch(NAME_PATTERN, escrow, re.ASCII):
            raise Misuse(f"escrow: got {escrow[:80]!r}, expected lower-case letters, digits, dots, dashes")
        for key in keys:
            if not re.fullmatch(KEY_PATTERN, key, re.ASCII):
                raise Misuse(f"operator: got {key[:80]!r}, expected a key such as ed25519:3b6a27…")
        database = Database(path, create=True)
        with database.transaction() as tx:
            tx.execute("INSERT INTO escrow VALUES (1, ?)", (escrow,))
            tx.executemany("INSERT INTO operator VALUES (?)", [(key,) for key in keys])
        return cls(database)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an escrow.

        Raises:
            Misuse: there is none.
            EscrowFailure: the file is none, or of another version.

        """
        return cls(Database(path, create=False))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def deposit(self, account: str, amount: int, currency: Currency, *, key: str, now: int) -> Balance:
        """Put money in: see `Escrow`."""
        party = Account(AccountKind.PARTY, account, currency.code)
        return self._cash("deposit", ledger.outside(currency.code), party, amount, currency, key, now)

    def withdraw(self, account: str, amount: int, currency: Currency, *, key: str, now: int) -> Balance:
        """Take money out: see `Escrow`."""
        party = Account(AccountKind.PARTY, account, currency.code)
        return self._cash("withdraw", party, ledger.outside(currency.code), amount, currency, key, now)

    def draw_secret(self, nonce: bytes) -> Digest:
        """Draw a job's sampling secret: see `Escrow`."""
        secret = os.urandom(sampling.SECRET_BYTES)
        commitment = sampling.commitment(nonce, secret)
        with self._database.transaction() as tx:
            sql = "INSERT INTO secret VALUES (?, ?, ?) ON CONFLICT (nonce) DO NOTHING"
            tx.execute(sql, (nonce.hex(), commitment, secret))
            row = tx.execute("SELECT commitment FROM secret WHERE nonce = ?", (nonce.hex(),)).fetchone()
        return str(row["commitment"])

    def fund(self, job: SignedJob, *, now: int) -> HoldRecord:
        """Fund a job: see `Escrow`."""
        guards.require_time(now)
        signed = guards.reread(job)
        hold = signed.digest
        with self._database.transaction() as tx:
            if tx.execute("SELECT 1 FROM hold WHERE id = ?", (hold,)).fetchone():
                raise Refused("escrow.already_funded", f"the job {hold} was funded here before")
            guards.require_fundable(signed, escrow=self.id, now=now)
            _require_commitment(tx, signed)
            ledger.require_known(tx, signed.document.currency)
            moves.create(tx, hold, signed, now=now)
            return reports.hold_record(tx, hold)

    def decline(self, decline: SignedDecline, *, now: int) -> HoldRecord:
        """Decline a funded job: see `Escrow`."""
        guards.require_time(now)
        signed = guards.reread(decline)
        hold = signed.document.job
        with self._database.transaction() as tx:
            capture = moves.load(tx, hold, 0)
            if not signed.envelope.is_signed_by_exactly([capture.job.provider]):
                raise Refused(
                    "decline.signature", "the decline does not carry the provider's signature alone"
                )
            if reports.find_document(tx, hold, 0, "decline") is None:
                capture = timers.advance(tx, capture, now=now)
                moves.move_capture(tx, capture, Event.DECLINE, now=now, cause=signed.digest)
                _keep(tx, hold, 0, "decline", signed.encode())
            return reports.hold_record(tx, hold)

    def record_claim(
        self, claim: SignedClaim, output: Payload, *, now: int, one_use: Iterable[Digest] = ()
    ) -> HoldRecord:
        """Record a claim: see `Escrow`."""
        guards.require_time(now)
        signed = guards.reread(claim)
        document = signed.document
        with self._database.transaction() as tx:
            capture = moves.load(tx, document.job, document.seq)
            guards.require_signed_claim(signed, capture.job)
            first = reports.find_claim(tx, document.job, document.seq)
            refused = None if first is None else _answer_second(tx, first, signed)
            if first is None:
                guards.require_claimable(document, output, capture.job, now=now)
                noted = Noted(document.amount, now, now + capture.job.verification_s)
                moves.move_capture(tx, capture, Event.CLAIM, now=now, cause=signed.digest, noted=noted)
                _keep(tx, document.job, document.seq, "claim", signed.encode())
                _keep(tx, document.job, document.seq, "output", encode_payload(output))
                _take_one_use(tx, document.job, document.seq, one_use)
            record = reports.hold_record(tx, document.job)
        if refused is not None:
            raise refused  # only now: the evidence of an equivocation is to stay
        return record

    def reveal(self, hold: Digest, seq: int) -> bytes:
        """Reveal the sampling secret: see `Escrow`."""
        with self._database.reading() as tx:
            capture = _require_claimed(moves.load(tx, hold, seq))
            sql = "SELECT secret FROM secret WHERE commitment = ?"
            return bytes(tx.execute(sql, (capture.job.sampling_commitment,)).fetchone()["secret"])

    def begin_verification(self, hold: Digest, seq: int, *, lease_s: int, now: int) -> CaptureRecord:
        """Take a lease: see `Escrow`."""
        guards.require_time(now)
        if not 1 <= lease_s <= MAX_LEASE_S:
            raise Misuse(f"lease_s: got {lease_s}, expected 1 to {MAX_LEASE_S}")
        with self._database.transaction() as tx:
            capture = timers.advance(tx, _require_claimed(moves.load(tx, hold, seq)), now=now)
            if capture.state is State.VERIFYING:
                raise Refused("escrow.leased", f"its verification is under way, until {capture.due} at most")
            moves.move_capture(tx, capture, Event.LEASE, now=now, noted=Noted(lease_s=lease_s))
            return reports.capture_record(tx, hold, seq)

    def end_verification(self, hold: Digest, seq: int, *, now: int) -> CaptureRecord:
        """Give a lease back: see `Escrow`."""
        guards.require_time(now)
        with self._database.transaction() as tx:
            capture = timers.advance(tx, moves.load(tx, hold, seq), now=now)
            if capture.state is State.VERIFYING and capture.attempts < MAX_ATTEMPTS:
                moves.move_capture(tx, capture, Event.GIVE_BACK, now=now)
            return reports.capture_record(tx, hold, seq)

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
        guards.require_time(now)
        if not re.fullmatch(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}", receipt_digest, re.ASCII):
            raise Misuse(f"receipt digest: got {receipt_digest[:80]!r}")
        if not 0 < len(receipt) <= MAX_RECEIPT_BYTES:
            raise Misuse(f"receipt: {len(receipt)} bytes, expected 1 to {MAX_RECEIPT_BYTES}")

        def operation(tx: Transaction) -> Applied:
            capture = moves.load(tx, hold, seq)
            stands = reports.find_decision(tx, hold, seq, ruling)
            if stands is not None:
                return Applied(stands, capture.state, repeated=True)
            capture = timers.advance(tx, _require_claimed(capture), now=now)
            if ruling is Ruling.RELEASE:
                _take_one_use(tx, hold, seq, one_use)
            event = _EVENT_OF_RULING[ruling]
            noted = Noted(observation=observation or _LEAST_FAVOURABLE.get(ruling))
            capture = moves.move_capture(tx, capture, event, now=now, cause=receipt_digest, noted=noted)
            decision = Decision(ruling, receipt_digest, receipt, now)
            tx.execute(
                "INSERT INTO decision VALUES (?, ?, ?, ?, ?, ?)",
                (hold, seq, ruling, receipt_digest, receipt, now),
            )
            # A dispute of no length ends where it begins: the refund at once, the bond stays frozen.
            capture = timers.advance(tx, capture, now=now)
            return Applied(decision, capture.state, repeated=False)

        return self._rehearse(operation) if rehearse else self._database.write(operation)

    def resolve(self, resolution: SignedResolution, *, now: int) -> HoldRecord:
        """Resolve a dispute: see `Escrow`."""
        guards.require_time(now)
        signed = guards.reread(resolution)
        document = signed.document
        with self._database.transaction() as tx:
            capture = moves.load(tx, document.job, document.seq)
            signers = signed.envelope.signers()
            if not signers <= set(self.operators) or not signed.envelope.is_signed_by_exactly(signers):
                raise Refused("resolution.signature", "the resolution is not signed by operators alone")
            if not signers:
                raise Refused("resolution.signature", "the resolution bears no good signature")
            kept = reports.find_document(tx, document.job, document.seq, "resolution")
            if kept != signed.encode():
                capture = timers.advance(tx, capture, now=now)
                event = _EVENT_OF_RESOLUTION[document.outcome]
                moves.move_capture(tx, capture, event, now=now, cause=signed.digest)
                _keep(tx, document.job, document.seq, "resolution", signed.encode())
            return reports.hold_record(tx, document.job)

    def challenge(self, challenge: SignedChallenge, *, now: int) -> HoldRecord:
        """Challenge a disputed claim: see `Escrow`."""
        guards.require_time(now)
        signed = guards.reread(challenge)
        with self._database.transaction() as tx:
            disputing.challenge(tx, signed, now=now)
            return reports.hold_record(tx, signed.document.job)

    def answer(self, answer: SignedDisputeAnswer, tensors: Sequence[Tensor], *, now: int) -> HoldRecord:
        """Record the answer to a challenge: see `Escrow`."""
        guards.require_time(now)
        signed = guards.reread(answer)
        with self._database.transaction() as tx:
            disputing.answer(tx, signed, tensors, now=now)
            return reports.hold_record(tx, signed.document.job)

    def dispute(self, hold: Digest, seq: int) -> DisputeRecord:
        """Read a dispute: see `Escrow`."""
        with self._database.reading() as tx:
            moves.load(tx, hold, seq)
            return disputing.record(tx, hold, seq)

    def adjudicate(
        self, hold: Digest, seq: int, outcome: Adjudged, *, transcript: bytes, now: int
    ) -> Adjudication:
        """End a dispute by a transcript: see `Escrow`."""
        guards.require_time(now)
        with self._database.transaction() as tx:
            return disputing.adjudicate(tx, hold, seq, outcome, transcript, now=now)

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
        with self._database.reading() as tx:
            capture = _require_claimed(moves.load(tx, hold, seq))
            if capture.job.delivery is Delivery.WITH_VERDICT and capture.state not in RELEASE_SIDE:
                text = f"the job delivers with the verdict, and the capture is {capture.state}"
                raise Refused("escrow.not_delivered", text)
            return decode_payload(reports.find_document(tx, hold, seq, "output") or b"")

    def hold(self, hold: Digest) -> HoldRecord:
        """Read a hold: see `Escrow`."""
        with self._database.reading() as tx:
            return reports.hold_record(tx, hold)

    def equivocation(self, hold: Digest, seq: int) -> SignedClaim | None:
        """Read the evidence of an equivocation: see `Escrow`."""
        with self._database.reading() as tx:
            moves.load(tx, hold, seq)
            return reports.find_claim(tx, hold, seq, kind="equivocation")

    def history(self, hold: Digest) -> tuple[Transition, ...]:
        """Read a hold's moves: see `Escrow`."""
        with self._database.reading() as tx:
            reports.hold_record(tx, hold)
            return reports.history(tx, hold)

    def set_guard(self, currency: Currency, terms: Terms, *, now: int) -> None:
        """Guard a currency: see `Escrow`."""
        guards.require_time(now)
        with self._database.transaction() as tx:
            guarding.set_terms(tx, currency, terms, now=now)

    def guard(self, currency: str) -> Terms | None:
        """Read a currency's guard: see `Escrow`."""
        with self._database.reading() as tx:
            return guarding.find_terms(tx, currency)

    def demand(
        self, provider: Key, model: ModelReference, currency: str, *, price: int, bond: int = 0
    ) -> Demand | None:
        """Say what a job would have to carry: see `Escrow`."""
        with self._database.reading() as tx:
            terms = guarding.find_terms(tx, currency)
            if terms is None:
                return None
            name = guarding.model_name(model)
            standing: Standing = guarding.find_standing(tx, provider, name, currency, terms)
            return demand(terms, standing, price=price, bond=bond)

    def guard_records(self, provider: Key) -> tuple[GuardRecord, ...]:
        """Read what the guard knows of a provider: see `Escrow`."""
        with self._database.reading() as tx:
            return guarding.records(tx, provider)

    def balances(self) -> tuple[Balance, ...]:
        """Read the accounts: see `Escrow`."""
        with self._database.reading() as tx:
            return ledger.balances(tx)

    def audit(self) -> tuple[Difference, ...]:
        """Audit the books: see `Escrow`."""
        with self._database.reading() as tx:
            return audit.audit(tx)

    def _rehearse(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation for its result, or for what it raises, and undo whatever it did."""
        results: list[T] = []

        def undone(tx: Transaction) -> None:
            results.append(operation(tx))
            raise _Undo

        with contextlib.suppress(_Undo):
            self._database.write(undone)
        return results[-1]

    def _cash(
        self,
        what: str,
        source: Account,
        target: Account,
        amount: int,
        currency: Currency,
        key: str,
        now: int,
    ) -> Balance:
        guards.require_time(now)
        party = target if what == "deposit" else source
        guards.require_cash(party.owner, amount, key)
        with self._database.transaction() as tx:
            ledger.register(tx, currency)
            ledger.transfer_once(tx, f"{what}:{key}", source, target, amount, at=now)
            return Balance(party, currency, ledger.balance_of(tx, party))


class _Undo(Exception):
    """Ends a transaction without a trace."""


def _require_claimed(capture: moves.Capture) -> moves.Capture:
    if capture.claimed_at is None:
        raise Refused("escrow.not_claimed", f"no claim is recorded, and the capture is {capture.state}")
    return capture


def _require_commitment(tx: Transaction, signed: SignedJob) -> None:
    """Check that the job's secret is ours, made for its nonce, and kept from every other hold (P2)."""
    job = signed.document
    row = tx.execute("SELECT commitment FROM secret WHERE nonce = ?", (job.nonce,)).fetchone()
    if row is None or row["commitment"] != job.sampling_commitment:
        text = "the job's sampling commitment is not the one that was drawn here for its nonce"
        raise Refused("job.commitment", text)
    if tx.execute("SELECT 1 FROM hold WHERE commitment = ?", (job.sampling_commitment,)).fetchone():
        text = "another hold has this sampling commitment, and may have revealed its secret"
        raise Refused("job.commitment_used", text)


def _answer_second(tx: Transaction, first: SignedClaim, second: SignedClaim) -> Refused | None:
    """Say what a second signed claim is: the same again (None), another, or a contradiction (P5)."""
    if first.digest == second.digest:
        return None
    if not guards.is_equivocation(first.document, second.document):
        return Refused("claim.already_recorded", "the first claim is final", Fault.PROVIDER)
    # One contradiction is proof enough; keeping more would let a provider fill the disk.
    document = second.document
    if reports.find_document(tx, document.job, document.seq, "equivocation") is None:
        _keep(tx, document.job, document.seq, "equivocation", second.encode())
    text = f"the provider signed two outputs for one capture: {first.digest} and {second.digest}"
    return Refused("claim.equivocation", text, Fault.PROVIDER)


def _take_one_use(tx: Transaction, hold: Digest, seq: int, digests: Iterable[Digest]) -> None:
    for digest in sorted(set(digests)):
        row = tx.execute("SELECT hold, seq FROM one_use WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            tx.execute("INSERT INTO one_use VALUES (?, ?, ?)", (digest, hold, seq))
        elif (row["hold"], row["seq"]) != (hold, seq):
            text = f"the claim's evidence rests on {digest}, which served another claim"
            raise Refused("claim.reused_evidence", text, Fault.PROVIDER)


def _keep(tx: Transaction, hold: Digest, seq: int, kind: str, body: bytes) -> None:
    tx.execute("INSERT INTO document VALUES (?, ?, ?, ?)", (hold, seq, kind, body))
