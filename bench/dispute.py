"""Disputes by the thousand: honest providers on every runtime that is here, frauds of every kind.

Each dispute goes through what a real one does: a signed claim with a trace, a challenge of one segment, an
answer with its tensors, an accuser who looks at all of them and charges one, a transcript that is written,
read and judged. Models and cases are those of the tests (tests/dispute_models.py, tests/dispute_cases.py).
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from _kept import kept
from _results import table, write_section

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from dispute_cases import CHEAPER, RUNTIMES, Arrays, Case, case, cheaper, parsed, run
from dispute_models import FAMILIES, TOLERANCE, Builder, inputs_of, lock_of, made
from judging import PROVIDER, REPOSITORY
from proofhold.canonical import file_digest
from proofhold.compile.replay.cutter import Limits
from proofhold.compile.replay.pin import pin_replay
from proofhold.compile.specification import Specification, read_samples
from proofhold.keys import Signed
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor
from proofhold.provider.answering import Answered, NoAnswer
from proofhold.replay.accusation import examine
from proofhold.replay.bounds.rules import PRODUCTS
from proofhold.replay.compare import relative_l2
from proofhold.replay.judge import Judged, Judgement, judge, judge_file
from proofhold.replay.surgery import parse
from proofhold.replay.trace import Trace
from proofhold.replay.transcript import Transcript
from proofhold.runner import ProcessRunner

warnings.filterwarnings("ignore")
SEEDS = 12
INPUTS = 3
SAVED = ("lenet", "transformer", "digits")
ORT = "onnxruntime, all"
WIDE = 2048

T = TypeVar("T")
Models: TypeAlias = list[tuple[str, bytes, ReplayLock, list[Arrays]]]
"""Name, file, lock and inputs of each."""


@dataclass
class Tally:
    """What came of disputes of one kind."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    ratios: list[float] = field(default_factory=list)

    def add(self, judgement: Judgement, ratio: float) -> None:
        self.outcomes[judgement.outcome] += 1
        self.ratios.append(ratio)

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())

    def row(self, name: str) -> list[str]:
        o = self.outcomes
        counts = [f"{o[j]:,}" for j in (Judged.CONVICTED, Judged.UNDECIDED, Judged.ACQUITTED)]
        low, high = min(self.ratios), max(self.ratios)
        return [name, f"{self.total:,}", *counts, f"{low:.3g}", f"{high:.3g}"]


@dataclass
class Times:
    """How long judging took, in milliseconds of processor time."""

    alone: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def add(self, other: Times) -> None:
        self.alone += other.alone
        self.whole += other.whole


TIMES = Times()
"""Of the part that is being measured."""


def timed(measure: Callable[[], T]) -> tuple[T, Times]:
    """Measure a part, and give what judging took in it."""
    TIMES.alone, TIMES.whole = [], []
    return measure(), Times(TIMES.alone, TIMES.whole)


def settle(found: Case, segment: int, answered: Answered, *, whole: bool = False) -> tuple[Judgement, float]:
    """Accuse and judge, and take the time."""
    worst = found.accuse(segment, answered)
    element = None if worst.comparison is None else worst.comparison.element
    tensors = {tensor.name: tensor for tensor in answered.tensors}
    data = found.transcript(answered.document, tensors, worst.tensor, element=element).encode()
    digest = file_digest(found.model)
    began = time.process_time()
    judgement = judge(Transcript.decode(data), found.graph, digest)
    TIMES.alone.append(1e3 * (time.process_time() - began))
    if whole:
        began = time.process_time()
        judge_file(data, found.model)
        TIMES.whole.append(1e3 * (time.process_time() - began))
    return judgement, worst.ratio


def repository() -> Iterator[tuple[str, bytes, ReplayLock, list[Arrays]]]:
    """The trained models of this repository, cut by `replay pin`, with held-out samples."""
    with ProcessRunner(memory_bytes=None) as runner:
        for name in SAVED:
            folder = REPOSITORY / "models" / name
            model = (folder / "model.onnx").read_bytes()
            specification = Specification.read(folder / "model.toml")
            limits = Limits(least_segment_s=0.0, most_committing=1.0)  # small models, cut all the same
            lock = pin_replay(model, specification, name=name, runner=runner, limits=limits).lock
            samples = read_samples(folder / "samples.json", lock.inputs)[:INPUTS]
            yield name, model, lock, [{t.name: t.numpy() for t in s.inputs.items} for s in samples]


