"""Train a transformer block on the rows of digits and write model.onnx and samples.json beside this file.

    python models/transformer/export.py [--out FOLDER]

Eight tokens of width 16, one head, float32, ten logits out. card.md describes data and domain. It takes
PyTorch to train: models/torch_training.py says how to get it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from digit_images import SAMPLES, SEED, SIDE, Images, held_out_images, split  # noqa: E402
from onnx_export import Floats, network, run, save_model, save_samples, weights  # noqa: E402

if TYPE_CHECKING:
    import torch

INPUT_NAME = "rows"
WIDTH = 16
HIDDEN = 32
EPSILON = 1e-5
EPOCHS = 60


def features(images: Images) -> Floats:
    """One token a row of pixels, from top to bottom."""
    return images.astype(np.float32)


def held_out(count: int) -> Floats:
    """`count` inputs that neither trained the model nor calibrated its circuit."""
    return features(held_out_images(count))


def trained() -> dict[str, np.ndarray]:
    """The parameters by name."""
    import torch
    from torch_training import train

    nn = torch.nn

    class Block(nn.Module):
        """Embedding, one attention head, one perceptron, each behind a normalisation and a shortcut."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(SIDE, WIDTH)
            self.position = nn.Parameter(torch.randn(SIDE, WIDTH) * 0.1)
            self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH, eps=EPSILON), nn.LayerNorm(WIDTH, eps=EPSILON)
            self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.value, self.join = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.wide, self.narrow = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
            self.read = nn.Linear(WIDTH, 10)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            tokens = self.embed(rows) + self.position
            seen = self.norm_1(tokens)
            scores = self.query(seen) @ self.key(seen).transpose(1, 2) / WIDTH**0.5
            tokens = tokens + self.join(scores.softmax(dim=2) @ self.value(seen))
            tokens = tokens + self.narrow(self.wide(self.norm_2(tokens)).relu())
            return self.read(tokens.mean(dim=1))

    data = split()
    rows = features(data.train).astype(np.float64)
    return train(Block, rows, data.train_labels, epochs=EPOCHS, learning_rate=4e-3, seed=SEED)


def as_model(parameters: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The block as ONNX; the scores' factor 1/sqrt(width) is folded into the query."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def node(operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=f"make_{output}", **attributes))
        return output

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(weights(name, values))
        return name

    def dense(layer: str, current: str, output: str, factor: float = 1.0) -> str:
        product = node("MatMul", [current, constant(f"{layer}_w", parameters[f"{layer}.weight"].T * factor)],
                       f"{output}_product")  # fmt: skip
        return node("Add", [product, constant(f"{layer}_b", parameters[f"{layer}.bias"] * factor)], output)

    def normalise(layer: str, current: str, output: str) -> str:
        scale = constant(f"{layer}_w", parameters[f"{layer}.weight"])
        shift = constant(f"{layer}_b", parameters[f"{layer}.bias"])
        return node("LayerNormalization", [current, scale, shift], output, axis=-1, epsilon=EPSILON)

    embedded = dense("embed", INPUT_NAME, "embedded")
    tokens = node("Add", [embedded, constant("position", parameters["position"])], "tokens")
    seen = normalise("norm_1", tokens, "seen")
    query, key = dense("query", seen, "queries", WIDTH**-0.5), dense("key", seen, "keys")
    turned = node("Transpose", [key], "keys_turned", perm=[0, 2, 1])
    scores = node("MatMul", [query, turned], "scores")
    attention = node("Softmax", [scores], "attention", axis=-1)
    mixed = node("MatMul", [attention, dense("value", seen, "values")], "mixed")
    attended = node("Add", [tokens, dense("join", mixed, "joined")], "attended")
    lit = node("Relu", [dense("wide", normalise("norm_2", attended, "seen_again"), "widened")], "lit")
    thought = node("Add", [attended, dense("narrow", lit, "narrowed")], "thought")
    mean = node("ReduceMean", [thought], "mean", axes=[1], keepdims=0)
    dense("read", mean, "logits")
    return network(
        nodes,
        constants,
        graph_name="transformer",
        input_name=INPUT_NAME,
        input_shape=[1, SIDE, SIDE],
        logits=10,
    )


def export(out: Path) -> float:
    """Write the files into `out`; returns the accuracy of the exported weights on the held-out part."""
    data = split()
    model = as_model(trained())
    held = features(data.held_out)
    save_model(model, out / "model.onnx")
    save_samples(
        out / "samples.json",
        input_name=INPUT_NAME,
        inputs=held[:SAMPLES],
        labels=data.held_out_labels[:SAMPLES],
        label_names=[str(digit) for digit in range(10)],
    )
    return float(np.mean(run(model, held).argmax(axis=1) == data.held_out_labels))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    print(f"held-out accuracy {export(parser.parse_args().out):.4f}")
