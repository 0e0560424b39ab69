"""Is a replay lock still what its model and its profile give? What follows from a choice is made again.

Where the cuts lie, and what was measured, are choices: the lock names the cuts, and calibration.json beside
it holds the residuals. The segments' models follow from the one and the tolerances from the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from proofhold.compile.replay.calibration.profile import read_profile
from proofhold.compile.replay.pin import remake
from proofhold.compile.specification import Specification
from proofhold.locks import ReplayLock
from proofhold.runner import Runner


@dataclass(frozen=True, slots=True)
class Remade:
    """A replay lock and the profile beside it, as they should be; no profile where there is none."""

    lock: ReplayLock
    profile: bytes | None


def check_replay(
    published: bytes,
    pinned: ReplayLock,
    specification: Specification,
    profile: bytes | None,
    *,
    runner: Runner,
) -> Remade:
    """Make a replay lock again, at the cuts that it names.

    Args:
        published: the ONNX file's bytes.
        pinned: the lock, as it is.
        specification: what the model's author says of its inputs.
        profile: the file calibration.json beside the lock, where there is one.
        runner: where the model runs.

    Raises:
        Malformed: ``model.…``, or ``profile.…``: a file is not what it should be.
        CompileError: the model has no such cuts, cannot be re-executed, or its profile is none that could
            have been drawn.
        ToolFailed: a worker died or hung.

    """
    made = remake(published, pinned, specification, runner=runner)
    if profile is None:
        return Remade(made, None)
    drawn = read_profile(profile, made)
    return Remade(drawn.pinned(made), drawn.encode())


def needs_remaking(lock: ReplayLock) -> bool:
    """Tell whether a lock is more than `proofhold compile` writes beside a circuit: cut, or calibrated."""
    return bool(lock.boundaries or lock.norms)


__all__ = ["Remade", "check_replay", "needs_remaking"]
