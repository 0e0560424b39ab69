"""A crowd on the same holds: claiming, settling, expiring, paying and trying again; one movement each."""

from __future__ import annotations

import os
import random
import resource
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from escrow_builders import CLAIM_S, OUTPUT, START, Scene, digest_of, make_claim
from proofhold.escrow import HoldRecord, LedgerRail, Refused, Ruling, State
from proofhold.escrow.desk import LedgerEscrow
from proofhold.worker import Terms, Worker
from stores import Store
from workshop import make_judge, stock

EXPECTED = frozenset(
    {
        "claim.already_recorded",
        "escrow.clock_backwards",
        "escrow.decided",
        "escrow.leased",
        "escrow.not_claimed",
        "escrow.too_late",
        "escrow.wrong_state",
    }
)
"""What a client may be told: the state of the hold, never that somebody else was in the way."""


def crowd(store: Store, *, clients: int, holds: int, each: int, escrows: int = 8) -> Counter[str]:
    """Let clients loose on the same holds, and give what they were told."""
    scene = Scene.create(store, jobs=holds)
    made = [scene.fund() for _ in range(holds)]
    opened = [scene.escrow, *(store.open() for _ in range(escrows - 1))]
    told: Counter[str] = Counter()
    barrier = threading.Barrier(clients)

    def client(number: int) -> Counter[str]:
        draw, escrow = random.Random(number), opened[number % escrows]
        mine: Counter[str] = Counter()
        barrier.wait()
        for step in range(each):
            hold = draw.choice(made)
            try:
                mine[act(draw, escrow, hold, late=step > each // 2)] += 1
            except Refused as refusal:
                mine[refusal.code] += 1
        return mine

    with ThreadPoolExecutor(clients) as pool:
        for mine in pool.map(client, range(clients)):
            told += mine
    finish(scene, made)
    for escrow in opened:
        escrow.close()
    return told


def act(draw: random.Random, escrow: LedgerEscrow, hold: HoldRecord, *, late: bool) -> str:
    """Do one of the things that clients do."""
    match draw.randrange(8):
        case 0 | 1:
            escrow.record_claim(make_claim(hold.job), OUTPUT, now=START)
            return "claimed"
        case 2:
            escrow.begin_verification(hold.id, 0, lease_s=10, now=START)
            return "leased"
        case 3 | 4 | 5:
            ruling = draw.choice([Ruling.RELEASE, Ruling.REFUND])
            applied = escrow.apply(
                hold.id, 0, ruling, receipt_digest=digest_of(ruling), receipt=b"r", now=START
            )
            return "ruled again" if applied.repeated else "ruled"
        case 6:
            # Some believe that it is later: what nobody claimed expires under them.
            escrow.run_timers(START + CLAIM_S + 1 if late and draw.random() < 0.1 else START)
            return "timers"
        case _:
            escrow.pump(LedgerRail(), now=START)
            return "pumped"


def finish(scene: Scene, made: list[HoldRecord]) -> None:
    """Bring every hold to its end, and see that each moved once."""
    late = START + 10**6
    for _ in range(4):
        late += 10**6
        scene.escrow.run_timers(late)
        while scene.escrow.pump(LedgerRail(), now=late).paid:
            pass
    assert scene.escrow.audit() == ()
    for hold in made:
        capture = scene.escrow.hold(hold.id).capture(0)
        assert capture.state in (State.RELEASED, State.REFUNDED)
        assert len(capture.decisions) <= 1
        moves = [move.event for move in scene.escrow.history(hold.id) if move.subject == "capture"]
        assert moves.count("paid") == 1
        assert moves.count("accepted") + moves.count("refuted") <= 1
    paid = sum(b.amount for b in scene.escrow.balances() if b.account.kind in ("party", "treasury"))
    outside = next(b.amount for b in scene.escrow.balances() if b.account.kind == "outside")
    assert paid == -outside, "every atom is with somebody"
    assert all(b.amount == 0 for b in scene.escrow.balances() if b.account.kind in ("hold", "bond"))


def check(told: Counter[str], calls: int) -> None:
    did = {"claimed", "leased", "ruled", "ruled again", "timers", "pumped"}
    assert set(told) <= did | EXPECTED, told
    assert told.total() == calls
    assert told["ruled"] > 0


def test_a_small_crowd(store: Store) -> None:
    check(crowd(store, clients=16, holds=24, each=25, escrows=4), 16 * 25)


@pytest.mark.long
def test_sixty_four_clients_on_the_same_thousand_holds(store: Store) -> None:
    each = int(os.environ.get("CROWD_EACH", "150"))
    told = crowd(store, clients=64, holds=1_000, each=each)
    print(dict(told))
    check(told, 64 * each)


@pytest.mark.long
def test_soak(store: Store) -> None:
    """Jobs at a stated rate for a long time: memory and handles stay flat, growth is rows that are there."""
    minutes, rate = float(os.environ.get("SOAK_MINUTES", "20")), float(os.environ.get("SOAK_RATE", "10"))
    with store.create(escrow="test-escrow") as escrow:
        stop = threading.Event()
        worker = Worker(escrow, make_judge(), terms=Terms(batch=64, poll_s=0.1), rail=LedgerRail())
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        began, jobs = time.monotonic(), 0
        samples: list[tuple[float, int, int, int]] = []
        try:
            while (passed := time.monotonic() - began) < 60 * minutes:
                due = int(passed * rate) - jobs
                if due > 0:
                    stock(escrow, due, first=jobs)
                    jobs += due
                samples.append((passed, resident(), handles(), jobs))
                time.sleep(max(0.0, 1.0 - (time.monotonic() - began - passed)))
        finally:
            status = escrow.queue.status(now=int(time.time()))
            while status.ready + status.taken:
                time.sleep(0.2)
                status = escrow.queue.status(now=int(time.time()))
            stop.set()
            thread.join()
        assert escrow.audit() == ()
        # The first quarter warms caches up; from there on nothing grows but the database.
        warm = samples[len(samples) // 4 :]
        first, last = warm[: len(warm) // 4], warm[-len(warm) // 4 :]
        memory = [sum(s[1] for s in part) / len(part) for part in (first, last)]
        files = [max(s[2] for s in part) for part in (first, last)]
        rows = store.query("SELECT count(*) FROM capture")[0][0]
        print(
            f"{jobs} jobs in {minutes:g} min ({jobs / minutes / 60:.1f}/s), resident"
            f" {memory[0] / 2**20:.0f} to {memory[1] / 2**20:.0f} MiB, at most {files[0]} then {files[1]}"
            f" handles, {rows} captures, {size_of(store) / max(rows, 1):.0f} bytes a job"
        )
        assert rows == jobs
        assert memory[1] < memory[0] * 1.10 + 8 * 2**20
        assert files[1] <= files[0] + 4
        assert store.query("SELECT count(*) FROM work") == [(0,)], "settled work leaves the queue"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def size_of(store: Store) -> int:
    location = str(getattr(store, "location", ""))
    if location.startswith("/"):
        return sum(path.stat().st_size for path in Path(location).parent.glob("escrow.db*"))
    sql = (
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = current_schema() AND relkind = 'r'"
    )
    return int(store.query(sql)[0][0])
