"""Carrying an escrow from one database to another: a file of rows, whole or refused (docs/formats/escrow.md).

The file is one line of canonical JSON a row, in an order in which every row comes after those that it refers
to; its last line holds the digest of all before it. What is read is audited before it is kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from proofhold import canonical
from proofhold.canonical import Json
from proofhold.errors import Malformed, Misuse
from proofhold.escrow import audit
from proofhold.escrow.driver import Database, Dialect, Transaction, Value, Values, migrations
from proofhold.escrow.refusals import Refused
from proofhold.escrow.tables import TABLES, Kind, Table

FORMAT = "proofhold-escrow"
VERSION = 1
FILE_MODE = 0o600
MAX_LINE_BYTES = 256 * 2**20
CHUNK = 512
"""How many rows one statement writes."""


def export_to(database: Database, path: Path) -> int:
    """Write everything that an escrow holds into a new file, and give how many rows there were.

    Nobody but its owner may read the file: it holds sampling secrets.

    Raises:
        Misuse: the file exists, or cannot be written.

    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            rows = database.read(lambda tx: _write(tx, file))
            file.flush()
            os.fsync(file.fileno())
            return rows
    except OSError as error:
        raise Misuse(f"cannot write {path}: {error.strerror}") from error


def import_from(tx: Transaction, path: Path) -> int:
    """Read such a file into an escrow that has nothing in it yet, and give how many rows there were.

    Raises:
        Misuse: the file cannot be read, or the escrow is not empty.
        Malformed: the file is not what `export_to` writes, or not whole.
        Refused: ``escrow.amount``, an amount that this database does not hold; ``escrow.books``, the books
            in the file do not agree.

    """
    try:
        with path.open("rb") as file:
            return _read(tx, file)
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror}") from error


def _write(tx: Transaction, file: BinaryIO) -> int:
    hasher, rows = hashlib.sha256(), 0

    def line(value: Json) -> None:
        data = canonical.encode(value) + b"\n"
        hasher.update(data)
        file.write(data)

    line({"format": FORMAT, "schema": migrations(tx.dialect)[-1].version, "version": VERSION})
    for table in TABLES:
        for row in tx.execute(_select(table)):
            line({"row": [_to_json(v, kind) for v, kind in _kinds(table, row)], "table": table.name})
            rows += 1
    file.write(canonical.encode({"digest": hasher.hexdigest(), "rows": rows}) + b"\n")
    return rows


def _read(tx: Transaction, file: BinaryIO) -> int:
    _require_whole(file)
    file.seek(0)
    for table in TABLES:
        if tx.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone():  # noqa: S608
            raise Misuse("the escrow is not empty: import into a new one")
    waiting: list[Values] = []
    current: Table | None = None
    order = {table.name: table for table in TABLES}
    rows = 0
    for value in _lines(file):
        name = str(value.get("table"))
        if name not in order or set(value) != {"row", "table"}:
            raise _malformed(f"a row of {name[:40]!r}")
        table = order[name]
        if table is not current or len(waiting) == CHUNK:
            _insert(tx, current, waiting)
            current, waiting = table, []
        waiting.append(_from_json(table, value["row"], tx.greatest_amount))
        rows += 1
    _insert(tx, current, waiting)
    if tx.dialect is Dialect.POSTGRES:
        for table in TABLES:
            if table.numbered:
                sql = (
                    f"SELECT setval('{table.name}_id_seq', coalesce(max(id), 0) + 1, false) FROM {table.name}"  # noqa: S608
                )
                tx.execute(sql)
    differences = audit.audit(tx)
    if differences:
        first = differences[0]
        text = f"the books in the file do not agree: {first.subject}: {first.message}"
        raise Refused("escrow.books", text)
    return rows


def _require_whole(file: BinaryIO) -> None:
    """Read all of a file before any of it is believed."""
    hasher, rows, last = hashlib.sha256(), -1, b""  # the head is no row
    while data := file.readline(MAX_LINE_BYTES):
        if last:
            hasher.update(last)
            rows += 1
        last = data
    if last != canonical.encode({"digest": hasher.hexdigest(), "rows": rows}) + b"\n":
        raise _malformed("it is not whole, or was changed")


def _lines(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Give the rows of a file that is whole."""
    head, schema = _decode(file.readline(MAX_LINE_BYTES)), migrations()[-1].version
    if head != {"format": FORMAT, "schema": schema, "version": VERSION}:
        raise _malformed(f"a head of format {FORMAT}, version {VERSION}, schema {schema} is expected")
    while data := file.readline(MAX_LINE_BYTES):
        value = _decode(data)
        if "digest" in value:
            return
        yield value


def _decode(data: bytes) -> dict[str, Any]:
    value = canonical.decode(data.removesuffix(b"\n"), max_bytes=MAX_LINE_BYTES, what="export")
    if not isinstance(value, dict) or not data.endswith(b"\n"):
        raise _malformed("a line is no object")
    return value


def _insert(tx: Transaction, table: Table | None, rows: list[Values]) -> None:
    if table is not None and rows:
        tx.insert_many(table, rows)


def _kinds(table: Table, row: Iterable[Any]) -> Iterable[tuple[Any, Kind]]:
    return zip(row, table.columns.values(), strict=True)


def _to_json(value: Value, kind: Kind) -> Json:
    if value is None or kind in (Kind.TEXT, Kind.NUMBER):
        return value if isinstance(value, str | int) else None
    return str(value) if kind is Kind.AMOUNT else base64.b64encode(bytes(value)).decode()  # type: ignore[arg-type]


def _from_json(table: Table, row: Any, greatest: int) -> Values:
    if not isinstance(row, list) or len(row) != len(table.columns):
        raise _malformed(f"a row of {table.name} has {len(table.columns)} columns")
    return tuple(_value(table, value, kind, greatest) for value, kind in _kinds(table, row))


def _value(table: Table, value: Any, kind: Kind, greatest: int) -> Value:
    readers: dict[Kind, Callable[[Any], Value | None]] = {
        Kind.TEXT: lambda v: v if isinstance(v, str) else None,
        Kind.NUMBER: lambda v: v if isinstance(v, int) and not isinstance(v, bool) else None,
        Kind.AMOUNT: lambda v: int(v) if isinstance(v, str) and str(int(v)) == v else None,
        Kind.BYTES: lambda v: base64.b64decode(v, validate=True) if isinstance(v, str) else None,
    }
    if value is None:
        return None
    try:
        read = readers[kind](value)
    except (ValueError, binascii.Error):
        read = None
    if read is None:
        raise _malformed(f"a row of {table.name} holds {str(value)[:40]!r}, expected {kind.name.lower()}")
    if kind is Kind.AMOUNT and isinstance(read, int) and abs(read) > greatest:
        raise Refused("escrow.amount", f"{read} atomic units are more than this database counts")
    return read


def _select(table: Table) -> str:
    columns = ", ".join(f'"{name}"' for name in table.columns)
    order = "id" if table.numbered else ", ".join(f'"{name}"' for name in table.key)
    return f"SELECT {columns} FROM {table.name} ORDER BY {order}"  # noqa: S608


def _malformed(text: str) -> Malformed:
    return Malformed("export.malformed", f"not an escrow's export: {text}")


__all__ = ["export_to", "import_from"]
