"""The verifier's work over a campaign of jobs, at the rates of policy and guard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _replay_models import Model
from _replay_prepared import NONCE, ORT, Prepared, ports, prepare
from _results import table

from proofhold import sampling
from proofhold.backends.replay import ReplayBackend
from proofhold.catalogue import Catalogue, Entry
from proofhold.compile.replay.calibration.calibrate import FIRST_SEED
from proofhold.compile.replay.calibration.runtimes import open_session
from proofhold.compile.replay.pin import draw
from proofhold.core import Accepted, Answer, Assurance, Check, Evidence, Inconclusive, NeedKind, Property
from proofhold.drafting import USDC
from proofhold.exchange import Exchange
from proofhold.guard import Observation, Standing, Terms, demand
from proofhold.job import PPM, Claim, Delivery, Job, OnnxModel
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Tensor, Tensors
from proofhold.policy import Policy
from proofhold.replay.opening import Opening
from proofhold.replay.segments import held_by_verifier, sent_with
from proofhold.replay.surgery import expose, parse
from proofhold.replay.trace import Trace, TraceHasher
from proofhold.runner import InlineRunner
from proofhold.verifier import Verifier

CAMPAIGNS = (("minilm", 8), ("resnet18", 1))
"""Models with the batch of each job: eight passages of 128 tokens to embed; one picture of 224 x 224."""
JOBS, POOL = 20_000, 48
RATE_PPM = 20_000
"""What the shipped policy `sampled` asks for at least, up to 1 USDC."""
PRICE, KAPPA = USDC.parse("0.5"), USDC.parse("10")
PROBATION = 138
MOST_SHARE, GOAL_SHARE = 0.005, 0.003
BUYER, PROVIDER, VERIFIER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))


class Timed(ReplayBackend):
    """The backend, with the CPU seconds of all its checks."""

    def __init__(self) -> None:
        super().__init__(InlineRunner())
        object.__setattr__(self, "seconds", 0.0)

    seconds: float

    def check(
        self,
        evidence: Evidence | None,
        exchange: Exchange,
        entry: Entry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        began = time.process_time()
        try:
            return super().check(evidence, exchange, entry, answers=answers, now=now)
        finally:
            object.__setattr__(self, "seconds", self.seconds + time.process_time() - began)


@dataclass
class Spent:
    """CPU seconds of a campaign's jobs: of the backend, of whole verdicts, of the backend if not drawn."""

    backend_s: float = 0.0
    verdict_s: float = 0.0
    undrawn_s: list[float] = field(default_factory=list)
    jobs: int = 0
    drawn: int = 0


def measure(model: Model, batch: int, folder: Path, *, quick: bool) -> Any:
    """A newcomer's probation, and then the rest, all honest."""
    prepared = prepare(model, batch, folder)
    entry, policy = prepared.entry, Policy.shipped("sampled")
    backend = Timed()
    verifier = Verifier(Catalogue.of([entry]), (), backend)
    jobs, pool = (500, 8) if quick else (JOBS, POOL)
    runs, plain_s, traced_s = run_pool(prepared, pool)
    terms = Terms(kappa=KAPPA)
    standing = Standing.newcomer(terms)
    probation, steady = Spent(), Spent()
    while steady.jobs < jobs:
        spent = probation if standing.probation_left else steady
        number = probation.jobs + steady.jobs
        secret, nonce = (sampling_bytes(what, number) for what in (b"secret", b"nonce"))
        rate = max(RATE_PPM, demand(terms, standing, price=PRICE).rate_ppm)
        run = runs[number % pool]
        exchange, trace = claim_on(prepared, run, nonce, secret, min(rate, PPM), policy)
        answers = [Answer(NeedKind.REVEAL, secret)]
        before, began = backend.seconds, time.process_time()
        verdict = verifier.verify(exchange, policy=policy, now=0, answers=answers)
        spent.verdict_s += time.process_time() - began
        if isinstance(verdict, Inconclusive):
            segment = int(verdict.needs[0].subject)
            sent = {i: run[prepared.lock.leaves[i].name] for i in sent_with(prepared.lock, segment)}
            body = Opening.of(trace, sent, held_by_verifier(prepared.lock)).encode()
            answers.append(Answer(NeedKind.OPENING, body))
            began = time.process_time()
            verdict = verifier.verify(exchange, policy=policy, now=0, answers=answers)
            spent.verdict_s += time.process_time() - began
        assert isinstance(verdict, Accepted), verdict
        checked = Assurance.REEXECUTED in {finding.shows[Property.OUTPUT] for finding in verdict.findings}
        here = backend.seconds - before
        spent.backend_s, spent.jobs, spent.drawn = (
            spent.backend_s + here,
            spent.jobs + 1,
            spent.drawn + checked,
        )
        if not checked:
            spent.undrawn_s.append(here)
        observation = Observation.CLEAN if checked else Observation.UNCHECKED
        standing = standing.after(observation, PRICE, terms)
    return {
        "segments": len(prepared.lock.segments),
        "batch": batch,
        "plain_s": plain_s,
        "traced": traced_s / plain_s,
        "undrawn_s": float(np.mean(steady.undrawn_s)),
        **{
            name: {
                "jobs": each.jobs,
                "drawn": each.drawn,
                "share": each.backend_s / (each.jobs * plain_s),
                "verdict_share": each.verdict_s / (each.jobs * plain_s),
                "inferences": each.backend_s / plain_s,
            }
            for name, each in (("steady", steady), ("probation", probation))
        },
    }


