"""Bundles: parsed strictly, blamed on nobody, repaired by true bytes only."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import rfc8785

from documents import (
    BUNDLE,
    BUYER,
    CLAIM,
    EVIDENCE,
    FIXTURES,
    INPUT,
    JOB,
    OUTPUT,
    PROVIDER,
    SIGNED_CLAIM,
    SIGNED_JOB,
    STRANGER,
    sha,
)
from mutations import damaged, misfilled
from proofhold import canonical
from proofhold.canonical import BASE64_PIECE_BYTES
from proofhold.core import Answer, Evidence, Fault, Need, NeedKind
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import Bundle, mismatches
from proofhold.job import NamedEvidence
from proofhold.keys import Envelope, Signed
from proofhold.payload import Document, Tensor, Tensors, encode_payload

BYTES = (FIXTURES / "bundle.json").read_bytes()


def with_exchange(**changes: Any) -> Bundle:
    return replace(BUNDLE, exchange=replace(BUNDLE.exchange, **changes))


def found(bundle: Bundle) -> list[tuple[str, NeedKind, str]]:
    for mismatch in mismatches(bundle):
        assert mismatch.reason.fault is Fault.NOBODY
        assert not mismatch.reason.measured
        assert mismatch.reason.got != mismatch.reason.expected
    return [(m.reason.code, m.need.kind, m.need.subject) for m in mismatches(bundle)]


def test_version_1_is_read_and_written_to_the_byte() -> None:
    bundle = Bundle.decode(BYTES)
    assert bundle == BUNDLE
    assert bundle.encode() == BYTES
    assert bundle.digest == "024cb6536e30e7b3a50395f0868aceee081bff7fbf01d8d4e57c469b15d691f0"
    assert mismatches(bundle) == ()


def test_a_bundle_without_evidence() -> None:
    bundle = Bundle.decode(replace(BUNDLE, evidence=()).encode())
    assert bundle.evidence == ()
    assert bundle.digest != BUNDLE.digest


OTHER = Document("text/plain", b"something else")
OTHER_EVIDENCE = Evidence("ezkl", b"another proof")


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (with_exchange(input=OTHER), [("input.digest", NeedKind.INPUT, JOB.input)]),
        (with_exchange(output=OTHER), [("output.digest", NeedKind.OUTPUT, CLAIM.output)]),
        (replace(BUNDLE, evidence=()), [("evidence.digest", NeedKind.EVIDENCE, EVIDENCE.digest)]),
        (
            replace(BUNDLE, evidence=(OTHER_EVIDENCE,)),
            [("evidence.digest", NeedKind.EVIDENCE, EVIDENCE.digest)],
        ),
        (replace(BUNDLE, evidence=(EVIDENCE, OTHER_EVIDENCE)), [("evidence.digest", NeedKind.BUNDLE, "")]),
        (replace(BUNDLE, evidence=(EVIDENCE, EVIDENCE)), [("evidence.digest", NeedKind.BUNDLE, "")]),
        (with_exchange(job=Signed.new(JOB, BUYER)), [("job.signature", NeedKind.JOB, "")]),
        (
            with_exchange(job=Signed.new(JOB, BUYER, PROVIDER, STRANGER)),
            [("job.signature", NeedKind.JOB, "")],
        ),
        (with_exchange(claim=Signed.new(CLAIM)), [("claim.signature", NeedKind.CLAIM, "")]),
        (with_exchange(claim=Signed.new(CLAIM, STRANGER)), [("claim.signature", NeedKind.CLAIM, "")]),
        (
            with_exchange(claim=Signed.new(CLAIM, PROVIDER, STRANGER)),
            [("claim.signature", NeedKind.CLAIM, "")],
        ),
        (
            with_exchange(claim=Signed.new(replace(CLAIM, job=sha("other")), PROVIDER)),
            [("claim.other_job", NeedKind.CLAIM, "")],
        ),
        (
            with_exchange(claim=Signed.new(replace(CLAIM, job=sha("other")), STRANGER), input=OTHER),
            [
                ("input.digest", NeedKind.INPUT, JOB.input),
                ("claim.signature", NeedKind.CLAIM, ""),
                ("claim.other_job", NeedKind.CLAIM, ""),
            ],
        ),
        (
            with_exchange(input=OTHER, output=OTHER),
            [("input.digest", NeedKind.INPUT, JOB.input), ("output.digest", NeedKind.OUTPUT, CLAIM.output)],
        ),
    ],
)
def test_every_mismatch_is_named_and_asked_for(bundle: Bundle, expected: list[Any]) -> None:
    assert found(bundle) == expected


@pytest.mark.parametrize(
    ("bundle", "kind", "body"),
    [
        (with_exchange(input=OTHER), NeedKind.INPUT, encode_payload(INPUT)),
        (with_exchange(output=OTHER), NeedKind.OUTPUT, encode_payload(OUTPUT)),
        (replace(BUNDLE, evidence=()), NeedKind.EVIDENCE, EVIDENCE.body),
        (replace(BUNDLE, evidence=(OTHER_EVIDENCE,)), NeedKind.EVIDENCE, EVIDENCE.body),
        (with_exchange(job=Signed.new(JOB, BUYER)), NeedKind.JOB, SIGNED_JOB.encode()),
        (with_exchange(claim=Signed.new(CLAIM)), NeedKind.CLAIM, SIGNED_CLAIM.encode()),
    ],
)
def test_true_bytes_repair(bundle: Bundle, kind: NeedKind, body: bytes) -> None:
    repaired = bundle.repaired([Answer(kind, b"no answer"), Answer(kind, body)])
    assert mismatches(repaired) == ()
    assert repaired.exchange == BUNDLE.exchange


@pytest.mark.parametrize(
    "answer",
    [
        Answer(NeedKind.INPUT, encode_payload(OTHER)),
        Answer(NeedKind.OUTPUT, encode_payload(OTHER)),
        Answer(NeedKind.EVIDENCE, OTHER_EVIDENCE.body),
        Answer(NeedKind.JOB, Signed.new(JOB, BUYER).encode()),
        Answer(NeedKind.JOB, Signed.new(replace(JOB, price=1), BUYER, PROVIDER).encode()),
        Answer(NeedKind.CLAIM, Signed.new(CLAIM, STRANGER).encode()),
        Answer(NeedKind.CLAIM, Signed.new(replace(CLAIM, job=sha("other")), PROVIDER).encode()),
        Answer(NeedKind.REVEAL, b"secret"),
        Answer(NeedKind.RETRY, b""),
        Answer(NeedKind.BUNDLE, b""),
    ],
)
def test_false_bytes_do_not(answer: Answer) -> None:
    assert BUNDLE.repaired([answer]) == BUNDLE


def test_a_damaged_job_is_repaired_by_the_one_that_the_claim_names() -> None:
    other_job = Signed.new(replace(JOB, price=1), BUYER)
    repaired = with_exchange(job=other_job).repaired([Answer(NeedKind.JOB, SIGNED_JOB.encode())])
    assert repaired == BUNDLE


def test_job_and_claim_both_replaced_are_repaired_one_after_the_other() -> None:
    false_job = Signed.new(replace(JOB, price=JOB.price + 1), STRANGER)
    false_claim = Signed.new(replace(CLAIM, job=false_job.digest), STRANGER)
    bundle = with_exchange(job=false_job, claim=false_claim)
    assert found(bundle) == [("job.signature", NeedKind.JOB, "")]
    bundle = bundle.repaired([Answer(NeedKind.JOB, SIGNED_JOB.encode())])
    assert [need for _, need, _ in found(bundle)] == [NeedKind.CLAIM, NeedKind.CLAIM]
    assert bundle.repaired([Answer(NeedKind.CLAIM, SIGNED_CLAIM.encode())]) == BUNDLE


def test_a_job_that_binds_gives_way_only_to_the_one_that_the_claim_names() -> None:
    other = Signed.new(replace(JOB, price=JOB.price + 1), BUYER, PROVIDER)
    assert BUNDLE.repaired([Answer(NeedKind.JOB, other.encode())]) == BUNDLE


def test_evidence_is_put_back_in_the_claims_order() -> None:
    pieces = [Evidence("ezkl", b"one"), Evidence("nitro", b"two"), Evidence("ezkl", b"three")]
    named = tuple(NamedEvidence(kind=e.kind, digest=e.digest) for e in pieces)
    whole = replace(
        with_exchange(claim=Signed.new(replace(CLAIM, evidence=named), PROVIDER)), evidence=tuple(pieces)
    )
    assert mismatches(whole) == ()
    partly = replace(whole, evidence=(pieces[2],))
    assert [m.need for m in mismatches(partly)] == [Need(NeedKind.EVIDENCE, e.digest) for e in pieces[:2]]
    answers = [Answer(NeedKind.EVIDENCE, e.body) for e in (pieces[1], pieces[0])]
    assert partly.repaired(answers) == whole
    shuffled = replace(whole, evidence=(pieces[1], pieces[0], pieces[2]))
    assert [m.need.kind for m in mismatches(shuffled)] == [NeedKind.BUNDLE]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "bundle.version"),
        ({"extra": 1}, "bundle.malformed"),
        ({"evidence": [{}] * 9}, "bundle.malformed"),
        ({"evidence": [{"kind": "ezkl", "body": "", "collateral": [], "more": 1}]}, "bundle.malformed"),
        ({"evidence": [{"kind": "ezkl", "body": "", "collateral": []}]}, "bundle.malformed"),
        ({"evidence": [{"kind": "EZKL", "body": "", "collateral": {}}]}, "bundle.malformed"),
        ({"evidence": [{"kind": "e", "body": "", "collateral": {"a": 1}}]}, "bundle.malformed"),
        (
            {"evidence": [{"kind": "e", "body": "", "collateral": {str(i): "" for i in range(33)}}]},
            "bundle.malformed",
        ),
    ],
)
def test_what_is_no_bundle_has_a_code(change: dict[str, Any], code: str) -> None:
    with pytest.raises(Malformed) as caught:
        Bundle.decode(canonical.encode(json.loads(BYTES) | change))
    assert caught.value.code == code


def test_every_field_is_read_strictly() -> None:
    for value in misfilled(json.loads(BYTES)):
        try:
            data = canonical.encode(value)
        except Misuse:
            continue  # JSON cannot say it
        check(data)


def test_a_damaged_bundle_is_refused_or_told_of() -> None:
    for data in damaged(BYTES, count=1000):
        check(data)


def test_damage_inside_of_the_envelopes_is_told_of() -> None:
    for name in ("job", "claim"):
        signed: Signed[Any] = getattr(BUNDLE.exchange, name)
        for payload in damaged(signed.envelope.payload, count=150):
            envelope = Envelope(signed.envelope.payload_type, payload, signed.envelope.signatures)
            check(canonical.encode(json.loads(BYTES) | {name: envelope.to_json()}))


def check(data: bytes) -> None:
    """Nothing passes for whole whose content differs from the original's, collateral apart."""
    try:
        bundle = Bundle.decode(data)
    except Malformed:
        return
    assert bundle.encode() == data
    without_collateral = replace(bundle, evidence=tuple(replace(e, collateral={}) for e in bundle.evidence))
    original = replace(BUNDLE, evidence=(replace(EVIDENCE, collateral={}),))
    assert mismatches(bundle) or without_collateral == original


