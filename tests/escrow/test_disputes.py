"""Challenge, answer, transcript: who may move a disputed capture, what it costs, and who gets the money."""

from __future__ import annotations

import pytest

from escrow_builders import (
    ANSWER_S,
    BOND,
    BUYER,
    DISPUTE_S,
    FREEZE_S,
    OUTPUT,
    PAYEE,
    PRICE,
    PROVIDER,
    SEGMENT,
    START,
    STRANGER,
    TENSORS,
    Scene,
    digest_of,
    make_answer,
    make_claim,
    refused,
)
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow import AccountKind, Adjudged, HoldRecord, LedgerRail, Ruling
from proofhold.guard import Observation, Terms
from stores import INTEGRITY, Store

PENALTY = 3_000


@pytest.fixture
def disputed(scene: Scene) -> HoldRecord:
    hold = scene.claimed(withholding_penalty=PENALTY)
    scene.apply(hold, Ruling.DISPUTE)
    return hold


def end(scene: Scene) -> tuple[int, int, int, int]:
    """Pay what is due, and give what payee, buyer, provider and treasury have gained or lost."""
    scene.escrow.pump(LedgerRail(), now=scene.now)
    return (
        scene.amount(PAYEE),
        scene.amount(BUYER.public) - START_AMOUNTS[0],
        scene.amount(PROVIDER.public) - START_AMOUNTS[1],
        scene.amount("", AccountKind.TREASURY),
    )


START_AMOUNTS = (PRICE * 100, BOND * 100)


@pytest.mark.parametrize(
    ("outcome", "state", "bond", "money"),
    [
        (Adjudged.CONVICTED, "refunded", "slashed", (0, 0, -BOND, BOND)),
        (Adjudged.ACQUITTED, "released", "free", (PRICE, -PRICE, 0, 0)),
        (Adjudged.UNDECIDED, "refunded", "free", (0, 0, 0, 0)),
    ],
)
def test_a_transcript_ends_a_dispute(
    scene: Scene, disputed: HoldRecord, outcome: Adjudged, state: str, bond: str, money: tuple[int, ...]
) -> None:
    scene.adjudicate(disputed, outcome)
    assert end(scene) == money
    assert (scene.state(disputed), scene.bond(disputed)) == (state, bond)
    adjudication = scene.escrow.dispute(disputed.id, 0).adjudication
    assert adjudication is not None
    assert (adjudication.outcome, adjudication.transcript) == (outcome, b"a transcript")
    moves = [move for move in scene.escrow.history(disputed.id) if move.event.startswith("adjudicated")]
    assert [move.cause for move in moves] == [adjudication.transcript_digest]


@pytest.mark.parametrize("outcome", Adjudged)
def test_the_first_transcript_counts_and_moves_money_once(
    scene: Scene, disputed: HoldRecord, outcome: Adjudged
) -> None:
    scene.adjudicate(disputed, outcome)
    money = end(scene)
    scene.adjudicate(disputed, outcome)
    for other in Adjudged:
        with refused("escrow.adjudicated"):
            scene.adjudicate(disputed, other, b"another")
    assert end(scene) == money


@pytest.mark.parametrize(
    ("outcome", "bond", "money"),
    [
        (Adjudged.CONVICTED, "slashed", (0, 0, -BOND, BOND)),
        (Adjudged.ACQUITTED, "free", (0, 0, 0, 0)),
        (Adjudged.UNDECIDED, "free", (0, 0, 0, 0)),
    ],
)
def test_after_a_dispute_of_no_length_a_transcript_moves_the_bond_alone(
    scene: Scene, outcome: Adjudged, bond: str, money: tuple[int, ...]
) -> None:
    hold = scene.claimed(dispute_s=0)
    scene.apply(hold, Ruling.DISPUTE)
    end(scene)
    scene.now += FREEZE_S - 1
    scene.adjudicate(hold, outcome)
    assert (scene.state(hold), scene.bond(hold)) == ("refunded", bond)
    assert end(scene) == money


def test_once_the_freeze_has_ended_no_transcript_takes_the_bond(scene: Scene) -> None:
    hold = scene.claimed(dispute_s=0)
    scene.apply(hold, Ruling.DISPUTE)
    scene.now += FREEZE_S
    scene.escrow.run_timers(scene.now)
    with refused("escrow.decided"):
        scene.adjudicate(hold, Adjudged.CONVICTED)
    assert scene.escrow.dispute(hold.id, 0).adjudication is None


def test_only_a_disputed_capture_is_adjudicated(scene: Scene) -> None:
    for hold in (scene.fund(), scene.claimed()):
        with refused("escrow.wrong_state"):
            scene.adjudicate(hold, Adjudged.CONVICTED)
    released = scene.claimed()
    scene.apply(released, Ruling.RELEASE)
    with refused("escrow.decided"):
        scene.adjudicate(released, Adjudged.CONVICTED)
    with pytest.raises(Misuse):
        scene.adjudicate(scene.claimed(), Adjudged.CONVICTED, b"")


