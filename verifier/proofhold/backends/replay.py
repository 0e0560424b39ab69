"""Sampled re-execution: the judge of claims that name neither proof nor attestation (PROTOCOL P2, P17).

The job commits to a secret; once the claim is recorded the secret is revealed, and seed = H(secret, claim)
decides whether this job is drawn. One that is not drawn is accepted as NOT_DRAWN. One that is drawn is run
again, whole, on the published model, and each output must lie within the tolerance that the replay lock pins.
The steps:

1. The claimed output has the names, dtypes and shapes of the model's outputs, and is finite.
2. The reveal opens the job's commitment.
3. The seed draws the job, or passes it over.
4. Run the model on the input, in a worker.
5. Compare each output in the relative 2-norm.

A mismatch is a measurement, not a fact that anyone recomputes to the bit: it opens a dispute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from proofhold.catalogue import Entry
from proofhold.core import (
    Answer,
    Assurance,
    Check,
    Evidence,
    Fault,
    Finding,
    Need,
    NeedKind,
    Offer,
    Property,
    Reason,
    Refuted,
    Unclear,
)
from proofhold.errors import Malformed
from proofhold.exchange import Exchange
from proofhold.execution import run_model
from proofhold.job import REPLAY_KIND as KIND
from proofhold.locks import ReplayLock
from proofhold.payload import Payload, Tensor, Tensors, decode_payload, encode_payload
from proofhold.runner import Runner, RunnerError
from proofhold.sampling import SECRET_BYTES, commitment, is_drawn, seed

RUN_DEADLINE_S = 120.0


@dataclass(frozen=True)
class ReplayBackend:
    """Draws by the committed secret and re-executes in the runner it is given."""

    runner: Runner
    deadline_s: float = RUN_DEADLINE_S
    kind: str = KIND

    def accepts(self, payload: Payload) -> bool:
        """Tell whether this kind can speak of such a payload: tensors only."""
        return isinstance(payload, Tensors)

    def offers(self, entry: Entry | None) -> tuple[Offer, ...]:
        """Say what may come out: the job is drawn and re-executed, or it is not drawn."""
        if entry is not None and (entry.replay is None or entry.source is None):
            return ()
        return (Offer(KIND, _shows(Assurance.REEXECUTED)), Offer(KIND, _shows(Assurance.NOT_DRAWN)))

    def check(
        self,
        evidence: Evidence | None,
        exchange: Exchange,
        entry: Entry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        """Judge a claim by its output alone. There is no evidence of this kind, and `now` plays no part."""
        del evidence, now
        lock = entry.replay
        if lock is None or entry.source is None:
            text = f"{entry.name} cannot be re-executed here: its model or its replay lock is missing"
            return _unclear("replay.no_lock", text, Fault.VERIFIER, NeedKind.LOCK)
        reasons = _check_form(lock, exchange.output)  # step 1
        if reasons:
            return Refuted(KIND, tuple(reasons))

        job = exchange.job.document
        secret = _revealed(answers, job.nonce, job.sampling_commitment)  # step 2
        if isinstance(secret, Unclear):
            return secret
        claim_digest = exchange.claim.digest
        rate = {"sampling_rate_ppm": str(job.sampling_rate_ppm)}
        if not is_drawn(seed(secret, claim_digest), job.sampling_rate_ppm):  # step 3
            return Finding(KIND, _shows(Assurance.NOT_DRAWN), rate)

        try:
            encoded = self.runner.run(  # step 4
                run_model, entry.model_bytes(), encode_payload(exchange.input), deadline_s=self.deadline_s
            )
            recomputed = decode_payload(encoded)
        except (RunnerError, Malformed) as error:
            text = f"the re-execution did not finish: {error}"
            return _unclear("replay.run_failed", text, Fault.NOBODY, NeedKind.RETRY)
        return _judge(lock, exchange.output, recomputed, rate)  # step 5


def relative_l2(claimed: Tensor, recomputed: Tensor) -> float:
    """Give |claimed - recomputed| / |recomputed| in the 2-norm, in float64; infinite where not comparable."""
    import numpy as np

    if claimed.shape != recomputed.shape:
        return math.inf
    ours = recomputed.numpy().astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(claimed.numpy().astype(np.float64) - ours))
        norm = float(np.linalg.norm(ours))
    if not (math.isfinite(distance) and math.isfinite(norm)):
        return math.inf
    if norm == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / norm


def _judge(lock: ReplayLock, claimed: Payload, recomputed: Payload, rate: dict[str, str]) -> Check:
    if not isinstance(claimed, Tensors) or not isinstance(recomputed, Tensors):
        return _unclear("replay.run_failed", "the model gave no tensors", Fault.VERIFIER, NeedKind.RETRY)
    ours = {tensor.name: tensor for tensor in recomputed.items}
    distances = {t.name: relative_l2(t, ours[t.name]) if t.name in ours else math.inf for t in claimed.items}
    reasons = tuple(
        Reason(
            "replay.mismatch",
            f"output {name} is not what the model gives",
            Fault.PROVIDER,
            got=f"relative L2 {distance:.3g}",
            expected=f"at most {lock.relative_l2:g}",
            measured=True,
        )
        for name, distance in distances.items()
        # Not `distance > tolerance`: a NaN must fail.
        if not distance <= lock.relative_l2
    )
    if reasons:
        return Refuted(KIND, reasons)
    worst = max(distances.values())
    facts = rate | {"replay_lock": lock.digest, "relative_l2": f"{worst:.3g}"}
    return Finding(KIND, _shows(Assurance.REEXECUTED), facts)


def _check_form(lock: ReplayLock, output: Payload) -> list[Reason]:
    """Refuse what no run of the model can give, drawn or not: it costs nothing to see (step 1)."""
    if not isinstance(output, Tensors):
        return [_form("a model gives tensors", "a document", "tensors")]
    got = [(t.name, t.dtype, t.shape) for t in output.items]
    expected = [(spec.name, spec.dtype, spec.shape) for spec in lock.outputs]
    if got != expected:
        return [_form("the output has another form than the model's", str(got), str(expected))]

    import numpy as np

    return [
        _form(f"output {tensor.name} is not finite", "NaN or infinity", "finite numbers")
        for tensor in output.items
        if not np.isfinite(tensor.numpy()).all()
    ]


def _revealed(answers: Sequence[Answer], nonce: str, expected: str) -> bytes | Unclear:
    """Find the secret that opens the job's commitment among the answers (step 2)."""
    reveals = [answer.body for answer in answers if answer.kind is NeedKind.REVEAL]
    for secret in reveals:
        # An answer comes from anyone; of another length it is no secret, and `commitment` would raise.
        if len(secret) == SECRET_BYTES and commitment(bytes.fromhex(nonce), secret) == expected:
            return secret
    if not reveals:
        text = "whether this job is drawn depends on the secret that the verifier committed to"
        return _unclear("replay.reveal_missing", text, Fault.NOBODY, NeedKind.REVEAL)
    text = "the revealed secret is not the one that the job commits to"
    return _unclear("replay.reveal_mismatch", text, Fault.VERIFIER, NeedKind.REVEAL)


def _shows(assurance: Assurance) -> dict[Property, Assurance]:
    properties = (Property.MODEL, Property.INPUT, Property.OUTPUT, Property.FRESH)
    return dict.fromkeys(properties, assurance)


def _form(message: str, got: str, expected: str) -> Reason:
    return Reason("replay.output_form", message, Fault.PROVIDER, got[:200], expected[:200])


def _unclear(code: str, message: str, fault: Fault, need: NeedKind) -> Unclear:
    return Unclear(KIND, (Reason(code, message, fault),), (Need(need),))


__all__ = ["KIND", "ReplayBackend", "relative_l2"]
