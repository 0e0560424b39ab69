"""Hostile proofs, each signed for by the provider: refuted, soon, by native code where they get so far."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Literal

import pytest

from damage import damaged_bytes, damaged_json, many, oddly_written, slightly_damaged, written
from judging import NOW, VERIFIER, catalogue, policy, proof, proved, runner, with_proof
from proofhold.backends.ezkl import EzklBackend
from proofhold.core import Accepted, Rejected, Verdict
from proofhold.fieldelement import MODULUS
from proofhold.receipt import Receipt
from proofhold.verifier import Verifier
from proofhold.zkproof import ZkProof

ORIGINAL = proved().evidence[0].body
BASE_FIELD = 21888242871839275222246405745257275088696311157297823662689037894645226208583
"""The order of the field that the curve's points live in; the proof's scalars live below `MODULUS`."""
WORD = 32
ORDERS: tuple[Literal["big", "little"], ...] = ("big", "little")
SLOWEST_S = 5.0

NORMAL_AND_LONG = [pytest.param(1, id="normal"), pytest.param(12, id="long", marks=pytest.mark.long)]


def judge(body: bytes) -> Verdict:
    """Judge the fixture with another body of its evidence, in bounded time."""
    bundle = with_proof(body)
    began = time.monotonic()
    verdict = Verifier(catalogue(), (EzklBackend(runner()),)).verify(
        bundle.exchange, bundle.evidence, policy=policy(), now=NOW
    )
    Receipt.decode(Receipt.issue(verdict, VERIFIER).encode())
    assert time.monotonic() - began < SLOWEST_S
    return verdict


def refuted(body: bytes) -> set[str]:
    """Judge what differs from the original, see it rejected as the provider's fault, and give the codes."""
    assert body != ORIGINAL
    verdict = judge(body)
    assert isinstance(verdict, Rejected), verdict
    assert verdict.settles_blame
    return {reason.code for reason in verdict.reasons}


def test_the_original_is_accepted() -> None:
    assert isinstance(judge(ORIGINAL), Accepted)


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_damaged_bytes_are_refuted(times: int) -> None:
    for body in many(300 * times, ("bytes", times), lambda r: damaged_bytes(ORIGINAL, r, ORIGINAL), ORIGINAL):
        refuted(body)


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_damaged_structure_is_refuted(times: int) -> None:
    document = json.loads(ORIGINAL)

    def make(random: Random) -> bytes:
        return written(damaged_json(document, random, document), random)

    for body in many(350 * times, ("structure", times), make, ORIGINAL):
        refuted(body)


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_slight_damage_that_parses_is_refuted(times: int) -> None:
    document = json.loads(ORIGINAL)
    bodies = many(
        200 * times,
        ("slight", times),
        lambda random: written(slightly_damaged(document, random), random),
        ORIGINAL,
    )
    codes = {code for body in bodies for code in refuted(body)}
    assert {"ezkl.input", "ezkl.tag"} <= codes


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_damaged_proof_bytes_are_refuted_by_native_code(times: int) -> None:
    true = proof().proof
    random = Random(f"native {times}")
    codes = set()
    for _ in range(150 * times):
        data = damaged_bytes(true, random, bytes(3_072))
        data = (data + true)[: len(true)]  # of the right length, or nothing native would be asked
        if data != true:
            codes |= refuted(replace(proof(), proof=data).encode())
    assert codes == {"ezkl.proof"}


def other_encodings() -> Iterator[bytes]:
    """Write each word of the proof as a number that is the same modulo a field's order, or its opposite."""
    true = proof().proof
    for at in range(0, len(true), WORD):
        for order in ORDERS:
            number = int.from_bytes(true[at : at + WORD], order)
            for other in (number + MODULUS, number + BASE_FIELD, BASE_FIELD - number, MODULUS - number):
                if 0 <= other < 2 ** (8 * WORD):
                    yield true[:at] + other.to_bytes(WORD, order) + true[at + WORD :]


@pytest.mark.parametrize(
    "step", [pytest.param(5, id="normal"), pytest.param(1, id="long", marks=pytest.mark.long)]
)
def test_another_encoding_of_the_same_numbers_is_refuted(step: int) -> None:
    for data in list(other_encodings())[::step]:
        if data != proof().proof:
            assert refuted(replace(proof(), proof=data).encode()) == {"ezkl.proof"}


def test_words_of_the_proof_in_another_order_are_refuted() -> None:
    true = proof().proof
    words = [true[at : at + WORD] for at in range(0, len(true), WORD)]
    random = Random("words")
    for _ in range(40):
        first, second = random.sample(range(len(words)), 2)
        mixed = list(words)
        mixed[first], mixed[second] = mixed[second], mixed[first]
        if mixed != words:
            assert refuted(replace(proof(), proof=b"".join(mixed)).encode()) == {"ezkl.proof"}


def test_odd_encodings_are_refuted() -> None:
    for body in oddly_written(json.loads(ORIGINAL)):
        refuted(body)


def test_what_ezkl_itself_writes_beside_the_proof_is_refuted() -> None:
    """Fields that no verifying key authenticates have no place in evidence."""
    for field in ("pretty_public_inputs", "hex_proof", "timestamp", "split", "transcript_type"):
        body = ORIGINAL.replace(b'"version":1', b'"%s":null,"version":1' % field.encode())
        assert refuted(body) & {"ezkl.malformed", "ezkl.not_canonical"}


def test_huge_evidence_is_refuted_soon() -> None:
    zero = "00" * 32
    many_instances = replace(proof(), instances=(zero,) * 60_000)
    assert refuted(many_instances.encode()) == {"ezkl.instances"}
    assert refuted(replace(proof(), proof=bytes(2**20)).encode()) == {"ezkl.proof_length"}
    assert refuted(ZkProof((), b"").encode()) == {"ezkl.instances"}
