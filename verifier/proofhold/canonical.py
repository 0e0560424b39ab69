"""Canonical JSON (RFC 8785) and the digests of this project.

A document has exactly one encoding; a parser takes that one and refuses all others, so that "the same bytes"
and "the same content" never part ways.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final, NoReturn, TypeAlias

import rfc8785

from proofhold.errors import Malformed, Misuse

Json: TypeAlias = Any
Digest: TypeAlias = str
"""A SHA-256, as 64 lower-case hexadecimal digits."""

DIGEST_BYTES = 32
DIGEST_PATTERN: Final = rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}"
MAX_SAFE_INTEGER = 2**53 - 1
"""JSON's numbers say every integer up to here exactly."""
BASE64_PIECE_BYTES = 3 * 2**14
"""A multiple of three, so that only the last piece is padded."""


def encode(value: Json) -> bytes:
    """Encode as RFC 8785 canonical JSON.

    Raises:
        Misuse: the value holds something that JSON cannot say exactly (NaN, an integer beyond 2^53, …).

    """
    try:
        return _encode_checked(value)
    except (ValueError, TypeError, RecursionError):
        pass  # What follows takes no less, and finds out what is wrong.
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Misuse(f"not expressible as canonical JSON: {error}") from error


def quoted_base64(data: bytes) -> Iterator[bytes]:
    """Write bytes as the JSON string that is their base64, in pieces that caches hold (ADR 0147).

    Nothing in such a string needs a look or an escape: the encoder above would pass over its megabytes four
    times to find that out.
    """
    yield b'"'
    whole = memoryview(data)
    for at in range(0, len(data), BASE64_PIECE_BYTES):
        yield binascii.b2a_base64(whole[at : at + BASE64_PIECE_BYTES], newline=False)
    yield b'"'


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
        return _decode_plain(data)
    except (ValueError, RecursionError):
        pass  # What follows accepts no less, and finds out what is wrong.
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


def _encode_checked(value: Json) -> bytes:
    """Encode what is canonical beyond doubt by the standard library's C code (ADR 0126).

    What was written is read again, with the suspicion of `_decode_plain`, and must be the value itself: the C
    encoder would make text of an integer that is a key, for one, which RFC 8785 does not know.

    Raises:
        ValueError, TypeError, RecursionError: nothing is said about the value, only that it takes more.

    """
    text = _WRITER.encode(value)
    reader = _READER if text.isascii() else _READER_OF_ASCII_KEYS
    if reader.raw_decode(text)[0] != value:
        raise ValueError("read again, it is something else")
    return text.encode()


def _decode_plain(data: bytes) -> Json:
    """Decode what is canonical beyond doubt, at the speed of the standard library's C code (ADR 0069).

    Its encoder, set up as below, writes structure, strings and integers as RFC 8785 does, and each key once.
    Where it may differ is refused: integers beyond 2^53, numbers with an exponent or without a fraction that
    counts (`1e+16`, `-0.0`), and the order of keys beyond ASCII. Bytes that pass all that, and are what it
    writes of their content, are in their one encoding.

    Raises:
        ValueError: nothing is said about these bytes, only that it takes more to judge them.
        RecursionError: as above.

    """
    text = data.decode()
    reader = _READER if text.isascii() else _READER_OF_ASCII_KEYS
    value, _ = reader.raw_decode(text)
    if _WRITER.encode(value) != text:
        raise ValueError("not as the encoder writes it")
    return value


def _plain_integer(text: str) -> int:
    value = int(text)
    if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        raise ValueError("an integer beyond 2^53")
    return value


def _plain_float(text: str) -> float:
    if "e" in text or text.endswith("0"):
        raise ValueError("a number that Python and RFC 8785 may write differently")
    return float(text)


def _ascii_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if not "".join(result).isascii():
        raise ValueError("keys that Python and RFC 8785 may order differently")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_READER = json.JSONDecoder(
    parse_int=_plain_integer, parse_float=_plain_float, parse_constant=_refuse_constant
)
_READER_OF_ASCII_KEYS = json.JSONDecoder(
    parse_int=_plain_integer,
    parse_float=_plain_float,
    parse_constant=_refuse_constant,
    object_pairs_hook=_ascii_keys,
)
_WRITER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, sort_keys=True, separators=(",", ":")
)


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


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:200]
