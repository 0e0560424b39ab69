"""What settling costs, and how it scales: commits, ratios, and the disk's flushes a second beside them.

Everything is compared within one run, in rounds that take turns, since other loads and the disk's mood fall
on all alike; absolute rates belong to the machine. A settlement is a ruling that is carried out:
compare-and-set, log, outbox, decision with its receipt, payment order, and the bond's transfer with its two
balances.
"""

# The tests' folder comes first on the path.

from __future__ import annotations

import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from _results import table, write_section

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from judging import key_of
from pgserver import running_server
from proofhold.escrow import LedgerRail, PostgresEscrow, Refused, Ruled, Ruling, SqliteEscrow
from proofhold.escrow.database import SqliteDatabase
from proofhold.escrow.desk import LedgerEscrow
from proofhold.worker import Terms, Worker
from workshop import Order, make_judge, stock

ROUNDS = int(os.environ.get("ROUNDS", "3"))
ALONE, CALLERS, EACH, BATCH = 100, 256, 8, 1_024
CONNECTIONS, OVER_CONNECTIONS = 64, 1_024
RECEIPT = b"r" * 1_500
WAIT_S, WAITING_JOBS = 0.05, 160
PROVIDERS = tuple(key_of(f"provider {n}") for n in range(64))


def flushes_a_second(folder: Path, seconds: float = 1.0) -> float:
    """How often the disk under a folder can be written and flushed."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            file.write(b"x" * 4_096)
            os.fsync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began)


def rulings(holds: Sequence[str]) -> list[Ruled]:
    return [
        Ruled(hold, 0, Ruling.RELEASE, hashlib.sha256(hold.encode()).hexdigest(), RECEIPT) for hold in holds
    ]


def one_by_one(escrow: LedgerEscrow, wanted: Sequence[Ruled]) -> None:
    now = int(time.time())
    for ruled in wanted:
        escrow.apply(
            ruled.hold,
            0,
            ruled.ruling,
            receipt_digest=ruled.receipt_digest,
            receipt=ruled.receipt,
            now=now,
        )


def side_by_side(escrow: LedgerEscrow, wanted: Sequence[Ruled], callers: int) -> None:
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(lambda n: one_by_one(escrow, wanted[n::callers]), range(callers)))


def together(escrow: LedgerEscrow, wanted: Sequence[Ruled], *, size: int = BATCH, threads: int = 1) -> None:
    parts = [wanted[n : n + size] for n in range(0, len(wanted), size)]
    with ThreadPoolExecutor(threads) as pool:
        for outcomes in pool.map(lambda part: escrow.apply_many(part, now=int(time.time())), parts):
            assert not any(isinstance(outcome, Refused) for outcome in outcomes)


def rate(run: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    run()
    return count / (time.perf_counter() - began)


class Stock:
    """Claimed captures of one escrow, handed out as they are needed."""

    def __init__(self, escrow: LedgerEscrow) -> None:
        self.escrow, self._next = escrow, itertools.count(0, 1_000_000)

    def take(self, count: int, **changes: object) -> list[Ruled]:
        return rulings(stock(self.escrow, count, first=next(self._next), queued=False, **changes))  # type: ignore[arg-type]


def bench_sqlite() -> tuple[list[list[str]], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        flushes = flushes_a_second(Path(folder))
        escrow = SqliteEscrow.create(Path(folder) / "escrow.db", escrow="test-escrow")
        shelf, rates = Stock(escrow), {"alone": [], "callers": [], "batches": []}  # type: ignore[var-annotated]
        database, commits = escrow._database, 0
        assert isinstance(database, SqliteDatabase)
        for _ in range(ROUNDS):
            wanted = shelf.take(ALONE)
            rates["alone"].append(rate(lambda w=wanted: one_by_one(escrow, w), ALONE))  # type: ignore[misc]
            wanted = shelf.take(CALLERS * EACH)
            before = database.writer.commits
            rates["callers"].append(
                rate(lambda w=wanted: side_by_side(escrow, w, CALLERS), len(wanted))  # type: ignore[misc]
            )
            commits += database.writer.commits - before
            wanted = shelf.take(2 * BATCH)
            rates["batches"].append(rate(lambda w=wanted: together(escrow, w), len(wanted)))  # type: ignore[misc]
        escrow.pump(LedgerRail(), now=int(time.time()))
        assert escrow.audit() == ()
        escrow.close()
    alone, callers, batches = (statistics.median(rates[name]) for name in ("alone", "callers", "batches"))
    share = ROUNDS * CALLERS * EACH / commits
    figures = {"callers": callers / alone, "batches": batches / alone, "per_commit": share}
    rows = [
        ["SQLite, one caller, a commit each", f"{alone:,.0f}", "1", "1"],
        [
            f"SQLite, {CALLERS} callers",
            f"{callers:,.0f}",
            f"{callers / alone:.1f} (≥ 3)",
            f"{share:.0f} (≥ 64)",
        ],
        [f"SQLite, batches of {BATCH:,}", f"{batches:,.0f}", f"{batches / alone:.1f} (≥ 8)", f"{BATCH:,}"],
    ]
    return [["flushes/s of the disk", f"{flushes:,.0f}", "", ""], *rows], figures


def bench_postgres() -> tuple[list[list[str]], dict[str, float]]:
    with running_server(durable=True) as server:
        escrow = PostgresEscrow.create(server.make_schema(), escrow="test-escrow", connections=CONNECTIONS)
        shelf = Stock(escrow)
        rates: dict[str, list[float]] = {"each": [], "set": [], "hot": [], "spread": []}
        for _ in range(ROUNDS):
            wanted = shelf.take(OVER_CONNECTIONS)
            rates["each"].append(
                rate(lambda w=wanted: side_by_side(escrow, w, CONNECTIONS), len(wanted))  # type: ignore[misc]
            )
            wanted = shelf.take(2 * BATCH)
            rates["set"].append(rate(lambda w=wanted: together(escrow, w), len(wanted)))  # type: ignore[misc]
            for name, providers in (("hot", PROVIDERS[:1]), ("spread", PROVIDERS)):
                wanted = shelf.take(2 * BATCH, providers=providers)
                rates[name].append(
                    rate(lambda w=wanted: together(escrow, w, size=256, threads=4), len(wanted))  # type: ignore[misc]
                )
        escrow.pump(LedgerRail(), now=int(time.time()))
        assert escrow.audit() == ()
        repeated = escrow._database.repeated  # type: ignore[attr-defined]
        escrow.close()
    each, together_, hot, spread = (
        statistics.median(rates[name]) for name in ("each", "set", "hot", "spread")
    )
    figures = {"set": together_ / each, "hot": hot / spread}
    rows = [
        [f"PostgreSQL, {CONNECTIONS} connections, a transaction each", f"{each:,.0f}", "1", "1"],
        [
            f"PostgreSQL, set-based, {BATCH:,}",
            f"{together_:,.0f}",
            f"{together_ / each:.1f} (≥ 4)",
            f"{BATCH:,}",
        ],
        ["PostgreSQL, 4 × 256, 64 providers", f"{spread:,.0f}", "1", "256"],
        ["PostgreSQL, 4 × 256, one provider", f"{hot:,.0f}", f"{hot / spread:.2f} (≥ 0.8)", "256"],
        ["transactions run again, all of it", f"{repeated}", "", ""],
    ]
    return rows, figures


def work_off(location: str, workers: int, jobs: int, wait_s: float) -> float:
    """Let so many worker processes work off what is queued, from when all of them work; jobs a second."""
    orders = [
        replace(
            Order(location),
            name=f"{workers}.{n}.{time.time_ns()}",
            wait_s=wait_s,
            batch=4,
            poll_s=0.02,
            waits=True,
        )
        for n in range(workers)
    ]
    processes = [
        subprocess.Popen(order.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for order in orders
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    began = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    settled = 0
    for process in processes:
        out, _ = process.communicate(timeout=600)
        settled += json.loads(out.splitlines()[-1])["settled"]
    seconds = time.perf_counter() - began
    assert settled == jobs, f"{settled} of {jobs}"
    return jobs / seconds


def bench_workers() -> tuple[list[list[str]], dict[int, float]]:
    with running_server(durable=True) as server:
        location = server.make_schema()
        escrow = PostgresEscrow.create(location, escrow="test-escrow")
        rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
        first = itertools.count(0, 1_000_000)
        for _ in range(ROUNDS):
            for workers in rates:
                stock(escrow, WAITING_JOBS, first=next(first))
                rates[workers].append(work_off(location, workers, WAITING_JOBS, WAIT_S))
        assert escrow.audit() == ()
        escrow.close()
    medians = {workers: statistics.median(values) for workers, values in rates.items()}
    bars = {1: "", 2: " (≥ 1.8)", 4: " (≥ 3.4)"}
    rows = [
        [
            f"{workers} worker{'s' if workers > 1 else ''}",
            f"{value:.1f}",
            f"{value / medians[1]:.2f}{bars[workers]}",
        ]
        for workers, value in medians.items()
    ]
    return rows, {workers: value / medians[1] for workers, value in medians.items()}


def hook_cost() -> tuple[list[list[str]], float]:
    """What the worker adds to a check, in processor seconds of its process, for a check that takes none."""
    jobs, seconds = 512, []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        escrow = SqliteEscrow.create(Path(folder) / "escrow.db", escrow="test-escrow")
        judge = make_judge()
        for number in range(ROUNDS):
            stock(escrow, jobs, first=number * 1_000_000)
            spent = 0.0

            def judging(lease, judge=judge):  # type: ignore[no-untyped-def]
                nonlocal spent
                began = time.thread_time()
                judged = judge(lease)
                spent += time.thread_time() - began
                return judged

            began = time.process_time()
            Worker(escrow, judging, terms=Terms(batch=256), rail=LedgerRail()).run(
                threading.Event(), until_empty=True
            )
            seconds.append((time.process_time() - began - spent) / jobs)
            bare.append(spent / jobs)
        escrow.close()
    cost, judged = statistics.median(seconds), statistics.median(bare)
    return [
        ["taking, settling and paying a job", f"{1_000 * cost:.2f} ms"],
        ["judging it, the proof apart (parse, policy, receipt)", f"{1_000 * judged:.2f} ms"],
    ], cost


def proof_cost() -> float:
    """A bare check of a real proof of the smallest circuit: processor seconds, its worker's included."""
    from judging import NOW, SECRET, catalogue, policy, proved
    from proofhold.core import Answer, NeedKind
    from proofhold.runner import ProcessRunner
    from proofhold.standard import standard_verifier

    with ProcessRunner(1) as runner:
        verifier = standard_verifier(catalogue(), runner)
        bundle, answers = proved(), (Answer(NeedKind.REVEAL, SECRET),)

        def check() -> None:
            verifier.verify(bundle.exchange, bundle.evidence, policy=policy(), now=NOW, answers=answers)

        check()
        began, children = time.process_time(), _child_seconds()
        for _ in range(20):
            check()
        return (time.process_time() - began + _child_seconds() - children) / 20


