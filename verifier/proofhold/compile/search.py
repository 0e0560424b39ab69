"""Which of ezkl's arguments are worth a look for a model: columns, lookup base and legs, scale.

A number is held as `legs` digits of a `base`: every element that is decomposed takes a row a digit, and the
digits are looked up in a range of `base` rows. So of all pairs that hold the domain at a scale only the ones
with the least base for their number of legs are worth a look. ezkl's own choice is always among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from proofhold.compile.cost import MAX_COLUMNS
from proofhold.compile.trial import PEAK_MARGIN
from proofhold.locks import RunArgs

SCALES = tuple(range(5, 15))
"""Binary digits after the point. Weights in float32 have no use for many more."""
LEGS = tuple(range(2, 9))
MIN_BASE_BITS, MAX_BASE_BITS = 4, 14
EZKL_COLUMNS, EZKL_BASE, EZKL_LEGS = 2, 16_384, 2
"""ezkl's defaults; its calibration changes the scale only."""
UNKNOWN_PEAK_BITS = (4, 6, 9)
"""Where no bound on a model's values is known: how many bits to hold beyond a product's scale. The circuit is
then run on samples and corners of the domain, and refused where a value does not fit."""


def ezkl_default(scale: int) -> RunArgs:
    """What ezkl takes unless it is told otherwise, at a scale that its calibration may choose."""
    return RunArgs(EZKL_COLUMNS, EZKL_BASE, EZKL_LEGS, scale, scale)


def is_ezkl_default(run_args: RunArgs) -> bool:
    """Whether these are ezkl's own columns, base and legs."""
    mine = (run_args.columns, run_args.decomp_base, run_args.decomp_legs)
    return mine == (EZKL_COLUMNS, EZKL_BASE, EZKL_LEGS)


def candidates(peak: float | None, scales: Sequence[int] = SCALES) -> tuple[RunArgs, ...]:
    """List every candidate that can hold values up to `peak`, without doubles, in a fixed order."""
    found: dict[RunArgs, None] = {}
    for scale in scales:
        for bits in _bits(peak, scale):
            pairs = [*_pairs(bits)]
            if bits <= EZKL_LEGS * int(math.log2(EZKL_BASE)):
                found[ezkl_default(scale)] = None
            for columns in range(1, MAX_COLUMNS + 1):
                for base, legs in pairs:
                    found[RunArgs(columns, base, legs, scale, scale)] = None
    return tuple(found)


def _bits(peak: float | None, scale: int) -> Sequence[int]:
    """How many bits the largest value takes at the scale of a product, as `trial.check_peak` counts."""
    if peak is None:
        return [2 * scale + more for more in UNKNOWN_PEAK_BITS]
    return [max(1, math.floor(math.log2(peak * PEAK_MARGIN) + 2 * scale) + 1)] if peak > 0 else [1]


def _pairs(bits: int) -> Iterator[tuple[int, int]]:
    for legs in LEGS:
        base_bits = max(MIN_BASE_BITS, -(-bits // legs))
        if base_bits <= MAX_BASE_BITS:
            yield 2**base_bits, legs
