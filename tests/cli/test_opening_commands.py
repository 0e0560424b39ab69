"""A drawn claim from a shell: the provider opens what is asked for, is acknowledged, and paid."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from proofhold.compile.replay.pin import write_lock
from proofhold.contention import Acknowledgement
from proofhold.keys import Signed
from proofhold.payload import Tensor, Tensors, encode_payload
from proofhold_cli import main
from replay_models import MODELS, SPECIFICATION, pinned

MODEL = "wide"
POLICY = ("--policy", "sampled")


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def done(*arguments: str) -> str:
    result = ran(*arguments)
    assert result.exit_code == 0, result.output
    return result.output.strip()


@pytest.fixture
def claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A folder with keys, money, a model that is only re-executed, and what hires and claims there."""
    monkeypatch.chdir(tmp_path)
    names = {name: done("keys", "new", f"{name}.pem") for name in ("buyer", "provider", "verifier")}
    done("escrow", "init", "home", "--id", "shop")
    done("escrow", "deposit", "home", names["buyer"], "100", "--key", "1")
    done("escrow", "deposit", "home", names["provider"], "100", "--key", "2")
    model = tmp_path / "models" / MODEL
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(MODELS[MODEL]())
    (model / "model.toml").write_text(SPECIFICATION)
    write_lock(pinned(MODEL).lock, tmp_path / "circuits" / MODEL)
    [given] = pinned(MODEL).lock.inputs
    values = np.random.default_rng(1).uniform(-1, 1, given.shape).astype(np.float32)
    Path("input.json").write_bytes(encode_payload(Tensors((Tensor.of(given.name, values),))))
    parties = ("--key", "buyer.pem", "--provider", names["provider"], "--verifier", names["verifier"])
    terms = ("--price", "0.5", "--bond", "5", "--penalty", "2", "--evidence", "replay")

    def hire(*more: str) -> None:
        new = ("input.json", "--model", MODEL, "--escrow", "home", *parties, *terms, *POLICY, *more)
        done("job", "new", *new, "--out", "job.json")
        done("provider", "accept", "job.json", "--key", "provider.pem", "--out", "accepted.json")
        done("escrow", "fund", "home", "accepted.json", "input.json", *POLICY)
        respond = ("accepted.json", "input.json", "--trace", "--key", "provider.pem", "--out", "bundle.json")
        done("provider", "respond", *respond)
        done("escrow", "claim", "home", "bundle.json")

    return hire


def settled(*more: str) -> Result:
    return ran("escrow", "settle", "home", "bundle.json", *POLICY, "--key", "verifier.pem", "--json", *more)


def asked_for(result: Result) -> str:
    assert result.exit_code == 3, result.output
    [need] = json.loads(result.output)["needs"]
    assert need["kind"] == "opening"
    return str(need["subject"])


@pytest.mark.parametrize("valuable", [False, True])
def test_what_was_drawn_is_opened_acknowledged_and_paid(claimed: Callable[..., None], valuable: bool) -> None:
    claimed(*(["--check-products"] if valuable else []))
    subject = asked_for(settled())
    which = ("--products", "--key", "provider.pem") if valuable else ("--segment", subject)
    assert (subject == "products") is valuable
    for wrong in ((), ("--products",), ("--segment", "0", "--key", "provider.pem")):
        refused = ran("provider", "open", "bundle.json", *wrong, "--out", "opening.json")
        assert (refused.exit_code, "Name --segment" in refused.output) == (2, True)
    done("provider", "open", "bundle.json", *which, "--out", "opening.json")
    result = settled(
        "--answers", "opening.json", "--acknowledgement", "word.json", "--receipt", "receipt.json"
    )
    assert (result.exit_code, json.loads(result.output)["state"]) == (0, "released"), result.output
    word = Signed.decode(Acknowledgement, Path("word.json").read_bytes()).document
    assert word.at <= time.time()
    assert word.job == json.loads(done("job", "show", "accepted.json", "--json"))["digest"]
    done("receipt", "recheck", "receipt.json", "bundle.json", *POLICY, "--answers", "opening.json")
