"""What an ONNX file cannot say about itself: ``model.toml``, written by the model's author beside it.

    version = 1
    post_processing = "sigmoid"
    samples = "samples.json"

    [inputs.features]
    low = -16.0
    high = 16.0

Samples are held-out inputs, JSON: ``{"version": 1, "label_names": […], "samples": [{"inputs": {name: [numbers
in C order]}, "label": n}]}``. The compile step measures the circuit's error on them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proofhold.compile.derivation import Request
from proofhold.compile.errors import CompileError
from proofhold.domain import (
    MAX_ELEMENTS,
    MAX_RANK,
    InputSpec,
    OutputSpec,
    PostProcessing,
    check_input,
    read_integers,
    tensors_of,
)
from proofhold.errors import Malformed, Misuse
from proofhold.payload import Tensors
from proofhold.records import Record
from proofhold.regular import open_regular

SPECIFICATION_FILE_NAME = "model.toml"
MAX_SPECIFICATION_BYTES = 64 * 1024
MAX_SAMPLES_BYTES = 64 * 2**20
MAX_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Specification:
    """The domain of each input by its name, the post-processing, and the file of samples."""

    domains: Mapping[str, tuple[float, float]]
    post_processing: PostProcessing
    samples: Path
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """For inputs whose sizes the ONNX file leaves free: which ones the locks pin."""

    @property
    def request(self) -> Request:
        """What the passes are told of it."""
        return Request(self.shapes, self.post_processing)

    @classmethod
    def read(cls, path: Path) -> Specification:
        """Read a model.toml.

        Raises:
            CompileError: ``compile.specification``: missing, not TOML, or not of this form.

        """
        try:
            record = Record(tomllib.loads(_text(path, MAX_SPECIFICATION_BYTES)), what="specification")
            record.version(1)
            post_processing = record.choice("post_processing", PostProcessing)
            samples = record.text("samples")
            inputs = record.take("inputs")
            if not isinstance(inputs, dict):
                raise record.error("expected a table", "inputs")
            record.close()
            read = {name: _read_input(name, value) for name, value in inputs.items()}
        except (Malformed, tomllib.TOMLDecodeError) as error:
            raise CompileError("compile.specification", f"{path}: {error}") from error
        domains = {name: (low, high) for name, (low, high, _) in read.items()}
        shapes = {name: shape for name, (_, _, shape) in read.items() if shape is not None}
        return cls(domains, post_processing, path.parent / samples, shapes)

    def inputs(self, ports: tuple[OutputSpec, ...]) -> tuple[InputSpec, ...]:
        """Join the domains with names, dtypes and shapes of the model's inputs.

        Raises:
            CompileError: ``compile.specification``: it speaks of other inputs than the model's.

        """
        names = [port.name for port in ports]
        if set(names) != set(self.domains):
            raise CompileError(
                "compile.specification",
                f"the domain is of {', '.join(self.domains)}, the model's inputs are {', '.join(names)}",
            )
        return tuple(InputSpec(p.name, p.dtype, p.shape, *self.domains[p.name]) for p in ports)


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out input and its true label."""

    inputs: Tensors
    label: int


def read_samples(path: Path, inputs: tuple[InputSpec, ...]) -> tuple[Sample, ...]:
    """Read a file of samples, each within the domain of `inputs`.

    Raises:
        CompileError: ``compile.samples``.

    """
    try:
        record = Record(json.loads(_text(path, MAX_SAMPLES_BYTES)), what="samples")
        record.version(1)
        record.items("label_names")
        samples = tuple(
            _read_sample(item, inputs) for item in record.records("samples", max_items=MAX_SAMPLES)
        )
        record.close()
    except (Malformed, Misuse, ValueError, RecursionError) as error:
        raise CompileError("compile.samples", f"{path}: {error}") from error
    if not samples:
        raise CompileError("compile.samples", f"{path}: no samples")
    return samples


def _read_input(name: str, value: Any) -> tuple[float, float, tuple[int, ...] | None]:
    record = Record(value, what="specification", path=f"inputs.{name[:80]}")
    low, high = record.number("low"), record.number("high")
    shape = None
    if record.has("shape"):
        shape = read_integers(record, "shape", max_items=MAX_RANK, high=MAX_ELEMENTS)
    record.close()
    return low, high, shape


def _read_sample(record: Record, inputs: tuple[InputSpec, ...]) -> Sample:
    tensors = tensors_of(record.record("inputs"), inputs)
    reasons = check_input(inputs, tensors)
    if reasons:
        raise record.error(f"{reasons[0].message}: {reasons[0].got}, expected {reasons[0].expected}")
    sample = Sample(tensors, record.integer("label"))
    record.close()
    return sample


def _text(path: Path, max_bytes: int) -> str:
    try:
        with open_regular(path) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise CompileError("compile.too_large", f"{path}: more than {max_bytes} bytes")
        return data.decode()
    except OSError as error:
        raise CompileError("compile.missing", f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CompileError("compile.specification", f"{path}: not UTF-8") from error
