"""TDX and SGX quotes checked against Intel's collateral, by dcap-qvl and by what dcap-qvl leaves open.

Sources: Intel, *SGX ECDSA Quote Library Reference for DCAP*, section 4 and appendix A; *TDX DCAP Quoting
Library API*, appendix A; *SGX and TDX Provisioning Certification Service API* version 4 (TCB info, QE
identity, and how a level is matched); *TDX Module Base Architecture Specification*, ATTRIBUTES. The steps:

1. Parse the quote (`proofhold.attestation.quote`).
2. The attestation key signed header and body.
3. The quoting enclave's report binds the attestation key: its first 32 bytes of report data are the SHA-256
   of key and authentication data, the others zero.
4. The PCK certificate's key signed the quoting enclave's report.
5. The PCK chain has one encoding, ends at Intel's pinned root, and is in force at `now`.
6. Nothing in the report lays the enclave or the domain open: no debugging, SEPT_VE_DISABLE set, no service
   TD, no migration, no reserved attribute.
7. The collateral has one encoding, ends at the pinned root, and all of it is in force at `now`.
8. Intel signed TCB info, QE identity and both revocation lists.
9. The PCK certificate and its issuer are not revoked.
10. TCB info is of this kind of machine and of this platform (FMSPC, and PCE-ID, which dcap-qvl passes over).
11. Some TCB level matches the platform, and some level of the QE identity the quoting enclave.
12. dcap-qvl read the same report as we did, and gave a status whose meaning is known.

dcap-qvl does 2 to 4, 8 to 11 and the signatures of 5; 1, 6, 7, 12 and the encodings and windows are done
here. When dcap-qvl refuses, or cannot be asked for want of collateral, 2 to 5 and 8 to 10 are done here
once more, on `cryptography`, so that the reason has a code of its own and a false quote is refused even
without collateral.

What is wrong with a *quote* is a `Refusal`. What is wrong with *collateral* is `Lacking`: no claim names
it, so whoever passed the bundle on may have spoilt it, and true collateral decides.

`verify` establishes facts, and accepts any TCB status but says which; `validate` judges them. dcap-qvl is
native code that parses certificates and JSON of strangers: it is called with bytes that have been read,
bounded and found to have one encoding, and it is trusted with the answer, but not with time or memory.
Whether it runs in a worker is for the backend to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from proofhold.attestation.collateral import DcapCollateral, Reading, read_collateral
from proofhold.attestation.dcapreport import (
    MEASUREMENTS,
    DcapReport,
    Expectations,
    TcbStatus,
    tcb_mismatches,
    validate,
)
from proofhold.attestation.expectation import WAIVED, Mismatch
from proofhold.attestation.intelchain import CACHED_CHAINS, Link
from proofhold.attestation.intelsignatures import (
    collateral_findings,
    pck_chain,
    require_crl_issuer,
    signature_findings,
)
from proofhold.attestation.quote import INTEL_QE_VENDOR, EnclaveReport, Quote, TdReport, Tee, parse_quote
from proofhold.attestation.refusal import Lacking, Refusal, first_of
from proofhold.errors import Malformed, Misuse

MAX_INSTANT: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, in unix seconds: the last that certificates can state."""
MAX_ADVISORIES: Final = 256

_RESERVED_TD_ATTRIBUTES: Final = sum(1 << bit for bit in (*range(8, 28), *range(32, 63)))
"""Bits 8 to 27 and 32 to 62: reserved where a verifier of today cannot know what they will mean."""


_FMSPC: Final = re.compile("[0-9a-f]{12}", re.ASCII)


