"""The dstack family: real signatures and quotes, and a proxy of ours for what only a key's owner can make."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from dcap_vectors import GOOD, case_of
from intel import Intel
from judging import BUYER, NOW, PROVIDER, SECRET, key_of, said
from proofhold.allowlist import Binding, Measurement, Scheme, Vouching
from proofhold.attestation import dcap, dstack, ethereum
from proofhold.attestation.dstack import SignedText
from proofhold.attestation.ethereum import HALF_ORDER, keccak256, recover
from proofhold.attestation.kept import Kept
from proofhold.attestation.quote import parse_quote, without_padding
from proofhold.attestation.refusal import Refusal
from proofhold.backends import dstack as backend
from proofhold.backends.dstack import DstackBackend
from proofhold.catalogue import Catalogue, ServiceEntry
from proofhold.core import Accepted, Evidence, Inconclusive, NeedKind, Property, Rejected, Verdict
from proofhold.errors import Malformed
from proofhold.exchange import Bundle
from proofhold.keys import Signed
from proofhold.payload import Document
from proofhold.verifier import Verifier
from serving import (
    DAMAGES,
    PAYEE,
    REQUEST,
    bundle_of,
    document,
    make_job,
    policy,
    program,
    refutes_damage,
    service,
    signer,
)

PRIVATE = PrivateKey(SECRET)
ADDRESS = keccak256(PRIVATE.public_key.format(compressed=False)[1:])[-20:]
ED25519 = key_of("proxy")
ED25519_KEY = bytes.fromhex(ED25519.public.removeprefix("ed25519:"))
STREAM = Document("text/event-stream", b'data: {"choices":[{"delta":{"content":"4"}}]}\n\ndata: [DONE]\n\n')


@pytest.mark.parametrize("openssl", [True, False], ids=["openssl", "library"])
def test_keccak_is_the_same_whoever_computes_it(openssl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty text, "abc", and 200 bytes, which are more than a block; each by another implementation."""
    try:
        hashlib.new("keccak-256")
    except ValueError:
        if openssl:
            pytest.skip("this interpreter's OpenSSL is older than 3.2")

    def without(name: str, data: bytes = b"") -> None:
        raise ValueError(f"unsupported hash type {name}")

    if not openssl:
        monkeypatch.setattr(hashlib, "new", without)
    ethereum._keccak256.cache_clear()
    try:
        answers = [keccak256(data).hex() for data in (b"", b"abc", b"\xa3" * 200)]
    finally:
        ethereum._keccak256.cache_clear()
    assert answers == [
        "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
        "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45",
        "3a57666b048777f2c953dc4456f45a2588e1cb6f2da760122d530ac2ce607d4a",
    ]


def sign(text: str, *, scheme: Scheme = Scheme.SECP256K1, **changes: Any) -> SignedText:
    """What a proxy gives: EIP-191 with a recovery number of 27 or 28, or Ed25519."""
    data = text.encode()
    if scheme is Scheme.ED25519:
        key, signature = ED25519_KEY, ED25519.sign(data)
    else:
        prefixed = b"\x19Ethereum Signed Message:\n%d%s" % (len(data), data)
        compact = PRIVATE.sign_recoverable(keccak256(prefixed), hasher=None)
        key, signature = ADDRESS, compact[:64] + bytes([compact[64] + 27])
    made = SignedText(binding=Binding.DSTACK_PAIR, scheme=scheme, key=key, text=text, signature=signature)
    return replace(made, **changes)


def text_of(request: Document, output: Document, model: str = "") -> str:
    pair = f"{hashlib.sha256(request.body).hexdigest()}:{hashlib.sha256(output.body).hexdigest()}"
    return f"{model}:{pair}" if model else pair


BOTH = (Binding.DSTACK_MODEL, Binding.DSTACK_PAIR)


def entry_of(**changes: Any) -> ServiceEntry:
    of = changes.pop("of", None)
    ethereum = signer(ADDRESS, scheme=Scheme.SECP256K1, bindings=BOTH, **changes)
    ed25519 = signer(ED25519_KEY, scheme=Scheme.ED25519, bindings=BOTH, **changes)
    return service(ethereum, ed25519, of=of)


def answered(signed: SignedText, *, entry: ServiceEntry | None = None, output: Document = STREAM) -> Bundle:
    payload = document(REQUEST)
    job = make_job(entry or entry_of(), payload, evidence_kinds=("dstack",))
    return bundle_of(job, payload, output, Evidence("dstack", signed.encode()))


