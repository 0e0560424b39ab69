"""What a provider runs: it signs only what it can answer, and claims only what it ran or proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from judging import (
    BUYER,
    NONCE,
    NOW,
    PRICE,
    PROVIDER,
    STRANGER,
    AnsweringRunner,
    FailingRunner,
    catalogue,
    entry,
    logits,
    make_job,
    policy,
    proof,
    proved,
    proved_input,
    reveal,
    runner,
    shifted,
)
from proofhold import canonical
from proofhold.compile import native
from proofhold.compile.errors import ToolFailed
from proofhold.compile.provingkey import ensure_proving_key
from proofhold.core import Accepted
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import Bundle
from proofhold.job import PPM, Decline, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Document, encode_payload
from proofhold.provider import Prover, accept, decline, respond
from proofhold.runner import ProcessRunner, TaskRaised
from proofhold.standard import standard_verifier
from proofhold.zkproof import ZkProof

INPUT = proved_input()


def job(*signers: SigningKey, **changes: Any) -> SignedJob:
    return Signed.new(make_job(INPUT, **changes), *(signers or (BUYER, PROVIDER)))


def accepted(bundle: Bundle) -> bool:
    verdict = standard_verifier(catalogue(), runner()).verify(
        bundle.exchange, bundle.evidence, policy=policy(), now=NOW, answers=[reveal()]
    )
    return isinstance(verdict, Accepted)


# --- accepting and declining ----------------------------------------------------------------------------


def test_accepting_adds_the_providers_signature() -> None:
    signed = accept(job(BUYER), PROVIDER, entry=entry())
    assert signed.envelope.is_signed_by_exactly([BUYER.public, PROVIDER.public])
    assert signed.digest == job(BUYER).digest


def test_a_job_for_somebody_else_is_not_accepted() -> None:
    with pytest.raises(Misuse, match="is for"):
        accept(job(BUYER), STRANGER)


@pytest.mark.parametrize("signer", [PROVIDER, STRANGER])
def test_a_job_that_the_buyer_has_not_signed_is_not_accepted(signer: SigningKey) -> None:
    with pytest.raises(Misuse, match="buyer"):
        accept(job(signer), PROVIDER)


@pytest.mark.parametrize("change", [{"onnx": "00" * 32}, {"circuit_lock": None}, {"replay_lock": "00" * 32}])
def test_a_job_that_pins_other_locks_is_not_accepted(change: dict[str, Any]) -> None:
    model = replace(make_job(INPUT).model, **change)
    with pytest.raises(Misuse, match="pins another model or other locks"):
        accept(job(BUYER, model=model), PROVIDER, entry=entry())
    assert accept(job(BUYER, model=model), PROVIDER), "without an entry there is nothing to compare with"


def test_declining_is_signed_and_names_the_job() -> None:
    signed = decline(job(), PROVIDER)
    assert signed.document == Decline(job().digest)
    assert signed.envelope.is_signed_by_exactly([PROVIDER.public])


def test_a_job_for_somebody_else_is_not_declined() -> None:
    with pytest.raises(Misuse, match="is for"):
        decline(job(), STRANGER)


# --- responding without a proof -------------------------------------------------------------------------


def test_a_response_without_a_proof_is_accepted_when_it_is_drawn() -> None:
    steps: list[str] = []
    bundle = respond(job(sampling_rate_ppm=PPM), INPUT, entry(), PROVIDER, on_step=steps.append)
    assert bundle.evidence == ()
    assert accepted(bundle)
    assert steps == ["running the model"]


def test_a_claim_asks_for_the_price_of_the_first_capture_and_bears_the_providers_signature() -> None:
    bundle = respond(job(), INPUT, entry(), PROVIDER, runner=runner())
    claim = bundle.exchange.claim
    assert claim.envelope.is_signed_by_exactly([PROVIDER.public])
    assert (claim.document.job, claim.document.seq, claim.document.amount) == (job().digest, 0, PRICE)
    assert claim.document.output == bundle.exchange.output.digest(NONCE)
    assert claim.document.evidence == ()


def test_the_model_runs_where_it_was_asked_to() -> None:
    asked = AnsweringRunner(encode_payload(logits(1.0)))
    assert respond(job(), INPUT, entry(), PROVIDER, runner=asked).exchange.output == logits(1.0)
    assert len(asked.asked) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": STRANGER}, "is for"),
        ({"job": job(BUYER)}, "accept it first"),
        ({"job": job(PROVIDER)}, "accept it first"),
        ({"job": job(BUYER, PROVIDER, STRANGER)}, "accept it first"),
        ({"payload": shifted(INPUT, 0.1)}, "not the one that the job names"),
        ({"entry": replace(entry(), replay=None)}, "pins another model"),
        ({"job": job(evidence_kinds=("ezkl",))}, "judged by ezkl, not by replay"),
    ],
)
def test_a_job_that_is_not_to_be_answered_so_is_misuse(change: dict[str, Any], message: str) -> None:
    failing = FailingRunner()
    asked: dict[str, Any] = {"job": job(), "payload": INPUT, "entry": entry(), "key": PROVIDER} | change
    with pytest.raises(Misuse, match=message):
        respond(asked["job"], asked["payload"], asked["entry"], asked["key"], runner=failing)
    assert failing.calls == 0


@pytest.mark.parametrize("payload", [shifted(INPUT, 100.0), Document("text/plain", b"")])
def test_an_input_outside_of_the_domain_is_not_answered(payload: Any) -> None:
    other = job(input=payload.digest(NONCE))
    with pytest.raises(Misuse):
        respond(other, payload, entry(), PROVIDER)


def test_a_proof_is_not_made_where_the_job_allows_none() -> None:
    with pytest.raises(Misuse, match="judged by replay, not by ezkl"):
        respond(job(evidence_kinds=("replay",)), INPUT, entry(), PROVIDER, prover=Prover(FailingRunner()))


# --- responding with a proof ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proving() -> Iterator[ProcessRunner]:
    with ProcessRunner(memory_bytes=None, threads=None) as runner:
        ensure_proving_key(entry())
        yield runner


def made(proof: ZkProof) -> bytes:
    """What the native prover gives for a proof."""
    value = {"instances": list(proof.instances), "proof": proof.proof.hex()}
    return b"\x00" + canonical.encode(value)


class HandedOut(AnsweringRunner):
    """A prover that hands out what it was given; everything else really runs."""

    def run(self, task: Callable[..., bytes], *parts: bytes, deadline_s: float = 30.0) -> bytes:
        if task is native.prove:
            return super().run(task, *parts, deadline_s=deadline_s)
        return runner().run(task, *parts, deadline_s=deadline_s)


def test_a_false_proof_is_never_signed_for(proving: ProcessRunner) -> None:
    false = bytearray(proof().proof)
    false[100] ^= 1
    prover = Prover(HandedOut(made(replace(proof(), proof=bytes(false)))))
    with pytest.raises(ToolFailed, match="does not verify"):
        respond(job(), INPUT, entry(), PROVIDER, prover=prover)


def test_a_response_with_a_proof_is_accepted(proving: ProcessRunner) -> None:
    nonce = bytes(32)
    other = job(nonce=nonce.hex(), input=INPUT.digest(nonce))
    steps: list[str] = []
    bundle = respond(other, INPUT, entry(), PROVIDER, prover=Prover(proving), on_step=steps.append)
    assert [named.kind for named in bundle.exchange.claim.document.evidence] == ["ezkl"]
    assert bundle.exchange.claim.document.evidence[0].digest == bundle.evidence[0].digest
    assert accepted(bundle)
    assert any("proving" in step for step in steps)


def test_two_proofs_of_one_job_differ_and_prove_the_same(proving: ProcessRunner) -> None:
    again = respond(job(), INPUT, entry(), PROVIDER, prover=Prover(proving))
    assert again.exchange.output == proved().exchange.output
    assert again.evidence != proved().evidence
    assert ZkProof.decode(again.evidence[0].body).instances == proof().instances


def test_the_claimed_output_is_the_proved_one(proving: ProcessRunner) -> None:
    prover = Prover(HandedOut(made(proof())))
    bundle = respond(job(), INPUT, entry(), PROVIDER, prover=prover)
    assert bundle == proved()


def test_a_proof_of_another_job_is_never_signed_for(proving: ProcessRunner) -> None:
    prover = Prover(HandedOut(made(proof())))
    with pytest.raises(Misuse, match="not those of this job"):
        prover.prove(entry(), "11" * 32, INPUT)


@pytest.mark.parametrize("position", [0, 30, 45])
def test_instances_that_we_did_not_ask_for_are_never_signed_for(
    proving: ProcessRunner, position: int
) -> None:
    instances = list(proof().instances)
    instances[position] = "ff" + "00" * 31
    prover = Prover(HandedOut(made(replace(proof(), instances=tuple(instances)))))
    with pytest.raises(Misuse, match="not those of this job"):
        prover.prove(entry(), job().digest, INPUT)


def test_a_prover_that_gives_too_few_instances_is_malformed(proving: ProcessRunner) -> None:
    prover = Prover(HandedOut(made(replace(proof(), instances=proof().instances[:10]))))
    with pytest.raises(Malformed):
        prover.prove(entry(), job().digest, INPUT)


def test_a_prover_that_dies_is_an_error(proving: ProcessRunner) -> None:
    with pytest.raises(TaskRaised):
        Prover(FailingRunner()).prove(entry(), job().digest, INPUT)


def test_without_a_circuit_there_is_no_proof() -> None:
    with pytest.raises(Misuse, match="no circuit"):
        Prover(FailingRunner()).prove(replace(entry(), circuit=None), job().digest, INPUT)
