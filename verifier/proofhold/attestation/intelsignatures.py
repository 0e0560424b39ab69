"""What `cryptography` alone says of a quote and of collateral: for when dcap-qvl refused, or cannot be asked.

Steps 2 to 5 and 8 to 10 of `proofhold.attestation.dcap`, taken once more, so that every reason has a code of
its own, and a false quote is refused even where collateral is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from proofhold.attestation.collateral import DcapCollateral, Reading
from proofhold.attestation.intelchain import ChainError, Link, check_chain, read_chain
from proofhold.attestation.quote import Quote
from proofhold.attestation.refusal import Lacking, Refusal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PCK_CHAIN_LENGTH: Final = 3
"""PCK certificate, its issuer, Intel's root."""
QE_HASH_BYTES: Final = 32


def signature_findings(quote: Quote, now: int) -> tuple[Refusal, ...]:
    """Say what is false in a quote by itself: every one of steps 2 to 5 that does not hold."""
    steps = (_body_findings(quote), _binding_findings(quote), _chain_findings(quote, now))
    return tuple(finding for findings in steps for finding in findings)


def _body_findings(quote: Quote) -> list[Refusal]:
    """Step 2."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

    try:
        key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError:
        return [Refusal("dcap.signature", "the attestation key is no point of P-256", step=2)]
    if not _signed_by(key, quote.signature, quote.signed):
        return [Refusal("dcap.signature", "the attestation key did not sign this report", step=2)]
    return []


def _binding_findings(quote: Quote) -> list[Refusal]:
    """Steps 3 and 4: the attestation key by the quoting enclave's report, and that by the PCK key."""
    findings = []
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).hexdigest()
    expected, got = bound + "00" * QE_HASH_BYTES, quote.qe_report.report_data
    if got != expected:
        text = "the quoting enclave's report binds another attestation key"
        findings.append(Refusal("dcap.attestation_key", text, step=3, got=got, expected=expected))
    try:
        leaf = _leaf_key(quote)
    except ChainError as error:
        return [*findings, Refusal("dcap.chain", f"no PCK certificate: {error}", step=4)]
    if not _signed_by(leaf, quote.qe_report_signature, quote.qe_report_bytes):
        text = "the PCK key did not sign the quoting enclave's report"
        findings.append(Refusal("dcap.qe_signature", text, step=4))
    return findings


def _chain_findings(quote: Quote, now: int) -> list[Refusal]:
    """Step 5."""
    try:
        check_chain(pck_chain(quote, now))
    except Refusal as refusal:
        return [refusal]
    except ChainError as error:
        return [Refusal("dcap.chain", f"the PCK chain does not hold: {error}", step=5)]
    return []


def pck_chain(quote: Quote, now: int) -> tuple[Link, ...]:
    """Read the PCK chain (step 5, without its signatures).

    Raises:
        Refusal: ``dcap.chain``, ``dcap.certificate_expired`` or ``dcap.certificate_not_yet_valid``.

    """
    # Some attestation agents end the chain with a NUL, as C strings end: that byte is no part of the text.
    try:
        links = read_chain(quote.chain.removesuffix(b"\0"), PCK_CHAIN_LENGTH)
    except ChainError as error:
        text = f"the PCK chain does not lead to Intel's root: {error}"
        raise Refusal("dcap.chain", text, step=5) from error
    for number, link in enumerate(links):
        if now > link.not_after:
            text = f"certificate {number} of the PCK chain has expired"
            expected = f"at most {link.not_after}"
            raise Refusal("dcap.certificate_expired", text, step=5, got=str(now), expected=expected)
        if now < link.not_before:
            text = f"certificate {number} of the PCK chain is not in force yet"
            expected = f"at least {link.not_before}"
            raise Refusal("dcap.certificate_not_yet_valid", text, step=5, got=str(now), expected=expected)
    return links