def judge(bundle: Bundle, *, entry: ServiceEntry | None = None, now: int = NOW) -> Verdict:
    verifier = Verifier(Catalogue((), (entry or entry_of(),)), (), None, (DstackBackend(),))
    return verifier.verify(bundle.exchange, bundle.evidence, policy=policy(), now=now)


def refused(bundle: Bundle, *codes: str, **options: Any) -> None:
    verdict = judge(bundle, **options)
    assert isinstance(verdict, Rejected), verdict
    assert said(verdict) == {(code, "provider") for code in codes}


HONEST = text_of(document(REQUEST), STREAM)


@pytest.mark.parametrize("scheme", [Scheme.SECP256K1, Scheme.ED25519])
@pytest.mark.parametrize("binding", BOTH)
def test_an_honest_stream_is_accepted_and_no_freshness_is_claimed(scheme: Scheme, binding: Binding) -> None:
    model = "gpt-4.1" if binding is Binding.DSTACK_MODEL else ""
    signed = sign(text_of(document(REQUEST), STREAM, model), scheme=scheme, binding=binding)
    verdict = judge(answered(signed))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.not_shown == (Property.MODEL, Property.FRESH)
    assert verdict.findings[0].facts["freshness"].startswith("none")


def test_a_program_that_relays_the_requests_hash_does_not_show_the_input() -> None:
    entry = entry_of(of=program(binds_input=False))
    refused(answered(sign(HONEST), entry=entry), "policy.not_shown", entry=entry)


def test_20_another_answer_request_or_model_is_refused() -> None:
    other = Document("text/event-stream", STREAM.body + b"\n")
    refused(answered(sign(HONEST), output=other), "dstack.output")
    refused(answered(sign(text_of(document(REQUEST | {"seed": 1}), STREAM))), "dstack.request")
    relabelled = sign(text_of(document(REQUEST), STREAM, "gpt-5"), binding=Binding.DSTACK_MODEL)
    refused(answered(relabelled), "dstack.model_label")


def test_20_another_key_payee_form_or_time_is_refused() -> None:
    refused(answered(replace(sign(HONEST), key=bytes(20))), "dstack.signer")
    unsigned = replace(sign(HONEST), signature=sign(HONEST + " ").signature)
    refused(answered(unsigned), "dstack.signature")
    entry = entry_of(payee="somebody-else", valid_until=NOW)
    refused(answered(sign(HONEST), entry=entry), "dstack.payee", "dstack.signer_expired", entry=entry)
    refused(answered(sign(HONEST, binding=Binding.DSTACK_MODEL)), "dstack.text")
    assert PAYEE != "somebody-else"


def test_a_signature_has_one_form_and_the_replay_key_is_of_the_text() -> None:
    signed = sign(HONEST)
    order = 2 * HALF_ORDER + 1
    flipped = (order - int.from_bytes(signed.signature[32:64], "big")).to_bytes(32, "big")
    twin = signed.signature[:32] + flipped + bytes([55 - signed.signature[64]])
    refused(answered(replace(signed, signature=twin)), "ethereum.malleable")
    zero_based = replace(signed, signature=signed.signature[:64] + bytes([signed.signature[64] - 27]))
    one, two = judge(answered(signed)), judge(answered(zero_based))
    assert isinstance(one, Accepted)
    assert isinstance(two, Accepted)
    assert one.findings[0].one_use == two.findings[0].one_use


@pytest.mark.parametrize("signature", [b"", bytes(65), bytes(64), b"\xff" * 65, b"\1" * 64 + b"\x1d"])
def test_nonsense_recovers_no_key(signature: bytes) -> None:
    with pytest.raises(Refusal):
        recover(b"text", signature)


def test_a_quote_is_asked_for_where_the_list_asks() -> None:
    entry = entry_of(vouched=Vouching.SHOWN)
    refused(answered(sign(HONEST), entry=entry), "dstack.quote", entry=entry)
    verdict = judge(answered(sign(HONEST, quote=b"no quote")))
    assert isinstance(verdict, Rejected)
    assert {code.partition(".")[0] for code, _ in said(verdict)} == {"dcap"}


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        sign(HONEST).encode() + b" ",
        sign(HONEST).encode().replace(b"dstack/pair", b"sim/v1"),
        sign(HONEST).encode().replace(b'"secp256k1"', b'"rsa-pss"'),
        sign(HONEST).encode().replace(b'"secp256k1"', b'"ed25519"'),
    ],
)
def test_what_does_not_parse_is_refuted(body: bytes) -> None:
    with pytest.raises(Malformed):
        SignedText.decode(body)
    job, payload = make_job(entry_of(), document(REQUEST), evidence_kinds=("dstack",)), document(REQUEST)
    assert isinstance(judge(bundle_of(job, payload, STREAM, Evidence("dstack", body))), Rejected)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"model":""}', b'{"model":1}', b"x"])