@pytest.mark.parametrize(
    "size", [0, 1, BASE64_PIECE_BYTES - 1, BASE64_PIECE_BYTES, 2 * BASE64_PIECE_BYTES + 1]
)
def test_what_is_written_in_pieces_is_canonical_as_a_whole(size: int) -> None:
    """There is one encoding of each thing, however it is put together (ADR 0147)."""
    body = bytes(range(256)) * (size // 256 + 1)
    tensors = Tensors(
        tuple(Tensor(name, "uint8", (size,), body[:size]) for name in ("x", "\u00e9\U0001f600"))
    )
    document = Document("text/\u00e9", body[:size])
    # Of these two names, UTF-16 and Unicode's own order put another first.
    collateral = {"\ufb33": body[:size], "\U0001f600": b"", "a": b"b"}
    evidence = (Evidence("one", body[:size], collateral), Evidence("two", b""))
    exchange = replace(BUNDLE.exchange, input=tensors, output=document)
    for bundle in (Bundle(exchange, evidence), Bundle(exchange)):
        written = bundle.encode()
        assert canonical.decode(written, max_bytes=len(written), what="bundle") is not None
        assert rfc8785.dumps(json.loads(written)) == written
        assert Bundle.decode(written) == bundle
        assert bundle.digest == canonical.digest("proofhold/bundle/v1", written)
