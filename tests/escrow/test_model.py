"""The escrow against a model of the protocol that knows no database: the same calls, the same outcome.

The model is written from the protocol, not from the escrow's table of states: plain Python, one holder of
money a name, everything at once. Whatever sequence of calls hypothesis finds, both must accept and refuse the
same, and end with every capture, bond and balance alike.
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from escrow_builders import (
    BOND,
    BUYER,
    OUTPUT,
    PAYEE,
    PRICE,
    PROVIDER,
    Scene,
    digest_of,
    make_claim,
    make_decline,
    make_resolution,
)
from proofhold.escrow import AccountKind, Adjudged, LedgerRail, Refused, Ruling
from proofhold.job import PPM, Fee, ResolutionOutcome
from stores import DRIVERS, make_store

JOBS = 400
ATTEMPTS = 5
FEE = Fee("house", 30_000)


class No(Exception):
    """The model refuses."""


@dataclass
class ModelCapture:
    base: int
    due: int | None
    state: str = "funded"
    amount: int | None = None
    verification_due: int | None = None
    attempts: int = 0
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
    claim_by: int
    verification_s: int
    dispute_s: int
    freeze_s: int
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

    def attempt(self, hold: str, call: Callable[[ModelHold], None]) -> None:
        """Do something to a hold, wholly or not at all."""
        before, money = copy.deepcopy(self.holds[hold]), self.money.copy()
        try:
            call(self.holds[hold])
        except No:
            self.holds[hold], self.money = before, money
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
        capture.state, capture.attempts = "verifying", capture.attempts + 1
        capture.due = min(now + lease_s, capture.verification_due or 0)

    def give_back(self, hold: ModelHold, seq: int, now: int) -> None:
        capture = self.capture(hold, seq)
        self.advance(hold, capture, now)
        if capture.state == "verifying" and capture.attempts < ATTEMPTS:
            capture.state, capture.due = "claimed", capture.verification_due

    def rule(self, hold: ModelHold, seq: int, ruling: str, now: int) -> None:
        capture = self.capture(hold, seq)
        if ruling in capture.rulings:
            return
        capture = self.claimed(hold, seq)
        self.advance(hold, capture, now)
        if capture.state not in ("claimed", "verifying", "disputed"):
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

    def advance(self, hold: ModelHold, capture: ModelCapture, now: int) -> None:
        while capture.due is not None and capture.due <= now:
            if capture.state == "funded":
                self.decide(hold, capture, release=False)
                self.bond(hold, capture, "free", now)
            elif capture.state == "disputed":
                self.decide(hold, capture, release=False)
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
        capture.blamed = event != "free"
        if hold.bond_state in ("free", "slashed"):
            return
        if event == "freeze":
            due = now + max(hold.freeze_s, hold.dispute_s)
            hold.bond_state, hold.bond_due = "frozen", max(due, hold.bond_due or 0)
        elif event == "slash":
            lost = 0
            if capture.state in ("releasing", "released"):
                lost = (capture.amount or 0) - capture.base
            amends = min(hold.bond, lost)
            self.end_bond(hold, buyer=amends, treasury=hold.bond - amends, slashed=True)
        elif any(not c.is_decided or c.blamed for c in hold.captures):
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


class Both(RuleBasedStateMachine):
    """Does everything to the escrow and to the model."""

    driver = "sqlite"
    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        memory = Path("/dev/shm")  # noqa: S108
        folder = self.stack.enter_context(
            tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        )
        store = self.stack.enter_context(make_store(self.driver, Path(folder)))
        self.unbonding_s = 0
        self.scene = Scene.create(store, jobs=JOBS, unbonding_s=30)
        self.model = Model(30)
        self.touched: list[str] = []
        self.declined: dict[str, set[int]] = {}

    def teardown(self) -> None:
        assert self.scene.escrow.audit() == ()
        self.scene.escrow.close()
        self.stack.close()

    def both(
        self, name: str, hold: str, ours: Callable[[], object], theirs: Callable[[ModelHold], None]
    ) -> None:
        """Call both, and compare what they say."""
        Both.steps[f"{self.driver} {name}"] += 1
        try:
            self.model.attempt(hold, theirs)
            allowed = True
        except No:
            allowed = False
        try:
            ours()
            did, code = True, ""
        except Refused as refusal:
            did, code = False, refusal.code
        assert did == allowed, f"{name}: the model says {allowed}, the escrow {did} {code}"
        self.touched.append(hold)

    def some(self, data: Any) -> tuple[str, int]:
        # By when they were funded: their names hang on secrets that no run draws twice.
        holds = list(self.model.holds)[-6:]
        hold = holds[data.draw(st.integers(0, len(holds) - 1))]
        return hold, data.draw(st.integers(0, min(2, len(self.model.holds[hold].captures))))

    @rule(
        dispute_s=st.sampled_from([0, 20]),
        freeze_s=st.sampled_from([0, 60]),
        verification_s=st.sampled_from([5, 40]),
        bond=st.sampled_from([0, 300, BOND]),
        most=st.sampled_from([1, 1, 3]),
        fee=st.booleans(),
    )
    def fund(self, **terms: Any) -> None:
        changes = {
            "bond": terms["bond"],
            "withholding_penalty": terms["bond"],
            "captures": terms["most"],
            "sampling_rate_ppm": PPM,
            "fee": FEE if terms["fee"] else None,
        } | {name: terms[name] for name in ("dispute_s", "freeze_s", "verification_s")}
        if len(self.model.holds) >= JOBS - 2:
            return
        Both.steps[f"{self.driver} fund"] += 1
        record = self.scene.fund(**changes)
        job = record.job.document
        made = ModelHold(
            *(job.price, job.bond, job.claim_by, job.verification_s, job.dispute_s, job.freeze_s),
            *(30, job.captures, 0 if job.fee is None else job.fee.ppm),
            [ModelCapture(0, job.claim_by + 1)],
        )
        self.model.fund(record.id, made)
        self.touched.append(record.id)

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), amount=st.sampled_from([0, 1, 250, 600, PRICE, PRICE, PRICE + 1]))
    def claim(self, data: Any, amount: int) -> None:
        hold, seq = self.some(data)
        first = self.model.holds[hold].captures[seq : seq + 1]
        if first and first[0].amount is not None:
            return  # a second claim is judged by what it says, which other tests are about
        job = self.scene.escrow.hold(hold).job
        self.both(
            "claim",
            hold,
            lambda: self.scene.escrow.record_claim(
                make_claim(job, seq=seq, amount=amount), OUTPUT, now=self.scene.now
            ),
            lambda h: self.model.claim(h, seq, amount, self.scene.now),
        )

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def decline(self, data: Any) -> None:
        hold, _ = self.some(data)
        job, declined = self.scene.escrow.hold(hold).job, self.declined.setdefault(hold, set())
        self.both(
            "decline",
            hold,
            lambda: self.scene.escrow.decline(make_decline(job), now=self.scene.now),
            lambda h: self.model.decline(h, self.scene.now, declined),
        )

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), lease_s=st.sampled_from([1, 10]))
    def lease(self, data: Any, lease_s: int) -> None:
        hold, seq = self.some(data)
        self.both(
            "lease",
            hold,
            lambda: self.scene.escrow.begin_verification(hold, seq, lease_s=lease_s, now=self.scene.now),
            lambda h: self.model.lease(h, seq, lease_s, self.scene.now),
        )

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def give_back(self, data: Any) -> None:
        hold, seq = self.some(data)
        self.both(
            "give back",
            hold,
            lambda: self.scene.escrow.end_verification(hold, seq, now=self.scene.now),
            lambda h: self.model.give_back(h, seq, self.scene.now),
        )

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), ruling=st.sampled_from(list(Ruling)))
    def apply(self, data: Any, ruling: Ruling) -> None:
        hold, seq = self.some(data)
        receipt = f"{ruling} {hold} {seq}"
        self.both(
            "rule",
            hold,
            lambda: self.scene.escrow.apply(
                hold,
                seq,
                ruling,
                receipt_digest=digest_of(receipt),
                receipt=receipt.encode(),
                now=self.scene.now,
            ),
            lambda h: self.model.rule(h, seq, ruling.value, self.scene.now),
        )

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), outcome=st.sampled_from(list(ResolutionOutcome)))
    def resolve(self, data: Any, outcome: ResolutionOutcome) -> None:
        hold, _ = self.some(data)
        self.both(
            "resolve",
            hold,
            lambda: self.scene.escrow.resolve(make_resolution(hold, outcome), now=self.scene.now),
            lambda h: self.model.resolve(h, 0, outcome.value, self.scene.now),
        )

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), outcome=st.sampled_from(list(Adjudged)))
    def adjudicate(self, data: Any, outcome: Adjudged) -> None:
        hold, seq = self.some(data)
        self.both(
            "adjudicate",
            hold,
            lambda: self.scene.escrow.adjudicate(
                hold, seq, outcome, transcript=f"{outcome}".encode(), now=self.scene.now
            ),
            lambda h: self.model.adjudicate(h, seq, outcome.value, self.scene.now),
        )

    @rule(seconds=st.sampled_from([1, 4, 9, 25, 70]))
    def wait(self, seconds: int) -> None:
        self.scene.now += seconds

    @rule()
    def timers(self) -> None:
        Both.steps[f"{self.driver} timers"] += 1
        self.scene.escrow.run_timers(self.scene.now)
        self.model.pass_time(self.scene.now)
        self.touched += list(self.model.holds)

    @rule()
    def pump(self) -> None:
        Both.steps[f"{self.driver} pump"] += 1
        self.scene.escrow.pump(LedgerRail(), now=self.scene.now)
        self.model.pay()
        self.touched += list(self.model.holds)[-6:]

    @invariant()
    def they_agree(self) -> None:
        for hold in dict.fromkeys(self.touched):
            record, model = self.scene.escrow.hold(hold), self.model.holds[hold]
            assert [(c.state.value, c.due, c.attempts, c.base) for c in record.captures] == [
                (c.state, c.due, c.attempts, c.base) for c in model.captures
            ]
            assert (record.bond.state.value, record.bond.due) == (model.bond_state, model.bond_due)
        if self.touched:
            kinds = (AccountKind.PARTY, AccountKind.TREASURY)
            balances = self.scene.escrow.balances()
            ours = {b.account.owner: b.amount for b in balances if b.account.kind in kinds and b.amount}
            assert ours == +self.model.money
        self.touched = []


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_escrow_does_what_the_model_does(driver: str) -> None:
    play(driver, examples=6, steps=30)


@pytest.mark.long
@pytest.mark.parametrize("driver", DRIVERS)
def test_thousands_of_steps(driver: str) -> None:
    Both.steps.clear()
    play(driver, examples=int(os.environ.get("MODEL_EXAMPLES", "240")), steps=60)
    print(dict(sorted(Both.steps.items())))
    assert sum(Both.steps.values()) >= 5_000


def play(driver: str, *, examples: int, steps: int) -> None:
    machine = type(f"Both{driver.title()}", (Both,), {"driver": driver})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
