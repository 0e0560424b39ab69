"""An opening: tensors of a run with the way from each to the root that the claim names.

A tensor that the verifier holds anyway (the job's input, the claim's output) is opened by its place and path
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proofhold.canonical import Digest, Json
from proofhold.errors import Misuse
from proofhold.payload import Tensor
from proofhold.replay.packed import PackedReader, describe, pack
from proofhold.replay.trace import MAX_LEAVES, MAX_PATH, Hash, Trace, TraceHasher, parse_hashes, top_through

MAX_OPENING_BYTES = 16 * 2**20
MAX_OPENED = 128
_LEAF = {"index", "path", "tensor"}


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
        tops = set()
        for leaf in self.leaves:
            tensor = leaf.tensor if leaf.tensor is not None else held.get(leaf.index)
            if tensor is None:
                return False
            tops.add(top_through(hasher, hasher.leaf(tensor), leaf.index, self.size, leaf.path))
        [top] = tops if len(tops) == 1 else (None,)
        return top is not None and hasher.root(self.size, top) == root

    def encode(self) -> bytes:
        """Write the opening: version 1 (docs/formats/trace.md)."""
        leaves = [
            {
                "index": leaf.index,
                "path": [beside.hex() for beside in leaf.path],
                "tensor": describe(leaf.tensor) if leaf.tensor is not None else None,
            }
            for leaf in self.leaves
        ]
        tensors = (leaf.tensor for leaf in self.leaves if leaf.tensor is not None)
        return pack({"leaves": leaves, "size": self.size, "version": 1}, tensors)

    @classmethod
    def decode(cls, data: bytes) -> Opening:
        """Read an opening. Whether it fits a root is for `fits` to say.

        Raises:
            Malformed: ``opening.too_large``, ``opening.truncated``, ``opening.malformed``,
                ``opening.version``, or a code of `canonical.decode`.

        """
        reader = PackedReader(data, max_bytes=MAX_OPENING_BYTES, what="opening")
        reader.record.version(1)
        size = reader.record.integer("size", low=1, high=MAX_LEAVES)
        try:
            leaves = [_read(item, reader) for item in reader.record.items("leaves", max_items=MAX_OPENED)]
            reader.close()
            return cls(size, tuple(leaves))
        except Misuse as error:
            raise reader.record.error(str(error)) from error


def _read(item: Json, reader: PackedReader) -> OpenedLeaf:
    """Read one leaf. Not by `Record`: this is most of what reading an opening takes."""
    if not isinstance(item, dict) or item.keys() != _LEAF:
        raise reader.record.error("expected index, path and tensor of each leaf")
    index, described = item["index"], item["tensor"]
    path = parse_hashes(item["path"], max_items=MAX_PATH)
    if type(index) is not int or not 0 <= index < MAX_LEAVES or path is None:
        raise reader.record.error(f"expected a place below {MAX_LEAVES} and a path of hashes of each leaf")
    return OpenedLeaf(index, path, reader.tensor(described) if described is not None else None)
