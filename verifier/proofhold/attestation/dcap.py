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

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from proofhold.attestation.collateral import DcapCollateral, Reading, read_collateral
from proofhold.attestation.expectation import WAIVED, Expected, Mismatch, Waived, compare
from proofhold.attestation.intelchain import CACHED_CHAINS, ChainError, Link, check_chain, read_chain
from proofhold.attestation.quote import REPORT_DATA_BYTES, EnclaveReport, Quote, TdReport, Tee, parse_quote
from proofhold.attestation.refusal import Lacking, Refusal
from proofhold.errors import Malformed, Misuse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MAX_INSTANT: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, in unix seconds: the last that certificates can state."""
PCK_CHAIN_LENGTH: Final = 3
"""PCK certificate, its issuer, Intel's root."""
MAX_ADVISORIES: Final = 256
MAX_ALLOWED_VALUES: Final = 1024
QE_HASH_BYTES: Final = 32

_RESERVED_TD_ATTRIBUTES: Final = sum(1 << bit for bit in (*range(8, 28), *range(32, 63)))
"""Bits 8 to 27 and 32 to 62: reserved where a verifier of today cannot know what they will mean."""


_FMSPC: Final = re.compile("[0-9a-f]{12}", re.ASCII)


class TcbStatus(StrEnum):
    """What Intel says of a platform's, or a quoting enclave's, trusted computing base."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    REVOKED = "Revoked"


@dataclass(frozen=True, slots=True)
class DcapReport:
    """What a quote says, now that every signature has been checked, and what Intel says of its platform."""

    quote: Quote
    tcb_status: TcbStatus
    """The worse of the next two."""
    platform_status: TcbStatus
    qe_status: TcbStatus
    advisory_ids: tuple[str, ...]
    tcb_evaluation_number: int
    """Which of Intel's TCB recoveries the collateral knows: higher is newer."""
    fmspc: str
    """The kind of platform: 6 bytes, hexadecimal."""
    ppid: str
    """The very platform: 16 bytes, hexadecimal. An allow-list of machines names it."""
    not_before: int
    not_after: int
    """Over which time the same collateral and chain give the same answer, in unix seconds, ends included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What a report must say. What is not supplied is never met: a waiver has to be written down.

    `measurements` maps the name of a field of the report (`mr_td`, `rtmr3`, `mr_enclave`, …) to the values
    that are allowed for it, lower-case hexadecimal (decimal for `isv_prod_id`).
    """

    report_data: Expected = None
    measurements: Mapping[str, AbstractSet[str]] | Waived | None = None
    statuses: AbstractSet[TcbStatus] = frozenset({TcbStatus.UP_TO_DATE})
    advisories: AbstractSet[str] = frozenset()
    """Which advisories a status other than UpToDate may rest on; each is named or refused."""
    min_tcb_evaluation_number: int = 0
    min_isv_svn: int = 0
    """Of an SGX enclave."""
    ppids: AbstractSet[str] | None = None
    """The machines that are allowed, or None for any that Intel vouches for."""

    def __post_init__(self) -> None:
        if not self.statuses or TcbStatus.REVOKED in self.statuses:
            raise Misuse("name at least one status, and never Revoked")
        if isinstance(self.report_data, bytes) and len(self.report_data) != REPORT_DATA_BYTES:
            raise Misuse(f"report data are {REPORT_DATA_BYTES} bytes, got {len(self.report_data)}")
        if not isinstance(self.measurements, Mapping):
            return
        for name, allowed in self.measurements.items():
            if name not in MEASUREMENTS:
                raise Misuse(f"a report has no measurement {name}")
            if not 0 < len(allowed) <= MAX_ALLOWED_VALUES:
                raise Misuse(f"{len(allowed)} values for {name}, expected 1 to {MAX_ALLOWED_VALUES}")
        object.__setattr__(self, "measurements", MappingProxyType(dict(self.measurements)))


