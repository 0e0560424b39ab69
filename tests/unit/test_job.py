"""The signed documents: version 1 stays readable, to the byte, and nothing else is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from documents import (
    BUYER,
    CLAIM,
    DECLINE,
    FIXTURES,
    JOB,
    PROVIDER,
    RESOLUTION,
    SIGNED_CLAIM,
    SIGNED_JOB,
    STRANGER,
    USDC,
    sha,
)
from mutations import damaged, misfilled
from proofhold import canonical
from proofhold.core import Statement
from proofhold.errors import Malformed, Misuse
from proofhold.job import (
    PPM,
    Claim,
    Decline,
    Job,
    Resolution,
    Service,
    job_tag,
    parse_rate,
    read_amount,
    statement_of,
)
from proofhold.keys import Envelope, Signed
from proofhold.money import Currency
from proofhold.records import Record

Decode = Callable[[bytes], Signed[Any]]
CASES: list[Any] = [
    pytest.param(
        Job, SIGNED_JOB, "382a1394d8a6d1311c103d1fb48954911e845de00dfea492e2199732a4d6faae", id="job"
    ),
    pytest.param(
        Claim, SIGNED_CLAIM, "4589b313c1b9be3786068404fcd8ce595942a7f3c47b75be4a710ca5b6daebeb", id="claim"
    ),
    pytest.param(
        Decline, DECLINE, "535282bf3be917bd03d5a7bf9e4ac0f613de79a843b5d1f36e6c15788b9297d0", id="decline"
    ),
    pytest.param(
        Resolution,
        RESOLUTION,
        "6d12095f086787fc2bc32995d1dce25f0adc41a01463344c0a805e52cac272bc",
        id="resolution",
    ),
]


@pytest.mark.parametrize(("kind", "signed", "digest"), CASES)
def test_version_1_is_read_and_written_to_the_byte(kind: Any, signed: Signed[Any], digest: str) -> None:
    data = (FIXTURES / f"{kind.FORMAT}.json").read_bytes()
    read = Signed.decode(kind, data)
    assert read == signed
    assert read.encode() == data
    assert read.digest == digest


@pytest.mark.parametrize(("kind", "signed", "digest"), CASES)
def test_signatures_do_not_count_in_a_documents_name(kind: Any, signed: Signed[Any], digest: str) -> None:
    assert signed.signed(STRANGER).digest == digest
    assert Signed.new(signed.document).digest == digest


@pytest.mark.parametrize(("kind", "signed", "digest"), CASES)
def test_every_field_is_read_strictly(kind: Any, signed: Signed[Any], digest: str) -> None:
    for value in misfilled(json.loads(signed.envelope.payload)):
        try:
            payload = canonical.encode(value)
        except Misuse:
            continue  # JSON cannot say it
        data = canonical.encode(Envelope(kind.PAYLOAD_TYPE, payload).to_json())
        try:
            read = Signed.decode(kind, data)
        except Malformed:
            continue
        assert canonical.encode(read.document.to_json()) == payload
        assert read.digest != digest


@pytest.mark.parametrize(("kind", "signed", "digest"), CASES)
def test_a_damaged_file_is_refused_or_no_longer_signed(kind: Any, signed: Signed[Any], digest: str) -> None:
    for data in damaged(signed.encode(), count=300):
        try:
            read = Signed.decode(kind, data)
        except Malformed:
            continue
        assert read.encode() == data
        assert read.envelope.signers() != signed.envelope.signers() or read.digest == digest


@pytest.mark.parametrize(("kind", "signed", "digest"), CASES)
def test_one_document_cannot_pass_for_another(kind: Any, signed: Signed[Any], digest: str) -> None:
    for other in (Job, Claim, Decline, Resolution):
        if other is not kind:
            with pytest.raises(Malformed, match="payloadType"):
                Signed.decode(other, signed.encode())


def edited(**changes: Any) -> bytes:
    content = JOB.to_json() | changes
    return canonical.encode(Envelope(Job.PAYLOAD_TYPE, canonical.encode(content)).to_json())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"price": "1.50"}, "price: got '1.50', expected '1.5'"),
        ({"price": "1.5000001"}, "finer than its 6 decimal places"),
        ({"price": "-1"}, "expected a plain decimal"),
        ({"price": 1}, "price: expected a string"),
        ({"bond": "x"}, "bond: amount"),
        ({"withholding_penalty": "0.0"}, "withholding_penalty: got '0.0', expected '0'"),
        ({"sampling_rate_ppm": PPM + 1}, "sampling_rate_ppm: got 1000001"),
        ({"captures": 0}, "captures: got 0, expected 1 to 1000000"),
        ({"captures": 1_000_001}, "captures"),
        ({"evidence_kinds": []}, "at least one kind"),
        ({"evidence_kinds": ["replay", "ezkl"]}, "each once, in order"),
        ({"evidence_kinds": ["ezkl", "ezkl"]}, "each once, in order"),
        ({"evidence_kinds": ["EZKL"]}, "expected the form"),
        ({"evidence_kinds": [f"k{i}" for i in range(9)]}, "9 items, expected at most 8"),
        ({"provider": BUYER.public}, "buyer and provider are one key"),
        ({"nonce": "00"}, "nonce: expected 64 lower-case"),
        ({"currency": {"code": "USDC", "exponent": 30}}, "exponent"),
        ({"currency": {"code": "USDC", "exponent": 6, "name": ""}}, "unknown field 'name'"),
        ({"model": {"kind": "weights"}}, "got 'weights', expected onnx or service"),
        ({"model": JOB.model.to_json() | {"sha": ""}}, "model: unknown field 'sha'"),
        ({"delivery": "later"}, "which is not one of its values"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"payee": ""}, "payee: got ''"),
        ({"verifier": "ed25519:00"}, "verifier: got"),
    ],
)
def test_what_is_wrong_with_a_job_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed) as caught:
        Signed.decode(Job, edited(**changes))
    assert said in caught.value.message
    assert caught.value.code == "job.malformed"


@pytest.mark.parametrize("field", ["verification_s", "answer_s", "dispute_s", "freeze_s"])
def test_periods_are_bounded(field: str) -> None:
    deadlines = JOB.to_json()["deadlines"]
    least = 1 if field in ("verification_s", "answer_s") else 0
    Signed.decode(Job, edited(deadlines=deadlines | {field: least}))
    for value in (least - 1, 10 * 366 * 86_400 + 1):
        with pytest.raises(Malformed, match=field):
            Signed.decode(Job, edited(deadlines=deadlines | {field: value}))
    with pytest.raises(Malformed, match="deadlines: unknown field"):
        Signed.decode(Job, edited(deadlines=deadlines | {"more_s": 1}))


def test_a_service_is_a_model_too() -> None:
    job = replace(JOB, model=Service("chat", sha("allow-list")), projection_commitment=None)
    assert Signed.decode(Job, Signed.new(job).encode()).document == job


def test_versions_that_are_not_known_are_refused() -> None:
    with pytest.raises(Malformed, match=r"job\.version"):
        Signed.decode(Job, edited(version=2))


def test_amounts_of_claims_are_atomic_and_written_one_way() -> None:
    for text in ("01", "1.5", "-1", "", "1" * 79):
        content = CLAIM.to_json() | {"amount_atomic": text}
        data = canonical.encode(Envelope(Claim.PAYLOAD_TYPE, canonical.encode(content)).to_json())
        with pytest.raises(Malformed, match="amount_atomic"):
            Signed.decode(Claim, data)


def test_both_sides_must_sign_and_nobody_else() -> None:
    envelope = SIGNED_JOB.envelope
    assert envelope.is_signed_by_exactly(JOB.signers)
    assert JOB.signers == (BUYER.public, PROVIDER.public)
    assert not Signed.new(JOB, BUYER).envelope.is_signed_by_exactly(JOB.signers)
    assert not Signed.new(JOB, BUYER, PROVIDER, STRANGER).envelope.is_signed_by_exactly(JOB.signers)


def test_the_job_tag_follows_from_the_digest() -> None:
    assert job_tag(SIGNED_JOB.digest).hex() == "7b9c5367769f8c0a6befff3d2101e5d2"
    assert job_tag(sha("other")) != job_tag(SIGNED_JOB.digest)


def test_the_statement_is_of_job_and_claim() -> None:
    assert statement_of(JOB, CLAIM) == Statement(SIGNED_JOB.digest, 0, 1_500_000, JOB.input, CLAIM.output)


def test_an_amount_is_read_in_its_shortest_form_only() -> None:
    assert read_amount(Record({"a": "0.1"}, what="x"), "a", USDC) == 100_000
    with pytest.raises(Malformed, match=r"expected '0\.1'"):
        read_amount(Record({"a": "0.10"}, what="x"), "a", USDC)
    assert read_amount(Record({"a": "7"}, what="x"), "a", Currency("JPY", 0)) == 7


@pytest.mark.parametrize(("text", "ppm"), [("0", 0), ("0.2", 200_000), ("1", PPM), ("0.000001", 1)])
def test_rates(text: str, ppm: int) -> None:
    assert parse_rate(text) == ppm


@pytest.mark.parametrize("text", ["1.000001", "0.0000001", "20%", "-0.1", ""])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(Misuse):
        parse_rate(text)
