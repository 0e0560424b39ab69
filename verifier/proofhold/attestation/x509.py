"""What the formats here need of X.509 certificates (RFC 5280), bounded and in one encoding.

`cryptography` parses; this module adds what a verifier of a short, fixed chain wants and a web client does
not: one signature algorithm, one curve, a certificate in exactly one encoding outside what its issuer signed
(the copy of the algorithm and the signature's framing), and reasons by step.

A `Profile` carries what differs between makers; the steps are named by the format that uses them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proofhold.attestation.refusal import Refusal

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MAX_CERTIFICATE_BYTES = 4096
"""The largest of the genuine ones has 1,683."""
MAX_EXTENSIONS = 32

P384: Final = "secp384r1"
P384_BYTES = 48

ECDSA_SHA384: Final = bytes.fromhex("300a06082a8648ce3d040303")
"""AlgorithmIdentifier ecdsa-with-SHA384, parameters absent (RFC 5758, section 3.2)."""

PSS_SHA384: Final = (
    bytes.fromhex(
        "304606092a864886f70d01010a3039a00f300d06096086480165030402020500"
        "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130a303020101"
    ),
    bytes.fromhex(
        "304106092a864886f70d01010a3034a00f300d06096086480165030402020500"
        "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
    ),
)
"""AlgorithmIdentifier RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 4055), as AMD writes it:
with the trailer field spelt out (ARK, ASK and most VEKs), and without (VEKs since 2025)."""
PSS_SALT_BYTES = 48


@dataclass(frozen=True, slots=True)
class Profile:
    """What one maker's certificates look like, and under which codes and steps they are refused."""

    format: str
    """The first half of the codes: ``nitro.certificate``."""
    algorithms: tuple[bytes, ...]
    """The AlgorithmIdentifiers taken, as DER."""
    critical: frozenset[str]
    """The critical extensions that are looked at; any other is refused (RFC 5280, section 4.2)."""
    parse_step: int
    chain_step: int
    time_step: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate that parses. Nothing in it has been checked; `name` is for messages."""

    name: str
    der: bytes
    parsed: x509.Certificate
    issuer: bytes
    """The issuer's name and, next, the subject's, as DER."""
    subject: bytes
    key: object
    """The public key, of any kind that can be read."""
    extensions: Mapping[str, x509.ExtensionType]
    """By dotted OID."""
    not_before: int
    """Unix seconds, as `not_after`."""
    not_after: int


def parse(der: bytes, profile: Profile, name: str) -> Certificate:
    """Parse one certificate strictly.

    Raises:
        Refusal: ``<format>.certificate``: not one DER certificate of version 3 in its one encoding, another
            signature algorithm, an extension twice, or a critical one that nobody here looks at.

    """
    from cryptography import x509

    if not der or len(der) > MAX_CERTIFICATE_BYTES:
        raise _refusal(profile, name, f"{len(der)} bytes, expected 1 to {MAX_CERTIFICATE_BYTES}")
    try:
        with warnings.catch_warnings():
            # AMD's leaves have serial 0, which RFC 5280 forbids and cryptography warns of.
            warnings.simplefilter("ignore")
            parsed = x509.load_der_x509_certificate(der)
            extensions, critical = {}, []
            for extension in parsed.extensions:  # each once: the library refuses a second
                oid = extension.oid.dotted_string
                extensions[oid] = extension.value
                if extension.critical:
                    critical.append(oid)
            tbs, signature = parsed.tbs_certificate_bytes, parsed.signature
            # The library parses lazily: what is used later is asked for here, where errors are expected.
            version, key = parsed.version, parsed.public_key()
            issuer, subject = _names(tbs)
            not_before, not_after = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    except Exception as error:
        raise _refusal(profile, name, f"does not parse: {_line(error)}") from error
    if version is not x509.Version.v3:
        raise _refusal(profile, name, f"X.509 {version.name}, expected v3")
    # The issuer signs the TBS alone. The rest is determined by it here, so no byte of it can vary.
    if der not in [_sequence(tbs + algorithm + _bits(signature)) for algorithm in profile.algorithms]:
        raise _refusal(profile, name, "another signature algorithm, or not the one encoding")
    if not any(algorithm in tbs for algorithm in profile.algorithms):
        raise _refusal(profile, name, "the signed part names another signature algorithm")
    if len(extensions) > MAX_EXTENSIONS:
        raise _refusal(profile, name, f"{len(extensions)} extensions, expected at most {MAX_EXTENSIONS}")
    unknown = sorted(set(critical) - profile.critical)
    if unknown:
        raise _refusal(profile, name, f"a critical extension that is not known here: {unknown[0]}")
    since, until = int(not_before.timestamp()), int(not_after.timestamp())
    return Certificate(name, der, parsed, issuer, subject, key, extensions, since, until)


BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
SUBJECT_KEY_ID: Final = "2.5.29.14"
AUTHORITY_KEY_ID: Final = "2.5.29.35"


def require_authority(certificate: Certificate, profile: Profile, *, below: int) -> None:
    """Require a certificate that may sign certificates, with `below` further authorities under it.

    Raises:
        Refusal: ``<format>.chain``: basic constraints, path length or key usage say otherwise.

    """
    from cryptography import x509

    constraints = certificate.extensions.get(BASIC_CONSTRAINTS)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        raise _broken(profile, certificate, "is not a certificate authority (basic constraints)")
    if constraints.path_length is not None and constraints.path_length < below:
        text = f"allows {constraints.path_length} authorities below it, and has {below} (path length)"
        raise _broken(profile, certificate, text)
    usage = certificate.extensions.get(KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not usage.key_cert_sign:
        raise _broken(profile, certificate, "may not sign certificates (key usage)")


def require_leaf(certificate: Certificate, profile: Profile, *, usage_required: bool) -> None:
    """Require a certificate that is no authority and may sign documents.

    AMD's leaves carry neither extension; where one is there, it must not say otherwise.

    Raises:
        Refusal: ``<format>.chain``.

    """
    from cryptography import x509

    constraints = certificate.extensions.get(BASIC_CONSTRAINTS)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise _broken(profile, certificate, "is a certificate authority, where a leaf is expected")
    usage = certificate.extensions.get(KEY_USAGE)
    if usage is None and not usage_required:
        return
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature:
        raise _broken(profile, certificate, "may not sign documents (key usage)")


def require_issued(certificate: Certificate, issuer: Certificate, profile: Profile) -> None:
    """Require that one certificate names another as its issuer and bears that one's signature.

    Raises:
        Refusal: ``<format>.chain`` (names, key identifiers, kind of key) or
            ``<format>.certificate_signature``.

    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    if certificate.issuer != issuer.subject:
        raise _broken(profile, certificate, f"names another issuer than {issuer.name}")
    mine, its = certificate.extensions.get(AUTHORITY_KEY_ID), issuer.extensions.get(SUBJECT_KEY_ID)
    named = mine.key_identifier if isinstance(mine, x509.AuthorityKeyIdentifier) else None
    if named is not None and isinstance(its, x509.SubjectKeyIdentifier) and named != its.digest:
        raise _broken(profile, certificate, f"names another key than that of {issuer.name}")
    key = issuer.key
    signature, tbs = certificate.parsed.signature, certificate.parsed.tbs_certificate_bytes
    digest = hashes.SHA384()
    try:
        if (
            isinstance(key, ec.EllipticCurvePublicKey)
            and key.curve.name == P384
            and profile.algorithms == (ECDSA_SHA384,)
        ):
            key.verify(signature, tbs, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey) and profile.algorithms == PSS_SHA384:
            # By hand: the library's own chain building takes PSS with this salt for a forbidden algorithm.
            key.verify(signature, tbs, padding.PSS(padding.MGF1(digest), PSS_SALT_BYTES), digest)
        else:
            raise _broken(profile, certificate, f"the key of {issuer.name} is of another kind")
    except InvalidSignature as error:
        text = f"the {certificate.name} does not bear the signature of the {issuer.name}"
        code = f"{profile.format}.certificate_signature"
        raise Refusal(code, text, step=profile.chain_step) from error


