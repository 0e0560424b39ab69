"""AWS Nitro Enclaves attestation documents.

Specification: "Attestation Process" of aws-nitro-enclaves-nsm-api (docs/attestation_process.md, sections 3.1
to 3.2.4) and "Verifying the root of trust" of the AWS Nitro Enclaves user guide; COSE_Sign1 is RFC 9052,
section 4.2, ES384 RFC 9053, section 2.1. The steps:

1. The document is a COSE_Sign1: an untagged CBOR array of four in its one encoding (3.2.1).
2. Its protected header is {1: -35} (ES384), its unprotected header is empty, its signature has 96 bytes.
3. The payload is a CBOR map with the fields of section 3.1, each present, of its type and within its bounds.
4. ``cabundle`` begins with the pinned AWS root (3.2.3.1; the root comes first, the issuer of the leaf last).
5. Every certificate parses, in one encoding, signed with ecdsa-with-SHA384.
6. Each is issued by the one before: names, basic constraints, path length, key usage, curve, signature.
7. The signature over payload and protected header verifies under the leaf's key.
8. Every certificate is valid at the time that the document states, which is believed only now.
9. The document is not from the future.
10. The document is young enough at ``now``: at most ``max_age_s`` old where the caller says how old it may
    be, and else within the validity of its certificates, of which the leaf lives about three hours.

The chain is judged at the document's own time, since the leaf is signed for one enclave and a document stays
what it was; how old it may be is judged at ``now``, so that a payment can be settled after the leaf's end by
a caller who states how long (docs/adr/0051). Revocation is not checked: AWS's guide says to switch CRLs off.

Whether a genuine document is one that is *wanted* (nonce, PCRs, debug) is `validate`'s to say.

What varies without being signed: (r, s) and (r, n - s) are one signature. So nothing may be remembered by a
document's bytes; `NitroDocument.signed_digest` names what was signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from proofhold.attestation import cbor, x509
from proofhold.attestation.expectation import WAIVED, Expected, Mismatch, Waived, compare
from proofhold.attestation.refusal import Refusal
from proofhold.canonical import Digest
from proofhold.errors import Malformed, Misuse

ROOT_SHA256: Final = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
"""SHA-256 of the DER of AWS_NitroEnclaves_Root-G1, valid to 2049-10-28. Source: the user guide's page
"Verifying the root of trust", which publishes it with the certificate."""

MAX_DOCUMENT_BYTES = 16 * 1024
"""The hypervisor's own limit of a response."""
MAX_PAYLOAD_BYTES = MAX_DOCUMENT_BYTES
MAX_HEADER_BYTES = 16
SIGNATURE_BYTES = 96
MAX_MODULE_ID_CHARS = 256
MAX_TIMESTAMP_MS = 253_402_300_799_999
"""The end of the year 9999."""
MAX_PCRS = 32
PCR_BYTES = 48
"""Of SHA-384, the only digest that the hypervisor has."""
MAX_AUTHORITIES = 8
"""Certificates in ``cabundle``; genuine documents have four."""
MAX_AUTHORITY_BYTES = 1024
MAX_USER_DATA_BYTES = 512
MAX_NONCE_BYTES = 512
MAX_PUBLIC_KEY_BYTES = 1024
MAX_CLOCK_SKEW_S = 60
"""How far a document may lie in the future: two clocks are never the same."""

ES384 = -35
_ALGORITHM = 1
_DEBUG_PCRS = (0, 1, 2)
_MANDATORY = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_OPTIONAL = ("public_key", "user_data", "nonce")

_PROFILE = x509.Profile(
    format="nitro",
    algorithms=(x509.ECDSA_SHA384,),
    critical=frozenset({x509.BASIC_CONSTRAINTS, x509.KEY_USAGE}),
    parse_step=5,
    chain_step=6,
    time_step=8,
)


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """What a document states. From `verify` it is genuine; from `parse` it is somebody's word."""

    module_id: str
    digest: str
    """The name of the PCRs' hash function: SHA384."""
    timestamp_ms: int
    """When the hypervisor made it, in milliseconds since 1970."""
    pcrs: Mapping[int, bytes]
    nonce: bytes | None
    user_data: bytes | None
    public_key: bytes | None
    certificate: bytes
    cabundle: tuple[bytes, ...]
    signed_digest: Digest
    """SHA-256 of what was signed: names the document, where its bytes do not."""
    valid_from: int = 0
    """The validity that all certificates share, in unix seconds; 0 and 0 before they are checked."""
    valid_until: int = 0

    @property
    def is_debug(self) -> bool:
        """Whether the enclave ran in debug mode, where its console can be read: PCRs 0 to 2 are zero.

        One of them is enough: no image measures to zero.
        """
        return any(not any(self.pcrs[index]) for index in _DEBUG_PCRS)

    def age_s(self, now: int) -> int:
        """Give its age at a time in unix seconds; negative where it is from the future."""
        return now - self.timestamp_ms // 1000


