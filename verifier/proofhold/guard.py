"""The guard: how often to check whom, and against what stake, so that the loss stays under a stated bound.

Everything here is arithmetic on integers: amounts in atomic units, rates and probabilities in parts per
million, each rounded to the side that is safe for whoever pays. The one bound it rests on:

    p = min(1, m·v/κ) with m ≥ m_min, and the first failed check ends the run. Then, whatever a provider
    does, P(value cheated and undetected > κ·ln(1/δ)/(m_min·d)) ≤ δ, over any number of jobs.

v is a job's price, d the probability that a check of a cheat finds it. docs/guard.md has the proof and what
it does not cover. The escrow keeps a `Standing` for each provider and model and asks `objections` when a job
is funded; nothing here knows a database.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from enum import StrEnum
from typing import Any, Final, Self

from proofhold.core import Fault, Reason
from proofhold.errors import Misuse
from proofhold.job import PPM

MAX_KAPPA: Final = 2**63 - 1
LEAST_MULTIPLIER_PPM: Final = 1_000
"""m is never configured below 0.1 %: coarser than its own rounding it would stop decaying."""
MAX_PROBATION_CHECKS: Final = 1_000_000
MAX_CHECKS: Final = 10**9
MAX_FAILURES: Final = 10_000
"""What the confidence bound is computed for: its sum has one term a failure."""

_LN_DIGITS: Final = 40
_LN_SCALE: Final = 10**30
_EXACT = Context(prec=_LN_DIGITS)


class Observation(StrEnum):
    """What the end of a job tells about its provider."""

    CLEAN = "clean"
    """It was checked, and the check found nothing."""
    UNCHECKED = "unchecked"
    """Its provider is paid, and nobody looked."""
    FAILED = "failed"
    """A check failed by the provider's fault, or it kept silent when it was drawn (PROTOCOL P12)."""
    VOID = "void"
    """Nothing: it was declined, or ended by nobody's or another's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a guard promises in one currency, and how it goes about it."""

    kappa: int
    """κ, atomic units: at m = 1, a job of this price is always checked."""
    least_multiplier_ppm: int = 200_000
    """m_min."""
    detection_ppm: int = 999_000
    """d: how often a check of a cheated job finds the cheat. Measured, not chosen."""
    delta_ppm: int = 10_000
    """δ: how often, over all campaigns, the stated worst case may be exceeded."""
    decay_ppm: int = 970_000
    """What a clean check multiplies m by."""
    probation_checks: int = 138
    """Clean checks before anything of a newcomer's, or after a failure, goes unchecked: see `Sprt`."""
    saving_ppm: int = 500_000
    """What a cheat saves its provider, as a share of the price."""

    def __post_init__(self) -> None:
        _within("kappa", self.kappa, 1, MAX_KAPPA)
        _within("least_multiplier_ppm", self.least_multiplier_ppm, LEAST_MULTIPLIER_PPM, PPM)
        _within("detection_ppm", self.detection_ppm, 1, PPM)
        _within("delta_ppm", self.delta_ppm, 1, PPM - 1)
        _within("decay_ppm", self.decay_ppm, 0, PPM)
        _within("probation_checks", self.probation_checks, 0, MAX_PROBATION_CHECKS)
        _within("saving_ppm", self.saving_ppm, 0, PPM)

    @classmethod
    def for_loss(cls, loss: int, **changes: Any) -> Self:
        """Give the terms under which at most `loss` is lost undetected, with probability 1 - δ.

        Args:
            loss: atomic units.
            changes: every other field of the terms that is not to be its default.

        Raises:
            Misuse: even κ of one atomic unit risks more.

        """
        kappa = _kappa_for(loss, cls(kappa=1, **changes))
        if kappa < 1:
            raise Misuse(f"loss: at most {loss} atomic units leaves no kappa, check every job instead")
        return cls(kappa=min(kappa, MAX_KAPPA), **changes)

    @property
    def worst_case(self) -> int:
        """What is lost undetected at most, with probability 1 - δ: κ·ln(1/δ)/(m_min·d), rounded up."""
        above = self.kappa * _ln_inverse(self.delta_ppm) * PPM * PPM
        return _ceil(above, _LN_SCALE * self.least_multiplier_ppm * self.detection_ppm)

    @property
    def greatest_value(self) -> int | None:
        """The highest price that the bound covers, atomic units; None where it covers any.

        Above κ/m_min even rate 1 is less than m_min·v/κ: a check that can miss does not check enough.
        """
        return None if self.detection_ppm == PPM else self.kappa * PPM // self.least_multiplier_ppm

    def gain(self, price: int) -> int:
        """Say what a cheat on a job of this price saves at most, atomic units, rounded up."""
        return _ceil(price * self.saving_ppm, PPM)

    def rate_ppm(self, multiplier_ppm: int, price: int) -> int:
        """Give p = min(1, m·v/κ) in parts per million, rounded up."""
        multiplier_ppm = max(multiplier_ppm, self.least_multiplier_ppm)
        return min(PPM, _ceil(multiplier_ppm * price, self.kappa))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of one provider at one model, in one currency."""

    multiplier_ppm: int = PPM
    """m: 1 at first and after a failure, decaying with clean checks down to m_min."""
    probation_left: int
    """Clean checks still to come before anything may go unchecked."""
    clean: int = 0
    failed: int = 0
    unchecked: int = 0
    """How many jobs were released unchecked, ever."""
    exposure: int = 0
    """Atomic units released unchecked since the last clean check."""

    @classmethod
    def newcomer(cls, terms: Terms) -> Self:
        """Give what a provider of whom nothing is known begins with."""
        return cls(probation_left=terms.probation_checks)

    def after(self, observation: Observation, amount: int, terms: Terms) -> Standing:
        """Give the standing after a job has ended.

        Args:
            observation: what its end tells.
            amount: what was released, atomic units; counts where nobody looked.
            terms: the guard's.

        """
        match observation:
            case Observation.CLEAN:
                decayed = _ceil(self.multiplier_ppm * terms.decay_ppm, PPM)
                return replace(
                    self,
                    multiplier_ppm=max(terms.least_multiplier_ppm, decayed),
                    probation_left=max(0, self.probation_left - 1),
                    clean=self.clean + 1,
                    exposure=0,
                )
            case Observation.UNCHECKED:
                exposure = min(MAX_KAPPA, self.exposure + amount)
                return replace(self, unchecked=self.unchecked + 1, exposure=exposure)
            case Observation.FAILED:
                return replace(
                    self,
                    multiplier_ppm=PPM,
                    probation_left=terms.probation_checks,
                    failed=self.failed + 1,
                )
            case Observation.VOID:
                return self

    def cleared(self) -> Standing:
        """Give the standing after a failure was found to be none: the count, not the trust, comes back."""
        return replace(self, failed=max(0, self.failed - 1))


@dataclass(frozen=True, slots=True)
class Stake:
    """What stands for a provider in one currency, over all its models, in atomic units."""

    exposure: int
    """Released unchecked since the last clean check of each model."""
    in_flight: int
    """The prices of undecided jobs that may still be released unchecked."""
    free_bond: int
    """Its available balance and its reserved bonds: what a failure today could still reach."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job must carry. The rate is in parts per million, the amounts in atomic units."""

    rate_ppm: int
    bond: int
    penalty: int


