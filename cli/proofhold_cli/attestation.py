"""``proofhold attestation``: looking at attestation documents, without trusting them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proofhold_cli.files import FILE, echo_json, json_option

if TYPE_CHECKING:
    from rich.tree import Tree

WARNING = "NOT VERIFIED: this is what the document says of itself; no signature was checked."


@click.group("attestation")
def attestation_group() -> None:
    """Show what is in an attestation document."""


@attestation_group.command("inspect")
@click.argument("file", metavar="FILE", type=FILE)
@json_option
def inspect_command(file: Path, as_json: bool) -> None:
    """Show what FILE says: a Nitro document, an SEV-SNP report, a TDX or SGX quote.

    The format is found by parsing; hexadecimal and base64 are taken off first. Nothing is checked, and
    nothing shown may be relied upon.
    """
    from proofhold.attestation.inspection import inspect
    from proofhold_cli.files import read_file

    inspection = inspect(read_file(file))
    if as_json:
        echo_json({"fields": inspection.fields, "format": inspection.format, "verified": False})
        return
    from rich.tree import Tree

    from proofhold_cli.render import make_console

    click.echo(click.style(WARNING, fg="red", bold=True))
    tree = Tree(inspection.format)
    _grow(tree, inspection.fields)
    make_console().print(tree, soft_wrap=True)


def _grow(tree: Tree, fields: dict[str, Any]) -> None:
    """Hang fields into a tree; a stranger's text is shown, never read as markup or obeyed."""
    from rich.text import Text

    from proofhold_cli.terminal import one_line

    for name, value in fields.items():
        items = dict(enumerate(value)) if isinstance(value, list) else value
        label = one_line(str(name))
        if isinstance(items, dict):
            _grow(tree.add(Text(label)), items)
        else:
            tree.add(Text(f"{label}: {one_line('-' if value is None else str(value))}"))
