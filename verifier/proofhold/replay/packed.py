"""Tensors as they travel in megabytes: a header in canonical JSON, then the tensors' bytes as they are.

Base64 in JSON would cost as much time as running a segment does. There is one encoding all the same: the
header is canonical, its lengths are exact, and nothing may follow the last tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from proofhold import canonical
from proofhold.canonical import Json
from proofhold.errors import Malformed
from proofhold.payload import ITEM_BYTES, MAX_NAME_CHARS, MAX_PAYLOAD_BYTES, MAX_RANK, Tensor
from proofhold.records import Record

MAX_HEADER_BYTES = 2**20
MAX_PACKED = 1024
LENGTH_BYTES = 8
_DESCRIPTION = {"dtype", "name", "shape"}


def pack(header: Json, tensors: Iterable[Tensor]) -> bytes:
    """Write a header, which must describe the tensors (`describe`), and their bytes."""
    encoded = canonical.encode(header)
    return b"".join((len(encoded).to_bytes(LENGTH_BYTES, "big"), encoded, *(t.data for t in tensors)))


def describe(tensor: Tensor) -> Json:
    """Say in a header which tensor's bytes follow."""
    return {"dtype": tensor.dtype, "name": tensor.name, "shape": list(tensor.shape)}


class PackedReader:
    """Reads a header, and then the tensors that it describes, in order and to the last byte."""

    def __init__(self, data: bytes, *, max_bytes: int, what: str) -> None:
        """Read the header; `record` holds it.

        Raises:
            Malformed: ``<what>.too_large``, ``<what>.truncated``, or a code of `canonical.decode`.

        """
        self._what, self._data = what, data
        if len(data) > max_bytes:
            raise Malformed(f"{what}.too_large", f"{len(data)} bytes, expected at most {max_bytes}")
        self._at = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
        if len(data) < self._at:
            raise self._truncated(self._at)
        header = canonical.decode(data[LENGTH_BYTES : self._at], max_bytes=MAX_HEADER_BYTES, what=what)
        self.record = Record(header, what=what)

    def tensor(self, described: Json) -> Tensor:
        """Take the bytes of the next tensor, as the header describes it.

        Raises:
            Malformed: its description makes no sense, or the bytes end before it does.
            Misuse: its description is of no tensor that a payload can hold.

        """
        name, dtype, shape, end = self._next(described)
        tensor = Tensor(name, dtype, shape, self._data[self._at : end])
        self._at = end
        return tensor

    def _next(self, described: Json) -> tuple[str, str, tuple[int, ...], int]:
        """Read a description, and where its bytes end. Not by `Record`: a check reads a dozen of them."""
        if not isinstance(described, dict) or described.keys() != _DESCRIPTION:
            raise self.record.error("expected dtype, name and shape of each tensor")
        name, dtype, sizes = described["name"], described["dtype"], described["shape"]
        if not isinstance(name, str) or len(name) > MAX_NAME_CHARS:
            raise self.record.error(f"expected a tensor's name of at most {MAX_NAME_CHARS} characters")
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES or not _are_sizes(sizes):
            raise self.record.error("expected a known dtype and sizes that a payload can have")
        end = self._at + math.prod(sizes) * ITEM_BYTES[dtype]
        if end > len(self._data):
            raise self._truncated(end)
        return name, dtype, tuple(sizes), end

    def close(self) -> None:
        """Refuse whatever is left over, in the header or behind the last tensor."""
        self.record.close()
        if self._at != len(self._data):
            raise self.record.error(f"{len(self._data) - self._at} bytes left over")

    def _truncated(self, expected: int) -> Malformed:
        return Malformed(f"{self._what}.truncated", f"{len(self._data)} bytes, expected at least {expected}")


def _are_sizes(sizes: Json) -> bool:
    return (
        isinstance(sizes, list)
        and len(sizes) <= MAX_RANK
        and all(type(size) is int and 0 <= size <= MAX_PAYLOAD_BYTES for size in sizes)
    )


def pack_tensors(tensors: Sequence[Tensor]) -> bytes:
    """Write tensors alone: how they go to a worker and come back."""
    return pack({"tensors": [describe(tensor) for tensor in tensors]}, tensors)


def unpack_tensors(data: bytes, *, max_bytes: int) -> tuple[Tensor, ...]:
    """Read what `pack_tensors` wrote.

    Raises:
        Malformed: anything else; its code begins with ``tensors.``.
        Misuse: a description is of no tensor that a payload can hold.

    """
    reader = PackedReader(data, max_bytes=max_bytes, what="tensors")
    described = reader.record.items("tensors", max_items=MAX_PACKED)
    tensors = tuple(reader.tensor(item) for item in described)
    reader.close()
    return tensors
