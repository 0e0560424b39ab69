"""Hostile bundles: whatever is done to one, it is malformed or gets a verdict, soon, and is not accepted."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from damage import damaged_bytes, damaged_json, many, oddly_written, slightly_damaged, written
from judging import (
    NOW,
    PROVED_BUNDLE,
    PROVIDER,
    VERIFIER,
    AnsweringRunner,
    catalogue,
    make_job,
    policy,
    proved,
    resigned,
    reveal,
    runner,
    unproved,
)
from proofhold import canonical
from proofhold.answers import decode_answers, encode_answers
from proofhold.core import Accepted, Answer, Assurance, Inconclusive, NeedKind, Rejected, Verdict
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import Bundle
from proofhold.job import PPM, Claim, Job
from proofhold.keys import Signed
from proofhold.payload import Payload, encode_payload, read_payload
from proofhold.receipt import Receipt
from proofhold.records import Record
from proofhold.runner import Runner
from proofhold.standard import standard_verifier
from proofhold.zkverify import VALID

ORIGINAL = PROVED_BUNDLE.read_bytes()
OTHER = resigned(unproved(), job=make_job(unproved().exchange.input, bond=7, sampling_rate_ppm=PPM))
SLOWEST_S = 5.0

NORMAL_AND_LONG = [pytest.param(1, id="normal"), pytest.param(12, id="long", marks=pytest.mark.long)]


def judge(bundle: Bundle, using: Runner, answers: Sequence[Answer] = ()) -> Verdict:
    """Judge, in bounded time, and see that the verdict can be signed."""
    began = time.monotonic()
    verdict = standard_verifier(catalogue(), using).verify(
        bundle.exchange, bundle.evidence, policy=policy(), now=NOW, answers=answers
    )
    assert isinstance(verdict, Accepted | Rejected | Inconclusive)
    Receipt.decode(Receipt.issue(verdict, VERIFIER).encode())
    assert time.monotonic() - began < SLOWEST_S
    return verdict


def judge_bytes(data: bytes) -> Verdict | None:
    """Judge a file. Native code says "valid" to everything: all else must stop a forgery."""
    try:
        bundle = Bundle.decode(data)
    except Malformed:
        return None
    verdict = judge(bundle, AnsweringRunner(VALID))
    if isinstance(verdict, Accepted):
        assert data == ORIGINAL
    return verdict


def in_the_envelope(document: Any, which: str, change: Any) -> Any:
    """Change the payload inside one of a bundle's envelopes."""
    inner = json.loads(base64.b64decode(document[which]["payload"]))
    document[which]["payload"] = base64.b64encode(change(inner)).decode()
    return document


def test_the_original_is_accepted() -> None:
    assert isinstance(judge_bytes(ORIGINAL), Accepted)
    assert isinstance(judge(OTHER, runner(), [reveal()]), Accepted)


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_damaged_bytes_are_never_accepted(times: int) -> None:
    def make(random: Random) -> bytes:
        return damaged_bytes(ORIGINAL, random, OTHER.encode())

    for data in many(400 * times, ("bytes", times), make, ORIGINAL):
        assert not isinstance(judge_bytes(data), Accepted)


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_damaged_structure_is_never_accepted(times: int) -> None:
    document, other = json.loads(ORIGINAL), json.loads(OTHER.encode())

    def make(random: Random) -> bytes:
        if random.random() < 0.5:
            return written(slightly_damaged(document, random), random)
        if random.random() < 0.7:
            return written(damaged_json(document, random, other), random)
        which = random.choice(["job", "claim"])
        foreign = json.loads(base64.b64decode(other[which]["payload"]))
        copied = json.loads(ORIGINAL)
        return written(
            in_the_envelope(
                copied, which, lambda inner: written(damaged_json(inner, random, foreign), random)
            ),
            random,
        )

    judged = [judge_bytes(data) for data in many(800 * times, ("structure", times), make, ORIGINAL)]
    assert not any(isinstance(verdict, Accepted) for verdict in judged)
    reached = [verdict for verdict in judged if verdict is not None]
    assert len(reached) > 150 * times, "too few parse: the damage is too coarse to test the judge"


def test_parts_of_two_bundles_are_never_accepted_together() -> None:
    first, second = json.loads(ORIGINAL), json.loads(OTHER.encode())
    names = sorted(first)
    for bits in range(1, 2 ** len(names) - 1):
        mixed = {name: (first, second)[bits >> i & 1][name] for i, name in enumerate(names)}
        data = canonical.encode(mixed)
        if data not in (ORIGINAL, OTHER.encode()):
            assert not isinstance(judge_bytes(data), Accepted)


def test_odd_encodings_are_malformed() -> None:
    for data in oddly_written(json.loads(ORIGINAL)):
        with pytest.raises(Malformed):
            Bundle.decode(data)


def test_collateral_that_nobody_asked_for_is_not_accepted() -> None:
    document = json.loads(ORIGINAL)
    document["evidence"][0]["collateral"] = {"note": "AAAA"}
    assert isinstance(judge_bytes(canonical.encode(document)), Inconclusive)


