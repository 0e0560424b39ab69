"""docs/operators.md is what the light models of onnx's backend tests give, and a sample of them is tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend_cases import COMPILED, Case, cases, outcome_of
from make_operators_page import OUTCOMES, PAGE, render
from proofhold.compile.toolchain import Toolchain

RECORDED = json.loads(OUTCOMES.read_bytes())
SAMPLE = (
    "test_gelu_default_1",
    "test_relu",
    "test_argmax_keepdims_example_select_last_index",
    "test_averagepool_2d_same_upper",
    "test_conv_with_strides_padding",
    "test_attention_4d",
    "test_greater",
    "test_operator_mm",
    "test_softmax_axis_0",
    "light_resnet50",
)
"""Some of each outcome: compiled with a table and without, wrong in ezkl, refused by it, a pass, or size."""


@pytest.fixture(scope="module")
def every_case() -> dict[str, Case]:
    return {case.name: case for case in cases()}


def test_every_light_model_is_on_record_and_no_other(every_case: dict[str, Case]) -> None:
    assert set(RECORDED["outcomes"]) == set(every_case)
    assert len(every_case) > 850


def test_the_page_is_what_is_on_record() -> None:
    assert PAGE.read_text() == render(RECORDED["outcomes"], RECORDED["versions"])


def test_nothing_died_or_hung() -> None:
    outcomes = {outcome for outcome, _ in RECORDED["outcomes"].values()}
    assert "compile.tool_failed" not in outcomes


@pytest.mark.parametrize("name", SAMPLE)
def test_a_light_model_gives_what_is_on_record(
    name: str, every_case: dict[str, Case], tmp_path: Path, tools: Toolchain
) -> None:
    outcome, operators = RECORDED["outcomes"][name]
    case = every_case[name]
    assert operators == case.operators
    assert outcome_of(case, tmp_path, tools) == outcome


@pytest.mark.long
def test_every_light_model_gives_what_is_on_record(
    every_case: dict[str, Case], tmp_path: Path, tools: Toolchain
) -> None:
    found = {name: outcome_of(case, tmp_path / name, tools) for name, case in every_case.items()}
    assert found == {name: outcome for name, (outcome, _) in RECORDED["outcomes"].items()}
    assert sum(outcome == COMPILED for outcome in found.values()) > 300