def test_a_request_names_a_model(body: bytes) -> None:
    reasons = DstackBackend().objections(entry_of(), Document("application/json", body))
    assert {fault for _, fault in said(reasons)} == {"buyer"}
    assert DstackBackend().objections(entry_of(), document(REQUEST)) == ()


# --- a quote that vouches for the key ---------------------------------------------------------------------

COMPOSE = "c0" * 32
CONFIG_ID, REPORT_DATA = 48 + 184, 48 + 520


@pytest.fixture
def machine(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> Intel:
    """A TDX machine of an Intel of the tests' own, whose root stands in the pinned one's place for a test."""
    intel = Intel(case_of(vectors, GOOD))
    intel.trusted(monkeypatch)
    monkeypatch.setattr(backend, "_QUOTES", Kept(lambda report: (report.not_before, report.not_after)))
    return intel


def attested(
    intel: Intel, *, key: bytes = ADDRESS, nonce: bytes = bytes(32), compose: str = COMPOSE
) -> bytes:
    intel.body_edits = {
        CONFIG_ID: bytes.fromhex("01" + compose).ljust(48, b"\0"),
        REPORT_DATA: key.ljust(32, b"\0") + nonce,
    }
    return intel.quote()


def listed_for(intel: Intel) -> ServiceEntry:
    """A service whose list asks for a quote of this machine's registers and compose file."""
    found = parse_quote(intel.genuine.quote).report
    registers = {name: getattr(found, name) for name in ("mr_td", "rtmr0", "rtmr1", "rtmr2")}
    measured = Measurement.of("tdx", registers | {"compose_hash": COMPOSE})
    valid = {"valid_from": intel.genuine.now - 60, "valid_until": intel.genuine.now + 86_400}
    return entry_of(of=program(measurements=(measured,), **valid), vouched=Vouching.SHOWN, **valid)


def vouched(
    intel: Intel, quote: bytes, *, now: int | None = None, collateral: bytes | None = None
) -> Verdict:
    entry, payload = listed_for(intel), document(REQUEST)
    job = make_job(entry, payload, evidence_kinds=("dstack",))
    beside = {"dcap": intel.collateral() if collateral is None else collateral}
    evidence = Evidence("dstack", sign(HONEST, quote=quote).encode(), beside)
    return judge(bundle_of(job, payload, STREAM, evidence), entry=entry, now=now or intel.genuine.now)


def test_a_quote_for_key_and_program_is_enough_and_names_its_nonce(machine: Intel) -> None:
    verdict = vouched(machine, attested(machine))
    assert isinstance(verdict, Accepted), verdict
    assert "old one" in verdict.findings[0].facts["quote_nonce"]
    job = make_job(listed_for(machine), document(REQUEST), evidence_kinds=("dstack",))
    fresh = attested(machine, nonce=bytes.fromhex(Signed.new(job, BUYER, PROVIDER).digest))
    verdict = vouched(machine, fresh)
    assert isinstance(verdict, Accepted), verdict
    assert verdict.findings[0].facts["quote_nonce"] == "the job's digest"


def test_20_a_quote_for_another_key_or_program_does_not_vouch(machine: Intel) -> None:
    for quote, code in (
        (attested(machine, key=b"\1" * 20), "dstack.report_data"),
        (attested(machine, key=ADDRESS + b"\1"), "dstack.report_data"),
        (attested(machine, compose="c1" * 32), "dstack.measurement"),
        (machine.genuine.quote, "dcap.chain"),
        (attested(machine) + bytes(16), "dcap.malformed"),
    ):
        verdict = vouched(machine, quote)
        assert isinstance(verdict, Rejected), verdict
        assert code in {code for code, _ in said(verdict)}


def test_6_a_quote_of_a_machine_that_is_out_of_date_does_not_vouch(machine: Intel) -> None:
    machine.tcb_edits = [('"tcbStatus":"UpToDate"', '"tcbStatus":"OutOfDate"')]
    verdict = vouched(machine, attested(machine))
    assert isinstance(verdict, Rejected)
    assert ("dcap.tcb_status", "provider") in said(verdict)


def test_5_without_collateral_of_now_a_quote_leaves_it_open(machine: Intel) -> None:
    quote = attested(machine)
    verdict = vouched(machine, quote, collateral=b"")
    assert isinstance(verdict, Inconclusive)
    assert said(verdict) == {("dcap.collateral_missing", "nobody")}
    assert [need.kind for need in verdict.needs] == [NeedKind.COLLATERAL]


def test_a_quote_is_checked_once_for_many_answers(machine: Intel, monkeypatch: pytest.MonkeyPatch) -> None:
    quote, collateral, seen = attested(machine), machine.collateral(), []
    verify = dcap.verify

    def counted(quote: bytes, collateral: bytes, *, now: int) -> dcap.DcapReport:
        seen.append(now)
        return verify(quote, collateral, now=now)

    monkeypatch.setattr(dcap, "verify", counted)
    at = machine.genuine.now
    for now in (at, at + 1, at + 2):
        assert isinstance(vouched(machine, quote, now=now, collateral=collateral), Accepted)
    assert seen == [at]
    later = vouched(machine, quote, now=at + 11 * 86_400, collateral=collateral)
    assert not isinstance(later, Accepted), "what was kept does not outlive its collateral"


# --- real data --------------------------------------------------------------------------------------------


def real(path: Path) -> SignedText:
    case = json.loads(path.read_text())
    return SignedText(
        binding=Binding.DSTACK_PAIR,
        scheme=Scheme.SECP256K1,
        key=bytes.fromhex(case["signing_address"].removeprefix("0x")),
        text=case["text"],
        signature=bytes.fromhex(case["signature"].removeprefix("0x")),
    )


@pytest.mark.parametrize("name", ["nearai-ecdsa-a", "nearai-ecdsa-b"])
def test_real_signatures_check_and_tampered_ones_do_not(vectors: Path, name: str) -> None:
    signed = real(vectors / "providers" / f"{name}.json")
    dstack.check_signature(SignedText.decode(signed.encode()))
    with pytest.raises(Refusal, match=r"dstack\.signature"):
        dstack.check_signature(real(vectors / "providers" / f"{name}-syn-tampered.json"))
    with pytest.raises(Refusal, match=r"dstack\.output"):
        dstack.check(signed, b"another request", b"another answer")


def test_the_report_data_of_real_quotes_name_their_keys(vectors: Path) -> None:
    venice = json.loads((vectors / "providers/venice-2026-06-10/attestation.json").read_text())
    near = json.loads((vectors / "providers/nearcloud-2026-06-29/attestation.json").read_text())
    nonces = [venice["request_nonce"], near["gateway_attestation"]["request_nonce"]]
    attestations = [venice, near["gateway_attestation"]]
    for found, nonce in zip(attestations, nonces, strict=True):
        key = bytes.fromhex(found["signing_address"].removeprefix("0x"))
        tls = bytes.fromhex(found["tls_cert_fingerprint"]) if "tls_cert_fingerprint" in found else None
        scheme = Scheme.ED25519 if found["signing_algo"] == "ed25519" else Scheme.SECP256K1
        signed = sign(HONEST, key=key, scheme=scheme, tls_fingerprint=tls)
        quote = parse_quote(without_padding(bytes.fromhex(found["intel_quote"])))
        report_data = bytes.fromhex(quote.report.report_data)
        assert dstack.check_report_data(signed, report_data).hex() == nonce
        with pytest.raises(Refusal, match=r"dstack\.report_data"):
            dstack.check_report_data(replace(signed, key=bytes(len(key))), report_data)


def test_20_a_relays_own_nonce_is_not_ours(vectors: Path) -> None:
    from base64 import b64decode

    relay = json.loads((vectors / "providers/redpill-relay-2026-06-10/attestation.json").read_text())
    index = {case["id"]: case for case in json.loads((vectors / "index.json").read_text())}
    ours = index["provider-redpill-relay-2026-06-10"]["params"]["nonce"]
    first = relay["all_attestations"][0]
    quote = parse_quote(without_padding(b64decode(first["intel_quote"])))
    report_data = bytes.fromhex(quote.report.report_data)
    assert first["nonce"] != ours
    with pytest.raises(Refusal, match=r"dstack\.report_data"):
        dstack.check_report_data(sign(HONEST), report_data)


@pytest.mark.parametrize("count", DAMAGES)
def test_damage_is_refuted(count: int) -> None:
    refutes_damage(DstackBackend(), answered(sign(HONEST)), entry_of(), count)
