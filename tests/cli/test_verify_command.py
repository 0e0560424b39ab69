"""The command ``proofhold verify``: exit codes, what it prints, and receipts that recheck."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from judging import (
    NONCE,
    NOW,
    POLICY,
    PROVED_BUNDLE,
    REPOSITORY,
    VERIFIER,
    logits,
    make_job,
    policy,
    proof,
    proved,
    resigned,
    reveal,
    shifted,
    unproved,
    with_proof,
)
from proofhold import canonical
from proofhold.answers import encode_answers
from proofhold.core import Answer, NeedKind
from proofhold.exchange import Bundle
from proofhold.job import PPM
from proofhold.payload import encode_payload
from proofhold.receipt import Receipt
from proofhold_cli import main


def run(*arguments: object) -> Result:
    """Run the command in this process; only what it starts is another one."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def verify(bundle: Path, *arguments: object, named: str = POLICY, now: int | None = NOW) -> Result:
    options = () if now is None else ("--now", now)
    return run("verify", bundle, "--policy", named, "--root", REPOSITORY, *options, *arguments)


def file_of(bundle: Bundle, folder: Path) -> Path:
    path = folder / "bundle.json"
    path.write_bytes(bundle.encode())
    return path


def damaged() -> Bundle:
    exchange = proved().exchange
    return replace(proved(), exchange=replace(exchange, output=shifted(exchange.output, 1.0)))


def forged() -> Bundle:
    return resigned(proved(), output=logits(0.0))


# --- exit codes -----------------------------------------------------------------------------------------


def test_an_honest_proof_ends_with_0_and_says_on_whose_word() -> None:
    result = verify(PROVED_BUNDLE)
    assert result.exit_code == 0, result.output
    assert "ACCEPTED" in result.output
    assert "proved (zero-knowledge proof)" in result.output
    assert "not shown" in result.output, "that the provider itself made it is not"
    assert "UNSAFE" in result.output


def test_a_damaged_bundle_ends_with_3_and_names_its_needs(tmp_path: Path) -> None:
    result = verify(file_of(damaged(), tmp_path))
    assert result.exit_code == 3, result.output
    assert "INCONCLUSIVE" in result.output
    assert "output.digest" in result.output
    assert f"needs output {proved().exchange.claim.document.output}" in result.output
    assert "fault: nobody" in result.output


