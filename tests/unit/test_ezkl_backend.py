"""The ezkl backend: what a proof binds is compared, what it does not bind is refused, all else is retried."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from judging import (
    NOW,
    AnsweringRunner,
    FailingRunner,
    circuit,
    entry,
    logits,
    make_job,
    proof,
    proved,
    resigned,
    runner,
    said,
    shifted,
    with_proof,
)
from proofhold import fieldelement
from proofhold.backends.ezkl import CHECK_DEADLINE_S, UNSAFE_DEV_SRS, EzklBackend
from proofhold.catalogue import CatalogueError, Circuit, Entry
from proofhold.core import (
    Assurance,
    Check,
    Evidence,
    Fault,
    Finding,
    Need,
    NeedKind,
    Offer,
    Property,
    Refuted,
    Unclear,
)
from proofhold.exchange import Bundle
from proofhold.fieldelement import MODULUS
from proofhold.locks import SrsKind
from proofhold.payload import Document, Payload, Tensors
from proofhold.runner import Runner, RunnerError, TaskRaised, WorkerDied, WorkerTimedOut
from proofhold.zkverify import INVALID, VALID, verify_natively

PROVED_PROPERTIES = dict.fromkeys(
    (Property.MODEL, Property.INPUT, Property.OUTPUT, Property.FRESH), Assurance.PROVED
)
STEP = 2.0**-13
TAG = range(30, 46)


def check(bundle: Bundle, using: Runner | None = None, known: Entry | None = None) -> Check:
    backend = EzklBackend(using or runner())
    evidence = bundle.evidence[0] if bundle.evidence else None
    return backend.check(evidence, bundle.exchange, known or entry(), answers=(), now=NOW)


def with_instances(*instances: str) -> Bundle:
    return with_proof(replace(proof(), instances=instances))


def changed(position: int, by: int = 1) -> list[str]:
    """The proof's instances, one of them another field element."""
    instances = list(proof().instances)
    element = (fieldelement.parse(instances[position]) + by) % MODULUS
    instances[position] = element.to_bytes(32, "little").hex()
    return instances


def natively(instances: list[str], body: bytes = b"", *, vk: bytes = b"") -> bytes:
    """Ask ezkl itself, past all our comparisons."""
    snark = json.dumps({"instances": [instances], "proof": list(body or proof().proof)}).encode()
    return runner().run(
        verify_natively, snark, circuit().settings, vk or circuit().vk, circuit().srs, deadline_s=30
    )


def refutation(judged: Check) -> Refuted:
    assert isinstance(judged, Refuted), judged
    assert judged.kind == "ezkl"
    assert {reason.fault for reason in judged.reasons} == {Fault.PROVIDER}
    assert not any(reason.measured for reason in judged.reasons)
    return judged


def unclear(judged: Check, code: str, fault: str, need: NeedKind) -> None:
    assert isinstance(judged, Unclear), judged
    assert judged.kind == "ezkl"
    assert said(judged) == {(code, fault)}
    assert judged.needs == (Need(need),)


def codes(judged: Check) -> list[str]:
    return [reason.code for reason in refutation(judged).reasons]


# --- the honest proof -----------------------------------------------------------------------------------


def test_the_fixture_is_of_the_circuit_as_it_is_locked_now() -> None:
    assert proved().exchange.job.document == make_job(proved().exchange.input), (
        "the circuit's lock, a shipped policy or the job's format changed: make the proof anew with "
        "`PYTHONPATH=tests python tests/fixtures/make_proved_bundle.py`"
    )


def test_an_honest_proof_shows_model_input_output_and_freshness_as_proved() -> None:
    judged = check(proved())
    lock = circuit().lock
    assert isinstance(judged, Finding)
    assert (judged.kind, dict(judged.shows)) == ("ezkl", PROVED_PROPERTIES)
    assert judged.dangers == (UNSAFE_DEV_SRS,) == ("unsafe-dev-srs",)
    assert judged.one_use == ()
    assert dict(judged.facts) == {
        "circuit_lock": lock.digest,
        "ezkl_version": "23.0.5",
        "model": "the lock was audited: the verifying key is that of the model's quantised weights",
        "srs": "unsafe-dev (proofhold/unsafe-dev-srs/v1)",
    }


