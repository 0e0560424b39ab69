"""The index's cases of a service's signature alone: dstack's signed texts, OpenGradient's legacy form.

Such a case holds no exchange, so neither payee, age nor use is judged: only whether the key signed what the
file says. Cases that also hold attestations and GPU evidence are not these.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

from proofhold.allowlist import Binding, Scheme
from proofhold.attestation import dstack, opengradient
from proofhold.attestation.dstack import SignedText
from proofhold.attestation.opengradient import SignedResponse
from proofhold.attestation.refusal import Refusal
from proofhold.chat import Answer
from proofhold.errors import Malformed, Misuse

MAX_VECTOR_BYTES: Final = 64 * 1024
MALFORMED: Final = "service.malformed"
_SCHEMES: Final = {"ecdsa": Scheme.SECP256K1, "ed25519": Scheme.ED25519}


def check_signature(data: bytes) -> dict[str, str]:
    """Check the signature of one case's file, and give the facts that it states.

    Raises:
        Refusal: ``service.malformed``, or as `dstack.check_signature` and `opengradient.check`.

    """
    if len(data) > MAX_VECTOR_BYTES:
        raise Refusal(MALFORMED, f"more than {MAX_VECTOR_BYTES} bytes", step=1)
    try:
        value = json.loads(data)
        return _dstack(value) if "signing_address" in value else _opengradient(value)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, Misuse) as error:
        text = f"not a signed text or response: {type(error).__name__}"
        raise Refusal(MALFORMED, text, step=1) from error
    except Malformed as error:
        raise Refusal(MALFORMED, error.message, step=1) from error


def _dstack(value: dict[str, Any]) -> dict[str, str]:
    text = str(value["text"])
    signed = SignedText(
        # A file states no form: the one with a model has a colon more.
        binding=Binding.DSTACK_MODEL if text.count(":") > 1 else Binding.DSTACK_PAIR,
        scheme=_SCHEMES[value["signing_algo"]],
        key=bytes.fromhex(value["signing_address"].removeprefix("0x")),
        text=text,
        signature=bytes.fromhex(value["signature"].removeprefix("0x")),
    )
    dstack.signed_model(signed)
    dstack.check_signature(SignedText.decode(signed.encode()))
    return {"signing_address": "0x" + signed.key.hex()}


def _opengradient(value: dict[str, Any]) -> dict[str, str]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        public = load_pem_public_key(value["public_key_pem"].encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("public_key_pem") from error
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    stated = value["signed_data"]
    try:
        signature = base64.b64decode(value["signature_b64"], validate=True)
    except binascii.Error as error:
        raise ValueError("signature") from error
    if stated["request_hash"] != value["request_hash"] or stated["message"].keys() != {"content", "role"}:
        raise ValueError("signed_data")
    response = SignedResponse(
        binding=Binding.OPENGRADIENT_LEGACY,
        tee_id=opengradient.tee_id(spki),
        request_hash=stated["request_hash"],
        output_hash=None,
        timestamp=stated["timestamp"],
        signature=signature,
    )
    answer = Answer(stated["model"], stated["message"]["content"], (), stated["finish_reason"])
    opengradient.check(spki, SignedResponse.decode(response.encode()), value["request"], answer)
    return {"tee_id": response.tee_id, "timestamp": response.timestamp}
