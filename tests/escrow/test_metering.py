"""Metered holds, fees, the one bond that answers for all captures, and the delay before it is free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow_builders import (
    BOND,
    BUYER,
    CLAIM_S,
    DISPUTE_S,
    FREEZE_S,
    OPERATOR,
    OUTPUT,
    PAYEE,
    PRICE,
    PROVIDER,
    START,
    STRANGER,
    USDC,
    Scene,
    digest_of,
    make_claim,
    make_decline,
    make_job,
    make_resolution,
    refused,
)
from proofhold.core import Fault
from proofhold.errors import Malformed, Misuse
from proofhold.escrow import AccountKind, Adjudged, Direction, HoldRecord, LedgerRail, Ruling, SqliteEscrow
from proofhold.escrow.metering import fee_of, orders, share
from proofhold.guard import Observation, Terms
from proofhold.job import PPM, Fee, Job, ResolutionOutcome
from proofhold.keys import Signed
from stores import Store

METERED = {"captures": 4, "sampling_rate_ppm": PPM}
FEE = Fee("the-house", 25_000)


def claim(scene: Scene, hold: HoldRecord, seq: int, amount: int) -> HoldRecord:
    signed = make_claim(hold.job, seq=seq, amount=amount)
    return scene.escrow.record_claim(signed, OUTPUT, now=scene.now)


def rule(scene: Scene, hold: HoldRecord, seq: int, ruling: Ruling) -> None:
    receipt = f"receipt of {ruling} on {hold.id}:{seq}"
    scene.escrow.apply(
        hold.id, seq, ruling, receipt_digest=digest_of(receipt), receipt=receipt.encode(), now=scene.now
    )


def pay(scene: Scene) -> dict[str, int]:
    """Pay what is due, and give what everybody got or lost since the scene began."""
    scene.escrow.pump(LedgerRail(), now=scene.now)
    began = {BUYER.public: PRICE * 100, PROVIDER.public: BOND * 100}
    return {name: scene.amount(name) - began.get(name, 0) for name in (BUYER.public, PROVIDER.public, PAYEE)}


def test_captures_are_paid_one_by_one_and_the_remainder_comes_back(scene: Scene) -> None:
    hold = scene.fund(**METERED)
    for seq, amount in enumerate((100, 350, 351)):
        hold = claim(scene, hold, seq, amount)
        rule(scene, hold, seq, Ruling.RELEASE)
        assert pay(scene)[PAYEE] == amount
        assert scene.escrow.audit() == ()
    assert [c.state for c in scene.escrow.hold(hold.id).captures] == [*["released"] * 3, "funded"]
    assert scene.bond(hold) == "reserved", "it still answers for what may be claimed"
    scene.now += CLAIM_S + 1
    scene.escrow.run_timers(scene.now)
    assert pay(scene) == {PAYEE: 351, BUYER.public: -351, PROVIDER.public: 0}
    assert scene.bond(hold) == "free"
    assert scene.amount(hold.id, AccountKind.HOLD) == 0


def test_the_provider_closes_a_hold(scene: Scene) -> None:
    hold = scene.fund(**METERED)
    claim(scene, hold, 0, 400)
    record = scene.escrow.decline(make_decline(hold.job), now=scene.now)
    assert [c.state for c in record.captures] == ["claimed", "refunding"]
    assert scene.escrow.decline(make_decline(hold.job), now=scene.now) == record
    rule(scene, hold, 0, Ruling.RELEASE)
    assert pay(scene) == {PAYEE: 400, BUYER.public: -400, PROVIDER.public: 0}
    assert scene.bond(hold) == "free"


@pytest.mark.parametrize("amounts", [(PRICE,), (1, 2, 3, 4), (10, PRICE)])
def test_the_last_capture_settles_all_that_is_left(scene: Scene, amounts: tuple[int, ...]) -> None:
    hold = scene.fund(**METERED)
    for seq, amount in enumerate(amounts):
        claim(scene, hold, seq, amount)
    assert len(scene.escrow.hold(hold.id).captures) == len(amounts)
    for seq, _ in reversed(list(enumerate(amounts))):
        rule(scene, hold, seq, Ruling.RELEASE)
    assert pay(scene) == {PAYEE: amounts[-1], BUYER.public: -amounts[-1], PROVIDER.public: 0}
    with refused("escrow.unknown_capture"):
        claim(scene, hold, len(amounts), PRICE)


@pytest.mark.parametrize("amount", [0, 99, 100, PRICE + 1])
def test_claims_only_grow_up_to_the_price(scene: Scene, amount: int) -> None:
    hold = claim(scene, scene.fund(**METERED), 0, 100)
    with refused("claim.amount", Fault.PROVIDER):
        claim(scene, hold, 1, amount)
    with refused("escrow.unknown_capture"):
        claim(scene, hold, 2, 200)


def test_a_refuted_capture_refunds_its_own_part_and_keeps_the_bond(scene: Scene) -> None:
    hold = scene.fund(**METERED)
    for seq, amount in enumerate((100, 300, 600)):
        claim(scene, hold, seq, amount)
    rule(scene, hold, 1, Ruling.REFUND)
    rule(scene, hold, 0, Ruling.RELEASE)
    rule(scene, hold, 2, Ruling.RELEASE)
    scene.escrow.decline(make_decline(hold.job), now=scene.now)
    assert pay(scene) == {PAYEE: 400, BUYER.public: -400, PROVIDER.public: -BOND}
    assert scene.bond(hold) == "frozen", "a later release does not wash an earlier fraud away"
    scene.now += FREEZE_S
    scene.escrow.run_timers(scene.now)
    assert scene.bond(hold) == "free"


def test_a_frozen_bond_waits_for_every_capture(scene: Scene) -> None:
    hold = scene.fund(**METERED, claim_by=START + 10 * FREEZE_S)
    claim(scene, hold, 0, 100)
    rule(scene, hold, 0, Ruling.REFUND)
    scene.now += FREEZE_S
    scene.escrow.run_timers(scene.now)
    assert scene.bond(hold) == "frozen", "the next capture may still be claimed"
    scene.escrow.decline(make_decline(hold.job), now=scene.now)
    scene.escrow.run_timers(scene.now)
    assert scene.bond(hold) == "free"


def test_a_dispute_that_ends_well_gives_the_bond_back_with_the_last_capture(scene: Scene) -> None:
    hold = scene.fund(**METERED)
    claim(scene, hold, 0, 100)
    claim(scene, hold, 1, PRICE)
    rule(scene, hold, 0, Ruling.DISPUTE)
    rule(scene, hold, 1, Ruling.RELEASE)
    assert scene.bond(hold) == "frozen"
    rule(scene, hold, 0, Ruling.RELEASE)
    assert scene.bond(hold) == "free"
    assert pay(scene) == {PAYEE: PRICE, BUYER.public: -PRICE, PROVIDER.public: 0}


def test_one_conviction_takes_the_bond_once(scene: Scene) -> None:
    hold = scene.fund(**METERED)
    claim(scene, hold, 0, 100)
    claim(scene, hold, 1, PRICE)
    for seq in (0, 1):
        rule(scene, hold, seq, Ruling.DISPUTE)
    for seq in (0, 1):
        scene.escrow.adjudicate(hold.id, seq, Adjudged.CONVICTED, transcript=b"%d" % seq, now=scene.now)
    assert scene.bond(hold) == "slashed"
    assert scene.amount("", AccountKind.TREASURY) == BOND
    assert pay(scene) == {PAYEE: 0, BUYER.public: 0, PROVIDER.public: -BOND}


def test_one_conviction_is_enough_whatever_others_say(scene: Scene) -> None:
    hold = scene.fund(**METERED)
    claim(scene, hold, 0, 100)
    claim(scene, hold, 1, PRICE)
    for seq, outcome in ((0, Adjudged.CONVICTED), (1, Adjudged.ACQUITTED)):
        rule(scene, hold, seq, Ruling.DISPUTE)
        scene.escrow.adjudicate(hold.id, seq, outcome, transcript=b"%d" % seq, now=scene.now)
    assert scene.bond(hold) == "slashed"
    assert scene.escrow.audit() == ()


def test_silence_about_one_capture_leaves_the_bond_to_answer_for_the_others(scene: Scene) -> None:
    """Else a provider about to be convicted would be silent about another capture, and have the rest back."""
    hold = scene.fund(**METERED, withholding_penalty=BOND // 4)
    claim(scene, hold, 0, 100)
    rule(scene, hold, 0, Ruling.DISPUTE)
    claim(scene, hold, 1, PRICE)
    be_silent(scene, hold, 1)
    assert scene.bond(hold) == "frozen"
    assert scene.amount("", AccountKind.TREASURY) == BOND // 4
    scene.escrow.adjudicate(hold.id, 0, Adjudged.CONVICTED, transcript=b"t", now=scene.now)
    assert scene.bond(hold) == "slashed"
    assert scene.amount("", AccountKind.TREASURY) == BOND
    assert pay(scene) == {PAYEE: 0, BUYER.public: 0, PROVIDER.public: -BOND}


def test_each_silence_costs_its_penalty_and_the_rest_comes_back(scene: Scene) -> None:
    hold = scene.fund(**METERED, withholding_penalty=BOND // 4)
    claim(scene, hold, 0, 100)
    be_silent(scene, hold, 0)
    assert scene.bond(hold) == "frozen", "the second capture is still to come"
    claim(scene, hold, 1, PRICE)
    be_silent(scene, hold, 1)
    assert scene.bond(hold) == "free"
    assert scene.amount("", AccountKind.TREASURY) == 2 * (BOND // 4)
    assert pay(scene) == {PAYEE: 0, BUYER.public: 0, PROVIDER.public: -2 * (BOND // 4)}


def test_a_capture_that_ends_well_frees_what_an_earlier_silence_left(scene: Scene) -> None:
    hold = scene.fund(**METERED, withholding_penalty=BOND // 4)
    claim(scene, hold, 0, 100)
    be_silent(scene, hold, 0)
    claim(scene, hold, 1, PRICE)
    rule(scene, hold, 1, Ruling.RELEASE)
    assert scene.bond(hold) == "free"
    assert pay(scene)[PROVIDER.public] == -(BOND // 4)


def be_silent(scene: Scene, hold: HoldRecord, seq: int) -> None:
    """Let the provider be asked for an opening, and not answer."""
    scene.escrow.begin_verification(hold.id, seq, lease_s=10, now=scene.now)
    due = scene.escrow.await_opening(hold.id, seq, now=scene.now).due
    assert due is not None
    scene.now = due
    scene.escrow.run_timers(scene.now)
    assert scene.escrow.hold(hold.id).capture(seq).state == "refunding"


def test_a_sample_that_the_first_claim_reveals_is_none(scene: Scene) -> None:
    with refused("job.captures_sampled"):
        scene.fund(captures=2, sampling_rate_ppm=PPM - 1)
    scene.fund(captures=2, sampling_rate_ppm=0, evidence_kinds=("ezkl",))


def test_the_house_takes_its_part(scene: Scene) -> None:
    hold = scene.fund(**METERED, fee=FEE)
    total = 0
    for seq, amount in enumerate((39, 78, 79, 999)):
        claim(scene, hold, seq, amount)
        rule(scene, hold, seq, Ruling.RELEASE)
        got = pay(scene)
        total = amount * FEE.ppm // PPM
        assert (got[PAYEE], scene.amount(FEE.account)) == (amount - total, total)
    assert got[BUYER.public] == -999
    assert scene.escrow.audit() == ()


def test_nobody_pays_a_fee_on_a_refund(scene: Scene) -> None:
    hold = scene.claimed(fee=FEE)
    scene.apply(hold, Ruling.REFUND)
    assert pay(scene)[BUYER.public] == 0
    assert scene.amount(FEE.account) == 0


def test_a_job_says_its_fee_or_nothing(scene: Scene) -> None:
    job = scene.draft(fee=FEE)
    assert Signed.decode(Job, job.encode()).document.fee == FEE
    assert b"fee" not in scene.draft().envelope.payload
    bad = make_job(digest_of("c"), b"n" * 32, fee=Fee("no account!", 10))
    with pytest.raises(Malformed):
        Signed.decode(Job, Signed.new(bad, BUYER).encode())


@given(
    price=st.integers(1, 10**30),
    cuts=st.lists(st.integers(1, 10**30), max_size=8),
    ppm=st.integers(0, PPM - 1),
    released=st.lists(st.booleans(), min_size=9, max_size=9),
    tail=st.booleans(),
)
def test_not_an_atom_is_lost(price: int, cuts: list[int], ppm: int, released: list[bool], tail: bool) -> None:
    amounts = sorted({min(cut, price) for cut in cuts})
    fee = Fee("house", ppm) if ppm else None
    captures = len(amounts) + tail
    if captures == 0:
        return
    job = make_job(digest_of("c"), b"n" * 32, price=price, captures=captures, fee=fee)
    base, paid, fees, settled = 0, 0, 0, 0
    steps: list[int | None] = [*amounts]
    if tail and (not amounts or amounts[-1] < price):
        steps.append(None)
    for seq, amount in enumerate(steps):
        orders_ = orders(job, seq, base, amount, release=released[seq] and amount is not None)
        assert sum(value for _, value in orders_.values()) == share(job, seq, base, amount)
        assert all(value > 0 for _, value in orders_.values())
        settled += share(job, seq, base, amount)
        paid += sum(value for direction, (_, value) in orders_.items() if direction is not Direction.REFUND)
        fees += orders_.get(Direction.FEE, ("", 0))[1]
        base = base if amount is None else amount
    assert settled == price
    if all(released[: len(amounts)]):
        assert (paid, fees) == (base, fee_of(fee, base))


@pytest.fixture
def slow(store: Store) -> Iterator[Scene]:
    scene = Scene.create(store, unbonding_s=500)
    yield scene
    assert scene.escrow.audit() == ()
    scene.escrow.close()


def test_a_bond_becomes_free_after_a_delay(slow: Scene) -> None:
    hold = slow.claimed()
    slow.apply(hold, Ruling.RELEASE)
    assert slow.bond(hold) == "unbonding"
    assert pay(slow) == {PAYEE: PRICE, BUYER.public: -PRICE, PROVIDER.public: -BOND}
    slow.now += 499
    assert slow.escrow.run_timers(slow.now) == ()
    slow.now += 1
    assert [move.event for move in slow.escrow.run_timers(slow.now)] == ["unbonded"]
    assert pay(slow)[PROVIDER.public] == 0


def test_who_was_paid_and_is_then_convicted_pays_from_the_bond(slow: Scene) -> None:
    hold = slow.claimed()
    slow.apply(hold, Ruling.RELEASE)
    pay(slow)
    slow.adjudicate(hold, Adjudged.CONVICTED)
    assert slow.bond(hold) == "slashed"
    got = pay(slow)
    assert got[BUYER.public] == 0, "its loss is made good, and no more"
    assert slow.amount("", AccountKind.TREASURY) == BOND - PRICE


def test_nothing_that_was_not_claimed_waits(slow: Scene) -> None:
    hold = slow.fund()
    slow.escrow.decline(make_decline(hold.job), now=slow.now)
    assert slow.bond(hold) == "free"


@pytest.mark.parametrize("unbonding_s", [-1, 10**12])
def test_a_delay_is_one(folder: Path, unbonding_s: int) -> None:
    with pytest.raises(Misuse):
        SqliteEscrow.create(folder / "escrow.db", escrow="mine", unbonding_s=unbonding_s)


def test_what_is_unchecked_stays_covered(scene: Scene) -> None:
    scene.escrow.set_guard(USDC, Terms(kappa=PRICE * 5, probation_checks=0), now=START)
    hold = scene.claimed(sampling_rate_ppm=999_999, bond=600, withholding_penalty=600)
    left = BOND * 100 - 600
    with refused("guard.exposure", Fault.PROVIDER):
        scene.escrow.withdraw(PROVIDER.public, left - 399, USDC, key="a", now=START)
    scene.apply(hold, Ruling.RELEASE)
    everything = scene.amount(PROVIDER.public)
    with refused("guard.exposure", Fault.PROVIDER):
        scene.escrow.withdraw(PROVIDER.public, everything - PRICE + 1, USDC, key="b", now=START)
    scene.escrow.withdraw(PROVIDER.public, everything - PRICE, USDC, key="c", now=START)
    scene.escrow.withdraw(PROVIDER.public, everything - PRICE, USDC, key="c", now=START)
    assert scene.amount(PROVIDER.public) == PRICE
    scene.escrow.withdraw(BUYER.public, 1, USDC, key="d", now=START)


def test_a_metered_job_is_observed_by_the_guard(scene: Scene) -> None:
    scene.escrow.set_guard(USDC, Terms(kappa=PRICE, probation_checks=3), now=START)
    hold = scene.fund(**METERED)
    claim(scene, hold, 0, 100)
    claim(scene, hold, 1, PRICE)
    for seq in (0, 1):
        scene.escrow.apply(
            hold.id,
            seq,
            Ruling.RELEASE if seq == 0 else Ruling.REFUND,
            receipt_digest=digest_of("r"),
            receipt=b"r",
            now=START,
            observation=Observation.CLEAN if seq == 0 else Observation.FAILED,
        )
    (known,) = scene.escrow.guard_records(PROVIDER.public)
    assert (known.standing.clean, known.standing.failed) == (0, 1), "one fraud outweighs what was honest"


def test_two_keys_above_an_amount(store: Store) -> None:
    scene = Scene.create(store)
    second = STRANGER
    with scene.escrow:
        store.tamper(f"INSERT INTO operator (key) VALUES ('{second.public}')")  # noqa: S608
    with store.open() as escrow:
        scene.escrow = escrow
        escrow.set_two_keys(USDC, PRICE - 1)
        hold = scene.claimed()
        scene.apply(hold, Ruling.DISPUTE)
        with refused("resolution.keys"):
            escrow.resolve(make_resolution(hold.id, ResolutionOutcome.RELEASE), now=scene.now)
        assert scene.state(hold) == "disputed"
        both = make_resolution(hold.id, ResolutionOutcome.RELEASE, OPERATOR, second)
        escrow.resolve(both, now=scene.now)
        assert scene.state(hold) == "releasing"
        escrow.set_two_keys(USDC, PRICE)
        hold = scene.claimed()
        scene.apply(hold, Ruling.DISPUTE)
        escrow.resolve(make_resolution(hold.id, ResolutionOutcome.REFUND), now=scene.now)
        scene.now += DISPUTE_S
        assert escrow.audit() == ()
