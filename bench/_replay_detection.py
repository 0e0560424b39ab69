"""What a check of one segment tells apart: every substitute and every honest runtime, on fresh inputs.

Beside it TOPLOC's rule, on the very same runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import _toploc
from _replay_models import Model
from _replay_prepared import ORT, Prepared, ports, prepare
from _results import table

from proofhold.compile.errors import CompileError
from proofhold.compile.replay.calibration.calibrate import (
    DEFAULT_INPUTS,
    FIRST_SEED,
    calibrate,
    measure_model,
)
from proofhold.compile.replay.calibration.cheats import CHEATS, MUST_BE_TOLD_APART, can_be_made
from proofhold.compile.replay.calibration.profile import TOLD_APART, Profile
from proofhold.compile.replay.calibration.runtimes import run_all
from proofhold.compile.replay.pin import draw
from proofhold.replay.surgery import expose, parse
from proofhold.runner import InlineRunner

FRESH = FIRST_SEED + 10_000
"""The first input that no tolerance was drawn from."""
OTHER_RUNTIME = "openvino/f32"
LEAST_HONEST, LEAST_CHEATS = 5_000, 1_000


def measure(model: Model, folder: Path, *, quick: bool, python: str | None) -> Any:
    """Draw a profile as the command does, and try it on fresh inputs."""
    prepared = prepare(model, 1, folder)
    drawn_from, tried = (2, 2) if quick else (DEFAULT_INPUTS, model.tried)
    try:
        profile = calibrate(
            prepared.published, prepared.lock, runner=InlineRunner(), inputs=drawn_from, python=python
        )
    except CompileError as error:
        return {"refused": str(error)}
    pinned = replace(prepared, lock=profile.pinned(prepared.lock))
    measured = measure_model(
        pinned.published, pinned.lock, runner=InlineRunner(), inputs=tried, first_seed=FRESH, python=python
    )

    def ratios(rows: Sequence[Sequence[float]]) -> list[float]:
        each = [zip(row[:-1], profile.tolerances[:-1], strict=True) for row in rows]
        return [value / tolerance for row in each for value, tolerance in row]

    return {
        "inputs": tried,
        "row": row_of(profile),
        "honest": {name: ratios(rows) for name, rows in measured.honest.items()},
        "cheats": {name: ratios(rows) for name, rows in measured.cheats.items()},
        "mistaken": dict(profile.mistaken),
        "failed": list(profile.failed),
        "toploc": toploc(pinned, tried) if can_be_made(pinned.published) else {},
    }


def row_of(profile: Profile) -> list[str]:
    """Give a profile's cells: its segments, tolerances, and each substitute's least margin."""
    least, most = min(profile.tolerances[:-1]), max(profile.tolerances[:-1])
    cells = [str(len(profile.tolerances) - 1), f"{profile.honest_max:.1e}"]
    cells.append(f"{least:.1e}" if least == most else f"{least:.1e} to {most:.1e}")
    return cells + [
        f"{profile.separation(name).margin:.3g}" if name in profile.cheats else "–" for name in CHEATS
    ]


def toploc(prepared: Prepared, inputs: int) -> dict[str, int]:
    """Count what TOPLOC's rule rejects, of the tensor before the last segment, the nearest to its own."""
    lock, published = prepared.lock, prepared.published
    cut = lock.boundaries[-1].name if lock.boundaries else lock.outputs[-1].name
    feeds = [{t.name: t.numpy() for t in draw(lock.inputs, FRESH + number)} for number in range(inputs)]

    def exposed(data: bytes) -> bytes:
        return expose(parse(data), ports(lock.inputs), ports(lock.boundaries))

    ours = [run[cut] for run in run_all(ORT, exposed(published), feeds)]
    served = {"honest": [run[cut] for run in run_all(OTHER_RUNTIME, exposed(published), feeds)]}
    for name, cheat in CHEATS.items():
        try:
            # As in calibration: onnxruntime's quantiser remakes the graph, and keeps what is an output.
            made = cheat(exposed(published)) if name == "int8_dynamic" else exposed(cheat(published))
            served[name] = [run[cut] for run in run_all(ORT, made, feeds)]
        except Exception as error:  # noqa: BLE001 (not every quantiser can read every graph)
            print(f"{name}: {type(error).__name__}")
    return {
        name: sum(_toploc.rejects(theirs, mine) for theirs, mine in zip(runs, ours, strict=True))
        for name, runs in served.items()
    }


