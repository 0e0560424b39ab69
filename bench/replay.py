"""Sampled re-execution on seven models: what committing and checking cost, and what is caught.

The parts that measure a cost are ratios of CPU seconds of one thread, interleaved in one run. `--quick` takes
fewer inputs and jobs, to see whether it works at all, and writes nothing.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _replay_models import MODELS, Model
from _results import table, write_section

from proofhold import sampling
from proofhold.backends.replay import ReplayBackend
from proofhold.catalogue import Entry
from proofhold.compile.errors import CompileError
from proofhold.compile.replay.calibration.calibrate import FIRST_SEED, calibrate, measure_model
from proofhold.compile.replay.calibration.cheats import CHEATS, MUST_BE_TOLD_APART, can_be_made
from proofhold.compile.replay.calibration.profile import Profile
from proofhold.compile.replay.calibration.runtimes import open_session, run_all
from proofhold.compile.replay.pin import draw, pin_replay
from proofhold.compile.specification import Specification
from proofhold.core import Answer, Assurance, Finding, NeedKind, Unclear
from proofhold.domain import PostProcessing
from proofhold.drafting import USDC
from proofhold.exchange import Exchange
from proofhold.guard import Observation, Standing, Terms, demand
from proofhold.job import PPM, Claim, Delivery, Job, OnnxModel
from proofhold.keys import Signed, SigningKey
from proofhold.locks import Boundary, ReplayLock
from proofhold.payload import ITEM_BYTES, Tensor, Tensors
from proofhold.replay.opening import Opening
from proofhold.replay.rerun import Rerunner
from proofhold.replay.segments import Committed, distances, held_by_verifier, opened, sent_with
from proofhold.replay.surgery import Port, expose, parse
from proofhold.replay.trace import Trace, TraceHasher
from proofhold.runner import InlineRunner

ORT = "onnxruntime/ORT_ENABLE_ALL/1"
NONCE = bytes(range(32))
MOST_OVERHEAD, GOAL_OVERHEAD = 1.05, 1.02
CHECK_ALLOWANCE = 0.05
DRAWN_FROM = 4
"""How many inputs a profile is drawn from here; the command draws from 20."""
STEADY_MODEL = "resnet18"
STEADY_RATE_PPM = 20_000
"""What the shipped policy `sampled` asks for at least, up to 1 USDC."""
PROBATION = 138
MOST_SHARE, GOAL_SHARE = 0.005, 0.003
TOP_K, EXPONENTS, MEAN, MEDIAN = 128, 90, 10, 8
"""TOPLOC's rule (arXiv 2501.16007): of the 128 largest values in bfloat16, reject if more than 90 exponents
differ, or if the mantissas of the others differ by more than 10 in the mean or 8 in the median."""


@dataclass(frozen=True)
class Prepared:
    """A model at one batch: its file, its lock, and one input."""

    model: Model
    batch: int
    published: bytes
    lock: ReplayLock
    sample: tuple[Tensor, ...]

    @property
    def entry(self) -> Entry:
        return Entry(self.model.name, self.lock.model, None, self.lock, self.published)


def prepare(model: Model, batch: int, folder: Path) -> Prepared:
    path = folder / f"{model.name}.onnx"
    if not path.exists():
        model.make(path)
    inputs = model.inputs(batch)
    specification = Specification(
        {name: (low, high) for name, (low, high, _) in inputs.items()},
        PostProcessing.NONE,
        path,
        {name: shape for name, (_, _, shape) in inputs.items()},
    )
    published = path.read_bytes()
    lock = pin_replay(published, specification, name=model.name, runner=InlineRunner()).lock
    return Prepared(model, batch, published, lock, draw(lock.inputs, 1))


def interleaved(subjects: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """CPU seconds of each subject, one after the other, round by round."""
    for call in subjects.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    gc.disable()
    for _ in range(runs):
        for name, call in subjects.items():
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    gc.enable()
    return seconds


def ports(leaves: Sequence[Any]) -> list[Port]:
    return [Port(leaf.name, leaf.dtype, leaf.shape) for leaf in leaves]


def bytes_of(leaf: Boundary) -> int:
    return math.prod(leaf.shape) * ITEM_BYTES[leaf.dtype]


def overhead(prepared: Prepared, runs: int) -> float:
    """A run with its trace, over a plain run."""
    lock = prepared.lock
    if not lock.boundaries:
        return 1.0  # there is nothing to commit to: the claim has no trace
    inputs, model = ports(lock.inputs), parse(prepared.published)
    plain = open_session(ORT, expose(model, inputs, ()))
    exposed = open_session(ORT, expose(model, inputs, ports(lock.boundaries)))
    feed = {tensor.name: tensor.numpy() for tensor in prepared.sample}
    names = [leaf.name for leaf in lock.leaves]

    def traced() -> str:
        values = {**feed, **exposed(feed)}
        hasher = TraceHasher(NONCE)
        return Trace(hasher, tuple(hasher.leaf_of(name, values[name]) for name in names)).root

    seconds = interleaved({"plain": lambda: plain(feed), "traced": traced}, runs)
    return ratio(seconds["traced"], seconds["plain"])


def ratio(some: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of neighbours: what the machine did meanwhile cancels."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))


def check_costs(prepared: Prepared, runs: int) -> list[float]:
    """For each segment the cost of its whole check, from the bytes of the opening, over a plain run."""
    lock, sample = prepared.lock, prepared.sample
    plain = open_session(ORT, expose(parse(prepared.published), ports(lock.inputs), ()))
    feed = {tensor.name: tensor.numpy() for tensor in sample}
    rerunner = Rerunner(prepared.entry, InlineRunner())
    cuts = [boundary.name for boundary in lock.boundaries]
    traced = rerunner.traced(NONCE, sample, wanted=cuts)
    run = {t.name: t for t in (*sample, *traced.cuts, *traced.outputs)}
    committed = Committed(traced.trace.root, TraceHasher(NONCE), sample, traced.outputs)

    def check(segment: int, body: bytes) -> None:
        found = opened(lock, segment, body, committed)
        assert found is not None
        assert max(distances(rerunner, segment, found.tensors).values()) < 1e-5

    subjects: dict[str, Callable[[], object]] = {"plain": lambda: plain(feed)}
    for segment in range(len(lock.segments)):
        sent = {index: run[lock.leaves[index].name] for index in sent_with(lock, segment)}
        body = Opening.of(traced.trace, sent, held_by_verifier(lock)).encode()
        subjects[str(segment)] = lambda segment=segment, body=body: check(segment, body)  # type: ignore[misc]
    seconds = interleaved(subjects, runs)
    return [ratio(seconds[str(segment)], seconds["plain"]) for segment in range(len(lock.segments))]


def cost_section(folder: Path, runs: int) -> tuple[str, list[str]]:
    rows, failed = [], []
    for model in MODELS:
        for batch in model.batches:
            prepared = prepare(model, batch, folder)
            count = len(prepared.lock.segments)
            traced, checks = overhead(prepared, runs), check_costs(prepared, max(runs // 3, 3))
            mean, allowed = statistics.mean(checks), 1 / count + CHECK_ALLOWANCE
            if traced > MOST_OVERHEAD:
                failed.append(f"{model.name}:{batch}: trace overhead {traced:.3f}")
            if mean > allowed and count > 1:
                failed.append(f"{model.name}:{batch}: a check costs {mean:.3f} of a run")
            rows.append(
                (
                    f"{model.name}{'' if model.tuned else ' *'}",
                    model.family,
                    str(batch),
                    str(count),
                    f"{traced:.3f}",
                    f"{mean:.3f} ({allowed:.3f})",
                    f"{max(checks):.3f}",
                    f"{sum(bytes_of(b) for b in prepared.lock.boundaries) / 1e6:.1f}",
                )
            )
            print(*rows[-1], flush=True)
    header = (
        *("model", "family", "batch", "segments", "run with trace / run"),
        *("check / run, mean (allowed)", "largest", "cuts, MB"),
    )
    text = (
        f"{table(header, rows)}\n\n* nobody tuned for it. A run is onnxruntime's own, one thread, fixed "
        "shapes. A "
        "trace is one run with the cuts as outputs and the hashes of all leaves. A check is from the "
        "opening's "
        "bytes to the verdict: reading, hashing, running one segment, comparing; the mean is over the "
        "segments, "
        f"each of which is as likely to be drawn. Allowed: {MOST_OVERHEAD} (goal {GOAL_OVERHEAD}), and 1/S + "
        f"{CHECK_ALLOWANCE:.0%}."
    )
    return text, failed


def detection_section(folder: Path, inputs: int, *, quick: bool) -> tuple[str, list[str]]:
    caught: dict[str, list[float]] = {name: [] for name in CHEATS}
    rows, failed, honest, passed, worst = [], [], 0, 0, 0.0
    runtimes: set[str] = set()
    for model in MODELS:
        prepared = prepare(model, 1, folder)
        try:
            # Tolerances are drawn on one set of inputs, and tried on another.
            drawn_from = max(inputs, 2) if quick else DRAWN_FROM
            profile = calibrate(prepared.published, prepared.lock, runner=InlineRunner(), inputs=drawn_from)
        except CompileError as error:
            failed.append(f"{model.name}: {error}")
            continue
        fresh = tried(prepared, profile, inputs if quick else model.tried)
        for name, ratios in fresh.items():
            if name in CHEATS:
                caught[name] += ratios
                continue
            runtimes.add(name)
            honest += len(ratios)
            passed += sum(value <= 1 for value in ratios)
            worst = max(worst, *ratios)
        rows.append((model.name, *row_of(profile)))
        print(*rows[-1], flush=True)
    header = ("model", "segments", "largest honest residual", "tolerances", *CHEATS)
    total = [f"{100 * share(caught[name]):.2f} ({len(caught[name]):,})" for name in CHEATS]
    least = {name: share(caught[name]) for name in MUST_BE_TOLD_APART}
    failed += [f"{name}: caught in {found:.4f}" for name, found in least.items() if found < 0.999]
    if passed < honest:
        failed.append(f"{honest - passed} of {honest} honest checks failed")
    text = (
        f"{table(header, rows)}\n\nEach cell of a substitute: the least residual of any segment over its "
        "tolerance; "
        "below 1 it is not told apart by every segment.\n\n"
        f"{table(('checks of one segment, on fresh inputs', *CHEATS), [('caught, % (of)', *total)])}\n\n"
        f"Honest: {honest:,} checks in {len(runtimes)} runtimes ({', '.join(sorted(runtimes))}), on inputs "
        "that no "
        f"tolerance was drawn from: {honest - passed} failed, the largest residual at {worst:.2f} of its "
        "tolerance. "
        "Not separable by a check of one segment: a single tampered layer (caught once in S checks), and 1 % "
        "pruning where most of the small weights are not in the segment's matrices."
    )
    return text, failed


def share(ratios: Sequence[float]) -> float:
    return sum(value > 1 for value in ratios) / max(len(ratios), 1)


def row_of(profile: Profile) -> list[str]:
    least, most = min(profile.tolerances[:-1]), max(profile.tolerances[:-1])
    cells = [str(len(profile.tolerances) - 1), f"{profile.honest_max:.1e}"]
    cells.append(f"{least:.0e}" if least == most else f"{least:.0e} to {most:.0e}")
    return cells + [
        f"{profile.separation(name).margin:.3g}" if name in profile.cheats else "–" for name in CHEATS
    ]


def tried(prepared: Prepared, profile: Profile, inputs: int) -> dict[str, list[float]]:
    """Residuals of single segments over their tolerances, on inputs that no tolerance was drawn from."""
    measured = measure_model(
        prepared.published,
        prepared.lock,
        runner=InlineRunner(),
        inputs=inputs,
        first_seed=FIRST_SEED + 10_000,
    )
    return {
        name: [
            value / tolerance
            for row in rows
            for value, tolerance in zip(row[:-1], profile.tolerances[:-1], strict=True)
        ]
        for name, rows in {**measured.honest, **measured.cheats}.items()
    }


def toploc_section(folder: Path, inputs: int) -> str:
    """TOPLOC's published rule on the tensor that enters the last segment, as the nearest thing to its own."""
    rows = []
    for model in MODELS:
        prepared = prepare(model, 1, folder)
        lock = prepared.lock
        if not lock.boundaries or not can_be_made(prepared.published):
            continue
        cut = lock.boundaries[-1].name
        feeds = [
            {t.name: t.numpy() for t in draw(lock.inputs, FIRST_SEED + number)} for number in range(inputs)
        ]

        def exposed(data: bytes, lock: ReplayLock = lock) -> bytes:
            return expose(parse(data), ports(lock.inputs), ports(lock.boundaries))

        honest = [run[cut] for run in run_all(ORT, exposed(prepared.published), feeds)]
        cells = []
        for name, cheat in CHEATS.items():
            source = exposed(prepared.published) if name == "int8_dynamic" else prepared.published
            made = cheat(source)
            served = run_all(ORT, made if name == "int8_dynamic" else exposed(made), feeds)
            flagged = sum(toploc_rejects(run[cut], ours) for run, ours in zip(served, honest, strict=True))
            cells.append(f"{100 * flagged / inputs:.0f}")
        rows.append((model.name, *cells))
        print(*rows[-1], flush=True)
    header = ("model", *(f"{name}, %" for name in CHEATS))
    return (
        f"{table(header, rows)}\n\nRequests that the rule rejects: of the {TOP_K} largest values of the "
        "tensor before "
        f"the last segment, in bfloat16, more than {EXPONENTS} with another exponent, or mantissas that "
        "differ by "
        f"more than {MEAN} in the mean or {MEDIAN} in the median (arXiv 2501.16007; our own "
        "implementation). The "
        "rule was published for hidden states of large transformers in bfloat16, and keeps 258 bytes for 32 "
        "tokens."
    )


