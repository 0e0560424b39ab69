"""Hearing a recorded claim: what was handed in, what its escrow says to it, and the verdict on both.

The escrow reveals the job's sampling secret once the claim is recorded, and the second secret of a valuable
job once the products are recorded that the provider signed for (PROTOCOL P2, P3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from proofhold.canonical import Digest
from proofhold.core import Answer, Inconclusive, NeedKind, Verdict
from proofhold.escrow.escrow import Escrow
from proofhold.exchange import Bundle
from proofhold.policy import Policy
from proofhold.verifier import Verifier

Reveal: TypeAlias = Callable[[Digest], bytes]
"""Records the digest of a run's products, for good, and gives the second secret of their job."""


def judge_claim(
    bundle: Bundle,
    answers: Sequence[Answer],
    *,
    heard: Sequence[Answer],
    verifier: Verifier,
    policy: Policy,
    claimed_at: int,
    reveal: Reveal | None,
) -> Verdict:
    """Judge a recorded claim by what was handed in and what its escrow says.

    If the provider has signed for the products of a valuable job, their digest is recorded, and they are
    judged by the second secret, which the escrow reveals to no others (P3).

    Args:
        bundle: the exchange, whose job and claim are those of the hold's record.
        answers: what was handed in.
        heard: what the escrow says: `answers_of`, or `said` by whoever has it at hand.
        verifier: judges.
        policy: the buyer's.
        claimed_at: the escrow's recorded time of the claim.
        reveal: records products for good and gives the second secret (`reveal_of`); None: nothing is to be
            revealed by this.

    Raises:
        Refused: ``escrow.openings``: it was revealed to other products.

    """
    job = bundle.exchange.job.document
    given = (*without_reveals(answers), *heard)

    def judge(*more: Answer) -> Verdict:
        every = (*given, *more)
        return verifier.verify(bundle.exchange, bundle.evidence, policy=policy, now=claimed_at, answers=every)

    verdict = judge()
    needs = verdict.needs if isinstance(verdict, Inconclusive) else ()
    products = next((need.subject for need in needs if need.kind is NeedKind.REVEAL and need.subject), None)
    if products is None or reveal is None or job.projection_commitment is None:
        return verdict
    # Recorded first, and always: the secret is known from then on, and results could be fitted to it.
    return judge(Answer(NeedKind.REVEAL, reveal(products)))


def reveal_of(escrow: Escrow, hold_id: Digest, seq: int, clock: Callable[[], int]) -> Reveal:
    """Give what has an escrow record the products of a capture, and reveal their second secret."""
    return lambda products: escrow.record_openings(hold_id, seq, openings=products, now=clock())


def answers_of(escrow: Escrow, hold_id: Digest, seq: int) -> tuple[Answer, ...]:
    """Give what an escrow itself says to a check: the secret, and whether the guard wants one anyway."""
    return said(is_raised=escrow.is_raised(hold_id), secret=escrow.reveal(hold_id, seq))


def said(*, is_raised: bool, secret: bytes) -> tuple[Answer, ...]:
    """Put what an escrow says to a check into answers."""
    raised = (Answer(NeedKind.CHECK, b""),) if is_raised else ()
    return (*raised, Answer(NeedKind.REVEAL, secret))


def without_reveals(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """Leave secrets out of what was handed in.

    What is revealed is the escrow's to say: whoever hands a second secret in would pass its record by.
    """
    return tuple(answer for answer in answers if answer.kind is not NeedKind.REVEAL)


__all__ = ["Reveal", "answers_of", "judge_claim", "reveal_of", "said", "without_reveals"]
