"""ezkl's settings file, made the same on every run, and checked for what it must say.

ezkl 23 writes a time stamp and hash maps in random order; the order of the range checks even changes the
verifying key. So: known fields only, no time stamp, lists of checks sorted, canonical JSON.
"""

from __future__ import annotations

import json
from typing import Any

from proofhold import canonical
from proofhold.catalogue import SAFE_CHECK_MODE, check_modes
from proofhold.compile.errors import CompileError
from proofhold.domain import InputSpec, OutputSpec
from proofhold.locks import TAG_LENGTH, RunArgs, Visibility

LOGROWS_GUESS = 17
"""What ezkl is given before the number of rows is known; the second call gets the right one."""
RESERVED_ROWS = 16
"""Rows at a column's end that hold no values (halo2's blinding factors take 6), with a margin."""
MAX_TABLE_COLUMNS = 4
"""In how many columns a lookup table may be laid out: each is another argument in the proof, and still
cheaper than a table in one column of twice the rows (docs/adr/0080-lookup-tables.md)."""
MIN_K = 8

_UNSTABLE = frozenset({"timestamp"})
_SORTED = ("required_lookups", "required_range_checks")
_KNOWN = frozenset(
    {
        "run_args", "num_rows", "total_assignments", "total_const_size", "total_dynamic_col_size",
        "max_dynamic_input_len", "num_dynamic_lookups", "num_shuffles", "total_shuffle_col_size",
        "einsum_params", "model_instance_shapes", "model_output_scales", "model_input_scales",
        "module_sizes", "required_lookups", "required_range_checks", "check_mode", "version",
        "num_blinding_factors", "input_types", "output_types",
    }
)  # fmt: skip


def arguments(run_args: RunArgs, k: int) -> dict[str, Any]:
    """Give the arguments for ezkl by its own names."""
    tables = {} if run_args.lookup_range is None else {"lookup_range": run_args.lookup_range}
    return {
        **tables,
        "num_inner_cols": run_args.columns,
        "decomp_base": run_args.decomp_base,
        "decomp_legs": run_args.decomp_legs,
        "input_scale": run_args.input_scale,
        "param_scale": run_args.param_scale,
        "logrows": k,
        "check_mode": SAFE_CHECK_MODE,
        "input_visibility": "public",
        "output_visibility": "public",
        "param_visibility": "fixed",
    }


def stabilise(raw: bytes) -> bytes:
    """Turn what ezkl wrote into the one file that is pinned.

    Raises:
        CompileError: ``compile.unknown_settings``: this ezkl writes a field that nobody has looked at.

    """
    settings = json.loads(raw)
    unknown = sorted(settings.keys() - _KNOWN - _UNSTABLE)
    if unknown:
        raise CompileError("compile.unknown_settings", f"ezkl wrote an unknown setting {unknown[0]!r}")
    kept = {name: value for name, value in settings.items() if name in _KNOWN}
    for name in _SORTED:
        kept[name] = sorted(kept[name], key=canonical.encode)
    return canonical.encode(kept)


def check(
    settings: dict[str, Any],
    run_args: RunArgs,
    inputs: tuple[InputSpec, ...],
    outputs: tuple[OutputSpec, ...],
) -> None:
    """Compare settings with what was asked for and with the model's shapes.

    Raises:
        CompileError: ``compile.unsafe_check_mode`` or ``compile.unexpected_settings``.

    """
    modes = check_modes(settings)
    if modes != {SAFE_CHECK_MODE}:
        raise CompileError(
            "compile.unsafe_check_mode",
            f"the check mode is {', '.join(sorted(modes)) or 'missing'}, expected {SAFE_CHECK_MODE}: "
            "ezkl would leave its own sanity checks out",
        )
    shapes = [list(spec.shape) for spec in (*inputs,)] + [[1, TAG_LENGTH]] + [list(s.shape) for s in outputs]
    asked = settings["run_args"]
    wanted = Visibility()
    found = Visibility(*(str(asked[f"{part}_visibility"]).lower() for part in ("input", "output", "param")))
    for what, got, expected in (
        ("visibility", found, wanted),
        ("instance shapes", settings["model_instance_shapes"], shapes),
        ("input types", settings["input_types"], ["F32"] * len(inputs) + ["Int"]),
        ("input scales", settings["model_input_scales"], [run_args.input_scale] * len(inputs) + [0]),
        ("number of output scales", len(settings["model_output_scales"]), len(outputs)),
        ("columns", asked["num_inner_cols"], run_args.columns),
        ("decomposition", [asked["decomp_base"], asked["decomp_legs"]],
         [run_args.decomp_base, run_args.decomp_legs]),
        ("lookup range", tuple(asked["lookup_range"]), run_args.lookup_range or tuple(asked["lookup_range"])),
    ):  # fmt: skip
        if got != expected:
            raise CompileError(
                "compile.unexpected_settings", f"ezkl's settings: {what} {got}, expected {expected}"
            )


def smallest_k(settings: dict[str, Any], instances: int, lookup_range: tuple[int, int] | None) -> int:
    """Give the least k at which each column of values is one block of 2^k rows, and each table a few.

    ezkl accepts a smaller one: it splits each column in blocks, and every block is another commitment in
    the proof (3,072 bytes at one block, 5,344 at two) for little time saved.
    """
    ranges = [high - low + 1 for low, high in settings["required_range_checks"]]
    dynamic = settings["total_dynamic_col_size"] + settings["total_shuffle_col_size"]
    table = 0
    if lookup_range is not None:
        table = -(-(lookup_range[1] - lookup_range[0] + 1) // MAX_TABLE_COLUMNS)
    rows: int = max([settings["num_rows"], instances, dynamic, table, *ranges]) + RESERVED_ROWS
    return max(MIN_K, (rows - 1).bit_length())


def needs_tables(settings: dict[str, Any]) -> bool:
    """Whether the circuit looks anything up."""
    return bool(settings["required_lookups"])
