"""How large a model's tensors can get over its whole input domain, by interval arithmetic.

A circuit holds integers up to base ** legs; an input that drives a tensor past that has no proof. A domain
is a promise (PROTOCOL P9), so it is checked for every input there is, not for some: a sound bound, if not a
tight one. Operators that are not listed make the answer None.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias

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

    Weights, which are finite, count too: they are quantised like everything else. A bound that overflows is
    the largest float there is.
    """
    known: dict[str, Interval] = {}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        known[tensor.name] = (values, values)
    for spec in inputs:
        known[spec.name] = (np.full(spec.shape, spec.low), np.full(spec.shape, spec.high))
    for node in model.graph.node:
        rule = _RULES.get(node.op_type)
        if rule is None or any(name not in known for name in node.input):
            return None
        known[node.output[0]] = rule([known[name] for name in node.input], _attributes(node))
    peak = max(float(np.max(np.abs(bound), initial=0.0)) for pair in known.values() for bound in pair)
    return float(np.nan_to_num(peak, nan=sys.float_info.max, posinf=sys.float_info.max))


_Attributes: TypeAlias = Mapping[str, float]


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


def _attributes(node: onnx.NodeProto) -> _Attributes:
    return {
        attribute.name: attribute.f if attribute.type == onnx.AttributeProto.FLOAT else float(attribute.i)
        for attribute in node.attribute
    }


_RULES: Mapping[str, Callable[[list[Interval], _Attributes], Interval]] = {
    "Add": _add,
    "Gemm": _gemm,
    "Identity": _identity,
    "MatMul": _matmul,
    "Mul": _multiply,
    "Relu": _relu,
    "Sub": _subtract,
}
