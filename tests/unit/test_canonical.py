"""One encoding of each thing: what is not it is refused, by code."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofhold import canonical
from proofhold.errors import Malformed, Misuse

SAFE = 2**53 - 1
# A whole float of 2^53 or more is written as an integer that no parser takes back.
floats = st.floats(-SAFE, SAFE, allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | floats | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def code_of(data: bytes, max_bytes: int = 10_000) -> str:
    with pytest.raises(Malformed) as caught:
        canonical.decode(data, max_bytes=max_bytes, what="thing")
    return caught.value.code


def test_keys_are_sorted_and_nothing_is_padded() -> None:
    assert canonical.encode({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()


@settings(deadline=None)
@given(json_values)
def test_what_is_encoded_is_read_again(value: Any) -> None:
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data, max_bytes=10**6, what="thing")) == data


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {1: 2}, {"a": object()}]
)
def test_what_json_cannot_say_is_misuse(value: Any) -> None:
    with pytest.raises(Misuse, match="canonical JSON"):
        canonical.encode(value)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "thing.not_json"),
        (b"\xff", "thing.not_json"),
        (b"{", "thing.not_json"),
        (b"1 2", "thing.not_json"),
        (b"NaN", "thing.not_json"),
        (b"-Infinity", "thing.not_json"),
        (b'{"a":1,"a":1}', "thing.not_json"),
        (b'{"a":{"b":1,"b":2}}', "thing.not_json"),
        (b"9" * 5000, "thing.not_json"),
        (b" 1", "thing.not_canonical"),
        (b"1\n", "thing.not_canonical"),
        (b"1.0", "thing.not_canonical"),
        (b"1e2", "thing.not_canonical"),
        (b"-0", "thing.not_canonical"),
        (b"1e999", "thing.not_canonical"),
        (b"9007199254740992", "thing.not_canonical"),
        (b'{"b":1,"a":1}', "thing.not_canonical"),
        (b'"\\u0041"', "thing.not_canonical"),
        (b'"\\ud800"', "thing.not_canonical"),
        (b'"\\/"', "thing.not_canonical"),
    ],
)
def test_every_other_encoding_has_a_code(data: bytes, code: str) -> None:
    assert code_of(data) == code


def test_size_is_looked_at_first() -> None:
    assert canonical.decode(b"[1]", max_bytes=3, what="thing") == [1]
    assert code_of(b"[1]", max_bytes=2) == "thing.too_large"
    assert code_of(b"\xff\xff", max_bytes=1) == "thing.too_large"


def test_messages_are_one_line() -> None:
    with pytest.raises(Malformed) as caught:
        canonical.decode(b'{\n"a":\n', max_bytes=99, what="thing")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("[thing.not_json]")
    assert caught.value.message.startswith("not JSON: ")


def test_depth_that_python_survives_is_judged_by_its_form() -> None:
    data = b"[" * 100 + b"]" * 100
    assert json.dumps(canonical.decode(data, max_bytes=999, what="thing")).encode() == data


def test_digests_are_separated_by_domain() -> None:
    assert canonical.digest("a/v1", b"x", b"y") == hashlib.sha256(b"a/v1xy").hexdigest()
    assert canonical.digest("a/v1", b"x") != canonical.digest("a/v2", b"x")
    assert canonical.file_digest(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_nesting_that_python_does_not_survive() -> None:
    """The last test of its file: what traces the tests for mutants does not outlive a RecursionError."""
    assert code_of(b"[" * 5000 + b"]" * 5000) == "thing.not_json"
