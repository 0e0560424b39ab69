"""The hook: what a verdict does to money. The only module that knows both the verifier and the escrow.

`fund` asks everything that must hold before a job binds anyone (PROTOCOL P9). `settle` takes a verdict,
`settle_receipt` a signed receipt from another process; both compare what was judged with the hold's own
record (P4) before anything moves. Only an acceptance releases; what nobody can be blamed for keeps the hold
as it is; a measured mismatch opens a dispute.

`asettle`, `asettle_receipt` and `averify_and_settle` are the same for callers in an event loop. In shadow
mode the same is decided and written down, and nothing moves (`shadow` reports on it).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

from proofhold import endorsing
from proofhold.canonical import Digest
from proofhold.core import Answer, Assurance, Fault, Inconclusive, NeedKind, Property, Reason, Verdict
from proofhold.decision import Decision, Mode, Outcome
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Applied, CaptureRecord, Escrow, HoldRecord, Ruled, Ruling
from proofhold.escrow.metering import share
from proofhold.escrow.quorums import Quorum
from proofhold.escrow.refusals import Refused
from proofhold.escrow.shadows import ShadowBook
from proofhold.escrow.states import State
from proofhold.exchange import Bundle
from proofhold.guard import Observation
from proofhold.hearing import answers_of, judge_claim, reveal_of
from proofhold.job import SignedJob
from proofhold.keys import SigningKey
from proofhold.payload import Payload
from proofhold.policy import Policy
from proofhold.receipt import Outcome as Judged
from proofhold.receipt import Receipt
from proofhold.verifier import Verifier

Clock: TypeAlias = Callable[[], int]
"""Gives the time in unix seconds."""

ModeName: TypeAlias = Mode | Literal["live", "shadow"]

T = TypeVar("T")

DEFAULT_LEASE_S = 600
AWAITS_RECEIPTS = "awaits_receipts"
"""The code of what is kept until other verifiers have said the same."""
MAX_BESIDE_THE_LOOP = 256
"""How many settlements callers in event loops wait for at once; the ledger commits once for many of them."""
MAX_ASKED = 8192
"""How many event loops may have asked for at a time: more, and who asks is refused with ``escrow.busy``."""


def system_clock() -> int:
    """Give this machine's time in unix seconds."""
    return int(time.time())


class NotFundable(Refused):
    """A job must not be funded; `reasons` are all there are, the first one's code is the error's."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        first = reasons[0]
        super().__init__(first.code, "; ".join(_in_words(reason) for reason in reasons), first.fault)
        self.reasons = tuple(reasons)


def fund(
    job: SignedJob,
    payload: Payload,
    *,
    policy: Policy,
    verifier: Verifier,
    escrow: Escrow,
    clock: Clock = system_clock,
) -> HoldRecord:
    """Take a job's price into escrow, once everything that P9 asks for holds.

    Args:
        job: signed by buyer and provider.
        payload: the buyer's input, compared with the job's digest and the model's domain.
        policy: the buyer's, compared with the job's digest; what the job admits must be able to satisfy it.
        verifier: whose catalogue must know the model and the locks that the job pins.
        escrow: checks signatures, deadlines and balances, and that the job was never funded.
        clock: unix seconds.

    Raises:
        NotFundable: with every reason of the first four kinds.
        Refused: the escrow's own reasons, and its guard's: the rate and the bond that it demands are
            frozen here (P11).

    """
    now = clock()
    reasons = funding_objections(job, payload, policy=policy, verifier=verifier)
    several = endorsing.funding_objection(escrow, job.document, now=now)
    if several is not None:
        reasons = (*reasons, several)
    if reasons:
        raise NotFundable(reasons)
    return escrow.fund(job, now=now)


def funding_objections(
    job: SignedJob, payload: Payload, *, policy: Policy, verifier: Verifier
) -> tuple[Reason, ...]:
    """List what speaks against funding a job, the escrow's own books apart (PROTOCOL P9)."""
    document = job.document
    reasons = []
    if not job.envelope.is_signed_by_exactly(document.signers):
        text = "the job does not carry the good signatures of its buyer and its provider, and theirs alone"
        got = ", ".join(sorted(job.envelope.signers())) or "no good signature"
        reasons.append(Reason("job.signature", text, Fault.NOBODY, got, "buyer and provider"))
    if (got := payload.digest(bytes.fromhex(document.nonce))) != document.input:
        text = "the input is not the one that the job names"
        reasons.append(Reason("input.digest", text, Fault.BUYER, got, document.input))
    reasons += verifier.objections_to(document, payload)
    if policy.digest != document.policy:
        text = "the policy is not the one that the job names"
        reasons.append(Reason("policy.digest", text, Fault.BUYER, policy.digest, document.policy))
    else:
        reasons += policy.satisfiable_by(
            verifier.offers(document),
            price=document.price,
            currency=document.currency,
            sampling_rate_ppm=document.sampling_rate_ppm,
        )
    return tuple(reasons)


