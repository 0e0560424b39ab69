"""Ten thousand jobs, one PostgreSQL, three workers, and a page that says what became of them.

``make demo-scale`` runs it. The server is a throw-away one in a temporary folder; the jobs are claims without
evidence on a model of this repository, a fifth of which the sample draws: those are run again by onnxruntime
in the workers' processes. Some providers lie. The page is written to ``build/scale.html``.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from judging import POLICY, VERIFIER, policy  # noqa: E402
from pgserver import find_binaries, running_server  # noqa: E402
from proofhold.core import Assurance, Property  # noqa: E402
from proofhold.escrow import PostgresEscrow  # noqa: E402
from proofhold.escrow.desk import LedgerEscrow  # noqa: E402
from proofhold.receipt import Outcome as Judged  # noqa: E402
from proofhold.receipt import Receipt  # noqa: E402
from workshop import stock  # noqa: E402

WORKERS = 3
LIES_EVERY = 50
AT_ONCE = 32
"""How many jobs are handed in at one time: the time of their claims is that of the first."""


@dataclass(frozen=True)
class Result:
    """What the run came to."""

    jobs: int
    seconds: float
    outcomes: Counter[str]
    lies: int
    checks: Counter[str]
    """On whose word an output was released or not, as the receipts say it."""
    latencies_s: list[int]
    attempts: Counter[str]
    workers: list[tuple[str, int, int]]
    rows: int
    differences: int
    size_bytes: int

    @property
    def percentiles_s(self) -> list[tuple[str, int]]:
        """From claim to payment, seconds."""
        cuts = statistics.quantiles(self.latencies_s, n=100) if len(self.latencies_s) > 1 else [0] * 99
        return [(f"p{p}", round(cuts[p - 1])) for p in (50, 90, 99)] + [("most", max(self.latencies_s))]


def play(jobs: int, folder: Path) -> Result:
    """Make the jobs while the workers work, and wait until all is settled and paid."""
    key = folder / "verifier.pem"
    VERIFIER.save(key)
    began = time.monotonic()
    with running_server(durable=True) as server, contextlib.ExitStack() as stack:
        location = server.make_schema()
        escrow = stack.enter_context(PostgresEscrow.create(location, escrow="test-escrow"))
        workers = [stack.enter_context(a_worker(location, key, n + 1)) for n in range(WORKERS)]
        made = 0
        while made < jobs:
            part = min(AT_ONCE, jobs - made)
            stock(
                escrow,
                part,
                first=made,
                forged=is_lie,
                proved=False,
                evidence_kinds=("ezkl", "replay"),
                policy=policy().digest,
            )
            made += part
            show(escrow, made, jobs, began)
        while not is_done(escrow):
            show(escrow, made, jobs, began)
            time.sleep(1.0)
        seconds = time.monotonic() - began
        show(escrow, made, jobs, began)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        print(file=sys.stderr)
        return measure(escrow, jobs, seconds)


def is_lie(number: int) -> bool:
    """Tell whether the provider of a job says something else than the model."""
    return number % LIES_EVERY == 0


@contextlib.contextmanager
def a_worker(location: str, key: Path, number: int) -> Iterator[subprocess.Popen[bytes]]:
    """Let ``proofhold worker run`` work, and tell it to stop in the end, whatever happened."""
    command = [str(Path(sys.executable).with_name("proofhold")), "worker", "run", location]
    command += ["--key", str(key), "--policy", POLICY, "--root", str(ROOT)]
    command += ["--batch", "64", "--name", f"worker {number}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def show(escrow: LedgerEscrow, made: int, jobs: int, began: float) -> None:
    """Say how far it is."""
    status = escrow.queue.status(now=int(time.time()))
    left = status.ready + status.taken
    line = f"\r{made} of {jobs} jobs made, {made - left} settled, {time.monotonic() - began:.0f} s "
    print(line, end="", file=sys.stderr, flush=True)


def is_done(escrow: LedgerEscrow) -> bool:
    """Tell whether nothing is left to be checked or paid."""
    sql = "SELECT (SELECT count(*) FROM work) + (SELECT count(*) FROM payment WHERE status <> 'paid') AS open"
    return not escrow.store.read(lambda tx: tx.execute(sql).fetchone()["open"])


def measure(escrow: LedgerEscrow, jobs: int, seconds: float) -> Result:
    """Read what became of everything off the books themselves."""

    def rows(sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in escrow.store.read(lambda tx: tx.execute(sql).fetchall())]

    states = rows("SELECT state, count(*) FROM capture GROUP BY 1")
    outcomes = Counter({str(state): int(str(n)) for state, n in states})
    latency = (
        "SELECT max(at) - min(at) FROM transition WHERE subject = 'capture' AND event IN ('claim', 'paid')"
        " GROUP BY hold HAVING count(*) > 1"
    )
    attempts = rows("SELECT coalesce(outcome, 'running'), count(*) FROM attempt GROUP BY 1")
    size = rows(
        "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = relnamespace WHERE nspname = current_schema() AND relkind = 'r'"
    )
    status = escrow.queue.status(now=int(time.time()))
    return Result(
        jobs=jobs,
        seconds=seconds,
        outcomes=outcomes,
        lies=sum(map(is_lie, range(jobs))),
        checks=Counter(checked(bytes(row[0])) for row in rows("SELECT receipt FROM decision")),  # type: ignore[arg-type]
        latencies_s=[int(str(row[0])) for row in rows(latency)],
        attempts=Counter({str(outcome): int(str(n)) for outcome, n in attempts}),
        workers=[(w.id, w.settled, w.kept) for w in status.workers],
        rows=int(str(rows("SELECT count(*) FROM transition")[0][0])),
        differences=len(escrow.audit()),
        size_bytes=int(str(size[0][0])),
    )


def checked(data: bytes) -> str:
    """Say what a receipt rests on."""
    receipt = Receipt.decode(data)
    words = receipt.shown.get(Property.OUTPUT, ())
    if receipt.outcome is Judged.REJECTED:
        return "drawn, run again, and false"
    return "not drawn" if words == (Assurance.NOT_DRAWN,) else "drawn, run again, and true"


def page(result: Result) -> str:
    """Write the result as one page that needs nothing from anywhere."""

    def show_cell(cell: object) -> str:
        return f"{cell:,}" if isinstance(cell, int) else html.escape(str(cell))

    def table(head: tuple[str, ...], body: list[tuple[object, ...]]) -> str:
        cells = "".join(
            "<tr>" + "".join(f"<td>{show_cell(cell)}</td>" for cell in row) + "</tr>" for row in body
        )
        return f"<table><tr>{''.join(f'<th>{html.escape(h)}</th>' for h in head)}</tr>{cells}</table>"

    audit = "the books agree" if result.differences == 0 else f"{result.differences} differences"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>proofhold: {result.jobs:,} jobs</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
td, th {{ border: 1px solid #8886; padding: .25rem .75rem; text-align: left; }}
td:nth-child(n+2) {{ text-align: right; font-variant-numeric: tabular-nums; }}
strong {{ font-size: 1.3em; }}
</style>
<h1>{result.jobs:,} jobs, one PostgreSQL, {len(result.workers)} workers</h1>
<p><strong>{result.jobs / result.seconds:.1f} jobs a second</strong> from funding to payment,
{result.seconds:.0f} s in all, the making of the jobs included. Ledger audit: <strong>{audit}</strong>.</p>
<h2>From claim to payment</h2>{table(("", "seconds"), [*result.percentiles_s])}
<h2>What became of them</h2>{table(("state", "jobs"), [*sorted(result.outcomes.items())])}
<h2>What was checked</h2>{table(("receipt", "jobs"), [*sorted(result.checks.items())])}
<p>{result.lies:,} of the answers are lies. A lie is found when the sample draws it; what is not drawn is
released, as the job agreed, and its receipt says so. What keeps lies from paying is the bond.</p>
<h2>What the attempts came to</h2>{table(("outcome", "attempts"), [*sorted(result.attempts.items())])}
<h2>Who did it</h2>{table(("worker", "settled", "kept"), [*result.workers])}
<p>Whoever asks first gets what is there, as much as keeps it busy for a second. Where one keeps up with
what is handed in, the others find little; with checks that take long they share.</p>
<p>{result.rows:,} moves in the log, {result.size_bytes / 2**20:.0f} MiB in the database,
{result.size_bytes / result.jobs:,.0f} bytes a job, its receipt included.</p>
</html>
"""


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "scale.html")
    arguments = parser.parse_args()
    if find_binaries() is None:
        print("no PostgreSQL 15 or later here: apt-get install postgresql", file=sys.stderr)
        return 2
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = play(arguments.jobs, Path(folder))
    arguments.out.write_text(page(result))
    settled = ", ".join(f"{count} {state}" for state, count in sorted(result.outcomes.items()))
    waits = ", ".join(f"{name} {seconds} s" for name, seconds in result.percentiles_s)
    print(f"{result.jobs} jobs in {result.seconds:.0f} s ({result.jobs / result.seconds:.1f}/s): {settled}")
    print(f"claim to payment: {waits}")
    print(", ".join(f"{count} {name}" for name, count in sorted(result.checks.items())))
    print("the books agree" if not result.differences else f"{result.differences} differences in the books")
    print(f"report: {json.dumps(str(arguments.out))[1:-1]}")
    return 1 if result.differences or sum(result.outcomes.values()) != result.jobs else 0


if __name__ == "__main__":
    sys.exit(main())
