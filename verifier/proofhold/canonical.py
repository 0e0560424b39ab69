"""Canonical JSON (RFC 8785) and the digests of this project.

A document has exactly one encoding; a parser takes that one and refuses all others, so that "the same bytes"
and "the same content" never part ways.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn, TypeAlias

import rfc8785

from proofhold.errors import Malformed, Misuse

Json: TypeAlias = Any
Digest: TypeAlias = str
"""A SHA-256, as 64 lower-case hexadecimal digits."""

DIGEST_BYTES = 32


def encode(value: Json) -> bytes:
    """Encode as RFC 8785 canonical JSON.

    Raises:
        Misuse: the value holds something that JSON cannot say exactly (NaN, an integer beyond 2^53, …).

    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Misuse(f"not expressible as canonical JSON: {error}") from error


def decode(data: bytes, *, max_bytes: int, what: str) -> Json:
    """Decode bytes that must be the canonical encoding of their own content.

    Args:
        data: what arrived; nothing about it is assumed.
        max_bytes: refuse anything longer, before looking at it.
        what: the format's name, the first half of the error codes.

    Raises:
        Malformed: ``<what>.too_large``, ``<what>.not_json`` (also duplicate keys, NaN, too deep) or
            ``<what>.not_canonical``.

    """
    if len(data) > max_bytes:
        raise Malformed(f"{what}.too_large", f"{len(data)} bytes, expected at most {max_bytes}")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what}.not_json", f"not JSON: {_first_line(error)}") from error
    try:
        canonical = encode(value)
    except (Misuse, RecursionError) as error:
        raise Malformed(f"{what}.not_canonical", _first_line(error)) from error
    if canonical != data:
        raise Malformed(f"{what}.not_canonical", "JSON, but not in its canonical form (RFC 8785)")
    return value


def digest(domain: str, *parts: bytes) -> Digest:
    """SHA-256 over a domain name and byte strings, concatenated.

    The encoding is unambiguous as long as every part but the last has a fixed length: callers see to that.
    Domains look like ``proofhold/job/v1`` and none is a prefix of another.
    """
    state = hashlib.sha256(domain.encode())
    for part in parts:
        state.update(part)
    return state.hexdigest()


def file_digest(data: bytes) -> Digest:
    """SHA-256 of a file's bytes as they are, as ``sha256sum`` prints it."""
    return hashlib.sha256(data).hexdigest()


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:200]