def settle(
    hold_id: Digest,
    verdict: Verdict,
    *,
    escrow: Escrow,
    key: SigningKey,
    mode: ModeName = Mode.LIVE,
    clock: Clock = system_clock,
) -> Decision:
    """Let a verdict decide a capture, and leave a signed receipt that says why.

    Idempotent: called again with the same verdict it gives the same decision, and money moves once.

    Args:
        hold_id: the job's digest.
        verdict: of this very process; from another one only a receipt counts (`settle_receipt`).
        escrow: holds the money.
        key: the verifier's, which the job names.
        mode: ``live``; or ``shadow``, which decides and records the same and moves nothing.
        clock: unix seconds.

    Raises:
        Refused: ``settle.…`` where verdict and hold do not agree (P4), or the escrow's own reasons.

    """
    receipt = Receipt.issue(verdict, key)
    return settle_receipt(hold_id, receipt, escrow=escrow, mode=mode, clock=clock)


def settle_receipt(
    hold_id: Digest,
    receipt: Receipt,
    *,
    escrow: Escrow,
    mode: ModeName = Mode.LIVE,
    clock: Clock = system_clock,
) -> Decision:
    """Let a signed receipt decide a capture: a cheque for one capture of one hold (P4).

    Where the escrow asks for the receipts of several verifiers above a price, each is handed in here. Until
    there are enough the capture is kept, and the decision says how many are missing.

    Raises:
        Refused: ``settle.verifier``, ``settle.untrusted``, ``settle.hold``, ``settle.not_claimed``,
            ``settle.statement``, ``settle.policy``, ``settle.time``, or the escrow's own reasons. In shadow
            mode the latter are told in the decision instead.

    """
    mode = _mode(mode)
    record = escrow.hold(hold_id)
    quorum = endorsing.find_quorum(escrow, record.job.document)
    endorsing.require_signer(receipt, record, quorum)
    seq = _compare(record, receipt)
    if mode is Mode.SHADOW:
        return _in_shadow(record, seq, receipt, escrow=escrow, now=clock())
    ruling = ruling_of(receipt)
    if ruling is None:
        return _kept(record, seq, receipt)
    if quorum is not None:
        so_far = endorsing.endorse(escrow, record, seq, receipt, ruling, quorum, now=clock())
        if so_far.missing:
            return replace(_kept(record, seq, receipt), missing_receipts=so_far.missing)
        receipt = so_far.receipt
    applied = _apply(escrow, hold_id, seq, ruling, receipt, now=clock())
    kept = applied.decision.receipt
    first = receipt if kept == receipt.encode() else Receipt.decode(kept)
    decision = Decision(hold_id, seq, Outcome(applied.decision.ruling.value), applied.state, first)
    return _with_figures(decision, record, at=applied.decision.at)


