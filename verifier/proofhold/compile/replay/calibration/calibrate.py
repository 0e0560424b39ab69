"""Calibrate a model: measure every runtime and every substitute, and draw the profile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from proofhold.compile.cache import write_atomically
from proofhold.compile.circuit import OnStep
from proofhold.compile.errors import CompileError, ToolFailed
from proofhold.compile.native import unwrap
from proofhold.compile.replay.calibration.cheats import CHEATS
from proofhold.compile.replay.calibration.honesty import SUSPICIOUS, find_mistake
from proofhold.compile.replay.calibration.measure import (
    has_weights,
    measure_cheat,
    measure_norms,
    measure_runtime,
)
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
    mistaken: Mapping[str, str] = field(default_factory=dict)
    """Runtimes that run another model than this one, and what they get wrong."""


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
    on_step("measuring norms")
    lock = with_norms(published, lock, runner=runner, inputs=inputs)
    measured = measure_model(published, lock, runner=runner, inputs=inputs, python=python, on_step=on_step)
    honest, cheats = dict(measured.honest), dict(measured.cheats)
    if contract is Contract.REDUCED:
        for name in HALF_PRECISION:
            if name in cheats:
                honest[f"{name} weights"] = cheats.pop(name)
    return draw_profile(lock, contract, honest, cheats, failed=measured.failed, mistaken=measured.mistaken)


def with_norms(
    published: bytes,
    lock: ReplayLock,
    *,
    runner: Runner,
    inputs: int = DEFAULT_INPUTS,
    first_seed: int = FIRST_SEED,
) -> ReplayLock:
    """Put what the norms of cuts and outputs usually are into a lock: residuals are measured by them."""
    request = json.dumps({"seeds": list(range(first_seed, first_seed + inputs))}).encode()
    try:
        norms = json.loads(_asked(runner, measure_norms, published, lock.encode(), request))
    except TaskRaised as error:
        raise CompileError("compile.unsupported", f"onnxruntime: {error}") from error
    segments = tuple(
        replace(segment, norms=tuple(float(f"{norms[name]:.3g}") for name in segment.outputs))
        for segment in lock.segments
    )
    return replace(lock, segments=segments)


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

    A runtime that is far off is looked at operator by operator: one that makes a mistake is no honest run.

    Raises as `calibrate` does, ``compile.tolerance`` apart.
    """
    honest: dict[str, Residuals] = {}
    failed, mistaken = [], {}
    for runtime in available(python=python):
        shown = _shown(runtime.name)
        on_step(f"running in {shown}")
        seeds = range(first_seed, first_seed + min(inputs, runtime.inputs or inputs))
        try:
            rows = _run(runner, measure_runtime, published, lock, runtime.name, seeds)
            mistake = ""
            if max(max(row) for row in rows) > SUSPICIOUS:
                mistake = _asked(
                    runner, find_mistake, published, lock.encode(), _request(runtime.name, seeds)
                )
        except TaskRaised:
            failed.append(shown)  # not every runtime knows every operator
            continue
        if mistake:
            mistaken[shown] = mistake
        else:
            honest[shown] = rows
    if not honest:
        raise CompileError(
            "compile.unsupported", f"none of {', '.join([*failed, *mistaken])} runs this model"
        )
    cheats: dict[str, Residuals] = {}
    if _asked(runner, has_weights, published):
        for name in CHEATS:
            on_step(f"cheating with {name}")
            seeds = range(first_seed, first_seed + inputs)
            try:
                cheats[name] = _run(runner, measure_cheat, published, lock, name, seeds)
            except TaskRaised:
                failed.append(name)  # nor can every quantiser read every graph
    return Measured(honest, cheats, tuple(failed), mistaken)


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
    rows: Residuals = json.loads(_asked(runner, task, published, lock.encode(), _request(name, seeds)))
    return rows


def _request(name: str, seeds: Sequence[int]) -> bytes:
    return json.dumps({"name": name, "seeds": list(seeds)}).encode()


def _asked(runner: Runner, task: Task, *parts: bytes) -> str:
    try:
        return unwrap(runner.run(task, *parts, deadline_s=DEADLINE_S)).decode()
    except TaskRaised:
        raise
    except RunnerError as error:
        raise ToolFailed(f"{task.__name__.replace('_', ' ')}: {error}") from error