MEASUREMENTS: Final = frozenset(
    {
        *(f.name for f in fields(TdReport) if f.name not in ("report_data", "tee_tcb_svn", "tee_tcb_svn2")),
        *("mr_enclave", "mr_signer", "attributes", "misc_select", "isv_prod_id"),
    }
)
"""What `Expectations.measurements` may name."""


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
            `tcb_unsupported`, `qe_identity`, `refused`.
        Lacking: the collateral cannot serve. Codes: ``dcap.`` followed by `collateral_missing`,
            `collateral_malformed`, `collateral_expired`, `collateral_not_yet_valid`, `collateral_signature`,
            `crl_issuer`, `fmspc`, `aborted`.
        Misuse: `now` is no instant, or dcap-qvl is not installed.

    """
    if not 0 <= now <= MAX_INSTANT:
        raise Misuse(f"now must be unix seconds up to {MAX_INSTANT}, got {now}")
    parsed = parse_quote(quote)  # step 1
    try:
        decoded, reading = _read_collateral(collateral, now)  # step 7
    except Lacking:
        _check_signatures(parsed, now)  # a false quote is refused, whatever became of its collateral
        _check_exposure(parsed.report)
        raise
    try:
        chain = _pck_chain(parsed, now)  # step 5, its encoding and windows
        _require_crl_issuer(reading, chain)  # step 8, for the one chain that dcap-qvl does not look at
        answer = _ask_dcap_qvl(quote, decoded, now)  # steps 2 to 5 and 8 to 11
    except _QvlRefused as refused:
        _check_signatures(parsed, now)
        _check_collateral(parsed, decoded, reading, quote)
        raise _named(str(refused), parsed) from None
    except (Refusal, Lacking):
        _check_signatures(parsed, now)  # in the order of the steps: a forged bit is a forgery first
        raise
    _check_exposure(parsed.report)  # step 6
    _check_pce_id(parsed, reading)  # step 10
    return _report(parsed, answer, reading, chain)  # step 12


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


def validate(report: DcapReport, expectations: Expectations) -> tuple[Mismatch, ...]:
    """Compare what a report says with what is expected: every mismatch, none when it fulfils all.

    Codes: ``dcap.tcb_status``, ``dcap.advisory``, ``dcap.tcb_evaluation_number``, ``dcap.report_data``,
    ``dcap.measurement``, ``dcap.isv_svn``, ``dcap.platform``, and ``dcap.no_expectation`` where neither an
    expectation nor a waiver was supplied.
    """
    got = bytes.fromhex(report.quote.report_data)
    return (
        *tcb_mismatches(report, expectations.statuses, expectations.advisories),
        *compare("dcap.report_data", "report data", got, expectations.report_data),
        *_measurement_mismatches(report.quote.report, expectations.measurements),
        *_age_and_place_mismatches(report, expectations),
    )


def tcb_mismatches(
    report: DcapReport,
    statuses: AbstractSet[TcbStatus] = frozenset({TcbStatus.UP_TO_DATE}),
    advisories: AbstractSet[str] = frozenset(),
) -> Iterator[Mismatch]:
    """Compare Intel's word about the platform alone: by default nothing but UpToDate fulfils it."""
    for what, status in (("platform", report.platform_status), ("quoting enclave", report.qe_status)):
        if status not in statuses or status is TcbStatus.REVOKED:
            text = f"the {what} has a status that is not accepted"
            yield Mismatch("dcap.tcb_status", text, status, ", ".join(sorted(statuses)))
    # dcap-qvl merges the two; a merged status that neither has must be named as well.
    if report.tcb_status not in (report.platform_status, report.qe_status, *statuses):
        text = "platform and quoting enclave together have a status that is not accepted"
        yield Mismatch("dcap.tcb_status", text, report.tcb_status, ", ".join(sorted(statuses)))
    if report.tcb_status is not TcbStatus.UP_TO_DATE:
        for advisory in report.advisory_ids:
            if advisory not in advisories:
                text = "the platform is open to an advisory that is not accepted"
                yield Mismatch("dcap.advisory", text, advisory, ", ".join(sorted(advisories)) or "none")


def _measurement_mismatches(
    got: EnclaveReport | TdReport, measurements: Mapping[str, AbstractSet[str]] | Waived | None
) -> Iterator[Mismatch]:
    if measurements is WAIVED:
        return
    if not measurements:
        text = "no expectation of the measurements was supplied"
        yield Mismatch("dcap.no_expectation", text, "nothing to compare with", "an allow-list")
        return
    for name, allowed in sorted(measurements.items()):
        value = getattr(got, name, None)
        # A report that lacks the field has no value that any list could hold.
        shown = "none" if value is None else str(value)
        if value is None or shown not in allowed:
            text = f"{name} is not on the allow-list"
            yield Mismatch("dcap.measurement", text, shown, " or ".join(sorted(allowed)))