def _child_seconds() -> float:
    """Processor seconds of processes that we started and that still run."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def sections() -> Iterator[str]:
    sqlite_rows, sqlite = bench_sqlite()
    postgres_rows, postgres = bench_postgres()
    header = ("", "settlements/s", "of the first", "settlements a commit")
    yield table(header, [*sqlite_rows, *postgres_rows])
    yield (
        f"Medians of {ROUNDS} rounds that take turns. Receipts have {len(RECEIPT):,} bytes; every job has a"
        " bond, whose return is the settlement's transfer."
    )
    worker_rows, workers = bench_workers()
    yield (
        f"Workers, each a process, on one PostgreSQL, with checks that wait {1_000 * WAIT_S:.0f} ms (they"
        " wait instead of computing, since the machine may have two cores):"
    )
    yield table(("", "jobs/s", "of one"), worker_rows)
    hook_rows, cost = hook_cost()
    proof = proof_cost()
    yield "What a worker adds to a check, in processor time a job (SQLite, batches of 256):"
    bare = ["a bare check of a real proof (smallest circuit)", f"{1_000 * proof:.1f} ms"]
    yield table(("", "a job"), [*hook_rows, bare])
    yield f"The hook's own cost is {100 * cost / proof:.1f} % of that check (≤ 5 %)."
    bars = {
        "256 callers": sqlite["callers"] >= 3 and sqlite["per_commit"] >= 64,
        "SQLite batches": sqlite["batches"] >= 8,
        "PostgreSQL set-based": postgres["set"] >= 4,
        "hot provider": postgres["hot"] >= 0.8,
        "two workers": workers[2] >= 1.8,
        "four workers": workers[4] >= 3.4,
        "hook": cost / proof <= 0.05,
    }
    missed = [name for name, met in bars.items() if not met]
    yield f"Bars missed in this run: {', '.join(missed)}." if missed else "Every bar is met in this run."


def main() -> int:
    write_section("settle.py", "Settling", "\n\n".join(sections()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
