"""From a published model to its replay lock: look for cuts, choose, extract each segment, and try them.

The lock states the cuts by name and each segment's model by digest. Where the cuts lie is a choice, made from
measurements; what each segment is follows from the published model and the names alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofhold.canonical import file_digest
from proofhold.catalogue import Entry
from proofhold.compile.build import accept, read_model
from proofhold.compile.cache import write_atomically
from proofhold.compile.circuit import DEFAULT_RELATIVE_L2, OnStep
from proofhold.compile.errors import CompileError, ToolFailed
from proofhold.compile.native import unwrap
from proofhold.compile.replay.analysis import (
    Analysis,
    analyse,
    describe_inputs,
    extract_segments,
    read_analysis,
)
from proofhold.compile.replay.cutter import Cuts, Limits, choose
from proofhold.compile.specification import Specification
from proofhold.domain import InputSpec, OutputSpec
from proofhold.errors import Malformed, Misuse
from proofhold.locks import Boundary, Contract, ReplayLock, Segment, check_name
from proofhold.payload import Tensor
from proofhold.replay.compare import is_finite, relative_l2
from proofhold.replay.packed import pack_tensors
from proofhold.replay.rerun import Rerunner, Traced
from proofhold.runner import Runner, RunnerError, Task, TaskRaised

DEADLINE_S = 300.0
SEED = 1
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Pinned:
    """A replay lock, and each segment's share of a run as it was measured when the cuts were chosen."""

    lock: ReplayLock
    shares: tuple[float, ...]


def pin_replay(
    published: bytes,
    specification: Specification,
    *,
    name: str,
    runner: Runner,
    limits: Limits = DEFAULT_LIMITS,
    on_step: OnStep = lambda _: None,
) -> Pinned:
    """Make the replay lock of a model.

    Args:
        published: the ONNX file's bytes.
        specification: the domain of its inputs, and their shapes where the file leaves sizes free.
        name: what the catalogue calls it.
        runner: where the model is parsed and run.
        limits: into how many segments to cut it, and at what cost.
        on_step: told in words what happens.

    Raises:
        Malformed: ``model.…``: the bytes are no ONNX model.
        CompileError: ``compile.…``: it cannot be re-executed: its runs differ, its types are no payload's.
        ToolFailed: a worker died or hung.
        Misuse: a name that no folder of a catalogue can have.

    """
    check_name(name)
    on_step("looking for places to cut")
    inputs = specify(json.loads(_run(runner, describe_inputs, published)), specification)
    sample = draw(inputs, SEED)
    given = json.dumps([[spec.name, spec.dtype, spec.shape] for spec in inputs]).encode()
    analysis = read_analysis(_run(runner, analyse, published, given, pack_tensors(sample)))
    cuts = choose(analysis, limits)
    on_step(f"extracting {len(cuts.shares)} segments")
    lock = _lock(published, name, inputs, analysis, cuts, specification, runner)
    on_step("running each segment")
    _try(Entry(name, lock.model, None, lock, published), sample, runner)
    return Pinned(lock, cuts.shares)


def remake(
    published: bytes, pinned: ReplayLock, specification: Specification, *, runner: Runner
) -> ReplayLock:
    """Make a lock again, uncalibrated, at the cuts that are pinned: all that follows from model and names.

    Raises as `pin_replay` does; ``compile.unsupported`` where the model has no such cuts.
    """
    inputs = specify(json.loads(_run(runner, describe_inputs, published)), specification)
    model = file_digest(published)
    as_pinned = replace(pinned, model=model, inputs=inputs)
    traced = _traced(Entry(pinned.name, model, None, as_pinned, published), draw(inputs, SEED), runner)
    boundaries = tuple(Boundary(t.name, t.dtype, t.shape) for t in traced.cuts)
    outputs = tuple(OutputSpec(t.name, t.dtype, t.shape) for t in traced.outputs)
    asked = [
        (before.name if before else None, list(segment.outputs))
        for before, segment in zip((None, *boundaries), pinned.segments, strict=True)
    ]
    lock = _assemble(published, pinned.name, inputs, boundaries, outputs, asked, specification, runner)
    _try(Entry(lock.name, lock.model, None, lock, published), draw(inputs, SEED), runner)
    return lock


