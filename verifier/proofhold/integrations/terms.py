"""What an x402 payment identifier stands for, and the verdict that lets such a payment settle.

An identifier alone is a word that anyone can repeat. It is bound to the signed authorization and its payer,
to the requirements that the payer accepted, and to the job with its model and its input: whatever comes under
the same identifier and differs in any of them is a mismatch. Nothing here imports the x402 package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proofhold import canonical
from proofhold.canonical import DIGEST_PATTERN, Digest
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow.paybook import GatedPayment, PaymentBook
from proofhold.escrow.refusals import Refused
from proofhold.job import ModelReference, OnnxModel, SignedJob
from proofhold.keys import TrustStore
from proofhold.receipt import Receipt
from proofhold.settlement import ruling_of

IDENTIFIER_EXTENSION = "payment-identifier"
EXTENSION = "proofhold"
"""Names the job in a payment, and carries the receipt in a settlement."""

IDENTIFIER_PATTERN = r"[A-Za-z0-9_-]{16,128}"
AMOUNT_PATTERN = r"0|[1-9][0-9]{0,77}"
MAX_NAME_CHARS = 256

AUTHORIZATION_FLOW = "authorization"
ESCROW_FLOW = "escrow"


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """What one payment identifier stands for."""

    id: str
    payer: str
    """Whose money it is: the `from` of the authorization, never a spender."""
    authorization: Digest
    """Of what the payer signed, signature included."""
    scheme: str
    network: str
    asset: str
    pay_to: str
    amount: int
    """What the payer accepted to pay, in atomic units."""
    flow: str
    """When x402 settles: ``authorization`` after the answer, ``escrow`` around it, ``upfront`` before it."""
    job: Digest
    model: Digest
    input: Digest

    @classmethod
    def of(cls, payload: Any) -> PaymentTerms:
        """Read a payment payload of x402, version 2. It is untrusted; that it is paid for, x402 verifies.

        Raises:
            Refused: ``payment.no_identifier``, ``payment.no_job``, ``payment.no_payer``, or
                ``payment.malformed`` for requirements that are not x402's.

        """
        extensions = getattr(payload, "extensions", None)
        identifier = _info(extensions, IDENTIFIER_EXTENSION).get("id")
        if not _matches(identifier, IDENTIFIER_PATTERN):
            text = "the payment carries no identifier of 16 to 128 letters, digits, - and _"
            raise Refused("payment.no_identifier", text, Fault.BUYER)
        named = _info(extensions, EXTENSION)
        job, model, given = (named.get(field) for field in ("job", "model", "input"))
        if not all(_matches(digest, DIGEST_PATTERN) for digest in (job, model, given)):
            text = "the payment does not name its job, model and input by their digests"
            raise Refused("payment.no_job", text, Fault.BUYER)
        accepted = payload.accepted
        flow = (accepted.extra or {}).get("paymentFlow", AUTHORIZATION_FLOW)
        names = (accepted.scheme, accepted.network, accepted.asset, accepted.pay_to, flow)
        if not _matches(accepted.amount, AMOUNT_PATTERN) or not all(map(_is_name, names)):
            raise Refused("payment.malformed", "the accepted requirements are not x402's", Fault.BUYER)
        try:
            authorization = canonical.digest(
                "proofhold/payment-authorization/v1", canonical.encode(payload.payload)
            )
        except (Misuse, RecursionError) as error:
            raise Refused("payment.malformed", "the authorization is not plain JSON", Fault.BUYER) from error
        return cls(
            id=str(identifier),
            payer=_payer(payload.payload),
            authorization=authorization,
            scheme=accepted.scheme,
            network=accepted.network,
            asset=accepted.asset,
            pay_to=accepted.pay_to,
            amount=int(accepted.amount),
            flow=flow,
            job=str(job),
            model=str(model),
            input=str(given),
        )

    @property
    def binding(self) -> Digest:
        """One digest of all of it."""
        content = {
            "amount": str(self.amount),
            "asset": self.asset,
            "authorization": self.authorization,
            "flow": self.flow,
            "id": self.id,
            "input": self.input,
            "job": self.job,
            "model": self.model,
            "network": self.network,
            "pay_to": self.pay_to,
            "payer": self.payer,
            "scheme": self.scheme,
        }
        return canonical.digest("proofhold/payment-binding/v1", canonical.encode(content))

    def amount_of(self, requirements: Any) -> int:
        """Give what is about to be settled, after comparing by what requirements.

        Raises:
            Refused: ``payment.mismatch``, they are not what the payer accepted; ``payment.amount``, more is.

        """
        theirs = (requirements.scheme, requirements.network, requirements.asset, requirements.pay_to)
        if theirs != (self.scheme, self.network, self.asset, self.pay_to):
            text = "the payment is to be settled by other requirements than its payer accepted"
            raise Refused("payment.mismatch", text)
        amount = int(requirements.amount) if _matches(requirements.amount, AMOUNT_PATTERN) else -1
        if not 0 <= amount <= self.amount:
            raise Refused("payment.amount", "more would be settled than its payer accepted")
        return amount


def admit(
    book: PaymentBook,
    terms: PaymentTerms,
    job: SignedJob,
    receipt: Receipt,
    *,
    now: int,
    trust: TrustStore | None = None,
) -> GatedPayment:
    """Record the verdict on a payment, once everything belongs together (PROTOCOL P4).

    Args:
        book: where the payments are.
        terms: the payment's.
        job: the payment's, signed by buyer and provider.
        receipt: of the job's verifier, about this job.
        now: unix seconds.
        trust: where given, the verifier's key must also stand in it, for the time of the judgement.

    Raises:
        Refused: ``payment.job``, ``payment.mismatch``, ``payment.receipt``, ``payment.untrusted``, or the
            book's reasons.

    """
    document = job.document
    if not job.envelope.is_signed_by_exactly(document.signers):
        raise Refused("payment.job", "the job is not signed by its buyer and its provider, and them alone")
    if document.captures != 1 or document.fee is not None:
        raise Refused(
            "payment.job", "one payment settles one capture, to one payee: no metered jobs, no fees"
        )
    ours = (terms.job, terms.model, terms.input, terms.pay_to.lower())
    if ours != (job.digest, model_digest(document.model), document.input, document.payee.lower()):
        raise Refused("payment.mismatch", "the payment names another job, model, input or payee")
    if terms.amount > document.price:
        raise Refused("payment.mismatch", "the payment is for more than the job's price")
    statement = receipt.statement
    judged = receipt.is_signed_by(document.verifier) and receipt.policy == document.policy
    if not judged or statement is None or (statement.job, statement.input) != (job.digest, document.input):
        text = "the receipt is not the job's verifier's word, by the job's policy, about this job"
        raise Refused("payment.receipt", text, Fault.VERIFIER)
    if trust is not None and not trust.trusts(receipt.signer, receipt.now):
        raise Refused("payment.untrusted", "the verifier's key was not trusted then", Fault.VERIFIER)
    ruling = ruling_of(receipt)
    return book.decide(
        terms.id,
        terms.binding,
        job=job.digest,
        seq=statement.seq,
        outcome="keep" if ruling is None else ruling.value,
        amount=min(statement.amount, document.price),
        receipt=receipt.encode(),
        now=now,
    )


def model_digest(model: ModelReference) -> Digest:
    """Give the digest by which a payment names a job's model: the ONNX file's, or the allow-list's."""
    return model.onnx if isinstance(model, OnnxModel) else model.allowlist


def _info(extensions: Any, key: str) -> Mapping[str, Any]:
    entry = extensions.get(key) if isinstance(extensions, Mapping) else None
    info = entry.get("info") if isinstance(entry, Mapping) else None
    return info if isinstance(info, Mapping) else {}


def _payer(authorization: Any) -> str:
    """Find whose money it is, in the places where the schemes of x402 put it."""
    places: list[Any] = [authorization]
    if isinstance(authorization, Mapping):
        inner = (authorization.get("authorization"), authorization.get("permit2Authorization"))
        places = [*(place for place in inner if isinstance(place, Mapping)), authorization]
    for place in places:
        for field in ("from", "payer"):
            if isinstance(place, Mapping) and _is_name(place.get(field)):
                return str(place[field])
    raise Refused("payment.no_payer", "the authorization does not say whose money it is", Fault.BUYER)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS and value.isprintable()


def _matches(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None