def demand(terms: Terms, standing: Standing, *, price: int, rate_ppm: int = 0, bond: int = 0) -> Demand:
    """Say what rate, bond and withholding penalty a job must carry.

    A rate above the demanded one lowers the bond, since both deter together: g ≤ p·d·bond.

    Args:
        terms: the guard's.
        standing: the provider's, at the job's model.
        price: the job's.
        rate_ppm: what the job offers; 0 asks for the least.
        bond: what the job offers: one that covers the worst case takes the place of probation (P11).

    """
    on_probation = standing.probation_left > 0 and bond < terms.worst_case
    needed = PPM if on_probation else terms.rate_ppm(standing.multiplier_ppm, price)
    gain, rate = terms.gain(price), max(needed, rate_ppm)
    return Demand(needed, least_bond(gain, rate, terms.detection_ppm), least_penalty(gain, rate))


def objections(
    terms: Terms,
    standing: Standing,
    stake: Stake,
    *,
    price: int,
    rate_ppm: int,
    bond: int,
    penalty: int,
) -> tuple[Reason, ...]:
    """List why a job must not be funded (PROTOCOL P11); empty where it may be.

    The codes are ``guard.value``, ``guard.rate``, ``guard.bond``, ``guard.penalty`` and ``guard.exposure``.
    """
    least = demand(terms, standing, price=price, rate_ppm=rate_ppm, bond=bond)
    found = []
    if terms.greatest_value is not None and price > terms.greatest_value:
        text = "the guard's bound does not reach as far as this price"
        limit = f"at most {terms.greatest_value}"
        found.append(_objection("guard.value", text, price, limit, Fault.BUYER))
    if rate_ppm < least.rate_ppm:
        text = "the guard demands a higher sampling rate of this provider (ppm)"
        found.append(_objection("guard.rate", text, rate_ppm, f"at least {least.rate_ppm}", Fault.NOBODY))
    if bond < least.bond:
        text = "at this rate a cheat would pay: the guard demands a higher bond"
        found.append(_objection("guard.bond", text, bond, f"at least {least.bond}", Fault.PROVIDER))
    if penalty < least.penalty:
        text = "at this rate silence would pay: the guard demands a higher withholding penalty"
        found.append(_objection("guard.penalty", text, penalty, f"at least {least.penalty}", Fault.PROVIDER))
    open_value = stake.exposure + stake.in_flight + price
    if rate_ppm < PPM and open_value > stake.free_bond:
        text = "unchecked and in flight would exceed the provider's free bond: check at rate 1, or wait"
        limit = f"at most {stake.free_bond}"
        found.append(_objection("guard.exposure", text, open_value, limit, Fault.PROVIDER))
    return tuple(found)