def toploc_rejects(served: Any, recomputed: Any) -> bool:
    """Compare the largest values of what was served with what the verifier has at the same places."""
    claimed, ours = served.ravel(), recomputed.ravel()
    top = np.argsort(-np.abs(claimed))[:TOP_K]
    first, second = (_bfloat16(values[top]) for values in (claimed, ours))
    same = (first >> 7 & 0xFF) == (second >> 7 & 0xFF)
    # With fewer values than k, the threshold is the same share of them.
    if np.count_nonzero(~same) > EXPONENTS * len(top) / TOP_K:
        return True
    mantissas = np.abs((first & 0x7F).astype(int) - (second & 0x7F).astype(int))[same]
    return bool(len(mantissas) and (mantissas.mean() > MEAN or np.median(mantissas) > MEDIAN))


def _bfloat16(values: Any) -> Any:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@dataclass
class Ledger:
    """CPU seconds of a campaign, and how often each happened."""

    verifier_s: float = 0.0
    jobs: int = 0
    drawn: int = 0


def steady_section(folder: Path, jobs: int, pool: int) -> tuple[str, list[str]]:
    """Jobs through the backend at the rates of guard and policy: a newcomer's probation, and then the "
    "rest."""
    model = next(m for m in MODELS if m.name == STEADY_MODEL)
    prepared = prepare(model, 1, folder)
    lock, entry = prepared.lock, prepared.entry
    backend = ReplayBackend(InlineRunner())
    terms, price = Terms(kappa=USDC.parse("10")), USDC.parse("0.5")
    buyer, provider, verifier = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
    runs, plain_s, traced_s = run_pool(prepared, pool)
    standing = Standing.newcomer(terms)
    probation, steady = Ledger(), Ledger()
    while steady.jobs < jobs:
        ledger = probation if standing.probation_left else steady
        number = probation.jobs + steady.jobs
        secret, nonce = (sampling_bytes(what, number) for what in (b"secret", b"nonce"))
        rate = max(STEADY_RATE_PPM, demand(terms, standing, price=price).rate_ppm)
        run = runs[number % pool]
        inputs = Tensors(tuple(run[spec.name] for spec in lock.inputs))
        outputs = Tensors(tuple(run[spec.name] for spec in lock.outputs))
        job = job_of(entry, inputs, nonce, secret, rate, price, buyer, provider, verifier)
        trace = Trace.of(nonce, [run[leaf.name] for leaf in lock.leaves])
        signed = Signed.new(job, buyer, provider)
        claim = Claim(
            job=signed.digest, seq=0, amount=price, output=outputs.digest(nonce), trace_root=trace.root
        )
        exchange = Exchange(signed, inputs, Signed.new(claim, provider), outputs)
        assert exchange.claim.digest
        answers = [Answer(NeedKind.REVEAL, secret)]
        began = time.process_time()
        judged = backend.check(None, exchange, entry, answers=answers, now=0)
        ledger.verifier_s += time.process_time() - began
        if isinstance(judged, Unclear):
            sent = {i: run[lock.leaves[i].name] for i in sent_with(lock, int(judged.needs[0].subject))}
            body = Opening.of(trace, sent, held_by_verifier(lock)).encode()
            began = time.process_time()
            judged = backend.check(
                None, exchange, entry, answers=[*answers, Answer(NeedKind.OPENING, body)], now=0
            )
            ledger.verifier_s += time.process_time() - began
        assert isinstance(judged, Finding), judged
        checked = Assurance.REEXECUTED in judged.shows.values()
        ledger.jobs, ledger.drawn = ledger.jobs + 1, ledger.drawn + checked
        observation = Observation.CLEAN if checked else Observation.UNCHECKED
        standing = standing.after(observation, price, terms)
    shares = [ledger.verifier_s / (ledger.jobs * plain_s) for ledger in (steady, probation)]
    rows = [
        (name, f"{ledger.jobs:,}", f"{ledger.drawn:,}", f"{100 * part:.3f}")
        for name, ledger, part in zip(("steady state", "probation"), (steady, probation), shares, strict=True)
    ]
    header = ("", "jobs", "drawn and checked", "verifier's work / inference paid for, %")
    failed = [f"the verifier's work is {shares[0]:.4%}"] if shares[0] > MOST_SHARE else []
    text = (
        f"{table(header, rows)}\n\n{model.name} at batch 1 in {len(lock.segments)} segments, honest jobs of "
        "0.5 USDC "
        f"under the policy `sampled` (at least {STEADY_RATE_PPM / 1e4:g} %) and a guard of κ = 10 USDC. "
        "Each job is "
        "signed, committed to and judged by the backend with a nonce and a secret of its own; the "
        "verifier's work "
        "is the CPU time of every call of it, drawn or not. Signatures and documents, which every kind of "
        "evidence "
        f"pays for, are not in it. Inference is onnxruntime's own run, one thread, {pool} inputs. Allowed: "
        f"{MOST_SHARE:.1%} (goal {GOAL_SHARE:.1%}). The provider's trace costs it "
        f"{100 * (traced_s / plain_s - 1):.1f} % "
        f"of each inference beside. Probation ({PROBATION} checks at rate 1) costs "
        f"{probation.verifier_s / plain_s:.0f} inferences once."
    )
    return text, failed


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


