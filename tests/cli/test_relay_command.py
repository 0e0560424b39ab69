"""A chat job from the command line: drafted, accepted, relayed, judged; and what is not claimed."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from coincurve import PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proofhold.allowlist import Binding
from proofhold.attestation.dstack import SignedText
from proofhold.attestation.ethereum import keccak256
from proofhold.attestation.opengradient import SignedResponse
from proofhold.catalogue import Catalogue
from proofhold.exchange import Bundle
from proofhold.payload import Document
from proofhold_cli import main
from serving import REQUEST, enclave_key, respond

PROXY = PrivateKey(b"\x07" * 32)
ADDRESS = keccak256(PROXY.public_key.format(compressed=False)[1:])[-20:]
FROM_UNTIL = ["--from", "2026-01-01", "--until", "2031-01-01"]
MEASURED = f"nitro:pcr0={'01' * 48},pcr1={'02' * 48},pcr2={'03' * 48}"
TERMS = ["--price", "0.5", "--policy", "attested-routing"]
RUNNER = CliRunner()


def ran(*arguments: str | Path) -> Result:
    return RUNNER.invoke(main, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> str:
    result = ran(*arguments)
    assert result.exit_code == 0, result.output
    return result.output.strip()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder with keys, money, and a service whose list names a gateway and a proxy."""
    monkeypatch.chdir(tmp_path)
    names = {
        name: done("keys", "new", f"{name}.pem") for name in ("buyer", "provider", "verifier", "curator")
    }
    done("escrow", "init", "home", "--id", "shop")
    done("escrow", "deposit", "home", names["buyer"], "100", "--key", "1")
    public = enclave_key(0).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path("gateway.pem").write_bytes(public)
    Path("services/chat").mkdir(parents=True)
    listed = "services/chat/allowlist.json"
    done("allowlist", "new", listed, "--service", "chat")
    program = ["--name", "gateway", "--image", "i", "--source", "s", "--measurement", MEASURED]
    done("allowlist", "add", "program", listed, *program, *FROM_UNTIL)
    owned = ["--program", "gateway", "--payee", names["provider"], *FROM_UNTIL]
    gateway = ["--scheme", "rsa-pss", "--key", "gateway.pem", "--binding", "opengradient/current"]
    done("allowlist", "add", "signer", listed, *gateway, *owned)
    proxy = ["--scheme", "secp256k1", "--key", "0x" + ADDRESS.hex()]
    forms = ["--binding", "dstack/model", "--binding", "dstack/pair"]
    done("allowlist", "add", "signer", listed, *proxy, *forms, *owned)
    done("allowlist", "sign", listed, "--key", "curator.pem")
    trust = ["--name", "curator", "--trust-file", "services/trust.json", *FROM_UNTIL]
    done("keys", "trust", names["curator"], *trust)
    return names


def drafted(names: dict[str, str], request: Any = REQUEST) -> None:
    Path("ask.json").write_text(request if isinstance(request, str) else json.dumps(request))
    done("job", "input", "--request", "ask.json", "--out", "input.json")
    parties = ["--key", "buyer.pem", "--provider", names["provider"], "--verifier", names["verifier"]]
    new = ["input.json", "--service", "chat", "--escrow", "home", *parties, *TERMS]
    done("job", "new", *new, "--out", "job.json")
    done("provider", "accept", "job.json", "--key", "provider.pem", "--out", "accepted.json")


def relayed(*options: str, response: str = "response.json") -> Result:
    given = ["accepted.json", "input.json", "--response", response, *options]
    return ran("provider", "relay", *given, "--key", "provider.pem", "--out", "bundle.json")


def test_an_enclaves_response_from_request_to_payment(shop: dict[str, str]) -> None:
    drafted(shop)
    Path("response.json").write_text(json.dumps(respond(at=int(time.time()))))
    assert "[job.signature]" in ran("escrow", "fund", "home", "job.json", "input.json", *TERMS[2:]).output
    done("escrow", "fund", "home", "accepted.json", "input.json", *TERMS[2:])
    result = relayed()
    assert result.exit_code == 0, result.output
    bundle = Bundle.decode(Path("bundle.json").read_bytes())
    assert isinstance(bundle.exchange.output, Document)
    assert b"usage" not in bundle.exchange.output.body
    done("escrow", "claim", "home", "bundle.json")
    assert "ACCEPTED" in done("verify", "bundle.json", *TERMS[2:])
    assert "release" in done("escrow", "settle", "home", "bundle.json", *TERMS[2:], "--key", "verifier.pem")
    document = bundle.exchange.job.document
    assert document.payee == shop["provider"]
    assert document.evidence_kinds == ("dstack", "opengradient")


def test_a_stream_is_put_together_first(shop: dict[str, str]) -> None:
    drafted(shop)
    whole = respond(at=int(time.time()))
    text = whole["choices"][0]["message"]["content"]
    last = {key: value for key, value in whole.items() if key != "choices"}
    events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in (text[:3], text[3:])]
    lines = [*(f"data: {json.dumps(event)}" for event in (*events, last)), "data: [DONE]"]
    Path("response.json").write_text("\n\n".join(lines))
    assert relayed().exit_code == 0
    assert "ACCEPTED" in done("verify", "bundle.json", *TERMS[2:])


