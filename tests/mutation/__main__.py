"""Run the mutants of the planned modules, two processes at a time, and report."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from mutation.operators import Mutant, mutants
from mutation.process import AT_IMPORT, Overlay, Watch, enter, run_pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SUMMARY = ROOT / "build" / "mutation.md"

BASELINE_TIMEOUT_SECONDS = 600
LEAST_TIMEOUT_SECONDS = 15
"""A mutant may take this long, or five times what its tests take when watched, whichever is more."""
TIMEOUT_FACTOR = 5

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Baseline:
    """What the tests of a module do when nothing is changed."""

    tests_by_line: dict[int, set[str]]
    seconds: dict[str, float]

    def tests_for(self, span: range) -> list[str]:
        """The tests that run any of these lines, the quickest first."""
        names = set().union(*(self.tests_by_line.get(line, set()) for line in span))
        if AT_IMPORT in names:
            names = set(self.seconds)
        return sorted(names, key=lambda name: (self.seconds[name], name))


@dataclass(frozen=True)
class Survivor:
    """An entry of survivors.toml."""

    module: str
    where: str
    change: str
    reason: str

    def covers(self, module: str, mutant: Mutant) -> bool:
        """Whether this entry is about that mutant."""
        pairs = ((self.module, module), (self.where, mutant.where or "module"), (self.change, mutant.change))
        return all(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) for pattern, text in pairs)


@dataclass(frozen=True)
class Result:
    """How one module fared."""

    module: str
    tried: int
    survived: tuple[Mutant, ...]
    untested: int
    seconds: float

    @property
    def killed(self) -> int:
        return self.tried - len(self.survived)

    @property
    def percent(self) -> float:
        return 100 * self.killed / max(self.tried, 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="mutation", description="Change the code and see whether a test notices."
    )
    parser.add_argument("modules", nargs="*", help="instead of all that plan.toml names")
    parser.add_argument("--list", action="store_true", help="print the changes, run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    arguments = parser.parse_args()

    plan = tomllib.loads((HERE / "plan.toml").read_text())
    listed = [
        Survivor(**entry)
        for entry in tomllib.loads((HERE / "survivors.toml").read_text()).get("survivor", [])
    ]
    unknown = set(arguments.modules) - set(plan["modules"])
    if unknown or any(not entry.reason.strip() for entry in listed):
        parser.error(
            f"not in plan.toml: {', '.join(unknown)}" if unknown else "a listed survivor needs a reason"
        )
    chosen = arguments.modules or list(plan["modules"])

    os.chdir(ROOT)
    if arguments.list:
        for module in chosen:
            for mutant in mutants(ast.parse(_source(module).read_bytes())):
                print(_line(module, mutant))
        return 0
    for name in plan["preload"]:
        importlib.import_module(name)
    results = [_run_module(module, plan["modules"][module], arguments.jobs) for module in chosen]
    return _report(results, listed, plan["least_killed_percent"])


def _run_module(module: str, tests: Sequence[str], jobs: int) -> Result:
    began = time.monotonic()
    path = _source(module)
    tree = ast.parse(path.read_bytes())
    found = mutants(tree)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        baseline = _baseline(path, tests, Path(folder))
        _control(module, path, tree, baseline, Path(folder))
        print(f"{module}: {len(found)} mutants, {len(baseline.seconds)} tests", flush=True)
        tested = [(mutant, names) for mutant in found if (names := baseline.tests_for(mutant.span))]
        survived = {id(mutant) for mutant in found} - {id(mutant) for mutant, _ in tested}
        untested = len(survived)
        for done, (mutant, killed) in enumerate(
            _race(module, path, tree, tested, baseline, jobs, Path(folder)), 1
        ):
            if not killed:
                survived.add(id(mutant))
            if sys.stdout.isatty() or done % 100 == 0:
                end = "\r" if sys.stdout.isatty() else "\n"
                print(f"  {done} of {len(tested)}, {len(survived)} survived", end=end, flush=True)
    survivors = tuple(mutant for mutant in found if id(mutant) in survived)
    result = Result(module, len(found), survivors, untested, time.monotonic() - began)
    print(
        f"  killed {result.killed} of {result.tried} ({result.percent:.1f} %) in {result.seconds:.0f} s",
        flush=True,
    )
    return result


def _baseline(path: Path, tests: Sequence[str], folder: Path) -> Baseline:
    """Run the tests once, unchanged and watched. They must pass, or a kill would say nothing."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_watch, args=(path, tests, folder, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(BASELINE_TIMEOUT_SECONDS):
            raise SystemExit(
                f"{path.name}: its tests take more than {BASELINE_TIMEOUT_SECONDS} s: name faster ones"
            )
        exit_code, tests_by_line, seconds = receiver.recv()
    except EOFError:
        exit_code, tests_by_line, seconds = -1, {}, {}
    finally:
        _end(process)
    if exit_code != 0:
        raise SystemExit(f"{path.name}: its tests must pass before it is mutated: pytest {' '.join(tests)}")
    return Baseline(tests_by_line, seconds)


