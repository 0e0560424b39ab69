"""SEV-SNP reports of three product lines and two kinds of key; what only looks like one is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enclave_makers import AT, Extensions, FalseAmd, Party, authority, certify, usage
from proofhold.attestation import sevsnp
from proofhold.attestation.expectation import WAIVED
from proofhold.attestation.refusal import Lacking, Refusal
from proofhold.attestation.sevsnp import Line, SigningKey
from proofhold.errors import Misuse

ALL = [(line, key) for line in Line for key in SigningKey]


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch) -> FalseAmd:
    return FalseAmd().pin(monkeypatch)


def refused(amd: FalseAmd, *codes: str, report: bytes | None = None, **arguments: Any) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        amd.verify(report, **arguments)
    every = (refusal.value, *refusal.value.also)
    assert [r.code for r in every] == [f"snp.{code}" for code in codes], refusal.value
    return refusal.value


def codes(report: sevsnp.SnpReport, **expectations: Any) -> list[str]:
    waived = {"report_data": WAIVED, "measurements": WAIVED, "allow_unknown_revocation": True}
    return [m.code for m in sevsnp.validate(report, sevsnp.Expectations(**{**waived, **expectations}))]


def made(line: Line, key: SigningKey = SigningKey.VCEK, **changes: Any) -> FalseAmd:
    turin = line is Line.TURIN
    chip = bytes(range(8)) + bytes(56) if turin else bytes(range(64))
    tcb = bytes([1, 2, 0, 3, 0, 0, 0, 71]) if turin else bytes([10, 0, 0, 0, 0, 0, 25, 217])
    return FalseAmd(**{"line": line, "key": key, "chip": chip, "tcb": tcb, **changes})


@pytest.mark.parametrize(("line", "key"), ALL)
def test_every_line_and_kind_of_key_is_taken(
    monkeypatch: pytest.MonkeyPatch, line: Line, key: SigningKey
) -> None:
    report = made(line, key).pin(monkeypatch).verify()
    assert (report.line, report.product, report.signing_key) == (line, line, key)
    assert (report.valid_from, report.valid_until) == (AT - 3600, AT + 3600)
    assert not report.revocation_checked
    names = set(sevsnp.tcb_components(report.reported_tcb, line))
    assert names == {"bl", "tee", "snp", "ucode"} | ({"fmc"} if line is Line.TURIN else set())
    assert codes(report, min_tcb={"snp": 26}) == ["snp.tcb_low"]


# The twenty tests of a good verifier, those that concern SEV-SNP, by their numbers.


def test_01_debug_is_refused_unless_it_is_allowed_by_a_dangerous_name(amd: FalseAmd) -> None:
    report = amd.verify(amd.report(policy=bytes([0, 0, 0b1011])))
    assert codes(report) == ["snp.debug"]
    assert codes(report, dangerous_allow_debug=True) == []


def test_02_other_report_data_and_no_expectation_are_mismatches(amd: FalseAmd) -> None:
    report = amd.verify()
    assert codes(report, report_data=b"r" * 64, measurements=(b"m" * 48,)) == []
    assert codes(report, report_data=b"x" * 64) == ["snp.report_data"]
    assert codes(report, report_data=b"r" * 32) == ["snp.report_data"]
    supplied = sevsnp.Expectations()
    missing = [m.code for m in sevsnp.validate(report, supplied)]
    assert missing == ["snp.no_expectation", "snp.no_expectation", "snp.revocation_unknown"]


def test_02_every_mismatch_is_reported(amd: FalseAmd) -> None:
    report = amd.verify(amd.report(policy=bytes([0, 0, 0b1111]), vmpl=b"\x02"))
    wanted = {"report_data": b"x", "host_data": b"x", "measurements": (b"x",), "min_tcb": {"bl": 5}}
    assert codes(report, **wanted, allow_unknown_revocation=False) == [
        *("snp.debug", "snp.migration", "snp.vmpl", "snp.report_data", "snp.host_data"),
        *("snp.measurement", "snp.tcb_low", "snp.revocation_unknown"),
    ]


def test_04_certificates_out_of_their_time_are_refused(amd: FalseAmd) -> None:
    amd.verify(now=AT + 3600)
    refused(amd, "expired", "expired", "expired", now=AT + 3601)
    refused(amd, "not_yet_valid", "not_yet_valid", "not_yet_valid", now=AT - 3601)


def test_05_a_revocation_list_that_cannot_serve_leaves_it_open(amd: FalseAmd) -> None:
    assert amd.verify(crl=amd.crl()).revocation_checked
    for crl, code in (
        (amd.crl(until=AT - 1, since=AT - 60), "crl_expired"),
        (amd.crl(since=AT + 1), "crl_expired"),
        (b"", "crl"),
        (b"x" * (sevsnp.MAX_CRL_BYTES + 1), "crl"),
        (amd.crl()[:-1], "crl"),
        (amd.crl(key=amd.ask.key), "crl"),
    ):
        with pytest.raises(Lacking) as lacking:
            amd.verify(crl=crl)
        assert lacking.value.code == f"snp.{code}"


def test_06_a_tcb_below_what_is_wanted_is_a_mismatch(amd: FalseAmd) -> None:
    report = amd.verify()
    assert codes(report, min_tcb={"snp": 24, "ucode": 217}) == []
    assert codes(report, min_tcb={"snp": 25, "ucode": 218}) == ["snp.tcb_low", "snp.tcb_low"]
    assert codes(report, min_tcb={"fmc": 1}) == ["snp.tcb_low"]
    with pytest.raises(Misuse):
        sevsnp.Expectations(min_tcb={"microcode": 1})
    with pytest.raises(Misuse):
        codes(sevsnp.parse(amd.report()), min_tcb={"snp": 1})


def test_07_a_key_that_amd_does_not_certify_signs_in_vain(amd: FalseAmd) -> None:
    amd.vek.key = ec.generate_private_key(ec.SECP384R1())
    refused(amd, "signature")


def test_08_a_self_made_root_is_refused(amd: FalseAmd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert refused(amd, "root").step == 2


def test_08_a_self_made_intermediate_under_the_root_is_refused(
    amd: FalseAmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(amd.ask, amd.ark, extensions=authority(0), until=AT + 9)
    assert refused(amd, "chain").step == 3


def test_09_another_chips_key_is_refused(amd: FalseAmd) -> None:
    refused(amd, "chip", report=amd.report(chip_id=bytes(64)))


def test_09_on_turin_the_chip_id_ends_after_8_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    amd = made(Line.TURIN).pin(monkeypatch)
    refused(amd, "chip", report=amd.report(chip_id=amd.chip[:8] + b"\x01"))


def test_09_another_product_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    amd = made(Line.MILAN, facts={"2": b"\x16\x05Genoa"}).pin(monkeypatch)
    refused(amd, "product")
    amd = made(Line.MILAN).pin(monkeypatch)
    refused(amd, "product", report=amd.report(processor=b"\x19\x11\x01"))
    refused(amd, "product", report=amd.report(processor=b"\x1a\x02\x01"))
    amd.verify(amd.report(version=b"\x02", processor=b""))


def test_09_a_key_of_the_other_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    amd = made(Line.MILAN, SigningKey.VLEK).pin(monkeypatch)
    monkeypatch.setitem(
        sevsnp.ASK_SHA256, (Line.MILAN, SigningKey.VCEK), sevsnp.ASK_SHA256[Line.MILAN, SigningKey.VLEK]
    )
    refused(amd, "vek_kind", "chip", report=amd.report(key_info=b"\x00"))
    with_chip = made(Line.MILAN, SigningKey.VLEK, facts={"4": bytes(range(64))}).pin(monkeypatch)
    refused(with_chip, "chip")


def test_10_a_tampered_report_is_refused(amd: FalseAmd) -> None:
    report = bytearray(amd.report())
    for offset in (0x50, 0x90, 0xC0, 0x29F):
        report[offset] ^= 1
        refused(amd, "signature", report=bytes(report))
        report[offset] ^= 1
    amd.verify(bytes(report))


def test_10_a_measurement_off_the_allow_list_is_a_mismatch(amd: FalseAmd) -> None:
    report = amd.verify()
    assert codes(report, measurements=(b"x" * 48, b"m" * 48)) == []
    assert codes(report, measurements=(b"x" * 48,)) == ["snp.measurement"]


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0x00, 1),  # version
        (0x00, 6),
        (0x34, 2),  # signature algorithm
        (0x48, 0x08),  # signing key
        (0x48, 0x1C),  # none
        (0x0A, 0x01),  # reserved bit 17 of the policy
        (0x30, 4),  # VMPL
        (0x2A0 + 48, 1),  # around the signature
        (0x2E8 + 71, 1),
        (0x330, 1),
        (0x49F, 1),
    ],
)
def test_11_another_form_is_refused(amd: FalseAmd, offset: int, value: int) -> None:
    report = bytearray(amd.report())
    report[offset] = value
    # What is signed and was changed is a forgery too, and both are said.
    codes = ("malformed", "signature") if offset < sevsnp.SIGNED_BYTES else ("malformed",)
    assert refused(amd, *codes, report=bytes(report)).step == 1


def test_11_another_length_is_refused(amd: FalseAmd) -> None:
    report = amd.report()
    for wrong in (b"", report[:-1], report + b"\x00", report * 2):
        refused(amd, "malformed", report=wrong)


def test_19_a_revoked_issuer_is_refused_and_revocation_unknown_is_said(amd: FalseAmd) -> None:
    assert refused(amd, "revoked", crl=amd.crl(3, 7)).step == 12
    refused(amd, "revoked", crl=amd.crl(7, until=AT - 1))  # an old list's word still holds
    assert codes(amd.verify(), allow_unknown_revocation=False) == ["snp.revocation_unknown"]
    assert codes(amd.verify(crl=amd.crl()), allow_unknown_revocation=False) == []


def test_20_another_vmpl_is_refused_unless_it_is_allowed(amd: FalseAmd) -> None:
    report = amd.verify(amd.report(vmpl=b"\x01"))
    assert codes(report) == ["snp.vmpl"]
    assert codes(report, vmpls={0, 1}) == []
    with pytest.raises(Misuse):
        sevsnp.Expectations(vmpls=frozenset())


# What the specification says of certificates and TCB versions, one at a time.


def test_a_key_for_another_tcb_version_is_refused_component_by_component(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for line in Line:
        good = made(line).tcb
        for index in range(8):
            vek_tcb = bytes(value + (i == index) for i, value in enumerate(good))
            amd = made(line, vek_tcb=vek_tcb).pin(monkeypatch)
            assert refused(amd, "tcb").step == 9


@pytest.mark.parametrize(
    "raw",
    [None, b"", b"\x02\x01", b"\x02\x02\x00\x18", b"\x02\x01\x98", b"\x04\x01\x18", b"\x02\x81\x01\x18"],
)
def test_a_tcb_component_has_one_encoding(monkeypatch: pytest.MonkeyPatch, raw: bytes | None) -> None:
    refused(FalseAmd(facts={"3.3": raw}).pin(monkeypatch), "tcb")


def test_tcb_versions_are_in_order(amd: FalseAmd) -> None:
    higher, lower = bytes([5, *amd.tcb[1:]]), bytes([3, *amd.tcb[1:]])
    amd.verify(amd.report(current_tcb=higher, committed_tcb=higher))
    amd.verify(amd.report(current_tcb=higher))
    refused(amd, "tcb_order", report=amd.report(current_tcb=lower))
    refused(amd, "tcb_order", "tcb_order", report=amd.report(committed_tcb=lower, current_tcb=bytes(8)))
    refused(amd, "tcb", "tcb_order", report=amd.report(reported_tcb=higher))


def test_an_issuer_must_be_an_authority_and_a_leaf_none(monkeypatch: pytest.MonkeyPatch) -> None:
    amd = FalseAmd()
    certify(amd.ask, amd.ark, extensions=[])
    refused(amd.pin(monkeypatch), "chain")
    wrongs: list[Extensions] = [authority(0), [(usage(sign_certificates=True), True)]]
    for wrong in wrongs:
        refused(FalseAmd(vek_extensions=wrong).pin(monkeypatch), "chain")
    FalseAmd(vek_extensions=[(usage(sign=True), True)]).pin(monkeypatch).verify()


def test_a_leaf_on_another_curve_or_of_another_issuer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    amd, other = FalseAmd().pin(monkeypatch), FalseAmd()
    report = amd.report()
    small = certify(Party("SEV-VCEK", ec.generate_private_key(ec.SECP256R1())), amd.ask, extensions=[])
    amd.vek = small
    refused(amd, "product", "chip", *["tcb"] * 4, "chain", report=report)
    amd.vek = certify(other.vek, replace(amd.ask, name="another"), extensions=[])
    unfit = ("product", "chip", *["tcb"] * 4, "signature")
    assert refused(amd, "chain", *unfit, report=report).step == 5
    amd.vek = certify(other.vek, replace(amd.ask, key=amd.ark.key), extensions=[])
    refused(amd, "certificate_signature", *unfit, report=report)


def test_a_certificate_with_anything_behind_it_is_refused(amd: FalseAmd) -> None:
    amd.vek.der += b"\x00"
    assert refused(amd, "certificate").step == 4


def test_both_twins_of_a_signature_are_one_report(vectors: Path) -> None:
    from proofhold.conformance.mutations import TWIN, mutations

    good = {"report": (vectors / "sev-snp" / "turin-oak.report.bin").read_bytes()}
    twin = next(m for m in mutations("sev-snp", [good], seed="twin", count=500) if m.what.endswith(TWIN))
    one, other = sevsnp.parse(good["report"]), sevsnp.parse(twin.files["report"])
    assert (one.signed_digest, one.signature[0]) == (other.signed_digest, other.signature[0])
    assert one.signature[1] != other.signature[1]