def verify_and_settle(
    hold_id: Digest,
    bundle: Bundle,
    *,
    verifier: Verifier,
    policy: Policy,
    escrow: Escrow,
    key: SigningKey,
    seq: int = 0,
    answers: Sequence[Answer] = (),
    mode: ModeName = Mode.LIVE,
    lease_s: int = DEFAULT_LEASE_S,
    clock: Clock = system_clock,
) -> Decision:
    """Judge a bundle for a recorded claim, and settle: the whole hook, for one service that does both.

    The job and the claim are those of the hold's record, whatever the bundle holds in their place; the
    sampling secret is revealed by the escrow. In shadow mode no lease is taken either.

    Raises:
        Refused: the hold is not claimed, another check of it runs, or `settle`'s reasons.

    """
    mode = _mode(mode)
    record = escrow.hold(hold_id)
    capture = record.capture(seq)
    if capture.claim is None or capture.claimed_at is None:
        raise Refused("settle.not_claimed", f"no claim on capture {seq} is recorded")
    leases = mode is Mode.LIVE and capture.state in (State.CLAIMED, State.VERIFYING)
    if leases:
        escrow.begin_verification(hold_id, seq, lease_s=lease_s, now=clock())
    exchange = replace(bundle.exchange, job=record.job, claim=capture.claim)
    verdict = judge_claim(
        Bundle(exchange, bundle.evidence),
        answers,
        heard=answers_of(escrow, hold_id, seq),
        verifier=verifier,
        policy=policy,
        claimed_at=capture.claimed_at,
        reveal=reveal_of(escrow, hold_id, seq, clock) if mode is Mode.LIVE else None,
    )
    decision = settle(hold_id, verdict, escrow=escrow, key=key, mode=mode, clock=clock)
    if leases and decision.outcome is Outcome.KEEP:
        drawn = isinstance(verdict, Inconclusive) and any(n.kind is NeedKind.OPENING for n in verdict.needs)
        # Drawn, and nothing opened yet: from here the provider's silence is counted (P12).
        wait = escrow.await_opening if drawn else escrow.end_verification
        return replace(decision, state=wait(hold_id, seq, now=clock()).state)
    return decision


async def asettle(
    hold_id: Digest,
    verdict: Verdict,
    *,
    escrow: Escrow,
    key: SigningKey,
    mode: ModeName = Mode.LIVE,
    clock: Clock = system_clock,
) -> Decision:
    """`settle` for callers in an event loop, which goes on meanwhile.

    A caller that is cancelled stops waiting; the settlement itself goes on, or never began. Ask again: the
    answer is the decision that stands. Where too many wait already, it is refused with ``escrow.busy``.
    """
    return await _beside_the_loop(settle, hold_id, verdict, escrow=escrow, key=key, mode=mode, clock=clock)


async def asettle_receipt(
    hold_id: Digest,
    receipt: Receipt,
    *,
    escrow: Escrow,
    mode: ModeName = Mode.LIVE,
    clock: Clock = system_clock,
) -> Decision:
    """`settle_receipt` for callers in an event loop; see `asettle`."""
    return await _beside_the_loop(settle_receipt, hold_id, receipt, escrow=escrow, mode=mode, clock=clock)


