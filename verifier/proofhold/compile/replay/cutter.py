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

    Dynamic programming over the candidates in order: the sum of squared shares, which is least when they are
    equal, and the cost of committing to the boundaries.
    """
    usable = [c for c in analysis.candidates if c.again <= MAX_AGAIN and c.before >= LEAST_SHARE]
    usable = sorted((c for c in usable if c.before <= 1 - LEAST_SHARE), key=lambda c: c.before)
    segments = limits.segments
    if limits.least_segment_s > 0:
        segments = min(segments, max(1, int(analysis.run_s / limits.least_segment_s)))
    # Every segment has weights of its own: in one without, whoever serves other weights is honest.
    usable = [c for c in usable if 0 < c.weights < ALL_WEIGHTS]
    chain: tuple[Candidate, ...] = ()
    for weight in WEIGHTS:
        chain = _best_chain(usable, segments, weight, analysis.run_s)
        if sum(_committing(cut, analysis.run_s) for cut in chain) <= limits.most_committing:
            break
    else:
        chain = ()
    shares = [_share(start, end) for start, end in zip([None, *chain], [*chain, None], strict=True)]
    return Cuts(chain, tuple(shares))


def _best_chain(
    usable: Sequence[Candidate], segments: int, weight: float, run_s: float
) -> tuple[Candidate, ...]:
    best: _State = (1.0, ())  # one segment, nothing to commit to
    # states[i]: the least penalty of a chain of cuts that ends at candidate i, with the chain.
    states: list[_State] = []
    for count in range(1, segments):
        states = [_extend(candidate, usable, states, count, weight, run_s) for candidate in usable]
        for penalty, chain in states:
            if chain:
                closed = penalty + _share(chain[-1], None) ** 2
                best = min(best, (closed, chain), key=lambda state: state[0])
    return best[1]


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


def _committing(candidate: Candidate, run_s: float) -> float:
    """Give what committing to a cut costs, as a share of a run."""
    size = math.prod(candidate.port.shape) * ITEM_BYTES[candidate.port.dtype]
    return size / COMMITTED_BYTES_PER_S / max(run_s, 1e-9)
