"""The tolerance of each segment, drawn between honest runs and substitutes, and what it cannot tell apart.

Under the float32 contract a tolerance is 1e-5, or four times the largest honest residual if that is more; a
profile that lets a substitute pass is refused. Where half precision is allowed, runs on such weights are
honest too, and a tolerance is twice the largest residual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from proofhold import canonical
from proofhold.canonical import Digest
from proofhold.compile.errors import CompileError
from proofhold.compile.replay.calibration.cheats import MUST_BE_TOLD_APART
from proofhold.errors import Malformed
from proofhold.locks import Contract, ReplayLock
from proofhold.records import Record

Residuals: TypeAlias = Sequence[Sequence[float]]
"""A row an input, a column a segment, and last the whole model."""

FLOAT32_TOLERANCE = 1e-5
LEAST_MARGIN = 4.0
"""How far a tolerance lies above every honest residual, at least, under the float32 contract."""
REDUCED_MARGIN = 2.0
LEAST_CHEAT_MARGIN = 1.5
"""And how far below every residual of a substitute that it must tell apart."""
TOLD_APART = 0.999
"""A substitute that is caught in a smaller share of checks of one segment is not told apart."""
MAX_TOLERANCE = 0.5
VERSION = 1
MAX_PROFILE_BYTES = 64 * 2**20
MAX_INPUTS = 100_000
FILE_NAME = "calibration.json"


@dataclass(frozen=True, slots=True)
class Separation:
    """How a substitute fares: the share of checks that catch it, its least residual over the tolerance."""

    detection: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What calibration found: the tolerances, the margins both ways, and all that was measured."""

    model: Digest
    contract: Contract
    tolerances: tuple[float, ...]
    """One a segment, and last that of the whole model."""
    honest: Mapping[str, Residuals]
    cheats: Mapping[str, Residuals]
    failed: tuple[str, ...] = ()
    """Runtimes that cannot run this model, and substitutes that cannot be made of it."""
    mistaken: Mapping[str, str] = field(default_factory=dict)
    """Runtimes that give what no honest run of this model gives, and at which operator."""
    norms: Mapping[str, float] = field(default_factory=dict)
    """What the norm of each cut and output usually is; the residuals were measured with them."""

    @property
    def honest_max(self) -> float:
        """The largest residual of any honest run, of any segment."""
        return max(max(row) for rows in self.honest.values() for row in rows)

    @property
    def honest_margin(self) -> float:
        """The least factor by which a tolerance lies above an honest residual."""
        return min(
            tolerance / max(value, 1e-12)
            for rows in self.honest.values()
            for row in rows
            for tolerance, value in zip(self.tolerances, row, strict=True)
        )

    def separation(self, cheat: str) -> Separation:
        """Say how a substitute fares when one segment, drawn at random, is checked."""
        ratios = [
            value / tolerance
            for row in self.cheats[cheat]
            for tolerance, value in zip(self.tolerances[:-1], row[:-1], strict=True)
        ]
        return Separation(sum(ratio > 1 for ratio in ratios) / len(ratios), min(ratios))

    @property
    def not_told_apart(self) -> tuple[str, ...]:
        """Name the substitutes that a check of one segment lets pass more often than once in a thousand."""
        return tuple(name for name in self.cheats if self.separation(name).detection < TOLD_APART)

    def pinned(self, lock: ReplayLock) -> ReplayLock:
        """Put the tolerances into a lock."""
        *each, whole = self.tolerances
        norms = self.norms
        segments = tuple(
            replace(
                segment,
                relative_l2=tolerance,
                norms=tuple(norms[name] for name in segment.outputs) if norms else (),
            )
            for segment, tolerance in zip(lock.segments, each, strict=True)
        )
        return replace(lock, contract=self.contract, relative_l2=whole, segments=segments)

    def encode(self) -> bytes:
        """Write the profile as canonical JSON, version 1; docs/formats/locks.md describes it."""
        return canonical.encode(
            {
                "cheats": {
                    name: {
                        "detection": round(self.separation(name).detection, 6),
                        "margin": _short(self.separation(name).margin),
                        "residuals": [list(row) for row in rows],
                    }
                    for name, rows in self.cheats.items()
                },
                "contract": self.contract,
                "failed": list(self.failed),
                "honest": {name: [list(row) for row in rows] for name, rows in self.honest.items()},
                "honest_margin": _short(self.honest_margin),
                "mistaken": dict(self.mistaken),
                "model": self.model,
                "norms": dict(self.norms),
                "not_told_apart": list(self.not_told_apart),
                "tolerances": list(self.tolerances),
                "version": VERSION,
            }
        )


