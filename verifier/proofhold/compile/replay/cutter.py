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

DEFAULT_SEGMENTS = 8
MAX_AGAIN = 0.01
"""Behind each cut at most a hundredth of a run is computed again."""
HASH_BYTES_PER_S = 3e9
"""What hashing and copying a boundary costs a provider: a round figure of a slow core."""
HASH_WEIGHT = 4.0
"""Balance is worth much, but not a cut at a large tensor: the provider pays for each with every job."""
LEAST_SHARE = 0.02
"""A segment with less of a run than this is not worth a leaf."""
ALL_WEIGHTS = 1 - 1e-9


_State: TypeAlias = tuple[float, tuple[Candidate, ...]]
"""A chain of cuts and its penalty."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The chosen cuts in order, and each segment's share of a run, as far as costs were measured."""

    chosen: tuple[Candidate, ...]
    shares: tuple[float, ...]


def choose(analysis: Analysis, segments: int = DEFAULT_SEGMENTS) -> Cuts:
    """Choose at most `segments` - 1 cuts; none where no cut is worth it.

    Dynamic programming over the candidates in order: the sum of squared shares, which is least when they are
    equal, and the cost of committing to the boundaries.
    """
    usable = [c for c in analysis.candidates if c.again <= MAX_AGAIN and c.before >= LEAST_SHARE]
    usable = sorted((c for c in usable if c.before <= 1 - LEAST_SHARE), key=lambda c: c.before)
    # Every segment has weights of its own: in one without, whoever serves other weights is honest.
    usable = [c for c in usable if 0 < c.weights < ALL_WEIGHTS]
    best: _State = (1.0, ())  # one segment, nothing to commit to
    # states[i]: the least penalty of a chain of cuts that ends at candidate i, with the chain.
    states: list[_State] = []
    for count in range(1, segments):
        states = [_extend(candidate, usable, states, count, analysis) for candidate in usable]
        for penalty, chain in states:
            if chain:
                closed = penalty + _share(chain[-1], None) ** 2
                best = min(best, (closed, chain), key=lambda state: state[0])
    chain = best[1]
    ends = [*chain, None]
    shares = [_share(start, end) for start, end in zip([None, *chain], ends, strict=True)]
    return Cuts(tuple(chain), tuple(shares))


def _extend(
    candidate: Candidate,
    usable: Sequence[Candidate],
    states: Sequence[_State],
    count: int,
    analysis: Analysis,
) -> _State:
    here = HASH_WEIGHT * _bytes(candidate) / HASH_BYTES_PER_S / max(analysis.run_s, 1e-9)
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


def _bytes(candidate: Candidate) -> int:
    return math.prod(candidate.port.shape) * ITEM_BYTES[candidate.port.dtype]
