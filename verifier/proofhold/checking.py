"""A pool for the checks of drawn claims: queued by run and segment, taken again if one dies, settled once.

A service that judges in its own process hands in what came for a claim, and lets threads work the queue off;
each thread waits for a worker process of the verifier's runner. A check that its process did not survive goes
back into the queue (`replay.queue`). What happens to the money is `answering` and `settlement`, as always: a
check that ran twice has settled once.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence

from proofhold import canonical
from proofhold.answering import take_opening
from proofhold.answers import decode_answers, encode_answers
from proofhold.canonical import Digest
from proofhold.core import Answer, NeedKind
from proofhold.decision import Decision, Outcome
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Escrow
from proofhold.escrow.states import State
from proofhold.exchange import Bundle
from proofhold.job import MAX_CAPTURES
from proofhold.keys import SigningKey
from proofhold.policy import Policy
from proofhold.records import Record
from proofhold.replay.queue import CheckKey, CheckQueue, Lease, MemoryQueue, work
from proofhold.runner import RunnerError
from proofhold.settlement import Clock, system_clock, verify_and_settle
from proofhold.verifier import Verifier

LEASE_S = 120.0
MAX_CHECK_BYTES = 256 * 2**20


class CheckDied(RunnerError):
    """A check came to nothing, and only has to be tried again."""

    code = "checking.died"


class CheckPool:
    """Checks what was handed in for recorded claims, several at once. Thread-safe."""

    def __init__(
        self,
        verifier: Verifier,
        policies: Sequence[Policy],
        *,
        escrow: Escrow,
        key: SigningKey,
        queue: CheckQueue | None = None,
        clock: Clock = system_clock,
    ) -> None:
        """Take what a hook takes.

        Args:
            verifier: judges, in the processes of its runner.
            policies: those that jobs may name.
            escrow: holds the money.
            key: the verifier's, which the jobs name.
            queue: where checks wait; one in memory if left out.
            clock: unix seconds.

        """
        self._verifier, self._escrow, self._key, self._clock = verifier, escrow, key, clock
        self._policies: Mapping[Digest, Policy] = {policy.digest: policy for policy in policies}
        self._queue = queue or MemoryQueue()

    def hand_in(
        self,
        hold_id: Digest,
        bundle: Bundle,
        answers: Sequence[Answer] = (),
        *,
        segment: int = 0,
        seq: int = 0,
    ) -> CheckKey:
        """Queue the check of one segment of a recorded claim; twice is as good as once.

        Args:
            hold_id: the job's digest.
            bundle: the exchange; its job and claim are those of the hold's record.
            answers: what came in: the opening that a verdict asked for.
            segment: which one that was; 0 where the whole model runs again.
            seq: the capture.

        Raises:
            Misuse: nobody claimed the capture, or more checks wait than a queue holds.

        """
        claim = self._escrow.hold(hold_id).capture(seq).claim
        if claim is None:
            raise Misuse(f"no claim on capture {seq} is recorded")
        key = CheckKey(claim.document.trace_root or claim.digest, segment)
        self._queue.put(key, _encode(hold_id, seq, bundle, answers))
        return key

    def run(self, *, workers: int = 1, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Work the queue off in threads, until nothing waits or runs.

        Raises:
            Refused: the escrow refused what a check came to: an error of whoever handed it in.

        """
        work(self._queue, self._check, clock=monotonic, workers=workers, lease_s=LEASE_S)

    def decided(self, key: CheckKey) -> bytes | None:
        """Give the receipt of a check that is done; None while it waits, or if every attempt died."""
        outcome = self._queue.outcome(key)
        return None if outcome is None else outcome.result

    def _check(self, lease: Lease) -> bytes:
        hold_id, seq, bundle, answers = _decode(lease.body)
        decision = self._settled(hold_id, seq, bundle, answers)
        needs = {need.kind for need in decision.receipt.needs}
        if decision.outcome is Outcome.KEEP and needs == {NeedKind.RETRY}:
            raise CheckDied("; ".join(reason.message for reason in decision.receipt.reasons))
        return decision.receipt.encode()

    def _settled(self, hold_id: Digest, seq: int, bundle: Bundle, answers: Sequence[Answer]) -> Decision:
        record = self._escrow.hold(hold_id)
        policy = self._policies.get(record.policy)
        if policy is None:
            raise Misuse(f"this pool has no policy {record.policy}")
        openings = [answer for answer in answers if answer.kind is NeedKind.OPENING]
        # An opening that came stops the clock once, at the first attempt; the others find it stopped.
        if openings and record.capture(seq).state is State.ANSWERING:
            return take_opening(
                hold_id,
                bundle,
                openings,
                verifier=self._verifier,
                policy=policy,
                escrow=self._escrow,
                key=self._key,
                seq=seq,
                answers=[answer for answer in answers if answer.kind is not NeedKind.OPENING],
                clock=self._clock,
            ).decision
        return verify_and_settle(
            hold_id,
            bundle,
            verifier=self._verifier,
            policy=policy,
            escrow=self._escrow,
            key=self._key,
            seq=seq,
            answers=answers,
            clock=self._clock,
        )


def _encode(hold_id: Digest, seq: int, bundle: Bundle, answers: Sequence[Answer]) -> bytes:
    """Write what a check takes: a queue keeps bytes, wherever it lies."""
    packed = {
        "answers": base64.b64encode(encode_answers(answers)).decode() if answers else None,
        "bundle": base64.b64encode(bundle.encode()).decode(),
        "hold": hold_id,
        "seq": seq,
    }
    return canonical.encode(packed)


def _decode(body: bytes) -> tuple[Digest, int, Bundle, tuple[Answer, ...]]:
    record = Record(canonical.decode(body, max_bytes=MAX_CHECK_BYTES, what="check"), what="check")
    answers = record.optional("answers", lambda field: record.base64(field, max_bytes=MAX_CHECK_BYTES))
    bundle = Bundle.decode(record.base64("bundle", max_bytes=MAX_CHECK_BYTES))
    hold_id, seq = record.digest("hold"), record.integer("seq", high=MAX_CAPTURES)
    record.close()
    return hold_id, seq, bundle, () if answers is None else decode_answers(answers)


__all__ = ["CheckDied", "CheckPool"]
