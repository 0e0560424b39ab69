"""Operators that ezkl does not know, or computes wrongly or dearly, written as those that it computes well.

Each rule is the operator's own definition, in the form whose tables stay small: what is looked up in a table
of Exp is never positive, and what Log sees is 1 or little more.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import numpy as np
import onnx

from proofhold.compile.errors import CompileError
from proofhold.compile.passes.rewriting import Rewriting, Rule, attributes_of, constants_of, shapes_of

_POOLS = ("AveragePool", "MaxPool", "LpPool")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def decompose(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy without the operators that have a rule, or the model itself if it has none of them.

    Raises:
        CompileError: ``compile.unsupported``: an operator in a form for which there is no rule.

    """
    constants = set(constants_of(model.graph))
    if not any(_has_rule(node, constants) for node in model.graph.node):
        return model
    return _Decomposition(model).rewritten()


def _has_rule(node: onnx.NodeProto, constants: Container[str]) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "BatchNormalization":
        return any(name not in constants for name in node.input[1:5])
    if node.op_type in (*_POOLS, *_CONVOLUTIONS):
        return not any(attribute.name == "strides" for attribute in node.attribute)
    return node.op_type in _RULES


class _Decomposition(Rewriting):
    """A rewriting that knows the shapes and constants of the model that it started from."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.shapes = shapes_of(model)
        self.constants = constants_of(model.graph)

    def rewritten(self) -> onnx.ModelProto:
        for node in self.graph.node:
            if _has_rule(node, self.constants):
                self.apply(_RULES.get(node.op_type, _with_strides), node)
            else:
                self.nodes.append(node)
        return self.finish()

    def rank(self, node: onnx.NodeProto, index: int = 0) -> int:
        """Give the number of axes of a node's input."""
        shape = self.shapes.get(node.input[index])
        if shape is None:
            raise _refusal(node, "has an input whose shape is not known")
        return len(shape)


def _gelu(build: Rewriting, node: onnx.NodeProto) -> None:
    x = node.input[0]
    if attributes_of(node).get("approximate", b"none") == b"tanh":
        cube = build.add("Mul", build.add("Mul", x, x), x)
        inner = build.add("Add", x, build.add("Mul", cube, build.tensor(np.float32(0.044715))))
        gate = build.add("Tanh", build.add("Mul", inner, build.tensor(np.float32(math.sqrt(2 / math.pi)))))
    else:
        gate = build.add("Erf", build.add("Mul", x, build.tensor(np.float32(math.sqrt(0.5)))))
    half = build.add("Mul", x, build.tensor(np.float32(0.5)))
    build.add("Mul", half, build.add("Add", gate, build.tensor(np.float32(1))), output=node.output[0])


def _softplus(build: Rewriting, node: onnx.NodeProto) -> None:
    _add_softplus(build, node.input[0], node.output[0])


def _add_softplus(build: Rewriting, x: str, output: str | None = None) -> str:
    falling = build.add("Exp", build.add("Neg", build.add("Abs", x)))
    bend = build.add("Log", build.add("Add", falling, build.tensor(np.float32(1))))
    return build.add("Add", build.add("Relu", x), bend, output=output)


def _mish(build: Rewriting, node: onnx.NodeProto) -> None:
    x = node.input[0]
    build.add("Mul", x, build.add("Tanh", _add_softplus(build, x)), output=node.output[0])


def _swish(build: Rewriting, node: onnx.NodeProto) -> None:
    x, alpha = node.input[0], attributes_of(node).get("alpha", 1.0)
    scaled = x if alpha == 1.0 else build.add("Mul", x, build.tensor(np.float32(alpha)))
    build.add("Mul", x, build.add("Sigmoid", scaled), output=node.output[0])


def _hard_swish(build: Rewriting, node: onnx.NodeProto) -> None:
    x = node.input[0]
    sloped = build.add("Mul", x, build.tensor(np.float32(1 / 6)))
    gate = build.clip(build.add("Add", sloped, build.tensor(np.float32(0.5))), 0.0, 1.0)
    build.add("Mul", x, gate, output=node.output[0])


