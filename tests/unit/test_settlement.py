"""The hook: what a verdict does to a hold, compared with the hold's own record, and done once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from escrow_builders import refused
from judging import (
    BUYER,
    NOW,
    PRICE,
    PROVIDER,
    STRANGER,
    VERIFIER,
    AnsweringRunner,
    catalogue,
    logits,
    policy,
    runner,
    shifted,
)
from proofhold.core import (
    Answer,
    Assurance,
    Fault,
    Finding,
    Inputs,
    Judgement,
    NeedKind,
    Property,
    Reason,
    Verdict,
)
from proofhold.drafting import USDC
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Ruling
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.escrow.states import BondState, State
from proofhold.guard import Observation, Terms
from proofhold.job import PPM, OnnxModel, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Document, Payload, encode_payload
from proofhold.receipt import Receipt
from proofhold.recomputation import recheck
from proofhold.settlement import (
    DEFAULT_LEASE_S,
    Decision,
    NotFundable,
    Outcome,
    funding_objections,
    observation_of,
    ruling_of,
    settle,
    settle_receipt,
    system_clock,
    verify_and_settle,
)
from proofhold.standard import standard_verifier
from settling import (
    FALSE,
    FINDING,
    INPUT,
    MEASURED,
    NOBODYS,
    Hall,
    accepted,
    inconclusive,
    open_hall,
    rejected,
)


@pytest.fixture
def hall() -> Iterator[Hall]:
    with open_hall() as hall:
        yield hall


# --- what a verdict does --------------------------------------------------------------------------------


def test_an_acceptance_releases(hall: Hall) -> None:
    hold, before = hall.claimed(), hall.balance(BUYER)
    decision = hall.settle(hold, accepted(hold))
    assert (decision.hold, decision.seq, decision.outcome) == (hold.id, 0, Outcome.RELEASE)
    assert (decision.state, hall.bond(hold)) == (State.RELEASING, BondState.FREE)
    assert decision.receipt == Receipt.issue(accepted(hold), VERIFIER)
    assert hall.balance(PROVIDER) == 1_001 * PRICE
    assert hall.balance(BUYER) == before == 999 * PRICE


@pytest.mark.parametrize("reasons", [(FALSE,), (MEASURED, FALSE), (NOBODYS, FALSE)])
def test_a_fact_against_the_provider_refunds_and_freezes_the_bond(
    hall: Hall, reasons: tuple[Reason, ...]
) -> None:
    hold = hall.claimed()
    decision = hall.settle(hold, rejected(hold, *reasons))
    assert (decision.outcome, decision.state) == (Outcome.REFUND, State.REFUNDING)
    assert hall.bond(hold) is BondState.FROZEN
    assert hall.balance(BUYER) == 1_000 * PRICE


@pytest.mark.parametrize(
    "reasons", [(MEASURED,), (NOBODYS,), (NOBODYS, MEASURED), (replace(FALSE, fault=Fault.BUYER),)]
)
def test_any_other_rejection_is_a_dispute(hall: Hall, reasons: tuple[Reason, ...]) -> None:
    hold = hall.claimed()
    decision = hall.settle(hold, rejected(hold, *reasons))
    assert (decision.outcome, decision.state) == (Outcome.DISPUTE, State.DISPUTED)
    assert hall.bond(hold) is BondState.FROZEN
    assert hall.balance(BUYER) == 999 * PRICE


def test_an_inconclusive_verdict_keeps_the_hold_as_it_is(hall: Hall) -> None:
    hold = hall.claimed()
    verdict = inconclusive(hold)
    decision = hall.settle(hold, verdict)
    deadline = NOW + hold.job.document.verification_s
    receipt = Receipt.issue(verdict, VERIFIER)
    assert decision == Decision(hold.id, 0, Outcome.KEEP, State.CLAIMED, receipt, open_until=deadline)
    assert hall.escrow.hold(hold.id) == hold


def test_an_inconclusive_verdict_of_no_statement_keeps_the_hold_as_it_is(hall: Hall) -> None:
    hold = hall.claimed()
    decision = hall.settle(hold, inconclusive(hold, statement=None))
    assert (decision.outcome, decision.seq, decision.state) == (Outcome.KEEP, 0, State.CLAIMED)
    assert hall.escrow.hold(hold.id) == hold


def test_even_before_a_claim_an_inconclusive_verdict_of_no_statement_says_where_the_hold_stands(
    hall: Hall,
) -> None:
    hold = hall.fund()
    assert hall.settle(hold, inconclusive(hold, statement=None, now=1)).state is State.FUNDED


def test_outcomes_are_named_as_programs_know_them() -> None:
    assert [outcome.value for outcome in Outcome] == ["release", "refund", "dispute", "keep"]


def test_each_outcome_has_its_ruling(hall: Hall) -> None:
    hold = hall.claimed()
    rulings = [
        ruling_of(Receipt.issue(verdict, VERIFIER))
        for verdict in (
            accepted(hold),
            rejected(hold, FALSE),
            rejected(hold, MEASURED),
            inconclusive(hold),
        )
    ]
    assert rulings == [Ruling.RELEASE, Ruling.REFUND, Ruling.DISPUTE, None]


# --- once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reasons", [(), (FALSE,), (MEASURED,)])
def test_the_same_verdict_twice_is_the_same_decision_and_one_movement(
    hall: Hall, reasons: tuple[Reason, ...]
) -> None:
    hold = hall.claimed()
    verdict = rejected(hold, *reasons) if reasons else accepted(hold)
    first = hall.settle(hold, verdict)
    moves, buyer, provider = hall.movements(hold), hall.balance(BUYER), hall.balance(PROVIDER)
    hall.now += 10
    second = hall.settle(hold, verdict)
    assert replace(second, state=first.state) == first
    assert (hall.balance(BUYER), hall.balance(PROVIDER)) == (buyer, provider)
    assert hall.movements(hold) <= moves + 1  # the rail's own, which the pump made


def test_a_later_verdict_of_the_same_outcome_gives_the_first_receipt(hall: Hall) -> None:
    hold = hall.claimed()
    first = hall.settle(hold, accepted(hold))
    other = accepted(hold, inputs=Inputs("ee" * 32, (), ()))
    assert Receipt.issue(other, VERIFIER) != first.receipt
    assert hall.settle(hold, other).receipt == first.receipt


@pytest.mark.parametrize("release_first", [True, False])
def test_the_opposite_verdict_is_refused(hall: Hall, release_first: bool) -> None:
    hold = hall.claimed()
    verdicts: list[Verdict] = [accepted(hold), rejected(hold)]
    first, second = verdicts if release_first else reversed(verdicts)
    state = hall.settle(hold, first).state
    with refused("escrow.decided"):
        hall.settle(hold, second)
    assert hall.state(hold) is state


@pytest.mark.parametrize(("release", "state"), [(True, State.RELEASING), (False, State.REFUNDING)])
def test_a_dispute_may_be_followed_by_a_decision(hall: Hall, release: bool, state: State) -> None:
    hold = hall.claimed()
    hall.settle(hold, rejected(hold, MEASURED))
    decision = hall.settle(hold, accepted(hold) if release else rejected(hold, FALSE))
    assert decision.state is state
    assert decision.outcome is (Outcome.RELEASE if release else Outcome.REFUND)


def test_a_decision_is_not_followed_by_a_dispute(hall: Hall) -> None:
    hold = hall.claimed()
    hall.settle(hold, accepted(hold))
    with refused("escrow.decided"):
        hall.settle(hold, rejected(hold, MEASURED))


def test_after_a_decision_an_inconclusive_verdict_keeps_it(hall: Hall) -> None:
    hold = hall.claimed()
    hall.settle(hold, accepted(hold))
    assert hall.settle(hold, inconclusive(hold)).state is State.RELEASING


# --- what is compared (P4) ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [accepted, rejected, inconclusive])
@pytest.mark.parametrize(
    ("field_", "value", "code"),
    [
        ("job", "00" * 32, "settle.hold"),
        ("seq", 1, "escrow.unknown_capture"),
        ("amount", PRICE - 1, "settle.statement"),
        ("input", "00" * 32, "settle.statement"),
        ("output", "00" * 32, "settle.statement"),
    ],
)
def test_each_field_of_the_statement_is_compared_with_the_hold(
    hall: Hall, kind: Any, field_: str, value: Any, code: str
) -> None:
    hold = hall.claimed()
    statement = hold.statement(0)
    assert statement is not None
    with refused(code):
        hall.settle(hold, kind(hold, statement=replace(statement, **{field_: value})))
    assert hall.escrow.hold(hold.id) == hold


@pytest.mark.parametrize("kind", [accepted, rejected, inconclusive])
@pytest.mark.parametrize("by", [-1, 1])
def test_the_time_is_compared_with_the_claims(hall: Hall, kind: Any, by: int) -> None:
    hold = hall.claimed()
    with refused("settle.time", Fault.VERIFIER):
        hall.settle(hold, kind(hold, now=NOW + by))
    assert hall.escrow.hold(hold.id) == hold


@pytest.mark.parametrize("kind", [accepted, rejected, inconclusive])
def test_the_policy_is_compared_with_the_jobs(hall: Hall, kind: Any) -> None:
    hold = hall.claimed()
    with refused("settle.policy", Fault.VERIFIER):
        hall.settle(hold, kind(hold, policy=policy("proved").digest))
    assert hall.escrow.hold(hold.id) == hold


@pytest.mark.parametrize("kind", [accepted, rejected, inconclusive])
def test_the_key_is_compared_with_the_jobs_verifier(hall: Hall, kind: Any) -> None:
    hold = hall.claimed()
    for key in (STRANGER, BUYER, PROVIDER):
        with refused("settle.verifier", Fault.VERIFIER):
            hall.settle(hold, kind(hold), key)
    assert hall.escrow.hold(hold.id) == hold


def test_faults_of_false_cheques_are_the_verifiers(hall: Hall) -> None:
    hold, other = hall.claimed(), hall.claimed()
    with refused("settle.hold", Fault.VERIFIER):
        hall.settle(hold, accepted(other))
    statement = hold.statement(0)
    assert statement is not None
    with refused("settle.statement", Fault.VERIFIER):
        hall.settle(hold, accepted(hold, statement=replace(statement, amount=0)))


def test_without_a_claim_there_is_nothing_to_settle(hall: Hall) -> None:
    hold, other = hall.fund(), hall.claimed()
    statement = replace(other.statement(0), job=hold.id)  # type: ignore[type-var]
    with refused("settle.not_claimed"):
        hall.settle(hold, accepted(other, statement=statement))


def test_an_unknown_hold_is_refused(hall: Hall) -> None:
    hold = hall.claimed()
    with refused("escrow.unknown_hold"):
        settle("00" * 32, accepted(hold), escrow=hall.escrow, key=VERIFIER, clock=hall.clock)


def test_a_verdict_is_not_a_truth_value(hall: Hall) -> None:
    verdict: Judgement = accepted(hall.claimed())
    with pytest.raises(TypeError):
        bool(verdict)


# --- a receipt from another process ---------------------------------------------------------------------


def test_a_receipt_from_another_process_settles(hall: Hall) -> None:
    hold = hall.claimed()
    data = Receipt.issue(accepted(hold), VERIFIER).encode()
    with SqliteEscrow.open(hall.path) as elsewhere:
        first = settle_receipt(hold.id, Receipt.decode(data), escrow=elsewhere, clock=hall.clock)
    second = settle_receipt(hold.id, Receipt.decode(data), escrow=hall.escrow, clock=hall.clock)
    assert first == second
    assert first.receipt.encode() == data
    assert hall.balance(PROVIDER) == 1_001 * PRICE


def test_a_strangers_receipt_moves_nothing(hall: Hall) -> None:
    hold = hall.claimed()
    with refused("settle.verifier"):
        settle_receipt(hold.id, Receipt.issue(accepted(hold), STRANGER), escrow=hall.escrow, clock=hall.clock)
    assert hall.state(hold) is State.CLAIMED


def test_the_decision_is_recorded_at_the_clocks_time_under_the_receipts_digest(hall: Hall) -> None:
    hold = hall.claimed()
    hall.now += 7
    decision = hall.settle(hold, accepted(hold))
    (kept,) = hall.escrow.hold(hold.id).capture(0).decisions
    assert (kept.at, kept.receipt_digest) == (NOW + 7, decision.receipt.digest)
    assert kept.receipt == decision.receipt.encode()


# --- the whole hook -------------------------------------------------------------------------------------


def test_an_honest_answer_that_is_drawn_is_released(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    decision = hall.judge(hold, hall.claim(hold))
    assert (decision.outcome, decision.state) == (Outcome.RELEASE, State.RELEASING)
    assert {word for words in decision.receipt.shown.values() for word in words} == {Assurance.REEXECUTED}


def test_a_dishonest_answer_that_is_drawn_is_disputed(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    decision = hall.judge(hold, hall.claim(hold, logits(0.0, dtype="float32")))
    assert (decision.outcome, decision.state) == (Outcome.DISPUTE, State.DISPUTED)


def test_an_answer_of_no_form_is_refunded(hall: Hall) -> None:
    hold = hall.fund()
    decision = hall.judge(hold, hall.claim(hold, logits(float("nan"), dtype="float32")))
    assert (decision.outcome, decision.state) == (Outcome.REFUND, State.REFUNDING)


def test_the_escrow_reveals_the_secret_and_the_receipt_keeps_it(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    decision = hall.judge(hold, hall.claim(hold))
    (answer,) = decision.receipt.answers
    assert (answer.kind, answer.body) == (NeedKind.REVEAL, hall.escrow.reveal(hold.id, 0))


def test_it_is_judged_as_of_the_claim_and_settled_as_of_now(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    hall.now += 5
    bundle = hall.claim(hold)
    hall.now += 9
    assert hall.judge(hold, bundle).receipt.now == NOW + 5
    assert hall.escrow.history(hold.id)[-1].at == NOW + 14


def test_the_recorded_job_and_claim_count_whatever_the_bundle_holds(hall: Hall) -> None:
    hold, other = hall.fund(sampling_rate_ppm=PPM), hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    foreign = hall.bundle(other, logits(0.0, dtype="float32"))
    mixed = replace(
        bundle, exchange=replace(bundle.exchange, job=foreign.exchange.job, claim=foreign.exchange.claim)
    )
    assert hall.judge(hold, mixed).outcome is Outcome.RELEASE


def test_a_damaged_bundle_keeps_the_hold_and_gives_the_lease_back(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    damaged = replace(bundle, exchange=replace(bundle.exchange, output=shifted(bundle.exchange.output, 1.0)))
    decision = hall.judge(hold, damaged)
    assert (decision.outcome, hall.state(hold)) == (Outcome.KEEP, State.CLAIMED)
    assert [need.kind for need in decision.receipt.needs] == [NeedKind.OUTPUT]
    true = Answer(NeedKind.OUTPUT, encode_payload(bundle.exchange.output))
    assert hall.judge(hold, damaged, true).outcome is Outcome.RELEASE
    assert hall.escrow.hold(hold.id).capture(0).attempts == 2


def test_another_check_under_way_is_refused(hall: Hall) -> None:
    hold = hall.fund()
    bundle = hall.claim(hold)
    hall.escrow.begin_verification(hold.id, 0, lease_s=100, now=hall.now)
    with refused("escrow.leased"):
        hall.judge(hold, bundle)
    hall.now += 100
    assert hall.judge(hold, bundle).outcome is Outcome.RELEASE


@pytest.mark.parametrize(("lease_s", "asked"), [({}, DEFAULT_LEASE_S), ({"lease_s": 3}, 3)])
def test_the_check_is_leased_for_as_long_as_was_asked(
    hall: Hall, lease_s: dict[str, int], asked: int
) -> None:
    due: list[int | None] = []

    class Looking(SqliteEscrow):
        def reveal(self, hold: str, seq: int) -> bytes:
            due.append(self.hold(hold).capture(seq).due)
            return super().reveal(hold, seq)

    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    with Looking.open(hall.path) as looking:
        hall.judge(hold, bundle, escrow=looking, **lease_s)
    assert due == [NOW + asked]
    assert DEFAULT_LEASE_S == 600


def test_a_decided_hold_is_judged_again_without_a_lease(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    first = hall.judge(hold, bundle)
    again = hall.judge(hold, bundle)
    assert again == first
    assert hall.escrow.hold(hold.id).capture(0).attempts == 1


def test_a_damaged_bundle_after_the_decision_changes_nothing(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    hall.judge(hold, bundle)
    moves = hall.movements(hold)
    damaged = replace(bundle, exchange=replace(bundle.exchange, input=shifted(INPUT, 1.0)))
    assert hall.judge(hold, damaged).outcome is Outcome.KEEP
    assert hall.movements(hold) == moves


def test_a_disputed_hold_that_is_accepted_later_is_released(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    hall.settle(hold, rejected(hall.escrow.hold(hold.id), MEASURED))
    assert hall.judge(hold, bundle).state is State.RELEASING


def test_what_is_not_claimed_is_not_judged(hall: Hall) -> None:
    hold = hall.fund()
    with refused("settle.not_claimed"):
        hall.judge(hold, hall.bundle(hold))
    with refused("escrow.unknown_capture"):
        hall.judge(hold, hall.bundle(hold), seq=1)


# --- funding (P9) ---------------------------------------------------------------------------------------


def objections(job: SignedJob, payload: Payload = INPUT, named: str | None = None) -> list[tuple[str, str]]:
    found = funding_objections(
        job,
        payload,
        policy=policy(named) if named else policy(),
        verifier=standard_verifier(catalogue(), runner()),
    )
    return [(reason.code, reason.fault.value) for reason in found]


def test_an_honest_job_is_funded_at_the_clocks_time(hall: Hall) -> None:
    hall.now += 3
    job = hall.draft()
    assert objections(job) == []
    hold = hall.fund(job)
    assert (hold.id, hold.funded_at) == (job.digest, NOW + 3)
    assert hall.state(hold) is State.FUNDED


@pytest.mark.parametrize("keys", [(), (BUYER,), (PROVIDER,), (BUYER, STRANGER), (BUYER, PROVIDER, STRANGER)])
def test_both_sides_must_have_signed_and_nobody_else(hall: Hall, keys: tuple[SigningKey, ...]) -> None:
    job = Signed.new(hall.draft().document, *keys)
    assert objections(job) == [("job.signature", "nobody")]


def test_who_signed_is_said(hall: Hall) -> None:
    job = hall.draft().document
    verifier = standard_verifier(catalogue(), runner())
    got = [
        funding_objections(Signed.new(job, *keys), INPUT, policy=policy(), verifier=verifier)[0].got
        for keys in ((), (BUYER,), (STRANGER, BUYER))
    ]
    assert got == ["no good signature", BUYER.public, ", ".join(sorted([BUYER.public, STRANGER.public]))]


def test_the_input_is_compared_with_the_jobs(hall: Hall) -> None:
    assert objections(hall.draft(), shifted(INPUT, 1.0)) == [("input.digest", "buyer")]


def test_the_model_and_the_domain_are_asked_about(hall: Hall) -> None:
    assert objections(hall.draft(model=OnnxModel("00" * 32, None, None)))[0] == (
        "catalogue.unknown_model",
        "verifier",
    )
    assert objections(hall.draft(), Document("text/plain", b"")) == [
        ("input.digest", "buyer"),
        ("input.domain.kind", "buyer"),
    ]


def test_another_policy_is_not_asked_whether_it_can_be_met(hall: Hall) -> None:
    assert objections(hall.draft(), named="proved") == [("policy.digest", "buyer")]


@pytest.mark.parametrize(
    "change",
    [{"sampling_rate_ppm": 1, "evidence_kinds": ("replay",)}, {"price": USDC.parse("1000.000001")}],
)
def test_terms_that_the_policy_can_never_accept_are_refused(hall: Hall, change: dict[str, Any]) -> None:
    found = objections(hall.draft(**change))
    assert found
    assert {fault for _, fault in found} == {"buyer"}
    assert {code.split(".")[0] for code, _ in found} == {"policy"}


def test_the_jobs_own_currency_is_asked_about(hall: Hall) -> None:
    euro = replace(USDC, code="EUR")
    assert objections(hall.draft(currency=euro)) == [("policy.currency", "buyer")]


def test_all_objections_are_raised_at_once_and_nothing_is_taken(hall: Hall) -> None:
    job = Signed.new(replace(hall.draft().document, policy=policy("proved").digest), BUYER)
    before = hall.escrow.balances()
    with pytest.raises(NotFundable) as caught:
        hall.fund(job, shifted(INPUT, 1.0))
    assert [reason.code for reason in caught.value.reasons] == [
        "job.signature",
        "input.digest",
        "policy.digest",
    ]
    assert (caught.value.code, caught.value.fault) == ("job.signature", Fault.NOBODY)
    assert f"(got {shifted(INPUT, 1.0).digest(bytes.fromhex(job.document.nonce))}, expected" in str(
        caught.value
    )
    assert str(caught.value).count(";") == 2
    assert hall.escrow.balances() == before


def test_an_objection_without_details_is_said_without_them() -> None:
    bare = NotFundable([Reason("a", "it is so", Fault.BUYER)])
    assert str(bare) == "it is so [a]"
    assert bare.fault is Fault.BUYER
    assert "(got x, expected )" in str(NotFundable([Reason("a", "b", Fault.BUYER, got="x")]))
    assert "(got , expected x)" in str(NotFundable([Reason("a", "b", Fault.BUYER, expected="x")]))


def test_a_job_is_funded_once(hall: Hall) -> None:
    job = hall.draft()
    hall.fund(job)
    with refused("escrow.already_funded"):
        hall.fund(job)


def test_the_systems_clock_gives_whole_unix_seconds() -> None:
    before = int(time.time())
    got = system_clock()
    assert isinstance(got, int)
    assert before <= got <= time.time()


def test_a_broken_verifier_moves_nothing(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    verifier = standard_verifier(catalogue(), AnsweringRunner(b"nonsense"))
    decision = verify_and_settle(
        hold.id,
        bundle,
        verifier=verifier,
        policy=policy(),
        escrow=hall.escrow,
        key=VERIFIER,
        clock=hall.clock,
    )
    assert (decision.outcome, decision.state) == (Outcome.KEEP, State.CLAIMED)
    assert hall.state(hold) is State.CLAIMED


def test_a_verdict_that_fits_no_receipt_is_misuse_and_moves_nothing(hall: Hall) -> None:
    hold = hall.claimed()
    with pytest.raises(Misuse):
        hall.settle(hold, rejected(hold, replace(FALSE, code="Not A Code")))
    assert hall.state(hold) is State.CLAIMED


# --- the guard (PROTOCOL P11) ---------------------------------------------------------------------------


def test_each_verdict_tells_the_guard_what_was_checked(hall: Hall) -> None:
    hold = hall.claimed()
    not_drawn = Finding("replay", dict.fromkeys(Property, Assurance.NOT_DRAWN))
    both = (FINDING, not_drawn)
    told = [
        observation_of(Receipt.issue(verdict, VERIFIER))
        for verdict in (
            accepted(hold),
            replace(accepted(hold), findings=(not_drawn,)),
            replace(accepted(hold), findings=both),
            rejected(hold, FALSE),
            rejected(hold, MEASURED),
            rejected(hold, NOBODYS),
            rejected(hold, NOBODYS, FALSE),
            rejected(hold, replace(FALSE, fault=Fault.BUYER)),
            inconclusive(hold),
        )
    ]
    assert told == [
        *(Observation.CLEAN, Observation.UNCHECKED, Observation.CLEAN),
        *(Observation.FAILED, Observation.FAILED, None, Observation.FAILED, None, None),
    ]


def test_the_guard_counts_what_the_hook_settles(hall: Hall) -> None:
    hall.escrow.set_guard(USDC, Terms(kappa=PRICE), now=NOW)
    with refused("guard.rate"):
        hall.fund(sampling_rate_ppm=PPM // 2)
    for verdict in (accepted, rejected):
        hold = hall.claimed(sampling_rate_ppm=PPM)
        hall.settle(hold, verdict(hold))
    (record,) = hall.escrow.guard_records(PROVIDER.public)
    assert (record.standing.clean, record.standing.failed) == (1, 1)


def test_after_a_failed_check_undecided_jobs_are_checked_drawn_or_not(hall: Hall) -> None:
    """Checked, not lost: an honest one is paid, a dishonest one caught, and a receipt says why (P11)."""
    hall.escrow.set_guard(USDC, Terms(kappa=PRICE, probation_checks=1, saving_ppm=0), now=NOW)
    first = hall.fund(sampling_rate_ppm=PPM)
    hall.judge(first, hall.claim(first))
    sampled = Terms(kappa=PRICE * 100, probation_checks=1, saving_ppm=0)
    hall.escrow.set_guard(USDC, sampled, now=NOW)
    honest, dishonest, failing = (hall.fund(sampling_rate_ppm=PPM // 5) for _ in range(3))
    bundles = [hall.claim(honest), hall.claim(dishonest, logits(0.0, dtype="float32"))]
    hall.claim(failing)
    hall.settle(failing, rejected(hall.escrow.hold(failing.id), MEASURED))
    decisions = [hall.judge(hold, bundle) for hold, bundle in zip((honest, dishonest), bundles, strict=True)]
    assert [decision.outcome for decision in decisions] == [Outcome.RELEASE, Outcome.DISPUTE]
    assert [answer.kind for answer in decisions[0].receipt.answers] == [NeedKind.CHECK, NeedKind.REVEAL]
    assert all(answer.body is not None for answer in decisions[0].receipt.answers)
    again = Receipt.decode(decisions[0].receipt.encode())
    assert again.answers == decisions[0].receipt.answers
    assert (
        recheck(again, bundles[0], policy=policy(), verifier=standard_verifier(catalogue(), runner())) == ()
    )