def verify(quote: bytes, collateral: bytes, *, now: int) -> DcapReport:
    """Check a quote against collateral, as of `now` in unix seconds.

    Args:
        quote: as it came.
        collateral: the JSON file of `proofhold.attestation.collateral`; empty when there is none.
        now: the time to judge by.

    Raises:
        Refusal: the quote is not what it must be. Codes: ``dcap.`` followed by `malformed`, `unsupported`,
            `signature`, `attestation_key`, `qe_signature`, `chain`, `certificate_expired`,
            `certificate_not_yet_valid`, `debug`, `sept_ve_disable`, `service_td`, `attributes`, `revoked`,
            `tcb_unsupported`, `tcb_revoked`, `qe_identity`, `refused`.
        Lacking: the collateral cannot serve. Codes: ``dcap.`` followed by `collateral_missing`,
            `collateral_malformed`, `collateral_expired`, `collateral_not_yet_valid`, `collateral_signature`,
            `crl_issuer`, `fmspc`, `aborted`.
        Misuse: `now` is no instant, or dcap-qvl is not installed.

    """
    if not 0 <= now <= MAX_INSTANT:
        raise Misuse(f"now must be unix seconds up to {MAX_INSTANT}, got {now}")
    parsed = parse_quote(quote)  # step 1
    try:
        _require_vendor(parsed)
        decoded, reading = _read_collateral(collateral, now)  # step 7
        chain = pck_chain(parsed, now)  # step 5, its encoding and windows
        require_crl_issuer(reading, chain)  # step 8, for the one chain that dcap-qvl does not look at
        answer = _ask_dcap_qvl(quote, decoded, now)  # steps 2 to 5 and 8 to 11
    except (Refusal, Lacking) as problem:
        raise _told_in_order(parsed, now, problem) from problem
    except _QvlRefused as refused:
        raise _why_refused(str(refused), parsed, decoded, reading, now, quote) from None
    if exposed := _exposure_findings(parsed.report):  # step 6
        raise first_of(exposed)
    _check_pce_id(parsed, reading)  # step 10
    return _report(parsed, answer, reading, chain)  # step 12


def _told_in_order(quote: Quote, now: int, problem: Refusal | Lacking) -> Refusal | Lacking:
    """Name what else is wrong, in the order of the steps: a forged bit is a forgery first.

    A false quote is refused, whatever became of its collateral.
    """
    findings = (*signature_findings(quote, now), *_exposure_findings(quote.report))
    codes = {finding.code for finding in findings}
    return first_of((*findings, *([] if problem.code in codes else [problem])))


def _why_refused(
    message: str, quote: Quote, collateral: DcapCollateral, reading: Reading, now: int, raw: bytes
) -> Refusal | Lacking:
    """Find out why dcap-qvl refused: by looking again, and by its words where that finds nothing."""
    exposed = _exposure_findings(quote.report)
    if false := signature_findings(quote, now):
        return first_of((*false, *exposed))
    if unfit := collateral_findings(quote, collateral, reading, fmspc=_fmspc_of(raw)):
        return first_of((*exposed, *unfit))
    return _named(message, quote)


@dataclass(frozen=True, slots=True)
class Platform:
    """What to ask Intel about, read from a quote of which nothing has been checked."""

    tee: Tee
    fmspc: str
    ca: str
    """Which of Intel's authorities issued the PCK certificate: `processor` or `platform`."""


def platform_of(quote: bytes) -> Platform:
    """Say which collateral a quote takes, for whoever fetches it.

    Raises:
        Refusal: as `proofhold.attestation.quote.parse_quote`, or ``dcap.chain``: no such certificate.
        Misuse: dcap-qvl is not installed.

    """
    parsed = parse_quote(quote)
    try:
        found = _dcap_qvl().parse_quote(quote)
        platform = Platform(parsed.tee, str(found.fmspc()).lower(), str(found.ca()).lower())
    except ValueError as error:
        raise Refusal("dcap.chain", "no PCK certificate that names its platform", step=5) from error
    if not _FMSPC.fullmatch(platform.fmspc) or platform.ca not in ("processor", "platform"):
        raise Refusal("dcap.chain", "no PCK certificate that names its platform", step=5)
    return platform


_COLLATERAL_CODES: Final = {
    "collateral.incomplete": "dcap.collateral_missing",
    "collateral.unsigned": "dcap.collateral_signature",
}


def _read_collateral(data: bytes, now: int) -> tuple[DcapCollateral, Reading]:
    """Step 7. Everything that is expired is named, not the first."""
    if not data:
        raise Lacking("dcap.collateral_missing", "there is no collateral for this quote", step=7)
    try:
        collateral, reading = read_collateral(data)
    except Malformed as error:
        code = _COLLATERAL_CODES.get(error.code, "dcap.collateral_malformed")
        raise Lacking(code, error.message, step=7) from error
    if reading.not_before <= now <= reading.not_after:
        return collateral, reading
    expired = [window.part for window in reading.windows if now > window.not_after]
    if expired:
        text = f"the collateral has expired: {', '.join(expired)}"
        raise Lacking("dcap.collateral_expired", text, step=7)
    early = [window.part for window in reading.windows if now < window.not_before]
    text = f"the collateral is not in force yet: {', '.join(early)}"
    raise Lacking("dcap.collateral_not_yet_valid", text, step=7)


