"""Every cheat of checks.toml is caught by the check that is named there: without it, its tests fail.

The library is copied, one check is taken out of the copy, and the tests run on it; they ran on a copy with
nothing taken out before, so that it is the check that makes the difference.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "verifier"
TABLE = Path(__file__).with_name("checks.toml")
FAILED = re.compile(r"^FAILED ([^\s\[]+)", re.MULTILINE)
PATIENCE_S = 120
"""Where a hang is no longer ended, its test is: that is a failure too."""


@dataclass(frozen=True)
class Check:
    """A row of the table."""

    cheat: str
    file: str
    check: str
    without: str
    tests: list[str]


CHECKS = [Check(**row) for row in tomllib.loads(TABLE.read_text())["checks"]]
TESTS = sorted({test for check in CHECKS for test in check.tests})


def failing(library: Path, tests: list[str]) -> set[str]:
    """Run tests on a copy of the library; gives those that fail, and all of them when they do not end."""
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(library), str(ROOT / "tests")])}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return set(tests)
    assert process.returncode in (0, 1), said  # 0: all passed; 1: some failed; what is above is no answer
    assert "ERROR " not in said, said
    return set(FAILED.findall(said))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    shutil.copytree(LIBRARY, tmp_path / "verifier", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "verifier"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.cheat)
def test_the_table_speaks_of_the_code_and_the_tests_that_there_are(check: Check) -> None:
    assert (LIBRARY / "proofhold" / check.file).read_text().count(check.check) == 1
    assert check.tests
    for test in check.tests:
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / file).read_text()


@pytest.mark.long
def test_with_every_check_in_place_the_tests_pass_on_a_copy(library: Path) -> None:
    (library / "proofhold" / "version.py").write_text('__version__ = "0.0.0+copy"\n')
    told = "import proofhold; print(proofhold.__version__)"
    said = subprocess.check_output(
        [sys.executable, "-c", told], env={**os.environ, "PYTHONPATH": str(library)}, text=True
    )
    assert said.strip() == "0.0.0+copy", "it is the copy that is tested"
    shutil.copy(LIBRARY / "proofhold" / "version.py", library / "proofhold" / "version.py")
    assert failing(library, TESTS) == set()


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.cheat)
def test_without_the_check_its_tests_fail(check: Check, library: Path) -> None:
    path = library / "proofhold" / check.file
    path.write_text(path.read_text().replace(check.check, check.without))
    assert failing(library, check.tests) == set(check.tests)
