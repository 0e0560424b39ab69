"""The commands for keys, policies and receipts: their exit codes, their JSON, and one clear line an error."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from documents import FIXTURES, PROVIDER, VERDICT, VERIFIER
from proofhold.core import Fault, Reason, Rejected
from proofhold.errors import Malformed, Misuse
from proofhold.keys import TrustStore
from proofhold.receipt import Receipt
from proofhold_cli import main
from proofhold_cli.errors import DEBUG_VARIABLE, ExitCode, reported
from proofhold_cli.terminal import one_line


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def ok(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(exit_code: int, code: str, *arguments: str | Path) -> str:
    """Run a command that must end with one line on stderr, which names a code."""
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert line.endswith(f" [{code}]")
    return line


# --- keys ------------------------------------------------------------------------------------------------


def test_keys_are_made_shown_and_trusted(tmp_path: Path) -> None:
    file, trust = tmp_path / "key.pem", tmp_path / "trust.json"
    key = json.loads(ok("keys", "new", file, "--json"))["key"]
    assert ok("keys", "show", file).strip() == key
    assert json.loads(ok("keys", "show", file, "--json")) == {"file": str(file), "key": key}
    interval = ("--from", "2026-11-23", "--until", "2026-11-24T12:00:00Z", "--trust-file", trust)
    assert "1 key" in ok("keys", "trust", key, "--name", "us", *interval)
    (trusted,) = TrustStore.load(trust).keys
    assert (trusted.key, trusted.name) == (key, "us")
    assert (trusted.valid_from, trusted.valid_until) == (1_795_392_000, 1_795_392_000 + 36 * 3600)
    later = ("--from", "1800000000", "--until", "1800000001", "--trust-file", trust)
    assert json.loads(ok("keys", "trust", key, "--name", "us", *later, "--json"))["from"] == 1_800_000_000
    assert len(TrustStore.load(trust).keys) == 2
    refused(2, "misuse", "keys", "trust", key, "--name", "us", *later)
    refused(2, "misuse", "keys", "new", file)


def test_keys_are_rotated_and_revoked(tmp_path: Path) -> None:
    trust = str(tmp_path / "trust.json")
    old, new = (json.loads(ok("keys", "new", str(tmp_path / name), "--json"))["key"] for name in ("a", "b"))
    ok("keys", "trust", old, "--name", "us", "--from", "100", "--until", "900", "--trust-file", trust)
    rotated = ok("keys", "rotate", old, new, "--at", "500", "--trust-file", trust, "--json")
    assert json.loads(rotated) == {"at": 500, "file": trust, "new": new, "old": old}
    store = TrustStore.load(Path(trust))
    assert (store.who(old, 499), store.who(old, 500), store.who(new, 500)) == ("us", None, "us")
    assert "trusted until 600" in ok("keys", "revoke", new, "--at", "600", "--trust-file", trust)
    assert "no more" in ok("keys", "revoke", new, "--entirely", "--trust-file", trust)
    assert TrustStore.load(Path(trust)).who(new, 500) is None
    for wrong in ((), ("--at", "5", "--entirely"), ("--entirely",)):
        assert CliRunner().invoke(main, ["keys", "revoke", old, *wrong, "--trust-file", trust]).exit_code == 2


def test_what_cannot_be_trusted_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    trust = tmp_path / "trust.json"
    backwards = ("--name", "x", "--from", "2", "--until", "1", "--trust-file", trust)
    assert "expected from before until" in refused(2, "misuse", "keys", "trust", VERIFIER.public, *backwards)
    result = run("keys", "trust", VERIFIER.public, "--name", "x", "--from", "yesterday", "--until", "1")
    assert result.exit_code == 2
    assert "neither unix seconds nor a date" in result.stderr
    assert not trust.exists()
    trust.write_bytes(b"{}")
    forwards = ("--name", "x", "--from", "1", "--until", "2", "--trust-file", trust)
    refused(4, "trust.malformed", "keys", "trust", VERIFIER.public, *forwards)


# --- policies --------------------------------------------------------------------------------------------


def test_shipped_policies_are_listed() -> None:
    listed = json.loads(ok("policy", "list", "--json"))
    assert {"proved", "dangerous_demo_proved"} <= {policy["name"] for policy in listed}
    assert "proved-or-sampled" in ok("policy", "list")


def test_a_policy_is_said_in_words_and_the_unsafe_say_so() -> None:
    assert "each proved" in ok("policy", "show", "proved")
    result = run("policy", "show", FIXTURES / "policy.toml")
    assert "accepts dangers: unsafe-dev-srs" in result.stdout
    assert result.stderr == "unsafe: dangerous_fixture accepts unsafe-dev-srs\n"
    shown = json.loads(ok("policy", "show", FIXTURES / "policy.toml", "--json"))
    assert shown["digest"] == "9e69bfa0efe527110463c14d9198f5298b1f504198a6e853b36e922d6b1e3234"
    assert shown["policy"]["name"] == "dangerous_fixture"


def test_a_policy_is_checked_against_what_evidence_can_show() -> None:
    assert "ezkl; replay, where at least 2 % are drawn" in ok("policy", "check", "proved-or-sampled")
    tiers = json.loads(ok("policy", "check", "proved-or-sampled", "--json"))["tiers"]
    assert tiers[0]["ways"] == [
        {"from_rate_ppm": 0, "kinds": ["ezkl"]},
        {"from_rate_ppm": 20_000, "kinds": ["replay"]},
    ]
    result = run("policy", "check", FIXTURES / "policy.toml")
    assert result.exit_code == 0  # one tier can be met; the others are named
    assert "policy.unsatisfiable" in result.stdout


def test_a_policy_that_nothing_can_satisfy_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "impossible.toml"
    file.write_text(
        'version = 1\nname = "impossible"\nsummary = "No proof names its provider."\n'
        '[[tiers]]\n[tiers.demand]\nshow = ["provider"]\nby = "proved"\n'
    )
    refused(4, "policy.unsatisfiable", "policy", "check", file)
    result = run("policy", "check", file, "--json")
    assert (result.exit_code, json.loads(result.stdout)["satisfiable"]) == (4, False)
    file.write_text("version = 1")
    assert "name: missing" in refused(4, "policy.malformed", "policy", "check", file)
    refused(2, "misuse", "policy", "check", tmp_path / "none.toml")


# --- receipts --------------------------------------------------------------------------------------------


def test_a_receipt_is_shown() -> None:
    shown = ok("receipt", "show", FIXTURES / "receipt.json")
    for word in ("accepted", "not shown", VERIFIER.public[:20]):
        assert word in shown
    payload = ok("receipt", "show", FIXTURES / "receipt.json", "--json").strip().encode()
    assert payload == Receipt.decode((FIXTURES / "receipt.json").read_bytes()).envelope.payload


def test_a_receipt_is_verified_against_a_trust_file(tmp_path: Path) -> None:
    receipt, trust = tmp_path / "receipt.json", FIXTURES / "trust.json"
    receipt.write_bytes((FIXTURES / "receipt.json").read_bytes())
    assert "good: accepted" in ok("receipt", "verify", receipt, "--trust", trust)
    assert json.loads(ok("receipt", "verify", receipt, "--trust", trust, "--json"))["trusted"] is True
    receipt.write_bytes(Receipt.issue(VERDICT, PROVIDER).encode())
    refused(4, "receipt.untrusted", "receipt", "verify", receipt, "--trust", trust)
    result = run("receipt", "verify", receipt, "--trust", trust, "--json")
    assert (result.exit_code, json.loads(result.stdout)["trusted"]) == (4, False)
    flipped = bytearray((FIXTURES / "receipt.json").read_bytes())
    flipped[100] ^= 1
    receipt.write_bytes(flipped)
    assert run("receipt", "verify", receipt, "--trust", trust).exit_code == 4


def test_nothing_in_a_receipt_is_obeyed_by_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    reason = Reason("a.b", "look\x1b[2J", Fault.NOBODY, "[red]got\u202e", "\x07")
    verdict = Rejected(
        statement=VERDICT.statement, policy=VERDICT.policy, now=1, inputs=VERDICT.inputs, reasons=(reason,)
    )
    file.write_bytes(Receipt.issue(verdict, VERIFIER).encode())
    shown = ok("receipt", "show", file)
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert one_line("a\x1b[31mb\nc\u202ed") == "a\\x1b[31mb\\nc\\u202ed"


# --- errors ----------------------------------------------------------------------------------------------


def ending(error: BaseException) -> Result:
    @click.command()
    def command() -> None:
        with reported():
            raise error

    return CliRunner().invoke(command)


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (Misuse("no such thing"), ExitCode.MISUSE, "error: no such thing [misuse]\n"),
        (Malformed("a.b", "bad\x1bbytes"), ExitCode.REJECTED, "error: bad\\x1bbytes [a.b]\n"),
        (
            click.UsageError("wrong"),
            ExitCode.MISUSE,
            "Usage: command [OPTIONS]\nTry 'command --help' for help.\n\nError: wrong\n",
        ),
        (click.exceptions.Exit(3), ExitCode.INCONCLUSIVE, ""),
    ],
)
def test_errors_are_one_line_with_a_code(error: Exception, exit_code: int, said: str) -> None:
    result = ending(error)
    assert (result.exit_code, result.stderr) == (exit_code, said)


def test_what_was_not_foreseen_is_our_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    result = ending(ZeroDivisionError("1/0"))
    assert result.exit_code == ExitCode.OUR_FAILURE
    assert "our failure, which moves no money" in result.stderr
    for word in ("ZeroDivisionError", "1/0", "PROOFHOLD_DEBUG=1"):
        assert word in result.stderr
    assert result.stderr.count("\n") == 1
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    assert isinstance(ending(ZeroDivisionError()).exception, ZeroDivisionError)