def least_rate_ppm(gain: int, stake: int, detection_ppm: int) -> int | None:
    """Give the least rate at which a cheat does not pay: p ≥ s/(d·L), in parts per million, rounded up.

    Args:
        gain: s, what a cheat saves.
        stake: L, what it loses when found: its bond, and what of its payments is held back.
        detection_ppm: d.

    Returns:
        None where not even rate 1 deters: the stake is too small.

    """
    if gain == 0:
        return 0
    rate = _ceil(gain * PPM * PPM, detection_ppm * stake) if stake > 0 else PPM + 1
    return rate if rate <= PPM else None


def least_bond(gain: int, rate_ppm: int, detection_ppm: int = PPM, *, forfeited: int = 0) -> int:
    """Give the least bond at which a cheat does not pay: g/(p·d) - π, atomic units, rounded up.

    Args:
        gain: g, what a cheat saves.
        rate_ppm: p.
        detection_ppm: d.
        forfeited: π, what else whoever is found out loses for certain. The escrow holds nothing back: 0.

    Raises:
        Misuse: the rate is no rate, or 0: nothing that is never checked is deterred.

    """
    _within("rate_ppm", rate_ppm, 1, PPM)
    return max(0, _ceil(gain * PPM * PPM, rate_ppm * detection_ppm) - forfeited)