async def averify_and_settle(
    hold_id: Digest,
    bundle: Bundle,
    *,
    verifier: Verifier,
    policy: Policy,
    escrow: Escrow,
    key: SigningKey,
    seq: int = 0,
    answers: Sequence[Answer] = (),
    mode: ModeName = Mode.LIVE,
    lease_s: int = DEFAULT_LEASE_S,
    clock: Clock = system_clock,
) -> Decision:
    """`verify_and_settle` for callers in an event loop; see `asettle`. Its lease outlives a cancellation."""
    return await _beside_the_loop(
        verify_and_settle,
        hold_id,
        bundle,
        verifier=verifier,
        policy=policy,
        escrow=escrow,
        key=key,
        seq=seq,
        answers=answers,
        mode=mode,
        lease_s=lease_s,
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt that moves nothing, by itself or yet: the code says why."""

    code: str


def rule(
    record: HoldRecord,
    receipt: Receipt,
    *,
    escrow: Escrow,
    now: int,
    quorums: Mapping[str, Quorum] | None = None,
) -> Ruled | Kept:
    """Compare a signed receipt with a hold's record (P4), and say what it rules, without carrying it out.

    For whoever settles many at once (`Escrow.apply_many`). Where several verifiers have to say the same, the
    receipt is counted, and the ruling is given once there are enough. `quorums` are those of the escrow, if
    they were read already (`endorsing.read_quorums`).

    Raises:
        Refused: as `settle_receipt`.

    """
    quorum = endorsing.find_quorum(escrow, record.job.document, quorums)
    endorsing.require_signer(receipt, record, quorum)
    seq, ruling = _compare(record, receipt), ruling_of(receipt)
    if ruling is None:
        return Kept(receipt.reasons[0].code if receipt.reasons else "inconclusive")
    if quorum is not None:
        so_far = endorsing.endorse(escrow, record, seq, receipt, ruling, quorum, now=now)
        if so_far.missing:
            return Kept(AWAITS_RECEIPTS)
        receipt = so_far.receipt
    observation = observation_of(receipt)
    return Ruled(record.id, seq, ruling, receipt.digest, receipt.encode(), receipt.one_use, observation)


def ruling_of(receipt: Receipt) -> Ruling | None:
    """Say what a receipt's outcome does to a capture; None leaves it as it is."""
    match receipt.outcome:
        case Judged.ACCEPTED:
            return Ruling.RELEASE
        case Judged.REJECTED:
            return Ruling.REFUND if receipt.settles_blame else Ruling.DISPUTE
        case Judged.INCONCLUSIVE:
            return None


def observation_of(receipt: Receipt) -> Observation | None:
    """Say what a receipt tells the guard (P11); None where it says nothing about the provider.

    An acceptance was checked if the output is shown on anybody's word: one that merely could have been
    checked leaves what was paid exposed. A rejection counts against the provider where the fault is its.
    """
    match receipt.outcome:
        case Judged.ACCEPTED:
            words = set(receipt.shown.get(Property.OUTPUT, ())) - {Assurance.NOT_DRAWN}
            return Observation.CLEAN if words else Observation.UNCHECKED
        case Judged.REJECTED:
            at_fault = any(reason.fault is Fault.PROVIDER for reason in receipt.reasons)
            return Observation.FAILED if at_fault else None
        case Judged.INCONCLUSIVE:
            return None


async def _beside_the_loop(function: Callable[..., T], *arguments: object, **named: object) -> T:
    """Call a function in a thread. Not asyncio's own pool: it has few, and settling is mostly waiting."""
    if not _asked.acquire(blocking=False):
        raise Refused("escrow.busy", f"{MAX_ASKED} settlements wait already: try again")
    call = functools.partial(contextvars.copy_context().run, function, *arguments, **named)
    future = _threads().submit(call)
    future.add_done_callback(lambda _: _asked.release())  # also when it was cancelled and never began
    return await asyncio.wrap_future(future)


_asked = threading.BoundedSemaphore(MAX_ASKED)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_BESIDE_THE_LOOP, thread_name_prefix="proofhold-settle")


def _apply(
    escrow: Escrow,
    hold_id: Digest,
    seq: int,
    ruling: Ruling,
    receipt: Receipt,
    *,
    now: int,
    rehearse: bool = False,
) -> Applied:
    return escrow.apply(
        hold_id,
        seq,
        ruling,
        receipt_digest=receipt.digest,
        receipt=receipt.encode(),
        now=now,
        one_use=receipt.one_use,
        observation=observation_of(receipt),
        rehearse=rehearse,
    )


