"""What is pinned of a rewritten model can be checked, and made again by whoever has only the lock."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from proofhold.canonical import file_digest
from proofhold.catalogue import Catalogue
from proofhold.compile import check, compile_model, ensure_proving_key
from proofhold.compile.toolchain import Toolchain
from proofhold.locks import RunArgs
from small_models import uniform, write_model

NAME = "scores"
RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=4, input_scale=10, param_scale=10)
COEFFICIENTS = [0.5, -1.25, 2.0, 0.75]


def classifier(coefficients: list[float]) -> onnx.ModelProto:
    """What scikit-learn exports: a free batch, a label, probabilities."""
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "chances"],
        domain="ai.onnx.ml",
        classlabels_ints=[0, 1],
        coefficients=[-c for c in coefficients] + coefficients,
        intercepts=[-0.25, 0.25],
        post_transform="LOGISTIC",
    )
    graph = helper.make_graph(
        [node],
        "scores",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("chances", TensorProto.FLOAT, ["batch", 2]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, cache: Path, tools: Toolchain) -> Path:
    """A root of its own, with the classifier compiled."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "models" / NAME
    model = write_model(folder, classifier(COEFFICIENTS), {"x": uniform((10, 4))})
    compile_model(model, root / "circuits" / NAME, run_args=RUN_ARGS, cache=cache, tools=tools)
    return root


@pytest.fixture
def root(compiled: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return shutil.copytree(compiled, tmp_path / "root")


def test_a_rewritten_model_is_as_pinned(root: Path, cache: Path, tools: Toolchain) -> None:
    assert check([NAME], root, cache=cache, tools=tools) == []


@pytest.mark.parametrize(("by", "changes_circuit"), [(1e-2, True), (1e-5, False)])
def test_a_weight_that_moves_is_caught_through_the_passes(
    by: float, changes_circuit: bool, root: Path, cache: Path, tools: Toolchain
) -> None:
    """A step at scale 10 is a thousandth; the weight lies on one, so a hundredth of it is rounded away."""
    path = root / "models" / NAME / "model.onnx"
    path.write_bytes(classifier([COEFFICIENTS[0] + by, *COEFFICIENTS[1:]]).SerializeToString())
    found = {d.field: d.changes_circuit for d in check([NAME], root, cache=cache, tools=tools)}
    assert found["circuit lock: model"] is changes_circuit
    assert "circuit lock: derived_model" in found
    assert ("circuit lock: vk" in found) is changes_circuit


def test_a_provider_makes_the_key_from_the_lock_alone(root: Path, tmp_path: Path) -> None:
    """It has no model.toml: shapes and tail follow from the lock."""
    (root / "models" / NAME / "model.toml").unlink()
    entry = Catalogue.load(root).by_name(NAME)
    assert entry.circuit is not None
    lock = entry.circuit.lock
    assert [record.name for record in lock.passes][-2:] == ["tail", "job_tag"]
    keys = ensure_proving_key(entry, cache=tmp_path / "another cache")
    assert file_digest(keys.pk.read_bytes()) == lock.pk


def state_a_step_that_cannot_be_joined(root: Path) -> None:
    path = root / "models" / NAME / "model.toml"
    path.write_text(path.read_text().replace('"none"', '"softmax"'))


def forget_the_passes(root: Path) -> None:
    path = root / "circuits" / NAME / "circuit.lock.json"
    path.write_bytes(
        path.read_bytes().replace(b'{"max_abs":0,"name":"job_tag"}', b'{"max_abs":0,"name":"tail"}')
    )


@pytest.mark.parametrize("spoil", [state_a_step_that_cannot_be_joined, forget_the_passes])
def test_another_way_to_the_circuit_is_caught(
    spoil: Callable[[Path], None], root: Path, cache: Path, tools: Toolchain
) -> None:
    spoil(root)
    assert check([NAME], root, cache=cache, tools=tools)