@pytest.mark.parametrize("model", ["", "gpt-4.1:"])
def test_a_proxys_response_and_its_signature(shop: dict[str, str], model: str) -> None:
    drafted(shop)
    done("job", "request", "input.json", "--out", "request.json")
    request, answer = Path("request.json").read_bytes(), b'{"choices":[]}'
    text = f"{model}{hashlib.sha256(request).hexdigest()}:{hashlib.sha256(answer).hexdigest()}"
    prefixed = b"\x19Ethereum Signed Message:\n%d%s" % (len(text), text.encode())
    compact = PROXY.sign_recoverable(keccak256(prefixed), hasher=None)
    signature = {
        "text": text,
        "signature": "0x" + (compact[:64] + bytes([compact[64] + 27])).hex(),
        "signing_address": "0x" + ADDRESS.hex(),
        "signing_algo": "ecdsa",
    }
    Path("response.json").write_bytes(answer)
    Path("signature.json").write_text(json.dumps(signature))
    result = relayed("--signature", "signature.json")
    assert result.exit_code == 0, result.output
    (evidence,) = Bundle.decode(Path("bundle.json").read_bytes()).evidence
    assert SignedText.decode(evidence.body).binding == (
        Binding.DSTACK_MODEL if model else Binding.DSTACK_PAIR
    )
    assert "ACCEPTED" in done("verify", "bundle.json", *TERMS[2:])
    Path("response.json").write_bytes(answer + b" ")
    assert "[dstack.output" in relayed("--signature", "signature.json").output


def test_what_would_be_refused_is_not_claimed(shop: dict[str, str]) -> None:
    drafted(shop)
    good = respond(at=int(time.time()))
    for change, said in (
        ({"tee_signature": respond(at=1)["tee_signature"]}, "[opengradient.signature"),
        ({"tee_request_hash": "00" * 32}, "[opengradient.request"),
        ({"tee_output_hash": "00" * 32}, "[opengradient.output"),
        ({"tee_id": "0x" + "00" * 32}, "does not know the key"),
        ({"tee_timestamp": -1}, "refused"),
        ({"tee_timestamp": "soon"}, "no enclave's signature"),
        ({"choices": []}, "no chat completion"),
        ({"choices": good["choices"] * 2}, "no chat completion"),
    ):
        Path("response.json").write_text(json.dumps(good | change))
        result = relayed()
        assert result.exit_code == 2, result.output
        assert said in result.output
        assert not Path("bundle.json").exists()
    for junk in ("", "[]", "{", "data: x", "data: [DONE]", "[" * 100_000, '{"a":1}'):
        Path("response.json").write_text(junk)
        assert relayed().exit_code == 2
    Path("response.json").write_text(json.dumps(good))
    assert "not as opengradient/legacy" in relayed("--form", "opengradient/legacy").output
    assert relayed("--form", "morse").exit_code == 2
    assert relayed("--collateral", "ask.json").exit_code == 2
    for stated in ("{}", "[]", '{"signing_algo":"rsa"}', '{"signing_algo":[],"text":1}'):
        Path("signature.json").write_text(stated)
        assert relayed("--signature", "signature.json").exit_code == 2


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a":1,"a":2}', '{"a":NaN}', '{"a":1e400}', '{"a":"\\ud800"}', '{"a":' * 80, "[" * 9999],
)
def test_a_request_that_has_no_one_encoding_is_none(shop: dict[str, str], text: str) -> None:
    Path("ask.json").write_text(text)
    result = ran("job", "input", "--request", "ask.json", "--out", "input.json")
    assert result.exit_code == 2, result.output
    assert not Path("input.json").exists()


def test_jobs_on_models_and_on_services_are_not_mixed_up(shop: dict[str, str]) -> None:
    drafted(shop)
    given = ["accepted.json", "input.json", "--key", "provider.pem", "--out", "bundle.json"]
    assert "provider relay" in ran("provider", "respond", *given).output
    assert ran("job", "input", "--request", "ask.json", "--model", "digits", "--out", "x").exit_code == 2
    assert ran("job", "input", "--out", "x").exit_code == 2
    new = ["input.json", "--escrow", "home", "--key", "buyer.pem", "--provider", shop["provider"]]
    new += ["--verifier", shop["verifier"], *TERMS, "--out", "x"]
    assert "Name either" in ran("job", "new", *new).output
    assert "has no service talk; it has chat" in ran("job", "new", *new, "--service", "talk").output
    # Another list than the one that the job names is another service.
    done("allowlist", "new", "services/chat/next.json", "--service", "chat", "--max-age", "60")
    done("allowlist", "sign", "services/chat/next.json", "--key", "curator.pem")
    Path("services/chat/next.json").rename("services/chat/allowlist.json")
    Path("response.json").write_text(json.dumps(respond()))
    assert "allow-list" in relayed().output
    assert Catalogue.load(Path()).service("chat") is not None
    accept = ["job.json", "--key", "provider.pem", "--out", "x"]
    assert "pins another" in ran("provider", "accept", *accept).output
    assert SignedResponse.of(respond()).binding is Binding.OPENGRADIENT_CURRENT