def require_time(certificate: Certificate, profile: Profile, *, at: int) -> None:
    """Require a certificate to be within its validity at a time, in unix seconds; both ends count.

    Raises:
        Refusal: ``<format>.expired`` or ``<format>.not_yet_valid``.

    """
    if at > certificate.not_after:
        code, text = "expired", f"the {certificate.name} has expired"
    elif at < certificate.not_before:
        code, text = "not_yet_valid", f"the {certificate.name} is not yet valid"
    else:
        return
    expected = f"{certificate.not_before} to {certificate.not_after}"
    raise Refusal(f"{profile.format}.{code}", text, step=profile.time_step, got=str(at), expected=expected)


def p384_key(certificate: Certificate, profile: Profile) -> EllipticCurvePublicKey:
    """Give a certificate's key, which must be on P-384.

    Raises:
        Refusal: ``<format>.chain``.

    """
    from cryptography.hazmat.primitives.asymmetric import ec

    key = certificate.key
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != P384:
        raise _broken(profile, certificate, "has a key that is not on P-384")
    return key


def _refusal(profile: Profile, name: str, text: str) -> Refusal:
    return Refusal(f"{profile.format}.certificate", f"the {name}: {text}", step=profile.parse_step)


def _broken(profile: Profile, certificate: Certificate, text: str) -> Refusal:
    return Refusal(f"{profile.format}.chain", f"the {certificate.name} {text}", step=profile.chain_step)


def _names(tbs: bytes) -> tuple[bytes, bytes]:
    """Give issuer and subject of a TBSCertificate of version 3 that has been parsed, as they are written.

    Bytes are compared rather than the library's objects, which take longer to build than an RSA signature
    takes to check; AWS and AMD write a name the same way wherever it stands.
    """
    fields, at = [], _inside(tbs, 0)
    for _ in range(6):  # version, serial number, algorithm, issuer, validity, subject
        end = _end(tbs, at)
        fields.append(tbs[at:end])
        at = end
    return fields[3], fields[5]


def _inside(der: bytes, at: int) -> int:
    """Give where the content of the element at `at` begins."""
    return at + 2 + (der[at + 1] & 0x7F if der[at + 1] & 0x80 else 0)


def _end(der: bytes, at: int) -> int:
    """Give where the element at `at` ends."""
    start = _inside(der, at)
    return start + (int.from_bytes(der[at + 2 : start], "big") if der[at + 1] & 0x80 else der[at + 1])


def _sequence(content: bytes) -> bytes:
    return b"\x30" + _length(len(content)) + content


def _bits(content: bytes) -> bytes:
    """Give a BIT STRING of whole octets."""
    return b"\x03" + _length(len(content) + 1) + b"\x00" + content


def _length(count: int) -> bytes:
    if count < 0x80:
        return bytes([count])
    body = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(body)]) + body


def _line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:200]
