"""How far two runs are apart: the residual that a tolerance is set for. Labels are never compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from proofhold.payload import Tensor, little_endian

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN = 4096
"""Short enough for a float32 to hold the sum of so many squares to 1e-6, and for numpy's BLAS to make no
threads for it, which cost more and have no order."""


def relative_l2(claimed: Tensor, recomputed: Tensor, norm: float = 0.0) -> float:
    """Give |claimed - recomputed| / |recomputed| in the 2-norm, in float64; infinite where not comparable.

    `norm` is what the tensor's norm usually is: one that is smaller is measured by it. Rounding follows the
    numbers that a tensor is made of, and what a Sigmoid leaves of them may be a ten-thousandth.
    """
    return residual(claimed.numpy(), recomputed.numpy(), norm)


def residual(claimed: NDArray[Any], recomputed: NDArray[Any], norm: float = 0.0) -> float:
    """Give the same of two arrays."""
    import numpy as np

    if claimed.shape != recomputed.shape:
        return math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        off = size = math.nan
        if claimed.dtype == recomputed.dtype == np.float32:
            off, size = _squares(claimed - recomputed), _squares(recomputed)
        if not (math.isfinite(off) and math.isfinite(size)) or size == 0.0:
            # Whole numbers wrap, and squares of float32 leave its range long before the values do.
            wide = recomputed.astype(np.float64)
            off, size = _squares(claimed.astype(np.float64) - wide), _squares(wide)
    if not (math.isfinite(off) and math.isfinite(size)):
        return math.inf
    size = max(size, norm * norm)
    if size == 0.0:
        return 0.0 if off == 0.0 else math.inf
    return math.sqrt(off / size)


def _squares(values: NDArray[Any]) -> float:
    """Sum the squares: runs of `RUN` elements as they are, and the runs in float64."""
    import numpy as np

    flat = values.ravel()
    if len(flat) <= RUN:
        return float(flat.dot(flat))
    whole = len(flat) - len(flat) % RUN
    rows, rest = flat[:whole].reshape(-1, RUN), flat[whole:]
    return float(np.vecdot(rows, rows).sum(dtype=np.float64)) + float(rest.dot(rest))


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity."""
    import numpy as np

    if not tensor.dtype.startswith("float"):
        return True
    flat = np.frombuffer(tensor.data, little_endian(tensor.dtype))
    if tensor.dtype == "float32":
        # A sum is finite only if all that it is made of is; squares of large numbers need not be. Most jobs
        # are looked at here and never drawn: with cold caches each step of numpy's costs microseconds.
        if len(flat) <= RUN:
            if math.isfinite(flat.dot(flat)):
                return True
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                if math.isfinite(_squares(flat)):
                    return True
    return bool(np.isfinite(flat).all())
