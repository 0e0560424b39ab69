"""The hooks of the x402 package, for a facilitator and for a server: what they share.

Every hook is wrapped: the outside gets a fixed code, never the text of an exception. A settlement is taken by
one caller, and one whose outcome nobody knows is never begun again blindly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proofhold.errors import Misuse
from proofhold.escrow.paybook import Deposit, GatedPayment, PaymentBook, Status
from proofhold.escrow.refusals import Refused
from proofhold.integrations.terms import EXTENSION, PaymentTerms
from proofhold.settlement import Mode

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

FAILURE: Final = "payment.failure"
"""The code of whatever nobody foresaw."""
REPLAYED: Final = "replayed"
"""Marks a settlement response that repeats an earlier one: nothing was settled by it."""

PENDING: Final = "settlement_pending"
"""x402's word for a settlement whose transaction is known and whose end is not."""
NOT_SENT: Final = frozenset(
    {
        "insufficient_funds",
        "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_payload_authorization_valid_after",
        "invalid_exact_evm_payload_authorization_valid_before",
        "invalid_exact_evm_payload_authorization_value_mismatch",
        "invalid_exact_evm_payload_recipient_mismatch",
        "invalid_exact_evm_payload_signature",
        "invalid_exact_evm_transaction_simulation_failed",
        "network_mismatch",
        "unsupported_scheme",
    }
)
"""Reasons by which a facilitator says that nothing was sent. Any other failure leaves the outcome unknown."""


def require_x402() -> None:
    """Find out whether the x402 package is there.

    Raises:
        Misuse: it is not; the message names the extra.

    """
    try:
        import x402.schemas  # noqa: F401
    except ImportError as error:
        raise Misuse("the x402 gate needs an extra: pip install 'proofhold[x402]'") from error


@dataclass(frozen=True, slots=True)
class SettlementHooks:
    """Takes payments for settling, and records how that ended. `clock` gives unix seconds."""

    book: PaymentBook
    clock: Callable[[], int]
    mode: Mode = Mode.LIVE

    def before(
        self, context: SettleContext, objects: Callable[[PaymentTerms], None] = lambda _: None
    ) -> AbortResult | SkipSettleResult | None:
        """Let a payment settle, once, if its verdict says so.

        Args:
            context: x402's.
            objects: raises `Refused` for payments that cannot be gated here.

        """
        from x402.schemas import AbortResult

        try:
            terms = PaymentTerms.of(context.payment_payload)
            objects(terms)
            amount = terms.amount_of(context.requirements)
            taken = self.book.begin_settling(terms.id, terms.binding, amount, now=self.clock())
        except Refused as refusal:
            return self._abort(AbortResult(refusal.code))
        except Exception:
            log.exception("a payment could not be looked up")
            return self._abort(AbortResult(FAILURE))
        return _again(taken, context) if taken.status is Status.SETTLED else None

    def after(self, context: SettleResultContext) -> None:
        """Record a settlement, unless it is one that only repeats another."""
        extra = context.result.extra or {}
        if context.result.success and extra.get(EXTENSION) != REPLAYED:
            self._end(context, Status.SETTLED, context.result.transaction)

    def returned(self, context: SettleResultContext) -> None:
        """Record that a deposit was given back."""
        self._end_deposit(context, Deposit.RETURNED, context.result.transaction)

    def failed(self, context: SettleFailureContext) -> RecoveredSettleResult:
        """Record a failure, and answer it with a code. Only some reasons say that nothing was sent."""
        from x402.schemas import RecoveredSettleResult, SettleResponse

        # A failed response comes as a bare Exception of its reason; whatever else was raised is no answer.
        reason = str(context.error) if type(context.error) is Exception else ""
        status = Status.FAILED if reason in NOT_SENT else Status.UNKNOWN
        if status is Status.FAILED and context.phase == "before-handler":
            self._end_deposit(context, None)
        else:
            self._end(context, status, PENDING if reason == PENDING else "")
        code = "payment.failed" if status is Status.FAILED else "payment.settlement_unknown"
        network = context.requirements.network
        response = SettleResponse(success=False, error_reason=code, transaction="", network=network)
        return RecoveredSettleResult(response)

    def _end(self, context: SettleContext, status: Status, reference: str) -> None:
        try:
            terms = PaymentTerms.of(context.payment_payload)
            self.book.end_settling(terms.id, status, reference=reference, now=self.clock())
        except Refused as refusal:
            log.warning("the end of a settlement was not recorded: %s", refusal.code)
        except Exception:
            # It stays "settling", and past its lease "unknown": nobody settles it again.
            log.exception("the end of a settlement was not recorded")

    def _end_deposit(self, context: SettleContext, deposit: Deposit | None, reference: str = "") -> None:
        try:
            terms = PaymentTerms.of(context.payment_payload)
            self.book.end_deposit(terms.id, deposit, reference=reference, now=self.clock())
        except Exception:
            # It stays "sent", and is among what somebody has to look after.
            log.exception("what became of a deposit was not recorded")

    def _abort(self, result: AbortResult) -> AbortResult | None:
        if self.mode is Mode.SHADOW:
            log.warning("shadow mode: a payment settles that would not have: %s", result.reason)
            return None
        return result


def _again(payment: GatedPayment, context: SettleContext) -> SkipSettleResult:
    """Give the settlement that was made before, marked: it looks like a real one, and nothing is settled."""
    from x402.schemas import SettleResponse, SkipSettleResult

    return SkipSettleResult(
        SettleResponse(
            success=True,
            transaction=payment.reference or "",
            network=context.requirements.network,
            extra={EXTENSION: REPLAYED},
        )
    )
