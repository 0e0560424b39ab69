"""Train the breast cancer classifier: model.onnx, samples.json and standardisation.json beside this file.

    python models/breast_cancer/export.py [--out FOLDER]

Logistic regression on standardised features, float32, one logit out. card.md describes data and domain.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from onnx_export import Floats, dense_network, forward, save_model, save_samples  # noqa: E402

SEED = 20261123
INPUT_NAME = "features"
DOMAIN = 16.0
"""Inputs lie within this on either side, as model.toml says."""


def split() -> tuple[Any, Any, Any, Any]:
    """Features to train with and held out, then labels to train with and held out."""
    data = load_breast_cancer()
    return tuple(
        train_test_split(data.data, data.target, test_size=0.2, random_state=SEED, stratify=data.target)
    )


def held_out(count: int) -> Floats:
    """`count` inputs that neither trained the model nor calibrated its circuit.

    All 114 held-out rows calibrate, so these are made of them: each a row with a tenth of a standard
    deviation of noise on each feature.
    """
    train_x, held_x, *_ = split()
    rows = StandardScaler().fit(train_x).transform(held_x)
    draw = np.random.default_rng(SEED)
    noisy = rows[draw.integers(len(rows), size=count)] + draw.normal(scale=0.1, size=(count, rows.shape[1]))
    return np.clip(noisy, -DOMAIN, DOMAIN).astype(np.float32)


def export(out: Path) -> float:
    """Write the files into `out`; returns the accuracy of the exported weights on the held-out part."""
    data = load_breast_cancer()
    train_x, held_x, train_y, held_y = split()
    scaler = StandardScaler().fit(train_x)
    with threadpool_limits(limits=1):
        # Newton's method to a tolerance far below the weight grid: the result is the optimum itself, not
        # wherever a first-order solver happened to stop.
        fitted = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=200, C=1.0).fit(
            scaler.transform(train_x), train_y
        )
    layers = [(fitted.coef_.T, fitted.intercept_)]
    held = scaler.transform(held_x).astype(np.float32)
    save_model(dense_network(layers, graph_name="breast_cancer", input_name=INPUT_NAME), out / "model.onnx")
    save_samples(
        out / "samples.json",
        input_name=INPUT_NAME,
        inputs=held,
        labels=held_y,
        label_names=[str(name) for name in data.target_names],
    )
    save_standardisation(out / "standardisation.json", data.feature_names, scaler)
    return float(np.mean((forward(layers, held)[:, 0] > 0) == (held_y == 1)))


def save_standardisation(path: Path, names: Sequence[str], scaler: StandardScaler) -> None:
    """Write what turns a raw feature into the model's input: (raw - mean) / scale."""
    rows = [
        # Ten digits: as far as two machines agree about a sum.
        json.dumps({"feature": str(name), "mean": float(f"{mean:.10g}"), "scale": float(f"{scale:.10g}")})
        for name, mean, scale in zip(names, scaler.mean_, scaler.scale_, strict=True)
    ]
    path.write_text('{"version": 1, "features": [\n' + ",\n".join(rows) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    print(f"held-out accuracy {export(parser.parse_args().out):.4f}")
