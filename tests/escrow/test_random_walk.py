"""Any sequence of calls, sensible or not, under any clock and any rail: money is kept, and paid once."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escrow_builders import (
    BOND,
    BUYER,
    OTHER_OUTPUT,
    OUTPUT,
    PAYEE,
    PRICE,
    PROVIDER,
    STRANGER,
    USDC,
    Scene,
    ScriptedRail,
    make_claim,
    make_decline,
    make_resolution,
    memory_folder,
)
from proofhold.escrow import AccountKind, Adjudged, BondState, HoldRecord, Refused, Ruling
from proofhold.escrow.states import REFUND_SIDE, RELEASE_SIDE, State
from proofhold.job import Delivery, ResolutionOutcome

STEPS = 250
JOBS = 60
FOREVER_S = 1_000_000


class Walk:
    """A drunkard with an escrow: every step is drawn, and most of them make no sense."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.random = random.Random(seed)
        self.rail = ScriptedRail()
        self.holds: list[HoldRecord] = []
        self.sides: dict[str, bool] = {}
        self.moved = 0

    def step(self) -> None:
        actions: list[tuple[int, Callable[[], object]]] = [
            (4, self.fund),
            (5, self.claim),
            (1, self.decline),
            (3, self.lease),
            (2, self.give_back),
            (4, self.rule),
            (2, self.resolve),
            (2, self.challenge),
            (2, self.answer),
            (2, self.adjudicate),
            (3, self.jump),
            (2, self.timers),
            (4, self.pump),
            (1, self.deposit),
        ]
        action = self.random.choices([call for _, call in actions], [weight for weight, _ in actions])[0]
        try:
            action()
            self.moved += 1
        except Refused:
            pass
        except RuntimeError:
            pass  # the rail's: our process trips over it
        self.look()

    def some(self) -> HoldRecord:
        if not self.holds:
            self.fund()
        return self.random.choice(self.holds[-8:])

    def fund(self) -> None:
        if self.holds and self.random.random() < 0.2:
            self.scene.escrow.fund(self.random.choice(self.holds).job, now=self.scene.now)
        hold = self.scene.fund(
            dispute_s=self.random.choice([0, 50]),
            freeze_s=self.random.choice([0, 200]),
            verification_s=self.random.choice([1, 100]),
            bond=(bond := self.random.choice([0, BOND])),
            withholding_penalty=bond,
            delivery=self.random.choice(list(Delivery)),
        )
        self.holds.append(hold)

    def claim(self) -> None:
        hold = self.some()
        output = self.random.choice([OUTPUT, OUTPUT, OTHER_OUTPUT])
        key = self.random.choice([PROVIDER, PROVIDER, PROVIDER, STRANGER])
        amount = self.random.choice([PRICE, PRICE, PRICE - 1, 1, 0, PRICE + 1])
        claim = make_claim(hold.job, output=output, key=key, amount=amount)
        self.scene.escrow.record_claim(claim, self.random.choice([output, OUTPUT]), now=self.scene.now)

    def decline(self) -> None:
        key = self.random.choice([PROVIDER, BUYER])
        self.scene.escrow.decline(make_decline(self.some().job, key), now=self.scene.now)

    def lease(self) -> None:
        lease_s = self.random.choice([1, 20])
        self.scene.escrow.begin_verification(self.some().id, 0, lease_s=lease_s, now=self.scene.now)

    def give_back(self) -> None:
        self.scene.escrow.end_verification(self.some().id, 0, now=self.scene.now)

    def rule(self) -> None:
        self.scene.apply(self.some(), self.random.choice(list(Ruling)))

    def resolve(self) -> None:
        outcome = self.random.choice(list(ResolutionOutcome))
        self.scene.escrow.resolve(make_resolution(self.some().id, outcome), now=self.scene.now)

    def challenge(self) -> None:
        self.scene.challenge(self.look_up(self.some()))

    def answer(self) -> None:
        self.scene.answer(self.look_up(self.some()))

    def adjudicate(self) -> None:
        self.scene.adjudicate(self.some(), self.random.choice(list(Adjudged)))

    def look_up(self, hold: HoldRecord) -> HoldRecord:
        return self.scene.escrow.hold(hold.id)

    def jump(self) -> None:
        self.scene.now += self.random.choice([-60, 1, 1, 10, 40, 110])

    def timers(self) -> None:
        self.scene.escrow.run_timers(self.scene.now)

    def pump(self) -> None:
        self.rail.script = self.random.choices(["ok", "lost", "late", "broken"], [6, 1, 1, 1], k=3)
        self.rail.dumb = self.random.choice([0, 0, 0, 1, 2])
        self.scene.escrow.pump(self.rail, now=self.scene.now)

    def deposit(self) -> None:
        key = str(self.random.randrange(3))
        self.scene.escrow.deposit("bystander", 7, USDC, key=key, now=self.scene.now)

    def look(self) -> None:
        """What must hold after every single step."""
        balances = self.scene.escrow.balances()
        assert sum(b.amount for b in balances) == 0
        assert all(b.amount >= 0 for b in balances if b.account.kind is not AccountKind.OUTSIDE)
        assert len(self.rail.paid) == len(set(self.rail.paid)), "paid twice"
        for hold in self.holds[-4:]:
            state = self.scene.escrow.hold(hold.id).capture(0).state
            if state.is_decided:
                assert self.sides.setdefault(hold.id, state in RELEASE_SIDE) == (state in RELEASE_SIDE)
            else:
                assert hold.id not in self.sides

    def let_time_pass(self) -> set[str]:
        """Nobody does anything any more; give the holds whose providers were paid nonetheless."""
        open_holds = [
            h.id for h in self.holds if not self.scene.escrow.hold(h.id).capture(0).state.is_decided
        ]
        self.rail.script, self.rail.dumb = [], 0
        for _ in range(4):  # claim, verification, dispute, freeze: each counts from the one before
            self.scene.now += FOREVER_S
            self.scene.escrow.run_timers(self.scene.now)
            self.scene.escrow.pump(self.rail, now=self.scene.now)
        return {h for h in open_holds if self.scene.escrow.hold(h).capture(0).state not in REFUND_SIDE}


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32))
def test_any_walk_keeps_the_money_and_time_alone_ends_it(seed: int) -> None:
    walk_through(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
def test_many_walks(seed: int) -> None:
    walk_through(1_000_003 * seed)


def walk_through(seed: int) -> None:
    with memory_folder() as folder:
        scene = Scene.create(folder, jobs=JOBS)
        before = scene.amounts()
        walk = Walk(scene, seed)
        for step in range(STEPS):
            walk.step()
            if step % 50 == 0:
                assert scene.escrow.audit() == ()
        assert walk.moved > STEPS // 4, "a walk that only stumbles shows nothing"
        assert walk.let_time_pass() == set(), "time alone paid a provider"
        for hold in walk.holds:
            record = scene.escrow.hold(hold.id)
            assert record.capture(0).state in (State.RELEASED, State.REFUNDED)
            ended = scene.escrow.dispute(hold.id, 0).adjudication
            convicted = ended is not None and ended.outcome is Adjudged.CONVICTED
            assert record.bond.state is (BondState.SLASHED if convicted else BondState.FREE)
            paid = sum(1 for key in walk.rail.paid if key.hold == hold.id)
            assert 1 <= paid <= 2
        assert scene.escrow.audit() == ()
        # What left over the rail and what is inside is what came in, and each hold paid its price once.
        assert walk.rail.total() == PRICE * len(walk.holds)
        after = scene.amounts()
        taken = scene.amount("", AccountKind.TREASURY)
        assert after[PROVIDER.public] == before[PROVIDER.public] - taken
        assert after[BUYER.public] == before[BUYER.public] - PRICE * len(walk.holds)
        assert PAYEE not in after, "this rail pays outside"
        scene.escrow.close()
