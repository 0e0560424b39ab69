"""Where a command finds models and circuits: the option ``--root``, or around the working directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

ROOT_HELP = "The folder that holds models/ and circuits/, or services/; else the nearest one around."


def root_option(command: Command) -> Command:
    """Give a command the option ``--root``; its function takes ``root: Path | None``, for `find_root`."""
    option = click.option(
        "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help=ROOT_HELP
    )
    return option(command)


def find_root(root: Path | None) -> Path:
    """Give the folder that the user named, or the nearest parent of the working directory that is one.

    It holds models and circuits, or services, or all of them.

    Raises:
        Misuse: there is none; the message says in one sentence what is needed.

    """
    from proofhold.errors import Misuse

    candidates = [root] if root is not None else [Path.cwd(), *Path.cwd().parents]
    for folder in candidates:
        held = {name for name in ("models", "circuits", "services") if (folder / name).is_dir()}
        if {"models", "circuits"} <= held or "services" in held:
            return folder
    where = f"{root} is none" if root is not None else "none is around the working directory"
    raise Misuse(
        "this command needs a folder that holds models/ and circuits/, or services/, such as a clone of "
        f"proofhold, and {where}: name one with --root"
    )
