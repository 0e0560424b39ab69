"""``proofhold compile`` and ``proofhold srs``: exit codes, what they print, where they look."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from proofhold_cli import main

NAME = "breast_cancer"


@pytest.fixture(autouse=True)
def cache_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_: str(cache))


def proofhold(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_check_exits_0_where_nothing_differs(root: Path) -> None:
    result = proofhold("compile", "--check", NAME, "--root", root)
    assert result.exit_code == 0, result.output
    assert result.stdout == "breast_cancer: as pinned\n"
    assert "making the keys" in result.stderr


def test_check_exits_4_with_a_readable_difference(root: Path) -> None:
    path = root / "models" / NAME / "model.toml"
    path.write_text(path.read_text().replace("low = -16.0", "low = -15.0"))
    result = proofhold("compile", "--check", NAME, "--root", root)
    assert result.exit_code == 4, result.output
    assert result.stdout.splitlines() == [
        "breast_cancer: 3 differences",
        "  circuit lock: inputs[0].low",
        "    - pinned -16",
        "    + found  -15",
        "  circuit lock: peak",
        "    - pinned 290.031005859375",
        "    + found  286.4110107421875",
        "  replay lock: inputs[0].low",
        "    - pinned -16",
        "    + found  -15",
    ]


def test_check_all_as_json(root: Path) -> None:
    (root / "circuits" / NAME / "verify.srs").write_bytes(bytes(516))
    (root / "circuits" / "digits").rename(root / "elsewhere")
    result = proofhold("compile", "--check", "--all", "--json", "--root", root)
    assert result.exit_code == 4, result.output
    answer = json.loads(result.stdout)
    # A circuit that is listed as audited and gone is a difference too.
    assert answer["checked"] == ["breast_cancer", "digits"]
    assert {row["name"] for row in answer["differences"]} == {"breast_cancer", "digits"}
    assert set(answer["differences"][0]) == {"name", "field", "pinned", "found", "file", "changes_circuit"}
    files = {row["file"] for row in answer["differences"]}
    assert {"circuits/breast_cancer/verify.srs", "circuits/digits/circuit.lock.json"} <= files


def test_check_says_in_words_whether_a_changed_model_changes_the_circuit(root: Path) -> None:
    path = root / "models" / NAME / "model.onnx"
    model = onnx.load(path)
    model.doc_string = "the same numbers, in another file"
    path.write_bytes(model.SerializeToString(deterministic=True))
    result = proofhold("compile", "--check", NAME, "--root", root)
    assert result.exit_code == 4, result.output
    assert result.stdout.count("the circuit is the same: the models differ by less than a quantisation") == 2


def test_compile_writes_a_circuit_that_checks(root: Path) -> None:
    out = root / "circuits" / NAME
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    result = proofhold("compile", root / "models" / NAME / "model.onnx", "--out", out)
    assert result.exit_code == 0, result.output
    assert "anybody can forge" in result.stderr
    assert {path.name for path in out.iterdir()} == set(before)
    assert proofhold("compile", "--check", NAME, "--root", root).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("compile",),
        ("compile", "model.onnx"),
        ("compile", "--check"),
        ("compile", "--check", "--all", NAME),
        ("compile", "--check", "nobody"),
        ("compile", "a.onnx", "b.onnx", "--out", "x"),
        ("compile", "missing.onnx", "--out", "x"),
        ("compile", "a.onnx", "--out", "x", "--srs-digest", "00"),
        ("compile", "a.onnx", "--out", "x", "--param-visibility", "private"),
        ("compile", "a.onnx", "--out", "x", "--input-visibility", "hashed"),
        ("srs", "new", "--unsafe-dev", "99"),
        ("srs", "new"),
        ("srs", "show", "missing.srs"),
        ("srs", "import", "missing.srs", "--digest", "00", "--label", "x"),
        ("srs", "new", "--unsafe-dev", "2", "--out", "no/such/folder/file"),
    ],
)
def test_misuse_exits_2_without_a_traceback(
    arguments: tuple[str, ...], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    result = proofhold(*arguments)
    assert result.exit_code == 2, result.output
    assert "rror: " in result.stderr
    assert "Traceback" not in result.output


def test_the_root_is_the_nearest_folder_with_both(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = root / "models" / NAME
    monkeypatch.chdir(inner)
    assert proofhold("compile", "--check", "nobody").stderr.count(f"under {root}") == 1


def test_without_a_clone_it_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = proofhold("compile", "--check", "--all")
    assert result.exit_code == 2
    assert "needs a folder that holds models/ and circuits/, or services/" in result.stderr
    assert proofhold("compile", "--check", "--all", "--root", tmp_path).exit_code == 2


def test_reference_strings_are_made_shown_and_imported(tmp_path: Path) -> None:
    file = tmp_path / "dev.srs"
    made = proofhold("srs", "new", "--unsafe-dev", "3", "--out", file, "--json")
    assert made.exit_code == 0, made.output
    digest = json.loads(made.stdout)["digest"]
    assert json.loads(made.stdout)["kind"] == "unsafe-dev"
    shown = proofhold("srs", "show", file)
    assert shown.exit_code == 0
    assert digest in shown.stdout
    assert "anybody can forge" in shown.stderr
    for wrong in (digest, "00" * 32):  # the development SRS as a ceremony; another digest
        result = proofhold("srs", "import", file, "--digest", wrong, "--label", "x")
        assert result.exit_code == 2, result.output
