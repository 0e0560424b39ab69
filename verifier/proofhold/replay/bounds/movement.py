"""Operators that compute nothing: they move elements, and each one's bound moves along."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from proofhold.replay.bounds.enclosure import Array, Enclosure, NoBound, Step

Move: TypeAlias = Callable[[Array], Array]
MAX_ELEMENTS = 2**26


def moved(step: Step) -> list[Enclosure]:
    """Identity, Dropout, Reshape, Flatten, Transpose, Squeeze, Unsqueeze, Slice, Gather, Expand, Pad, …"""
    if step.operator == "Dropout":
        training = step.exact(2)
        if step.outputs > 1 or (training is not None and training.any()):
            raise NoBound("Dropout in training, or with its mask")
    x = step.given(0)
    move = _move(step, x.value.shape)
    return [_apply(x, move)]


def concatenated(step: Step) -> list[Enclosure]:
    """Concat."""
    given = [step.given(index) for index in range(len(step.inputs))]
    axis = int(step.attributes["axis"])
    value = np.concatenate([g.value for g in given], axis=axis)
    if all(g.is_exact for g in given):
        return [Enclosure(value)]
    errors = [np.broadcast_to(g.error, g.value.shape) for g in given]
    return [Enclosure(value, np.concatenate(errors, axis=axis), max(g.terms for g in given))]


def split(step: Step) -> list[Enclosure]:
    """Split, by sizes or into equal parts."""
    x = step.given(0)
    axis = int(step.attributes.get("axis", 0))
    sizes = step.integers(1, "split")
    length = x.value.shape[axis]
    if sizes is None:
        each = -(-length // step.outputs)
        sizes = [min(each, length - each * index) for index in range(step.outputs)]
    if sum(sizes) != length or any(size < 0 for size in sizes) or len(sizes) != step.outputs:
        raise NoBound(f"Split of {length} into {sizes}")
    ends = np.cumsum(sizes)[:-1]
    values = np.split(x.value, ends, axis=axis)
    if x.is_exact:
        return [Enclosure(value) for value in values]
    errors = np.split(np.broadcast_to(x.error, x.value.shape), ends, axis=axis)
    return [Enclosure(value, error, x.terms) for value, error in zip(values, errors, strict=True)]


def constant(step: Step) -> list[Enclosure]:
    """Constant, ConstantOfShape and Shape: what they give does not depend on any rounding."""
    match step.operator:
        case "Shape":
            shape = step.given(0).value.shape
            start, end = step.attributes.get("start", 0), step.attributes.get("end", len(shape))
            return [Enclosure(np.array(shape[start:end], np.int64))]
        case "ConstantOfShape":
            shape = _shape(step, 0)
            filling = np.asarray(step.attributes.get("value", np.zeros(1, np.float32))).reshape(-1)[0]
            return [Enclosure(promoted(np.full(shape, filling)))]
        case _:
            value = step.attributes.get("value")
            if value is None:
                kinds = {"value_float": "<f4", "value_floats": "<f4", "value_int": "<i8", "value_ints": "<i8"}
                given = [(step.attributes[n], kind) for n, kind in kinds.items() if n in step.attributes]
                value = np.asarray(given[0][0], given[0][1]) if given else None
            if value is None:
                raise NoBound("a Constant of another kind")
            return [Enclosure(promoted(np.asarray(value)))]


def promoted(array: Array) -> Array:
    """Take single precision to float64, and leave integers and booleans as they are.

    Raises:
        NoBound: a type that this contract does not know: half precision, text, quantised numbers.

    """
    if array.dtype in (np.float32, np.float64):
        return array.astype(np.float64)
    if array.dtype.kind in "iub":
        return array
    raise NoBound(f"a tensor of {array.dtype}")


def _apply(x: Enclosure, move: Move) -> Enclosure:
    value = move(x.value)
    if x.is_exact:
        return Enclosure(value)
    return Enclosure(value, move(np.broadcast_to(x.error, x.value.shape)), x.terms)


def _move(step: Step, shape: tuple[int, ...]) -> Move:
    match step.operator:
        case "Identity" | "Dropout":
            return lambda x: x
        case "Reshape":
            sizes = _shape(step, 1)
            if not step.attributes.get("allowzero", 0):
                sizes = tuple(shape[i] if size == 0 else size for i, size in enumerate(sizes))
            return lambda x: x.reshape(sizes)
        case "Flatten":
            axis = int(step.attributes.get("axis", 1))
            rows = int(np.prod(shape[: axis % (len(shape) + 1) if axis < 0 else axis]))
            return lambda x: x.reshape(rows, -1)
        case "Transpose":
            order = step.attributes.get("perm") or tuple(reversed(range(len(shape))))
            return lambda x: x.transpose([int(axis) for axis in order])
        case "Squeeze":
            axes = step.integers(1, "axes")
            return lambda x: np.squeeze(x, None if axes is None else tuple(axes))
        case "Unsqueeze":
            axes = step.integers(1, "axes") or []
            return lambda x: np.expand_dims(x, tuple(axes))
        case "Expand":
            sizes = _bounded(np.broadcast_shapes(shape, _shape(step, 1)))
            return lambda x: np.broadcast_to(x, sizes)
        case "Tile":
            repeats = _shape(step, 1)
            _bounded(tuple(a * b for a, b in zip(shape, repeats, strict=True)))
            return lambda x: np.tile(x, repeats)
        case "Slice":
            cut = _slices(step, len(shape))
            return lambda x: x[cut]
        case "Gather":
            indices, axis = step.exact(1), int(step.attributes.get("axis", 0))
            return lambda x: np.take(x, np.asarray(indices), axis=axis)
        case "GatherElements":
            indices, axis = step.exact(1), int(step.attributes.get("axis", 0))
            given = np.asarray(indices)
            # Along the other axes the indices may be fewer than the elements.
            reach = tuple(
                slice(None) if a == axis % len(shape) else slice(s) for a, s in enumerate(given.shape)
            )
            return lambda x: np.take_along_axis(x[reach], given, axis=axis)
        case "Pad":
            return _padding(step, shape)
        case "DepthToSpace" | "SpaceToDepth":
            return _blocks(step, shape)
        case operator:
            raise NoBound(operator)


def _slices(step: Step, rank: int) -> tuple[slice, ...]:
    starts, ends = step.integers(1, "starts"), step.integers(2, "ends")
    if starts is None or ends is None:
        raise NoBound("Slice without its ends")
    axes = step.integers(3, "axes") or list(range(len(starts)))
    steps = step.integers(4, "steps") or [1] * len(starts)
    cut = [slice(None)] * rank
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        # Backwards "to before the beginning" is a very negative end in ONNX, and None here.
        stop = None if stride < 0 and end < -(2**31) else end
        cut[axis] = slice(start, stop, stride)
    return tuple(cut)


def _padding(step: Step, shape: tuple[int, ...]) -> Move:
    mode = step.attributes.get("mode", "constant")
    pads, axes = step.integers(1, "pads"), step.integers(3, "axes") or list(range(len(shape)))
    filling = step.exact(2)
    constant_value = float(step.attributes.get("value", 0.0) if filling is None else filling.reshape(-1)[0])
    if mode != "constant" or pads is None or any(pad < 0 for pad in pads) or constant_value != 0.0:
        # Any other filling would need a rule of its own for its bound.
        raise NoBound(f"Pad, {mode}")
    around = [(0, 0)] * len(shape)
    for place, axis in enumerate(axes):
        around[axis] = (pads[place], pads[place + len(axes)])
    _bounded(tuple(size + sum(pad) for size, pad in zip(shape, around, strict=True)))
    return lambda x: np.pad(x, around)


def _blocks(step: Step, shape: tuple[int, ...]) -> Move:
    size = int(step.attributes["blocksize"])
    n, c, h, w = shape
    mode = step.attributes.get("mode", "DCR")
    if step.operator == "SpaceToDepth":
        rows = (n, c, h // size, size, w // size, size)
        return lambda x: (
            x.reshape(rows).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * size**2, h // size, w // size)
        )
    if mode == "CRD":
        rows, order = (n, c // size**2, size, size, h, w), (0, 1, 4, 2, 5, 3)
    else:
        rows, order = (n, size, size, c // size**2, h, w), (0, 3, 4, 1, 5, 2)
    return lambda x: x.reshape(rows).transpose(order).reshape(n, c // size**2, h * size, w * size)


def _shape(step: Step, index: int) -> tuple[int, ...]:
    sizes = step.exact(index)
    if sizes is None:
        raise NoBound(f"{step.operator} without a shape")
    return _bounded(tuple(int(size) for size in sizes.reshape(-1)))


def _bounded(shape: tuple[int, ...]) -> tuple[int, ...]:
    if np.prod([max(size, 1) for size in shape], dtype=np.float64) > MAX_ELEMENTS:
        raise NoBound(f"a tensor of shape {shape}")
    return shape