def draw_profile(
    lock: ReplayLock,
    contract: Contract,
    honest: Mapping[str, Residuals],
    cheats: Mapping[str, Residuals],
    *,
    failed: tuple[str, ...] = (),
    mistaken: Mapping[str, str] = {},
) -> Profile:
    """Draw the tolerances from residuals that were measured with a lock's norms.

    Raises:
        CompileError: ``compile.tolerance``: no tolerance lies far enough from both sides.

    """
    # As they are written: whoever reads the profile draws the same tolerances from it.
    honest = {name: _rounded(rows) for name, rows in honest.items()}
    cheats = {name: _rounded(rows) for name, rows in cheats.items()}
    factor = LEAST_MARGIN if contract is Contract.FLOAT32 else REDUCED_MARGIN
    floor = FLOAT32_TOLERANCE if contract is Contract.FLOAT32 else 0.0
    columns = range(len(lock.segments) + 1)
    largest = [max(row[column] for rows in honest.values() for row in rows) for column in columns]
    tolerances = tuple(_up(max(floor, factor * value, 1e-9)) for value in largest)
    if max(tolerances) > MAX_TOLERANCE:
        raise CompileError(
            "compile.tolerance", f"honest runs are apart by {max(largest):.3g}: no tolerance means anything"
        )
    profile = Profile(
        model=lock.model,
        contract=contract,
        tolerances=tolerances,
        honest=honest,
        cheats=cheats,
        failed=failed,
        mistaken=mistaken,
        norms=lock.norms,
    )
    if contract is Contract.FLOAT32:
        for name in MUST_BE_TOLD_APART:
            if name in cheats and (found := profile.separation(name)).margin < LEAST_CHEAT_MARGIN:
                raise CompileError(
                    "compile.tolerance",
                    f"{name} is only {found.margin:.2f} times the tolerance off in some segment, expected at "
                    f"least {LEAST_CHEAT_MARGIN:g}: cut into fewer segments, or allow reduced precision",
                )
    return profile


def read_profile(data: bytes, lock: ReplayLock) -> Profile:
    """Read what was measured, and draw the profile from it once more: its `encode` is what the file should
    be.

    What follows from the residuals (tolerances, margins, who is told apart) is never read.

    Args:
        data: a calibration.json.
        lock: of the model that it should be about; its cuts give the columns.

    Raises:
        Malformed: ``profile.malformed``, ``profile.version``, ``profile.model``, it is about another model;
            or a code of `canonical.decode`.
        CompileError: ``compile.tolerance``: no such profile would have been drawn.

    """
    record = Record(canonical.decode(data, max_bytes=MAX_PROFILE_BYTES, what="profile"), what="profile")
    record.version(VERSION)
    if (model := record.digest("model")) != lock.model:
        raise Malformed("profile.model", f"it is about the model {model}, expected {lock.model}")
    contract = record.choice("contract", Contract)
    norms = record.record("norms")
    segments = tuple(
        replace(segment, norms=tuple(norms.number(name) for name in segment.outputs))
        for segment in lock.segments
    )
    norms.close()
    columns = len(lock.segments) + 1
    honest = _read_residuals(record.record("honest"), columns)
    measured = record.record("cheats")
    each = {name: measured.record(name) for name in measured.names()}
    mistakes = record.record("mistaken")
    return draw_profile(
        replace(lock, segments=segments),
        contract,
        honest,
        {name: _read_rows(cheat, "residuals", columns) for name, cheat in each.items()},
        failed=tuple(str(name) for name in record.items("failed")),
        mistaken={name: mistakes.text(name) for name in mistakes.names()},
    )


def _read_residuals(record: Record, columns: int) -> dict[str, Residuals]:
    return {name: _read_rows(record, name, columns) for name in record.names()}


def _read_rows(record: Record, field: str, columns: int) -> Residuals:
    rows = record.items(field, max_items=MAX_INPUTS)
    for row in rows:
        numbers = isinstance(row, list) and all(isinstance(v, int | float) and v >= 0 for v in row)
        if not numbers or len(row) != columns:
            raise record.error(f"expected rows of {columns} residuals", field)
    if not rows:
        raise record.error("expected at least one row", field)
    return [[float(value) for value in row] for row in rows]


def _up(value: float) -> float:
    """Round up to two digits: a tolerance is a round number in a lock."""
    text = f"{value:.1e}"
    rounded = float(text)
    return rounded if rounded >= value else float(f"{value * 1.05:.1e}")


def _rounded(rows: Residuals) -> list[list[float]]:
    return [[_short(value) for value in row] for row in rows]


def _short(value: float) -> float:
    return float(f"{value:.3g}")


__all__ = ["FILE_NAME", "MAX_PROFILE_BYTES", "Profile", "Separation", "draw_profile", "read_profile"]
