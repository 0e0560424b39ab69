"""What tests of services share: an enclave that signs as OpenGradient's do, its allow-list, and exchanges."""

from __future__ import annotations

import base64
import functools
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from judging import BUYER, NONCE, NOW, PRICE, PROVIDER, SECRET, VERIFIER, key_of
from proofhold import canonical
from proofhold.allowlist import AllowList, Binding, Measurement, Program, Scheme, Signer
from proofhold.attestation.ethereum import keccak256
from proofhold.attestation.opengradient import SignedResponse
from proofhold.backends.opengradient import OpenGradientBackend
from proofhold.catalogue import Catalogue, ServiceEntry
from proofhold.chat import Answer, signed_part
from proofhold.core import Evidence, Finding, Verdict
from proofhold.drafting import USDC
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Claim, Delivery, Job, NamedEvidence, Service
from proofhold.keys import Signed
from proofhold.payload import Document, Payload
from proofhold.policy import Policy
from proofhold.sampling import commitment
from proofhold.verifier import ServiceBackend, Verifier

CURATOR = key_of("curator")
SERVICE = "chat"
PAYEE = "chat-account"
AGE_S = 300
REQUEST: dict[str, Any] = {
    "max_tokens": 100,
    "messages": [{"content": "Grüß Gott, what is 2+2?", "role": "user"}],
    "model": "gpt-4.1",
    "temperature": 0.7,
}
PCRS = Measurement.of("nitro", {"pcr0": "01" * 48, "pcr1": "02" * 48, "pcr2": "03" * 48})


