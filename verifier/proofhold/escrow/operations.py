"""What can be asked of an escrow, each as a function of a transaction, whatever driver runs it.

A function here checks what needs no books, raises if it is not so, and gives the operation that does the
rest. `Escrow` says what each of them promises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proofhold import sampling
from proofhold.canonical import Digest
from proofhold.contention import SignedChallenge, SignedDisputeAnswer
from proofhold.core import Fault
from proofhold.escrow import disputing, guarding, guards, ledger, moves, reports, timers, verifying
from proofhold.escrow.books import Books
from proofhold.escrow.driver import Operation, Transaction
from proofhold.escrow.escrow import (
    Adjudged,
    Adjudication,
    HoldRecord,
)
from proofhold.escrow.ledger import Account, AccountKind, Balance
from proofhold.escrow.moves import Noted
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import Event
from proofhold.escrow.tables import (
    CAPTURE,
    DOCUMENT,
    ESCROW,
    HOLD,
    PROJECTION,
    SECRET,
    TRANSFER,
    TWO_KEYS,
)
from proofhold.guard import Terms
from proofhold.job import (
    Claim,
    Job,
    ResolutionOutcome,
    SignedClaim,
    SignedDecline,
    SignedJob,
    SignedResolution,
)
from proofhold.keys import Key, Signed
from proofhold.money import Currency
from proofhold.payload import Payload, Tensor, encode_payload

MOST_KEYS = 2
"""How many operators' keys a resolution takes above an amount that the escrow sets."""
_EVENT_OF_RESOLUTION = {
    ResolutionOutcome.RELEASE: Event.RESOLVED_RELEASE,
    ResolutionOutcome.REFUND: Event.RESOLVED_REFUND,
}


def deposit(account: str, amount: int, currency: Currency, *, key: str, now: int) -> Operation[Balance]:
    """Put money in: see `Escrow`."""
    party = Account(AccountKind.PARTY, account, currency.code)
    outside = ledger.outside(currency.code)
    return _cash(f"deposit:{key}", outside, party, amount, currency, key, now)


def withdraw(account: str, amount: int, currency: Currency, *, key: str, now: int) -> Operation[Balance]:
    """Take money out: see `Escrow`."""
    party = Account(AccountKind.PARTY, account, currency.code)
    outside = ledger.outside(currency.code)
    return _cash(f"withdraw:{key}", party, outside, amount, currency, key, now)


def draw_secret(nonce: bytes, secret: bytes) -> Operation[Digest]:
    """Keep a job's sampling secret, unless its nonce has one: see `Escrow`."""
    commitment = sampling.commitment(nonce, secret)

    def operation(tx: Transaction) -> Digest:
        books = Books(tx)
        row = books.find(SECRET, nonce.hex()) or books.insert(SECRET, nonce.hex(), commitment, secret)
        books.flush()
        return str(row["commitment"])

    return operation


def draw_projection(nonce: bytes, secret: bytes) -> Operation[Digest]:
    """Keep a job's second secret, unless its nonce has one: see `Escrow`."""
    commitment = sampling.projection_commitment(nonce, secret)

    def operation(tx: Transaction) -> Digest:
        books = Books(tx)
        row = books.find(PROJECTION, nonce.hex())
        row = row or books.insert(PROJECTION, nonce.hex(), commitment, secret, None, None)
        books.flush()
        return str(row["commitment"])

    return operation


def record_openings(hold: Digest, seq: int, *, openings: Digest, now: int) -> Operation[bytes]:
    """Record what a second secret is revealed to: see `Escrow`."""
    guards.require_time(now)

    def operation(tx: Transaction) -> bytes:
        books = Books(tx)
        capture = moves.require_claimed(moves.load(books, hold, seq))
        nonce = capture.job.nonce
        books.lock(f"projection:{nonce}")
        row = books.find(PROJECTION, nonce)
        if capture.job.projection_commitment is None or row is None:
            raise Refused("escrow.no_projection", "the job commits to no second secret")
        if row["openings"] is None:
            books.update(PROJECTION, (nonce,), openings=openings, recorded_at=now)
        elif row["openings"] != openings:
            text = f"the secret was revealed to the openings {row['openings']}, and to no others"
            raise Refused("escrow.openings", text, Fault.PROVIDER)
        books.flush()
        return bytes(row["secret"])

    return operation


