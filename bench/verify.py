"""Checking many proofs: what the pool adds to bare `ezkl.verify`, and what a second worker brings.

Proofs of the repository's circuits are checked bare, in this very process with one thread, by a pool of one
worker and by a pool of two; in every round each of them checks as many, in a shuffled order, and the ratios
are taken within a round: whatever else the machine does at that moment falls on all of them.
"""

from __future__ import annotations

import os

os.environ["RAYON_NUM_THREADS"] = "1"  # as in a worker, and before ezkl is loaded

import hashlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ezkl
from _results import table, write_section

from proofhold.catalogue import Catalogue, Circuit, Entry
from proofhold.compile.specification import Specification, read_samples
from proofhold.pool import VerifierPool
from proofhold.provider import Prover
from proofhold.provider.cost import cpu_seconds
from proofhold.runner import ProcessRunner
from proofhold.zkverify import VALID, verify_natively

ROOT = Path(__file__).parents[1]
MAX_K = 16
"""Larger circuits take minutes to prove once, and show nothing new."""
PAIRS = 200
ROUNDS = 15
ROUND_S = 1.0
FRESH_STARTS = 9
MAX_OVERHEAD = 1.10
MIN_SPEED_UP = 1.5


@dataclass(frozen=True)
class Case:
    """One circuit, a good proof of it, and where its files lie for the bare call."""

    name: str
    circuit: Circuit
    snark: bytes
    paths: tuple[str, str, str, str]

    def bare(self) -> None:
        assert ezkl.verify(*self.paths, True) is True

    def by(self, runner: ProcessRunner) -> None:
        files = (self.circuit.settings, self.circuit.vk, self.circuit.srs)
        assert runner.run(verify_natively, self.snark, *files) == VALID


def make_case(entry: Entry, circuit: Circuit, folder: Path, prover: Prover) -> Case:
    specification = Specification.read(ROOT / "models" / entry.name / "model.toml")
    sample = read_samples(specification.samples, circuit.lock.inputs)[0]
    proof = prover.prove(entry, hashlib.sha256(entry.name.encode()).hexdigest(), sample.inputs)
    paths = []
    for name, data in (
        ("proof", proof.snark()),
        ("settings", circuit.settings),
        ("vk", circuit.vk),
        ("srs", circuit.srs),
    ):
        path = folder / f"{entry.name}.{name}"
        path.write_bytes(data)
        paths.append(str(path))
    return Case(entry.name, circuit, proof.snark(), (paths[0], paths[1], paths[2], paths[3]))


def taken_s(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def overhead(case: Case, pool: VerifierPool) -> tuple[float, float, float]:
    """Medians: bare and by the pool in ms, and the one as a multiple of the other."""
    rows = []
    for _ in range(max(40, PAIRS >> max(0, case.circuit.lock.cost.k - 12))):
        actions: list[tuple[str, Callable[[], None]]] = [
            ("bare", case.bare),
            ("pool", lambda: case.by(pool)),
        ]
        random.shuffle(actions)
        took = {name: taken_s(action) for name, action in actions}
        rows.append((1e3 * took["bare"], 1e3 * took["pool"], took["pool"] / took["bare"]))
    bare, pooled, ratio = (statistics.median(column) for column in zip(*rows, strict=True))
    return bare, pooled, ratio


def overhead_in_cpu(case: Case, pool: VerifierPool, count: int) -> float:
    """CPU time of checks by the pool, of both processes, as a multiple of that of bare ones."""
    began = time.process_time()
    for _ in range(count):
        case.bare()
    bare = time.process_time() - began
    began, worker = time.process_time(), float(pool.run(cpu_seconds))
    for _ in range(count):
        case.by(pool)
    pooled = time.process_time() - began + float(pool.run(cpu_seconds)) - worker
    return pooled / bare


def speed_up(case: Case, one: VerifierPool, two: VerifierPool, each_s: float) -> tuple[float, float, float]:
    """Medians: checks a second by one worker and by two, and the one as a multiple of the other."""
    count = max(8, round(ROUND_S / each_s))
    rows = []
    for _ in range(ROUNDS):
        rates = {}
        pools = [(1, one), (2, two)]
        random.shuffle(pools)
        for workers, pool in pools:
            with ThreadPoolExecutor(workers) as threads:
                began = time.perf_counter()
                list(threads.map(lambda _: case.by(pool), range(count)))  # noqa: B023
                rates[workers] = count / (time.perf_counter() - began)
        rows.append((rates[1], rates[2], rates[2] / rates[1]))
    first, second, ratio = (statistics.median(column) for column in zip(*rows, strict=True))
    return first, second, ratio


def first_checks(case: Case, catalogue: Catalogue) -> tuple[float, float]:
    """Medians in ms of the first check: by a worker that is not there yet, and by one that was warmed up."""
    cold, warm = [], []
    for _ in range(FRESH_STARTS):
        with ProcessRunner() as runner, VerifierPool(catalogue) as pool:
            cold.append(1e3 * taken_s(lambda: case.by(runner)))
            pool.start()
            warm.append(1e3 * taken_s(lambda: case.by(pool)))
    return statistics.median(cold), statistics.median(warm)


def main() -> int:
    catalogue = Catalogue.load(ROOT)
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessRunner(memory_bytes=None, threads=None) as proving,
        VerifierPool(catalogue) as one,
        VerifierPool(catalogue, 2) as two,
    ):
        cases = [
            make_case(entry, entry.circuit, Path(folder), Prover(proving))
            for entry in catalogue
            if entry.circuit and entry.circuit.lock.cost.k <= MAX_K
        ]
        one.start()
        two.start()
        lines, missed = [], []
        for case in sorted(cases, key=lambda case: case.circuit.lock.cost.k):
            bare, pooled, extra = overhead(case, one)
            in_cpu = overhead_in_cpu(case, one, max(20, round(ROUND_S * 1e3 / bare)))
            first, second, gain = speed_up(case, one, two, pooled / 1e3)
            cold, warm = first_checks(case, catalogue)
            name = f"{case.name}, k = {case.circuit.lock.cost.k}"
            figures = [bare, pooled, extra, in_cpu, first, second, gain, cold, warm]
            forms = ["{:.1f}", "{:.1f}", "{:.2f}", "{:.2f}", "{:.0f}", "{:.0f}", "{:.2f}", "{:.0f}", "{:.1f}"]
            lines.append([name, *(form.format(x) for form, x in zip(forms, figures, strict=True))])
            if extra > MAX_OVERHEAD:
                missed.append(f"{name}: {extra:.2f} times bare, at most {MAX_OVERHEAD:.2f}")
            if gain < MIN_SPEED_UP:
                missed.append(f"{name}: two workers {gain:.2f} times one, at least {MIN_SPEED_UP:.1f}")
    header = [
        "circuit",
        "bare, ms",
        "pool, ms",
        "times bare",
        "in CPU time",
        "1 worker, /s",
        "2 workers, /s",
        "times one",
    ]
    body = table([*header, "first, cold, ms", "first, warm, ms"], lines)
    note = (
        f"Medians. The bars: at most {MAX_OVERHEAD:.2f} times bare, at least {MIN_SPEED_UP:.1f} times one "
        f"worker. Load average over the last five minutes: {os.getloadavg()[1]:.1f}. A cold first check "
        "starts its worker; a warm one finds ezkl loaded and the circuit's files open."
    )
    write_section("verify.py", "Checking many proofs", f"{body}\n\n{note}")
    for line in missed:
        print(f"over its bar: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
