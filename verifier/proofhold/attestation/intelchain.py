"""Certificate chains that end at Intel's SGX root: one encoding, one root, certificates in one order.

The root is pinned here by the SHA-256 of its DER; there is no way to add another.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

INTEL_SGX_ROOT_SHA256: Final = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""CN=Intel SGX Root CA, 2018-05-21 to 2049-12-31 (Intel, *Intel SGX Provisioning Certification Root CA*,
https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer)."""

MAX_PEM_BYTES: Final = 16 * 2**10
PEM_LINE_CHARS: Final = 64
CACHED_CHAINS: Final = 64
"""Issuer chains repeat from quote to quote; reading one is a pure function of its bytes."""

_BLOCK = re.compile(
    rb"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]{1,8192})\n-----END CERTIFICATE-----(?:\n|\Z)"
)


class ChainError(Exception):
    """A chain is not what it must be; callers say which one in an error of their own."""


@dataclass(frozen=True, slots=True)
class Link:
    """One certificate of a chain, with its validity in unix seconds."""

    certificate: Certificate
    der_sha256: str
    not_before: int
    not_after: int


@lru_cache(maxsize=CACHED_CHAINS)
def read_chain(pem: bytes, length: int) -> tuple[Link, ...]:
    """Read a chain of that many certificates, leaf first, whose last is Intel's root.

    Signatures are not checked here: see `check_chain`.

    Raises:
        ChainError: not the one PEM encoding of so many certificates, or the last is not the pinned root.

    """
    from cryptography import x509

    if len(pem) > MAX_PEM_BYTES:
        raise ChainError(f"{len(pem)} bytes, expected at most {MAX_PEM_BYTES}")
    links: list[Link] = []
    at = 0
    while at < len(pem) and len(links) <= length:
        block = _BLOCK.match(pem, at)
        if block is None:
            raise ChainError(f"no PEM certificate at offset {at}")
        der = _decode(block[1])
        try:
            certificate = x509.load_der_x509_certificate(der)
            window = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        except Exception as error:  # the parser's errors are many, and all say the same
            raise ChainError(f"certificate {len(links)} does not parse") from error
        start, end = (int(instant.timestamp()) for instant in window)
        links.append(Link(certificate, hashlib.sha256(der).hexdigest(), start, end))
        at = block.end()
    if len(links) != length:
        raise ChainError(f"not {length} certificates")
    if links[-1].der_sha256 != INTEL_SGX_ROOT_SHA256:
        raise ChainError(f"ends at {links[-1].der_sha256}, expected Intel's root {INTEL_SGX_ROOT_SHA256}")
    return tuple(links)


def check_chain(links: tuple[Link, ...]) -> None:
    """Check that each certificate was issued, with a good signature, by the next one.

    Raises:
        ChainError: it was not, or an issuer is no certificate authority.

    """
    from cryptography import x509

    for number, (link, issuer) in enumerate(pairwise(links)):
        try:
            link.certificate.verify_directly_issued_by(issuer.certificate)
            constraints = issuer.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except Exception as error:  # a bad signature, a key of another kind, an extension that does not parse
            raise ChainError(f"certificate {number} was not issued by the next one") from error
        if not constraints.value.ca:
            raise ChainError(f"certificate {number + 1} is no certificate authority")


def _decode(body: bytes) -> bytes:
    """Decode the base64 of one certificate: in lines of 64 characters, as RFC 7468 writes it."""
    try:
        der = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except ValueError as error:
        raise ChainError("a certificate that is not base64") from error
    text = base64.b64encode(der)
    lines = b"\n".join(text[i : i + PEM_LINE_CHARS] for i in range(0, len(text), PEM_LINE_CHARS))
    if lines != body:
        raise ChainError("a certificate that is not in the one PEM encoding of its bytes")
    return der
