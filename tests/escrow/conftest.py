"""An escrow on stage, over either driver.

SQLite's lies on a file system without a disk where there is one, PostgreSQL's in a server that does not
flush: what is tested here is not the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from escrow_builders import Scene, memory_folder
from stores import DRIVERS, Store, make_store


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, folder: Path) -> Iterator[Store]:
    with make_store(request.param, folder) as made:
        yield made


@pytest.fixture
def scene(store: Store) -> Iterator[Scene]:
    scene = Scene.create(store)
    yield scene
    assert scene.escrow.audit() == ()
    scene.escrow.close()
