"""Train LeNet on enlarged digits and write model.onnx and samples.json beside this file.

    python models/lenet/export.py [--out FOLDER]

LeNet-5 with Relu and average pooling, float32, ten logits out. card.md describes data and domain. It takes
PyTorch to train: models/torch_training.py says how to get it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from digit_images import SEED, Images, held_out_images, split, upsample  # noqa: E402
from onnx_export import Floats, network, run, save_model, save_samples, weights  # noqa: E402

INPUT_NAME = "pixels"
ENLARGED = 28
EPOCHS = 12
SAMPLES = 64


def features(images: Images) -> Floats:
    """The images at 28 × 28, with one channel."""
    return upsample(images, ENLARGED)[:, np.newaxis].astype(np.float32)


def held_out(count: int) -> Floats:
    """`count` inputs that neither trained the model nor calibrated its circuit."""
    return features(held_out_images(count))


def trained() -> dict[str, np.ndarray]:
    """The parameters by name: number of the layer, then ``weight`` or ``bias``."""
    import torch
    from torch_training import train

    def make() -> torch.nn.Module:
        nn = torch.nn
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        )

    data = split()
    rows = features(data.train).astype(np.float64)
    return train(make, rows, data.train_labels, epochs=EPOCHS, learning_rate=2e-3, seed=SEED)


def as_model(parameters: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The network as ONNX: two convolutions, three dense layers."""
    nodes, constants, current = [], [], INPUT_NAME
    for index, layer in ((0, "0"), (1, "3")):
        constants += [
            weights(f"kernel_{index}", parameters[f"{layer}.weight"]),
            weights(f"kernel_bias_{index}", parameters[f"{layer}.bias"]),
        ]
        nodes += [
            helper.make_node(
                "Conv",
                [current, f"kernel_{index}", f"kernel_bias_{index}"],
                [f"map_{index}"],
                name=f"conv_{index}",
                kernel_shape=[5, 5],
                strides=[1, 1],
            ),
            helper.make_node("Relu", [f"map_{index}"], [f"lit_{index}"], name=f"relu_map_{index}"),
            helper.make_node(
                "AveragePool",
                [f"lit_{index}"],
                [f"pool_{index}"],
                name=f"pool_{index}",
                kernel_shape=[2, 2],
                strides=[2, 2],
            ),
        ]
        current = f"pool_{index}"
    nodes.append(helper.make_node("Flatten", [current], ["flat"], name="flatten"))
    current = "flat"
    for index, layer in enumerate(("7", "9", "11")):
        last = index == 2
        total = "logits" if last else f"sum_{index}"
        constants += [
            weights(f"weights_{index}", parameters[f"{layer}.weight"].T),
            weights(f"bias_{index}", parameters[f"{layer}.bias"]),
        ]
        nodes += [
            helper.make_node(
                "MatMul", [current, f"weights_{index}"], [f"product_{index}"], name=f"matmul_{index}"
            ),
            helper.make_node("Add", [f"product_{index}", f"bias_{index}"], [total], name=f"add_{index}"),
        ]
        current = total
        if not last:
            current = f"hidden_{index}"
            nodes.append(helper.make_node("Relu", [total], [current], name=f"relu_{index}"))
    return network(
        nodes,
        constants,
        graph_name="lenet",
        input_name=INPUT_NAME,
        input_shape=[1, 1, ENLARGED, ENLARGED],
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
