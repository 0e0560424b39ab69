"""The gate at a facilitator: a payment settles when its verdict says so, and once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from x402.facilitator import x402Facilitator, x402FacilitatorSync
from x402.schemas import PaymentAbortedError, PaymentPayload, SettleResponse

from escrow_builders import refused
from judging import BUYER, NOW, PRICE, PROVIDER, STRANGER, VERIFIER
from proofhold.core import Fault, Verdict
from proofhold.escrow.escrow import HoldRecord
from proofhold.escrow.paybook import Status
from proofhold.escrow.refusals import Refused
from proofhold.integrations.terms import PaymentTerms
from proofhold.integrations.x402_facilitator import FacilitatorGate
from proofhold.job import Fee
from proofhold.keys import Signed, TrustedKey, TrustStore
from proofhold.receipt import Receipt
from proofhold_cli import main
from settling import FALSE, Hall, accepted, inconclusive, rejected
from simulated_x402 import NETWORK, PAY_TO, Shop


class Desk:
    """A facilitator with the gate in front of it, and a buyer's payments."""

    def __init__(self, hall: Hall, *, synchronous: bool = False, **options: Any) -> None:
        self.hall, self.shop = hall, Shop(hall)
        self.ledger = self.shop.ledger
        self.facilitator: Any = x402FacilitatorSync() if synchronous else x402Facilitator()
        self.facilitator.register([NETWORK], self.ledger)
        self.gate = FacilitatorGate(hall.escrow, clock=hall.clock, **options)
        self.gate.attach(self.facilitator)

    def claimed(self) -> HoldRecord:
        return self.hall.claimed(payee=PAY_TO)

    def admit(self, hold: HoldRecord, verdict: Callable[[HoldRecord], Verdict] = accepted) -> None:
        self.gate.admit(self.shop.pay(hold), hold.job, Receipt.issue(verdict(hold), VERIFIER))

    def settle(self, payload: PaymentPayload, amount: int = PRICE) -> SettleResponse:
        settled = self.facilitator.settle(payload, self.shop.requirements(amount))
        response: SettleResponse = asyncio.run(settled) if asyncio.iscoroutine(settled) else settled
        return response

    def refuses(self, code: str, payload: PaymentPayload, amount: int = PRICE) -> None:
        calls = self.ledger.calls
        with pytest.raises(PaymentAbortedError) as caught:
            self.settle(payload, amount)
        assert (caught.value.reason, self.ledger.calls) == (code, calls)

    def status(self, hold: HoldRecord) -> Status:
        payment = self.gate.book.find(f"pay_{hold.id}")
        assert payment is not None
        return payment.status


@pytest.fixture(params=["async", "sync"])
def desk(hall: Hall, request: pytest.FixtureRequest) -> Desk:
    return Desk(hall, synchronous=request.param == "sync")


def test_a_payment_settles_once_its_verdict_is_there_and_once_only(desk: Desk) -> None:
    hold = desk.claimed()
    payload = desk.shop.pay(hold)
    desk.refuses("payment.no_verdict", payload)
    desk.admit(hold)
    assert desk.settle(payload).success
    assert (desk.ledger.settled, desk.status(hold)) == ({hold.id: PRICE}, Status.SETTLED)
    for _ in range(3):
        desk.refuses("payment.settled", payload)


@pytest.mark.parametrize("verdict", [lambda hold: rejected(hold, FALSE), inconclusive])
def test_a_verdict_that_does_not_release_settles_nothing(desk: Desk, verdict: Any) -> None:
    hold = desk.claimed()
    desk.admit(hold, verdict)
    desk.refuses("payment.refused", desk.shop.pay(hold))


def test_an_inconclusive_verdict_may_be_followed_by_another_and_no_other_may(desk: Desk) -> None:
    hold = desk.claimed()
    desk.admit(hold, inconclusive)
    desk.admit(hold)
    desk.admit(hold)
    with refused("payment.decided"):
        desk.admit(hold, lambda hold: rejected(hold, FALSE))
    assert desk.settle(desk.shop.pay(hold)).success


def test_replayed_payload_x8_settles_once(hall: Hall) -> None:
    desk = Desk(hall)
    hold = desk.claimed()
    desk.admit(hold)
    payload, requirements = desk.shop.pay(hold), desk.shop.requirements()

    async def all_at_once() -> list[Any]:
        settling = (desk.facilitator.settle(payload, requirements) for _ in range(8))
        return await asyncio.gather(*settling, return_exceptions=True)

    outcomes = asyncio.run(all_at_once())
    assert sum(isinstance(outcome, SettleResponse) for outcome in outcomes) == 1
    codes = {o.reason for o in outcomes if isinstance(o, PaymentAbortedError)}
    assert codes <= {"payment.in_progress", "payment.settled"}
    assert (desk.ledger.calls, desk.ledger.settled) == (1, {hold.id: PRICE})


