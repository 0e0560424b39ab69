"""Drafting the job that buyer and provider sign: from what somebody wants to what the protocol needs said."""

from __future__ import annotations

import os
from dataclasses import dataclass

from proofhold.catalogue import Entry, ServiceEntry
from proofhold.domain import check_input
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Escrow
from proofhold.job import (
    NONCE_BYTES,
    PPM,
    Delivery,
    Fee,
    Job,
    ModelReference,
    OnnxModel,
    Payer,
    Service,
    SignedJob,
)
from proofhold.keys import Key, Signed, SigningKey
from proofhold.money import Currency
from proofhold.payload import Payload
from proofhold.policy import Policy

USDC = Currency("USDC", 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What buyer and provider agree on beside model and input. Amounts are atomic units of `currency`."""

    price: int
    bond: int = 0
    withholding_penalty: int = 0
    currency: Currency = USDC
    sampling_rate_ppm: int = PPM
    evidence_kinds: tuple[str, ...] = ("ezkl", "replay")
    delivery: Delivery = Delivery.WITH_VERDICT
    claim_within_s: int = 3_600
    verification_s: int = 3_600
    answer_s: int = 3_600
    dispute_s: int = 86_400
    freeze_s: int = 7 * 86_400
    checks_paid_by: Payer = Payer.BUYER
    captures: int = 1
    """How many claims the hold takes, each for more than the one before."""
    fee: Fee | None = None
    check_products: bool = False
    """Whether a drawn claim is checked whole, every matrix product by random projection (P3): for jobs that
    are worth falsifying one value."""


def draft_job(
    terms: Terms,
    *,
    entry: Entry | ServiceEntry,
    payload: Payload,
    policy: Policy,
    buyer: SigningKey,
    provider: Key,
    verifier: Key,
    escrow: Escrow,
    now: int,
    payee: str | None = None,
) -> SignedJob:
    """Draft a job, signed by the buyer, for the provider to accept.

    The escrow draws the job's sampling secret here, and the job carries its commitment: from now on nobody
    can choose what is drawn (PROTOCOL P2). Where products are to be checked it draws the second one as well
    (P3).

    Args:
        terms: prices, periods and kinds of evidence.
        entry: the catalogue's entry of the model or service; its locks or its allow-list are pinned.
        payload: the input, within the model's domain. What a service's evidence cannot bind is refused when
            the job is funded.
        policy: what the buyer demands.
        buyer: signs.
        provider: who is asked.
        verifier: whose verdicts count.
        escrow: who holds the money and keeps the secret.
        now: unix seconds.
        payee: who is paid; the provider unless named.

    Raises:
        Misuse: the input lies outside of the model's domain, or the terms make no sense.

    """
    objections = check_input(entry.inputs, payload) if isinstance(entry, Entry) else ()
    if objections:
        raise Misuse("; ".join(f"{r.message}: got {r.got}, expected {r.expected}" for r in objections))
    nonce = os.urandom(NONCE_BYTES)
    job = Job(
        escrow=escrow.id,
        verifier=verifier,
        buyer=buyer.public,
        provider=provider,
        payee=payee or provider,
        model=_reference(entry),
        input=payload.digest(nonce),
        price=terms.price,
        currency=terms.currency,
        nonce=nonce.hex(),
        claim_by=now + terms.claim_within_s,
        verification_s=terms.verification_s,
        answer_s=terms.answer_s,
        dispute_s=terms.dispute_s,
        freeze_s=terms.freeze_s,
        delivery=terms.delivery,
        policy=policy.digest,
        evidence_kinds=tuple(sorted(terms.evidence_kinds)),
        sampling_rate_ppm=terms.sampling_rate_ppm,
        bond=terms.bond,
        withholding_penalty=terms.withholding_penalty,
        sampling_commitment=escrow.draw_secret(nonce),
        checks_paid_by=terms.checks_paid_by,
        captures=terms.captures,
        fee=terms.fee,
        projection_commitment=escrow.draw_projection(nonce) if terms.check_products else None,
    )
    return Signed.new(job, buyer)


def _reference(entry: Entry | ServiceEntry) -> ModelReference:
    if isinstance(entry, ServiceEntry):
        return Service(entry.name, entry.digest)
    return OnnxModel(
        onnx=entry.model,
        circuit_lock=entry.circuit.lock.digest if entry.circuit else None,
        replay_lock=entry.replay.digest if entry.replay else None,
    )