def verify(document: bytes, *, now: int, max_age_s: int | None = None) -> NitroDocument:
    """Check every signature of a document, and that it is not too old.

    Args:
        document: what arrived; nothing about it is assumed.
        now: the time to judge its age by, in unix seconds.
        max_age_s: how old it may be, in seconds; None: as old as its certificates live.

    Raises:
        Refusal: ``nitro.malformed`` (steps 1 to 3), ``nitro.alg`` (2), ``nitro.root`` (4),
            ``nitro.certificate`` (5), ``nitro.chain`` or ``nitro.certificate_signature`` (6),
            ``nitro.signature`` (7), ``nitro.expired`` or ``nitro.not_yet_valid`` (8, 9, 10),
            ``nitro.stale`` (10).

    """
    try:
        parsed, protected, payload, signature = _parse(document)
    except Refusal as unreadable:
        raise unreadable.beside(*_forgeries(document)) from None
    if hashlib.sha256(parsed.cabundle[0]).hexdigest() != ROOT_SHA256:  # step 4
        got = hashlib.sha256(parsed.cabundle[0]).hexdigest()
        raise Refusal("nitro.root", "not the pinned root of AWS", step=4, got=got, expected=ROOT_SHA256)
    names = ["root", *(f"authority {i}" for i in range(1, len(parsed.cabundle)))]
    authorities = [x509.parse(d, _PROFILE, n) for d, n in zip(parsed.cabundle, names, strict=True)]  # step 5
    leaf = x509.parse(parsed.certificate, _PROFILE, "leaf")
    _check_chain(authorities, leaf)  # step 6
    _check_signature(leaf, _signed(protected, payload), signature)  # step 7
    at = parsed.timestamp_ms // 1000
    for certificate in (*authorities, leaf):
        x509.require_time(certificate, _PROFILE, at=at)  # step 8
    verified = NitroDocument(
        parsed.module_id,
        parsed.digest,
        parsed.timestamp_ms,
        parsed.pcrs,
        parsed.nonce,
        parsed.user_data,
        parsed.public_key,
        parsed.certificate,
        parsed.cabundle,
        parsed.signed_digest,
        max(c.not_before for c in (*authorities, leaf)),
        min(c.not_after for c in (*authorities, leaf)),
    )
    require_age(verified, now=now, max_age_s=max_age_s)  # steps 9 and 10
    return verified


def require_age(document: NitroDocument, *, now: int, max_age_s: int | None) -> None:
    """Judge the age of a document that `verify` gave, at another time than then: steps 9 and 10 alone.

    Raises:
        Refusal: ``nitro.not_yet_valid``, ``nitro.expired`` or ``nitro.stale``.

    """
    if max_age_s is not None and max_age_s < 0:
        raise Misuse(f"a maximum age of {max_age_s} seconds")
    age_s = document.age_s(now)
    if age_s < -MAX_CLOCK_SKEW_S:  # step 9
        text = f"the document is from the future: {-age_s} s after now"
        raise Refusal(
            "nitro.not_yet_valid", text, step=9, got=f"{age_s} s", expected=f"-{MAX_CLOCK_SKEW_S} s"
        )
    expired: tuple[Refusal, ...] = ()
    if now > document.valid_until:
        text = "the certificates have expired, and no stated age covers that"
        got, expected = str(now), f"until {document.valid_until}"
        expired = (Refusal("nitro.expired", text, step=10, got=got, expected=expected),)
    if max_age_s is None:  # step 10
        if expired:
            raise expired[0]
    elif age_s > max_age_s:
        text = f"the document is {age_s} s old, and may be {max_age_s} s"
        got, expected = f"{age_s} s", f"{max_age_s} s"
        raise Refusal("nitro.stale", text, step=10, got=got, expected=expected, also=expired)


def parse(document: bytes) -> NitroDocument:
    """Read a document without believing it: steps 1 to 3, for showing it.

    Raises:
        Refusal: ``nitro.malformed`` or ``nitro.alg``.

    """
    return _parse(document)[0]


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a relying party wants of a genuine document. What is left out is not met; say `WAIVED` instead."""

    measurements: tuple[Mapping[int, bytes], ...] | Waived = ()
    """The allow-list: a document's PCRs must equal all of one of these."""
    nonce: Expected = None
    user_data: Expected = WAIVED
    public_key: Expected = WAIVED
    dangerous_allow_debug: bool = False

    def __post_init__(self) -> None:
        if self.measurements is WAIVED:
            return
        if any(not pcrs for pcrs in self.measurements):
            raise Misuse("a measurement without a PCR would match every enclave: write WAIVED")