def test_only_instances_and_proof_reach_native_code_with_the_pinned_files() -> None:
    asked = AnsweringRunner(VALID)
    assert isinstance(check(proved(), asked), Finding)
    ((task, (snark, *pinned), deadline_s),) = asked.asked
    assert task is verify_natively
    assert json.loads(snark) == {"instances": [list(proof().instances)], "proof": list(proof().proof)}
    assert pinned == [circuit().settings, circuit().vk, circuit().srs]
    assert deadline_s == CHECK_DEADLINE_S == 60.0


@pytest.mark.parametrize("answer", [INVALID, b"", b"VALID", VALID + b"\0", b"\x01"])
def test_whatever_is_not_the_word_valid_refutes(answer: bytes) -> None:
    assert codes(check(proved(), AnsweringRunner(answer))) == ["ezkl.proof"]


# --- what a proof binds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("position", TAG)
def test_each_position_of_the_job_tag_is_compared(position: int) -> None:
    refuted = refutation(check(with_instances(*changed(position)), AnsweringRunner(VALID)))
    (reason,) = refuted.reasons
    byte = fieldelement.decode(proof().instances[position])
    assert reason.code == "ezkl.tag"
    assert reason.got == f"element {position - 30} is {byte + 1} (1 differ)"
    assert reason.expected == str(byte)


@pytest.mark.parametrize("position", TAG)
def test_each_position_of_the_job_tag_is_bound_by_the_proof_itself(position: int) -> None:
    assert natively(changed(position)) == INVALID


def test_ezkl_itself_says_yes_to_the_honest_proof() -> None:
    assert natively(list(proof().instances)) == VALID


def test_two_swapped_bytes_of_the_tag_are_refuted() -> None:
    instances = list(proof().instances)
    first, second = next((i, i + 1) for i in TAG if instances[i] != instances[i + 1])
    instances[first], instances[second] = instances[second], instances[first]
    (reason,) = refutation(check(with_instances(*instances), AnsweringRunner(VALID))).reasons
    assert reason.code == "ezkl.tag"
    assert reason.got.endswith("(2 differ)")
    assert natively(instances) == INVALID


@pytest.mark.parametrize("position", range(30))
def test_each_element_of_the_input_is_compared(position: int) -> None:
    (reason,) = refutation(check(with_instances(*changed(position)), AnsweringRunner(VALID))).reasons
    assert (reason.code, reason.got.split(" is ")[0]) == ("ezkl.input", f"element {position}")


def test_the_output_is_compared() -> None:
    (reason,) = refutation(check(with_instances(*changed(46)), AnsweringRunner(VALID))).reasons
    value = fieldelement.decode(proof().instances[46])
    assert (reason.code, reason.expected) == ("ezkl.output", str(value))
    assert reason.got == f"element 0 is {value + 1} (1 differ)"


def test_every_part_that_differs_is_a_reason() -> None:
    instances = [
        changed(7)[7] if i == 7 else changed(31)[31] if i == 31 else old for i, old in enumerate(changed(46))
    ]
    judged = check(with_instances(*instances), AnsweringRunner(VALID))
    assert codes(judged) == ["ezkl.input", "ezkl.tag", "ezkl.output"]


@pytest.mark.parametrize(
    "instances",
    [
        proof().instances[:-1],
        proof().instances[1:],
        (),
        (*proof().instances, proof().instances[-1]),
        (*proof().instances, "00" * 32),
        ("00" * 32, *proof().instances),
    ],
    ids=["last dropped", "first dropped", "none", "last twice", "a zero more", "a zero before"],
)
def test_another_number_of_instances_is_refuted(instances: tuple[str, ...]) -> None:
    (reason,) = refutation(check(with_instances(*instances), AnsweringRunner(VALID))).reasons
    assert (reason.code, reason.got, reason.expected) == ("ezkl.instances", str(len(instances)), "47")


@pytest.mark.parametrize("position", [0, 30, 45, 46])
def test_a_field_element_plus_the_modulus_is_refuted(position: int) -> None:
    instances = list(proof().instances)
    value = fieldelement.parse(instances[position]) + MODULUS
    instances[position] = value.to_bytes(32, "little").hex()
    assert codes(check(with_instances(*instances), AnsweringRunner(VALID))) == ["felt.malformed"]


def test_upper_case_digits_are_refuted_though_ezkl_takes_them() -> None:
    instances = [instance.upper() for instance in proof().instances]
    assert instances != list(proof().instances)
    assert natively(instances) == VALID
    assert codes(check(with_instances(*instances))) == ["felt.malformed"]


