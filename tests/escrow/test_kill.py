"""kill -9 of the process that settles, at random points, with a rail in a database of its own."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import escrow_kill_worker
from escrow_builders import FREEZE_S, PRICE, START, Scene
from escrow_kill_worker import BareRail, ruling_of
from proofhold.escrow import Ruling, SqliteEscrow, State
from proofhold.escrow.payments import LEASE_S

LONGEST_LIFE_S = 0.12
HOLDS_PER_KILL = 8
"""More than a life of that length can settle, so that every life is ended by the kill."""
WORKER = Path(escrow_kill_worker.__file__)


@dataclass(frozen=True)
class Aftermath:
    kills: int
    folder: Path
    holds: tuple[str, ...]

    @property
    def payments(self) -> Counter[str]:
        return Counter(BareRail(self.folder / "rail.db").payments())

    @property
    def paid_twice(self) -> list[str]:
        return [key for key, count in self.payments.items() if count > 1]


def kill_again_and_again(
    folder: Path, mode: str, kills: int, seed: int, *, until_paid_twice: bool = False
) -> Aftermath:
    """Fund and claim holds, then let worker after worker settle them and kill each but the last."""
    count = kills * HOLDS_PER_KILL
    scene = Scene.create(folder, jobs=count)
    holds = tuple(scene.claimed(verification_s=10**6).id for _ in range(count))
    scene.escrow.close()
    (folder / "holds").write_text("\n".join(holds))
    draw, killed, now = random.Random(seed), 0, START
    while True:
        now += LEASE_S  # whoever comes next comes when the dead one's payment may be asked about
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), mode, str(now)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if killed < kills:
            try:
                process.wait(draw.uniform(0, LONGEST_LIFE_S))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        process.stdout.read()
        code = process.wait()
        process.stdout.close()
        if code == 0:
            return Aftermath(killed, folder, holds)
        assert code == -signal.SIGKILL
        killed += 1
        end = Aftermath(killed, folder, holds)
        if until_paid_twice and end.paid_twice:
            return end


def check_nothing_lost_nothing_twice(end: Aftermath) -> None:
    assert end.paid_twice == []
    expected = {f"{hold}:0:{ruling_of(hold)}" for hold in end.holds}
    assert set(end.payments) == expected, "lost, or paid the wrong way"
    with SqliteEscrow.open(end.folder / "escrow.db") as escrow:
        assert escrow.audit() == ()
        for hold in end.holds:
            done = State.REFUNDED if ruling_of(hold) is Ruling.REFUND else State.RELEASED
            record = escrow.hold(hold)
            assert record.capture(0).state is done
            assert len(record.capture(0).decisions) == 1
        escrow.run_timers(START + 10**6 + FREEZE_S)
        assert escrow.audit() == ()
        outside = next(b.amount for b in escrow.balances() if b.account.kind == "outside")
        assert outside == -sum(b.amount for b in escrow.balances() if b.account.kind == "party")
    assert sum(end.payments.values()) * PRICE == PRICE * len(end.holds)


def test_a_few_kills_lose_nothing_and_pay_nothing_twice(folder: Path) -> None:
    end = kill_again_and_again(folder, "outbox", kills=5, seed=1)
    assert end.kills == 5
    check_nothing_lost_nothing_twice(end)


def test_paying_then_marking_is_caught(folder: Path) -> None:
    """The harness itself: a design that is known to be wrong must fail in it."""
    end = kill_again_and_again(folder, "naive", kills=30, seed=1, until_paid_twice=True)
    assert end.paid_twice


@pytest.mark.long
def test_many_kills_lose_nothing_and_pay_nothing_twice(folder: Path) -> None:
    end = kill_again_and_again(folder, "outbox", kills=60, seed=2)
    assert end.kills >= 50
    check_nothing_lost_nothing_twice(end)
