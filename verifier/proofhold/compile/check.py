"""Is what was pinned still what the model and the tools give? Recompile, and compare everything.

This is the audit that lets a lock into a catalogue, and the step that a model's CI runs. What is a choice
(run arguments, which SRS, where a model is cut, what was measured of it) is taken from the lock and the files
beside it; all that follows from it is made again.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proofhold.audited import AUDITED_FILE_NAME
from proofhold.canonical import file_digest
from proofhold.catalogue import (
    CIRCUITS_FOLDER,
    MAX_SETTINGS_BYTES,
    MAX_VK_BYTES,
    MODEL_FILE_NAME,
    MODELS_FOLDER,
    SETTINGS_FILE_NAME,
    VERIFY_SRS_BYTES,
    VERIFY_SRS_FILE_NAME,
    VK_FILE_NAME,
    read_audited,
)
from proofhold.compile.build import accept, read_model
from proofhold.compile.circuit import Built, OnStep, build
from proofhold.compile.errors import CompileError
from proofhold.compile.provingkey import keep_proving_key
from proofhold.compile.replay.calibration.profile import FILE_NAME as PROFILE_FILE_NAME
from proofhold.compile.replay.calibration.profile import MAX_PROFILE_BYTES
from proofhold.compile.replay.check import check_replay, needs_remaking
from proofhold.compile.specification import SPECIFICATION_FILE_NAME, Specification
from proofhold.compile.srs import Srs, dev_srs, find_ceremony
from proofhold.compile.toolchain import Toolchain
from proofhold.errors import Malformed, Misuse
from proofhold.locks import MAX_LOCK_BYTES, CircuitLock, ReplayLock, SrsKind, check_name
from proofhold.regular import open_regular
from proofhold.runner import Runner

ERROR_TOLERANCE = 0.01
"""Measured errors may differ by a hundredth: onnxruntime's last bits depend on the processor."""
ERROR_FLOOR = 1e-6
MEASURED = ("error.bound", "error.max_abs", "error.relative_l2")
STAGE_DIFFERENCE = r"passes\[[0-9]+\]\.max_abs"
NOT_ABOUT_THE_MODEL = ("compile.cache", "compile.write", "compile.srs_missing", "compile.srs_digest")
"""Failures that say something of this machine only: raised, never reported as a difference."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as pinned: of which model, which field, what is pinned, what was found."""

    name: str
    field: str
    pinned: str
    found: str
    file: str
    """Where to look, from the root: the model that is another one, or the file that pins what differs."""
    changes_circuit: bool | None = None
    """Of a model file that is not the pinned one: whether it gives another circuit too. None of all else."""

    def __str__(self) -> str:
        return f"{self.name}: {self.field}: pinned {self.pinned}, found {self.found}"


def circuit_names(root: Path) -> tuple[str, ...]:
    """List the circuits under `root`, in order, with those that are listed as audited and gone.

    Raises:
        Misuse: a folder's name is none that a circuit can have: it may be a stranger's, and is printed.

    """
    folders = {path.parent.name for path in root.glob(f"{CIRCUITS_FOLDER}/*/*.lock.json")}
    for name in folders:
        check_name(name)
    return tuple(sorted(folders | {entry.name for entry in read_audited(root).locks}))


def check(
    names: Sequence[str],
    root: Path,
    *,
    accept_locks: bool = False,
    cache: Path | None = None,
    tools: Toolchain | None = None,
    on_step: OnStep = lambda _: None,
) -> list[Difference]:
    """Recompile each named circuit and compare everything pinned with what comes out.

    With `accept_locks`, the locks of a circuit without any difference are listed as audited; without, a lock
    that is not listed is a difference. `tools` lends workers that stay open; otherwise it starts its own.

    Raises:
        Misuse: a name that is no circuit under `root`, or a folder there that can be none.
        CompileError: this machine cannot tell: a code of `NOT_ABOUT_THE_MODEL`.
        ToolFailed: nor can it when a tool died or hung.

    """
    known = circuit_names(root)
    for name in names:
        if name not in known:
            raise Misuse(f"no circuit {name!r} under {root}; there are: {', '.join(known) or 'none'}")
    differences = []
    with nullcontext(tools) if tools else Toolchain() as workers:
        for name in names:
            differences += _check_one(name, root, accept_locks, workers, cache, _prefixed(name, on_step))
    return differences


def _prefixed(name: str, on_step: OnStep) -> OnStep:
    return lambda step: on_step(f"{name}: {step}")


