"""Recomputing a receipt: the same bundle, policy and time must give the same judgement (PROTOCOL P13)."""

from __future__ import annotations

from proofhold.core import Answer, Fault, Reason
from proofhold.exchange import Bundle
from proofhold.policy import Policy
from proofhold.receipt import Receipt, same_judgement
from proofhold.verifier import Verifier


def recheck(receipt: Receipt, bundle: Bundle, *, policy: Policy, verifier: Verifier) -> tuple[Reason, ...]:
    """Judge again what a receipt judged, and list where the two differ; empty means the same.

    Args:
        receipt: names everything that it was computed from; it carries the revealed secrets itself.
        bundle: the one that the receipt names, with whatever repaired it in place.
        policy: the one that the receipt names.
        verifier: with the locks that the receipt names in its catalogue.

    """
    if bundle.digest != receipt.bundle:
        text = "this is not the bundle that the receipt judged"
        return (Reason("recheck.bundle", text, Fault.NOBODY, bundle.digest, receipt.bundle),)
    if policy.digest != receipt.policy:
        text = "this is not the policy that the receipt judged by"
        return (Reason("recheck.policy", text, Fault.NOBODY, policy.digest, receipt.policy),)
    answers = [Answer(answer.kind, answer.body) for answer in receipt.answers if answer.body is not None]
    verdict = verifier.verify(
        bundle.exchange, bundle.evidence, policy=policy, now=receipt.now, answers=answers
    )
    return same_judgement(receipt, verdict)
