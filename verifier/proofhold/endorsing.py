"""k of n: above a price, money moves when several verifiers say the same, each by its own receipt (P13).

With one of one, above nothing, it is how a verifier's key is taken back: only those in the trust file count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proofhold.core import Fault, Reason
from proofhold.escrow.escrow import Escrow, HoldRecord, Ruling
from proofhold.escrow.quorums import Quorum, QuorumBook
from proofhold.escrow.refusals import Refused
from proofhold.job import Job
from proofhold.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Endorsed:
    """What the receipts that came in so far amount to."""

    missing: int
    """How many verifiers' receipts are still needed."""
    receipt: Receipt
    """The job's own verifier's where it is there: the one that a decision rests on."""


def find_quorum(escrow: Escrow, job: Job, known: Mapping[str, Quorum] | None = None) -> Quorum | None:
    """Give the quorum that a job's price takes, or None where its verifier alone decides.

    Args:
        escrow: is asked, unless its quorums are known.
        job: names currency and price.
        known: the escrow's quorums by currency, as they were read a moment ago.

    """
    if known is None:
        return QuorumBook(escrow.store).find(job.currency.code, job.price)
    quorum = known.get(job.currency.code)
    return None if quorum is None or job.price <= quorum.above else quorum


def read_quorums(escrow: Escrow) -> Mapping[str, Quorum]:
    """Read the quorums of all currencies, for whoever settles many at once."""
    return QuorumBook(escrow.store).every()


def funding_objection(escrow: Escrow, job: Job, *, now: int) -> Reason | None:
    """Say why a job that takes several receipts could never get them: its own verifier is not one of them."""
    quorum = find_quorum(escrow, job)
    if quorum is None or quorum.trust.who(job.verifier, now) is not None:
        return None
    text = "the price takes receipts of several verifiers, and the job's is not among those that count"
    return Reason("quorum.verifier", text, Fault.BUYER, job.verifier, "a key of the quorum's trust file")


def require_signer(receipt: Receipt, record: HoldRecord, quorum: Quorum | None) -> None:
    """Check that a receipt's signer has a say: the job's verifier, and above the cap all that are trusted.

    Raises:
        Refused: ``settle.verifier``, ``settle.untrusted``.

    """
    if quorum is None:
        if not receipt.is_signed_by(record.verifier):
            text = f"the receipt is signed by {receipt.signer}, the job names {record.verifier}"
            raise Refused("settle.verifier", text, Fault.VERIFIER)
    elif not receipt.is_signed_by(receipt.signer) or quorum.trust.who(receipt.signer, receipt.now) is None:
        text = f"{receipt.signer} is not trusted for a judgement of time {receipt.now}"
        raise Refused("settle.untrusted", text, Fault.VERIFIER)


def endorse(
    escrow: Escrow,
    record: HoldRecord,
    seq: int,
    receipt: Receipt,
    ruling: Ruling,
    quorum: Quorum,
    *,
    now: int,
) -> Endorsed:
    """Count a receipt that was compared with the hold, and say whether there are enough of its ruling.

    The job's own verifier must be among them. A dispute moves no money: that verifier's word is enough.
    """
    if ruling is Ruling.DISPUTE:
        return Endorsed(0 if receipt.is_signed_by(record.verifier) else 1, receipt)
    kept = QuorumBook(escrow.store).endorse(
        record.id,
        seq,
        ruling,
        signer=receipt.signer,
        receipt_digest=receipt.digest,
        receipt=receipt.encode(),
        now=now,
    )
    # What came in before its key was revoked does not count any more, the job's own verifier's neither.
    decoded = {signer: Receipt.decode(data) for signer, data in kept.items()}
    receipts = {signer: r for signer, r in decoded.items() if quorum.trust.trusts(signer, r.now)}
    # By name: a verifier that rotated its key is still one verifier.
    names = {quorum.trust.who(signer, r.now) for signer, r in receipts.items()}
    own = receipts.get(record.verifier)
    missing = max(0, quorum.need - len(names), 0 if own is not None else 1)
    return Endorsed(missing, own or receipt)
