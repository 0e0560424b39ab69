"""OpenGradient's signed responses: honest ones are accepted, what their own client lets pass is not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from judging import NOW, said
from proofhold import canonical
from proofhold.allowlist import Binding, Measurement, Scheme, Vouching
from proofhold.attestation import opengradient
from proofhold.attestation.ethereum import keccak256
from proofhold.attestation.opengradient import SignedResponse
from proofhold.attestation.refusal import Refusal
from proofhold.backends.opengradient import OpenGradientBackend
from proofhold.chat import Answer, from_stream, signed_part
from proofhold.core import Accepted, Evidence, Property, Rejected
from proofhold.errors import Malformed, Misuse
from proofhold.payload import Document
from serving import (
    AGE_S,
    DAMAGES,
    PAYEE,
    PCRS,
    REQUEST,
    bundle_of,
    chat,
    document,
    evidence_of,
    judge,
    make_job,
    program,
    refutes_damage,
    respond,
    service,
    signer,
    spki,
)

TOOLS = {"tools": [{"function": {"name": "add", "parameters": {}}, "type": "function"}]}
CALLS = [{"function": {"arguments": '{"a": 2}', "name": "add"}, "id": "call_1", "type": "function"}]


def tampered(change: Any) -> dict[str, Any]:
    """The signed part of an honest response, with something changed in it."""
    value = signed_part(respond()).to_json()
    change(value)
    return value  # type: ignore[no-any-return]


def refused(bundle: Any, *codes: str, entry: Any = None, now: int = NOW) -> None:
    verdict = judge(bundle, entry=entry, now=now)
    assert isinstance(verdict, Rejected), verdict
    assert said(verdict) == {(code, "provider") for code in codes}


def test_an_honest_response_is_accepted_and_says_that_it_shows_routing_only() -> None:
    verdict = judge(chat(respond()))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.not_shown == (Property.MODEL,)
    (finding,) = verdict.findings
    assert finding.facts["model"].startswith("routing only")
    assert finding.facts["freshness"] == f"by age, which is weaker than a nonce: 10 s of at most {AGE_S} s"
    assert len(finding.one_use) == 1


def test_the_model_is_shown_where_the_list_names_it() -> None:
    entry = service(of=program(model="ab" * 32))
    verdict = judge(chat(respond(), entry=entry), entry=entry)
    assert isinstance(verdict, Accepted)
    assert verdict.not_shown == ()


def test_calls_of_offered_tools_are_accepted() -> None:
    request = REQUEST | TOOLS
    response = respond(request, {"role": "assistant", "content": None, "tool_calls": CALLS})
    assert isinstance(judge(chat(response, request=request)), Accepted)


FORGED = {
    "inflated usage": (lambda v: v.update(usage={"total_tokens": 10**6}), "answer.usage"),
    "relabelled model": (lambda v: v.update(model="gpt-5"), "opengradient.model_label"),
    "changed finish_reason": (
        lambda v: v["choices"][0].update(finish_reason="length"),
        "answer.finish_reason",
    ),
    "injected image": (
        lambda v: v["choices"][0]["message"].update(images=[{"url": "data:"}]),
        "answer.attachment",
    ),
    "content of parts": (
        lambda v: v["choices"][0]["message"].update(content=[{"type": "text", "text": "It is 4. ✓"}]),
        "answer.attachment",
    ),
    "appended second choice": (
        lambda v: v["choices"].append({"index": 1, "message": {"role": "assistant", "content": "5"}}),
        "answer.choices",
    ),
    "tool calls beside text": (
        lambda v: v["choices"][0]["message"].update(tool_calls=CALLS),
        "answer.mixed",
    ),
    "another text": (lambda v: v["choices"][0]["message"].update(content="It is 5."), "opengradient.output"),
}


@pytest.mark.parametrize("cheat", FORGED)
def test_forged_answers_are_refused_by_code(cheat: str) -> None:
    change, code = FORGED[cheat]
    refused(chat(respond(), output=document(tampered(change))), code)


def test_a_text_that_spells_a_tool_call_is_no_tool_call() -> None:
    response = respond(message={"role": "assistant", "content": json.dumps(CALLS, sort_keys=True)})
    posing = respond(message={"role": "assistant", "tool_calls": CALLS})
    refused(chat(response, output=signed_part(posing)), "opengradient.tool_calls")


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (NOW - 11 * 30 * 86_400, "opengradient.too_old"),
        (NOW - AGE_S - 1, "opengradient.too_old"),
        (NOW + 61, "opengradient.from_the_future"),
        (4_102_444_800, "opengradient.from_the_future"),
    ],
)
def test_03_old_and_future_responses_are_refused(at: int, code: str) -> None:
    refused(chat(respond(at=at)), code)


@pytest.mark.parametrize("at", [NOW - AGE_S, NOW, NOW + 60])
def test_the_window_is_closed(at: int) -> None:
    assert isinstance(judge(chat(respond(at=at))), Accepted)


def test_20_an_answer_to_another_request_is_refused() -> None:
    other = REQUEST | {"max_tokens": 101}
    refused(chat(respond(other)), "opengradient.request")


def test_a_rewritten_time_breaks_the_signature() -> None:
    refused(chat(respond(at=NOW - 9_999), proof={"timestamp": str(NOW)}), "opengradient.signature")


def test_hashes_that_the_provider_rewrote_do_not_help() -> None:
    lie = Answer("gpt-4.1", "It is 5.")
    output_hash = keccak256(b"It is 5.").hex()
    refused(chat(respond(), output=lie, proof={"output_hash": output_hash}), "opengradient.signature")


def test_20_a_key_that_nobody_listed_is_refused() -> None:
    refused(chat(respond(number=1)), "opengradient.signer")


def test_another_payees_answer_is_refused_with_every_other_reason() -> None:
    bundle = chat(respond(at=NOW - 9_999), payee="somebody-else")
    refused(bundle, "opengradient.payee", "opengradient.too_old")


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (service(signer(valid_until=NOW)), "opengradient.signer_expired"),
        (service(signer(valid_from=NOW + 1)), "opengradient.signer_expired"),
        (service(of=program(valid_until=NOW)), "opengradient.program_expired"),
        (service(signer(bindings=(Binding.OPENGRADIENT_STR_LIST,))), "opengradient.binding"),
        (service(signer(vouched=Vouching.SHOWN)), "opengradient.attestation"),
    ],
)
def test_entries_hold_for_their_time_and_their_form_only(entry: Any, code: str) -> None:
    refused(chat(respond(), entry=entry), code, entry=entry)


PARTS = REQUEST | {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}


def test_forms_are_not_guessed() -> None:
    """The same list of parts hashes in two ways, and each is taken only where it is stated and listed."""
    both = service(signer(bindings=(Binding.OPENGRADIENT_CURRENT, Binding.OPENGRADIENT_STR_LIST)))
    as_text = PARTS | {"messages": [{"role": "user", "content": "[{'type': 'text', 'text': 'hi'}]"}]}
    old = {"binding": Binding.OPENGRADIENT_STR_LIST}
    assert isinstance(judge(chat(respond(PARTS), request=PARTS, entry=both), entry=both), Accepted)
    accepted = judge(chat(respond(as_text), request=PARTS, proof=old, entry=both), entry=both)
    assert isinstance(accepted, Accepted)
    refused(chat(respond(as_text), request=PARTS, entry=both), "opengradient.request", entry=both)
    refused(chat(respond(as_text), request=PARTS, proof=old), "opengradient.binding")


def test_one_response_read_by_two_forms_is_one_payload() -> None:
    """Where no part is a list the forms agree: a seller could otherwise be paid once for each."""
    both = service(signer(bindings=(Binding.OPENGRADIENT_CURRENT, Binding.OPENGRADIENT_STR_LIST)))
    one = judge(chat(respond(), entry=both), entry=both)
    two = judge(chat(respond(), entry=both, proof={"binding": Binding.OPENGRADIENT_STR_LIST}), entry=both)
    assert isinstance(one, Accepted)
    assert isinstance(two, Accepted)
    assert one.findings[0].one_use == two.findings[0].one_use


def test_a_conversation_with_tool_calls_in_it_is_hashed_as_the_gateway_does() -> None:
    said_before = {"role": "assistant", "content": None, "tool_calls": CALLS}
    answer = {"role": "tool", "content": "4", "tool_call_id": "call_1"}
    request = REQUEST | TOOLS | {"messages": [*REQUEST["messages"], said_before, answer]}
    hashed = request | {"messages": [*REQUEST["messages"], said_before | {"content": ""}, answer]}
    assert isinstance(judge(chat(respond(hashed), request=request)), Accepted)


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALLS[0] | {"index": 0}]}]},
            "request.malformed",
        ),
        ({"top_p": 0.5}, "request.uncovered"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "request.uncovered"),
        ({"n": 3}, "request.uncovered"),
        ({"seed": 7}, "request.uncovered"),
        ({"tool_choice": "auto"}, "request.uncovered"),
        ({"messages": []}, "request.malformed"),
        ({"temperature": "hot"}, "request.malformed"),
        ({"web_search": 1}, "request.malformed"),
        ({"max_tokens": True}, "request.malformed"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "request.malformed"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
                ]
            },
            "request.attachment",
        ),
    ],
)
def test_a_request_that_no_signature_covers_is_the_buyers_fault(extra: dict[str, Any], code: str) -> None:
    entry = service()
    reasons = OpenGradientBackend().objections(entry, document(REQUEST | extra))
    assert said(reasons) == {(code, "buyer")}
    assert OpenGradientBackend().objections(entry, document(REQUEST)) == ()


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (Document("application/json", b'{"model": "x"}'), "request.not_canonical"),
        (Document("application/json", b'{"a":1,"a":2}'), "request.not_json"),
        (Document("text/plain", canonical.encode(REQUEST)), "request.media_type"),
        (Document("application/json", b"[]"), "request.malformed"),
        (Document("application/json", b'{"tools":' + b"[" * 80 + b"]" * 80 + b"}"), "request.malformed"),
        (Document("application/json", b'"' + b"x" * 2**20 + b'"'), "request.too_large"),
    ],
)
def test_requests_are_canonical_json_of_a_bounded_size(payload: Document, code: str) -> None:
    assert said(OpenGradientBackend().objections(service(), payload)) == {(code, "buyer")}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        SignedResponse.of(respond()).encode() + b" ",
        SignedResponse.of(respond()).encode().replace(b'"version":1', b'"version":2'),
        SignedResponse.of(respond()).encode().replace(b"opengradient/current", b"dstack/pair"),
        SignedResponse.of(respond()).encode().replace(b'"timestamp":"', b'"timestamp":"-'),
    ],
)
def test_evidence_that_does_not_parse_is_refuted(body: bytes) -> None:
    entry, payload = service(), document(REQUEST)
    bundle = bundle_of(
        make_job(entry, payload), payload, signed_part(respond()).document(), Evidence("opengradient", body)
    )
    verdict = judge(bundle)
    assert isinstance(verdict, Rejected)
    assert all(code.startswith("opengradient.") and fault == "provider" for code, fault in said(verdict))


def test_the_replay_key_is_of_what_was_signed_and_not_of_the_signature() -> None:
    one, two = judge(chat(respond())), judge(chat(respond()))  # PSS is randomised
    other = judge(chat(respond(at=NOW - 11)))
    assert isinstance(one, Accepted)
    assert isinstance(two, Accepted)
    assert isinstance(other, Accepted)
    assert one.inputs.bundle != two.inputs.bundle
    assert one.findings[0].one_use == two.findings[0].one_use != other.findings[0].one_use


# --- streams ----------------------------------------------------------------------------------------------


def stream(*events: dict[str, Any], end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + end


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "index": 0}], "model": "gpt-4.1"}


def test_a_stream_is_put_together_into_the_response_that_was_signed() -> None:
    whole = respond()
    text = whole["choices"][0]["message"]["content"]
    last = {k: v for k, v in whole.items() if k != "choices"} | {
        "choices": [{"delta": {}, "finish_reason": "stop", "index": 0}]
    }
    rebuilt = from_stream(stream(delta(role="assistant", content=text[:3]), delta(content=text[3:]), last))
    assert isinstance(judge(chat(rebuilt)), Accepted)


def test_tool_calls_of_a_stream_are_merged_by_their_index() -> None:
    first = {"index": 0, "id": "call_1", "function": {"name": "add", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 2}"}}
    rebuilt = from_stream(stream(delta(tool_calls=[first]), delta(tool_calls=[rest])))
    assert signed_part(rebuilt).to_json()["choices"][0]["message"]["tool_calls"] == CALLS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        stream(delta(content="x"), end=b""),
        stream({"choices": [{"delta": {}, "index": 1}]}),
        stream({"choices": [{}, {}]}),
        stream({"choices": "x"}),
        stream({"choices": [{"delta": "x"}]}),
        stream(delta(tool_calls=[{"index": 10**6}])),
        stream(delta(tool_calls=["x"])),
        b"data: {\n\ndata: [DONE]\n",
        b"data: 1\n\ndata: [DONE]\n",
    ],
)
def test_a_stream_that_was_cut_or_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        from_stream(data)


# --- real data --------------------------------------------------------------------------------------------


def legacy(vectors: Path) -> tuple[dict[str, Any], SignedResponse, Answer, bytes]:
    from base64 import b64decode

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    case = json.loads((vectors / "providers" / "opengradient-legacy-response.json").read_text())
    der = load_pem_public_key(case["public_key_pem"].encode()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    signed = case["signed_data"]
    response = SignedResponse(
        binding=Binding.OPENGRADIENT_LEGACY,
        tee_id=opengradient.tee_id(der),
        request_hash=case["request_hash"],
        output_hash=None,
        timestamp=signed["timestamp"],
        signature=b64decode(case["signature_b64"]),
    )
    answer = Answer(signed["model"], signed["message"]["content"], (), signed["finish_reason"])
    return case["request"], response, answer, der


def test_the_real_legacy_response_is_accepted_at_its_time(vectors: Path) -> None:
    request, response, answer, der = legacy(vectors)
    now = int(datetime.fromisoformat("2025-12-16T08:21:00+00:00").timestamp())
    span = {"valid_from": now - 86_400, "valid_until": now + 86_400}
    entry = service(signer(der, bindings=(Binding.OPENGRADIENT_LEGACY,), **span), of=program(**span))
    payload, evidence = document(request), Evidence("opengradient", response.encode())
    bundle = bundle_of(make_job(entry, payload), payload, answer.document(), evidence)
    assert isinstance(judge(bundle, entry=entry, now=now), Accepted)
    refused(bundle, "opengradient.too_old", entry=entry, now=now + 3_600)
    for changed in (
        replace(answer, finish_reason="length"),
        replace(answer, content="Hello!"),
    ):
        other = bundle_of(make_job(entry, payload), payload, changed.document(), evidence)
        refused(other, "opengradient.signature", entry=entry, now=now)
    calls = document(tampered(lambda v: v["choices"][0].update(message={"role": "assistant", "content": 1})))
    refused(
        bundle_of(make_job(entry, payload), payload, calls, evidence),
        "answer.malformed",
        entry=entry,
        now=now,
    )


def test_the_current_sample_that_their_client_accepts_checks_here(vectors: Path) -> None:
    from base64 import b64decode

    case = json.loads((vectors / "opengradient" / "tee_response_current_SYNTHETIC.json").read_text())
    key = b64decode(case["signing_public_key_der_b64"])
    response = SignedResponse.of(case["response"])
    assert response.tee_id == opengradient.tee_id(key)
    request = case["canonical_request"]
    assert opengradient.request_text(response.binding, request) == case["canonical_request_utf8"]
    opengradient.check(key, response, request, signed_part(case["response"]))
    with pytest.raises(Refusal, match=r"opengradient\.output"):
        opengradient.check(key, response, request, Answer("gpt-4.1", "Hi"))


def test_a_list_whose_key_is_no_rsa_key_is_the_verifiers_fault() -> None:
    bad = bytes(300)
    entry = service(signer(bad))
    verdict = judge(chat(respond(), entry=entry, proof={"tee_id": opengradient.tee_id(bad)}), entry=entry)
    assert said(verdict) == {("opengradient.allowlist", "verifier")}


def test_a_response_without_a_signature_is_misuse() -> None:
    response = respond()
    del response["tee_signature"]
    with pytest.raises(Misuse):
        evidence_of(response)
    with pytest.raises(Misuse):
        signed_part({"choices": []})


def test_keys_of_other_schemes_are_not_tried() -> None:
    entry = service(signer(bytes(32), scheme=Scheme.ED25519))
    refused(chat(respond(), entry=entry), "opengradient.signer", entry=entry)
    assert len(spki()) > 256
    assert entry.document.signers[0].payee == PAYEE


# --- a document that vouches for the key ------------------------------------------------------------------


def vouching(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let a Nitro document check as a genuine one for our key, or as one that differs from it."""
    from proofhold.attestation.kept import Kept
    from proofhold.attestation.nitro import NitroDocument
    from proofhold.backends import opengradient as backend

    key = hashlib.sha256(spki()).digest()
    fields: dict[str, Any] = {
        "module_id": "i-0-enc0",
        "digest": "SHA384",
        "timestamp_ms": NOW * 1000,
        "pcrs": {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48},
        "nonce": None,
        "user_data": b"\x12\x20" + bytes(32) + b"\x12\x20" + key,
        "public_key": None,
        "certificate": b"",
        "cabundle": (),
        "signed_digest": "00" * 32,
        "valid_from": NOW - 60,
        "valid_until": NOW + 60,
    }
    monkeypatch.setattr(backend, "_genuine", lambda document: NitroDocument(**(fields | changes)))
    monkeypatch.setattr(backend, "_DOCUMENTS", Kept(lambda found: (found.valid_from, found.valid_until)))


