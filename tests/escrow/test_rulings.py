"""Verdicts, disputes and resolutions: where each leads, once."""

from __future__ import annotations

from itertools import permutations

import pytest

from escrow_builders import (
    BOND,
    BUYER,
    DISPUTE_S,
    FREEZE_S,
    OPERATOR,
    OUTPUT,
    PAYEE,
    PRICE,
    PROVIDER,
    START,
    STRANGER,
    VERIFICATION_S,
    Scene,
    digest_of,
    make_claim,
    make_decline,
    make_resolution,
    refused,
)
from proofhold.errors import Misuse
from proofhold.escrow import MAX_ATTEMPTS, Applied, HoldRecord, LedgerRail, Ruling, State
from proofhold.escrow.states import RELEASE_SIDE
from proofhold.job import ResolutionOutcome
from proofhold.keys import Signed, SigningKey

RELEASE, REFUND = ResolutionOutcome.RELEASE, ResolutionOutcome.REFUND


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize(
    ("ruling", "state", "bond"),
    [
        (Ruling.RELEASE, "releasing", "free"),
        (Ruling.REFUND, "refunding", "frozen"),
        (Ruling.DISPUTE, "disputed", "frozen"),
    ],
)
def test_a_ruling_moves_capture_and_bond(
    scene: Scene, ruling: Ruling, state: str, bond: str, leased: bool
) -> None:
    hold = scene.claimed()
    if leased:
        scene.escrow.begin_verification(hold.id, 0, lease_s=30, now=START)
    applied = scene.apply(hold, ruling)
    assert (applied.state, applied.repeated) == (state, False)
    assert (scene.state(hold), scene.bond(hold)) == (state, bond)
    assert scene.escrow.hold(hold.id).capture(0).decisions == (applied.decision,)
    assert applied.decision.receipt.startswith(b"receipt of ")


def test_a_release_pays_the_payee_and_frees_the_bond(scene: Scene) -> None:
    before = scene.amounts()
    hold = scene.claimed()
    scene.apply(hold, Ruling.RELEASE)
    scene.escrow.pump(LedgerRail(), now=START)
    assert scene.state(hold) == "released"
    assert scene.amount(PAYEE) == PRICE
    assert scene.amount(PROVIDER.public) == before[PROVIDER.public]
    assert scene.amount(BUYER.public) == before[BUYER.public] - PRICE


def test_a_partial_claim_returns_the_remainder(scene: Scene) -> None:
    before = scene.amounts()
    hold = scene.fund()
    scene.escrow.record_claim(make_claim(hold.job, amount=PRICE - 1), OUTPUT, now=START)
    scene.apply(hold, Ruling.RELEASE)
    scene.escrow.pump(LedgerRail(), now=START)
    assert scene.state(hold) == "released"
    assert scene.amount(PAYEE) == PRICE - 1
    assert scene.amount(BUYER.public) == before[BUYER.public] - PRICE + 1


def test_a_refund_pays_the_buyer_and_leaves_the_bond_frozen(scene: Scene) -> None:
    before = scene.amounts()
    hold = scene.claimed()
    scene.apply(hold, Ruling.REFUND)
    scene.escrow.pump(LedgerRail(), now=START)
    assert scene.state(hold) == "refunded"
    assert scene.amount(BUYER.public) == before[BUYER.public]
    assert scene.amount(PROVIDER.public) == before[PROVIDER.public] - BOND
    scene.escrow.run_timers(START + FREEZE_S - 1)
    assert scene.bond(hold) == "frozen"
    scene.escrow.run_timers(START + FREEZE_S)
    assert scene.bond(hold) == "free"
    assert scene.amount(PROVIDER.public) == before[PROVIDER.public]


@pytest.mark.parametrize("ruling", Ruling)
def test_the_same_ruling_twice_is_one_movement(scene: Scene, ruling: Ruling) -> None:
    hold = scene.claimed()
    first = scene.apply(hold, ruling)
    history = scene.escrow.history(hold.id)
    assert scene.apply(hold, ruling) == Applied(first.decision, first.state, repeated=True)
    scene.escrow.pump(LedgerRail(), now=START)
    scene.escrow.run_timers(START + 10_000)
    scene.escrow.pump(LedgerRail(), now=START + 10_000)
    later = scene.apply(hold, ruling)
    assert (later.decision, later.repeated, later.state.is_final) == (first.decision, True, True)
    assert scene.escrow.history(hold.id)[: len(history)] == history


@pytest.mark.parametrize(("first", "second"), list(permutations(Ruling, 2)))
def test_only_a_dispute_may_be_followed_by_another_ruling(
    scene: Scene, first: Ruling, second: Ruling
) -> None:
    hold = scene.claimed()
    scene.apply(hold, first)
    state = scene.state(hold)
    if first is Ruling.DISPUTE:
        assert scene.apply(hold, second).state.is_decided
        return
    with refused("escrow.decided"):
        scene.apply(hold, second)
    assert scene.state(hold) == state


