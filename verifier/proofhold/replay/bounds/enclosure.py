"""A value and how far an honest float32 result may be from it; the constants of float32 arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from proofhold.errors import ProofholdError

Array: TypeAlias = NDArray[Any]

ROUNDOFF = 2.0**-24
"""u: rounding to nearest is off by at most this factor of the result (IEEE 754-2019, section 4.3.1)."""
SMALLEST_NORMAL = 2.0**-126
"""What is smaller may be flushed to zero, as some runtimes set the processor to do."""
LARGEST = float(np.finfo(np.float32).max)
FOLDED = 8
"""Roundings that a runtime may add to each product by folding constants into weights, such as a scale."""
_JUDGE = 1.0 + 2.0**-20
"""Our own float64 errors: below 2^-26 of the bound for sums of up to 2^26 terms, rounded up generously."""


class NoBound(ProofholdError):
    """Nothing is known about how far an honest result may be off: nobody can be blamed for it."""


@dataclass(frozen=True, slots=True)
class Enclosure:
    """All that an honest run may give for one tensor: value - error to value + error, element by element.

    Floating-point values are float64. An error of 0.0 means that the value is exact; an infinite one, that
    nothing is known about the element.
    """

    value: Array
    error: Array | float = 0.0
    terms: int = 0
    """How many products a runtime may still be adding up: it may add what comes next into the same sum."""

    @property
    def is_exact(self) -> bool:
        """Whether every honest run gives exactly this."""
        return isinstance(self.error, float) and self.error == 0.0

    @property
    def is_floating(self) -> bool:
        """Whether its elements are floating-point numbers, which alone are rounded."""
        return self.value.dtype == np.float64

    @property
    def size(self) -> Array:
        """The largest magnitude that an honest run may give, element by element."""
        size: Array = np.abs(self.value) + self.error
        return size


@dataclass(frozen=True, slots=True)
class Step:
    """One operator about to be evaluated."""

    operator: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Enclosure | None]
    outputs: int
    """How many results are asked for."""
    opset: int
    """Of the operator's domain."""

    def given(self, index: int) -> Enclosure:
        """Give an input that must be there.

        Raises:
            NoBound: it is not.

        """
        found = self.optional(index)
        if found is None:
            raise NoBound(f"{self.operator} lacks input {index}")
        return found

    def optional(self, index: int) -> Enclosure | None:
        """Give an input, or None where it was left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def exact(self, index: int) -> Array | None:
        """Give an input that steers the operator (axes, shapes, indices), or None where it was left out.

        Raises:
            NoBound: its value depends on roundings.

        """
        found = self.optional(index)
        if found is None:
            return None
        if not found.is_exact:
            raise NoBound(f"{self.operator} is steered by a rounded tensor")
        return found.value

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """Give a list of integers that older versions take as an attribute and newer ones as an input."""
        given = self.exact(index)
        if given is not None:
            return [int(value) for value in given.reshape(-1)]
        found = self.attributes.get(attribute)
        if found is None:
            return None
        return [int(value) for value in found] if isinstance(found, list | tuple) else [int(found)]


def gamma(terms: int) -> float:
    """Give γ_n = n·u / (1 - n·u): n roundings, one after another (Higham, lemma 3.1).

    Raises:
        NoBound: n·u ≥ 1/2, where the bound says nothing.

    """
    product = terms * ROUNDOFF
    if product >= 0.5:
        raise NoBound(f"{terms} roundings one after another")
    return product / (1.0 - product)


def rounded(value: Array, inherited: Array | float, rounding: Array | float, terms: int = 0) -> Enclosure:
    """Put a bound together: what comes from the inputs, and what this operator's own roundings add."""
    with np.errstate(invalid="ignore"):
        error = (inherited + rounding) * _JUDGE + SMALLEST_NORMAL
    # An infinite input gives NaN: nothing is known there.
    return Enclosure(value, np.where(np.isnan(error), np.inf, error), terms)


def flushed(terms: int, *factors: Array) -> float:
    """Bound what flushing to zero loses in a sum of products: in each factor, product and partial sum."""
    largest = sum(float(np.max(np.abs(factor), initial=0.0)) for factor in factors)
    return terms * SMALLEST_NORMAL * (2.0 + largest)
