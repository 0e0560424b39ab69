"""What CI systems are shown of a difference: the right file, and nothing of a stranger's that they obey."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from proofhold.compile import Difference
from proofhold_cli import main
from proofhold_cli.annotations import code_quality, github

FOUND = Difference("digits", "circuit lock: model", '"aa"', '"bb"', "models/digits/model.onnx", True)
HOSTILE = replace(FOUND, field="x,y::\n::add-mask::1", found="1%0A\r\n::stop-commands::2\x1b[2J")


def test_github_is_shown_an_error_at_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(github([FOUND], tmp_path)) == [
        "::error file=models/digits/model.onnx,title=digits%3A circuit lock%3A model::"
        'circuit lock: model: pinned "aa", found "bb"; the circuit differs too: proofs of one say nothing of '
        "the other model"
    ]
    (line,) = github([replace(FOUND, changes_circuit=False)], tmp_path / "sub")
    assert line.startswith("::error file=sub/models/digits/model.onnx,")
    assert line.endswith("; the circuit is the same: the models differ by less than a quantisation step")


def test_a_strangers_text_is_one_line_and_gives_no_command(tmp_path: Path) -> None:
    (line,) = github([HOSTILE], tmp_path)
    assert line.isprintable()
    # One command, of our own properties: what is the stranger's is behind the second pair of colons.
    command, told = re.fullmatch(r"::error file=([^:,]+,title=[^:,]+)::(.+)", line).groups()  # type: ignore[union-attr]
    assert command.endswith("title=digits%3A x%2Cy%3A%3A\\n%3A%3Aadd-mask%3A%3A1")
    assert "%250A\\r\\n::stop-commands::2\\x1b[2J" in told


def test_gitlab_is_given_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = json.loads(code_quality([FOUND, HOSTILE, FOUND], tmp_path))
    assert {frozenset(row) for row in rows} == {
        frozenset({"check_name", "description", "fingerprint", "location", "severity"})
    }
    assert rows[0] == rows[2] != rows[1]
    assert rows[0]["location"] == {"lines": {"begin": 1}, "path": "models/digits/model.onnx"}
    assert rows[0]["fingerprint"] != rows[1]["fingerprint"]
    assert all(row["description"].isprintable() for row in rows)
    assert code_quality([], tmp_path) == b"[]"


@pytest.mark.parametrize("name", ["x\n::error::y", "::add-mask::x", "Up", "a b"])
def test_a_folder_that_no_circuit_can_be_is_misuse_and_its_name_no_command(name: str, tmp_path: Path) -> None:
    """Whoever proposes a change to a repository names its folders."""
    (tmp_path / "models").mkdir()
    folder = tmp_path / "circuits" / name
    folder.mkdir(parents=True)
    (folder / "circuit.lock.json").touch()
    result = CliRunner().invoke(main, ["compile", "--check", "--all", "--root", str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert not re.search(r"^\s*::", result.output, re.MULTILINE)


@pytest.mark.parametrize("option", [["--annotate", "github"], ["--code-quality", "x"]])
def test_they_go_with_check(option: list[str]) -> None:
    result = CliRunner().invoke(main, ["compile", "model.onnx", "--out", "x", *option])
    assert (result.exit_code, "go with --check" in result.output) == (2, True)