def _require_vendor(quote: Quote) -> None:
    """Step 1, of what it takes signatures to tell from a flipped bit: whose quoting enclave it is."""
    if quote.vendor != INTEL_QE_VENDOR:
        text = f"a quoting enclave of another vendor: got {quote.vendor}, expected {INTEL_QE_VENDOR}"
        raise Refusal("dcap.unsupported", text, step=1, got=quote.vendor, expected=INTEL_QE_VENDOR)


def _exposure_findings(report: EnclaveReport | TdReport) -> tuple[Refusal, ...]:
    """Step 6: everything that lays an enclave or a domain open."""
    debugged = "it runs under debugging: its memory can be read from outside"
    if isinstance(report, EnclaveReport):
        uninitialised = "an enclave that was never initialised cannot report"
        bits = (
            (report.debug, "dcap.debug", debugged, "debug bits clear"),
            (not report.initialised, "dcap.attributes", uninitialised, "INIT set"),
        )
        return tuple(
            Refusal(code, text, step=6, got=report.attributes, expected=expected)
            for found, code, text, expected in bits
            if found
        )
    attributes = int.from_bytes(bytes.fromhex(report.td_attributes), "little")
    strange = report.migratable or bool(attributes & _RESERVED_TD_ATTRIBUTES)
    interrupted = "the host can inject exceptions by unmapping pages"
    movable = "the domain may be migrated, or has attributes whose meaning is not known"
    reserved = "bits 8 to 27, 29 and 32 to 62 clear"
    findings = [
        Refusal(code, text, step=6, got=report.td_attributes, expected=expected)
        for found, code, text, expected in (
            (report.debug, "dcap.debug", debugged, "debug bits clear"),
            (not report.sept_ve_disable, "dcap.sept_ve_disable", interrupted, "SEPT_VE_DISABLE set"),
            (strange, "dcap.attributes", movable, reserved),
        )
        if found
    ]
    if report.mr_service_td is not None and int(report.mr_service_td, 16):
        text = "a service TD is bound to the domain and may act on it"
        findings.append(Refusal("dcap.service_td", text, step=6, got=report.mr_service_td, expected="zeros"))
    return tuple(findings)


_COLLATERAL_PARTS: Final = attrgetter(*(f.name for f in fields(DcapCollateral)))
"""In the order in which dcap-qvl takes them."""


@lru_cache(maxsize=CACHED_CHAINS)
def _pce_id(chain: bytes) -> str:
    return bytes(_dcap_qvl().parse_pck_extension_from_pem(chain).pce_id).hex()


def _check_pce_id(quote: Quote, reading: Reading) -> None:
    """Step 10, for what dcap-qvl passes over: which provisioning certification enclave the levels are for."""
    try:
        pce_id = _pce_id(quote.chain.removesuffix(b"\0"))
    except ValueError as error:
        raise Refusal("dcap.chain", "no PCK certificate that names its platform", step=10) from error
    if reading.tcb_info.pce_id != pce_id:
        text = f"TCB info for another PCE-ID: got {reading.tcb_info.pce_id!r}, expected {pce_id}"
        raise Lacking("dcap.fmspc", text, step=10)


class _QvlRefused(Exception):
    """dcap-qvl refused; the message is its own."""


def _ask_dcap_qvl(quote: bytes, collateral: DcapCollateral, now: int) -> Mapping[str, Any]:
    qvl = _dcap_qvl()
    try:
        parts = qvl.QuoteCollateralV3(*_COLLATERAL_PARTS(collateral))
        answer: Mapping[str, Any] = json.loads(qvl.verify(quote, parts, now).to_json())
    except ValueError as error:
        raise _QvlRefused(" ".join(str(error).split())[:500]) from error
    except BaseException as error:
        # A panic of the native code arrives as an exception beside `Exception`. It says nothing about the
        # quote: nothing is accepted, and nobody is blamed.
        if type(error).__name__ != "PanicException":
            raise
        raise Lacking("dcap.aborted", "dcap-qvl could not finish the check", step=8) from error
    return answer


def _fmspc_of(quote: bytes) -> str:
    return str(_dcap_qvl().parse_quote(quote).fmspc()).lower()


