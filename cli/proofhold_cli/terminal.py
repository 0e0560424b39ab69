"""Text on a terminal: tables for people, and nothing of a stranger's that the terminal would obey."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click


def one_line(text: str) -> str:
    r"""Show line breaks, escape sequences and the like as ``\x1b`` and so on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout; cells are shown, never read as markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table)


def print_unsafe(message: str) -> None:
    """Say on stderr, in red where that is a terminal, that something is not safe."""
    click.echo(click.style(f"unsafe: {one_line(message)}", fg="red", bold=True), err=True)
