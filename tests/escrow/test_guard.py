"""The guard's books: what funding demands, what the end of a job tells, all at once (PROTOCOL P11)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from escrow_builders import (
    BOND,
    OPERATOR,
    PRICE,
    PROVIDER,
    START,
    USDC,
    VERIFICATION_S,
    Scene,
    digest_of,
    make_decline,
    make_resolution,
    refused,
)
from proofhold.core import Fault
from proofhold.escrow import HoldRecord, Refused, Ruling
from proofhold.escrow.escrow import Ruled
from proofhold.guard import Observation, Standing, Terms
from proofhold.job import PPM, OnnxModel, ResolutionOutcome, Service, SignedJob
from stores import INTEGRITY, Store

TERMS = Terms(kappa=PRICE, probation_checks=3)
MODEL = f"onnx:{digest_of('model')}"
FULL = {"sampling_rate_ppm": PPM}


def guard(scene: Scene, terms: Terms = TERMS) -> None:
    scene.escrow.set_guard(USDC, terms, now=START)


def standing(scene: Scene) -> Standing:
    (record,) = scene.escrow.guard_records(PROVIDER.public)
    assert (record.provider, record.model, record.currency) == (PROVIDER.public, MODEL, USDC)
    return record.standing


def end(
    scene: Scene, observation: Observation | None, ruling: Ruling = Ruling.RELEASE, **job: Any
) -> HoldRecord:
    """Fund, claim and settle one job."""
    hold = scene.claimed(**FULL | job)
    text = f"receipt on {hold.id}"
    scene.escrow.apply(
        hold.id,
        0,
        ruling,
        receipt_digest=digest_of(text),
        receipt=text.encode(),
        now=scene.now,
        observation=observation,
    )
    return hold


def test_an_escrow_without_a_guard_demands_and_records_nothing(scene: Scene) -> None:
    end(scene, Observation.CLEAN, sampling_rate_ppm=0, bond=0, withholding_penalty=0)
    assert scene.escrow.guard_records(PROVIDER.public) == ()
    assert scene.escrow.guard("USDC") is None
    assert scene.escrow.demand(PROVIDER.public, OnnxModel("a" * 64, None, None), "USDC", price=1) is None


def test_terms_are_kept_and_can_be_changed(scene: Scene) -> None:
    guard(scene)
    assert scene.escrow.guard("USDC") == TERMS
    other = Terms(kappa=5, delta_ppm=1, saving_ppm=0)
    guard(scene, other)
    assert scene.escrow.guard("USDC") == other


SAMPLED = {"sampling_rate_ppm": PPM // 5, "evidence_kinds": ("replay",)}


def trusted(scene: Scene) -> None:
    """Let the provider out of its probation, so that jobs may be sampled."""
    guard(scene)
    for _ in range(TERMS.probation_checks):
        end(scene, Observation.CLEAN)
    guard(scene, Terms(kappa=PRICE * 10, probation_checks=3))


def settle_unchecked(scene: Scene, hold: HoldRecord, observation: Observation | None) -> None:
    scene.escrow.apply(
        hold.id,
        0,
        Ruling.RELEASE,
        receipt_digest=digest_of("receipt"),
        receipt=b"receipt",
        now=scene.now,
        observation=observation,
    )


@pytest.mark.parametrize("ruling", [Ruling.REFUND, Ruling.DISPUTE])
def test_a_failed_check_puts_undecided_jobs_at_rate_1(scene: Scene, ruling: Ruling) -> None:
    """They are checked, not lost: nothing of them is released by a verdict that did not check (P11)."""
    trusted(scene)
    waiting, funded = scene.claimed(**SAMPLED), scene.fund(**SAMPLED)
    decided = scene.claimed(**SAMPLED)
    assert not scene.escrow.is_raised(waiting.id)
    settle_unchecked(scene, decided, Observation.UNCHECKED)
    failed = end(scene, Observation.FAILED, ruling, **SAMPLED)
    assert [scene.escrow.is_raised(h.id) for h in (waiting, funded)] == [True, True]
    for observation in (Observation.UNCHECKED, None):
        with refused("guard.unchecked", Fault.NOBODY):
            settle_unchecked(scene, waiting, observation)
    assert scene.state(waiting) == "claimed"
    settle_unchecked(scene, waiting, Observation.CLEAN)
    assert scene.state(waiting) == "releasing"
    later = end(scene, Observation.CLEAN)
    assert not scene.escrow.is_raised(later.id)
    assert not scene.escrow.is_raised(scene.fund(sampling_rate_ppm=PPM).id)
    assert scene.escrow.is_raised(failed.id)


def test_one_batch_raises_what_it_settles_after_the_failure(scene: Scene) -> None:
    trusted(scene)
    first, second = (scene.claimed(**SAMPLED) for _ in range(2))

    def ruled(hold: HoldRecord, ruling: Ruling, observation: Observation) -> Ruled:
        text = f"receipt on {hold.id}".encode()
        return Ruled(hold.id, 0, ruling, digest_of(text.decode()), text, (), observation)

    outcomes = scene.escrow.apply_many(
        [
            ruled(first, Ruling.DISPUTE, Observation.FAILED),
            ruled(second, Ruling.RELEASE, Observation.UNCHECKED),
        ],
        now=scene.now,
    )
    assert [getattr(outcome, "code", "") for outcome in outcomes] == ["", "guard.unchecked"]


def test_another_providers_failure_and_an_unguarded_job_raise_nothing(scene: Scene) -> None:
    trusted(scene)
    proved = scene.claimed(evidence_kinds=("ezkl",), sampling_rate_ppm=0)
    waiting = scene.claimed(**SAMPLED)
    assert not scene.escrow.is_raised(proved.id)
    end(scene, Observation.FAILED, Ruling.REFUND, **SAMPLED)
    assert not scene.escrow.is_raised(proved.id)
    assert scene.escrow.is_raised(waiting.id)
    settle_unchecked(scene, proved, None)


def test_a_newcomer_is_on_probation(scene: Scene) -> None:
    guard(scene)
    with refused("guard.rate", Fault.NOBODY):
        scene.fund(sampling_rate_ppm=PPM - 1)
    for _ in range(3):
        end(scene, Observation.CLEAN)
    assert standing(scene).probation_left == 0
    scene.fund(sampling_rate_ppm=912_673)  # 0.97³ of a job of price κ
    with refused("guard.rate"):
        scene.fund(sampling_rate_ppm=912_672)


def test_a_bond_that_covers_the_worst_case_takes_the_place_of_probation(scene: Scene) -> None:
    guard(scene, Terms(kappa=2 * PRICE, probation_checks=3))
    worst = Terms(kappa=2 * PRICE).worst_case
    scene.escrow.deposit(PROVIDER.public, 3 * worst, USDC, key="more", now=START)
    half = {"sampling_rate_ppm": PPM // 2}
    scene.fund(bond=worst, **half)
    with refused("guard.rate"):
        scene.fund(bond=worst - 1, **half)


def test_a_bond_or_penalty_at_which_cheating_pays_is_refused(scene: Scene) -> None:
    guard(scene)
    # At rate 1 a cheat saves 500 of 1000, and one in a thousand is missed: 501.
    scene.fund(**FULL, bond=501, withholding_penalty=500)
    with refused("guard.bond", Fault.PROVIDER):
        scene.fund(**FULL, bond=500, withholding_penalty=500)
    with refused("guard.penalty", Fault.PROVIDER):
        scene.fund(**FULL, bond=501, withholding_penalty=499)


def test_every_objection_is_named(scene: Scene) -> None:
    guard(scene)
    with pytest.raises(Refused, match=r"sampling rate.*higher bond.*withholding penalty") as caught:
        scene.fund(sampling_rate_ppm=1, bond=1, withholding_penalty=1)
    assert caught.value.code == "guard.rate"


def test_a_price_beyond_the_bound_is_refused(scene: Scene) -> None:
    guard(scene, Terms(kappa=PRICE // 5 - 1))
    with refused("guard.value", Fault.BUYER):
        scene.fund(**FULL)
    guard(scene, Terms(kappa=PRICE // 5 - 1, detection_ppm=PPM))
    scene.fund(**FULL)


def test_what_is_unchecked_and_in_flight_stays_within_the_free_bond(store: Store) -> None:
    scene = Scene.create(store, jobs=1)  # the provider has BOND = 5 * PRICE, and no more
    scene.escrow.deposit("ed25519:" + "0" * 64, 1, USDC, key="x", now=START)
    scene.escrow.deposit(scene.draft().document.buyer, 100 * PRICE, USDC, key="rich", now=START)
    guard(scene, Terms(kappa=PRICE * 5, probation_checks=0))
    small: dict[str, Any] = {"sampling_rate_ppm": 999_999, "bond": 600, "withholding_penalty": 600}
    held = [scene.claimed(**small) for _ in range(3)]
    scene.apply(held[0], Ruling.RELEASE)  # unchecked: exposed, no longer in flight
    assert standing(scene).exposure == PRICE
    scene.fund(**small)
    scene.fund(**small)  # 5 * PRICE are open now, and as much is free
    with refused("guard.exposure", Fault.PROVIDER):
        scene.fund(**small)
    scene.fund(**small | FULL)  # rate 1 leaves nothing open
    end(scene, Observation.CLEAN, **small | FULL)
    assert standing(scene).exposure == 0
    scene.fund(**small)
    assert scene.escrow.audit() == ()
    scene.escrow.close()


def test_a_bond_that_was_withdrawn_covers_nothing(scene: Scene) -> None:
    guard(scene, Terms(kappa=PRICE * 5, probation_checks=0))
    scene.escrow.withdraw(PROVIDER.public, BOND * 100 - 600, USDC, key="out", now=START)
    with refused("guard.exposure"):
        scene.fund(sampling_rate_ppm=999_999, bond=600, withholding_penalty=600)


def test_a_clean_check_lowers_the_multiplier_and_a_failure_undoes_it(scene: Scene) -> None:
    guard(scene)
    end(scene, Observation.CLEAN)
    assert (standing(scene).multiplier_ppm, standing(scene).probation_left) == (970_000, 2)
    end(scene, Observation.UNCHECKED)
    assert (standing(scene).unchecked, standing(scene).exposure) == (1, PRICE)
    end(scene, Observation.FAILED, Ruling.REFUND)
    assert standing(scene) == Standing(
        multiplier_ppm=PPM, probation_left=3, clean=1, failed=1, unchecked=1, exposure=PRICE
    )


def test_a_failure_that_was_none_is_taken_back(scene: Scene) -> None:
    guard(scene)
    hold = end(scene, Observation.FAILED, Ruling.DISPUTE)
    assert standing(scene).failed == 1
    scene.escrow.resolve(make_resolution(hold.id, ResolutionOutcome.RELEASE, OPERATOR), now=START)
    assert (standing(scene).failed, standing(scene).multiplier_ppm) == (0, PPM)


def test_a_dispute_by_nobodys_fault_tells_nothing_until_it_ends(scene: Scene) -> None:
    guard(scene)
    hold = end(scene, None, Ruling.DISPUTE)
    assert scene.escrow.guard_records(PROVIDER.public) == ()
    scene.apply(hold, Ruling.RELEASE)
    assert standing(scene).unchecked == 1


def test_a_verdict_that_never_came_and_a_decline_tell_nothing(scene: Scene) -> None:
    guard(scene)
    scene.escrow.decline(make_decline(scene.fund(**FULL).job), now=START)
    scene.claimed(**FULL)
    scene.fund(**FULL)
    for later in (VERIFICATION_S, 10_000):
        scene.escrow.run_timers(START + later)
    found = standing(scene)
    assert (found.clean, found.failed, found.unchecked, found.multiplier_ppm) == (0, 0, 0, PPM)


def test_a_ruling_that_says_nothing_of_a_check_counts_as_none(scene: Scene) -> None:
    guard(scene)
    end(scene, None)
    assert (standing(scene).unchecked, standing(scene).clean) == (1, 0)
    end(scene, None, Ruling.REFUND)
    assert standing(scene).failed == 1


def test_the_same_ruling_twice_is_one_observation(scene: Scene) -> None:
    guard(scene)
    hold = scene.claimed(**FULL)
    for _ in range(2):
        scene.apply(hold, Ruling.RELEASE)
    assert standing(scene).unchecked == 1


def test_jobs_that_cannot_go_unchecked_are_not_guarded(scene: Scene) -> None:
    guard(scene)
    scene.fund(evidence_kinds=("ezkl",), sampling_rate_ppm=0, bond=0, withholding_penalty=0)


def test_each_model_is_known_apart(scene: Scene) -> None:
    guard(scene)
    end(scene, Observation.CLEAN)
    end(scene, Observation.FAILED, Ruling.REFUND, model=Service("chat", digest_of("allowed")))
    known = {r.model: r.standing.failed for r in scene.escrow.guard_records(PROVIDER.public)}
    assert known == {MODEL: 0, f"service:chat:{digest_of('allowed')}": 1}


def test_the_demand_can_be_asked_for_before_a_job_is_signed(scene: Scene) -> None:
    guard(scene)
    model = OnnxModel(digest_of("model"), None, None)
    asked = scene.escrow.demand(PROVIDER.public, model, "USDC", price=PRICE)
    assert asked is not None
    scene.fund(sampling_rate_ppm=asked.rate_ppm, bond=asked.bond, withholding_penalty=asked.penalty)


def test_what_was_demanded_is_frozen_in_the_database(scene: Scene, store: Store) -> None:
    guard(scene)
    end(scene, Observation.CLEAN)
    for statement in (
        "UPDATE guard_hold SET demanded_rate_ppm = 1",
        "UPDATE guard_hold SET observation = 'unchecked'",
        "DELETE FROM guard_hold",
    ):
        with pytest.raises(INTEGRITY):
            store.alter(statement)


def test_the_audit_counts_again(scene: Scene, store: Store) -> None:
    guard(scene)
    end(scene, Observation.CLEAN)
    store.alter("UPDATE guard_standing SET clean = 7")
    (difference,) = scene.escrow.audit()
    assert difference.message == "7 clean, its holds say 1"
    store.alter("UPDATE guard_standing SET clean = 1")


def test_settling_at_once_loses_no_observation(scene: Scene, store: Store) -> None:
    guard(scene)
    held = [scene.claimed(**FULL) for _ in range(16)]

    def settle(hold: HoldRecord) -> None:
        with store.open() as escrow:
            escrow.apply(
                hold.id,
                0,
                Ruling.RELEASE,
                receipt_digest=digest_of(hold.id),
                receipt=b"r",
                now=START,
                observation=Observation.CLEAN,
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(settle, held))
    expected = Standing.newcomer(TERMS)
    for _ in held:
        expected = expected.after(Observation.CLEAN, PRICE, TERMS)
    assert standing(scene) == expected


def test_funding_at_once_does_not_overdraw_the_free_bond(scene: Scene, store: Store) -> None:
    guard(scene, Terms(kappa=PRICE * 5, probation_checks=0))
    scene.escrow.withdraw(PROVIDER.public, BOND * 100 - 5 * PRICE, USDC, key="out", now=START)
    jobs = [scene.draft(sampling_rate_ppm=999_999, bond=600, withholding_penalty=600) for _ in range(8)]

    def fund(job: SignedJob) -> str:
        with store.open() as escrow:
            try:
                return escrow.fund(job, now=START).id
            except Refused as refusal:
                return refusal.code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fund, jobs)).count("guard.exposure") == 3