def _elu(build: Rewriting, node: onnx.NodeProto) -> None:
    _add_elu(build, node, attributes_of(node).get("alpha", 1.0), 1.0, 1.0)


def _selu(build: Rewriting, node: onnx.NodeProto) -> None:
    values = attributes_of(node)
    gamma = values.get("gamma", 1.0507009873554805)
    _add_elu(build, node, values.get("alpha", 1.6732632423543772) * gamma, gamma, 1.0)


def _celu(build: Rewriting, node: onnx.NodeProto) -> None:
    alpha = attributes_of(node).get("alpha", 1.0)
    _add_elu(build, node, alpha, 1.0, 1 / alpha)


def _add_elu(build: Rewriting, node: onnx.NodeProto, alpha: float, gamma: float, inner: float) -> None:
    """Give gamma · max(x, 0) + alpha · (exp(inner · min(x, 0)) - 1)."""
    x = node.input[0]
    negative = build.clip(x, None, 0.0)
    if inner != 1.0:
        negative = build.add("Mul", negative, build.tensor(np.float32(inner)))
    falling = build.add("Sub", build.add("Exp", negative), build.tensor(np.float32(1)))
    positive = build.add("Relu", x)
    if gamma != 1.0:
        positive = build.add("Mul", positive, build.tensor(np.float32(gamma)))
    if alpha != 1.0:
        falling = build.add("Mul", falling, build.tensor(np.float32(alpha)))
    build.add("Add", positive, falling, output=node.output[0])


def _prelu(build: Rewriting, node: onnx.NodeProto) -> None:
    x, slope = node.input
    negative = build.add("Mul", build.clip(x, None, 0.0), slope)
    build.add("Add", build.add("Relu", x), negative, output=node.output[0])


def _log_softmax(build: Rewriting, node: onnx.NodeProto) -> None:
    assert isinstance(build, _Decomposition)  # noqa: S101 - for the type checker
    rank, axis = build.rank(node), attributes_of(node).get("axis", -1 if build.opset >= 13 else 1)
    if build.opset < 13 and axis % rank != rank - 1:
        raise _refusal(node, "flattens axes, as it did before operator set 13")
    x = node.input[0]
    moved = build.add("Sub", x, build.reduce("ReduceMax", x, [axis]))
    total = build.reduce("ReduceSum", build.add("Exp", moved), [axis])
    build.add("Sub", moved, build.add("Log", total), output=node.output[0])


def _rms_normalization(build: Rewriting, node: onnx.NodeProto) -> None:
    assert isinstance(build, _Decomposition)  # noqa: S101
    values, rank = attributes_of(node), build.rank(node)
    axes = range(values.get("axis", -1) % rank, rank)
    x = node.input[0]
    normal = _divide_by_root(build, x, build.add("Mul", x, x), list(axes), values.get("epsilon", 1e-5))
    build.add("Mul", normal, node.input[1], output=node.output[0])


def _instance_normalization(build: Rewriting, node: onnx.NodeProto) -> None:
    assert isinstance(build, _Decomposition)  # noqa: S101
    axes = list(range(2, build.rank(node)))
    moved = build.add("Sub", node.input[0], build.reduce("ReduceMean", node.input[0], axes))
    epsilon = attributes_of(node).get("epsilon", 1e-5)
    normal = _divide_by_root(build, moved, build.add("Mul", moved, moved), axes, epsilon)
    scale, shift = (_as_channels(build, node.input[i], len(axes)) for i in (1, 2))
    build.add("Add", build.add("Mul", normal, scale), shift, output=node.output[0])


