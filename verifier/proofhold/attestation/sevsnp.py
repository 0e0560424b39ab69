"""AMD SEV-SNP attestation reports of Milan, Genoa and Turin, signed by a chip's key or a cloud's.

Specification: AMD 56860, "SEV Secure Nested Paging Firmware ABI", revision 1.58, section 7.3 (tables of
ATTESTATION_REPORT, GUEST_POLICY, TCB_VERSION and the signature format); AMD 57230, "VCEK Certificate and KDS
Interface Specification" (certificates of VCEK and VLEK, their extensions). The steps:

1. The report has 1,184 bytes, a known version, signature algorithm 1 (ECDSA P-384 with SHA-384), a signing
   key that is a VCEK or a VLEK, bit 17 of the guest policy set, and zeros where its unsigned part is
   reserved.
2. The ARK is one of the three pinned ones.
3. The ASK (for a VCEK) or ASVK (for a VLEK) is the pinned one of the same product line.
4. The certificates parse, in one encoding, signed with RSASSA-PSS, SHA-384, a salt of 48 bytes.
5. The ARK issued the ASK, and the ASK the VEK: names, constraints, key usage, signatures.
6. All three are valid at ``now``.
7. The VEK is of the kind that the report names, on P-384, of the ASK's product line, which is also that of
   the processor that the report names (from version 3 on).
8. A VCEK's hardware id is the report's chip id; a VLEK has none.
9. The TCB version that the VEK was made for is the reported one, in every component.
10. The report's TCB versions are in order: reported <= committed <= current, in every component.
11. The report's signature verifies under the VEK's key: r and s, least significant byte first.
12. Where a revocation list is given: the ARK signed it, it is of now, and the ASK is not on it.

Steps 6 to 11 are all taken, and everything that they find is reported; where the chain is broken or the
report is out of form, the later ones are taken as far as they can be, so that a forged bit is called so.

Whether a genuine report is *wanted* (report data, measurement, debug, VMPL, revocation) is `validate`'s to
say. What varies without being signed: (r, s) and (r, n - s) are one signature, so nothing may be remembered
by a report's bytes; `SnpReport.signed_digest` names what was signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from proofhold.attestation import x509
from proofhold.attestation.refusal import Lacking, Refusal, first_of
from proofhold.attestation.snpreport import (
    REPORT_BYTES,
    RESERVED_COMPONENTS,
    SIGNED_BYTES,
    TCB_LAYOUTS,
    Expectations,
    Line,
    SigningKey,
    SnpReport,
    parse,
    signature_of,
    tcb_components,
    validate,
)

MAX_CRL_BYTES = 64 * 1024
MAX_NAME_BYTES = 32
VEKS_KEPT: Final = 64
"""A machine has one until its firmware changes, and many reports; checking it is a function of its bytes."""
_OID = "1.3.6.1.4.1.3704.1."

ARK_SHA256: Final = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": Line.MILAN,
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": Line.GENOA,
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": Line.TURIN,
}
"""SHA-256 of the DER of AMD's roots. Source: the certificate chains of AMD's key distribution service
(57230, section 4), path vcek/v1/LINE/cert_chain."""

ASK_SHA256: Final = {
    (Line.MILAN, SigningKey.VCEK): "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
    (Line.MILAN, SigningKey.VLEK): "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
    (Line.GENOA, SigningKey.VCEK): "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
    (Line.GENOA, SigningKey.VLEK): "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
    (Line.TURIN, SigningKey.VCEK): "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
    (Line.TURIN, SigningKey.VLEK): "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
}
"""SHA-256 of the DER of the intermediates (ASK, ASVK). Source: as above, and vlek/v1/LINE/cert_chain."""

_COMMON_NAME_OID = bytes.fromhex("0603550403")
_COMPONENT_OIDS: Final = {
    "bl": "3.1",
    "tee": "3.2",
    "snp": "3.3",
    "spl4": "3.4",
    "spl5": "3.5",
    "spl6": "3.6",
    "spl7": "3.7",
    "ucode": "3.8",
    "fmc": "3.9",
}
_HWID_BYTES: Final = {Line.MILAN: 64, Line.GENOA: 64, Line.TURIN: 8}
_PROCESSORS: Final = {
    Line.MILAN: (0x19, frozenset(range(0x10))),
    Line.GENOA: (0x19, frozenset({*range(0x10, 0x20), *range(0xA0, 0xB0)})),
    Line.TURIN: (0x1A, frozenset(range(0x20))),
}
"""Family and models (CPUID Fn0000_0001)."""

_PROFILE = x509.Profile(
    format="snp",
    algorithms=x509.PSS_SHA384,
    critical=frozenset({x509.BASIC_CONSTRAINTS, x509.KEY_USAGE}),
    parse_step=4,
    chain_step=5,
    time_step=6,
)


def verify(
    report: bytes, *, vek: bytes, ask: bytes, ark: bytes, now: int, crl: bytes | None = None
) -> SnpReport:
    """Check every signature of a report and what its certificates say of it.

    Args:
        report: what arrived, as the firmware made it; nothing about it is assumed.
        vek: the VCEK or VLEK certificate, DER.
        ask: the ASK or ASVK certificate, DER.
        ark: the ARK certificate, DER.
        now: the time to judge by, in unix seconds. A report states none of its own.
        crl: the ARK's revocation list, DER, where there is one; the result says whether there was.

    Raises:
        Refusal: ``snp.malformed`` (step 1), ``snp.root`` (2), ``snp.chain`` (3, 5),
            ``snp.certificate`` (4), ``snp.certificate_signature`` (5), ``snp.expired`` or
            ``snp.not_yet_valid`` (6), ``snp.vek_kind`` or ``snp.product`` (7), ``snp.chip`` (8), ``snp.tcb``
            (9), ``snp.tcb_order`` (10), ``snp.signature`` (11), ``snp.revoked`` (12).
        Lacking: ``snp.crl`` or ``snp.crl_expired`` (12): the list cannot serve.

    """
    try:
        parsed = parse(report)  # step 1
    except Refusal as unreadable:
        raise unreadable.beside(*_forgeries(report, vek)) from None
    line = ARK_SHA256.get(hashlib.sha256(ark).hexdigest())
    try:
        if line is None:  # step 2
            got = hashlib.sha256(ark).hexdigest()
            raise Refusal("snp.root", "not a pinned root of AMD", step=2, got=got, expected="a pinned ARK")
        root, issuer = _issuers(ark, ask, line, parsed.signing_key)  # steps 3 to 5
        leaf = _issued(vek, ask, ark, parsed.signing_key)
    except Refusal as broken:
        raise broken.beside(*_misfits(report, parsed, vek, line)) from None
    product, misfits = _bound(report, parsed, leaf, line)  # steps 7 to 11
    if findings := [*_time_findings((root, issuer, leaf), now), *misfits]:
        raise first_of(findings)
    if crl is not None:
        _check_revocation(crl, root, issuer, now)  # step 12
    return replace(
        parsed,
        line=line,
        product=product,
        valid_from=max(c.not_before for c in (root, issuer, leaf)),
        valid_until=min(c.not_after for c in (root, issuer, leaf)),
        revocation_checked=crl is not None,
    )


def _issuers(
    ark: bytes, ask: bytes, line: Line, signing_key: SigningKey
) -> tuple[x509.Certificate, x509.Certificate]:
    """Steps 3 to 5: the two certificates that are pinned."""
    got, expected = hashlib.sha256(ask).hexdigest(), ASK_SHA256[line, signing_key]
    if got != expected:  # step 3
        text = f"not the pinned issuer of {line} {signing_key} certificates"
        raise Refusal("snp.chain", text, step=3, got=got, expected=expected)
    return _pinned_chain(ark, ask)  # steps 4 and 5


@lru_cache(maxsize=VEKS_KEPT)
def _issued(vek: bytes, ask: bytes, ark: bytes, signing_key: SigningKey) -> x509.Certificate:
    """Steps 4 and 5 for the VEK, under issuers that are pinned: its validity is judged at each report."""
    leaf = x509.parse(vek, _PROFILE, signing_key.value)
    x509.require_leaf(leaf, _PROFILE, usage_required=False)
    x509.require_issued(leaf, _pinned_chain(ark, ask)[1], _PROFILE)
    return leaf


def _time_findings(certificates: Sequence[x509.Certificate], now: int) -> list[Refusal]:
    """Step 6."""
    findings = []
    for certificate in certificates:
        try:
            x509.require_time(certificate, _PROFILE, at=now)
        except Refusal as refusal:
            findings.append(refusal)
    return findings


def _forgeries(report: bytes, vek: bytes) -> list[Refusal]:
    """Step 11 for a report that step 1 refused: what was changed after signing is a forgery besides."""
    if len(report) != REPORT_BYTES:
        return []
    try:
        leaf = x509.parse(vek, _PROFILE, "VEK")
    except Refusal:
        return []
    return _signature_findings(report, leaf)


def _misfits(report: bytes, parsed: SnpReport, vek: bytes, line: Line | None) -> tuple[Refusal, ...]:
    """Steps 7 to 11 under a broken chain, as far as they can be taken: what else is wrong is said too."""
    try:
        leaf = x509.parse(vek, _PROFILE, parsed.signing_key.value)
    except Refusal:
        return ()
    if line is None:
        return tuple(_signature_findings(report, leaf))
    return _bound(report, parsed, leaf, line)[1]


@lru_cache(maxsize=len(ASK_SHA256))
def _pinned_chain(ark: bytes, ask: bytes) -> tuple[x509.Certificate, x509.Certificate]:
    """Steps 4 and 5 for the two certificates that are pinned: a pure function of six possible arguments."""
    root, issuer = x509.parse(ark, _PROFILE, "ARK"), x509.parse(ask, _PROFILE, "ASK")
    x509.require_authority(root, _PROFILE, below=1)
    x509.require_authority(issuer, _PROFILE, below=0)
    x509.require_issued(issuer, root, _PROFILE)
    return root, issuer


def _bound(
    report: bytes, parsed: SnpReport, leaf: x509.Certificate, line: Line
) -> tuple[str, tuple[Refusal, ...]]:
    """Steps 7 to 11: the product's name, and everything in which report and VEK do not belong together."""
    facts = _facts(leaf)
    product, findings = _kind_findings(parsed, leaf, facts, line)  # step 7
    findings += _chip_findings(parsed, facts, line)  # step 8
    findings += _tcb_findings(parsed, facts, line)  # step 9
    for lower, upper in (("reported", "committed"), ("committed", "current")):  # step 10
        got, limit = (getattr(parsed, f"{name}_tcb") for name in (lower, upper))
        if any(a > b for a, b in zip(got, limit, strict=True)):
            text = f"the {lower} TCB version is above the {upper} one"
            findings.append(
                Refusal("snp.tcb_order", text, step=10, got=got.hex(), expected=f"<= {limit.hex()}")
            )
    findings += _signature_findings(report, leaf)  # step 11
    return product, tuple(findings)


