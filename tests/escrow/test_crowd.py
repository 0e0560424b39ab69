"""A crowd on the same holds: claiming, settling, expiring, paying and trying again; one movement each."""

from __future__ import annotations

import os
import random
import resource
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from escrow_builders import CLAIM_S, OUTPUT, START, Scene, digest_of, make_claim
from proofhold.escrow import HoldRecord, LedgerRail, Refused, Ruling, State
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.moves import JOBS_KEPT
from proofhold.escrow.tables import TABLES
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


ROWS_OF_A_JOB = dict.fromkeys(
    ("attempt", "capture", "decision", "hold", "job", "one_use", "payment", "secret"), 1
) | {"account": 2, "document": 2, "outbox": 5, "transition": 7, "transfer": 4, "entry": 8}
"""What a job that was checked and paid leaves behind for good."""


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


@dataclass(frozen=True)
class Sample:
    """How a process and its database stand."""

    minute: float
    resident: int
    handles: int
    jobs: int
    deliveries: int
    """How often jobs were handed in, each time with a deposit of the buyer and one of the provider."""


@pytest.mark.long
def test_soak(store: Store) -> None:
    """Jobs at a stated rate for a long time: memory and handles stay flat, growth is rows that are there."""
    minutes, rate = float(os.environ.get("SOAK_MINUTES", "20")), float(os.environ.get("SOAK_RATE", "10"))
    with store.create(escrow="test-escrow") as escrow:
        stop = threading.Event()
        worker = Worker(escrow, make_judge(escrow), terms=Terms(batch=64, poll_s=0.1), rail=LedgerRail())
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            # As many jobs as are kept in memory: what grows after them is not a cache that fills up.
            stock(escrow, JOBS_KEPT)
            settle_all(escrow)
            warm, before, samples = rows_of(store), size_of(store), list(soak(escrow, minutes, rate))
        finally:
            settle_all(escrow)
            stop.set()
            thread.join()
        assert escrow.audit() == ()
        jobs, deliveries, grown = samples[-1].jobs, samples[-1].deliveries, rows_of(store) - warm
        growth = (size_of(store) - before) / jobs
        thirds = [samples[n * len(samples) // 3 : (n + 1) * len(samples) // 3] for n in range(3)]
        memory = [statistics.mean(s.resident for s in third) / 2**20 for third in thirds]
        files = [max(s.handles for s in third) for third in thirds]
        series = [round(s.resident / 2**20) for s in samples[:: max(1, len(samples) // 20)]]
        print(f"{jobs} jobs in {samples[-1].minute:.1f} min ({rate:g}/s) after {JOBS_KEPT} to warm up")
        print(f"resident by thirds {memory[0]:.1f}, {memory[1]:.1f}, {memory[2]:.1f} MiB: {series}")
        print(f"at most {files} handles; the database grew by {growth:.0f} bytes a job")
        assert memory[2] < memory[0] * 1.02 + 2, "MiB resident"
        assert files[2] <= files[0] + 2
        # Growth is accounted for: every row that was not there before belongs to a job or to a deposit.
        expected = Counter({table: rows * jobs for table, rows in ROWS_OF_A_JOB.items()})
        assert grown == expected + Counter({"transfer": 2 * deliveries, "entry": 4 * deliveries})


def soak(escrow: LedgerEscrow, minutes: float, rate: float) -> Iterator[Sample]:
    """Hand in so many jobs a second for so long, and look once a second."""
    began, jobs, deliveries = time.monotonic(), 0, 0
    while (passed := time.monotonic() - began) < 60 * minutes:
        due = int(passed * rate) - jobs
        if due > 0:
            stock(escrow, due, first=JOBS_KEPT + jobs)
            jobs, deliveries = jobs + due, deliveries + 1
        yield Sample(passed / 60, resident(), handles(), jobs, deliveries)
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began - passed)))


def settle_all(escrow: LedgerEscrow) -> None:
    """Wait until the queue is empty and everything is paid."""
    while not escrow.queue.is_empty():
        time.sleep(0.2)
    while escrow.pump(LedgerRail(), now=int(time.time())).paid:
        pass


def rows_of(store: Store) -> Counter[str]:
    """Count the rows of every table that may grow with the jobs."""
    return Counter({t.name: int(store.query(f"SELECT count(*) FROM {t.name}")[0][0]) for t in TABLES})  # noqa: S608


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
