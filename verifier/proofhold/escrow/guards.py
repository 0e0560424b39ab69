"""What a document must satisfy before it may move a hold: pure checks, no database (PROTOCOL P1, P9)."""

from __future__ import annotations

import re
from typing import TypeVar

from proofhold.canonical import MAX_SAFE_INTEGER
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow.escrow import MAX_KEY_CHARS
from proofhold.escrow.metering import MAX_METERED
from proofhold.escrow.refusals import Refused
from proofhold.job import ACCOUNT_PATTERN, PPM, REPLAY_KIND, Claim, Job, SignedClaim, SignedJob
from proofhold.keys import Signed, SignedDocument
from proofhold.payload import Payload

D = TypeVar("D", bound=SignedDocument)


def reread(signed: Signed[D]) -> Signed[D]:
    """Take a signed document at its bytes' word: those are what was signed, and what gets stored.

    Raises:
        Malformed: the bytes are not what the format says, though somebody built an object of them.
        Misuse: the object says something else than its bytes.

    """
    again = Signed.decode(type(signed.document), signed.encode())
    if again != signed:
        raise Misuse(f"a {signed.document.FORMAT} whose document is not what its envelope holds")
    return again


def require_time(now: int) -> None:
    """Refuse what cannot be a time in unix seconds.

    Raises:
        Misuse: negative, beyond 2^53, or no integer.

    """
    if isinstance(now, bool) or not isinstance(now, int) or not 0 <= now <= MAX_SAFE_INTEGER:
        raise Misuse(f"now: got {now!r}, expected unix seconds")


def require_cash(account: str, amount: int, key: str) -> None:
    """Check what a deposit or a withdrawal names.

    Raises:
        Misuse: no account's name, no usable key, or less than one atomic unit.

    """
    if not re.fullmatch(ACCOUNT_PATTERN, account, re.ASCII):
        raise Misuse(f"account: got {account[:80]!r}, expected a key or a payee's name")
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise Misuse(f"idempotency key: {len(key)} characters, expected 1 to {MAX_KEY_CHARS}")
    if amount < 1:
        raise Misuse(f"amount: got {amount}, expected at least one atomic unit")


def require_fundable(signed: SignedJob, *, escrow: str, now: int) -> None:
    """Check what a job must satisfy whatever the books say (P9).

    Raises:
        Refused: see `Escrow.fund`.

    """
    job = signed.document
    if not signed.envelope.is_signed_by_exactly(job.signers):
        raise Refused("job.signature", "the job does not carry the good signatures of its buyer and provider")
    if job.escrow != escrow:
        raise Refused("job.escrow", f"the job names the escrow {job.escrow}, expected {escrow}")
    if now > job.claim_by:
        text = f"the job's claim deadline passed at {job.claim_by}, it is {now}"
        raise Refused("escrow.too_late", text, Fault.BUYER)
    if job.captures > MAX_METERED:
        raise Refused("job.captures", f"{job.captures} captures, expected at most {MAX_METERED}")
    if job.captures > 1 and job.sampling_rate_ppm < PPM and REPLAY_KIND in job.evidence_kinds:
        # The first claim reveals the secret, and with it which of the later ones would be drawn (P2).
        text = "a metered job that may be judged by re-execution has every capture checked: rate 1"
        raise Refused("job.captures_sampled", text)
    if job.captures > 1 and job.projection_commitment is not None:
        text = "the second secret of a metered job would be known after its first capture"
        raise Refused("job.projection_captures", text)
    if job.price < 1:
        raise Refused("job.price", "the job has no price: there is nothing to hold", Fault.BUYER)
    if job.withholding_penalty > job.bond:
        text = f"the withholding penalty, {job.withholding_penalty}, is more than the bond, {job.bond}"
        raise Refused("job.penalty", text)


def require_signed_claim(signed: SignedClaim, job: Job) -> None:
    """Check that a claim is the provider's: whatever else arrives is dropped (P1).

    Raises:
        Refused: ``claim.signature``.

    """
    if not signed.envelope.is_signed_by_exactly([job.provider]):
        text = "the claim does not carry the good signature of the job's provider, and that alone"
        raise Refused("claim.signature", text)


def require_claimable(claim: Claim, output: Payload, job: Job, *, base: int, now: int) -> None:
    """Check what a first claim must satisfy.

    Raises:
        Refused: see `Escrow.record_claim`.

    """
    if now > job.claim_by:
        text = f"the claim deadline passed at {job.claim_by}, it is {now}"
        raise Refused("escrow.too_late", text, Fault.PROVIDER)
    if not base < claim.amount <= job.price:
        text = f"the claim is for {claim.amount} atomic units, expected {base + 1} to {job.price}"
        raise Refused("claim.amount", text, Fault.PROVIDER)
    unknown = sorted({e.kind for e in claim.evidence} - set(job.evidence_kinds))
    if unknown:
        text = f"the claim names {', '.join(unknown)}, the job takes {', '.join(job.evidence_kinds)}"
        raise Refused("claim.evidence_kind", text, Fault.PROVIDER)
    got = output.digest(bytes.fromhex(job.nonce))
    if got != claim.output:
        # Not the provider's fault: the claim is signed, the bytes beside it are anyone's (P1).
        raise Refused("claim.output", f"the output's digest is {got}, the claim names {claim.output}")


def is_equivocation(first: Claim, second: Claim) -> bool:
    """Tell whether two signed claims on one capture contradict each other (P5).

    Proofs are randomised: other evidence for the same output contradicts nothing.
    """
    return (first.output, first.trace_root) != (second.output, second.trace_root)