@pytest.mark.parametrize("ruling", Ruling)
def test_nothing_is_ruled_on_without_a_claim(scene: Scene, ruling: Ruling) -> None:
    funded, declined = scene.fund(), scene.fund()
    scene.escrow.decline(make_decline(declined.job), now=START)
    for hold in (funded, declined):
        with refused("escrow.not_claimed"):
            scene.apply(hold, ruling)


def test_senseless_receipts_are_misuse(scene: Scene) -> None:
    hold = scene.claimed()
    for digest, receipt in (("nothing", b"receipt"), (digest_of("x"), b"")):
        with pytest.raises(Misuse):
            scene.escrow.apply(hold.id, 0, Ruling.RELEASE, receipt_digest=digest, receipt=receipt, now=START)


def test_a_dispute_of_no_length_refunds_at_once(scene: Scene) -> None:
    hold = scene.claimed(dispute_s=0)
    assert scene.apply(hold, Ruling.DISPUTE).state is State.REFUNDING
    assert scene.bond(hold) == "frozen"
    assert scene.apply(hold, Ruling.DISPUTE).repeated
    with refused("escrow.decided"):
        scene.apply(hold, Ruling.RELEASE)


def test_a_dispute_ends_with_its_deadline(scene: Scene) -> None:
    hold = scene.claimed(freeze_s=0)
    scene.apply(hold, Ruling.DISPUTE)
    scene.escrow.run_timers(START + DISPUTE_S - 1)
    assert (scene.state(hold), scene.bond(hold)) == (
        "disputed",
        "frozen",
    )  # freeze_s is over, not the dispute
    scene.escrow.run_timers(START + DISPUTE_S)
    assert (scene.state(hold), scene.bond(hold)) == ("refunding", "free")


@pytest.mark.parametrize(("second", "late"), [(Ruling.RELEASE, False), (Ruling.RELEASE, True)])
def test_a_later_acceptance_releases_until_the_dispute_deadline(
    scene: Scene, second: Ruling, late: bool
) -> None:
    hold = scene.claimed()
    scene.apply(hold, Ruling.DISPUTE)
    scene.now += DISPUTE_S - (0 if late else 1)
    if late:  # though no timer ran yet: the outcome must not hang on when they do
        with refused("escrow.decided"):
            scene.apply(hold, second)
        assert scene.state(hold) == "disputed"
    else:
        assert scene.apply(hold, second).state is State.RELEASING
        assert scene.bond(hold) == "free"


def test_no_verdict_in_time_is_a_dispute(scene: Scene) -> None:
    hold = scene.claimed()
    scene.escrow.run_timers(START + VERIFICATION_S - 1)
    assert scene.state(hold) == "claimed"
    scene.escrow.run_timers(START + VERIFICATION_S)
    assert (scene.state(hold), scene.bond(hold)) == ("disputed", "frozen")


@pytest.mark.parametrize(
    ("outcome", "state", "bond"), [(RELEASE, "releasing", "free"), (REFUND, "refunding", "frozen")]
)
def test_an_operator_resolves_a_dispute(
    scene: Scene, outcome: ResolutionOutcome, state: str, bond: str
) -> None:
    hold = scene.claimed()
    scene.apply(hold, Ruling.DISPUTE)
    resolution = make_resolution(hold.id, outcome)
    resolved = scene.escrow.resolve(resolution, now=START)
    assert (resolved.capture(0).state, resolved.bond.state) == (state, bond)
    assert resolution.digest in {move.cause for move in scene.escrow.history(hold.id)}
    assert scene.escrow.resolve(resolution, now=START) == resolved
    with refused("escrow.decided"):
        scene.escrow.resolve(make_resolution(hold.id, outcome, reason="and again"), now=START)


@pytest.mark.parametrize("keys", [(STRANGER,), (PROVIDER,), (OPERATOR, STRANGER)])
def test_others_do_not_resolve(scene: Scene, keys: tuple[SigningKey, ...]) -> None:
    hold = scene.claimed()
    scene.apply(hold, Ruling.DISPUTE)
    with refused("resolution.signature"):
        scene.escrow.resolve(make_resolution(hold.id, RELEASE, *keys), now=START)
    with refused("resolution.signature"):
        unsigned = Signed.new(make_resolution(hold.id, RELEASE).document)
        scene.escrow.resolve(unsigned, now=START)


def test_only_a_dispute_is_resolved(scene: Scene) -> None:
    hold = scene.claimed()
    with refused("escrow.wrong_state"):
        scene.escrow.resolve(make_resolution(hold.id, RELEASE), now=START)