@functools.cache
def enclave_key(number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def spki(number: int = 0) -> bytes:
    public = enclave_key(number).public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def program(**changes: Any) -> Program:
    made = Program(
        name="gateway",
        image="tee-gateway",
        source="https://example.org/tee-gateway",
        measurements=(PCRS,),
        valid_from=NOW - 86_400,
        valid_until=NOW + 86_400,
    )
    return replace(made, **changes)


def signer(key: bytes | None = None, **changes: Any) -> Signer:
    made = Signer(
        scheme=changes.pop("scheme", Scheme.RSA_PSS),
        key=spki() if key is None else key,
        program="gateway",
        payee=PAYEE,
        bindings=(Binding.OPENGRADIENT_CURRENT,),
        valid_from=NOW - 86_400,
        valid_until=NOW + 86_400,
    )
    return replace(made, **changes)


def allowlist(*signers: Signer, of: Program | None = None, **changes: Any) -> AllowList:
    made = AllowList(
        service=SERVICE,
        issued_at=NOW - 86_400,
        max_age_s=AGE_S,
        programs=(of or program(),),
        signers=tuple(sorted(signers or (signer(),), key=lambda s: s.order)),
    )
    return replace(made, **changes)


def service(*signers: Signer, **changes: Any) -> ServiceEntry:
    return ServiceEntry(Signed.new(allowlist(*signers, **changes), CURATOR))


def respond(
    request: dict[str, Any] = REQUEST,
    message: dict[str, Any] | None = None,
    *,
    at: int = NOW - 10,
    number: int = 0,
    finish_reason: str = "stop",
) -> dict[str, Any]:
    """A response as the gateway gives it, `usage` and all; hashed here from the facts, not by our code."""
    message = message or {"role": "assistant", "content": "It is 4. ✓"}
    if calls := message.get("tool_calls"):
        output, finish_reason = json.dumps(calls, sort_keys=True), "tool_calls"
    else:
        output = message["content"]
    asked = {"temperature": 0.0, **request}
    request_hash = keccak256(json.dumps(asked, sort_keys=True).encode())
    output_hash = keccak256(output.encode())
    digest = keccak256(request_hash + output_hash + at.to_bytes(32, "big"))
    signature = enclave_key(number).sign(digest, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())
    return {
        "choices": [{"finish_reason": finish_reason, "index": 0, "message": message}],
        "id": "chatcmpl-1",
        "model": request["model"],
        "tee_id": "0x" + keccak256(spki(number)).hex(),
        "tee_output_hash": output_hash.hex(),
        "tee_request_hash": request_hash.hex(),
        "tee_signature": base64.b64encode(signature).decode(),
        "tee_timestamp": at,
        "usage": {"completion_tokens": 8, "prompt_tokens": 10, "total_tokens": 18},
    }


def document(value: Any) -> Document:
    return Document("application/json", canonical.encode(value))


def policy() -> Policy:
    return Policy.shipped("attested-routing")


def make_job(entry: ServiceEntry, payload: Payload, /, **changes: Any) -> Job:
    job = Job(
        escrow="test-escrow",
        verifier=VERIFIER.public,
        buyer=BUYER.public,
        provider=PROVIDER.public,
        payee=PAYEE,
        model=Service(entry.name, entry.digest),
        input=payload.digest(NONCE),
        price=PRICE,
        currency=USDC,
        nonce=NONCE.hex(),
        claim_by=NOW + 3_600,
        verification_s=3_600,
        answer_s=3_600,
        dispute_s=86_400,
        freeze_s=7 * 86_400,
        delivery=Delivery.WITH_VERDICT,
        policy=policy().digest,
        evidence_kinds=("opengradient",),
        sampling_rate_ppm=0,
        bond=0,
        withholding_penalty=0,
        sampling_commitment=commitment(NONCE, SECRET),
    )
    return replace(job, **changes)


def bundle_of(job: Job, payload: Payload, output: Payload, evidence: Evidence) -> Bundle:
    """An exchange that buyer and provider signed, whatever it says."""
    signed = Signed.new(job, BUYER, PROVIDER)
    claim = Claim(
        job=signed.digest,
        seq=0,
        amount=job.price,
        output=output.digest(bytes.fromhex(job.nonce)),
        evidence=(NamedEvidence(kind=evidence.kind, digest=evidence.digest),),
    )
    return Bundle(Exchange(signed, payload, Signed.new(claim, PROVIDER), output), (evidence,))


def evidence_of(response: dict[str, Any], **changes: Any) -> Evidence:
    return Evidence("opengradient", replace(SignedResponse.of(response), **changes).encode())


def chat(
    response: dict[str, Any],
    *,
    entry: ServiceEntry | None = None,
    request: dict[str, Any] = REQUEST,
    output: Document | Answer | None = None,
    proof: dict[str, Any] | None = None,
    **changes: Any,
) -> Bundle:
    """What a provider claims that relays a response: its signed part, unless it claims something else."""
    entry, payload = entry or service(), document(request)
    output = signed_part(response) if output is None else output
    output = output.document() if isinstance(output, Answer) else output
    return bundle_of(
        make_job(entry, payload, **changes), payload, output, evidence_of(response, **(proof or {}))
    )


def judge(bundle: Bundle, *, entry: ServiceEntry | None = None, now: int = NOW) -> Verdict:
    verifier = Verifier(Catalogue((), (entry or service(),)), (), None, (OpenGradientBackend(),))
    return verifier.verify(bundle.exchange, bundle.evidence, policy=policy(), now=now)


# --- damage -----------------------------------------------------------------------------------------------

DAMAGES = [1_000, pytest.param(10_000, marks=pytest.mark.long)]


def damaged(data: bytes, drawn: random.Random) -> bytes:
    """One bit, one byte, a piece left out, a piece twice, or an end cut off."""
    at, size = drawn.randrange(len(data)), drawn.randrange(1, 9)
    match drawn.randrange(5):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << drawn.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + drawn.randbytes(1) + data[at + 1 :]
        case 2:
            return data[:at] + data[at + size :]
        case 3:
            return data[: at + size] + data[at:]
        case _:
            return data[:at]


def refutes_damage(backend: ServiceBackend, bundle: Bundle, entry: ServiceEntry, count: int) -> None:
    """Expect of damaged evidence, requests and answers that they establish nothing new, and raise nothing."""
    (honest,), exchange, drawn = bundle.evidence, bundle.exchange, random.Random(count)
    good = backend.check(honest, exchange, entry, answers=(), now=NOW)
    assert isinstance(good, Finding)
    for _ in range(count):
        evidence = Evidence(honest.kind, damaged(honest.body, drawn))
        check = backend.check(evidence, exchange, entry, answers=(), now=NOW)
        # The recovery number of EIP-191 has two spellings, and one signed payload behind them.
        assert not isinstance(check, Finding) or check.one_use == good.one_use
        for field in ("input", "output"):
            document = getattr(exchange, field)
            body = damaged(document.body, drawn)
            if body == document.body:
                continue
            fields: dict[str, Any] = {field: Document(document.media_type, body)}
            swapped = replace(exchange, **fields)
            check = backend.check(honest, swapped, entry, answers=(), now=NOW)
            assert not isinstance(check, Finding)
