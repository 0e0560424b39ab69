"""Each rewriting pass gives a model that computes the same, and leaves alone what it has no business with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from proofhold.compile import CompileError
from proofhold.compile.comparison import finish, largest_difference
from proofhold.compile.derivation import Derivation, Request
from proofhold.compile.passes import derive
from proofhold.compile.passes.constants import fold_constants
from proofhold.compile.passes.tail import join
from proofhold.domain import PostProcessing
from small_models import graph_of, uniform

ARGMAX, NONE = PostProcessing.ARGMAX, PostProcessing.NONE
SIGMOID, SOFTMAX = PostProcessing.SIGMOID, PostProcessing.SOFTMAX
SHAPE = (1, 4)


def model_of(
    *nodes: onnx.NodeProto,
    shape: Sequence[int | str] = SHAPE,
    output: Sequence[int | str] | None = None,
    opset: int = 20,
    **constants: ArrayLike,
) -> onnx.ModelProto:
    return graph_of(
        nodes, inputs={"x": shape}, outputs={"y": output or shape}, constants=constants, opset=opset
    )


def classical(operator: str, outputs: Mapping[str, int], **attributes: Any) -> onnx.ModelProto:
    """A model of one operator of ai.onnx.ml; `outputs` are names and element types."""
    node = helper.make_node(operator, ["x"], list(outputs), name="only", domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        "classical",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [
            helper.make_tensor_value_info(
                name, kind, ["rows"] if kind == TensorProto.INT64 else ["rows", "n"]
            )
            for name, kind in outputs.items()
        ],
    )
    version = 5 if operator == "TreeEnsemble" else 3
    opsets = [helper.make_opsetid("ai.onnx.ml", version), helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def derived(model: onnx.ModelProto, **request: Any) -> Derivation:
    return derive(model.SerializeToString(), Request(**request))


def operators(derivation: Derivation) -> set[str]:
    return {node.op_type for node in onnx.ModelProto.FromString(derivation.model).graph.node}


def compare(model: onnx.ModelProto, *, rows: int = 12, low: float = -4.0, **request: Any) -> Derivation:
    """Derive a model, and hold every change to what the comparison in the compile step allows."""
    found = derived(model, **request)
    shape = found.inputs[0].shape
    samples = [{"x": uniform(shape, low=low, seed=seed)} for seed in range(rows)]
    before = model.SerializeToString()
    for change in found.changes:
        assert largest_difference(before, change.model, samples, change.moved) < 1e-5, change.name
        before = change.model
    return found


def names(derivation: Derivation) -> list[str]:
    return [change.name for change in derivation.changes]


def test_a_free_batch_becomes_one_and_other_sizes_come_from_the_specification() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    found = compare(model_of(relu, shape=("batch", 4)))
    assert names(found) == ["fixed_axes", "job_tag"]
    assert (found.inputs[0].shape, found.outputs[0].shape) == ((1, 4), (1, 4))
    free = model_of(relu, shape=("batch", "features"))
    with pytest.raises(CompileError, match=r"compile\.shape"):
        derived(free)
    assert compare(free, shapes={"x": (2, 3)}).outputs[0].shape == (2, 3)
    with pytest.raises(CompileError, match=r"compile\.shape"):
        derived(model_of(relu), shapes={"x": (2, 4)})


def test_a_label_and_a_zip_map_become_their_tensor_in_the_order_of_the_classes() -> None:
    """Classes are listed as 2, 1: whoever sorted them would swap the probabilities."""
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "raw"],
            domain="ai.onnx.ml",
            classlabels_ints=[2, 1],
            coefficients=[1.0, 2.0, 3.0, 4.0, 0.5, 0.0, -1.0, 1.0],
            intercepts=[0.5, -0.5],
            post_transform="SOFTMAX",
        ),
        helper.make_node("Cast", ["label"], ["class"], to=TensorProto.INT64),
        helper.make_node("ZipMap", ["raw"], ["chances"], domain="ai.onnx.ml", classlabels_int64s=[2, 1]),
    ]
    chances = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [
            helper.make_tensor_value_info("class", TensorProto.INT64, ["batch"]),
            helper.make_value_info("chances", chances),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    found = compare(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert names(found) == ["fixed_axes", "tensor_outputs", "classical", "tail", "job_tag"]
    assert [(port.name, port.shape) for port in found.outputs] == [("chances", (1, 2))]
    assert found.published_outputs is None
    assert operators(found) == {"MatMul", "Add"}


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SCORES = {"label": INT64, "y": FLOAT}
LINEAR = {"coefficients": [1.0, -2.0, 0.5, 3.0], "intercepts": [0.25]}


PROBIT = classical("LinearRegressor", {"y": FLOAT}, post_transform="PROBIT", **LINEAR)


@pytest.mark.parametrize(
    "model",
    [
        classical("LinearRegressor", {"y": FLOAT}, **LINEAR),
        classical("LinearRegressor", {"y": FLOAT}, coefficients=[0.5] * 8, intercepts=[1.0, 2.0], targets=2),
        classical(
            "LinearClassifier",
            SCORES,
            classlabels_ints=[0, 1, 2],
            coefficients=[0.5] * 12,
            intercepts=[0.0, 1.0, -1.0],
        ),
        classical("Scaler", {"y": FLOAT}, offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5, 1.0, 2.0, -1.0]),
        classical("Scaler", {"y": FLOAT}, offset=[1.0], scale=[0.5]),
        classical("Normalizer", {"y": FLOAT}, norm="L1"),
        classical("Normalizer", {"y": FLOAT}, norm="L2"),
        classical("Binarizer", {"y": FLOAT}, threshold=0.5),
        classical("Imputer", {"y": FLOAT}, imputed_value_floats=[1.0], replaced_value_float=float("nan")),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)
def test_classical_operators_compute_what_onnxruntime_does(model: onnx.ModelProto) -> None:
    found = compare(model)
    assert "classical" in names(found)
    assert not {node.domain for node in onnx.ModelProto.FromString(found.model).graph.node} - {""}


MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")


def tree(mode: str, kind: str = "Regressor", **attributes: Any) -> onnx.ModelProto:
    """Two trees: one of two branches, one of a single leaf."""
    votes = "target" if kind == "Regressor" else "class"
    values: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0, 0, 0, 1],
        "nodes_nodeids": [0, 1, 2, 3, 4, 0],
        "nodes_featureids": [1, 0, 3, 0, 0, 0],
        "nodes_modes": [f"BRANCH_{mode}", "LEAF", f"BRANCH_{mode}", "LEAF", "LEAF", "LEAF"],
        "nodes_values": [1.0, 0.0, -1.0, 0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 3, 0, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0, 0],
        f"{votes}_treeids": [0, 0, 0, 0, 1],
        f"{votes}_nodeids": [1, 3, 4, 4, 0],
        f"{votes}_ids": [0, 1, 0, 1, 1],
        f"{votes}_weights": [1.5, -2.0, 0.25, 4.0, 0.125],
    } | attributes
    if kind == "Regressor":
        values.setdefault("n_targets", 2)
        return classical("TreeEnsembleRegressor", {"y": FLOAT}, **values)
    return classical("TreeEnsembleClassifier", SCORES, **values)


def at_thresholds(model: onnx.ModelProto) -> None:
    """Inputs on, just below and just above each threshold: where branches differ."""
    found = derived(model)
    numbers = [-1.0, 1.0, *(float(np.nextafter(np.float32(t), s)) for t in (-1, 1) for s in (-9, 9))]
    samples = [{"x": np.array([[0, a, 0, b]], np.float32)} for a in numbers for b in numbers]
    assert largest_difference(model.SerializeToString(), found.model, samples) == 0


@pytest.mark.parametrize("mode", MODES)
def test_trees_branch_as_onnxruntime_does_at_the_very_threshold(mode: str) -> None:
    at_thresholds(tree(mode))


@pytest.mark.parametrize(
    "attributes",
    [
        {"classlabels_int64s": [0, 1]},
        {"classlabels_int64s": [0, 1, 2], "base_values": [0.5, -0.5, 1.0]},
        {"classlabels_int64s": [0, 1], "post_transform": "SOFTMAX"},
        {"classlabels_int64s": [0, 1, 2], "post_transform": "LOGISTIC"},
        {"classlabels_int64s": [0, 1], "class_ids": [0] * 5},
        {"classlabels_int64s": [0, 1], "class_ids": [0] * 5, "post_transform": "LOGISTIC"},
        {"classlabels_int64s": [0, 1], "class_ids": [0] * 5, "class_weights": [0.5, 0.25, 0.0, 0.25, 0.0]},
    ],
)
def test_classifiers_of_trees_vote_as_onnxruntime_counts(attributes: dict[str, Any]) -> None:
    assert "classical" in names(compare(tree("LEQ", "Classifier", **attributes)))


def tree_of_version_5(mode: int, **attributes: Any) -> onnx.ModelProto:
    """The trees of `tree` again; branches and leaves are numbered apart, the second has one leaf twice."""
    values: dict[str, Any] = {
        "tree_roots": [0, 2],
        "nodes_featureids": [1, 3, 0],
        "nodes_modes": numpy_helper.from_array(np.array([mode] * 3, np.uint8)),
        "nodes_splits": numpy_helper.from_array(np.array([1.0, -1.0, 0.0], np.float32)),
        "nodes_truenodeids": [0, 1, 3],
        "nodes_trueleafs": [1, 1, 1],
        "nodes_falsenodeids": [1, 2, 3],
        "nodes_falseleafs": [0, 1, 1],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": numpy_helper.from_array(np.array([1.5, -2.0, 0.25, 0.125], np.float32)),
        "n_targets": 2,
    }
    return classical("TreeEnsemble", {"y": FLOAT}, **(values | attributes))


@pytest.mark.parametrize("mode", range(len(MODES)))
def test_trees_of_version_5_branch_as_onnxruntime_does(mode: int) -> None:
    at_thresholds(tree_of_version_5(mode))


def test_trees_of_version_5_are_averaged() -> None:
    assert "classical" in names(compare(tree_of_version_5(0, aggregate_function=0)))


def test_a_transform_that_onnxruntime_numbers_otherwise_than_onnx_is_refused() -> None:
    """1 is SOFTMAX in the specification, and LOGISTIC in onnxruntime: no circuit is right for both."""
    with pytest.raises(CompileError, match=r"compile\.pass_differs"):
        compare(tree_of_version_5(0, post_transform=1))


def test_trees_of_one_leaf_and_averages() -> None:
    compare(tree("LEQ", aggregate_function="AVERAGE"))
    leaf = {
        "nodes_treeids": [0], "nodes_nodeids": [0], "nodes_featureids": [0], "nodes_modes": ["LEAF"],
        "nodes_values": [0.0], "nodes_truenodeids": [0], "nodes_falsenodeids": [0], "target_treeids": [0],
        "target_nodeids": [0], "target_ids": [0], "target_weights": [0.5], "n_targets": 1,
    }  # fmt: skip
    compare(classical("TreeEnsembleRegressor", {"y": FLOAT}, **leaf))


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (tree("LEQ", aggregate_function="MIN"), "compile.trees"),
        (tree("LEQ", nodes_truenodeids=[9, 0, 3, 0, 0, 0]), "compile.trees"),
        (tree("LEQ", nodes_truenodeids=[0, 0, 0, 0, 0, 0]), "compile.trees"),
        (tree("LEQ", nodes_values=[1.0]), "compile.trees"),
        (tree("UP"), "compile.trees"),
        (
            tree("LEQ", "Classifier", classlabels_int64s=[0, 1], base_values=[0.5, -0.5]),
            "compile.unsupported",
        ),
        (classical("SVMRegressor", {"y": FLOAT}), "compile.unsupported"),
        (
            classical("LinearRegressor", {"y": FLOAT}, post_transform="PROBIT", **LINEAR),
            "compile.unsupported",
        ),
    ],
)
def test_what_is_not_known_is_refused_and_the_node_named(model: onnx.ModelProto, code: str) -> None:
    with pytest.raises(CompileError) as caught:
        derived(model)
    assert (caught.value.code, caught.value.node) == (code, "only")
    assert caught.value.operator == model.graph.node[0].op_type


def node(operator: str, *more: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x", *more], ["y"], name="only", **attributes)


DECOMPOSED = [
    model_of(node("Gelu")),
    model_of(node("Gelu", approximate="tanh")),
    model_of(node("Mish")),
    model_of(node("Elu", alpha=0.5)),
    model_of(node("Celu", alpha=2.0)),
    model_of(node("Selu")),
    model_of(node("HardSwish")),
    model_of(node("Softplus")),
    model_of(node("LogSoftmax")),
    model_of(node("LogSoftmax", axis=0), shape=(3, 2)),
    model_of(node("LogSoftmax"), opset=11),
    model_of(node("PRelu", "s"), s=[0.5, 0.25, -1.0, 2.0]),
    model_of(node("LpNormalization", p=1)),
    model_of(node("LpNormalization")),
    model_of(node("RMSNormalization", "s"), s=[1.0, 2.0, 3.0, 4.0], opset=23),
    model_of(node("InstanceNormalization", "s", "b"), shape=(1, 2, 3, 3), s=[1.0, 2.0], b=[0.5, -0.5]),
    model_of(
        node("GroupNormalization", "s", "b", num_groups=2),
        shape=(1, 4, 3), s=[1.0, 2.0, 3.0, 4.0], b=[0.0, 1.0, 2.0, 3.0], opset=21,
    ),
    model_of(node("MeanVarianceNormalization"), shape=(2, 2, 3, 3)),
    model_of(node("Conv", "w", kernel_shape=[2]), shape=(1, 1, 4), output=(1, 1, 3), w=[[[1.0, -1.0]]]),
]  # fmt: skip


@pytest.mark.parametrize("model", DECOMPOSED, ids=lambda model: model.graph.node[0].op_type)
def test_decomposed_operators_compute_what_onnxruntime_does(model: onnx.ModelProto) -> None:
    found = compare(model)
    assert "decomposed" in names(found)
    if model.graph.node[0].op_type != "Conv":
        assert model.graph.node[0].op_type not in operators(found)


def test_what_depends_on_no_input_is_computed_and_what_does_nothing_left_out() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Dropout", ["same"], ["kept"]),
        helper.make_node("Shape", ["kept"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["kept", "target"], ["square"]),
        helper.make_node("Transpose", ["weights"], ["turned"]),
        helper.make_node("MatMul", ["square", "turned"], ["product"]),
        helper.make_node("Identity", ["product"], ["y"]),
    ]
    model = model_of(
        *nodes,
        output=(1, 2, 3),
        first=np.array([0], np.int64),
        rest=np.array([2, -1], np.int64),
        weights=np.arange(6, dtype=np.float32).reshape(3, 2),
    )
    found = compare(model)
    assert names(found) == ["constants", "job_tag"]
    assert [n.op_type for n in onnx.ModelProto.FromString(found.model).graph.node] == ["Reshape", "MatMul"]
    plain = model_of(helper.make_node("Relu", ["x"], ["y"]))
    assert fold_constants(plain) is plain


@pytest.mark.parametrize(
    ("last", "output", "moved"),
    [
        (node("Sigmoid"), SHAPE, SIGMOID),
        (node("Softmax"), SHAPE, SOFTMAX),
        (node("Softmax", axis=1), SHAPE, SOFTMAX),
        (node("Softmax", axis=0), SHAPE, NONE),
        (node("Tanh"), SHAPE, NONE),
    ],
)
def test_a_last_step_is_left_to_the_reader(last: onnx.NodeProto, output: Any, moved: PostProcessing) -> None:
    first = helper.make_node("Neg", ["x"], ["z"])
    last.input[0] = "z"
    found = compare(model_of(first, last, output=output))
    assert found.post_processing is moved
    assert found.changes[-2:][0].moved is moved
    assert [port.name for port in found.outputs] == ["y"]
    # A provider, who has only the lock, derives the same.
    again = derive(model_of(first, last, output=output).SerializeToString(), Request(keep_tail=moved is NONE))
    assert again.model == found.model


def test_a_last_arg_max_is_left_to_the_reader() -> None:
    first, last = helper.make_node("Neg", ["x"], ["z"]), helper.make_node("ArgMax", ["z"], ["y"], axis=-1)
    model = model_of(first, last, output=(1, 1))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    found = compare(model)
    assert (found.post_processing, found.outputs[0].shape) == (ARGMAX, SHAPE)
    assert found.published_outputs is not None
    assert found.published_outputs[0].dtype == "int64"


def test_a_step_that_is_read_again_or_cannot_be_joined_stays() -> None:
    both = [helper.make_node("Sigmoid", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    model = graph_of(both, inputs={"x": SHAPE}, outputs={"y": SHAPE, "z": SHAPE})
    assert derived(model).post_processing is NONE
    sigmoid = model_of(node("Sigmoid"))
    assert derived(sigmoid, post_processing=ARGMAX).post_processing is ARGMAX
    kept = derived(sigmoid, post_processing=SOFTMAX)
    assert (kept.post_processing, "Sigmoid" in operators(kept)) == (SOFTMAX, True)


@pytest.mark.parametrize("moved", list(PostProcessing))
@pytest.mark.parametrize("stated", list(PostProcessing))
def test_one_step_that_does_both_does_both(moved: PostProcessing, stated: PostProcessing) -> None:
    joined = join(moved, stated)
    if joined is None:
        assert NONE not in (moved, stated)
        return
    for seed in range(50):
        numbers = uniform(SHAPE, seed=seed)
        assert finish(numbers, joined) == pytest.approx(finish(finish(numbers, moved), stated))


def test_a_model_that_no_circuit_holds_is_refused_by_counting() -> None:
    large = model_of(
        node("MatMul", "w"), shape=(1024, 512), output=(1024, 512), w=np.zeros((512, 512), np.float32)
    )
    with pytest.raises(CompileError, match=r"compile\.too_large") as caught:
        derived(large)
    assert (caught.value.node, caught.value.operator) == ("only", "MatMul")


def test_a_pass_that_changes_the_model_is_found_out() -> None:
    right = model_of(node("Mul", "c"), c=[2.0])
    wrong = model_of(node("Mul", "c"), c=[2.001])
    other = model_of(node("ReduceSum"), output=(1, 1))
    samples: list[dict[str, NDArray[Any]]] = [{"x": uniform(SHAPE)}]
    for after in (wrong, other):
        with pytest.raises(CompileError, match=r"compile\.pass_differs"):
            largest_difference(right.SerializeToString(), after.SerializeToString(), samples)


def test_deriving_twice_gives_the_same_bytes() -> None:
    for model in (*DECOMPOSED, tree("EQ")):
        assert derived(model) == derived(model) == Derivation.decode(derived(model).encode())