def wide() -> tuple[bytes, ReplayLock]:
    """Three layers of 2048: long sums, where a worst-case bound is furthest from what happens."""
    b = Builder(1)
    x = "x"
    for layer in range(3):
        product = b.node("MatMul", x, b.normal(WIDE, WIDE, scale=math.sqrt(2 / WIDE)))
        x = b.node("Relu", product) if layer < 2 else product
        if layer < 2:
            b.cut(x)
    model = b.model((1, WIDE), x)
    return model, lock_of(model, b.cuts, "wide")


def honest(name: str, models: Models) -> Tally:
    """One runtime's claims, every segment of each, the tensor that is furthest off charged."""
    tally, refused = Tally(), 0
    for _, model, lock, inputs in models:
        for given in inputs:
            found = case(model, lock, run(model, lock, given, RUNTIMES[name]))
            for segment in range(len(lock.segments)):
                try:
                    answered = found.answer(segment)
                except NoAnswer:
                    refused += 1
                    continue
                tally.add(*settle(found, segment, answered, whole=True))
    print(name, tally.total, file=sys.stderr)
    if refused:
        print(f"{refused} honest providers found no answer", file=sys.stderr)
    return tally


def changed(found: Case, cheap: bytes, segment: int) -> set[str]:
    """Name the products of a segment whose weights a cheaper model has changed."""
    pinned = found.lock.segments[segment]
    ours, theirs = (
        {t.name: t.SerializeToString() for t in parse(m).graph.initializer} for m in (found.model, cheap)
    )
    return {
        node.output[0]
        for place in found.graph.between(pinned.outputs, pinned.inputs)
        for node in [found.graph.nodes[place]]
        if node.op_type in PRODUCTS and any(ours.get(name) != theirs.get(name) for name in node.input)
    }


def substituted(model: bytes, lock: ReplayLock, inputs: Arrays, how: str, tally: Tally) -> None:
    """A cheaper model; its provider shows its own run or an honest one, with the tail or without."""
    cheap = cheaper(model, how)
    found = case(model, lock, run(cheap, lock, inputs, RUNTIMES[ORT]))
    for segment, steps_of, whole in itertools.product(
        range(len(lock.segments)), (cheap, None), (True, False)
    ):
        if not changed(found, cheap, segment):
            continue  # the same weights in fewer bits are no fraud
        if residual(found, segment) <= TOLERANCE:
            continue  # nor is what makes no difference to this input: a weight of a pixel that is dark
        shown = found.shown(segment, found.steps(segment, steps_of), whole=whole)
        tally.add(*settle(found, segment, found.sign(segment, shown)))


def residual(found: Case, segment: int) -> float:
    """Give how far a committed end is from what its segment's beginning gives, in the relative 2-norm."""
    pinned = found.lock.segments[segment]
    start = {name: found.leaves[name] for name in pinned.inputs}
    end = pinned.outputs[0]
    value = found.graph.enclose(found.graph.region(end, start), start).value
    return relative_l2(found.leaves[end], Tensor.of(end, value))


def altered(tensor: Tensor, generator: np.random.Generator) -> Tensor:
    """Alter one element of a tensor by a hundredth of the root mean square of all."""
    values = tensor.numpy().copy()
    by = 0.01 * (math.sqrt(float(np.mean(np.square(values)))) + 1e-3)
    values.flat[int(generator.integers(values.size))] += np.float32(by)
    return Tensor.of(tensor.name, values)


def one_element(model: bytes, lock: ReplayLock, inputs: Arrays, seed: int, tallies: dict[str, Tally]) -> None:
    """One element of one tensor, any operator, any place: shown and, at the segment's end, committed to."""
    generator = np.random.default_rng(seed)
    true = case(model, lock, run(model, lock, inputs, RUNTIMES[ORT]))
    for segment, pinned in enumerate(lock.segments):
        steps = true.steps(segment)
        dynamic = [n for n in steps if not true.graph.is_fixed(n, pinned.inputs)]
        for name in generator.permutation(dynamic)[:6]:
            if steps[str(name)].dtype != "float32":
                continue
            false = {**steps, str(name): altered(steps[str(name)], generator)}
            found = case(model, lock, {**true.leaves, **{n: false[n] for n in pinned.outputs}})
            shown = found.shown(segment, false, whole=True)
            producer = found.graph.producer(str(name))
            operator = "?" if producer is None else producer.op_type
            tallies[operator].add(*settle(found, segment, found.sign(segment, shown)))


