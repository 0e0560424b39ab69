"""The opening of a drawn claim, handed in: compared, acknowledged, and judged (PROTOCOL P12).

A provider whose claim is drawn has `answer_s` to open one segment, or all products of a valuable job. What it
hands in stops that clock only if it fits the root that the provider signed, or bears its signature: rubbish,
from whomever, is silence. What fits is acknowledged by signature, so that a check which dies afterwards is
never the provider's fault. The second secret of a valuable job is revealed to products only once their digest
is recorded (P3).
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
from proofhold.hearing import answers_of, judge_claim, reveal_of
from proofhold.keys import Signed, SigningKey
from proofhold.policy import Policy
from proofhold.settlement import Clock, settle, system_clock
from proofhold.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of an opening: the signed word that it came, and what its verdict decided."""

    acknowledgement: SignedAcknowledgement
    decision: Decision


def take_opening(
    hold_id: Digest,
    bundle: Bundle,
    opening: Answer | Sequence[Answer],
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
        opening: what the provider, or anybody, hands in: one answer, or the pieces of an opening of all
            products.
        verifier: judges.
        policy: the buyer's.
        escrow: waits for the opening.
        key: the job's verifier's: signs acknowledgement and receipt.
        seq: the capture.
        answers: what else was handed in.
        clock: unix seconds.

    Raises:
        Misuse: `opening` is an answer to something else, or none.
        Refused: ``answer.opening``: it does not fit the claim, and the clock runs on; ``escrow.openings``:
            other products were opened before;
            ``escrow.wrong_state``: nobody waits for one; or `settle`'s reasons.

    """
    pieces = (opening,) if isinstance(opening, Answer) else tuple(opening)
    for piece in pieces:
        if piece.kind is not NeedKind.OPENING:
            raise Misuse(f"an opening is asked for, this answers a need for {piece.kind}")
    if not pieces:
        raise Misuse("an opening is asked for, and nothing was handed in")
    record = escrow.hold(hold_id)
    capture = record.capture(seq)
    if capture.claim is None or capture.claimed_at is None or capture.state is not State.ANSWERING:
        raise Refused("escrow.wrong_state", f"capture {seq} is {capture.state} and waits for no opening")
    exchange = replace(bundle.exchange, job=record.job, claim=capture.claim)
    verdict = judge_claim(
        Bundle(exchange, bundle.evidence),
        (*answers, *pieces),
        heard=answers_of(escrow, hold_id, seq),
        verifier=verifier,
        policy=policy,
        claimed_at=capture.claimed_at,
        reveal=reveal_of(escrow, hold_id, seq, clock),
    )
    if isinstance(verdict, Inconclusive) and {need.kind for need in verdict.needs} != {NeedKind.RETRY}:
        # A check that only has to be tried again has found the opening to fit. Of all others it is not known.
        raise Refused("answer.opening", "; ".join(reason.message for reason in verdict.reasons))
    now = clock()
    what = pieces[0].digest
    noted = escrow.opened(hold_id, seq, opening=what, now=now)
    document = Acknowledgement(job=hold_id, seq=seq, opening=what, at=now)
    decision = settle(hold_id, verdict, escrow=escrow, key=key, clock=clock)
    if isinstance(verdict, Inconclusive):
        decision = replace(decision, state=noted.state)
    return Answered(Signed.new(document, key), decision)