# --- signed by both sides: only the content is left to judge --------------------------------------------


def _read(kind: type[Job] | type[Claim], value: Any, random: Random) -> Any:
    try:
        record = Record(
            canonical.decode(written(value, random), max_bytes=10**6, what=kind.FORMAT), what=kind.FORMAT
        )
        document = kind.read(record)
        record.close()
    except Malformed:
        return None
    return document


def signed_damage(random: Random) -> Bundle | None:
    """The fixture with a part damaged by the very parties that sign it."""
    base = random.choice([proved(), OTHER])
    exchange = base.exchange
    match random.randrange(4):
        case 0:
            job = _read(Job, damaged_json(exchange.job.document.to_json(), random), random)
            return None if job is None else resigned(base, job=job)
        case 1:
            claim = _read(Claim, damaged_json(exchange.claim.document.to_json(), random), random)
            if claim is None:
                return None
            return replace(base, exchange=replace(exchange, claim=Signed.new(claim, PROVIDER)))
        case 2:
            payload = _damaged_payload(exchange.input, random)
            return None if payload is None else resigned(base, payload=payload)
        case _:
            payload = _damaged_payload(exchange.output, random)
            return None if payload is None else resigned(base, output=payload)


def _damaged_payload(payload: Payload, random: Random) -> Payload | None:
    """A payload of another content, of shapes and dtypes that fit its bytes as often as not."""
    value = json.loads(encode_payload(payload))
    if random.random() < 0.5:
        tensor = value["tensors"][0]
        shape = random.choice([[0], [0, 2**53 - 1, 2**53 - 1], [], [1], [2, 15], [30], [1] * 8, [1, 0, 0]])
        dtype = random.choice(["float16", "float32", "float64", "int8", "int64", "uint8", "bool"])
        size = {"float16": 2, "float32": 4, "float64": 8, "int64": 8}.get(dtype, 1)
        count = 1
        for length in shape:
            count *= length
        data = random.randbytes(count * size)
        value["tensors"][0] = tensor | {
            "shape": shape,
            "dtype": dtype,
            "data": base64.b64encode(data).decode(),
        }
    else:
        value = damaged_json(value, random)
    try:
        return read_payload(
            Record(canonical.decode(written(value, random), max_bytes=10**6, what="payload"), what="payload")
        )
    except Malformed:
        return None


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_what_both_sides_signed_gets_a_verdict(times: int) -> None:
    random = Random(f"signed {times}")
    judged = 0
    while judged < 300 * times:
        bundle = signed_damage(random)
        if bundle is None or bundle in (proved(), OTHER):
            continue
        judged += 1
        assert Bundle.decode(bundle.encode()) == bundle
        verdict = judge(bundle, runner(), [reveal()] if random.random() < 0.5 else [])
        if not isinstance(verdict, Accepted):
            continue
        if not bundle.evidence:
            # Within the tolerance, or not drawn, it is no forgery: that is what was agreed.
            words = {word for words in verdict.shown.values() for word in words}
            assert words in ({Assurance.REEXECUTED}, {Assurance.NOT_DRAWN})
            continue
        # Under a proof nothing may differ but what the claim asks for: the tag binds the whole job.
        assert bundle.evidence == proved().evidence
        assert bundle.exchange.job == proved().exchange.job
        assert bundle.exchange.input == proved().exchange.input
        assert bundle.exchange.output == proved().exchange.output


def test_shapes_that_overflow_are_malformed() -> None:
    value = json.loads(encode_payload(proved().exchange.input))
    value["tensors"][0] |= {"shape": [0, 2**53 - 1, 2**53 - 1], "data": ""}
    with pytest.raises(Malformed):
        read_payload(Record(value, what="payload"))


# --- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", NORMAL_AND_LONG)
def test_hostile_answers_are_malformed_or_change_nothing(times: int) -> None:
    exchange = proved().exchange
    damaged = replace(proved(), exchange=replace(exchange, output=OTHER.exchange.output), evidence=())
    true = [
        Answer(NeedKind.JOB, exchange.job.encode()),
        Answer(NeedKind.CLAIM, exchange.claim.encode()),
        Answer(NeedKind.INPUT, encode_payload(exchange.input)),
        Answer(NeedKind.OUTPUT, encode_payload(exchange.output)),
        Answer(NeedKind.EVIDENCE, proved().evidence[0].body),
        reveal(),
    ]
    file = encode_answers(true)
    assert isinstance(judge(damaged, runner(), true), Accepted)

    random = Random(f"answers {times}")
    for _ in range(200 * times):
        try:
            answers = decode_answers(
                damaged_bytes(file, random, ORIGINAL)
                if random.random() < 0.3
                else written(damaged_json(json.loads(file), random), random)
            )
        except Malformed:
            answers = tuple(
                replace(answer, body=damaged_bytes(answer.body, random, ORIGINAL)) for answer in true
            )
        try:
            verdict = judge(damaged, AnsweringRunner(VALID), answers)
        except Misuse:
            assert len(answers) > 60, "only too many answers are misuse"
            continue
        if isinstance(verdict, Accepted):
            assert verdict.inputs.bundle == proved().digest
