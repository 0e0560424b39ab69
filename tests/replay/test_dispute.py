"""Disputes up to the judge: no honest provider is convicted, no fraud goes free, no judge is fooled."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from dispute_cases import CHEAPER, RUNTIMES, Case, case, cheaper, run
from dispute_models import FAMILIES, inputs_of, made
from judging import BUYER, PROVIDER, REPOSITORY, STRANGER, VERIFIER
from proofhold.canonical import file_digest
from proofhold.contention import Challenge, DisputeAnswer
from proofhold.errors import Malformed
from proofhold.keys import Signed, SigningKey
from proofhold.locks import Contract
from proofhold.payload import Tensor
from proofhold.provider.answering import Answered, NoAnswer
from proofhold.records import Record
from proofhold.replay.judge import Judged, Judgement, judge, judge_file
from proofhold.replay.surgery import parse
from proofhold.replay.trace import Trace
from proofhold.replay.transcript import Transcript, decode_answer, encode_answer

ORT = "onnxruntime, all"
FIXTURES = {
    "dispute-model.onnx": "993f9421cb18f3bc8b935cab1815b365143236dcf1cbdcbfdc58bf69b93475cb",
    "dispute-answer.bin": "78f73ffce75327be83d30c8f8a02d6f00663c6ef112e3d5b525662d69d497f7a",
    "dispute-transcript.bin": "72f1af0a552050c93508db1c03d86330e5fd8a2d76b5a2cd41c3d486a1c174d9",
    "dispute-challenge.json": "b3ec45e7d1c7d92974848108857825ee5a54575f42632df5ffa71c604dfedbe1",
}


def honest(family: str = "cnn", seed: int = 0, runtime: str = ORT) -> Case:
    model, lock = made(family, seed)
    return case(model, lock, run(model, lock, inputs_of(lock, seed), RUNTIMES[runtime]))


def judged(found: Case, transcript: Transcript) -> Judgement:
    """Judge as a third party does: from the bytes."""
    return judge(Transcript.decode(transcript.encode()), found.graph, file_digest(found.model))


def charged(
    found: Case, answered: Answered, target: str, element: int | None = None, key: SigningKey = VERIFIER
) -> Judgement:
    tensors = {tensor.name: tensor for tensor in answered.tensors}
    return judged(found, found.transcript(answered.document, tensors, target, element=element, key=key))


def accused(found: Case, segment: int, answered: Answered, key: SigningKey = VERIFIER) -> Judgement:
    worst = found.accuse(segment, answered)
    element = None if worst.comparison is None else worst.comparison.element
    return charged(found, answered, worst.tensor, element, key)


def altered(tensor: Tensor, place: int, by: float) -> Tensor:
    values = tensor.numpy().copy()
    values.flat[place % values.size] += np.float32(by)
    return Tensor.of(tensor.name, values)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_honest_provider_is_convicted_whatever_is_charged(family: str, runtime: str) -> None:
    found = honest(family, 1, runtime)
    for segment in range(len(found.lock.segments)):
        answered = found.answer(segment)
        assert answered.ratio <= 1.0
        for target in (found.accuse(segment, answered).tensor, found.lock.segments[segment].outputs[0]):
            judgement = charged(found, answered, target)
            assert judgement.outcome is Judged.ACQUITTED, judgement.message


@pytest.mark.parametrize("how", CHEAPER)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cheaper_model_is_convicted_whatever_its_provider_shows(family: str, how: str) -> None:
    model, lock = made(family, 2)
    cheap = cheaper(model, how)
    found = case(model, lock, run(cheap, lock, inputs_of(lock, 2), RUNTIMES[ORT]))
    for segment, steps_of, whole in itertools.product(
        (0, len(lock.segments) - 1), (cheap, None), (True, False)
    ):
        shown = found.shown(segment, found.steps(segment, steps_of), whole=whole)
        judgement = accused(found, segment, found.sign(segment, shown))
        assert (judgement.outcome, judgement.code) == (Judged.CONVICTED, "dispute.contradiction")
    with pytest.raises(NoAnswer):
        found.answer(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_false_element_of_any_operator_is_found_and_convicted(family: str) -> None:
    """Whatever is altered contradicts the operator that gives it, or one that takes it."""
    generator = np.random.default_rng(4)
    true = honest(family, 0)
    for segment, pinned in enumerate(true.lock.segments):
        steps = true.steps(segment)
        names = [name for name in steps if not true.graph.is_fixed(name, pinned.inputs)]
        for name in generator.choice(names, min(4, len(names)), replace=False):
            if steps[name].dtype != "float32":
                continue
            values = steps[name].numpy()
            by = 0.01 * float(np.sqrt(np.mean(values**2))) + 1e-3
            false = steps | {str(name): altered(steps[name], int(generator.integers(values.size)), by)}
            shown = true.shown(segment, false, whole=True)
            found = case(true.model, true.lock, true.leaves | {n: false[n] for n in pinned.outputs})
            judgement = accused(found, segment, found.sign(segment, shown))
            assert judgement.outcome is Judged.CONVICTED, (name, judgement)
            assert judgement.comparison is not None


def test_a_false_end_is_convicted_though_every_step_before_it_is_true() -> None:
    true = honest()
    for segment, pinned in enumerate(true.lock.segments):
        end = pinned.outputs[0]
        false = true.leaves | {end: altered(true.leaves[end], 3, 0.05)}
        found = case(true.model, true.lock, false)
        for whole in (True, False):
            answered = found.sign(segment, found.shown(segment, true.steps(segment), whole=whole))
            assert accused(found, segment, answered).outcome is Judged.CONVICTED


def test_a_missing_number_is_convicted_at_the_operator_that_gave_it() -> None:
    found = honest()
    steps = found.steps(1)
    name = next(n for n in steps if "Conv" in n)
    values = steps[name].numpy().copy()
    values.flat[5] = np.nan
    shown = found.shown(1, steps | {name: Tensor.of(name, values)}, whole=True)
    answered = found.sign(1, shown)
    worst = found.accuse(1, answered)
    assert (worst.tensor, worst.ratio) == (name, float("inf"))
    assert charged(found, answered, name, 5).outcome is Judged.CONVICTED


def test_only_the_verifier_can_lose_a_case_and_anyone_can_win_one() -> None:
    found = honest()
    answered = found.answer(0)
    for key in (BUYER, PROVIDER, STRANGER):
        judgement = accused(found, 0, answered, key)
        assert (judgement.outcome, judgement.code) == (Judged.DISMISSED, "dispute.no_standing")
    assert accused(found, 0, answered).outcome is Judged.ACQUITTED
    model, lock = made("cnn", 0)
    cheap = cheaper(model, "int8")
    false = case(model, lock, run(cheap, lock, inputs_of(lock, 0), RUNTIMES[ORT]))
    bad = false.sign(0, false.shown(0, false.steps(0, cheap)))
    assert accused(false, 0, bad, STRANGER).outcome is Judged.CONVICTED


def test_an_answer_that_leaves_out_too_much_is_no_defence_and_no_acquittal() -> None:
    found = honest("transformer", 0)
    end = found.lock.segments[0].outputs[0]
    judgement = charged(found, found.sign(0, {}), end)
    assert (judgement.outcome, judgement.code) == (Judged.UNDECIDED, "dispute.coarse")
    false = case(found.model, found.lock, found.leaves | {end: altered(found.leaves[end], 0, 1e4)})
    assert charged(false, false.sign(0, {}), end).outcome is Judged.CONVICTED


def test_a_trace_alone_can_convict_and_never_acquits() -> None:
    found = honest()
    end = found.lock.segments[0].outputs[0]
    judgement = judged(found, found.transcript(None, {}, end))
    assert (judgement.outcome, judgement.code) == (Judged.UNDECIDED, "dispute.coarse")
    false = case(found.model, found.lock, found.leaves | {end: altered(found.leaves[end], 0, 1.0)})
    assert judged(false, false.transcript(None, {}, end)).outcome is Judged.CONVICTED


def test_beyond_the_tolerance_and_within_the_bounds_nobody_is_paid_and_nothing_taken() -> None:
    model, lock = made("cnn", 0)
    strict = replace(lock, segments=tuple(replace(s, relative_l2=1e-12) for s in lock.segments))
    found = case(model, strict, run(model, lock, inputs_of(lock, 0), RUNTIMES[ORT]))
    judgement = accused(found, 0, found.answer(0))
    assert (judgement.outcome, judgement.code) == (Judged.UNDECIDED, "dispute.tolerance")


def test_reduced_precision_is_not_judged_by_the_bounds_of_float32() -> None:
    model, lock = made("cnn", 0)
    found = case(model, replace(lock, contract=Contract.REDUCED), honest().leaves)
    judgement = accused(found, 0, found.answer(0))
    assert (judgement.outcome, judgement.code) == (Judged.UNDECIDED, "dispute.contract")


def test_a_weight_is_the_models_whatever_the_answer_calls_by_its_name() -> None:
    model, lock = made("cnn", 0)
    cheap = cheaper(model, "int4")
    found = case(model, lock, run(cheap, lock, inputs_of(lock, 0), RUNTIMES[ORT]))
    weights = {
        tensor.name: Tensor.of(tensor.name, numpy_helper.to_array(tensor))
        for tensor in parse(cheap).graph.initializer
    }
    assert weights
    shown = found.shown(0, found.steps(0, cheap), whole=True) | weights
    assert accused(found, 0, found.sign(0, shown)).outcome is Judged.CONVICTED


def test_a_run_on_another_input_or_for_another_output_is_convicted_by_the_digests() -> None:
    found = honest()
    last = len(found.lock.segments) - 1
    for segment, name, code in (
        (0, found.lock.inputs[0].name, "dispute.input"),
        (last, found.lock.outputs[0].name, "dispute.output"),
    ):
        leaves = found.leaves | {name: altered(found.leaves[name], 0, 0.5)}
        trace = Trace.of(
            bytes.fromhex(found.job.document.nonce),
            [leaves[leaf.name] for leaf in found.lock.leaves],
        )
        claim = Signed.new(replace(found.claim.document, trace_root=trace.root), PROVIDER)
        false = replace(found, claim=claim, trace=trace, leaves=leaves)
        answered = false.sign(segment, false.shown(segment, false.steps(segment)))
        judgement = charged(false, answered, false.lock.segments[segment].outputs[0])
        assert (judgement.outcome, judgement.code) == (Judged.CONVICTED, code)


def test_a_leaf_of_another_form_than_the_locks_is_convicted() -> None:
    found = honest()
    cut = found.lock.boundaries[0].name
    flat = Tensor.of(cut, found.leaves[cut].numpy().reshape(-1))
    false = case(found.model, found.lock, found.leaves | {cut: flat})
    judgement = charged(false, false.sign(0, {}), cut)
    assert (judgement.outcome, judgement.code) == (Judged.CONVICTED, "dispute.trace_form")


def test_the_answer_to_one_claim_serves_no_other() -> None:
    one, other = honest(seed=0), honest(seed=0)
    nonce = "ab" * 32
    job = Signed.new(replace(one.job.document, nonce=nonce), BUYER, PROVIDER)
    trace = Trace.of(bytes.fromhex(nonce), [one.leaves[leaf.name] for leaf in one.lock.leaves])
    claim = Signed.new(replace(one.claim.document, job=job.digest, trace_root=trace.root), PROVIDER)
    later = replace(other, job=job, claim=claim, trace=trace)
    answered = one.answer(1)
    tensors = {tensor.name: tensor for tensor in answered.tensors}
    judgement = judged(later, later.transcript(answered.document, tensors, one.lock.boundaries[0].name))
    assert (judgement.outcome, judgement.code) == (Judged.DISMISSED, "dispute.answer")
    moved = Signed.new(replace(answered.document.document, job=job.digest, claim=claim.digest), PROVIDER)
    inner = next(name for name in tensors if name not in one.leaves)
    judgement = judged(later, later.transcript(moved, tensors, inner))
    assert (judgement.outcome, judgement.code) == (Judged.DISMISSED, "dispute.tensor")


def test_documents_of_others_make_no_case() -> None:
    found = honest()
    answered = found.answer(1)
    tensors = {tensor.name: tensor for tensor in answered.tensors}
    good = found.transcript(answered.document, tensors, found.lock.boundaries[1].name)
    assert judged(found, good).outcome is Judged.ACQUITTED
    document = good.charge.document
    stranger = Signed.new(found.claim.document, STRANGER)
    changes = {
        "dispute.job": replace(good, job=Signed.new(found.job.document, PROVIDER)),
        "dispute.claim": replace(good, claim=stranger),
        "dispute.answer": replace(good, answer=Signed.new(answered.document.document, STRANGER)),
        "dispute.lock": replace(good, lock_file=replace(good.lock, name="another").encode()),
        "dispute.charge": replace(good, charge=Signed.new(document)),
        "dispute.incomplete": replace(good, charge=Signed.new(replace(document, tensor="nothing"), VERIFIER)),
    }
    for code, transcript in changes.items():
        judgement = judged(found, transcript)
        assert (judgement.outcome, judgement.code) == (Judged.DISMISSED, code)
    elsewhere = judge(good, found.graph, "00" * 32)
    assert (elsewhere.outcome, elsewhere.code) == (Judged.DISMISSED, "dispute.model")
    lacking = replace(good, tensors=good.tensors[:-1])
    assert judged(found, lacking).outcome is Judged.DISMISSED
    element = Signed.new(replace(document, element=10**6), VERIFIER)
    assert judged(found, replace(good, charge=element)).outcome is Judged.DISMISSED
    first = Signed.new(replace(document, tensor=found.lock.inputs[0].name), VERIFIER)
    assert judged(found, replace(good, charge=first)).outcome is Judged.DISMISSED


def test_a_damaged_transcript_never_convicts_an_honest_provider() -> None:
    found = honest()
    answered = found.answer(0)
    tensors = {tensor.name: tensor for tensor in answered.tensors}
    data = found.transcript(answered.document, tensors, found.lock.boundaries[0].name).encode()
    generator = np.random.default_rng(6)
    for place in generator.integers(len(data), size=150):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(generator.integers(8))
        try:
            judgement = judge_file(bytes(damaged), found.model)
        except Malformed:
            continue
        assert judgement.outcome is Judged.DISMISSED, judgement
    with pytest.raises(Malformed):
        Transcript.decode(data + b"\0")
    with pytest.raises(Malformed):
        Transcript.decode(data[:-1])


def test_a_transcript_of_version_1_convicts_for_ever() -> None:
    folder = REPOSITORY / "tests" / "fixtures" / "v1"
    files = {name: (folder / name).read_bytes() for name in FIXTURES}
    assert {name: file_digest(data) for name, data in files.items()} == FIXTURES
    transcript = files["dispute-transcript.bin"]
    judgement = judge_file(transcript, files["dispute-model.onnx"])
    assert (judgement.outcome, judgement.code) == (Judged.CONVICTED, "dispute.contradiction")
    assert judgement.operators == ("MatMul",)
    assert Transcript.decode(transcript).encode() == transcript
    assert encode_answer(*decode_answer(files["dispute-answer.bin"])) == files["dispute-answer.bin"]
    challenge = Signed.decode(Challenge, files["dispute-challenge.json"])
    assert challenge.encode() == files["dispute-challenge.json"]
    assert challenge.document.segment == 0


def test_an_answer_travels_as_a_file() -> None:
    answered = honest().answer(0)
    data = encode_answer(answered.document, answered.tensors)
    assert decode_answer(data) == (answered.document, answered.tensors)
    for bad in (data[:-1], data + b"\0", b"", b"\0" * 8):
        with pytest.raises(Malformed):
            decode_answer(bad)


def test_documents_are_read_as_they_are_written() -> None:
    found = honest()
    answered = found.answer(0)
    assert Signed.decode(DisputeAnswer, answered.document.encode()) == answered.document
    document = found.answer(1).document.document.to_json()
    changes: list[dict[str, Any]] = [{"tensors": document["tensors"][::-1]}, {"leaves": []}, {"version": 2}]
    for change in changes:
        with pytest.raises(Malformed):
            DisputeAnswer.read(Record(document | change, what="dispute-answer"))
