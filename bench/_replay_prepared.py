"""What the parts of bench/replay.py share: a model made ready, and how its costs are compared."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _replay_models import Model

from proofhold.catalogue import Entry
from proofhold.compile.replay.pin import draw, pin_replay
from proofhold.compile.specification import Specification
from proofhold.domain import PostProcessing
from proofhold.locks import Boundary, ReplayLock
from proofhold.payload import ITEM_BYTES, Tensor
from proofhold.replay.surgery import Port
from proofhold.runner import InlineRunner

ORT = "onnxruntime/ORT_ENABLE_ALL/1"
NONCE = bytes(range(32))


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


def ratio(some: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of neighbours: what the machine did meanwhile cancels."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))