def _in_shadow(record: HoldRecord, seq: int, receipt: Receipt, *, escrow: Escrow, now: int) -> Decision:
    """Find out what the escrow would do, write it down, and leave the hold as it is."""
    ruling, refused = ruling_of(receipt), ""
    if ruling is not None:
        try:
            _apply(escrow, record.id, seq, ruling, receipt, now=now, rehearse=True)
        except Refused as refusal:
            refused = refusal.code
    decision = _kept(record, seq, receipt)
    if ruling is not None:
        decision = _with_figures(replace(decision, outcome=Outcome(ruling.value)), record, at=now)
    if decision.state is not State.FUNDED:  # before a claim nothing is at stake
        ShadowBook(escrow.store).add(
            record.id,
            seq,
            decision.outcome,
            receipt_digest=receipt.digest,
            receipt=receipt.encode(),
            refused=refused,
            now=now,
        )
    return replace(decision, mode=Mode.SHADOW, refused=refused)


def _kept(record: HoldRecord, seq: int, receipt: Receipt) -> Decision:
    capture = record.capture(seq)
    decision = Decision(record.id, seq, Outcome.KEEP, capture.state, receipt)
    if capture.state.is_decided or capture.claimed_at is None:
        return decision
    return replace(decision, open_until=capture.claimed_at + record.job.document.verification_s)


def _with_figures(decision: Decision, record: HoldRecord, *, at: int) -> Decision:
    """Add what a ruling of time `at` moves, and until when it can still be turned."""
    job, capture = record.job.document, record.capture(decision.seq)
    claim = capture.claim
    match decision.outcome:
        case Outcome.RELEASE:
            amount, open_until = (0 if claim is None else claim.document.amount - capture.base), None
        case Outcome.REFUND:
            claimed = None if claim is None else claim.document.amount
            amount, open_until = share(job, capture.seq, capture.base, claimed), None
        case _:
            amount, open_until = 0, at + job.dispute_s
    return replace(decision, amount=amount, open_until=open_until)


def _mode(mode: ModeName) -> Mode:
    try:
        return Mode(mode)
    except ValueError as error:
        # Never a default: whoever mistypes "shadow" must not move money by it.
        raise Misuse(f"mode: got {mode!r}, expected live or shadow") from error


def _compare(record: HoldRecord, receipt: Receipt) -> int:
    """Compare what was judged with the hold's own record (P4), and give the capture that it is about."""
    if receipt.statement is None:
        # Only an inconclusive receipt has none: it moves nothing, whichever capture was meant.
        return record.captures[0].seq
    if receipt.statement.job != record.id:
        text = f"the receipt is about job {receipt.statement.job}, the hold is {record.id}"
        raise Refused("settle.hold", text, Fault.VERIFIER)
    capture = record.capture(receipt.statement.seq)
    statement = record.statement(capture.seq)
    if statement is None:
        raise Refused("settle.not_claimed", f"no claim on capture {capture.seq} is recorded")
    if receipt.statement != statement:
        text = "the receipt judges another amount, input or output than the recorded claim's"
        raise Refused("settle.statement", text, Fault.VERIFIER)
    if receipt.policy != record.policy:
        text = f"the receipt judges by policy {receipt.policy}, the job names {record.policy}"
        raise Refused("settle.policy", text, Fault.VERIFIER)
    _compare_time(capture, receipt)
    return capture.seq


def _compare_time(capture: CaptureRecord, receipt: Receipt) -> None:
    if receipt.now != capture.claimed_at:
        text = f"the receipt judges as of {receipt.now}, the claim was recorded at {capture.claimed_at}"
        raise Refused("settle.time", text, Fault.VERIFIER)


def _in_words(reason: Reason) -> str:
    detail = f" (got {reason.got}, expected {reason.expected})" if reason.got or reason.expected else ""
    return f"{reason.message}{detail}"


__all__ = [
    "Decision",
    "Mode",
    "NotFundable",
    "Outcome",
    "asettle",
    "answers_of",
    "asettle_receipt",
    "averify_and_settle",
    "fund",
    "funding_objections",
    "observation_of",
    "rule",
    "settle",
    "settle_receipt",
    "verify_and_settle",
]
