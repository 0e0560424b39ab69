"""The trace: a root binds every tensor, its place and their number; only what was committed can be opened."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from blake3 import blake3

from documents import FIXTURES, INPUT, JOB, OUTPUT
from proofhold import canonical
from proofhold.errors import Malformed, Misuse
from proofhold.payload import Tensor
from proofhold.replay.opening import OpenedLeaf, Opening
from proofhold.replay.trace import Trace, TraceHasher, root_through

NONCE = bytes(range(32))
HASHER = TraceHasher(NONCE)


def tensor(number: int) -> Tensor:
    return Tensor(f"t{number}", "float32", (2,), struct.pack("<2f", number, -number))


def trace(size: int) -> Trace:
    return Trace.of(NONCE, [tensor(n) for n in range(size)])


def test_the_root_is_what_the_page_says() -> None:
    """docs/formats/trace.md, written out once more for three leaves."""
    key = blake3(NONCE, derive_key_context="proofhold/trace/v1").digest()

    def hashed(data: bytes) -> bytes:
        return blake3(data, key=key).digest()

    leaves = []
    for number in range(3):
        header = b'{"dtype":"float32","name":"t%d","shape":[2]}' % number
        data = struct.pack("<2f", number, -number)
        leaves.append(hashed(b"\x00" + struct.pack(">Q", len(header)) + header + data))
    top = hashed(b"\x01" + hashed(b"\x01" + leaves[0] + leaves[1]) + leaves[2])
    assert trace(3).root == hashed(b"\x02" + struct.pack(">Q", 3) + top).hex()


@pytest.mark.parametrize("size", [*range(1, 18), 64, 65])
def test_every_leaf_leads_to_the_root_and_nowhere_else(size: int) -> None:
    committed = trace(size)
    for index, leaf in enumerate(committed.leaves):
        path = committed.path(index)
        assert root_through(HASHER, leaf, index, size, path) == committed.root
        for other in {(index + 1) % size, size - 1, 0} - {index}:
            assert root_through(HASHER, leaf, other, size, path) != committed.root
        for wrong in (size - 1, size + 1, 2 * size):
            assert root_through(HASHER, leaf, index, wrong, path) != committed.root
        assert root_through(HASHER, leaf, index, size, (*path, leaf)) is None


def test_a_node_is_no_leaf_and_a_root_no_node() -> None:
    committed = trace(2)
    node = HASHER.node(*committed.leaves)
    assert Trace(HASHER, (node,)).root != committed.root
    assert node.hex() not in (committed.root, HASHER.root(1, node))


@pytest.mark.parametrize(
    "changed",
    [
        Tensor("u", "float32", (2,), b"\0" * 8),
        Tensor("t", "int32", (2,), b"\0" * 8),
        Tensor("t", "float32", (1, 2), b"\0" * 8),
        Tensor("t", "float32", (2,), b"\0" * 7 + b"\x80"),
    ],
)
def test_name_dtype_shape_and_bytes_are_all_bound(changed: Tensor) -> None:
    assert HASHER.leaf(Tensor("t", "float32", (2,), b"\0" * 8)) != HASHER.leaf(changed)


def test_another_job_has_other_hashes() -> None:
    assert Trace.of(bytes(32), [tensor(0)]).root != trace(1).root


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(4, dtype=">i4"),
        np.float64(1.5),
        np.zeros((0, 3), np.float32),
        np.array([True, False]),
    ],
)
def test_arrays_are_hashed_as_the_tensors_that_they_become(array: np.ndarray) -> None:
    array = np.asarray(array)
    assert HASHER.leaf_of("t", array) == HASHER.leaf(Tensor.of("t", array))


def test_the_list_of_leaves_travels() -> None:
    committed = trace(5)
    assert Trace.decode(NONCE, committed.encode()).root == committed.root
    for wrong in (
        b'{"leaves":[],"version":1}',
        b'{"leaves":["00"],"version":1}',
        b'{"leaves":[1],"version":1}',
    ):
        with pytest.raises(Malformed, match=r"trace\.malformed"):
            Trace.decode(NONCE, wrong)


def test_an_opening_travels_and_fits() -> None:
    committed = trace(5)
    opening = Opening.of(committed, {1: tensor(1), 2: tensor(2)}, held=[4])
    again = Opening.decode(opening.encode())
    assert again == opening
    assert [leaf.index for leaf in again.leaves] == [1, 2, 4]
    assert again.fits(committed.root, HASHER, {4: tensor(4)})


def test_what_was_not_committed_fits_nowhere() -> None:
    committed = trace(5)
    opening = Opening.of(committed, {1: tensor(1)}, held=[4])
    first, last = opening.leaves
    assert not opening.fits(committed.root, HASHER, {4: tensor(3)}), "another output than the last leaf's"
    assert not opening.fits(committed.root, HASHER, {}), "a leaf that nobody has"
    assert not opening.fits(trace(6).root, HASHER, {4: tensor(4)})
    assert not opening.fits(committed.root, TraceHasher(bytes(32)), {4: tensor(4)}), (
        "the opening of another job"
    )
    for wrong in (
        replace(opening, leaves=(replace(first, tensor=tensor(2)), last)),
        replace(opening, leaves=(replace(first, index=0), last)),
        replace(opening, leaves=(replace(first, path=first.path[::-1]), last)),
        replace(opening, size=6),
    ):
        assert not wrong.fits(committed.root, HASHER, {4: tensor(4)})


def test_every_damaged_opening_is_malformed_or_does_not_fit() -> None:
    committed = trace(3)
    good = Opening.of(committed, {0: tensor(0)}, held=[2]).encode()
    for at in range(len(good)):
        for bit in (1, 0x80):
            damaged = bytearray(good)
            damaged[at] ^= bit
            try:
                opening = Opening.decode(bytes(damaged))
            except Malformed:
                continue
            assert not opening.fits(committed.root, HASHER, {2: tensor(2)}), (at, bit)
    for wrong in (good[:-1], good + b"\0", good[:4], b"", b"\xff" * 8):
        with pytest.raises(Malformed):
            Opening.decode(wrong)


@pytest.mark.parametrize(
    "header",
    [
        {"leaves": [], "size": 1, "version": 1},
        {"leaves": [{"index": 1, "path": [], "tensor": None}], "size": 1, "version": 1},
        {"leaves": [{"index": 0, "path": [], "tensor": None}] * 2, "size": 2, "version": 1},
        {"leaves": [{"index": 0, "path": ["0" * 64] * 13, "tensor": None}], "size": 1, "version": 1},
        {
            "leaves": [{"index": 0, "path": [], "tensor": {"dtype": "f", "name": "t", "shape": [1]}}],
            "size": 1,
            "version": 1,
        },
        {
            "leaves": [
                {"index": 0, "path": [], "tensor": {"dtype": "float32", "name": "t", "shape": [2**23] * 8}}
            ],
            "size": 1,
            "version": 1,
        },
    ],
)
def test_hostile_headers_are_malformed(header: canonical.Json) -> None:
    encoded = canonical.encode(header)
    with pytest.raises(Malformed):
        Opening.decode(len(encoded).to_bytes(8, "big") + encoded)


def test_our_own_mistakes_raise() -> None:
    for mistake in (
        lambda: TraceHasher(b"short"),
        lambda: Trace(HASHER, ()),
        lambda: Trace(HASHER, (b"short",)),
        lambda: trace(2).path(2),
        lambda: Opening(1, ()),
        lambda: Opening(2, (OpenedLeaf(1, (), None), OpenedLeaf(0, (), None))),
    ):
        with pytest.raises(Misuse):
            mistake()


def test_the_fixture_is_a_trace_of_this_version() -> None:
    nonce = bytes.fromhex(JOB.nonce)
    committed = Trace.decode(nonce, (FIXTURES / "trace.json").read_bytes())
    opening = Opening.decode((FIXTURES / "opening.bin").read_bytes())
    assert opening.fits(committed.root, TraceHasher(nonce), {0: INPUT.items[0], 2: OUTPUT.items[0]})
