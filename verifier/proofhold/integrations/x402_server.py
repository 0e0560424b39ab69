"""The gate at a server that is paid by x402: two ASGI layers around its middleware, hooks as a backstop.

The hooks of x402 do not see what was answered; the layer inside of its middleware does. It has the answer
judged, and where the verdict speaks against it, answers 502: x402 then cancels, and refunds what was
deposited. The layer outside sees to it that nobody is asked to pay (402) for a payment that may have settled.

    app.add_middleware(gate.inside)
    app.middleware("http")(payment_middleware(routes, server))
    app.add_middleware(gate.outside)
    gate.attach(server)

A hook on the provider's own server gates the provider with the provider's code: it protects an honest
provider's buyers from its mistakes. Against a dishonest one use the gate at the facilitator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from proofhold.canonical import Json
from proofhold.core import Fault
from proofhold.decision import Decision, Mode
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Escrow
from proofhold.escrow.paybook import MAX_ANSWER_BYTES, GatedPayment, PaymentBook, Status
from proofhold.escrow.refusals import Refused
from proofhold.integrations.asgi import (
    App,
    Receive,
    Recorded,
    Scope,
    Send,
    Watched,
    header,
    read_body,
    record,
)
from proofhold.integrations.terms import ESCROW_FLOW, EXTENSION, PaymentTerms, admit
from proofhold.integrations.x402_hooks import FAILURE, SettlementHooks, require_x402
from proofhold.settlement import Clock, ModeName, system_clock

if TYPE_CHECKING:
    from x402.schemas import (
        AbortResult,
        RecoveredSettleResult,
        SettleContext,
        SettleFailureContext,
        SettleResultContext,
        SkipSettleResult,
    )

log = logging.getLogger("proofhold.x402")

DEFAULT_LEASE_S = 600
MAX_REQUEST_BYTES = 16 * 2**20
MAX_RECEIPT_HEADER_BYTES = 4_096
"""The longest receipt that travels in a response's header; a longer one is named by its digest."""
RETRY_AFTER_S = 5

_STATUS_OF_CODE = {
    "payment.malformed": 400,
    "payment.no_identifier": 400,
    "payment.no_job": 400,
    "payment.no_payer": 400,
    "payment.mismatch": 409,
    "payment.in_progress": 409,
    "payment.failed": 409,
    "payment.too_large": 413,
    "payment.undecided": 503,
    "payment.settlement_unknown": 503,
}
"""What a code is answered with; any other with 502. Never 402, and always an error, so that x402 cancels."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What is judged: a paid request and what the handler answered, before anybody has seen it."""

    terms: PaymentTerms
    path: str
    request: bytes
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Judge: TypeAlias = Callable[[Answered], Awaitable[Decision]]
"""Judges an answer and settles its hold, such as by `averify_and_settle`."""


@dataclass(slots=True)
class _Attempt:
    """What became of settling within one request: the hooks tell it to the layer outside."""

    began: bool = False
    refused: str = ""


_attempt: ContextVar[_Attempt | None] = ContextVar("proofhold_x402_attempt", default=None)


