"""Campaigns against the guard: dishonest providers that adapt, many runs at once.

The rates, the multiplier, the bond and the penalty are the library's own, looked up in tables; only the
draws and the provider are simulated. A campaign is one identity until its first failed check, as in
docs/guard.md; `Throwaway` begins another one each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proofhold.guard import Observation, Standing, Terms, least_bond, least_penalty
from proofhold.job import PPM

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TERMS = Terms.for_loss(1_000_000, delta_ppm=10_000)
"""At most 1,000,000 atomic units undetected, with probability 99 %."""
PRICES = np.array([TERMS.kappa // 10, TERMS.kappa // 4, TERMS.kappa], dtype=np.int64)
STEPS = 2_000
"""Jobs a run: enough for every strategy here to be caught, or to win."""


@dataclass
class View:
    """What a provider knows when a job arrives: everything but the draw to come. One element a run."""

    price: Ints
    """The job's price, as an index of `PRICES`."""
    rate: Floats
    """The job's sampling rate, which it signs."""
    on_probation: Bools
    steady: Bools
    """m has come down to m_min."""
    since_check: Ints
    """Jobs since the last one that was drawn."""
    loot: Ints
    """Cheated and paid for without being found, since this identity began."""
    checks_survived: Ints
    """Cheated jobs that were drawn and passed."""


class Strategy(Protocol):
    """A dishonest provider."""

    name: str
    silent: bool
    """Whether it answers no opening when a job that it cheated on is drawn."""
    returns: bool
    """Whether it comes back under a new name after a failure."""

    def cheats(self, view: View, rng: np.random.Generator) -> Bools:
        """Choose, in every run, whether to cheat on this job."""


@dataclass
class Always:
    """Cheats from its first job, on all of them."""

    name: str = "cheats always"
    silent: bool = False
    returns: bool = False

    def cheats(self, view: View, rng: np.random.Generator) -> Bools:
        return np.ones(len(view.price), dtype=bool)


@dataclass
class Sleeper:
    """Is honest until the guard trusts it as far as it ever does, then cheats on everything."""

    name: str = "sleeps, then cheats always"
    silent: bool = False
    returns: bool = False

    def cheats(self, view: View, rng: np.random.Generator) -> Bools:
        return view.steady


@dataclass
class Learner:
    """Learns from every outcome: bolder the longer no check came, and all in once it is ahead of the odds."""

    name: str = "learns from every outcome"
    silent: bool = False
    returns: bool = False

    def cheats(self, view: View, rng: np.random.Generator) -> Bools:
        boldness = np.minimum(1.0, (1 + view.since_check) * view.rate)
        lucky = view.loot > view.checks_survived * TERMS.kappa
        return view.steady & (rng.random(len(view.price)) < np.where(lucky, 1.0, boldness))


@dataclass
class Hoarder:
    """Cheats on the jobs with the lowest rate only: the bound is tightest there."""

    name: str = "cheats on the least checked"
    silent: bool = False
    returns: bool = False

    def cheats(self, view: View, rng: np.random.Generator) -> Bools:
        chosen: Bools = view.steady & (view.price == 0)
        return chosen


@dataclass
class Stopper:
    """Gambles for the violation: cheats on dear jobs first, on cheap ones when the bound is near."""

    name: str = "aims at the bound"
    silent: bool = False
    returns: bool = False

    def cheats(self, view: View, rng: np.random.Generator) -> Bools:
        near = view.loot > TERMS.worst_case - 3 * TERMS.kappa
        chosen: Bools = view.steady & np.where(near, view.price < 2, view.price > 0)
        return chosen


@dataclass
class Silent(Sleeper):
    """Answers an opening only when it was honest: silence when drawn."""

    name: str = "silent when drawn"
    silent: bool = True


@dataclass
class Throwaway(Sleeper):
    """Comes back under a new name after each failure, serves the probation, and cheats again."""

    name: str = "throws its identity away"
    returns: bool = True


@dataclass
class Newborn(Always):
    """Comes back under a new name after each failure, and does not even wait for the probation's end."""

    name: str = "throws it away, never waits"
    returns: bool = True


STRATEGIES: tuple[Strategy, ...] = (
    Always(),
    Sleeper(),
    Learner(),
    Hoarder(),
    Stopper(),
    Silent(),
    Throwaway(),
    Newborn(),
)


