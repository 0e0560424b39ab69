"""A copy of two small models of the repository with their circuits, for tests to spoil and to check."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from proofhold.audited import Audited

REPOSITORY = Path(__file__).parents[1]
NAMES = ("breast_cancer", "digits")
"""Compiling all of the repository's models again takes minutes: `make test-all` does."""


def copy_repository(folder: Path) -> Path:
    """Copy models/ and circuits/ of `NAMES` into a folder, and the list of audited locks less the others."""
    for kind in ("models", "circuits"):
        for name in NAMES:
            shutil.copytree(
                REPOSITORY / kind / name, folder / kind / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    audited = Audited.decode((REPOSITORY / "circuits" / "audited.json").read_bytes())
    ours = replace(audited, locks=tuple(entry for entry in audited.locks if entry.name in NAMES))
    (folder / "circuits" / "audited.json").write_bytes(ours.encode())
    return folder
