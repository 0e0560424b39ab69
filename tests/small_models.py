"""Small models for the tests of the compile side: a graph, the folder of a model's author, its samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 20, 9


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, ArrayLike] | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model of float32 tensors."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
        [
            numpy_helper.from_array(v if isinstance(v, np.ndarray) else np.array(v, np.float32), n)
            for n, v in (constants or {}).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def write_model(
    folder: Path,
    model: onnx.ModelProto | bytes,
    samples: Mapping[str, NDArray[Any]],
    *,
    low: float = -4.0,
    high: float = 4.0,
    post_processing: str = "none",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write model.onnx, model.toml and samples.json, and give the first's path.

    `samples` holds [n, …] for each input.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString(deterministic=True))
    lines = ["version = 1", f'post_processing = "{post_processing}"', 'samples = "samples.json"']
    for name in samples:
        lines += [f'[inputs."{name}"]', f"low = {low}", f"high = {high}"]
        if shapes is not None:
            lines.append(f"shape = {list(shapes[name])}")
    (folder / "model.toml").write_text("\n".join(lines) + "\n")
    (count,) = {len(rows) for rows in samples.values()}
    rows = [
        {
            "inputs": {name: [float(value) for value in np.ravel(rows[i])] for name, rows in samples.items()},
            "label": 0,
        }
        for i in range(count)
    ]
    (folder / "samples.json").write_text(json.dumps({"version": 1, "label_names": ["-"], "samples": rows}))
    return path


def uniform(shape: Sequence[int], *, low: float = -4.0, high: float = 4.0, seed: int = 1) -> NDArray[Any]:
    """Random float32 numbers, the same at every run."""
    return np.random.default_rng(seed).uniform(low, high, tuple(shape)).astype(np.float32)
