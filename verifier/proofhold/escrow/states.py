"""The states of a hold's captures and of its bond, as one table (PROTOCOL, "States of a capture").

Everything that moves a capture or a bond looks its row up here, and no other module knows which moves
exist. RECONCILE is two states, so that the table alone shows that a decision is never turned round: what a
release does not know about its rail can only end as a release, and a refund's only as a refund.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where one capture of a hold stands."""

    FUNDED = "funded"
    EXPIRED = "expired"
    CLAIMED = "claimed"
    VERIFYING = "verifying"
    ANSWERING = "answering"
    DISPUTED = "disputed"
    RELEASING = "releasing"
    REFUNDING = "refunding"
    RECONCILE_RELEASE = "reconcile_release"
    RECONCILE_REFUND = "reconcile_refund"
    RELEASED = "released"
    REFUNDED = "refunded"

    @property
    def is_final(self) -> bool:
        """Whether nothing leads out of it."""
        return self in FINAL

    @property
    def is_decided(self) -> bool:
        """Whether the point of no return lies behind: who gets the money is settled."""
        return self in RELEASE_SIDE or self in REFUND_SIDE


FINAL = frozenset({State.RELEASED, State.REFUNDED})
RELEASE_SIDE = frozenset({State.RELEASING, State.RECONCILE_RELEASE, State.RELEASED})
REFUND_SIDE = frozenset({State.REFUNDING, State.RECONCILE_REFUND, State.REFUNDED})


class BondState(StrEnum):
    """Where the provider's stake in a hold stands."""

    RESERVED = "reserved"
    FROZEN = "frozen"
    UNBONDING = "unbonding"
    FREE = "free"
    SLASHED = "slashed"


class By(StrEnum):
    """What makes an event happen."""

    PARTY = "party"
    """A document that buyer or provider signed."""
    VERIFIER = "verifier"
    """The verifier's work, or its verdict."""
    OPERATOR = "operator"
    """A signed resolution, or an adjudication with a transcript."""
    CLOCK = "clock"
    """Time alone."""
    RAIL = "rail"
    """What the rail says about a payment."""


class Event(StrEnum):
    """What can happen to a capture."""

    FUND = "fund"
    DECLINE = "decline"
    NEXT = "next"
    CLAIM = "claim"
    CLAIM_DEADLINE = "claim_deadline"
    EXPIRY = "expiry"
    LEASE = "lease"
    GIVE_BACK = "give_back"
    LEASE_END = "lease_end"
    ATTEMPTS_SPENT = "attempts_spent"
    VERIFICATION_DEADLINE = "verification_deadline"
    OPENINGS_NEEDED = "openings_needed"
    OPENED = "opened"
    ANSWER_DEADLINE = "answer_deadline"
    ACCEPTED = "accepted"
    REFUTED = "refuted"
    DISPUTE = "dispute"
    DISPUTE_DEADLINE = "dispute_deadline"
    CHALLENGE = "challenge"
    ANSWER = "answer"
    RESOLVED_RELEASE = "resolved_release"
    RESOLVED_REFUND = "resolved_refund"
    ADJUDICATED_RELEASE = "adjudicated_release"
    ADJUDICATED_REFUND = "adjudicated_refund"
    ADJUDICATED_UNDECIDED = "adjudicated_undecided"
    PAID = "paid"
    OUTCOME_UNKNOWN = "outcome_unknown"
    RECONCILED = "reconciled"


class BondEvent(StrEnum):
    """What a move of the capture, or time, does to the bond."""

    RESERVE = "reserve"
    KEEP = "keep"
    FREEZE = "freeze"
    FREE = "free"
    FREEZE_DEADLINE = "freeze_deadline"
    UNBOND = "unbond"
    """What `FREE` is after a claim, where the escrow has an unbonding delay."""
    UNBONDED = "unbonded"
    PENALISE = "penalise"
    """Take the withholding penalty, and give the rest back."""
    FINE = "fine"
    """What `PENALISE` is while the bond answers for other captures: the rest stays where it is."""
    SLASH = "slash"
    """Take all of it."""


class Timer(StrEnum):
    """Which clock makes a state end. Each counts from the entry into the state unless it says otherwise."""

    CLAIM = "the job's claim_by"
    AT_ONCE = "at once"
    LEASE = "the lease's end"
    VERIFICATION = "verification_s from the claim"
    ANSWER = "answer_s"
    DISPUTE = "dispute_s"
    FREEZE = "freeze_s, and not before dispute_s"
    UNBONDING = "the escrow's unbonding_s"