def section(models: Sequence[Model], measured: Sequence[Any]) -> tuple[str, list[str]]:
    """Write the table; gives it and what it misses."""
    rows, failed = [], []
    for model, found in zip(models, measured, strict=True):
        steady, probation = found["steady"], found["probation"]
        if steady["share"] > MOST_SHARE:
            failed.append(f"{model.name}: the verifier's work is {steady['share']:.4%}")
        rows.append(
            (
                *(f"{model.name}, batch {found['batch']}", f"{1e3 * found['plain_s']:.1f}"),
                *(str(found["segments"]), f"{steady['jobs']:,}", f"{steady['drawn']:,}"),
                *(f"**{100 * steady['share']:.3f}**", f"{1e6 * found['undrawn_s']:.0f}"),
                *(f"{100 * steady['verdict_share']:.2f}", f"{probation['inferences']:.0f}"),
                f"{100 * (found['traced'] - 1):.1f}",
            )
        )
    header = (
        *("a job", "inference, ms", "segments", "jobs", "checked", "verifier / inference, %"),
        *("not drawn, µs", "whole verdict, %", "probation, inferences", "provider's trace, %"),
    )
    text = (
        f"{table(header, rows)}\n\nHonest jobs of 0.5 USDC under the policy `sampled` (at least "
        f"{RATE_PPM / 1e4:g} %) and a guard of κ = 10 USDC, whose own rate falls below that of the policy. "
        "Each job is signed, committed to and judged with a nonce and a secret of its own. The verifier's "
        "work is the CPU time that re-execution takes it, every job's, drawn or not, over that of "
        f"onnxruntime's own runs, one thread; allowed: {MOST_SHARE:.1%} (goal {GOAL_SHARE:.1%}). The whole "
        "verdict holds besides what every kind of evidence costs: signatures, digests of input and output, "
        f"policy; it depends on their size, and not on the model's. Probation ({PROBATION} checks at rate 1) "
        "is paid once. The share is held where an inference takes some tenths of a second. One of a few "
        "tens of milliseconds is small beside what is fixed: reading an opening, and looking at a job that "
        "is not drawn, both with cold caches; and its model is cut into fewer segments, for the provider's "
        "sake."
    )
    return text, failed


def claim_on(
    prepared: Prepared, run: dict[str, Tensor], nonce: bytes, secret: bytes, rate_ppm: int, policy: Policy
) -> tuple[Exchange, Trace]:
    """A job that both sides signed, and an honest claim on it with its trace."""
    lock, entry = prepared.lock, prepared.entry
    inputs = Tensors(tuple(run[spec.name] for spec in lock.inputs))
    outputs = Tensors(tuple(run[spec.name] for spec in lock.outputs))
    job = Job(
        escrow="bench",
        verifier=VERIFIER.public,
        buyer=BUYER.public,
        provider=PROVIDER.public,
        payee=PROVIDER.public,
        model=OnnxModel(entry.model, None, lock.digest),
        input=inputs.digest(nonce),
        price=PRICE,
        currency=USDC,
        nonce=nonce.hex(),
        claim_by=1,
        verification_s=1,
        answer_s=1,
        dispute_s=1,
        freeze_s=1,
        delivery=Delivery.WITH_VERDICT,
        policy=policy.digest,
        evidence_kinds=("replay",),
        sampling_rate_ppm=rate_ppm,
        bond=0,
        withholding_penalty=0,
        sampling_commitment=sampling.commitment(nonce, secret),
    )
    trace = Trace.of(nonce, [run[leaf.name] for leaf in lock.leaves])
    signed = Signed.new(job, BUYER, PROVIDER)
    claim = Claim(job=signed.digest, seq=0, amount=PRICE, output=outputs.digest(nonce), trace_root=trace.root)
    return Exchange(signed, inputs, Signed.new(claim, PROVIDER), outputs), trace


def run_pool(prepared: Prepared, pool: int) -> tuple[list[dict[str, Tensor]], float, float]:
    """Run a model on a pool of inputs; gives every leaf, and CPU seconds of a plain and of a traced run."""
    lock = prepared.lock
    inputs, model = ports(lock.inputs), parse(prepared.published)
    plain = open_session(ORT, expose(model, inputs, ()))
    exposed = open_session(ORT, expose(model, inputs, ports(lock.boundaries)))
    runs, plain_s, traced_s = [], 0.0, 0.0
    for number in range(-1, pool):
        drawn = draw(lock.inputs, FIRST_SEED + max(number, 0))
        feed = {tensor.name: tensor.numpy() for tensor in drawn}
        began = time.process_time()
        plain(feed)
        between = time.process_time()
        values = {**feed, **exposed(feed)}
        hasher = TraceHasher(NONCE)
        assert Trace(hasher, tuple(hasher.leaf_of(leaf.name, values[leaf.name]) for leaf in lock.leaves)).root
        if number >= 0:  # the first run of a session is no run
            plain_s += between - began
            traced_s += time.process_time() - between
            runs.append({name: Tensor.of(name, values[name]) for name in (leaf.name for leaf in lock.leaves)})
    return runs, plain_s / pool, traced_s / pool


def sampling_bytes(what: bytes, number: int) -> bytes:
    """Thirty-two bytes that nobody could foresee, but everybody can repeat."""
    return np.random.default_rng([*what, number]).bytes(sampling.SECRET_BYTES)
