"""Who judges what a lease holds: with a verifier, by the job's policy, for a signed receipt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from proofhold.answers import decode_answers
from proofhold.canonical import Digest
from proofhold.core import Inconclusive, NeedKind
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Escrow
from proofhold.escrow.queue import Lease
from proofhold.exchange import Bundle
from proofhold.hearing import judge_claim, reveal_of, said
from proofhold.keys import SigningKey
from proofhold.policy import Policy
from proofhold.receipt import Receipt
from proofhold.settlement import Clock, system_clock
from proofhold.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge made of one lease."""

    receipt: Receipt
    awaits_opening: bool = False
    """It was drawn, and the provider has to open something first."""


class Judge(Protocol):
    """Judges what a lease holds. Called from several threads."""

    def __call__(self, lease: Lease) -> Judged:
        """Judge.

        Raises:
            Malformed: the bundle or the answers do not parse: whoever handed them in has to do so again.
            Misuse: this worker cannot judge it at all, such as by a policy that it does not have.
            Refused: ``escrow.openings``, the products of a valuable job are others than those to which its
                second secret was revealed.
            EscrowFailure: the escrow could not be asked for it.

        """


class VerifierJudge:
    """Judges with a verifier, by the policies that it has, and signs with the verifier's key."""

    def __init__(
        self,
        verifier: Verifier,
        policies: Iterable[Policy],
        key: SigningKey,
        *,
        escrow: Escrow,
        clock: Clock = system_clock,
    ) -> None:
        """Take what a judgement takes.

        Args:
            verifier: judges.
            policies: those that jobs may name.
            key: the verifier's, which the jobs name.
            escrow: reveals the second secrets of valuable jobs (PROTOCOL P3).
            clock: unix seconds.

        """
        self._verifier, self._key, self._escrow, self._clock = verifier, key, escrow, clock
        self._policies: Mapping[Digest, Policy] = {policy.digest: policy for policy in policies}

    def __call__(self, lease: Lease) -> Judged:
        """Judge: see `Judge`."""
        bundle, claimed_at = bundle_of(lease), lease.record.capture(lease.seq).claimed_at
        policy = self._policies.get(lease.record.policy)
        if policy is None:
            raise Misuse(f"this worker has no policy {lease.record.policy}")
        if claimed_at is None:
            raise Misuse("a capture that nobody claimed is in the queue")
        answers = () if lease.answers is None else decode_answers(lease.answers)
        verdict = judge_claim(
            bundle,
            answers,
            heard=said(is_raised=lease.is_raised, secret=lease.secret),
            verifier=self._verifier,
            policy=policy,
            claimed_at=claimed_at,
            reveal=reveal_of(self._escrow, lease.hold, lease.seq, self._clock),
        )
        drawn = isinstance(verdict, Inconclusive) and any(n.kind is NeedKind.OPENING for n in verdict.needs)
        return Judged(Receipt.issue(verdict, self._key), awaits_opening=drawn)


def bundle_of(lease: Lease) -> Bundle:
    """Give what a check of a lease judges: the hold's own job and claim, whatever was handed in for them.

    Raises:
        Malformed: what was handed in does not parse.

    """
    bundle, claim = Bundle.decode(lease.bundle), lease.record.capture(lease.seq).claim
    exchange = replace(bundle.exchange, job=lease.record.job, claim=claim or bundle.exchange.claim)
    return replace(bundle, exchange=exchange)