@dataclass(frozen=True, slots=True)
class Row:
    """One move of a capture: from `source` (None: it did not exist) to `target`, and what it takes."""

    source: State | None
    event: Event
    target: State
    by: By
    guard: str
    bond: BondEvent = BondEvent.KEEP
    timer: Timer | None = None


@dataclass(frozen=True, slots=True)
class BondRow:
    """One move of a bond."""

    source: BondState | None
    event: BondEvent
    target: BondState
    guard: str
    timer: Timer | None = None


def _rows() -> Iterator[Row]:
    s, e, b = State, Event, BondEvent
    yield Row(None, e.FUND, s.FUNDED, By.PARTY, "P9: both signatures, balances, bond", b.RESERVE)
    yield Row(None, e.NEXT, s.FUNDED, By.PARTY, "metered: the capture before it was claimed, and not all")
    yield Row(s.FUNDED, e.DECLINE, s.REFUNDING, By.PARTY, "the provider's signed decline", b.FREE)
    yield Row(s.FUNDED, e.CLAIM, s.CLAIMED, By.PARTY, "P1, P5, P6: a valid claim; output deposited")
    yield Row(s.FUNDED, e.CLAIM_DEADLINE, s.EXPIRED, By.CLOCK, "no claim in time", timer=Timer.CLAIM)
    yield Row(s.EXPIRED, e.EXPIRY, s.REFUNDING, By.CLOCK, "none", b.FREE, Timer.AT_ONCE)
    yield Row(s.CLAIMED, e.LEASE, s.VERIFYING, By.VERIFIER, "attempts left; counted when its check begins")
    yield Row(s.VERIFYING, e.GIVE_BACK, s.CLAIMED, By.VERIFIER, "attempts left; not decided yet")
    yield Row(s.VERIFYING, e.LEASE_END, s.CLAIMED, By.CLOCK, "attempts left", timer=Timer.LEASE)
    yield Row(s.VERIFYING, e.ATTEMPTS_SPENT, s.DISPUTED, By.CLOCK, "no attempts left", b.FREEZE, Timer.LEASE)
    yield Row(s.VERIFYING, e.OPENINGS_NEEDED, s.ANSWERING, By.VERIFIER, "drawn; a need for openings")
    # What fits is the provider's answer, whatever it shows: from here silence is not what it is judged for.
    yield Row(s.ANSWERING, e.OPENED, s.CLAIMED, By.PARTY, "P12: an opening that fits; acknowledged")
    # Refund and penalty: silence must cost more than it can gain (P12).
    yield Row(
        s.ANSWERING, e.ANSWER_DEADLINE, s.REFUNDING, By.CLOCK, "no answer in time", b.PENALISE, Timer.ANSWER
    )
    for state in (s.CLAIMED, s.VERIFYING):
        yield Row(
            state,
            e.VERIFICATION_DEADLINE,
            s.DISPUTED,
            By.CLOCK,
            "no verdict in time",
            b.FREEZE,
            Timer.VERIFICATION,
        )
    for state in (s.CLAIMED, s.VERIFYING, s.ANSWERING, s.DISPUTED):
        yield Row(state, e.ACCEPTED, s.RELEASING, By.VERIFIER, "P4: an Accepted of this capture", b.FREE)
        guard = "P4: a Rejected, the provider at fault by a fact anyone can recompute"
        yield Row(state, e.REFUTED, s.REFUNDING, By.VERIFIER, guard, b.FREEZE)
    for state in (s.CLAIMED, s.VERIFYING, s.ANSWERING):
        guard = "P4: re-execution mismatch; Rejected with another or nobody at fault; needs unmet"
        yield Row(state, e.DISPUTE, s.DISPUTED, By.VERIFIER, guard, b.FREEZE)
    yield Row(
        s.DISPUTED, e.DISPUTE_DEADLINE, s.REFUNDING, By.CLOCK, "nothing decided it", timer=Timer.DISPUTE
    )
    yield Row(s.DISPUTED, e.RESOLVED_RELEASE, s.RELEASING, By.OPERATOR, "signed resolution", b.FREE)
    yield Row(s.DISPUTED, e.RESOLVED_REFUND, s.REFUNDING, By.OPERATOR, "signed resolution")
    yield Row(
        s.DISPUTED, e.CHALLENGE, s.ANSWERING, By.VERIFIER, "P12: one signed challenge a capture", b.FREEZE
    )
    guard = "P12: the provider's signed answer to the challenge, with its tensors"
    yield Row(s.ANSWERING, e.ANSWER, s.DISPUTED, By.PARTY, guard, b.FREEZE)
    guard = "P12: a transcript that acquits"
    yield Row(s.DISPUTED, e.ADJUDICATED_RELEASE, s.RELEASING, By.OPERATOR, guard, b.FREE)
    guard = "P12: a transcript that convicts"
    yield Row(s.DISPUTED, e.ADJUDICATED_REFUND, s.REFUNDING, By.OPERATOR, guard, b.SLASH)
    guard = "P12: a transcript of what has no bound"
    yield Row(s.DISPUTED, e.ADJUDICATED_UNDECIDED, s.REFUNDING, By.OPERATOR, guard, b.FREE)
    for going, unknown, done in (
        (s.RELEASING, s.RECONCILE_RELEASE, s.RELEASED),
        (s.REFUNDING, s.RECONCILE_REFUND, s.REFUNDED),
    ):
        yield Row(going, e.PAID, done, By.RAIL, "receipts of the rail for every payment")
        yield Row(going, e.OUTCOME_UNKNOWN, unknown, By.RAIL, "the rail does not know the outcome")
        yield Row(unknown, e.PAID, done, By.RAIL, "asked, the rail gave its receipts")
        yield Row(unknown, e.RECONCILED, going, By.RAIL, "asked, the rail knows: what it never took is sent")


