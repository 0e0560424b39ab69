"""A drawn claim in the escrow: who opens is judged, who is silent pays for it, and rubbish is silence."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from escrow_builders import refused
from judging import NOW, PRICE, PROVIDER, VERIFIER, FailingRunner, policy, runner
from proofhold.answers import encode_answers
from proofhold.core import Answer, NeedKind
from proofhold.errors import Misuse
from proofhold.escrow.states import State
from proofhold.exchange import Bundle
from proofhold.job import PPM
from proofhold.judges import VerifierJudge
from proofhold.keys import Signed
from proofhold.provider import open_products
from proofhold.receipt import Receipt
from proofhold.replay.products import read_pieces
from proofhold.sampling import commitment, projection_commitment
from proofhold.settlement import Outcome, verify_and_settle
from proofhold.worker import Terms, Worker
from replay_exchanges import Committed, commit, honest_run, nudged, signed_results
from replay_house import ANSWER_S, BOND, PENALTY, House, open_house


@pytest.fixture
def house() -> Iterator[House]:
    yield from open_house()


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


def test_a_shadow_reveals_nothing(valuable: House) -> None:
    claim = valuable.hire()
    valuable.judge(claim)
    decision = verify_and_settle(
        claim.exchange.job.digest,
        Bundle(claim.exchange),
        verifier=valuable.verifier(),
        policy=policy("sampled"),
        escrow=valuable.escrow,
        key=VERIFIER,
        answers=products_of(claim),
        mode="shadow",
        clock=valuable.clock,
    )
    assert {reason.code for reason in decision.receipt.reasons} == {"replay.projection_missing"}
    valuable.escrow.record_openings(claim.exchange.job.digest, 0, openings="0" * 64, now=valuable.now)


def test_falsified_products_of_a_valuable_job_are_disputed(valuable: House) -> None:
    claim = valuable.hire()
    valuable.judge(claim)
    _, results = read_pieces([answer.body for answer in products_of(claim)]) or ("", ())
    forged = signed_results(claim.exchange, (*results[:-1], nudged(results[-1], 0.05)))
    assert valuable.take(claim, forged).decision.outcome is Outcome.DISPUTE


def worked(house: House, claim: Committed, opening: Sequence[Answer] = ()) -> list[str | None]:
    """Queue a claim and have a worker do all that it can; gives what came of each attempt."""
    hold = claim.exchange.job.digest
    answers = encode_answers(opening) if opening else None
    house.escrow.queue.add(hold, 0, Bundle(claim.exchange).encode(), answers=answers, now=house.now)
    judge = VerifierJudge(
        house.verifier(), [policy("sampled")], VERIFIER, escrow=house.escrow, clock=house.clock
    )
    worker = Worker(house.escrow, judge, terms=Terms(poll_s=0.01), clock=house.clock)
    worker.run(threading.Event(), until_empty=True)
    return [attempt.outcome for attempt in house.escrow.queue.attempts(hold, 0)]


def test_a_worker_checks_every_product_of_a_valuable_job_as_the_hook_does(valuable: House) -> None:
    claim = valuable.hire()
    assert worked(valuable, claim, products_of(claim)) == ["release"]
    [decision] = valuable.escrow.hold(claim.exchange.job.digest).capture(0).decisions
    job = claim.exchange.job.document
    answers = Receipt.decode(decision.receipt).answers
    reveals = [answer.body or b"" for answer in answers if answer.kind is NeedKind.REVEAL]
    shown = {projection_commitment(bytes.fromhex(job.nonce), secret) for secret in reveals}
    assert job.projection_commitment in shown
    assert valuable.wealth() == 100 * BOND + PRICE


def test_a_worker_disputes_falsified_products(valuable: House) -> None:
    claim = valuable.hire()
    _, results = read_pieces([answer.body for answer in products_of(claim)]) or ("", ())
    forged = signed_results(claim.exchange, (*results[:-1], nudged(results[-1], 0.05)))
    assert worked(valuable, claim, forged) == ["dispute"]


def test_a_worker_reveals_the_second_secret_to_no_second_products(valuable: House) -> None:
    claim = valuable.hire()
    digest, results = read_pieces([answer.body for answer in products_of(claim)]) or ("", ())
    hold = claim.exchange.job.digest
    secret = valuable.escrow.record_openings(hold, 0, openings=digest, now=valuable.now)
    fitted = signed_results(claim.exchange, (nudged(results[0]), *results[1:]))
    handed_in = (*fitted, Answer(NeedKind.REVEAL, secret))
    assert worked(valuable, claim, handed_in) == ["escrow.openings"]
    assert valuable.state(claim) is State.CLAIMED
    assert worked(valuable, claim, products_of(claim)) == ["escrow.openings", "release"]


def test_a_worker_waits_for_products_and_what_is_queued_meanwhile_is_refused(valuable: House) -> None:
    """The clock of a provider that is asked is stopped by an acknowledged opening, and by nothing else."""
    claim = valuable.hire()
    assert worked(valuable, claim) == ["awaits_opening"]
    assert valuable.state(claim) is State.ANSWERING
    with refused("escrow.wrong_state"):
        worked(valuable, claim, products_of(claim))
    # A check that dies once the opening came leaves it to a worker.
    taken = valuable.take(claim, products_of(claim), using=FailingRunner())
    assert (taken.decision.outcome, taken.decision.state) == (Outcome.KEEP, State.CLAIMED)
    assert worked(valuable, claim, products_of(claim)) == ["awaits_opening", "release"]


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
