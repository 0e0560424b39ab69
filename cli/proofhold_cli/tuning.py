"""``proofhold compile --tune``: choose a model's circuit, say what was tried, and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import write_file
from proofhold_cli.terminal import print_table

if TYPE_CHECKING:
    from proofhold.compile.timing import Timed
    from proofhold.compile.trial import OnStep
    from proofhold.compile.tune import Tried, Tuning
    from proofhold.locks import RunArgs


def choose(
    model: Path,
    specification_path: Path,
    *,
    goal: str,
    max_error: float | None,
    trials: int,
    report: Path | None,
    ceremony: tuple[str, str] | None,
    quiet: bool,
    on_step: OnStep,
) -> RunArgs:
    """Tune a model, tell how, and give the arguments that were chosen."""
    from proofhold.compile import Goal, Specification, tune
    from proofhold.compile.build import read_model, srs_source
    from proofhold.compile.report import render
    from proofhold.compile.rowcount import rows_by_operator
    from proofhold.compile.timing import pick, time_proofs
    from proofhold.compile.toolchain import Toolchain

    published = read_model(model)
    specification = Specification.read(specification_path)
    with Toolchain() as tools:
        tuning = tune(
            published,
            specification,
            goal=Goal(goal),
            max_error=max_error,
            surveyed=report is not None,
            tools=tools,
            on_step=on_step,
        )
        timed = time_proofs(
            pick(tuning, trials),
            published,
            specification,
            srs_for_k=srs_source(ceremony, None),
            tools=tools,
            on_step=on_step,
        )
        if report is not None:
            on_step("counting rows by operator")
            rows = rows_by_operator(
                tools.derive(published, specification.request).model, tuning.run_args, tools
            )
            write_file(report, render(model.parent.name, tuning, rows, timed).encode())
    if not quiet:
        _tell(tuning, timed)
    return tuning.run_args


def _tell(tuning: Tuning, timed: tuple[Timed, ...]) -> None:
    from proofhold.compile.report import words
    from proofhold.compile.timing import rank_correlation

    click.echo(f"{len(tuning.ranked)} candidates counted; tried from the cheapest on:")
    print_table(
        ("candidate", "k", "rows", "counted cost", "error", "lock states", ""),
        [_cells(one, tuning) for one in tuning.tried],
    )
    if tuning.default is not None:
        factor = tuning.default.counts.proving / tuning.chosen.candidate.counts.proving
        click.echo(
            "By count, ezkl's own columns and base, at the finest scale that they hold, cost "
            f"{factor:.2f} times as much to prove."
        )
    if timed:
        click.echo("Real proofs, in seconds of processor time (told, not pinned):")
        print_table(
            ("candidate", "k", "counted cost", "keys", "proof"),
            [
                (
                    words(one.candidate.run_args),
                    str(one.candidate.counts.k),
                    f"{one.candidate.counts.proving:,.0f}",
                    f"{one.setup_s:.2f}",
                    f"{one.prove_s:.2f}",
                )
                for one in timed
            ],
        )
        found = rank_correlation(timed)
        if found is not None:
            click.echo(f"Rank correlation of counted cost and time: {found:.2f}")


def _cells(one: Tried, tuning: Tuning) -> tuple[str, ...]:
    from proofhold.compile.report import words

    counts = one.candidate.counts
    start = (words(one.candidate.run_args), str(counts.k), str(counts.rows), f"{counts.proving:,.0f}")
    if one.deviations is None:
        return (*start, "", "", one.refused)
    measured = one.deviations.measured
    said = "chosen" if one is tuning.chosen else "too coarse" if measured.bound > tuning.max_error else ""
    return (*start, f"{measured.max_abs:.1e}", f"{measured.bound:.1e}", said)
