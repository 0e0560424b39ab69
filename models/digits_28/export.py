"""Train the classifier of enlarged digits and write model.onnx and samples.json beside this file.

    python models/digits_28/export.py [--out FOLDER]

A multilayer perceptron 784-128-10, float32, ten logits out. card.md describes data and domain.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from digit_images import SEED, Images, held_out_images, split, upsample  # noqa: E402
from onnx_export import Floats, dense_network, forward, save_model, save_samples  # noqa: E402

INPUT_NAME = "pixels"
ENLARGED = 28
HIDDEN = 128
EPOCHS = 20
SAMPLES = 64


def features(images: Images) -> Floats:
    """The images at 28 × 28, row by row."""
    return upsample(images, ENLARGED).reshape(-1, ENLARGED * ENLARGED).astype(np.float32)


def held_out(count: int) -> Floats:
    """`count` inputs that neither trained the model nor calibrated its circuit."""
    return features(held_out_images(count))


def export(out: Path) -> float:
    """Write the files into `out`; returns the accuracy of the exported weights on the held-out part."""
    data = split()
    network = MLPClassifier(
        hidden_layer_sizes=(HIDDEN,),
        activation="relu",
        solver="adam",
        alpha=1e-3,
        batch_size=64,
        learning_rate_init=2e-3,
        max_iter=EPOCHS,
        # A fixed number of epochs: a stopping rule would turn a difference in the last bit into another run.
        n_iter_no_change=EPOCHS,
        random_state=SEED,
    )
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # In float64, though the features are exact in float32: rounding would grow with every step.
        network.fit(features(data.train).astype(np.float64), data.train_labels)
    layers = list(zip(network.coefs_, network.intercepts_, strict=True))
    held = features(data.held_out)
    save_model(dense_network(layers, graph_name="digits_28", input_name=INPUT_NAME), out / "model.onnx")
    save_samples(
        out / "samples.json",
        input_name=INPUT_NAME,
        inputs=held[:SAMPLES],
        labels=data.held_out_labels[:SAMPLES],
        label_names=[str(digit) for digit in range(10)],
    )
    return float(np.mean(forward(layers, held).argmax(axis=1) == data.held_out_labels))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    print(f"held-out accuracy {export(parser.parse_args().out):.4f}")
