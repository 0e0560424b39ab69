"""The strict reader: each field by name and type, and none left over."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any

import pytest

from proofhold.errors import Malformed
from proofhold.records import Record


class Colour(StrEnum):
    RED = "red"


def record(value: Any) -> Record:
    return Record({"f": value}, what="thing")


def said(read: Callable[[], object]) -> str:
    with pytest.raises(Malformed) as caught:
        read()
    assert caught.value.code == "thing.malformed"
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "null"),
        ([], "a list"),
        ("x", "a string"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a number"),
    ],
)
def test_only_an_object_is_a_record(value: Any, got: str) -> None:
    assert said(lambda: Record(value, what="thing")) == f"thing: the document: expected an object, got {got}"
    assert said(lambda: record(value).record("f")) == f"thing: f: expected an object, got {got}"


def test_fields_are_taken_once_and_none_may_be_left() -> None:
    reader = Record({"a": 1, "b": 2}, what="thing")
    assert reader.has("a")
    assert reader.take("a") == 1
    assert not reader.has("a")
    assert said(lambda: reader.take("a")) == "thing: a: missing"
    assert said(reader.close) == "thing: the document: unknown field 'b'"
    reader.take("b")
    reader.close()


def test_the_object_that_was_given_is_left_alone() -> None:
    value = {"a": 1}
    Record(value, what="thing").take("a")
    assert value == {"a": 1}


def test_text() -> None:
    assert record("abc").text("f", max_chars=3, pattern="[a-c]+") == "abc"
    assert said(lambda: record("abcd").text("f", max_chars=3)) == "thing: f: 4 characters, expected at most 3"
    assert said(lambda: record(1).text("f")) == "thing: f: expected a string, got a number"
    assert "expected the form [a-c]+" in said(lambda: record("abcd").text("f", pattern="[a-c]+"))
    assert "expected the form" in said(lambda: record("a\n").text("f", pattern="a"))
    assert "expected the form" in said(lambda: record("٣").text("f", pattern=r"\d"))
    assert record("x" * 1024).text("f")
    assert "1025 characters" in said(lambda: record("x" * 1025).text("f"))


def test_integer() -> None:
    assert [record(n).integer("f", low=-1, high=1) for n in (-1, 0, 1)] == [-1, 0, 1]
    assert said(lambda: record(2).integer("f", low=-1, high=1)) == "thing: f: got 2, expected -1 to 1"
    assert said(lambda: record(-2).integer("f", low=-1, high=1)) == "thing: f: got -2, expected -1 to 1"
    assert said(lambda: record(-1).integer("f")) == f"thing: f: got -1, expected 0 to {2**53 - 1}"
    assert record(2**53 - 1).integer("f") == 2**53 - 1
    assert "expected 0 to" in said(lambda: record(2**53).integer("f"))
    assert said(lambda: record(True).integer("f")) == "thing: f: expected an integer, got a boolean"
    assert said(lambda: record(1.0).integer("f")) == "thing: f: expected an integer, got a number"


def test_number_and_boolean() -> None:
    assert (record(1).number("f"), record(1.5).number("f")) == (1.0, 1.5)
    assert said(lambda: record(True).number("f")) == "thing: f: expected a number, got a boolean"
    assert said(lambda: record("1").number("f")) == "thing: f: expected a number, got a string"
    assert record(False).boolean("f") is False
    assert said(lambda: record(0).boolean("f")) == "thing: f: expected true or false, got a number"


def test_hexadecimal() -> None:
    assert record("00ff").hexadecimal("f", length_bytes=2) == "00ff"
    assert record("ab" * 32).digest("f") == "ab" * 32
    for bad in ("00f", "00FF", "00f ", "00ff00", ""):
        read = partial(record(bad).hexadecimal, "f", length_bytes=2)
        assert "thing: f: " in said(read)


def test_base64() -> None:
    assert record("AAE=").base64("f", max_bytes=2) == b"\x00\x01"
    assert record("").base64("f", max_bytes=2) == b""
    assert said(lambda: record("AAE").base64("f", max_bytes=2)) == "thing: f: not base64"
    assert said(lambda: record("AA E=").base64("f", max_bytes=6)) == "thing: f: not base64"
    assert (
        said(lambda: record("AAF=").base64("f", max_bytes=2))
        == "thing: f: not the canonical base64 of its bytes"
    )
    assert said(lambda: record("AAAA").base64("f", max_bytes=2)) == "thing: f: 3 bytes, expected at most 2"
    assert "characters" in said(lambda: record("AAAAAAAA").base64("f", max_bytes=2))


def test_choice() -> None:
    assert record("red").choice("f", Colour) is Colour.RED
    assert (
        said(lambda: record("blue").choice("f", Colour))
        == "thing: f: got 'blue', which is not one of its values"
    )


def test_lists() -> None:
    assert record([1, "a"]).items("f", max_items=2) == [1, "a"]
    assert said(lambda: record([1] * 3).items("f", max_items=2)) == "thing: f: 3 items, expected at most 2"
    assert said(lambda: record({}).items("f")) == "thing: f: expected a list, got an object"
    inner = record([{"a": 1}, {"a": "x"}]).records("f", max_items=2)
    assert inner[0].integer("a") == 1
    assert said(lambda: inner[1].integer("a")) == "thing: f[1].a: expected an integer, got a string"


def test_nesting_names_the_path() -> None:
    inner = record({"g": {"h": 1}}).record("f").record("g")
    assert inner.at("h") == "f.g.h"
    assert said(lambda: inner.text("h")) == "thing: f.g.h: expected a string, got a number"
    left = record({"g": {"h": 1}}).record("f").record("g")
    assert said(left.close) == "thing: f.g: unknown field 'h'"


def test_optional_is_null_or_the_thing_but_never_missing() -> None:
    reader = record(None)
    assert reader.optional("f", reader.digest) is None
    reader.close()
    other = record(7)
    assert other.optional("f", other.integer) == 7
    assert said(lambda: other.optional("f", other.integer)) == "thing: f: missing"


def test_versions_that_are_not_known_are_refused() -> None:
    Record({"version": 1}, what="thing").version(1)
    with pytest.raises(Malformed, match=r"version 2, expected 1 \[thing\.version\]"):
        Record({"version": 2}, what="thing").version(1)