def test_a_damaged_bundle_with_the_true_bytes_as_an_answer_ends_with_0(tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    answer = Answer(NeedKind.OUTPUT, encode_payload(proved().exchange.output))
    answers.write_bytes(encode_answers([answer]))
    assert verify(file_of(damaged(), tmp_path), "--answers", answers).exit_code == 0


@pytest.mark.parametrize("data", [b"", b"nonsense", PROVED_BUNDLE.read_bytes() + b" "])
def test_a_bundle_that_does_not_parse_ends_with_3(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(data)
    result = verify(path)
    assert result.exit_code == 3, result.output
    assert "[bundle.not_" in result.output


def test_a_forged_output_ends_with_4_and_says_whose_fault(tmp_path: Path) -> None:
    result = verify(file_of(forged(), tmp_path))
    assert result.exit_code == 4, result.output
    assert "REJECTED" in result.output
    assert "ezkl.output" in result.output
    assert "fault: provider" in result.output


def test_a_false_proof_ends_with_4(tmp_path: Path) -> None:
    body = bytearray(proof().proof)
    body[100] ^= 1
    result = verify(file_of(with_proof(replace(proof(), proof=bytes(body))), tmp_path))
    assert (result.exit_code, "ezkl.proof" in result.output) == (4, True), result.output


def test_a_policy_that_accepts_no_danger_ends_with_4() -> None:
    result = verify(PROVED_BUNDLE, named="proved")
    assert (result.exit_code, "policy.danger" in result.output) == (4, True), result.output


def test_a_claim_without_evidence_ends_with_3_until_the_secret_is_revealed(tmp_path: Path) -> None:
    job = make_job(unproved().exchange.input, sampling_rate_ppm=PPM)
    path = file_of(resigned(unproved(), job=job), tmp_path)
    result = verify(path)
    assert (result.exit_code, "needs reveal" in result.output) == (3, True), result.output
    answers = tmp_path / "answers.json"
    answers.write_bytes(encode_answers([reveal()]))
    result = verify(path, "--answers", answers)
    assert (result.exit_code, "re-executed by the verifier" in result.output) == (0, True), result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify",),
        ("verify", PROVED_BUNDLE),
        ("verify", PROVED_BUNDLE, "--policy", "no-such-policy", "--root", REPOSITORY),
        ("verify", "/nonexistent", "--policy", POLICY, "--root", REPOSITORY),
        ("verify", PROVED_BUNDLE, "--policy", POLICY, "--root", "/nonexistent"),
        ("verify", PROVED_BUNDLE, "--policy", POLICY, "--root", REPOSITORY / "tests"),
        ("verify", PROVED_BUNDLE, "--policy", POLICY, "--root", REPOSITORY, "--now", "yesterday"),
        ("verify", PROVED_BUNDLE, "--policy", POLICY, "--root", REPOSITORY, "--key", "/nonexistent"),
        ("verify", PROVED_BUNDLE, "--policy", POLICY, "--root", REPOSITORY, "--receipt", "/nonexistent"),
        ("verify", PROVED_BUNDLE, "--policy", POLICY, "--root", REPOSITORY, "--answers", "/nonexistent"),
    ],
)
def test_misuse_ends_with_2_in_words(arguments: tuple[object, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.output.strip()


@pytest.mark.parametrize("data", [b"", b"nonsense", b'{"answers":[],"version":2}'])
def test_answers_that_do_not_parse_are_refused(tmp_path: Path, data: bytes) -> None:
    answers = tmp_path / "answers.json"
    answers.write_bytes(data)
    result = verify(PROVED_BUNDLE, "--answers", answers)
    assert result.exit_code == 4, result.output
    assert "[answers." in result.output


# --- for programs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "outcome", "code"),
    [(proved, "accepted", 0), (damaged, "inconclusive", 3), (forged, "rejected", 4)],
)
def test_json_is_one_line_of_canonical_json(tmp_path: Path, make: object, outcome: str, code: int) -> None:
    result = verify(file_of(make(), tmp_path), "--json")  # type: ignore[operator]
    value = json.loads(result.stdout)
    assert result.stdout == canonical.encode(value).decode() + "\n"
    assert (value["outcome"], result.exit_code) == (outcome, code)
    assert (value["policy"], value["now"], value["version"]) == (policy().digest, NOW, 1)


def test_json_says_everything_that_a_program_needs(tmp_path: Path) -> None:
    value = json.loads(verify(file_of(forged(), tmp_path), "--json").stdout)
    assert [(reason["code"], reason["fault"]) for reason in value["reasons"]] == [("ezkl.output", "provider")]
    assert value["statement"]["job"] == forged().exchange.job.digest
    assert value["not_shown"] == ["model", "input", "output", "fresh", "provider"]


def test_without_a_time_the_clock_counts() -> None:
    value = json.loads(verify(PROVED_BUNDLE, "--json", now=None).stdout)
    assert value["now"] > 1_700_000_000
    assert value["now"] != NOW


# --- receipts -------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "verifier.pem"
    VERIFIER.save(path)
    return path


@pytest.mark.parametrize(("make", "code"), [(proved, 0), (damaged, 3), (forged, 4)])
def test_a_receipt_is_written_whatever_the_outcome_and_rechecks(
    tmp_path: Path, key_file: Path, make: object, code: int
) -> None:
    bundle = file_of(make(), tmp_path)  # type: ignore[operator]
    receipt = tmp_path / "receipt.json"
    result = verify(bundle, "--key", key_file, "--receipt", receipt)
    assert result.exit_code == code, result.output
    written = Receipt.decode(receipt.read_bytes())
    assert (written.signer, written.now) == (VERIFIER.public, NOW)
    again = run("receipt", "recheck", receipt, bundle, "--root", REPOSITORY)
    assert (again.exit_code, "the same" in again.output) == (0, True), again.output


def test_a_receipt_does_not_recheck_with_another_bundle(tmp_path: Path, key_file: Path) -> None:
    receipt = tmp_path / "receipt.json"
    verify(PROVED_BUNDLE, "--key", key_file, "--receipt", receipt)
    other = run("receipt", "recheck", receipt, file_of(forged(), tmp_path), "--root", REPOSITORY)
    assert other.exit_code == 4
    assert "recheck.bundle" in other.output


def test_a_receipt_with_a_flipped_byte_is_refused(tmp_path: Path, key_file: Path) -> None:
    receipt = tmp_path / "receipt.json"
    verify(PROVED_BUNDLE, "--key", key_file, "--receipt", receipt)
    data = bytearray(receipt.read_bytes())
    data[len(data) // 2] ^= 1
    receipt.write_bytes(data)
    result = run("receipt", "recheck", receipt, PROVED_BUNDLE, "--root", REPOSITORY)
    assert result.exit_code == 4
    assert "[receipt." in result.output


def test_the_receipt_keeps_the_revealed_secret_and_rechecks_without_the_answers(
    tmp_path: Path, key_file: Path
) -> None:
    job = make_job(unproved().exchange.input, sampling_rate_ppm=PPM, nonce=NONCE.hex())
    bundle = file_of(resigned(unproved(), job=job), tmp_path)
    answers, receipt = tmp_path / "answers.json", tmp_path / "receipt.json"
    answers.write_bytes(encode_answers([reveal()]))
    verify(bundle, "--answers", answers, "--key", key_file, "--receipt", receipt)
    again = run("receipt", "recheck", receipt, bundle, "--root", REPOSITORY, "--json")
    assert json.loads(again.stdout) == {"differences": [], "outcome": "accepted", "same": True}
