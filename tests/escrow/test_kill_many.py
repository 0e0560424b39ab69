"""kill -9 of the application, of workers and of the server, over thousands of jobs and a flaky rail.

Each job must be paid exactly once, in the right direction, by a rail that keeps nobody from paying twice,
that loses answers and sometimes does not know. The naive variant, which pays and then marks, must fail in
this very harness.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import workshop
from escrow_builders import memory_folder
from pgserver import Server, running_server
from proofhold.escrow import PostgresEscrow, SqliteEscrow, State
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.home import open_home
from proofhold.escrow.payments import LEASE_S
from proofhold.retention import EvidenceFolder
from workshop import PRICE, FlakyRail, Order, is_forged, is_running, nursery

WORKERS = 2
LONGEST_S = 20.0
"""How long a process lives at most between kills; as a rule until some jobs more are done, and a bit."""
SERVER_EVERY = 12
"""Every so many kills it is the server that is killed."""
FORGED_EVERY = 4
PATIENCE_S = 1_800
QUIET: dict[str, Any] = {"failing": 0.0, "answer_s": 0.02}
"""A rail that never fails, and takes its time: what it is paid twice by is the kills alone."""


@dataclass
class Battle:
    """One escrow, the processes around it, and everything that happens to them."""

    order: Order
    jobs: int
    server: Server | None
    seed: int
    kills: Counter[str] = field(default_factory=Counter)

    def fight(self, kills: int) -> None:
        """Kill and start again until so many are dead, then let the rest be done in peace."""
        draw = random.Random(self.seed)
        feeder = replace(self.order, feeds=self.jobs, forged_every=FORGED_EVERY)
        with nursery() as start:
            alive = {"application": start(feeder)}
            alive |= {f"worker {n}": start(self.order) for n in range(WORKERS)}
            deadline = time.monotonic() + PATIENCE_S
            while self.kills.total() < kills:
                assert time.monotonic() < deadline, f"only {self.kills} in {PATIENCE_S} s"
                self.wait(int(draw.uniform(0, 2 * self.jobs / kills)), draw.uniform(0, 0.1))
                if self.server is not None and self.kills.total() % SERVER_EVERY == SERVER_EVERY - 1:
                    self.server.kill()
                    self.server.start()
                    self.kills["server"] += 1
                    continue
                running = [who for who, pid in alive.items() if is_running(pid)]
                victim = draw.choice(running or sorted(alive))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(alive[victim], signal.SIGKILL)
                self.kills[victim.split()[0]] += victim in running
                alive[victim] = start(feeder if victim == "application" else self.order)
            while is_running(alive["application"]):
                time.sleep(0.1)
            for who in alive:
                if who != "application":
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(alive[who], signal.SIGKILL)
            end_in_peace = [start(replace(self.order, until_empty=True)) for _ in range(WORKERS)]
            while any(is_running(pid) for pid in end_in_peace):
                assert time.monotonic() < deadline + PATIENCE_S
                time.sleep(0.1)

    def wait(self, jobs: int, seconds: float) -> None:
        """Wait until so many payments more were made, and a moment; or for long enough."""
        rail, deadline = FlakyRail(Path(self.order.rail)), time.monotonic() + LONGEST_S
        goal = min(rail.count() + jobs, self.jobs)
        while rail.count() < goal and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(seconds)

    def count(self) -> Counter[str]:
        """Give how often each payment was made."""
        return Counter(key for key, _ in FlakyRail(Path(self.order.rail)).payments())

    def look(self) -> None:
        """Check that nothing was lost, nothing paid twice, and nothing is stuck."""
        rail = FlakyRail(Path(self.order.rail), failing=0.0)
        with open_home(self.order.location) as escrow:
            # What a dead worker had taken is asked about once its lease is over.
            now = int(time.time()) + LEASE_S
            while (pumped := escrow.pump(rail, now=now)).paid or pumped.unknown:
                pass
            expected = dict(self.expected(escrow))
            paid = self.count()
            assert [key for key, times in paid.items() if times > 1] == [], "paid twice"
            assert set(paid) == set(expected), "lost, or paid the wrong way"
            for key, direction in expected.items():
                final = State.RELEASED if direction == "release" else State.REFUNDED
                assert escrow.hold(key.split(":")[0]).capture(0).state is final, "stuck"
            status = escrow.queue.status(now=now)
            assert (status.ready, status.taken, status.poisoned) == (0, 0, 0)
            assert escrow.audit() == ()
            if self.order.evidence:
                self.look_at_evidence(escrow, expected)
            outside = next(b.amount for b in escrow.balances() if b.account.kind == "outside")
            inside = sum(b.amount for b in escrow.balances() if b.account.kind == "party")
            held = sum(b.amount for b in escrow.balances() if b.account.kind == "bond")
            assert outside == -inside - held
        assert sum(paid.values()) * PRICE == self.jobs * PRICE

    def look_at_evidence(self, escrow: LedgerEscrow, expected: Iterable[str]) -> None:
        """What was checked was kept before: no row without its file, whoever died in between."""
        kept = EvidenceFolder(Path(self.order.evidence), escrow)
        for key in expected:
            [piece] = kept.pieces(key.split(":")[0])
            assert len(kept.read(piece.digest)) == piece.size

    def expected(self, escrow: LedgerEscrow) -> Iterator[tuple[str, str]]:
        """Give the payment that each job must end with."""
        holds = workshop.stock(
            escrow,
            self.jobs,
            forged=lambda n: is_forged(n, FORGED_EVERY),
            resumes=True,
            now=self.order.now,
        )
        for number, hold in enumerate(holds):
            direction = "refund" if is_forged(number, FORGED_EVERY) else "release"
            yield f"{hold}:0:{direction}", direction


@contextlib.contextmanager
def battlefield(
    driver: str, jobs: int, seed: int, *, keeps: bool = False, **changes: object
) -> Iterator[Battle]:
    with memory_folder() as folder, contextlib.ExitStack() as stack:
        server = None
        if driver == "postgres":
            server = stack.enter_context(running_server(durable=True))
            location = server.make_schema()
            PostgresEscrow.create(location, escrow="test-escrow").close()
        else:
            location = str(folder)
            SqliteEscrow.create(folder / "escrow.db", escrow="test-escrow").close()
        order = Order(
            location,
            lease_s=4,
            poll_s=0.05,
            until_empty=False,
            rail=str(folder / "rail.db"),
            evidence=str(folder / "evidence") if keeps else "",
            now=int(time.time()),
        )
        yield Battle(replace(order, **changes), jobs, server, seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("driver", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def test_a_few_kills_of_everything(driver: str) -> None:
    with battlefield(driver, jobs=96, seed=3, keeps=True) as battle:
        battle.fight(kills=SERVER_EVERY + 1 if driver == "postgres" else 5)
        battle.look()


@pytest.mark.parametrize("driver", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def test_paying_and_then_marking_is_caught(driver: str) -> None:
    """The harness itself: a design that is known to be wrong must fail in it."""
    for seed in range(8):
        with battlefield(driver, jobs=96, seed=seed, naive=True, batch=4, **QUIET) as battle:
            battle.fight(kills=6)
            if any(times > 1 for times in battle.count().values()):
                return
    pytest.fail("a design that pays twice was not caught")


@pytest.mark.long
@pytest.mark.parametrize("driver", ["sqlite", "postgres"])
def test_hundreds_of_kills_over_thousands_of_jobs(driver: str) -> None:
    """In pieces, where 300 kills take too long at once: KILLS, KILL_JOBS and KILL_SEED say which."""
    named = (("KILLS", "300"), ("KILL_JOBS", "20000"), ("KILL_SEED", "7"))
    kills, jobs, seed = (int(os.environ.get(name, usual)) for name, usual in named)
    with battlefield(driver, jobs=jobs, seed=seed) as battle:
        began = time.monotonic()
        battle.fight(kills=kills)
        battle.look()
        print(f"{driver}, seed {seed}: {dict(battle.kills)} over {jobs} jobs", end=" ")
        print(f"in {time.monotonic() - began:.0f} s")
        assert battle.kills.total() >= kills
