"""What a circuit will cost, foretold from counts: k, columns, and what is looked up in tables.

All work grows with the length of a column, 2^k, times what there is of columns. Key sizes follow from
counting polynomials; times and memory are a few constants over the same counts, fitted to measured circuits
(docs/adr/0081-predicted-cost-of-any-shape.md says to which, and how well they meet others).
"""

from __future__ import annotations

from dataclasses import dataclass

MACHINE = "two shared cores"
"""Where the times were measured: another machine has a factor of its own."""

FIELD_BYTES = 32
VK_HEADER_BYTES = 7
BLINDING_ROWS = 10
"""Rows of a column that hold no entries of a table."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What making keys and one proof of a circuit will take. Bytes, and CPU seconds on `MACHINE`."""

    pk_bytes: int
    vk_bytes: int
    memory_bytes: int
    setup_s: float
    prove_s: float


@dataclass(frozen=True, slots=True)
class _Weights:
    """Something measured, by its parts: at rest, and for each million of field elements of three kinds."""

    at_rest: float
    key: float
    """Of the key's polynomials on the extended domain."""
    values: float
    """Of the columns of values."""
    tables: float
    """Of the arguments that values are in tables, on the extended domain."""

    def at(self, key: float, values: float, tables: float) -> float:
        return self.at_rest + (self.key * key + self.values * values + self.tables * tables) / 1e6


_PROVE_S = _Weights(0.2, 0.57, 90.0, 4.7)
_SETUP_S = _Weights(0.1, 0.9, 42.0, 0.4)
_MEMORY_MB = _Weights(58.8, 57.6, 1978.0, 123.0)


def predict(k: int, *, columns: int = 2, tables: int = 0, table_columns: int = 1) -> Prediction:
    """Foretell the cost of a circuit.

    Args:
        k: columns have 2^k rows.
        columns: `RunArgs.columns`.
        tables: how many kinds of table there are: `required_lookups` in ezkl's settings.
        table_columns: over how many columns each is laid out; see `count_table_columns`.

    """
    rows = 2**k
    degree = _extension(columns, table_columns if tables else 0)
    selectors = 6 + 5 * columns + tables * columns
    polynomials: float = 7 + 6 * columns + (columns in (2, 3))
    if tables:
        polynomials += tables * (columns + 1) + 1 + 1.3 * tables * (table_columns - 1)
    vk = VK_HEADER_BYTES + 64 * polynomials + selectors * rows / 8
    pk = FIELD_BYTES * rows * (polynomials * (2 + degree) + 3 * degree) + vk
    counts = (
        rows * degree * polynomials,
        rows * columns,
        rows * degree * tables * columns * (table_columns if tables else 0),
    )
    return Prediction(
        pk_bytes=round(pk),
        vk_bytes=round(vk),
        memory_bytes=round(_MEMORY_MB.at(*counts) * 2**20),
        setup_s=_SETUP_S.at(*counts),
        prove_s=_PROVE_S.at(*counts),
    )


def count_table_columns(lookup_range: tuple[int, int] | None, k: int) -> int:
    """Give over how many columns of 2^k rows a table of this range is laid out; 0 where there is none."""
    if lookup_range is None:
        return 0
    low, high = lookup_range
    rows: int = 2**k - BLINDING_ROWS
    return -(-(high - low + 1) // rows)


def _extension(columns: int, table_columns: int) -> int:
    """Give how many times larger the domain is on which constraints are multiplied out: a power of two.

    A product over all columns is one constraint, of a degree that grows with them; a table over several
    columns multiplies by the choice of column.
    """
    extension: int = 4
    while extension < columns + 1:
        extension *= 2
    if table_columns >= 2:
        extension = max(extension, 8)
    if table_columns >= 6:
        extension = max(extension, 16)
    return extension