def specify(described: Sequence[Any], specification: Specification) -> tuple[InputSpec, ...]:
    """Join what the model and what its author say about the inputs.

    Raises:
        CompileError: ``compile.specification`` or ``compile.shape``.

    """
    names = [name for name, *_ in described]
    if set(names) != set(specification.domains):
        raise CompileError(
            "compile.specification",
            f"the domain is of {', '.join(specification.domains)}, the inputs are {', '.join(names)}"[:500],
        )
    found = []
    for name, dtype, sizes in described:
        shape = specification.shapes.get(name, tuple(sizes))
        fits = len(shape) == len(sizes) and all(
            s in (None, ours) for s, ours in zip(sizes, shape, strict=True)
        )
        if None in shape or (sizes and not fits):
            raise CompileError(
                "compile.shape", f"input {name!r} has the sizes {sizes}: state a shape for it in model.toml"
            )
        try:
            found.append(InputSpec(name, dtype, shape, *specification.domains[name]))
        except Misuse as error:
            raise CompileError("compile.shape", str(error)) from error
    return tuple(found)


def draw(inputs: Sequence[InputSpec], seed: int) -> tuple[Tensor, ...]:
    """Draw an input from the domain, the same for the same seed."""
    generator = np.random.default_rng(seed)
    drawn = []
    for spec in inputs:
        values: NDArray[Any] = generator.uniform(spec.low, spec.high, size=spec.shape)
        if spec.dtype.startswith("int"):
            values = generator.integers(int(spec.low), int(spec.high), size=spec.shape, endpoint=True)
        drawn.append(Tensor.of(spec.name, np.asarray(values, dtype=spec.dtype)))
    return tuple(drawn)


def pin_file(
    model_path: Path,
    specification_path: Path,
    out_dir: Path,
    *,
    runner: Runner,
    limits: Limits = DEFAULT_LIMITS,
    on_step: OnStep = lambda _: None,
) -> Pinned:
    """Make the replay lock of a model's file, write it into a catalogue's folder, and list it as audited.

    Raises as `pin_replay` does.
    """
    pinned = pin_replay(
        read_model(model_path),
        Specification.read(specification_path),
        name=out_dir.resolve().name,
        runner=runner,
        limits=limits,
        on_step=on_step,
    )
    write_lock(pinned.lock, out_dir)
    return pinned


def write_lock(lock: ReplayLock, out_dir: Path) -> None:
    """Write a replay lock that was just made and list it as audited: who commits the list vouches for it."""
    write_atomically(out_dir / ReplayLock.FILE_NAME, lock.encode())
    accept(out_dir.parent, lock)


def _lock(
    published: bytes,
    name: str,
    inputs: tuple[InputSpec, ...],
    analysis: Analysis,
    cuts: Cuts,
    specification: Specification,
    runner: Runner,
) -> ReplayLock:
    try:
        outputs = tuple(OutputSpec(port.name, port.dtype, port.shape) for port in analysis.outputs)
    except Misuse as error:
        raise CompileError("compile.shape", str(error)) from error
    boundaries = tuple(Boundary(c.port.name, c.port.dtype, c.port.shape) for c in cuts.chosen)
    # An output belongs to the first segment that can give it: the one behind the last cut that it hangs on.
    depth = {spec.name: sum(spec.name in cut.behind for cut in cuts.chosen) for spec in outputs}
    asked: list[tuple[str | None, list[str]]] = []
    for index in range(len(boundaries) + 1):
        given = [boundary.name for boundary in boundaries[index : index + 1]]
        given += [spec.name for spec in outputs if depth[spec.name] == index]
        asked.append((boundaries[index - 1].name if index else None, given))
    return _assemble(published, name, inputs, boundaries, outputs, asked, specification, runner)