def validate(document: NitroDocument, expectations: Expectations) -> tuple[Mismatch, ...]:
    """Compare a genuine document with what is wanted; give every mismatch.

    Codes: ``nitro.debug``, ``nitro.measurement``, ``nitro.nonce``, ``nitro.user_data``, ``nitro.public_key``,
    and ``nitro.no_expectation`` where none was supplied.
    """
    mismatches: list[Mismatch] = []
    if document.is_debug and not expectations.dangerous_allow_debug:
        text = "an enclave in debug mode: whoever runs it reads its memory"
        mismatches.append(Mismatch("nitro.debug", text, "PCRs 0 to 2 of zero", "measured PCRs"))
    mismatches += _measurement_mismatches(document, expectations.measurements)
    mismatches += compare("nitro.nonce", "nonce", document.nonce, expectations.nonce)
    mismatches += compare("nitro.user_data", "user data", document.user_data, expectations.user_data)
    mismatches += compare("nitro.public_key", "public key", document.public_key, expectations.public_key)
    return tuple(mismatches)


def _measurement_mismatches(
    document: NitroDocument, allowed: tuple[Mapping[int, bytes], ...] | Waived
) -> tuple[Mismatch, ...]:
    if allowed is WAIVED:
        return ()
    if not allowed:
        text = "no expectation of the measurements was supplied"
        return (Mismatch("nitro.no_expectation", text, document.pcrs[0].hex(), "an allow-list"),)
    if any(all(document.pcrs.get(i) == value for i, value in pcrs.items()) for pcrs in allowed):
        return ()
    # The nearest one is shown: with an allow-list of one, that is the one.
    nearest = min(allowed, key=lambda pcrs: sum(document.pcrs.get(i) != v for i, v in pcrs.items()))
    index = next(i for i, value in sorted(nearest.items()) if document.pcrs.get(i) != value)
    got = document.pcrs.get(index, b"").hex() or "no such PCR"
    text = f"the measurement is not on the allow-list: PCR{index} differs"
    return (Mismatch("nitro.measurement", text, got, nearest[index].hex()),)


def _parse(document: bytes) -> tuple[NitroDocument, bytes, bytes, bytes]:
    """Steps 1 to 3: the document's fields, protected header, payload and signature."""
    cose = _decode(document, MAX_DOCUMENT_BYTES, "the document", step=1)
    if not isinstance(cose, list) or len(cose) != 4:
        raise _malformed("not a COSE_Sign1: not an array of four", 1)
    protected, unprotected, payload, signature = cose
    if not all(isinstance(part, bytes) for part in (protected, payload, signature)):
        raise _malformed("not a COSE_Sign1: header, payload and signature are byte strings", 1)
    # RFC 9052, section 3: a header of nothing may be written as no bytes at all.
    header = _decode(protected, MAX_HEADER_BYTES, "the protected header", step=2) if protected else {}
    if header != {_ALGORITHM: ES384}:
        raise Refusal("nitro.alg", "not ES384 alone", step=2, got=str(header)[:80], expected="{1: -35}")
    if unprotected != {} or not isinstance(unprotected, dict):
        raise _malformed("an unprotected header, which nobody has signed", 2)
    if len(signature) != SIGNATURE_BYTES:
        text = f"a signature of {len(signature)} bytes, expected {SIGNATURE_BYTES}"
        raise _malformed(text, 2)
    fields = _decode(payload, MAX_PAYLOAD_BYTES, "the payload", step=3, open_map=True)
    digest = hashlib.sha256(_signed(protected, payload)).hexdigest()
    return _read(fields, digest), protected, payload, signature


