"""What settling costs, and how it scales: commits, ratios, and the disk's flushes a second beside them.

Everything is compared within one run, in rounds that take turns, since other loads and the disk's mood fall
on all alike; absolute rates belong to the machine. A settlement is a ruling that is carried out:
compare-and-set, log, outbox, decision with its receipt, payment order, and the bond's transfer with its two
balances.

``python bench/settle.py sqlite workers`` measures these pieces again and keeps the others.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from _results import table, write_section

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from judging import BUYER, NOW, PROVIDER, SECRET, VERIFIER, catalogue, key_of, make_job, policy
from pgserver import running_server
from proofhold import keys
from proofhold.catalogue import MODELS_FOLDER
from proofhold.compile.specification import read_samples
from proofhold.core import Accepted, Answer, NeedKind, Verdict
from proofhold.endorsing import read_quorums
from proofhold.escrow import LedgerRail, PostgresEscrow, Refused, Ruled, Ruling, SqliteEscrow
from proofhold.escrow.database import SqliteDatabase
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.queue import Lease
from proofhold.exchange import Bundle
from proofhold.job import OnnxModel
from proofhold.keys import Signed
from proofhold.pool import VerifierPool
from proofhold.provider import Prover, respond
from proofhold.provider.cost import cpu_seconds
from proofhold.receipt import Receipt
from proofhold.runner import ProcessRunner
from proofhold.settlement import rule, settle, verify_and_settle
from proofhold.standard import standard_verifier
from proofhold.worker import Terms, Worker
from workshop import POLICY as WORKSHOP
from workshop import Order, hand_in, make_judge, proved_bundles, stock

T = TypeVar("T")
ROOT = Path(__file__).parents[1]

ROUNDS = int(os.environ.get("ROUNDS", "3"))
ALONE, CALLERS, EACH, BATCH = 100, 256, 8, 1_024
CONNECTIONS, OVER_CONNECTIONS = 64, 1_024
RECEIPT = b"r" * 1_500
SLOW_FLUSH_S = 0.004
"""What a flush takes on a disk of 250 flushes a second, such as the one whose figures set the bars."""
WAIT_S, WAITING_EACH = 0.05, 160
PROVED_JOBS = 192
HOOK_JOBS, HOOK_CALLERS = 256, 64
CHECKED = ("breast_cancer", "digits")
"""The smallest circuit, and one of a common size."""
PROVIDERS = tuple(key_of(f"provider {n}") for n in range(64))
PIECES = ROOT / "build" / "bench-settle.json"


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


@contextmanager
def slow_disk(escrow: LedgerEscrow, flush_s: float) -> Iterator[None]:
    """Let every commit of SQLite wait as long as a slower disk would have made it wait."""
    database = escrow._database
    assert isinstance(database, SqliteDatabase)
    commit = database.writer._commit

    def slowly(tasks):  # type: ignore[no-untyped-def]
        commit(tasks)
        time.sleep(flush_s)

    database.writer._commit = slowly
    try:
        yield
    finally:
        database.writer._commit = commit


def bench_sqlite() -> tuple[list[str], dict[str, bool]]:
    ways: dict[str, Callable[[LedgerEscrow, Sequence[Ruled]], None]] = {
        "alone": one_by_one,
        "callers": lambda escrow, wanted: side_by_side(escrow, wanted, CALLERS),
        "batches": together,
    }
    counts = {"alone": ALONE, "callers": CALLERS * EACH, "batches": 2 * BATCH}
    rates: dict[tuple[str, float], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        flushes = flushes_a_second(Path(folder))
        escrow = SqliteEscrow.create(Path(folder) / "escrow.db", escrow="test-escrow")
        database, commits, shelf = escrow._database, 0, Stock(escrow)
        assert isinstance(database, SqliteDatabase)
        for _ in range(ROUNDS):
            for flush_s, (name, way) in itertools.product((0.0, SLOW_FLUSH_S), ways.items()):
                wanted, before = shelf.take(counts[name]), database.writer.commits
                with slow_disk(escrow, flush_s):
                    taken = rate(lambda way=way, w=wanted: way(escrow, w), len(wanted))  # type: ignore[misc]
                rates.setdefault((name, flush_s), []).append(taken)
                if (name, flush_s) == ("callers", 0.0):
                    commits += database.writer.commits - before
        escrow.pump(LedgerRail(), now=int(time.time()))
        assert escrow.audit() == ()
        escrow.close()
    median = {at: statistics.median(values) for at, values in rates.items()}
    share = ROUNDS * counts["callers"] / commits

    def row(title: str, name: str, bar: str, a_commit: str) -> list[str]:
        cells = []
        for flush_s in (0.0, SLOW_FLUSH_S):
            got, first = median[name, flush_s], median["alone", flush_s]
            cells += [f"{got:,.0f}", f"{got / first:.1f}{bar}"]
        return [title, *cells, a_commit]

    slow = f"{1 / SLOW_FLUSH_S:.0f} flushes/s"
    header = ("SQLite", "settlements/s", "of the first", f"on {slow}", "of the first", "a commit")
    rows = [
        row("one caller, a commit each", "alone", "", "1"),
        row(f"{CALLERS} callers", "callers", " (≥ 3)", f"{share:.0f} (≥ 64)"),
        row(f"batches of {BATCH:,}", "batches", " (≥ 8)", f"{BATCH:,}"),
    ]
    texts = [
        table(header, rows),
        f"The disk flushed {flushes:,.0f} times a second before the run. On the right every commit"
        f" waits {1_000 * SLOW_FLUSH_S:.0f} ms longer, as one flush takes on a disk of {slow}. Medians of"
        f" {ROUNDS} rounds that take turns. Receipts have {len(RECEIPT):,} bytes; every job has a bond, whose"
        " return is the settlement's transfer. What a batch can save is the commit: a settlement by itself"
        f" takes {1e3 / median['alone', 0.0]:.2f} ms here, {1e3 / flushes:.2f} of them for the flush, and"
        f" {1e3 / median['batches', 0.0]:.2f} ms in a batch, for its rules and rows.",
    ]
    bars = {"64 settlements a commit": share >= 64}
    for flush_s, where in ((0.0, "on this disk"), (SLOW_FLUSH_S, f"on {slow}")):
        alone = median["alone", flush_s]
        bars[f"256 callers {where}"] = median["callers", flush_s] >= 3 * alone
        bars[f"SQLite batches {where}"] = median["batches", flush_s] >= 8 * alone
    return texts, bars


def bench_postgres() -> tuple[list[str], dict[str, bool]]:
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
    rows = [
        [f"{CONNECTIONS} connections, a transaction each", f"{each:,.0f}", "1", "1"],
        [f"set-based, {BATCH:,}", f"{together_:,.0f}", f"{together_ / each:.1f} (≥ 4)", f"{BATCH:,}"],
        ["4 × 256, 64 providers", f"{spread:,.0f}", "1", "256"],
        ["4 × 256, one provider", f"{hot:,.0f}", f"{hot / spread:.2f} (≥ 0.8)", "256"],
        ["transactions run again, all of it", f"{repeated}", "", ""],
    ]
    header = ("PostgreSQL", "settlements/s", "of the first", "a commit")
    return [table(header, rows)], {
        "PostgreSQL set-based": together_ >= 4 * each,
        "hot provider": hot >= 0.8 * spread,
    }


@dataclass(frozen=True)
class Crew:
    """Workers, each a process, that work off what is queued."""

    location: str
    workers: int
    wait_s: float = 0.0
    proofs: bool = False
    batch: int = 8

    def work_off(self, jobs: int) -> float:
        """Give jobs a second: from when all are told to begin until the last has nothing left to do."""
        orders = [
            Order(
                self.location,
                name=f"{self.workers}.{n}.{time.time_ns()}",
                wait_s=self.wait_s,
                proofs=self.proofs,
                batch=self.batch,
                poll_s=0.02,
                waits=True,
            )
            for n in range(self.workers)
        ]
        processes = [
            subprocess.Popen(order.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for order in orders
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [json.loads(process.communicate(timeout=600)[0].splitlines()[-1]) for process in processes]
        settled = sum(one["settled"] for one in said)
        assert settled == jobs, f"{settled} of {jobs}"
        return jobs / max(one["seconds"] for one in said)


def bench_workers() -> tuple[list[str], dict[str, bool]]:
    with running_server(durable=True) as server:
        location = server.make_schema()
        escrow = PostgresEscrow.create(location, escrow="test-escrow")
        rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
        first = itertools.count(0, 1_000_000)
        for _ in range(ROUNDS):
            for workers in rates:
                jobs = WAITING_EACH * workers
                stock(escrow, jobs, first=next(first))
                rates[workers].append(Crew(location, workers, wait_s=WAIT_S).work_off(jobs))
        assert escrow.audit() == ()
        escrow.close()
    medians = {workers: statistics.median(values) for workers, values in rates.items()}
    least = {1: 0.0, 2: 1.8, 4: 3.4}
    rows = [
        [
            f"{workers} worker{'s' if workers > 1 else ''}",
            f"{value:.1f}",
            f"{value / medians[1]:.2f}" + (f" (≥ {least[workers]})" if least[workers] else ""),
        ]
        for workers, value in medians.items()
    ]
    intro = (
        f"Workers, each a process, on one PostgreSQL, with checks that wait {1_000 * WAIT_S:.0f} ms (they"
        f" wait instead of computing, since the machine may have two cores): {WAITING_EACH} jobs each, from"
        " when all of them are up:"
    )
    bars = {f"{n} workers": medians[n] >= least[n] * medians[1] for n in (2, 4)}
    return [intro, table(("", "jobs/s", "of one"), rows)], bars


def bench_proofs() -> tuple[list[str], dict[str, bool]]:
    """Two workers with real proofs of the smallest circuit, each with a checking process of its own."""
    bundles, rates = proved_bundles(PROVED_JOBS), {1: [], 2: []}  # type: ignore[var-annotated]
    with running_server(durable=True) as server:
        for _, workers in itertools.product(range(ROUNDS), rates):
            location = server.make_schema()
            with PostgresEscrow.create(location, escrow="test-escrow") as escrow:
                hand_in(escrow, bundles)
                crew = Crew(location, workers, proofs=True, batch=32)
                rates[workers].append(crew.work_off(PROVED_JOBS))
                assert escrow.audit() == ()
    one, two = (statistics.median(values) for values in rates.values())
    intro = (
        f"Workers with real proofs of the smallest circuit ({PROVED_JOBS} jobs, each with its own),"
        " every worker with a process that checks; PostgreSQL shares the cores with them:"
    )
    rows = [["1 worker", f"{one:.1f}", "1.00"], ["2 workers", f"{two:.1f}", f"{two / one:.2f} (≥ 1.4)"]]
    return [intro, table(("", "jobs/s", "of one"), rows)], {"two workers with proofs": two >= 1.4 * one}


@dataclass(frozen=True)
class Spent:
    """What something took for one job, in seconds."""

    cpu_s: float
    wall_s: float

    def less(self, other: Spent) -> Spent:
        """What of it is not the other's."""
        return Spent(self.cpu_s - other.cpu_s, self.wall_s - other.wall_s)


