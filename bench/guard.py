"""Dishonest providers that adapt, against the guard: how often the bound breaks, and what cheating earns.

The strategies and the simulation are those of the tests (tests/guard_campaigns.py), over more runs.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from _results import table, write_section

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from guard_campaigns import PRICES, STEPS, STRATEGIES, TERMS, Result, simulate

RUNS = 20_000
SEED = 7


def row(result: Result) -> list[str]:
    error = math.sqrt(max(result.rate, 1 / result.campaigns) / result.campaigns)
    mean = float(result.profit.mean())
    return [
        result.name,
        f"{result.campaigns:,}",
        f"{result.violations:,}",
        f"{100 * result.rate:.3f} ± {100 * error:.3f}",
        f"{result.loot / TERMS.worst_case:.3f}",
        f"{mean / TERMS.worst_case:+.4f} ± {result.profit_error / TERMS.worst_case:.4f}",
        f"{result.expected.max() / TERMS.worst_case:+.5f}",
    ]


def main() -> int:
    results = [simulate(strategy, runs=RUNS, seed=SEED) for strategy in STRATEGIES]
    header = (
        *("strategy", "campaigns", "violations", "violations, % (at most 1)", "undetected, mean a run"),
        *("profit over honesty, mean a run", "greatest expected profit"),
    )
    prices = ", ".join(f"{v / TERMS.kappa:.2g} κ" for v in PRICES)
    text = (
        f"{RUNS:,} runs of {STEPS:,} jobs each, prices of {prices}, "
        f"d = {TERMS.detection_ppm / 1e6:g}, m_min = {TERMS.least_multiplier_ppm / 1e6:g}, "
        f"δ = {TERMS.delta_ppm / 1e6:g}, each job with the least bond, penalty and probation that the guard "
        "demands. Amounts are in worst cases, κ·ln(1/δ)/(m_min·d). A campaign is one identity until its "
        "first failed check: the last two go through many in a run, and the bound is one on each of them. "
        "The last column replaces each draw by its probability: it is below zero in every single run."
    )
    write_section("guard.py", "Guard", f"{table(header, [row(r) for r in results])}\n\n{text}")
    failed = [r.name for r in results if r.rate > TERMS.delta_ppm / 1e6 or r.expected.max() > 0]
    for name in failed:
        print(f"not held against: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