def _dcap_qvl() -> Any:
    try:
        import dcap_qvl
    except ImportError as error:
        text = "checking TDX and SGX quotes takes dcap-qvl: pip install 'proofhold[tee]'"
        raise Misuse(text) from error
    return dcap_qvl


def _report(quote: Quote, answer: Mapping[str, Any], reading: Reading, chain: tuple[Link, ...]) -> DcapReport:
    """Step 12."""
    _require_same_report(quote.report, answer["report"])
    statuses = [answer["status"], answer["platform_status"]["status"], answer["qe_status"]["status"]]
    try:
        merged, platform, qe = (TcbStatus(status) for status in statuses)
    except ValueError as error:
        text = "a TCB status whose meaning is not known"
        raise Refusal("dcap.refused", text, step=12, got=", ".join(map(str, statuses))) from error
    advisories = tuple(answer["advisory_ids"])
    if len(advisories) > MAX_ADVISORIES:
        raise Refusal("dcap.refused", f"more than {MAX_ADVISORIES} advisories", step=12)
    if TcbStatus.REVOKED in (merged, platform, qe):
        raise Refusal("dcap.tcb_revoked", "Intel revoked this TCB level", step=11, got=TcbStatus.REVOKED)
    return DcapReport(
        quote=quote,
        tcb_status=merged,
        platform_status=platform,
        qe_status=qe,
        advisory_ids=advisories,
        tcb_evaluation_number=reading.tcb_info.evaluation_number,
        fmspc=reading.tcb_info.fmspc,
        ppid=answer["ppid"],
        not_before=max(reading.not_before, *[link.not_before for link in chain]),
        not_after=min(reading.not_after, *[link.not_after for link in chain]),
    )


_TD_NAMES: Final = tuple(f.name for f in fields(TdReport))
_TD_NAMES_THEIRS: Final = tuple(name.replace("rtmr", "rt_mr") for name in _TD_NAMES)
_ENCLAVE_NAMES: Final = tuple(f.name for f in fields(EnclaveReport) if f.name != "misc_select")
_OUR_TD: Final = attrgetter(*_TD_NAMES)
_OUR_ENCLAVE: Final = attrgetter(*_ENCLAVE_NAMES)


def _require_same_report(ours: EnclaveReport | TdReport, answer: Mapping[str, Any]) -> None:
    """Require that both parsers read the same: what they read differently, nobody checked."""
    (theirs,) = answer.values()
    if isinstance(ours, TdReport):
        if "base" in theirs:  # TD report 1.5
            theirs = theirs | theirs["base"]
        names, mine, got = _TD_NAMES, _OUR_TD(ours), tuple(map(theirs.get, _TD_NAMES_THEIRS))
    else:
        names, mine, got = _ENCLAVE_NAMES, _OUR_ENCLAVE(ours), tuple(map(theirs.get, _ENCLAVE_NAMES))
    if got != mine:
        name, their, our = next(three for three in zip(names, got, mine, strict=True) if three[1] != three[2])
        text = f"dcap-qvl read another {name}"
        raise Refusal("dcap.refused", text, step=12, got=str(their), expected=str(our))


def _named(message: str, quote: Quote) -> Refusal | Lacking:
    """Give what dcap-qvl refused, though signatures and collateral are good, a code.

    By its words, which decide nothing else: whatever they are, the quote is refused.
    """
    exposed = _exposure_findings(quote.report)  # step 6
    if "No matching TCB level" in message or "TDX module" in message:
        text = f"no TCB level of Intel's matches the platform: {message}"
        return Refusal("dcap.tcb_unsupported", text, step=11).beside(*exposed)
    if exposed:
        return first_of(exposed)
    if "QE " in message or "QE_" in message:
        return Refusal("dcap.qe_identity", f"not Intel's quoting enclave: {message}", step=11)
    if "CertRevoked" in message:
        return Refusal("dcap.revoked", message, step=9)
    if message.endswith("Revoked"):
        return Refusal("dcap.tcb_revoked", f"Intel revoked this TCB level: {message}", step=11)
    return Refusal("dcap.refused", f"dcap-qvl: {message}", step=11)


__all__ = [
    "MEASUREMENTS",
    "WAIVED",
    "DcapReport",
    "Expectations",
    "Mismatch",
    "Platform",
    "TcbStatus",
    "Tee",
    "platform_of",
    "tcb_mismatches",
    "validate",
    "verify",
]
