"""The tuner: one model, one circuit: the cheapest that keeps the bound; and it says what it tried."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from proofhold.compile import CompileError, Goal, Specification, Tuning, compile_model, tune
from proofhold.compile.cost import MAX_COLUMNS, Counts
from proofhold.compile.report import render
from proofhold.compile.rowcount import rows_by_operator
from proofhold.compile.search import MAX_BASE_BITS, SCALES, candidates, ezkl_default, is_ezkl_default
from proofhold.compile.timing import Timed, pick, rank_correlation
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import check_peak
from proofhold.compile.tune import Candidate, order
from proofhold.locks import CircuitLock, RunArgs
from proofhold_cli import main
from repository_models import MODELS, NAMES

CIRCUITS = MODELS.parent / "circuits"
NAME = "breast_cancer"
PUBLISHED = (MODELS / NAME / "model.onnx").read_bytes()
FEW_SCALES = (6, 9, 12)


def tuned(
    tools: Toolchain,
    goal: Goal = Goal.TIME,
    max_error: float = 0.05,
    *,
    surveyed: bool = False,
) -> Tuning:
    specification = Specification.read(MODELS / NAME / "model.toml")
    return tune(
        PUBLISHED,
        specification,
        goal=goal,
        max_error=max_error,
        scales=FEW_SCALES,
        surveyed=surveyed,
        tools=tools,
    )


@pytest.fixture(scope="module")
def fastest(tools: Toolchain) -> Tuning:
    return tuned(tools, surveyed=True)


def candidate(k: int, columns: int = 2, scale: int = 9, tables: int = 0) -> Candidate:
    return Candidate(
        RunArgs(columns, 128, 5, scale, scale), Counts(k, 2**k - 20, columns, tables), exact=True
    )


def test_the_same_model_and_samples_give_the_same_lock(
    fastest: Tuning, tmp_path: Path, cache: Path, tools: Toolchain
) -> None:
    again = tuned(tools)
    assert again.run_args == fastest.run_args
    assert [one.candidate for one in again.tried] == [one.candidate for one in fastest.tried]
    locks = [
        compile_model(
            MODELS / NAME / "model.onnx",
            tmp_path / place / NAME,
            specification_path=MODELS / NAME / "model.toml",
            run_args=tuning.run_args,
            cache=cache,
            tools=tools,
        )
        for place, tuning in (("one", fastest), ("other", again))
    ]
    assert locks[0].encode() == locks[1].encode()
    assert locks[0].error.bound == fastest.chosen.bound


def test_nothing_cheaper_keeps_the_bound(fastest: Tuning) -> None:
    *rejected, last = fastest.tried
    assert last is fastest.chosen
    assert all(one.bound is None or one.bound > fastest.max_error for one in rejected)
    # Whatever counts as cheaper was tried, or is no finer than something that was too coarse.
    too_coarse = max((one.candidate.scale for one in rejected), default=-1)
    key = order(fastest.goal, last.candidate)
    cheaper = [one for one in fastest.ranked if order(fastest.goal, one) < key]
    assert all(one.scale <= too_coarse for one in cheaper)


def test_less_error_takes_a_finer_scale_and_no_cheaper_circuit(fastest: Tuning, tools: Toolchain) -> None:
    finer = tuned(tools, max_error=fastest.max_error / 8)
    assert finer.chosen.bound is not None
    assert finer.chosen.bound <= finer.max_error
    assert finer.run_args.input_scale > fastest.run_args.input_scale
    assert finer.chosen.candidate.counts.proving >= fastest.chosen.candidate.counts.proving


def test_each_goal_is_the_least_of_its_own(fastest: Tuning, tools: Toolchain) -> None:
    smallest, best = tuned(tools, Goal.SIZE), tuned(tools, Goal.ACCURACY)
    sizes = [one.chosen.candidate.counts.verifier_bytes for one in (smallest, fastest, best)]
    assert min(sizes) == sizes[0]
    bounds = [one.chosen.bound for one in (best, fastest, smallest)]
    assert min(bound for bound in bounds if bound is not None) == bounds[0]
    assert best.run_args.input_scale == max(FEW_SCALES)


def test_an_error_that_no_circuit_keeps_is_refused_with_the_best_that_one_does(tools: Toolchain) -> None:
    with pytest.raises(CompileError, match=r"1e-09 .*states 0\.00.*compile\.no_candidate"):
        tuned(tools, max_error=1e-9)


def test_ezkls_own_choice_is_always_among_the_candidates(fastest: Tuning) -> None:
    assert fastest.default is not None
    assert is_ezkl_default(fastest.default.run_args)
    assert fastest.default in fastest.ranked
    assert fastest.chosen.candidate.counts.proving <= fastest.default.counts.proving


def test_where_ezkls_choice_is_the_cheapest_it_comes_first() -> None:
    # As of digits_28: two columns just fit, and more of them never save a whole halving.
    default = Candidate(ezkl_default(7), Counts(16, 59_188, 2), exact=True)
    others = [Candidate(RunArgs(c, 16_384, 2, 7, 7), Counts(k, 2**k - 99, c), exact=True)
              for c, k in ((1, 17), (3, 16), (4, 15), (5, 15), (6, 15))]  # fmt: skip
    assert min([*others, default], key=lambda one: order(Goal.TIME, one)) is default


def test_of_two_that_count_alike_ezkls_own_choice_is_taken() -> None:
    # As of transformer: a smaller base holds its values too, and saves nothing.
    default = Candidate(ezkl_default(10), Counts(16, 55_669, 2, 1, 8), exact=True)
    smaller = Candidate(RunArgs(2, 4_096, 2, 10, 10), Counts(16, 55_669, 2, 1, 8), exact=True)
    assert min([smaller, default], key=lambda one: order(Goal.TIME, one)) is default


@given(st.floats(1e-3, 1e6), st.sampled_from(SCALES))
def test_every_candidate_holds_the_domain_and_none_is_wasteful(peak: float, scale: int) -> None:
    found = candidates(peak, [scale])
    for run_args in found:
        assert check_peak(peak, run_args) == peak
    assert {one.columns for one in found if not is_ezkl_default(one)} <= set(range(1, MAX_COLUMNS + 1))
    # One base for each number of legs, ezkl's own apart.
    ours = [one for one in found if one != ezkl_default(scale)]
    assert len({(one.columns, one.decomp_legs) for one in ours}) == len(ours)
    assert all(one.decomp_base <= 2**MAX_BASE_BITS for one in found)


@given(st.floats(1e-3, 1e6), st.sampled_from(SCALES))
def test_ezkls_choice_is_a_candidate_wherever_it_holds_the_domain(peak: float, scale: int) -> None:
    try:
        check_peak(peak, ezkl_default(scale))
    except CompileError:
        assert ezkl_default(scale) not in candidates(peak, [scale])
    else:
        assert ezkl_default(scale) in candidates(peak, [scale])


@pytest.mark.parametrize("name", NAMES)
def test_counts_foretell_what_a_verifier_holds(name: str) -> None:
    lock = CircuitLock.decode((CIRCUITS / name / CircuitLock.FILE_NAME).read_bytes())
    if lock.run_args.lookup_range is not None:
        pytest.skip("of tables the count is rough")
    counts = Counts(lock.cost.k, lock.cost.rows, lock.run_args.columns)
    held = lock.cost.vk_bytes + lock.cost.proof_bytes
    assert held == pytest.approx(counts.verifier_bytes, abs=200)


def test_tables_and_shuffles_cost_more_on_the_larger_domain() -> None:
    plain, with_table = Counts(12, 4_000, 2), Counts(12, 4_000, 2, tables=1)
    wide, wide_with_table = Counts(12, 4_000, 5), Counts(12, 4_000, 5, tables=1)
    assert wide_with_table.proving - wide.proving == 2 * (with_table.proving - plain.proving) > 0


def test_ranks_are_compared_as_spearman_does() -> None:
    def timed(*seconds: float) -> list[Timed]:
        return [Timed(candidate(9 + place), 0.0, second) for place, second in enumerate(seconds)]

    assert rank_correlation(timed(1, 2, 3, 40)) == pytest.approx(1)
    assert rank_correlation(timed(9, 5, 1)) == pytest.approx(-1)
    assert rank_correlation(timed(1, 3, 2)) == pytest.approx(0.5)
    assert rank_correlation(timed(1, 1, 2)) == pytest.approx(math.sqrt(3) / 2), "equal ones share a rank"
    assert rank_correlation(timed(1, 2)) is None
    assert rank_correlation(timed(1, 1, 1)) is None


def test_what_is_timed_are_the_choice_the_default_and_different_kinds(fastest: Tuning) -> None:
    picked = pick(fastest, 4)
    assert picked[0] is fastest.chosen.candidate
    assert picked[1] is fastest.default
    assert len({(one.counts.k, one.counts.columns) for one in picked}) == len(picked) == 4
    assert pick(fastest, 1) == picked[:1]
    assert pick(fastest, 0) == ()


def test_the_report_is_one_file_and_shows_everything(fastest: Tuning, tools: Toolchain) -> None:
    specification = Specification.read(MODELS / NAME / "model.toml")
    derived = tools.derive(PUBLISHED, specification.request).model
    rows = rows_by_operator(derived, fastest.run_args, tools)
    assert sum(one.rows for one in rows) == pytest.approx(fastest.chosen.candidate.counts.rows, rel=0.1)
    timed = [Timed(one, 0.5, 0.25 * place) for place, one in enumerate(pick(fastest, 3))]
    page = render("<b>evil</b>", fastest, rows, timed)
    assert "<b>evil" not in page
    assert not re.search(r"https?:|src=|href=|<script|@import|url\(", page), "it must need no other file"
    for heading in ("What was tried", "What accuracy costs", "The error of the chosen circuit",
                    "Where the rows go", "Real proofs"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") == 3
    assert page.count("<circle") == len(fastest.survey)
    assert "MatMul × 1" in page


def test_the_report_leaves_out_what_was_not_done(fastest: Tuning) -> None:
    page = render(NAME, replace(fastest, survey=()))
    assert "Real proofs" not in page
    assert "What accuracy costs" not in page


def test_the_command_tunes_tells_and_pins(tmp_path: Path) -> None:
    out, report = tmp_path / "circuits" / NAME, tmp_path / "report.html"
    result = CliRunner().invoke(
        main,
        ["compile", "--tune", "time", "--trials", "1", "--report", str(report),
         str(MODELS / NAME / "model.onnx"), "--out", str(out)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "chosen" in result.stdout
    assert "Real proofs" in result.stdout
    assert report.read_text().startswith("<!doctype html>")
    lock = CircuitLock.decode((out / CircuitLock.FILE_NAME).read_bytes())
    committed = CircuitLock.decode((CIRCUITS / NAME / CircuitLock.FILE_NAME).read_bytes())
    assert lock.run_args == committed.run_args, "the committed circuit is the one that the tuner finds"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-error", "0.1", "model.onnx"),
        ("--trials", "2", "model.onnx"),
        ("--report", "report.html", "model.onnx"),
        ("--tune", "time", "--check", "--all"),
        ("--tune", "time", "--plan", "model.onnx"),
        ("--tune", "time", "--scale", "9", "model.onnx"),
        ("--tune", "time", "--max-error", "0", "model.onnx"),
        ("--tune", "sideways", "model.onnx"),
    ],
)
def test_misuse_of_the_tuner_is_told(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, ["compile", *arguments]).exit_code == 2
