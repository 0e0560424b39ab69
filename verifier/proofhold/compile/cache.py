"""Where the compile side keeps what can be made again: reference strings and proving keys."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

from proofhold.compile.errors import CompileError


def cache_folder(kind: str, cache: Path | None = None) -> Path:
    """Give the folder for one kind of file, made when missing; `cache` replaces the user's cache folder.

    Raises:
        CompileError: ``compile.cache``: it cannot be made.

    """
    folder = (cache or Path(platformdirs.user_cache_dir("proofhold"))) / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError("compile.cache", f"{folder}: {error.strerror}") from error
    return folder


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that whoever looks sees the old one or the whole new one, never a part.

    Raises:
        CompileError: ``compile.write``: the folder takes no files.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CompileError("compile.write", f"{path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # mkstemp makes private files; these are published.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
