"""Calibrate a model: measure every runtime and every substitute, and draw the profile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proofhold.compile.cache import write_atomically
from proofhold.compile.circuit import OnStep
from proofhold.compile.errors import CompileError, ToolFailed
from proofhold.compile.native import unwrap
from proofhold.compile.replay.calibration.cheats import CHEATS
from proofhold.compile.replay.calibration.measure import has_weights, measure_cheat, measure_runtime
from proofhold.compile.replay.calibration.profile import FILE_NAME, Profile, Residuals, draw_profile
from proofhold.compile.replay.calibration.report import REPORT_FILE_NAME, render
from proofhold.compile.replay.calibration.runtimes import available
from proofhold.compile.replay.pin import write_lock
from proofhold.locks import Contract, ReplayLock
from proofhold.runner import Runner, RunnerError, Task, TaskRaised

DEFAULT_INPUTS = 20
DEADLINE_S = 3600.0
FIRST_SEED = 100
HALF_PRECISION = ("fp16", "bf16")
"""What a reduced contract allows: runs on such weights are honest under it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Residuals by runtime and by substitute; what cannot run the model, or be made of it."""

    honest: Mapping[str, Residuals]
    cheats: Mapping[str, Residuals]
    failed: tuple[str, ...]


def calibrate(
    published: bytes,
    lock: ReplayLock,
    *,
    runner: Runner,
    contract: Contract = Contract.FLOAT32,
    inputs: int = DEFAULT_INPUTS,
    python: str | None = None,
    on_step: OnStep = lambda _: None,
) -> Profile:
    """Measure how far honest runs of a model and its substitutes are off, and draw the tolerances.

    Args:
        published: the ONNX file's bytes.
        lock: its replay lock, which says where it is cut and from which domain inputs come.
        runner: where everything native runs; without a memory limit.
        contract: which arithmetic providers promise.
        inputs: how many inputs to draw from the domain.
        python: an interpreter with another version of onnxruntime, to be measured too.
        on_step: told in words what happens.

    Raises:
        CompileError: ``compile.tolerance``: honest runs and substitutes are not far enough apart.
        ToolFailed: a runtime died or hung.

    """
    measured = measure_model(published, lock, runner=runner, inputs=inputs, python=python, on_step=on_step)
    honest, cheats = dict(measured.honest), dict(measured.cheats)
    if contract is Contract.REDUCED:
        for name in HALF_PRECISION:
            if name in cheats:
                honest[f"{name} weights"] = cheats.pop(name)
    return draw_profile(lock, contract, honest, cheats, failed=measured.failed)


def measure_model(
    published: bytes,
    lock: ReplayLock,
    *,
    runner: Runner,
    inputs: int = DEFAULT_INPUTS,
    first_seed: int = FIRST_SEED,
    python: str | None = None,
    on_step: OnStep = lambda _: None,
) -> Measured:
    """Run a model in every runtime, and every substitute of it, on inputs drawn from `first_seed` on.

    Raises as `calibrate` does, ``compile.tolerance`` apart.
    """
    honest: dict[str, Residuals] = {}
    failed = []
    for runtime in available(python=python):
        shown = _shown(runtime.name)
        on_step(f"running in {shown}")
        seeds = range(first_seed, first_seed + min(inputs, runtime.inputs or inputs))
        try:
            honest[shown] = _run(runner, measure_runtime, published, lock, runtime.name, seeds)
        except TaskRaised:
            failed.append(shown)  # not every runtime knows every operator
    if not honest:
        raise CompileError("compile.unsupported", f"none of {', '.join(failed)} runs this model")
    cheats: dict[str, Residuals] = {}
    if _has_weights(runner, published):
        for name in CHEATS:
            on_step(f"cheating with {name}")
            seeds = range(first_seed, first_seed + inputs)
            try:
                cheats[name] = _run(runner, measure_cheat, published, lock, name, seeds)
            except TaskRaised:
                failed.append(name)  # nor can every quantiser read every graph
    return Measured(honest, cheats, tuple(failed))


def write_profile(profile: Profile, lock: ReplayLock, out_dir: Path) -> ReplayLock:
    """Write the lock with its tolerances, the profile and the report into a model's folder of circuits."""
    pinned = profile.pinned(lock)
    write_atomically(out_dir / FILE_NAME, profile.encode())
    write_atomically(out_dir / REPORT_FILE_NAME, render(profile, lock.name).encode())
    write_lock(pinned, out_dir)
    return pinned


def _shown(runtime: str) -> str:
    """Name a runtime in a profile: another interpreter's path is this machine's own business."""
    return "onnxruntime, another version" if "@" in runtime else runtime


def _run(
    runner: Runner, task: Task, published: bytes, lock: ReplayLock, name: str, seeds: Sequence[int]
) -> Residuals:
    request = json.dumps({"name": name, "seeds": list(seeds)}).encode()
    try:
        made = runner.run(task, published, lock.encode(), request, deadline_s=DEADLINE_S)
    except TaskRaised:
        raise
    except RunnerError as error:
        raise ToolFailed(f"{name}: {error}") from error
    rows: Residuals = json.loads(unwrap(made))
    return rows


def _has_weights(runner: Runner, published: bytes) -> bool:
    try:
        return bool(unwrap(runner.run(has_weights, published, deadline_s=DEADLINE_S)))
    except RunnerError as error:
        raise ToolFailed(f"reading the model: {error}") from error
