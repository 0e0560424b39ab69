"""A rail over card payments that are authorized first and captured by hand, as card processors offer.

The API is that of payment intents with ``capture_method=manual``: what is authorized stays on the buyer's
card until it is captured, in part if need be, or canceled; an authorization that is left alone is canceled
after seven days. A release captures; the rest goes back by itself. A refund of all of it cancels.

    rail = ManualCaptureRail(httpx.Client(base_url=…, auth=(secret_key, "")), intent_of=orders.intent)
    authorization = rail.authorize(job, payment_method="pm_…")     # before funding
    require_outlives(authorization, job)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proofhold.canonical import Digest
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow.ledger import AccountKind
from proofhold.escrow.rail import Direction, PaymentKey, RailReceipt, RailUnknown
from proofhold.escrow.refusals import Refused
from proofhold.job import Job, SignedJob

if TYPE_CHECKING:
    import httpx

AUTHORIZATION_S: Final = 7 * 86_400
"""How long an authorization holds."""
MAX_AMOUNT: Final = 99_999_999
"""The highest amount, in the currency's smallest unit, that the API takes."""


class CardExpired(RailUnknown):
    """The authorization ended before its capture: no card can pay this any more, and a person must look."""


@dataclass(frozen=True, slots=True)
class CardAuthorization:
    """Money that waits on a card. `amount` in atomic units; `expires_at` in unix seconds."""

    intent: str
    amount: int
    currency: str
    expires_at: int


class ManualCaptureRail:
    """A `Rail` over payment intents that are captured by hand."""

    lands_in = AccountKind.OUTSIDE

    def __init__(self, api: httpx.Client, intent_of: Callable[[Digest], str], *, name: str = "card") -> None:
        """Make a rail.

        Args:
            api: a client with the processor's address and key.
            intent_of: gives the intent that was authorized for a hold, as the caller keeps it with its order.
            name: names the rail for good.

        """
        self.name = name
        self._api, self._intent_of = api, intent_of

    def authorize(self, job: SignedJob, *, payment_method: str) -> CardAuthorization:
        """Put a job's price on hold on the buyer's card. Called again for the job, it is the same one.

        Raises:
            Refused: ``card.declined``, the buyer's card does; ``card.amount``; ``card.split``.
            RailUnknown: the processor did not answer: ask again.

        """
        document = job.document
        if document.captures != 1 or document.fee is not None:
            raise Refused("card.split", "a card is captured once, for one payee: no metered jobs, no fees")
        if not 0 < document.price <= MAX_AMOUNT:
            text = f"the price is {document.price}, a card pays 1 to {MAX_AMOUNT} of the smallest unit"
            raise Refused("card.amount", text)
        form = {
            "amount": str(document.price),
            "capture_method": "manual",
            "confirm": "true",
            "currency": document.currency.code.lower(),
            "metadata[buyer]": document.buyer,
            "metadata[hold]": job.digest,
            "metadata[payee]": document.payee,
            "payment_method": payment_method,
        }
        intent = self._send("POST", "/v1/payment_intents", form, key=f"authorize:{job.digest}")
        if intent.get("status") != "requires_capture":
            raise Refused("card.declined", "the card does not hold the price", Fault.BUYER)
        made = CardAuthorization(
            str(intent["id"]),
            document.price,
            document.currency.code,
            int(intent["created"]) + AUTHORIZATION_S,
        )
        self._require_ours(intent, job.digest)
        return made

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        """Capture, or cancel: see `Rail`. A remainder goes back with the capture, and waits for it.

        Raises:
            CardExpired: the authorization ended first.
            RailUnknown: the processor did not say, or a remainder's capture is not made yet.
            Misuse: the intent is another hold's, or the payment another than the intent can make.

        """
        intent = self._read(key)
        _require_payable(key, intent, amount, currency, account)
        receipt = _receipt(key, intent)
        if receipt is None:
            receipt = _receipt(key, self._move(key, intent, amount))
        if receipt is None:
            raise RailUnknown(f"the card payment {intent['id']} is still {intent['status']}")
        if receipt.amount != amount:
            raise Misuse(f"the card payment {intent['id']} moved {receipt.amount}, not {amount}, under {key}")
        return receipt

    def query(self, key: PaymentKey) -> RailReceipt | None:
        """Say what became of a key: see `Rail`."""
        return _receipt(key, self._read(key))

    def _move(self, key: PaymentKey, intent: Mapping[str, Any], amount: int) -> Mapping[str, Any]:
        path = f"/v1/payment_intents/{intent['id']}"
        if intent["status"] == "canceled":
            raise CardExpired(f"the authorization {intent['id']} ended before it was captured")
        if key.direction is Direction.RELEASE:
            return self._send("POST", f"{path}/capture", {"amount_to_capture": str(amount)}, key=str(key))
        if amount != intent["amount"]:
            raise RailUnknown(f"the remainder of {intent['id']} goes back once the rest is captured")
        form = {"cancellation_reason": "requested_by_customer"}
        return self._send("POST", f"{path}/cancel", form, key=str(key))

    def _read(self, key: PaymentKey) -> Mapping[str, Any]:
        if key.seq != 0:
            raise Misuse("a card payment is captured once: this rail pays for captures of seq 0 only")
        intent = self._send("GET", f"/v1/payment_intents/{self._intent_of(key.hold)}", {})
        self._require_ours(intent, key.hold)
        return intent

    def _require_ours(self, intent: Mapping[str, Any], hold: Digest) -> None:
        got = (intent.get("metadata") or {}).get("hold")
        if got != hold or intent.get("capture_method") != "manual":
            raise Misuse(f"the card payment {intent.get('id')} was not authorized for the hold {hold}")

    def _send(self, method: str, path: str, form: dict[str, str], *, key: str = "") -> Mapping[str, Any]:
        """Ask the processor. What is no clear answer is unknown: it is asked about before anything else."""
        import httpx

        headers = {"Idempotency-Key": key} if key else {}
        try:
            response = self._api.request(method, path, data=form or None, headers=headers)
            content = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RailUnknown(f"the card processor did not answer: {type(error).__name__}") from error
        if response.status_code == 402:
            code = _code(content)
            raise Refused("card.declined", f"the card was declined: {code}", Fault.BUYER)
        if response.status_code != 200 or not isinstance(content, dict):
            raise RailUnknown(f"the card processor answered {response.status_code}: {_code(content)}")
        return content


