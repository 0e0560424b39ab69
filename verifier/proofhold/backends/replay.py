"""Sampled re-execution: the judge of claims that name neither proof nor attestation (PROTOCOL P2, P17).

The job commits to a secret; once the claim is recorded the secret is revealed, and seed = H(secret, claim)
decides whether this job is drawn. One that is not drawn is accepted as NOT_DRAWN. One that is drawn is run
again on the published model: one segment of it, which the seed names, where the claim commits to the run's
trace, and else the whole. What comes out must lie within the tolerance that the replay lock pins. The steps:

1. The claimed output has the names, dtypes and shapes of the model's outputs, and is finite.
2. The reveal opens the job's commitment.
3. The seed draws the job, or passes it over, unless its provider has failed a check since: then it is checked
   all the same (P11). The seed draws the segment as well.
4. The opening of that segment leads from the job's input, the cuts and the claim's output to the root.
5. Run the segment on its *committed* input, or the model on the job's, in a worker.
6. Compare what came out with what was committed to, in the relative 2-norm. Labels are never compared.

No opening, a wrong one and one that contradicts the model are three things. The first is a need: silence is
for the escrow's clock to punish (P12). The second was put there by somebody, who has not signed it: it is
dropped, and the need stays. The third fits the root that the provider signed: it is the provider's own word.
It is a measurement all the same, and no fact that anyone recomputes to the bit: it opens a dispute.

A job that commits to a second secret is too valuable for one segment: if it is drawn, every matrix product of
its run is checked by random projection, and everything else is run again (PROTOCOL P3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proofhold.canonical import Digest
from proofhold.catalogue import Entry
from proofhold.contention import ProductOpening
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
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import Exchange
from proofhold.job import REPLAY_KIND as KIND
from proofhold.keys import Signed
from proofhold.locks import ReplayLock
from proofhold.payload import Payload, Tensors
from proofhold.replay.compare import is_finite
from proofhold.replay.products import SUBJECT, fits, read_pieces
from proofhold.replay.producttasks import ProductRunner
from proofhold.replay.rerun import Rerunner
from proofhold.replay.segments import Committed, distances, opened
from proofhold.replay.trace import TraceHasher
from proofhold.runner import Runner, RunnerError
from proofhold.sampling import (
    SECRET_BYTES,
    commitment,
    draw_segment,
    is_drawn,
    projection_commitment,
    projection_seed,
    seed,
)

RUN_DEADLINE_S = 120.0


@dataclass(frozen=True)
class ReplayBackend:
    """Draws by the committed secret and re-executes in the runner it is given."""

    runner: Runner
    deadline_s: float = RUN_DEADLINE_S
    kind: str = KIND
    _rerunners: dict[Digest, tuple[Entry, Rerunner]] = field(default_factory=dict, repr=False, compare=False)

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
        drawn = seed(secret, exchange.claim.digest)
        facts = {"sampling_rate_ppm": str(job.sampling_rate_ppm)}
        raised = any(answer.kind is NeedKind.CHECK for answer in answers)
        if raised:
            facts["raised"] = "1"  # its provider has failed a check since the job was signed (P11)
        elif not is_drawn(drawn, job.sampling_rate_ppm):  # step 3
            return Finding(KIND, _shows(Assurance.NOT_DRAWN), facts)
        facts["replay_lock"] = lock.digest
        try:
            if job.projection_commitment is not None:
                return self._check_products(entry, lock, exchange, answers, facts)
            if exchange.claim.document.trace_root is None or not lock.boundaries:
                return self._rerun(entry, lock, exchange, facts)
            segment = draw_segment(drawn, len(lock.segments))
            return self._check_segment(entry, lock, exchange, segment, answers, facts)
        except (RunnerError, Malformed) as error:
            text = f"the re-execution did not finish: {error}"
            return _unclear("replay.run_failed", text, Fault.NOBODY, NeedKind.RETRY)

    def _rerun(self, entry: Entry, lock: ReplayLock, exchange: Exchange, facts: dict[str, str]) -> Check:
        """Run the whole model again (steps 5 and 6): for a claim without a trace, or a model without cuts."""
        given, claimed = exchange.input, exchange.output
        if not isinstance(given, Tensors) or not isinstance(claimed, Tensors):
            raise Misuse("only a claim on tensors can be run again")
        found = self._rerunner(entry, lock).whole(given.items, claimed.items)
        return _judge(found, lock.relative_l2, "the model", facts)

    def _rerunner(self, entry: Entry, lock: ReplayLock) -> Rerunner:
        """Keep what asks for segments of a model: it is the same with every check."""
        known = self._rerunners.get(lock.digest)
        if known is None or known[0] is not entry:
            known = entry, Rerunner(entry, self.runner, deadline_s=self.deadline_s)
            self._rerunners[lock.digest] = known
        return known[1]

    def _check_products(
        self,
        entry: Entry,
        lock: ReplayLock,
        exchange: Exchange,
        answers: Sequence[Answer],
        facts: dict[str, str],
    ) -> Check:
        """Check every matrix product by random projection and run the rest again (PROTOCOL P3).

        The provider signs for the results, since no root that it signed binds them; the second secret is
        revealed once their digest is recorded.
        """
        given, claimed = exchange.input, exchange.output
        if not isinstance(given, Tensors) or not isinstance(claimed, Tensors):
            raise Misuse("only a claim on tensors has products to check")
        bodies = [answer.body for answer in answers if answer.kind is NeedKind.OPENING]
        digest, results = read_pieces(bodies) or ("", ())
        if not _is_signed_for(digest, exchange, bodies):
            return _no_opening(SUBJECT, given=bool(bodies))
        runner = ProductRunner(entry, self.runner, deadline_s=self.deadline_s)
        if not fits(results, runner.products()):
            text = "the provider signed for other products than the model's"
            return Refuted(KIND, (Reason("replay.trace_form", text, Fault.PROVIDER),))
        job = exchange.job.document
        nonce = bytes.fromhex(job.nonce)
        reveals = [a.body for a in answers if a.kind is NeedKind.REVEAL and len(a.body) == SECRET_BYTES]
        fitting = [s for s in reveals if projection_commitment(nonce, s) == job.projection_commitment]
        if not fitting:
            text = "how the products are compared depends on the second secret of the job"
            reason = Reason("replay.projection_missing", text, Fault.NOBODY)
            return Unclear(KIND, (reason,), (Need(NeedKind.REVEAL, digest),))
        found = runner.check(projection_seed(fitting[0], digest), given.items, results, claimed.items)
        told = facts | {"products": str(len(results)), "products_digest": digest}
        return _judge(found, lock.relative_l2, "the model", told)

    def _check_segment(
        self,
        entry: Entry,
        lock: ReplayLock,
        exchange: Exchange,
        segment: int,
        answers: Sequence[Answer],
        facts: dict[str, str],
    ) -> Check:
        """Check the opening of one segment and run it again (steps 4 to 6)."""
        root = exchange.claim.document.trace_root
        if (
            root is None
            or not isinstance(exchange.input, Tensors)
            or not isinstance(exchange.output, Tensors)
        ):
            raise Misuse("only a claim on tensors with a trace has segments to check")
        hasher = TraceHasher(bytes.fromhex(exchange.job.document.nonce))
        committed = Committed(root, hasher, exchange.input.items, exchange.output.items)
        bodies = [answer.body for answer in answers if answer.kind is NeedKind.OPENING]
        found = next(
            (o for body in bodies if (o := opened(lock, segment, body, committed)) is not None), None
        )
        if found is None:
            return _no_opening(str(segment), given=bool(bodies))
        if found.objection:
            text = "the provider committed to a run of another form than the model's"
            reason = Reason("replay.trace_form", text, Fault.PROVIDER, found.objection[:200])
            return Refuted(KIND, (reason,))
        rerunner = self._rerunner(entry, lock)
        told = facts | {"segment": f"{segment} of {len(lock.segments)}", "trace_root": root}
        tolerance = lock.segments[segment].relative_l2
        return _judge(distances(rerunner, segment, found.tensors), tolerance, f"segment {segment}", told)


def _judge(distances: Mapping[str, float], tolerance: float, what: str, facts: dict[str, str]) -> Check:
    reasons = tuple(
        Reason(
            "replay.mismatch",
            f"tensor {name} is not what {what} gives",
            Fault.PROVIDER,
            got=f"relative L2 {distance:.3g}",
            expected=f"at most {tolerance:g}",
            measured=True,
        )
        for name, distance in distances.items()
        # Not `distance > tolerance`: a NaN must fail.
        if not distance <= tolerance
    )
    if reasons:
        return Refuted(KIND, reasons)
    worst = max(distances.values())
    return Finding(KIND, _shows(Assurance.REEXECUTED), facts | {"relative_l2": f"{worst:.3g}"})


def _no_opening(subject: str, *, given: bool) -> Unclear:
    if given:
        code, text = "replay.opening_mismatch", "what was handed in is no opening of what is asked for"
    else:
        code, text = "replay.opening_missing", "this job is drawn: its provider has to open its run"
    expected = subject if subject == SUBJECT else f"segment {subject}"
    reason = Reason(code, text, Fault.NOBODY, expected=expected)
    return Unclear(KIND, (reason,), (Need(NeedKind.OPENING, subject),))


def _is_signed_for(products: Digest, exchange: Exchange, bodies: Sequence[bytes]) -> bool:
    """Tell whether the provider signed for these results: bytes that it did not sign blame nobody."""
    claim = exchange.claim
    expected = ProductOpening(
        job=exchange.job.digest, seq=claim.document.seq, claim=claim.digest, products=products
    )
    for body in bodies:
        try:
            signed = Signed.decode(ProductOpening, body)
        except Malformed:
            continue
        provider = exchange.job.document.provider
        if signed.document == expected and signed.envelope.is_signed_by_exactly([provider]):
            return True
    return False


def _check_form(lock: ReplayLock, output: Payload) -> list[Reason]:
    """Refuse what no run of the model can give, drawn or not: it costs nothing to see (step 1)."""
    if not isinstance(output, Tensors):
        return [_form("a model gives tensors", "a document", "tensors")]
    got = [(t.name, t.dtype, t.shape) for t in output.items]
    expected = [(spec.name, spec.dtype, spec.shape) for spec in lock.outputs]
    if got != expected:
        return [_form("the output has another form than the model's", str(got), str(expected))]

    return [
        _form(f"output {tensor.name} is not finite", "NaN or infinity", "finite numbers")
        for tensor in output.items
        if not is_finite(tensor)
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


__all__ = ["KIND", "ReplayBackend"]
