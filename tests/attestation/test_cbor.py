"""CBOR has one encoding here, and whatever is not it is refused, cheaply."""

from __future__ import annotations

from random import Random
from typing import Any

import cbor2
import pytest

from damage import damaged_bytes, many
from proofhold.attestation import cbor
from proofhold.errors import Malformed

VALUES: list[Any] = [
    0,
    -1,
    23,
    24,
    255,
    256,
    2**32,
    2**64 - 1,
    -(2**64),
    b"",
    b"x" * 300,
    "",
    "é",
    None,
    True,
]
NESTED = {"a": [1, {"b": b"c"}], 3: None, "z": False}


def read(data: bytes, *, open_map: bool = False) -> Any:
    return cbor.decode(data, max_bytes=4096, what="test", open_map=open_map)


@pytest.mark.parametrize("value", [*VALUES, VALUES, NESTED, {}, []])
def test_what_is_encoded_is_decoded(value: Any) -> None:
    assert read(cbor.encode(value)) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "malformed"),
        (b"\x18\x17", "not_canonical"),  # 23 in two bytes
        (b"\x19\x00\xff", "not_canonical"),
        (b"\x58\x01a", "not_canonical"),  # a length of 1 in two bytes
        (b"\x00\x00", "not_canonical"),  # bytes after the end
        (b"\x5f\x41a\xff", "malformed"),  # indefinite lengths
        (b"\x9f\xff", "malformed"),
        (b"\xbf\xff", "malformed"),
        (b"\xa2\x01\x00\x01\x00", "malformed"),  # the same key twice
        (b"\xa2\x61a\x00\x61a\x01", "malformed"),
        (b"\xa1\xf5\x00", "malformed"),  # a key that equals 1
        (b"\xa1\x80\x00", "malformed"),
        (b"\xa1\xa0\x00", "malformed"),
        (b"\xa1\x40\x00", "malformed"),
        (b"\xc1\x00", "malformed"),  # tags: a date, a number, a regular expression, a shared value
        (b"\xc2\x41\x01", "malformed"),
        (b"\xd8\x23\x61a", "malformed"),
        (b"\xd8\x1c\x81\xd8\x1d\x00", "malformed"),
        (b"\xd2\x80", "malformed"),
        (b"\xf7", "malformed"),  # undefined, simple values, floating point
        (b"\xf8\x20", "malformed"),
        (b"\xf9\x3c\x00", "malformed"),
        (b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00", "malformed"),
        (b"\x61\xff", "malformed"),  # not UTF-8
        (b"\x81" * 9 + b"\x00", "malformed"),  # too deep
        (b"\x81" * 4000 + b"\x00", "malformed"),
        (b"\x9b\x00\x00\xff\xff\xff\xff\xff\xff", "malformed"),  # more items than there are atoms
        (b"\xbb\x00\x00\xff\xff\xff\xff\xff\xff", "malformed"),
        (b"\x5b\x00\x00\xff\xff\xff\xff\xff\xff", "malformed"),
        (b"\x00" * 5000, "too_large"),
    ],
)
def test_any_other_encoding_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Malformed) as refused:
        read(data)
    assert refused.value.code == f"cbor.{why}"


def test_an_open_map_is_taken_where_it_is_expected_and_outermost() -> None:
    assert read(b"\xbf\x01\x02\xff", open_map=True) == {1: 2}
    assert read(b"\xa1\x01\x02", open_map=True) == {1: 2}
    for wrong in (
        b"\xbf\x01\xbf\xff\xff",  # one within
        b"\xbf\x01\x9f\xff\xff",
        b"\xbf\x18\x01\x02\xff",  # the same strictness within
        b"\xbf\x01\x02",
        b"\xbf\x01\xff",
        b"\xbf\x01\x02\x01\x02\xff",
        b"\xbf\x01\x02\xff\xff",
        b"\x9f\xff",
    ):
        with pytest.raises(Malformed):
            read(wrong, open_map=True)


def test_nothing_is_decoded_that_is_not_its_one_encoding() -> None:
    good = cbor2.dumps([VALUES, NESTED])
    random = Random(5)
    taken = 0
    for data in many(3000, "cbor", lambda r: damaged_bytes(good, r, cbor2.dumps(NESTED)), good):
        try:
            value = read(data, open_map=random.random() < 0.5)
        except Malformed:
            continue
        taken += 1
        assert cbor.encode(value) == data
    assert taken > 10
