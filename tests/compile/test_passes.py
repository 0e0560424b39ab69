"""The passes: what they add, what they refuse, and that no bytes whatever hang or crash them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from proofhold.compile import CompileError
from proofhold.compile.bounds import peak_magnitude
from proofhold.compile.derivation import Derivation
from proofhold.compile.passes import derive
from proofhold.compile.toolchain import Toolchain
from proofhold.domain import InputSpec
from proofhold.errors import Malformed

MODELS = Path(__file__).parents[2] / "models"
PUBLISHED = (MODELS / "breast_cancer" / "model.onnx").read_bytes()


def parsed(data: bytes = PUBLISHED) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(data)
    return model


def spoiled(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = parsed()
    change(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def test_the_derived_model_is_the_published_one_and_the_tag() -> None:
    derivation = derive(PUBLISHED)
    assert derivation == derive(PUBLISHED) == Derivation.decode(derivation.encode())
    assert [change.name for change in derivation.changes] == ["job_tag"]
    model = parsed(derivation.model)
    tag = model.graph.input[-1]
    assert (tag.name, tag.type.tensor_type.elem_type) == ("job_tag", TensorProto.INT64)
    assert [dim.dim_value for dim in tag.type.tensor_type.shape.dim] == [1, 16]
    del model.graph.input[-1]
    assert model.SerializeToString(deterministic=True) == PUBLISHED


def free_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "features"


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def external_in_a_branch(model: onnx.ModelProto) -> None:
    constant = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    constant.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Constant", [], ["inner"], value=constant)
    branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("inner", 1, [1])])
    model.graph.node.append(helper.make_node("If", ["bias_0"], ["z"], then_branch=branch, else_branch=branch))


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["a"], ["b"])
    made = helper.make_function("com.example", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 17)])
    model.functions.append(made)


def tag_taken(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "job_tag"


def half_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def contradiction(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 31


def short_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 3


def not_a_number(model: onnx.ModelProto) -> None:
    bias = numpy_helper.from_array(np.array([np.nan], np.float32), "bias_0")
    model.graph.initializer[1].CopyFrom(bias)


def not_a_number_in_a_constant(model: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.array([np.inf], np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["inf"], value=value))


def deep(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", [], [])
    for _ in range(12):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["b"], then_branch=graph)], "g", [], [])
    model.graph.node.extend(graph.node)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (free_batch, "compile.shape"),
        (external, "compile.external_data"),
        (external_in_a_branch, "compile.external_data"),
        (custom_operator, "compile.custom_operators"),
        (function, "compile.custom_operators"),
        (tag_taken, "compile.tag_name"),
        (half_input, "model.invalid"),
        (contradiction, "model.invalid"),
        (short_weights, "model.invalid"),
        (old_opset, "compile.opset"),
        (deep, "compile.too_large"),
        (not_a_number, "compile.not_finite"),
        (not_a_number_in_a_constant, "compile.not_finite"),
        (lambda model: model.graph.node[0].ClearField("op_type"), "model.invalid"),
        (lambda model: model.ClearField("graph"), "model.not_onnx"),
        (lambda model: model.graph.ClearField("output"), "compile.shape"),
    ],
)
def test_what_cannot_be_a_circuit_is_refused(change: Callable[[onnx.ModelProto], object], code: str) -> None:
    with pytest.raises((Malformed, CompileError), match=re.escape(f"[{code}]")):
        derive(spoiled(change))


@pytest.mark.parametrize("data", [b"", b"\0", b"onnx", b"\x0a" * 1000, bytes(10_000)])
def test_what_is_no_model_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"model\.not_onnx"):
        derive(data)


def test_a_thousand_mutations_neither_crash_nor_hang(tools: Toolchain) -> None:
    draw = random.Random(5)
    outcomes = {"derived": 0, "refused": 0}
    codes: dict[str, str] = {}
    slowest_s = 0.0
    for _ in range(1000):
        data = bytearray(PUBLISHED)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(data))
            kind = draw.randrange(3)
            if kind == 0:
                data[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del data[at : at + draw.randint(1, 20)]
            else:
                data[at:at] = draw.randbytes(draw.randint(1, 20))
        began = time.monotonic()
        try:
            derived = tools.derive(bytes(data))
        except (Malformed, CompileError) as error:
            codes.setdefault(error.code, str(error))
            outcomes["refused"] += 1
        else:
            outcomes["derived"] += 1
            assert derived == tools.derive(bytes(data))
        slowest_s = max(slowest_s, time.monotonic() - began)
    assert min(outcomes.values()) > 20, outcomes
    assert all(code.startswith(("model.", "compile.")) for code in codes)
    # What a pass did not foresee would come out as a tool that raised.
    assert "compile.unsupported" not in codes, codes.get("compile.unsupported")
    assert slowest_s < 10


def network(*nodes: onnx.NodeProto, **constants: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in constants.items()],
    )
    return helper.make_model(graph)


SPEC = (InputSpec("x", "float32", (1, 2), -2.0, 3.0),)


@pytest.mark.parametrize(
    ("model", "peak"),
    [
        (network(helper.make_node("MatMul", ["x", "w"], ["y"]), w=[[1, -1], [2, 0]]), 9.0),
        (
            network(
                helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1), w=[[1, 2], [-1, 0]], b=[1, 0]
            ),
            10.0,
        ),
        (network(helper.make_node("Gemm", ["x", "w"], ["y"], alpha=-2.0), w=[[1, -1], [2, 0]]), 18.0),
        (network(helper.make_node("Mul", ["x", "c"], ["y"]), c=[-5, 1]), 15.0),
        (network(helper.make_node("Sub", ["c", "x"], ["y"]), c=[10, 0]), 12.0),
        (network(helper.make_node("Relu", ["x"], ["y"])), 3.0),
        (network(helper.make_node("Less", ["x", "c"], ["y"]), c=[-5, 1]), 8.0),
        (network(helper.make_node("MatMul", ["x", "w"], ["y"]), w=[[3e38, 3e38], [3e38, 3e38]]), 1.8e39),
        (network(helper.make_node("Softmax", ["x"], ["y"])), None),
        (network(helper.make_node("Relu", ["missing"], ["y"])), None),
    ],
)
def test_peaks_are_those_of_the_worst_input(model: onnx.ModelProto, peak: float | None) -> None:
    assert peak_magnitude(model, SPEC) == pytest.approx(peak)


@pytest.mark.parametrize("name", ["digits", "trees", "lenet"])
def test_no_input_of_the_domain_passes_the_peak(name: str) -> None:
    import onnxruntime

    model = onnx.load(MODELS / name / "model.onnx")
    port = model.graph.input[0]
    shape = tuple(dimension.dim_value for dimension in port.type.tensor_type.shape.dim)
    peak = peak_magnitude(model, (InputSpec(port.name, "float32", shape, 0.0, 1.0),))
    assert peak is not None
    # Every tensor on the way counts, not only the last one.
    tensors = [output for node in model.graph.node for output in node.output]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(3)
    for _ in range(100):
        pixels = draw.integers(0, 2, shape).astype(np.float32)
        for found in session.run(None, {port.name: pixels}):
            assert np.max(np.abs(np.asarray(found, dtype=np.float64))) <= peak
