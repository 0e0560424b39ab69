"""Above a price money moves when several verifiers say the same: distinct, trusted, about one thing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner

from escrow_builders import refused
from judging import NOW, PRICE, STRANGER, VERIFIER, key_of
from proofhold.core import Fault
from proofhold.decision import Decision, Outcome
from proofhold.drafting import USDC
from proofhold.errors import Misuse
from proofhold.escrow.escrow import HoldRecord
from proofhold.escrow.home import DATABASE_NAME
from proofhold.escrow.quorums import QuorumBook
from proofhold.escrow.states import State
from proofhold.keys import SigningKey, TrustedKey, TrustStore
from proofhold.receipt import Receipt
from proofhold.settlement import NotFundable, asettle_receipt, settle_receipt
from proofhold_cli import main
from settling import FALSE, MEASURED, Hall, accepted, inconclusive, open_hall, rejected

SECOND, THIRD, ROTATED = map(key_of, ("second", "third", "rotated"))
TRUST = TrustStore(
    (
        TrustedKey(VERIFIER.public, "us", 0, NOW + 1),
        TrustedKey(ROTATED.public, "us", 0, NOW + 1),
        TrustedKey(SECOND.public, "second", 0, NOW + 1),
        TrustedKey(THIRD.public, "third", 0, NOW + 1),
    )
)


@pytest.fixture
def hall() -> Iterator[Hall]:
    with open_hall() as hall:
        yield hall


def ask(hall: Hall, *, need: int = 2, above: int = PRICE - 1, trust: TrustStore = TRUST) -> None:
    QuorumBook(hall.escrow.store).set(USDC, above=above, need=need, trust=trust, now=NOW)


def hand_in(hall: Hall, hold: HoldRecord, key: SigningKey, verdict: Any = accepted) -> Decision:
    receipt = Receipt.issue(verdict(hold), key)
    return settle_receipt(hold.id, receipt, escrow=hall.escrow, clock=hall.clock)


@pytest.mark.parametrize("verdict", [accepted, lambda hold: rejected(hold, FALSE)])
@pytest.mark.parametrize("own_first", [True, False])
def test_money_moves_with_the_second_verifier_and_not_before(
    hall: Hall, verdict: Any, own_first: bool
) -> None:
    ask(hall)
    hold = hall.claimed()
    first, second = (VERIFIER, SECOND) if own_first else (SECOND, VERIFIER)
    waiting = hand_in(hall, hold, first, verdict)
    assert (waiting.outcome, waiting.state, waiting.missing_receipts) == (Outcome.KEEP, State.CLAIMED, 1)
    assert waiting.retryable
    assert hall.escrow.hold(hold.id) == hold
    decided = hand_in(hall, hold, second, verdict)
    assert decided.state in (State.RELEASING, State.REFUNDING)
    assert (decided.missing_receipts, decided.receipt.signer) == (0, VERIFIER.public)
    for key in (VERIFIER, SECOND, THIRD):
        assert hand_in(hall, hold, key, verdict) == decided


def test_up_to_the_cap_one_is_enough_and_others_have_no_say(hall: Hall) -> None:
    ask(hall, above=PRICE)
    hold = hall.claimed()
    with refused("settle.verifier", Fault.VERIFIER):
        hand_in(hall, hold, SECOND)
    assert hand_in(hall, hold, VERIFIER).outcome is Outcome.RELEASE


def test_the_same_verifier_twice_is_one_also_by_another_key(hall: Hall) -> None:
    ask(hall)
    hold = hall.claimed()
    for key in (VERIFIER, VERIFIER, ROTATED):
        assert hand_in(hall, hold, key).missing_receipts == 1
    assert hall.state(hold) is State.CLAIMED


def test_without_the_jobs_own_verifier_nothing_moves(hall: Hall) -> None:
    ask(hall)
    hold = hall.claimed()
    for key in (SECOND, THIRD, ROTATED):
        assert hand_in(hall, hold, key).outcome is Outcome.KEEP
    assert hand_in(hall, hold, VERIFIER).outcome is Outcome.RELEASE


def test_verifiers_that_disagree_move_nothing_and_time_opens_a_dispute(hall: Hall) -> None:
    ask(hall)
    hold = hall.claimed()
    hand_in(hall, hold, VERIFIER)
    assert hand_in(hall, hold, SECOND, lambda hold: rejected(hold, FALSE)).outcome is Outcome.KEEP
    hall.now += hold.job.document.verification_s
    hall.escrow.run_timers(hall.now)
    assert hall.state(hold) is State.DISPUTED
    assert hand_in(hall, hold, THIRD).outcome is Outcome.RELEASE


def test_what_a_revoked_key_had_signed_before_counts_no_more(hall: Hall) -> None:
    """Not towards the number, and not as the job's own verifier's either."""
    ask(hall)
    own, other = hall.claimed(), hall.claimed()
    hand_in(hall, own, VERIFIER)
    hand_in(hall, other, SECOND)
    ask(hall, trust=TRUST.without(VERIFIER.public).without(SECOND.public))
    for key in (VERIFIER, SECOND):
        with refused("settle.untrusted", Fault.VERIFIER):
            hand_in(hall, own, key)
    assert [hand_in(hall, own, key).outcome for key in (THIRD, ROTATED)] == [Outcome.KEEP] * 2
    ask(hall, trust=TRUST.without(SECOND.public))
    assert hand_in(hall, other, VERIFIER).missing_receipts == 1
    assert hand_in(hall, other, THIRD).outcome is Outcome.RELEASE


def test_one_of_one_lets_a_verifiers_key_be_taken_back(hall: Hall) -> None:
    ask(hall, need=1, above=0)
    hold, stolen = hall.claimed(), hall.claimed()
    with refused("settle.untrusted"):
        hand_in(hall, hold, STRANGER)
    assert hand_in(hall, hold, SECOND).outcome is Outcome.KEEP
    assert hand_in(hall, hold, VERIFIER).outcome is Outcome.RELEASE
    ask(hall, need=1, above=0, trust=TRUST.without(VERIFIER.public))
    for verdict in (accepted, lambda hold: rejected(hold, FALSE), lambda hold: rejected(hold, MEASURED)):
        with refused("settle.untrusted"):
            hand_in(hall, stolen, VERIFIER, verdict)
    assert hall.state(stolen) is State.CLAIMED


def test_a_dispute_takes_the_jobs_verifier_alone_and_nobody_elses(hall: Hall) -> None:
    ask(hall)
    hold = hall.claimed()
    assert hand_in(hall, hold, SECOND, lambda hold: rejected(hold, MEASURED)).outcome is Outcome.KEEP
    assert hand_in(hall, hold, VERIFIER, lambda hold: rejected(hold, MEASURED)).state is State.DISPUTED


def test_a_key_counts_within_its_interval_only(hall: Hall) -> None:
    late = TrustStore((*TRUST.keys[:2], TrustedKey(SECOND.public, "second", NOW + 1, NOW + 9)))
    ask(hall, trust=late)
    hold = hall.claimed()
    with refused("settle.untrusted", Fault.VERIFIER):
        hand_in(hall, hold, SECOND)
    with refused("settle.untrusted"):
        hand_in(hall, hold, STRANGER)
    assert hand_in(hall, hold, VERIFIER).missing_receipts == 1


def test_each_receipt_is_compared_with_the_hold(hall: Hall) -> None:
    ask(hall)
    hold, other = hall.claimed(), hall.claimed()
    hand_in(hall, hold, VERIFIER)
    with refused("settle.hold"):
        receipt = Receipt.issue(accepted(other), SECOND)
        settle_receipt(hold.id, receipt, escrow=hall.escrow, clock=hall.clock)
    assert hall.state(hold) is State.CLAIMED


def test_an_inconclusive_receipt_counts_for_nothing(hall: Hall) -> None:
    ask(hall)
    hold = hall.claimed()
    assert hand_in(hall, hold, SECOND, inconclusive).missing_receipts == 0
    assert hand_in(hall, hold, VERIFIER).missing_receipts == 1


def test_all_at_once_decide_once(hall: Hall) -> None:
    ask(hall, need=3)
    hold = hall.claimed()
    with ThreadPoolExecutor(3) as pool:
        decisions = list(pool.map(lambda key: hand_in(hall, hold, key), (VERIFIER, SECOND, THIRD)))
    assert Outcome.RELEASE in {decision.outcome for decision in decisions}
    assert len(hall.escrow.hold(hold.id).capture(0).decisions) == 1


def test_from_an_event_loop_too(hall: Hall) -> None:
    ask(hall)
    hold = hall.claimed()
    receipt = Receipt.issue(accepted(hold), VERIFIER)
    waiting = asyncio.run(asettle_receipt(hold.id, receipt, escrow=hall.escrow, clock=hall.clock))
    assert waiting.missing_receipts == 1


def test_a_job_that_could_never_get_them_is_not_funded(hall: Hall) -> None:
    ask(hall, trust=TrustStore(TRUST.keys[2:]))
    with pytest.raises(NotFundable) as caught:
        hall.fund()
    assert [reason.code for reason in caught.value.reasons] == ["quorum.verifier"]


def test_what_cannot_be_asked_for(hall: Hall) -> None:
    for need in (0, 4, 17):
        with pytest.raises(Misuse):
            ask(hall, need=need)
    with pytest.raises(Misuse):
        ask(hall, above=-1)
    with refused("escrow.currency"):
        unknown = type(USDC)("EUR", 2)
        QuorumBook(hall.escrow.store).set(unknown, above=0, need=2, trust=TRUST, now=NOW)


def test_the_command_sets_and_sets_again(hall: Hall) -> None:
    home = hall.path.parent
    assert hall.path.name == DATABASE_NAME
    TRUST.save(home / "trust.json")
    for above in ("0.1", "0.4"):
        arguments = ["--above", above, "--need", "2", "--trust", str(home / "trust.json"), "--json"]
        result = CliRunner().invoke(main, ["quorum", "set", str(home), *arguments])
        assert json.loads(result.output) == {"above": above, "currency": "USDC", "need": 2}
    quorum = QuorumBook(hall.escrow.store).find("USDC", PRICE)
    assert quorum is not None
    assert (quorum.above, quorum.need) == (USDC.parse("0.4"), 2)
    assert QuorumBook(hall.escrow.store).find("USDC", USDC.parse("0.4")) is None