def section(models: Sequence[Model], measured: Sequence[Any]) -> tuple[str, list[str]]:
    """Write the tables; gives them and what they miss."""
    pairs = list(zip(models, measured, strict=True))
    failed = [f"{model.name}: {found['refused']}" for model, found in pairs if "refused" in found]
    known = [(model, found) for model, found in pairs if "refused" not in found]
    profiles = [(model.name, model.family, *found["row"]) for model, found in known]
    header = ("model", "family", "segments", "largest honest residual", "tolerances", *CHEATS)
    rows = [_caught(model.name, found["cheats"]) for model, found in known if found["cheats"]]
    everything = {
        name: [ratio for _, found in known for ratio in found["cheats"].get(name, ())] for name in CHEATS
    }
    rows.append(_caught("all", everything))
    by_toploc = [_flagged(model.name, found) for model, found in known if found["toploc"]]
    for name in MUST_BE_TOLD_APART:
        found = _share(everything[name])
        if found < TOLD_APART or len(everything[name]) < LEAST_CHEATS:
            failed.append(f"{name}: caught in {found:.4f} of {len(everything[name])}")
    honest = [ratio for _, found in known for each in found["honest"].values() for ratio in each]
    wrong = sum(ratio > 1 for ratio in honest)
    if wrong or len(honest) < LEAST_HONEST:
        failed.append(f"{wrong} of {len(honest)} honest checks failed")
    runtimes = sorted({name for _, found in known for name in found["honest"]})
    by_runtime = [
        (name, f"{len(each):,}", str(sum(ratio > 1 for ratio in each)), f"{max(each):.2f}")
        for name in runtimes
        for each in [[ratio for _, found in known for ratio in found["honest"].get(name, ())]]
    ]
    mistaken = [f"{m.name}: {name} ({why})" for m, found in known for name, why in found["mistaken"].items()]
    runtime_header = ("runtime", "checks", "failed", "largest residual ⁄ tolerance")
    text = (
        f"Profiles, each drawn from {DEFAULT_INPUTS} inputs as the command draws it. Each cell of a "
        "substitute: the least residual of any segment over its tolerance; below 1 it is not told apart by "
        f"every segment.\n\n{table(header, profiles)}\n\nChecks of one segment on inputs that no tolerance "
        f"was drawn from: caught, % (of).\n\n{table(('model', *CHEATS), rows)}\n\nHonest checks, on the same "
        f"inputs: {len(honest):,}, of which {wrong} "
        f"failed.\n\n{table(runtime_header, by_runtime)}\n\nLeft "
        f"out of profile and checks, since it makes a mistake: {'; '.join(mistaken) or 'none'}. The tree "
        "ensemble has no weights to round, so no substitute is made of it. **Not separable** by a check of "
        "one segment: a single tampered layer (`last_layer`: it is caught when its segment is drawn, once "
        "in S), and 1 % pruning where few of the smallest weights are in a segment. A dash: this quantiser "
        "cannot read this graph.\n\nTOPLOC's published thresholds on the same runs: requests rejected, "
        f"%.\n\n{table(('model', 'honest, OpenVINO', *CHEATS), by_toploc)}\n\nOf the {_toploc.TOP_K} largest "
        f"values of the tensor that enters the last segment, in bfloat16, more than {_toploc.EXPONENTS} with "
        f"another exponent, or mantissas that differ by more than {_toploc.MEAN} in the mean or "
        f"{_toploc.MEDIAN} in the median (arXiv 2501.16007; our own implementation). It was published for "
        "hidden states of large transformers in bfloat16, and keeps 258 bytes for 32 tokens; it is not made "
        "to tell a float32 run from a rounded one."
    )
    return text, failed


def _share(ratios: Sequence[float]) -> float:
    return sum(ratio > 1 for ratio in ratios) / max(len(ratios), 1)


def _caught(name: str, cheats: dict[str, list[float]]) -> tuple[str, ...]:
    return (
        name,
        *(f"{100 * _share(cheats[c]):.2f} ({len(cheats[c]):,})" if cheats.get(c) else "–" for c in CHEATS),
    )


def _flagged(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    flagged, inputs = found["toploc"], found["inputs"]
    cells = [f"{100 * flagged[c] / inputs:.0f}" if c in flagged else "–" for c in ("honest", *CHEATS)]
    return (name, *cells)