def _check_one(
    name: str, root: Path, accept_locks: bool, tools: Toolchain, cache: Path | None, on_step: OnStep
) -> list[Difference]:
    folder = root / CIRCUITS_FOLDER / name
    differences: list[Difference] = []
    circuit, replay = _read_locks(name, folder, differences)
    listed = {(entry.name, entry.kind) for entry in read_audited(root).locks}
    if circuit is None and replay is not None and (name, "circuit") not in listed:
        if not (folder / CircuitLock.FILE_NAME).exists():
            # A model that is re-executed, and never proved, has no circuit to miss.
            differences.clear()
    elif circuit is None:
        return differences  # The run arguments are in the lock: there is nothing to compile again.
    remakes = replay is not None and (circuit is None or needs_remaking(replay))
    if remakes and replay is not None:
        on_step("cutting again")
        differences += _check_replay(name, root, replay, tools.reader)
    if circuit is not None:
        compared = None if remakes else replay
        found, settled = _check_circuit(name, root, circuit, compared, differences, tools, cache, on_step)
        if not settled:
            return found
        differences = found
    locks: list[CircuitLock | ReplayLock] = [lock for lock in (circuit, replay) if lock is not None]
    if accept_locks and not differences:
        accept(root / CIRCUITS_FOLDER, *locks)
    audited = read_audited(root)
    differences += [
        Difference(
            name,
            f"{AUDITED_FILE_NAME}: {lock.FILE_NAME}",
            "not listed",
            lock.digest,
            f"{CIRCUITS_FOLDER}/{AUDITED_FILE_NAME}",
        )
        for lock in locks
        if lock.digest not in audited
    ]
    return differences


def _check_replay(name: str, root: Path, pinned: ReplayLock, runner: Runner) -> Iterator[Difference]:
    """Make a lock with cuts, or tolerances that were measured, again from what it names, and compare."""
    folder, models = root / CIRCUITS_FOLDER / name, root / MODELS_FOLDER / name
    try:
        published = read_model(models / MODEL_FILE_NAME)
        specification = Specification.read(models / SPECIFICATION_FILE_NAME)
        path = folder / PROFILE_FILE_NAME
        profile = _bytes(path, MAX_PROFILE_BYTES) if path.exists() else None
        made = check_replay(published, pinned, specification, profile, runner=runner)
    except (Malformed, CompileError) as error:
        file = _beside(name, PROFILE_FILE_NAME) if error.code.startswith("profile.") else _model_file(name)
        yield Difference(name, "the replay lock", "one that follows from model and profile", str(error), file)
        return
    for field, before, after in _fields(json.loads(pinned.encode()), json.loads(made.lock.encode()), ""):
        file = _model_file(name) if field == "model" else _beside(name, ReplayLock.FILE_NAME)
        yield Difference(name, f"replay lock: {field}", _show(before), _show(after), file)
    if profile is not None and made.profile is not None and profile != made.profile:
        for field, before, after in _fields(json.loads(profile), json.loads(made.profile), ""):
            file = _beside(name, PROFILE_FILE_NAME)
            yield Difference(name, f"{PROFILE_FILE_NAME}: {field}", _show(before), _show(after), file)


def _check_circuit(
    name: str,
    root: Path,
    circuit: CircuitLock,
    replay: ReplayLock | None,
    before: list[Difference],
    tools: Toolchain,
    cache: Path | None,
    on_step: OnStep,
) -> tuple[list[Difference], bool]:
    """Compile again and compare; gives all differences, and whether there was a circuit to compare."""
    folder, model_folder = root / CIRCUITS_FOLDER / name, root / MODELS_FOLDER / name
    differences = [*before, *_check_files(circuit, folder)]
    if circuit.ezkl_version != version("ezkl"):
        # Another version may give the same keys: it is a difference all the same.
        differences.append(
            Difference(
                name,
                "ezkl_version",
                circuit.ezkl_version,
                version("ezkl"),
                _beside(name, CircuitLock.FILE_NAME),
            )
        )
    with tempfile.TemporaryDirectory(prefix="proofhold-") as temporary:
        try:
            built = build(
                read_model(model_folder / MODEL_FILE_NAME),
                Specification.read(model_folder / SPECIFICATION_FILE_NAME),
                Path(temporary),
                name=name,
                run_args=circuit.run_args,
                srs_for_k=lambda k: _srs_of(circuit, k, cache),
                tools=tools,
                on_step=on_step,
            )
        except (Malformed, CompileError) as error:
            if error.code in NOT_ABOUT_THE_MODEL:
                raise
            found = f"no circuit: {error.message}"
            return [*differences, Difference(name, "the model", "a circuit", found, _model_file(name))], False
        if built.replay is None and replay is None:
            # Nor is there one to be had: what its reading said is no difference.
            differences = [d for d in differences if d.field != ReplayLock.FILE_NAME]
        differences += _compare(name, circuit, replay, built, folder)
        if not differences:
            # The work is done; a provider on this machine need not do it again.
            keep_proving_key(built, cache=cache)
    return differences, True


