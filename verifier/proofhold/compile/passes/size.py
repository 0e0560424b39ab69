"""Size: a model that no circuit can hold is refused by counting, before ezkl lays it out for hours."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from proofhold.compile.errors import CompileError
from proofhold.compile.passes.rewriting import attributes_of, shapes_of

MAX_WORK = 2**26
"""What k = 26 holds, the most that a lock can pin, at one product a row. LeNet's is half a million."""
STEPS_OF_A_FUNCTION = 32
"""About how many rows it takes to compare a number, divide it, or look it up."""

_FREE = frozenset(
    {
        "Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Dropout", "Expand", "Flatten",
        "Gather", "Identity", "Pad", "Reshape", "Shape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_LINEAR = frozenset({"Add", "AveragePool", "GlobalAveragePool", "Mul", "Neg", "ReduceSum", "Sub", "Sum"})

_Shapes = Mapping[str, tuple[int, ...]]


def check_size(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the model pass unchanged, if its work can be counted to be within bounds, or not be counted.

    Raises:
        CompileError: ``compile.too_large``, naming the node at which the count passes the bound.

    """
    shapes = shapes_of(model)
    total = 0
    for node in model.graph.node:
        total += _work(node, shapes)
        if total > MAX_WORK:
            raise CompileError(
                "compile.too_large",
                f"the model takes more than {MAX_WORK} products and steps, which no circuit holds",
                node=node.name or node.output[0],
                operator=node.op_type,
            )
    return model


def _work(node: onnx.NodeProto, shapes: _Shapes) -> int:
    """Count a node's products, and steps for what is no product; 0 where a shape is not known."""
    outputs = [shapes.get(name) for name in node.output if name]
    inputs = [shapes.get(name, ()) for name in node.input]
    if node.op_type in _FREE or not outputs or outputs[0] is None:
        return 0
    elements: int = math.prod(outputs[0])
    if node.op_type in ("MatMul", "Gemm") and inputs[0]:
        transposed = node.op_type == "Gemm" and attributes_of(node).get("transA")
        return elements * inputs[0][0 if transposed else -1]
    if node.op_type == "Conv" and len(inputs) > 1:
        return elements * math.prod(inputs[1][1:])
    if node.op_type == "ConvTranspose" and len(inputs) > 1:
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    window: int = math.prod(attributes_of(node).get("kernel_shape", [1]))
    if node.op_type in _LINEAR:
        return elements * window
    return STEPS_OF_A_FUNCTION * elements * window
