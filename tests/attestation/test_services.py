"""Services in the verifier and in a settlement: funding, verdicts, and one answer for one hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from escrow_builders import memory_folder, refused
from judging import BUYER, NOW, PRICE, PROVIDER, VERIFIER, said
from proofhold.catalogue import Catalogue
from proofhold.chat import signed_part
from proofhold.core import Evidence, Fault, Inconclusive, Rejected
from proofhold.drafting import USDC, Terms, draft_job
from proofhold.escrow import State
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.exchange import Bundle
from proofhold.job import Service
from proofhold.provider import accept
from proofhold.provider.chat import respond_with
from proofhold.runner import InlineRunner
from proofhold.settlement import NotFundable, Outcome, fund, funding_objections, verify_and_settle
from proofhold.standard import standard_reach, standard_verifier
from proofhold.verifier import Verifier
from serving import (
    PAYEE,
    REQUEST,
    bundle_of,
    chat,
    document,
    evidence_of,
    judge,
    make_job,
    policy,
    respond,
    service,
)

TERMS = Terms(price=PRICE, evidence_kinds=("opengradient",), sampling_rate_ppm=0)


def verifier() -> Verifier:
    return standard_verifier(Catalogue((), (service(),)), InlineRunner())


def test_a_job_on_an_unknown_service_or_another_list_is_nobodys_loss() -> None:
    bundle = chat(respond())
    other = judge(bundle, entry=service(max_age_s=1))
    assert isinstance(other, Inconclusive)
    assert said(other) == {("catalogue.allowlist", "verifier")}
    unknown = judge(bundle, entry=service(service="elsewhere"))
    assert said(unknown) == {("catalogue.service", "verifier")}


def test_evidence_of_a_kind_that_judges_models_cannot_serve_a_service() -> None:
    entry, payload = service(), document(REQUEST)
    job = make_job(entry, payload, evidence_kinds=("ezkl", "replay"))
    assert said(verifier().objections_to(job, payload)) == {("backend.unknown_kind", "verifier")}
    bundle = bundle_of(job, payload, signed_part(respond()).document(), Evidence("ezkl", b"{}"))
    verdict = verifier().verify(bundle.exchange, bundle.evidence, policy=policy(), now=NOW)
    assert said(verdict) == {("backend.unknown_kind", "verifier")}


def test_a_bare_word_about_a_service_stays_open() -> None:
    entry, payload = service(), document(REQUEST)
    bundle = chat(respond(), evidence_kinds=("opengradient", "replay"))
    job = make_job(entry, payload, evidence_kinds=("opengradient", "replay"))
    assert bundle.exchange.job.document == job
    bare = bundle_of(job, payload, signed_part(respond()).document(), bundle.evidence[0])
    claim = replace(bare.exchange.claim.document, evidence=())
    from proofhold.keys import Signed

    exchange = replace(bare.exchange, claim=Signed.new(claim, PROVIDER))
    verdict = verifier().verify(exchange, (), policy=policy(), now=NOW)
    assert isinstance(verdict, Inconclusive)


def test_tensors_are_no_chat() -> None:
    from judging import logits

    entry, payload = service(), document(REQUEST)
    job = make_job(entry, payload)
    tensors = logits(1.0)
    verdict = judge(bundle_of(job, payload, tensors, evidence_of(respond())))
    assert isinstance(verdict, Rejected)
    assert said(verdict) == {("evidence.payload", "provider")}
    on_tensors = make_job(entry, tensors)
    assert said(verifier().objections_to(on_tensors, tensors)) == {("request.kind", "buyer")}


def test_only_the_kinds_that_the_job_names_are_asked() -> None:
    entry, payload = service(), document(REQUEST | {"seed": 7})
    uncovered = {("request.uncovered", "buyer")}
    assert said(verifier().objections_to(make_job(entry, payload), payload)) == uncovered
    dstack = make_job(entry, payload, evidence_kinds=("dstack",))
    assert not uncovered & said(verifier().objections_to(dstack, payload))
    assert {offer.kind for offer in verifier().offers(dstack)} <= {"dstack"}
    assert {offer.kind for offer in verifier().offers(make_job(entry, payload))} == {"opengradient"}


def test_the_policy_is_met_by_a_service_up_to_its_cap() -> None:
    entry, payload = service(), document(REQUEST)
    offers = verifier().offers(make_job(entry, payload))
    terms: dict[str, Any] = {"currency": USDC, "sampling_rate_ppm": 0}
    assert policy().satisfiable_by(offers, price=USDC.parse("10"), **terms) == ()
    too_much = policy().satisfiable_by(offers, price=USDC.parse("10.000001"), **terms)
    assert said(too_much) == {("policy.price", "buyer")}
    ways = [way.kinds for tier in standard_reach(policy()) for way in tier.ways]
    assert ways == [("dstack",), ("opengradient",), ("opengradient",)]


# --- money ------------------------------------------------------------------------------------------------


@dataclass
class Market:
    """An escrow, and a way to hire the service."""

    escrow: SqliteEscrow

    def hire(self, request: dict[str, Any] = REQUEST, payee: str = PAYEE) -> Any:
        payload = document(request)
        draft = draft_job(
            TERMS,
            entry=service(),
            payload=payload,
            policy=policy(),
            buyer=BUYER,
            provider=PROVIDER.public,
            verifier=VERIFIER.public,
            escrow=self.escrow,
            now=NOW,
            payee=payee,
        )
        job = accept(draft, PROVIDER)
        assert isinstance(job.document.model, Service)
        fund(job, payload, policy=policy(), verifier=verifier(), escrow=self.escrow, clock=lambda: NOW)
        return job

    def claim(self, job: Any, response: dict[str, Any]) -> Bundle:
        bundle = respond_with(
            job,
            document(REQUEST),
            signed_part(response).document(),
            evidence_of(response),
            service(),
            PROVIDER,
        )
        self.escrow.record_claim(bundle.exchange.claim, bundle.exchange.output, now=NOW)
        return bundle

    def settle(self, job: Any, bundle: Bundle) -> Any:
        return verify_and_settle(
            job.digest,
            bundle,
            verifier=verifier(),
            policy=policy(),
            escrow=self.escrow,
            key=VERIFIER,
            clock=lambda: NOW,
        )


@pytest.fixture
def market() -> Iterator[Market]:
    with memory_folder() as folder:
        escrow = SqliteEscrow.create(folder / "escrow.db", escrow="test-escrow", operators=[VERIFIER.public])
        escrow.deposit(BUYER.public, 10 * PRICE, USDC, key="buyer", now=NOW)
        yield Market(escrow)


def test_20_a_chat_answer_is_paid_for_and_the_same_one_is_not_paid_twice(market: Market) -> None:
    first, second = market.hire(), market.hire()
    response = respond()
    decision = market.settle(first, market.claim(first, response))
    assert decision.outcome is Outcome.RELEASE
    assert decision.state is State.RELEASING
    again = market.claim(second, response)
    with refused("claim.reused_evidence", Fault.PROVIDER):
        market.settle(second, again)
    assert market.escrow.audit() == ()


def test_a_false_answer_is_refunded(market: Market) -> None:
    job = market.hire()
    bundle = market.claim(job, respond(at=NOW - 86_400))
    assert market.settle(job, bundle).outcome is Outcome.REFUND


def test_another_payees_answer_pays_nobody(market: Market) -> None:
    job = market.hire(payee="a-freeloader")
    assert market.settle(job, market.claim(job, respond())).outcome is Outcome.REFUND


def test_funding_refuses_what_no_signature_covers(market: Market) -> None:
    with pytest.raises(NotFundable) as caught:
        market.hire(REQUEST | {"seed": 7})
    assert [reason.code for reason in caught.value.reasons] == ["request.uncovered"]
    assert caught.value.fault is Fault.BUYER


def test_an_honest_job_has_no_objections(market: Market) -> None:
    job = market.hire()
    assert funding_objections(job, document(REQUEST), policy=policy(), verifier=verifier()) == ()