def test_trailing_bytes_are_refuted_though_ezkl_takes_them() -> None:
    longer = replace(proof(), proof=proof().proof + b"\0")
    assert natively(list(proof().instances), longer.proof) == VALID
    (reason,) = refutation(check(with_proof(longer))).reasons
    assert (reason.code, reason.got, reason.expected) == ("ezkl.proof_length", "5185 bytes", "5184 bytes")


def test_a_shorter_proof_is_refuted() -> None:
    shorter = replace(proof(), proof=proof().proof[:-1])
    assert codes(check(with_proof(shorter), AnsweringRunner(VALID))) == ["ezkl.proof_length"]


def test_a_key_with_bytes_behind_it_would_verify_and_cannot_enter_a_circuit() -> None:
    """As the proving key does, which begins with the verifying key."""
    longer = circuit().vk + bytes(1_000)
    assert natively(list(proof().instances), vk=longer) == VALID
    with pytest.raises(CatalogueError, match="verifying key"):
        replace(circuit(), vk=longer)


@pytest.mark.parametrize("position", [0, 31, 64, 1_500, 5_183])
def test_a_flipped_bit_in_the_proof_is_refuted(position: int) -> None:
    body = bytearray(proof().proof)
    body[position] ^= 1
    (reason,) = refutation(check(with_proof(replace(proof(), proof=bytes(body))))).reasons
    assert (reason.code, reason.got, reason.expected) == ("ezkl.proof", "a false proof", "a valid proof")


def test_a_proof_of_zeros_is_refuted() -> None:
    assert codes(check(with_proof(replace(proof(), proof=bytes(len(proof().proof)))))) == ["ezkl.proof"]


def test_the_proof_of_another_job_is_refuted() -> None:
    payload = proved().exchange.input
    nonce = bytes(32)
    other = make_job(payload, nonce=nonce.hex(), input=payload.digest(nonce))
    assert codes(check(resigned(proved(), job=other), AnsweringRunner(VALID))) == ["ezkl.tag"]


def test_the_proof_of_another_input_is_refuted() -> None:
    bundle = resigned(proved(), payload=shifted(proved().exchange.input, 1.0))
    assert codes(check(bundle, AnsweringRunner(VALID))) == ["ezkl.input", "ezkl.tag"]


def test_an_input_that_differs_below_the_circuits_grid_is_the_same_to_it() -> None:
    """Said in the open: a proof speaks of the quantised input, and the job's digest of the exact one."""
    before = proved().exchange.input
    after = shifted(before, 1e-6)
    assert after != before
    bundle = replace(proved(), exchange=replace(proved().exchange, input=after))
    assert isinstance(check(bundle, AnsweringRunner(VALID)), Finding)


# --- the form of a proved output ------------------------------------------------------------------------

TRUE = float(proved().exchange.output.items[0].numpy()[0, 0])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (logits(float("nan")), "felt.not_finite"),
        (logits(float("inf")), "felt.not_finite"),
        (logits(float(np.nextafter(TRUE, 1e9))), "felt.not_exact"),
        (logits(float(np.nextafter(TRUE, -1e9))), "felt.not_exact"),
        (logits(TRUE + STEP / 2), "felt.not_exact"),
        (logits(-0.0), "felt.not_exact"),
        (logits(2.0**53), "felt.range"),
        (logits(TRUE, dtype="float32"), "ezkl.payload"),
        (logits(TRUE, name="logit"), "ezkl.payload"),
        (logits(TRUE, TRUE), "ezkl.payload"),
        (Document("text/plain", b"1"), "ezkl.payload"),
    ],
    ids=[
        "nan",
        "inf",
        "an ulp up",
        "an ulp down",
        "half a step",
        "-0.0",
        "2^53",
        "float32",
        "name",
        "shape",
        "document",
    ],
)
def test_an_output_that_no_proof_can_prove_is_refuted(output: Payload, got: str) -> None:
    (reason,) = refutation(check(resigned(proved(), output=output), AnsweringRunner(VALID))).reasons
    assert (reason.code, reason.got) == ("ezkl.output_form", got)
    assert reason.expected == "an exact, proved output"


