"""``proofhold worker``: checks from an escrow's queue, on as many machines as share its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import FILE, clock, echo_json, evidence_option, json_option, now_option
from proofhold_cli.parameters import ESCROW
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from proofhold.canonical import Json
    from proofhold.escrow.queue import WorkerRecord
    from proofhold.runner import Runner


@click.group("worker")
def worker_group() -> None:
    """Check what is queued, on as many machines as it takes."""


@worker_group.command("add")
@click.argument("home", type=ESCROW)
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@click.option("--answers", "answers_file", type=FILE, help="What an earlier verdict needed.")
@evidence_option
@now_option
@json_option
def add_command(
    home: str,
    bundle_file: Path,
    answers_file: Path | None,
    folder: Path | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Queue BUNDLE for whichever worker is free. Its claim must be recorded (proofhold escrow claim).

    BUNDLE is kept as evidence: "evidence prune" says for how long.
    """
    from proofhold.escrow.home import open_home
    from proofhold.retention import EvidenceFolder, recheckable
    from proofhold_cli.files import find_evidence, read_bundle, read_file

    bundle = read_bundle(bundle_file)
    claim = bundle.exchange.claim.document
    answers = None if answers_file is None else read_file(answers_file)
    with open_home(home) as escrow:
        escrow.queue.add(claim.job, claim.seq, bundle.encode(), answers=answers, now=clock(now))
        if (kept := find_evidence(home, folder)) is not None:
            evidence = EvidenceFolder(kept, escrow)
            for piece in recheckable(claim.job, claim.seq, bundle.encode(), answers):
                evidence.keep(*piece, now=clock(now))
    if as_json:
        echo_json({"hold": claim.job, "seq": claim.seq})
    else:
        click.echo(f"queued: capture {claim.seq} of {claim.job}")


