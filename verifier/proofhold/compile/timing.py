"""Real proofs of a few candidates: does the counted cost put them in the order that the clock does?

Times are for people: they are printed and stand in the report, and nothing is chosen or pinned by them. They
are seconds of processor time, which a busy machine disturbs less than the clock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proofhold.compile import native
from proofhold.compile.cache import write_atomically
from proofhold.compile.circuit import SrsForK
from proofhold.compile.specification import Specification, read_samples
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import OnStep, calibration_data, derive_settings, sample_data
from proofhold.compile.tune import Candidate, Tuning, describe


@dataclass(frozen=True, slots=True)
class Timed:
    """A candidate, and what its keys and one proof took here."""

    candidate: Candidate
    setup_s: float
    prove_s: float


def pick(tuning: Tuning, count: int) -> tuple[Candidate, ...]:
    """Choose what to time: the chosen one, ezkl's default, and others between and beyond them.

    One of each number of columns and rows, since only those make a difference to the time; spread evenly over
    the ranking, as far as to the cost of ezkl's default.
    """
    most = tuning.default.counts.proving if tuning.default is not None else float("inf")
    kinds: dict[tuple[int, int], Candidate] = {}
    for one in (tuning.chosen.candidate, *([tuning.default] if tuning.default else []), *tuning.ranked):
        if one.counts.proving <= most:
            kinds.setdefault((one.counts.k, one.counts.columns), one)
    certain = list(kinds.values())[: 1 + (tuning.default is not None)]
    others = sorted((o for o in kinds.values() if o not in certain), key=lambda one: one.counts.proving)
    wanted = max(0, count - len(certain))
    places = np.linspace(0, len(others) - 1, num=min(wanted, len(others)))
    return tuple([*certain, *(others[int(place)] for place in places)][:count])


def time_proofs(
    picked: Sequence[Candidate],
    published: bytes,
    specification: Specification,
    *,
    srs_for_k: SrsForK,
    tools: Toolchain,
    on_step: OnStep = lambda _: None,
) -> tuple[Timed, ...]:
    """Make keys and one proof of each candidate, on the first sample.

    Raises:
        CompileError: ``compile.…``: a circuit cannot be made, or no reference string is large enough.
        ToolFailed: a tool died or hung.

    """
    derivation = tools.derive(published, specification.request)
    inputs = specification.inputs(derivation.inputs)
    samples = read_samples(specification.samples, inputs)
    timed = []
    for candidate in picked:
        on_step(f"proving {describe(candidate)}")
        with tempfile.TemporaryDirectory(prefix="proofhold-") as temporary:
            folder = Path(temporary)
            write_atomically(folder / native.MODEL_FILE, derivation.model)
            _, k, run_args = derive_settings(
                folder,
                candidate.run_args,
                inputs,
                derivation.outputs,
                tools,
                data=calibration_data(samples, inputs),
            )
            srs = srs_for_k(k).path
            tools.compile(folder)
            setup_s, prove_s = tools.time_proof(
                folder, srs, sample_data(samples[0]), lookup_range=run_args.lookup_range
            )
        timed.append(Timed(candidate, setup_s, prove_s))
    return tuple(timed)


def rank_correlation(timed: Sequence[Timed]) -> float | None:
    """Spearman's coefficient between counted cost and seconds: 1 where they agree; None for fewer than 3."""
    if len(timed) < 3:
        return None
    counted = _ranks([one.candidate.counts.proving for one in timed])
    seconds = _ranks([one.prove_s for one in timed])
    if np.ptp(counted) == 0 or np.ptp(seconds) == 0:
        return None
    return float(np.corrcoef(counted, seconds)[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Rank values, equal ones by the mean of their ranks."""
    ordered = np.sort(values)
    first = np.searchsorted(ordered, values, side="left")
    last = np.searchsorted(ordered, values, side="right")
    mean: NDArray[np.float64] = (first + last - 1) / 2
    return mean
