"""What the tests of the compile side share: a cache of their own, workers, and a repository to spoil."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proofhold.compile.toolchain import Toolchain
from small_repository import copy_repository

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
    """A copy of the two smallest models and their circuits."""
    return copy_repository(tmp_path)
