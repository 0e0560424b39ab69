"""Sums, averages and what is built of them: pools, reductions, normalisations, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from proofhold.replay.bounds.enclosure import (
    FOLDED,
    ROUNDOFF,
    SMALLEST_NORMAL,
    Array,
    Enclosure,
    NoBound,
    Step,
    flushed,
    gamma,
    rounded,
)
from proofhold.replay.bounds.windows import Windows, spatial

EXP_ULPS = 64
"""What exp, sqrt or a division inside of a softmax or a normalisation may be off by, in units of u."""


def average_pool(step: Step) -> list[Enclosure]:
    """The mean of each window. K: the size of the window, and the division."""
    x = step.given(0)
    windows = Windows.of(step, x.value.shape[2:], step.attributes["kernel_shape"])
    padding = bool(step.attributes.get("count_include_pad", 0))
    if step.attributes.get("ceil_mode", 0) and (padding or any((*windows.before, *windows.after))):
        raise NoBound("AveragePool rounded up over padding: runtimes count it in different ways")
    counts = windows.counts(x.value.shape[2:], padding=padding)

    def mean(image: Array) -> Array:
        return np.asarray(windows.view(image, 0.0).sum(axis=spatial(windows.kernel)) / counts)

    return [_mean(x, mean, math.prod(windows.kernel))]


def global_average_pool(step: Step) -> list[Enclosure]:
    """The mean of each channel. K: its size, and the division."""
    x = step.given(0)
    axes = tuple(range(2, x.value.ndim))
    terms = math.prod(x.value.shape[2:])
    return [_mean(x, lambda image: np.asarray(image.mean(axis=axes, keepdims=True)), terms)]


def max_pool(step: Step) -> list[Enclosure]:
    """The largest element of each window: exact, and never further off than the furthest of its elements."""
    if step.outputs > 1:
        raise NoBound("MaxPool with indices")
    x = step.given(0)
    windows = Windows.of(step, x.value.shape[2:], step.attributes["kernel_shape"])
    value = windows.view(x.value, -np.inf).max(axis=spatial(windows.kernel))
    if x.is_exact:
        return [Enclosure(value)]
    error = windows.view(np.broadcast_to(x.error, x.value.shape), 0.0).max(axis=spatial(windows.kernel))
    return [Enclosure(value, error)]


def global_max_pool(step: Step) -> list[Enclosure]:
    """The largest element of each channel: exact."""
    x = step.given(0)
    axes = tuple(range(2, x.value.ndim))
    error = x.error if x.is_exact else np.max(x.error, axis=axes, keepdims=True)
    return [Enclosure(x.value.max(axis=axes, keepdims=True), error)]


def reduction(step: Step) -> list[Enclosure]:
    """ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceSumSquare, ReduceL1, ReduceL2. K: what is summed."""
    x = step.given(0)
    axes = step.integers(1, "axes")
    if not axes:
        if step.attributes.get("noop_with_empty_axes", 0):
            return [x]
        axes = list(range(x.value.ndim))
    along = tuple(axis % x.value.ndim for axis in axes)
    keep = bool(step.attributes.get("keepdims", 1))
    terms = math.prod(x.value.shape[axis] for axis in along)

    def total(values: Array) -> Array:
        return np.asarray(values.sum(axis=along, keepdims=keep))

    def largest(values: Array) -> Array:
        return np.asarray(values.max(axis=along, keepdims=keep, initial=-np.inf))

    error = np.broadcast_to(x.error, x.value.shape)
    match step.operator:
        case "ReduceMax" | "ReduceMin":
            sign = 1.0 if step.operator == "ReduceMax" else -1.0
            return [Enclosure(sign * largest(sign * x.value), 0.0 if x.is_exact else largest(error))]
        case "ReduceSum":
            return [rounded(total(x.value), total(error), gamma(terms) * total(x.size) + flushed(terms))]
        case "ReduceL1":
            value = total(np.abs(x.value))
            return [rounded(value, total(error), gamma(terms) * total(x.size) + flushed(terms))]
        case "ReduceMean":
            return [_mean(x, lambda values: total(values) / terms, terms)]
        case "ReduceSumSquare" | "ReduceL2":
            inherited = total(2.0 * np.abs(x.value) * error + error**2)
            rounding = gamma(terms + 1) * total(x.size**2) + flushed(terms, x.value)
            squares = rounded(total(x.value**2), inherited, rounding)
            if step.operator == "ReduceSumSquare":
                return [squares]
            return [_root(squares)]
        case _:
            raise NoBound(step.operator)


def batch_normalisation(step: Step) -> list[Enclosure]:
    """Scale, shift and the pinned mean and variance. K: the constants, folded in any order."""
    if step.attributes.get("training_mode", 0) or step.outputs > 1:
        raise NoBound("BatchNormalization in training")
    x = step.given(0)
    along = (-1, *(1,) * (x.value.ndim - 2))
    constants = [step.exact(index) for index in range(1, 5)]
    if any(constant is None for constant in constants):
        raise NoBound("BatchNormalization lacks an input")
    scale, shift, mean, variance = (np.asarray(c, np.float64).reshape(along) for c in constants)
    factor = scale / np.sqrt(variance + step.attributes.get("epsilon", 1e-5))
    magnitude = np.abs(factor) * (x.size + np.abs(mean)) + np.abs(shift)
    value = (x.value - mean) * factor + shift
    # Folded into the product before it, the shift is what the sum begins with: each addition rounds it again.
    return [rounded(value, np.abs(factor) * x.error, gamma(x.terms + FOLDED) * magnitude, x.terms)]


def layer_normalisation(step: Step) -> list[Enclosure]:
    """LayerNormalization. K: the normalised elements, for mean and variance in one pass or in two."""
    x, scale, shift = step.given(0), step.given(1), step.optional(2)
    if step.outputs > 1:
        raise NoBound("LayerNormalization with statistics")
    first = int(step.attributes.get("axis", -1)) % x.value.ndim
    along = tuple(range(first, x.value.ndim))
    normal = _normalised(x, along, float(step.attributes.get("epsilon", 1e-5)))
    return [_scaled(normal, scale, shift)]


def instance_normalisation(step: Step) -> list[Enclosure]:
    """InstanceNormalization: each channel by itself. K: its size."""
    x = step.given(0)
    along = tuple(range(2, x.value.ndim))
    normal = _normalised(x, along, float(step.attributes.get("epsilon", 1e-5)))
    places = (-1, *(1,) * (x.value.ndim - 2))
    scale, shift = (Enclosure(step.given(index).value.reshape(places)) for index in (1, 2))
    return [_scaled(normal, scale, shift)]


def softmax(step: Step) -> list[Enclosure]:
    """Softmax and LogSoftmax along one axis. K: its length; exp, sum and division in relative terms."""
    x = step.given(0)
    logarithm = step.operator == "LogSoftmax"
    if step.opset < 13:
        # It flattened everything from the axis on; along the last axis that is the same.
        axis = int(step.attributes.get("axis", 1)) % x.value.ndim
        if axis != x.value.ndim - 1:
            raise NoBound(f"{step.operator} of an opset below 13 along axis {axis}")
    axis = int(step.attributes.get("axis", -1)) % x.value.ndim
    shifted = x.value - x.value.max(axis=axis, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=axis, keepdims=True)
    error = np.broadcast_to(x.error, x.value.shape)
    furthest = error.max(axis=axis, keepdims=True)
    # The shift is off by its inputs' errors and by one rounding; exp turns that into a factor.
    exponent = error + furthest + ROUNDOFF * (np.abs(shifted) + error + furthest)
    # What contributes nothing to the sum cannot be off by much of it, however large its exponent.
    weighted = (powers * np.expm1(np.minimum(exponent, 700.0))).sum(axis=axis, keepdims=True) / total
    terms = gamma(x.value.shape[axis] + EXP_ULPS)
    with np.errstate(over="ignore"):
        of_sum = (weighted + terms) / np.maximum(1.0 - weighted - terms, 0.0)
    if logarithm:
        value = shifted - np.log(total)
        rounding = of_sum + 4 * ROUNDOFF * (np.abs(shifted) + np.abs(np.log(total)) + np.abs(value) + 1.0)
        return [rounded(value, exponent, rounding)]
    value = powers / total
    with np.errstate(over="ignore", invalid="ignore"):
        relative = np.expm1(np.minimum(exponent, 700.0)) + gamma(EXP_ULPS)
        relative = relative + of_sum + relative * of_sum
    return [rounded(value, 0.0, value * relative + x.value.shape[axis] * SMALLEST_NORMAL)]


def _mean(x: Enclosure, mean: Callable[[Array], Array], terms: int) -> Enclosure:
    error = np.broadcast_to(x.error, x.value.shape)
    return rounded(mean(x.value), mean(error), gamma(terms + 2) * mean(x.size) + flushed(terms))


def _root(x: Enclosure) -> Enclosure:
    value = np.sqrt(x.value)
    low = np.sqrt(np.maximum(x.value - x.error, 0.0))
    high = np.sqrt(x.value + x.error)
    return rounded(value, np.maximum(high - value, value - low), 2 * ROUNDOFF * high)


def _normalised(x: Enclosure, along: tuple[int, ...], epsilon: float) -> Enclosure:
    """Give (x - mean) / sqrt(variance + ε), each error followed through mean, variance and root."""
    terms = math.prod(x.value.shape[axis] for axis in along)

    def mean(values: Array) -> Array:
        return np.asarray(values.mean(axis=along, keepdims=True))

    error = np.broadcast_to(x.error, x.value.shape)
    centre = mean(x.value)
    centre_error = mean(error) + gamma(terms + 2) * mean(x.size)
    away = x.value - centre
    # An error that all elements share moves the mean along with them, but which part is shared is not known.
    away_error = error + centre_error + ROUNDOFF * (np.abs(away) + error + centre_error)
    variance = mean(away**2)
    # In one pass, as mean(x²) - mean(x)², the roundings are those of the larger numbers.
    squares = mean(x.size**2) + centre**2
    inherited = mean(2.0 * np.abs(away) * (error + mean(error)) + (error + mean(error)) ** 2)
    variance_error = inherited + gamma(terms + FOLDED) * squares
    low = np.maximum(variance - variance_error, 0.0) + epsilon
    high = variance + variance_error + epsilon
    factor = 1.0 / np.sqrt(variance + epsilon)
    with np.errstate(divide="ignore"):
        factor_error = np.maximum(1.0 / np.sqrt(low) - factor, factor - 1.0 / np.sqrt(high))
        factor_error = factor_error + EXP_ULPS * ROUNDOFF / np.sqrt(low)
    inherited = np.abs(away) * factor_error + away_error * (factor + factor_error)
    value = away * factor
    return rounded(value, inherited, 2 * ROUNDOFF * (np.abs(value) + inherited))


def _scaled(normal: Enclosure, scale: Enclosure, shift: Enclosure | None) -> Enclosure:
    if not scale.is_exact or (shift is not None and not shift.is_exact):
        raise NoBound("a normalisation whose scale is computed")
    value = normal.value * scale.value
    added: Array | float = 0.0 if shift is None else shift.value
    inherited = np.asarray(normal.error) * np.abs(scale.value)
    rounding = gamma(4) * (np.abs(value) + inherited + np.abs(added))
    return rounded(value + added, inherited, rounding)
