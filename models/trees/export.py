"""Train the boosted trees and write model.onnx and samples.json beside this file.

    python models/trees/export.py [--out FOLDER]

Twenty trees of depth three as tensor operators, float32, one logit out. card.md describes data and domain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import GradientBoostingClassifier
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from digit_images import SAMPLES, SEED, Images, held_out_images, split  # noqa: E402
from onnx_export import Floats, network, run, save_model, save_samples, weights  # noqa: E402

INPUT_NAME = "pixels"
TREES = 20
DEPTH = 3
LEARNING_RATE = 0.4
LABEL_NAMES = ("even", "odd")


def features(images: Images) -> Floats:
    """The pixels row by row: multiples of 1/16, between which every threshold lies."""
    return images.reshape(len(images), -1).astype(np.float32)


def held_out(count: int) -> Floats:
    """`count` inputs that neither trained the model nor calibrated its circuit."""
    return features(held_out_images(count))


def as_tensor_operators(trees: list[Any], prior: float, pixels: int) -> onnx.ModelProto:
    """One row of comparisons, one sum a leaf, one product with the leaves' values.

    Every inner node compares one pixel with its threshold: 1 for the left branch. A leaf is reached when all
    left turns on its path are taken and no right one: the sum of its path's comparisons, +1 where it turns
    left and -1 where it turns right, is then the number of left turns, and lower at every other leaf. Less
    all but one of them, Relu leaves 1 at the leaf that is reached and 0 elsewhere.

    That is the usual form of trees as matrix products, with its two selecting matrices written as Gather: in
    a circuit a product with a matrix of zeros and ones costs a row for each of its entries, and picking by
    fixed indices costs none.
    """
    pixel: list[int] = []
    thresholds: list[float] = []
    paths: list[list[tuple[int, int]]] = []
    values: list[float] = []
    for tree in trees:
        open_paths: list[tuple[int, list[tuple[int, int]]]] = [(0, [])]
        while open_paths:
            node, path = open_paths.pop()
            if tree.feature[node] < 0:
                paths.append(path)
                values.append(LEARNING_RATE * tree.value[node].item())
                continue
            comparison = len(pixel)
            pixel.append(int(tree.feature[node]))
            thresholds.append(float(tree.threshold[node]))
            open_paths += [
                (int(tree.children_right[node]), [*path, (comparison, -1)]),
                (int(tree.children_left[node]), [*path, (comparison, 1)]),
            ]
    # A leaf nearer to the root counts its last comparisons for nothing.
    nodes_of_leaf = np.zeros((len(paths), DEPTH), dtype=np.int64)
    turns = np.zeros((1, len(paths), DEPTH))
    for leaf, path in enumerate(paths):
        for place, (comparison, turn) in enumerate(path):
            nodes_of_leaf[leaf, place], turns[0, leaf, place] = comparison, turn
    all_but_one = (turns > 0).sum(axis=2) - 1
    return network(
        [
            helper.make_node("Gather", [INPUT_NAME, "pixel"], ["picked"], name="pick", axis=1),
            helper.make_node("LessOrEqual", ["picked", "thresholds"], ["is_left"], name="compare"),
            helper.make_node("Cast", ["is_left"], ["left"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("Gather", ["left", "nodes_of_leaf"], ["on_path"], name="follow", axis=1),
            helper.make_node("Mul", ["on_path", "turns"], ["turned"], name="turn"),
            helper.make_node("ReduceSum", ["turned", "places"], ["taken"], name="count", keepdims=0),
            helper.make_node("Sub", ["taken", "all_but_one"], ["excess"], name="compare_count"),
            helper.make_node("Relu", ["excess"], ["reached"], name="reach"),
            helper.make_node("MatMul", ["reached", "values"], ["boost"], name="value"),
            helper.make_node("Add", ["boost", "prior"], ["logits"], name="add"),
        ],
        [
            numpy_helper.from_array(np.array(pixel, dtype=np.int64), "pixel"),
            weights("thresholds", [thresholds]),
            numpy_helper.from_array(nodes_of_leaf, "nodes_of_leaf"),
            weights("turns", turns),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "places"),
            weights("all_but_one", all_but_one),
            weights("values", np.reshape(values, (-1, 1))),
            weights("prior", [[prior]]),
        ],
        graph_name="trees",
        input_name=INPUT_NAME,
        input_shape=[1, pixels],
        logits=1,
    )


def export(out: Path) -> float:
    """Write the files into `out`; returns the accuracy of the exported weights on the held-out part."""
    data = split()
    boosted = GradientBoostingClassifier(
        n_estimators=TREES, max_depth=DEPTH, learning_rate=LEARNING_RATE, random_state=SEED
    )
    with threadpool_limits(limits=1):
        boosted.fit(features(data.train), data.train_labels % 2)
    share = float(np.mean(data.train_labels % 2))
    prior = float(np.log(share / (1 - share)))
    held, labels = features(data.held_out), data.held_out_labels % 2
    model = as_tensor_operators([tree.tree_ for tree in boosted.estimators_[:, 0]], prior, held.shape[1])
    made = run(model, held)[:, 0]
    if not np.allclose(made, boosted.decision_function(held), atol=TREES * 2.0**-13):
        raise ValueError("the exported trees are not the trained ones")
    save_model(model, out / "model.onnx")
    save_samples(
        out / "samples.json",
        input_name=INPUT_NAME,
        inputs=held[:SAMPLES],
        labels=labels[:SAMPLES],
        label_names=LABEL_NAMES,
    )
    return float(np.mean((made > 0) == labels))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    print(f"held-out accuracy {export(parser.parse_args().out):.4f}")
