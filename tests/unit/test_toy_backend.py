"""A new kind of evidence costs one module and one line of registration: here is a toy, from fund to release.

The whole "module" is the class `ToyHmac`; the line of registration is the one in `VERIFIER_WITH_TOY`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from escrow_builders import memory_folder
from judging import BUYER, NOW, PROVIDER, VERIFIER, catalogue, entry, proved, runner, unproved
from proofhold import (
    Answer,
    Assurance,
    Bundle,
    Decision,
    Entry,
    Evidence,
    Exchange,
    Fault,
    Finding,
    LedgerRail,
    Offer,
    Policy,
    Property,
    Reason,
    Refuted,
    SqliteEscrow,
    Verifier,
    fund,
    verify_and_settle,
)
from proofhold.backends.ezkl import EzklBackend
from proofhold.backends.replay import ReplayBackend
from proofhold.drafting import USDC, Terms, draft_job
from proofhold.escrow.states import BondState, State
from proofhold.job import Claim, NamedEvidence, statement_of
from proofhold.keys import Signed
from proofhold.payload import Payload
from proofhold.provider import accept
from proofhold.settlement import Outcome

SHARED_SECRET = b"known to the enclave and to the verifier"
PRICE = USDC.parse("0.5")

TOY_POLICY = Policy.parse(b"""
version = 1
name = "toy"
summary = "A message authentication code, which is a toy."
[[tiers]]
[tiers.demand]
show = ["model", "output", "provider"]
by = "attested"
""")


@dataclass(frozen=True)
class ToyHmac:
    """A toy: whoever knows a secret vouches for the statement. No provider could be held to it."""

    secret: bytes
    kind: str = "toy-hmac"

    def accepts(self, payload: Payload) -> bool:
        return True

    def offers(self, entry: Entry | None) -> tuple[Offer, ...]:
        return (Offer(self.kind, TOY_SHOWS),)

    def check(
        self,
        evidence: Evidence | None,
        exchange: Exchange,
        entry: Entry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Finding | Refuted:
        body = evidence.body if evidence else b""
        if not hmac.compare_digest(body, toy_code(self.secret, exchange)):
            return Refuted(self.kind, (Reason("toy_hmac.code", "a false code", Fault.PROVIDER),))
        return Finding(self.kind, TOY_SHOWS, one_use=(hashlib.sha256(body).hexdigest(),))


TOY_SHOWS = dict.fromkeys((Property.MODEL, Property.OUTPUT, Property.PROVIDER), Assurance.ATTESTED)


def toy_code(secret: bytes, exchange: Exchange) -> bytes:
    statement = statement_of(exchange.job.document, exchange.claim.document)
    return hmac.digest(secret, bytes.fromhex(statement.output + statement.job), "sha256")


VERIFIER_WITH_TOY = Verifier(
    catalogue(),
    backends=(EzklBackend(runner()), ToyHmac(SHARED_SECRET)),
    fallback=ReplayBackend(runner()),
)


@pytest.fixture
def escrow() -> Iterator[SqliteEscrow]:
    with memory_folder() as folder, SqliteEscrow.create(folder / "escrow.db", escrow="toy") as escrow:
        for key in (BUYER, PROVIDER):
            escrow.deposit(key.public, 10 * PRICE, USDC, key=key.public[-8:], now=NOW)
        yield escrow
        assert escrow.audit() == ()


def play(escrow: SqliteEscrow, secret: bytes) -> tuple[Decision, State, BondState]:
    """Fund, claim, verify, settle and pay, with evidence made with a secret."""
    payload = proved().exchange.input
    draft = draft_job(
        Terms(price=PRICE, bond=PRICE, evidence_kinds=("toy-hmac",)),
        entry=entry(),
        payload=payload,
        policy=TOY_POLICY,
        buyer=BUYER,
        provider=PROVIDER.public,
        verifier=VERIFIER.public,
        escrow=escrow,
        now=NOW,
    )
    job = accept(draft, PROVIDER)
    fund(job, payload, policy=TOY_POLICY, verifier=VERIFIER_WITH_TOY, escrow=escrow, clock=lambda: NOW)

    output = unproved().exchange.output
    digest = output.digest(bytes.fromhex(job.document.nonce))
    claim = Claim(job=job.digest, seq=0, amount=PRICE, output=digest)
    unsigned = Exchange(job, payload, Signed.new(claim), output)
    evidence = Evidence("toy-hmac", toy_code(secret, unsigned))
    named = (NamedEvidence(kind="toy-hmac", digest=evidence.digest),)
    signed = Signed.new(Claim(job=job.digest, seq=0, amount=PRICE, output=digest, evidence=named), PROVIDER)
    bundle = Bundle(Exchange(job, payload, signed, output), (evidence,))
    escrow.record_claim(signed, output, now=NOW)

    decision = verify_and_settle(
        job.digest,
        Bundle.decode(bundle.encode()),
        verifier=VERIFIER_WITH_TOY,
        policy=TOY_POLICY,
        escrow=escrow,
        key=VERIFIER,
        clock=lambda: NOW,
    )
    escrow.pump(LedgerRail(), now=NOW)
    hold = escrow.hold(job.digest)
    return decision, hold.capture(0).state, hold.bond.state


def test_honest_evidence_of_a_new_kind_is_released(escrow: SqliteEscrow) -> None:
    decision, state, bond = play(escrow, SHARED_SECRET)
    assert (decision.outcome, state, bond) == (Outcome.RELEASE, State.RELEASED, BondState.FREE)
    assert {prop.value for prop in decision.receipt.shown} == {"model", "output", "provider"}
    assert len(decision.receipt.one_use) == 1


def test_false_evidence_of_a_new_kind_is_refunded(escrow: SqliteEscrow) -> None:
    decision, state, bond = play(escrow, b"another secret")
    assert (decision.outcome, state, bond) == (Outcome.REFUND, State.REFUNDED, BondState.FROZEN)
    assert [reason.code for reason in decision.receipt.reasons] == ["toy_hmac.code"]


def test_a_new_kind_leaves_the_others_as_they_are() -> None:
    assert [judge.kind for judge in VERIFIER_WITH_TOY.judges] == ["ezkl", "toy-hmac", "replay"]
    verdict = VERIFIER_WITH_TOY.verify(
        proved().exchange,
        proved().evidence,
        policy=Policy.shipped("dangerous_demo_proved"),
        now=NOW,
    )
    assert verdict.shown[Property.OUTPUT] == (Assurance.PROVED,)
