"""The commitment to a run: a Merkle tree over the tensors that cross the cuts of a model, outputs last.

A leaf is one tensor: its name, dtype, shape and bytes. The tree is that of RFC 6962, with BLAKE3 for its
hash and one more step on top that binds the number of leaves, so that "the last leaf" is a fact about the
root alone. All hashes are keyed by the job's nonce: a root in a public claim does not give a guessable run
away (PROTOCOL P16). docs/formats/trace.md states the bytes.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from blake3 import blake3

from proofhold import canonical
from proofhold.canonical import Digest, Json
from proofhold.errors import Misuse
from proofhold.payload import Tensor
from proofhold.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Hash: TypeAlias = bytes
"""A BLAKE3 of 32 bytes, keyed by the job's nonce."""

HASH_BYTES = 32
NONCE_BYTES = 32
MAX_LEAVES = 4096
MAX_PATH = 12
"""A tree of `MAX_LEAVES` is this deep."""
MAX_LEAF_LIST_BYTES = 2**20

CONTEXT = "proofhold/trace/v1"
LEAF, NODE, ROOT = b"\x00", b"\x01", b"\x02"

_IS_LITTLE = sys.byteorder == "little"
_DIGITS = re.compile(r"[0-9a-f]*")


class TraceHasher:
    """Hashes leaves, nodes and roots of the traces of one job."""

    def __init__(self, nonce: bytes) -> None:
        """Derive the key from the job's nonce.

        Raises:
            Misuse: the nonce has another length than 32 bytes.

        """
        if len(nonce) != NONCE_BYTES:
            raise Misuse(f"nonce: {len(nonce)} bytes, expected {NONCE_BYTES}")
        self._key = blake3(nonce, derive_key_context=CONTEXT).digest()

    def leaf(self, tensor: Tensor) -> Hash:
        """Hash a tensor as a leaf."""
        return self._leaf(tensor.name, tensor.dtype, tensor.shape, tensor.data)

    def leaf_of(self, name: str, array: NDArray[Any]) -> Hash:
        """Hash a numpy array as a leaf, without a copy of it: what a provider does between two jobs."""
        if not (array.flags.c_contiguous and array.dtype.isnative and _IS_LITTLE):
            import numpy as np

            array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        # An array without elements has no buffer to cast.
        data = array.data.cast("B") if array.size else b""
        return self._leaf(name, _name_of(array.dtype), array.shape, data)

    def node(self, left: Hash, right: Hash) -> Hash:
        """Hash two subtrees into one."""
        return blake3(NODE + left + right, key=self._key).digest()

    def root(self, size: int, top: Hash) -> Digest:
        """Bind the number of leaves to the top of the tree: what a claim carries."""
        return blake3(ROOT + size.to_bytes(8, "big") + top, key=self._key).hexdigest()

    def _leaf(self, name: str, dtype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Hash:
        return blake3(_header(name, dtype, shape), key=self._key).update(data).digest()


@dataclass(frozen=True)
class Trace:
    """The hashes of all leaves of a run, in order, with what is needed to open any of them."""

    hasher: TraceHasher
    leaves: tuple[Hash, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.leaves) <= MAX_LEAVES:
            raise Misuse(f"a trace has 1 to {MAX_LEAVES} leaves, got {len(self.leaves)}")
        if any(len(leaf) != HASH_BYTES for leaf in self.leaves):
            raise Misuse(f"a leaf's hash has {HASH_BYTES} bytes")

    @classmethod
    def of(cls, nonce: bytes, tensors: Iterable[Tensor]) -> Self:
        """Hash the tensors of a run, in the order of its leaves."""
        hasher = TraceHasher(nonce)
        return cls(hasher, tuple(hasher.leaf(tensor) for tensor in tensors))

    @property
    def root(self) -> Digest:
        """What the claim names: `trace_root`."""
        return self.hasher.root(len(self.leaves), self._top(self.leaves))

    def path(self, index: int) -> tuple[Hash, ...]:
        """Give the hashes beside the way from a leaf to the top, lowest first.

        Raises:
            Misuse: there is no such leaf.

        """
        if not 0 <= index < len(self.leaves):
            raise Misuse(f"leaf {index} of {len(self.leaves)}")
        path: list[Hash] = []
        leaves = self.leaves
        while len(leaves) > 1:
            split = _split(len(leaves))
            left, right = leaves[:split], leaves[split:]
            beside, leaves, index = (right, left, index) if index < split else (left, right, index - split)
            path.append(self._top(beside))
        return tuple(reversed(path))

    def encode(self) -> bytes:
        """Write all leaves' hashes as a document: canonical JSON, version 1."""
        return canonical.encode({"leaves": [leaf.hex() for leaf in self.leaves], "version": 1})

    @classmethod
    def decode(cls, nonce: bytes, data: bytes) -> Self:
        """Read the document of all leaves' hashes.

        Compare its `root` with the claim's: nothing else vouches for it.

        Raises:
            Malformed: ``trace.malformed``, ``trace.version``, or a code of `canonical.decode`.

        """
        record = Record(canonical.decode(data, max_bytes=MAX_LEAF_LIST_BYTES, what="trace"), what="trace")
        record.version(1)
        leaves = read_hashes(record, "leaves", max_items=MAX_LEAVES)
        record.close()
        if not leaves:
            raise record.error("expected at least one leaf", "leaves")
        return cls(TraceHasher(nonce), leaves)

    def _top(self, leaves: Sequence[Hash]) -> Hash:
        if len(leaves) == 1:
            return leaves[0]
        split = _split(len(leaves))
        return self.hasher.node(self._top(leaves[:split]), self._top(leaves[split:]))


def root_through(
    hasher: TraceHasher, leaf: Hash, index: int, size: int, path: Sequence[Hash]
) -> Digest | None:
    """Compute the root of a tree of `size` leaves from one of them and its path.

    None where they do not go together. The caller compares: a leaf is in a trace at this place if and only if
    the root is the one that was signed.
    """
    top = top_through(hasher, leaf, index, size, path)
    return None if top is None else hasher.root(size, top)


def top_through(hasher: TraceHasher, leaf: Hash, index: int, size: int, path: Sequence[Hash]) -> Hash | None:
    """Compute the top of the tree, below the root: all leaves of one trace lead to the same."""
    if not 0 <= index < size <= MAX_LEAVES:
        return None
    sides = _sides(index, size)
    if len(sides) != len(path):
        return None
    top = leaf
    for is_left, beside in zip(sides, path, strict=True):
        top = hasher.node(top, beside) if is_left else hasher.node(beside, top)
    return top


def read_hashes(record: Record, field: str, *, max_items: int) -> tuple[Hash, ...]:
    """Take a list of hashes in lower-case hexadecimal.

    Raises:
        Malformed: anything else.

    """
    hashes = parse_hashes(record.items(field, max_items=max_items), max_items=max_items)
    if hashes is None:
        raise record.error(f"expected hashes of {2 * HASH_BYTES} lower-case hexadecimal digits", field)
    return hashes


def parse_hashes(values: Json, *, max_items: int) -> tuple[Hash, ...] | None:
    """Read a list of hashes in lower-case hexadecimal; None where it is something else."""
    if not isinstance(values, list) or len(values) > max_items:
        return None
    if not all(isinstance(value, str) and len(value) == 2 * HASH_BYTES for value in values):
        return None
    text = "".join(values)
    if not _DIGITS.fullmatch(text):
        return None
    data = bytes.fromhex(text)
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


@functools.lru_cache
def _name_of(dtype: np.dtype[Any]) -> str:
    """Name a dtype as payloads do: numpy itself works it out in Python, each time."""
    return dtype.name


@functools.lru_cache(maxsize=MAX_LEAVES)
def _header(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Give what a leaf begins with: the leaves of a model are the same with every job."""
    described = canonical.encode({"dtype": dtype, "name": name, "shape": list(shape)})
    return LEAF + len(described).to_bytes(8, "big") + described


def _split(size: int) -> int:
    """Give the largest power of two below `size` (RFC 6962, section 2.1)."""
    return 1 << (size - 1).bit_length() - 1


@functools.lru_cache(maxsize=MAX_LEAVES)
def _sides(index: int, size: int) -> tuple[bool, ...]:
    """Tell for each step from the leaf up whether the way comes from the left."""
    sides: list[bool] = []
    while size > 1:
        split = _split(size)
        is_left = index < split
        sides.append(is_left)
        index, size = (index, split) if is_left else (index - split, size - split)
    return tuple(reversed(sides))


__all__ = [
    "HASH_BYTES",
    "Hash",
    "Trace",
    "TraceHasher",
    "parse_hashes",
    "read_hashes",
    "root_through",
    "top_through",
]
