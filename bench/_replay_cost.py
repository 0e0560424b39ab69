"""What committing to a run and checking one segment of it cost, as ratios of CPU seconds in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _replay_models import Model
from _replay_prepared import NONCE, ORT, Prepared, bytes_of, interleaved, ports, prepare, ratio
from _results import table

from proofhold.compile.replay.calibration.runtimes import open_session
from proofhold.replay.opening import Opening
from proofhold.replay.rerun import Rerunner
from proofhold.replay.segments import Committed, distances, held_by_verifier, opened, sent_with
from proofhold.replay.surgery import expose, parse
from proofhold.replay.trace import Trace, TraceHasher
from proofhold.runner import InlineRunner

MOST_OVERHEAD, GOAL_OVERHEAD = 1.05, 1.02
CHECK_ALLOWANCE = 0.05
RUNS, SESSIONS = 30, 3


def measure(model: Model, folder: Path, *, quick: bool) -> Any:
    """Measure a model at each of its batches: a row of figures each."""
    rows, runs = [], 6 if quick else RUNS
    for batch in model.batches:
        prepared = prepare(model, batch, folder)
        traced, checks = overhead(prepared, runs), check_costs(prepared, max(runs // 3, 3))
        size = sum(bytes_of(boundary) for boundary in prepared.lock.boundaries) / 1e6
        rows.append({"batch": batch, "traced": traced, "checks": checks, "cuts_mb": size})
    return rows


def section(models: Sequence[Model], measured: Sequence[Any]) -> tuple[str, list[str]]:
    """Write the table; gives it and what it misses."""
    rows, failed = [], []
    for model, found in zip(models, measured, strict=True):
        for at in found:
            count, mean = len(at["checks"]), statistics.mean(at["checks"])
            allowed = 1 / count + CHECK_ALLOWANCE
            if at["traced"] > MOST_OVERHEAD:
                failed.append(f"{model.name}:{at['batch']}: trace overhead {at['traced']:.3f}")
            if mean > allowed and count > 1:
                failed.append(f"{model.name}:{at['batch']}: a check costs {mean:.3f} of a run")
            rows.append(
                (
                    *(f"{model.name}{'' if model.tuned else ' *'}", model.family, str(at["batch"])),
                    *(str(count), f"{at['traced']:.3f}", f"{mean:.3f} ({allowed:.3f})"),
                    *(f"{max(at['checks']):.3f}", f"{at['cuts_mb']:.1f}"),
                )
            )
    header = (
        *("model", "family", "batch", "segments", "run with trace / run"),
        *("check / run, mean (allowed)", "largest", "cuts, MB"),
    )
    text = (
        f"{table(header, rows)}\n\n* nobody tuned for it. A run is onnxruntime's own, one thread, fixed "
        "shapes. A trace is one run with the cuts as outputs and the hashes of all leaves. A check is from "
        "the opening's bytes to the verdict: reading, hashing, running one segment, comparing; the mean is "
        "over the segments, each of which is as likely to be drawn. A model of one segment (nothing in it "
        "can be cut, or it is over sooner than an opening is read) is run again whole. Allowed: "
        f"{MOST_OVERHEAD} (goal {GOAL_OVERHEAD}), and 1/S + {CHECK_ALLOWANCE:.0%}."
    )
    return text, failed


def overhead(prepared: Prepared, runs: int) -> float:
    """A run with its trace, over a plain run."""
    lock = prepared.lock
    if not lock.boundaries:
        return 1.0  # there is nothing to commit to: the claim has no trace
    # Where a session's weights come to lie in memory is worth some per cent of a small model: so, several.
    return statistics.median(_overhead(prepared, runs // SESSIONS) for _ in range(SESSIONS))


def _overhead(prepared: Prepared, runs: int) -> float:
    lock, inputs = prepared.lock, ports(prepared.lock.inputs)
    model = parse(prepared.published)
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
