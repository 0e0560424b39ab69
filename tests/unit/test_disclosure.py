"""What is said of a circuit's proofs follows from its lock, and every file that is not as pinned is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from judging import MODEL, REPOSITORY, circuit
from proofhold.disclosure import Says, disclose
from proofhold.domain import PostProcessing
from proofhold.errors import Malformed, Misuse
from proofhold.locks import CircuitLock, SrsKind
from proofhold_cli import main
from small_repository import copy_repository


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy_repository(tmp_path)


def rewritten(root: Path, lock: CircuitLock) -> None:
    (root / "circuits" / MODEL / CircuitLock.FILE_NAME).write_bytes(lock.encode())


def said(root: Path, topic: str) -> list[tuple[Says, str]]:
    return [(s.says, s.text) for s in disclose(MODEL, root).statements if s.topic == topic]


def audit(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["circuit", "audit", *map(str, arguments)])


def test_the_committed_circuit_is_as_pinned_and_says_what_its_lock_says() -> None:
    result = audit(MODEL, "--root", REPOSITORY)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    lock = circuit().lock
    for word in (
        lock.digest,
        "Input and output are public",
        "the verifying key binds the quantised weights",
        f"On {lock.error.samples} samples",
        f"{lock.error.max_abs:.2g}",
        f"states no more than {lock.error.bound:.2g}",
        "from -16 to 16",
        f"no tensor exceeds {lock.peak:.6g}",
        "its secret is public, so anybody can forge",
        "a proof is good for one job",
        "sigmoid is left to whoever reads the output",
        f"ezkl {lock.ezkl_version}",
        lock.vk,
        "audited.json: as pinned",
    ):
        assert word in text, word


def test_json_says_the_same() -> None:
    result = audit(MODEL, "--root", REPOSITORY, "--json")
    found = json.loads(result.stdout)
    assert (found["as_pinned"], found["lock"], found["name"]) == (True, circuit().lock.digest, MODEL)
    assert {said["says"] for said in found["statements"]} == {says.value for says in Says}
    assert all(file["as_pinned"] for file in found["files"])


def test_the_words_follow_the_lock(root: Path) -> None:
    lock = circuit().lock
    rewritten(root, replace(lock, srs=replace(lock.srs, kind=SrsKind.CEREMONY, label="a ceremony")))
    ((says, text),) = said(root, "SRS")
    assert (says, "'a ceremony'" in text) == (Says.DOES_NOT_SHOW, True)
    rewritten(root, replace(lock, peak=None))
    assert said(root, "peak")[0][0] is Says.DOES_NOT_SHOW
    rewritten(root, replace(lock, post_processing=PostProcessing.NONE))
    assert said(root, "post-processing")[0][0] is Says.SHOWS


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def unsafe_mode(root: Path) -> None:
    path = root / "circuits" / MODEL / "settings.json"
    path.write_bytes(path.read_bytes().replace(b'"SAFE"', b'"UNSAFE"', 1))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: flip(root / "circuits" / MODEL / "vk.key"), {"vk.key"}),
        (lambda root: (root / "circuits" / MODEL / "verify.srs").unlink(), {"verify.srs"}),
        (lambda root: (root / "circuits" / MODEL / "vk.key").write_bytes(bytes(2**24 + 1)), {"vk.key"}),
        (lambda root: flip(root / "models" / MODEL / "model.onnx"), {"model.onnx"}),
        (lambda root: (root / "circuits" / "audited.json").unlink(), {"audited.json"}),
        (lambda root: rewritten(root, replace(circuit().lock, name="other")),
         {"the lock's name", "audited.json"}),
        (unsafe_mode, {"settings.json", "check mode in settings.json"}),
    ],
)  # fmt: skip
def test_whatever_is_not_as_pinned_is_named(
    spoil: Callable[[Path], object], named: set[str], root: Path
) -> None:
    spoil(root)
    assert {check.file for check in disclose(MODEL, root).files if not check.is_as_pinned} == named
    result = audit(MODEL, "--root", root)
    assert result.exit_code == 4, result.output
    assert "found" in result.stdout


def test_a_model_that_is_not_here_is_no_complaint(root: Path) -> None:
    (root / "models" / MODEL / "model.onnx").unlink()
    found = disclose(MODEL, root)
    assert found.is_as_pinned
    assert "model.onnx" not in {check.file for check in found.files}


def test_what_is_no_circuit_is_misuse_and_a_bad_lock_is_refused(root: Path) -> None:
    for name in ("nobody", "../models"):
        with pytest.raises(Misuse):
            disclose(name, root)
    path = root / "circuits" / MODEL / CircuitLock.FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"param":"fixed"', b'"param":"private"'))
    with pytest.raises(Malformed, match=r"lock\.malformed"):
        disclose(MODEL, root)
    assert audit(MODEL, "--root", root).exit_code == 4
