"""What the proxies of the dstack family sign: vllm-proxy of Phala, RedPill, NEAR AI, Venice.

The signed text is ``sha256(request):sha256(response)``, hashes in lower-case hexadecimal over the bytes on
the wire (of a stream: over all its events), or the same behind the model's name and a colon. It is signed by
an Ethereum account (EIP-191) or an Ed25519 key, and a quote's report data name the account or key
(docs/formats/services.md). The steps of `check`:

1. The text is one of the two forms, to the letter.
2. Hash the response, and compare.
3. Hash the request, and compare.
4. Check the signature.

The text states neither a time nor a nonce, and some versions sign whatever hash of the request their client
hands them: what that leaves unshown is a backend's to say.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from proofhold import canonical
from proofhold.allowlist import Binding, Scheme
from proofhold.attestation.ethereum import recover
from proofhold.attestation.refusal import Refusal
from proofhold.keys import is_signature
from proofhold.records import Record

KIND: Final = "dstack"
MAX_TEXT_CHARS = 512
MAX_SIGNATURE_BYTES = 65
MAX_QUOTE_BYTES = 32 * 1024
MAX_EVIDENCE_BYTES = 64 * 1024
MAX_KEY_BYTES = 32
REPORT_DATA_BYTES: Final = 64

_PAIR = re.compile(r"([0-9a-f]{64}):([0-9a-f]{64})", re.ASCII)
_MODEL = re.compile(r"(?P<model>[\x21-\x7e]{1,256}):(?P<pair>[0-9a-f]{64}:[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedText:
    """The evidence: a proxy's signature over a text, and, where there is one, a quote for its key."""

    binding: Binding
    scheme: Scheme
    key: bytes
    """The address (20 bytes) or the Ed25519 key (32)."""
    text: str
    signature: bytes
    quote: bytes | None = None
    tls_fingerprint: bytes | None = None
    """SHA-256 of the endpoint's certificate, where the report data hash it together with the key."""

    def encode(self) -> bytes:
        """Write the evidence: canonical JSON, version 1."""
        fingerprint = self.tls_fingerprint
        return canonical.encode(
            {
                "binding": self.binding,
                "key": self.key.hex(),
                "quote": None if self.quote is None else base64.b64encode(self.quote).decode(),
                "scheme": self.scheme,
                "signature": base64.b64encode(self.signature).decode(),
                "text": self.text,
                "tls_fingerprint": None if fingerprint is None else fingerprint.hex(),
                "version": 1,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> SignedText:
        """Read the evidence.

        Raises:
            Malformed: ``dstack.…``: not the canonical encoding of version 1.

        """
        record = Record(canonical.decode(data, max_bytes=MAX_EVIDENCE_BYTES, what=KIND), what=KIND)
        record.version(1)
        binding, scheme = record.choice("binding", Binding), record.choice("scheme", Scheme)
        if binding.kind != KIND:
            raise record.error(f"got {binding}, which is another service's", "binding")
        if scheme is Scheme.RSA_PSS:
            raise record.error("these services sign by secp256k1 or ed25519", "scheme")
        key_bytes = 20 if scheme is Scheme.SECP256K1 else 32
        fingerprint = record.optional("tls_fingerprint", record.digest)
        signed = cls(
            binding=binding,
            scheme=scheme,
            key=bytes.fromhex(record.hexadecimal("key", length_bytes=key_bytes)),
            text=record.text("text", max_chars=MAX_TEXT_CHARS),
            signature=record.base64("signature", max_bytes=MAX_SIGNATURE_BYTES),
            quote=record.optional("quote", lambda field: record.base64(field, max_bytes=MAX_QUOTE_BYTES)),
            tls_fingerprint=None if fingerprint is None else bytes.fromhex(fingerprint),
        )
        record.close()
        return signed


def signed_model(signed: SignedText) -> str | None:
    """Give the model that the text names, None in the form that names none.

    Raises:
        Refusal: ``dstack.text``.

    """
    return _read(signed)[0]


def check(signed: SignedText, request: bytes, response: bytes) -> bytes:
    """Check that the key signed these bytes, and give the text that it signed.

    Raises:
        Refusal: ``dstack.text``, ``dstack.output``, ``dstack.request``, ``dstack.signature`` or
            ``ethereum.…``.
        Misuse: the extra ``tee`` is missing.

    """
    _, asked, answered = _read(signed)  # step 1
    _compare("output", 2, hashlib.sha256(response).hexdigest(), answered)  # step 2
    _compare("request", 3, hashlib.sha256(request).hexdigest(), asked)  # step 3
    check_signature(signed)  # step 4
    return signed.text.encode()


def check_signature(signed: SignedText) -> None:
    """Check the signature over the text, whatever it says: step 4 alone.

    Raises:
        Refusal: ``dstack.signature`` or ``ethereum.…``.

    """
    text = signed.text.encode()
    if signed.scheme is Scheme.ED25519:
        if not is_signature(f"ed25519:{signed.key.hex()}", signed.signature, text):
            raise Refusal("dstack.signature", "the signature is not this key's over the text", step=4)
        return
    address = recover(text, signed.signature)
    if address != signed.key:
        message = "the signature is not this account's over the text"
        got, expected = address.hex(), signed.key.hex()
        raise Refusal("dstack.signature", message, step=4, got=got, expected=expected)


def check_report_data(signed: SignedText, report_data: bytes) -> bytes:
    """Check that a quote's report data name the key, and give the nonce in them (32 bytes).

    Raises:
        Refusal: ``dstack.report_data``.

    """
    if len(report_data) != REPORT_DATA_BYTES:
        raise Refusal("dstack.report_data", "report data have 64 bytes", step=4, got=str(len(report_data)))
    if signed.tls_fingerprint is None:
        expected = signed.key.ljust(32, b"\0")
    else:
        expected = hashlib.sha256(signed.key + signed.tls_fingerprint).digest()
    if report_data[:32] != expected:
        text = "the quote vouches for another key"
        got, wanted = report_data[:32].hex(), expected.hex()
        raise Refusal("dstack.report_data", text, step=4, got=got, expected=wanted)
    return report_data[32:]


def _read(signed: SignedText) -> tuple[str | None, str, str]:
    model, pair = None, _PAIR.fullmatch(signed.text)
    if signed.binding is Binding.DSTACK_MODEL and (named := _MODEL.fullmatch(signed.text)):
        model, pair = named["model"], _PAIR.fullmatch(named["pair"])
    if pair is None or (model is None) is (signed.binding is Binding.DSTACK_MODEL):
        text = "the signed text is not of the form that it is said to be"
        raise Refusal("dstack.text", text, step=1, got=signed.text[:80], expected=signed.binding)
    return model, pair[1], pair[2]


def _compare(what: str, step: int, got: str, expected: str) -> None:
    if got != expected:
        text = f"the proxy signed for another {what}"
        raise Refusal(f"dstack.{what}", text, step=step, got=expected, expected=got)
