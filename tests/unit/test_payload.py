"""Payloads: bytes with a shape, one encoding, a salted name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import INPUT, NONCE, OUTPUT
from mutations import damaged, misfilled
from proofhold import canonical
from proofhold.errors import Malformed, Misuse
from proofhold.payload import (
    ITEM_BYTES,
    MAX_PAYLOAD_BYTES,
    Document,
    Payload,
    Tensor,
    Tensors,
    decode_payload,
    encode_payload,
)

DOCUMENT = Document("application/json", b'{"a":1}')


def test_version_1_has_these_names() -> None:
    assert INPUT.digest(NONCE) == "f6c26739bf9110aa224e69c2e567423a299e57455ef07d9112f1499684a995d9"
    assert OUTPUT.digest(NONCE) == "b6d00bb52d4bf9aa95c21b201e67f88237bf0a13642e1b65030a468364545e88"


@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_arrays_come_back(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = Tensor.of("x", array)
    assert (tensor.dtype, tensor.shape, len(tensor.data)) == (dtype, (2, 3), 6 * ITEM_BYTES[dtype])
    assert np.array_equal(tensor.numpy(), array)
    assert not tensor.numpy().flags.writeable


def test_layout_and_byte_order_do_not_count() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    assert Tensor.of("x", array.astype(">f4")) == Tensor.of("x", array)
    assert Tensor.of("x", np.asfortranarray(array)) == Tensor.of("x", array)
    assert Tensor.of("x", array).data == array.tobytes()


def test_a_scalar_has_no_dimensions() -> None:
    assert Tensor.of("x", np.array(1.5)).shape == ()
    assert Tensor("x", "float32", (0, 3), b"").numpy().shape == (0, 3)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Tensor("x", "complex64", (1,), bytes(8)),
        lambda: Tensor("", "int8", (1,), b"0"),
        lambda: Tensor("x" * 257, "int8", (1,), b"0"),
        lambda: Tensor("x", "int8", (2,), b"0"),
        lambda: Tensor("x", "int8", (1,), b"00"),
        lambda: Tensor("x", "int16", (1,), b"00"),
        lambda: Tensor("x", "int8", (-1, -1), b"0"),
        lambda: Tensor("x", "int8", (1,) * 9, b"0"),
        lambda: Tensor.of("x", np.array(["text"])),
        lambda: Tensors(()),
        lambda: Tensors((Tensor("x", "int8", (1,), b"0"),) * 2),
        lambda: Tensors(tuple(Tensor(str(i), "int8", (0,), b"") for i in range(65))),
        lambda: Tensors((Tensor("x", "int8", (MAX_PAYLOAD_BYTES + 1,), bytes(MAX_PAYLOAD_BYTES + 1)),)),
        lambda: Document("", b""),
        lambda: Document("t" * 129, b""),
        lambda: Document("t", bytes(MAX_PAYLOAD_BYTES + 1)),
    ],
)
def test_what_is_no_payload_cannot_be_built(build: Any) -> None:
    with pytest.raises(Misuse):
        build()


def test_bounds_are_inclusive() -> None:
    Tensors(tuple(Tensor(str(i), "int8", (1,) * 8, b"0") for i in range(64)))
    Tensors((Tensor("x" * 256, "int8", (MAX_PAYLOAD_BYTES,), bytes(MAX_PAYLOAD_BYTES)),))
    Document("t" * 128, bytes(MAX_PAYLOAD_BYTES))


def test_everything_counts_in_the_name() -> None:
    one = Tensor("x", "int8", (2,), b"ab")
    variants: list[Payload] = [
        Tensors((one,)),
        Tensors((Tensor("y", "int8", (2,), b"ab"),)),
        Tensors((Tensor("x", "uint8", (2,), b"ab"),)),
        Tensors((Tensor("x", "int8", (1, 2), b"ab"),)),
        Tensors((Tensor("x", "int8", (2,), b"ba"),)),
        Tensors((Tensor("x", "int8", (1,), b"a"), Tensor("y", "int8", (1,), b"b"))),
        Tensors((Tensor("y", "int8", (1,), b"b"), Tensor("x", "int8", (1,), b"a"))),
        Document("x", b"ab"),
        Document("xa", b"b"),
    ]
    assert len({payload.digest(NONCE) for payload in variants}) == len(variants)
    assert INPUT.digest(NONCE) != INPUT.digest(bytes(32))
    assert DOCUMENT.digest(NONCE) != DOCUMENT.digest(bytes(32))


tensors = st.builds(
    lambda name, data: Tensor(name, "uint8", (len(data),), data),
    st.text(min_size=1, max_size=5),
    st.binary(max_size=9),
)
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.lists(tensors, min_size=1, max_size=3, unique_by=lambda t: t.name).map(lambda ts: Tensors(tuple(ts))),
    st.builds(Document, st.text(min_size=1, max_size=9), st.binary(max_size=9)),
)


@settings(deadline=None)
@given(payloads)
def test_what_is_written_is_read_again(payload: Payload) -> None:
    assert decode_payload(encode_payload(payload)) == payload


@pytest.mark.parametrize("payload", [INPUT, DOCUMENT])
def test_damage_is_refused_or_is_another_payload(payload: Payload) -> None:
    data = encode_payload(payload)
    hostile = [canonical.encode(v) for v in misfilled(json.loads(data)) if _says(v)]
    for changed in (*damaged(data, count=400), *hostile):
        try:
            read = decode_payload(changed)
        except Malformed:
            continue
        assert encode_payload(read) == changed
        assert read.digest(NONCE) != payload.digest(NONCE)


def _says(value: Any) -> bool:
    try:
        canonical.encode(value)
    except Misuse:
        return False
    return True


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(Malformed, match="got 'image', expected tensors or document"):
        decode_payload(b'{"kind":"image"}')