def _assemble(
    published: bytes,
    name: str,
    inputs: tuple[InputSpec, ...],
    boundaries: tuple[Boundary, ...],
    outputs: tuple[OutputSpec, ...],
    asked: Sequence[tuple[str | None, list[str]]],
    specification: Specification,
    runner: Runner,
) -> ReplayLock:
    """Extract the segments, each given by the cut before it and what it gives, and write the lock."""
    leaves: tuple[InputSpec | Boundary | OutputSpec, ...] = (*inputs, *boundaries, *outputs)
    forms = {leaf.name: [leaf.dtype, list(leaf.shape)] for leaf in leaves}
    request = json.dumps({"ports": forms, "segments": asked}).encode()
    made = json.loads(_run(runner, extract_segments, published, request))
    whole = len(made) == 1
    segments = tuple(
        Segment(
            inputs=tuple(spec.name for spec in inputs) if whole else tuple(taken),
            outputs=tuple(given),
            relative_l2=DEFAULT_RELATIVE_L2,
            model=None if whole else digest,
        )
        for (taken, digest), (_, given) in zip(made, asked, strict=True)
    )
    return ReplayLock(
        name=name,
        model=file_digest(published),
        contract=Contract.FLOAT32,
        inputs=inputs,
        outputs=outputs,
        relative_l2=DEFAULT_RELATIVE_L2,
        segments=segments,
        post_processing=specification.post_processing,
        boundaries=boundaries,
    )


def _traced(entry: Entry, sample: tuple[Tensor, ...], runner: Runner) -> Traced:
    """Run a model once, and give its cuts and outputs as they are.

    Raises:
        CompileError: ``compile.unsupported``: it has no such cuts, or does not run.

    """
    rerunner = Rerunner(entry, runner, deadline_s=DEADLINE_S)
    try:
        cuts = [boundary.name for boundary in rerunner.lock.boundaries]
        return rerunner.traced(bytes(32), sample, wanted=cuts)
    except TaskRaised as error:
        raise CompileError("compile.unsupported", f"onnxruntime: {error}") from error
    except (RunnerError, Malformed) as error:
        raise ToolFailed(f"running the model: {error}") from error


def _try(entry: Entry, sample: tuple[Tensor, ...], runner: Runner) -> None:
    """Run the model twice, and each segment on what the first run gave it.

    Raises:
        CompileError: ``compile.not_repeatable`` or ``compile.cut_differs``.

    """
    rerunner = Rerunner(entry, runner, deadline_s=DEADLINE_S)
    lock = rerunner.lock
    try:
        cuts = [boundary.name for boundary in lock.boundaries]
        first, second = (rerunner.traced(bytes(32), sample, wanted=cuts) for _ in range(2))
        if first.trace.root != second.trace.root:
            raise CompileError("compile.not_repeatable", "two runs on one input differ: it draws at random")
        run = {tensor.name: tensor for tensor in (*sample, *first.cuts, *first.outputs)}
        for tensor in run.values():
            if not is_finite(tensor):
                raise CompileError("compile.not_finite", f"tensor {tensor.name!r} holds NaN or infinity")
        for index, segment in enumerate(lock.segments):
            for tensor in rerunner.segment(index, [run[name] for name in segment.inputs]):
                distance = relative_l2(run[tensor.name], tensor)
                if not distance <= lock.segments[index].relative_l2:
                    raise CompileError(
                        "compile.cut_differs",
                        f"segment {index} alone gives {tensor.name!r} with a relative L2 of {distance:.3g}",
                    )
    except TaskRaised as error:
        raise CompileError("compile.unsupported", f"onnxruntime: {error}") from error
    except (RunnerError, Malformed) as error:
        raise ToolFailed(f"running the segments: {error}") from error


def _run(runner: Runner, task: Task, *parts: bytes) -> bytes:
    try:
        return unwrap(runner.run(task, *parts, deadline_s=DEADLINE_S))
    except TaskRaised as error:
        raise CompileError("compile.unsupported", f"{task.__name__.replace('_', ' ')}: {error}") from error
    except RunnerError as error:
        raise ToolFailed(f"{task.__name__.replace('_', ' ')}: {error}") from error


__all__ = ["Pinned", "draw", "pin_file", "pin_replay", "remake", "specify", "write_lock"]
