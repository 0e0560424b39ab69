"""CBOR (RFC 8949) in one encoding, or refused.

What attestation documents need of CBOR is small: integers, byte strings, text, arrays, maps, true, false and
null. Of each there is one encoding here, that of "preferred serialization" (RFC 8949, section 4.1): shortest
heads, definite lengths, no tag, no floating point, no key twice, no byte after the end. The order of a map's
keys is the maker's: deterministic encoding (section 4.2.1) sorts them, and no genuine Nitro document does.

One exception, for documents that exist: the Nitro hypervisor has written its outermost map with an
indefinite length since about 2025, and with a definite one before (docs/adr/0050). A caller who expects such
a map says so, and gets the same strictness within it.

How: cbor2 decodes, with every tag refused before any of its converters runs (dates, regular expressions and
shared values are among them); only the types above are let through; and the value is encoded again and
compared with what arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias

from proofhold.errors import Malformed

Cbor: TypeAlias = Any
"""int, bytes, str, bool, None, or a list or dict of these."""

MAX_DEPTH = 8
"""Containers within containers; the documents known here have two."""
MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**64)

_OPEN_MAP = b"\xbf"
_BREAK = b"\xff"


def decode(data: bytes, *, max_bytes: int, what: str, open_map: bool = False) -> Cbor:
    """Decode bytes that must be the one encoding of their own content.

    Args:
        data: what arrived; nothing about it is assumed.
        max_bytes: refuse anything longer, before looking at it.
        what: the format's name, for messages.
        open_map: also take an outermost map of indefinite length.

    Raises:
        Malformed: ``cbor.too_large``, ``cbor.malformed`` (does not decode, or holds a type that has no place
            here) or ``cbor.not_canonical`` (another encoding of the same content, or bytes after its end).

    """
    import cbor2

    if len(data) > max_bytes:
        raise Malformed("cbor.too_large", f"{what}: {len(data)} bytes, expected at most {max_bytes}")
    is_open = open_map and data[:1] == _OPEN_MAP
    try:
        value = cbor2.loads(
            data,
            semantic_decoders=_NoTags(),
            max_depth=MAX_DEPTH,
            allow_indefinite=is_open,  # within an open map too; the comparison below refuses those
            allow_duplicate_keys=False,
        )
        _require_plain(value)
        again = _encode_open_map(value) if is_open else cbor2.dumps(value)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Malformed(
            "cbor.malformed", f"{what}: not CBOR of the kind taken here: {_line(error)}"
        ) from error
    if again != data:
        raise Malformed("cbor.not_canonical", f"{what}: CBOR, but not in its one encoding")
    return value


def encode(value: Cbor) -> bytes:
    """Encode in the one encoding: what `decode` takes. Map keys keep their order."""
    import cbor2

    _require_plain(value)
    return cbor2.dumps(value)


def _encode_open_map(value: dict[Cbor, Cbor]) -> bytes:
    import cbor2

    pairs = (cbor2.dumps(key) + cbor2.dumps(item) for key, item in value.items())
    return _OPEN_MAP + b"".join(pairs) + _BREAK


class _NoTags(dict[int, Callable[..., Any]]):
    """A table of tag converters in which every tag there is leads to a refusal."""

    def __contains__(self, tag: object) -> bool:
        return True

    def __getitem__(self, tag: int) -> Callable[..., Any]:
        return _refuse_tag

    def get(self, tag: int, default: Any = None) -> Callable[..., Any]:
        del tag, default
        return _refuse_tag


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("tags have no place here")


def _require_plain(value: Cbor, depth: int = 0) -> None:
    """Refuse every type but those of `Cbor`; `depth` is bounded by the decoder, and here for the encoder."""
    if depth > MAX_DEPTH:
        raise ValueError(f"containers nested deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool | bytes | str):
        return
    if isinstance(value, int):
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise ValueError("an integer of more than 64 bits")
        return
    for item in _items(value):
        _require_plain(item, depth + 1)


def _items(value: Cbor) -> Iterator[Cbor]:
    """Give keys and values, or the items of a list. Keys are integers or text, never a bool."""
    if isinstance(value, list):
        yield from value
        return
    if not isinstance(value, dict):
        raise ValueError(f"a value of type {type(value).__name__}")
    for key, item in value.items():
        if not isinstance(key, int | str) or isinstance(key, bool):
            raise ValueError(f"a map key of type {type(key).__name__}")
        yield key
        yield item


def _line(error: BaseException) -> str:
    text = str(error.__cause__ or error) or type(error).__name__
    return text.splitlines()[0][:200]
