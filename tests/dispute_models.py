"""Random CNNs and transformers for disputes, small enough to judge by the hundred, cut at live tensors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from proofhold.canonical import file_digest
from proofhold.domain import InputSpec, OutputSpec, PostProcessing
from proofhold.locks import Boundary, Contract, ReplayLock, Segment
from proofhold.replay.surgery import Port, extract, parse

OPSET = 17
TOLERANCE = 1e-5


class Builder:
    """Builds a model node by node; `cuts` are the tensors that a run commits to."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.cuts: list[str] = []

    def weight(self, values: Any, kind: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values).astype(kind), name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.weight(self.random.normal(0, scale, shape))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}_{operator}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def cut(self, name: str) -> str:
        self.cuts.append(name)
        return name

    def model(self, shape: Sequence[int], output: str) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "dispute",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_empty_tensor_value_info(output)],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
        onnx.checker.check_model(made)
        return bytes(made.SerializeToString(deterministic=True))


def cnn(seed: int) -> tuple[bytes, ReplayLock]:
    """Convolutions with normalisations, a residual link, pools, a depthwise layer and a head."""
    b = Builder(seed)
    channels = int(b.random.choice([16, 24, 32]))
    size = int(b.random.choice([12, 16]))

    def conv(x: str, before: int, after: int, kernel: int = 3, group: int = 1, **attributes: Any) -> str:
        fan = before // group * kernel**2
        pads = {"pads": [kernel // 2] * 4}
        w = b.normal(after, before // group, kernel, kernel, scale=np.sqrt(2 / fan))
        bias = [b.normal(after, scale=0.1)] if b.random.random() < 0.5 else []
        return b.node("Conv", x, w, *bias, group=group, **(pads | attributes))

    def norm(x: str) -> str:
        scale, shift, mean = (b.normal(channels, scale=s) for s in (0.5, 0.2, 0.2))
        variance = b.weight(b.random.uniform(0.5, 2.0, channels))
        return b.node("BatchNormalization", x, scale, shift, mean, variance)

    x = b.cut(b.node("Relu", norm(conv("x", 3, channels))))
    inner = b.node("Relu", norm(conv(x, channels, channels)))
    x = b.cut(b.node("Relu", b.node("Add", norm(conv(inner, channels, channels)), x)))
    x = b.node(str(b.random.choice(["MaxPool", "AveragePool"])), x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("HardSwish", conv(x, channels, channels, group=channels))
    x = b.node("LeakyRelu", conv(x, channels, channels, kernel=1), alpha=0.1)
    x = b.cut(conv(x, channels, channels))
    x = b.node("Flatten", b.node("GlobalAveragePool", b.node("Sigmoid", x)))
    x = b.node("Gemm", x, b.normal(10, channels, scale=0.3), b.normal(10), transB=1)
    return _locked(b, (1, 3, size, size), b.node("Softmax", x), f"cnn-{seed}")


def transformer(seed: int) -> tuple[bytes, ReplayLock]:
    """Two encoder blocks: attention, normalisation spelled out or as one operator, GELU spelled out."""
    b = Builder(seed)
    tokens, width = 12, int(b.random.choice([32, 48, 64]))
    heads, before = 4, bool(b.random.random() < 0.5)

    def linear(x: str, inner: int, outer: int) -> str:
        return b.node("Add", b.node("MatMul", x, b.normal(inner, outer, scale=inner**-0.5)), b.normal(outer))

    def norm(x: str) -> str:
        scale, shift = b.weight(1 + b.random.normal(0, 0.1, width)), b.normal(width, scale=0.1)
        if b.random.random() < 0.5:
            return b.node("LayerNormalization", x, scale, shift, axis=-1)
        away = b.node("Sub", x, b.node("ReduceMean", x, axes=[-1]))
        variance = b.node("ReduceMean", b.node("Pow", away, b.weight(2.0)), axes=[-1])
        deviation = b.node("Sqrt", b.node("Add", variance, b.weight(1e-5)))
        return b.node("Add", b.node("Mul", b.node("Div", away, deviation), scale), shift)

    def attention(x: str) -> str:
        shape = b.weight([1, tokens, heads, width // heads], np.int64)
        q, k, v = (b.node("Reshape", linear(x, width, width), shape) for _ in range(3))
        q, v = (b.node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        scores = b.node("MatMul", q, b.node("Transpose", k, perm=[0, 2, 3, 1]))
        scores = b.node("Div", scores, b.weight((width / heads) ** 0.5))
        mixed = b.node(
            "Transpose", b.node("MatMul", b.node("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3]
        )
        flat = b.node("Reshape", mixed, b.weight([1, tokens, width], np.int64))
        return linear(flat, width, width)

    def feed_forward(x: str) -> str:
        wide = linear(x, width, 4 * width)
        erf = b.node("Erf", b.node("Div", wide, b.weight(2**0.5)))
        gelu = b.node("Mul", b.node("Mul", wide, b.node("Add", erf, b.weight(1.0))), b.weight(0.5))
        return linear(gelu, 4 * width, width)

    x = "x"
    for _ in range(2):
        for part in (attention, feed_forward):
            x = b.cut(b.node("Add", x, part(norm(x))) if before else norm(b.node("Add", x, part(x))))
    x = b.node("ReduceMean", x, axes=[1], keepdims=0)
    x = b.node("Gemm", x, b.normal(width, 8, scale=0.2), b.normal(8))
    return _locked(b, (1, tokens, width), b.node("Tanh", x), f"transformer-{seed}")


def inputs_of(lock: ReplayLock, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Draw an input."""
    generator = np.random.default_rng(seed)
    return {spec.name: generator.normal(size=spec.shape).astype(np.float32) for spec in lock.inputs}


def lock_of(model: bytes, cuts: Sequence[str], name: str) -> ReplayLock:
    """Make the lock of a model with cuts at these tensors, one behind another."""
    graph = onnx.shape_inference.infer_shapes(parse(model)).graph
    weights = {tensor.name for tensor in graph.initializer}
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output, *graph.input)
    }
    inputs = [value.name for value in graph.input if value.name not in weights]
    ends = [value.name for value in graph.output]
    chain = [inputs, *([cut] for cut in cuts), ends]
    segments = []
    for before, after in itertools.pairwise(chain):
        ports = [[Port(n, "float32", shapes[n]) for n in side] for side in (before, after)]
        digest = file_digest(extract(parse(model), ports[0], ports[1]))
        segments.append(Segment(tuple(before), tuple(after), TOLERANCE, digest if cuts else None))
    return ReplayLock(
        name=name,
        model=file_digest(model),
        contract=Contract.FLOAT32,
        inputs=tuple(InputSpec(n, "float32", shapes[n], -8.0, 8.0) for n in inputs),
        outputs=tuple(OutputSpec(n, "float32", shapes[n]) for n in ends),
        relative_l2=TOLERANCE,
        segments=tuple(segments),
        post_processing=PostProcessing.NONE,
        boundaries=tuple(Boundary(n, "float32", shapes[n]) for n in cuts),
    )


def _locked(b: Builder, shape: Sequence[int], output: str, name: str) -> tuple[bytes, ReplayLock]:
    model = b.model(shape, output)
    return model, lock_of(model, b.cuts, name)


FAMILIES = {"cnn": cnn, "transformer": transformer}


@functools.cache
def made(family: str, seed: int) -> tuple[bytes, ReplayLock]:
    """Make a model once."""
    return FAMILIES[family](seed)