def _kind_findings(
    parsed: SnpReport, leaf: x509.Certificate, facts: Mapping[str, bytes], line: Line
) -> tuple[str, list[Refusal]]:
    """Step 7."""
    findings = []
    name, wanted = _common_name(leaf.subject), f"SEV-{parsed.signing_key}"
    if name != wanted:
        text = "the certificate is of another kind of key than signed the report"
        findings.append(Refusal("snp.vek_kind", text, step=7, got=name, expected=wanted))
    product = _ia5(facts.get("2", b""))
    if product.partition("-")[0] != line:
        text = "the certificate is of another product line than its issuer"
        findings.append(Refusal("snp.product", text, step=7, got=product, expected=line.value))
    if parsed.processor is not None:
        family, models = _PROCESSORS[line]
        if parsed.processor[0] != family or parsed.processor[1] not in models:
            got = ", ".join(f"0x{part:x}" for part in parsed.processor[:2])
            text = "the report is of a processor of another product line"
            findings.append(Refusal("snp.product", text, step=7, got=got, expected=line.value))
    return product, findings


def _chip_findings(parsed: SnpReport, facts: Mapping[str, bytes], line: Line) -> list[Refusal]:
    """Step 8. On Turin the id has 8 bytes, and zeros follow in the report."""
    got = facts.get("4")
    if parsed.signing_key is SigningKey.VLEK:
        if got is None:
            return []
        return [
            Refusal("snp.chip", "a VLEK with a hardware id", step=8, got=got.hex()[:128], expected="none")
        ]
    length = _HWID_BYTES[line]
    if got == parsed.chip_id[:length] and not any(parsed.chip_id[length:]):
        return []
    shown = "none" if got is None else got.hex()[:128]
    text = "the certificate is of another chip"
    return [Refusal("snp.chip", text, step=8, got=shown, expected=parsed.chip_id.hex())]


