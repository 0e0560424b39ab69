"""Drafting: what the terms say, what the catalogue pins, and what the escrow draws, in one signed job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from escrow_builders import memory_folder
from judging import (
    BUYER,
    NOW,
    PRICE,
    PROVIDER,
    VERIFIER,
    catalogue,
    circuit,
    entry,
    policy,
    proved,
    runner,
    shifted,
)
from proofhold.drafting import USDC, Terms, draft_job
from proofhold.errors import Misuse
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.job import PPM, Delivery, Fee, Job, OnnxModel, Payer, SignedJob
from proofhold.keys import Signed
from proofhold.provider import accept
from proofhold.settlement import funding_objections
from proofhold.standard import standard_verifier

INPUT = proved().exchange.input


@pytest.fixture(scope="module")
def escrow() -> Iterator[SqliteEscrow]:
    with memory_folder() as folder, SqliteEscrow.create(folder / "escrow.db", escrow="an-escrow") as escrow:
        yield escrow


def draft(escrow: SqliteEscrow, terms: Terms | None = None, **changes: Any) -> SignedJob:
    asked: dict[str, Any] = {
        "entry": entry(),
        "payload": INPUT,
        "policy": policy(),
        "buyer": BUYER,
        "provider": PROVIDER.public,
        "verifier": VERIFIER.public,
        "escrow": escrow,
        "now": NOW,
    }
    return draft_job(terms or Terms(price=PRICE), **asked | changes)


def test_a_draft_bears_the_buyers_signature_alone(escrow: SqliteEscrow) -> None:
    assert draft(escrow).envelope.is_signed_by_exactly([BUYER.public])


def test_a_draft_that_the_provider_accepts_can_be_funded(escrow: SqliteEscrow) -> None:
    job = accept(draft(escrow), PROVIDER, entry=entry())
    verifier = standard_verifier(catalogue(), runner())
    assert funding_objections(job, INPUT, policy=policy(), verifier=verifier) == ()


def test_every_term_is_in_the_job(escrow: SqliteEscrow) -> None:
    terms = Terms(
        price=7,
        bond=8,
        withholding_penalty=9,
        currency=replace(USDC, code="EUR"),
        sampling_rate_ppm=10,
        evidence_kinds=("replay", "ezkl"),
        delivery=Delivery.IMMEDIATE,
        claim_within_s=11,
        verification_s=12,
        answer_s=13,
        dispute_s=14,
        freeze_s=15,
        checks_paid_by=Payer.PROVIDER,
    )
    job = draft(escrow, terms, payee="somebody").document
    nonce = bytes.fromhex(job.nonce)
    lock = entry().replay
    assert lock is not None
    assert job == Job(
        escrow="an-escrow",
        verifier=VERIFIER.public,
        buyer=BUYER.public,
        provider=PROVIDER.public,
        payee="somebody",
        model=OnnxModel(entry().model, circuit().lock.digest, lock.digest),
        input=INPUT.digest(nonce),
        price=7,
        currency=replace(USDC, code="EUR"),
        nonce=job.nonce,
        claim_by=NOW + 11,
        verification_s=12,
        answer_s=13,
        dispute_s=14,
        freeze_s=15,
        delivery=Delivery.IMMEDIATE,
        policy=policy().digest,
        evidence_kinds=("ezkl", "replay"),
        sampling_rate_ppm=10,
        bond=8,
        withholding_penalty=9,
        sampling_commitment=escrow.draw_secret(nonce),
        checks_paid_by=Payer.PROVIDER,
    )


def test_who_names_no_payee_pays_the_provider_and_checks_every_job(escrow: SqliteEscrow) -> None:
    job = draft(escrow).document
    assert (job.payee, job.sampling_rate_ppm, job.bond) == (PROVIDER.public, PPM, 0)


def test_every_draft_has_a_nonce_and_a_commitment_of_its_own(escrow: SqliteEscrow) -> None:
    drafts = [draft(escrow).document for _ in range(5)]
    assert len({job.nonce for job in drafts}) == len({job.sampling_commitment for job in drafts}) == 5
    assert len({job.input for job in drafts}) == 5, "the same input has another digest under another nonce"


@pytest.mark.parametrize("missing", ["circuit", "replay"])
def test_a_lock_that_the_model_lacks_is_none(escrow: SqliteEscrow, missing: str) -> None:
    bare = replace(entry(), **{missing: None})  # type: ignore[arg-type]
    model = draft(escrow, entry=bare).document.model
    assert isinstance(model, OnnxModel)
    locks = {"circuit": model.circuit_lock, "replay": model.replay_lock}
    assert [name for name, lock in locks.items() if lock is None] == [missing]


def test_an_input_outside_of_the_domain_is_not_drafted(escrow: SqliteEscrow) -> None:
    with pytest.raises(Misuse, match=r"outside the domain: got .*, expected"):
        draft(escrow, payload=shifted(INPUT, 100.0))


def test_terms_that_make_no_sense_are_not_drafted(escrow: SqliteEscrow) -> None:
    with pytest.raises(Misuse):
        draft(escrow, Terms(price=1, evidence_kinds=()))
    with pytest.raises(Misuse):
        draft(escrow, provider=BUYER.public)


def test_a_draft_survives_its_encoding(escrow: SqliteEscrow) -> None:
    job = draft(escrow)
    assert Signed.decode(Job, job.encode()) == job


def test_a_metered_job_with_a_fee_is_drafted(escrow: SqliteEscrow) -> None:
    terms = Terms(price=PRICE, captures=3, fee=Fee("the-house", 10_000))
    document = draft(escrow, terms).document
    assert (document.captures, document.fee) == (3, Fee("the-house", 10_000))