def test_the_identifier_is_bound_to_everything_it_stands_for(desk: Desk) -> None:
    hold = desk.claimed()
    desk.admit(hold)
    payload = desk.shop.pay(hold)
    desk.refuses("payment.mismatch", desk.shop.pay(hold, key=STRANGER))
    desk.refuses("payment.mismatch", desk.shop.pay(hold, model="00" * 32))
    desk.refuses("payment.mismatch", desk.shop.pay(hold, input="00" * 32))
    desk.refuses("payment.amount", payload, PRICE + 1)
    for field, value in (("pay_to", "0xThief"), ("asset", "other"), ("network", "simulated:other")):
        requirements = desk.shop.requirements().model_copy(update={field: value})
        changed = payload.model_copy(update={"accepted": requirements})
        desk.refuses("payment.mismatch", changed)
    accepted_less = payload.model_copy(update={"accepted": desk.shop.requirements(PRICE - 1)})
    desk.refuses("payment.amount", accepted_less)
    assert desk.settle(payload, PRICE - 1).success


def test_a_verdict_about_another_job_or_of_another_key_is_not_admitted(hall: Hall) -> None:
    trust = TrustStore((TrustedKey(VERIFIER.public, "us", 0, NOW),))
    desk, strict = Desk(hall), Desk(hall, trust=trust)
    hold, other = desk.claimed(), desk.claimed()
    payload = desk.shop.pay(hold)
    good = Receipt.issue(accepted(hold), VERIFIER)
    with refused("payment.receipt", Fault.VERIFIER):
        desk.gate.admit(payload, hold.job, Receipt.issue(accepted(hold), STRANGER))
    with refused("payment.receipt"):
        desk.gate.admit(payload, hold.job, Receipt.issue(accepted(other), VERIFIER))
    with refused("payment.receipt"):
        desk.gate.admit(payload, hold.job, Receipt.issue(accepted(hold, policy="00" * 32), VERIFIER))
    with refused("payment.mismatch"):
        desk.gate.admit(payload, other.job, Receipt.issue(accepted(other), VERIFIER))
    with refused("payment.job"):
        unsigned = Signed.new(hold.job.document, BUYER)
        desk.gate.admit(payload, unsigned, good)
    for changes in ({"captures": 2}, {"fee": Fee(ppm=1, account="protocol")}):
        split = Signed.new(replace(hold.job.document, **changes), BUYER, PROVIDER)
        named = {"job": split.digest, "payment": "a-payment-that-splits"}
        with refused("payment.job"):
            desk.gate.admit(desk.shop.pay(hold, **named), split, good)  # type: ignore[arg-type]
    with refused("payment.untrusted"):  # the key's interval ends where the judgement begins
        strict.gate.admit(payload, hold.job, good)
    assert desk.gate.book.find(payload.extensions["payment-identifier"]["info"]["id"]) is None  # type: ignore[index]


def test_one_verdict_settles_one_payment(desk: Desk) -> None:
    hold = desk.claimed()
    desk.admit(hold)
    second = desk.shop.pay(hold, payment="another-identifier")
    with refused("payment.reused_verdict"):
        desk.gate.admit(second, hold.job, Receipt.issue(accepted(hold), VERIFIER))
    desk.refuses("payment.no_verdict", second)


def test_what_settles_before_the_answer_cannot_be_gated_here(hall: Hall) -> None:
    desk = Desk(hall)
    for flow in ("escrow", "upfront"):
        desk.shop.flow = flow
        hold = desk.claimed()
        desk.refuses("payment.flow", desk.shop.pay(hold))


def test_an_unknown_outcome_is_never_settled_again_blindly(desk: Desk) -> None:
    hold = desk.claimed()
    desk.admit(hold)
    desk.ledger.script = ["timeout"]
    response = desk.settle(desk.shop.pay(hold))
    assert (response.success, response.error_reason) == (False, "payment.settlement_unknown")
    assert "hunter2" not in response.model_dump_json()
    desk.refuses("payment.settlement_unknown", desk.shop.pay(hold))
    assert [payment.job for payment in desk.gate.book.unsettled(now=NOW)] == [hold.id]


def test_a_pending_settlement_keeps_x402s_own_word_and_is_asked_about(desk: Desk) -> None:
    hold = desk.claimed()
    desk.admit(hold)
    desk.ledger.script = ["pending"]
    response = desk.settle(desk.shop.pay(hold))
    assert (response.error_reason, bool(response.transaction)) == ("settlement_pending", True)
    assert desk.settle(desk.shop.pay(hold)).success
    assert (desk.ledger.settled, desk.status(hold)) == ({hold.id: PRICE}, Status.SETTLED)


