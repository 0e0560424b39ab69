"""What the tests of the compile side share: a cache of their own, workers, and a repository to spoil."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from proofhold.compile.toolchain import Toolchain

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that is not the user's, shared by the tests of one run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tools() -> Iterator[Toolchain]:
    with Toolchain() as toolchain:
        yield toolchain


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of models/ and circuits/."""
    for folder in ("models", "circuits"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    return tmp_path
