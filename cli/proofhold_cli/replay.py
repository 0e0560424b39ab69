"""``proofhold replay``: how a model may be re-executed, and how far two honest runs may differ."""

from __future__ import annotations

from pathlib import Path

import click

from proofhold_cli.files import FOLDER, echo_json, json_option
from proofhold_cli.progress import steps
from proofhold_cli.root import find_root, root_option

MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)
DEFAULT_SEGMENTS = 8
"""As `proofhold.compile.replay.cutter.Limits` has it, which is not imported for a help text."""

spec_option = click.option(
    "--spec",
    type=MODEL,
    help="The model's domain, shapes and post-processing; else model.toml beside the model.",
)


@click.group("replay")
def replay_group() -> None:
    """Pin how a model is re-executed."""


@replay_group.command("pin")
@click.argument("model", type=MODEL)
@click.option("--out", type=FOLDER, required=True, help="The folder to write: circuits/NAME.")
@click.option(
    "--segments",
    type=click.IntRange(1, 64),
    default=DEFAULT_SEGMENTS,
    show_default=True,
    help="How many parts to cut the model into, at most.",
)
@spec_option
@json_option
def pin_command(model: Path, out: Path, segments: int, spec: Path | None, as_json: bool) -> None:
    """Cut MODEL into segments that can be re-run alone, and write its replay.lock.json.

    Where the cuts lie is chosen by what each part costs here; each segment's model follows from MODEL and the
    names of the cuts, and is pinned by its digest. A model without a useful cut is one segment. The lock is
    listed as audited: whoever commits the list vouches for it.
    """
    from proofhold.compile.replay.cutter import Limits
    from proofhold.compile.replay.pin import pin_file
    from proofhold.compile.specification import SPECIFICATION_FILE_NAME
    from proofhold.runner import ProcessRunner

    with ProcessRunner(memory_bytes=None) as runner, steps() as on_step:
        pinned = pin_file(
            model,
            spec or model.parent / SPECIFICATION_FILE_NAME,
            out,
            runner=runner,
            limits=Limits(segments=segments),
            on_step=on_step,
        )
    lock = pinned.lock
    if as_json:
        echo_json(
            {
                "cuts": [boundary.name for boundary in lock.boundaries],
                "lock": lock.digest,
                "name": lock.name,
                "shares": [round(share, 4) for share in pinned.shares],
            }
        )
        return
    click.echo(f"{lock.name}: replay lock {lock.digest}")
    for index, (segment, share) in enumerate(zip(lock.segments, pinned.shares, strict=True)):
        click.echo(f"  segment {index}: {share:.0%} of a run, gives {', '.join(segment.outputs)}")


@replay_group.command("calibrate")
@click.argument("name")
@click.option(
    "--contract",
    type=click.Choice(["float32", "reduced"]),
    default="float32",
    show_default=True,
    help="The arithmetic that providers promise; reduced allows half precision.",
)
@click.option(
    "--inputs", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many to draw."
)
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False),
    help="An interpreter with another version of onnxruntime, to be measured too.",
)
@root_option
@json_option
def calibrate_command(
    name: str, contract: str, inputs: int, python: str | None, root: Path | None, as_json: bool
) -> None:
    """Measure how far honest runs of the model NAME differ, and draw the tolerance of each segment.

    Runs the model in every runtime that is there, and cheaper models made out of it, on inputs drawn from its
    domain. Writes the tolerances into its replay.lock.json, and beside it calibration.json and a report,
    calibration.html. Refused where honest and cheaper runs are too close for any tolerance.
    """
    from proofhold.catalogue import CIRCUITS_FOLDER, Catalogue
    from proofhold.compile.replay.calibration.calibrate import calibrate, write_profile
    from proofhold.errors import Misuse
    from proofhold.locks import Contract
    from proofhold.runner import ProcessRunner

    folder = find_root(root)
    entry = Catalogue.load(folder).by_name(name)
    if entry.replay is None:
        raise Misuse(f"{name} has no replay lock: pin one first")
    with ProcessRunner(memory_bytes=None, threads=None) as runner, steps() as on_step:
        profile = calibrate(
            entry.model_bytes(),
            entry.replay,
            runner=runner,
            contract=Contract(contract),
            inputs=inputs,
            python=python,
            on_step=on_step,
        )
    out = folder / CIRCUITS_FOLDER / name
    lock = write_profile(profile, entry.replay, out)
    missed = profile.not_told_apart
    if as_json:
        echo_json(
            {
                "contract": lock.contract,
                "honest_max": float(f"{profile.honest_max:.3g}"),
                "lock": lock.digest,
                "name": name,
                "not_told_apart": list(missed),
                "tolerances": list(profile.tolerances),
            }
        )
        return
    click.echo(f"{name}: replay lock {lock.digest}, report {out / 'calibration.html'}")
    click.echo(f"  honest runs     at most {profile.honest_max:.2g} apart, in {len(profile.honest)} runtimes")
    for runtime, mistake in profile.mistaken.items():
        click.echo(f"  left out        {runtime} makes a mistake: {mistake}")
    click.echo(f"  tolerances      {min(profile.tolerances):g} to {max(profile.tolerances):g}")
    for cheat in profile.cheats:
        found = profile.separation(cheat)
        click.echo(
            f"  {cheat:<15} caught by one segment in {found.detection:.1%}, {found.margin:.3g} times off"
        )
    if missed:
        click.echo(f"  not told apart  {', '.join(missed)}")