SHOWN = service(signer(vouched=Vouching.SHOWN))
ATTESTED = {"attestation": b"a document"}


def test_a_document_for_key_and_program_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    vouching(monkeypatch)
    verdict = judge(chat(respond(), entry=SHOWN, proof=ATTESTED), entry=SHOWN)
    assert isinstance(verdict, Accepted), verdict
    facts = verdict.findings[0].facts
    assert facts["attested_at"] == str(NOW)
    assert facts["document_freshness"] == "by age, which is weaker than a nonce: 0 s"


def test_a_document_that_was_asked_for_with_our_nonce_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = chat(respond(), entry=SHOWN, proof=ATTESTED)
    digest = bytes.fromhex(bundle.exchange.job.digest)
    for nonce, weaker in ((digest[:20], False), (digest, True), (digest[1:21], True), (b"", True)):
        vouching(monkeypatch, nonce=nonce)
        verdict = judge(bundle, entry=SHOWN)
        assert isinstance(verdict, Accepted), verdict
        assert ("weaker" in verdict.findings[0].facts["document_freshness"]) is weaker


def test_a_document_is_checked_once_for_many_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from proofhold.backends import opengradient as backend

    vouching(monkeypatch)
    seen: list[bytes] = []
    check = backend._genuine

    def counted(document: bytes) -> Any:
        seen.append(document)
        return check(document)

    monkeypatch.setattr(backend, "_genuine", counted)
    for at in range(3):
        bundle = chat(respond(at=NOW - at), entry=SHOWN, proof=ATTESTED)
        assert isinstance(judge(bundle, entry=SHOWN), Accepted)
    assert seen == [b"a document"]
    judge(chat(respond(), entry=SHOWN, proof={"attestation": b"another"}), entry=SHOWN)
    assert seen == [b"a document", b"another"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"pcrs": {0: b"\4" * 48, 1: b"\2" * 48, 2: b"\3" * 48}}, "opengradient.measurement"),
        ({"user_data": b"\x12\x20" + bytes(32) + b"\x12\x20" + bytes(32)}, "opengradient.attested_key"),
        ({"user_data": b"\x12\x21" + bytes(32) + b"\x12\x20" + bytes(32)}, "opengradient.user_data"),
        ({"user_data": None}, "opengradient.user_data"),
        ({"valid_until": NOW - 1}, "nitro.expired"),
    ],
)
def test_a_document_of_another_program_key_or_time_is_not(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], code: str
) -> None:
    vouching(monkeypatch, **changes)
    refused(chat(respond(), entry=SHOWN, proof=ATTESTED), code, entry=SHOWN)