class ServerGate:
    """Stands in front of the settlements of one server."""

    def __init__(
        self,
        escrow: Escrow,
        judge: Judge,
        *,
        mode: ModeName = Mode.LIVE,
        lease_s: int = DEFAULT_LEASE_S,
        clock: Clock = system_clock,
    ) -> None:
        """Make a gate.

        Args:
            escrow: holds the jobs' holds, and the payments in its database.
            judge: decides on an answer; what it raises is answered as our failure, without its text.
            mode: in shadow mode answers are judged once they have gone out, and nothing is changed or held
                back. The judge's own mode is its own affair.
            lease_s: how long answering and judging may take before the same payment is taken up again.
            clock: unix seconds.

        Raises:
            Misuse: the x402 package is not installed.

        """
        require_x402()
        self.book = PaymentBook(escrow.store)
        self._escrow, self._judge, self._mode = escrow, judge, Mode(mode)
        self._lease_s, self._clock = lease_s, clock
        self._hooks = SettlementHooks(self.book, clock)

    def attach(self, server: Any) -> None:
        """Register the hooks and the extension with an ``x402ResourceServer``; in shadow mode none."""
        if self._mode is Mode.SHADOW:
            return
        server.on_before_settle(self.before_settle)
        server.on_after_settle(self.after_settle)
        server.on_settle_failure(self.settle_failed)
        server.register_extension(ReceiptExtension(self.book))

    def inside(self, app: App) -> App:
        """Wrap what x402's middleware wraps: the answer is judged before x402 settles."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            payload = (scope.get("state") or {}).get("payment_payload")
            if scope["type"] != "http" or payload is None:
                await app(scope, receive, send)
                return
            if self._mode is Mode.SHADOW:
                await self._watch(app, scope, receive, send, payload)
                return
            answer = await self._answer(app, scope, receive, payload)
            await answer.send(send)

        return gated

    def outside(self, app: App) -> App:
        """Wrap x402's middleware: a 402 for a payment that is known here is answered by what is known."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            live = self._mode is Mode.LIVE and scope["type"] == "http"
            terms = _terms_in(scope) if live else None
            if terms is None:
                await app(scope, receive, send)
                return
            replaced: list[Recorded] = []
            attempt = _Attempt()
            token = _attempt.set(attempt)

            async def sending(message: Any) -> None:
                if message["type"] == "http.response.start" and message["status"] == 402:
                    known = await asyncio.to_thread(self._instead_of_402, terms, attempt)
                    if known is not None:
                        replaced.append(known)
                        await known.send(send)
                if not replaced:
                    await send(message)

            try:
                await app(scope, receive, sending)
            finally:
                _attempt.reset(token)

        return guarded

    async def before_settle(self, context: SettleContext) -> AbortResult | SkipSettleResult | None:
        """Let a settlement through if its verdict says so, or if there is nothing to judge yet; a hook."""
        if context.phase == "cancel":
            return None  # a refund of the deposit
        before = self._before_deposit if context.phase == "before-handler" else self._hooks.before
        result = await asyncio.to_thread(before, context)
        if (attempt := _attempt.get()) is not None:
            attempt.began, attempt.refused = result is None, getattr(result, "reason", "")
        return result

    async def after_settle(self, context: SettleResultContext) -> None:
        """Record a settlement, or that a deposit was given back; a hook. A deposit itself is neither."""
        if context.phase == "after-handler":
            await asyncio.to_thread(self._hooks.after, context)
        elif context.phase == "cancel" and context.result.success:
            await asyncio.to_thread(self._hooks.returned, context)

    async def settle_failed(self, context: SettleFailureContext) -> RecoveredSettleResult:
        """Record a failure and answer it with a code; a hook."""
        return await asyncio.to_thread(self._hooks.failed, context)

    async def _answer(self, app: App, scope: Scope, receive: Receive, payload: Any) -> Recorded:
        terms: PaymentTerms | None = None
        try:
            terms = PaymentTerms.of(payload)
            payment = await asyncio.to_thread(
                self.book.open, terms.id, terms.binding, now=self._clock(), lease_s=self._lease_s
            )
        except Refused as refusal:
            return _refusal(refusal.code)
        if payment.status is not Status.OPEN:
            return _closed(payment)
        try:
            return await self._judged(app, scope, receive, terms, payment)
        except Refused as refusal:
            await asyncio.to_thread(self.book.give_back, terms.id, now=self._clock())
            return _refusal(refusal.code)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self.book.give_back, terms.id, now=self._clock()))
            raise

    async def _judged(
        self, app: App, scope: Scope, receive: Receive, terms: PaymentTerms, payment: GatedPayment
    ) -> Recorded:
        request = await read_body(receive, MAX_REQUEST_BYTES)
        if request is None:
            raise Refused("payment.too_large", "the request is too large to be judged", Fault.BUYER)
        if payment.answer is None:
            answer = await record(app, scope, request, MAX_ANSWER_BYTES)
            if answer is None:
                raise Refused("payment.too_large", "the answer is too large to be judged", Fault.PROVIDER)
            if answer.status >= 400:
                await asyncio.to_thread(self.book.give_back, terms.id, now=self._clock())
                return answer
            await asyncio.to_thread(self.book.keep_answer, terms.id, answer.encode())
        else:
            answer = Recorded.decode(payment.answer)
        return await self._decided(scope, request, terms, answer)

    async def _decided(self, scope: Scope, request: bytes, terms: PaymentTerms, answer: Recorded) -> Recorded:
        answered = Answered(terms, scope["path"], request, answer.status, answer.headers, answer.body)
        try:
            decision = await self._judge(answered)
            if decision.mode is Mode.SHADOW:
                raise Misuse("a live gate with a judge in shadow mode: nothing would ever be decided")
            job = (await asyncio.to_thread(self._escrow.hold, decision.hold)).job
            payment = await asyncio.to_thread(
                admit, self.book, terms, job, decision.receipt, now=self._clock()
            )
        except Refused:
            raise
        except Exception as error:
            log.exception("an answer could not be judged")
            raise Refused(FAILURE, "the answer could not be judged", Fault.VERIFIER) from error
        if payment.outcome == "release":
            return answer
        if payment.outcome == "keep":
            raise Refused("payment.undecided", "the verdict is inconclusive: ask again")
        return _refusal("payment.refused")

    async def _watch(self, app: App, scope: Scope, receive: Receive, send: Send, payload: Any) -> None:
        """Let an answer through as it comes, and have it judged afterwards."""
        watched = Watched(receive, send, MAX_ANSWER_BYTES)
        await app(scope, watched.receive, watched.send)
        answer = watched.answer()
        if answer is None or answer.status >= 400:
            return
        try:
            request = bytes(watched.request)
            terms = PaymentTerms.of(payload)
            await self._judge(
                Answered(terms, scope["path"], request, answer.status, answer.headers, answer.body)
            )
        except Exception:
            log.exception("shadow mode: an answer could not be judged")

    def _before_deposit(self, context: SettleContext) -> AbortResult | None:
        """Let one deposit of a payment through; what settles as a whole before the answer cannot be gated."""
        from x402.schemas import AbortResult

        try:
            terms = PaymentTerms.of(context.payment_payload)
            terms.amount_of(context.requirements)
            if terms.flow != ESCROW_FLOW:
                raise Refused("payment.flow", "the payment settles before there is an answer to judge")
            found = self.book.open(
                terms.id, terms.binding, now=self._clock(), lease_s=self._lease_s, deposit=True
            )
            if found.status is not Status.DEPOSITING:
                raise Refused("payment.in_progress", "the payment was deposited before")
        except Refused as refusal:
            return AbortResult(refusal.code)
        except Exception:
            log.exception("a deposit could not be looked up")
            return AbortResult(FAILURE)
        return None

    def _instead_of_402(self, terms: PaymentTerms, attempt: _Attempt) -> Recorded | None:
        try:
            payment = self.book.find(terms.id)
            if payment is None:
                return None
            if payment.binding != terms.binding:
                return _refusal("payment.mismatch")
            if attempt.refused and payment.status in (Status.OPEN, Status.DEPOSITING):
                self.book.give_back(terms.id, now=self._clock())
                return _refusal(attempt.refused)
            if attempt.began and payment.status in (Status.SETTLING, Status.DEPOSITING):
                # x402 calls no hook when its facilitator's client raises: nobody has seen how it ended.
                self.book.end_settling(terms.id, Status.UNKNOWN, reference="", now=self._clock())
                return _refusal("payment.settlement_unknown")
        except Exception:
            log.exception("a payment could not be looked up")
            return _refusal("payment.settlement_unknown")
        if payment.status in (Status.OPEN, Status.DEPOSITING):
            return _refusal("payment.in_progress") if payment.lease_end > self._clock() else None
        return None if payment.status is Status.FAILED else _closed(payment)


