"""Trees as tensor operators: all comparisons at once, one sum a leaf, one product with the leaves' values.

Every inner node compares a feature with a threshold. A leaf is reached when the comparisons on its path turn
out as the path says. Counting +1 for each that has to be true and is, and -1 for each that must not be and
is, gives the number of the former at the leaf that is reached, and less at every other. Less all but one of
them, Relu leaves 1 there and 0 elsewhere.

That is the known form of trees as matrix products, but for its two selecting matrices, which are Gather here:
in a circuit a product with a matrix of zeros and ones costs a row for each of its entries, and picking by
fixed places costs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from proofhold.compile.errors import CompileError
from proofhold.compile.passes.rewriting import Rewriting, attributes_of

MAX_LEAVES = 65_536

Comparison: TypeAlias = tuple[str, int, float]
"""A key of `_OPERATORS`, the feature's place, the threshold."""

_OPERATORS = {"EQ": "Equal", "GT": "Greater", "LT": "Less"}
_MODES: Mapping[str, tuple[str, bool]] = {
    "BRANCH_LEQ": ("GT", False),
    "BRANCH_LT": ("LT", True),
    "BRANCH_GTE": ("LT", False),
    "BRANCH_GT": ("GT", True),
    "BRANCH_EQ": ("EQ", True),
    "BRANCH_NEQ": ("EQ", False),
}
"""Each way to branch as one of three comparisons, and whether it has to hold for the true branch."""
_AVERAGE, _SUM = 0, 1


@dataclass(frozen=True, slots=True)
class Leaf:
    """What one leaf adds to each target, and the comparisons on its path with the outcome each must have."""

    weights: Mapping[int, float]
    path: tuple[tuple[Comparison, bool], ...]


@dataclass(frozen=True, slots=True)
class _Branch:
    comparison: Comparison
    holds: tuple[str, int]
    """What follows where it holds: a node, or a leaf, and which."""
    fails: tuple[str, int]


def leaf_values(leaves: tuple[Leaf, ...], targets: int) -> NDArray[np.float64]:
    """Give the leaves' weights as [leaves, targets]."""
    values = np.zeros((len(leaves), targets))
    for row, leaf in enumerate(leaves):
        for target, weight in leaf.weights.items():
            values[row, target] += weight
    return values


def add_scores(
    build: Rewriting,
    source: str,
    leaves: tuple[Leaf, ...],
    values: NDArray[np.float64],
    base: NDArray[np.float64],
    output: str,
) -> None:
    """Add operators that give `base` plus the `values` ([leaves, columns]) of all leaves that are reached."""
    order = {c: i for i, c in enumerate(sorted({c for leaf in leaves for c, _ in leaf.path}))}
    if not order:
        # Single leaves: a constant, that has a row for each row of the input all the same.
        first = build.add("Gather", source, build.tensor([0]), axis=1)
        nothing = build.add("MatMul", first, build.tensor(np.zeros((1, values.shape[1]), np.float32)))
        build.add("Add", nothing, build.tensor((base + values.sum(axis=0)).astype(np.float32)), output=output)
        return
    truths = list(_compare(build, source, order))
    every = truths[0] if len(truths) == 1 else build.add("Concat", *truths, axis=1)
    depth = max(len(leaf.path) for leaf in leaves)
    places = np.zeros((len(leaves), depth), np.int64)
    turns = np.zeros((1, len(leaves), depth), np.float32)
    for row, leaf in enumerate(leaves):
        for column, (comparison, holds) in enumerate(leaf.path):
            places[row, column] = order[comparison]
            turns[0, row, column] = 1.0 if holds else -1.0
    on_path = build.add("Gather", every, build.tensor(places), axis=1)
    counted = build.reduce("ReduceSum", build.add("Mul", on_path, build.tensor(turns)), [2], keep=False)
    all_but_one = (turns > 0).sum(axis=2).astype(np.float32) - 1
    reached = build.add("Relu", build.add("Sub", counted, build.tensor(all_but_one)))
    product = build.add("MatMul", reached, build.tensor(values.astype(np.float32)))
    build.add("Add", product, build.tensor(base.astype(np.float32)), output=output)


def _compare(build: Rewriting, source: str, order: Mapping[Comparison, int]) -> Iterator[str]:
    """Add the comparisons, those of one operator together: `order` has them in this order."""
    for kind, operator in _OPERATORS.items():
        mine = [(feature, threshold) for key, feature, threshold in order if key == kind]
        if mine:
            features = build.tensor([feature for feature, _ in mine])
            thresholds = build.tensor(np.array([[threshold for _, threshold in mine]], np.float32))
            picked = build.add("Gather", source, features, axis=1)
            yield build.add("Cast", build.add(operator, picked, thresholds), to=TensorProto.FLOAT)


