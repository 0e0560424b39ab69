"""The embedded escrow: one SQLite file."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Self

from proofhold.escrow import carrying
from proofhold.escrow.database import SqliteDatabase
from proofhold.escrow.desk import LedgerEscrow, establish, require_terms
from proofhold.keys import Key


class SqliteEscrow(LedgerEscrow):
    """An `Escrow` in one file. May be used from several threads, and the file by several processes."""

    @classmethod
    def create(cls, path: Path, *, escrow: str, operators: Iterable[Key] = (), unbonding_s: int = 0) -> Self:
        """Make a new escrow.

        Args:
            path: its file, which must not exist; nobody but its owner may read it.
            escrow: its name, which jobs carry.
            operators: keys whose signatures resolve disputes; without one, only verdicts and time do.
            unbonding_s: how long a bond stays within reach of a transcript after its job was released.

        Raises:
            Misuse: the file exists, or a name is malformed.

        """
        keys = tuple(operators)
        require_terms(escrow, keys, unbonding_s)
        database = SqliteDatabase(path, create=True)
        database.write(partial(establish, escrow=escrow, operators=keys, unbonding_s=unbonding_s))
        return cls(database)

    @classmethod
    def import_from(cls, file: Path, path: Path) -> Self:
        """Make a new escrow of what `export_to` wrote, of either driver.

        Raises:
            Misuse: there is an escrow already, or the file cannot be read.
            Malformed: the file is no export, or not whole.
            Refused: ``escrow.amount``, ``escrow.books``.

        """
        database = SqliteDatabase(path, create=True)
        try:
            carrying.import_from(database, file)
            return cls(database)
        except BaseException:
            database.close()
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an escrow.

        Raises:
            Misuse: there is none.
            EscrowFailure: the file is none, or of another version.

        """
        return cls(SqliteDatabase(path, create=False))
