"""``proofhold escrow`` from a shell: what it prints, how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from escrow_builders import (
    BUYER,
    OPERATOR,
    OUTPUT,
    PROVIDER,
    START,
    STRANGER,
    digest_of,
    make_claim,
    make_decline,
    make_job,
    sign_job,
)
from proofhold.escrow import Ruling, open_home
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Job
from proofhold.keys import Signed
from proofhold.payload import encode_payload
from proofhold_cli import main

NONCE = b"n" * 32


class Shell:
    """A folder to work in, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = str(folder / "home")

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["escrow", arguments[0], self.home, *arguments[1:]])

    def read(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    def fund(self, **changes: Any) -> Signed[Job]:
        """(The command for it needs a model; that is tested where it is.)"""
        with open_home(Path(self.home)) as escrow:
            job = sign_job(make_job(escrow.draw_secret(NONCE), NONCE, **changes))
            escrow.fund(job, now=START)
        return job

    def write_bundle(self, job: Signed[Job]) -> str:
        bundle = Bundle(Exchange(job, OUTPUT, make_claim(job), OUTPUT))
        path = self.folder / "bundle.json"
        path.write_bytes(bundle.encode())
        return str(path)


@pytest.fixture
def shell(folder: Path) -> Iterator[Shell]:
    shell = Shell(folder)
    made = shell.read("init", "--id", "test-escrow", "--operator", OPERATOR.public)
    assert made == {"id": "test-escrow", "operators": [OPERATOR.public]}
    for who, amount in ((BUYER, "1"), (PROVIDER, "2.5")):
        got = shell.read("deposit", who.public, amount, "--key", who.public, "--now", str(START))
        assert got == {"account": who.public, "balance": amount, "currency": "USDC"}
    yield shell
    assert shell.read("audit") == {"differences": []}


def test_a_silent_provider_expires(shell: Shell) -> None:
    job = shell.fund()
    assert shell.read("expire", "--now", str(START + 100))["moves"] == []
    done = shell.read("expire", "--now", str(START + 101))
    assert [move["target"] for move in done["moves"]] == ["expired", "refunding", "free"]
    assert done["paid"] == 1
    shown = shell.read("show", job.digest)
    assert (shown["captures"][0]["state"], shown["bond"]["state"]) == ("refunded", "free")
    assert [move["event"] for move in shown["moves"]][-1] == "paid"
    assert "2 moves" not in shell.run("expire").output
    assert "refunding -> refunded (paid)" in shell.run("show", job.digest).output


def test_claim_reveal_resolve_and_deliver(shell: Shell) -> None:
    job = shell.fund()
    result = shell.run("reveal", job.digest)
    assert result.exit_code == 4
    assert result.output.count("\n") == 1
    assert "[escrow.not_claimed]" in result.output
    claimed = shell.read("claim", shell.write_bundle(job), "--now", str(START + 1))
    assert claimed["captures"][0]["state"] == "claimed"
    assert len(shell.run("reveal", job.digest).output.strip()) == 64
    assert len(shell.read("reveal", job.digest)["secret"]) == 64
    out = str(shell.folder / "output.json")
    assert "[escrow.not_delivered]" in shell.run("deliver", job.digest, "--out", out).output

    with open_home(Path(shell.home)) as escrow:
        ruling = Ruling.DISPUTE
        escrow.apply(job.digest, 0, ruling, receipt_digest=digest_of("r"), receipt=b"r", now=START + 2)
    for key in (OPERATOR, STRANGER):
        key.save(shell.folder / key.public.removeprefix("ed25519:"))
    decide = ("resolve", job.digest, "--outcome", "release", "--reason", "we looked", "--now", str(START + 3))
    other, own = (str(shell.folder / k.public.removeprefix("ed25519:")) for k in (STRANGER, OPERATOR))
    assert "[resolution.signature]" in shell.run(*decide, "--key", other).output
    assert shell.read(*decide, "--key", own)["captures"][0]["state"] == "released"
    assert shell.run("deliver", job.digest, "--out", out).exit_code == 0
    assert Path(out).read_bytes() == encode_payload(OUTPUT)
    assert shell.read("deliver", job.digest, "--out", out)["seq"] == 0


def test_decline(shell: Shell) -> None:
    job = shell.fund()
    path = shell.folder / "decline.json"
    path.write_bytes(make_decline(job).encode())
    declined = shell.run("decline", str(path), "--now", str(START))
    assert declined.exit_code == 0
    assert "capture 0: refunded" in declined.output


def test_balances_sum_to_zero(shell: Shell) -> None:
    shell.fund()
    accounts = shell.read("balances")["accounts"]
    assert sum(float(account["amount"]) for account in accounts) == pytest.approx(0)
    assert {account["kind"] for account in accounts} == {"party", "outside", "hold", "bond"}
    lines = shell.run("balances").output.splitlines()
    assert any(line.strip() == "-3.5 USDC  outside" for line in lines)


def test_misuse_ends_with_2_and_no_traceback(shell: Shell, folder: Path) -> None:
    for arguments in (
        ("init",),
        ("deposit", "no account, this", "1", "--key", "k"),
        ("deposit", "alice", "1.0000001", "--key", "k"),
        ("deposit", "alice", "1"),
        ("claim", str(folder / "nothing.json")),
        ("expire", "--now", "yesterday"),
    ):
        result = shell.run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert "Traceback" not in result.output
    assert CliRunner().invoke(main, ["escrow", "balances", str(folder / "nowhere")]).exit_code == 2


def test_refusals_end_with_4(shell: Shell) -> None:
    assert shell.run("show", digest_of("nothing")).exit_code == 4
    shell.run("deposit", "alice", "1", "--key", "one")
    result = shell.run("deposit", "alice", "2", "--key", "one")
    assert (result.exit_code, "[escrow.key_reused]" in result.output) == (4, True)


def test_our_failure_ends_with_1(folder: Path) -> None:
    (folder / "escrow.db").write_bytes(b"no database" * 1_000)
    result = CliRunner().invoke(main, ["escrow", "balances", str(folder)])
    assert (result.exit_code, "[escrow.database]" in result.output) == (1, True)


def test_books_that_disagree_end_with_1(folder: Path) -> None:
    import sqlite3

    shell = Shell(folder)
    shell.run("init")
    shell.run("deposit", "alice", "1", "--key", "k")
    connection = sqlite3.connect(folder / "home" / "escrow.db", isolation_level=None)
    connection.execute("UPDATE account SET balance = 5 WHERE kind = 'party'")
    connection.close()
    result = shell.run("audit")
    assert result.exit_code == 1
    assert "account party alice" in result.output
    assert len(json.loads(shell.run("audit", "--json").output)["differences"]) == 2


def test_everything_that_can_be_done_has_a_command() -> None:
    result = CliRunner().invoke(main, ["escrow", "--help"])
    for command in ("init", "fund", "claim", "settle", "expire", "show"):
        assert f"\n  {command} " in result.output