class ReceiptExtension:
    """Puts the receipt into x402's settlement response, in the extension's own field."""

    key = EXTENSION
    hooks = None
    transport_hooks = None
    dynamic_info_fields = None

    def __init__(self, book: PaymentBook) -> None:
        self._book = book

    def enrich_declaration(self, declaration: Any, transport_context: Any) -> Any:
        """Leave the declaration as it is."""
        del transport_context
        return declaration

    def enrich_settlement_response(self, declaration: Any, context: SettleResultContext) -> Json:
        """Give the receipt on which a payment was settled, or its digest where it is long; or None."""
        from proofhold import canonical
        from proofhold.receipt import Receipt

        del declaration
        payment = self._book.find(PaymentTerms.of(context.payment_payload).id)
        if payment is None or payment.receipt is None or context.phase != "after-handler":
            return None
        receipt = Receipt.decode(payment.receipt)
        content: dict[str, Json] = {"digest": receipt.digest, "verifier": receipt.signer}
        if len(payment.receipt) <= MAX_RECEIPT_HEADER_BYTES:
            content["receipt"] = canonical.decode(
                payment.receipt, max_bytes=MAX_RECEIPT_HEADER_BYTES, what="receipt"
            )
        return content


def declaration() -> dict[str, Json]:
    """Declare both extensions that a gated route needs, for the ``extensions`` of its configuration."""
    from x402.extensions.payment_identifier import (
        PAYMENT_IDENTIFIER,
        declare_payment_identifier_extension,
    )

    digest = {"pattern": "^[0-9a-f]{64}$", "type": "string"}
    schema = {"properties": dict.fromkeys(("input", "job", "model"), digest), "type": "object"}
    return {
        PAYMENT_IDENTIFIER: declare_payment_identifier_extension(required=True),
        EXTENSION: {"info": {"version": 1}, "schema": schema},
    }


def _terms_in(scope: Scope) -> PaymentTerms | None:
    """Read the payment in a request's header; None where there is none that could be known here."""
    from x402.http.utils import decode_payment_signature_header

    value = header(scope, b"payment-signature") or header(scope, b"x-payment")
    if value is None:
        return None
    try:
        return PaymentTerms.of(decode_payment_signature_header(value))
    except Exception:  # noqa: BLE001
        return None  # x402 says itself what is wrong with it


def _closed(payment: GatedPayment) -> Recorded:
    """Answer for a payment that is past answering."""
    match payment.status:
        case Status.SETTLED if payment.answer is not None:
            return Recorded.decode(payment.answer)
        case Status.UNKNOWN if payment.answer is not None and payment.reference:
            return Recorded.decode(payment.answer)  # x402 settles again, which asks about the transaction
        case Status.UNKNOWN | Status.SETTLED:
            return _refusal("payment.settlement_unknown")
        case Status.SETTLING:
            return _refusal("payment.in_progress")
        case Status.FAILED:
            return _refusal("payment.failed")
        case _:
            return _refusal("payment.refused")


def _refusal(code: str) -> Recorded:
    status = _STATUS_OF_CODE.get(code, 502)
    again = {"retry-after": str(RETRY_AFTER_S)} if status in (409, 503) and code != "payment.failed" else {}
    return Recorded.of_json(status, {"code": code}, again)
