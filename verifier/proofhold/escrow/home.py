"""Where an escrow is: the folder of one on a machine, or the address of one in PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from proofhold.errors import Misuse
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.postgres import PostgresEscrow
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.keys import Key

FOLDER_MODE = 0o700
DATABASE_NAME = "escrow.db"

Location: TypeAlias = Path | str
"""A folder; or, as text, what libpq takes for an address (``postgresql://…``, ``dbname=…``), or a folder."""

_ADDRESS = re.compile(r"postgres(ql)?://|(\w+=\S* )*(service|dbname|host)=")


def is_address(location: Location) -> bool:
    """Tell whether a location is an address of PostgreSQL, and no folder."""
    return isinstance(location, str) and _ADDRESS.match(location) is not None


def create_home(
    home: Location, *, escrow: str, operators: Iterable[Key] = (), unbonding_s: int = 0
) -> LedgerEscrow:
    """Make a new escrow: in a folder, mode 0700, or in a database.

    Args:
        home: the folder, which may exist as long as no escrow is in it; or the address of a database.
        escrow: the escrow's name, which jobs carry.
        operators: keys whose signatures resolve disputes.
        unbonding_s: how long a bond stays within reach of a transcript after its job was released.

    Raises:
        Misuse: the folder cannot be made, others may look into it, or there is an escrow.
        EscrowFailure: no server, or one that is too old.

    """
    if is_address(home):
        return PostgresEscrow.create(str(home), escrow=escrow, operators=operators, unbonding_s=unbonding_s)
    folder = _make_folder(Path(home))
    return SqliteEscrow.create(
        folder / DATABASE_NAME, escrow=escrow, operators=operators, unbonding_s=unbonding_s
    )


def import_home(home: Location, file: Path) -> LedgerEscrow:
    """Make a new escrow, in a folder or in a database, of what `LedgerEscrow.export_to` wrote.

    Raises:
        Misuse: as `create_home`; or the file cannot be read.
        Malformed: the file is no export, or not whole.
        Refused: ``escrow.amount``, ``escrow.books``.

    """
    if is_address(home):
        return PostgresEscrow.import_from(file, str(home))
    return SqliteEscrow.import_from(file, _make_folder(Path(home)) / DATABASE_NAME)


def open_home(home: Location) -> LedgerEscrow:
    """Open the escrow in a folder, or in a database.

    Raises:
        Misuse: there is none.
        EscrowFailure: it is none, of another version, or its server does not answer.

    """
    if is_address(home):
        return PostgresEscrow.open(str(home))
    return SqliteEscrow.open(Path(home) / DATABASE_NAME)


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        mode = folder.stat().st_mode & 0o777
    except OSError as error:
        raise Misuse(f"cannot make the folder {folder}: {error.strerror}") from error
    if mode & 0o077:
        # The sampling secrets lie in it: who reads them knows which claims will be checked.
        raise Misuse(f"{folder}: an escrow's folder has mode 0700, got {mode:04o}: chmod 700 {folder}")
    return folder
