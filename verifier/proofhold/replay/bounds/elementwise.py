"""One operation an element: arithmetic by IEEE 754, functions by a stated accuracy, comparisons exactly.

Add, Sub, Mul, Div and Sqrt are correctly rounded (IEEE 754-2019, section 5.4.1), with room for what a
runtime folds together. The accuracy of functions is an assumption of this contract, `ACCURACY`: at least
four times the worst that bench/dispute.py measures over the runtimes that are there. A monotonic function
carries its input's error to the values at both of its ends; any other does by its steepest slope.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from proofhold.replay.bounds.enclosure import (
    FOLDED,
    ROUNDOFF,
    Array,
    Enclosure,
    NoBound,
    Step,
    gamma,
    rounded,
)

Function: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far a runtime's function may be off, in units of u: `relative` of its value, plus `absolute`."""

    relative: float
    absolute: float


ACCURACY: Mapping[str, Accuracy] = {
    "Exp": Accuracy(64, 0),
    "Log": Accuracy(16, 8),
    "Tanh": Accuracy(16, 16),
    "Sigmoid": Accuracy(32, 32),
    "Erf": Accuracy(32, 128),
    "Softplus": Accuracy(16, 1024),
    "Gelu": Accuracy(32, 32),
    "Elu": Accuracy(16, 16),
    "Selu": Accuracy(16, 16),
    "HardSigmoid": Accuracy(4, 4),
    "HardSwish": Accuracy(8, 8),
    "Sin": Accuracy(16, 16),
    "Cos": Accuracy(16, 16),
    "Pow": Accuracy(32, 0),
    "Softsign": Accuracy(16, 0),
    "Mish": Accuracy(32, 32),
    "Swish": Accuracy(32, 32),
}
SLOPES: Mapping[str, float] = {
    "Gelu": 1.13,
    "HardSwish": 1.5,
    "Sin": 1.0,
    "Cos": 1.0,
    "Mish": 1.1,
    "Swish": 1.1,
}
"""The steepest slope of the functions that are not monotonic."""
_STEP = 2.0**-9
_ERF_END = 6.0
"""From here on erf is 1 to twelve digits."""


def add(step: Step) -> list[Enclosure]:
    """Add and Sub: one rounding of the terms' magnitudes; or as many as the sum has that they are added into.

    A runtime that fuses a product with the addition behind it (a bias, a residual link) begins its sum with
    what is added, and every product that it adds rounds that as well.
    """
    a, b = step.given(0), step.given(1)
    value = a.value + b.value if step.operator == "Add" else a.value - b.value
    terms = a.terms + b.terms
    rounding = (gamma(terms + FOLDED) if terms else ROUNDOFF) * (a.size + b.size)
    return [rounded(value, a.error + np.asarray(b.error), rounding, terms)]


def total(step: Step) -> list[Enclosure]:
    """Sum and Mean of several tensors: one rounding a term."""
    terms = [step.given(index) for index in range(len(step.inputs))]
    divisor = len(terms) if step.operator == "Mean" else 1
    value = functools.reduce(np.add, [term.value for term in terms]) / divisor
    inherited = functools.reduce(np.add, [np.asarray(term.error) for term in terms]) / divisor
    sizes = functools.reduce(np.add, [term.size for term in terms]) / divisor
    products = sum(term.terms for term in terms)
    return [rounded(value, inherited, gamma(products + len(terms) + 1) * sizes, products)]


def multiply(step: Step) -> list[Enclosure]:
    """Mul: one rounding, and one that may be folded in."""
    a, b = step.given(0), step.given(1)
    inherited = np.abs(a.value) * b.error + b.size * a.error
    scaled = max(a.terms, b.terms) if a.is_exact or b.is_exact else 0  # by a constant: a sum stays one
    return [rounded(a.value * b.value, inherited, 2 * ROUNDOFF * (a.size * b.size), scaled)]


def divide(step: Step) -> list[Enclosure]:
    """Div: one rounding, or three by way of a reciprocal."""
    a, b = step.given(0), step.given(1)
    return [_quotient(a, b)]


def reciprocal(step: Step) -> list[Enclosure]:
    """Reciprocal: as a division."""
    x = step.given(0)
    return [_quotient(Enclosure(np.ones_like(x.value)), x)]


def root(step: Step) -> list[Enclosure]:
    """Sqrt: one rounding."""
    x = step.given(0)
    with np.errstate(invalid="ignore"):
        return [_monotonic(x, lambda v: np.sqrt(np.maximum(v, 0.0)), np.sqrt(x.value), Accuracy(2, 0))]


