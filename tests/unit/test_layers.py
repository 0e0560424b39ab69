"""The contracts about who may import whom bite: a wrong import in a copy of the tree is caught, by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WRONG = {
    "money.py": ("proofhold.verifier", "every import points down the house"),
    "escrow/states.py": ("proofhold.policy", "the escrow knows digests, keys, amounts and clocks"),
    "verifier.py": ("proofhold.escrow.states", "whoever judges knows nothing of the escrow"),
    "backends/replay.py": ("proofhold.backends.ezkl", "a backend never sees the policy, nor another backend"),
    "settlement.py": ("proofhold.provider", "what a relying party trusts never imports"),
    "compile/check.py": ("proofhold.settlement", "a provider and a model's CI need nothing above"),
    "keys.py": ("proofhold_cli", "nothing in the library uses its front door"),
}


def broken(tree: Path) -> str:
    """What import-linter says about a tree; empty when every contract is kept."""
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": f"{tree / 'verifier'}{os.pathsep}{tree / 'cli'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if run.returncode == 0 else run.stdout + run.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("verifier", "cli"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_keeps_every_contract(tree: Path) -> None:
    assert broken(tree) == ""


@pytest.mark.parametrize("module", WRONG)
def test_a_wrong_import_is_caught(tree: Path, module: str) -> None:
    imported, contract = WRONG[module]
    path = tree / "verifier" / "proofhold" / module
    path.write_text(path.read_text() + f"\nimport {imported}  # the wrong import\n")
    said = broken(tree)
    assert f"{contract}" in said
    assert f"{imported}" in said


def test_a_module_without_a_floor_is_caught(tree: Path) -> None:
    (tree / "verifier" / "proofhold" / "newcomer.py").write_text('"""Nobody said where this belongs."""\n')
    assert "newcomer" in broken(tree)
