"""The substitutes that a provider would serve to save money, made from the model itself.

Most change the weights and leave the graph alone, which is what each is worth at best: a provider that also
computes in the cheaper arithmetic is farther off. `int8_dynamic` is onnxruntime's own quantisation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from proofhold.replay.surgery import parse

LEAST_ELEMENTS = 64
"""Smaller tensors are biases, scales and shapes: nobody saves anything on them."""
INT4_GROUP = 32
NOISE = 0.01
SEED = 11


def _half(weights: NDArray[Any]) -> NDArray[Any]:
    return weights.astype(np.float16).astype(np.float32)


def _bfloat(weights: NDArray[Any]) -> NDArray[Any]:
    bits = weights.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def _int8(weights: NDArray[Any]) -> NDArray[Any]:
    """Symmetric, one scale a channel: the first axis of a convolution, the last of a matrix."""
    axes = tuple(range(1, weights.ndim)) if weights.ndim > 2 else (0,)
    scale = np.abs(weights).max(axis=axes, keepdims=True) / 127
    scale = np.where(scale == 0, 1, scale)
    return (np.round(weights / scale) * scale).astype(np.float32)


def _int4(weights: NDArray[Any]) -> NDArray[Any]:
    """Symmetric, one scale for each group of 32 weights."""
    flat = weights.reshape(-1)
    padded = np.pad(flat, (0, -len(flat) % INT4_GROUP)).reshape(-1, INT4_GROUP)
    scale = np.abs(padded).max(axis=1, keepdims=True) / 7
    scale = np.where(scale == 0, 1, scale)
    rounded = (np.round(padded / scale) * scale).reshape(-1)[: len(flat)]
    return rounded.reshape(weights.shape).astype(np.float32)


def _pruned(share: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def prune(weights: NDArray[Any]) -> NDArray[Any]:
        least = np.quantile(np.abs(weights), share)
        return np.where(np.abs(weights) <= least, 0, weights).astype(np.float32)

    return prune


def _everywhere(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[bytes], bytes]:
    def cheat(model: bytes) -> bytes:
        parsed = parse(model)
        for tensor in _weights(parsed):
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
        return _written(parsed)

    return cheat


def _last_layer(model: bytes) -> bytes:
    """Noise of a hundredth on the last layer's weights: a value that somebody tampered with, not a saving."""
    parsed = parse(model)
    weights = {tensor.name: tensor for tensor in _weights(parsed)}
    for node in reversed(parsed.graph.node):
        mine = [weights[name] for name in node.input if name in weights]
        if mine:
            values = numpy_helper.to_array(mine[0])
            noise = np.random.default_rng(SEED).normal(0, NOISE * float(np.std(values)), values.shape)
            mine[0].CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), mine[0].name))
            break
    return _written(parsed)


def _dynamic(model: bytes) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="proofhold-") as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
        return target.read_bytes()


CHEATS: Mapping[str, Callable[[bytes], bytes]] = {
    "fp16": _everywhere(_half),
    "bf16": _everywhere(_bfloat),
    "int8": _everywhere(_int8),
    "int8_dynamic": _dynamic,
    "int4": _everywhere(_int4),
    "pruned_1": _everywhere(_pruned(0.01)),
    "pruned_10": _everywhere(_pruned(0.10)),
    "last_layer": _last_layer,
}
"""By name; each takes a model's bytes and gives the substitute's. `can_be_made` says for which models."""

MUST_BE_TOLD_APART = ("fp16", "int8", "int8_dynamic", "int4", "pruned_10")
"""What a float32 contract is for: a profile that lets one of them pass as honest is refused."""


def can_be_made(model: bytes) -> bool:
    """Tell whether a model has weights that a cheaper one could round: a tree ensemble has none."""
    return bool(_weights(parse(model)))


def _weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Give the weights worth rounding; those in Constant nodes too, where some exporters put them."""
    graph = model.graph
    constants = [
        a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.HasField("t")
    ]
    return [
        tensor
        for tensor in (*graph.initializer, *constants)
        if tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) >= 2
        and int(np.prod(tensor.dims)) >= LEAST_ELEMENTS
    ]


def _written(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data