def spend(action: Callable[[], object], count: int) -> Spent:
    """Measure this process, all of its threads."""
    began, cpu = time.perf_counter(), time.process_time()
    action()
    return Spent((time.process_time() - cpu) / count, (time.perf_counter() - began) / count)


def bare_check(model: str, pool: VerifierPool, prover: Prover) -> Spent:
    """Check a real proof over and over, its worker's time included, and no signature remembered."""
    bundle, verifier = prove(model, prover), standard_verifier(catalogue(), pool)
    answers, times = (Answer(NeedKind.REVEAL, SECRET),), 20

    def check() -> None:
        for _ in range(times):
            keys._good.clear()
            verdict = verifier.verify(
                bundle.exchange, bundle.evidence, policy=policy(), now=NOW, answers=answers
            )
            assert isinstance(verdict, Accepted), verdict

    check()
    began = float(pool.run(cpu_seconds))
    spent = spend(check, times)
    return Spent(spent.cpu_s + (float(pool.run(cpu_seconds)) - began) / times, spent.wall_s)


def prove(model: str, prover: Prover) -> Bundle:
    """Answer a job on a model of the repository with a proof."""
    entry = catalogue().by_name(model)
    assert entry.circuit is not None
    samples = read_samples(ROOT / MODELS_FOLDER / model / "samples.json", entry.inputs)
    locks = OnnxModel(entry.model, entry.circuit.lock.digest, entry.replay.digest if entry.replay else None)
    job = Signed.new(make_job(samples[0].inputs, model=locks), BUYER, PROVIDER)
    return respond(job, samples[0].inputs, entry, PROVIDER, prover=prover)


