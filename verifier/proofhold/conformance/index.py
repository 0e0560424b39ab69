"""The index of a corpus: cases with their files, the time to judge by, and what is to be said of them.

The format is docs/formats/conformance.md. Fields that are not read here (sources, licences) may be there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from proofhold.canonical import Json
from proofhold.errors import Malformed

MAX_INDEX_BYTES = 16 * 2**20
MAX_CASES = 100_000
MAX_FILES = 32
MAX_FILE_BYTES = 8 * 2**20
MAX_NAME_CHARS = 256


class Expectation(StrEnum):
    """What is to be said of a case."""

    ACCEPT = "accept"
    REJECT = "reject"
    """Never accepted: a checker that cannot decide, for the reason that is expected, agrees."""
    REJECT_BY_DEFAULT = "reject_by_default_policy"
    """Sound, and refused unless a policy names the exception."""
    REJECT_IF_REVOCATION_CHECKED = "reject_if_revocation_checked"
    """Refused, or accepted by a checker that says that it knows nothing of revocation."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case of an index. `kind` is the index's field ``tee``."""

    id: str
    kind: str
    files: Mapping[str, str]
    """By role, the path relative to the index."""
    now: int | None
    """The time to judge by, in unix seconds; None where time does not matter."""
    params: Mapping[str, Any]
    """What the relying party expects: a nonce, a measurement, an age."""
    expectation: Expectation
    code: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a checker that reads the same document must find in it."""

    def read(self, folder: Path) -> Mapping[str, bytes]:
        """Read its files, by role.

        Raises:
            Malformed: ``conformance.file``: one is missing, outside the folder, or too large.

        """
        return MappingProxyType({role: _read(folder, path, self.id) for role, path in self.files.items()})


def load_index(path: Path) -> tuple[Case, ...]:
    """Read an index.

    Raises:
        Malformed: ``conformance.index``: it is none.

    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise Malformed("conformance.index", f"cannot read {path}: {error.strerror}") from error
    return parse_index(data)


def parse_index(data: bytes) -> tuple[Case, ...]:
    """Parse an index's bytes; as `load_index`."""
    if len(data) > MAX_INDEX_BYTES:
        raise _bad(f"larger than {MAX_INDEX_BYTES} bytes")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(f"not JSON: {error}"[:200]) from error
    if not isinstance(value, list) or len(value) > MAX_CASES:
        raise _bad(f"not a list of at most {MAX_CASES} cases")
    cases = tuple(_case(item) for item in value)
    if len({case.id for case in cases}) != len(cases):
        raise _bad("two cases of one id")
    return cases


_NOT_FACTS = ("verdict", "code", "reason")


def _case(value: Json) -> Case:
    if not isinstance(value, dict):
        raise _bad("a case is not an object")
    name = _text(value, "id")
    files, params, expected = (_object(value, key, name) for key in ("files", "params", "expected"))
    if len(files) > MAX_FILES or not all(_is_text(part) for pair in files.items() for part in pair):
        raise _bad(f"{name}: files are not at most {MAX_FILES} paths")
    try:
        expectation = Expectation(_text(expected, "verdict"))
    except ValueError as error:
        raise _bad(f"{name}: an unknown verdict is expected") from error
    code = expected.get("code")
    if code is not None and not _is_text(code):
        raise _bad(f"{name}: the expected code is not a text")
    facts = {key: fact for key, fact in expected.items() if key not in _NOT_FACTS}
    now = _time(value.get("verify_at"), name)
    return Case(name, _text(value, "tee"), files, now, params, expectation, code, facts)


def _time(value: Json, name: str) -> int | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _bad(f"{name}: verify_at is not an instant") from error
    if moment.tzinfo is None:
        raise _bad(f"{name}: verify_at names no time zone")
    return int(moment.timestamp())


def _read(folder: Path, path: str, name: str) -> bytes:
    root = folder.resolve()
    file = (root / path).resolve()
    if not file.is_relative_to(root):
        raise Malformed("conformance.file", f"{name}: {path} lies outside the index's folder")
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Malformed("conformance.file", f"{name}: cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise Malformed("conformance.file", f"{name}: {path} is larger than {MAX_FILE_BYTES} bytes")
    return data


def _object(value: dict[str, Json], key: str, name: str) -> dict[str, Json]:
    item = value.get(key)
    if not isinstance(item, dict):
        raise _bad(f"{name}: {key} is not an object")
    return item


def _text(value: dict[str, Json], key: str) -> str:
    item = value.get(key)
    if not isinstance(item, str) or not _is_text(item):
        raise _bad(f"{key} is not a text of 1 to {MAX_NAME_CHARS} characters")
    return item


def _is_text(value: Json) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("an object has the same key twice")
    return dict(pairs)


def _bad(text: str) -> Malformed:
    return Malformed("conformance.index", f"no index: {text}")