def _group_normalization(build: Rewriting, node: onnx.NodeProto) -> None:
    assert isinstance(build, _Decomposition)  # noqa: S101
    values, shape = attributes_of(node), build.shapes.get(node.input[0], ())
    groups = values["num_groups"]
    if len(shape) < 3 or shape[1] % groups or build.shapes.get(node.input[1]) != (shape[1],):
        raise _refusal(node, "has a scale for each group, or a shape that is not known")
    grouped = build.add(
        "Reshape", node.input[0], build.tensor([shape[0], groups, math.prod(shape[1:]) // groups])
    )
    moved = build.add("Sub", grouped, build.reduce("ReduceMean", grouped, [2]))
    squares = build.add("Mul", moved, moved)
    normal = _divide_by_root(build, moved, squares, [2], values.get("epsilon", 1e-5))
    back = build.add("Reshape", normal, build.tensor(list(shape)))
    scale, shift = (_as_channels(build, node.input[i], len(shape) - 2) for i in (1, 2))
    build.add("Add", build.add("Mul", back, scale), shift, output=node.output[0])


def _batch_normalization(build: Rewriting, node: onnx.NodeProto) -> None:
    """For parameters that are inputs; ezkl folds constant ones into the layer before."""
    assert isinstance(build, _Decomposition)  # noqa: S101
    if len([name for name in node.output if name]) > 1:
        raise _refusal(node, "is training")
    spatial = build.rank(node) - 2
    scale, shift, mean, variance = (_as_channels(build, node.input[i], spatial) for i in range(1, 5))
    epsilon = build.tensor(np.float32(attributes_of(node).get("epsilon", 1e-5)))
    root = build.add("Sqrt", build.add("Add", variance, epsilon))
    normal = build.add("Div", build.add("Sub", node.input[0], mean), root)
    build.add("Add", build.add("Mul", normal, scale), shift, output=node.output[0])


def _mean_variance_normalization(build: Rewriting, node: onnx.NodeProto) -> None:
    axes = attributes_of(node).get("axes", [0, 2, 3])
    moved = build.add("Sub", node.input[0], build.reduce("ReduceMean", node.input[0], axes))
    squares = build.add("Mul", moved, moved)
    deviation = build.add("Sqrt", build.reduce("ReduceMean", squares, axes))
    safe = build.add("Add", deviation, build.tensor(np.float32(1e-9)))
    build.add("Div", moved, safe, output=node.output[0])


def _lp_normalization(build: Rewriting, node: onnx.NodeProto) -> None:
    values, x = attributes_of(node), node.input[0]
    axis = [values.get("axis", -1)]
    if values.get("p", 2) == 1:
        length = build.reduce("ReduceSum", build.add("Abs", x), axis)
    else:
        length = build.add("Sqrt", build.reduce("ReduceSum", build.add("Mul", x, x), axis))
    build.add("Div", x, length, output=node.output[0])


def _divide_by_root(build: Rewriting, value: str, squares: str, axes: Sequence[int], epsilon: float) -> str:
    """Divide by the root of the mean of `squares`."""
    mean = build.reduce("ReduceMean", squares, axes)
    root = build.add("Sqrt", build.add("Add", mean, build.tensor(np.float32(epsilon))))
    return build.add("Div", value, root)


def _as_channels(build: Rewriting, vector: str, spatial: int) -> str:
    return build.add("Reshape", vector, build.tensor([1, -1, *[1] * spatial]))


def _with_strides(build: Rewriting, node: onnx.NodeProto) -> None:
    """State the strides that a convolution or pooling leaves to be understood: ezkl asks for them."""
    assert isinstance(build, _Decomposition)  # noqa: S101
    stated = onnx.NodeProto()
    stated.CopyFrom(node)
    stated.attribute.append(onnx.helper.make_attribute("strides", [1] * (build.rank(node) - 2)))
    build.nodes.append(stated)


def _refusal(node: onnx.NodeProto, what: str) -> CompileError:
    return CompileError(
        "compile.unsupported", f"{node.op_type[:40]} {what}", node=node.name, operator=node.op_type
    )


_RULES: Mapping[str, Rule] = {
    "BatchNormalization": _batch_normalization,
    "Celu": _celu,
    "Elu": _elu,
    "Gelu": _gelu,
    "GroupNormalization": _group_normalization,
    "HardSwish": _hard_swish,
    "InstanceNormalization": _instance_normalization,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "Mish": _mish,
    "PRelu": _prelu,
    "RMSNormalization": _rms_normalization,
    "Selu": _selu,
    "Softplus": _softplus,
    "Swish": _swish,
}
