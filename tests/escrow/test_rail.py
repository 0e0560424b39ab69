"""Rails and the pump: paid once, whatever the rail says or fails to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from escrow_builders import BUYER, OUTPUT, PAYEE, PRICE, START, Scene, ScriptedRail, digest_of, make_claim
from proofhold.errors import Misuse
from proofhold.escrow import (
    AccountKind,
    Direction,
    EscrowFailure,
    HoldRecord,
    LedgerRail,
    PaymentKey,
    Pumped,
    Rail,
    RailReceipt,
    RailUnknown,
    Ruling,
    SqliteRail,
)
from proofhold.escrow.payments import LEASE_S

KEY = PaymentKey(digest_of("hold"), 0, Direction.RELEASE)


def decided(scene: Scene, ruling: Ruling = Ruling.RELEASE) -> HoldRecord:
    hold = scene.claimed()
    scene.apply(hold, ruling)
    return hold


@pytest.mark.parametrize(
    ("ruling", "state", "account"),
    [(Ruling.RELEASE, "released", PAYEE), (Ruling.REFUND, "refunded", BUYER.public)],
)
def test_an_outside_rail_takes_the_money_out(
    scene: Scene, folder: Path, ruling: Ruling, state: str, account: str
) -> None:
    hold, rail = decided(scene, ruling), SqliteRail(folder / "rail.db")
    outside = scene.amounts()[""]
    assert scene.escrow.pump(rail, now=START) == Pumped(1, 0)
    assert scene.escrow.pump(rail, now=START) == Pumped(0, 0)
    assert scene.state(hold) == state
    assert [(paid.amount, paid.account) for paid in rail.payments()] == [(PRICE, account)]
    assert scene.amounts()[""] == outside + PRICE


def test_an_answer_that_was_lost_is_asked_for(scene: Scene) -> None:
    hold, rail = decided(scene), ScriptedRail("late")
    assert scene.escrow.pump(rail, now=START) == Pumped(0, 1)
    assert scene.state(hold) == "reconcile_release"
    assert scene.escrow.pump(rail, now=START) == Pumped(1, 0)
    assert scene.state(hold) == "released"
    assert len(rail.paid) == 1


def test_a_payment_that_was_lost_is_asked_about_then_sent_again(scene: Scene) -> None:
    hold, rail = decided(scene, Ruling.REFUND), ScriptedRail("lost", "lost")
    scene.escrow.pump(rail, now=START)
    assert scene.state(hold) == "reconcile_refund"
    scene.escrow.pump(rail, now=START)
    assert scene.state(hold) == "reconcile_refund"
    scene.escrow.pump(rail, now=START)
    assert scene.state(hold) == "refunded"
    assert len(rail.paid) == 1
    events = [move.event for move in scene.escrow.history(hold.id) if move.subject == "capture"]
    unsure = ["outcome_unknown", "reconciled"]
    assert events[-5:] == [*unsure, *unsure, "paid"]


def test_a_rail_that_cannot_say_is_not_sent_anything(scene: Scene) -> None:
    hold, rail = decided(scene), ScriptedRail("late")
    rail.dumb = 3
    for _ in range(4):
        assert scene.escrow.pump(rail, now=START) == Pumped(0, 1)
        assert scene.state(hold) == "reconcile_release"
    assert scene.escrow.pump(rail, now=START) == Pumped(1, 0)
    assert len(rail.paid) == 1


def test_after_a_trip_the_payment_is_left_alone_then_asked_about(scene: Scene) -> None:
    hold, rail = decided(scene), ScriptedRail("broken")
    with pytest.raises(RuntimeError):
        scene.escrow.pump(rail, now=START)
    assert scene.escrow.pump(rail, now=START + LEASE_S - 1) == Pumped(0, 0)
    assert scene.state(hold) == "releasing"
    assert scene.escrow.pump(rail, now=START + LEASE_S) == Pumped(1, 0)
    assert len(rail.paid) == 1


def test_a_payment_belongs_to_the_rail_that_tried_it_first(scene: Scene) -> None:
    hold, rail = decided(scene), ScriptedRail("late")
    scene.escrow.pump(rail, now=START)
    assert scene.escrow.pump(LedgerRail(), now=START + LEASE_S) == Pumped(0, 0)
    assert scene.state(hold) == "reconcile_release"
    scene.escrow.pump(rail, now=START)


def test_one_that_fails_starves_no_other(scene: Scene) -> None:
    holds, rail = [decided(scene) for _ in range(3)], ScriptedRail("broken")
    with pytest.raises(RuntimeError):
        scene.escrow.pump(rail, now=START)
    assert scene.escrow.pump(rail, now=START) == Pumped(2, 0)
    assert scene.escrow.pump(rail, now=START + LEASE_S) == Pumped(1, 0)
    assert {scene.state(hold) for hold in holds} == {"released"}


@pytest.mark.parametrize("script", [("ok", "late"), ("late", "ok"), ("lost", "late"), ("late", "lost")])
def test_release_and_remainder_are_both_paid_once(scene: Scene, script: tuple[str, str]) -> None:
    hold, rail = scene.fund(), ScriptedRail(*script)
    scene.escrow.record_claim(make_claim(hold.job, amount=PRICE // 4), OUTPUT, now=START)
    scene.apply(hold, Ruling.RELEASE)
    scene.escrow.pump(rail, now=START)
    assert scene.state(hold) == "reconcile_release"
    assert scene.escrow.audit() == ()
    while scene.escrow.pump(rail, now=START).unknown:
        pass
    assert scene.state(hold) == "released"
    assert sorted(key.direction for key in rail.paid) == [Direction.REFUND, Direction.RELEASE]
    assert rail.total() == PRICE


def test_a_rail_that_pays_something_else_is_not_believed(scene: Scene) -> None:
    class Careless(ScriptedRail):
        def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
            return super().pay(key, amount - 1, currency, account)

    hold = decided(scene)
    with pytest.raises(EscrowFailure, match=r"escrow\.rail"):
        scene.escrow.pump(Careless(), now=START)
    assert scene.state(hold) == "releasing"


def test_paying_by_the_ledger_leaves_the_money_inside(scene: Scene) -> None:
    decided(scene)
    outside = scene.amounts()[""]
    scene.escrow.pump(LedgerRail(), now=START)
    assert scene.amounts()[""] == outside
    assert scene.amount(PAYEE) == PRICE


def test_the_clock_of_the_pump_may_lag(scene: Scene) -> None:
    hold = decided(scene)
    scene.escrow.pump(LedgerRail(), now=START - 500)
    assert scene.escrow.hold(hold.id).capture(0).changed_at == START


def test_sqlite_rail_pays_once_a_key(folder: Path) -> None:
    rail: Rail = SqliteRail(folder / "rail.db")
    assert rail.lands_in is AccountKind.OUTSIDE
    assert rail.query(KEY) is None
    receipt = rail.pay(KEY, 5, "USDC", "alice")
    assert rail.pay(KEY, 5, "USDC", "alice") == receipt == rail.query(KEY)
    assert SqliteRail(folder / "rail.db").payments() == (receipt,)
    for amount, account in ((6, "alice"), (5, "bob")):
        with pytest.raises(Misuse):
            rail.pay(KEY, amount, "USDC", account)


def test_a_rail_whose_database_is_gone_does_not_know(folder: Path) -> None:
    rail = SqliteRail(folder / "rail.db")
    (folder / "rail.db").write_bytes(b"no database" * 100)
    with pytest.raises(RailUnknown):
        rail.query(KEY)
    with pytest.raises(RailUnknown):
        rail.pay(KEY, 5, "USDC", "alice")