class HookBench:
    """What the hook adds to a check, where the check itself takes no time."""

    def __init__(self, escrow: LedgerEscrow) -> None:
        self.escrow, self.judge, self._next = escrow, make_judge(escrow), itertools.count(0, 1_000_000)
        self.spent: dict[str, list[Spent]] = {}

    def run(self) -> None:
        """Go once through all ways to settle."""
        verdicts: list[tuple[Lease, Verdict]] = []
        leases = self._leased()
        bare = self._measure("verify", leases, lambda lease: verdicts.append((lease, self._verify(lease))))
        self._measure("settle", verdicts, lambda pair: self._settle(*pair))
        for callers, name in ((1, "hook"), (HOOK_CALLERS, "hook, many")):
            jobs = self._claimed()
            with ThreadPoolExecutor(callers) as pool:
                whole = spend(lambda jobs=jobs, pool=pool: list(pool.map(self._hook, jobs)), len(jobs))  # type: ignore[misc]
            self.spent.setdefault(name, []).append(whole.less(bare))
        verdicts = [(lease, self._verify(lease)) for lease in self._leased()]
        self.spent.setdefault("batch", []).append(
            spend(lambda: self._settle_together(verdicts), len(verdicts))
        )
        stock(self.escrow, HOOK_JOBS, first=next(self._next))
        whole = spend(self._work, HOOK_JOBS)
        self.spent.setdefault("worker", []).append(whole.less(bare))

    def median(self, name: str) -> Spent:
        """Give the median of a way."""
        values = self.spent[name]
        return Spent(statistics.median(v.cpu_s for v in values), statistics.median(v.wall_s for v in values))

    def _measure(self, name: str, items: Sequence[T], action: Callable[[T], object]) -> Spent:
        spent = spend(lambda: [action(item) for item in items], len(items))
        self.spent.setdefault(name, []).append(spent)
        return spent

    def _claimed(self) -> list[Lease]:
        """Make jobs, and read them from the queue, which then has nothing to do with them any more."""
        leases = self._leased()
        for lease in leases:
            self.escrow.end_verification(lease.hold, 0, now=int(time.time()))
        return leases

    def _leased(self) -> list[Lease]:
        stock(self.escrow, HOOK_JOBS, first=next(self._next))
        return list(self.escrow.queue.take("bench", limit=HOOK_JOBS, lease_s=3_600, now=int(time.time())))

    def _verify(self, lease: Lease) -> Verdict:
        bundle, answer = Bundle.decode(lease.bundle), Answer(NeedKind.REVEAL, lease.secret)
        now = lease.record.capture(0).claimed_at or 0
        return self.judge._verifier.verify(
            bundle.exchange, bundle.evidence, policy=WORKSHOP, now=now, answers=(answer,)
        )

    def _hook(self, lease: Lease) -> None:
        bundle = Bundle.decode(lease.bundle)
        verify_and_settle(
            *(lease.hold, bundle),
            verifier=self.judge._verifier,
            policy=WORKSHOP,
            escrow=self.escrow,
            key=VERIFIER,
        )

    def _settle(self, lease: Lease, verdict: Verdict) -> None:
        settle(lease.hold, verdict, escrow=self.escrow, key=VERIFIER)

    def _settle_together(self, verdicts: Sequence[tuple[Lease, Verdict]]) -> None:
        """As a worker settles what it has judged."""
        now, ruled, quorums = int(time.time()), [], read_quorums(self.escrow)
        for lease, verdict in verdicts:
            ruled.append(
                rule(
                    lease.record,
                    Receipt.issue(verdict, VERIFIER),
                    escrow=self.escrow,
                    now=now,
                    quorums=quorums,
                )
            )
        self.escrow.apply_many(ruled, now=now)

    def _work(self) -> None:
        terms = Terms(batch=HOOK_JOBS)
        Worker(self.escrow, self.judge, terms=terms, rail=LedgerRail()).run(
            threading.Event(), until_empty=True
        )