def _tcb_findings(parsed: SnpReport, facts: Mapping[str, bytes], line: Line) -> list[Refusal]:
    """Step 9, component by component."""
    findings = []
    for name, reported in zip(TCB_LAYOUTS[line], parsed.reported_tcb, strict=True):
        raw = facts.get(_COMPONENT_OIDS[name])
        certified = 0 if raw is None and name in RESERVED_COMPONENTS else _small_integer(raw or b"")
        if certified != reported:
            text = f"the certificate is for another TCB version: {name}"
            got = "nothing" if certified is None else str(certified)
            findings.append(Refusal("snp.tcb", text, step=9, got=got, expected=str(reported)))
    return findings


def _signature_findings(report: bytes, leaf: x509.Certificate) -> list[Refusal]:
    """Step 11."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    try:
        key = x509.p384_key(leaf, _PROFILE)
        signature = utils.encode_dss_signature(*signature_of(report))
        key.verify(signature, report[:SIGNED_BYTES], ec.ECDSA(hashes.SHA384()))
    except Refusal as refusal:
        return [refusal]
    except InvalidSignature:
        return [Refusal("snp.signature", "the report does not bear the signature of its VEK", step=11)]
    return []


def _check_revocation(der: bytes, root: x509.Certificate, issuer: x509.Certificate, now: int) -> None:
    """Step 12. A list that cannot serve is nobody's fault: whoever passed it on may have spoilt it."""
    from cryptography import x509 as library
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    if len(der) > MAX_CRL_BYTES:
        raise Lacking("snp.crl", f"a revocation list of {len(der)} bytes, at most {MAX_CRL_BYTES}", step=12)
    try:
        crl = library.load_der_x509_crl(der)
        issued_by, since, until = crl.issuer, crl.last_update_utc, crl.next_update_utc
        signature, tbs = crl.signature, crl.tbs_certlist_bytes
        revoked = crl.get_revoked_certificate_by_serial_number(issuer.parsed.serial_number) is not None
    except Exception as error:
        raise Lacking("snp.crl", f"the revocation list does not parse: {error}"[:200], step=12) from error
    key = root.key
    if not isinstance(key, rsa.RSAPublicKey) or issued_by != root.parsed.subject:
        raise Lacking("snp.crl", "the revocation list is of another issuer", step=12)
    try:
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), x509.PSS_SALT_BYTES)
        key.verify(signature, tbs, pss, hashes.SHA384())
    except InvalidSignature as error:
        raise Lacking("snp.crl", "the revocation list does not bear the ARK's signature", step=12) from error
    if revoked:
        raise Refusal("snp.revoked", "AMD has revoked the issuer of the VEK", step=12)
    if until is None or not since.timestamp() <= now <= until.timestamp():
        text = "the revocation list is not of now"
        raise Lacking("snp.crl_expired", f"{text}: {since} to {until}", step=12)


