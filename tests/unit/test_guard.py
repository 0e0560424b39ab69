"""The guard's arithmetic: every rounding on the safe side, every formula against its definition."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofhold.errors import Misuse
from proofhold.guard import (
    LEAST_MULTIPLIER_PPM,
    Observation,
    Sprt,
    Stake,
    Standing,
    Terms,
    demand,
    failure_rate_bound,
    least_bond,
    least_penalty,
    least_rate_ppm,
    objections,
    plan,
    undetected_probability,
)
from proofhold.job import PPM

rates = st.integers(1, PPM)
amounts = st.integers(1, 10**15)
terms = st.builds(
    Terms,
    kappa=amounts,
    least_multiplier_ppm=st.integers(LEAST_MULTIPLIER_PPM, PPM),
    detection_ppm=rates,
    delta_ppm=st.integers(1, PPM - 1),
    decay_ppm=st.integers(0, PPM),
    probation_checks=st.integers(0, 300),
    saving_ppm=st.integers(0, PPM),
)
standings = st.builds(
    Standing,
    multiplier_ppm=rates,
    probation_left=st.integers(0, 300),
    exposure=st.integers(0, 10**15),
)
PERFECT = {"detection_ppm": PPM}


# --- the bound -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delta_ppm", "worst"), [(10_000, 230_258_510), (1, 690_775_528)])
def test_the_published_figures(delta_ppm: int, worst: int) -> None:
    """κ = $10 and m_min = 0.2: $230 at δ = 1 %, $691 at 1e-6."""
    assert Terms(kappa=10_000_000, delta_ppm=delta_ppm, detection_ppm=PPM).worst_case == worst


@given(terms)
def test_the_worst_case_is_the_formula_rounded_up(t: Terms) -> None:
    factor = math.log(PPM / t.delta_ppm) * PPM * PPM / (t.least_multiplier_ppm * t.detection_ppm)
    assert t.worst_case >= 1
    assert t.worst_case == pytest.approx(t.kappa * factor, rel=1e-12, abs=1)


@given(st.integers(10**6, 10**18), st.integers(1, PPM - 1), rates)
def test_from_a_loss_to_kappa_and_back(loss: int, delta_ppm: int, detection_ppm: int) -> None:
    changes = {"delta_ppm": delta_ppm, "detection_ppm": detection_ppm}
    try:
        t = Terms.for_loss(loss, **changes)
    except Misuse:
        assert Terms(kappa=1, **changes).worst_case > loss
        return
    assert t.worst_case <= loss
    if t.kappa < 2**63 - 1:
        assert Terms(kappa=t.kappa + 1, **changes).worst_case > loss


@given(terms, rates, amounts)
def test_one_step_of_the_proof(t: Terms, multiplier_ppm: int, price: int) -> None:
    """exp(λv)·(1 - d·p) ≤ 1 for λ = d·m_min/κ, since d·p ≥ λv wherever the bound reaches."""
    if t.greatest_value is not None and price > t.greatest_value:
        return
    p = Fraction(t.rate_ppm(multiplier_ppm, price), PPM)
    d = Fraction(t.detection_ppm, PPM)
    growth = d * Fraction(t.least_multiplier_ppm, PPM) * Fraction(price, t.kappa)
    assert d * p >= growth or d * p == 1


def test_a_check_that_can_miss_does_not_cover_every_price() -> None:
    t = Terms(kappa=100, detection_ppm=500_000)
    assert t.greatest_value == 500
    # Just past it, the step of the proof fails for m = m_min: a rate cannot exceed 1.
    assert Fraction(t.rate_ppm(200_000, 501), PPM) < Fraction(200_000 * 501, PPM * 100)
    assert Terms(kappa=100, **PERFECT).greatest_value is None


@given(terms, rates, amounts, amounts)
def test_a_rate_grows_with_price_and_multiplier(t: Terms, m: int, price: int, more: int) -> None:
    assert t.rate_ppm(m, price) <= t.rate_ppm(m, price + more)
    assert t.rate_ppm(m, price) <= t.rate_ppm(PPM, price) <= PPM
    assert t.rate_ppm(m, price) == t.rate_ppm(max(m, t.least_multiplier_ppm), price)


def test_the_probability_of_a_loss_is_delta_at_the_worst_case() -> None:
    t = Terms(kappa=10**9)
    assert undetected_probability(t, t.worst_case) == pytest.approx(0.01)
    assert undetected_probability(t, 0) == 1.0


# --- deterrence ------------------------------------------------------------------------------------------


def test_the_published_least_rate() -> None:
    """s = 50 % of the fee, L = 100 fees: 0.5 %."""
    assert least_rate_ppm(500, 100_000, PPM) == 5_000


@given(amounts, amounts, rates)
def test_at_the_least_rate_a_cheat_does_not_pay(gain: int, stake: int, detection_ppm: int) -> None:
    rate = least_rate_ppm(gain, stake, detection_ppm)
    lost = detection_ppm * stake
    if rate is None:
        assert gain * PPM > lost
    else:
        assert gain * PPM * PPM <= rate * lost
        assert rate == 1 or gain * PPM * PPM > (rate - 1) * lost


@given(amounts, rates, rates)
def test_at_the_least_bond_a_cheat_does_not_pay(gain: int, rate_ppm: int, detection_ppm: int) -> None:
    bond = least_bond(gain, rate_ppm, detection_ppm)
    assert gain * PPM * PPM <= rate_ppm * detection_ppm * bond
    assert gain * PPM * PPM > rate_ppm * detection_ppm * (bond - 1)
    assert least_bond(gain, rate_ppm, detection_ppm, forfeited=bond + 1) == 0
    assert least_penalty(gain, rate_ppm) <= bond  # the bond pays the penalty


def test_nothing_deters_what_is_never_checked() -> None:
    assert least_rate_ppm(1, 0, PPM) is None
    assert least_rate_ppm(0, 0, PPM) == 0
    with pytest.raises(Misuse):
        least_bond(1, 0)


# --- probation -------------------------------------------------------------------------------------------


def test_the_published_probation() -> None:
    assert (Sprt().clean_to_accept, Sprt().failures_to_reject) == (138, 2)
    assert Terms(kappa=1).probation_checks == Sprt().clean_to_accept


def test_the_errors_of_a_probation_are_what_is_stated() -> None:
    """The guard's own rule, which a failure ends: exact, without Wald's approximation."""
    clean = Sprt().clean_to_accept
    assert 0.95**clean <= 1e-3  # who fails 5 % of its checks and passes
    assert 0.999**clean == pytest.approx(0.871, abs=1e-3)  # who fails 0.1 % and passes at the first attempt


# --- standing --------------------------------------------------------------------------------------------


def test_the_published_update() -> None:
    t = Terms(kappa=1)
    s = Standing.newcomer(t)
    for _ in range(53):
        assert s.multiplier_ppm > t.least_multiplier_ppm
        s = s.after(Observation.CLEAN, 1, t)
    assert s.multiplier_ppm == t.least_multiplier_ppm
    failed = s.after(Observation.FAILED, 1, t)
    assert (failed.multiplier_ppm, failed.probation_left, failed.failed) == (PPM, 138, 1)
    assert failed.cleared().failed == 0


@given(terms, st.lists(st.sampled_from(Observation), max_size=60))
def test_whatever_is_observed_the_multiplier_stays_within_its_bounds(
    t: Terms, observations: list[Observation]
) -> None:
    s = Standing.newcomer(t)
    for observation in observations:
        s = s.after(observation, 7, t)
        assert t.least_multiplier_ppm <= s.multiplier_ppm <= PPM
        assert 0 <= s.probation_left <= t.probation_checks
    assert s.clean == observations.count(Observation.CLEAN)
    assert s.failed == observations.count(Observation.FAILED)
    assert s.unchecked == observations.count(Observation.UNCHECKED)
    since = observations[::-1].index(Observation.CLEAN) if s.clean else len(observations)
    assert s.exposure == 7 * observations[len(observations) - since :].count(Observation.UNCHECKED)


@given(terms, standings, amounts, st.integers(0, PPM), st.integers(0, 10**15))
def test_what_is_demanded_is_enough(t: Terms, s: Standing, price: int, rate_ppm: int, bond: int) -> None:
    if t.greatest_value is not None and price > t.greatest_value:
        return
    rate = max(rate_ppm, demand(t, s, price=price, rate_ppm=rate_ppm, bond=0).rate_ppm)
    least = demand(t, s, price=price, rate_ppm=rate, bond=0)
    rich = Stake(s.exposure, 0, 10**18)
    carried = {"price": price, "rate_ppm": rate, "penalty": least.penalty}
    if rate:
        assert objections(t, s, rich, bond=least.bond, **carried) == ()
        if least.bond:
            found = objections(t, s, rich, bond=least.bond - 1, **carried)
            assert "guard.bond" in [reason.code for reason in found]


# --- the confidence bound --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failed", "checked", "expected"),
    [(0, 30, 0.0950), (0, 100, 0.0295), (0, 300, 0.00994), (0, 3_000, 0.000998), (3, 50, 0.14784), (5, 5, 1)],
)
def test_clopper_pearson(failed: int, checked: int, expected: float) -> None:
    assert failure_rate_bound(failed, checked) == pytest.approx(expected, rel=2e-3)


@given(st.integers(0, 20), st.integers(1, 2_000), st.sampled_from([0.05, 0.01, 1e-6]))
def test_the_bound_is_where_the_tail_is_the_error(failed: int, good: int, error: float) -> None:
    checked = failed + good
    p = failure_rate_bound(failed, checked, error=error)
    tail = math.fsum(math.comb(checked, k) * p**k * (1 - p) ** (checked - k) for k in range(failed + 1))
    assert tail == pytest.approx(error, rel=1e-6)


def test_without_a_check_nothing_is_known() -> None:
    assert failure_rate_bound(0, 0) == 1.0
    for wrong in ((1, 0), (-1, 3)):
        with pytest.raises(Misuse):
            failure_rate_bound(*wrong)
    with pytest.raises(Misuse):
        failure_rate_bound(0, 1, error=0.0)


# --- the plan --------------------------------------------------------------------------------------------


def test_a_plan_leads_from_probation_to_the_steady_state() -> None:
    t = Terms(kappa=1_000_000, **PERFECT)
    found = plan(t, price=100_000, bond=10_000_000)
    assert [(stage.name, stage.demand.rate_ppm) for stage in found.stages] == [
        ("probation", PPM),
        ("steady", 20_000),
    ]
    assert found.steady.clean == 138
    assert not found.newcomer_is_covered
    assert found.least_rate_ppm == 5_000
    covered = plan(t, price=100_000, bond=t.worst_case)
    assert covered.newcomer_is_covered
    assert [(stage.name, stage.clean, stage.demand.rate_ppm) for stage in covered.stages] == [
        ("trusted", 0, 100_000),
        ("trusted", 26, 45_298),
        ("steady", 53, 20_000),
    ]


def test_a_small_bond_raises_the_rate() -> None:
    t = Terms(kappa=1_000_000, **PERFECT)
    assert plan(t, price=100_000, bond=1_000_000).steady.demand.rate_ppm == 50_000
    none = plan(t, price=100_000, bond=1)
    assert (none.least_rate_ppm, none.steady.demand.rate_ppm) == (None, PPM)
    still = plan(Terms(kappa=10, decay_ppm=PPM), price=1, bond=100)
    assert still.steady.multiplier_ppm == PPM


@pytest.mark.parametrize(
    "wrong",
    [
        {"kappa": 0},
        {"kappa": 1, "delta_ppm": 0},
        {"kappa": 1, "delta_ppm": PPM},
        {"kappa": 1, "least_multiplier_ppm": 0},
        {"kappa": 1, "detection_ppm": 0},
        {"kappa": True},
    ],
)
def test_terms_that_promise_nothing_are_misuse(wrong: dict[str, int]) -> None:
    with pytest.raises(Misuse):
        Terms(**wrong)
