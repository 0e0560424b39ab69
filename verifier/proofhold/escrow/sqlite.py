"""The embedded escrow: one SQLite file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Self

from proofhold.errors import Misuse
from proofhold.escrow import carrying
from proofhold.escrow.database import SqliteDatabase
from proofhold.escrow.desk import LedgerEscrow, establish, require_terms
from proofhold.escrow.driver import Operation
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
        return cls._make(path, partial(establish, escrow=escrow, operators=keys, unbonding_s=unbonding_s))

    @classmethod
    def import_from(cls, file: Path, path: Path) -> Self:
        """Make a new escrow of what `export_to` wrote, of either driver.

        Raises:
            Misuse: there is an escrow already, or the file cannot be read.
            Malformed: the file is no export, or not whole.
            Refused: ``escrow.amount``, ``escrow.books``.

        """
        return cls._make(path, partial(carrying.import_from, path=file))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an escrow.

        Raises:
            Misuse: there is none.
            EscrowFailure: the file is none, or of another version.

        """
        return cls(SqliteDatabase(path))

    @classmethod
    def _make(cls, path: Path, fill: Operation[object]) -> Self:
        """Make the file under another name, and give it its own once everything is in it.

        So whoever is killed meanwhile, or is refused, leaves nothing that would be taken for an escrow. It is
        linked and not renamed: that would replace another one.
        """
        draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        try:
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            SqliteDatabase(draft, fill=fill).close()
            os.link(draft, path)
            _flush_folder(path.parent)
        except OSError as error:
            raise Misuse(f"cannot make an escrow at {path}: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        return cls.open(path)


def _flush_folder(folder: Path) -> None:
    """Let the names in a folder survive a power cut, as the files do."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
