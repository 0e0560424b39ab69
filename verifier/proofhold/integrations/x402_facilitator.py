"""The gate at an x402 facilitator: a payment settles when a verdict on it has been recorded, and once.

This is the place to prefer. Whoever settles asks whoever judges, and the provider's own server has no say in
it. The verdict is found by the payment's identifier and everything that it is bound to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from proofhold.decision import Mode
from proofhold.escrow.escrow import Escrow
from proofhold.escrow.paybook import GatedPayment, PaymentBook
from proofhold.escrow.refusals import Refused
from proofhold.integrations.terms import AUTHORIZATION_FLOW, PaymentTerms, admit
from proofhold.integrations.x402_hooks import SettlementHooks, require_x402
from proofhold.job import SignedJob
from proofhold.keys import TrustStore
from proofhold.receipt import Receipt
from proofhold.settlement import Clock, ModeName, system_clock

if TYPE_CHECKING:
    from x402.schemas import AbortResult, RecoveredSettleResult, SettleContext, SettleFailureContext


class FacilitatorGate:
    """Stands in front of a facilitator's settlements.

    The payments that it knows lie in an escrow's database, which other processes may share: a verifier that
    runs elsewhere admits there, and the facilitator asks there.
    """

    def __init__(
        self,
        escrow: Escrow,
        *,
        trust: TrustStore | None = None,
        mode: ModeName = Mode.LIVE,
        clock: Clock = system_clock,
    ) -> None:
        """Make a gate.

        Args:
            escrow: whose database holds the payments.
            trust: the verifier keys that count, and when; without it the one that the job names counts.
            mode: in shadow mode nothing is held back, and what would have been is logged.
            clock: unix seconds.

        Raises:
            Misuse: the x402 package is not installed.

        """
        require_x402()
        self.book = PaymentBook(escrow.store)
        self._trust = trust
        self._clock = clock
        self._hooks = SettlementHooks(self.book, clock, Mode(mode))

    def attach(self, facilitator: Any) -> None:
        """Register the hooks with an ``x402Facilitator`` or its synchronous twin."""
        from x402.facilitator import x402FacilitatorSync

        synchronous = isinstance(facilitator, x402FacilitatorSync)
        hooks = (self.before_settle, self._hooks.after, self.settle_failed)
        before, after, failed = hooks if synchronous else map(_in_thread, hooks)
        facilitator.on_before_settle(before).on_after_settle(after).on_settle_failure(failed)

    def admit(self, payload: Any, job: SignedJob, receipt: Receipt) -> GatedPayment:
        """Record the verdict on a payment, given as x402's payload.

        Raises:
            Refused: the payment, the job and the receipt do not belong together, or the receipt served
                another payment: see `terms.admit`.

        """
        terms = PaymentTerms.of(payload)
        return admit(self.book, terms, job, receipt, now=self._clock(), trust=self._trust)

    def before_settle(self, context: SettleContext) -> AbortResult | None:
        """Let one settlement of a payment through whose verdict says so; a hook of the facilitator."""
        from x402.schemas import AbortResult

        result = self._hooks.before(context, _require_authorization)
        if result is None or isinstance(result, AbortResult):
            return result
        return AbortResult("payment.settled")  # a facilitator's hook has no way to repeat the first answer

    def settle_failed(self, context: SettleFailureContext) -> RecoveredSettleResult | None:
        """Record a failure; a hook of the facilitator. What its own scheme answered is left as it is."""
        recovered = self._hooks.failed(context)
        answered = type(context.error) is Exception
        return None if answered or self._hooks.mode is Mode.SHADOW else recovered


def _require_authorization(terms: PaymentTerms) -> None:
    """Refuse payments that settle before the answer: a facilitator cannot tell a deposit from a capture."""
    if terms.flow != AUTHORIZATION_FLOW:
        raise Refused("payment.flow", "the payment settles before there is an answer to judge")


def _in_thread(hook: Any) -> Any:
    """Run a hook beside the event loop: it waits for the disk."""

    async def run(context: Any) -> Any:
        return await asyncio.to_thread(hook, context)

    return run
