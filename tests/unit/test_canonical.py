"""One encoding of each thing: what is not it is refused, by code."""

from __future__ import annotations

import contextlib
import hashlib
import json
from enum import StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from proofhold import canonical
from proofhold.errors import Malformed, Misuse

SAFE = 2**53 - 1


class Kind(StrEnum):
    THING = "thing"


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


@pytest.mark.parametrize(
    "text",
    [
        "1e+21",
        "1e-7",
        "0.00001",
        "-9007199254740991",
        '{"\U0001f600":1,"\ue000":2}',
        '{"z":"\U0001f600","ä":{}}',
        '"\x7f\u2028/\\u0001\\b\\"\\\\"',
    ],
)
def test_what_python_would_write_otherwise_is_read(text: str) -> None:
    """Where Python's own encoder and RFC 8785 part ways, or might, the RFC decides."""
    assert canonical.encode(canonical.decode(text.encode(), max_bytes=99, what="thing")) == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "1e+16",
        "1e-05",
        "-0.0",
        "9007199254740993",
        "-9007199254740992",
        '{"\ue000":2,"\U0001f600":1}',
        '{"":[{"\ue000":2,"\U0001f600":1}]}',
        "[1e+16]",
        '{"a":-0.0}',
    ],
)
def test_what_only_python_would_write_is_refused(text: str) -> None:
    python = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    assert python == text, "the case is none: Python does not write this either"
    assert code_of(text.encode()) == "thing.not_canonical"


awkward = st.recursive(
    st.none()
    | st.integers(-SAFE - 2, SAFE + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1e16, 1e-5, 1e-6, 1e-7, 1e20, 1e21, 1e22, 0.1, 2.0**53])
    | st.text(st.sampled_from('\x00\x1f\x7f"\\/aé\u2028\ud7ff\ue000\uffff\U0001f600')),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.sampled_from("aé\ud7ff\ue000\uffff\U0001f600")), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(awkward)
def test_what_is_written_is_the_encoding(value: Any) -> None:
    """Held against the definition: the same bytes, or refused as it refuses."""
    try:
        expected = rfc8785.dumps(value)
    except rfc8785.CanonicalizationError:
        with pytest.raises(Misuse):
            canonical.encode(value)
    else:
        assert canonical.encode(value) == expected


@pytest.mark.parametrize(
    "value",
    [(1, 2), {"a": (1, {"b": ()})}, {"b": True, "a": 1.0}, Kind.THING, {Kind.THING: Kind.THING}, -0.0],
)
def test_what_python_knows_by_other_types_is_written_alike(value: Any) -> None:
    assert canonical.encode(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {True: 1}, {1.5: 1}, {"a": {1: "b"}}, {1: 1, "1": 1}])
def test_a_key_that_is_no_string_is_misuse(value: Any) -> None:
    """The standard library's encoder would make one of it."""
    with pytest.raises(Misuse):
        canonical.encode(value)


@settings(deadline=None, max_examples=300)
@given(awkward, st.booleans(), st.booleans())
def test_exactly_the_encoding_is_read(value: Any, sort: bool, escape: bool) -> None:
    """Held against the definition: bytes are read if, and only if, they are the encoding of their content."""
    candidates = [json.dumps(value, ensure_ascii=escape, separators=(",", ":"), sort_keys=sort)]
    with contextlib.suppress(rfc8785.CanonicalizationError):
        candidates.append(rfc8785.dumps(value).decode())
    for text in candidates:
        try:
            expected = rfc8785.dumps(json.loads(text)) == text.encode()
        except rfc8785.CanonicalizationError:
            expected = False
        if expected:
            assert canonical.decode(text.encode(), max_bytes=10**6, what="thing") == json.loads(text)
        else:
            assert code_of(text.encode(), 10**6) == "thing.not_canonical"


def test_every_character_is_read_as_it_is_written() -> None:
    for number in (*range(0x300), *range(0x300, 0xD800, 7), *range(0xE000, 0x11000, 7)):
        data = rfc8785.dumps(chr(number))
        assert canonical.decode(data, max_bytes=9, what="thing") == chr(number)
        assert json.dumps(chr(number), ensure_ascii=False).encode() == data


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
