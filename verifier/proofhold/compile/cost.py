"""What a circuit costs to prove, to hold and to send, in counts: what ranks the tuner's candidates.

All from numbers that the circuit's settings give: no clock, and so the same answer on every machine. The unit
of proving is one row of a circuit of two columns without tables; docs/adr/0086-cost-in-counts.md shows what
the weights were measured on, and how well they rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proofhold.compile.prediction import predict

COLUMN_WEIGHTS: Mapping[int, float] = {1: 0.87, 2: 1.0, 3: 1.6, 4: 2.5, 5: 2.7, 6: 2.9}
"""What a row costs by the number of columns. It grows by leaps: three columns take one more piece of the
quotient, and from four on the polynomials are evaluated on a domain of twice the size."""
LARGER_DOMAIN_COLUMNS, DOMAIN_FACTOR = 4, 2.0
ARGUMENT_WEIGHT = 0.28
"""What a row costs more for each further argument: a table that is looked up, counted once for each column
that it is laid out in, or a shuffle, by which ezkl orders values; on the larger domain, twice that."""
MAX_COLUMNS = max(COLUMN_WEIGHTS)
"""With eight columns the generated contract is too large to be deployed (24,576 bytes)."""

PROOF_BYTES: Mapping[int, int] = {1: 1952, 2: 3072, 3: 4160, 4: 5120, 5: 5216, 6: 5760}
"""Of one block, without tables."""
ARGUMENT_PROOF_BYTES = 600


@dataclass(frozen=True, slots=True)
class Counts:
    """What a circuit's settings say of its size."""

    k: int
    rows: int
    columns: int
    tables: int = 0
    """Lookup tables, each counted once for each column that it is laid out in."""
    shuffles: int = 0

    @property
    def proving(self) -> float:
        """The cost of one proof, in rows of a plain circuit of two columns."""
        factor = DOMAIN_FACTOR if self.columns >= LARGER_DOMAIN_COLUMNS else 1.0
        arguments = factor * ARGUMENT_WEIGHT * (self.tables + self.shuffles)
        return 2.0**self.k * (COLUMN_WEIGHTS[self.columns] + arguments)

    @property
    def verifier_bytes(self) -> float:
        """What a verifier holds and is sent: the verifying key and one proof, about."""
        key = predict(self.k, columns=self.columns).vk_bytes
        return key + PROOF_BYTES[self.columns] + ARGUMENT_PROOF_BYTES * (self.tables + self.shuffles)