def test_a_lease_is_one_verifiers(scene: Scene) -> None:
    hold = scene.claimed()
    taken = scene.escrow.begin_verification(hold.id, 0, lease_s=30, now=START)
    assert (taken.state, taken.attempts, taken.due) == (State.VERIFYING, 1, START + 30)
    with refused("escrow.leased"):
        scene.escrow.begin_verification(hold.id, 0, lease_s=30, now=START + 29)
    again = scene.escrow.begin_verification(hold.id, 0, lease_s=1_000, now=START + 30)
    assert (again.attempts, again.due) == (2, START + VERIFICATION_S)
    given_back = scene.escrow.end_verification(hold.id, 0, now=START + 40)
    assert (given_back.state, given_back.due) == (State.CLAIMED, START + VERIFICATION_S)
    assert scene.escrow.end_verification(hold.id, 0, now=START + 40) == given_back


def test_a_lease_that_ends_requeues(scene: Scene) -> None:
    hold = scene.claimed()
    scene.escrow.begin_verification(hold.id, 0, lease_s=30, now=START)
    scene.escrow.run_timers(START + 29)
    assert scene.state(hold) == "verifying"
    scene.escrow.run_timers(START + 30)
    assert scene.state(hold) == "claimed"


def test_spent_attempts_are_a_dispute(scene: Scene) -> None:
    hold = scene.claimed()
    for attempt in range(MAX_ATTEMPTS):
        scene.escrow.begin_verification(hold.id, 0, lease_s=5, now=START + 10 * attempt)
        kept = scene.escrow.end_verification(hold.id, 0, now=START + 10 * attempt)
    assert kept.state is State.VERIFYING  # the last lease just runs out
    scene.escrow.run_timers(START + 10 * MAX_ATTEMPTS)
    assert (scene.state(hold), scene.bond(hold)) == ("disputed", "frozen")
    with refused("escrow.wrong_state"):
        scene.escrow.begin_verification(hold.id, 0, lease_s=5, now=START + 10 * MAX_ATTEMPTS)


def test_what_cannot_be_leased(scene: Scene) -> None:
    unclaimed, released = scene.fund(), scene.claimed()
    scene.apply(released, Ruling.RELEASE)
    with refused("escrow.not_claimed"):
        scene.escrow.begin_verification(unclaimed.id, 0, lease_s=5, now=START)
    with refused("escrow.decided"):
        scene.escrow.begin_verification(released.id, 0, lease_s=5, now=START)
    for lease_s in (0, 86_401):
        with pytest.raises(Misuse):
            scene.escrow.begin_verification(unclaimed.id, 0, lease_s=lease_s, now=START)


def test_time_does_not_run_backwards_for_a_hold(scene: Scene) -> None:
    hold = scene.claimed()
    scene.now = START - 1
    for attempt in (
        lambda: scene.apply(hold, Ruling.RELEASE),
        lambda: scene.escrow.begin_verification(hold.id, 0, lease_s=5, now=START - 1),
    ):
        with refused("escrow.clock_backwards"):
            attempt()
    assert scene.escrow.run_timers(START - 1) == ()


def test_a_frozen_bond_is_not_freed_by_an_older_clock(scene: Scene) -> None:
    hold = scene.claimed()
    scene.apply(hold, Ruling.REFUND)
    scene.escrow.pump(LedgerRail(), now=START + 2 * FREEZE_S)
    assert scene.escrow.run_timers(START + FREEZE_S) == ()
    assert scene.bond(hold) == "frozen"


@pytest.mark.parametrize("jump_s", [1, 7, 50, 300, 5_000])
def test_however_the_timers_run_all_ends_and_the_provider_is_not_paid(scene: Scene, jump_s: int) -> None:
    holds: list[HoldRecord] = [scene.fund(), scene.claimed(), scene.claimed(), scene.claimed()]
    scene.escrow.begin_verification(holds[2].id, 0, lease_s=20, now=START)
    scene.apply(holds[3], Ruling.DISPUTE)
    before = {BUYER.public: scene.amount(BUYER.public) + 4 * PRICE}
    for now in range(START, START + 3_000 + 3 * jump_s, jump_s):
        scene.escrow.run_timers(now)
    scene.escrow.pump(LedgerRail(), now=START + 10_000)
    assert {scene.state(hold) for hold in holds} == {"refunded"}
    assert {scene.bond(hold) for hold in holds} == {"free"}
    assert scene.amount(BUYER.public) == before[BUYER.public]
    assert scene.amount(PAYEE) == 0
    for hold in holds:
        assert not any(move.target in RELEASE_SIDE for move in scene.escrow.history(hold.id))
