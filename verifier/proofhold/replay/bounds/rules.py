"""Which rule an operator has; what has none is evaluated only where nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    "Cast": elementwise.cast,
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
    {
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Expand",
        "Gather",
        "Identity",
        "Reshape",
        "Shape",
        "Slice",
    }
    | {"Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"}
)
"""Rules that move elements of any type."""

_ROUND_NOTHING = frozenset(
    {"Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"}
    | {"LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "ReduceMax", "ReduceMin", "ReduceProd"}
    | {"ReduceSum", "Sign", "Size", "Sub", "Xor"}
)
"""What is left to the onnx package's evaluator, where the result is an integer or a boolean.

They give no more elements than they take.
"""


def evaluate(node: onnx.NodeProto, inputs: Sequence[Enclosure | None], opset: int) -> list[Enclosure]:
    """Give what an operator honestly gives for its inputs, one enclosure a result.

    Raises:
        NoBound: nothing is known about the operator, or about this use of it.

    """
    import onnx

    step = step_of(node, inputs, opset)
    attributes = step.attributes
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    floating = any(given is not None and given.is_floating for given in inputs)
    try:
        # A cast to integers or booleans rounds nothing, if what it casts is exact.
        is_cast_away = node.op_type == "Cast" and attributes["to"] != onnx.TensorProto.FLOAT
        if rule is not None and (floating or node.op_type in _INTEGERS_TOO) and not is_cast_away:
            return rule(step)
        if node.domain not in ("", "ai.onnx") or node.op_type not in _ROUND_NOTHING:
            raise NoBound(f"{node.op_type} has no bound")
        return _without_rounding(node, step)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError) as error:
        # The model's own shapes and attributes do not fit together as this code reads them.
        raise NoBound(f"{node.op_type}: {str(error)[:200]}") from error


def step_of(node: onnx.NodeProto, inputs: Sequence[Enclosure | None], opset: int) -> Step:
    """Read what a rule needs to know of an operator."""
    import onnx.helper

    attributes = {a.name: _value(onnx.helper.get_attribute_value(a)) for a in node.attribute}
    return Step(node.op_type, attributes, inputs, len(node.output), opset)


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
