"""Hostile files in a repository, a folder of bundles, a file of results: one clear line each, and soon."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result

from damage import HOSTILE_VALUES, damaged_bytes, damaged_json, oddly_written, written
from judging import NOW, POLICY, PROVED_BUNDLE, REPOSITORY, policy
from proofhold.batch import Result as Judged
from proofhold.batch import ResultsFile
from proofhold.compile import CompileError, Specification, read_samples
from proofhold.domain import InputSpec
from proofhold.errors import Malformed, Misuse
from proofhold.receipt import Outcome
from proofhold_cli import main

NAME = "breast_cancer"
SOON_S = 20.0
CIRCUIT_FILES = ("circuit.lock.json", "settings.json", "vk.key", "verify.srs")
FILES = (*(f"circuits/{NAME}/{name}" for name in CIRCUIT_FILES), f"models/{NAME}/model.onnx")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("models", "circuits"):
        (tmp_path / folder).mkdir()
        shutil.copytree(REPOSITORY / folder / NAME, tmp_path / folder / NAME)
    shutil.copy(REPOSITORY / "circuits" / "audited.json", tmp_path / "circuits")
    return tmp_path


def proofhold(*arguments: object) -> Result:
    """Run a command, and see it end soon, with an exit code that it owns to and without a traceback."""
    began = time.monotonic()
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert time.monotonic() - began < SOON_S
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code in (0, 2, 3, 4), result.output
    assert "[internal]" not in result.output
    assert "Traceback" not in result.output
    return result


def endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def silent(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def in_a_circle(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


NO_FILES = [endless, silent, a_folder, in_a_circle]


# --- a repository ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file_is_told_from_one(make: Callable[[Path], None], file: str, root: Path) -> None:
    make(root / file)
    assert proofhold("circuit", "audit", NAME, "--root", root).exit_code in (2, 4)
    verified = proofhold("verify", PROVED_BUNDLE, "--policy", POLICY, "--root", root).exit_code
    # Without its circuit, a catalogue still knows the model: then the lock is needed. Without the model, as
    # a link to itself is none, the circuit is enough.
    assert verified in ((0, 2) if "model" in file else (2, 3))
    if not file.endswith(("vk.key", "settings.json", "verify.srs")):  # beside these it would compile again
        assert proofhold("compile", "--check", NAME, "--root", root).exit_code in (2, 4)


@pytest.mark.parametrize("make", NO_FILES)
def test_a_list_of_audits_or_a_specification_that_is_no_file(
    make: Callable[[Path], None], root: Path
) -> None:
    make(root / "circuits" / "audited.json")
    assert proofhold("circuit", "audit", NAME, "--root", root).exit_code in (2, 4)
    make(root / "models" / NAME / "model.toml")
    model = root / "models" / NAME / "model.onnx"
    assert proofhold("compile", model, "--out", root / "circuits" / "x").exit_code == 2


@pytest.mark.parametrize("name", CIRCUIT_FILES)
def test_damaged_circuits_are_audited_without_harm(name: str, root: Path) -> None:
    path, random = root / "circuits" / NAME / name, Random(f"audit {name}")
    original = path.read_bytes()
    bodies = [damaged_bytes(original, random, original) for _ in range(60)]
    if name.endswith(".json"):
        document = json.loads(original)
        bodies += [written(damaged_json(document, random, document), random) for _ in range(60)]
        bodies += [*oddly_written(document)]
    for body in bodies:
        path.write_bytes(body)
        code = proofhold("circuit", "audit", NAME, "--root", root, "--json").exit_code
        assert code == 0 if body == original else code in (2, 4)


def test_a_damaged_lock_or_list_is_a_difference_without_compiling(root: Path) -> None:
    random = Random("check")
    for path in (root / "circuits" / NAME / "circuit.lock.json", root / "circuits" / "audited.json"):
        original = path.read_bytes()
        document = json.loads(original)
        for number in range(20):
            damaged = written(damaged_json(document, random, document), random)
            body = damaged if number % 2 else damaged_bytes(original, random, original)[: len(original) // 2]
            if body == original:
                continue
            path.write_bytes(body)
            if path.name == "audited.json":
                # Whatever it says, it cannot let a lock in.
                assert proofhold("circuit", "audit", NAME, "--root", root).exit_code in (0, 2, 4)
            else:
                assert proofhold("compile", "--check", NAME, "--root", root).exit_code == 4
        path.write_bytes(original)


def test_damaged_specifications_are_one_clear_error(tmp_path: Path) -> None:
    folder, random = REPOSITORY / "models" / NAME, Random("specification")
    inputs = (InputSpec("features", "float32", (1, 30), -16.0, 16.0),)
    text, samples = (folder / "model.toml").read_bytes(), (folder / "samples.json").read_bytes()
    document = json.loads(samples)
    document["samples"] = document["samples"][:3]
    for _ in range(300):
        (tmp_path / "model.toml").write_bytes(damaged_bytes(text, random, text))
        (tmp_path / "samples.json").write_bytes(written(damaged_json(document, random, document), random))
        with suppress(CompileError, Malformed):
            read_samples(tmp_path / "samples.json", inputs)
        with suppress(CompileError, Malformed):
            Specification.read(tmp_path / "model.toml")


# --- a folder of bundles, a file of results -------------------------------------------------------------


def test_odd_things_in_a_folder_of_bundles_are_their_own_result(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    shutil.copy(PROVED_BUNDLE, folder / "good.json")
    for make in NO_FILES:
        make(folder / f"{make.__name__}.json")
    (folder / os.fsdecode(b"not \xff utf-8.json")).write_bytes(b"{}")
    (folder / "line\nbreak \x1b[2J.json").write_bytes(b"[" * 100_000)
    (folder / "empty.json").touch()
    results = tmp_path / "results"
    arguments = ["verify", folder, "--policy", POLICY, "--root", REPOSITORY, "--now", NOW, "--jobs", 2]
    for json_option in ([], ["--json"]):
        result = proofhold(*arguments, "--resume", results, *json_option)
        assert result.exit_code == 3
        assert "\x1b" not in result.output
    lines = [Judged.decode(line.encode()) for line in result.stdout.splitlines()]
    assert sorted(line.outcome.value for line in lines) == ["accepted"] + ["inconclusive"] * 7
    assert {
        line.codes
        for line in lines
        if Path(line.file).stem in ("endless", "silent", "a_folder", "in_a_circle")
    } == {("bundle.unreadable",)}


def test_a_damaged_file_of_results_never_finishes_anything_that_it_does_not_say(tmp_path: Path) -> None:
    one = Judged("a", "11" * 32, policy().digest, NOW, Outcome.ACCEPTED)
    two = Judged("b", "22" * 32, policy().digest, NOW, Outcome.REJECTED, ("ezkl.proof",))
    original, random = one.encode() + b"\n" + two.encode() + b"\n", Random("results")
    path = tmp_path / "results"
    for number in range(600):
        if number % 2:
            body = damaged_bytes(original, random, original)
        else:
            document = json.loads(one.encode())
            body = written(damaged_json(document, random, document), random) + b"\n" + two.encode()
        path.write_bytes(body)
        for digest, result in ResultsFile(path).finished(policy().digest, NOW).items():
            assert result.encode() in body.split(b"\n")
            assert (digest, result.policy, result.now) == (result.bundle, policy().digest, NOW)
            assert result.outcome is not Outcome.INCONCLUSIVE


@pytest.mark.parametrize("make", NO_FILES)
def test_a_file_of_results_that_is_no_file_is_misuse(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "results")
    with pytest.raises(Misuse):
        ResultsFile(tmp_path / "results").finished(policy().digest, NOW)


def test_hostile_values_in_a_line_count_for_nothing(tmp_path: Path) -> None:
    line = json.loads(Judged("a", "11" * 32, policy().digest, NOW, Outcome.ACCEPTED).encode())
    path = tmp_path / "results"
    for name in line:
        for value in HOSTILE_VALUES:
            path.write_text(json.dumps({**line, name: value}, ensure_ascii=True))
            found = ResultsFile(path).finished(policy().digest, NOW)
            assert not found or name == "file"
