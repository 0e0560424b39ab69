"""What the wheel lays down: two names at the top, and the data that the code reads (ADR 0001)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import proofhold

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The wheel's file names. Built in this process: no environment of its own, no network."""
    folder = tmp_path_factory.mktemp("wheel")
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_only_two_packages_are_installed(files: set[str]) -> None:
    names = {file.split("/")[0] for file in files}
    assert names == {"proofhold", "proofhold_cli", f"proofhold-{proofhold.__version__}.dist-info"}


@pytest.mark.parametrize("pattern", ["*.py", "py.typed", "*.toml", "*.sql"])
def test_everything_under_the_source_roots_comes_along(files: set[str], pattern: str) -> None:
    for folder in (ROOT / "verifier", ROOT / "cli"):
        there = {
            str(path.relative_to(folder)) for path in folder.rglob(pattern) if "__pycache__" not in path.parts
        }
        assert there <= files


def test_policies_and_migrations_are_inside(files: set[str]) -> None:
    assert any(file.startswith("proofhold/policies/") and file.endswith(".toml") for file in files)
    for dialect in ("sqlite", "postgres"):
        assert any(f"/migrations/{dialect}/0" in file and file.endswith(".sql") for file in files)
