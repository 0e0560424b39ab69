"""The folder of an escrow on a machine: one that nobody but its owner may look into."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from proofhold.errors import Misuse
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.keys import Key

FOLDER_MODE = 0o700
DATABASE_NAME = "escrow.db"


def create_home(home: Path, *, escrow: str, operators: Iterable[Key] = ()) -> SqliteEscrow:
    """Make a folder, mode 0700, with a new escrow in it.

    Args:
        home: the folder; it may exist, as long as no escrow is in it.
        escrow: the escrow's name, which jobs carry.
        operators: keys whose signatures resolve disputes.

    Raises:
        Misuse: the folder cannot be made, others may look into it, or it holds an escrow.

    """
    try:
        home.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        mode = home.stat().st_mode & 0o777
    except OSError as error:
        raise Misuse(f"cannot make the folder {home}: {error.strerror}") from error
    if mode & 0o077:
        # The sampling secrets lie in it: who reads them knows which claims will be checked.
        raise Misuse(f"{home}: an escrow's folder has mode 0700, got {mode:04o}: chmod 700 {home}")
    return SqliteEscrow.create(home / DATABASE_NAME, escrow=escrow, operators=operators)


def open_home(home: Path) -> SqliteEscrow:
    """Open the escrow in a folder.

    Raises:
        Misuse: there is none.
        EscrowFailure: the file is none, or of another version.

    """
    return SqliteEscrow.open(home / DATABASE_NAME)
