"""How far two runs are apart: the residual that a tolerance is set for. Labels are never compared."""

from __future__ import annotations

import math

from proofhold.payload import Tensor


def relative_l2(claimed: Tensor, recomputed: Tensor) -> float:
    """Give |claimed - recomputed| / |recomputed| in the 2-norm, in float64; infinite where not comparable."""
    import numpy as np

    if claimed.shape != recomputed.shape:
        return math.inf
    ours = recomputed.numpy().astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(claimed.numpy().astype(np.float64) - ours))
        norm = float(np.linalg.norm(ours))
    if not (math.isfinite(distance) and math.isfinite(norm)):
        return math.inf
    if norm == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / norm


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity."""
    import numpy as np

    return bool(np.isfinite(tensor.numpy()).all())