def job_of(
    entry: Entry,
    inputs: Tensors,
    nonce: bytes,
    secret: bytes,
    rate_ppm: int,
    price: int,
    buyer: SigningKey,
    provider: SigningKey,
    verifier: SigningKey,
) -> Job:
    assert entry.replay is not None
    return Job(
        escrow="bench",
        verifier=verifier.public,
        buyer=buyer.public,
        provider=provider.public,
        payee=provider.public,
        model=OnnxModel(entry.model, None, entry.replay.digest),
        input=inputs.digest(nonce),
        price=price,
        currency=USDC,
        nonce=nonce.hex(),
        claim_by=1,
        verification_s=1,
        answer_s=1,
        dispute_s=1,
        freeze_s=1,
        delivery=Delivery.WITH_VERDICT,
        policy="0" * 64,
        evidence_kinds=("replay",),
        sampling_rate_ppm=min(rate_ppm, PPM),
        bond=0,
        withholding_penalty=0,
        sampling_commitment=sampling.commitment(nonce, secret),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("cost", "detection", "toploc", "steady"))
    arguments = parser.parse_args()
    quick = arguments.quick
    warnings.filterwarnings("ignore")
    folder = Path(tempfile.gettempdir()) / "proofhold-bench" / "onnx"
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[str, Callable[[], tuple[str, list[str]]]]] = {
        "cost": (
            "Re-execution: what committing and checking cost",
            lambda: cost_section(folder, 5 if quick else 30),
        ),
        "detection": (
            "Re-execution: what one segment tells apart",
            lambda: detection_section(folder, 2, quick=quick),
        ),
        "toploc": (
            "Re-execution: TOPLOC's thresholds on the same runs",
            lambda: (toploc_section(folder, 2 if quick else 5), []),
        ),
        "steady": (
            "Re-execution: the verifier's work over a campaign",
            lambda: steady_section(folder, 500 if quick else 20_000, 20 if quick else 200),
        ),
    }
    failed: list[str] = []
    for name, (title, measure) in parts.items():
        if arguments.only not in (None, name):
            continue
        text, against = measure()
        failed += against
        if quick:
            print(text)
        else:
            write_section(f"replay.py --only {name}", title, text)
    for line in failed:
        print(f"not held: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