def power(step: Step) -> list[Enclosure]:
    """Pow with an exponent that is known: squares as products, else of positive bases alone."""
    x, exponent = step.given(0), step.exact(1)
    if exponent is None or exponent.size != 1:
        raise NoBound("Pow with an exponent for each element")
    p = float(exponent.reshape(-1)[0])
    error = np.asarray(x.error)
    if p == 2.0:
        inherited = 2.0 * np.abs(x.value) * error + error**2
        return [rounded(x.value**2, inherited, 4 * ROUNDOFF * x.size**2)]
    if p == 3.0:
        inherited = x.size**3 - np.abs(x.value) ** 3
        return [rounded(x.value**3, inherited, 8 * ROUNDOFF * x.size**3)]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.power(x.value, p)
        low, high = np.power(np.maximum(x.value - error, 0.0), p), np.power(x.value + error, p)
        inherited = np.maximum(np.abs(high - value), np.abs(value - low))
        accuracy = ACCURACY["Pow"].relative * ROUNDOFF * np.maximum(np.abs(high), np.abs(low))
        # Of a negative base nothing is known, of a zero only that it is one.
        inherited = np.where(x.value - error > 0.0, inherited, np.inf)
    return [rounded(value, inherited, accuracy)]


def function(step: Step) -> list[Enclosure]:
    """Any function of `ACCURACY` that has one argument and no rule of its own."""
    x, accuracy = step.given(0), ACCURACY[step.operator]
    evaluate = _function(step)
    value = evaluate(x.value)
    slope = SLOPES.get(step.operator)
    if slope is None:
        return [_monotonic(x, evaluate, value, accuracy)]
    error = np.asarray(x.error)
    extent = np.abs(value) + slope * error
    absolute: Array | float = accuracy.absolute * ROUNDOFF
    if step.operator in ("Gelu", "HardSwish", "Mish", "Swish"):
        absolute = absolute * np.maximum(1.0, x.size)  # they multiply by their argument
    return [rounded(value, slope * error, accuracy.relative * ROUNDOFF * extent + absolute)]


def exact(step: Step) -> list[Enclosure]:
    """Relu, LeakyRelu, PRelu, Clip, Abs, Neg, Max, Min: comparisons, and at most one product."""
    x = step.given(0)
    error = x.error
    match step.operator:
        case "Relu":
            return [Enclosure(np.maximum(x.value, 0.0), error)]
        case "Abs":
            return [Enclosure(np.abs(x.value), error)]
        case "Neg":
            return [Enclosure(-x.value, error, x.terms)]
        case "Clip":
            low, high = _limit(step, 1, "min", -np.inf), _limit(step, 2, "max", np.inf)
            return [Enclosure(np.clip(x.value, low, high), error)]
        case "Max" | "Min":
            choose = np.maximum if step.operator == "Max" else np.minimum
            given = [step.given(index) for index in range(len(step.inputs))]
            value = functools.reduce(choose, [g.value for g in given])
            if all(g.is_exact for g in given):
                return [Enclosure(value)]
            errors = functools.reduce(np.maximum, [np.asarray(g.error) for g in given])
            return [Enclosure(value, np.broadcast_to(errors, value.shape))]
        case "LeakyRelu" | "PRelu":
            given_slope = step.exact(1) if step.operator == "PRelu" else step.attributes.get("alpha", 0.01)
            slope = np.asarray(given_slope, np.float64)
            value = np.where(x.value < 0.0, slope * x.value, x.value)
            steepest = np.maximum(1.0, np.abs(slope))
            rounding = np.where(x.value - error < 0.0, 2 * ROUNDOFF * np.abs(slope) * x.size, 0.0)
            return [rounded(value, steepest * error, rounding)]
        case _:
            raise NoBound(step.operator)


def cast(step: Step) -> list[Enclosure]:
    """Cast to float32: exact but for integers of more than 24 bits. Any other is exact or has no bound."""
    import onnx

    x = step.given(0)
    to = step.attributes["to"]
    if to != onnx.TensorProto.FLOAT:
        raise NoBound(f"Cast to type {to}")
    if x.is_floating:
        return [x]
    value = x.value.astype(np.float64)
    inexact = np.abs(value) > 2.0**24
    return [Enclosure(value, ROUNDOFF * np.abs(value) if inexact.any() else 0.0)]


def where(step: Step) -> list[Enclosure]:
    """Where: exact, if what it chooses by is."""
    condition = step.exact(0)
    a, b = step.given(1), step.given(2)
    if condition is None:
        raise NoBound("Where without a condition")
    value = np.where(condition, a.value, b.value)
    if a.is_exact and b.is_exact:
        return [Enclosure(value)]
    return [Enclosure(value, np.where(condition, a.error, b.error))]


