"""The provider's half of a circuit: proving key and compiled circuit, in the user's cache.

They are large and follow from the model and the lock, so they are never in a repository: missing, they are
made again, and the proving key has to come out as the lock pins it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from proofhold.canonical import file_digest
from proofhold.catalogue import Entry
from proofhold.compile import native
from proofhold.compile.cache import cache_folder, write_atomically
from proofhold.compile.circuit import Built, OnStep
from proofhold.compile.derivation import Request
from proofhold.compile.errors import CompileError
from proofhold.compile.prediction import MACHINE, Prediction, count_table_columns, predict
from proofhold.compile.srs import find
from proofhold.compile.toolchain import Toolchain
from proofhold.errors import Misuse
from proofhold.locks import CircuitLock
from proofhold.regular import digest_of

_CIRCUIT_DIGEST_FILE = "circuit.sha256"
"""Notes what the circuit file was when it was made: no lock pins it, since ezkl writes another each time."""


@dataclass(frozen=True, slots=True)
class ProvingKey:
    """Paths of what `native.prove` takes: ezkl's circuit file, the proving key, the whole SRS."""

    circuit: Path
    pk: Path
    srs: Path


def ensure_proving_key(
    entry: Entry, *, cache: Path | None = None, on_step: OnStep = lambda _: None
) -> ProvingKey:
    """Give the proving key of an entry's circuit, compared with the lock at each call, made when missing.

    Raises:
        Misuse: the entry has no circuit.
        CatalogueError: the published model is missing or not the one that the lock pins.
        CompileError: ``compile.key_differs``: this machine's tools give another circuit than the lock;
            ``compile.srs_…``.
        ToolFailed: a tool died or hung.

    """
    if entry.circuit is None:
        raise Misuse(f"{entry.name} has no circuit: compile it first")
    lock = entry.circuit.lock
    srs = find(lock.srs, cache=cache).path
    kept = _folder(lock, cache)
    if not _holds(kept, lock):
        # A damaged key is thrown away with all that lay beside it.
        shutil.rmtree(kept, ignore_errors=True)
        on_step(
            f"making the proving key of {lock.name}, once: {lock.cost.pk_bytes / 1e6:.0f} MB, kept in {kept} "
            f"({about(foretell(lock).setup_s)})"
        )
        _make(entry.model_bytes(), entry.circuit.settings, lock, srs, kept)
    return ProvingKey(kept / native.CIRCUIT_FILE, kept / native.PK_FILE, srs)


def keep_proving_key(built: Built, *, cache: Path | None = None) -> None:
    """Move a compilation's proving key and circuit into the cache."""
    _move(built.folder, _folder(built.circuit, cache))


def foretell(lock: CircuitLock) -> Prediction:
    """Foretell what making the keys and one proof of a locked circuit will take."""
    table_columns = count_table_columns(lock.run_args.lookup_range, lock.cost.k)
    return predict(
        lock.cost.k,
        columns=lock.run_args.columns,
        tables=1 if table_columns else 0,
        table_columns=table_columns,
    )


def about(seconds: float) -> str:
    """Say a foretold time in words, with the machine that it is foretold for."""
    return f"about {seconds:.2g} s on {MACHINE}" if seconds < 99 else f"about {seconds:.0f} s on {MACHINE}"


def _make(published: bytes, settings: bytes, lock: CircuitLock, srs: Path, kept: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="proofhold-") as temporary, Toolchain() as tools:
        folder = Path(temporary)
        derived = tools.derive(published, Request.of(lock)).model
        if file_digest(derived) != lock.derived_model:
            raise _differs(lock, "derived model", file_digest(derived), lock.derived_model)
        write_atomically(folder / native.MODEL_FILE, derived)
        write_atomically(folder / native.SETTINGS_FILE, settings)
        tools.compile(folder)
        tools.set_up(folder, srs)
        for what, file, pinned in (
            ("verifying key", native.VK_FILE, lock.vk),
            ("proving key", native.PK_FILE, lock.pk),
        ):
            made = digest_of(folder / file)
            if made != pinned:
                raise _differs(lock, what, made, pinned)
        _move(folder, kept)


def _differs(lock: CircuitLock, what: str, got: str, pinned: str) -> CompileError:
    return CompileError(
        "compile.key_differs",
        f"{lock.name}: the {what} made here has SHA-256 {got}, the lock pins {pinned}: "
        f"run `proofhold compile --check {lock.name}`",
    )


def _holds(kept: Path, lock: CircuitLock) -> bool:
    pk, circuit, noted = (kept / name for name in (native.PK_FILE, native.CIRCUIT_FILE, _CIRCUIT_DIGEST_FILE))
    if not (pk.is_file() and circuit.is_file() and noted.is_file()):
        return False
    if digest_of(circuit) != noted.read_text():
        return False
    return pk.stat().st_size == lock.cost.pk_bytes and digest_of(pk) == lock.pk


def _folder(lock: CircuitLock, cache: Path | None) -> Path:
    # By key, not by lock: locks that differ in words only share it.
    return cache_folder("keys", cache) / lock.pk


def _move(source: Path, kept: Path) -> None:
    """Put both files in place as one: whoever looks sees none or both."""
    staging = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".staging-"))
    try:
        for name in (native.PK_FILE, native.CIRCUIT_FILE):
            shutil.copyfile(source / name, staging / name)
        (staging / _CIRCUIT_DIGEST_FILE).write_text(digest_of(staging / native.CIRCUIT_FILE))
        try:
            staging.rename(kept)
        except OSError:
            # Another process was first; the files are the same.
            if not kept.is_dir():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
