"""The README's hook, by somebody who has the README, the circuits and an installed wheel, and no more."""

from __future__ import annotations

import os
import site
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from console import ROOT, read_blocks
from small_repository import copy_repository


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel, the packages that it asks for, and nothing of this tree."""
    folder = tmp_path_factory.mktemp("fresh")
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    venv.create(folder / "env", with_pip=False)
    [packages] = (folder / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # What this environment installed besides; its own links to this tree are not followed from there.
    (packages / "installed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "env" / "bin" / "python"


def run(python: Path, folder: Path, program: str) -> str:
    environment = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    done = subprocess.run(
        [str(python), "-c", program],
        cwd=folder,
        env=environment | {"PATH": os.defpath, "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_the_ten_lines_work_as_printed_from_a_wheel_in_a_fresh_folder(python: Path, tmp_path: Path) -> None:
    [hook] = [block for block in read_blocks((ROOT / "README.md").read_text()) if block.language == "python"]
    copy_repository(tmp_path)
    where = run(python, tmp_path, "import proofhold, proofhold_cli; print(proofhold.__file__)")
    assert Path(where.strip()).is_relative_to(python.parents[1]), "this tree's, and not the wheel's"
    # The provider's answer, the verifier's key and a funded escrow: what a settlement service has by then.
    run(python, tmp_path, hook.before)
    said = [run(python, tmp_path, hook.body).split() for _ in range(2)]
    assert said[0][0] == "release"
    assert said[0] == said[1], "asked again, the same"
