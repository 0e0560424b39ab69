"""What an OpenGradient enclave signs (OpenGradient/tee-gateway; docs/formats/services.md).

Three forms, of which a caller names one; none is guessed:

- **current**: Keccak-256 of the canonical request, Keccak-256 of the answer's text, and the time in seconds,
  packed and hashed as a contract does; RSA-PSS with a salt of 32 bytes.
- **str-list**: the same, but a message's list of parts was hashed as Python prints it.
- **legacy** (2025): SHA-256 of the whole request, inside a signed JSON text; RSA-PSS with the longest salt.

"Canonical" is here `json.dumps(…, sort_keys=True)` with Python's own separators and escapes, byte for byte.
The steps of `check`:

1. Hash the request, and compare with the hash that is claimed.
2. Hash the answer, and compare.
3. Build the signed message, and check the signature.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from proofhold import canonical
from proofhold.allowlist import Binding
from proofhold.attestation.ethereum import keccak256
from proofhold.attestation.refusal import Refusal
from proofhold.canonical import Json
from proofhold.chat import MAX_MESSAGES, MAX_PARTS, Answer, read_call
from proofhold.errors import Malformed, Misuse
from proofhold.records import Record

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.padding import PSS
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

KIND: Final = "opengradient"
MAX_PROOF_BYTES = 64 * 1024
MAX_SIGNATURE_BYTES = 512
MAX_ATTESTATION_BYTES = 32 * 1024
KEYS_KEPT: Final = 256
"""As many as an allow-list has: names and parsed keys are functions of their bytes."""
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 4096
SALT_BYTES: Final = 32
MULTIHASH_SHA256: Final = bytes.fromhex("1220")

COVERED: Final = frozenset(
    {"max_tokens", "messages", "model", "response_format", "stop", "temperature", "tools", "web_search"}
)
"""What the current form covers of a request. Of the rest (top_p, n, seed, tool_choice) nobody could say
whether it was heeded."""
PLAIN_FORMATS: Final = ("text", "json_object")
LEGACY_COVERED: Final = frozenset(
    {"max_tokens", "messages", "model", "stop", "temperature", "tool_choice", "tools"}
)
ROLES: Final = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}

_dumps = json.JSONEncoder(sort_keys=True).encode
"""`json.dumps(…, sort_keys=True)`, without making its encoder anew each time."""
_HASH = re.compile(r"(?:0x)?([0-9a-f]{64})")
_ISO = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?\+00:00", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedResponse:
    """The evidence: what an enclave states beside its answer. Hashes and names are lower-case hexadecimal."""

    binding: Binding
    tee_id: str
    """Keccak-256 of the key's SubjectPublicKeyInfo."""
    request_hash: str
    output_hash: str | None
    """None in the legacy form, which has none."""
    timestamp: str
    """Seconds in decimal; in the legacy form a time in ISO 8601, as it was signed."""
    signature: bytes
    attestation: bytes | None = None
    """A Nitro document that vouches for the key."""

    @property
    def signed_at(self) -> int:
        """The time that it states, unix seconds, rounded down."""
        if self.binding is Binding.OPENGRADIENT_LEGACY:
            return int(datetime.fromisoformat(self.timestamp).timestamp())
        return int(self.timestamp)

    def encode(self) -> bytes:
        """Write the evidence: canonical JSON, version 1."""
        attestation = None if self.attestation is None else base64.b64encode(self.attestation).decode()
        return canonical.encode(
            {
                "attestation": attestation,
                "binding": self.binding,
                "output_hash": self.output_hash,
                "request_hash": self.request_hash,
                "signature": base64.b64encode(self.signature).decode(),
                "tee_id": self.tee_id,
                "timestamp": self.timestamp,
                "version": 1,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> SignedResponse:
        """Read the evidence.

        Raises:
            Malformed: ``opengradient.…``: not the canonical encoding of version 1.

        """
        record = Record(canonical.decode(data, max_bytes=MAX_PROOF_BYTES, what=KIND), what=KIND)
        record.version(1)
        binding = record.choice("binding", Binding)
        if binding.kind != KIND:
            raise record.error(f"got {binding}, which is another service's", "binding")
        legacy = binding is Binding.OPENGRADIENT_LEGACY
        pattern = _ISO.pattern if legacy else r"[1-9][0-9]{0,11}"
        response = cls(
            binding=binding,
            tee_id=record.digest("tee_id"),
            request_hash=record.digest("request_hash"),
            output_hash=record.optional("output_hash", record.digest),
            timestamp=record.text("timestamp", max_chars=40, pattern=pattern),
            signature=record.base64("signature", max_bytes=MAX_SIGNATURE_BYTES),
            attestation=record.optional(
                "attestation", lambda field: record.base64(field, max_bytes=MAX_ATTESTATION_BYTES)
            ),
        )
        if (response.output_hash is None) is not legacy:
            raise record.error("the legacy form has no such hash, and every other one has", "output_hash")
        record.close()
        try:
            _ = response.signed_at
        except ValueError as error:  # the thirtieth of February
            raise record.error("no such time", "timestamp") from error
        return response

    @classmethod
    def of(
        cls,
        response: Mapping[str, Any],
        *,
        binding: Binding = Binding.OPENGRADIENT_CURRENT,
        attestation: bytes | None = None,
    ) -> SignedResponse:
        """Take the ``tee_…`` fields of an endpoint's response (the forms but the legacy one).

        Raises:
            Misuse: one is missing, or is not of its form.

        """
        try:
            hashes = [
                _HASH.fullmatch(response[f"tee_{name}"]) for name in ("id", "request_hash", "output_hash")
            ]
            signature = base64.b64decode(response["tee_signature"], validate=True)
            timestamp = int(response["tee_timestamp"])
        except (KeyError, TypeError, ValueError) as error:
            raise Misuse(f"this response carries no enclave's signature: {error}") from error
        tee_id, request_hash, output_hash = (match[1] if match else "" for match in hashes)
        if not (tee_id and request_hash and output_hash):
            raise Misuse("tee_id, tee_request_hash and tee_output_hash have 64 hexadecimal digits")
        return cls(
            binding=binding,
            tee_id=tee_id,
            request_hash=request_hash,
            output_hash=output_hash,
            timestamp=str(timestamp),
            signature=signature,
            attestation=attestation,
        )


@functools.lru_cache(maxsize=KEYS_KEPT)
def tee_id(spki: bytes) -> str:
    """Name an enclave's key, given by the DER of its SubjectPublicKeyInfo."""
    return keccak256(spki).hex()


def require_rsa_key(spki: bytes) -> None:
    """Require a key that such an enclave can have.

    Raises:
        Misuse: it is none.

    """
    _public_key(spki)


def request_text(binding: Binding, request: Mapping[str, Any]) -> str:
    """Give the text that the enclave hashes of a request.

    Raises:
        Malformed: ``request.uncovered`` where the request says something that the form does not cover,
            ``request.attachment``, or ``request.malformed``.

    """
    covered = LEGACY_COVERED if binding is Binding.OPENGRADIENT_LEGACY else COVERED
    if extra := sorted(set(request) - covered):
        text = (
            f"{', '.join(extra)[:200]}: the signature does not cover it, so nothing shows that it was heeded"
        )
        raise Malformed("request.uncovered", text)
    model, messages = request.get("model"), request.get("messages")
    if not isinstance(model, str) or not model:
        raise Malformed("request.malformed", "request: model: expected a string")
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        raise Malformed("request.malformed", f"request: messages: expected 1 to {MAX_MESSAGES}")
    _check_options(request)
    if binding is Binding.OPENGRADIENT_LEGACY:
        for message in messages:
            _check_legacy_message(message)
        return _dumps(dict(request))
    as_text = binding is Binding.OPENGRADIENT_STR_LIST
    result: dict[str, Json] = {
        "messages": [_message(message, as_text=as_text) for message in messages],
        "model": model,
        "temperature": float(request.get("temperature") or 0.0),
    }
    if request.get("max_tokens") is not None:
        result["max_tokens"] = request["max_tokens"]
    result |= {key: request[key] for key in ("stop", "tools", "response_format") if request.get(key)}
    if request.get("web_search"):
        result["web_search"] = True
    return _dumps(result)


def _check_options(request: Mapping[str, Any]) -> None:
    """Refuse values that the gateway would turn into others before it hashes them."""
    temperature, web_search = request.get("temperature"), request.get("web_search", False)
    if not (
        temperature is None or (isinstance(temperature, int | float) and not isinstance(temperature, bool))
    ):
        raise Malformed("request.malformed", "request: temperature: expected a number")
    if not isinstance(web_search, bool):
        raise Malformed("request.malformed", "request: web_search: expected true or false")
    for field, kind in (("max_tokens", int), ("tools", list), ("response_format", dict)):
        if not isinstance(value := request.get(field), kind | None) or isinstance(value, bool):
            raise Malformed("request.malformed", f"request: {field}: expected another type")
    if (wanted := request.get("response_format")) and (
        wanted.keys() != {"type"} or wanted["type"] not in PLAIN_FORMATS
    ):
        # The gateway rewrites schemas before it hashes them: an honest answer would look false here.
        text = "response_format: only a plain type is hashed as it was sent"
        raise Malformed("request.uncovered", text)
    if not isinstance(request.get("stop"), str | list | None):
        raise Malformed("request.malformed", "request: stop: expected a string or a list")


def _message(message: Any, *, as_text: bool) -> dict[str, Json]:
    record = Record(message, what="request", path="messages")
    role = record.text("role")
    if role not in ROLES:
        raise record.error(f"got {role[:80]!r}, expected one of {', '.join(ROLES)}", "role")
    result: dict[str, Json] = {"role": ROLES[role]}
    content = record.take("content") if record.has("content") else ""
    if content is None and role == "assistant":
        content = ""  # as clients write a message that holds nothing but tool calls
    result["content"] = _content(content, as_text=as_text and role == "user")
    if role == "tool":
        result["tool_call_id"] = record.text("tool_call_id")
    if role == "assistant" and record.has("tool_calls"):
        calls = record.records("tool_calls", max_items=MAX_PARTS)
        result["tool_calls"] = [read_call(call).to_json() for call in calls]
    record.close()
    return result


def _content(content: Any, *, as_text: bool) -> Json:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not 0 < len(content) <= MAX_PARTS:
        raise Malformed("request.malformed", "request: content: expected a string or a list of parts")
    for part in content:
        if not isinstance(part, dict) or part.keys() != {"type", "text"} or part["type"] != "text":
            # Of an image or a file only its type and name are hashed: any other would do as well.
            raise Malformed("request.attachment", "attachments are not covered by the signature")
        if not isinstance(part["text"], str):
            raise Malformed("request.malformed", "request: content: a text that is none")
    parts = [{"type": "text", "text": part["text"]} for part in content]
    return str(parts) if as_text else parts


def _check_legacy_message(message: Any) -> None:
    allowed = {"role", "content", "tool_calls", "tool_call_id", "name"}
    if not isinstance(message, dict) or not set(message) <= allowed:
        raise Malformed(
            "request.malformed", f"request: a message has {', '.join(sorted(allowed))} and no more"
        )
    if not isinstance(message.get("content"), str | None):
        raise Malformed("request.attachment", "the legacy form signs texts only")


def output_text(answer: Answer) -> str:
    """Give the text that the enclave hashes of an answer: its words, or its tool calls as JSON."""
    if answer.tool_calls:
        return _dumps([call.to_json() for call in answer.tool_calls])
    return answer.content or ""


def check(spki: bytes, response: SignedResponse, request: Mapping[str, Any], answer: Answer) -> bytes:
    """Check that the key signed this answer to this request, and give the bytes that it signed.

    Raises:
        Refusal: ``opengradient.request``, ``opengradient.output`` or ``opengradient.signature``.
        Malformed: as `request_text`.
        Misuse: the key is not one that such an enclave has, or the extra ``tee`` is missing.

    """
    text = request_text(response.binding, request).encode()
    if response.binding is Binding.OPENGRADIENT_LEGACY:
        _compare("request", 1, hashlib.sha256(text).hexdigest(), response.request_hash)  # step 1
        signed = _dumps(  # step 2: the answer itself is in the message
            {
                "finish_reason": answer.finish_reason,
                "message": {"content": answer.content, "role": "assistant"},
                "model": answer.model,
                "request_hash": response.request_hash,
                "timestamp": response.timestamp,
            }
        ).encode()
        _check_signature(spki, response.signature, signed, longest_salt=True)  # step 3
        return signed
    _compare("request", 1, keccak256(text).hex(), response.request_hash)  # step 1
    output = keccak256(output_text(answer).encode())
    _compare("output", 2, output.hex(), response.output_hash or "")  # step 2
    packed = bytes.fromhex(response.request_hash) + output + int(response.timestamp).to_bytes(32, "big")
    signed = keccak256(packed)
    _check_signature(spki, response.signature, signed, longest_salt=False)  # step 3
    return signed


def attested_key(user_data: bytes | None) -> bytes:
    """Give the SHA-256 of the signing key that a Nitro document's user data name (nitriding's layout).

    Raises:
        Refusal: ``opengradient.user_data``: not two multihashes, of the TLS certificate and of the key.

    """
    prefix, size = MULTIHASH_SHA256, len(MULTIHASH_SHA256) + 32
    data = user_data or b""
    if len(data) != 2 * size or not data.startswith(prefix) or not data.startswith(prefix, size):
        text = "the user data are not two SHA-256 multihashes"
        raise Refusal("opengradient.user_data", text, step=4, got=data.hex()[:80])
    return data[size + len(prefix) :]


def _compare(what: str, step: int, got: str, expected: str) -> None:
    if got != expected:
        text = f"the enclave signed for another {what}"
        raise Refusal(f"opengradient.{what}", text, step=step, got=expected, expected=got)


def _check_signature(spki: bytes, signature: bytes, message: bytes, *, longest_salt: bool) -> None:
    from cryptography.exceptions import InvalidSignature

    scheme, sha256 = _scheme(longest_salt=longest_salt)
    try:
        _public_key(spki).verify(signature, message, scheme, sha256)
    except InvalidSignature as error:
        text = "the signature is not the enclave's over this request, answer and time"
        raise Refusal("opengradient.signature", text, step=3) from error


@functools.cache
def _scheme(*, longest_salt: bool) -> tuple[PSS, SHA256]:
    """Give the padding of a form and its hash."""
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
    from cryptography.hazmat.primitives.hashes import SHA256

    return PSS(MGF1(SHA256()), PSS.MAX_LENGTH if longest_salt else SALT_BYTES), SHA256()


@functools.lru_cache(maxsize=KEYS_KEPT)
def _public_key(spki: bytes) -> RSAPublicKey:
    """Read a key that an allow-list names."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        public = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Misuse("the allow-list's key is no SubjectPublicKeyInfo in DER") from error
    if not isinstance(public, RSAPublicKey) or not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise Misuse(f"the allow-list's key is no RSA key of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    return public


__all__ = ["KIND", "SignedResponse", "attested_key", "check", "output_text", "request_text", "tee_id"]
