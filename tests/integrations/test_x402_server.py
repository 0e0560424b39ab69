"""The gate at a server: each pitfall of x402's hooks by name, shown to be one, and what the gate does."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from x402.extensions.payment_identifier import PAYMENT_IDENTIFIER
from x402.http.utils import decode_payment_response_header
from x402.schemas import AbortResult, PaymentPayload, SettleResponse

from escrow_builders import refused
from judging import PRICE, STRANGER, VERIFIER, catalogue, logits, policy, runner
from proofhold.canonical import encode
from proofhold.decision import Decision, Mode
from proofhold.escrow.escrow import HoldRecord, Ruling
from proofhold.escrow.paybook import SETTLING_LEASE_S, Status
from proofhold.escrow.shadows import ShadowBook
from proofhold.escrow.states import State
from proofhold.exchange import Bundle
from proofhold.integrations import x402_server
from proofhold.integrations.terms import EXTENSION, PaymentTerms
from proofhold.integrations.x402_server import Answered
from proofhold.job import PPM
from proofhold.keys import Envelope
from proofhold.receipt import Receipt
from proofhold.records import Record
from proofhold.settlement import averify_and_settle, settle
from proofhold.shadow import report
from proofhold.standard import standard_verifier
from settling import FALSE, MEASURED, Hall, accepted, inconclusive, rejected
from simulated_x402 import Shop


def run(shop: Shop, *payloads: PaymentPayload, app: Any = None, job: str = "") -> list[httpx.Response]:
    """Send paid requests, all at once."""
    served = app or shop.app()

    async def all_at_once() -> list[httpx.Response]:
        return await asyncio.gather(*(shop.ask(served, payload, job) for payload in payloads))

    return asyncio.run(all_at_once())


def settlement(response: httpx.Response) -> SettleResponse:
    return decode_payment_response_header(response.headers["payment-response"])


def status(shop: Shop, hold: HoldRecord) -> Status:
    payment = shop.gate.book.find(f"pay_{hold.id}")
    assert payment is not None
    return payment.status


def everything(response: httpx.Response) -> str:
    """All that a client sees, headers decoded."""
    decoded = [base64.b64decode(v).decode() for k, v in response.headers.items() if k.startswith("payment-")]
    return " ".join([response.text, str(response.headers), *decoded])


# --- what the verdict does ------------------------------------------------------------------------------


def test_an_accepted_answer_goes_out_and_its_payment_settles(shop: Shop) -> None:
    hold = shop.hire()
    [response] = run(shop, shop.pay(hold))
    assert response.status_code == 200
    assert response.content == shop.hall.bundle(hold).encode()
    assert shop.ledger.settled == {hold.id: PRICE}
    assert (settlement(response).success, status(shop, hold)) == (True, Status.SETTLED)


@pytest.mark.parametrize("reason", [FALSE, MEASURED])
def test_a_rejected_answer_is_a_502_and_nothing_settles(shop: Shop, reason: Any) -> None:
    shop.verdict = lambda hold: rejected(hold, reason)
    hold = shop.hire()
    app, payload = shop.app(), shop.pay(hold)
    for _ in range(2):
        [response] = run(shop, payload, app=app)
        assert (response.status_code, response.json()) == (502, {"code": "payment.refused"})
    assert (shop.ledger.calls, shop.handled, status(shop, hold)) == (0, 1, Status.REFUSED)


def test_an_inconclusive_answer_is_kept_and_judged_again_without_running_the_handler_again(
    shop: Shop,
) -> None:
    shop.verdict = inconclusive
    hold = shop.hire()
    app, payload = shop.app(), shop.pay(hold)
    [response] = run(shop, payload, app=app)
    assert (response.status_code, response.json()) == (503, {"code": "payment.undecided"})
    assert "retry-after" in response.headers
    shop.verdict = accepted
    [response] = run(shop, payload, app=app)
    assert (response.status_code, shop.handled, shop.ledger.settled) == (200, 1, {hold.id: PRICE})


def test_the_whole_way_with_real_checks(shop: Shop) -> None:
    hall = shop.hall

    async def judge(answered: Answered) -> Decision:
        bundle = Bundle.decode(answered.body)
        hall.escrow.record_claim(bundle.exchange.claim, bundle.exchange.output, now=hall.now)
        return await averify_and_settle(
            bundle.exchange.job.digest,
            bundle,
            verifier=standard_verifier(catalogue(), runner()),
            policy=policy(),
            escrow=hall.escrow,
            key=VERIFIER,
            clock=hall.clock,
        )

    shop.gate._judge = judge
    honest, dishonest = shop.hire(sampling_rate_ppm=PPM), shop.hire(sampling_rate_ppm=PPM)

    async def handler(request: Request) -> Response:
        hold = hall.escrow.hold((await request.json())["job"])
        output = logits(0.0, dtype="float32") if hold.id == dishonest.id else None
        return Response(hall.bundle(hold, output).encode(), media_type="application/json")

    shop.handler = handler
    app = shop.app()
    [good] = run(shop, shop.pay(honest), app=app)
    [bad] = run(shop, shop.pay(dishonest), app=app)
    assert (good.status_code, bad.status_code) == (200, 502)
    assert shop.ledger.settled == {honest.id: PRICE}
    assert (hall.state(honest), hall.state(dishonest)) == (State.RELEASING, State.DISPUTED)


def test_the_receipt_comes_back_in_the_extensions_own_field(shop: Shop) -> None:
    hold = shop.hire()
    [response] = run(shop, shop.pay(hold))
    field = settlement(response).extensions[EXTENSION]  # type: ignore[index]
    receipt = Receipt.decode(encode(field["receipt"]))
    assert (receipt.digest, receipt.signer) == (field["digest"], field["verifier"])
    assert receipt.is_signed_by(VERIFIER.public)
    assert receipt.statement is not None
    assert receipt.statement.job == hold.id
    assert Envelope.read(Record(field["receipt"], what="receipt"), receipt.envelope.payload_type)


def test_a_long_receipt_is_named_by_its_digest(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x402_server, "MAX_RECEIPT_HEADER_BYTES", 100)
    [response] = run(shop, shop.pay(shop.hire()))
    assert set(settlement(response).extensions[EXTENSION]) == {"digest", "verifier"}  # type: ignore[index]


# --- pitfall: a hook does not see the body --------------------------------------------------------------


def test_body_not_visible_to_a_hook_and_visible_to_the_gate(shop: Shop) -> None:
    seen: list[Any] = []
    shop.server.on_before_settle(lambda context: seen.append(context.transport_context.response_body))
    hold = shop.hire()
    run(shop, shop.pay(hold))
    assert seen == [None]
    [answered] = shop.seen
    assert answered.body == shop.hall.bundle(hold).encode()
    assert (json.loads(answered.request), answered.path) == ({"job": hold.id}, "/infer")


# --- pitfall: the text of an exception reaches the client -----------------------------------------------

SECRET = "postgres://settler:hunter2@10.0.0.7/money"  # noqa: S105


def test_exception_text_of_a_bare_hook_leaks(hall: Hall) -> None:
    def hook(context: Any) -> None:
        raise RuntimeError(SECRET)

    shop = Shop(hall)
    shop.server.on_before_settle(hook)
    [response] = run(shop, shop.pay(shop.hire()), app=shop.app(gated=False))
    assert SECRET in everything(response)


def test_exception_text_of_a_judge_does_not_leak(shop: Shop) -> None:
    async def judge(answered: Answered) -> Decision:
        raise RuntimeError(SECRET)

    shop.gate._judge = judge
    [response] = run(shop, shop.pay(shop.hire()))
    assert (response.status_code, response.json()) == (502, {"code": "payment.failure"})
    assert "hunter2" not in everything(response)
    assert shop.ledger.calls == 0


def test_exception_text_of_our_database_does_not_leak(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(type(shop.gate.book), "begin_settling", broken)
    [response] = run(shop, shop.pay(shop.hire()))
    assert "payment.failure" in everything(response)
    assert "hunter2" not in everything(response)
    assert shop.ledger.calls == 0


@pytest.mark.parametrize("word", ["timeout", "lost"])
def test_exception_text_of_a_facilitator_does_not_leak(shop: Shop, word: str) -> None:
    shop.ledger.script = [word]
    [response] = run(shop, shop.pay(shop.hire()))
    assert "hunter2" not in everything(response)


# --- pitfall: an abort after the handler strands the deposit --------------------------------------------


def test_deposit_stranded_by_an_abort_in_a_hook(hall: Hall) -> None:
    shop = Shop(hall, flow="escrow")
    shop.server.on_before_settle(
        lambda context: AbortResult("no") if context.phase == "after-handler" else None
    )
    hold = shop.hire()
    run(shop, shop.pay(hold), app=shop.app(gated=False))
    assert (shop.ledger.deposits, shop.ledger.settled) == ([hold.id], {})  # deposited, and no refund


def test_deposit_is_refunded_by_the_gate(hall: Hall) -> None:
    shop = Shop(hall, flow="escrow", verdict=lambda hold: rejected(hold, FALSE))
    shop.gate.attach(shop.server)
    hold = shop.hire()
    [response] = run(shop, shop.pay(hold))
    assert response.status_code == 502
    assert (shop.ledger.deposits, shop.ledger.settled) == ([hold.id], {hold.id: 0})
    assert settlement(response).success


def test_deposit_is_captured_when_the_verdict_accepts(hall: Hall) -> None:
    shop = Shop(hall, flow="escrow")
    shop.gate.attach(shop.server)
    hold = shop.hire()
    [response] = run(shop, shop.pay(hold))
    assert (response.status_code, shop.ledger.deposits) == (200, [hold.id])
    assert (shop.ledger.settled, status(shop, hold)) == ({hold.id: PRICE}, Status.SETTLED)


def test_an_undecided_deposit_is_given_back_and_another_payment_can_be_made(hall: Hall) -> None:
    """The authorization behind it is spent: asking again with it could never work."""
    shop = Shop(hall, flow="escrow", verdict=inconclusive)
    shop.gate.attach(shop.server)
    hold, app = shop.hire(), shop.app()
    assert run(shop, shop.pay(hold), app=app)[0].json() == {"code": "payment.undecided"}
    assert (shop.ledger.settled, status(shop, hold)) == ({hold.id: 0}, Status.FAILED)
    shop.verdict = accepted
    calls = shop.ledger.calls
    [response] = run(shop, shop.pay(hold), app=app)
    assert (response.status_code, shop.ledger.calls) == (402, calls), "it is asked for another payment"
    [response] = run(shop, shop.pay(hold, payment="another-identifier"), app=app)
    assert (response.status_code, shop.ledger.settled) == (200, {hold.id: PRICE})
    assert shop.gate.book.unsettled(now=hall.now) == ()


def test_what_settles_as_a_whole_before_the_answer_is_refused(hall: Hall) -> None:
    shop = Shop(hall, flow="upfront")
    shop.gate.attach(shop.server)
    [response] = run(shop, shop.pay(shop.hire()))
    assert "payment.flow" in everything(response)
    assert (shop.ledger.calls, shop.handled) == (0, 0)


# --- pitfall: the same payload, eight times at once -----------------------------------------------------


def test_replayed_payload_x8_without_the_gate_runs_and_settles_eight_times(hall: Hall) -> None:
    shop = Shop(hall, slow_s=0.02)
    hold = shop.hire()
    run(shop, *[shop.pay(hold)] * 8, app=shop.app(gated=False))
    assert (shop.handled, shop.ledger.calls) == (8, 8)


@pytest.mark.parametrize("flow", ["authorization", "escrow"])
def test_replayed_payload_x8_runs_once_and_settles_once(hall: Hall, flow: str) -> None:
    shop = Shop(hall, slow_s=0.02, flow=flow)
    shop.gate.attach(shop.server)
    hold, app = shop.hire(), shop.app()
    responses = run(shop, *[shop.pay(hold)] * 8, app=app)
    assert sorted(response.status_code for response in responses) == [200] + [409] * 7
    assert {r.json()["code"] for r in responses if r.status_code == 409} == {"payment.in_progress"}
    assert (shop.handled, shop.ledger.settled) == (1, {hold.id: PRICE})
    assert shop.ledger.calls == (1 if flow == "authorization" else 2)
    again = run(shop, *[shop.pay(hold)] * 8, app=app)
    assert {response.status_code for response in again} == {200}
    assert {response.content for response in again} == {shop.hall.bundle(hold).encode()}
    assert (shop.handled, shop.ledger.calls) == (1, 1 if flow == "authorization" else 2)


def test_a_repeated_settlement_is_marked_as_one(shop: Shop) -> None:
    hold, app = shop.hire(), shop.app()
    [first] = run(shop, shop.pay(hold), app=app)
    [second] = run(shop, shop.pay(hold), app=app)
    assert settlement(first).extra is None
    assert (settlement(second).success, settlement(second).extra) == (True, {EXTENSION: "replayed"})
    assert settlement(second).transaction == settlement(first).transaction
    assert shop.ledger.calls == 1


# --- pitfall: a 402 after a settlement whose outcome nobody knows ---------------------------------------


def test_never_402_after_an_unknown_settle_x402_alone_asks_to_pay_again(hall: Hall) -> None:
    shop = Shop(hall)
    shop.ledger.script = ["timeout"]
    hold = shop.hire()
    [response] = run(shop, shop.pay(hold), app=shop.app(gated=False))
    assert (response.status_code, shop.ledger.settled) == (402, {hold.id: PRICE})  # paid, and asked to pay


@pytest.mark.parametrize("word", ["timeout", "lost", "transaction_failed"])
def test_never_402_after_an_unknown_settle(shop: Shop, word: str) -> None:
    shop.ledger.script = [word]
    hold, app = shop.hire(), shop.app()
    for _ in range(3):
        [response] = run(shop, shop.pay(hold), app=app)
        assert (response.status_code, response.json()) == (503, {"code": "payment.settlement_unknown"})
    assert (shop.ledger.calls, shop.handled) == (1, 1)
    [payment] = shop.gate.book.unsettled(now=shop.hall.now)
    assert (payment.status, payment.job) == (Status.UNKNOWN, hold.id)
    shop.gate.book.end_settling(payment.id, Status.SETTLED, reference="0xfound", now=shop.hall.now)
    [response] = run(shop, shop.pay(hold), app=app)
    assert (response.status_code, settlement(response).transaction) == (200, "0xfound")
    assert shop.ledger.calls == 1


def test_a_pending_settlement_is_asked_about_by_its_transaction(shop: Shop) -> None:
    shop.ledger.script = ["pending", "pending"]
    hold, app = shop.hire(), shop.app()
    [response] = run(shop, shop.pay(hold), app=app)
    assert response.status_code != 402
    [response] = run(shop, shop.pay(hold), app=app)
    assert (response.status_code, shop.handled, shop.ledger.settled) == (200, 1, {hold.id: PRICE})


def test_a_failure_that_says_nothing_was_sent_may_ask_to_pay_again(shop: Shop) -> None:
    shop.ledger.script = ["insufficient_funds"]
    hold = shop.hire()
    [response] = run(shop, shop.pay(hold))
    assert (response.status_code, settlement(response).error_reason) == (402, "payment.failed")
    assert status(shop, hold) is Status.FAILED


def test_whoever_goes_silent_while_settling_leaves_it_unknown(shop: Shop) -> None:
    hold, app = shop.hire(), shop.app()
    shop.server._after_settle_hooks.clear()  # the process dies before it can record the end
    run(shop, shop.pay(hold), app=app)
    assert status(shop, hold) is Status.SETTLING
    [response] = run(shop, shop.pay(hold), app=app)
    assert (response.status_code, response.json()["code"]) == (409, "payment.in_progress")
    shop.hall.now += SETTLING_LEASE_S
    terms = PaymentTerms.of(shop.pay(hold))
    with refused("payment.settlement_unknown"):
        shop.gate.book.begin_settling(terms.id, terms.binding, PRICE, now=shop.hall.now)
    [response] = run(shop, shop.pay(hold), app=app)
    assert (response.status_code, shop.ledger.calls) == (503, 1)


# --- pitfall: a payment identifier is only a word -------------------------------------------------------


def test_an_identifier_stands_for_payer_requirements_model_and_input(shop: Shop) -> None:
    hold, other, app = shop.hire(), shop.hire(), shop.app()
    payment = f"pay_{hold.id}"
    assert run(shop, shop.pay(hold), app=app)[0].status_code == 200
    for changed in (
        shop.pay(hold, payment=payment, key=STRANGER),
        shop.pay(hold, payment=payment, model="00" * 32),
        shop.pay(hold, payment=payment, input="00" * 32),
        shop.pay(other, payment=payment),
    ):
        [response] = run(shop, changed, app=app)
        assert (response.status_code, response.json()) == (409, {"code": "payment.mismatch"})
    assert (shop.handled, shop.ledger.calls) == (1, 1)


def test_a_payment_that_names_another_model_input_or_payee_than_its_job_never_settles(shop: Shop) -> None:
    app = shop.app()
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"model": "00" * 32}),
        ({}, {"input": "00" * 32}),
        ({"payee": "0xSomebodyElse"}, {}),
    ]
    for changes, named in cases:
        hold = shop.hire(**changes)
        [response] = run(shop, shop.pay(hold, **named), app=app)
        assert response.status_code == 409, (changes, named)
    assert shop.ledger.calls == 0


def test_one_verdict_settles_one_payment(shop: Shop) -> None:
    hold, app = shop.hire(), shop.app()
    assert run(shop, shop.pay(hold), app=app)[0].status_code == 200
    [response] = run(shop, shop.pay(hold, payment="another-identifier"), app=app)
    assert (response.status_code, response.json()) == (502, {"code": "payment.reused_verdict"})
    assert shop.ledger.calls == 1


def test_the_provider_cannot_raise_the_price_by_a_header(shop: Shop) -> None:
    hold = shop.hire()

    async def handler(request: Request) -> Response:
        body = shop.hall.bundle(hold).encode()
        return Response(body, headers={"Settlement-Overrides": json.dumps({"amount": str(PRICE + 1)})})

    shop.handler = handler
    [response] = run(shop, shop.pay(hold))
    assert "payment.amount" in everything(response)
    assert shop.ledger.calls == 0


@pytest.mark.parametrize("identifier", ["", "short", "x" * 129, "with space in it..", "pay_1234567890123\n"])
def test_a_payment_without_a_usable_identifier_is_refused(shop: Shop, identifier: str) -> None:
    payload = shop.pay(shop.hire())
    payload.extensions[PAYMENT_IDENTIFIER]["info"]["id"] = identifier  # type: ignore[index]
    [response] = run(shop, payload)
    assert (response.status_code, response.json()) == (400, {"code": "payment.no_identifier"})
    assert (shop.handled, shop.ledger.calls) == (0, 0)


def test_a_payment_without_a_job_is_refused(shop: Shop) -> None:
    hold = shop.hire()
    payload = shop.pay(hold, job="not a digest")
    [response] = run(shop, payload, job=hold.id)
    assert (response.status_code, response.json()) == (400, {"code": "payment.no_job"})


def test_nobody_gets_a_paid_answer_by_a_forged_signature(shop: Shop) -> None:
    hold, app = shop.hire(), shop.app()
    run(shop, shop.pay(hold), app=app)
    forged = shop.pay(hold)
    forged.payload["signature"] = "00" * 64
    [response] = run(shop, forged, app=app)
    assert (response.status_code, response.json()) == (409, {"code": "payment.mismatch"})


# --- the backstop, streams, and handlers that fail ------------------------------------------------------


def test_without_the_layers_the_hook_alone_settles_nothing(hall: Hall) -> None:
    shop = Shop(hall)
    shop.gate.attach(shop.server)
    [response] = run(shop, shop.pay(shop.hire()), app=shop.app(gated=False))
    assert "payment.no_verdict" in everything(response)
    assert shop.ledger.calls == 0


def test_a_stream_is_judged_whole_and_one_too_long_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, longer = shop.hire(), shop.hire()

    async def handler(request: Request) -> Response:
        body = shop.hall.bundle(shop.hall.escrow.hold((await request.json())["job"])).encode()

        async def chunks() -> Any:
            for start in range(0, len(body), 100):
                yield body[start : start + 100]

        return StreamingResponse(chunks())

    shop.handler = handler
    app = shop.app()
    assert run(shop, shop.pay(hold), app=app)[0].content == shop.hall.bundle(hold).encode()
    monkeypatch.setattr(x402_server, "MAX_ANSWER_BYTES", 1_000)
    [response] = run(shop, shop.pay(longer), app=app)
    assert (response.status_code, response.json()) == (413, {"code": "payment.too_large"})
    assert shop.ledger.settled == {hold.id: PRICE}


@pytest.mark.parametrize("raises", [True, False])
def test_a_handler_that_fails_is_not_judged_and_may_be_asked_again(shop: Shop, raises: bool) -> None:
    hold, app = shop.hire(), shop.app()

    async def failing(request: Request) -> Response:
        if raises:
            raise RuntimeError(SECRET)
        return Response(status_code=422)

    shop.handler = failing
    [response] = run(shop, shop.pay(hold), app=app)
    assert (response.status_code, shop.seen, shop.ledger.calls) == (500 if raises else 422, [], 0)
    assert "hunter2" not in everything(response)
    shop.handler = None
    assert run(shop, shop.pay(hold), app=app)[0].status_code == 200


# --- shadow mode ----------------------------------------------------------------------------------------


def test_in_shadow_mode_everything_goes_on_as_before_and_is_reported(hall: Hall) -> None:
    shop = Shop(hall, mode="shadow")
    shop.gate.attach(shop.server)

    async def judge(answered: Answered) -> Decision:
        bundle = Bundle.decode(answered.body)
        hall.escrow.record_claim(bundle.exchange.claim, bundle.exchange.output, now=hall.now)
        hold = hall.escrow.hold(bundle.exchange.job.digest)
        verdict = rejected(hold, FALSE)
        return settle(hold.id, verdict, escrow=hall.escrow, key=VERIFIER, mode="shadow", clock=hall.clock)

    shop.gate._judge = judge
    hold, app = shop.hire(), shop.app()
    [response] = run(shop, shop.pay(hold), app=app)
    assert (response.status_code, shop.ledger.settled) == (200, {hold.id: PRICE})
    ShadowBook(hall.escrow.store).tell(hold.id, 0, Ruling.RELEASE, now=hall.now)
    assert report(hall.escrow).currencies[0].at_stake == PRICE
    payload = shop.pay(shop.hire())
    payload.extensions = {}
    assert run(shop, payload, app=app, job=hold.id)[0].status_code == 200


def test_a_live_gate_with_a_shadow_judge_is_a_mistake_that_settles_nothing(shop: Shop) -> None:
    async def judge(answered: Answered) -> Decision:
        return replace(await shop.judge(answered), mode=Mode.SHADOW)

    shop.gate._judge = judge
    [response] = run(shop, shop.pay(shop.hire()))
    assert (response.status_code, response.json()) == (502, {"code": "payment.failure"})
