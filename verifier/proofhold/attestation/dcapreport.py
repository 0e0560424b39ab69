"""What Intel says of a platform, and whether that is what somebody wants: the judging half of DCAP.

`proofhold.attestation.dcap` establishes the facts, whatever they are; `validate` compares them with
expectations. By default nothing but UpToDate fulfils them (docs/adr/0057).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from proofhold.attestation.expectation import WAIVED, Expected, Mismatch, Waived, compare
from proofhold.attestation.quote import REPORT_DATA_BYTES, EnclaveReport, Quote, TdReport
from proofhold.errors import Misuse

MAX_ALLOWED_VALUES: Final = 1024


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
