"""Which rule an operator has; what has none is evaluated only where nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from proofhold.replay.bounds import elementwise, movement, products, sums
from proofhold.replay.bounds.enclosure import Enclosure, NoBound, Step

if TYPE_CHECKING:
    import onnx

Rule: TypeAlias = Callable[[Step], list[Enclosure]]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""Operators that multiply by weights: an answer leaves at most one of them out in one piece."""

RULES: Mapping[str, Rule] = {
    "MatMul": products.matmul,
    "Gemm": products.gemm,
    "Conv": products.conv,
    "Einsum": products.einsum,
    "AveragePool": sums.average_pool,
    "GlobalAveragePool": sums.global_average_pool,
    "MaxPool": sums.max_pool,
    "GlobalMaxPool": sums.global_max_pool,
    "BatchNormalization": sums.batch_normalisation,
    "LayerNormalization": sums.layer_normalisation,
    "InstanceNormalization": sums.instance_normalisation,
    "Softmax": sums.softmax,
    "LogSoftmax": sums.softmax,
    "Add": elementwise.add,
    "Sub": elementwise.add,
    "Sum": elementwise.total,
    "Mean": elementwise.total,
    "Mul": elementwise.multiply,
    "Div": elementwise.divide,
    "Reciprocal": elementwise.reciprocal,
    "Sqrt": elementwise.root,
    "Pow": elementwise.power,
    "Where": elementwise.where,
    "Concat": movement.concatenated,
    "Split": movement.split,
    **dict.fromkeys(
        (
            *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
            "ReduceSumSquare",
        ),
        sums.reduction,
    ),
    **dict.fromkeys(set(elementwise.ACCURACY) - {"Pow"}, elementwise.function),
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "Clip", "Abs", "Neg", "Max", "Min"), elementwise.exact),
    **dict.fromkeys(
        (
            *("Identity", "Dropout", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand"),
            *("Tile", "Slice", "Gather", "GatherElements", "Pad", "DepthToSpace", "SpaceToDepth"),
        ),
        movement.moved,
    ),
    **dict.fromkeys(("Constant", "ConstantOfShape", "Shape"), movement.constant),
}
"""By operator of ONNX's own domain."""

_INTEGERS_TOO = frozenset(
    {"Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "Identity", "Reshape", "Shape", "Slice"}
    | {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where", "Flatten", "GatherElements"}
)
"""Rules that move elements of any type."""


def evaluate(node: onnx.NodeProto, inputs: list[Enclosure | None], opset: int) -> list[Enclosure]:
    """Give what an operator honestly gives for its inputs, one enclosure a result.

    Raises:
        NoBound: nothing is known about the operator, or about this use of it.

    """
    import onnx.helper

    attributes = {a.name: _value(onnx.helper.get_attribute_value(a)) for a in node.attribute}
    step = Step(node.op_type, attributes, inputs, len(node.output), opset)
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    floating = any(given is not None and given.is_floating for given in inputs)
    try:
        if rule is not None and (floating or node.op_type in _INTEGERS_TOO):
            return rule(step)
        return _without_rounding(node, step)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError) as error:
        # The model's own shapes and attributes do not fit together as this code reads them.
        raise NoBound(f"{node.op_type}: {str(error)[:200]}") from error


def _without_rounding(node: onnx.NodeProto, step: Step) -> list[Enclosure]:
    """Evaluate an operator on exact inputs that gives no floating-point numbers, or only moves them.

    Raises:
        NoBound: an input is rounded, or the result could be.

    """
    from onnx.reference import ReferenceEvaluator

    given = {}
    for name, enclosure in zip(node.input, step.inputs, strict=True):
        if enclosure is None:
            continue
        if not enclosure.is_exact:
            raise NoBound(f"{node.op_type} has no bound")
        # Every exact floating-point value here was a float32 that somebody committed to, or a constant.
        value = enclosure.value
        given[name] = value.astype(np.float32) if enclosure.is_floating else value
    try:
        results = ReferenceEvaluator(node).run(None, given)
    except Exception as error:
        raise NoBound(f"{node.op_type} has no bound") from error
    if any(np.asarray(result).dtype.kind == "f" for result in results):
        raise NoBound(f"{node.op_type} has no bound")
    return [Enclosure(np.asarray(result)) for result in results]


def _value(value: Any) -> Any:
    import onnx
    from onnx import numpy_helper

    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
