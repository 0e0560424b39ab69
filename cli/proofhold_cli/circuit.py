"""``proofhold circuit``: what proofs of a pinned circuit are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import echo_json, json_option
from proofhold_cli.root import find_root, root_option
from proofhold_cli.terminal import one_line

if TYPE_CHECKING:
    from proofhold.disclosure import Disclosure

WIDTH = 100


@click.group("circuit")
def circuit_group() -> None:
    """Say what a pinned circuit's proofs are worth."""


@circuit_group.command("audit")
@click.argument("name")
@root_option
@json_option
def audit(name: str, root: Path | None, as_json: bool) -> None:
    """Say in words what a proof of the circuit NAME shows, and what it does not.

    From the lock alone, and a comparison of the pinned digests with the files beside it; whether the model
    still gives this circuit is what `proofhold compile --check` finds out. Exit code 4 when a file is not as
    pinned.
    """
    from proofhold.disclosure import disclose

    found = disclose(name, find_root(root))
    if as_json:
        echo_json(
            {
                "as_pinned": found.is_as_pinned,
                "files": [
                    {"as_pinned": f.is_as_pinned, "file": f.file, "found": f.found, "pinned": f.pinned}
                    for f in found.files
                ],
                "lock": found.lock,
                "name": found.name,
                "statements": [
                    {"says": said.says.value, "text": said.text, "topic": said.topic}
                    for said in found.statements
                ],
            }
        )
    else:
        _print(found)
    if not found.is_as_pinned:
        click.get_current_context().exit(ExitCode.REJECTED)


def _print(found: Disclosure) -> None:
    from textwrap import fill

    from proofhold.disclosure import Says

    styles = {Says.SHOWS: "green", Says.DOES_NOT_SHOW: "yellow", Says.UNSAFE: "red"}
    click.echo(f"{found.name}: circuit lock {found.lock}")
    for kind in Says:
        mine = [said for said in found.statements if said.says is kind]
        if mine:
            click.secho(f"\n{kind.value}", fg=styles.get(kind), bold=True)
        for said in mine:
            text = fill(one_line(said.text), WIDTH, initial_indent="    ", subsequent_indent="    ")
            click.echo(f"  {said.topic}\n{text}")
    click.secho("\nfiles", bold=True)
    for check in found.files:
        if check.is_as_pinned:
            click.echo(f"  {check.file}: as pinned")
        else:
            told = f"pinned {one_line(check.pinned)}, found {one_line(check.found)}"
            click.secho(f"  {check.file}: {told}", fg="red")
