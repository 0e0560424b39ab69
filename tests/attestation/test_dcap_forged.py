"""What the real Intel never signed: revoked machines, unknown levels, other quoting enclaves, odd attributes.

Made by an Intel of the tests' own, whose root stands in the place of the pinned one for the length of a test.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dcap_vectors import GOOD, GOOD_SGX, case_of, code_of
from intel import Intel
from proofhold.attestation import dcap
from proofhold.attestation.dcap import WAIVED, Expectations, TcbStatus

TD_ATTRIBUTES = 48 + 120
SEAM_SIGNER = 48 + 64
SGX_ATTRIBUTES = 48 + 48
DAY_S = 86_400


@pytest.fixture
def intel(vectors: Path) -> Intel:
    return Intel(case_of(vectors, GOOD))


@pytest.fixture
def sgx_intel(vectors: Path) -> Intel:
    return Intel(case_of(vectors, GOOD_SGX))


def judged(intel: Intel, later_s: int = 0) -> str:
    return code_of(intel.quote(), intel.collateral(), intel.genuine.now + later_s)


@pytest.mark.parametrize("name", [GOOD, GOOD_SGX, "tdx-v5-go-tdx-guest"])
def test_only_the_pinned_root_is_believed(vectors: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    intel = Intel(case_of(vectors, name))
    genuine = intel.genuine
    for collateral in (intel.collateral(), genuine.collateral, b""):
        assert code_of(intel.quote(), collateral, genuine.now) == "dcap.chain"
    intel.trusted(monkeypatch)
    assert judged(intel) == "accepted"
    assert code_of(genuine.quote, genuine.collateral, genuine.now) != "accepted"


@pytest.mark.parametrize("whose", ["pck", "pck_ca", "root"])
def test_19_a_revoked_machine_or_issuer_is_refused(
    intel: Intel, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    intel.trusted(monkeypatch)
    intel.revoked = [getattr(intel, whose)]
    assert judged(intel) == "dcap.revoked"


def test_19_a_revoked_signer_of_collateral_blames_nobody(
    intel: Intel, monkeypatch: pytest.MonkeyPatch
) -> None:
    intel.trusted(monkeypatch)
    intel.revoked = [intel.tcb]
    assert judged(intel) == "dcap.collateral_signature"


def test_19_a_list_that_another_key_signed_is_not_taken(
    intel: Intel, monkeypatch: pytest.MonkeyPatch
) -> None:
    intel.trusted(monkeypatch)
    intel.crl_signer = intel.root
    assert judged(intel) == "dcap.collateral_signature"


def test_4_certificates_expire_with_their_collateral(intel: Intel, monkeypatch: pytest.MonkeyPatch) -> None:
    intel.trusted(monkeypatch)
    assert judged(intel, 11 * DAY_S) == "dcap.certificate_expired"
    assert judged(intel, -11 * DAY_S) == "dcap.certificate_not_yet_valid"


@pytest.mark.parametrize(
    ("status", "code"),
    [("Revoked", "dcap.tcb_revoked"), ("Fine", "dcap.refused"), ("uptodate", "dcap.refused")],
)
def test_6_a_level_revoked_or_unknown_is_refused(
    intel: Intel, monkeypatch: pytest.MonkeyPatch, status: str, code: str
) -> None:
    intel.trusted(monkeypatch)
    intel.tcb_edits = [('"tcbStatus":"UpToDate"', f'"tcbStatus":"{status}"')]
    assert judged(intel) == code


def test_6_a_quoting_enclave_out_of_date_is_a_mismatch(intel: Intel, monkeypatch: pytest.MonkeyPatch) -> None:
    intel.trusted(monkeypatch)
    intel.qe_edits = [('"tcbStatus":"UpToDate"', '"tcbStatus":"OutOfDate"')]
    report = dcap.verify(intel.quote(), intel.collateral(), now=intel.genuine.now)
    assert (report.platform_status, report.qe_status) == (TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE)
    mismatches = dcap.validate(report, Expectations(report_data=WAIVED, measurements=WAIVED))
    assert {mismatch.code for mismatch in mismatches} == {"dcap.tcb_status"}


@pytest.mark.parametrize(
    "edit",
    [
        ('"isvprodid":', '"isvprodid":7'),
        ('"attributes":"11', '"attributes":"13'),
        ('"isvsvn":', '"isvsvn":9'),
        ('"mrsigner":"DC', '"mrsigner":"DD'),
        ('"id":"TD_QE"', '"id":"QE"'),
    ],
)
def test_another_quoting_enclave_is_refused(
    intel: Intel, monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str]
) -> None:
    intel.trusted(monkeypatch)
    intel.qe_edits = [edit]
    assert judged(intel) == "dcap.qe_identity"


@pytest.mark.parametrize(
    "edit",
    [
        ('"fmspc":"00806F050000"', '"fmspc":"00806F050001"'),
        ('"pceId":"0000"', '"pceId":"0001"'),
        ('"id":"TDX"', '"id":"SGX"'),
    ],
)
def test_20_signed_levels_of_another_platform_are_not_taken(
    intel: Intel, monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str]
) -> None:
    intel.trusted(monkeypatch)
    intel.tcb_edits = [edit]
    assert judged(intel) == "dcap.fmspc"


@pytest.mark.parametrize(
    ("at", "value", "code"),
    [
        (TD_ATTRIBUTES, b"\x01", "dcap.debug"),
        (TD_ATTRIBUTES, b"\x80", "dcap.debug"),
        (TD_ATTRIBUTES + 1, b"\x01", "dcap.attributes"),
        (TD_ATTRIBUTES + 3, b"\x00", "dcap.sept_ve_disable"),
        (TD_ATTRIBUTES + 3, b"\x30", "dcap.attributes"),
        (TD_ATTRIBUTES + 5, b"\x01", "dcap.attributes"),
        (TD_ATTRIBUTES + 3, b"\x50", "accepted"),
        (SEAM_SIGNER, b"\x01", "dcap.tcb_unsupported"),
    ],
)
def test_1_attributes_of_a_domain_are_judged_bit_by_bit(
    intel: Intel, monkeypatch: pytest.MonkeyPatch, at: int, value: bytes, code: str
) -> None:
    intel.trusted(monkeypatch)
    intel.body_edits = {at: value}
    assert judged(intel) == code
    # And without collateral, where it can be said without.
    alone = "dcap.collateral_missing" if code in ("accepted", "dcap.tcb_unsupported") else code
    assert code_of(intel.quote(), b"", intel.genuine.now) == alone


@pytest.mark.parametrize(("value", "code"), [(b"\x07", "dcap.debug"), (b"\x04", "dcap.attributes")])
def test_1_attributes_of_an_enclave_are_judged(
    sgx_intel: Intel, monkeypatch: pytest.MonkeyPatch, value: bytes, code: str
) -> None:
    sgx_intel.trusted(monkeypatch)
    sgx_intel.body_edits = {SGX_ATTRIBUTES: value}
    assert judged(sgx_intel) == code
