"""Quotes as bytes: one encoding each, every length checked, nothing believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcap_vectors import GOOD, GOOD_SGX, case_of
from mutations import damaged
from proofhold.attestation.quote import (
    MAX_QUOTE_BYTES,
    EnclaveReport,
    Quote,
    TdReport,
    Tee,
    parse_quote,
    without_padding,
)
from proofhold.attestation.refusal import Refusal


@pytest.fixture(scope="session")
def v3(vectors: Path) -> bytes:
    return case_of(vectors, GOOD_SGX).quote


@pytest.fixture(scope="session")
def v4(vectors: Path) -> bytes:
    return case_of(vectors, GOOD).quote


@pytest.fixture(scope="session")
def v5(vectors: Path) -> bytes:
    return case_of(vectors, "tdx-alibaba-v5-service-td").quote


def refused(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_quote(data)
    return caught.value


def test_a_quote_of_version_4_is_read(v4: bytes) -> None:
    quote = parse_quote(v4)
    report = quote.report
    assert isinstance(report, TdReport)
    assert (quote.version, quote.tee) == (4, Tee.TDX)
    assert report.report_data == v4[48 + 520 : 48 + 584].hex()
    assert report.rtmrs[3] == v4[48 + 472 : 48 + 520].hex()
    assert report.sept_ve_disable
    assert not report.debug
    assert not report.migratable
    assert report.mr_service_td is None
    assert quote.signed == v4[: 48 + 584]


def test_a_quote_of_version_5_is_read(v5: bytes) -> None:
    quote = parse_quote(v5)
    assert quote.version == 5
    assert isinstance(quote.report, TdReport)
    assert quote.report.mr_service_td is not None or v5[48:50] == b"\x02\x00"
    assert quote.signed == v5[: 54 + int.from_bytes(v5[50:54], "little")]


def test_a_quote_of_version_3_is_read(v3: bytes) -> None:
    quote = parse_quote(v3)
    report = quote.report
    assert isinstance(report, EnclaveReport)
    assert (quote.version, quote.tee) == (3, Tee.SGX)
    assert report.report_data == quote.report_data == v3[48 + 320 : 48 + 384].hex()
    assert report.mr_enclave == v3[48 + 64 : 48 + 96].hex()
    assert report.mr_signer == v3[48 + 128 : 48 + 160].hex()
    assert (report.isv_prod_id, report.isv_svn) == (0, 0)
    assert report.initialised
    assert not report.debug


@pytest.mark.parametrize("version", ["v3", "v4", "v5"])
def test_no_prefix_and_no_extension_of_a_quote_is_one(version: str, request: pytest.FixtureRequest) -> None:
    data: bytes = request.getfixturevalue(version)
    for end in range(0, len(data), 13):
        assert refused(data[:end]).code == "dcap.malformed"
    for tail in (b"\0", b"junk", data):
        assert refused(data + tail).code == "dcap.malformed"


@pytest.mark.parametrize(
    ("at", "value", "code"),
    [
        (0, b"\x02\x00", "dcap.unsupported"),
        (0, b"\x06\x00", "dcap.unsupported"),
        (0, b"\x03\x00", "dcap.unsupported"),
        (2, b"\x03\x00", "dcap.unsupported"),
        (4, b"\x00\x00\x00\x00", "dcap.unsupported"),
        (48 + 584, b"\xff\xff\xff\xff", "dcap.malformed"),
        (48 + 584, b"\x00\x00\x00\x00", "dcap.malformed"),
        (48 + 584 + 4 + 128, b"\x05\x00", "dcap.unsupported"),
        (48 + 584 + 4 + 130, b"\xff\xff\xff\x7f", "dcap.malformed"),
        (48 + 584 + 4 + 134 + 448, b"\xff\xff", "dcap.malformed"),
        (48 + 584 + 4 + 134 + 450 + 32, b"\x06\x00", "dcap.unsupported"),
    ],
)
def test_one_field_that_is_off_is_refused_by_code(v4: bytes, at: int, value: bytes, code: str) -> None:
    error = refused(v4[:at] + value + v4[at + len(value) :])
    assert error.code == code
    assert error.got
    assert error.expected


@pytest.mark.parametrize(
    ("at", "value", "code"),
    [
        (48, b"\x01\x00", "dcap.unsupported"),
        (48, b"\x04\x00", "dcap.unsupported"),
        (50, b"\x00\x00\x00\x00", "dcap.malformed"),
        (50, b"\xff\xff\xff\xff", "dcap.malformed"),
    ],
)
def test_a_body_descriptor_names_a_known_type_and_its_size(
    v5: bytes, at: int, value: bytes, code: str
) -> None:
    assert refused(v5[:at] + value + v5[at + len(value) :]).code == code


def test_what_is_too_long_is_not_looked_at() -> None:
    assert refused(b"\x04\x00" * MAX_QUOTE_BYTES).code == "dcap.malformed"


@pytest.mark.parametrize("version", ["v3", "v4", "v5"])
def test_only_zeros_are_cut_and_only_when_asked(version: str, request: pytest.FixtureRequest) -> None:
    data: bytes = request.getfixturevalue(version)
    assert without_padding(data) == data
    assert without_padding(data + bytes(70)) == data
    for other in (data + b"junk", data + bytes(3) + b"\x01", data[:-1], data[:200], b"", b"\x05\x00"):
        assert without_padding(other) == other


@pytest.mark.parametrize("version", ["v3", "v4", "v5"])
def test_damaged_bytes_are_read_or_refused(version: str, request: pytest.FixtureRequest) -> None:
    data: bytes = request.getfixturevalue(version)
    for changed in damaged(data, count=2000, seed=3):
        try:
            assert isinstance(parse_quote(changed), Quote)
        except Refusal as error:
            assert error.code in ("dcap.malformed", "dcap.unsupported")  # noqa: PT017