def fund(escrow: str, job: SignedJob, *, now: int) -> Operation[HoldRecord]:
    """Fund a job: see `Escrow`."""
    guards.require_time(now)
    signed = guards.reread(job)
    hold = signed.digest

    def operation(tx: Transaction) -> HoldRecord:
        books = Books(tx)
        books.lock(f"commitment:{signed.document.sampling_commitment}")  # one job, or two with one secret
        if books.find(HOLD, hold) is not None:
            raise Refused("escrow.already_funded", f"the job {hold} was funded here before")
        guards.require_fundable(signed, escrow=escrow, now=now)
        document = signed.document
        ledger.require_storable(tx, "price", document.price)
        ledger.require_storable(tx, "bond", document.bond)
        _require_commitment(books, signed)
        ledger.require_known(books, document.currency)
        unbonding_s = (books.find(ESCROW, 1) or {})["unbonding_s"]
        moves.create(books, hold, signed, unbonding_s=unbonding_s, now=now)
        return reports.hold_record(books.flush(), hold)

    return operation


def decline(document: SignedDecline, *, now: int) -> Operation[HoldRecord]:
    """Decline a funded job, or what is left of a metered one: see `Escrow`."""
    guards.require_time(now)
    signed = guards.reread(document)
    hold = signed.document.job

    def operation(tx: Transaction) -> HoldRecord:
        books = Books(tx)
        capture = moves.load(books, hold, 0)
        while capture.job.captures > 1 and books.find(CAPTURE, hold, capture.seq + 1) is not None:
            capture = moves.load(books, hold, capture.seq + 1)
        seq = capture.seq
        if not signed.envelope.is_signed_by_exactly([capture.job.provider]):
            text = "the decline does not carry the provider's signature alone"
            raise Refused("decline.signature", text)
        if books.find(DOCUMENT, hold, seq, "decline") is None:
            capture = timers.advance(books, capture, now=now)
            moves.move_capture(books, capture, Event.DECLINE, now=now, cause=signed.digest)
            books.insert(DOCUMENT, hold, seq, "decline", signed.encode())
        return reports.hold_record(books.flush(), hold)

    return operation


def record_claim(
    claim: SignedClaim, output: Payload, *, now: int, one_use: Iterable[Digest]
) -> Operation[tuple[HoldRecord, Refused | None]]:
    """Record a claim: see `Escrow`. A refusal is a value here: the evidence of an equivocation is to stay."""
    guards.require_time(now)
    signed, digests = guards.reread(claim), tuple(one_use)
    document = signed.document
    hold, seq = document.job, document.seq

    def operation(tx: Transaction) -> tuple[HoldRecord, Refused | None]:
        books = Books(tx)
        capture = moves.load(books, hold, seq)
        guards.require_signed_claim(signed, capture.job)
        first = books.find(DOCUMENT, hold, seq, "claim")
        refused = None
        if first is not None:
            refused = _answer_second(books, Signed.decode(Claim, bytes(first["body"])), signed)
        else:
            guards.require_claimable(document, output, capture.job, base=capture.base, now=now)
            noted = Noted(document.amount, now, now + capture.job.verification_s)
            claimed = moves.move_capture(
                books, capture, Event.CLAIM, now=now, cause=signed.digest, noted=noted
            )
            moves.open_next(books, claimed, now=now)
            books.insert(DOCUMENT, hold, seq, "claim", signed.encode())
            books.insert(DOCUMENT, hold, seq, "output", encode_payload(output))
            verifying.take_one_use(books, hold, seq, digests)
        return reports.hold_record(books.flush(), hold), refused

    return operation


def resolve(resolution: SignedResolution, *, operators: Iterable[Key], now: int) -> Operation[HoldRecord]:
    """Resolve a dispute: see `Escrow`."""
    guards.require_time(now)
    signed, known = guards.reread(resolution), set(operators)
    document = signed.document
    hold, seq = document.job, document.seq

    def operation(tx: Transaction) -> HoldRecord:
        books = Books(tx)
        capture = moves.load(books, hold, seq)
        signers = signed.envelope.signers()
        if not signers <= known or not signed.envelope.is_signed_by_exactly(signers):
            raise Refused("resolution.signature", "the resolution is not signed by operators alone")
        if not signers:
            raise Refused("resolution.signature", "the resolution bears no good signature")
        _require_keys(books, capture.job, len(signers))
        kept = books.find(DOCUMENT, hold, seq, "resolution")
        if kept is None or kept["body"] != signed.encode():
            capture = timers.advance(books, capture, now=now)
            event = _EVENT_OF_RESOLUTION[document.outcome]
            moves.move_capture(books, capture, event, now=now, cause=signed.digest)
            books.insert(DOCUMENT, hold, seq, "resolution", signed.encode())
        return reports.hold_record(books.flush(), hold)

    return operation