def test_20_a_real_document_of_another_enclave_does_not_vouch_for_ours(vectors: Path) -> None:
    made_at = int(datetime.fromisoformat("2026-02-12T17:56:32+00:00").timestamp())
    case = next(c for c in json.loads((vectors / "index.json").read_text()) if c["id"] == NITRO)
    pcrs = Measurement.of("nitro", {f"pcr{i}": case["expected"][f"pcr{i}"] for i in (0, 1, 2)})
    span: dict[str, Any] = {"valid_from": made_at - 60, "valid_until": made_at + 60}
    proof = {"attestation": (vectors / case["files"]["doc"]).read_bytes()}
    for measured, code in ((pcrs, "opengradient.attested_key"), (PCRS, "opengradient.measurement")):
        entry = service(signer(**span), of=program(measurements=(measured,), **span))
        refused(chat(respond(at=made_at), entry=entry, proof=proof), code, entry=entry, now=made_at)


NITRO = "nitro-opengradient-2026-02"


def test_a_document_that_is_none_is_refused() -> None:
    verdict = judge(chat(respond(), entry=SHOWN, proof=ATTESTED), entry=SHOWN)
    assert isinstance(verdict, Rejected)
    assert {code.partition(".")[0] for code, _ in said(verdict)} == {"nitro"}


@pytest.mark.parametrize("count", DAMAGES)
def test_damage_is_refuted(count: int) -> None:
    refutes_damage(OpenGradientBackend(), chat(respond()), service(), count)
