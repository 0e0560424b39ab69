"""What a long benchmark has measured so far, kept in the temporary folder so that it can go on later."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def folder() -> Path:
    """Give the folder, which is made where it is missing."""
    path = Path(tempfile.gettempdir()) / "proofhold-bench" / "measured"
    path.mkdir(parents=True, exist_ok=True)
    return path


def kept(name: str, measure: Callable[[], T], *, resume: bool) -> T:
    """Give what was measured under a name before, if the run is to go on from there; else measure it."""
    path = folder() / f"{name}.pickle"
    if resume and path.exists():
        found: T = pickle.loads(path.read_bytes())  # noqa: S301 - written below
        return found
    found = measure()
    path.write_bytes(pickle.dumps(found))
    return found
