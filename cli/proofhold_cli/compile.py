"""``proofhold compile``: make a circuit of a model, or check that the pinned ones still come out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import FILE, FOLDER, echo_json, json_option
from proofhold_cli.progress import steps
from proofhold_cli.root import find_root, root_option
from proofhold_cli.terminal import one_line, print_unsafe
from proofhold_cli.tuning import choose

if TYPE_CHECKING:
    from proofhold.locks import RunArgs


@click.command("compile")
@click.argument("targets", nargs=-1, metavar="[MODEL | NAME...]")
@click.option("--out", type=FOLDER, help="The folder to write: circuits/NAME.")
@click.option(
    "--check",
    "checking",
    is_flag=True,
    help="Recompile the named circuits and compare; exit 4 if any differs.",
)
@click.option("--all", "every", is_flag=True, help="With --check: every circuit under the root.")
@click.option(
    "--plan",
    "planning",
    is_flag=True,
    help="Say in seconds whether MODEL can be compiled and what it will cost; exit 4 if it cannot.",
)
@click.option("--accept", is_flag=True, help="With --check: list locks without any difference as audited.")
@click.option(
    "--spec",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The model's domain, post-processing and samples; else model.toml beside the model.",
)
@click.option(
    "--tune",
    "goal",
    type=click.Choice(["time", "size", "accuracy"]),
    help="Choose columns, lookup base and scale: what is cheapest to prove, smallest to verify, or most "
    "accurate.",
)
@click.option(
    "--max-error",
    type=click.FloatRange(min=0, min_open=True),
    help="With --tune: the largest absolute error that the lock may state; else a ten-thousandth of the "
    "range of the outputs on the samples.",
)
@click.option(
    "--trials",
    type=click.IntRange(0, 20),
    default=0,
    show_default=True,
    help="With --tune: really prove so many candidates, to show how well counted costs rank them.",
)
@click.option("--report", "tuning_report", type=FILE, help="With --tune: write an HTML report.")
@click.option(
    "--scale", type=click.IntRange(1, 20), help="Binary digits after the point, of inputs and parameters."
)
@click.option("--legs", type=click.IntRange(1, 8), help="Digits, in base 128, of the largest value.")
@click.option(
    "--srs-digest", metavar="HEX", help="An imported ceremony's SRS; else the unsafe development one."
)
@click.option("--srs-label", metavar="TEXT", help="With --srs-digest: what that ceremony is called.")
@click.option(
    "--param-visibility",
    type=click.Choice(["fixed", "private", "hashed", "polycommit"]),
    default="fixed",
    show_default=True,
    help="Anything but fixed is refused: the key would not bind the weights.",
)
@click.option(
    "--input-visibility",
    type=click.Choice(["public", "private", "hashed"]),
    default="public",
    show_default=True,
    help="Anything but public is refused: the job tag would bind nothing.",
)
@click.option(
    "--annotate",
    type=click.Choice(["github"]),
    help="With --check: also write differences to standard error as annotations for that CI system.",
)
@click.option(
    "--code-quality", "report", type=FILE, help="With --check: also write differences as GitLab's report."
)
@root_option
@json_option
def compile_command(
    targets: tuple[str, ...],
    out: Path | None,
    checking: bool,
    every: bool,
    planning: bool,
    accept: bool,
    spec: Path | None,
    goal: str | None,
    max_error: float | None,
    trials: int,
    tuning_report: Path | None,
    scale: int | None,
    legs: int | None,
    srs_digest: str | None,
    srs_label: str | None,
    param_visibility: str,
    input_visibility: str,
    annotate: str | None,
    report: Path | None,
    as_json: bool,
    root: Path | None,
) -> None:
    """Turn a model into a pinned circuit, or check pinned ones.

    \b
    proofhold compile models/NAME/model.onnx --out circuits/NAME
    proofhold compile --tune time --max-error 0.01 models/NAME/model.onnx --out circuits/NAME
    proofhold compile --plan models/NAME/model.onnx
    proofhold compile --check NAME...
    proofhold compile --check --all
    """  # noqa: D301 - click's mark for "do not wrap" is the backspace itself
    if goal is None and (max_error is not None or trials or tuning_report is not None):
        raise click.UsageError("--max-error, --trials and --report come with --tune.")
    if goal is not None and (checking or planning or scale is not None or legs is not None):
        raise click.UsageError("--tune chooses scale and legs, and goes with neither --check nor --plan.")
    if planning:
        if checking or every or accept or out is not None or len(targets) != 1:
            raise click.UsageError("--plan takes one model, and writes nothing.")
        _plan(Path(targets[0]), spec, _run_args(scale, legs), as_json=as_json)
        return
    if checking:
        if bool(targets) == every:
            raise click.UsageError("--check takes the names of circuits, or --all.")
        _check(targets, find_root(root), accept=accept, annotate=annotate, report=report, as_json=as_json)
        return
    if annotate or report:
        raise click.UsageError("--annotate and --code-quality go with --check.")
    if len(targets) != 1 or out is None or every or accept:
        raise click.UsageError("Name one model and, with --out, the folder of its circuit; or use --check.")
    if (srs_digest is None) != (srs_label is None):
        raise click.UsageError("--srs-digest and --srs-label come together.")

    from proofhold.compile import compile_model
    from proofhold.compile.circuit import refuse_private
    from proofhold.locks import SrsKind, Visibility

    model = Path(targets[0])
    visibility = Visibility(input=input_visibility, param=param_visibility)
    refuse_private(visibility)
    ceremony = (srs_digest, srs_label) if srs_digest is not None and srs_label is not None else None
    with steps() as on_step:
        run_args = _run_args(scale, legs)
        if goal is not None:
            run_args = choose(
                model,
                spec or model.parent / "model.toml",
                goal=goal,
                max_error=max_error,
                trials=trials,
                report=tuning_report,
                ceremony=ceremony,
                quiet=as_json,
                on_step=on_step,
            )
        lock = compile_model(
            model,
            out,
            specification_path=spec,
            run_args=run_args,
            visibility=visibility,
            ceremony=ceremony,
            on_step=on_step,
        )
    if as_json:
        echo_json({"lock": lock.digest, "name": lock.name, "out": str(out)})
    else:
        click.echo(f"{lock.name}: circuit lock {lock.digest}")
        click.echo(
            f"  k {lock.cost.k}, {lock.cost.rows} rows, proving key {lock.cost.pk_bytes / 1e6:.1f} MB, "
            f"error at most {lock.error.bound:.1e} ({lock.error.max_abs:.1e} on {lock.error.samples} samples)"
        )
    if lock.srs.kind is SrsKind.UNSAFE_DEV:
        print_unsafe("the SRS is the development one: anybody can forge proofs of this circuit")


def _run_args(scale: int | None, legs: int | None) -> RunArgs:
    from dataclasses import replace

    from proofhold.compile import DEFAULT_RUN_ARGS

    run_args = DEFAULT_RUN_ARGS
    if scale is not None:
        run_args = replace(run_args, input_scale=scale, param_scale=scale)
    if legs is not None:
        run_args = replace(run_args, decomp_legs=legs)
    return run_args


def _plan(model: Path, spec: Path | None, run_args: RunArgs, *, as_json: bool) -> None:
    from dataclasses import asdict

    from proofhold.compile import MACHINE, Specification, plan
    from proofhold.compile.build import read_model
    from proofhold.compile.specification import SPECIFICATION_FILE_NAME
    from proofhold.compile.toolchain import Toolchain

    beside = model.parent / SPECIFICATION_FILE_NAME
    path = spec or (beside if beside.is_file() else None)
    with Toolchain() as tools:
        found = plan(
            read_model(model),
            run_args,
            tools=tools,
            specification=Specification.read(path) if path else None,
        )
    if as_json:
        echo_json({"model": str(model), "supported": found.obstacle is None, **asdict(found)})
    elif found.obstacle is not None:
        obstacle = found.obstacle
        node = obstacle.node or "without a name"
        where = f": node {node!r}, {obstacle.operator}" if obstacle.operator else ""
        click.echo(f"{model}: not supported{one_line(where)} [{obstacle.code}]")
        click.echo(f"  why         {one_line(obstacle.why)}")
        click.echo(f"  what to do  {obstacle.advice}")
    elif found.predicted is not None:
        told, mb = found.predicted, 1e6
        click.echo(f"{model}: supported")
        click.echo(f"  rows         {found.rows}, {found.instances} instances: k = {found.k}")
        if found.lookup_range is not None:
            low, high = found.lookup_range
            click.echo(f"  tables       {low} to {high}")
        click.echo(f"  proving key  {told.pk_bytes / mb:.1f} MB, verifying key {told.vk_bytes / 1e3:.1f} kB")
        click.echo(f"  memory       {told.memory_bytes / mb:.0f} MB")
        click.echo(f"  time         {told.prove_s:.2g} s a proof, {told.setup_s:.2g} s once, on {MACHINE}")
        checked = "holds" if found.domain_checked else "not known: there is no model.toml"
        click.echo(f"  domain       {checked}")
    if found.obstacle is not None:
        click.get_current_context().exit(ExitCode.REJECTED)


def _check(
    names: tuple[str, ...],
    root: Path,
    *,
    accept: bool,
    annotate: str | None,
    report: Path | None,
    as_json: bool,
) -> None:
    from proofhold.compile import check, circuit_names
    from proofhold_cli.annotations import CIRCUIT_WORDS, code_quality, github
    from proofhold_cli.files import write_file

    checked = names or circuit_names(root)
    with steps() as on_step:
        differences = check(checked, root, accept_locks=accept, on_step=on_step)
    if as_json:
        rows = [
            {
                "changes_circuit": d.changes_circuit,
                "field": d.field,
                "file": d.file,
                "found": d.found,
                "name": d.name,
                "pinned": d.pinned,
            }
            for d in differences
        ]
        echo_json({"checked": list(checked), "differences": rows})
    else:
        for name in checked:
            mine = [difference for difference in differences if difference.name == name]
            click.echo(f"{name}: {f'{len(mine)} differences' if mine else 'as pinned'}")
            for difference in mine:
                click.echo(f"  {one_line(difference.field)}")
                click.secho(f"    - pinned {one_line(difference.pinned)}", fg="red")
                click.secho(f"    + found  {one_line(difference.found)}", fg="green")
                if difference.changes_circuit is not None:
                    click.echo(f"    {CIRCUIT_WORDS[difference.changes_circuit]}")
    for line in github(differences, root) if annotate else ():
        click.echo(line, err=True)
    if report:
        write_file(report, code_quality(differences, root))
    if differences:
        click.get_current_context().exit(ExitCode.REJECTED)