def _read_locks(
    name: str, folder: Path, differences: list[Difference]
) -> tuple[CircuitLock | None, ReplayLock | None]:
    """Read both locks; what is missing or malformed becomes a difference."""
    circuit: CircuitLock | None = None
    replay: ReplayLock | None = None
    try:
        circuit = CircuitLock.decode(_bytes(folder / CircuitLock.FILE_NAME, MAX_LOCK_BYTES))
    except (Malformed, CompileError) as error:
        file = _beside(name, CircuitLock.FILE_NAME)
        differences.append(Difference(name, CircuitLock.FILE_NAME, "a lock", error.message, file))
    try:
        replay = ReplayLock.decode(_bytes(folder / ReplayLock.FILE_NAME, MAX_LOCK_BYTES))
    except (Malformed, CompileError) as error:
        file = _beside(name, ReplayLock.FILE_NAME)
        differences.append(Difference(name, ReplayLock.FILE_NAME, "a lock", error.message, file))
    return circuit, replay


def _check_files(circuit: CircuitLock, folder: Path) -> Iterator[Difference]:
    """Compare the files beside a lock with the digests in it."""
    for file_name, pinned, max_bytes in (
        (SETTINGS_FILE_NAME, circuit.settings, MAX_SETTINGS_BYTES),
        (VK_FILE_NAME, circuit.vk, MAX_VK_BYTES),
        (VERIFY_SRS_FILE_NAME, circuit.srs.verify_digest, VERIFY_SRS_BYTES),
    ):
        try:
            found = file_digest(_bytes(folder / file_name, max_bytes))
        except CompileError as error:
            found = error.message
        if found != pinned:
            yield Difference(
                circuit.name, file_name, pinned, found, f"{CIRCUITS_FOLDER}/{folder.name}/{file_name}"
            )


def _compare(
    name: str, circuit: CircuitLock, replay: ReplayLock | None, built: Built, folder: Path
) -> Iterator[Difference]:
    """Compare both locks, field by field, and the settings, with those of the new compilation.

    A circuit holds quantised weights, so a model may change by less than it can tell: another file, of which
    the pinned circuit is as good a picture. That is a difference all the same, and said apart.
    """
    ours, theirs = built.circuit, circuit
    changes_circuit = (ours.vk, ours.settings) != (theirs.vk, theirs.settings)
    for what, pinned, made in (("circuit", circuit, built.circuit), ("replay", replay, built.replay)):
        if pinned is not None and made is None:
            file = _beside(name, ReplayLock.FILE_NAME)
            yield Difference(name, ReplayLock.FILE_NAME, "a lock", "none: an output is no tensor", file)
        elif pinned is not None and made is not None:
            old, new = json.loads(pinned.encode()), json.loads(made.encode())
            for field, before, after in _fields(old, new, ""):
                # Said before, with words of its own.
                if field != "ezkl_version" and not _same_measurement(field, before, after):
                    is_model = field == "model"
                    file = _model_file(name) if is_model else _beside(name, pinned.FILE_NAME)
                    apart = changes_circuit if is_model else None
                    yield Difference(name, f"{what} lock: {field}", _show(before), _show(after), file, apart)
    try:
        committed = json.loads(_bytes(folder / SETTINGS_FILE_NAME, MAX_SETTINGS_BYTES))
    except (CompileError, ValueError, RecursionError):
        return  # Said before: the file's digest is not the pinned one.
    for field, before, after in _fields(committed, json.loads(built.settings), ""):
        file = _beside(name, SETTINGS_FILE_NAME)
        yield Difference(name, f"{SETTINGS_FILE_NAME}: {field}", _show(before), _show(after), file)


def _model_file(name: str) -> str:
    return f"{MODELS_FOLDER}/{name}/{MODEL_FILE_NAME}"


def _beside(name: str, file_name: str) -> str:
    return f"{CIRCUITS_FOLDER}/{name}/{file_name}"


def _fields(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Walk two JSON documents; gives the path and both values wherever they differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _fields(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _fields(before, after, f"{path}[{index}]")
    elif old != new:
        yield path, old, new


def _same_measurement(field: str, before: Any, after: Any) -> bool:
    measured = field in MEASURED or re.fullmatch(STAGE_DIFFERENCE, field)
    return bool(measured) and math.isclose(before, after, rel_tol=ERROR_TOLERANCE, abs_tol=ERROR_FLOOR)


def _srs_of(circuit: CircuitLock, k: int, cache: Path | None) -> Srs:
    """Give the SRS of the kind that the lock pins, of the size that the new circuit takes."""
    if circuit.srs.kind is SrsKind.UNSAFE_DEV:
        return dev_srs(k, cache=cache)
    return find_ceremony(circuit.srs.digest, label=circuit.srs.label, cache=cache)


def _bytes(path: Path, max_bytes: int) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise CompileError("compile.missing", f"{path.name}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise CompileError("compile.too_large", f"{path.name}: more than {max_bytes} bytes")
    return data


def _show(value: Any) -> str:
    return json.dumps(value)[:120] if value is not None else "nothing"
