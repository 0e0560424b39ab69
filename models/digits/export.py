"""Train the digit classifier and write model.onnx and samples.json beside this file.

    python models/digits/export.py [--out FOLDER]

A multilayer perceptron 64-32-10, float32, ten logits out. card.md describes data and domain.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from digit_images import GREY_LEVELS, SAMPLES, SEED, held_out_images  # noqa: E402
from onnx_export import Floats, dense_network, forward, save_model, save_samples  # noqa: E402

INPUT_NAME = "pixels"
HIDDEN = 32
EPOCHS = 60


def held_out(count: int) -> Floats:
    """`count` inputs that neither trained the model nor calibrated its circuit."""
    return held_out_images(count).reshape(count, -1).astype(np.float32)


def export(out: Path) -> float:
    """Write the files into `out`; returns the accuracy of the exported weights on the held-out part."""
    data = load_digits()
    pixels = data.data / GREY_LEVELS
    train_x, held_x, train_y, held_y = train_test_split(
        pixels, data.target, test_size=0.2, random_state=SEED, stratify=data.target
    )
    network = MLPClassifier(
        hidden_layer_sizes=(HIDDEN,),
        activation="relu",
        solver="adam",
        alpha=1e-3,
        batch_size=64,
        learning_rate_init=5e-3,
        max_iter=EPOCHS,
        # A fixed number of epochs: a stopping rule would turn a difference in the last bit into another run.
        n_iter_no_change=EPOCHS,
        random_state=SEED,
    )
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(train_x, train_y)
    layers = list(zip(network.coefs_, network.intercepts_, strict=True))
    held = held_x.astype(np.float32)
    save_model(dense_network(layers, graph_name="digits", input_name=INPUT_NAME), out / "model.onnx")
    save_samples(
        out / "samples.json",
        input_name=INPUT_NAME,
        inputs=held[:SAMPLES],
        labels=held_y[:SAMPLES],
        label_names=[str(name) for name in data.target_names],
    )
    return float(np.mean(forward(layers, held).argmax(axis=1) == held_y))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    print(f"held-out accuracy {export(parser.parse_args().out):.4f}")