def test_a_known_failure_is_one(desk: Desk) -> None:
    hold = desk.claimed()
    desk.admit(hold)
    desk.ledger.script = ["insufficient_funds"]
    assert desk.settle(desk.shop.pay(hold)).error_reason == "insufficient_funds"
    desk.refuses("payment.failed", desk.shop.pay(hold))


def test_after_a_known_failure_the_payer_can_make_another_payment_and_one_only(desk: Desk) -> None:
    hold = desk.claimed()
    desk.admit(hold)
    desk.ledger.script = ["insufficient_funds"]
    desk.settle(desk.shop.pay(hold))
    receipt = Receipt.issue(accepted(hold), VERIFIER)
    another, third = (desk.shop.pay(hold, payment=f"another-identifier-{n}") for n in range(2))
    desk.gate.admit(another, hold.job, receipt)
    desk.refuses("payment.failed", desk.shop.pay(hold))
    assert desk.settle(another).success
    with refused("payment.reused_verdict"):
        desk.gate.admit(third, hold.job, receipt)
    desk.refuses("payment.settled", another)
    desk.refuses("payment.failed", desk.shop.pay(hold))
    assert desk.ledger.settled == {hold.id: PRICE}


def test_exception_text_does_not_leak(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("postgres://settler:hunter2@10.0.0.7/money")

    monkeypatch.setattr(type(desk.gate.book), "begin_settling", broken)
    desk.refuses("payment.failure", desk.shop.pay(desk.claimed()))


def test_in_shadow_mode_nothing_is_held_back(hall: Hall, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(hall, mode="shadow")
    assert desk.settle(desk.shop.pay(desk.claimed())).success
    assert "payment.no_verdict" in caplog.text


def test_the_payer_is_the_from_and_not_a_spender(desk: Desk) -> None:
    payload = desk.shop.pay(desk.claimed())
    payload.payload = {"permit2Authorization": {"from": "0xPayer", "spender": "0xProxy"}, "signature": "0x"}
    terms = PaymentTerms.of(payload)
    assert terms.payer == "0xPayer"
    assert replace(terms, payer="0xProxy").binding != terms.binding
    payload.payload = {"signature": "0x"}
    with refused("payment.no_payer", Fault.BUYER):
        PaymentTerms.of(payload)
    payload.payload = {"from": "0xPayer", "deep": 2**60}
    with refused("payment.malformed"):
        PaymentTerms.of(payload)


def test_no_payload_makes_reading_it_trip(hall: Hall) -> None:
    desk = Desk(hall)
    payload = desk.shop.pay(desk.claimed())
    anything: list[Any] = [
        None,
        1,
        1.5,
        "\ud800",
        "x" * 300,
        [],
        {},
        {"info": None},
        {"info": {"id": 5}},
        float("nan"),
    ]
    for value in anything:
        for key in ("payment-identifier", "proofhold"):
            changed = payload.model_copy(update={"extensions": {**(payload.extensions or {}), key: value}})
            with pytest.raises(Refused):
                PaymentTerms.of(changed)
        for inner in ({"from": value}, {"authorization": value}, {"from": "0xPayer", "x": value}):
            changed = payload.model_copy(update={"payload": inner})
            with contextlib.suppress(Refused):
                assert len(PaymentTerms.of(changed).binding) == 64
        requirements = desk.shop.requirements().model_copy(update={"extra": {"paymentFlow": value}})
        with contextlib.suppress(Refused):
            assert len(PaymentTerms.of(payload.model_copy(update={"accepted": requirements})).binding) == 64


def test_an_operator_says_what_became_of_a_payment(hall: Hall) -> None:
    desk, home = Desk(hall), str(hall.path.parent)
    hold = desk.claimed()
    desk.admit(hold)
    desk.ledger.script = ["timeout"]
    desk.settle(desk.shop.pay(hold))

    def run(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(main, ["payment", *arguments, "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.output) if code == 0 else None

    [listed] = run("list", home)["payments"]
    assert (listed["job"], listed["status"]) == (hold.id, "unknown")
    run("record", home, listed["id"], code=2)
    run("record", home, "pay_of_somebody_else", "--failed", code=4)
    assert run("record", home, listed["id"], "--settled", "0xfound")["status"] == "settled"
    assert run("list", home) == {"payments": []}
    run("record", home, listed["id"], "--failed", code=4)
    desk.refuses("payment.settled", desk.shop.pay(hold))


def test_without_the_package_the_error_names_the_extra(hall: Hall) -> None:
    program = (
        "import sys; sys.modules['x402'] = None\n"
        "from proofhold.integrations.x402_facilitator import FacilitatorGate\n"
        "from proofhold.errors import Misuse\n"
        "try:\n    FacilitatorGate(None)\nexcept Misuse as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "the x402 gate needs an extra: pip install 'proofhold[x402]'\n"