def _leaf_key(quote: Quote) -> EllipticCurvePublicKey:
    """Give the key of the first certificate, whatever follows it.

    Raises:
        ChainError: there is none, or its key is not on a curve.

    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    try:
        key = x509.load_pem_x509_certificate(quote.chain).public_key()
    except Exception as error:  # the parser's errors are many, and all say the same
        raise ChainError("the first certificate does not parse") from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise ChainError("the first certificate's key is not on a curve")
    return key


def collateral_findings(
    quote: Quote, collateral: DcapCollateral, reading: Reading, *, fmspc: str
) -> tuple[Refusal | Lacking, ...]:
    """Say everything that is wrong with collateral for a quote that is good by itself (steps 8 to 10).

    A `Refusal` among them says that Intel revoked the machine; the others blame nobody.
    """
    findings = (
        *_text_findings(collateral, reading),
        *_list_findings(quote, collateral, reading),
        *_platform_findings(quote, reading, fmspc),
    )
    return tuple(findings)


def _text_findings(collateral: DcapCollateral, reading: Reading) -> Iterator[Lacking]:
    """Step 8, of TCB info and QE identity."""
    for part in ("tcb_info", "qe_identity"):
        chain: tuple[Link, ...] = getattr(reading, f"{part}_issuer")
        signature: bytes = getattr(collateral, f"{part}_signature")
        try:
            _require_chain(chain, part)
            signed = _signed_by(_key_of(chain[0]), signature, getattr(collateral, part).encode())
        except Lacking as lacking:
            yield lacking
            continue
        if not signed:
            yield Lacking("dcap.collateral_signature", f"Intel did not sign this {part}", step=8)


def _list_findings(quote: Quote, collateral: DcapCollateral, reading: Reading) -> Iterator[Refusal | Lacking]:
    """Steps 8 and 9, of the revocation lists; one that cannot be believed says nothing about anybody."""
    pck, issuer, root = read_chain(quote.chain.removesuffix(b"\0"), PCK_CHAIN_LENGTH)
    for part, authority, subject in (("root_ca_crl", root, issuer), ("pck_crl", issuer, pck)):
        try:
            issuer_matches, signed, listed = _look_up(getattr(collateral, part), authority, subject)
        except Lacking as lacking:
            yield lacking
            continue
        if not issuer_matches:
            text = f"{part} is of another issuer, so whether the certificate was revoked is not known"
            yield Lacking("dcap.crl_issuer", text, step=8)
        elif not signed:
            yield Lacking("dcap.collateral_signature", f"Intel did not sign this {part}", step=8)
        elif listed:
            yield Refusal("dcap.revoked", f"Intel revoked the certificate: it is on {part}", step=9)
        elif part == "root_ca_crl":
            yield from _revoked_signers(collateral, reading, root)


def _revoked_signers(collateral: DcapCollateral, reading: Reading, root: Link) -> Iterator[Lacking]:
    """Step 9, of those who signed the collateral: their texts are believed by nobody any more."""
    for part, chain in (("tcb_info", reading.tcb_info_issuer), ("qe_identity", reading.qe_identity_issuer)):
        if _look_up(collateral.root_ca_crl, root, chain[0])[2]:
            yield Lacking("dcap.collateral_signature", f"Intel revoked the signer of this {part}", step=9)


def _platform_findings(quote: Quote, reading: Reading, fmspc: str) -> Iterator[Lacking]:
    """Step 10."""
    if reading.tcb_info.id != quote.tee.upper():
        text = f"TCB info of {reading.tcb_info.id!r} for a quote of {quote.tee}"
        yield Lacking("dcap.fmspc", text, step=10)
    if reading.tcb_info.fmspc != fmspc:
        text = f"TCB info of another platform: got {reading.tcb_info.fmspc!r}, expected {fmspc}"
        yield Lacking("dcap.fmspc", text, step=10)


def _look_up(der: bytes, authority: Link, subject: Link) -> tuple[bool, bool, bool]:
    """Tell whether a revocation list is an authority's, is signed by it, and names a certificate."""
    from cryptography import x509

    try:
        crl = x509.load_der_x509_crl(der)
        issuer_matches = crl.issuer == authority.certificate.subject
        signed = crl.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]
        listed = crl.get_revoked_certificate_by_serial_number(subject.certificate.serial_number)
    except Exception as error:  # what does not parse, or is signed in a way that nobody knows
        raise Lacking("dcap.collateral_signature", "a revocation list does not check", step=8) from error
    return issuer_matches, signed, listed is not None


def _key_of(link: Link) -> object:
    try:
        return link.certificate.public_key()
    except Exception as error:
        raise Lacking("dcap.collateral_signature", "an issuer's key does not parse", step=8) from error


def require_crl_issuer(reading: Reading, chain: tuple[Link, ...]) -> None:
    """Require that the chain beside the PCK revocation list is good; mostly it is the quote's own.

    Raises:
        Lacking: ``dcap.collateral_signature``.

    """
    if reading.pck_crl_issuer[0].der_sha256 != chain[1].der_sha256:
        _require_chain(reading.pck_crl_issuer, "pck_crl")


def _require_chain(chain: tuple[Link, ...], part: str) -> None:
    try:
        check_chain(chain)
    except ChainError as error:
        text = f"the issuer of {part} is not Intel's: {error}"
        raise Lacking("dcap.collateral_signature", text, step=8) from error


def _signed_by(key: object, signature: bytes, data: bytes) -> bool:
    """Check an ECDSA P-256 signature of r and s over SHA-256."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        return False
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    try:
        key.verify(encode_dss_signature(r, s), data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