def _watch(path: Path, tests: Sequence[str], folder: Path, sender: Connection) -> None:
    enter(folder)
    watch = Watch(path)
    with watch.watching():
        exit_code = run_pytest(tests, folder, watch)
    sender.send((exit_code, watch.tests_by_line, watch.seconds))


def _control(module: str, path: Path, tree: ast.Module, baseline: Baseline, folder: Path) -> None:
    """Run a mutant without a change as all others run. If it fails, so would every other, for nothing."""
    names = sorted(baseline.seconds)
    process = FORK.Process(target=_try, args=(module, path, tree, None, names, folder))
    process.start()
    process.join(BASELINE_TIMEOUT_SECONDS)
    _end(process)
    if process.exitcode != 0:
        raise SystemExit(f"{module}: its tests fail with nothing changed, when run by name and unwatched")


def _race(
    module: str,
    path: Path,
    tree: ast.Module,
    tested: Sequence[tuple[Mutant, list[str]]],
    baseline: Baseline,
    jobs: int,
    folder: Path,
) -> Iterator[tuple[Mutant, bool]]:
    """Run every mutant, `jobs` at a time; yields each with whether it was killed."""
    waiting = list(reversed(tested))
    running: dict[int, tuple[ForkProcess, Mutant, float, Path]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, tests = waiting.pop()
            scratch = Path(tempfile.mkdtemp(dir=folder))
            process = FORK.Process(target=_try, args=(module, path, tree, mutant, tests, scratch))
            process.start()
            allowed = TIMEOUT_FACTOR * sum(baseline.seconds[name] for name in tests)
            deadline = time.monotonic() + max(LEAST_TIMEOUT_SECONDS, allowed)
            running[process.sentinel] = (process, mutant, deadline, scratch)
        nearest = min(deadline for _, _, deadline, _ in running.values())
        ready = set(wait(list(running), timeout=max(0.0, nearest - time.monotonic())))
        for sentinel, (process, mutant, deadline, scratch) in list(running.items()):
            if sentinel in ready or time.monotonic() >= deadline:
                _end(process)
                shutil.rmtree(scratch, ignore_errors=True)
                del running[sentinel]
                yield mutant, process.exitcode != 0


def _try(
    module: str, path: Path, tree: ast.Module, mutant: Mutant | None, tests: Sequence[str], scratch: Path
) -> None:
    enter(scratch)
    if mutant is not None:
        mutant.apply()
    sys.meta_path.insert(0, Overlay(module, path, tree))
    exit_code = run_pytest(tests, scratch)
    # Without the interpreter's farewell: a mutant may have left threads or exit handlers that would wait.
    os._exit(exit_code)


def _end(process: ForkProcess) -> None:
    """End a process and all that it started."""
    if process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.join()


def _report(results: Sequence[Result], listed: Sequence[Survivor], least_percent: float) -> int:
    lines = ["| module | mutants | killed | survived | reached by no test | s |", "|---|---|---|---|---|---|"]
    for r in results:
        score = f"{r.killed} ({r.percent:.1f} %)"
        row = (r.module, r.tried, score, len(r.survived), r.untested, round(r.seconds))
        lines.append(f"| {' | '.join(map(str, row))} |")
    unlisted, used = 0, set()
    lines += ["", "Survivors:", ""]
    for result in results:
        for mutant in result.survived:
            entry = next((entry for entry in listed if entry.covers(result.module, mutant)), None)
            used.add(entry)
            unlisted += entry is None
            lines.append(f"- {_line(result.module, mutant)}  [{entry.reason if entry else 'NOT LISTED'}]")
    modules = {result.module for result in results}
    stale = [entry for entry in listed if entry.module in modules and entry not in used]
    lines += [
        f"- listed, but it no longer survives: {entry.module} {entry.where}: {entry.change}"
        for entry in stale
    ]
    tried, killed = sum(r.tried for r in results), sum(r.killed for r in results)
    percent = 100 * killed / max(tried, 1)
    lines += [
        "",
        f"Killed {killed} of {tried}: {percent:.1f} % (at least {least_percent} %), {unlisted} not listed.",
    ]
    text = "\n".join(lines)
    SUMMARY.parent.mkdir(exist_ok=True)
    SUMMARY.write_text(f"# Mutation testing\n\n{text}\n")
    print(f"\n{text}\nWritten to {SUMMARY.relative_to(ROOT)}")
    weak = [r.module for r in results if r.percent < least_percent]
    return 1 if weak or unlisted else 0


def _line(module: str, mutant: Mutant) -> str:
    return f"{module}:{mutant.line} {mutant.where or 'module'}: {mutant.change}"


def _source(module: str) -> Path:
    """The module's file. Looked up, not imported: the processes of the mutants import it."""
    folders: Any = [ROOT / "verifier", ROOT / "cli"]
    for folder in folders:
        path: Path = folder.joinpath(*module.split(".")).with_suffix(".py")
        if path.exists():
            return path
    raise SystemExit(f"plan.toml names {module}, which has no file")


if __name__ == "__main__":
    sys.exit(main())
