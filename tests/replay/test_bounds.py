"""The bounds: no honest float32 run exceeds one, in whatever order it adds, and none says much more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from proofhold.payload import Tensor
from proofhold.replay.bounds.elementwise import ACCURACY, erf
from proofhold.replay.bounds.enclosure import LARGEST, ROUNDOFF, Enclosure, NoBound, gamma
from proofhold.replay.bounds.rules import RULES, evaluate
from proofhold.replay.contradiction import compare
from proofhold.replay.pinpoint import pinpoint
from proofhold.replay.regions import Graph, entries_of

Array = NDArray[Any]
OPSET = 20
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return (np.random.default_rng(seed).normal(0, scale, shape)).astype(np.float32)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


X, IMAGE, WIDE = normal(4, 33), normal(2, 6, 9, 9), normal(3, 300, scale=3)
CASES: dict[str, tuple[str, tuple[Array | None, ...], dict[str, Any]]] = {
    "matmul": ("MatMul", (normal(4, 5, 200), normal(4, 200, 7, seed=1)), {}),
    "matmul of a vector": ("MatMul", (normal(50), normal(50, 7, seed=1)), {}),
    "gemm": ("Gemm", (normal(300, 4), normal(9, 300), normal(9)), {"transA": 1, "transB": 1, "alpha": 0.3}),
    "gemm without a bias": ("Gemm", (normal(4, 300), normal(300, 9)), {"alpha": -2.0}),
    "conv": ("Conv", (IMAGE, normal(8, 6, 3, 3), normal(8)), {"pads": [1, 1, 1, 1]}),
    "conv, strides and dilations": (
        "Conv",
        (IMAGE, normal(8, 6, 2, 3)),
        {"strides": [2, 1], "dilations": [2, 2]},
    ),
    "conv in groups": ("Conv", (IMAGE, normal(6, 2, 3, 3)), {"group": 3, "pads": [0, 1, 2, 1]}),
    "conv, depthwise": (
        "Conv",
        (IMAGE, normal(12, 1, 3, 3), normal(12)),
        {"group": 6, "auto_pad": "SAME_UPPER"},
    ),
    "conv of a signal": ("Conv", (normal(1, 4, 60), normal(5, 4, 7)), {"strides": [3]}),
    "conv, pads in front": (
        "Conv",
        (IMAGE, normal(3, 6, 4, 4)),
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "einsum": ("Einsum", (normal(2, 3, 40), normal(2, 40, 5)), {"equation": "bij,bjk->bik"}),
    "average": ("AveragePool", (IMAGE,), {"kernel_shape": [3, 2], "strides": [2, 2]}),
    "average, padded": ("AveragePool", (IMAGE,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "average with padding": (
        "AveragePool",
        (IMAGE,),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "average, rounded up": (
        "AveragePool",
        (IMAGE,),
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    ),
    "global average": ("GlobalAveragePool", (IMAGE,), {}),
    "maximum": ("MaxPool", (IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "maximum, rounded up": ("MaxPool", (IMAGE,), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "global maximum": ("GlobalMaxPool", (IMAGE,), {}),
    "total": ("ReduceSum", (WIDE, ints(1)), {"keepdims": 0}),
    "mean of a row": ("ReduceMean", (WIDE, ints(1)), {}),
    "sum of sizes": ("ReduceL1", (WIDE, ints(1)), {}),
    "sum of squares": ("ReduceSumSquare", (WIDE, ints(0, 1)), {}),
    "norm": ("ReduceL2", (WIDE, ints(-1)), {}),
    "largest": ("ReduceMax", (WIDE, ints(1)), {}),
    "least of all": ("ReduceMin", (WIDE,), {"keepdims": 0}),
    "batch": (
        "BatchNormalization",
        (IMAGE, *(normal(6, seed=s) for s in (1, 2, 3)), normal(6) ** 2 + 0.1),
        {},
    ),
    "layer": ("LayerNormalization", (WIDE, normal(300), normal(300, seed=1)), {"axis": -1}),
    "layer, far from zero": ("LayerNormalization", (WIDE + 50, normal(300)), {}),
    "instance": ("InstanceNormalization", (IMAGE, normal(6), normal(6, seed=1)), {}),
    "softmax": ("Softmax", (WIDE * 5,), {}),
    "softmax along the first axis": ("Softmax", (WIDE,), {"axis": 0}),
    "logarithm of a softmax": ("LogSoftmax", (WIDE,), {}),
    "add": ("Add", (X, normal(33, seed=1)), {}),
    "subtract": ("Sub", (X, normal(4, 1, seed=1)), {}),
    "multiply": ("Mul", (X, normal(4, 33, seed=1)), {}),
    "divide": ("Div", (X, normal(4, 33, seed=1)), {}),
    "sum": ("Sum", (X, X * 2, X / 3), {}),
    "mean": ("Mean", (X, X * 2, X / 3), {}),
    "root": ("Sqrt", (X**2,), {}),
    "reciprocal": ("Reciprocal", (X,), {}),
    "square": ("Pow", (X, scalar(2)), {}),
    "cube": ("Pow", (X, scalar(3)), {}),
    "power": ("Pow", (np.abs(X) + 0.1, scalar(-0.7)), {}),
    **{name: (name, (X * 4,), {}) for name in ACCURACY if name not in ("Pow", "Log", "Swish")},
    "Log": ("Log", (np.abs(X) + 1e-3,), {}),
    "gelu by tanh": ("Gelu", (X * 3,), {"approximate": "tanh"}),
    **{name: (name, (X,), {}) for name in ("Relu", "Abs", "Neg", "Identity")},
    "leaky": ("LeakyRelu", (X,), {"alpha": 0.3}),
    "slope": ("PRelu", (X, normal(33, seed=1)), {}),
    "clip": ("Clip", (X, scalar(-0.5), scalar(0.25)), {}),
    "max": ("Max", (X, normal(4, 33, seed=1)), {}),
    "min": ("Min", (X, normal(4, 33, seed=1)), {}),
    "where": ("Where", (X > 0, X, X * 2), {}),
    "cast": ("Cast", (ints(3, -70_000, 0),), {"to": TensorProto.FLOAT}),
    "cast of large integers": ("Cast", (ints(2**24 + 1, 2**40 + 3),), {"to": TensorProto.FLOAT}),
    "concat": ("Concat", (X, X), {"axis": 1}),
    "reshape": ("Reshape", (IMAGE, ints(2, 0, -1)), {}),
    "flatten": ("Flatten", (IMAGE,), {"axis": 2}),
    "transpose": ("Transpose", (IMAGE,), {"perm": [0, 2, 3, 1]}),
    "turned round": ("Transpose", (X,), {}),
    "squeeze": ("Squeeze", (X[None, :, None], ints(0, 2)), {}),
    "unsqueeze": ("Unsqueeze", (X, ints(1)), {}),
    "dropout": ("Dropout", (X, scalar(0.5), np.array(False)), {}),
    "expand": ("Expand", (X[:, None], ints(1, 5, 33)), {}),
    "tile": ("Tile", (X, ints(2, 3)), {}),
    "slice": ("Slice", (X, ints(30, 1), ints(-40, 3), ints(1, 0), ints(-3, 1)), {}),
    "gather": ("Gather", (X, ints(3, 0, -1)), {"axis": 0}),
    "gather elements": ("GatherElements", (X, np.array([[0, 2], [1, -1]], np.int64)), {"axis": 1}),
    "pad": ("Pad", (X, ints(1, 0, 0, 2)), {}),
    "depth to space": ("DepthToSpace", (normal(1, 8, 2, 3),), {"blocksize": 2}),
    "depth to space, columns first": ("DepthToSpace", (normal(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}),
    "space to depth": ("SpaceToDepth", (normal(1, 2, 4, 6),), {"blocksize": 2}),
}


def enclosed(operator: str, arrays: tuple[Array | None, ...], attributes: dict[str, Any]) -> Enclosure:
    names = [f"i{index}" if array is not None else "" for index, array in enumerate(arrays)]
    node = helper.make_node(operator, names, ["y"], **attributes)
    given = [
        None if a is None else Enclosure(a.astype(np.float64) if a.dtype == np.float32 else np.asarray(a))
        for a in arrays
    ]
    return evaluate(node, given, OPSET)[0]


def executed(
    operator: str, arrays: tuple[Array | None, ...], attributes: dict[str, Any], level: str = LEVELS[0]
) -> Array:
    import onnxruntime

    names = [f"i{index}" if array is not None else "" for index, array in enumerate(arrays)]
    node = helper.make_node(operator, names, ["y"], **attributes)
    given = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True) if array is not None}
    kinds: dict[str, int] = {
        "float32": TensorProto.FLOAT,
        "int64": TensorProto.INT64,
        "bool": TensorProto.BOOL,
    }
    ports = [helper.make_tensor_value_info(n, kinds[a.dtype.name], a.shape) for n, a in given.items()]
    graph = helper.make_graph([node], "one", ports, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    try:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            onnx.shape_inference.infer_shapes(model).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        return np.asarray(session.run(None, given)[0])
    except Exception:  # noqa: BLE001 - this build of it has no such operator
        from onnx.reference import ReferenceEvaluator

        results: list[Any] = list(ReferenceEvaluator(model).run(None, given))
        return np.asarray(results[0])


@pytest.mark.parametrize("name", CASES)
def test_an_honest_result_is_within_the_bound_and_four_bounds_off_is_not(name: str) -> None:
    operator, arrays, attributes = CASES[name]
    enclosure = enclosed(operator, arrays, attributes)
    for level in LEVELS:
        result = executed(operator, arrays, attributes, level)
        assert result.shape == enclosure.value.shape
        comparison = compare(Tensor.of("y", result), enclosure)
        assert comparison is not None
        assert comparison.ratio <= 1.0, comparison
    error = np.broadcast_to(enclosure.error, enclosure.value.shape)
    off = result.copy()
    off.flat[0] += np.float32(4 * error.flat[0] + 8 * ROUNDOFF * abs(result.flat[0]) + 1e-30)
    judged = compare(Tensor.of("y", off), enclosure)
    assert judged is not None
    assert judged.is_contradiction
    assert judged.element == 0


def test_every_rule_is_tried() -> None:
    tried = {operator for operator, _, _ in CASES.values()}
    assert (
        set(RULES) - tried
        == {"Constant", "ConstantOfShape", "Shape", "Split", "Swish"} | {"ReduceL1"} - tried
    )


def in_order(a: Array, b: Array) -> np.float32:
    total = np.float32(0)
    for left, right in zip(a, b, strict=True):
        total = np.float32(total + np.float32(left * right))
    return total


def backwards(a: Array, b: Array) -> np.float32:
    return in_order(a[::-1], b[::-1])


def fused(a: Array, b: Array) -> np.float32:
    """Multiply and add with one rounding: float64 holds the product, and the sum but for a hair."""
    total = np.float32(0)
    for left, right in zip(a, b, strict=True):
        total = np.float32(np.float64(left) * np.float64(right) + np.float64(total))
    return total


def in_lanes(a: Array, b: Array) -> np.float32:
    lanes = [in_order(a[lane::8], b[lane::8]) for lane in range(8)]
    return np.float32(np.sum(np.array(lanes, np.float32)))


@pytest.mark.parametrize("order", [in_order, backwards, fused, in_lanes])
@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_a_sum_is_within_the_bound(
    order: Callable[[Array, Array], np.float32], seed: int
) -> None:
    scale = 10.0 ** np.random.default_rng(seed).uniform(-3, 3, 257)
    a, b = (normal(257, seed=seed) * scale).astype(np.float32), normal(257, seed=seed + 100)
    enclosure = enclosed("MatMul", (a[None], b[:, None]), {})
    assert abs(float(order(a, b)) - enclosure.value.item()) <= np.asarray(enclosure.error).item()


def test_the_bound_must_grow_with_the_number_of_terms() -> None:
    """A sum whose every addition loses half a unit: below K·u an honest provider would be convicted."""
    terms = 4097
    a = np.full(terms, 2.0**-24, np.float32)
    a[0] = 1.0
    enclosure = enclosed("MatMul", (a[None], np.ones((terms, 1), np.float32)), {})
    off = abs(float(in_order(a, np.ones(terms, np.float32))) - enclosure.value.item())
    assert off == pytest.approx((terms - 1) * 2.0**-24)
    assert 0.9 < off / np.asarray(enclosure.error).item() <= 1.0


def test_a_residual_link_may_be_what_a_fused_sum_begins_with() -> None:
    """Then each product that is added rounds it too. An honest run of it is within the region's bound."""
    terms = 512
    a, b = np.full((1, terms), 2.0**-13, np.float32), np.full((terms, 1), 2.0**-12, np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["a", "b"], ["p"]), helper.make_node("Add", ["p", "skip"], ["y"])],
            "fused",
            [],
            [],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    total = np.float32(1.0)
    for left, right in zip(a[0], b[:, 0], strict=True):
        total = np.float32(total + np.float32(left * right))  # each is half a unit of 1: nothing remains
    assert total == 1.0
    read = Graph(model)
    tensors = {
        "a": Tensor.of("a", a),
        "b": Tensor.of("b", b),
        "skip": Tensor.of("skip", np.ones((1, 1), "f4")),
    }
    region = read.region("y", {*tensors, "y"})
    fused = compare(Tensor.of("y", np.array([[total]])), read.enclose(region, tensors))
    assert fused is not None
    assert 0.4 < fused.ratio <= 1.0
    # Where the product was committed to, the addition is one rounding and no more.
    alone = Tensor.of("p", np.array([[terms * 2.0**-25]], np.float32))
    region = read.region("y", {*tensors, "p", "y"})
    single = compare(Tensor.of("y", np.array([[total]])), read.enclose(region, {**tensors, "p": alone}))
    assert single is not None
    assert single.is_contradiction


