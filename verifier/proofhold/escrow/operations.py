"""What can be asked of an escrow, each as a function of a transaction, whatever driver runs it.

A function here checks what needs no books, raises if it is not so, and gives the operation that does the
rest. `Escrow` says what each of them promises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TypeAlias

from proofhold import sampling
from proofhold.canonical import DIGEST_BYTES, Digest
from proofhold.contention import SignedChallenge, SignedDisputeAnswer
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow import disputing, guarding, guards, ledger, moves, queue, reports, timers
from proofhold.escrow.books import Books
from proofhold.escrow.driver import Joint, Operation, Transaction
from proofhold.escrow.escrow import (
    MAX_ATTEMPTS,
    MAX_LEASE_S,
    MAX_RECEIPT_BYTES,
    Adjudged,
    Adjudication,
    Applied,
    CaptureRecord,
    Decision,
    HoldRecord,
    Ruled,
    Ruling,
)
from proofhold.escrow.ledger import Account, AccountKind, Balance
from proofhold.escrow.moves import Noted
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import Event, State
from proofhold.escrow.tables import (
    ACCOUNT,
    ATTEMPT,
    CAPTURE,
    DECISION,
    DOCUMENT,
    ESCROW,
    GUARD_HOLD,
    HOLD,
    JOB,
    ONE_USE,
    PROJECTION,
    SECRET,
    TRANSFER,
    TWO_KEYS,
    WORK,
)
from proofhold.guard import Observation, Terms
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
        capture = require_claimed(moves.load(books, hold, seq))
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
            _take_one_use(books, hold, seq, digests)
        return reports.hold_record(books.flush(), hold), refused

    return operation


def begin_verification(hold: Digest, seq: int, *, lease_s: int, now: int) -> Operation[CaptureRecord]:
    """Take a lease: see `Escrow`."""
    guards.require_time(now)
    if not 1 <= lease_s <= MAX_LEASE_S:
        raise Misuse(f"lease_s: got {lease_s}, expected 1 to {MAX_LEASE_S}")

    def operation(tx: Transaction) -> CaptureRecord:
        books = Books(tx)
        capture = timers.advance(books, require_claimed(moves.load(books, hold, seq)), now=now)
        if capture.state is State.VERIFYING:
            raise Refused("escrow.leased", f"its verification is under way, until {capture.due} at most")
        moves.move_capture(books, capture, Event.LEASE, now=now, noted=Noted(lease_s=lease_s, begun=True))
        return reports.capture_record(books.flush(), hold, seq)

    return operation


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
        capture = timers.advance(books, require_claimed(moves.load(books, hold, seq)), now=now)
        moves.move_capture(books, capture, Event.OPENINGS_NEEDED, now=now)
        return reports.capture_record(books.flush(), hold, seq)

    return operation


def opened(hold: Digest, seq: int, *, opening: Digest, now: int) -> Operation[CaptureRecord]:
    """Take note of an opening: see `Escrow`."""
    guards.require_time(now)

    def operation(tx: Transaction) -> CaptureRecord:
        books = Books(tx)
        capture = timers.advance(books, require_claimed(moves.load(books, hold, seq)), now=now)
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


def require_claimed(capture: moves.Capture) -> moves.Capture:
    """Refuse what has no claim yet.

    Raises:
        Refused: ``escrow.not_claimed``.

    """
    if capture.claimed_at is None:
        raise Refused("escrow.not_claimed", f"no claim is recorded, and the capture is {capture.state}")
    return capture


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


def _require_ruling(ruled: Ruled, now: int) -> None:
    guards.require_time(now)
    if not re.fullmatch(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}", ruled.receipt_digest, re.ASCII):
        raise Misuse(f"receipt digest: got {ruled.receipt_digest[:80]!r}")
    if not 0 < len(ruled.receipt) <= MAX_RECEIPT_BYTES:
        raise Misuse(f"receipt: {len(ruled.receipt)} bytes, expected 1 to {MAX_RECEIPT_BYTES}")


def _apply_all(tx: Transaction, rulings: Sequence[tuple[Ruled, int]]) -> tuple[Outcome, ...]:
    """Carry out rulings, each as of its own time: read for all, decide one by one, write for all."""
    books = Books(tx)
    _fetch_for(books, [ruled for ruled, _ in rulings])
    outcomes: list[Outcome] = []
    for ruled, now in rulings:
        try:
            with books.attempt():
                outcomes.append(_apply(books, ruled, now))
        except Refused as refusal:
            outcomes.append(refusal)
    books.flush()
    return tuple(outcomes)


def _apply(books: Books, ruled: Ruled, now: int) -> Applied:
    hold, seq, ruling = ruled.hold, ruled.seq, ruled.ruling
    capture = moves.load(books, hold, seq)
    stands = books.find(DECISION, hold, seq, ruling.value)
    if stands is not None:
        first = Decision(ruling, stands["receipt_digest"], bytes(stands["receipt"]), stands["at"])
        return Applied(first, capture.state, repeated=True)
    capture = timers.advance(books, require_claimed(capture), now=now)
    if ruling is Ruling.RELEASE:
        _take_one_use(books, hold, seq, ruled.one_use)
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
    books.fetch(HOLD, holds)
    books.fetch(JOB, holds)
    books.fetch(CAPTURE, captures)
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


def _take_one_use(books: Books, hold: Digest, seq: int, digests: Iterable[Digest]) -> None:
    for digest in sorted(set(digests)):
        row = books.find(ONE_USE, digest)
        if row is None:
            books.insert(ONE_USE, digest, hold, seq)
        elif (row["hold"], row["seq"]) != (hold, seq):
            text = f"the claim's evidence rests on {digest}, which served another claim"
            raise Refused("claim.reused_evidence", text, Fault.PROVIDER)
