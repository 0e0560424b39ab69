"""Eight of the acts: real cheats and real honesty, played on a stage, and told line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from proofhold import canonical
from proofhold.chat import MEDIA_TYPE
from proofhold.chat import Answer as ChatAnswer
from proofhold.core import Answer, NeedKind
from proofhold.drafting import USDC, Terms, draft_job
from proofhold.exchange import Bundle
from proofhold.execution import run_model
from proofhold.job import PPM
from proofhold.payload import Document, Tensor, Tensors, decode_payload, encode_payload
from proofhold.policy import Policy
from proofhold.provider import accept
from proofhold.provider.chat import respond_with
from proofhold.receipt import Outcome as Judged
from proofhold.settlement import Decision, fund
from proofhold_cli.story.cheats import rounded_to_int8
from proofhold_cli.story.stage import BOND, CHAT, PRICE, Stage
from proofhold_cli.story.telling import Line, line_of

SAMPLED_PPM = PPM // 2
CHEATED_PPM = PPM // 5
LEAST_SAMPLED_JOBS = 4
MAX_JOBS = 300
"""Past any chance: undrawn 300 times at 20 % has a probability below 1e-29."""

PROVED = Terms(price=PRICE, evidence_kinds=("ezkl",))


def play(stage: Stage) -> Iterator[Line]:
    """Play acts 1 to 8, one after the other."""
    proved = Policy.shipped("dangerous_demo_proved")
    sampled = Policy.shipped("dangerous_demo_sampled")

    funded = stage.hire("digits", PROVED, proved)
    honest = stage.respond(funded, prove=True)
    stage.claim(honest)
    yield line_of(1, "honest, with a proof", "ezkl", stage.judge_and_pay("1-honest", honest, proved))
    yield _altered_output(stage, proved)
    yield _replayed_proof(stage, proved, honest)
    yield from _sampled_honest(stage, sampled)
    yield from _sampled_cheat(stage, sampled)
    yield _silence(stage, sampled)
    yield from _damaged(stage, proved)
    yield _chat(stage, Policy.shipped("dangerous_demo_attested"))


def _altered_output(stage: Stage, policy: Policy) -> Line:
    """Act 2: an honest proof beside an output that was changed by one step of the circuit's grid."""
    funded = stage.hire("breast_cancer", PROVED, policy, sample=1)
    honest = stage.respond(funded, prove=True)
    circuit = stage.prover.circuit_of(funded.entry)
    step = 2.0 ** -circuit.lock.output_scales[0]
    forged = stage.sign(funded, _shifted(honest.exchange.output, step), honest.evidence)
    stage.claim(forged)
    decision = stage.judge_and_pay("2-altered-output", forged, policy)
    return line_of(2, "the provider alters the output and signs it", "ezkl", decision)


def _replayed_proof(stage: Stage, policy: Policy, earlier: Bundle) -> Line:
    """Act 3: the proof of act 1, for a new job on the very same input."""
    funded = stage.hire("digits", PROVED, policy)
    forged = stage.sign(funded, earlier.exchange.output, earlier.evidence)
    stage.claim(forged)
    decision = stage.judge_and_pay("3-replayed-proof", forged, policy)
    return line_of(3, "a proof of another job, replayed", "ezkl", decision)


def _sampled_honest(stage: Stage, policy: Policy) -> Iterator[Line]:
    """Act 4: no proof, at a sampling rate of one half, until the draw has gone both ways."""
    terms = Terms(price=PRICE, evidence_kinds=("replay",), sampling_rate_ppm=SAMPLED_PPM, bond=BOND)
    seen: set[str] = set()
    for number in range(MAX_JOBS):
        funded = stage.hire("digits", terms, policy, sample=number)
        bundle = stage.respond(funded, prove=False)
        stage.claim(bundle)
        decision = stage.judge_and_pay(f"4-sampled-{number}", bundle, policy)
        drawn = "not drawn" if _was_passed_over(decision) else "drawn, re-executed"
        yield replace(line_of(4, "honest, without a proof", "none, p = 50 %", decision), why=drawn)
        seen.add(drawn)
        if len(seen) == 2 and number + 1 >= LEAST_SAMPLED_JOBS:
            return


