"""The escrow against a model of the protocol that knows no database: the same calls, the same outcome.

Whatever sequence of calls hypothesis finds, both must accept and refuse the same, and end with every capture,
bond, balance and attempt of a worker alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from escrow_builders import (
    BOND,
    OUTPUT,
    PRICE,
    Scene,
    digest_of,
    make_claim,
    make_decline,
    make_resolution,
)
from escrow_model import FEE, JOBS, Model, ModelCapture, ModelHold, No
from proofhold.escrow import AccountKind, Adjudged, LedgerRail, Refused, Ruling, operations
from proofhold.escrow.queue import Lease
from proofhold.job import PPM, ResolutionOutcome
from stores import DRIVERS, make_store

TERMS = st.fixed_dictionaries(
    {
        "dispute_s": st.sampled_from([0, 20]),
        "freeze_s": st.sampled_from([0, 60]),
        "verification_s": st.sampled_from([5, 40, 400]),
        "bond": st.sampled_from([0, 300, BOND]),
        "penalty": st.sampled_from([0.0, 0.4, 1.0]),
        "most": st.sampled_from([1, 1, 3]),
        "fee": st.booleans(),
    }
)


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
        self.leases: list[Lease] = []
        self.is_late = False

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
        holds = list(self.model.holds)[-6:]
        hold = holds[data.draw(st.integers(0, len(holds) - 1))]
        return hold, data.draw(st.integers(0, min(2, len(self.model.holds[hold].captures))))

    @initialize(first=TERMS, second=TERMS)
    def begin_with_work(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        """Most of what can happen happens to what is claimed and queued."""
        for terms in (first, second):
            self.fund(terms)
            hold = list(self.model.holds)[-1]
            self.claim_of(hold, 0, 600 if terms["most"] > 1 else PRICE)
            self.enqueue_of(hold, 0)

    @rule(terms=TERMS)
    def fund(self, terms: dict[str, Any]) -> None:
        changes = {
            "bond": terms["bond"],
            "withholding_penalty": int(terms["bond"] * terms["penalty"]),
            "captures": terms["most"],
            "sampling_rate_ppm": PPM,
            "fee": FEE if terms["fee"] else None,
        } | {name: terms[name] for name in ("dispute_s", "freeze_s", "verification_s")}
        if len(self.model.holds) >= JOBS - 2:
            return
        Both.steps[f"{self.driver} fund"] += 1
        # Holds are taken in the order of their names, which hang on their secrets: no run may draw others.
        number = b"%d" % (self.scene.funded + 1)
        nonce, secret = (hashlib.sha256(word + number).digest() for word in (b"nonce ", b"secret "))
        self.scene.escrow.store.write(operations.draw_secret(nonce, secret))
        record = self.scene.fund(**changes)
        job = record.job.document
        made = ModelHold(
            *(job.price, job.bond, job.withholding_penalty),
            *(job.claim_by, job.verification_s, job.dispute_s, job.freeze_s),
            job.answer_s,
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
        self.claim_of(hold, seq, amount)

    def claim_of(self, hold: str, seq: int, amount: int) -> None:
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
    @rule(data=st.data(), opens=st.booleans())
    def opening(self, data: Any, opens: bool) -> None:
        hold, seq = self.some(data)
        escrow, now = self.scene.escrow, self.scene.now
        if opens:
            ours = lambda: escrow.opened(hold, seq, opening=digest_of("o"), now=now)  # noqa: E731
            self.both("opened", hold, ours, lambda h: self.model.opened(h, seq, now))
        else:
            ours = lambda: escrow.await_opening(hold, seq, now=now)  # noqa: E731
            self.both("await opening", hold, ours, lambda h: self.model.await_opening(h, seq, now))

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def enqueue(self, data: Any) -> None:
        self.enqueue_of(*self.some(data))

    def enqueue_of(self, hold: str, seq: int) -> None:
        self.both(
            "enqueue",
            hold,
            lambda: self.scene.escrow.queue.add(hold, seq, b"work", now=self.scene.now),
            lambda h: self.model.enqueue(h, hold, seq, self.scene.now),
        )

    @precondition(lambda self: self.model.queue)
    @rule(limit=st.sampled_from([1, 2, 9]), lease_s=st.sampled_from([1, 10]), suspects=st.booleans())
    def take(self, limit: int, lease_s: int, suspects: bool) -> None:
        Both.steps[f"{self.driver} take"] += 1
        self.touched += [hold for hold, _ in self.model.queue]
        taken = self.scene.escrow.queue.take(
            "w", limit=limit, lease_s=lease_s, now=self.scene.now, suspects=suspects
        )
        expected = self.model.take(limit, lease_s, self.scene.now, suspects=suspects)
        assert [(one.hold, one.seq, one.number, one.is_suspect) for one in taken] == expected
        self.leases = [*self.leases, *taken][-4:]

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), does=st.sampled_from(["begin", "renew", "trip", "stop", "aside"]))
    def work(self, data: Any, does: str) -> None:
        lease = self.leases[data.draw(st.integers(0, len(self.leases) - 1))]
        queue, now, at = self.scene.escrow.queue, self.scene.now, (lease.hold, lease.seq, lease.number)
        back = {"outcome": does, "after_s": 0, "now": now, "counts": does == "trip"}
        ours: dict[str, Callable[[], object]] = {
            "begin": lambda: queue.begin(lease, now=now),
            "renew": lambda: queue.renew([lease], begun=[lease], lease_s=10, now=now),
            "trip": lambda: queue.give_back(lease, **back),  # type: ignore[arg-type]
            "stop": lambda: queue.give_back(lease, **back),  # type: ignore[arg-type]
            "aside": lambda: queue.set_aside(lease, outcome="aside", now=now),
        }
        theirs: dict[str, Callable[[ModelHold], None]] = {
            "begin": lambda h: self.model.begin(h, lease.seq, lease.number, now),
            "renew": lambda h: self.model.renew(h, *at, 10, now),
            "trip": lambda h: self.model.give_back_lease(h, *at, "trip", now, counts=True),
            "stop": lambda h: self.model.give_back_lease(h, *at, "stop", now, counts=False),
            "aside": lambda h: self.model.set_aside(h, *at, now),
        }
        self.both(does, lease.hold, ours[does], theirs[does])

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
            lambda h: self.model.rule(h, hold, seq, ruling.value, self.scene.now),
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
        self.is_late = True

    @precondition(lambda self: self.is_late)
    @rule()
    def timers(self) -> None:
        self.is_late = False
        Both.steps[f"{self.driver} timers"] += 1
        self.scene.escrow.run_timers(self.scene.now)
        self.model.pass_time(self.scene.now)
        self.touched += list(self.model.holds)

    @precondition(lambda self: any(c.owed for h in self.model.holds.values() for c in h.captures))
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
            for seq, capture in enumerate(model.captures):
                if capture.tries:
                    attempts = self.scene.escrow.queue.attempts(hold, seq)
                    assert [(a.number, a.begun, a.outcome or "") for a in attempts] == [
                        (number, one.begun, one.outcome) for number, one in capture.tries.items()
                    ]
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
