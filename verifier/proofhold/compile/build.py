"""The compile step as a model's author runs it: build, write the pinned files, vouch for the lock."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

from proofhold.audited import AUDITED_FILE_NAME, Audited
from proofhold.canonical import Digest
from proofhold.catalogue import (
    MAX_MODEL_BYTES,
    SETTINGS_FILE_NAME,
    VERIFY_SRS_FILE_NAME,
    VK_FILE_NAME,
)
from proofhold.compile.cache import write_atomically
from proofhold.compile.circuit import DEFAULT_RUN_ARGS, Built, OnStep, SrsForK, build, refuse_private
from proofhold.compile.errors import CompileError
from proofhold.compile.provingkey import keep_proving_key
from proofhold.compile.specification import SPECIFICATION_FILE_NAME, Specification
from proofhold.compile.srs import Srs, dev_srs, find_ceremony
from proofhold.compile.toolchain import Toolchain
from proofhold.locks import CircuitLock, ReplayLock, RunArgs, Visibility, check_name
from proofhold.regular import open_regular


def compile_model(
    model_path: Path,
    out_dir: Path,
    *,
    name: str | None = None,
    specification_path: Path | None = None,
    run_args: RunArgs = DEFAULT_RUN_ARGS,
    visibility: Visibility | None = None,
    ceremony: tuple[Digest, str] | None = None,
    cache: Path | None = None,
    tools: Toolchain | None = None,
    on_step: OnStep = lambda _: None,
) -> CircuitLock:
    """Compile a model, write its circuit folder, and list both locks as audited.

    Args:
        model_path: the published ONNX file.
        out_dir: the folder to write, ``circuits/NAME``; ``audited.json`` lies beside it.
        name: the model's name; that of `out_dir` unless given.
        specification_path: the model.toml; the one beside the model unless given.
        run_args: ezkl's arguments.
        visibility: refused unless inputs and outputs are public and parameters fixed.
        ceremony: digest and label of an imported SRS; the unsafe development SRS unless given.
        cache: replaces the user's cache folder.
        tools: workers that stay open; it starts its own unless given.
        on_step: is told in words what happens next.

    Raises:
        Malformed: ``model.…``: the file is no ONNX model.
        CompileError: ``compile.…``.
        ToolFailed: a tool died or hung.
        Misuse: a name that no folder of a catalogue can have.

    """
    if visibility is not None:
        refuse_private(visibility)
    name = name or out_dir.resolve().name
    check_name(name)
    published = read_model(model_path)
    specification = Specification.read(specification_path or model_path.parent / SPECIFICATION_FILE_NAME)
    with (
        tempfile.TemporaryDirectory(prefix="proofhold-") as folder,
        nullcontext(tools) if tools else Toolchain() as workers,
    ):
        built = build(
            published,
            specification,
            Path(folder),
            name=name,
            run_args=run_args,
            srs_for_k=srs_source(ceremony, cache),
            tools=workers,
            on_step=on_step,
        )
        keep_proving_key(built, cache=cache)
    on_step(f"writing {out_dir}")
    write_circuit(built, out_dir)
    # This very compilation is the audit: whoever commits the list vouches for it.
    accept(out_dir.parent, *built.locks)
    return built.circuit


def read_model(path: Path) -> bytes:
    """Read a model's file, bounded.

    Raises:
        CompileError: ``compile.missing`` or ``compile.too_large``.

    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise CompileError("compile.missing", f"{path}: {error.strerror}") from error
    if len(data) > MAX_MODEL_BYTES:
        raise CompileError("compile.too_large", f"{path}: more than {MAX_MODEL_BYTES} bytes")
    return data


def srs_source(ceremony: tuple[Digest, str] | None, cache: Path | None) -> SrsForK:
    """Say where the reference string comes from: an imported ceremony, or the development one of any k."""

    def source(k: int) -> Srs:
        if ceremony is None:
            return dev_srs(k, cache=cache)
        digest, label = ceremony
        srs = find_ceremony(digest, label=label, cache=cache)
        if srs.pin.k < k:
            raise CompileError(
                "compile.srs_size", f"the circuit takes k = {k}, the SRS {label!r} has k = {srs.pin.k}"
            )
        return srs

    return source


def write_circuit(built: Built, out_dir: Path) -> None:
    """Write the pinned files, the locks last: a torn write leaves old locks that no longer match."""
    for file_name, data in (
        (SETTINGS_FILE_NAME, built.settings),
        (VK_FILE_NAME, built.vk),
        (VERIFY_SRS_FILE_NAME, built.verify_srs),
        *((lock.FILE_NAME, lock.encode()) for lock in reversed(built.locks)),
    ):
        write_atomically(out_dir / file_name, data)


def accept(circuits: Path, *locks: CircuitLock | ReplayLock) -> None:
    """List `locks` as audited in ``circuits/audited.json``.

    Raises:
        Malformed: the list that is there does not parse.

    """
    path = circuits / AUDITED_FILE_NAME
    audited = Audited.decode(path.read_bytes()) if path.is_file() else Audited()
    write_atomically(path, audited.accept(locks).encode())