def bench_hook() -> tuple[list[str], dict[str, bool]]:
    with (
        VerifierPool(catalogue(), 1) as pool,
        ProcessRunner(memory_bytes=None, threads=None) as proving,
    ):
        checks = {model: bare_check(model, pool, Prover(proving)) for model in CHECKED}
    with tempfile.TemporaryDirectory() as folder:
        escrow = SqliteEscrow.create(Path(folder) / "escrow.db", escrow="test-escrow")
        bench = HookBench(escrow)
        for _ in range(ROUNDS):
            bench.run()
        escrow.pump(LedgerRail(), now=int(time.time()))
        assert escrow.audit() == ()
        escrow.close()

    def row(title: str, name: str) -> list[str]:
        spent = bench.median(name)
        shares = [f"{100 * spent.cpu_s / check.cpu_s:.1f} %" for check in checks.values()]
        return [title, f"{1e3 * spent.cpu_s:.2f}", f"{1e3 * spent.wall_s:.2f}", *shares]

    rows = [
        [
            f"a bare check, {model}",
            f"{1e3 * check.cpu_s:.2f}",
            f"{1e3 * check.wall_s:.2f}",
            *["" for _ in checks],
        ]
        for model, check in checks.items()
    ]
    rows += [
        row("`settle`: a verdict at hand, one caller", "settle"),
        row("`verify_and_settle` less `verify`, one caller", "hook"),
        row(f"the same, {HOOK_CALLERS} callers at once", "hook, many"),
        row(f"a worker: receipts and settlement, {HOOK_JOBS} at a time", "batch"),
        row("a worker in all: taking, settling and paying, too", "worker"),
    ]
    header = ("ms a job (SQLite)", "processor", "wall", *(f"of {model}" for model in CHECKED))
    bars = {
        f"hook, {HOOK_JOBS} at a time, {model}": bench.median("batch").cpu_s <= 0.05 * check.cpu_s
        for model, check in checks.items()
    }
    return [
        "What the hook adds to a check (≤ 5 %), in processor time of all threads:",
        table(header, rows),
    ], bars


PARTS: Mapping[str, Callable[[], tuple[list[str], dict[str, bool]]]] = {
    "sqlite": bench_sqlite,
    "postgres": bench_postgres,
    "workers": bench_workers,
    "proofs": bench_proofs,
    "hook": bench_hook,
}


def main() -> int:
    known = json.loads(PIECES.read_text()) if PIECES.exists() else {}
    wanted = sys.argv[1:] or list(PARTS)
    for name in wanted:
        texts, bars = PARTS[name]()
        known[name] = {"texts": texts, "bars": bars}
        PIECES.parent.mkdir(exist_ok=True)
        PIECES.write_text(json.dumps(known))
        print("\n\n".join(texts), bars, sep="\n", flush=True)
    texts = [text for name in PARTS if name in known for text in known[name]["texts"]]
    bars = {bar: is_met for name in PARTS if name in known for bar, is_met in known[name]["bars"].items()}
    missed = [bar for bar, is_met in bars.items() if not is_met]
    if missing := [name for name in PARTS if name not in known]:
        texts.append(f"Not measured in this run: {', '.join(missing)}.")
    texts.append(f"Missed: {'; '.join(missed)}." if missed else "Every bar that was measured is met.")
    write_section("settle.py", "Settling", "\n\n".join(texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