def require_outlives(authorization: CardAuthorization, job: SignedJob) -> None:
    """Refuse a job whose last deadline comes after its authorization's end: nobody could be paid then.

    Raises:
        Refused: ``card.expires``.

    """
    latest = latest_decision(job.document)
    if latest >= authorization.expires_at:
        text = f"the job may be decided until {latest}, the card holds the price until "
        raise Refused("card.expires", text + str(authorization.expires_at), Fault.BUYER)


def latest_decision(job: Job) -> int:
    """Give the last second (unix) at which a job's money can still be decided on, clocks that stop apart."""
    return job.claim_by + job.verification_s + job.answer_s + job.dispute_s


def _require_payable(
    key: PaymentKey, intent: Mapping[str, Any], amount: int, currency: str, account: str
) -> None:
    metadata = intent["metadata"]
    expected = metadata.get("payee" if key.direction is Direction.RELEASE else "buyer")
    if str(intent["currency"]).upper() != currency or not 0 < amount <= intent["amount"]:
        raise Misuse(f"the card payment {intent['id']} is not of {amount} {currency} or more")
    if account != expected:
        raise Misuse(f"the card payment {intent['id']} is not for {account}")


def _receipt(key: PaymentKey, intent: Mapping[str, Any]) -> RailReceipt | None:
    """Say what an intent did under a key; None where it did nothing."""
    metadata, currency = intent["metadata"], str(intent["currency"]).upper()
    captured = int(intent["amount_received"]) if intent["status"] == "succeeded" else 0
    if key.direction is Direction.RELEASE:
        if not captured:
            return None
        return RailReceipt(f"card:{intent['id']}:captured", captured, currency, str(metadata["payee"]))
    given_back = intent["status"] in ("succeeded", "canceled")
    amount = int(intent["amount"]) - captured
    if not given_back or not amount:
        return None
    return RailReceipt(f"card:{intent['id']}:returned", amount, currency, str(metadata["buyer"]))


def _code(content: Any) -> str:
    error = content.get("error") if isinstance(content, dict) else None
    return str(error.get("code") or error.get("type"))[:80] if isinstance(error, dict) else "no reason"
