"""Sums of products: MatMul, Gemm, Conv, Einsum.

|fl(y) - y| ≤ γ_K · Σ|a||b| for K products, however they are added up (Higham, (3.3) to (3.5), section 4.2),
and what the inputs' own errors come to on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from proofhold.replay.bounds.enclosure import FOLDED, Array, Enclosure, NoBound, Step, flushed, gamma, rounded
from proofhold.replay.bounds.windows import Windows

MAX_TERMS = 2**22


def matmul(step: Step) -> list[Enclosure]:
    """Y = A·B, as numpy multiplies stacks of matrices. K: the length of a row of A."""
    a, b = step.given(0), step.given(1)
    return [_product(a, b, a.value.shape[-1] if a.value.ndim else 1)]


def gemm(step: Step) -> list[Enclosure]:
    """Y = α·A'·B' + β·C. K: the length of a row of A', and two for β and the sum."""
    alpha, beta = (float(step.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    a, b = _turned(step, 0, "transA"), _turned(step, 1, "transB")
    product = _product(a, b, a.value.shape[1] + 2)
    value, error = alpha * product.value, abs(alpha) * np.asarray(product.error)
    c = step.optional(2)
    if c is None:
        return [rounded(value, error, gamma(2) * np.abs(value), product.terms)]
    terms = gamma(a.value.shape[1] + FOLDED) * (abs(beta) * c.size + np.abs(value))
    return [rounded(value + beta * c.value, error + abs(beta) * np.asarray(c.error), terms, product.terms)]


def conv(step: Step) -> list[Enclosure]:
    """A convolution, in groups. K: channels of a group times the size of the kernel, and the bias."""
    x, w, bias = step.given(0), step.given(1), step.optional(2)
    kernel = w.value.shape[2:]
    groups = int(step.attributes.get("group", 1))
    windows = Windows.of(step, x.value.shape[2:], kernel)
    columns = [_columns(windows, part, groups) for part in _parts(x)]
    weights = [part.reshape(groups, w.value.shape[0] // groups, -1) for part in _parts(w)]
    terms = weights[0].shape[-1]
    a, b = _enclosed(columns), _enclosed([np.swapaxes(weight, 1, 2) for weight in weights])
    product = _product(a, b, terms + 1)
    shape = (x.value.shape[0], *windows.out)
    value, error = (_channels_first(np.asarray(part), shape) for part in (product.value, product.error))
    if bias is None:
        return [Enclosure(value, error, product.terms)]
    along = (-1, *(1,) * len(kernel))
    added = bias.size.reshape(along)
    inherited = error + np.abs(np.asarray(bias.error)).reshape(-1, *(1,) * len(kernel))
    rounding = gamma(terms + FOLDED) * (added + np.abs(value))
    return [rounded(value + bias.value.reshape(along), inherited, rounding, product.terms)]


def einsum(step: Step) -> list[Enclosure]:
    """Two operands in Einstein's notation. K: the sizes of what is summed over, multiplied."""
    equation = str(step.attributes.get("equation", "")).replace(" ", "")
    if len(step.inputs) != 2 or "." in equation:
        raise NoBound(f"Einsum {equation}")
    a, b = step.given(0), step.given(1)
    operands, _, result = equation.partition("->")
    sizes = dict(zip(operands.replace(",", ""), a.value.shape + b.value.shape, strict=True))
    if "->" not in equation:
        result = "".join(sorted(letter for letter in sizes if operands.count(letter) == 1))
    terms = math.prod(size for letter, size in sizes.items() if letter not in result)

    def product(left: Array, right: Array) -> Array:
        return np.asarray(np.einsum(f"{operands}->{result}", left, right, optimize=True))

    return [_bounded(a, b, product, terms)]


def _turned(step: Step, index: int, attribute: str) -> Enclosure:
    given = step.given(index)
    if not step.attributes.get(attribute, 0):
        return given
    return Enclosure(given.value.T, given.error if given.is_exact else np.asarray(given.error).T)


def _product(a: Enclosure, b: Enclosure, terms: int) -> Enclosure:
    return _bounded(a, b, np.matmul, terms)


def _bounded(a: Enclosure, b: Enclosure, multiply: Callable[[Any, Any], Any], terms: int) -> Enclosure:
    """Bound a bilinear form of `terms` products."""
    if terms > MAX_TERMS:
        raise NoBound(f"a sum of {terms} products")
    sizes_a, sizes_b = np.abs(a.value), np.abs(b.value)
    value = multiply(a.value, b.value)
    magnitude = multiply(sizes_a, sizes_b)
    inherited: Array | float = 0.0
    if not b.is_exact:
        inherited = inherited + multiply(sizes_a, np.broadcast_to(b.error, b.value.shape))
    if not a.is_exact:
        inherited = inherited + multiply(np.broadcast_to(a.error, a.value.shape), b.size)
    rounding = gamma(terms + FOLDED) * (magnitude + inherited) + flushed(terms, sizes_a, sizes_b)
    return rounded(value, inherited, rounding, terms)


def _parts(tensor: Enclosure) -> list[Array]:
    """Give the value, and the error where there is one."""
    if tensor.is_exact:
        return [tensor.value]
    return [tensor.value, np.broadcast_to(tensor.error, tensor.value.shape)]


def _enclosed(parts: list[Array]) -> Enclosure:
    return Enclosure(parts[0], parts[1] if len(parts) > 1 else 0.0)


def _columns(windows: Windows, image: Array, groups: int) -> Array:
    """Lay the windows of an image out as rows of a matrix a group."""
    views = windows.view(image, 0.0)  # images, channels, places, kernel
    rank = len(windows.out)
    views = views.reshape(image.shape[0], groups, -1, *views.shape[2:])
    order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    return views.transpose(order).reshape(groups, image.shape[0] * math.prod(windows.out), -1)


def _channels_first(rows: Array, shape: tuple[int, ...]) -> Array:
    """Bring the rows of all groups back to images with channels."""
    groups, _, channels = rows.shape
    images = rows.reshape(groups, *shape, channels)
    rank = len(shape) - 1
    return images.transpose(1, 0, 2 + rank, *range(2, 2 + rank)).reshape(
        shape[0], groups * channels, *shape[1:]
    )
