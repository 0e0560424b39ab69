"""``proofhold demo``."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import FOLDER
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from rich.console import Console

    from proofhold_cli.story.recorded import Recorded
    from proofhold_cli.story.stage import Stage
    from proofhold_cli.story.telling import Line

STATE_STYLES = {"released": "green", "refunded": "red", "claimed": "yellow"}
SIMULATED_EVIDENCE = "sim"


@click.command("demo")
@click.option(
    "--out", type=FOLDER, help="Where to leave receipts and bundles; by default proofhold-demo/TIME."
)
@root_option
def demo_command(out: Path | None, root: Path | None) -> None:
    """Play the whole story: twelve acts from a signed job to a released, refunded or expired payment.

    Models, proofs, signatures and the ledger are real. The clock is simulated, so that deadlines can pass,
    the proofs rest on the unsafe development SRS, and the enclave of act 8 is a simulated one. Acts 9 and 10
    judge an answer that a real enclave signed, where a corpus that holds it is at hand (PROOFHOLD_VECTORS).
    Acts 11 and 12 end in a judgement by arithmetic, whose transcript anyone replays.
    """
    from proofhold.provider import Prover
    from proofhold.runner import ProcessRunner
    from proofhold_cli.render import make_console
    from proofhold_cli.root import find_root
    from proofhold_cli.story.acts import play
    from proofhold_cli.story.disputes import play_disputes
    from proofhold_cli.story.recorded import VECTORS, find_recorded, play_recorded, told_document
    from proofhold_cli.story.stage import SimulatedClock, Stage

    folder = out or Path("proofhold-demo") / time.strftime("%Y%m%d-%H%M%S")
    console = make_console()
    found = find_root(root)
    folder.mkdir(parents=True, exist_ok=True)
    console.print("[bold]proofhold demo[/]: real models, real proofs, a real ledger")
    console.print("[bold red]UNSAFE[/]     the proofs rest on the development SRS, whose secret is public")
    console.print("[bold red]SIMULATED[/]  the clock, moved by hand so that deadlines pass; the money")
    console.print("[bold red]SIMULATED[/]  the enclave of act 8, which proves nothing to anybody\n")
    with ProcessRunner() as checking, ProcessRunner(memory_bytes=None, threads=None) as proving:
        stage = Stage(found, folder, checking, Prover(proving), SimulatedClock(int(time.time())))
        acts, stages = [play(stage), play_disputes(stage)], [stage]
        if recorded := find_recorded(found):
            stages.append(_stage_of_its_time(stage, recorded))
            acts.append(play_recorded(stages[-1], recorded))
        lines = []
        for line in chain.from_iterable(acts):
            lines.append(line)
            _print_line(console, line)
        if recorded:
            told = told_document(recorded.document)
            console.print(f"    a real Nitro document of such an enclave: [dim]{told}[/]", soft_wrap=True)
        else:
            console.print(
                f"9, 10. [yellow]not played[/]: no evidence of real enclaves is here. It is no part of this "
                f"repository; {VECTORS} names a folder that holds it",
                soft_wrap=True,
            )
        _print_table(console, lines)
        _print_money(console, lines)
        sound = _print_checks(console, stages)
    console.print(f"receipts, bundles and the ledger are in [bold]{folder}[/]")
    if not sound:
        raise click.ClickException("the demo's own checks failed")


def _stage_of_its_time(stage: Stage, recorded: Recorded) -> Stage:
    """Set up act 9: the same cast's doubles, an escrow of its own, and the clock at the answer's time."""
    from proofhold_cli.story.stage import SimulatedClock, Stage

    folder = stage.folder / "9-recorded"
    folder.mkdir(exist_ok=True)
    clock = SimulatedClock(recorded.response.signed_at)
    return Stage(stage.root, folder, stage.runner, stage.prover, clock, services=(recorded.service(),))


def _print_line(console: Console, line: Line) -> None:
    state = f"[{STATE_STYLES.get(line.state, 'white')}]{line.state}[/]"
    shown = "[bold red]SIMULATED[/] " if line.evidence == SIMULATED_EVIDENCE else ""
    console.print(f"{line.act}. {line.what}: {shown}{state}  [dim]{line.why}[/]", soft_wrap=True)


def _print_table(console: Console, lines: list[Line]) -> None:
    from rich.table import Table

    table = Table("act", "what happens", "evidence", "jobs", "ends", "why", box=None, title="\nThe story")
    for act in sorted({line.act for line in lines}):
        mine = [line for line in lines if line.act == act]
        last = mine[-1]
        paid = sum(line.paid for line in mine)
        jobs = str(len(mine)) if act != 7 else "1"
        detail = f"{paid} paid, then {last.state}" if len(mine) > 1 and act in (5, 11) else last.state
        style = STATE_STYLES.get(last.state, "white")
        table.add_row(str(act), mine[0].what, last.evidence, jobs, f"[{style}]{detail}[/]", last.why)
    console.print(table)


def _print_money(console: Console, lines: list[Line]) -> None:
    from proofhold.drafting import USDC
    from proofhold_cli.story.acts import bond_that_deters
    from proofhold_cli.story.stage import BOND, PRICE

    paid = sum(line.paid for line in lines if line.act == 5)
    console.print(
        f"\nAct 5: dishonest answers paid before one was drawn: {paid} ({USDC.show(paid * PRICE)}). "
        f"The bond was {USDC.show(BOND)}; from {USDC.show(bond_that_deters())} on, slashed when "
        "caught, cheating at p = 20 % is a loss on average.",
        soft_wrap=True,
    )


def _print_checks(console: Console, stages: list[Stage]) -> bool:
    from proofhold.errors import Malformed
    from proofhold.receipt import Receipt
    from proofhold.recomputation import recheck

    differences = [difference for stage in stages for difference in stage.escrow.audit()]
    total = sum(balance.amount for stage in stages for balance in stage.escrow.balances())
    rechecked = [
        not recheck(kept.receipt, kept.bundle, policy=kept.policy, verifier=stage.verifier)
        for stage in stages
        for kept in stage.kept
    ]
    flipped = bytearray(stages[0].kept[0].receipt.encode())
    flipped[len(flipped) // 2] ^= 1
    try:
        Receipt.decode(bytes(flipped))
        refusal = ""
    except Malformed as error:
        refusal = error.code
    checks = [
        (
            f"the ledger sums to {total}, its audit finds {len(differences)} differences",
            not total and not differences,
        ),
        (f"{sum(rechecked)} of {len(rechecked)} receipts recheck to the same verdict", all(rechecked)),
        (f"a receipt with one flipped bit is refused ({refusal or 'NOT REFUSED'})", bool(refusal)),
    ]
    for text, holds in checks:
        console.print(f"[{'green' if holds else 'bold red'}]{'✓' if holds else '✗'}[/] {text}")
    return all(holds for _, holds in checks)
