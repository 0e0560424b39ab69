"""A drawn claim in the escrow: who opens is judged, who is silent pays for it, and rubbish is silence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from escrow_builders import memory_folder, refused
from judging import BUYER, NOW, PRICE, PROVIDER, STRANGER, VERIFIER, FailingRunner, policy, runner
from proofhold.answering import Answered, take_opening
from proofhold.backends.replay import ReplayBackend
from proofhold.catalogue import Catalogue
from proofhold.core import Answer, NeedKind
from proofhold.drafting import USDC
from proofhold.errors import Misuse
from proofhold.escrow import AccountKind
from proofhold.escrow.rail import LedgerRail
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.escrow.states import State
from proofhold.exchange import Bundle
from proofhold.job import PPM
from proofhold.keys import Signed
from proofhold.provider import open_products
from proofhold.replay.products import read_pieces
from proofhold.runner import Runner
from proofhold.sampling import commitment, projection_commitment
from proofhold.settlement import Decision, Outcome, fund, verify_and_settle
from proofhold.verifier import Verifier
from replay_exchanges import Committed, cheap, commit, honest_run, job_on, nudged, signed_results
from replay_models import entry

BOND = USDC.parse("5")
PENALTY = USDC.parse("3")
ANSWER_S = 600


@dataclass
class House:
    """An escrow, one model with cuts, and a provider that is hired again and again."""

    escrow: SqliteEscrow
    now: int = NOW
    hired: int = 0
    model: str = "chain"

    def clock(self) -> int:
        return self.now

    def verifier(self, using: Runner | None = None) -> Verifier:
        return Verifier(Catalogue.of([entry(self.model)]), (), ReplayBackend(using or runner()))

    def hire(self, *, cheating: bool = False, rate_ppm: int = PPM, **changes: Any) -> Committed:
        """Fund a job and record its claim."""
        self.hired += 1
        number = self.hired
        nonce = hashlib.sha256(b"house %d" % number).digest()
        known = entry(self.model)
        inputs, run = honest_run(known, number)
        if cheating:
            run = cheap(self.model, number).run
        if self.model == "wide":
            changes = {"projection_commitment": self.escrow.draw_projection(nonce)} | changes
        job = job_on(
            known,
            inputs,
            nonce=nonce.hex(),
            input=inputs.digest(nonce),
            sampling_commitment=self.escrow.draw_secret(nonce),
            sampling_rate_ppm=rate_ppm,
            bond=BOND,
            withholding_penalty=PENALTY,
            answer_s=ANSWER_S,
            claim_by=self.now + 3_600,
            policy=policy("sampled").digest,
            **changes,
        )
        claim = commit(known, run, inputs, job=job)
        signed = claim.exchange.job
        fund(
            signed,
            inputs,
            policy=policy("sampled"),
            verifier=self.verifier(),
            escrow=self.escrow,
            clock=self.clock,
        )
        self.escrow.record_claim(claim.exchange.claim, claim.exchange.output, now=self.now)
        return claim

    def judge(self, claim: Committed) -> Decision:
        return verify_and_settle(
            claim.exchange.job.digest,
            Bundle(claim.exchange),
            verifier=self.verifier(),
            policy=policy("sampled"),
            escrow=self.escrow,
            key=VERIFIER,
            clock=self.clock,
        )

    def take(
        self,
        claim: Committed,
        opening: Answer | Sequence[Answer],
        using: Runner | None = None,
        answers: Sequence[Answer] = (),
    ) -> Answered:
        return take_opening(
            claim.exchange.job.digest,
            Bundle(claim.exchange),
            opening,
            verifier=self.verifier(using),
            policy=policy("sampled"),
            escrow=self.escrow,
            key=VERIFIER,
            answers=answers,
            clock=self.clock,
        )

    def drawn(self, claim: Committed) -> int:
        """The segment that the verdict asked for."""
        [need] = self.judge(claim).receipt.needs
        assert need.kind is NeedKind.OPENING
        return int(need.subject)

    def state(self, claim: Committed) -> State:
        return self.escrow.hold(claim.exchange.job.digest).capture(0).state

    def wealth(self) -> int:
        """What the provider has, its bonds counted, once all that is due was paid."""
        self.escrow.pump(LedgerRail(), now=self.now)
        own = (AccountKind.PARTY, AccountKind.BOND)
        return sum(
            balance.amount
            for balance in self.escrow.balances()
            if balance.account.kind in own and balance.account.owner != BUYER.public
        )


@pytest.fixture
def house() -> Iterator[House]:
    with memory_folder() as folder:
        escrow = SqliteEscrow.create(folder / "escrow.db", escrow="test-escrow", operators=[STRANGER.public])
        escrow.deposit(BUYER.public, 100 * PRICE, USDC, key="buyer", now=NOW)
        escrow.deposit(PROVIDER.public, 100 * BOND, USDC, key="provider", now=NOW)
        yield House(escrow)


def test_an_honest_provider_opens_and_is_paid(house: House) -> None:
    claim = house.hire()
    decision = house.judge(claim)
    assert (decision.outcome, decision.state) == (Outcome.KEEP, State.ANSWERING)
    answered = house.take(claim, claim.opening(int(decision.receipt.needs[0].subject)))
    assert answered.decision.outcome is Outcome.RELEASE
    assert house.wealth() == 100 * BOND + PRICE


def test_the_acknowledgement_is_signed_and_says_what_came_when(house: House) -> None:
    claim = house.hire()
    opening = claim.opening(house.drawn(claim))
    house.now += 17
    word = house.take(claim, opening).acknowledgement
    assert word.envelope.is_signed_by_exactly([VERIFIER.public])
    again = Signed.decode(type(word.document), word.encode())
    assert (again.document.job, again.document.opening) == (claim.exchange.job.digest, opening.digest)
    assert again.document.at == NOW + 17


def test_a_cheat_that_opens_is_disputed(house: House) -> None:
    claim = house.hire(cheating=True)
    answered = house.take(claim, claim.opening(house.drawn(claim)))
    assert answered.decision.outcome is Outcome.DISPUTE
    assert house.state(claim) is State.DISPUTED


def test_a_cheat_that_is_silent_loses_the_fee_and_the_penalty(house: House) -> None:
    claim = house.hire(cheating=True)
    house.drawn(claim)
    house.now += ANSWER_S
    house.escrow.run_timers(house.now)
    assert house.state(claim) is State.REFUNDING
    assert house.wealth() == 100 * BOND - PENALTY


def test_rubbish_is_silence(house: House) -> None:
    """A forged opening stops no clock, from whomever it comes."""
    claim = house.hire(cheating=True)
    segment = house.drawn(claim)
    inputs, run = honest_run(claim.entry, house.hired)
    honest = commit(claim.entry, run, inputs)
    other = (segment + 1) % len(claim.lock.segments)
    for forged in (honest.opening(segment), Answer(NeedKind.OPENING, b"rubbish"), claim.opening(other)):
        with refused("answer.opening"):
            house.take(claim, forged)
    assert house.state(claim) is State.ANSWERING
    house.now += ANSWER_S
    house.escrow.run_timers(house.now)
    assert house.wealth() == 100 * BOND - PENALTY


def test_a_check_that_dies_after_the_opening_came_is_not_the_providers_fault(house: House) -> None:
    claim = house.hire()
    opening = claim.opening(house.drawn(claim))
    answered = house.take(claim, opening, using=FailingRunner())
    assert (answered.decision.outcome, answered.decision.state) == (Outcome.KEEP, State.CLAIMED)
    house.now += 2 * ANSWER_S
    house.escrow.run_timers(house.now)
    assert house.state(claim) is State.CLAIMED
    house.drawn(claim)
    assert house.take(claim, opening).decision.outcome is Outcome.RELEASE
    assert house.wealth() == 100 * BOND + PRICE


def test_nobody_who_withholds_gains(house: House) -> None:
    """Over many jobs at a fifth: to cheat, and to be silent whenever drawn, costs more than it brings."""
    jobs = drawn = 0
    rate = PPM // 5
    # Nobody steers the draw, this test included: it goes on until it has seen both.
    while not (jobs >= 12 and 0 < drawn < jobs) and jobs < 200:
        jobs += 1
        claim = house.hire(cheating=True, rate_ppm=rate)
        drawn += house.judge(claim).outcome is Outcome.KEEP
        house.now += ANSWER_S
        house.escrow.run_timers(house.now)
    gained = house.wealth() - 100 * BOND
    assert gained == (jobs - drawn) * PRICE - drawn * PENALTY
    assert 0 < drawn < jobs

    assert (PPM - rate) * PRICE < rate * PENALTY, "what a job brings that is not drawn, and costs that is"


def test_a_verifier_that_withholds_its_verdict_gains_nothing(house: House) -> None:
    """It never looks: at the deadline the capture is disputed, and the verifier has no row that pays it."""
    claim = house.hire()
    house.now += 3_600
    house.escrow.run_timers(house.now)
    assert house.state(claim) is State.DISPUTED
    assert house.wealth() == 100 * BOND


def test_nobody_waits_for_an_opening_that_was_not_asked_for(house: House) -> None:
    claim = house.hire()
    with refused("escrow.wrong_state"):
        house.take(claim, claim.opening(0))
    with pytest.raises(Misuse):
        house.take(claim, Answer(NeedKind.REVEAL, bytes(32)))
    with refused("escrow.wrong_state"):
        house.escrow.await_opening(claim.exchange.job.digest, 0, now=house.now)
    with refused("escrow.wrong_state"):
        house.escrow.opened(claim.exchange.job.digest, 0, opening="0" * 64, now=house.now)


@pytest.fixture
def valuable(house: House) -> House:
    """The same house, for jobs whose every product is checked."""
    house.model = "wide"
    return house


def products_of(claim: Committed) -> tuple[Answer, ...]:
    """What an honest provider opens: the results of all products, signed for."""
    return open_products(claim.exchange, claim.entry, PROVIDER, runner=runner())


def test_every_product_of_a_valuable_job_is_checked_and_its_receipt_shows_both_secrets(
    valuable: House,
) -> None:
    claim = valuable.hire()
    [need] = valuable.judge(claim).receipt.needs
    assert (need.kind, need.subject) == (NeedKind.OPENING, "products")
    answered = valuable.take(claim, products_of(claim))
    assert answered.decision.outcome is Outcome.RELEASE
    assert answered.acknowledgement.envelope.is_signed_by_exactly([VERIFIER.public])
    receipt = answered.decision.receipt
    job = claim.exchange.job.document
    nonce = bytes.fromhex(job.nonce)
    reveals = [a.body or b"" for a in receipt.answers if a.kind is NeedKind.REVEAL]
    assert job.sampling_commitment in {commitment(nonce, secret) for secret in reveals}
    assert job.projection_commitment in {projection_commitment(nonce, secret) for secret in reveals}
    assert valuable.wealth() == 100 * BOND + PRICE


def test_the_second_secret_is_revealed_to_the_first_products_alone(valuable: House) -> None:
    """Else a provider would fit false results to the projections that it knows (P3)."""
    claim = valuable.hire()
    valuable.judge(claim)
    hold, honest = claim.exchange.job.digest, products_of(claim)
    for nothing in (honest[1:], [Answer(NeedKind.OPENING, b"rubbish")]):
        with refused("answer.opening"):
            valuable.take(claim, nothing)
    # What the provider did not sign has revealed nothing: the first products are these.
    digest, results = read_pieces([answer.body for answer in honest]) or ("", ())
    secret = valuable.escrow.record_openings(hold, 0, openings=digest, now=valuable.now)
    assert valuable.escrow.record_openings(hold, 0, openings=digest, now=valuable.now + 1) == secret
    fitted = signed_results(claim.exchange, (nudged(results[0]), *results[1:]))
    for handed_in in ((), (Answer(NeedKind.REVEAL, secret),)):
        with refused("escrow.openings"):
            valuable.take(claim, fitted, answers=handed_in)
    assert valuable.state(claim) is State.ANSWERING
    assert valuable.take(claim, honest).decision.outcome is Outcome.RELEASE


def test_falsified_products_of_a_valuable_job_are_disputed(valuable: House) -> None:
    claim = valuable.hire()
    valuable.judge(claim)
    _, results = read_pieces([answer.body for answer in products_of(claim)]) or ("", ())
    forged = signed_results(claim.exchange, (*results[:-1], nudged(results[-1], 0.05)))
    assert valuable.take(claim, forged).decision.outcome is Outcome.DISPUTE


def test_a_valuable_job_is_funded_with_a_second_secret_of_the_escrows_own(valuable: House) -> None:
    for changes, code in (
        ({"projection_commitment": "0" * 64}, "job.projection"),
        ({"projection_commitment": projection_commitment(bytes(32), bytes(32))}, "job.projection"),
        ({"captures": 2}, "job.projection_captures"),
    ):
        with refused(code):
            valuable.hire(**changes)
    plain = valuable.hire(projection_commitment=None)
    with refused("escrow.no_projection"):
        valuable.escrow.record_openings(plain.exchange.job.digest, 0, openings="0" * 64, now=NOW)


def test_a_second_claim_after_the_draw_is_equivocation(house: House) -> None:
    """Whoever tries another claim once it knows what was drawn signs evidence against itself (P5)."""
    claim = house.hire(cheating=True)
    house.drawn(claim)
    output = replace(claim.exchange.claim.document, trace_root="0" * 64)
    with refused("claim.equivocation"):
        house.escrow.record_claim(Signed.new(output, PROVIDER), claim.exchange.output, now=house.now)
    assert house.escrow.equivocation(claim.exchange.job.digest, 0) is not None