def _read(fields: cbor.Cbor, signed_digest: Digest) -> NitroDocument:
    """Step 3: every field there, of its type, within its bounds, and no other."""
    if not isinstance(fields, dict):
        raise _malformed("the payload is not a map", 3)
    missing = [name for name in _MANDATORY if name not in fields]
    unknown = [name for name in fields if name not in (*_MANDATORY, *_OPTIONAL)]
    if missing or unknown:
        raise _malformed(f"fields missing: {missing}, unknown: {str(unknown)[:80]}", 3)
    module_id, digest, timestamp = fields["module_id"], fields["digest"], fields["timestamp"]
    if not isinstance(module_id, str) or not 0 < len(module_id) <= MAX_MODULE_ID_CHARS:
        raise _malformed("module_id is not a text of its bounds", 3)
    if digest != "SHA384":
        raise _malformed("digest is not SHA384", 3)
    if not isinstance(timestamp, int) or isinstance(timestamp, bool) or not 0 < timestamp <= MAX_TIMESTAMP_MS:
        raise _malformed("timestamp is not a time", 3)
    bundle = fields["cabundle"]
    if not isinstance(bundle, list) or not 0 < len(bundle) <= MAX_AUTHORITIES:
        raise _malformed(f"cabundle is not a list of 1 to {MAX_AUTHORITIES}", 3)
    authorities = tuple(_bytes("cabundle", item, MAX_AUTHORITY_BYTES, low=1) for item in bundle)
    return NitroDocument(
        module_id=module_id,
        digest=digest,
        timestamp_ms=timestamp,
        pcrs=_pcrs(fields["pcrs"]),
        nonce=_optional(fields, "nonce", MAX_NONCE_BYTES),
        user_data=_optional(fields, "user_data", MAX_USER_DATA_BYTES),
        public_key=_optional(fields, "public_key", MAX_PUBLIC_KEY_BYTES),
        certificate=_bytes("certificate", fields["certificate"], MAX_AUTHORITY_BYTES, low=1),
        cabundle=authorities,
        signed_digest=signed_digest,
    )


def _pcrs(value: cbor.Cbor) -> Mapping[int, bytes]:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_PCRS:
        raise _malformed(f"pcrs is not a map of 1 to {MAX_PCRS}", 3)
    if any(not isinstance(index, int) or not 0 <= index < MAX_PCRS for index in value):
        raise _malformed("a PCR's index is out of range", 3)
    if any(not isinstance(pcr, bytes) or len(pcr) != PCR_BYTES for pcr in value.values()):
        raise _malformed(f"a PCR has not {PCR_BYTES} bytes", 3)
    if any(index not in value for index in _DEBUG_PCRS):
        raise _malformed("PCR 0, 1 or 2 is missing", 3)
    return MappingProxyType(dict(value))


def _optional(fields: dict[cbor.Cbor, cbor.Cbor], name: str, max_bytes: int) -> bytes | None:
    value = fields.get(name)
    return None if value is None else _bytes(name, value, max_bytes)


def _bytes(name: str, value: cbor.Cbor, max_bytes: int, low: int = 0) -> bytes:
    if not isinstance(value, bytes) or not low <= len(value) <= max_bytes:
        raise _malformed(f"{name} is not a byte string of {low} to {max_bytes}", 3)
    return value


def _check_chain(authorities: list[x509.Certificate], leaf: x509.Certificate) -> None:
    """Step 6. The root's own signature says nothing that its pinned digest does not."""
    for index, authority in enumerate(authorities):
        x509.require_authority(authority, _PROFILE, below=len(authorities) - 1 - index)
    x509.require_leaf(leaf, _PROFILE, usage_required=True)
    for issuer, certificate in zip(authorities, [*authorities[1:], leaf], strict=True):
        x509.require_issued(certificate, issuer, _PROFILE)


def _forgeries(document: bytes) -> list[Refusal]:
    """Step 7 for a document that steps 1 to 3 refused: what was changed after signing is a forgery too."""
    try:
        protected, _, payload, signature = _decode(document, MAX_DOCUMENT_BYTES, "the document", step=1)
        fields = _decode(payload, MAX_PAYLOAD_BYTES, "the payload", step=3, open_map=True)
        leaf = x509.parse(fields["certificate"], _PROFILE, "leaf")
        _check_signature(leaf, _signed(protected, payload), signature)
    except Refusal as refusal:
        return [refusal] if refusal.step == 7 else []
    except (KeyError, TypeError, ValueError):
        return []  # out of form past telling
    return []


def _check_signature(leaf: x509.Certificate, signed: bytes, signature: bytes) -> None:
    """Step 7: ES384, r and s as 48 bytes each, most significant first."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    half = x509.P384_BYTES
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    key = x509.p384_key(leaf, _PROFILE)
    try:
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        text = "the document does not bear the signature of its leaf certificate"
        raise Refusal("nitro.signature", text, step=7) from error


def _signed(protected: bytes, payload: bytes) -> bytes:
    """Sig_structure of RFC 9052, section 4.4, without external data."""
    return cbor.encode(["Signature1", protected, b"", payload])


def _decode(data: bytes, max_bytes: int, what: str, *, step: int, open_map: bool = False) -> cbor.Cbor:
    try:
        return cbor.decode(data, max_bytes=max_bytes, what=what, open_map=open_map)
    except Malformed as error:
        raise _malformed(error.message, step) from error


def _malformed(text: str, step: int) -> Refusal:
    return Refusal("nitro.malformed", text, step=step)