def test_an_answer_in_time_brings_the_capture_back_to_its_dispute(scene: Scene, disputed: HoldRecord) -> None:
    scene.now += DISPUTE_S - 1
    hold = scene.challenge(scene.escrow.hold(disputed.id))
    assert scene.state(hold) == "answering"
    scene.now += ANSWER_S - 1
    scene.answer(hold)
    assert (scene.state(hold), scene.bond(hold)) == ("disputed", "frozen")
    dispute = scene.escrow.dispute(hold.id, 0)
    assert dispute.challenge is not None
    assert dispute.answer is not None
    assert (dispute.challenge.document.segment, dispute.tensors) == (SEGMENT, TENSORS)
    scene.now += DISPUTE_S - 1
    scene.adjudicate(hold, Adjudged.CONVICTED)
    assert end(scene) == (0, 0, -BOND, BOND)


def test_silence_costs_the_refund_and_the_penalty(scene: Scene, disputed: HoldRecord) -> None:
    hold = scene.challenge(scene.escrow.hold(disputed.id))
    scene.now += ANSWER_S
    scene.escrow.run_timers(scene.now)
    assert (scene.state(hold), scene.bond(hold)) == ("refunding", "free")
    assert end(scene) == (0, 0, -PENALTY, PENALTY)
    with refused("escrow.decided"):
        scene.answer(hold)


def test_silence_costs_the_penalty_though_the_freeze_is_shorter(scene: Scene) -> None:
    """A bond that is free before the answer is due would make silence cheap."""
    hold = scene.claimed(freeze_s=0, dispute_s=1, withholding_penalty=BOND)
    scene.apply(hold, Ruling.DISPUTE)
    hold = scene.challenge(scene.escrow.hold(hold.id))
    for _ in range(ANSWER_S + 1):
        scene.now += 1
        scene.escrow.run_timers(scene.now)
    assert end(scene) == (0, 0, -BOND, BOND)


def test_the_same_challenge_and_the_same_answer_twice_are_one(scene: Scene, disputed: HoldRecord) -> None:
    hold = scene.challenge(scene.escrow.hold(disputed.id))
    scene.challenge(hold)
    with refused("challenge.repeated", Fault.VERIFIER):
        scene.challenge(hold, segment=SEGMENT + 1)
    scene.answer(hold)
    scene.answer(hold)
    history = scene.escrow.history(hold.id)
    with refused("answer.repeated", Fault.PROVIDER):
        scene.escrow.answer(make_answer(hold, tensors=()), (), now=scene.now)
    with refused("challenge.repeated", Fault.VERIFIER):
        scene.challenge(hold, segment=SEGMENT + 1)
    assert scene.escrow.history(hold.id) == history


def test_only_the_verifier_challenges_and_only_the_recorded_claim(scene: Scene, disputed: HoldRecord) -> None:
    hold = scene.escrow.hold(disputed.id)
    for key in (BUYER, PROVIDER, STRANGER):
        with refused("challenge.signature", Fault.NOBODY):
            scene.challenge(hold, key)
    with refused("challenge.claim"):
        scene.challenge(hold, claim=digest_of("another claim"))
    with refused("escrow.wrong_state"):
        scene.challenge(scene.claimed())


def test_only_the_provider_answers_for_what_was_challenged(scene: Scene, disputed: HoldRecord) -> None:
    with refused("answer.segment"):
        scene.answer(scene.escrow.hold(disputed.id))  # nothing is challenged yet
    hold = scene.challenge(scene.escrow.hold(disputed.id))
    with refused("answer.claim"):
        scene.answer(hold, claim=digest_of("another claim"))
    with refused("answer.segment"):
        scene.answer(hold, segment=SEGMENT + 1)
    for tensors in ((), TENSORS[:1], TENSORS[::-1], (*TENSORS, TENSORS[0])):
        with refused("answer.tensors", Fault.NOBODY):
            scene.answer(hold, tensors)
    assert scene.state(hold) == "answering"  # what anybody sent in the provider's name changed nothing
    scene.answer(hold)


def test_the_database_itself_refuses_a_slash_without_a_transcript(scene: Scene, store: Store) -> None:
    for outcome in (None, Adjudged.ACQUITTED):
        hold = scene.claimed()
        scene.apply(hold, Ruling.DISPUTE)
        if outcome is not None:
            scene.adjudicate(hold, outcome)
        with pytest.raises(INTEGRITY, match="transcript"):
            store.alter("UPDATE hold SET bond_state = 'slashed' WHERE bond_state <> 'free'")


def test_the_guard_counts_a_conviction_and_takes_back_what_was_acquitted(scene: Scene) -> None:
    scene.escrow.set_guard(scene.claimed().job.document.currency, Terms(kappa=10**6), now=START)
    carried = {"sampling_rate_ppm": 10**6, "evidence_kinds": ("replay",)}

    def failed() -> int:
        return sum(record.standing.failed for record in scene.escrow.guard_records(PROVIDER.public))

    for outcome, dispute_s, expected in (
        (Adjudged.CONVICTED, DISPUTE_S, 1),
        (Adjudged.ACQUITTED, DISPUTE_S, 1),
        (Adjudged.CONVICTED, 0, 2),
        (Adjudged.ACQUITTED, 0, 2),
    ):
        hold = scene.fund(dispute_s=dispute_s, **carried)
        scene.escrow.record_claim(make_claim(hold.job), OUTPUT, now=scene.now)
        scene.escrow.apply(
            hold.id,
            0,
            Ruling.DISPUTE,
            receipt_digest=digest_of("receipt"),
            receipt=b"receipt",
            now=scene.now,
            observation=Observation.FAILED,
        )
        scene.adjudicate(hold, outcome)
        assert failed() == expected