def _age_and_place_mismatches(report: DcapReport, expected: Expectations) -> Iterator[Mismatch]:
    got = report.quote.report
    if isinstance(got, EnclaveReport) and got.isv_svn < expected.min_isv_svn:
        text = "the enclave is older than accepted"
        yield Mismatch("dcap.isv_svn", text, str(got.isv_svn), f"at least {expected.min_isv_svn}")
    if report.tcb_evaluation_number < expected.min_tcb_evaluation_number:
        text = "the collateral is of an older TCB recovery than accepted"
        number, least = report.tcb_evaluation_number, expected.min_tcb_evaluation_number
        yield Mismatch("dcap.tcb_evaluation_number", text, str(number), f"at least {least}")
    if expected.ppids is not None and report.ppid not in expected.ppids:
        yield Mismatch("dcap.platform", "another machine", report.ppid, " or ".join(sorted(expected.ppids)))


def _read_collateral(data: bytes, now: int) -> tuple[DcapCollateral, Reading]:
    """Step 7. Everything that is expired is named, not the first."""
    if not data:
        raise Lacking("dcap.collateral_missing", "there is no collateral for this quote", step=7)
    try:
        collateral, reading = read_collateral(data)
    except Malformed as error:
        raise Lacking("dcap.collateral_malformed", error.message, step=7) from error
    if reading.not_before <= now <= reading.not_after:
        return collateral, reading
    expired = [window.part for window in reading.windows if now > window.not_after]
    if expired:
        text = f"the collateral has expired: {', '.join(expired)}"
        raise Lacking("dcap.collateral_expired", text, step=7)
    early = [window.part for window in reading.windows if now < window.not_before]
    text = f"the collateral is not in force yet: {', '.join(early)}"
    raise Lacking("dcap.collateral_not_yet_valid", text, step=7)


def _pck_chain(quote: Quote, now: int) -> tuple[Link, ...]:
    """Step 5, without the signatures."""
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


def _check_exposure(report: EnclaveReport | TdReport) -> None:
    """Step 6."""
    if report.debug:
        text = "it runs under debugging: its memory can be read from outside"
        attributes = report.attributes if isinstance(report, EnclaveReport) else report.td_attributes
        raise Refusal("dcap.debug", text, step=6, got=attributes, expected="debug bits clear")
    if isinstance(report, EnclaveReport):
        if not report.initialised:
            text = "an enclave that was never initialised cannot report"
            raise Refusal("dcap.attributes", text, step=6, got=report.attributes, expected="INIT set")
        return
    bits = int.from_bytes(bytes.fromhex(report.td_attributes), "little")
    if not report.sept_ve_disable:
        text = "the host can inject exceptions by unmapping pages"
        raise Refusal(
            "dcap.sept_ve_disable", text, step=6, got=report.td_attributes, expected="SEPT_VE_DISABLE set"
        )
    if report.migratable or bits & _RESERVED_TD_ATTRIBUTES:
        text = "the domain may be migrated, or has attributes whose meaning is not known"
        expected = "bits 8 to 27, 29 and 32 to 62 clear"
        raise Refusal("dcap.attributes", text, step=6, got=report.td_attributes, expected=expected)
    if report.mr_service_td is not None and int(report.mr_service_td, 16):
        text = "a service TD is bound to the domain and may act on it"
        raise Refusal("dcap.service_td", text, step=6, got=report.mr_service_td, expected="zeros")


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
        raise Refusal("dcap.revoked", "Intel revoked this TCB level", step=11, got=TcbStatus.REVOKED)
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


