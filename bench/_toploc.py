"""TOPLOC's published rule (arXiv 2501.16007), for comparison: our own implementation.

Of the 128 largest values in bfloat16, reject if more than 90 exponents differ, or if the mantissas of the
others differ by more than 10 in the mean or 8 in the median.
"""

from __future__ import annotations

from typing import Any

import numpy as np

TOP_K, EXPONENTS, MEAN, MEDIAN = 128, 90, 10, 8


def rejects(served: Any, recomputed: Any) -> bool:
    """Compare the largest values of what was served with what the verifier has at the same places."""
    claimed, ours = served.ravel(), recomputed.ravel()
    top = np.argsort(-np.abs(claimed))[:TOP_K]
    first, second = (_bfloat16(values[top]) for values in (claimed, ours))
    same = (first >> 7 & 0xFF) == (second >> 7 & 0xFF)
    # With fewer values than k, the threshold is the same share of them.
    if np.count_nonzero(~same) > EXPONENTS * len(top) / TOP_K:
        return True
    mantissas = np.abs((first & 0x7F).astype(int) - (second & 0x7F).astype(int))[same]
    return bool(len(mantissas) and (mantissas.mean() > MEAN or np.median(mantissas) > MEDIAN))


def _bfloat16(values: Any) -> Any:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
