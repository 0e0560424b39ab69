"""How far two runs are apart: the residual that a tolerance is set for. Labels are never compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from proofhold.payload import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


def relative_l2(claimed: Tensor, recomputed: Tensor) -> float:
    """Give |claimed - recomputed| / |recomputed| in the 2-norm, in float64; infinite where not comparable."""
    return residual(claimed.numpy(), recomputed.numpy())


def residual(claimed: NDArray[Any], recomputed: NDArray[Any]) -> float:
    """Give the same of two arrays."""
    import numpy as np

    if claimed.shape != recomputed.shape:
        return math.inf
    ours = recomputed.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        # Sums of numpy's own, not of its BLAS, whose threads cost more than the sum and order it at will.
        distance = math.sqrt(float(np.square(claimed - ours).sum()))
        norm = math.sqrt(float(np.square(ours).sum()))
    if not (math.isfinite(distance) and math.isfinite(norm)):
        return math.inf
    if norm == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / norm


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity."""
    import numpy as np

    return bool(np.isfinite(tensor.numpy()).all())
