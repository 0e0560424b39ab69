"""Providers that adapt, against the guard: the bound holds, and none of them is better off than honest."""

from __future__ import annotations

import pytest

from guard_campaigns import STRATEGIES, TERMS, Result, Strategy, simulate
from proofhold.job import PPM

RUNS = 4_000


def holds(result: Result) -> None:
    assert result.violations * PPM <= result.campaigns * TERMS.delta_ppm, result.rate
    # By what the draws do on average, every single run is worse off; the draws themselves scatter around it.
    assert result.expected.max() <= 0
    assert result.profit.mean() <= 3 * result.profit_error


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_the_bound_holds_and_cheating_does_not_pay(strategy: Strategy) -> None:
    result = simulate(strategy, runs=RUNS, seed=20261123)
    assert result.caught > 0.9 * RUNS
    holds(result)


@pytest.mark.long
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_the_bound_holds_over_many_more_runs(strategy: Strategy) -> None:
    holds(simulate(strategy, runs=10 * RUNS, seed=1))
