"""The protocol's money in plain Python: written from the protocol, not from the escrow's table of states.

No database, no codes, no documents: one counter of money, everything at once, and `No` where the escrow has
to refuse. test_model.py plays it against the escrow.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from escrow_builders import BOND, BUYER, PAYEE, PRICE, PROVIDER
from proofhold.job import PPM, Fee

JOBS = 400
ATTEMPTS = 5
FEE = Fee("house", 30_000)


class No(Exception):
    """The model refuses."""


@dataclass
class ModelTry:
    begun: bool = False
    outcome: str = ""


@dataclass
class ModelCapture:
    base: int
    due: int | None
    state: str = "funded"
    amount: int | None = None
    verification_due: int | None = None
    attempts: int = 0
    leases: int = 0
    tries: dict[int, ModelTry] = field(default_factory=dict)
    """What workers made of it, by the number of their lease."""
    blamed: bool = False
    rulings: list[str] = field(default_factory=list)
    resolution: str = ""
    adjudication: str = ""
    owed: list[tuple[str, int]] = field(default_factory=list)

    @property
    def is_decided(self) -> bool:
        return self.state in ("releasing", "refunding", "released", "refunded")


@dataclass
class ModelHold:
    price: int
    bond: int
    """What is left of it: silence costs some."""
    penalty: int
    claim_by: int
    verification_s: int
    dispute_s: int
    freeze_s: int
    answer_s: int
    unbonding_s: int
    most: int
    fee_ppm: int
    captures: list[ModelCapture]
    bond_state: str = "reserved"
    bond_due: int | None = None


class Model:
    """The protocol's money, in memory."""

    def __init__(self, unbonding_s: int) -> None:
        self.unbonding_s = unbonding_s
        self.money: Counter[str] = Counter({BUYER.public: PRICE * JOBS, PROVIDER.public: BOND * JOBS})
        self.holds: dict[str, ModelHold] = {}
        self.queue: dict[tuple[str, int], int] = {}
        """When what is queued may be taken, by capture."""

    def attempt(self, hold: str, call: Callable[[ModelHold], None]) -> None:
        """Do something to a hold, wholly or not at all."""
        before, money, queue = copy.deepcopy(self.holds[hold]), self.money.copy(), self.queue.copy()
        try:
            call(self.holds[hold])
        except No:
            self.holds[hold], self.money, self.queue = before, money, queue
            raise

    def fund(self, hold: str, made: ModelHold) -> None:
        self.money[BUYER.public] -= made.price
        self.money[PROVIDER.public] -= made.bond
        self.holds[hold] = made

    def claim(self, hold: ModelHold, seq: int, amount: int, now: int) -> None:
        capture = self.capture(hold, seq)
        if capture.state != "funded" or now > hold.claim_by or not capture.base < amount <= hold.price:
            raise No
        capture.state, capture.amount = "claimed", amount
        capture.verification_due = capture.due = now + hold.verification_s
        if seq + 1 < hold.most and amount < hold.price:
            hold.captures.append(ModelCapture(amount, hold.claim_by + 1))

    def decline(self, hold: ModelHold, now: int, declined: set[int]) -> None:
        seq = len(hold.captures) - 1
        capture = hold.captures[seq]
        if seq in declined:
            return
        self.advance(hold, capture, now)
        if capture.state != "funded":
            raise No
        self.decide(hold, capture, release=False)
        self.bond(hold, capture, "free", now)
        declined.add(seq)

    def lease(self, hold: ModelHold, seq: int, lease_s: int, now: int) -> None:
        capture = self.claimed(hold, seq)
        self.advance(hold, capture, now)
        if capture.state != "claimed":
            raise No
        self.hand_out(capture, lease_s, now)
        capture.attempts += 1  # whoever asks for one capture begins to check it

    def give_back(self, hold: ModelHold, seq: int, now: int) -> None:
        capture = self.capture(hold, seq)
        self.advance(hold, capture, now)
        if capture.state == "verifying" and capture.attempts < ATTEMPTS:
            capture.state, capture.due = "claimed", capture.verification_due

    def await_opening(self, hold: ModelHold, seq: int, now: int) -> None:
        capture = self.claimed(hold, seq)
        self.advance(hold, capture, now)
        if capture.state != "verifying":
            raise No
        capture.state, capture.due = "answering", now + hold.answer_s

    def opened(self, hold: ModelHold, seq: int, now: int) -> None:
        capture = self.claimed(hold, seq)
        self.advance(hold, capture, now)
        if capture.state != "answering":
            raise No
        capture.state, capture.attempts = "claimed", 0
        capture.verification_due = capture.due = now + hold.verification_s

    def enqueue(self, hold: ModelHold, name: str, seq: int, now: int) -> None:
        capture = self.claimed(hold, seq)
        if capture.state not in ("claimed", "verifying"):
            raise No
        leased = capture.state == "verifying" and capture.due is not None
        self.queue[name, seq] = (capture.due or now) if leased else now

    def take(self, limit: int, lease_s: int, now: int, *, suspects: bool) -> list[tuple[str, int, int, bool]]:
        """Give what a worker gets: hold, seq, the lease's number, and whether it is suspect."""
        ready = sorted((at, *key) for key, at in self.queue.items() if at <= now)
        taken: list[tuple[str, int, int, bool]] = []
        for _, name, seq in ready[:limit]:
            hold = self.holds[name]
            capture, before = hold.captures[seq], hold.captures[seq].leases
            self.advance(hold, capture, now)
            if capture.state == "verifying":
                self.queue[name, seq] = capture.due or now
                continue
            self.end(capture, before, "lease_end")
            if capture.state != "claimed":
                del self.queue[name, seq]
                continue
            is_suspect = any(one.outcome == "lease_end" for one in capture.tries.values())
            if is_suspect and (taken or not suspects):
                continue
            self.hand_out(capture, lease_s, now)
            self.queue[name, seq] = capture.due or now
            capture.tries[capture.leases] = ModelTry()
            taken.append((name, seq, capture.leases, is_suspect))
            if is_suspect:
                break
        return taken

    def begin(self, hold: ModelHold, seq: int, number: int, now: int) -> None:
        capture = self.capture(hold, seq)
        self.advance(hold, capture, now)
        if not self.is_held(capture, number):
            raise No
        self.count(capture)

    def renew(self, hold: ModelHold, name: str, seq: int, number: int, lease_s: int, now: int) -> None:
        capture = self.capture(hold, seq)
        if not self.is_held(capture, number) or capture.due is None or capture.due <= now:
            return
        self.count(capture)
        capture.due = max(capture.due, min(now + lease_s, capture.verification_due or 0))
        if (name, seq) in self.queue:
            self.queue[name, seq] = capture.due

    def give_back_lease(
        self, hold: ModelHold, name: str, seq: int, number: int, outcome: str, now: int, *, counts: bool
    ) -> None:
        capture = self.capture(hold, seq)
        self.advance(hold, capture, now)
        if self.is_held(capture, number):
            self.count(capture, counts=counts)
        if self.is_held(capture, number) and capture.attempts < ATTEMPTS:
            capture.state, capture.due = "claimed", capture.verification_due
            if (name, seq) in self.queue:
                self.queue[name, seq] = now
        self.end(capture, number, outcome)

    def set_aside(self, hold: ModelHold, name: str, seq: int, number: int, now: int) -> None:
        self.give_back_lease(hold, name, seq, number, "aside", now, counts=False)
        self.queue.pop((name, seq), None)

    def rule(self, hold: ModelHold, name: str, seq: int, ruling: str, now: int) -> None:
        capture = self.capture(hold, seq)
        if ruling in capture.rulings:
            return
        capture = self.claimed(hold, seq)
        self.advance(hold, capture, now)
        if capture.state not in ("claimed", "verifying", "answering", "disputed"):
            raise No
        if ruling == "release":
            self.decide(hold, capture, release=True)
            self.bond(hold, capture, "free", now)
        elif ruling == "refund":
            self.decide(hold, capture, release=False)
            self.bond(hold, capture, "freeze", now)
        elif capture.state == "disputed":
            raise No
        else:
            self.dispute(hold, capture, now)
        capture.rulings.append(ruling)
        if self.queue.pop((name, seq), None) is not None:
            self.count(capture)
            self.end(capture, capture.leases, ruling)
        self.advance(hold, capture, now)

    def resolve(self, hold: ModelHold, seq: int, outcome: str, now: int) -> None:
        capture = self.capture(hold, seq)
        if capture.resolution == outcome:
            return
        self.advance(hold, capture, now)
        if capture.state != "disputed":
            raise No
        capture.resolution = outcome
        self.decide(hold, capture, release=outcome == "release")
        if outcome == "release":
            self.bond(hold, capture, "free", now)

    def adjudicate(self, hold: ModelHold, seq: int, outcome: str, now: int) -> None:
        capture = self.capture(hold, seq)
        if capture.adjudication:
            if capture.adjudication == outcome:
                return
            raise No
        self.advance(hold, capture, now)
        capture.adjudication = outcome
        if capture.state in ("releasing", "released") and hold.bond_state == "unbonding":
            if outcome == "convicted":
                self.bond(hold, capture, "slash", now)
        elif capture.state in ("refunding", "refunded") and hold.bond_state == "frozen":
            self.bond(hold, capture, "slash" if outcome == "convicted" else "free", now)
        elif capture.state == "disputed":
            self.decide(hold, capture, release=outcome == "acquitted")
            self.bond(hold, capture, "slash" if outcome == "convicted" else "free", now)
        else:
            raise No

    def pass_time(self, now: int) -> None:
        for hold in self.holds.values():
            for capture in hold.captures:
                self.advance(hold, capture, now)
        for hold in self.holds.values():
            is_open = any(not capture.is_decided for capture in hold.captures)
            if hold.bond_due is not None and hold.bond_due <= now and not is_open:
                self.end_bond(hold, provider=hold.bond)

    def pay(self) -> None:
        for hold in self.holds.values():
            for capture in hold.captures:
                for name, amount in capture.owed:
                    self.money[name] += amount
                if capture.state in ("releasing", "refunding"):
                    capture.state = {"releasing": "released", "refunding": "refunded"}[capture.state]
                capture.owed = []

    # What follows is what the above is made of.

    def capture(self, hold: ModelHold, seq: int) -> ModelCapture:
        if seq >= len(hold.captures):
            raise No
        return hold.captures[seq]

    def claimed(self, hold: ModelHold, seq: int) -> ModelCapture:
        capture = self.capture(hold, seq)
        if capture.amount is None:
            raise No
        return capture

    def hand_out(self, capture: ModelCapture, lease_s: int, now: int) -> None:
        capture.state, capture.leases = "verifying", capture.leases + 1
        capture.due = min(now + lease_s, capture.verification_due or 0)

    def is_held(self, capture: ModelCapture, number: int) -> bool:
        return capture.state == "verifying" and capture.leases == number

    def count(self, capture: ModelCapture, *, counts: bool = True) -> None:
        newest = capture.tries.get(capture.leases)
        if newest is not None and newest.begun != counts and not newest.outcome:
            newest.begun, capture.attempts = counts, capture.attempts + (1 if counts else -1)

    def end(self, capture: ModelCapture, number: int, outcome: str) -> None:
        one = capture.tries.get(number)
        if one is not None and not one.outcome:
            one.outcome = outcome

    def advance(self, hold: ModelHold, capture: ModelCapture, now: int) -> None:
        while capture.due is not None and capture.due <= now:
            if capture.state == "funded":
                self.decide(hold, capture, release=False)
                self.bond(hold, capture, "free", now)
            elif capture.state == "disputed":
                self.decide(hold, capture, release=False)
            elif capture.state == "answering":
                self.decide(hold, capture, release=False)
                self.bond(hold, capture, "penalise", now)
            elif (
                capture.state == "verifying"
                and (capture.verification_due or 0) > now
                and capture.attempts < ATTEMPTS
            ):
                capture.state, capture.due = "claimed", capture.verification_due
            else:
                self.dispute(hold, capture, now)

    def dispute(self, hold: ModelHold, capture: ModelCapture, now: int) -> None:
        capture.state, capture.due = "disputed", now + hold.dispute_s
        self.bond(hold, capture, "freeze", now)

    def decide(self, hold: ModelHold, capture: ModelCapture, *, release: bool) -> None:
        seq, amount = hold.captures.index(capture), capture.amount
        ends = amount is None or amount == hold.price or seq == hold.most - 1
        share = (hold.price if ends else amount or 0) - capture.base
        claimed = (amount or 0) - capture.base if release else 0
        fee = (capture.base + claimed) * hold.fee_ppm // PPM - capture.base * hold.fee_ppm // PPM
        capture.owed = [(PAYEE, claimed - fee), (FEE.account, fee), (BUYER.public, share - claimed)]
        capture.state, capture.due = ("releasing" if release else "refunding"), None

    def bond(self, hold: ModelHold, capture: ModelCapture, event: str, now: int) -> None:
        capture.blamed = event in ("freeze", "slash")
        if hold.bond_state in ("free", "slashed"):
            return
        others = any(not c.is_decided or c.blamed for c in hold.captures)
        if event == "freeze":
            due = now + max(hold.freeze_s, hold.dispute_s)
            hold.bond_state, hold.bond_due = "frozen", max(due, hold.bond_due or 0)
        elif event == "penalise":
            fine = min(hold.penalty, hold.bond)
            hold.bond -= fine
            self.money[""] += fine
            if others:
                due = now + max(hold.freeze_s, hold.dispute_s)
                hold.bond_state, hold.bond_due = "frozen", max(due, hold.bond_due or 0)
            else:
                self.end_bond(hold, provider=hold.bond)
        elif event == "slash":
            lost = 0
            if capture.state in ("releasing", "released"):
                lost = (capture.amount or 0) - capture.base
            amends = min(hold.bond, lost)
            self.end_bond(hold, buyer=amends, treasury=hold.bond - amends, slashed=True)
        elif others:
            pass
        elif hold.unbonding_s and capture.amount is not None:
            hold.bond_state, hold.bond_due = "unbonding", now + hold.unbonding_s
        else:
            self.end_bond(hold, provider=hold.bond)

    def end_bond(
        self, hold: ModelHold, *, provider: int = 0, buyer: int = 0, treasury: int = 0, slashed: bool = False
    ) -> None:
        self.money.update({PROVIDER.public: provider, BUYER.public: buyer, "": treasury})
        hold.bond_state, hold.bond_due = ("slashed" if slashed else "free"), None
