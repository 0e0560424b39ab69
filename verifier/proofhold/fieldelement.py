"""Between numbers and the field elements of a proof: the twin of ezkl's quantiser, in plain Python.

A circuit knows integers modulo the order `MODULUS` of the BN254 scalar field. A number enters as
round(number * 2**scale), halves away from zero, and a negative integer as its complement. In files an
element is 64 lower-case hexadecimal digits, little-endian, below the modulus; everything else is refused.

ezkl's own decoders wrap modulo 2**128, so that distinct elements read as one number, and its encoder turns
NaN into 0. Neither may decide what was proved: that is why this module exists. It agrees with ezkl 23.0.5
wherever it gives an answer at all (tests/unit/test_fieldelement.py).
"""

from __future__ import annotations

import math
import re

from proofhold.errors import Malformed, Misuse

MODULUS = 21888242871839275222246405745257275088548364400416034343698204186575808495617
ELEMENT_BYTES = 32
MAX_MAGNITUDE = 2**53
"""The largest magnitude that is decoded or encoded: up to it, float64 holds every integer, and multiplying
by a power of two and back loses nothing."""
MAX_SCALE = 64

_ELEMENT = re.compile(r"[0-9a-f]{64}")


def quantise(number: float, scale: int) -> int:
    """Give round(number * 2**scale), halves away from zero, as the circuit sees `number`.

    ezkl reads inputs as float32: for an input, `number` is the value of a float32.

    Raises:
        Malformed: ``felt.not_finite``, or ``felt.range`` past MAX_MAGNITUDE.
        Misuse: a scale outside 0 to MAX_SCALE.

    """
    _check_scale(scale)
    if not math.isfinite(number):
        raise Malformed("felt.not_finite", f"got {number}, expected a finite number")
    try:
        scaled = math.ldexp(number, scale)
    except OverflowError:
        scaled = math.inf
    if abs(scaled) > MAX_MAGNITUDE:
        raise Malformed("felt.range", f"{number} at scale {scale} is beyond 2^53")
    magnitude = math.floor(abs(scaled))
    # Not floor(x + 0.5): just below a half that sum rounds up to the next integer.
    if abs(scaled) - magnitude >= 0.5:
        magnitude += 1
    return -magnitude if scaled < 0 else magnitude


def dequantise(value: int, scale: int) -> float:
    """Give value / 2**scale, exactly, as float64.

    Raises:
        Malformed: ``felt.range``, past MAX_MAGNITUDE.
        Misuse: a scale outside 0 to MAX_SCALE.

    """
    _check_scale(scale)
    _check_magnitude(value)
    return math.ldexp(float(value), -scale)


def requantise(number: float, scale: int) -> int:
    """Give the integer that `number` stands for, where it must stand for one exactly.

    A proved output is claimed as float64, and one float64 only may stand for a field element: the one that
    `dequantise` gives.

    Raises:
        Malformed: ``felt.not_exact`` (also -0.0), ``felt.not_finite`` or ``felt.range``.

    """
    value = quantise(number, scale)
    # repr tells -0.0 from 0.0, which compare equal.
    if repr(dequantise(value, scale)) != repr(float(number)):
        raise Malformed("felt.not_exact", f"{number!r} is no multiple of 2^-{scale}")
    return value


def encode(value: int) -> str:
    """Write a signed integer as a field element: 64 lower-case hexadecimal digits, little-endian.

    Raises:
        Malformed: ``felt.range``, past MAX_MAGNITUDE.

    """
    _check_magnitude(value)
    return (value % MODULUS).to_bytes(ELEMENT_BYTES, "little").hex()


def parse(text: str) -> int:
    """Read a field element as the integer below the modulus that it is.

    Raises:
        Malformed: ``felt.malformed``: not canonical, or not below the modulus.

    """
    if not isinstance(text, str) or not _ELEMENT.fullmatch(text):
        raise Malformed("felt.malformed", "expected 64 lower-case hexadecimal digits")
    element = int.from_bytes(bytes.fromhex(text), "little")
    if element >= MODULUS:
        raise Malformed("felt.malformed", "not below the order of the field")
    return element


def decode(text: str) -> int:
    """Read a field element as a signed integer: the only one within MAX_MAGNITUDE that it stands for.

    Raises:
        Malformed: ``felt.malformed`` (not canonical, not below the modulus) or ``felt.range``.

    """
    element = parse(text)
    value = element if element <= MODULUS // 2 else element - MODULUS
    _check_magnitude(value)
    return value


def _check_scale(scale: int) -> None:
    if not 0 <= scale <= MAX_SCALE:
        raise Misuse(f"scale {scale}, expected 0 to {MAX_SCALE}")


def _check_magnitude(value: int) -> None:
    if abs(value) > MAX_MAGNITUDE:
        raise Malformed("felt.range", f"an integer of {value.bit_length()} bits, expected at most 2^53")