@dataclass(frozen=True)
class Result:
    """What a strategy came to, over all runs."""

    name: str
    runs: int
    campaigns: int
    """Identities used, over all runs."""
    violations: int
    """Campaigns with more undetected than the worst case."""
    caught: int
    loot: float
    """Cheated and undetected, mean a run, atomic units."""
    profit: Floats
    """What each run gained over being honest, atomic units."""
    expected: Floats
    """The same with every draw replaced by its probability: the same mean, without the noise."""

    @property
    def rate(self) -> float:
        """How many campaigns of all violated the bound."""
        return self.violations / self.campaigns

    @property
    def profit_error(self) -> float:
        """The standard error of the mean profit."""
        return float(self.profit.std() / np.sqrt(self.runs))


def levels() -> Iterator[Standing]:
    """Every standing on the way from a newcomer's to the steady state, one a clean check."""
    standing = Standing.newcomer(TERMS)
    while True:
        yield standing
        if not standing.probation_left and standing.multiplier_ppm == TERMS.least_multiplier_ppm:
            return
        standing = standing.after(Observation.CLEAN, 0, TERMS)


def simulate(strategy: Strategy, *, runs: int, seed: int, steps: int = STEPS) -> Result:
    """Play a strategy against the guard, `runs` times over `steps` jobs each."""
    rng = np.random.default_rng(seed)
    ladder = list(levels())
    rate_ppm = np.array(
        [
            [PPM if s.probation_left else TERMS.rate_ppm(s.multiplier_ppm, int(v)) for v in PRICES]
            for s in ladder
        ]
    )
    gain = np.array([TERMS.gain(int(v)) for v in PRICES])
    bond = np.array(
        [
            [least_bond(int(g), int(p), TERMS.detection_ppm) for g, p in zip(gain, row, strict=True)]
            for row in rate_ppm
        ]
    )
    penalty = np.array(
        [[least_penalty(int(g), int(p)) for g, p in zip(gain, row, strict=True)] for row in rate_ppm]
    )
    probation = np.array([s.probation_left > 0 for s in ladder])
    detection = TERMS.detection_ppm / PPM

    level, since, loot, survived, stolen, profit = (np.zeros(runs, dtype=np.int64) for _ in range(6))
    expected, alive = np.zeros(runs), np.ones(runs, dtype=bool)
    campaigns, violations, caught = runs, 0, 0
    violated = np.zeros(runs, dtype=bool)
    for _ in range(steps):
        price = rng.integers(len(PRICES), size=runs)
        value, rate = PRICES[price], rate_ppm[level, price] / PPM
        view = View(price, rate, probation[level], level == len(ladder) - 1, since, loot, survived)
        cheat = strategy.cheats(view, rng) & alive
        drawn = alive & (rng.random(runs) < rate)
        found = np.ones(runs, dtype=bool) if strategy.silent else rng.random(runs) < detection
        failed = cheat & drawn & found
        fine = (penalty if strategy.silent else bond)[level, price] + value  # the job's price is refunded too
        profit += np.where(cheat, gain[price], 0) - np.where(failed, fine, 0)
        chance = rate * (1.0 if strategy.silent else detection)
        expected += np.where(cheat, gain[price] - chance * fine, 0.0)

        taken = np.where(cheat & ~failed, value, 0)
        loot, stolen = loot + taken, stolen + taken
        now = loot > TERMS.worst_case
        violations += int((now & ~violated).sum())
        violated |= now
        clean = drawn & ~failed
        survived = survived + (clean & cheat)
        since = np.where(drawn, 0, since + 1)
        level = np.where(clean, np.minimum(level + 1, len(ladder) - 1), level)
        caught += int(failed.sum())
        if strategy.returns:
            level, since = np.where(failed, 0, level), np.where(failed, 0, since)
            loot, survived = np.where(failed, 0, loot), np.where(failed, 0, survived)
            violated &= ~failed
            campaigns += int(failed.sum())
        else:
            alive &= ~failed
    return Result(
        strategy.name,
        runs,
        campaigns,
        violations,
        caught,
        float(stolen.mean()),
        profit.astype(np.float64),
        expected,
    )
