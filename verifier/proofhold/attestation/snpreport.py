"""What an AMD SEV-SNP report states, and whether that is what somebody wants.

Specification: AMD 56860, "SEV Secure Nested Paging Firmware ABI", revision 1.58, section 7.3 (tables of
ATTESTATION_REPORT, GUEST_POLICY, TCB_VERSION and the signature format). `parse` is step 1 of
`proofhold.attestation.sevsnp`, which checks that a report is genuine; `validate` compares a genuine one with
what a relying party wants (report data, measurement, debug, VMPL, revocation).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proofhold.attestation.expectation import WAIVED, Expected, Mismatch, Waived, compare
from proofhold.attestation.refusal import Refusal
from proofhold.attestation.x509 import P384_BYTES
from proofhold.canonical import Digest
from proofhold.errors import Misuse


class Line(StrEnum):
    """A product line, as certificates name it."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


class SigningKey(StrEnum):
    """Which key signed a report."""

    VCEK = "VCEK"
    """Of the chip: AMD's word on one machine."""
    VLEK = "VLEK"
    """Of a cloud: AMD's word that the cloud loaded it into some machine of its own."""


REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
VERSIONS: Final = range(2, 6)
REPORT_DATA_BYTES = 64
MEASUREMENT_BYTES = 48
HOST_DATA_BYTES = 32
MAX_VMPL = 3

_ECDSA_P384_SHA384 = 1
NUMBER_BYTES = 72
"""Room for r and for s each in the report; 48 are used."""
_POLICY_RESERVED_ONE = 1 << 17
_POLICY_MIGRATION = 1 << 18
_POLICY_DEBUG = 1 << 19
_CPUID_SINCE_VERSION = 3
_OLD_LAYOUT = ("bl", "tee", "spl4", "spl5", "spl6", "spl7", "snp", "ucode")
_TURIN_LAYOUT = ("fmc", "bl", "tee", "snp", "spl5", "spl6", "spl7", "ucode")
TCB_LAYOUTS: Final = {Line.MILAN: _OLD_LAYOUT, Line.GENOA: _OLD_LAYOUT, Line.TURIN: _TURIN_LAYOUT}
"""TCB_VERSION, byte by byte (56860, section 2.2)."""
RESERVED_COMPONENTS = frozenset({"spl4", "spl5", "spl6", "spl7"})
"""Without a meaning so far; a certificate that leaves one out means zero."""


@dataclass(frozen=True, slots=True)
class SnpReport:
    """What a report states. From `verify` it is genuine; from `parse` it is somebody's word."""

    version: int
    guest_svn: int
    policy: int
    """The guest policy, as its 64 bits."""
    family_id: bytes
    image_id: bytes
    vmpl: int
    """The privilege level that asked for it, 0 (most) to 3."""
    platform_info: int
    signing_key: SigningKey
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    processor: tuple[int, int, int] | None
    """Family, model and stepping; None before version 3."""
    chip_id: bytes
    signature: tuple[int, int]
    signed_digest: Digest
    """SHA-256 of what was signed: names the report, where its bytes do not."""
    line: Line | None = None
    """The product line; None before it is checked."""
    product: str = ""
    """What the VEK's certificate calls it, such as Milan-B0."""
    valid_from: int = 0
    """The validity that all certificates share, in unix seconds; 0 and 0 before they are checked."""
    valid_until: int = 0
    revocation_checked: bool = False

    @property
    def is_debug(self) -> bool:
        """Whether the host may read the guest's memory."""
        return bool(self.policy & _POLICY_DEBUG)

    @property
    def is_migratable(self) -> bool:
        """Whether a migration agent may carry the guest to another machine."""
        return bool(self.policy & _POLICY_MIGRATION)


def parse(report: bytes) -> SnpReport:
    """Read a report without believing it: step 1.

    Raises:
        Refusal: ``snp.malformed``.

    """
    if len(report) != REPORT_BYTES:
        raise _malformed(f"{len(report)} bytes, expected {REPORT_BYTES}")

    def number(offset: int, length: int) -> int:
        return int.from_bytes(report[offset : offset + length], "little")

    version = number(0x00, 4)
    if version not in VERSIONS:
        raise _malformed(f"version {version}, expected {VERSIONS.start} to {VERSIONS.stop - 1}")
    if number(0x34, 4) != _ECDSA_P384_SHA384:
        raise _malformed(f"signature algorithm {number(0x34, 4)}, expected {_ECDSA_P384_SHA384}")
    policy, vmpl = number(0x08, 8), number(0x30, 4)
    if not policy & _POLICY_RESERVED_ONE:
        raise _malformed("bit 17 of the guest policy is clear")
    if vmpl > MAX_VMPL:
        raise _malformed(f"VMPL {vmpl}, expected 0 to {MAX_VMPL}")
    keys = {0: SigningKey.VCEK, 1: SigningKey.VLEK}
    key = keys.get(number(0x48, 4) >> 2 & 7)
    if key is None:
        raise _malformed("signed by neither a VCEK nor a VLEK")
    half, r_end, s_end = P384_BYTES, SIGNED_BYTES + NUMBER_BYTES, SIGNED_BYTES + 2 * NUMBER_BYTES
    # Nobody has signed what follows the signed part: it has one content.
    padding = report[SIGNED_BYTES + half : r_end] + report[r_end + half : s_end] + report[s_end:]
    if any(padding):
        raise _malformed("what is reserved around the signature is not zero")
    return SnpReport(
        version=version,
        guest_svn=number(0x04, 4),
        policy=policy,
        family_id=report[0x10:0x20],
        image_id=report[0x20:0x30],
        vmpl=vmpl,
        platform_info=number(0x40, 8),
        signing_key=key,
        report_data=report[0x50:0x90],
        measurement=report[0x90:0xC0],
        host_data=report[0xC0:0xE0],
        id_key_digest=report[0xE0:0x110],
        author_key_digest=report[0x110:0x140],
        report_id=report[0x140:0x160],
        current_tcb=report[0x38:0x40],
        reported_tcb=report[0x180:0x188],
        committed_tcb=report[0x1E0:0x1E8],
        launch_tcb=report[0x1F0:0x1F8],
        processor=(report[0x188], report[0x189], report[0x18A]) if version >= _CPUID_SINCE_VERSION else None,
        chip_id=report[0x1A0:0x1E0],
        signature=signature_of(report),
        signed_digest=hashlib.sha256(report[:SIGNED_BYTES]).hexdigest(),
    )


