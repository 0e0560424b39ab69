"""A strict reader of JSON objects: every field is asked for by name and type, and none may be left over."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import TypeVar

from proofhold.canonical import DIGEST_BYTES, DIGEST_PATTERN, MAX_SAFE_INTEGER, Digest, Json
from proofhold.errors import Malformed

T = TypeVar("T")

MAX_TEXT_CHARS = 1024
MAX_ITEMS = 1024

_HEX = re.compile(r"[0-9a-f]*")
_is_digest = re.compile(DIGEST_PATTERN).fullmatch


class Record:
    """One JSON object being read. Errors carry the code ``<what>.malformed`` and the path of the field."""

    __slots__ = ("_left", "_path", "_what")

    def __init__(self, value: Json, *, what: str, path: str = "") -> None:
        self._what = what
        self._path = path
        if not isinstance(value, dict):
            raise self.error(f"expected an object, got {_kind(value)}")
        self._left = dict(value)

    def error(self, message: str, field: str = "") -> Malformed:
        """Make (not raise) the error of this record."""
        where = ".".join(part for part in (self._path, field) if part) or "the document"
        return Malformed(f"{self._what}.malformed", f"{self._what}: {where}: {message}")

    def has(self, field: str) -> bool:
        """Tell whether a field is there and not yet taken: for formats that leave fields out."""
        return field in self._left

    def names(self) -> tuple[str, ...]:
        """Name the fields that are not taken yet: for objects whose keys are data, such as tensors' names."""
        return tuple(self._left)

    def at(self, field: str) -> str:
        """Give the path of a field, for errors about it."""
        return f"{self._path}.{field}" if self._path else field

    def take(self, field: str) -> Json:
        """Take a field of any type."""
        try:
            return self._left.pop(field)
        except KeyError:
            raise self.error("missing", field) from None

    def text(self, field: str, *, max_chars: int = MAX_TEXT_CHARS, pattern: str | None = None) -> str:
        """Take a string, bounded, and of a form if `pattern` names one."""
        value = self.take(field)
        if not isinstance(value, str):
            raise self.error(f"expected a string, got {_kind(value)}", field)
        if len(value) > max_chars:
            raise self.error(f"{len(value)} characters, expected at most {max_chars}", field)
        if pattern is not None and not re.fullmatch(pattern, value, re.ASCII):
            raise self.error(f"got {value[:80]!r}, expected the form {pattern}", field)
        return value

    def integer(self, field: str, *, low: int = 0, high: int = MAX_SAFE_INTEGER) -> int:
        """Take an integer of a closed range."""
        value = self.take(field)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"expected an integer, got {_kind(value)}", field)
        if not low <= value <= high:
            raise self.error(f"got {value}, expected {low} to {high}", field)
        return value

    def number(self, field: str) -> float:
        """Take a finite number. (Canonical JSON has no other.)"""
        value = self.take(field)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(f"expected a number, got {_kind(value)}", field)
        return float(value)

    def boolean(self, field: str) -> bool:
        """Take true or false."""
        value = self.take(field)
        if not isinstance(value, bool):
            raise self.error(f"expected true or false, got {_kind(value)}", field)
        return value

    def hexadecimal(self, field: str, *, length_bytes: int) -> str:
        """Take lower-case hexadecimal digits of a fixed length."""
        value = self.text(field, max_chars=2 * length_bytes)
        if len(value) != 2 * length_bytes or not _HEX.fullmatch(value):
            raise self.error(f"expected {2 * length_bytes} lower-case hexadecimal digits", field)
        return value

    def digest(self, field: str) -> Digest:
        """Take a SHA-256."""
        value = self._left.get(field)
        if type(value) is str and _is_digest(value):  # half of what documents hold: no call for what is good
            del self._left[field]
            return value
        return self.hexadecimal(field, length_bytes=DIGEST_BYTES)

    def digests(self, field: str, *, max_items: int) -> tuple[Digest, ...]:
        """Take a list of SHA-256, bounded."""
        items = self.items(field, max_items=max_items)
        for index, item in enumerate(items):
            if type(item) is not str or not _is_digest(item):
                text = f"expected {2 * DIGEST_BYTES} lower-case hexadecimal digits"
                raise self.error(text, f"{field}[{index}]")
        return tuple(items)

    def base64(self, field: str, *, max_bytes: int) -> bytes:
        """Take bytes in standard base64, padded, in their one encoding."""
        value = self.text(field, max_chars=4 * (max_bytes // 3 + 1))
        try:
            data = binascii.a2b_base64(value, strict_mode=True)
        except ValueError as error:
            raise self.error("not base64", field) from error
        # Stray bits in the last character are ignored even so: two texts would then give the same bytes.
        if binascii.b2a_base64(data, newline=False).decode() != value:
            raise self.error("not the canonical base64 of its bytes", field)
        if len(data) > max_bytes:
            raise self.error(f"{len(data)} bytes, expected at most {max_bytes}", field)
        return data

    def choice(self, field: str, options: Callable[[str], T]) -> T:
        """Take a string that names one of an enumeration's values."""
        value = self.text(field)
        try:
            return options(value)
        except ValueError as error:
            raise self.error(f"got {value[:80]!r}, which is not one of its values", field) from error

    def record(self, field: str) -> Record:
        """Take a nested object."""
        return Record(self.take(field), what=self._what, path=self.at(field))

    def records(self, field: str, *, max_items: int = MAX_ITEMS) -> list[Record]:
        """Take a list of objects."""
        items = self.items(field, max_items=max_items)
        return [Record(v, what=self._what, path=f"{self.at(field)}[{i}]") for i, v in enumerate(items)]

    def items(self, field: str, *, max_items: int = MAX_ITEMS) -> list[Json]:
        """Take a list of anything, bounded."""
        value = self.take(field)
        if not isinstance(value, list):
            raise self.error(f"expected a list, got {_kind(value)}", field)
        if len(value) > max_items:
            raise self.error(f"{len(value)} items, expected at most {max_items}", field)
        return value

    def optional(self, field: str, reader: Callable[[str], T]) -> T | None:
        """Take a field that may be null: ``record.optional("trace_root", record.digest)``."""
        if field in self._left and self._left[field] is None:
            del self._left[field]
            return None
        return reader(field)

    def version(self, expected: int) -> None:
        """Take the field ``version``, which must be the one that this reader knows."""
        got = self.integer("version")
        if got != expected:
            raise Malformed(f"{self._what}.version", f"{self._what}: version {got}, expected {expected}")

    def close(self) -> None:
        """Refuse whatever nobody asked for."""
        if self._left:
            raise self.error(f"unknown field {sorted(self._left)[0][:80]!r}")


def _kind(value: Json) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    names |= {int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")  # TOML has dates and times
