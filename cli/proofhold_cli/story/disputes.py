"""Acts 11 and 12: a cheat is caught, convicted by arithmetic and slashed; a false alarm ends in payment.

Played on a small transformer that is cut into segments. The provider commits to the tensors at the cuts, one
drawn segment is opened and run again, and what does not match goes to a judge that anybody repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from proofhold.adjudication import Settled, adjudicate, take_answer
from proofhold.answering import take_opening
from proofhold.canonical import file_digest
from proofhold.catalogue import Entry
from proofhold.contention import Challenge, SignedChallenge, SignedDisputeAnswer
from proofhold.core import Answer, NeedKind
from proofhold.decision import Decision, Outcome
from proofhold.drafting import USDC, Terms
from proofhold.errors import Misuse
from proofhold.escrow import AccountKind
from proofhold.exchange import Bundle, Exchange
from proofhold.job import PPM, Claim
from proofhold.keys import Signed
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor, Tensors
from proofhold.policy import Policy
from proofhold.provider.answering import Answered, answer_exchange, sign_answer
from proofhold.replay.accusation import charge
from proofhold.replay.judge import judge_file
from proofhold.replay.opening import Opening
from proofhold.replay.regions import Graph
from proofhold.replay.rerun import Rerunner, Traced
from proofhold.replay.segments import held_by_verifier, sent_with
from proofhold.replay.steps import run_stepwise
from proofhold.replay.transcript import Transcript
from proofhold_cli.story.cheats import rounded_to_int8
from proofhold_cli.story.stage import BOND, PRICE, Funded, Stage
from proofhold_cli.story.telling import Line

MODEL = "transformer"
WHAT = "int8 weights, adjudicated"
DISPUTE_S = 3_600
MAX_JOBS = 60
"""One segment in five has no weights: drawn sixty times, that has a probability below 1e-40."""
TERMS = Terms(
    price=PRICE,
    evidence_kinds=("replay",),
    sampling_rate_ppm=PPM,
    bond=BOND,
    withholding_penalty=BOND,
    dispute_s=DISPUTE_S,
)


@dataclass(frozen=True, slots=True)
class Cheat:
    """A provider's run of a cheaper model, committed to as if it were the published one's."""

    bundle: Bundle
    model: bytes
    lock: ReplayLock
    """The published lock, as if it were about the cheaper model."""
    traced: Traced
    run: Mapping[str, Tensor]


def play_disputes(stage: Stage) -> Iterator[Line]:
    """Play both acts."""
    stage.pin(MODEL)
    policy = Policy.shipped("dangerous_demo_sampled")
    yield from _caught(stage, policy)
    yield _false_alarm(stage, policy)


def _caught(stage: Stage, policy: Policy) -> Iterator[Line]:
    """Act 11: int8 weights, until a segment is drawn that has any; then no answer can save its provider."""
    for number in range(MAX_JOBS):
        funded = stage.hire(MODEL, TERMS, policy, sample=number)
        cheat = _cheat(stage, funded)
        stage.claim(cheat.bundle)
        needs = stage.judge_and_pay(f"11-int8-{number}", cheat.bundle, policy).needs
        segment = next(int(need.subject) for need in needs if need.kind is NeedKind.OPENING)
        decision = _opened(stage, policy, cheat, segment)
        if decision.outcome is Outcome.DISPUTE:
            yield _convicted(stage, cheat, segment, next(r.got for r in decision.receipt.reasons))
            return
        stage.escrow.pump(stage.rail, now=stage.clock())
        state = stage.escrow.hold(funded.id).capture(0).state.value
        why = f"segment {segment} was drawn, which has no weights"
        yield Line(11, WHAT, "none, drawn", state, why, paid=state == "released")


def _opened(stage: Stage, policy: Policy, cheat: Cheat, segment: int) -> Decision:
    """Open the drawn segment, truly: what was committed to is what there is to show."""
    opening = Answer(NeedKind.OPENING, _open(cheat, segment).encode())
    return take_opening(
        cheat.bundle.exchange.job.digest,
        cheat.bundle,
        opening,
        verifier=stage.verifier,
        policy=policy,
        escrow=stage.escrow,
        key=stage.judge,
        clock=stage.clock,
    ).decision


def _convicted(stage: Stage, cheat: Cheat, segment: int, measured: str) -> Line:
    """Challenge, answer, charge, judge: the provider shows its run, and a cheap product convicts it."""
    challenge = _challenge(stage, cheat.bundle, segment)
    steps = run_stepwise(
        stage.runner,
        cheat.model,
        cheat.lock,
        cheat.lock.segments[segment],
        [cheat.run[name] for name in cheat.lock.segments[segment].inputs],
    )
    pinned = cheat.lock.segments[segment]
    ends = {name: cheat.run[name] for name in (*pinned.inputs, *pinned.outputs)}
    shown = {name: tensor for name, tensor in steps.items() if name not in cheat.run}
    answered = sign_answer(challenge.document, cheat.traced.trace, {**shown, **ends}, stage.provider)
    settled = _settle(stage, "11-transcript.bin", cheat.bundle, *answered)
    replayed = judge_file(
        (stage.folder / "11-transcript.bin").read_bytes(), stage.catalogue.by_name(MODEL).model_bytes()
    )
    record = stage.escrow.hold(cheat.bundle.exchange.job.digest)
    why = (
        f"segment {segment} is off by {measured}; {settled.judgement.outcome}: {settled.judgement.message}; "
        f"the buyer has its {USDC.show(PRICE)} back; bond of {USDC.show(record.bond.amount)} "
        f"{record.bond.state}, treasury {USDC.show(_treasury(stage))}; "
        f"replayed from its file: {replayed.outcome}"
    )
    if replayed.outcome != settled.judgement.outcome or record.bond.state != "slashed":
        raise Misuse(f"act 11 does not end as it should: {why}")
    return Line(11, WHAT, "none, drawn", settled.state.value, why, paid=False)


def _false_alarm(stage: Stage, policy: Policy) -> Line:
    """Act 12: an honest claim, a verifier that is down until the dispute; the answer clears its provider."""
    funded = stage.hire(MODEL, TERMS, policy, sample=1)
    bundle = stage.respond(funded, prove=False, trace=True)
    stage.claim(bundle)
    stage.clock.pass_by(funded.job.document.verification_s + 1)
    stage.escrow.run_timers(stage.clock())
    challenge = _challenge(stage, bundle, 1)
    answered: Answered = answer_exchange(
        challenge, bundle.exchange, funded.entry, stage.provider, runner=stage.runner
    )
    settled = _settle(stage, "12-transcript.bin", bundle, answered.document, answered.tensors)
    record = stage.escrow.hold(funded.id)
    why = f"{settled.judgement.outcome}: {settled.judgement.message}; bond {record.bond.state}"
    if record.bond.state != "free":
        raise Misuse(f"act 12 does not end as it should: {why}")
    state = record.capture(0).state.value
    return Line(12, "a false alarm, answered", "none", state, why, paid=state == "released")


def _cheat(stage: Stage, funded: Funded) -> Cheat:
    """Run int8 weights instead of the model, and sign a claim that commits to that run."""
    lock = funded.entry.replay
    if lock is None:
        raise Misuse(f"{funded.entry.name} has no replay lock")
    model = rounded_to_int8(funded.entry.model_bytes())
    as_if = replace(lock, model=file_digest(model))
    entry = Entry(funded.entry.name, as_if.model, None, as_if, model)
    cuts = [boundary.name for boundary in lock.boundaries]
    nonce = bytes.fromhex(funded.job.document.nonce)
    traced = Rerunner(entry, stage.runner).traced(nonce, funded.payload.items, wanted=cuts)
    output = Tensors(traced.outputs)
    claim = Claim(
        job=funded.id,
        seq=0,
        amount=funded.job.document.price,
        output=output.digest(nonce),
        trace_root=traced.trace.root,
    )
    exchange = Exchange(funded.job, funded.payload, Signed.new(claim, stage.provider), output)
    run = {tensor.name: tensor for tensor in (*funded.payload.items, *traced.cuts, *traced.outputs)}
    return Cheat(Bundle(exchange), model, as_if, traced, run)


def _open(cheat: Cheat, segment: int) -> Opening:
    """Open a segment of what was committed to: silence would cost the penalty."""
    sent = {index: cheat.run[cheat.lock.leaves[index].name] for index in sent_with(cheat.lock, segment)}
    return Opening.of(cheat.traced.trace, sent, held_by_verifier(cheat.lock))


def _challenge(stage: Stage, bundle: Bundle, segment: int) -> SignedChallenge:
    claim = bundle.exchange.claim
    document = Challenge(job=claim.document.job, seq=0, claim=claim.digest, segment=segment)
    challenge = Signed.new(document, stage.judge)
    stage.escrow.challenge(challenge, now=stage.clock())
    return challenge


def _settle(
    stage: Stage, name: str, bundle: Bundle, answer: SignedDisputeAnswer, tensors: tuple[Tensor, ...]
) -> Settled:
    """Record an answer, charge the worst of it, leave the transcript in the folder, and let it decide."""
    take_answer(
        answer,
        tensors,
        catalogue=stage.catalogue,
        escrow=stage.escrow,
        key=stage.judge,
        clock=stage.clock,
    )
    transcript = _charge(stage, bundle, answer, tensors).encode()
    (stage.folder / name).write_bytes(transcript)
    settled = adjudicate(
        transcript, catalogue=stage.catalogue, escrow=stage.escrow, runner=stage.runner, clock=stage.clock
    )
    stage.escrow.pump(stage.rail, now=stage.clock())
    state = stage.escrow.hold(bundle.exchange.job.digest).capture(0).state
    return replace(settled, state=state)


def _charge(
    stage: Stage, bundle: Bundle, answer: SignedDisputeAnswer, tensors: tuple[Tensor, ...]
) -> Transcript:
    entry = stage.catalogue.by_name(MODEL)
    if entry.replay is None:
        raise Misuse(f"{MODEL} has no replay lock")
    exchange = bundle.exchange
    graph = Graph.parse(entry.model_bytes())
    transcript, _ = charge(exchange.job, exchange.claim, entry.replay, graph, answer, tensors, stage.judge)
    return transcript


def _treasury(stage: Stage) -> int:
    return sum(b.amount for b in stage.escrow.balances() if b.account.kind is AccountKind.TREASURY)


__all__ = ["play_disputes"]
