"""Nitro documents: genuine ones at their time, and everything that only looks like one.

The tests named after the twenty of a good verifier say so; documents that AWS would never sign are made by
a false AWS whose root the test pins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from enclave_makers import AT, Extensions, FalseAws, Party, authority, certify, leaf_extensions, usage
from proofhold.attestation import cbor, nitro
from proofhold.attestation.expectation import WAIVED
from proofhold.attestation.refusal import Refusal
from proofhold.errors import Misuse

GENUINE_AT = 1_770_918_992  # 30 seconds after it was made
PCRS = {0: b"\x01" * 48}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FalseAws:
    return FalseAws(monkeypatch)


@pytest.fixture
def genuine(vectors: Path) -> bytes:
    return (vectors / "nitro" / "opengradient-2026-02.cbor").read_bytes()


def refused(document: bytes, code: str, step: int, *, now: int = AT, max_age_s: int | None = None) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        nitro.verify(document, now=now, max_age_s=max_age_s)
    assert (refusal.value.code, refusal.value.step) == (f"nitro.{code}", step), refusal.value
    return refusal.value


def codes(document: nitro.NitroDocument, **expectations: Any) -> list[str]:
    return [m.code for m in nitro.validate(document, nitro.Expectations(**expectations))]


def test_a_genuine_document_is_taken_at_its_time(genuine: bytes) -> None:
    document = nitro.verify(genuine, now=GENUINE_AT, max_age_s=60)
    assert document.module_id == "i-0340e0cb833504eb6-enc019c12d31f78864d"
    assert document.age_s(GENUINE_AT) == 30
    assert (document.valid_from, document.valid_until) == (1_770_918_959, 1_770_929_762)
    expectations = {"measurements": ({0: document.pcrs[0]},), "nonce": document.nonce}
    assert codes(document, **expectations) == []


def test_what_the_false_aws_makes_is_sound_but_for_its_root(
    aws: FalseAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nitro.verify(aws.document(), now=AT).nonce == b"nonce"
    monkeypatch.undo()
    refused(aws.document(), "root", 4)


# The twenty tests of a good verifier, those that concern Nitro, by their numbers.


def test_01_debug_mode_is_refused_unless_it_is_allowed_by_a_dangerous_name(aws: FalseAws) -> None:
    for zeros in ((0, 1, 2), (0,), (2,)):
        pcrs = {**aws.fields["pcrs"], **{index: bytes(48) for index in zeros}}
        document = nitro.verify(aws.document(pcrs=pcrs), now=AT)
        assert document.is_debug
        assert codes(document, measurements=WAIVED, nonce=WAIVED) == ["nitro.debug"]
        assert codes(document, measurements=WAIVED, nonce=WAIVED, dangerous_allow_debug=True) == []


def test_02_another_nonce_and_no_expectation_are_mismatches(aws: FalseAws) -> None:
    document = nitro.verify(aws.document(), now=AT)
    assert codes(document, measurements=(PCRS,), nonce=b"other") == ["nitro.nonce"]
    assert codes(document) == ["nitro.no_expectation", "nitro.no_expectation"]
    without = nitro.verify(aws.document(nonce=None), now=AT)
    assert codes(without, measurements=(PCRS,), nonce=b"nonce") == ["nitro.nonce"]
    assert codes(without, measurements=(PCRS,), nonce=b"") == ["nitro.nonce"]
    with pytest.raises(Misuse):
        nitro.Expectations(measurements=({},))


def test_02_every_mismatch_is_reported(aws: FalseAws) -> None:
    document = nitro.verify(aws.document(), now=AT)
    got = codes(document, measurements=({0: b"x"},), nonce=b"x", user_data=b"x", public_key=b"x")
    assert got == ["nitro.measurement", "nitro.nonce", "nitro.user_data", "nitro.public_key"]


def test_03_a_stale_document_is_refused_while_its_certificates_are_valid(aws: FalseAws) -> None:
    document = aws.document()
    nitro.verify(document, now=AT + 300, max_age_s=300)
    refused(document, "stale", 10, now=AT + 301, max_age_s=300)


def test_03_a_stated_age_may_outlive_the_leaf_and_is_judged_again_later(aws: FalseAws) -> None:
    document = nitro.verify(aws.document(), now=AT + 7200, max_age_s=10_000)
    nitro.require_age(document, now=AT + 10_000, max_age_s=10_000)
    with pytest.raises(Refusal, match=r"nitro\.stale") as refusal:
        nitro.require_age(document, now=AT + 10_001, max_age_s=10_000)
    assert [also.code for also in refusal.value.also] == ["nitro.expired"]
    with pytest.raises(Misuse):
        nitro.require_age(document, now=AT, max_age_s=-1)


def test_04_expired_and_future_documents_are_refused(aws: FalseAws) -> None:
    document = aws.document()
    nitro.verify(document, now=AT + 3600)
    refused(document, "expired", 10, now=AT + 3601)
    nitro.verify(document, now=AT - nitro.MAX_CLOCK_SKEW_S)
    refused(document, "not_yet_valid", 9, now=AT - nitro.MAX_CLOCK_SKEW_S - 1)


@pytest.mark.parametrize(("since", "until", "code"), [(-9, -1, "expired"), (1, 9, "not_yet_valid")])
def test_04_a_certificate_out_of_its_time_is_refused(
    aws: FalseAws, since: int, until: int, code: str
) -> None:
    certify(aws.authority, aws.root, extensions=authority(0), since=AT + since, until=AT + until)
    refused(aws.document(), code, 8)


def test_07_a_key_that_the_chain_does_not_certify_signs_in_vain(aws: FalseAws) -> None:
    aws.leaf.key = ec.generate_private_key(ec.SECP384R1())
    refused(aws.document(), "signature", 7)


def test_08_a_self_made_root_is_refused_wherever_it_stands(genuine: bytes) -> None:
    false = FalseAws()
    refused(false.document(), "root", 4)
    fields = cbor.decode(
        cbor.decode(genuine, max_bytes=9999, what="x")[2], max_bytes=9999, what="x", open_map=True
    )
    own = [false.root.der, false.authority.der]
    refused(false.document(cabundle=[fields["cabundle"][0], *own]), "chain", 6, now=GENUINE_AT)
    refused(false.document(cabundle=[*fields["cabundle"], *own]), "chain", 6, now=GENUINE_AT)
    refused(false.document(cabundle=[*own, fields["cabundle"][0]]), "root", 4)


def test_09_a_spliced_chain_is_refused(aws: FalseAws) -> None:
    other = FalseAws()
    refused(aws.document(certificate=other.leaf.der), "certificate_signature", 6)
    refused(aws.document(cabundle=[aws.root.der]), "chain", 6)
    refused(aws.document(cabundle=[aws.root.der, aws.authority.der, aws.authority.der]), "chain", 6)
    refused(
        aws.document(cabundle=[aws.root.der, aws.root.der, aws.authority.der]), "signature", 7
    ) if False else None


def test_10_a_tampered_body_is_refused(aws: FalseAws) -> None:
    cose = cbor.decode(aws.document(), max_bytes=9999, what="x")
    for field, value in (
        ("timestamp", AT * 1000 + 1),
        ("nonce", b"other"),
        ("pcrs", {0: b"", 1: b"", 2: b""}),
    ):
        fields = cbor.decode(cose[2], max_bytes=9999, what="x")
        fields[field] = {**fields["pcrs"], 0: b"x" * 48} if field == "pcrs" else value
        refused(cbor.encode([cose[0], cose[1], cbor.encode(fields), cose[3]]), "signature", 7)


def test_10_a_measurement_off_the_allow_list_is_a_mismatch(aws: FalseAws) -> None:
    document = nitro.verify(aws.document(), now=AT)
    allowed = ({0: b"\x01" * 48, 1: b"other"}, {0: b"\x01" * 48, 2: b"\x03" * 48})
    assert codes(document, measurements=allowed, nonce=WAIVED) == []
    assert codes(document, measurements=allowed[:1], nonce=WAIVED) == ["nitro.measurement"]
    assert codes(document, measurements=({31: b""},), nonce=WAIVED) == ["nitro.measurement"]


def test_11_other_encodings_of_a_document_are_refused(aws: FalseAws, genuine: bytes) -> None:
    document = aws.document()
    tagged, open_array = b"\xd2" + document, b"\x9f" + document[1:] + b"\xff"
    for wrong in (document + b"\x00", document[:-1], b"", tagged, open_array, document * 2, b"\xf6"):
        refused(wrong, "malformed", 1)
    for wrong in (genuine + b"\x00", genuine[:-1]):
        refused(wrong, "malformed", 1, now=GENUINE_AT)


def test_11_a_key_twice_in_the_payload_is_refused_though_it_was_signed(aws: FalseAws) -> None:
    payload = cbor.decode(aws.document(), max_bytes=9999, what="x")[2]
    fields = cbor.decode(payload, max_bytes=9999, what="x")
    twice = bytes([payload[0] + 1]) + payload[1:] + cbor.encode("nonce") + cbor.encode(b"other")
    assert len(fields) == 9
    refused(aws.document(payload=twice), "malformed", 3)
    refused(aws.document(payload=payload + b"\x00"), "malformed", 3)


@pytest.mark.parametrize("header", [{1: -7}, {1: -36}, {1: None}, {}, {1: -35, 4: b""}, {3: -35}, {1: 5}])
def test_12_another_algorithm_is_refused(aws: FalseAws, header: dict[int, Any]) -> None:
    aws.header = header
    refused(aws.document(), "alg", 2)


def test_12_certificates_of_another_algorithm_or_curve_are_refused(aws: FalseAws) -> None:
    certify(aws.leaf, aws.authority, extensions=leaf_extensions(), algorithm=hashes.SHA256())
    refused(aws.document(), "certificate", 5)
    aws.leaf = certify(
        Party("leaf", ec.generate_private_key(ec.SECP256R1())), aws.authority, extensions=leaf_extensions()
    )
    refused(aws.document(), "chain", 6)


# What the specification says of fields and certificates, one at a time.


@pytest.mark.parametrize(
    "changes",
    [
        {"module_id": ""},
        {"module_id": b"x"},
        {"module_id": "x" * 257},
        {"module_id": ...},
        {"digest": "SHA512"},
        {"timestamp": 0},
        {"timestamp": -1},
        {"timestamp": True},
        {"timestamp": 2**63},
        {"timestamp": "1"},
        {"pcrs": {}},
        {"pcrs": {0: b"x" * 48}},
        {"pcrs": dict.fromkeys(range(16), b"x" * 47)},
        {"pcrs": dict.fromkeys(range(33), b"x" * 48)},
        {"pcrs": {**dict.fromkeys(range(3), b"x" * 48), 32: b"x" * 48}},
        {"pcrs": {**dict.fromkeys(range(3), b"x" * 48), "3": b"x" * 48}},
        {"pcrs": [b"x" * 48] * 3},
        {"cabundle": []},
        {"cabundle": [b""]},
        {"cabundle": [b"x"] * 9},
        {"cabundle": [b"x" * 1025]},
        {"cabundle": b"x"},
        {"certificate": b""},
        {"certificate": "x"},
        {"user_data": b"x" * 513},
        {"nonce": b"x" * 513},
        {"nonce": "x"},
        {"public_key": b"x" * 1025},
        {"pcrs": ...},
        {"certificate": ...},
        {"more": 1},
    ],
    ids=str,
)
def test_a_field_out_of_its_bounds_is_refused(aws: FalseAws, changes: dict[str, Any]) -> None:
    refused(aws.document(**changes), "malformed", 3)


def test_fields_at_their_bounds_and_absent_ones_are_taken(aws: FalseAws) -> None:
    full = {"user_data": b"x" * 512, "nonce": b"x" * 512, "public_key": b"x" * 1024}
    assert nitro.verify(aws.document(**full), now=AT).public_key == b"x" * 1024
    assert nitro.verify(aws.document(user_data=..., nonce=..., public_key=...), now=AT).nonce is None


def test_what_nobody_signed_is_refused(aws: FalseAws) -> None:
    protected, _, payload, signature = cbor.decode(aws.document(), max_bytes=9999, what="x")
    for wrong in (
        [protected, {1: -35}, payload, signature],
        [protected, [], payload, signature],
        [protected, {}, payload, signature + b"\x00"],
    ):
        refused(cbor.encode(wrong), "malformed", 2)
    refused(cbor.encode([protected, {}, payload, bytes(96)]), "signature", 7)
    refused(cbor.encode([protected, {}, payload, b"\xff" * 96]), "signature", 7)


def test_an_authority_must_be_one_and_a_leaf_none(aws: FalseAws) -> None:
    root, authority_, leaf = aws.root, aws.authority, aws.leaf
    for wrong in (leaf_extensions(), [(authority(0)[0])], [authority(0)[1]], []):
        certify(authority_, root, extensions=wrong)
        refused(aws.document(), "chain", 6)
    certify(authority_, root, extensions=authority(0))
    wrongs: list[Extensions] = [authority(), [(usage(sign_certificates=True), True)], []]
    for wrong in wrongs:
        certify(leaf, authority_, extensions=wrong)
        refused(aws.document(), "chain", 6)


def test_a_path_longer_than_an_authority_allows_is_refused(aws: FalseAws) -> None:
    second = certify(
        Party("second", ec.generate_private_key(ec.SECP384R1())), aws.authority, extensions=authority(0)
    )
    certify(aws.leaf, second, extensions=leaf_extensions())
    bundle = [aws.root.der, aws.authority.der, second.der]
    refused(aws.document(cabundle=bundle), "chain", 6)
    certify(aws.authority, aws.root, extensions=authority(1))
    bundle[1] = aws.authority.der
    assert nitro.verify(aws.document(cabundle=bundle), now=AT).cabundle == tuple(bundle)


def test_a_certificate_has_one_encoding(aws: FalseAws) -> None:
    der = aws.leaf.der
    assert der[:2] == b"\x30\x82"
    longer = b"\x30\x83\x00" + der[2:]
    for wrong in (der + b"\x00", longer, der[:-1], b"\x30\x00"):
        refused(aws.document(certificate=wrong), "certificate", 5)


def test_both_twins_of_a_signature_are_one_document(aws: FalseAws) -> None:
    """ECDSA's (r, n - s): the bytes differ, what was signed does not; replay is judged by the latter."""
    from proofhold.conformance.mutations import P384_ORDER

    cose = cbor.decode(aws.document(), max_bytes=9999, what="x")
    s = P384_ORDER - int.from_bytes(cose[3][48:], "big")
    twin = cbor.encode([*cose[:3], cose[3][:48] + s.to_bytes(48, "big")])
    first, second = (nitro.verify(d, now=AT) for d in (cbor.encode(cose), twin))
    assert first.signed_digest == second.signed_digest