def erf(values: Array) -> Array:
    """The error function in float64, to 1e-13: Taylor's polynomial about the nearest point of a table."""
    bounded = np.clip(np.abs(values), 0.0, _ERF_END)
    nearest = np.rint(bounded / _STEP)
    at, off = nearest * _STEP, bounded - nearest * _STEP
    slope = 2.0 / math.sqrt(math.pi) * np.exp(-(at**2))
    # erf'' = -2x erf', erf''' = (4x² - 2) erf', erf'''' = (12x - 8x³) erf'
    series = 1.0 + off * (-at + off * ((4 * at**2 - 2) / 6 + off * (12 * at - 8 * at**3) / 24))
    return np.asarray(np.copysign(_erf_table()[nearest.astype(np.int64)] + off * slope * series, values))


@functools.cache
def _erf_table() -> Array:
    return np.array([math.erf(n * _STEP) for n in range(round(_ERF_END / _STEP) + 1)])


def _quotient(a: Enclosure, b: Enclosure) -> Enclosure:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = a.value / b.value
        room = np.abs(b.value) - b.error
        inherited = np.where(room > 0.0, (a.error + np.abs(value) * b.error) / room, np.inf)
        scaled = a.terms if b.is_exact else 0
        return rounded(value, inherited, 4 * ROUNDOFF * (np.abs(value) + inherited), scaled)


def _monotonic(x: Enclosure, evaluate: Function, value: Array, accuracy: Accuracy) -> Enclosure:
    """Bound an increasing function by its values at both ends of its argument."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if x.is_exact:
            return rounded(value, 0.0, _inaccuracy(accuracy, np.abs(value)))
        low, high = evaluate(x.value - x.error), evaluate(x.value + x.error)
        inherited = np.maximum(high - value, value - low)
        return rounded(value, inherited, _inaccuracy(accuracy, np.maximum(np.abs(low), np.abs(high))))


def _inaccuracy(accuracy: Accuracy, size: Array) -> Array:
    return np.asarray(ROUNDOFF * (accuracy.relative * size + accuracy.absolute))


def _limit(step: Step, index: int, attribute: str, default: float) -> Array | float:
    given = step.exact(index)
    if given is not None:
        return given
    return float(step.attributes.get(attribute, default))


def _function(step: Step) -> Function:
    """Give an operator's function in float64.

    Raises:
        NoBound: no such operator, or not with these attributes.

    """
    attribute = step.attributes.get
    match step.operator:
        case "Gelu" if attribute("approximate", "none") == "tanh":
            scale = math.sqrt(2.0 / math.pi)
            return lambda x: 0.5 * x * (1.0 + np.tanh(scale * (x + 0.044715 * x**3)))
        case "Elu":
            alpha = _rising(step, float(attribute("alpha", 1.0)))
            return lambda x: np.where(x < 0.0, alpha * np.expm1(np.minimum(x, 0.0)), x)
        case "Selu":
            alpha = _rising(step, float(attribute("alpha", 1.6732632)))
            factor = _rising(step, float(attribute("gamma", 1.050701)))
            return lambda x: factor * np.where(x < 0.0, alpha * np.expm1(np.minimum(x, 0.0)), x)
        case "HardSigmoid":
            alpha, beta = _rising(step, float(attribute("alpha", 0.2))), float(attribute("beta", 0.5))
            return lambda x: np.clip(alpha * x + beta, 0.0, 1.0)
        case "Swish":
            alpha = float(attribute("alpha", 1.0))
            if alpha != 1.0:
                raise NoBound("Swish of another slope")
            return lambda x: x * _sigmoid(x)
        case operator if operator in _FUNCTIONS:
            return _FUNCTIONS[operator]
        case operator:
            raise NoBound(operator)


def _rising(step: Step, factor: float) -> float:
    """Refuse a factor that would make a function fall.

    Raises:
        NoBound: it is negative.

    """
    if factor < 0.0:
        raise NoBound(f"{step.operator} that falls")
    return factor


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


_FUNCTIONS: Mapping[str, Function] = {
    "Exp": np.exp,
    "Log": np.log,
    "Tanh": np.tanh,
    "Sigmoid": _sigmoid,
    "Erf": erf,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1.0 + np.abs(x)),
    "Gelu": lambda x: 0.5 * x * (1.0 + erf(x / math.sqrt(2.0))),
    "HardSwish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "Sin": np.sin,
    "Cos": np.cos,
}