def signature_of(report: bytes) -> tuple[int, int]:
    """Give r and s of a report of the right length: least significant byte first."""
    ends = (SIGNED_BYTES, SIGNED_BYTES + NUMBER_BYTES)
    r, s = (int.from_bytes(report[at : at + P384_BYTES], "little") for at in ends)
    return r, s


def tcb_components(tcb: bytes, line: Line) -> Mapping[str, int]:
    """Give the components of a TCB version by name: bl, tee, snp, ucode and, on Turin, fmc."""
    named = zip(TCB_LAYOUTS[line], tcb, strict=True)
    return {name: value for name, value in named if name not in RESERVED_COMPONENTS}


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a relying party wants of a genuine report. What is left out is not met; say `WAIVED` instead."""

    report_data: Expected = None
    measurements: tuple[bytes, ...] | Waived = ()
    """The allow-list of launch measurements."""
    host_data: Expected = WAIVED
    vmpls: AbstractSet[int] = frozenset({0})
    min_tcb: Mapping[str, int] = field(default_factory=dict)
    """The least that the reported TCB may have in a component, by its name (`tcb_components`)."""
    allow_migration: bool = False
    allow_unknown_revocation: bool = False
    dangerous_allow_debug: bool = False

    def __post_init__(self) -> None:
        if not self.vmpls:
            raise Misuse("name at least one VMPL")
        unknown = set(self.min_tcb) - {name for layout in TCB_LAYOUTS.values() for name in layout}
        if unknown:
            raise Misuse(f"a TCB version has no component {sorted(unknown)[0]}")


def validate(report: SnpReport, expectations: Expectations) -> tuple[Mismatch, ...]:
    """Compare a genuine report with what is wanted; give every mismatch.

    Codes: ``snp.debug``, ``snp.migration``, ``snp.vmpl``, ``snp.report_data``, ``snp.host_data``,
    ``snp.measurement``, ``snp.tcb_low``, ``snp.revocation_unknown``, and ``snp.no_expectation`` where none
    was supplied.
    """
    mismatches: list[Mismatch] = []
    policy = f"0x{report.policy:x}"
    if report.is_debug and not expectations.dangerous_allow_debug:
        text = "the guest policy allows debugging: the host reads the guest's memory"
        mismatches.append(Mismatch("snp.debug", text, policy, "bit 19 clear"))
    if report.is_migratable and not expectations.allow_migration:
        text = "the guest policy allows a migration agent"
        mismatches.append(Mismatch("snp.migration", text, policy, "bit 18 clear"))
    if report.vmpl not in expectations.vmpls:
        allowed = ", ".join(str(vmpl) for vmpl in sorted(expectations.vmpls))
        mismatches.append(
            Mismatch("snp.vmpl", "asked for at another privilege level", str(report.vmpl), allowed)
        )
    mismatches += compare("snp.report_data", "report data", report.report_data, expectations.report_data)
    mismatches += compare("snp.host_data", "host data", report.host_data, expectations.host_data)
    mismatches += _measurement_mismatches(report, expectations.measurements)
    mismatches += _tcb_mismatches(report, expectations.min_tcb)
    if not report.revocation_checked and not expectations.allow_unknown_revocation:
        text = "no revocation list was at hand: whether a certificate was revoked is unknown"
        mismatches.append(Mismatch("snp.revocation_unknown", text, "no list", "a revocation list"))
    return tuple(mismatches)


def _measurement_mismatches(report: SnpReport, allowed: tuple[bytes, ...] | Waived) -> tuple[Mismatch, ...]:
    if allowed is WAIVED or report.measurement in allowed:
        return ()
    got = report.measurement.hex()
    if not allowed:
        text = "no expectation of the measurement was supplied"
        return (Mismatch("snp.no_expectation", text, got, "an allow-list"),)
    text = "the measurement is not on the allow-list"
    return (Mismatch("snp.measurement", text, got, ", ".join(value.hex() for value in allowed[:4])),)


def _tcb_mismatches(report: SnpReport, least: Mapping[str, int]) -> tuple[Mismatch, ...]:
    if not least:
        return ()
    if report.line is None:
        raise Misuse("a TCB version has names only once the product line is known: verify first")
    got = tcb_components(report.reported_tcb, report.line)
    return tuple(
        Mismatch("snp.tcb_low", f"the {name} component is too old", str(got.get(name, 0)), str(wanted))
        for name, wanted in sorted(least.items())
        if got.get(name, 0) < wanted
    )


def _malformed(text: str) -> Refusal:
    return Refusal("snp.malformed", text, step=1)
