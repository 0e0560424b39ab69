"""Dishonest sellers of chat answers: each cheat's codes, the fault, and where the money is afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from escrow_builders import memory_folder
from judging import BUYER, NOW, PRICE, PROVIDER, VERIFIER
from proofhold.catalogue import Catalogue
from proofhold.chat import signed_part
from proofhold.drafting import USDC, Terms, draft_job
from proofhold.escrow import State
from proofhold.escrow.rail import LedgerRail
from proofhold.escrow.refusals import Refused
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.provider import accept
from proofhold.provider.chat import respond_with
from proofhold.runner import InlineRunner
from proofhold.settlement import fund, verify_and_settle
from proofhold.standard import standard_verifier
from serving import PAYEE, REQUEST, document, evidence_of, policy, respond, service

CALLS = [{"function": {"arguments": "{}", "name": "pay"}, "id": "call_1", "type": "function"}]
TEXT = "It is 4. ✓"


def _altered(**changes: Any) -> dict[str, Any]:
    honest: dict[str, Any] = signed_part(respond()).to_json()
    return honest | changes


def _choice(message: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    message = {"content": TEXT, "role": "assistant"} | (message or {})
    return _altered(choices=[{"index": 0, "message": message} | changes])


TEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "last_years_answer": (respond(at=NOW - 330 * 86_400), _altered(), "opengradient.too_old"),
    "answer_of_the_year_2100": (respond(at=4_102_444_800), _altered(), "opengradient.from_the_future"),
    "inflated_usage": (respond(), _altered(usage={"total_tokens": 9_999_999}), "answer.usage"),
    "relabelled_model": (respond(), _altered(model="gpt-5"), "opengradient.model_label"),
    "changed_finish_reason": (respond(), _choice(finish_reason="length"), "answer.finish_reason"),
    "injected_image": (respond(), _choice({"images": [{"url": "data:,"}]}), "answer.attachment"),
    "second_choice": (
        respond(),
        _altered(
            choices=[
                {"index": i, "message": {"content": text, "role": "assistant"}}
                for i, text in enumerate((TEXT, "5"))
            ]
        ),
        "answer.choices",
    ),
    "tool_calls_beside_text": (respond(), _choice({"tool_calls": CALLS}), "answer.mixed"),
    "text_as_a_tool_call": (
        respond(message={"content": json.dumps(CALLS, sort_keys=True), "role": "assistant"}),
        _altered(
            choices=[
                {
                    "finish_reason": "tool_calls",
                    "index": 0,
                    "message": {"role": "assistant", "tool_calls": CALLS},
                }
            ]
        ),
        "opengradient.tool_calls",
    ),
    "answer_to_a_cheaper_question": (
        respond(REQUEST | {"max_tokens": 1}),
        _altered(),
        "opengradient.request",
    ),
}


@pytest.fixture
def escrow() -> Iterator[SqliteEscrow]:
    with memory_folder() as folder:
        made = SqliteEscrow.create(folder / "escrow.db", escrow="test-escrow", operators=[VERIFIER.public])
        made.deposit(BUYER.public, 10 * PRICE, USDC, key="buyer", now=NOW)
        yield made


def sell(
    escrow: SqliteEscrow,
    response: dict[str, Any],
    output: dict[str, Any],
    *,
    payee: str = PAYEE,
    request: dict[str, Any] = REQUEST,
) -> Any:
    """Sell one answer through the whole hook, and give the decision."""
    verifier, entry = standard_verifier(Catalogue((), (service(),)), InlineRunner()), service()
    payload, answer = document(request), document(output)
    draft = draft_job(
        Terms(price=PRICE, evidence_kinds=("opengradient",), sampling_rate_ppm=0),
        entry=entry,
        payload=payload,
        policy=policy(),
        buyer=BUYER,
        provider=PROVIDER.public,
        verifier=VERIFIER.public,
        escrow=escrow,
        now=NOW,
        payee=payee,
    )
    job = accept(draft, PROVIDER)
    fund(job, payload, policy=policy(), verifier=verifier, escrow=escrow, clock=lambda: NOW)
    bundle = respond_with(job, payload, answer, evidence_of(response), entry, PROVIDER)
    escrow.record_claim(bundle.exchange.claim, answer, now=NOW)
    decision = verify_and_settle(
        job.digest, bundle, verifier=verifier, policy=policy(), escrow=escrow, key=VERIFIER, clock=lambda: NOW
    )
    escrow.pump(LedgerRail(), now=NOW)
    return decision, escrow.hold(job.digest).capture(0).state


@pytest.mark.parametrize("cheat", TEN)
def test_ten_forged_responses_are_refunded_each_by_its_code(escrow: SqliteEscrow, cheat: str) -> None:
    response, output, code = TEN[cheat]
    decision, state = sell(escrow, response, output)
    assert [(reason.code, reason.fault) for reason in decision.receipt.reasons] == [(code, "provider")]
    assert state is State.REFUNDED
    assert escrow.audit() == ()


def test_an_honest_answer_is_paid_once(escrow: SqliteEscrow) -> None:
    response = respond()
    _, state = sell(escrow, response, _altered())
    assert state is State.RELEASED
    with pytest.raises(Refused) as caught:
        sell(escrow, response, _altered())
    assert caught.value.code == "claim.reused_evidence"
    assert escrow.audit() == ()


def test_a_reseller_is_not_paid(escrow: SqliteEscrow) -> None:
    decision, state = sell(escrow, respond(), _altered(), payee="reseller")
    assert [reason.code for reason in decision.receipt.reasons] == ["opengradient.payee"]
    assert state is State.REFUNDED