TABLE: tuple[Row, ...] = tuple(_rows())

BOND_TABLE: tuple[BondRow, ...] = (
    BondRow(None, BondEvent.RESERVE, BondState.RESERVED, "available balance"),
    BondRow(BondState.RESERVED, BondEvent.FREE, BondState.FREE, "released, declined or expired"),
    BondRow(BondState.RESERVED, BondEvent.FREEZE, BondState.FROZEN, "rejected or disputed"),
    BondRow(BondState.RESERVED, BondEvent.PENALISE, BondState.FREE, "no answer in time: less the penalty"),
    BondRow(BondState.FROZEN, BondEvent.PENALISE, BondState.FREE, "no answer in time: less the penalty"),
    BondRow(BondState.RESERVED, BondEvent.FINE, BondState.FROZEN, "the same, but it answers for others, too"),
    BondRow(BondState.FROZEN, BondEvent.FINE, BondState.FROZEN, "the same, but it answers for others, too"),
    BondRow(BondState.FROZEN, BondEvent.FREEZE, BondState.FROZEN, "again: the later deadline counts"),
    BondRow(BondState.FROZEN, BondEvent.FREE, BondState.FREE, "accepted, resolved or adjudicated after all"),
    BondRow(BondState.FROZEN, BondEvent.FREEZE_DEADLINE, BondState.FREE, "not adjudicated", Timer.FREEZE),
    BondRow(BondState.FROZEN, BondEvent.SLASH, BondState.SLASHED, "P12: adjudication with a transcript"),
    BondRow(BondState.RESERVED, BondEvent.UNBOND, BondState.UNBONDING, "free, were there no delay"),
    BondRow(BondState.FROZEN, BondEvent.UNBOND, BondState.UNBONDING, "free, were there no delay"),
    BondRow(BondState.UNBONDING, BondEvent.UNBONDED, BondState.FREE, "time alone", Timer.UNBONDING),
    BondRow(BondState.UNBONDING, BondEvent.SLASH, BondState.SLASHED, "P12: adjudication with a transcript"),
)

_BY_MOVE = {(row.source, row.event): row for row in TABLE}
_BOND_BY_MOVE = {(row.source, row.event): row for row in BOND_TABLE}
if len(_BY_MOVE) != len(TABLE) or len(_BOND_BY_MOVE) != len(BOND_TABLE):
    raise RuntimeError("the table of states says two things about one move")


def move(source: State | None, event: Event) -> Row | None:
    """Look up what an event does to a capture in a state; None where it cannot happen."""
    return _BY_MOVE.get((source, event))


def bond_move(source: BondState | None, event: BondEvent) -> BondRow | None:
    """Look up what an event does to a bond in a state; None where it cannot happen."""
    return _BOND_BY_MOVE.get((source, event))


def moves_from(source: State | None) -> tuple[Row, ...]:
    """Give every row that leads out of a state."""
    return tuple(row for row in TABLE if row.source is source)


def timers_of(source: State) -> tuple[Timer, ...]:
    """Give the clocks that run in a state."""
    return tuple(row.timer for row in moves_from(source) if row.timer is not None)