def least_penalty(gain: int, rate_ppm: int) -> int:
    """Give the least withholding penalty at which silence does not pay: g/p, atomic units, rounded up.

    Silence is always noticed, so no d enters (PROTOCOL P12).

    Raises:
        Misuse: the rate is no rate, or 0.

    """
    return least_bond(gain, rate_ppm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprt:
    """Wald's sequential test of a failure rate: how long a probation must be (Wald 1945).

    A provider that fails `bad_ppm` of its checks passes with probability `false_accept_ppm`, one that fails
    `good_ppm` is turned away with `false_reject_ppm`. Wald's thresholds keep each of the two errors below
    its own divided by one minus the other: 0.1001 % at the defaults.
    """

    good_ppm: int = 1_000
    bad_ppm: int = 50_000
    false_accept_ppm: int = 1_000
    false_reject_ppm: int = 1_000

    def __post_init__(self) -> None:
        _within("good_ppm", self.good_ppm, 1, PPM - 2)
        _within("bad_ppm", self.bad_ppm, self.good_ppm + 1, PPM - 1)
        _within("false_accept_ppm", self.false_accept_ppm, 1, PPM // 2 - 1)
        _within("false_reject_ppm", self.false_reject_ppm, 1, PPM // 2 - 1)

    @property
    def clean_to_accept(self) -> int:
        """How many clean checks in a row end the test well."""
        threshold = _ln(PPM - self.false_reject_ppm, self.false_accept_ppm)
        return math.ceil(threshold / _ln(PPM - self.good_ppm, PPM - self.bad_ppm))

    @property
    def failures_to_reject(self) -> int:
        """How many failures in a row end it badly. The guard itself stops at the first."""
        threshold = _ln(PPM - self.false_accept_ppm, self.false_reject_ppm)
        return math.ceil(threshold / _ln(self.bad_ppm, self.good_ppm))


def failure_rate_bound(failed: int, checked: int, *, error: float = 0.05) -> float:
    """Give the upper end of the one-sided Clopper-Pearson interval of a failure rate, 0 to 1.

    The rate p at which `failed` or fewer of `checked` come with probability `error`: found by bisection on
    the exact binomial sum, in logarithms. For people to read: it decides no money, and it holds for a number
    of checks that was fixed beforehand.

    Args:
        failed: how many checks failed.
        checked: how many there were.
        error: the probability of the true rate to lie above.

    Raises:
        Misuse: more failures than checks, or more than is computed here.

    """
    _within("failed", failed, 0, min(checked, MAX_FAILURES))
    _within("checked", checked, 0, MAX_CHECKS)
    if not 0.0 < error < 1.0:
        raise Misuse(f"error: got {error}, expected more than 0 and less than 1")
    if failed == checked:
        return 1.0
    low, high = failed / checked, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _tail(failed, checked, middle) > error else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of a plan: what the guard demands after so many clean checks in a row."""

    name: str
    clean: int
    multiplier_ppm: int
    demand: Demand


@dataclass(frozen=True, slots=True)
class Plan:
    """What a guard comes to for jobs of one price and one bond. Amounts are atomic units."""

    terms: Terms
    price: int
    bond: int
    stages: tuple[Stage, ...]
    """From probation to the steady state."""
    least_rate_ppm: int | None
    """What the bond alone asks for; None where it is too small at any rate."""
    newcomer_is_covered: bool
    """Whether the bond covers the worst case, and so takes the place of probation."""

    @property
    def steady(self) -> Stage:
        """Where an honest provider ends up."""
        return self.stages[-1]


def plan(terms: Terms, *, price: int, bond: int) -> Plan:
    """Work out what a guard demands, from probation to the steady state.

    Where the bond asks for a higher rate than κ does, the higher one is demanded.

    Raises:
        Misuse: the price is no price, or beyond what the bound covers.

    """
    _within("price", price, 1, terms.greatest_value or MAX_KAPPA)
    _within("bond", bond, 0, MAX_KAPPA)
    floor = least_rate_ppm(terms.gain(price), bond, terms.detection_ppm)
    is_covered = bond >= terms.worst_case
    probation = 0 if is_covered else terms.probation_checks
    ladder = [Standing.newcomer(terms)]
    while len(ladder) <= probation or ladder[-1].multiplier_ppm > terms.least_multiplier_ppm:
        ladder.append(ladder[-1].after(Observation.CLEAN, 0, terms))
        if len(ladder) > probation and ladder[-1].multiplier_ppm == ladder[-2].multiplier_ppm:
            break  # a multiplier that does not decay any more
    last = len(ladder) - 1
    stages = tuple(
        _stage(_name(clean, probation, last), ladder[clean], terms, price, bond, floor)
        for clean in sorted({0, probation, (probation + last) // 2, last})
    )
    return Plan(terms, price, bond, stages, floor, is_covered)


def undetected_probability(terms: Terms, value: int) -> float:
    """Bound the probability that more than `value` atomic units are lost undetected, for people to read."""
    exponent = value * terms.least_multiplier_ppm * terms.detection_ppm / (terms.kappa * PPM * PPM)
    return math.exp(-exponent)


def _name(clean: int, probation: int, last: int) -> str:
    return "probation" if clean < probation else "steady" if clean == last else "trusted"


def _stage(name: str, standing: Standing, terms: Terms, price: int, bond: int, floor: int | None) -> Stage:
    least = PPM if floor is None else floor
    needed = demand(terms, standing, price=price, rate_ppm=least, bond=bond)
    return Stage(
        name, standing.clean, standing.multiplier_ppm, replace(needed, rate_ppm=max(least, needed.rate_ppm))
    )


def _objection(code: str, text: str, got: int, expected: str, fault: Fault) -> Reason:
    return Reason(code, text, fault, str(got), expected)


def _kappa_for(loss: int, terms: Terms) -> int:
    """Solve the worst case for κ: the largest integer whose worst case is at most `loss`."""
    above = loss * _LN_SCALE * terms.least_multiplier_ppm * terms.detection_ppm
    return above // (_ln_inverse(terms.delta_ppm) * PPM * PPM)


def _ln_inverse(delta_ppm: int) -> int:
    """Give ln(1/δ) times 10^30 as an integer that is not below the true value."""
    return int(_EXACT.multiply(_ln(PPM, delta_ppm), Decimal(_LN_SCALE))) + 1


def _ln(numerator: int, denominator: int) -> Decimal:
    """Give a logarithm to 40 digits: correctly rounded by `decimal`, and so the same on every machine."""
    return _EXACT.ln(_EXACT.divide(Decimal(numerator), Decimal(denominator)))


def _tail(failed: int, checked: int, rate: float) -> float:
    """Give P(at most `failed` of `checked`) at a failure rate strictly between 0 and 1."""
    good, bad = math.log1p(-rate), math.log(rate)
    choose = 0.0
    terms = [checked * good]
    for count in range(1, failed + 1):
        choose += math.log((checked - count + 1) / count)
        terms.append(choose + count * bad + (checked - count) * good)
    return math.fsum(math.exp(term) for term in terms)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _within(what: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Misuse(f"{what}: got {value!r}, expected an integer from {low} to {high}")