def test_gamma_is_what_higham_says_and_stops_where_it_says_nothing() -> None:
    assert gamma(10) == pytest.approx(10 * 2.0**-24 / (1 - 10 * 2.0**-24), rel=1e-15)
    with pytest.raises(NoBound):
        gamma(2**23)


def test_results_too_small_for_a_normal_number_may_be_flushed() -> None:
    tiny = np.full((1, 4), 1e-20, np.float32)
    for flushed in (0.0, 4e-40):
        enclosure = enclosed("MatMul", (tiny, tiny.T), {})
        comparison = compare(Tensor("y", "float32", (1, 1), np.float32(flushed).tobytes()), enclosure)
        assert comparison is not None
        assert not comparison.is_contradiction


def test_a_result_beyond_float32_may_be_infinite_and_no_other_may() -> None:
    large = np.full((1, 2), 3e38, np.float32)
    infinite = Tensor.of("y", np.full((1, 2), np.inf, np.float32))
    beyond, within = (compare(infinite, enclosed("Add", (large, other), {})) for other in (large, -large))
    assert beyond is not None
    assert within is not None
    assert not beyond.is_contradiction
    assert within.is_contradiction
    nan = compare(Tensor.of("y", np.full((1, 2), np.nan, np.float32)), enclosed("Abs", (large,), {}))
    assert nan is not None
    assert nan.is_contradiction
    assert LARGEST < 3.41e38


