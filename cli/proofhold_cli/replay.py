"""``proofhold replay``: how a model may be re-executed, and how far two honest runs may differ."""

from __future__ import annotations

from pathlib import Path

import click

from proofhold_cli.files import FOLDER, echo_json, json_option
from proofhold_cli.progress import steps

MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)
DEFAULT_SEGMENTS = 8
"""As `proofhold.compile.replay.cutter` has it, which is not imported for a help text."""

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
    from proofhold.compile.replay.pin import pin_file
    from proofhold.compile.specification import SPECIFICATION_FILE_NAME
    from proofhold.runner import ProcessRunner

    with ProcessRunner(memory_bytes=None) as runner, steps() as on_step:
        pinned = pin_file(
            model,
            spec or model.parent / SPECIFICATION_FILE_NAME,
            out,
            runner=runner,
            segments=segments,
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
