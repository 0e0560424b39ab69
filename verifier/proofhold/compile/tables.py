"""How far a circuit's lookup tables reach: measured on samples and corners of the domain, and widened.

ezkl computes Sigmoid, Exp, Log and their like by looking an integer up in a table of all that may come. The
table is part of the verifying key, so its range is a choice that the lock pins. An input that leaves it has a
witness, and a prover that never ends: whoever proves looks first (`native.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proofhold.compile import native
from proofhold.compile.errors import CompileError
from proofhold.compile.toolchain import Toolchain
from proofhold.locks import MAX_LOOKUP

ASSUMED_RANGE = (-(2**15), 2**15)
"""What a plan reckons with while no sample is at hand: ezkl's own default."""
MARGIN = 2
"""How many times as far as anything that was seen."""
LEAST_REACH = 16


def measure_range(folder: Path, data: list[Any], tools: Toolchain) -> tuple[int, int]:
    """Give the range for the tables of the model and settings in `folder`, from ezkl's input data.

    All of it is arithmetic of integers, after the inputs are rounded: every machine finds the same range.

    Raises:
        CompileError: ``compile.table_too_large``: values are looked up that no table reaches.

    """
    tools.compile(folder)
    low, high = tools.lookups(folder / native.CIRCUIT_FILE, data)
    found = (min(MARGIN * low, -LEAST_REACH), max(MARGIN * high, LEAST_REACH))
    if max(map(abs, found)) > MAX_LOOKUP:
        raise CompileError(
            "compile.table_too_large", f"integers from {low} to {high} are looked up in tables"
        )
    return found
