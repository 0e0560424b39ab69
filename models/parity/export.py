"""Train the parity classifier and write model.onnx and samples.json beside this file.

    python models/parity/export.py [--out FOLDER]

A multilayer perceptron 16-32-2, float32, two logits out. card.md describes data and domain.
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

from digit_images import SAMPLES, SEED, SIDE, Images, held_out_images, split  # noqa: E402
from onnx_export import Floats, dense_network, forward, save_model, save_samples  # noqa: E402

INPUT_NAME = "blocks"
HIDDEN = 32
EPOCHS = 120
LABEL_NAMES = ("even", "odd")


def features(images: Images) -> Floats:
    """The mean grey value of each block of 2 × 2 pixels, row by row: multiples of 1/64."""
    half = SIDE // 2
    return images.reshape(-1, half, 2, half, 2).mean(axis=(2, 4)).reshape(-1, half * half).astype(np.float32)


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
        learning_rate_init=5e-3,
        max_iter=EPOCHS,
        # A fixed number of epochs: a stopping rule would turn a difference in the last bit into another run.
        n_iter_no_change=EPOCHS,
        random_state=SEED,
    )
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # One column a class: of a vector of two classes scikit-learn would make one logit.
        network.fit(features(data.train).astype(np.float64), np.eye(2, dtype=int)[data.train_labels % 2])
    layers = list(zip(network.coefs_, network.intercepts_, strict=True))
    held, labels = features(data.held_out), data.held_out_labels % 2
    save_model(dense_network(layers, graph_name="parity", input_name=INPUT_NAME), out / "model.onnx")
    save_samples(
        out / "samples.json",
        input_name=INPUT_NAME,
        inputs=held[:SAMPLES],
        labels=labels[:SAMPLES],
        label_names=LABEL_NAMES,
    )
    return float(np.mean(forward(layers, held).argmax(axis=1) == labels))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    print(f"held-out accuracy {export(parser.parse_args().out):.4f}")
