"""An escrow on stage, on a file system without a disk where there is one: what is tested is not the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from escrow_builders import Scene, memory_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


@pytest.fixture
def scene(folder: Path) -> Iterator[Scene]:
    scene = Scene.create(folder)
    yield scene
    assert scene.escrow.audit() == ()
    scene.escrow.close()
