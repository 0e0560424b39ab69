"""Recomputing a receipt: the same bundle, policy and time must give the same judgement (PROTOCOL P13)."""

from __future__ import annotations

from collections.abc import Sequence

from proofhold.core import Answer, Fault, Reason
from proofhold.exchange import Bundle
from proofhold.policy import Policy
from proofhold.receipt import Receipt, same_judgement
from proofhold.verifier import Verifier


def recheck(
    receipt: Receipt,
    bundle: Bundle,
    *,
    policy: Policy,
    verifier: Verifier,
    answers: Sequence[Answer] = (),
) -> tuple[Reason, ...]:
    """Judge again what a receipt judged, and list where the two differ; empty means the same.

    Args:
        receipt: names everything that it was computed from; it carries revealed sampling secrets itself.
        bundle: the one that the receipt names, with whatever repaired it in place.
        policy: the one that the receipt names.
        verifier: with the locks that the receipt names in its catalogue.
        answers: those that the receipt names by their digest alone.

    """
    if bundle.digest != receipt.bundle:
        text = "this is not the bundle that the receipt judged"
        return (Reason("recheck.bundle", text, Fault.NOBODY, bundle.digest, receipt.bundle),)
    if policy.digest != receipt.policy:
        text = "this is not the policy that the receipt judged by"
        return (Reason("recheck.policy", text, Fault.NOBODY, policy.digest, receipt.policy),)
    held = {answer.digest: answer for answer in answers}
    held |= {a.digest: Answer(a.kind, a.body) for a in receipt.answers if a.body is not None}
    missing = [answer for answer in receipt.answers if answer.digest not in held]
    if missing:
        text = "the receipt rests on an answer that is not here"
        return tuple(
            Reason("recheck.answer", text, Fault.NOBODY, "nothing", f"{answer.kind} {answer.digest}")
            for answer in missing
        )
    verdict = verifier.verify(
        bundle.exchange,
        bundle.evidence,
        policy=policy,
        now=receipt.now,
        answers=[held[answer.digest] for answer in receipt.answers],
    )
    return same_judgement(receipt, verdict)
