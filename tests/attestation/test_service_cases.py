"""The index's cases of services' signatures: all that hold nothing else agree, and damage is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from proofhold.attestation.refusal import Refusal
from proofhold.conformance.checkers import check
from proofhold.conformance.comparison import Verdict
from proofhold.conformance.services import check_signature


def test_every_case_of_a_signature_agrees(vectors: Path) -> None:
    cases = [c for c in json.loads((vectors / "index.json").read_text()) if c["id"].startswith("response-")]
    assert len(cases) >= 5
    for case in cases:
        files = {role: (vectors / path).read_bytes() for role, path in case["files"].items()}
        answer = check("providers", files, None, case["params"])
        assert answer.verdict == Verdict(case["expected"]["verdict"]), case["id"]
        if answer.verdict is Verdict.REJECT:
            assert case["expected"]["code"] in answer.codes


def test_a_case_with_more_in_it_is_unsupported() -> None:
    assert check("providers", {"attestation": b"{}"}, None, {}).verdict is Verdict.UNSUPPORTED
    assert check("providers", {"vector": b"{}"}, None, {"nonce": "00"}).verdict is Verdict.UNSUPPORTED


@pytest.mark.parametrize(
    "data", [b"", b"1", b"[]", b"{}", b'{"signing_address":1}', b"x" * 70_000, b"[" * 9_999]
)
def test_nonsense_is_malformed(data: bytes) -> None:
    with pytest.raises(Refusal, match=r"service\.malformed"):
        check_signature(data)


@pytest.mark.parametrize("name", ["nearai-ecdsa-a", "opengradient-legacy-response"])
def test_no_damaged_byte_is_accepted_unless_it_says_the_same(vectors: Path, name: str) -> None:
    """What may change without a refusal: spaces, the case of hexadecimal, and fields that nobody reads."""
    good = (vectors / "providers" / f"{name}.json").read_bytes()
    honest = check_signature(good)
    drawn = random.Random(5)
    for _ in range(1_000):
        damaged = bytearray(good)
        damaged[drawn.randrange(len(damaged))] ^= 1 << drawn.randrange(8)
        try:
            facts = check_signature(bytes(damaged))
        except Refusal:
            continue
        assert facts == honest
