"""The CI steps in docs/ci do what they say: their commands are taken out of the files and run.

What makes the environment is not run, for it needs a package index and `.ci/run` runs it: the commands get
the environment that the tests run in, and the installing script is only compared with what is there.
"""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from console import ROOT, TIMEOUT_SECONDS, Shell

CI = ROOT / "docs" / "ci"
CHECK = "proofhold compile --check --all --json"
INSTALL = re.compile(r"sh requirements/install (?:base|dev) \S+")


def action_scripts() -> list[str]:
    """The ``run: |`` blocks of the composite action, in order."""
    text = (CI / "action.yml").read_text()
    blocks = re.findall(r"^( +)run: \|\n((?:\1 +.*\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(body) for _, body in blocks]


def gitlab_script(section: str) -> str:
    """The items of one list of the GitLab job, a line each."""
    text = (CI / "gitlab-ci.yml").read_text()
    (body,) = re.findall(rf"^  {section}:\n((?:    - .*\n)+)", text, re.MULTILINE)
    return "\n".join(line.removeprefix("    - ") for line in str(body).splitlines())


def run(bash: list[str], script: str, shell: Shell) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*bash, script],
        cwd=shell.folder,
        env=shell.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def shown(name: str, done: subprocess.CompletedProcess[str], shell: Shell) -> list[str]:
    """The files at which the CI system would show something."""
    if name == "action.yml":
        return re.findall(r"^::error file=([^,]+),title=[^:]+::.+$", done.stderr, re.MULTILINE)
    return [row["location"]["path"] for row in json.loads((shell.folder / "quality.json").read_text())]


STEPS: dict[str, tuple[Callable[[], str], list[str]]] = {
    # How each system starts a script: an action's `shell: bash` stops inside a pipe too, GitLab does not.
    "action.yml": (
        lambda: action_scripts()[-1],
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"],
    ),
    "gitlab-ci.yml": (lambda: gitlab_script("script"), ["bash", "-e", "-c"]),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_step_passes_as_it_is_and_fails_where_a_circuit_differs(name: str, tmp_path: Path) -> None:
    script_of, bash = STEPS[name]
    script, shell = script_of(), Shell(tmp_path)
    assert CHECK in script
    done = run(bash, script, shell)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"checked": ["breast_cancer", "digits"], "differences": []}
    assert shown(name, done, shell) == []
    assert (shell.folder / "circuits.json").read_text() == done.stdout

    # Without its lock there is nothing to compile again, so this takes no time.
    for circuit in ("breast_cancer", "digits"):
        (shell.folder / "circuits" / circuit / "circuit.lock.json").write_text("{}")
    done = run(bash, script, shell)
    assert done.returncode == 4, "a pipe must not hide the exit code"
    differences = json.loads(done.stdout)["differences"]
    assert {row["name"] for row in differences} == {"breast_cancer", "digits"}
    assert shown(name, done, shell) == [row["file"] for row in differences]


@pytest.mark.parametrize("system", ["action", "gitlab"])
def test_the_environment_comes_from_the_pinned_list(system: str) -> None:
    script = action_scripts()[0] if system == "action" else gitlab_script("before_script")
    install, path = script.splitlines()
    assert INSTALL.fullmatch(install)
    assert ".venv/bin" in path
    for name in ("install", "base.txt"):
        assert (ROOT / "requirements" / name).is_file()


def test_the_page_names_every_file_and_the_workflow_uses_the_action() -> None:
    page = (CI / "README.md").read_text()
    for path in CI.glob("*.yml"):
        assert f"]({path.name})" in page
    assert CHECK in page
    assert "`.github/actions/proofhold/action.yml`" in page
    assert "- uses: ./.github/actions/proofhold\n" in (CI / "github-workflow.yml").read_text()