def ends(model: bytes, lock: ReplayLock, inputs: Arrays, seed: int, tally: Tally) -> None:
    """A false end under true steps, with the tail shown or left out."""
    generator = np.random.default_rng(seed)
    true = case(model, lock, run(model, lock, inputs, RUNTIMES[ORT]))
    for segment, pinned in enumerate(lock.segments):
        end = pinned.outputs[0]
        found = case(model, lock, {**true.leaves, end: altered(true.leaves[end], generator)})
        for whole in (True, False):
            shown = found.shown(segment, true.steps(segment), whole=whole)
            tally.add(*settle(found, segment, found.sign(segment, shown)))


def other_input(model: bytes, lock: ReplayLock, seed: int, tally: Tally) -> None:
    """A run on an input that is not the buyer's."""
    true = case(model, lock, run(model, lock, inputs_of(lock, seed), RUNTIMES[ORT]))
    other = run(model, lock, inputs_of(lock, seed + 1), RUNTIMES[ORT])
    trace = Trace.of(bytes.fromhex(true.job.document.nonce), [other[leaf.name] for leaf in lock.leaves])
    claim = Signed.new(replace(true.claim.document, trace_root=trace.root), PROVIDER)
    found = replace(true, claim=claim, trace=trace, leaves=other)
    tally.add(*settle(found, 0, found.answer(0)))


def within_bounds(model: bytes, lock: ReplayLock, inputs: Arrays, how: str) -> list[float]:
    """A cheat that pulls each cheap result into its bound: what is left of the cheat, a segment each."""
    cheap_model = cheaper(model, how)
    cheap = parsed(cheap_model)
    true = case(model, lock, run(model, lock, inputs, RUNTIMES[ORT]))
    graph, left = true.graph, []
    for segment, pinned in enumerate(lock.segments):
        if not changed(true, cheap_model, segment):
            continue
        known = {name: true.leaves[name] for name in pinned.inputs}
        for place in graph.between(pinned.outputs, pinned.inputs):
            for name in graph.nodes[place].output:
                honestly = graph.enclose(graph.region(name, known), known)
                cheaply = cheap.enclose(cheap.region(name, known), known).value
                error = 0.99 * np.broadcast_to(honestly.error, honestly.value.shape)
                pulled = np.clip(cheaply, honestly.value - error, honestly.value + error)
                known[name] = Tensor.of(
                    name, pulled.astype(np.float32) if pulled.dtype.kind == "f" else pulled
                )
        false = replace(true, leaves={**true.leaves, **{end: known[end] for end in pinned.outputs}})
        left.append(residual(false, segment))
    return left


def at_operators(models: Models) -> list[list[str]]:
    """How far honest and cheap results are off at each kind of product and at the others, shown in full."""
    furthest: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for _, model, lock, inputs in models:
        true = case(model, lock, run(model, lock, inputs[0], RUNTIMES[ORT]))
        for how in ("honest", *CHEAPER):
            other = None if how == "honest" else cheaper(model, how)
            for segment, pinned in enumerate(lock.segments):
                tensors = {**true.steps(segment, other), **{n: true.leaves[n] for n in pinned.inputs}}
                products = [
                    node.output[0]
                    for place in true.graph.between(pinned.outputs, pinned.inputs)
                    for node in [true.graph.nodes[place]]
                    if node.op_type in PRODUCTS
                ]
                names = products if other is None else sorted(changed(true, other, segment))
                for one in examine(true.graph, names, tensors):
                    producer = true.graph.producer(one.tensor)
                    if producer is not None and one.comparison is not None:
                        furthest[producer.op_type, how].append(one.ratio)
    rows = []
    for operator in sorted({operator for operator, _ in furthest}):
        cells = [f"{max(furthest[operator, 'honest']):.3f}"]
        cells += [f"{min(furthest[operator, how], default=math.nan):.3g}" for how in CHEAPER]
        rows.append([operator, f"{len(furthest[operator, 'honest']):,}", *cells])
    return rows


def judge_frauds(generated: Models, saved: Models) -> tuple[Tally, list[list[str]]]:
    """Commit every kind of fraud on a share of the models, and tell how each ended."""
    cheats: dict[str, Tally] = {how: Tally() for how in CHEAPER}
    for how, (_, model, lock, inputs) in itertools.product(CHEAPER, [*generated[::3], *saved]):
        substituted(model, lock, inputs[0], how, cheats[how])
    elements: dict[str, Tally] = collections.defaultdict(Tally)
    false_ends, others = Tally(), Tally()
    for number, (_, model, lock, inputs) in enumerate([*generated[::2], *saved]):
        one_element(model, lock, inputs[0], number, elements)
        ends(model, lock, inputs[0], number, false_ends)
    for number, (_, model, lock, _) in enumerate(generated):
        other_input(model, lock, number, others)
    rows = [tally.row(f"{how}, weights of the whole model") for how, tally in cheats.items()]
    rows += [tally.row(f"1 % of rms at one element, {op}") for op, tally in sorted(elements.items())]
    rows += [false_ends.row("1 % of rms at one element of a segment's end")]
    rows += [others.row("a run on another input (convicted by digests)")]
    all_of_them = Tally()
    for tally in (*cheats.values(), *elements.values(), false_ends, others):
        all_of_them.outcomes.update(tally.outcomes)
        all_of_them.ratios += tally.ratios
    return all_of_them, rows


