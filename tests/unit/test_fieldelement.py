"""The quantiser's twin: against ezkl itself, and against what it promises."""

from __future__ import annotations

import importlib
import math
import random
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofhold import fieldelement as felt
from proofhold.errors import Malformed, Misuse

INTEGERS = st.integers(-felt.MAX_MAGNITUDE, felt.MAX_MAGNITUDE)
SCALES = st.integers(0, felt.MAX_SCALE)


def as_float32(number: float) -> float:
    value: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return value


def test_agrees_with_ezkl_on_what_a_circuit_may_be_given() -> None:
    ezkl: Any = importlib.import_module("ezkl")
    draw = random.Random(7)
    for _ in range(20_000):
        scale = draw.choice((0, 7, 12, 13, 20))
        number = draw.choice(
            (
                draw.uniform(-10, 10),
                draw.randint(-99_999, 99_999) / 2 ** (scale + 1),  # halves
                draw.gauss(0, 1e6),
                draw.choice((0.0, -0.0, 0.49999999999999994, -0.49999999999999994, 5e-324)),
            )
        )
        wide = felt.encode(felt.quantise(number, scale))
        narrow = felt.encode(felt.quantise(as_float32(number), scale))
        assert wide == ezkl.float_to_felt(number, scale, ezkl.PyInputType.F64)
        assert narrow == ezkl.float_to_felt(number, scale, ezkl.PyInputType.F32)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0.5, 1), (-0.5, -1), (1.5, 2), (2.5, 3), (-2.5, -3), (0.49999999999999994, 0), (-0.0, 0), (-0.25, 0)],
)
def test_rounds_half_away_from_zero(number: float, expected: int) -> None:
    assert felt.quantise(number, 0) == expected


@given(INTEGERS)
def test_every_integer_has_one_encoding(value: int) -> None:
    text = felt.encode(value)
    assert felt.decode(text) == value
    assert felt.parse(text) == value % felt.MODULUS


@given(INTEGERS, SCALES)
def test_the_round_trip_is_exact(value: int, scale: int) -> None:
    assert felt.requantise(felt.dequantise(value, scale), scale) == value


@given(INTEGERS, st.integers(0, 40))
def test_no_neighbour_stands_for_the_same_element(value: int, scale: int) -> None:
    exact = felt.dequantise(value, scale)
    for neighbour in (math.nextafter(exact, math.inf), math.nextafter(exact, -math.inf)):
        with suppress(Malformed):
            assert felt.requantise(neighbour, scale) != value


def test_minus_zero_is_not_a_proved_output() -> None:
    assert felt.requantise(0.0, 13) == 0
    with pytest.raises(Malformed, match=r"felt\.not_exact"):
        felt.requantise(-0.0, 13)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_ezkl_turns_into_zero_is_refused(number: float) -> None:
    with pytest.raises(Malformed, match=r"felt\.not_finite"):
        felt.quantise(number, 13)


@pytest.mark.parametrize("number", [2.0**54, -1e30, 1.7e308])
def test_what_is_too_large_is_refused(number: float) -> None:
    with pytest.raises(Malformed, match=r"felt\.range"):
        felt.quantise(number, 13)


@pytest.mark.parametrize("value", [felt.MAX_MAGNITUDE + 1, -(2**128 + 5), felt.MODULUS, felt.MODULUS // 2])
def test_elements_that_ezkl_would_alias_are_refused(value: int) -> None:
    with pytest.raises(Malformed, match=r"felt\.range"):
        felt.encode(value)
    with pytest.raises(Malformed, match=r"felt\.range"):
        felt.dequantise(value, 0)
    if 0 < value < felt.MODULUS:
        with pytest.raises(Malformed, match=r"felt\.range"):
            felt.decode(value.to_bytes(32, "little").hex())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "0x" + "00" * 31,
        "AB" + "00" * 31,
        "zz" + "00" * 31,
        "00" * 33,
        "00" * 32 + "\n",
        felt.MODULUS.to_bytes(32, "little").hex(),
        (felt.MODULUS + 5).to_bytes(32, "little").hex(),
        "٠" * 64,
    ],
)
def test_only_canonical_elements_are_read(text: str) -> None:
    with pytest.raises(Malformed, match=r"felt\.malformed"):
        felt.decode(text)


@given(st.text(max_size=80))
def test_nothing_but_malformed_comes_out_of_a_string(text: str) -> None:
    try:
        value = felt.decode(text)
    except Malformed:
        return
    assert felt.encode(value) == text


@pytest.mark.parametrize("scale", [-1, felt.MAX_SCALE + 1])
def test_a_scale_out_of_bounds_is_our_mistake(scale: int) -> None:
    with pytest.raises(Misuse):
        felt.quantise(1.0, scale)
    with pytest.raises(Misuse):
        felt.dequantise(1, scale)