def read_ensemble(node: onnx.NodeProto) -> tuple[tuple[Leaf, ...], int]:
    """Read a ``TreeEnsembleClassifier`` or ``TreeEnsembleRegressor``: its leaves, and how many targets.

    Raises:
        CompileError: ``compile.trees``: attributes that contradict each other, or ask for what is not known.

    """
    values = attributes_of(node)
    prefix = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    if "nodes_values_as_tensor" in values or f"{prefix}_weights_as_tensor" in values:
        raise _error(node, "trees with float64 thresholds or weights")
    aggregate = values.get("aggregate_function", b"SUM")
    if aggregate not in (b"SUM", b"AVERAGE"):
        raise _error(node, f"aggregate function {aggregate!r}")
    trees, identities = values.get("nodes_treeids", []), values.get("nodes_nodeids", [])
    place = {key: index for index, key in enumerate(zip(trees, identities, strict=False))}
    columns = ("modes", "featureids", "values", "truenodeids", "falsenodeids")
    rows = list(zip(*(values.get(f"nodes_{column}", []) for column in columns), strict=False))
    if not rows or len(rows) != len(trees) or len(place) != len(rows):
        raise _error(node, "lists of nodes that differ in length, or two nodes of one name")
    branches: dict[int, _Branch] = {}
    for index, (mode, feature, threshold, true, false) in enumerate(rows):
        if mode == b"LEAF":
            continue
        ends = [place.get((trees[index], end)) for end in (true, false)]
        if None in ends:
            raise _error(node, "a branch to a node that is not there")
        branches[index] = _branch(node, mode.decode(), feature, threshold, *(("node", end) for end in ends))
    weights: dict[int, dict[int, float]] = {}
    ids = zip(
        *(values.get(f"{prefix}_{c}", []) for c in ("treeids", "nodeids", "ids", "weights")), strict=False
    )
    trees_count = len(set(trees)) if aggregate == b"AVERAGE" else 1
    for tree, identity, target, weight in ids:
        of_leaf = weights.setdefault(place.get((tree, identity), -1), {})
        of_leaf[target] = of_leaf.get(target, 0.0) + weight / trees_count
    roots = [index for index in range(len(rows)) if index == 0 or trees[index] != trees[index - 1]]
    targets = values.get("n_targets") or max((t for w in weights.values() for t in w), default=0) + 1
    leaves = [leaf for root in roots for leaf in _leaves(node, ("node", root), branches, weights)]
    return tuple(leaves), int(targets)


def read_ensemble_5(node: onnx.NodeProto) -> tuple[tuple[Leaf, ...], int]:
    """Read a ``TreeEnsemble`` of ai.onnx.ml version 5; raises as `read_ensemble` does."""
    values = attributes_of(node)
    aggregate = values.get("aggregate_function", _SUM)
    if aggregate not in (_AVERAGE, _SUM):
        raise _error(node, f"aggregate function {aggregate}")
    modes = numpy_helper.to_array(values["nodes_modes"]).ravel().tolist()
    splits = numpy_helper.to_array(values["nodes_splits"]).ravel().tolist()
    columns = [values[f"nodes_{c}"] for c in ("truenodeids", "trueleafs", "falsenodeids", "falseleafs")]
    rows = list(zip(modes, values["nodes_featureids"], splits, *columns, strict=False))
    if len(rows) != len(modes):
        raise _error(node, "lists of nodes that differ in length")
    branches = {}
    for index, (mode, feature, threshold, true, true_leaf, false, false_leaf) in enumerate(rows):
        if not 0 <= mode < len(_MODES):
            raise _error(node, "branches on membership of a set")
        ends = (("leaf" if true_leaf else "node", true), ("leaf" if false_leaf else "node", false))
        branches[index] = _branch(node, list(_MODES)[mode], feature, threshold, *ends)
    trees = values["tree_roots"]
    share = len(trees) if aggregate == _AVERAGE else 1
    amounts = numpy_helper.to_array(values["leaf_weights"]).ravel().tolist()
    weights = {
        index: {target: amount / share}
        for index, (target, amount) in enumerate(zip(values["leaf_targetids"], amounts, strict=False))
    }
    leaves = [leaf for root in trees for leaf in _leaves(node, ("node", root), branches, weights)]
    return tuple(leaves), int(values.get("n_targets", 1))


def _branch(
    node: onnx.NodeProto,
    mode: str,
    feature: int,
    threshold: float,
    true: tuple[str, Any],
    false: tuple[str, Any],
) -> _Branch:
    if mode not in _MODES:
        raise _error(node, f"mode {mode[:40]!r}")
    kind, holds_for_true = _MODES[mode]
    ends = (true, false) if holds_for_true else (false, true)
    return _Branch((kind, int(feature), float(threshold)), *ends)


def _leaves(
    node: onnx.NodeProto,
    root: tuple[str, int],
    branches: Mapping[int, _Branch],
    weights: Mapping[int, Mapping[int, float]],
) -> Iterator[Leaf]:
    """Walk one tree. A node with no branch is a leaf: the older operators number them alike."""
    open_paths: list[tuple[tuple[str, int], tuple[tuple[Comparison, bool], ...]]] = [(root, ())]
    found = 0
    while open_paths:
        (kind, index), path = open_paths.pop()
        branch = branches.get(index) if kind == "node" else None
        if branch is None:
            yield Leaf(weights.get(index, {}), path)
            found += 1
            continue
        if found + len(open_paths) > MAX_LEAVES or len(path) > len(branches):
            raise _error(node, f"more than {MAX_LEAVES} leaves, or branches in a circle")
        open_paths += [
            (branch.fails, (*path, (branch.comparison, False))),
            (branch.holds, (*path, (branch.comparison, True))),
        ]


def _error(node: onnx.NodeProto, what: str) -> CompileError:
    return CompileError("compile.trees", what, node=node.name, operator=node.op_type)
