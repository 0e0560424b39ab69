"""TDX and SGX quotes: the real ones, and what became of them in other hands."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from dcap_vectors import GOOD, GOOD_SGX, INDEX_CODES, DcapCase, case_of, cases, code_of
from mutations import damaged
from proofhold.attestation import dcap
from proofhold.attestation.collateral import read_collateral
from proofhold.attestation.dcap import WAIVED, Expectations, TcbStatus
from proofhold.attestation.quote import TdReport, parse_quote
from proofhold.attestation.refusal import Lacking, Refusal
from proofhold.errors import Misuse

QUICK_MUTATIONS = 1_200
LONG_MUTATIONS = 12_000
DAY_S = 86_400
PEM_END = b"-----END CERTIFICATE-----\n"


@pytest.fixture(scope="session")
def good(vectors: Path) -> DcapCase:
    return case_of(vectors, GOOD)


@pytest.fixture(scope="session")
def sgx(vectors: Path) -> DcapCase:
    return case_of(vectors, GOOD_SGX)


def edited(case: DcapCase, **parts: str) -> bytes:
    return json.dumps({**json.loads(case.collateral), **parts}).encode()


def with_chain(case: DcapCase, chain: bytes) -> bytes:
    """The quote with another PCK chain, and every length field made to fit."""
    quote = parse_quote(case.quote)
    assert quote.version == 4
    added = len(chain) - len(quote.chain)
    data = bytearray(case.quote.removesuffix(quote.chain) + chain)
    start = len(quote.signed)
    for at in (start, start + 4 + 128 + 2, len(data) - len(chain) - 4):
        value = int.from_bytes(data[at : at + 4], "little") + added
        data[at : at + 4] = value.to_bytes(4, "little")
    return bytes(data)


def self_made_root() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Intel SGX Root CA")])
    start = datetime(2018, 5, 21, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=11_000))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def objections(case: DcapCase) -> tuple[list[str], dcap.DcapReport | None]:
    """All codes against a case under the default policy, and what was established."""
    try:
        report = dcap.verify(case.quote, case.collateral, now=case.now)
    except (Refusal, Lacking) as error:
        return [error.code], None
    expected = Expectations(report_data=WAIVED, measurements=WAIVED)
    return [mismatch.code for mismatch in dcap.validate(report, expected)], report


def test_every_case_of_the_index_agrees(vectors: Path) -> None:
    disagreements = []
    seen = 0
    for case in cases(vectors):
        seen += 1
        codes, report = objections(case)
        wanted = case.expected.get("code")
        agrees = not codes if wanted is None else wanted in {INDEX_CODES[code] for code in codes}
        if report is not None and "tcb_status" in case.expected:
            agrees &= report.tcb_status == case.expected["tcb_status"]
            agrees &= sorted(report.advisory_ids) == sorted(case.expected["advisory_ids"])
            for name, value in case.expected.get("report", {}).items():
                agrees &= getattr(report.quote.report, name) == value
        if case.expected["verdict"] == "reject_by_default_policy":
            agrees &= report is not None  # sound: refused by the policy alone
        if not agrees:
            disagreements.append((case.id, case.expected["verdict"], wanted, codes))
    assert not disagreements
    assert seen >= 37


# The numbers are those of the twenty tests that a good verifier passes.


@pytest.mark.parametrize("name", ["tdx-trustee-debug-td", "sgx-occlum-debug", "sgx-azure-debug-2023"])
def test_1_debug_is_refused_with_and_without_collateral(vectors: Path, name: str) -> None:
    case = case_of(vectors, name)
    assert code_of(case.quote, case.collateral, case.now) == "dcap.debug"
    assert code_of(case.quote, b"", case.now) == "dcap.debug"


def test_2_other_report_data_are_a_mismatch(good: DcapCase) -> None:
    report = dcap.verify(good.quote, good.collateral, now=good.now)
    expected = Expectations(report_data=b"\x01" * 64, measurements=WAIVED)
    (mismatch,) = dcap.validate(report, expected)
    assert mismatch.code == "dcap.report_data"
    assert mismatch.got == "00" * 64
    assert mismatch.expected == "01" * 64


def test_2_no_expectation_supplied_fails_closed(good: DcapCase) -> None:
    report = dcap.verify(good.quote, good.collateral, now=good.now)
    codes = [mismatch.code for mismatch in dcap.validate(report, Expectations())]
    assert codes == ["dcap.no_expectation", "dcap.no_expectation"]
    codes = [m.code for m in dcap.validate(report, Expectations(report_data=WAIVED, measurements={}))]
    assert codes == ["dcap.no_expectation"]


@pytest.mark.parametrize(
    "expectations",
    [
        {"measurements": {"mr_tdd": {"00"}}},
        {"measurements": {"mr_td": set()}},
        {"report_data": b"short"},
        {"statuses": frozenset()},
        {"statuses": frozenset({TcbStatus.REVOKED})},
    ],
)
def test_2_expectations_that_make_no_sense_cannot_be_built(expectations: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        Expectations(**expectations)


def test_3_a_replayed_genuine_quote_is_found_by_its_report_data_alone(vectors: Path) -> None:
    case = case_of(vectors, "tdx-dstack-simulator")
    codes, report = objections(case)
    assert codes == []
    assert report is not None
    (mismatch,) = dcap.validate(report, Expectations(report_data=bytes(range(64)), measurements=WAIVED))
    assert mismatch.code == "dcap.report_data"


def test_3_collateral_of_an_older_recovery_can_be_refused(vectors: Path) -> None:
    # The same quote: UpToDate before a TCB recovery, OutOfDate after it, both with collateral in force.
    case = case_of(vectors, "tdx-phala-sample-2025-06")
    report = dcap.verify(case.quote, case.collateral, now=case.now)
    expected = Expectations(report_data=WAIVED, measurements=WAIVED, min_tcb_evaluation_number=20)
    assert [m.code for m in dcap.validate(report, expected)] == ["dcap.tcb_evaluation_number"]


def test_4_an_expired_or_early_pck_certificate_is_refused_even_without_collateral(good: DcapCase) -> None:
    assert code_of(good.quote, b"", good.now + 20 * 365 * DAY_S) == "dcap.certificate_expired"
    assert code_of(good.quote, b"", 1_600_000_000) == "dcap.certificate_not_yet_valid"


def test_5_collateral_serves_from_its_first_to_its_last_second(good: DcapCase) -> None:
    report = dcap.verify(good.quote, good.collateral, now=good.now)
    first, last = report.not_before, report.not_after
    assert (first, last) == (1782807139, 1785398027)
    assert code_of(good.quote, good.collateral, first) == "accepted"
    assert code_of(good.quote, good.collateral, last) == "accepted"
    assert code_of(good.quote, good.collateral, first - 1) == "dcap.collateral_not_yet_valid"
    assert code_of(good.quote, good.collateral, last + 1) == "dcap.collateral_expired"


def test_5_missing_collateral_and_missing_parts_blame_nobody(good: DcapCase) -> None:
    for data in (b"", b"{}", b"null", b"[]", edited(good, pck_crl=""), edited(good, root_ca_crl="00")):
        with pytest.raises(Lacking):
            dcap.verify(good.quote, data, now=good.now)


def test_5_spoilt_collateral_does_not_hide_a_false_quote(vectors: Path) -> None:
    for name, code in (("tdx-syn-ak-swap", "attestation_key"), ("tdx-syn-report-data-flip", "signature")):
        case = case_of(vectors, name)
        for data in (b"", b"{", case.collateral[:-9]):
            assert code_of(case.quote, data, case.now) == f"dcap.{code}"
        assert code_of(case.quote, case.collateral, case.now + 90 * DAY_S) == f"dcap.{code}"


def test_6_statuses_other_than_up_to_date_must_be_named_with_their_advisories(vectors: Path) -> None:
    case = case_of(vectors, "tdx-phala-sample-outofdate-2026-08")
    report = dcap.verify(case.quote, case.collateral, now=case.now)
    assert report.tcb_status is TcbStatus.OUT_OF_DATE
    assert report.qe_status is TcbStatus.UP_TO_DATE
    named = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.UP_TO_DATE})
    advisories = frozenset(report.advisory_ids)
    assert next(m.code for m in dcap.tcb_mismatches(report)) == "dcap.tcb_status"
    only_status = list(dcap.tcb_mismatches(report, named))
    assert {m.code for m in only_status} == {"dcap.advisory"}
    assert {m.got for m in only_status} == advisories
    assert list(dcap.tcb_mismatches(report, named, advisories)) == []


def test_6_a_platform_without_a_tcb_level_is_refused(vectors: Path) -> None:
    case = case_of(vectors, "tdx-spr-e4-unsupported")
    assert code_of(case.quote, case.collateral, case.now) == "dcap.tcb_unsupported"


@pytest.mark.parametrize(
    ("status", "code"),
    [("Revoked", "dcap.tcb_revoked"), ("Excellent", "dcap.refused"), (None, "dcap.refused")],
)
def test_6_revoked_and_unknown_statuses_are_refused(
    good: DcapCase, monkeypatch: pytest.MonkeyPatch, status: str | None, code: str
) -> None:
    genuine = dcap._ask_dcap_qvl
    monkeypatch.setattr(dcap, "_ask_dcap_qvl", lambda *args: {**genuine(*args), "status": status})
    assert code_of(good.quote, good.collateral, good.now) == code


@pytest.mark.parametrize("name", ["tdx-syn-ak-swap", "sgx-syn-ak-swap"])
def test_7_a_swapped_attestation_key_is_refused(vectors: Path, name: str) -> None:
    case = case_of(vectors, name)
    assert code_of(case.quote, case.collateral, case.now) == "dcap.attestation_key"


def test_8_a_self_made_root_and_an_appended_one_are_refused(good: DcapCase) -> None:
    chain = parse_quote(good.quote).chain
    pck, issuer, root = (part + PEM_END for part in chain.split(PEM_END)[:3])
    mine = self_made_root()
    for other in (pck + issuer + mine, pck + issuer + root + mine, pck + issuer, root + issuer + pck):
        code = code_of(with_chain(good, other), good.collateral, good.now)
        assert code in ("dcap.chain", "dcap.qe_signature")
        assert code_of(with_chain(good, other), b"", good.now) == code
    assert code_of(with_chain(good, pck + issuer + root), good.collateral, good.now) == "accepted"


def test_8_a_self_made_root_in_collateral_is_not_taken(good: DcapCase) -> None:
    parts = json.loads(good.collateral)
    for name in ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"):
        issuer = parts[name].encode().split(PEM_END)[0] + PEM_END
        other = (issuer + self_made_root()).decode()
        code = code_of(good.quote, edited(good, **{name: other}), good.now)
        assert code == "dcap.collateral_signature"


def test_9_another_machines_certificate_is_refused(good: DcapCase, vectors: Path) -> None:
    other = case_of(vectors, "tdx-azure-2026-06")
    spliced = with_chain(good, parse_quote(other.quote).chain)
    for collateral in (good.collateral, other.collateral, b""):
        assert code_of(spliced, collateral, other.now) == "dcap.qe_signature"


@pytest.mark.parametrize("offset", [0, 136, 184, 328, 376, 424, 472, 520, 583])
def test_10_a_bit_of_the_body_is_not_to_be_changed(good: DcapCase, offset: int) -> None:
    data = bytearray(good.quote)
    data[48 + offset] ^= 1
    assert code_of(bytes(data), good.collateral, good.now) == "dcap.signature"
    assert code_of(bytes(data), b"", good.now) == "dcap.signature"


def test_10_measurements_off_the_list_are_all_reported(good: DcapCase, sgx: DcapCase) -> None:
    report = dcap.verify(good.quote, good.collateral, now=good.now)
    body = report.quote.report
    assert isinstance(body, TdReport)
    fitting = {"mr_td": {body.mr_td}, "rtmr0": {"00" * 48, body.rtmr0}, "rtmr3": {body.rtmr3}}
    expected = Expectations(report_data=bytes(64), measurements=fitting)
    assert dcap.validate(report, expected) == ()
    off = {**fitting, "mr_td": {"00" * 48}, "rtmr3": {"11" * 48}, "mr_enclave": {"00" * 32}}
    mismatches = dcap.validate(report, replace(expected, measurements=off))
    assert [m.code for m in mismatches] == ["dcap.measurement"] * 3
    assert [m.got for m in mismatches] == ["none", body.mr_td, body.rtmr3]
    enclave = dcap.verify(sgx.quote, sgx.collateral, now=sgx.now)
    later = Expectations(report_data=WAIVED, measurements=WAIVED, min_isv_svn=1, ppids={"00" * 16})
    codes = [m.code for m in dcap.validate(enclave, later)]
    assert codes == ["dcap.tcb_status", "dcap.advisory", "dcap.isv_svn", "dcap.platform"]


def test_11_trailing_bytes_and_truncation_are_refused(good: DcapCase, sgx: DcapCase) -> None:
    for case in (good, sgx):
        for data in (case.quote + b"\0", case.quote + b"junk", case.quote[:-1], case.quote[:100], b""):
            assert code_of(data, case.collateral, case.now) == "dcap.malformed"


def test_11_a_key_twice_or_one_too_many_in_the_collateral_is_not_taken(good: DcapCase) -> None:
    parts = json.loads(good.collateral)
    twice = good.collateral.rstrip().removesuffix(b"}") + b',"pck_crl":"00"}'
    for data in (twice, json.dumps({**parts, "extra": ""}).encode(), good.collateral + b"x"):
        assert code_of(good.quote, data, good.now) == "dcap.collateral_malformed"


def test_19_a_revocation_list_of_another_issuer_leaves_revocation_unknown(good: DcapCase) -> None:
    parts = json.loads(good.collateral)
    other = edited(good, pck_crl=parts["root_ca_crl"])
    assert code_of(good.quote, other, good.now) == "dcap.crl_issuer"


def test_19_a_revoked_certificate_is_named(good: DcapCase, monkeypatch: pytest.MonkeyPatch) -> None:
    # No revoked machine's quote is at hand, and no list can be forged: the lookup is made to find one, after
    # dcap-qvl was made to refuse.
    def refuse(*args: object) -> None:
        raise dcap._QvlRefused("CertRevoked")

    read_collateral(good.collateral)  # read and remembered before the lists are replaced
    monkeypatch.setattr(dcap, "_ask_dcap_qvl", refuse)
    load = x509.load_der_x509_crl
    monkeypatch.setattr(x509, "load_der_x509_crl", lambda der: _Revoking(load(der)))
    assert code_of(good.quote, good.collateral, good.now) == "dcap.revoked"


class _Revoking:
    """A revocation list that holds everybody."""

    def __init__(self, real: x509.CertificateRevocationList) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_revoked_certificate_by_serial_number(self, serial: int) -> int:
        return serial


def test_20_collateral_of_another_platform_or_edited_is_not_taken(vectors: Path, good: DcapCase) -> None:
    case = case_of(vectors, "tdx-syn-wrong-fmspc")
    assert code_of(case.quote, case.collateral, case.now) == "dcap.fmspc"
    parts = json.loads(good.collateral)
    for name, old, new in (
        ("tcb_info", '"tcbEvaluationDataNumber":19', '"tcbEvaluationDataNumber":20'),
        ("qe_identity", '"isvprodid":2', '"isvprodid":3'),
    ):
        text = parts[name].replace(old, new)
        assert text != parts[name]
        assert code_of(good.quote, edited(good, **{name: text}), good.now) == "dcap.collateral_signature"
    # SGX's TCB info for a TDX quote of the same instant does not exist here; its name alone is signed.
    text = parts["tcb_info"].replace('"id":"TDX"', '"id":"SGX"')
    assert code_of(good.quote, edited(good, tcb_info=text), good.now) == "dcap.collateral_signature"


@pytest.mark.parametrize("now", [-1, 2**63, 2**64])
def test_a_time_that_is_none_is_misuse(good: DcapCase, now: int) -> None:
    with pytest.raises(Misuse):
        dcap.verify(good.quote, good.collateral, now=now)


def test_without_dcap_qvl_the_error_names_what_to_install(
    good: DcapCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    with pytest.raises(Misuse, match="pip install"):
        dcap.verify(good.quote, good.collateral, now=good.now)


def test_an_abort_of_the_native_code_blames_nobody(good: DcapCase, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*args: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr("dcap_qvl.verify", panic)
    assert code_of(good.quote, good.collateral, good.now) == "dcap.aborted"


def test_what_the_two_parsers_read_differently_is_refused(
    good: DcapCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = dcap._ask_dcap_qvl

    def other(*args: Any) -> dict[str, Any]:
        answer = dict(genuine(*args))
        answer["report"] = {"TD10": {**answer["report"]["TD10"], "mr_td": "00" * 48}}
        return answer

    monkeypatch.setattr(dcap, "_ask_dcap_qvl", other)
    assert code_of(good.quote, good.collateral, good.now) == "dcap.refused"


def test_our_own_signature_checks_agree_with_dcap_qvl_on_every_case(vectors: Path) -> None:
    for case in cases(vectors):
        if not case.collateral or INDEX_CODES.get("dcap.malformed") == case.expected.get("code"):
            continue
        own = code_of(case.quote, b"", case.now)
        whole = code_of(case.quote, case.collateral, case.now)
        signatures = {"dcap.signature", "dcap.attestation_key", "dcap.qe_signature", "dcap.chain"}
        assert (own in signatures) == (whole in signatures), case.id


def same_quote(one: bytes, other: bytes) -> bool:
    """Whether two quotes differ only in how the PCK chain's text ends.

    That end, a newline and a NUL that attestation agents write or leave out, is the one place that neither a
    signature nor the one encoding of certificates covers.
    """
    left, right = (replace(parse_quote(data), chain=b"") for data in (one, other))
    chains = [parse_quote(data).chain.removesuffix(b"\0").removesuffix(b"\n") for data in (one, other)]
    return left == right and chains[0] == chains[1]


def mutate_quotes(case: DcapCase, count: int, seed: int) -> None:
    for data in damaged(case.quote, count=count, seed=seed):
        if code_of(data, case.collateral, case.now) == "accepted":
            assert same_quote(data, case.quote)


def mutate_collateral(case: DcapCase, count: int, seed: int) -> None:
    for data in damaged(case.collateral, count=count, seed=seed):
        if code_of(case.quote, data, case.now) == "accepted":
            # JSON is free in white space and escapes; the parts themselves must be the same.
            assert json.loads(data) == json.loads(case.collateral)
    rng = random.Random(seed)
    parts = json.loads(case.collateral)
    for _ in range(count // 3):
        name = rng.choice(sorted(parts))
        text = next(damaged(parts[name].encode(), count=1, seed=rng.randrange(2**32))).decode(
            errors="replace"
        )
        if text != parts[name] and code_of(case.quote, edited(case, **{name: text}), case.now) == "accepted":
            # The last newline of an issuer chain is free, as in the quote.
            assert text.removesuffix("\n") == parts[name].removesuffix("\n")


def test_mutated_quotes_are_not_accepted(good: DcapCase, sgx: DcapCase, vectors: Path) -> None:
    newer = case_of(vectors, "tdx-v5-go-tdx-guest")
    for case in (good, sgx, newer):
        mutate_quotes(case, QUICK_MUTATIONS // 3, seed=7)


def test_mutated_collateral_is_not_accepted(good: DcapCase) -> None:
    mutate_collateral(good, QUICK_MUTATIONS, seed=8)


@pytest.mark.long
def test_any_quote_with_any_collateral_is_accepted_only_where_dcap_qvl_accepts(vectors: Path) -> None:
    import dcap_qvl

    every = list(cases(vectors))
    accepted = 0
    for case in every:
        for other in every:
            if not other.collateral:
                continue
            ours = code_of(case.quote, other.collateral, other.now)
            collateral = dcap_qvl.QuoteCollateralV3.from_json(other.collateral.decode())
            try:
                dcap_qvl.verify(case.quote, collateral, other.now)
            except ValueError:
                assert ours not in ("accepted", "dcap.refused"), (case.id, other.id)
                continue
            # What it accepts and we refuse: bytes behind the quote, nothing else.
            assert ours in ("accepted", "dcap.malformed"), (case.id, other.id)
            accepted += ours == "accepted"
    assert accepted > 100


@pytest.mark.long
def test_many_mutated_quotes_are_not_accepted(good: DcapCase, sgx: DcapCase, vectors: Path) -> None:
    for case in (good, sgx, case_of(vectors, "tdx-v5-go-tdx-guest")):
        mutate_quotes(case, LONG_MUTATIONS // 3, seed=70)


@pytest.mark.long
def test_much_mutated_collateral_is_not_accepted(good: DcapCase, sgx: DcapCase) -> None:
    for case in (good, sgx):
        mutate_collateral(case, LONG_MUTATIONS // 2, seed=80)


def test_every_bit_of_the_signature_data_matters(good: DcapCase) -> None:
    quote = parse_quote(good.quote)
    start = len(quote.signed)
    end = len(good.quote) - len(quote.chain)
    for at in range(start, end):
        data = bytearray(good.quote)
        data[at] ^= 1 << (at % 8)
        assert code_of(bytes(data), good.collateral, good.now) != "accepted", at


def test_the_root_is_the_one_that_intel_publishes(vectors: Path) -> None:
    from proofhold.attestation.intelchain import INTEL_SGX_ROOT_SHA256

    der = (vectors / "roots" / "intel-sgx-root-ca.der").read_bytes()
    assert hashlib.sha256(der).hexdigest() == INTEL_SGX_ROOT_SHA256
