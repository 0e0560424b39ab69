"""What a service's endpoint hands out, made into an answer and its evidence, for a provider to claim.

A provider stands between an endpoint and an escrow. It keeps of a response what the signature covers, and
checks that signature before it signs a claim of its own: a claim is what it can be blamed for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proofhold.allowlist import Binding, Scheme, Signer
from proofhold.attestation import dstack, opengradient
from proofhold.attestation.dstack import SignedText
from proofhold.attestation.opengradient import SignedResponse
from proofhold.attestation.quote import without_padding
from proofhold.attestation.refusal import Refusal
from proofhold.catalogue import ServiceEntry
from proofhold.chat import MAX_CHAT_BYTES, MEDIA_TYPE, from_stream, read_answer, read_json, signed_part
from proofhold.core import Evidence
from proofhold.errors import Malformed, Misuse
from proofhold.payload import Document

EVENT_STREAM: Final = "text/event-stream"
_SCHEMES: Final = {"ecdsa": Scheme.SECP256K1, "ed25519": Scheme.ED25519}


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """What a provider claims of a response, and what stands behind it."""

    output: Document
    evidence: Evidence


def opengradient_answer(
    entry: ServiceEntry,
    request: Document,
    response: bytes,
    *,
    form: Binding | None = None,
    attestation: bytes | None = None,
) -> ServiceAnswer:
    """Take an OpenGradient enclave's response.

    Args:
        entry: the service's.
        request: what was sent.
        response: the body of the response, JSON or a stream of events.
        form: how the enclave signed; may be left out where the allow-list names one for its key.
        attestation: a Nitro document that vouches for the key, where the list asks for one.

    Raises:
        Misuse: it is no such response, its key is not on the list, or it does not bear its signature.

    """
    fields = _fields(response)
    claimed = SignedResponse.of(fields, attestation=attestation)
    keys = (signer for signer in entry.document.signers if signer.scheme is Scheme.RSA_PSS)
    signer = next((s for s in keys if opengradient.tee_id(s.key) == claimed.tee_id), None)
    form = _form(signer, claimed.tee_id, form)
    output = signed_part(fields).document()
    try:
        signed = SignedResponse.decode(replace(claimed, binding=form).encode())
        answer = read_answer(output, signed_finish_reason=False)
        opengradient.check(_listed(signer, claimed.tee_id).key, signed, _request(request), answer)
    except (Malformed, Refusal) as error:
        raise Misuse(f"this response would be refused: {error}") from error
    return ServiceAnswer(output, Evidence(opengradient.KIND, signed.encode()))


def dstack_answer(
    entry: ServiceEntry,
    request: Document,
    response: bytes,
    signature: bytes,
    *,
    form: Binding | None = None,
    quote: bytes | None = None,
    tls_fingerprint: bytes | None = None,
    collateral: bytes | None = None,
) -> ServiceAnswer:
    """Take a dstack proxy's response, whose signature comes from an endpoint of its own.

    Args:
        entry: the service's.
        request: what was sent, byte for byte.
        response: what came back, byte for byte: of a stream all of its events.
        signature: the body of ``/v1/signature/ID``: text, signature, signing_address, signing_algo.
        form: the form of the text; left out, the one that it has.
        quote: a TDX quote that vouches for the key, where the list asks for one; zeros behind it are cut.
        tls_fingerprint: SHA-256 of the endpoint's certificate, where the quote hashes it with the key.
        collateral: the quote's collateral.

    Raises:
        Misuse: as `opengradient_answer`.

    """
    stated = _object(signature, "the signature")
    try:
        scheme = _SCHEMES[stated["signing_algo"]]
        key, signed = (
            bytes.fromhex(stated[name].removeprefix("0x")) for name in ("signing_address", "signature")
        )
        text = stated["text"]
        form = form or (Binding.DSTACK_MODEL if text.count(":") > 1 else Binding.DSTACK_PAIR)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise Misuse(f"the signature is no dstack proxy's: {error}") from error
    signer = entry.document.signer(scheme, key)
    found = SignedText(
        binding=_form(signer, key.hex(), form),
        scheme=scheme,
        key=key,
        text=text,
        signature=signed,
        quote=None if quote is None else without_padding(quote),
        tls_fingerprint=tls_fingerprint,
    )
    media_type = EVENT_STREAM if response.startswith(b"data:") else MEDIA_TYPE
    output = Document(media_type, response)
    try:
        dstack.check(SignedText.decode(found.encode()), request.body, response)
    except (Malformed, Refusal) as error:
        raise Misuse(f"this response would be refused: {error}") from error
    beside = {} if collateral is None else {"dcap": collateral}
    return ServiceAnswer(output, Evidence(dstack.KIND, found.encode(), beside))


def _form(signer: Signer | None, name: str, form: Binding | None) -> Binding:
    bindings = _listed(signer, name).bindings
    if form is None and len(bindings) > 1:
        raise Misuse(f"the allow-list lets this key sign as {', '.join(bindings)}: say which")
    if form is not None and form not in bindings:
        raise Misuse(f"the allow-list lets this key sign as {', '.join(bindings)}, not as {form}")
    return form or bindings[0]


def _listed(signer: Signer | None, name: str) -> Signer:
    if signer is None:
        raise Misuse(f"the allow-list does not know the key {name}: nobody would pay for its answers")
    return signer


def _fields(response: bytes) -> dict[str, Any]:
    if response.startswith(b"data:"):
        try:
            return from_stream(response)
        except Malformed as error:
            raise Misuse(f"this stream would be refused: {error}") from error
    return _object(response, "the response")


def _object(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_CHAT_BYTES:
        raise Misuse(f"{what} has more than {MAX_CHAT_BYTES} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Misuse(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise Misuse(f"{what} is no JSON object")
    return value


def _request(request: Document) -> Mapping[str, Any]:
    return read_json(request, what="request")


__all__ = ["ServiceAnswer", "dstack_answer", "opengradient_answer"]
