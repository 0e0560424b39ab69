"""``proofhold worker``: queue, run, status, on a folder and on a database; and an escrow that moves house."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from escrow_builders import (
    BUYER,
    OPERATOR,
    OUTPUT,
    PROVIDER,
    STRANGER,
    USDC,
    Scene,
    digest_of,
    make_claim,
    memory_folder,
)
from judging import POLICY, REPOSITORY, VERIFIER, policy
from proofhold.escrow import Ruling, create_home, open_home
from proofhold.job import PPM
from proofhold_cli import main
from stores import DRIVERS, make_store
from workshop import _bundle, stock


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner(catch_exceptions=False).invoke(main, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_worker_runs_models_again_until_nothing_is_left(folder: Path, driver: str) -> None:
    VERIFIER.save(folder / "verifier.pem")
    with make_store(driver, folder) as store:
        home = str(folder) if driver == "sqlite" else str(getattr(store, "location", ""))
        with store.create(escrow="test-escrow") as escrow:
            terms: dict[str, Any] = {
                "evidence_kinds": ("ezkl", "replay"),
                "sampling_rate_ppm": PPM,
                "policy": policy().digest,
            }
            holds = stock(escrow, 3, proved=False, **terms)
        assert run("worker", "status", home)["ready"] == 3
        where = () if driver == "sqlite" else ("--evidence", str(folder / "kept"))
        options = ("--key", str(folder / "verifier.pem"), "--policy", POLICY, "--root", str(REPOSITORY))
        done = run("worker", "run", home, *options, *where, "--until-empty", "--name", "w")
        assert (done["id"], done["settled"], done["kept"], done["alive"]) == ("w", 3, 0, False)
        status = run("worker", "status", home)
        assert (status["ready"], status["taken"], status["poisoned"]) == (0, 0, 0)
        assert [worker["settled"] for worker in status["workers"]] == [3]
        text = CliRunner().invoke(main, ["worker", "status", home]).output
        assert "w: stopped" in text
        [attempt] = run("worker", "history", home, holds[0])["attempts"]
        assert (attempt["worker"], attempt["outcome"], attempt["begun"]) == ("w", "release", True)
        told = CliRunner().invoke(main, ["worker", "history", home, holds[0]]).output
        assert told.startswith("1  w: release after ")
        for hold in holds:
            assert run("escrow", "show", home, hold)["captures"][0]["state"] == "released"
        assert run("escrow", "audit", home) == {"differences": []}
        # What the worker judged is there to be judged again by anybody.
        [kept] = run("evidence", "list", home, holds[0], *where)["evidence"]
        bundle, receipt = str(folder / "bundle"), folder / "receipt"
        run("evidence", "get", home, kept["digest"], "--out", bundle, *where)
        with open_home(home) as escrow:
            receipt.write_bytes(escrow.hold(holds[0]).capture(0).decisions[0].receipt)
        same = ("--policy", POLICY, "--root", str(REPOSITORY))
        recheck = ["receipt", "recheck", str(receipt), bundle, *same]
        assert CliRunner().invoke(main, recheck).exit_code == 0


def test_what_was_claimed_is_queued_by_its_bundle(folder: Path) -> None:
    home = folder / "home"
    with create_home(home, escrow="test-escrow") as escrow:
        (hold,) = stock(escrow, 1, queued=False)
        bundle = _bundle(escrow.hold(hold).job, False, True)
    (folder / "bundle.json").write_bytes(bundle.encode())
    assert run("worker", "add", str(home), str(folder / "bundle.json")) == {"hold": hold, "seq": 0}
    assert run("worker", "status", str(home))["ready"] == 1


def test_each_capture_of_a_metered_job_is_settled_by_its_own_bundle(folder: Path) -> None:
    """By hand and from the queue alike; the bundle says which capture it is about."""
    home, key = folder / "home", str(folder / "verifier.pem")
    VERIFIER.save(folder / "verifier.pem")
    terms: dict[str, Any] = {
        "evidence_kinds": ("ezkl", "replay"),
        "sampling_rate_ppm": PPM,
        "policy": policy().digest,
        "captures": 2,
    }
    with create_home(home, escrow="test-escrow") as escrow:
        (hold,) = stock(escrow, 1, proved=False, queued=False, claimed_amount=400, **terms)
        first = _bundle(escrow.hold(hold).job, False, False, amount=400)
        second = _bundle(escrow.hold(hold).job, False, False, seq=1)
        exchange = second.exchange
        escrow.record_claim(exchange.claim, exchange.output, now=int(time.time()))
    for name, bundle in (("first", first), ("second", second)):
        (folder / name).write_bytes(bundle.encode())
    run("worker", "add", str(home), str(folder / "first"))
    options = ("--key", key, "--policy", POLICY, "--root", str(REPOSITORY))
    done = run("escrow", "settle", str(home), str(folder / "second"), *options)
    assert (done["outcome"], done["state"]) == ("release", "released")
    assert [c["state"] for c in run("escrow", "show", str(home), hold)["captures"]] == ["claimed", "released"]
    run("worker", "run", str(home), *options, "--until-empty")
    assert [c["state"] for c in run("escrow", "show", str(home), hold)["captures"]] == ["released"] * 2
    kept = run("evidence", "list", str(home), hold)["evidence"]
    assert sorted(piece["seq"] for piece in kept) == [0, 1]


@pytest.mark.parametrize("address", ["ray//", "threads"])
def test_another_runner_is_misuse(folder: Path, address: str) -> None:
    VERIFIER.save(folder / "verifier.pem")
    create_home(folder / "home", escrow="test-escrow").close()
    options = ("--key", str(folder / "verifier.pem"), "--policy", POLICY, "--root", str(REPOSITORY))
    result = CliRunner().invoke(main, ["worker", "run", str(folder / "home"), *options, "--runner", address])
    assert result.exit_code == 2


def test_two_operators_decide_what_is_large(folder: Path) -> None:
    home = str(folder / "home")
    run(
        "escrow",
        "init",
        home,
        "--id",
        "test-escrow",
        "--operator",
        OPERATOR.public,
        "--operator",
        STRANGER.public,
    )
    for name, key in (("one.pem", OPERATOR), ("two.pem", STRANGER)):
        key.save(folder / name)
    assert run("escrow", "two-keys", home, "0.0001") == {"above": "0.0001", "currency": "USDC"}
    with open_home(home) as escrow:
        scene = Scene(escrow)
        for party in (BUYER.public, PROVIDER.public):
            escrow.deposit(party, 10**6, USDC, key=party, now=scene.now)
        hold = scene.fund()
        escrow.record_claim(make_claim(hold.job), OUTPUT, now=scene.now)
        escrow.apply(hold.id, 0, Ruling.DISPUTE, receipt_digest=digest_of("r"), receipt=b"r", now=scene.now)
    now = ("--now", str(scene.now))
    words = ("--outcome", "refund", "--reason", "we looked")
    alone = CliRunner().invoke(
        main, ["escrow", "resolve", home, hold.id, *words, "--key", str(folder / "one.pem"), *now]
    )
    assert "[resolution.keys]" in alone.output
    signed = str(folder / "signed.json")
    first = [
        "escrow",
        "resolve",
        home,
        hold.id,
        *words,
        "--key",
        str(folder / "one.pem"),
        "--sign-to",
        signed,
    ]
    assert CliRunner().invoke(main, first).exit_code == 0
    second = ("--signed", signed, "--key", str(folder / "two.pem"))
    assert run("escrow", "resolve", home, hold.id, *second, *now)["captures"][0]["state"] == "refunded"
    neither = CliRunner().invoke(main, ["escrow", "resolve", home, hold.id, *second[2:]])
    assert neither.exit_code == 2


def test_an_escrow_moves_house(folder: Path) -> None:
    old, new, file = (str(folder / name) for name in ("old", "new", "export"))
    with create_home(Path(old), escrow="test-escrow") as escrow:
        escrow.deposit("alice", 5, USDC, key="k", now=1)
    rows = run("escrow", "export", old, file)["rows"]
    assert rows > 4
    assert run("escrow", "import", new, file)["id"] == "test-escrow"
    assert run("escrow", "balances", new) == run("escrow", "balances", old)
    assert CliRunner().invoke(main, ["escrow", "import", new, file]).exit_code == 2