@worker_group.command("run")
@click.argument("home", type=ESCROW)
@click.option("--key", "key_file", type=FILE, required=True, help="The verifier's private key.")
@click.option(
    "--policy",
    "policy_names",
    required=True,
    multiple=True,
    metavar="NAME|FILE",
    help="A policy that jobs may name; once for each.",
)
@click.option("--parallel", type=click.IntRange(1, 256), default=1, show_default=True, help="Checks at once.")
@click.option(
    "--batch", type=click.IntRange(1, 1024), default=32, show_default=True, help="Taken at once, at most."
)
@click.option(
    "--lease-s", type=click.IntRange(1, 86_400), default=60, show_default=True, help="Kept while it works."
)
@click.option(
    "--runner",
    "runner_address",
    default="processes",
    show_default=True,
    metavar="processes|ray://HOST:PORT|ray://",
    help="Where heavy checks run: here, or on a Ray cluster (extra [ray]); ray:// alone is the local one.",
)
@click.option("--name", default="", help="Its name among the workers; made up if left out.")
@click.option("--pay/--no-pay", default=True, show_default=True, help="Also pay out what is decided.")
@click.option("--until-empty", is_flag=True, help="Stop when nothing is left to do.")
@evidence_option
@root_option
@json_option
def run_command(
    home: str,
    key_file: Path,
    policy_names: tuple[str, ...],
    parallel: int,
    batch: int,
    lease_s: int,
    runner_address: str,
    name: str,
    pay: bool,
    until_empty: bool,
    folder: Path | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Take checks from the queue of the escrow at HOME, judge them, settle them.

    Any number of workers may run at once. What they check is kept as evidence in HOME; where HOME is a
    database, in the folder that --evidence names, if it does. Ends, with everything in hand done or given
    back, on SIGTERM or Ctrl-C; one that is killed loses nothing, since its leases end.
    """
    import signal
    import threading

    from proofhold.catalogue import Catalogue
    from proofhold.escrow.home import open_home
    from proofhold.escrow.rail import LedgerRail
    from proofhold.judges import VerifierJudge
    from proofhold.keys import SigningKey
    from proofhold.retention import EvidenceFolder
    from proofhold.standard import standard_verifier
    from proofhold.worker import Terms, Worker
    from proofhold_cli.files import find_evidence, read_policy
    from proofhold_cli.root import find_root

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    catalogue = Catalogue.load(find_root(root))
    policies = [read_policy(policy) for policy in policy_names]
    with open_home(home) as escrow, _runner(runner_address, parallel) as runner:
        kept = find_evidence(home, folder)
        verifier, key = standard_verifier(catalogue, runner), SigningKey.load(key_file)
        judge = VerifierJudge(verifier, policies, key, escrow=escrow)
        worker = Worker(
            escrow,
            judge,
            terms=Terms(parallel=parallel, batch=batch, lease_s=lease_s),
            name=name,
            rail=LedgerRail() if pay else None,
            evidence=None if kept is None else EvidenceFolder(kept, escrow),
            log=lambda line: click.echo(line, err=True),
        )
        click.echo(f"worker {worker.record.id} works", err=True)
        record = worker.run(stop, until_empty=until_empty)
    if as_json:
        echo_json(_content(record, alive=False))
    else:
        click.echo(f"worker {record.id}: {record.settled} settled, {record.kept} kept")


@worker_group.command("status")
@click.argument("home", type=ESCROW)
@now_option
@json_option
def status_command(home: str, now: int | None, as_json: bool) -> None:
    """Say how the queue of the escrow at HOME stands, and who works on it."""
    from proofhold.escrow.home import open_home

    at = clock(now)
    with open_home(home) as escrow:
        status = escrow.queue.status(now=at)
    if as_json:
        echo_json(
            {
                "oldest_s": status.oldest_s,
                "poisoned": status.poisoned,
                "ready": status.ready,
                "taken": status.taken,
                "workers": [_content(worker, alive=worker.is_alive(at)) for worker in status.workers],
            }
        )
        return
    click.echo(f"{status.ready} ready, {status.taken} taken, the oldest waits {status.oldest_s} s")
    click.echo(f"{status.poisoned} disputed because their attempts were spent")
    for worker in status.workers:
        stands = "works" if worker.is_alive(at) else "stopped" if worker.stopped_at else "is silent"
        click.echo(
            f"  {worker.id}: {stands}, heard of {at - worker.beat_at} s ago,"
            f" {worker.settled} settled, {worker.kept} kept"
        )


@worker_group.command("history")
@click.argument("home", type=ESCROW)
@click.argument("hold")
@click.option("--seq", default=0, show_default=True, help="Which capture of a metered job.")
@json_option
def history_command(home: str, hold: str, seq: int, as_json: bool) -> None:
    """Say who took HOLD, and what came of it: why a capture is disputed that nobody could judge."""
    from proofhold.escrow.home import open_home

    with open_home(home) as escrow:
        escrow.hold(hold).capture(seq)
        attempts = escrow.queue.attempts(hold, seq)
    if as_json:
        names = ("began_at", "begun", "ended_at", "number", "outcome", "worker")
        echo_json({"attempts": [{name: getattr(one, name) for name in names} for one in attempts]})
        return
    for one in attempts:
        took = "" if one.ended_at is None else f" after {one.ended_at - one.began_at} s"
        counts = "" if one.begun else ", no attempt"
        click.echo(f"{one.number}  {one.worker}: {one.outcome or 'under way'}{took}{counts}")


@contextmanager
def _runner(address: str, parallel: int) -> Iterator[Runner]:
    from proofhold.errors import Misuse
    from proofhold.runner import ProcessRunner

    if address == "processes":
        with ProcessRunner(parallel) as runner:
            yield runner
    elif address.startswith("ray://"):
        from proofhold.rayrunner import RayRunner

        with RayRunner(address, workers=parallel) as cluster:
            yield cluster
    else:
        raise Misuse(f"runner: got {address[:80]!r}, expected processes, or ray://HOST:PORT")


def _content(worker: WorkerRecord, *, alive: bool) -> dict[str, Json]:
    return {
        "alive": alive,
        "beat_at": worker.beat_at,
        "host": worker.host,
        "id": worker.id,
        "kept": worker.kept,
        "pid": worker.pid,
        "settled": worker.settled,
        "started_at": worker.started_at,
        "stopped_at": worker.stopped_at,
    }
