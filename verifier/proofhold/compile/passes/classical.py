"""The operators of ``ai.onnx.ml``, with which scikit-learn is exported, as tensor operators.

Each rule follows the operator's specification, and onnxruntime where that leaves something open: a
classifier of two classes with one score gives two columns, for instance.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from proofhold.compile.errors import CompileError
from proofhold.compile.passes.fixed_axes import with_inferred_outputs
from proofhold.compile.passes.rewriting import ML_DOMAIN, Rewriting, Rule, attributes_of
from proofhold.compile.passes.trees import add_scores, leaf_values, read_ensemble, read_ensemble_5

_CLASSIFIERS = ("LinearClassifier", "TreeEnsembleClassifier")
_POST_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def rewrite_classical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy without operators of ``ai.onnx.ml``, or the model itself if it has none.

    Raises:
        CompileError: ``compile.unsupported``, ``compile.trees``: naming the node.

    """
    foreign = [node for node in model.graph.node if node.domain == ML_DOMAIN]
    if not foreign:
        return model
    rules: dict[tuple[str, str], Rule] = {(ML_DOMAIN, name): rule for name, rule in _RULES.items()}
    for node in foreign:
        if node.op_type not in (*_RULES, "Normalizer"):
            raise _refusal(node, "is not known here")
    shares = {n.output[1] for n in foreign if n.op_type in _CLASSIFIERS and _transform(n) == "SOFTMAX"}
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    for node in foreign:
        if node.op_type in _CLASSIFIERS and node.output[0] in used:
            raise _refusal(node, "gives a label that the model goes on to use")
    rules[ML_DOMAIN, "Normalizer"] = functools.partial(_normalizer, shares)
    changed = Rewriting(model).replace(rules)
    made = {name for node in foreign for name in node.output}
    for value in changed.graph.output:
        # What was inferred of the operator before may be wrong: inference knows little of this domain.
        if value.name in made:
            value.type.tensor_type.ClearField("shape")
    return with_inferred_outputs(changed)


def _linear_classifier(build: Rewriting, node: onnx.NodeProto) -> None:
    values = attributes_of(node)
    classes = len(values.get("classlabels_ints", [])) or len(values.get("classlabels_strings", []))
    intercepts = np.array(values.get("intercepts", []), np.float64)
    rows = len(intercepts) or classes
    weights = _matrix(node, values["coefficients"], rows)
    bias = intercepts if len(intercepts) else np.zeros(rows)
    if rows == 1 and classes == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    _linear(build, node, weights, bias, node.output[1])


def _linear_regressor(build: Rewriting, node: onnx.NodeProto) -> None:
    values = attributes_of(node)
    targets = int(values.get("targets", 1))
    bias = np.array(values.get("intercepts", [0.0] * targets), np.float64)
    _linear(build, node, _matrix(node, values["coefficients"], targets), bias, node.output[0])


def _linear(build: Rewriting, node: onnx.NodeProto, weights: Any, bias: Any, output: str) -> None:
    product = build.add("MatMul", node.input[0], build.tensor(weights.T.astype(np.float32)))
    scores = _before_transform(build, node, output)
    build.add("Add", product, build.tensor(bias.astype(np.float32)), output=scores)
    _add_transform(build, node, scores, output)


def _tree_classifier(build: Rewriting, node: onnx.NodeProto) -> None:
    values = attributes_of(node)
    leaves, _ = read_ensemble(node)
    classes = len(values.get("classlabels_int64s", [])) or len(values.get("classlabels_strings", []))
    scores = leaf_values(leaves, classes)
    base = np.zeros(classes)
    given = values.get("base_values", [])
    voted = sorted(set(values["class_ids"]))
    if classes == 2 and len(voted) == 1:
        # One score for two classes: onnxruntime takes the complement of a share, or else the negative.
        score, offset = scores[:, voted[0]], float(given[0]) if len(given) else 0.0
        scores = np.stack([-score, score], axis=1)
        shares = all(weight >= 0 for weight in values["class_weights"])
        base = np.array([1.0 - offset if shares else -offset, offset])
        if shares and _transform(node) != "NONE":
            raise _refusal(node, "transforms shares of votes")
    elif classes == 2 and np.any(given):
        raise _refusal(node, "has base values for two classes that both are voted for")
    elif len(given) == classes:
        base = np.array(given, np.float64)
    elif len(given):
        raise _refusal(node, f"has {len(given)} base values for {classes} classes")
    output = node.output[1]
    before = _before_transform(build, node, output)
    add_scores(build, node.input[0], leaves, scores, base, before)
    _add_transform(build, node, before, output)


