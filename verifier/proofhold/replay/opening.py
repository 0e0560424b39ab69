"""An opening: tensors of a run with the way from each to the root that the claim names.

A tensor that the verifier holds anyway (the job's input, the claim's output) is opened by its place and path
alone. The file is a header in canonical JSON and then the tensors' bytes as they are: openings are megabytes,
and base64 would cost as much as running the segment does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proofhold import canonical
from proofhold.canonical import Digest, Json
from proofhold.errors import Malformed, Misuse
from proofhold.payload import ITEM_BYTES, MAX_NAME_CHARS, MAX_PAYLOAD_BYTES, MAX_RANK, Tensor
from proofhold.records import Record
from proofhold.replay.trace import MAX_LEAVES, MAX_PATH, Hash, Trace, TraceHasher, read_hashes, root_through

MAX_OPENING_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 2**20
MAX_OPENED = 64
LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class OpenedLeaf:
    """One leaf: its place, the hashes beside its way to the top, and its tensor unless the reader has it."""

    index: int
    path: tuple[Hash, ...]
    tensor: Tensor | None


@dataclass(frozen=True, slots=True)
class Opening:
    """Some leaves of a trace of `size` leaves, in order."""

    size: int
    leaves: tuple[OpenedLeaf, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.leaves) <= MAX_OPENED:
            raise Misuse(f"an opening has 1 to {MAX_OPENED} leaves, got {len(self.leaves)}")
        indices = [leaf.index for leaf in self.leaves]
        if indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < self.size <= MAX_LEAVES:
            raise Misuse(f"leaves {indices} of {self.size}, expected each once, in order")

    @classmethod
    def of(cls, trace: Trace, tensors: Mapping[int, Tensor], held: Sequence[int] = ()) -> Opening:
        """Open leaves of a trace.

        Args:
            trace: the hashes of all leaves.
            tensors: what to send, by index.
            held: indices of the leaves whose tensors the reader has.

        """
        leaves = [OpenedLeaf(index, trace.path(index), tensors.get(index)) for index in {*tensors, *held}]
        return cls(len(trace.leaves), tuple(sorted(leaves, key=lambda leaf: leaf.index)))

    def fits(self, root: Digest, hasher: TraceHasher, held: Mapping[int, Tensor]) -> bool:
        """Tell whether every opened leaf is in the trace with this root, at its place.

        Args:
            root: what the claim names.
            hasher: of the claim's job.
            held: the reader's own tensors, by index, for the leaves that come without one.

        """
        for leaf in self.leaves:
            tensor = leaf.tensor if leaf.tensor is not None else held.get(leaf.index)
            if tensor is None:
                return False
            if root_through(hasher, hasher.leaf(tensor), leaf.index, self.size, leaf.path) != root:
                return False
        return True

    def encode(self) -> bytes:
        """Write the opening: version 1 (docs/formats/trace.md)."""
        header = canonical.encode(
            {"leaves": [_to_json(leaf) for leaf in self.leaves], "size": self.size, "version": 1}
        )
        data = (leaf.tensor.data for leaf in self.leaves if leaf.tensor is not None)
        return b"".join((len(header).to_bytes(LENGTH_BYTES, "big"), header, *data))

    @classmethod
    def decode(cls, data: bytes) -> Opening:
        """Read an opening. Whether it fits a root is for `fits` to say.

        Raises:
            Malformed: ``opening.too_large``, ``opening.truncated``, ``opening.malformed``,
                ``opening.version``, or a code of `canonical.decode`.

        """
        if len(data) > MAX_OPENING_BYTES:
            raise Malformed("opening.too_large", f"{len(data)} bytes, expected at most {MAX_OPENING_BYTES}")
        end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
        if len(data) < max(end, LENGTH_BYTES):
            raise Malformed("opening.truncated", f"{len(data)} bytes, expected at least {end} for the header")
        header = canonical.decode(data[LENGTH_BYTES:end], max_bytes=MAX_HEADER_BYTES, what="opening")
        record = Record(header, what="opening")
        record.version(1)
        size = record.integer("size", low=1, high=MAX_LEAVES)
        reader = _DataReader(data, end)
        try:
            leaves = [_read(item, reader) for item in record.records("leaves", max_items=MAX_OPENED)]
            record.close()
            reader.close()
            return cls(size, tuple(leaves))
        except Misuse as error:
            raise record.error(str(error)) from error


class _DataReader:
    """The bytes behind the header, taken in order and to the last."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._at = data, start

    def take(self, length_bytes: int) -> bytes:
        end = self._at + length_bytes
        if end > len(self._data):
            raise Malformed("opening.truncated", f"{len(self._data)} bytes, expected at least {end}")
        taken, self._at = self._data[self._at : end], end
        return taken

    def close(self) -> None:
        if self._at != len(self._data):
            raise Malformed("opening.malformed", f"opening: {len(self._data) - self._at} bytes left over")


def _to_json(leaf: OpenedLeaf) -> Json:
    tensor = leaf.tensor
    described = {"dtype": tensor.dtype, "name": tensor.name, "shape": list(tensor.shape)} if tensor else None
    return {"index": leaf.index, "path": [beside.hex() for beside in leaf.path], "tensor": described}


def _read(record: Record, reader: _DataReader) -> OpenedLeaf:
    index = record.integer("index", high=MAX_LEAVES - 1)
    path = read_hashes(record, "path", max_items=MAX_PATH)
    described = record.optional("tensor", record.record)
    record.close()
    if described is None:
        return OpenedLeaf(index, path, None)
    name = described.text("name", max_chars=MAX_NAME_CHARS)
    dtype = described.text("dtype", max_chars=16)
    sizes = described.items("shape", max_items=MAX_RANK)
    described.close()
    if dtype not in ITEM_BYTES or not all(type(s) is int and 0 <= s <= MAX_PAYLOAD_BYTES for s in sizes):
        raise described.error("expected a known dtype and sizes that a payload can have")
    tensor = Tensor(name, dtype, tuple(sizes), reader.take(math.prod(sizes) * ITEM_BYTES[dtype]))
    return OpenedLeaf(index, path, tensor)
