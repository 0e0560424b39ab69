"""How large a model's tensors can get over its whole input domain, by interval arithmetic.

A circuit holds integers up to base ** legs; an input that drives a tensor past that has no proof. A domain
is a promise (PROTOCOL P9), so it is checked for every input there is, not for some: a sound bound, if not a
tight one. Operators that are not listed, or not in the form that is known here, make the answer None.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from proofhold.domain import InputSpec

Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[Floats, Floats]
"""Elementwise lower and upper bounds, of the tensor's shape."""


def peak_magnitude(model: onnx.ModelProto, inputs: tuple[InputSpec, ...]) -> float | None:
    """Give the largest magnitude that any tensor can take, or None where an operator is not known here.

    Weights, which are finite, count too: they are quantised like everything else. Integers do not: they are
    indices and axes. A bound that overflows is the largest float there is.
    """
    known: dict[str, Interval] = {}
    indices = set()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        known[tensor.name] = (values, values)
        if tensor.data_type in _INTEGERS:
            indices.add(tensor.name)
    for spec in inputs:
        known[spec.name] = (np.full(spec.shape, spec.low), np.full(spec.shape, spec.high))
    for node in model.graph.node:
        rule = _RULES.get(node.op_type)
        if rule is None or any(name not in known for name in node.input):
            return None
        operands = [known[name] for name in node.input]
        try:
            known[node.output[0]] = rule(operands, _attributes(node))
            if node.op_type in _ON_THE_WAY:
                on_the_way = _ON_THE_WAY[node.op_type](operands, _attributes(node))
                known[f"{node.output[0]} (on the way)"] = on_the_way
        except (_UnknownForm, ValueError, TypeError, LookupError):
            # A shape or an attribute that no rule has thought of: no bound is known, which is safe to say.
            return None
    bounds = (bound for name, pair in known.items() if name not in indices for bound in pair)
    peak = max((float(np.max(np.abs(bound), initial=0.0)) for bound in bounds), default=0.0)
    return float(np.nan_to_num(peak, nan=sys.float_info.max, posinf=sys.float_info.max))


_Attributes: TypeAlias = Mapping[str, Any]
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


class _UnknownForm(Exception):
    """An operator that is known, with attributes or shapes that are not."""


def _matmul(operands: list[Interval], _: _Attributes) -> Interval:
    (low, high), (weights, upper) = operands
    if weights is upper:
        # One factor is constant: take the end of the interval that its sign picks.
        positive, negative = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
        return low @ positive + high @ negative, high @ positive + low @ negative
    largest = np.maximum(np.abs(low), np.abs(high)) @ np.maximum(np.abs(weights), np.abs(upper))
    return -largest, largest


def _gemm(operands: list[Interval], attributes: _Attributes) -> Interval:
    left, right = operands[0], operands[1]
    if attributes.get("transA"):
        left = _transpose(left)
    if attributes.get("transB"):
        right = _transpose(right)
    product = _scale(_matmul([left, right], {}), attributes.get("alpha", 1.0))
    if len(operands) == 2:
        return product
    return _add([product, _scale(operands[2], attributes.get("beta", 1.0))], {})


def _add(operands: list[Interval], _: _Attributes) -> Interval:
    (low, high), (other_low, other_high) = operands
    return low + other_low, high + other_high


def _subtract(operands: list[Interval], _: _Attributes) -> Interval:
    (low, high), (other_low, other_high) = operands
    return low - other_high, high - other_low


def _multiply(operands: list[Interval], _: _Attributes) -> Interval:
    (low, high), (other_low, other_high) = operands
    corners = np.stack(
        np.broadcast_arrays(low * other_low, low * other_high, high * other_low, high * other_high)
    )
    return corners.min(axis=0), corners.max(axis=0)


def _relu(operands: list[Interval], _: _Attributes) -> Interval:
    low, high = operands[0]
    return np.maximum(low, 0.0), np.maximum(high, 0.0)


def _identity(operands: list[Interval], _: _Attributes) -> Interval:
    return operands[0]


def _transpose(interval: Interval) -> Interval:
    low, high = interval
    turned = low.T
    # A constant stays recognisable as one: both ends are the same array.
    return turned, turned if high is low else high.T


def _scale(interval: Interval, factor: float) -> Interval:
    low, high = interval[0] * factor, interval[1] * factor
    return (low, high) if factor >= 0 else (high, low)


