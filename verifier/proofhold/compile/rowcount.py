"""Where a circuit's rows go: the model is cut after each node in turn, and ezkl counts the beginning."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proofhold.compile import native, settings
from proofhold.compile.cache import write_atomically
from proofhold.compile.errors import CompileError
from proofhold.compile.toolchain import Toolchain
from proofhold.locks import RunArgs


@dataclass(frozen=True, slots=True)
class OperatorRows:
    """An operator, how often the derived model has it, and how many rows those nodes take."""

    operator: str
    nodes: int
    rows: int


def rows_by_operator(derived: bytes, run_args: RunArgs, tools: Toolchain) -> tuple[OperatorRows, ...]:
    """Count the rows of a derived model by operator, the most first.

    A node that ezkl has no count for by itself is counted with the next one. What lies outside every node
    (inputs and outputs, which are range-checked too) goes to the first and the last.
    """
    nodes = tools.nodes(derived)
    counts: dict[str, tuple[int, int]] = {}
    before = 0
    with tempfile.TemporaryDirectory(prefix="proofhold-") as temporary:
        folder = Path(temporary)
        for number, (_, operator, _) in enumerate(nodes, start=1):
            total = _rows(tools.cut(derived, number), run_args, folder, tools)
            seen, rows = counts.get(operator, (0, 0))
            grown = max(0, total - before) if total is not None else 0
            counts[operator] = (seen + 1, rows + grown)
            before = before if total is None else max(before, total)
    found = [OperatorRows(operator, seen, rows) for operator, (seen, rows) in counts.items()]
    return tuple(sorted(found, key=_most_first))


def _most_first(one: OperatorRows) -> tuple[int, str]:
    return -one.rows, one.operator


def _rows(cut: bytes, run_args: RunArgs, folder: Path, tools: Toolchain) -> int | None:
    write_atomically(folder / native.MODEL_FILE, cut)
    try:
        made = tools.settings(folder, settings.arguments(run_args, settings.LOGROWS_GUESS))
    except CompileError:
        return None
    rows: int = json.loads(made)["num_rows"]
    return rows


def share(rows: Sequence[OperatorRows], one: OperatorRows) -> float:
    """What part of all rows an operator takes."""
    return one.rows / max(1, sum(other.rows for other in rows))
