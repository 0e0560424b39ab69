"""The escrow as its users see it, whatever database lies under it, and the records that it gives out.

An escrow knows digests, keys, amounts and clocks: it never judges evidence and has no opinion on policies.
`SqliteEscrow` is the embedded one, `PostgresEscrow` the one that many machines share: the same operations
over two drivers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from proofhold.canonical import Digest
from proofhold.contention import SignedChallenge, SignedDisputeAnswer
from proofhold.core import Statement
from proofhold.escrow.guarding import GuardRecord
from proofhold.escrow.ledger import Balance
from proofhold.escrow.rail import Rail
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import BondState, State
from proofhold.escrow.store import Store
from proofhold.guard import Demand, Observation, Terms
from proofhold.job import (
    ModelReference,
    SignedClaim,
    SignedDecline,
    SignedJob,
    SignedResolution,
    statement_of,
)
from proofhold.keys import Key
from proofhold.money import Currency
from proofhold.payload import Payload, Tensor

MAX_ATTEMPTS = 5
"""How many checks of a capture may begin and come to nothing before it is disputed."""
MAX_LEASE_S = 86_400
MAX_RECEIPT_BYTES = 64 * 2**20
MAX_TRANSCRIPT_BYTES = 64 * 2**20
MAX_KEY_CHARS = 128


class Ruling(StrEnum):
    """What a verdict does to a capture. (One that keeps it as it is does not come here.)"""

    RELEASE = "release"
    """Accepted: the provider is paid."""
    REFUND = "refund"
    """Rejected by a fact that anyone can recompute: the buyer is paid, the bond is frozen."""
    DISPUTE = "dispute"
    """Anything else that speaks against paying: the bond is frozen until somebody decides, or time does."""


class Adjudged(StrEnum):
    """What a transcript shows about the provider (PROTOCOL P12)."""

    CONVICTED = "convicted"
    """A tensor that it signed is not what its own inputs give: refund, and the bond is slashed."""
    ACQUITTED = "acquitted"
    """What was charged is within the bound: the provider is paid."""
    UNDECIDED = "undecided"
    """What was charged has no bound: refund, and nothing is taken."""


@dataclass(frozen=True, slots=True)
class Adjudication:
    """How a transcript ended the dispute about a capture."""

    outcome: Adjudged
    transcript_digest: Digest
    transcript: bytes
    at: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one verdict decided on a capture, with the receipt that says why."""

    ruling: Ruling
    receipt_digest: Digest
    receipt: bytes
    at: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class DisputeRecord:
    """What was said and decided in the dispute about a capture; None where nothing was."""

    challenge: SignedChallenge | None
    answer: SignedDisputeAnswer | None
    answered_at: int | None
    """Unix seconds."""
    tensors: tuple[Tensor, ...]
    """In the order of the answer."""
    adjudication: Adjudication | None


@dataclass(frozen=True, slots=True)
class CaptureRecord:
    """One capture of a hold, as it stands."""

    hold: Digest
    seq: int
    state: State
    due: int | None
    """Unix seconds: the first at which the state's timer fires. None where no clock runs."""
    attempts: int
    """How many checks of it are known to have begun."""
    claim: SignedClaim | None
    claimed_at: int | None
    """Unix seconds: the `now` of its verification (PROTOCOL P8)."""
    changed_at: int
    decisions: tuple[Decision, ...]
    base: int = 0
    """What the claim before this one came to, in atomic units: it settles what it exceeds that by."""


@dataclass(frozen=True, slots=True)
class BondRecord:
    """The provider's stake in a hold."""

    state: BondState
    amount: int
    """Atomic units, as the job says: what silence has cost of it, if anything, is in the history (`fine`)."""
    due: int | None
    """Unix seconds: when a frozen bond becomes free if nobody adjudicates."""


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A hold: everything that settling compares a verdict with (PROTOCOL P4)."""

    id: Digest
    """The job's digest: a job is funded once."""
    job: SignedJob
    funded_at: int
    bond: BondRecord
    captures: tuple[CaptureRecord, ...]

    @property
    def verifier(self) -> Key:
        """Whose receipts count."""
        return self.job.document.verifier

    @property
    def policy(self) -> Digest:
        """The policy that verdicts must have been made under."""
        return self.job.document.policy

    def capture(self, seq: int) -> CaptureRecord:
        """Give one capture.

        Raises:
            Refused: ``escrow.unknown_capture``.

        """
        for capture in self.captures:
            if capture.seq == seq:
                return capture
        raise Refused("escrow.unknown_capture", f"the hold has no capture {seq}")

    def statement(self, seq: int) -> Statement | None:
        """Say what evidence about a capture must be about; None before a claim is recorded.

        Raises:
            Refused: ``escrow.unknown_capture``.

        """
        claim = self.capture(seq).claim
        return None if claim is None else statement_of(self.job.document, claim.document)


