"""Choose the cuts: balanced by what was measured, at small tensors, and nothing computed twice.

A cut is one tensor, and all cuts lie one behind another. What is needed behind a cut other than through its
tensor is computed again from the model's inputs; where that is more than a trifle, no cut lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from proofhold.compile.replay.analysis import Analysis, Candidate
from proofhold.payload import ITEM_BYTES

MAX_AGAIN = 0.01
"""Behind each cut at most a hundredth of a run is computed again."""
COMMITTED_BYTES_PER_S = 2.2e9
"""What a boundary costs a provider: to lay it out as published, and to hash it with cold caches."""
WEIGHTS = tuple(float(2**power) for power in range(12))
"""How little balance is worth beside small boundaries, tried in order until committing costs little."""
LEAST_SHARE = 0.02
"""A segment with less of a run than this is not worth a leaf."""
ALL_WEIGHTS = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """How far cutting goes."""

    segments: int = 8
    """How many segments, at most."""
    least_segment_s: float = 1e-3
    """And how long each takes at least, on the average, on one thread. Reading and hashing an opening takes
    half a millisecond: a smaller model is run again whole for less."""
    most_committing: float = 0.033
    """The provider pays for every cut with every job: all together cost at most this share of a run. What it
    pays besides, for the hashes of inputs and outputs and for the root, is about another hundredth."""


_State: TypeAlias = tuple[float, tuple[Candidate, ...]]
"""A chain of cuts and its penalty."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The chosen cuts in order, and each segment's share of a run, as far as costs were measured."""

    chosen: tuple[Candidate, ...]
    shares: tuple[float, ...]


def choose(analysis: Analysis, limits: Limits = Limits()) -> Cuts:
    """Choose cuts within the limits; none where no cut is worth it.

    Dynamic programming over the candidates in order, by the sum of squared shares and what committing to the
    boundaries costs.
    """
    usable = [c for c in analysis.candidates if c.again <= MAX_AGAIN and c.before >= LEAST_SHARE]
    usable = sorted((c for c in usable if c.before <= 1 - LEAST_SHARE), key=lambda c: c.before)
    segments = limits.segments
    if limits.least_segment_s > 0:
        segments = min(segments, max(1, int(analysis.run_s / limits.least_segment_s)))
    # Every segment has weights of its own: in one without, whoever serves other weights is honest.
    usable = [c for c in usable if 0 < c.weights < ALL_WEIGHTS]
    chain = _affordable(usable, segments, analysis.run_s, limits.most_committing)
    shares = [_share(start, end) for start, end in zip([None, *chain], [*chain, None], strict=True)]
    return Cuts(chain, tuple(shares))


def _affordable(
    usable: Sequence[Candidate], segments: int, run_s: float, most_committing: float
) -> tuple[Candidate, ...]:
    """Give the best chain that costs no more than it may.

    A weight alone leaves gaps: from one to the next, three cuts may go at once. So the best chain of each
    number of cuts is looked at, of each weight until the best of all numbers is affordable.
    """
    found: list[_State] = []
    for weight in WEIGHTS:
        states = _best_chains(usable, segments, weight, run_s)
        for _, chain in states:
            cost = sum(_committing(cut, run_s) for cut in chain)
            if cost <= most_committing:
                found.append((_imbalance(chain) + cost, chain))
        _, best = min(states, key=lambda state: state[0])
        if sum(_committing(cut, run_s) for cut in best) <= most_committing:
            return min(found, key=lambda state: state[0])[1]
    return ()


def _best_chains(usable: Sequence[Candidate], segments: int, weight: float, run_s: float) -> list[_State]:
    """Give for each number of cuts the chain with the least penalty at this weight."""
    found: list[_State] = [(1.0, ())]  # one segment, nothing to commit to
    # states[i]: the least penalty of a chain of cuts that ends at candidate i, with the chain.
    states: list[_State] = []
    for count in range(1, segments):
        states = [_extend(candidate, usable, states, count, weight, run_s) for candidate in usable]
        closed = [(penalty + _share(chain[-1], None) ** 2, chain) for penalty, chain in states if chain]
        found += [min(closed, key=lambda state: state[0])] if closed else []
    return found


def _extend(
    candidate: Candidate,
    usable: Sequence[Candidate],
    states: Sequence[_State],
    count: int,
    weight: float,
    run_s: float,
) -> _State:
    here = weight * _committing(candidate, run_s)
    if count == 1:
        return _share(None, candidate) ** 2 + here, (candidate,)
    best: _State = (math.inf, ())
    for before, (penalty, chain) in zip(usable, states, strict=True):
        apart = candidate.before - before.before
        fits = apart >= LEAST_SHARE and candidate.weights > before.weights
        if chain and fits and candidate.port.name in before.behind:
            total = penalty + _share(before, candidate) ** 2 + here
            if total < best[0]:
                best = (total, (*chain, candidate))
    return best


def _share(start: Candidate | None, end: Candidate | None) -> float:
    begun, again = (start.before, start.again) if start else (0.0, 0.0)
    return (end.before if end else 1.0) - begun + again


def _imbalance(chain: Sequence[Candidate]) -> float:
    """Give the sum of the squared shares, which is least where they are equal."""
    ends = (*chain, None)
    return sum(_share(start, end) ** 2 for start, end in zip((None, *chain), ends, strict=True))


def _committing(candidate: Candidate, run_s: float) -> float:
    """Give what committing to a cut costs, as a share of a run."""
    size = math.prod(candidate.port.shape) * ITEM_BYTES[candidate.port.dtype]
    return size / COMMITTED_BYTES_PER_S / max(run_s, 1e-9)
