"""Simulated enclaves: believed in their own run by dangerous policies, and by nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from judging import BUYER, NOW, PROVIDER, said
from proofhold.allowlist import Binding, Measurement, Scheme
from proofhold.backends.sim import SimBackend
from proofhold.catalogue import Catalogue, ServiceEntry
from proofhold.chat import Answer
from proofhold.core import Accepted, Evidence, Inconclusive, Rejected, Verdict
from proofhold.exchange import Bundle
from proofhold.keys import Signed
from proofhold.policy import Policy
from proofhold.provider.chat import respond_with
from proofhold.provider.simulated import SimulatedEnclave
from proofhold.runner import InlineRunner
from proofhold.standard import standard_verifier
from proofhold.verifier import Verifier
from serving import DAMAGES, REQUEST, document, make_job, program, refutes_damage, service, signer

DEMO = Policy.shipped("dangerous_demo_attested")
ENCLAVE = SimulatedEnclave.start("echo")
ANSWER = Answer("gpt-4.1", "It is 4.").document()


def entry_of(enclave: SimulatedEnclave, *, measurement: bytes | None = None) -> ServiceEntry:
    measured = Measurement.of("sim", {"measurement": (measurement or enclave.measurement).hex()})
    key = signer(enclave.public_key, scheme=Scheme.ED25519, bindings=(Binding.SIM,))
    return service(key, of=program(measurements=(measured,)))


def answered(entry: ServiceEntry, enclave: SimulatedEnclave = ENCLAVE, **changes: Any) -> Bundle:
    payload = document(REQUEST)
    fields = {"evidence_kinds": ("sim",), "policy": DEMO.digest} | changes
    job = Signed.new(make_job(entry, payload, **fields), BUYER, PROVIDER)
    evidence = enclave.sign(job, payload, ANSWER, now=NOW)
    return respond_with(job, payload, ANSWER, evidence, entry, PROVIDER)


def judge(
    bundle: Bundle, entry: ServiceEntry, *, root: bytes = ENCLAVE.root_key, policy: Policy = DEMO
) -> Verdict:
    verifier = Verifier(Catalogue((), (entry,)), (), None, (SimBackend(root),))
    return verifier.verify(bundle.exchange, bundle.evidence, policy=policy, now=NOW)


def test_a_simulated_answer_is_accepted_by_the_demos_policy_and_says_what_it_is() -> None:
    entry = entry_of(ENCLAVE)
    verdict = judge(answered(entry), entry)
    assert isinstance(verdict, Accepted), verdict
    assert verdict.findings[0].dangers == ("sim",)


@pytest.mark.parametrize("name", ["attested-routing", "dangerous_demo_proved_or_sampled"])
def test_20_every_other_policy_refuses_a_simulated_enclave_by_name(name: str) -> None:
    entry, policy = entry_of(ENCLAVE), Policy.shipped(name)
    verdict = judge(answered(entry, policy=policy.digest), entry, policy=policy)
    assert isinstance(verdict, Rejected)
    assert ("policy.danger", "nobody") in said(verdict)
    offers = SimBackend(ENCLAVE.root_key).offers(entry)
    job = make_job(entry, document(REQUEST))
    terms: dict[str, Any] = {"price": job.price, "currency": job.currency, "sampling_rate_ppm": 0}
    assert policy.satisfiable_by(offers, **terms)


def test_20_the_verifier_that_ships_does_not_know_simulated_enclaves() -> None:
    entry = entry_of(ENCLAVE)
    bundle = answered(entry)
    verifier = standard_verifier(Catalogue((), (entry,)), InlineRunner())
    verdict = verifier.verify(bundle.exchange, bundle.evidence, policy=DEMO, now=NOW)
    assert isinstance(verdict, Inconclusive)
    assert said(verdict) == {("backend.unknown_kind", "verifier")}


def test_another_runs_root_is_not_believed() -> None:
    entry = entry_of(ENCLAVE)
    assert said(judge(answered(entry), entry, root=SimulatedEnclave.start("echo").root_key)) == {
        ("sim.document", "provider")
    }


def test_another_measurement_is_refused() -> None:
    entry = entry_of(ENCLAVE, measurement=b"\x01" * 32)
    assert said(judge(answered(entry), entry)) == {("sim.measurement", "provider")}


def test_20_a_simulated_answer_serves_its_own_job_only() -> None:
    entry, payload = entry_of(ENCLAVE), document(REQUEST)
    first = answered(entry)
    fields: dict[str, Any] = {"evidence_kinds": ("sim",), "policy": DEMO.digest, "claim_by": NOW + 9}
    other = Signed.new(make_job(entry, payload, **fields), BUYER, PROVIDER)
    replayed = respond_with(other, payload, ANSWER, first.evidence[0], entry, PROVIDER)
    assert said(judge(replayed, entry)) == {("sim.signature", "provider")}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"tag":"proofhold"}'])
def test_what_does_not_parse_is_refuted(body: bytes) -> None:
    entry, payload = entry_of(ENCLAVE), document(REQUEST)
    job = answered(entry).exchange.job
    bundle = respond_with(job, payload, ANSWER, Evidence("sim", body), entry, PROVIDER)
    verdict = judge(bundle, entry)
    assert isinstance(verdict, Rejected)
    assert {code.partition(".")[0] for code, _ in said(verdict)} == {"sim"}


def test_an_unlisted_key_is_refused() -> None:
    stranger = replace(ENCLAVE, key=SimulatedEnclave.start("echo").key)
    entry = entry_of(ENCLAVE)
    assert said(judge(answered(entry, stranger), entry)) == {("sim.signer", "provider")}
    assert said(SimBackend(b"").objections(entry, replace(document(REQUEST), body=b"x"))) == {
        ("request.not_json", "buyer")
    }


@pytest.mark.parametrize("count", DAMAGES)
def test_damage_is_refuted(count: int) -> None:
    entry = entry_of(ENCLAVE)
    refutes_damage(SimBackend(ENCLAVE.root_key), answered(entry), entry, count)