def _conv(operands: list[Interval], attributes: _Attributes) -> Interval:
    """A convolution in two dimensions whose kernel and bias are constants."""
    (low, high), (kernel, upper) = operands[:2]
    rows, columns = _strides(attributes)
    plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", (1, 1))) == {1}
    if kernel is not upper or kernel.ndim != 4 or not plain:
        raise _UnknownForm
    positive, negative = np.maximum(kernel, 0.0), np.minimum(kernel, 0.0)

    def windows(ends: Floats) -> Floats:
        padded = np.pad(ends, ((0, 0), (0, 0), *_padding(attributes)))
        every = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(2, 3))
        return every[:, :, ::rows, ::columns]

    def convolve(ends: Floats, weights: Floats) -> Floats:
        product: Floats = np.einsum("nchwij,ocij->nohw", windows(ends), weights)
        return product

    result = (
        convolve(low, positive) + convolve(high, negative),
        convolve(high, positive) + convolve(low, negative),
    )
    if len(operands) == 2:
        return result
    bias_low, bias_high = operands[2]
    return _add([result, (bias_low.reshape(1, -1, 1, 1), bias_high.reshape(1, -1, 1, 1))], {})


def _sums_of_pool(operands: list[Interval], attributes: _Attributes) -> Interval:
    """The sums that an average pooling divides: without padding, so that every window is whole."""
    rows, columns = _strides(attributes)
    if any(any(pair) for pair in _padding(attributes)) or attributes.get("ceil_mode"):
        raise _UnknownForm

    def pool(ends: Floats) -> Floats:
        every = np.lib.stride_tricks.sliding_window_view(ends, attributes["kernel_shape"], axis=(2, 3))
        sums: Floats = every[:, :, ::rows, ::columns].sum(axis=(-2, -1))
        return sums

    low, high = operands[0]
    return pool(low), pool(high)


def _average_pool(operands: list[Interval], attributes: _Attributes) -> Interval:
    return _scale(_sums_of_pool(operands, attributes), 1 / float(np.prod(attributes["kernel_shape"])))


def _strides(attributes: _Attributes) -> tuple[int, int]:
    rows, columns = attributes.get("strides", (1, 1))
    return rows, columns


def _padding(attributes: _Attributes) -> tuple[tuple[int, int], tuple[int, int]]:
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise _UnknownForm
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return (top, bottom), (left, right)


def _gather(operands: list[Interval], attributes: _Attributes) -> Interval:
    (low, high), (indices, upper) = operands
    if indices is not upper:
        raise _UnknownForm
    places, axis = indices.astype(np.int64), attributes.get("axis", 0)
    picked = np.take(low, places, axis=axis)
    return picked, picked if high is low else np.take(high, places, axis=axis)


def _truth(operands: list[Interval], _: _Attributes) -> Interval:
    """A comparison: 0 or 1, of the shape that both operands are broadcast to."""
    shape = np.broadcast_shapes(*(low.shape for low, _ in operands))
    return np.zeros(shape), np.ones(shape)


def _reduce_sum(operands: list[Interval], attributes: _Attributes) -> Interval:
    low, high = operands[0]
    axes = tuple(operands[1][0].astype(np.int64).ravel()) if len(operands) > 1 else None
    keep = bool(attributes.get("keepdims", 1))
    return np.sum(low, axis=axes, keepdims=keep), np.sum(high, axis=axes, keepdims=keep)


def _flatten(operands: list[Interval], attributes: _Attributes) -> Interval:
    low, high = operands[0]
    axis = attributes.get("axis", 1)
    shape = (int(np.prod(low.shape[:axis])), -1)
    return low.reshape(shape), high.reshape(shape)


def _attributes(node: onnx.NodeProto) -> _Attributes:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


_RULES: Mapping[str, Callable[[list[Interval], _Attributes], Interval]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "Cast": _identity,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Greater": _truth,
    "GreaterOrEqual": _truth,
    "Identity": _identity,
    "Less": _truth,
    "LessOrEqual": _truth,
    "MatMul": _matmul,
    "Mul": _multiply,
    "ReduceSum": _reduce_sum,
    "Relu": _relu,
    "Sub": _subtract,
}

_ON_THE_WAY: Mapping[str, Callable[[list[Interval], _Attributes], Interval]] = {
    "AveragePool": _sums_of_pool,
    "Greater": _subtract,
    "GreaterOrEqual": _subtract,
    "Less": _subtract,
    "LessOrEqual": _subtract,
}
"""What a circuit holds besides a result: sums that it divides, differences whose sign it takes."""