def limits() -> list[list[str]]:
    """Every cheaper model of one that is wide."""
    model, lock = wide()
    rows: list[list[str]] = []
    for how in CHEAPER:
        tally = Tally()
        substituted(model, lock, inputs_of(lock, 1), how, tally)
        rows.append(tally.row(how))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", action="store_true", help="go on from what was measured before")
    resume = parser.parse_args().resume
    generated = [
        (lock.name, model, lock, [inputs_of(lock, 100 * seed + n) for n in range(INPUTS)])
        for family, seed in itertools.product(FAMILIES, range(SEEDS))
        for model, lock in [made(family, seed)]
    ]
    saved = list(repository())
    models = [*generated, *saved]

    times = Times()

    def part(name: str, measure: Callable[[], T]) -> T:
        found, took = kept(f"dispute-{name}", lambda: timed(measure), resume=resume)
        times.add(took)
        return found

    good = {
        name: part(f"honest-{number}", functools.partial(honest, name, models))
        for number, name in enumerate(RUNTIMES)
    }
    total = Tally()
    for tally in good.values():
        total.outcomes.update(tally.outcomes)
        total.ratios += tally.ratios
    header = (
        "claims made by",
        "disputes",
        "convicted",
        "undecided",
        "acquitted",
        "least off",
        "furthest off",
    )
    body = (
        "Honest providers: every segment of every claim is disputed, and the tensor charged that is furthest "
        "off. In units of its bound: rounding one addition can reach 1, and nothing exceeds it.\n\n"
        + table(header, [*(tally.row(name) for name, tally in good.items()), total.row("all")])
    )
    frauds, rows = part("frauds", lambda: judge_frauds(generated, saved))
    body += (
        "\n\nFrauds, each in one round. Where a model is substituted, its provider shows its own run or an "
        "honest one of each segment whose weights changed, in full or with the tail left out.\n\n"
        + table(("fraud", *header[1:]), [*rows, frauds.row("all")])
    )
    body += (
        "\n\nProducts with everything shown, in units of the bound: the furthest of the honest results, and "
        "of each cheat the *least* far off of all that it touches: this has to exceed 1.\n\n"
        + table(
            ("operator", "operators", "honest, at most", *CHEAPER),
            part("operators", lambda: at_operators(models)),
        )
    )
    body += (
        f"\n\nThe limit: three layers of {WIDE}, where the worst case of a sum is furthest from what happens."
        " Undecided is refunded.\n\n" + table(("fraud", *header[1:]), part("limit", limits))
    )
    pulled = part(
        "pulled",
        lambda: [
            left
            for _, model, lock, inputs in [*generated[::6], *saved]
            for left in within_bounds(model, lock, inputs[0], "int8")
        ],
    )
    body += (
        "\n\nA cheat that computes the true result too and pulls each int8 result into its bound is not "
        f"convicted. What is left of it is {np.median(pulled):.1e} of a segment's end (median of "
        f"{len(pulled)}; at most {max(pulled):.1e}); above the tolerance of 1e-05 it is refunded. It has "
        "saved nothing."
    )
    alone, whole = times.alone, times.whole
    body += (
        f"\n\nReading and judging a transcript took {np.median(alone):.2f} ms of one core (median of "
        f"{len(alone):,}; 95 %: {np.percentile(alone, 95):.1f}; most: {max(alone):.0f}), and "
        f"{np.median(whole):.2f} ms (95 %: {np.percentile(whole, 95):.1f}) with the model's file parsed too."
    )
    met = [
        total.outcomes[Judged.CONVICTED] == 0 and total.total >= 2_000,
        frauds.outcomes[Judged.CONVICTED] == frauds.total >= 200,
        float(np.median(alone)) <= 5.0,
    ]
    body += (
        "\n\nBars: 0 convicted of at least 2,000 honest disputes; each of at least 200 frauds convicted; "
        f"judging at most 5 ms, median: {'met' if all(met) else f'NOT MET: {met}'}."
    )
    write_section("dispute.py", "Disputes", body)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
