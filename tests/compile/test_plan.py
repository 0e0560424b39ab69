"""A plan says what compiling gives, or which node stands in the way, before anything is proved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from proofhold.compile import DEFAULT_RUN_ARGS, Specification, plan
from proofhold.compile.prediction import count_table_columns, predict
from proofhold.compile.toolchain import Toolchain
from proofhold.errors import Malformed
from proofhold.locks import CircuitLock
from proofhold_cli import main

NAMES = ("breast_cancer", "digits")


def lock_of(root: Path, name: str) -> CircuitLock:
    return CircuitLock.decode((root / "circuits" / name / "circuit.lock.json").read_bytes())


def chain(*operators: str, shape: Sequence[int | str] = (1, 4), domain: str = "") -> bytes:
    """A model of these operators, one after the other, each with a name; `domain` is that of the last."""
    names = [f"t{number}" for number in range(len(operators) + 1)]
    nodes = [
        helper.make_node(operator, [names[i]], [names[i + 1]], name=f"{operator}_{i}")
        for i, operator in enumerate(operators)
    ]
    nodes[-1].domain = domain
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    opsets = [helper.make_opsetid(name, version) for name, version in {domain: 3, "": 20}.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    encoded: bytes = model.SerializeToString()
    return encoded


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_what_compiling_gives(name: str, root: Path, tools: Toolchain) -> None:
    folder, lock = root / "models" / name, lock_of(root, name)
    found = plan(
        (folder / "model.onnx").read_bytes(),
        lock.run_args,
        tools=tools,
        specification=Specification.read(folder / "model.toml"),
    )
    assert found.obstacle is None
    assert found.domain_checked
    assert (found.rows, found.k, found.instances) == (lock.cost.rows, lock.cost.k, lock.cost.instances)


@pytest.mark.parametrize("name", NAMES)
def test_the_prediction_meets_the_circuits_of_the_repository(name: str, root: Path) -> None:
    lock = lock_of(root, name)
    cost, told = lock.cost, predict(lock.cost.k, columns=lock.run_args.columns)
    assert told.pk_bytes == pytest.approx(cost.pk_bytes, rel=0.03)
    assert told.vk_bytes == pytest.approx(cost.vk_bytes, rel=0.03)


@pytest.mark.parametrize(
    ("columns", "k", "tables", "entries", "pk_bytes", "vk_bytes"),
    [
        # Measured with ezkl 23.0.5 (docs/adr/0081).
        (1, 11, 0, 0, 5_906_000, 3_655),
        (4, 11, 0, 0, 21_898_000, 8_647),
        (8, 11, 0, 0, 68_043_000, 15_303),
        (2, 13, 1, 4_096, 40_915_051, 19_975),
        (2, 12, 1, 4_097, 35_925_187, 10_823),
        (2, 10, 1, 4_096, 10_294_051, 4_167),
        (3, 11, 2, 7_001, 28_453_187, 9_543),
        (8, 11, 2, 5_001, 97_540_523, 20_999),
    ],
)
def test_the_prediction_meets_circuits_of_other_shapes(
    columns: int, k: int, tables: int, entries: int, pk_bytes: int, vk_bytes: int
) -> None:
    over = count_table_columns((0, entries - 1) if tables else None, k)
    told = predict(k, columns=columns, tables=tables, table_columns=over)
    assert told.pk_bytes == pytest.approx(pk_bytes, rel=0.06)
    assert told.vk_bytes == pytest.approx(vk_bytes, rel=0.03)


def test_another_table_or_column_costs_more() -> None:
    plain = predict(12)
    for told in (
        predict(12, columns=3),
        predict(12, tables=1),
        predict(12, tables=2, table_columns=3),
    ):
        assert told.prove_s > plain.prove_s
        assert told.setup_s > plain.setup_s
        assert told.memory_bytes > plain.memory_bytes


def test_a_prediction_grows_with_k() -> None:
    told = [predict(k) for k in range(8, 20)]
    for one, next_one in pairwise(told):
        assert 0 < one.prove_s < next_one.prove_s
        assert 0 < one.setup_s < next_one.setup_s
        assert one.memory_bytes < next_one.memory_bytes


@pytest.mark.parametrize(
    ("operators", "code", "node", "operator"),
    [
        (("Relu", "Neg", "Bernoulli", "Relu", "Abs"), "compile.unsupported", "Bernoulli_2", "Bernoulli"),
        (("Bernoulli",), "compile.unsupported", "Bernoulli_0", "Bernoulli"),
    ],
)
def test_the_node_that_stands_in_the_way_is_named(
    operators: tuple[str, ...], code: str, node: str, operator: str, tools: Toolchain
) -> None:
    obstacle = plan(chain(*operators), DEFAULT_RUN_ARGS, tools=tools).obstacle
    assert obstacle is not None
    assert (obstacle.code, obstacle.node, obstacle.operator) == (code, node, operator)
    assert obstacle.why
    assert obstacle.advice


def test_an_operator_of_another_domain_and_a_free_shape_are_obstacles(tools: Toolchain) -> None:
    foreign = plan(chain("Relu", "Normalizer", domain="com.example"), DEFAULT_RUN_ARGS, tools=tools).obstacle
    assert foreign is not None
    assert (foreign.code, foreign.node) == ("compile.custom_operators", "Normalizer_1")
    machine = plan(chain("Relu", "SVMRegressor", domain="ai.onnx.ml"), DEFAULT_RUN_ARGS, tools=tools).obstacle
    assert machine is not None
    assert (machine.code, machine.operator) == ("compile.unsupported", "SVMRegressor")
    free = plan(chain("Relu", shape=(1, "features")), DEFAULT_RUN_ARGS, tools=tools).obstacle
    assert free is not None
    assert (free.code, free.node, free.advice) == (
        "compile.shape",
        "",
        "export the model with fixed shapes, or state them in model.toml",
    )


def test_a_domain_too_wide_is_an_obstacle(root: Path, tools: Toolchain) -> None:
    path = root / "models" / NAMES[0] / "model.toml"
    path.write_text(path.read_text().replace("high = 16.0", "high = 64.0"))
    published = (path.parent / "model.onnx").read_bytes()
    found = plan(published, DEFAULT_RUN_ARGS, tools=tools, specification=Specification.read(path))
    assert found.obstacle is not None
    assert found.obstacle.code == "compile.domain_too_wide"


def test_what_is_no_model_is_malformed(tools: Toolchain) -> None:
    with pytest.raises(Malformed, match=r"model\.not_onnx"):
        plan(b"not a model", DEFAULT_RUN_ARGS, tools=tools)


def test_the_command_says_it_in_words_and_in_json(root: Path) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["compile", "--plan", *map(str, arguments)])
        return result.exit_code, result.output

    good, bad = root / "models" / NAMES[0] / "model.onnx", root / "bad.onnx"
    bad.write_bytes(chain("Relu", "Bernoulli"))
    code, said = run(good)
    assert code == 0, said
    assert "rows         534, 47 instances: k = 10" in said
    assert "domain       holds" in said
    code, said = run(bad)
    assert code == 4, said
    assert "not supported: node 'Bernoulli_1', Bernoulli [compile.unsupported]" in said
    assert "what to do" in said
    code, said = run(bad, "--json")
    found = json.loads(said)
    assert (code, found["supported"], found["obstacle"]["node"]) == (4, False, "Bernoulli_1")
    told = json.loads(run(good, "--json")[1])["predicted"]
    assert told["pk_bytes"] == predict(10).pk_bytes
    assert run(good, "--out", root / "out")[0] == 2