def _check_signatures(quote: Quote, now: int) -> None:
    """Steps 2 to 5 on `cryptography`: what can be said of a quote without collateral."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

    try:
        key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError as error:
        raise Refusal("dcap.signature", "the attestation key is no point of P-256", step=2) from error
    if not _signed_by(key, quote.signature, quote.signed):
        raise Refusal("dcap.signature", "the attestation key did not sign this report", step=2)
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).hexdigest()
    expected = bound + "00" * QE_HASH_BYTES
    if quote.qe_report.report_data != expected:
        text = "the quoting enclave's report binds another attestation key"
        got = quote.qe_report.report_data
        raise Refusal("dcap.attestation_key", text, step=3, got=got, expected=expected)
    try:
        leaf = _leaf_key(quote)
    except ChainError as error:
        raise Refusal("dcap.chain", f"no PCK certificate: {error}", step=4) from error
    if not _signed_by(leaf, quote.qe_report_signature, quote.qe_report_bytes):
        raise Refusal("dcap.qe_signature", "the PCK key did not sign the quoting enclave's report", step=4)
    chain = _pck_chain(quote, now)
    try:
        check_chain(chain)
    except ChainError as error:
        raise Refusal("dcap.chain", f"the PCK chain does not hold: {error}", step=5) from error


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


def _check_collateral(quote: Quote, collateral: DcapCollateral, reading: Reading, raw: bytes) -> None:
    """Steps 8 to 10 on `cryptography`, to say why dcap-qvl refused a quote that is good by itself."""
    for part in ("tcb_info", "qe_identity"):
        chain: tuple[Link, ...] = getattr(reading, f"{part}_issuer")
        signature: bytes = getattr(collateral, f"{part}_signature")
        _require_chain(chain, part)
        if not _signed_by(_key_of(chain[0]), signature, getattr(collateral, part).encode()):
            raise Lacking("dcap.collateral_signature", f"Intel did not sign this {part}", step=8)
    pck, issuer, root = read_chain(quote.chain.removesuffix(b"\0"), PCK_CHAIN_LENGTH)
    for part, authority, subject in (("root_ca_crl", root, issuer), ("pck_crl", issuer, pck)):
        issuer_matches, signed, listed = _look_up(getattr(collateral, part), authority, subject)
        if not issuer_matches:
            text = f"{part} is of another issuer, so whether the certificate was revoked is not known"
            raise Lacking("dcap.crl_issuer", text, step=8)
        if not signed:
            raise Lacking("dcap.collateral_signature", f"Intel did not sign this {part}", step=8)
        if listed:
            raise Refusal("dcap.revoked", f"Intel revoked the certificate: it is on {part}", step=9)
    for part, chain in (("tcb_info", reading.tcb_info_issuer), ("qe_identity", reading.qe_identity_issuer)):
        if _look_up(collateral.root_ca_crl, root, chain[0])[2]:
            raise Lacking("dcap.collateral_signature", f"Intel revoked the signer of this {part}", step=9)
    if reading.tcb_info.id != quote.tee.upper():
        text = f"TCB info of {reading.tcb_info.id!r} for a quote of {quote.tee}"
        raise Lacking("dcap.fmspc", text, step=10)
    fmspc = _dcap_qvl().parse_quote(raw).fmspc().lower()
    if reading.tcb_info.fmspc != fmspc:
        text = f"TCB info of another platform: got {reading.tcb_info.fmspc!r}, expected {fmspc}"
        raise Lacking("dcap.fmspc", text, step=10)


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


def _require_crl_issuer(reading: Reading, chain: tuple[Link, ...]) -> None:
    """Require that the chain beside the PCK revocation list is good; mostly it is the quote's own."""
    if reading.pck_crl_issuer[0].der_sha256 != chain[1].der_sha256:
        _require_chain(reading.pck_crl_issuer, "pck_crl")


def _require_chain(chain: tuple[Link, ...], part: str) -> None:
    try:
        check_chain(chain)
    except ChainError as error:
        text = f"the issuer of {part} is not Intel's: {error}"
        raise Lacking("dcap.collateral_signature", text, step=8) from error


def _named(message: str, quote: Quote) -> Refusal:
    """Give what dcap-qvl refused, though signatures and collateral are good, a code.

    By its words, which decide nothing else: whatever they are, the quote is refused.
    """
    if "No matching TCB level" in message or "TDX module" in message:
        text = f"no TCB level of Intel's matches the platform: {message}"
        return Refusal("dcap.tcb_unsupported", text, step=11)
    try:
        _check_exposure(quote.report)  # step 6
    except Refusal as refusal:
        return refusal
    if "QE " in message or "QE_" in message:
        return Refusal("dcap.qe_identity", f"not Intel's quoting enclave: {message}", step=11)
    if "CertRevoked" in message or message.endswith("Revoked"):
        return Refusal("dcap.revoked", message, step=9)
    return Refusal("dcap.refused", f"dcap-qvl: {message}", step=11)


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