def _facts(leaf: x509.Certificate) -> dict[str, bytes]:
    """Give AMD's own extensions, of which the library has no classes, by what follows their common prefix."""
    from cryptography.x509 import UnrecognizedExtension

    return {
        oid.removeprefix(_OID): value.value
        for oid, value in leaf.extensions.items()
        if oid.startswith(_OID) and isinstance(value, UnrecognizedExtension)
    }


def _small_integer(der: bytes) -> int | None:
    """Read a DER INTEGER of 0 to 255; None if it is none."""
    if len(der) == 3 and der[:2] == b"\x02\x01" and der[2] < 0x80:
        return der[2]
    if len(der) == 4 and der[:3] == b"\x02\x02\x00" and der[3] >= 0x80:
        return der[3]
    return None


def _common_name(subject: bytes) -> str:
    """Read the common name of a DER Name; empty if there is not exactly one."""
    before, mark, after = subject.partition(_COMMON_NAME_OID)
    if not before or not mark or len(after) < 2 or _COMMON_NAME_OID in after or after[1] > MAX_NAME_BYTES:
        return ""
    return after[2 : 2 + after[1]].decode("ascii", errors="replace")


def _ia5(der: bytes) -> str:
    """Read a short DER IA5String; empty if it is none."""
    if len(der) < 2 or len(der) > MAX_NAME_BYTES or der[0] != 0x16 or der[1] != len(der) - 2:
        return ""
    return der[2:].decode("ascii", errors="replace")


__all__ = [
    "ARK_SHA256",
    "ASK_SHA256",
    "REPORT_BYTES",
    "SIGNED_BYTES",
    "Expectations",
    "Line",
    "SigningKey",
    "SnpReport",
    "parse",
    "tcb_components",
    "validate",
    "verify",
]