def _tree_regressor(build: Rewriting, node: onnx.NodeProto) -> None:
    leaves, targets = read_ensemble(node)
    given = attributes_of(node).get("base_values", [])
    base = np.array(given if len(given) else np.zeros(targets), np.float64)
    _add_forest(build, node, leaves, leaf_values(leaves, targets), base)


def _tree_ensemble(build: Rewriting, node: onnx.NodeProto) -> None:
    leaves, targets = read_ensemble_5(node)
    _add_forest(build, node, leaves, leaf_values(leaves, targets), np.zeros(targets))


def _add_forest(build: Rewriting, node: onnx.NodeProto, leaves: Any, values: Any, base: Any) -> None:
    output = node.output[0]
    before = _before_transform(build, node, output)
    add_scores(build, node.input[0], leaves, values, base, before)
    _add_transform(build, node, before, output)


def _scaler(build: Rewriting, node: onnx.NodeProto) -> None:
    values = attributes_of(node)
    offset, scale = (np.array(values.get(key, [default]), np.float32) for key, default in _SCALER)
    moved = build.add("Sub", node.input[0], build.tensor(offset))
    build.add("Mul", moved, build.tensor(scale), output=node.output[0])


_SCALER = (("offset", 0.0), ("scale", 1.0))


def _normalizer(shares: set[str], build: Rewriting, node: onnx.NodeProto) -> None:
    source, norm = node.input[0], attributes_of(node).get("norm", b"MAX")
    if norm == b"L1" and source in shares:
        # They add up to 1 already.
        build.add("Identity", source, output=node.output[0])
        return
    if norm == b"L1":
        length = build.reduce("ReduceSum", build.add("Abs", source), [1])
    elif norm == b"L2":
        squares = build.reduce("ReduceSum", build.add("Mul", source, source), [1])
        length = build.add("Sqrt", squares)
    elif norm == b"MAX":
        length = build.reduce("ReduceMax", source, [1])
    else:
        raise _refusal(node, f"has norm {norm[:20]!r}")
    build.add("Div", source, length, output=node.output[0])


def _binarizer(build: Rewriting, node: onnx.NodeProto) -> None:
    threshold = build.tensor(np.float32(attributes_of(node).get("threshold", 0.0)))
    above = build.add("Greater", node.input[0], threshold)
    build.add("Cast", above, output=node.output[0], to=TensorProto.FLOAT)


def _feature_vectorizer(build: Rewriting, node: onnx.NodeProto) -> None:
    build.add("Concat", *node.input, output=node.output[0], axis=1)


def _imputer(build: Rewriting, node: onnx.NodeProto) -> None:
    replaced = attributes_of(node).get("replaced_value_float", 0.0)
    if not np.isnan(replaced):
        raise _refusal(node, "replaces a number")
    # No input of a domain is NaN.
    build.add("Identity", node.input[0], output=node.output[0])


def _matrix(node: onnx.NodeProto, coefficients: Any, rows: int) -> Any:
    flat = np.array(coefficients, np.float64)
    if rows < 1 or flat.size % rows:
        raise _refusal(node, f"has {flat.size} coefficients for {rows} rows")
    return flat.reshape(rows, -1)


def _transform(node: onnx.NodeProto) -> str:
    given = attributes_of(node).get("post_transform", b"NONE")
    if isinstance(given, int):
        return _POST_TRANSFORMS[given] if 0 <= given < len(_POST_TRANSFORMS) else "unknown"
    return str(given.decode(errors="replace"))


def _before_transform(build: Rewriting, node: onnx.NodeProto, output: str) -> str:
    """Name the scores: they are the output itself where no transform follows."""
    return output if _transform(node) == "NONE" else build.fresh("scores")


def _add_transform(build: Rewriting, node: onnx.NodeProto, scores: str, output: str) -> None:
    transform = _transform(node)
    if transform == "LOGISTIC":
        build.add("Sigmoid", scores, output=output)
    elif transform == "SOFTMAX":
        build.add("Softmax", scores, output=output, axis=1)
    elif transform != "NONE":
        raise _refusal(node, f"has the post-transform {transform[:20]}")


def _refusal(node: onnx.NodeProto, what: str) -> CompileError:
    return CompileError(
        "compile.unsupported", f"{node.op_type[:40]} {what}", node=node.name, operator=node.op_type
    )


_RULES: Mapping[str, Rule] = {
    "Binarizer": _binarizer,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Scaler": _scaler,
    "TreeEnsemble": _tree_ensemble,
    "TreeEnsembleClassifier": _tree_classifier,
    "TreeEnsembleRegressor": _tree_regressor,
}
