"""What the export scripts beside this file share: a dense network as ONNX, written the same way every time.

Only `models/*/export.py` imports it. They run as scripts, so it is found through their own path line;
it is not part of any installed package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

WEIGHT_FRACTION_BITS = 13
"""Weights are rounded to multiples of 2**-13, the scale at which the circuit holds its parameters. Two things
follow: quantising them loses nothing, and the last bits of a training run, in which one BLAS differs from
another, do not reach the file."""

Floats = npt.NDArray[np.float32]
Layer = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def on_weight_grid(values: npt.ArrayLike) -> Floats:
    """`values` rounded to the nearest multiple of 2**-WEIGHT_FRACTION_BITS, as float32."""
    grid = 2.0**WEIGHT_FRACTION_BITS
    # + 0.0 turns -0.0 into 0.0: they are equal, but not the same bytes.
    rounded = np.round(np.asarray(values, dtype=np.float64) * grid) / grid + 0.0
    exact = rounded.astype(np.float32)
    if not np.array_equal(exact.astype(np.float64), rounded):
        raise ValueError("a weight is too large to keep its last bit in float32")
    return exact


def dense_network(layers: Sequence[Layer], *, graph_name: str, input_name: str) -> onnx.ModelProto:
    """MatMul and Add a layer, Relu between layers, logits out.

    `layers` holds (weights of shape [in, out], bias of shape [out]); the batch size is fixed at 1, since a
    circuit has no dynamic shapes.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    current = input_name
    for index, (weights, bias) in enumerate(layers):
        last = index == len(layers) - 1
        product, total = f"product_{index}", "logits" if last else f"sum_{index}"
        initializers += [
            numpy_helper.from_array(on_weight_grid(weights), f"weights_{index}"),
            numpy_helper.from_array(on_weight_grid(bias), f"bias_{index}"),
        ]
        nodes += [
            helper.make_node("MatMul", [current, f"weights_{index}"], [product], name=f"matmul_{index}"),
            helper.make_node("Add", [product, f"bias_{index}"], [total], name=f"add_{index}"),
        ]
        current = total
        if not last:
            current = f"hidden_{index}"
            nodes.append(helper.make_node("Relu", [total], [current], name=f"relu_{index}"))
    inputs, outputs = layers[0][0].shape[0], layers[-1][0].shape[1]
    return network(
        nodes,
        initializers,
        graph_name=graph_name,
        input_name=input_name,
        input_shape=[1, inputs],
        logits=outputs,
    )


def network(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    *,
    graph_name: str,
    input_name: str,
    input_shape: Sequence[int],
    logits: int,
) -> onnx.ModelProto:
    """A model of one float32 input and the output ``logits`` of shape [1, logits], checked."""
    graph = helper.make_graph(
        list(nodes),
        graph_name,
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, list(input_shape))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, logits])],
        list(initializers),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="proofhold-models",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def weights(name: str, values: npt.ArrayLike) -> onnx.TensorProto:
    """A constant on the weight grid."""
    return numpy_helper.from_array(on_weight_grid(values), name)


def run(model: onnx.ModelProto, inputs: Floats) -> Floats:
    """The logits of each of `inputs` in onnxruntime, of shape [n, outputs]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    name = model.graph.input[0].name
    return np.concatenate([session.run(None, {name: row[np.newaxis]})[0] for row in inputs])


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` with protobuf's deterministic serialisation."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def save_samples(
    path: Path,
    *,
    input_name: str,
    inputs: Floats,
    labels: npt.ArrayLike,
    label_names: Sequence[str],
) -> None:
    """Write held-out samples as JSON: `inputs` of shape [n, ...], `labels` of shape [n].

    Each number is the shortest decimal that reads back as the same float32, so the file is small, the same
    on every run, and needs nothing but a JSON parser.
    """
    rows = [
        [float(np.format_float_scientific(value, unique=True)) for value in row]
        for row in inputs.reshape(len(inputs), -1)
    ]
    samples = [
        {"inputs": {input_name: row}, "label": int(label)}
        for row, label in zip(rows, np.asarray(labels), strict=True)
    ]
    # One sample a line: a diff then shows which one changed.
    lines = ",\n".join(json.dumps(sample, separators=(",", ":")) for sample in samples)
    head = json.dumps({"version": 1, "label_names": list(label_names)})
    path.write_text(f'{head[:-1]}, "samples": [\n{lines}\n]}}\n', encoding="utf-8")


def forward(layers: Sequence[Layer], inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The network in float64 with the exported weights: [n, features] -> logits [n, outputs]."""
    values = inputs.astype(np.float64)
    for index, (weights, bias) in enumerate(layers):
        values = values @ on_weight_grid(weights).astype(np.float64) + on_weight_grid(bias)
        if index < len(layers) - 1:
            values = np.maximum(values, 0.0)
    return values
