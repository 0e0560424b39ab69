"""Sampled re-execution on seven models: what committing and checking cost, and what is caught.

A part is measured model by model, and what was measured is kept, so that a run can be done in pieces:
`--only PART --model NAME` measures one of them, and `--only PART --resume` writes the section from what was
measured before and measures the rest. `--quick` takes fewer inputs and jobs, to see whether it works at all,
and writes nothing.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _replay_cost as cost
import _replay_detection as detection
import _replay_steady as steady
from _kept import kept
from _replay_models import MODELS, Model
from _results import write_section


@dataclass(frozen=True)
class Part:
    """A section of the results: what it measures of each model, and how it is written."""

    title: str
    models: Sequence[Model]
    measure: Callable[[Model], Any]
    section: Callable[[Sequence[Model], Sequence[Any]], tuple[str, list[str]]]


def parts(folder: Path, *, quick: bool, python: str | None) -> dict[str, Part]:
    by_name = {model.name: model for model in MODELS}
    campaigns = dict(steady.CAMPAIGNS)
    return {
        "cost": Part(
            "Re-execution: what committing and checking cost",
            MODELS,
            lambda model: cost.measure(model, folder, quick=quick),
            cost.section,
        ),
        "detection": Part(
            "Re-execution: what one segment tells apart",
            MODELS,
            lambda model: detection.measure(model, folder, quick=quick, python=python),
            detection.section,
        ),
        "steady": Part(
            "Re-execution: the verifier's work over a campaign",
            [by_name[name] for name in campaigns],
            lambda model: steady.measure(model, campaigns[model.name], folder, quick=quick),
            steady.section,
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("cost", "detection", "steady"))
    parser.add_argument("--model", choices=[model.name for model in MODELS])
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--python", help="an interpreter with another version of onnxruntime")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    models = Path(tempfile.gettempdir()) / "proofhold-bench" / "onnx"
    models.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    for name, part in parts(models, quick=arguments.quick, python=arguments.python).items():
        if arguments.only not in (None, name):
            continue
        measured = []
        for model in part.models:
            if arguments.model not in (None, model.name):
                continue
            measure = functools.partial(part.measure, model)
            key = f"{name}-{model.name}"
            found = measure() if arguments.quick else kept(key, measure, resume=arguments.resume)
            print(key, str(found)[:400], flush=True)
            measured.append(found)
        if arguments.model:
            continue
        text, against = part.section(part.models, measured)
        failed += against
        if arguments.quick:
            print(text)
        else:
            write_section(f"replay.py --only {name}", part.title, text)
    for line in failed:
        print(f"not held: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