def _sampled_cheat(stage: Stage, policy: Policy) -> Iterator[Line]:
    """Act 5: weights rounded to int8, at a rate of one in five, until caught."""
    terms = Terms(
        price=PRICE, evidence_kinds=("replay",), sampling_rate_ppm=CHEATED_PPM, bond=BOND, dispute_s=0
    )
    cheap = rounded_to_int8(stage.catalogue.by_name("digits").model_bytes())
    for number in range(MAX_JOBS):
        funded = stage.hire("digits", terms, policy, sample=number)
        output = decode_payload(run_model(cheap, encode_payload(funded.payload)))
        forged = stage.sign(funded, output)
        stage.claim(forged)
        decision = stage.judge_and_pay(f"5-int8-{number}", forged, policy)
        line = line_of(5, "weights rounded to int8", "none, p = 20 %", decision)
        if decision.receipt.outcome is Judged.ACCEPTED:
            yield replace(line, why="not drawn")
            continue
        stage.escrow.run_timers(stage.clock())
        stage.escrow.pump(stage.rail, now=stage.clock())
        record = stage.escrow.hold(funded.id)
        bond = f"bond of {USDC.show(record.bond.amount)} {record.bond.state}"
        yield replace(line, state=record.capture(0).state.value, why=f"{line.why}; {bond}")
        return


def _silence(stage: Stage, policy: Policy) -> Line:
    """Act 6: nothing comes, and the clock gives the buyer the money back."""
    terms = Terms(price=PRICE, evidence_kinds=("replay",), sampling_rate_ppm=CHEATED_PPM)
    funded = stage.hire("breast_cancer", terms, policy, sample=2)
    stage.clock.pass_by(terms.claim_within_s + 1)
    moves = [move.target for move in stage.escrow.run_timers(stage.clock()) if move.hold == funded.id]
    stage.escrow.pump(stage.rail, now=stage.clock())
    state = stage.escrow.hold(funded.id).capture(0).state.value
    why = " → ".join(move for move in moves if move != "free")
    return Line(6, "the provider stays silent", "none", state, why, paid=False)


def _damaged(stage: Stage, policy: Policy) -> Iterator[Line]:
    """Act 7: somebody on the way swaps the output; the verifier asks for the true bytes."""
    funded = stage.hire("breast_cancer", PROVED, policy, sample=3)
    honest = stage.respond(funded, prove=True)
    stage.claim(honest)
    exchange = replace(honest.exchange, output=_shifted(honest.exchange.output, 1.0))
    damaged = replace(honest, exchange=exchange)
    kept = stage.judge_and_pay("7-damaged", damaged, policy)
    needs = ", ".join(f"needs the true {need.kind}" for need in kept.receipt.needs)
    line = line_of(7, "a bundle damaged on the way", "ezkl", kept)
    faults = ", ".join(sorted({f"fault: {reason.fault}" for reason in kept.receipt.reasons}))
    yield replace(line, why=f"{faults}; {needs}")
    answer = Answer(NeedKind.OUTPUT, encode_payload(honest.exchange.output))
    settled = stage.judge_and_pay("7-repaired", damaged, policy, answers=[answer])
    yield line_of(7, "the same, with the true bytes", "ezkl", settled)


def _chat(stage: Stage, policy: Policy) -> Line:
    """Act 8: a chat answer that a simulated enclave signed for this job."""
    entry = stage.catalogue.service(CHAT)
    if entry is None:
        raise LookupError(CHAT)
    request = {"messages": [{"content": "What is 2 + 2?", "role": "user"}], "model": CHAT}
    payload = Document(MEDIA_TYPE, canonical.encode(request))
    draft = draft_job(
        Terms(price=PRICE, evidence_kinds=("sim",)),
        entry=entry,
        payload=payload,
        policy=policy,
        buyer=stage.buyer,
        provider=stage.provider.public,
        verifier=stage.judge.public,
        escrow=stage.escrow,
        now=stage.clock(),
    )
    job = accept(draft, stage.provider)
    fund(job, payload, policy=policy, verifier=stage.verifier, escrow=stage.escrow, clock=stage.clock)
    answer = ChatAnswer(CHAT, "It is 4.").document()
    evidence = stage.enclave.sign(job, payload, answer, now=stage.clock())
    bundle = respond_with(job, payload, answer, evidence, entry, stage.provider)
    stage.claim(bundle)
    decision = stage.judge_and_pay("8-chat", bundle, policy)
    return line_of(8, "a chat answer, from a simulated enclave", "sim", decision)


def bond_that_deters() -> int:
    """Give the bond (atomic units) from which on act 5 would have been a loss on average.

    A cheat saves g every time, at most the price. With probability p it is drawn, and loses price and bond:
    it is a loss as soon as p (price + bond) > g, that is from a bond of g/p - price on.
    """
    return PRICE * PPM // CHEATED_PPM - PRICE


def _shifted(output: object, by: float) -> Tensors:
    """Add a number to the first element of the first output."""
    if not isinstance(output, Tensors):
        raise TypeError("a model gives tensors")
    first, *others = output.items
    array = first.numpy().copy()
    array.flat[0] += by
    return Tensors((Tensor.of(first.name, array), *others))


def _was_passed_over(decision: Decision) -> bool:
    return any("not_drawn" in finding.shows.values() for finding in decision.receipt.findings)