@dataclass(frozen=True, slots=True)
class Ruled:
    """One ruling on one capture, with what it rests on: the arguments of `Escrow.apply`."""

    hold: Digest
    seq: int
    ruling: Ruling
    receipt_digest: Digest
    receipt: bytes
    one_use: tuple[Digest, ...] = ()
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of handing a ruling to the escrow."""

    decision: Decision
    state: State
    """Where the capture stands now."""
    repeated: bool
    """The same ruling stood already: nothing moved this time."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of a capture or of a bond, as the log keeps it."""

    hold: Digest
    seq: int
    subject: str
    """``capture`` or ``bond``."""
    source: str | None
    event: str
    target: str
    at: int
    cause: str
    """The digest of the document that caused it; empty where time or the rail did."""


@dataclass(frozen=True, slots=True)
class Pumped:
    """What one round over the open payments did: how many were paid, and of how many nothing is known."""

    paid: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in the books that contradicts something else in them."""

    subject: str
    message: str


class Escrow(Protocol):
    """What every driver does. All `now` are unix seconds; all amounts are atomic units.

    Every method may raise `Refused` with ``escrow.busy`` and `EscrowFailure`; after either, nothing moved.
    A method that moves a capture raises `Refused` with ``escrow.clock_backwards`` if `now` is older than
    the capture's last move, and ``escrow.wrong_state`` if the table of states knows no such move.
    """

    @property
    def id(self) -> str:
        """The escrow's name, which jobs carry."""

    @property
    def operators(self) -> tuple[Key, ...]:
        """Whose signatures make a resolution."""

    @property
    def store(self) -> Store:
        """The database, for what is kept beside the money."""

    def deposit(self, account: str, amount: int, currency: Currency, *, key: str, now: int) -> Balance:
        """Put money from the outside into a party's account, once under this key.

        Raises:
            Misuse: a malformed account or key, or an amount below 1.
            Refused: ``escrow.key_reused``, ``escrow.currency``, ``escrow.amount``.

        """

    def withdraw(self, account: str, amount: int, currency: Currency, *, key: str, now: int) -> Balance:
        """Take available money out of a party's account, once under this key.

        Raises:
            Misuse: a malformed account or key, or an amount below 1.
            Refused: ``escrow.balance``, ``escrow.key_reused``, ``escrow.currency``, ``escrow.amount``;
                ``guard.exposure``, what is unchecked must stay covered (P11).

        """

    def draw_secret(self, nonce: bytes) -> Digest:
        """Draw the sampling secret of the job with this 32-byte nonce and give its commitment (P2).

        Asked again for the same nonce it gives the same commitment: one hold may be funded with it.
        """

    def draw_projection(self, nonce: bytes) -> Digest:
        """Draw the second secret of a valuable job, as `draw_secret` does the first (P3)."""

    def fund(self, job: SignedJob, *, now: int) -> HoldRecord:
        """Take a job's price and bond into a new hold (P9, as far as an escrow can tell).

        Raises:
            Malformed: the job is not what its format says.
            Refused: ``job.signature``, ``job.escrow``, ``job.captures``, ``job.captures_sampled``,
                ``job.commitment``, ``job.commitment_used``, ``job.projection``, ``job.projection_captures``,
                ``job.price``, ``job.penalty``,
                ``escrow.already_funded``, ``escrow.too_late``, ``escrow.currency``, ``escrow.amount``,
                ``escrow.balance``; and, where the currency is guarded, ``guard.value``,
                ``guard.rate``, ``guard.bond``, ``guard.penalty``, ``guard.exposure`` (P11).

        """

    def decline(self, decline: SignedDecline, *, now: int) -> HoldRecord:
        """Give the buyer the money back at the provider's signed word. Once is as good as twice.

        Of a metered hold it is what was not claimed yet: the provider closes it.

        Raises:
            Refused: ``escrow.unknown_hold``, ``decline.signature``.

        """

    def record_claim(
        self, claim: SignedClaim, output: Payload, *, now: int, one_use: Iterable[Digest] = ()
    ) -> HoldRecord:
        """Record the provider's claim with its output: the first one wins (P1, P5, P6).

        Args:
            claim: names its hold and capture.
            output: deposited here, delivered by the job's rule.
            now: becomes the time of the claim.
            one_use: digests of signed payloads in its evidence that may serve once.

        Raises:
            Malformed: the claim is not what its format says.
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``claim.signature``,
                ``claim.equivocation`` (and the second claim is kept), ``claim.already_recorded``,
                ``escrow.too_late``, ``claim.amount``, ``claim.evidence_kind``, ``claim.output``,
                ``claim.reused_evidence``.

        """

    def reveal(self, hold: Digest, seq: int) -> bytes:
        """Give the sampling secret, 32 bytes, once a claim is recorded (P2).

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``escrow.not_claimed``.

        """

    def record_openings(self, hold: Digest, seq: int, *, openings: Digest, now: int) -> bytes:
        """Record the digest of a valuable job's openings, for good, and reveal the second secret to it (P3).

        The caller has seen that the provider signed for them. Asked again for the same it gives the same.

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``escrow.not_claimed``;
                ``escrow.no_projection``, the job commits to no second secret; ``escrow.openings``, others
                were recorded.

        """

    def is_raised(self, hold: Digest) -> bool:
        """Tell whether the claims of a guarded hold must be checked, drawn or not (P11).

        They must once its provider has failed a check in its currency since the hold was funded. Then nothing
        of it is released by a verdict that only could have checked it.
        """

    def begin_verification(self, hold: Digest, seq: int, *, lease_s: int, now: int) -> CaptureRecord:
        """Take a claimed capture for verification, for `lease_s` seconds, and begin to check it: an attempt.

        Raises:
            Refused: ``escrow.leased``, somebody else's lease runs.

        """

    def end_verification(self, hold: Digest, seq: int, *, now: int) -> CaptureRecord:
        """Give a lease back without a ruling, so that the next attempt need not wait for its end.

        After the last attempt the lease just runs out, and the capture is disputed.
        """

    def await_opening(self, hold: Digest, seq: int, *, now: int) -> CaptureRecord:
        """Wait for the provider's opening of a capture that is being verified: it has `answer_s` (P12).

        Silence costs the refund and the withholding penalty.

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``escrow.wrong_state``.

        """

    def opened(self, hold: Digest, seq: int, *, opening: Digest, now: int) -> CaptureRecord:
        """Take note that an opening came and fits: the capture waits for a verdict again, `verification_s`.

        The caller has compared it with the claim (`answering.take_opening`): what it shows is not known here.

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``escrow.challenged``, it is a
                dispute that waits for an answer; ``escrow.wrong_state``.

        """

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
        """Move a claimed capture as a verdict rules. The caller has compared verdict and hold (P4).

        The same ruling again moves nothing and gives the first decision. A dispute may be followed by a
        release or a refund; nothing else may follow anything.

        Args:
            hold: the job's digest.
            seq: the capture.
            ruling: what the verdict does.
            receipt_digest: the receipt's name.
            receipt: says why; kept.
            now: unix seconds.
            one_use: digests of signed payloads that a release rests on: each serves one capture, for good,
                whether it was taken with the claim or only known once the evidence was judged (P6).
            observation: what the verdict tells the guard. Left out, a release was not checked, a refund is
                a failed check, and a dispute tells nothing yet.
            rehearse: give or raise what would come of it, and leave everything as it is.

        Raises:
            Refused: ``escrow.decided``, another outcome stands; ``escrow.not_claimed``;
                ``claim.reused_evidence``; ``guard.unchecked``, its provider failed a check since.

        """

    def apply_many(self, rulings: Sequence[Ruled], *, now: int) -> tuple[Applied | Refused, ...]:
        """Carry out many rulings in one durable transaction, each as `apply` would.

        One that is refused moves nothing and keeps none of the others back: its refusal stands in its place.

        Raises:
            Misuse: too many at once, or one that no books could carry out.

        """

    def resolve(self, resolution: SignedResolution, *, now: int) -> HoldRecord:
        """Decide a disputed capture by an operator's word. Once is as good as twice.

        Raises:
            Refused: ``resolution.signature``, ``resolution.keys``, ``escrow.decided``,
                ``escrow.wrong_state``.

        """

    def challenge(self, challenge: SignedChallenge, *, now: int) -> HoldRecord:
        """Demand that the provider of a disputed capture shows every step of one segment, within `answer_s`.

        Silence costs the refund and the withholding penalty (P12). Once is as good as twice.

        Raises:
            Malformed: the challenge is not what its format says.
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``challenge.signature``,
                ``challenge.claim``, ``challenge.repeated``.

        """

    def answer(self, answer: SignedDisputeAnswer, tensors: Sequence[Tensor], *, now: int) -> HoldRecord:
        """Record the answer to a challenge, with the tensors whose hashes it signs. Once is as good as twice.

        Raises:
            Malformed: the answer is not what its format says.
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``answer.signature``,
                ``answer.claim``, ``answer.segment``, ``answer.repeated``, ``answer.tensors``.

        """

    def dispute(self, hold: Digest, seq: int) -> DisputeRecord:
        """Give what was said and decided in the dispute about a capture.

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``.

        """

    def adjudicate(
        self, hold: Digest, seq: int, outcome: Adjudged, *, transcript: bytes, now: int
    ) -> Adjudication:
        """End a dispute as a transcript says, which the caller has replayed (`settlement.adjudicate`).

        Of a capture that was refunded already, only the bond moves, while it is frozen. The same transcript
        again moves nothing.

        Raises:
            Misuse: an empty or an oversized transcript.
            Refused: ``escrow.adjudicated``, another transcript ended it; ``escrow.unknown_hold``,
                ``escrow.unknown_capture``, ``escrow.decided``.

        """

    def run_timers(self, now: int) -> tuple[Transition, ...]:
        """Do everything that time alone does, and say what it was."""

    def pump(self, rail: Rail, *, now: int) -> Pumped:
        """Pay what was decided, or ask the rail what became of it."""

    def deliver(self, hold: Digest, seq: int) -> Payload:
        """Give the buyer the deposited output, when the job's delivery rule allows (P10).

        Raises:
            Refused: ``escrow.not_claimed``, ``escrow.not_delivered``.

        """

    def hold(self, hold: Digest) -> HoldRecord:
        """Give a hold as it stands.

        Raises:
            Refused: ``escrow.unknown_hold``.

        """

    def equivocation(self, hold: Digest, seq: int) -> SignedClaim | None:
        """Give the first signed claim that contradicts the recorded one, or None (P5).

        Raises:
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``.

        """

    def history(self, hold: Digest) -> tuple[Transition, ...]:
        """Give every move of a hold, oldest first.

        Raises:
            Refused: ``escrow.unknown_hold``.

        """

    def set_guard(self, currency: Currency, terms: Terms, *, now: int) -> None:
        """Guard the jobs of a currency from now on, or change how (P11).

        What was demanded of funded holds stays; so does what is known of providers.
        """

    def set_two_keys(self, currency: Currency, above: int) -> None:
        """Ask for the keys of two operators wherever a resolution decides a price above this (atomic units).

        Raises:
            Refused: ``escrow.amount``, ``escrow.currency``.

        """

    def guard(self, currency: str) -> Terms | None:
        """Give a currency's guard; None where its jobs are not guarded."""

    def demand(
        self, provider: Key, model: ModelReference, currency: str, *, price: int, bond: int = 0
    ) -> Demand | None:
        """Say what a job would have to carry today; None where the currency is not guarded.

        For whoever drafts one: what is demanded when it is funded is what counts.
        """

    def guard_records(self, provider: Key) -> tuple[GuardRecord, ...]:
        """Give what the guard knows of a provider, a record each model and currency."""

    def balances(self) -> tuple[Balance, ...]:
        """Give every account with what it holds; per currency they sum to zero."""

    def audit(self) -> tuple[Difference, ...]:
        """Recompute balances from entries and states from transitions; empty when the books agree."""
