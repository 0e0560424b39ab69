"""The opening of a drawn claim, handed in: compared, acknowledged, and judged (PROTOCOL P12).

A provider whose claim is drawn has `answer_s` to open one segment. What it hands in stops that clock only if
it fits the root that the provider signed: rubbish, from whomever, is silence. What fits is acknowledged by
signature, so that a check which dies afterwards is never the provider's fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from proofhold.canonical import Digest
from proofhold.contention import Acknowledgement, SignedAcknowledgement
from proofhold.core import Answer, Inconclusive, NeedKind
from proofhold.decision import Decision
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Escrow
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import State
from proofhold.exchange import Bundle
from proofhold.keys import Signed, SigningKey
from proofhold.policy import Policy
from proofhold.settlement import Clock, answers_of, settle, system_clock
from proofhold.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of an opening: the signed word that it came, and what its verdict decided."""

    acknowledgement: SignedAcknowledgement
    decision: Decision


def take_opening(
    hold_id: Digest,
    bundle: Bundle,
    opening: Answer,
    *,
    verifier: Verifier,
    policy: Policy,
    escrow: Escrow,
    key: SigningKey,
    seq: int = 0,
    answers: Sequence[Answer] = (),
    clock: Clock = system_clock,
) -> Answered:
    """Take a provider's opening of a claim that waits for it, acknowledge it, judge it, and settle.

    Args:
        hold_id: the job's digest.
        bundle: the exchange; its job and claim are those of the hold's record.
        opening: what the provider, or anybody, hands in.
        verifier: judges.
        policy: the buyer's.
        escrow: waits for the opening.
        key: the job's verifier's: signs acknowledgement and receipt.
        seq: the capture.
        answers: what else was handed in.
        clock: unix seconds.

    Raises:
        Misuse: `opening` is an answer to something else.
        Refused: ``answer.opening``: it does not fit the claim, and the clock runs on;
            ``escrow.wrong_state``: nobody waits for one; or `settle`'s reasons.

    """
    if opening.kind is not NeedKind.OPENING:
        raise Misuse(f"an opening is asked for, this answers a need for {opening.kind}")
    record = escrow.hold(hold_id)
    capture = record.capture(seq)
    if capture.claim is None or capture.claimed_at is None or capture.state is not State.ANSWERING:
        raise Refused("escrow.wrong_state", f"capture {seq} is {capture.state} and waits for no opening")
    verdict = verifier.verify(
        replace(bundle.exchange, job=record.job, claim=capture.claim),
        bundle.evidence,
        policy=policy,
        now=capture.claimed_at,
        answers=(*answers, opening, *answers_of(escrow, hold_id, seq)),
    )
    if isinstance(verdict, Inconclusive) and {need.kind for need in verdict.needs} != {NeedKind.RETRY}:
        # A check that only has to be tried again has found the opening to fit. Of all others it is not known.
        raise Refused("answer.opening", "; ".join(reason.message for reason in verdict.reasons))
    now = clock()
    noted = escrow.opened(hold_id, seq, opening=opening.digest, now=now)
    document = Acknowledgement(job=hold_id, seq=seq, opening=opening.digest, at=now)
    decision = settle(hold_id, verdict, escrow=escrow, key=key, clock=clock)
    if isinstance(verdict, Inconclusive):
        decision = replace(decision, state=noted.state)
    return Answered(Signed.new(document, key), decision)
