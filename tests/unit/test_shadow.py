"""Shadow mode: the same decision, written down, and nothing moved; and what the report makes of it."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from escrow_builders import refused
from judging import NOW, PRICE, STRANGER, VERIFIER, catalogue, logits, policy, runner
from proofhold import settlement
from proofhold.canonical import encode
from proofhold.core import Fault, NeedKind, Verdict
from proofhold.decision import Decision, Mode, Outcome
from proofhold.drafting import USDC
from proofhold.errors import Misuse
from proofhold.escrow.database import SqliteDatabase
from proofhold.escrow.escrow import HoldRecord, Ruling
from proofhold.escrow.home import DATABASE_NAME
from proofhold.escrow.rail import LedgerRail
from proofhold.escrow.shadows import ShadowBook
from proofhold.escrow.states import State
from proofhold.job import PPM
from proofhold.settlement import (
    asettle,
    asettle_receipt,
    averify_and_settle,
    settle,
    settle_receipt,
    verify_and_settle,
)
from proofhold.shadow import Finding, report
from proofhold.standard import standard_verifier
from proofhold_cli import main
from settling import FALSE, MEASURED, Hall, accepted, inconclusive, open_hall, rejected


@pytest.fixture
def hall() -> Iterator[Hall]:
    with open_hall() as hall:
        yield hall


def shadow(hall: Hall, hold: HoldRecord, verdict: Verdict) -> Decision:
    return settle(hold.id, verdict, escrow=hall.escrow, key=VERIFIER, mode="shadow", clock=hall.clock)


VERDICTS: dict[Outcome, Any] = {
    Outcome.RELEASE: accepted,
    Outcome.REFUND: lambda hold: rejected(hold, FALSE),
    Outcome.DISPUTE: lambda hold: rejected(hold, MEASURED),
    Outcome.KEEP: inconclusive,
}


# --- nothing moves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", Outcome)
def test_it_decides_as_it_would_live_and_moves_nothing(hall: Hall, outcome: Outcome) -> None:
    hold, twin = hall.claimed(), hall.claimed()
    before, moves = hall.escrow.balances(), hall.movements(hold)
    decision = shadow(hall, hold, VERDICTS[outcome](hold))
    assert hall.escrow.hold(hold.id) == hold
    assert (hall.escrow.balances(), hall.movements(hold)) == (before, moves)
    live = hall.settle(twin, VERDICTS[outcome](twin))
    assert (decision.mode, decision.state, live.mode) == (Mode.SHADOW, State.CLAIMED, Mode.LIVE)
    for same in ("outcome", "amount", "open_until", "refused", "retryable", "policy", "reason_codes"):
        assert getattr(decision, same) == getattr(live, same), same


def test_a_shadow_stands_in_nobodys_way(hall: Hall) -> None:
    hold = hall.claimed()
    shadow(hall, hold, rejected(hold, FALSE))
    assert hall.settle(hold, accepted(hold)).outcome is Outcome.RELEASE


def test_the_whole_hook_takes_no_lease_in_shadow_mode(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold, logits(0.0, dtype="float32"))
    before = hall.escrow.hold(hold.id)
    decision = hall.judge(hold, bundle, mode=Mode.SHADOW)
    assert (decision.outcome, decision.mode) == (Outcome.DISPUTE, Mode.SHADOW)
    assert hall.escrow.hold(hold.id) == before
    assert hall.judge(hold, bundle).outcome is Outcome.DISPUTE


@pytest.mark.parametrize("mode", ["shaddow", "SHADOW", "", None, True])
def test_a_mistyped_mode_moves_nothing(hall: Hall, mode: Any) -> None:
    hold = hall.claimed()
    with pytest.raises(Misuse, match="expected live or shadow"):
        settle(hold.id, accepted(hold), escrow=hall.escrow, key=VERIFIER, mode=mode, clock=hall.clock)
    assert hall.escrow.hold(hold.id) == hold


def test_what_does_not_belong_to_the_hold_is_refused_in_shadow_too(hall: Hall) -> None:
    hold, other = hall.claimed(), hall.claimed()
    with refused("settle.hold", Fault.VERIFIER):
        shadow(hall, hold, accepted(other))
    with refused("settle.verifier"):
        settle(hold.id, accepted(hold), escrow=hall.escrow, key=STRANGER, mode="shadow", clock=hall.clock)
    assert ShadowBook(hall.escrow.store).all() == ()


def test_what_only_the_database_knows_is_found_by_the_rehearsal(hall: Hall) -> None:
    first, second = hall.claimed(), hall.claimed()
    used = replace(accepted(first).findings[0], one_use=("ee" * 32,))
    hall.settle(first, replace(accepted(first), findings=(used,)))
    decision = shadow(hall, second, replace(accepted(second), findings=(used,)))
    assert (decision.outcome, decision.refused) == (Outcome.RELEASE, "claim.reused_evidence")
    [row] = ShadowBook(hall.escrow.store).all()
    assert row.refused == "claim.reused_evidence"


# --- what a decision says -------------------------------------------------------------------------------


def test_a_decision_says_what_a_settlement_service_logs(hall: Hall) -> None:
    hold = hall.claimed()
    job = hold.job.document
    kept = hall.settle(hold, inconclusive(hold))
    assert (kept.amount, kept.open_until, kept.retryable) == (0, NOW + job.verification_s, True)
    assert [need.kind for need in kept.needs] == [NeedKind.OUTPUT]
    hall.now += 5
    disputed = hall.settle(hold, rejected(hold, MEASURED))
    assert (disputed.amount, disputed.open_until) == (0, NOW + 5 + job.dispute_s)
    assert (disputed.reason_codes, disputed.retryable) == (("replay.mismatch",), False)
    refunded = hall.settle(hold, rejected(hold, MEASURED, FALSE))
    assert (refunded.amount, refunded.open_until, refunded.policy) == (PRICE, None, hold.policy)
    assert len({kept.id, disputed.id, refunded.id}) == 3
    assert hall.settle(hold, rejected(hold, FALSE)).id == refunded.id
    content = refunded.to_json()
    assert json.loads(encode(content)) == content
    assert content["reasons"][0] == {"code": "replay.mismatch", "fault": "provider"}


# --- for callers in an event loop -----------------------------------------------------------------------


def test_the_twins_take_the_same_arguments() -> None:
    for one, other in (
        (settle, asettle),
        (settle_receipt, asettle_receipt),
        (verify_and_settle, averify_and_settle),
    ):
        assert inspect.signature(one) == inspect.signature(other)
        assert inspect.iscoroutinefunction(other)


def test_settling_from_an_event_loop_is_settling_and_the_loop_goes_on(hall: Hall) -> None:
    hold = hall.fund(sampling_rate_ppm=PPM)
    bundle = hall.claim(hold)
    loop_went_on = threading.Event()
    waited: list[bool] = []

    def clock() -> int:  # asked while it settles: a loop that stood still would not get to the event
        waited.append(loop_went_on.wait(30))
        return hall.now

    async def scenario() -> tuple[Decision, Decision, Decision]:
        settling = asyncio.create_task(
            averify_and_settle(
                hold.id,
                bundle,
                verifier=standard_verifier(catalogue(), runner()),
                policy=policy(),
                escrow=hall.escrow,
                key=VERIFIER,
                clock=clock,
            )
        )
        await asyncio.sleep(0.01)
        loop_went_on.set()
        first = await settling
        again = await asettle_receipt(hold.id, first.receipt, escrow=hall.escrow, clock=hall.clock)
        verdict = accepted(hall.escrow.hold(hold.id))
        many = await asyncio.gather(
            *(
                asettle(hold.id, verdict, escrow=hall.escrow, key=VERIFIER, clock=hall.clock)
                for _ in range(64)
            )
        )
        assert len({decision.id for decision in many}) == 1
        return first, again, many[0]

    first, again, many = asyncio.run(scenario())
    assert first.outcome is Outcome.RELEASE
    assert first == again == many
    assert waited
    assert all(waited)
    hall.escrow.pump(LedgerRail(), now=hall.now)
    assert hall.state(hold) is State.RELEASED


def test_callers_in_an_event_loop_share_commits(hall: Hall) -> None:
    database, holds = hall.escrow._database, [hall.claimed() for _ in range(32)]
    assert isinstance(database, SqliteDatabase)
    before = database.writer.commits

    async def scenario() -> list[Decision]:
        return await asyncio.gather(
            *(
                asettle(hold.id, accepted(hold), escrow=hall.escrow, key=VERIFIER, clock=hall.clock)
                for hold in holds
            )
        )

    decisions = asyncio.run(scenario())
    assert {decision.outcome for decision in decisions} == {Outcome.RELEASE}
    assert database.writer.commits - before < len(holds)


def test_an_event_loop_that_asks_for_too_much_is_refused_at_once(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "_asked", threading.BoundedSemaphore(2))
    holds, go_on = [hall.claimed() for _ in range(4)], threading.Event()

    def clock() -> int:
        assert go_on.wait(30)
        return hall.now

    async def scenario() -> None:
        calls = [
            asyncio.ensure_future(
                asettle(hold.id, accepted(hold), escrow=hall.escrow, key=VERIFIER, clock=clock)
            )
            for hold in holds
        ]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert {getattr(call.exception(), "code", None) for call in done} == {"escrow.busy"}
        go_on.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(outcome, Decision) for outcome in outcomes] == [True, True, False, False]
        for hold in holds[2:]:  # once there is room again, it goes through
            await asettle(hold.id, accepted(hold), escrow=hall.escrow, key=VERIFIER, clock=hall.clock)

    asyncio.run(scenario())
    assert {hall.state(hold) for hold in holds} == {State.RELEASING}


# --- the report -----------------------------------------------------------------------------------------


def test_the_report_compares_with_what_became_of_the_money(hall: Hall) -> None:
    paid, unpaid, held, lost, open_, waiting = (hall.claimed() for _ in range(6))
    shadow(hall, paid, accepted(paid))
    hall.settle(paid, accepted(paid))
    shadow(hall, unpaid, rejected(unpaid, MEASURED))
    hall.settle(unpaid, rejected(unpaid, FALSE))
    book = ShadowBook(hall.escrow.store)
    for hold, verdict, actual in (
        (held, rejected(held, FALSE), Ruling.RELEASE),
        (lost, accepted(lost), Ruling.REFUND),
    ):
        shadow(hall, hold, verdict)
        book.tell(hold.id, 0, actual, now=NOW)
        book.tell(hold.id, 0, actual, now=NOW + 1)
    shadow(hall, open_, inconclusive(open_))
    shadow(hall, waiting, accepted(waiting))
    found = report(hall.escrow)
    [currency] = found.currencies
    assert {finding: total.captures for finding, total in currency.sums.items()} == {
        Finding.AGREED: 2,
        Finding.WOULD_HAVE_HELD: 1,
        Finding.WOULD_HAVE_PAID: 1,
        Finding.UNDECIDED: 1,
        Finding.PENDING: 1,
    }
    assert (currency.agreement_ppm, currency.at_stake) == (500_000, PRICE)
    assert {d.shadow.hold: d.reason_codes for d in found.disagreements} == {
        held.id: ("ezkl.output",),
        lost.id: (),
    }


def test_a_shadow_after_the_decision_is_compared_with_it(hall: Hall) -> None:
    hold = hall.claimed()
    hall.settle(hold, accepted(hold))
    decision = shadow(hall, hold, rejected(hold, FALSE))
    assert (decision.refused, decision.state) == ("escrow.decided", State.RELEASING)
    assert report(hall.escrow).currencies[0].at_stake == PRICE


def test_the_newest_decision_counts(hall: Hall) -> None:
    hold = hall.claimed()
    shadow(hall, hold, inconclusive(hold))
    hall.now += 1
    shadow(hall, hold, accepted(hold))
    shadow(hall, hold, accepted(hold))
    [row] = ShadowBook(hall.escrow.store).all()
    assert (row.outcome, row.at, row.amount, row.currency) == ("release", NOW + 1, PRICE, USDC)


def test_what_was_told_stays_told(hall: Hall) -> None:
    hold, decided = hall.claimed(), hall.claimed()
    book = ShadowBook(hall.escrow.store)
    book.tell(hold.id, 0, Ruling.RELEASE, now=NOW)
    with refused("shadow.told"):
        book.tell(hold.id, 0, Ruling.REFUND, now=NOW)
    hall.settle(decided, accepted(decided))
    with refused("shadow.told"):
        book.tell(decided.id, 0, Ruling.REFUND, now=NOW)
    with refused("escrow.unknown_hold"):
        book.tell("00" * 32, 0, Ruling.REFUND, now=NOW)


def test_the_command_reports_and_is_told(hall: Hall) -> None:
    home = hall.path.parent
    assert hall.path.name == DATABASE_NAME
    run = CliRunner().invoke
    assert run(main, ["shadow", "report", str(home)]).output == "no shadow decisions yet\n"
    hold = hall.claimed()
    shadow(hall, hold, rejected(hold, FALSE))
    told = run(main, ["shadow", "tell", str(home), hold.id, "--actual", "release", "--json"])
    assert json.loads(told.output) == {"actual": "release", "hold": hold.id, "seq": 0}
    shown = run(main, ["shadow", "report", str(home)])
    assert "USDC: 1 compared, 0.00 % agreement" in shown.output
    assert "at stake: 0.5 USDC paid that would not have been" in shown.output
    assert "the hook says refund (ezkl.output)" in shown.output
    content = json.loads(run(main, ["shadow", "report", str(home), "--json"]).output)
    assert content["currencies"][0]["at_stake"] == "0.5"
    assert content["disagreements"][0]["finding"] == "would_have_held"
    assert run(main, ["shadow", "tell", str(home), hold.id, "--actual", "refund"]).exit_code == 4