PROPAGATED = [
    *("Add", "Mul", "Div", "MatMul", "Relu", "LeakyRelu", "Softmax", "LogSoftmax", "LayerNormalization"),
    *("ReduceMean", "ReduceL2", "Tanh", "Gelu", "HardSwish", "Sigmoid", "Exp", "Sqrt", "Mish", "Softplus"),
]


@pytest.mark.parametrize("operator", PROPAGATED)
def test_what_comes_of_inputs_within_their_errors_is_within_the_bound(operator: str) -> None:
    """A region: the inputs are only known to lie in boxes, and any corner of them may be the honest one."""
    generator = np.random.default_rng(3)
    x = generator.uniform(0.5, 3.0, (5, 24))
    two = operator in ("Add", "Mul", "Div", "MatMul")
    w = generator.uniform(0.5, 2.0, (24, 24) if operator == "MatMul" else (5, 24))
    given: list[Enclosure | None] = [Enclosure(x, np.full_like(x, 1e-2))]
    given += [Enclosure(w, np.full_like(w, 1e-3))] if two else []
    others = [np.ones(24)] if operator == "LayerNormalization" else []
    given += [Enclosure(other) for other in others]
    node = helper.make_node(operator, [f"i{i}" for i in range(len(given))], ["y"])
    enclosure = evaluate(node, given, 17)[0]
    error = np.broadcast_to(enclosure.error, enclosure.value.shape)
    assert np.isfinite(error).all()
    for _ in range(40):
        near = x + 1e-2 * generator.choice([-1.0, 0.3, 1.0], x.shape)
        beside = [w + 1e-3 * generator.choice([-1.0, 1.0], w.shape)] if two else []
        moved: list[Enclosure | None] = [Enclosure(v) for v in (near, *beside, *others)]
        exact = evaluate(node, moved, 17)[0].value
        assert (np.abs(exact - enclosure.value) <= error * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("operator", "arrays", "attributes"),
    [
        ("LSTM", (normal(2, 1, 3), normal(1, 16, 3), normal(1, 16, 4)), {"hidden_size": 4}),
        ("TopK", (X, ints(2)), {}),
        ("Range", (ints(0).reshape(()), ints(2**40).reshape(()), ints(1).reshape(())), {}),
        ("Expand", (X[:, :1], ints(4, 2**40)), {}),
        ("Tile", (X, ints(2**20, 2**20)), {}),
        ("ConstantOfShape", (ints(2**20, 2**20),), {}),
        ("Elu", (X,), {"alpha": -1.0}),
        ("HardSigmoid", (X,), {"alpha": -1.0}),
        ("Dropout", (X, scalar(0.5), np.array(True)), {}),
        ("AveragePool", (IMAGE,), {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
        ("Resize", (IMAGE, None, np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}),
        ("Pad", (X, ints(0, 0, 0, 1), scalar(1.5)), {}),
        ("Pow", (X, X), {}),
        ("Reshape", (X, ints(5, 5)), {}),
        ("MatMul", (X, X), {}),
        ("Conv", (IMAGE, normal(4, 6, 30, 30)), {}),
        ("Cast", (X,), {"to": TensorProto.FLOAT16}),
    ],
)
def test_what_nobody_bounds_has_no_bound(
    operator: str, arrays: tuple[Array | None, ...], attributes: dict[str, Any]
) -> None:
    with pytest.raises(NoBound):
        enclosed(operator, arrays, attributes)


def test_what_rounds_nothing_is_exact_whatever_the_operator() -> None:
    enclosure = enclosed("ArgMax", (X,), {"axis": 1})
    assert enclosure.is_exact
    assert (enclosure.value == X.argmax(axis=1)[:, None]).all()
    whole = enclosed("Cast", (X * 10,), {"to": TensorProto.INT64})
    assert whole.is_exact
    assert (whole.value == (X * 10).astype(np.int64)).all()


def test_erf_is_that_of_the_standard_library() -> None:
    values = np.concatenate([np.linspace(-7, 7, 4001), [0.0, 1e-9, -1e-30]])
    assert np.abs(erf(values) - np.array([math.erf(v) for v in values])).max() < 1e-13


PINPOINTED = ("Conv", "Gemm", "MatMul")


@pytest.mark.parametrize(
    "name",
    [n for n, (op, _, _) in CASES.items() if op in PINPOINTED or op in ("Add", "Mul", "Tanh", "LeakyRelu")]
    + ["batch", "slope", "clip", "max"],
)
def test_one_element_alone_is_what_it_is_in_the_whole(name: str) -> None:
    operator, arrays, attributes = CASES[name]
    names = [f"i{index}" for index in range(len(arrays))]
    node = helper.make_node(operator, names, ["y"], **attributes)
    graph = helper.make_graph([node, helper.make_node("Relu", ["y"], ["z"])], "one", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    read = Graph(model)
    tensors = {n: Tensor.of(n, np.asarray(a)) for n, a in zip(names, arrays, strict=True) if a is not None}
    region = read.region("z", {*tensors, "z"})
    whole = read.enclose(region, tensors)
    generator = np.random.default_rng(1)
    for element in generator.integers(whole.value.size, size=12):
        one = pinpoint(read, region, entries_of(region, tensors), int(element))
        if operator == "MatMul" and arrays[0] is not None and arrays[0].ndim == 1:
            assert one is None
            continue
        assert one is not None
        assert one.shape == whole.value.shape
        assert one.enclosure.value.size == 1
        expected = np.broadcast_to(whole.error, whole.value.shape).flat[element]
        assert one.enclosure.value.item() == pytest.approx(whole.value.flat[element], rel=1e-12, abs=1e-14)
        assert np.asarray(one.enclosure.error).item() == pytest.approx(expected, rel=1e-6, abs=1e-30)
    assert pinpoint(read, region, entries_of(region, tensors), whole.value.size) is None