def set_two_keys(currency: Currency, above: int) -> Operation[None]:
    """Ask for two keys above an amount: see `Escrow`."""

    def operation(tx: Transaction) -> None:
        books = Books(tx)
        ledger.require_storable(tx, "above", above)
        ledger.register(books, currency)
        if books.find(TWO_KEYS, currency.code) is None:
            books.insert(TWO_KEYS, currency.code, above)
        else:
            books.update(TWO_KEYS, (currency.code,), above=above)
        books.flush()

    return operation


def challenge(document: SignedChallenge, *, now: int) -> Operation[HoldRecord]:
    """Challenge a disputed claim: see `Escrow`."""
    guards.require_time(now)
    signed = guards.reread(document)

    def operation(tx: Transaction) -> HoldRecord:
        books = Books(tx)
        disputing.challenge(books, signed, now=now)
        return reports.hold_record(books.flush(), signed.document.job)

    return operation


def answer(document: SignedDisputeAnswer, tensors: Sequence[Tensor], *, now: int) -> Operation[HoldRecord]:
    """Record the answer to a challenge: see `Escrow`."""
    guards.require_time(now)
    signed = guards.reread(document)

    def operation(tx: Transaction) -> HoldRecord:
        books = Books(tx)
        disputing.answer(books, signed, tensors, now=now)
        return reports.hold_record(books.flush(), signed.document.job)

    return operation


def adjudicate(
    hold: Digest, seq: int, outcome: Adjudged, *, transcript: bytes, now: int
) -> Operation[Adjudication]:
    """End a dispute by a transcript: see `Escrow`."""
    guards.require_time(now)

    def operation(tx: Transaction) -> Adjudication:
        books = Books(tx)
        ended = disputing.adjudicate(books, hold, seq, outcome, transcript, now=now)
        books.flush()
        return ended

    return operation


def set_guard(currency: Currency, terms: Terms, *, now: int) -> Operation[None]:
    """Guard a currency: see `Escrow`."""
    guards.require_time(now)

    def operation(tx: Transaction) -> None:
        books = Books(tx)
        guarding.set_terms(books, currency, terms, now=now)
        books.flush()

    return operation


def _cash(
    name: str,
    source: Account,
    target: Account,
    amount: int,
    currency: Currency,
    key: str,
    now: int,
) -> Operation[Balance]:
    party = source if target.kind is AccountKind.OUTSIDE else target
    guards.require_time(now)
    guards.require_cash(party.owner, amount, key)

    def operation(tx: Transaction) -> Balance:
        books = Books(tx)
        ledger.register(books, currency)
        if party is source and books.find(TRANSFER, name) is None:
            guarding.require_covered(books, party, amount)
        ledger.transfer_once(books, name, source, target, amount, at=now)
        books.flush()
        return Balance(party, currency, ledger.balance_of(books, party))

    return operation


def _require_commitment(books: Books, signed: SignedJob) -> None:
    """Check that the job's secret is ours, made for its nonce, and kept from every other hold (P2)."""
    job = signed.document
    row = books.find(SECRET, job.nonce)
    if row is None or row["commitment"] != job.sampling_commitment:
        text = "the job's sampling commitment is not the one that was drawn here for its nonce"
        raise Refused("job.commitment", text)
    sql = "SELECT 1 FROM hold WHERE commitment = ?"
    if books.tx.execute(sql, (job.sampling_commitment,)).fetchone():
        text = "another hold has this sampling commitment, and may have revealed its secret"
        raise Refused("job.commitment_used", text)
    second = books.find(PROJECTION, job.nonce)
    if job.projection_commitment not in (None, second and second["commitment"]):
        text = "the job's projection commitment is not the one that was drawn here for its nonce"
        raise Refused("job.projection", text)


def _require_keys(books: Books, job: Job, keys: int) -> None:
    """Ask for two operators' keys where that much is at stake."""
    row = books.find(TWO_KEYS, job.currency.code)
    if row is not None and job.price > row["above"] and keys < MOST_KEYS:
        text = f"{keys} operator's key, expected {MOST_KEYS} above {job.currency.show(row['above'])}"
        raise Refused("resolution.keys", text)


def _answer_second(books: Books, first: SignedClaim, second: SignedClaim) -> Refused | None:
    """Say what a second signed claim is: the same again (None), another, or a contradiction (P5)."""
    if first.digest == second.digest:
        return None
    if not guards.is_equivocation(first.document, second.document):
        return Refused("claim.already_recorded", "the first claim is final", Fault.PROVIDER)
    # One contradiction is proof enough; keeping more would let a provider fill the disk.
    document = second.document
    if books.find(DOCUMENT, document.job, document.seq, "equivocation") is None:
        books.insert(DOCUMENT, document.job, document.seq, "equivocation", second.encode())
    text = f"the provider signed two outputs for one capture: {first.digest} and {second.digest}"
    return Refused("claim.equivocation", text, Fault.PROVIDER)