@pytest.mark.parametrize("output", [TRUE + STEP, TRUE - STEP, -TRUE, 0.0])
def test_an_exact_output_that_was_not_proved_is_refuted(output: float) -> None:
    (reason,) = refutation(check(resigned(proved(), output=logits(output)), AnsweringRunner(VALID))).reasons
    assert reason.code == "ezkl.output"
    assert reason.expected == str(round(output / STEP))


def test_a_number_that_is_the_same_modulo_2_to_the_128_is_refuted() -> None:
    instances = list(proof().instances)
    alias = (-(2**128 + 5)) % MODULUS
    instances[46] = alias.to_bytes(32, "little").hex()
    bundle = with_proof(
        replace(proof(), instances=tuple(instances)), resigned(proved(), output=logits(-5 * STEP))
    )
    (reason,) = [r for r in refutation(check(bundle, AnsweringRunner(VALID))).reasons if r.code != "ezkl.tag"]
    assert (reason.code, reason.expected) == ("ezkl.output", "-5")
    assert reason.got == f"element 0 is 0x{instances[46]} (little-endian) (1 differ)"


# --- what says nothing about the proof ------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", proved().evidence[0].body + b"\n", proved().evidence[0].body[:-1]]
)
def test_evidence_of_another_encoding_is_refuted(body: bytes) -> None:
    (code,) = codes(check(with_proof(body), AnsweringRunner(VALID)))
    assert code.startswith("ezkl.")
    assert code != "ezkl.proof"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskRaised("PanicException", "as told"), "ezkl.check_failed"),
        (WorkerDied("as told"), "ezkl.check_crashed"),
        (WorkerTimedOut("as told"), "ezkl.check_timed_out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_check_that_cannot_finish_is_retried(error: RunnerError, code: str) -> None:
    judged = check(proved(), FailingRunner(error))
    unclear(judged, code, "nobody", NeedKind.RETRY)
    assert "as told" in judged.reasons[0].message  # type: ignore[union-attr]


def test_a_false_statement_is_refuted_without_native_code() -> None:
    failing = FailingRunner()
    refutation(check(with_instances(*changed(46)), failing))
    assert failing.calls == 0


def test_no_proof_is_asked_for() -> None:
    unclear(check(resigned(proved(), evidence=())), "ezkl.missing", "nobody", NeedKind.EVIDENCE)


def test_without_a_circuit_the_lock_is_asked_for() -> None:
    bare = replace(entry(), circuit=None)
    unclear(check(proved(), known=bare), "ezkl.no_circuit", "verifier", NeedKind.LOCK)


def test_collateral_that_anyone_may_have_hung_on_blames_nobody() -> None:
    laden = Evidence("ezkl", proved().evidence[0].body, {"note": b"hello"})
    judged = check(replace(proved(), evidence=(laden,)), AnsweringRunner(VALID))
    unclear(judged, "ezkl.collateral", "nobody", NeedKind.BUNDLE)


# --- what it can speak of -------------------------------------------------------------------------------


def test_it_speaks_of_tensors_only() -> None:
    backend = EzklBackend(runner())
    assert isinstance(proved().exchange.input, Tensors)
    assert backend.accepts(proved().exchange.input) is True
    assert backend.accepts(Document("text/plain", b"")) is False
    assert backend.kind == "ezkl"


def test_offers_at_best_are_free_of_danger() -> None:
    assert EzklBackend(runner()).offers(None) == (Offer("ezkl", PROVED_PROPERTIES),)


def test_offers_of_a_model_name_the_danger_of_its_srs() -> None:
    offers = EzklBackend(runner()).offers(entry())
    assert offers == (Offer("ezkl", PROVED_PROPERTIES, ("unsafe-dev-srs",)),)


def test_without_a_circuit_there_is_nothing_to_offer() -> None:
    assert EzklBackend(runner()).offers(replace(entry(), circuit=None)) == ()


def test_an_srs_of_a_ceremony_is_no_danger() -> None:
    known = _of_a_ceremony(circuit())
    assert EzklBackend(runner()).offers(known) == (Offer("ezkl", PROVED_PROPERTIES),)
    judged = check(proved(), AnsweringRunner(VALID), known)
    assert isinstance(judged, Finding)
    assert judged.dangers == ()
    assert judged.facts["srs"].startswith("ceremony (")


def _of_a_ceremony(known: Circuit) -> Entry:
    lock = replace(known.lock, srs=replace(known.lock.srs, kind=SrsKind.CEREMONY))
    return replace(entry(), circuit=replace(known, lock=lock))
