"""Comparing what was committed to with what an honest run may give: the one question of a judge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from proofhold.payload import Tensor
from proofhold.replay.bounds.enclosure import LARGEST, Array, Enclosure

FLOATING = ("float32", "float64")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a committed tensor compares with its enclosure, at its worst element or at a named one."""

    element: int
    """Its place in the flattened tensor."""
    committed: float
    computed: float
    bound: float
    ratio: float
    """How many times the bound it is off: an honest one is never above 1."""

    @property
    def is_contradiction(self) -> bool:
        """Whether no honest run gives this."""
        return not self.ratio <= 1.0


def compare(tensor: Tensor, enclosure: Enclosure, element: int | None = None) -> Comparison | None:
    """Compare a committed tensor with its enclosure; None if it has another form than the model gives it.

    Args:
        tensor: what the provider signed for.
        enclosure: what an honest run may give.
        element: compare this one alone; None looks for the worst.

    """
    is_floating = tensor.dtype in FLOATING
    if tensor.shape != enclosure.value.shape or is_floating != enclosure.is_floating:
        return None
    if not is_floating and tensor.numpy().dtype != enclosure.value.dtype:
        return None
    committed = tensor.numpy().reshape(-1).astype(np.float64)
    if element is not None and not element < committed.size:
        return None
    value = enclosure.value.reshape(-1).astype(np.float64)
    error = np.broadcast_to(enclosure.error, enclosure.value.shape).reshape(-1)
    if committed.size == 0:
        return Comparison(0, 0.0, 0.0, 0.0, 0.0)
    ratios = _ratios(committed, value, error)
    place = int(np.argmax(ratios)) if element is None else element
    parts = (committed[place], value[place], error[place], ratios[place])
    return Comparison(place, *(float(part) for part in parts))


def compare_one(tensor: Tensor, enclosure: Enclosure, element: int) -> Comparison | None:
    """Compare one element of a tensor with an enclosure of it alone; None if it is of another type."""
    if (tensor.dtype in FLOATING) != enclosure.is_floating:
        return None
    one = Tensor.of(tensor.name, tensor.numpy().reshape(-1)[element : element + 1])
    error = np.broadcast_to(enclosure.error, enclosure.value.shape).reshape(-1)
    found = compare(one, Enclosure(enclosure.value.reshape(-1), error))
    return None if found is None else replace(found, element=element)


def _ratios(committed: Array, value: Array, error: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        off = np.abs(committed - value)
        ratios = np.where(off == 0.0, 0.0, off / error)
        # NaN or infinity from finite inputs is false, unless the true value may itself be out of range.
        ratios = np.where(np.isnan(off) | np.isinf(off), np.inf, ratios)
        unknown = np.isnan(value) | ~np.isfinite(error) | (np.abs(value) + error >= LARGEST)
    return np.where(unknown, 0.0, ratios)
