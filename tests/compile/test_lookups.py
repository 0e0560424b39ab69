"""Circuits with lookup tables: their range is found, pinned, and never left by what is proved."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import helper

from proofhold.catalogue import Catalogue
from proofhold.compile import CompileError, check, compile_model, native, plan, settings
from proofhold.compile.build import accept
from proofhold.compile.tables import ASSUMED_RANGE
from proofhold.compile.toolchain import Toolchain
from proofhold.locks import CircuitLock, RunArgs
from small_models import graph_of, uniform, write_model

SHAPE = (1, 4)
RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=4, input_scale=7, param_scale=7)


def looking_up(operator: str) -> bytes:
    """The operator, and one more, or it would be left to the reader."""
    nodes = [helper.make_node(operator, ["x"], ["z"]), helper.make_node("Neg", ["z"], ["y"])]
    made: bytes = graph_of(nodes, inputs={"x": SHAPE}, outputs={"y": SHAPE}).SerializeToString()
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cache: Path, tools: Toolchain) -> tuple[Path, CircuitLock]:
    """A Sigmoid over 4 numbers from -4 to 4, compiled under a root of its own."""
    root = tmp_path_factory.mktemp("root")
    model = write_model(root / "models" / "sigmoid", looking_up("Sigmoid"), {"x": uniform((20, 4))})
    out = root / "circuits" / "sigmoid"
    return root, compile_model(model, out, run_args=RUN_ARGS, cache=cache, tools=tools)


@pytest.fixture
def compiled(made: tuple[Path, CircuitLock], tmp_path: Path) -> tuple[Path, CircuitLock]:
    """A copy of it, to spoil."""
    root, lock = made
    return shutil.copytree(root, tmp_path / "root"), lock


def test_a_table_is_measured_pinned_and_proved(
    compiled: tuple[Path, CircuitLock], cache: Path, tools: Toolchain
) -> None:
    root, lock = compiled
    # The domain's corners are at 4 · 2^7; twice that is the range.
    assert lock.run_args == replace(RUN_ARGS, lookup_range=(-1024, 1024))
    pinned = json.loads((root / "circuits" / "sigmoid" / "settings.json").read_bytes())
    assert pinned["run_args"]["lookup_range"] == [-1024, 1024]
    assert pinned["required_lookups"]
    assert lock.error.max_abs < 0.01
    assert lock.peak is None
    assert Catalogue.load(root).by_name("sigmoid").circuit is not None
    assert check(["sigmoid"], root, cache=cache, tools=tools) == []


def test_a_narrower_table_than_the_samples_need_is_caught(
    compiled: tuple[Path, CircuitLock], cache: Path, tools: Toolchain
) -> None:
    """By whoever writes lock and list: proofs would still verify, of fewer inputs than promised."""
    root, lock = compiled
    forged = replace(lock, run_args=replace(lock.run_args, lookup_range=(-256, 256)))
    (root / "circuits" / "sigmoid" / "circuit.lock.json").write_bytes(forged.encode())
    accept(root / "circuits", forged)
    (found,) = check(["sigmoid"], root, cache=cache, tools=tools)
    assert found.field == "the model"
    assert "looks up" in found.found


def test_an_input_outside_the_table_is_refused_before_it_hangs_the_prover(
    compiled: tuple[Path, CircuitLock], cache: Path, tools: Toolchain
) -> None:
    _, lock = compiled
    keys = cache / "keys" / lock.pk
    outside = [[100.0, 0.0, 0.0, 0.0], list(range(16))]
    circuit, pk = keys / native.CIRCUIT_FILE, keys / native.PK_FILE
    with pytest.raises(CompileError, match=r"12800 in tables of -1024 to 1024.*compile\.not_provable"):
        tools.evaluate(circuit, [outside], lookup_range=lock.run_args.lookup_range)
    with pytest.raises(CompileError, match=r"compile\.not_provable"):
        tools.prove(circuit, pk, Path("unused"), outside, lookup_range=lock.run_args.lookup_range)


def test_settings_with_another_range_than_the_lock_are_refused(compiled: tuple[Path, CircuitLock]) -> None:
    root, lock = compiled
    pinned = json.loads((root / "circuits" / "sigmoid" / "settings.json").read_bytes())
    settings.check(pinned, lock.run_args, lock.inputs, lock.outputs)
    pinned["run_args"]["lookup_range"] = [-1024, 2048]
    with pytest.raises(CompileError, match=r"compile\.unexpected_settings"):
        settings.check(pinned, lock.run_args, lock.inputs, lock.outputs)


@pytest.mark.parametrize(
    ("rows", "lookup_range", "k"),
    [
        (100, None, 8),
        (500, None, 10),
        (100, (-512, 512), 9),
        (100, (-2000, 2000), 10),
        (100, (-2048, 2048), 11),
        (5000, (-2048, 2048), 13),
        (100, (-(2**20), 2**20), 20),
    ],
)
def test_k_holds_rows_and_tables(rows: int, lookup_range: tuple[int, int] | None, k: int) -> None:
    made = {
        "num_rows": rows,
        "required_range_checks": [[-1, 1], [0, 127]],
        "total_dynamic_col_size": 0,
        "total_shuffle_col_size": 0,
    }
    assert settings.smallest_k(made, 24, lookup_range) == k


def test_a_plan_measures_where_there_are_samples_and_assumes_otherwise(
    compiled: tuple[Path, CircuitLock], tools: Toolchain
) -> None:
    from proofhold.compile import Specification

    root, lock = compiled
    published = (root / "models" / "sigmoid" / "model.onnx").read_bytes()
    specification = Specification.read(root / "models" / "sigmoid" / "model.toml")
    told = plan(published, RUN_ARGS, tools=tools, specification=specification)
    assert (told.k, told.rows, told.lookup_range) == (lock.cost.k, lock.cost.rows, lock.run_args.lookup_range)
    guessed = plan(published, RUN_ARGS, tools=tools)
    assert guessed.obstacle is None
    assert guessed.lookup_range == ASSUMED_RANGE
    assert guessed.k > told.k


def test_softmax_looks_up_negative_numbers_only(tmp_path: Path, cache: Path, tools: Toolchain) -> None:
    samples = {"x": uniform((10, 4), low=-2, high=2)}
    model = write_model(tmp_path / "softmax", looking_up("Softmax"), samples, low=-2, high=2)
    lock = compile_model(model, tmp_path / "out", run_args=RUN_ARGS, cache=cache, tools=tools)
    assert lock.run_args.lookup_range == (-1024, 16)
    assert lock.error.max_abs < 0.03
