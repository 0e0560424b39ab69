"""What a circuit will cost, foretold from its k alone: a straight line in 2^k through two measured circuits.

Keys, memory and the time of the large transforms and multiplications all grow with the length of a column, so
one line each is enough while the number of columns stays two and nothing needs a lookup table. The lines go
through the repository's two circuits; docs/adr/0016-predicted-cost.md shows how well they meet others.
"""

from __future__ import annotations

from dataclasses import dataclass

MACHINE = "two shared cores"
"""Where the times were measured: another machine has a factor of its own."""


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity by the number of a column's rows: `base` and `per_row`."""

    base: float
    per_row: float

    def at(self, k: int) -> float:
        """Give the quantity at columns of 2^k rows."""
        return self.base + self.per_row * 2.0**k


def _through(small: float, large: float) -> Line:
    """Draw the line through what was measured at the smaller and at the larger circuit."""
    per_row = (large - small) / (2**LARGE_K - 2**SMALL_K)
    return Line(small - per_row * 2**SMALL_K, per_row)


SMALL_K, LARGE_K = 10, 13
"""Those of breast_cancer and digits, where all the numbers below were measured, in this order."""

PK_BYTES = _through(4_329_227, 34_621_195)
VK_BYTES = _through(3_335, 17_671)
MEMORY_BYTES = _through(65 * 2**20, 155 * 2**20)
SETUP_S = _through(0.20, 1.2)
PROVE_S = _through(0.28, 1.7)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What making keys and one proof of a circuit will take. Bytes, and seconds on `MACHINE`."""

    pk_bytes: int
    vk_bytes: int
    memory_bytes: int
    setup_s: float
    prove_s: float


def predict(k: int) -> Prediction:
    """Foretell the cost of a circuit of two columns without lookups."""
    return Prediction(
        pk_bytes=round(PK_BYTES.at(k)),
        vk_bytes=round(VK_BYTES.at(k)),
        memory_bytes=round(MEMORY_BYTES.at(k)),
        setup_s=SETUP_S.at(k),
        prove_s=PROVE_S.at(k),
    )
