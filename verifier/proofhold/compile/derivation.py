"""What the passes made of a model, as it is carried out of the worker in which they ran."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proofhold.compile.packing import pack, unpack
from proofhold.domain import OutputSpec, PostProcessing
from proofhold.locks import CircuitLock

TAIL = "tail"
"""The pass that leaves a last step to whoever reads the output."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the passes are told: the shapes that the specification states, and its post-processing.

    `keep_tail` forbids leaving a last step to the reader, whatever it is.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    post_processing: PostProcessing = PostProcessing.NONE
    keep_tail: bool = False

    @classmethod
    def of(cls, lock: CircuitLock) -> Request:
        """Ask for the very model that a lock pins, without its author's specification."""
        kept = all(record.name != TAIL for record in lock.passes)
        return cls({spec.name: spec.shape for spec in lock.inputs}, keep_tail=kept)

    def encode(self) -> bytes:
        """Write it for the other side of a worker."""
        return json.dumps([dict(self.shapes), self.post_processing.value, self.keep_tail]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """Read what `encode` wrote."""
        shapes, post_processing, keep_tail = json.loads(data)
        fixed = {name: tuple(shape) for name, shape in shapes.items()}
        return cls(fixed, PostProcessing(post_processing), keep_tail)


@dataclass(frozen=True, slots=True)
class Change:
    """A pass that changed the model: its name, the model after it, and a last step that it left out of it."""

    name: str
    model: bytes
    moved: PostProcessing = PostProcessing.NONE


@dataclass(frozen=True, slots=True)
class Derivation:
    """A model on its way to the circuit: what each pass made of it, and what goes in and comes out."""

    changes: tuple[Change, ...]
    inputs: tuple[OutputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    """Those of the circuit."""
    published_outputs: tuple[OutputSpec, ...] | None
    """Those of the published model, or None where one of them is no tensor that a payload can hold."""
    post_processing: PostProcessing
    """What whoever reads the circuit's outputs does with them."""

    @property
    def model(self) -> bytes:
        """The derived model."""
        return self.changes[-1].model

    def encode(self) -> bytes:
        """Write it for the other side of a worker."""
        published = None if self.published_outputs is None else _rows(self.published_outputs)
        head = {
            "changes": [[change.name, change.moved.value] for change in self.changes],
            "inputs": _rows(self.inputs),
            "outputs": _rows(self.outputs),
            "published_outputs": published,
            "post_processing": self.post_processing.value,
        }
        return pack([json.dumps(head).encode(), *(change.model for change in self.changes)])

    @classmethod
    def decode(cls, data: bytes) -> Derivation:
        """Read what `encode` wrote."""
        first, *models = unpack(data)
        head = json.loads(first)
        published = head["published_outputs"]
        return cls(
            tuple(
                Change(name, model, PostProcessing(moved))
                for (name, moved), model in zip(head["changes"], models, strict=True)
            ),
            _ports(head["inputs"]),
            _ports(head["outputs"]),
            None if published is None else _ports(published),
            PostProcessing(head["post_processing"]),
        )


def _rows(ports: tuple[OutputSpec, ...]) -> list[Any]:
    return [[port.name, port.dtype, port.shape] for port in ports]


def _ports(rows: list[Any]) -> tuple[OutputSpec, ...]:
    return tuple(OutputSpec(name, dtype, tuple(shape)) for name, dtype, shape in rows)
