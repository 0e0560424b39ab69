"""What the compile step pins: the circuit lock and the replay lock, format version 1.

A lock is one canonical JSON document, named by the digest of its bytes; a job names the locks it rests on
(PROTOCOL P14). docs/formats/locks.md describes every field. Nothing here reads a file.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import ClassVar

from proofhold import canonical
from proofhold.canonical import Digest, Json
from proofhold.errors import Misuse
from proofhold.fieldelement import MAX_SCALE
from proofhold.records import Record

LOCK_VERSION = 1
MAX_LOCK_BYTES = 64 * 1024
MAX_NAME_CHARS = 64
MAX_PORTS = 32
MAX_RANK = 8
MAX_ELEMENTS = 2**20
MAX_SEGMENTS = 1024
MAX_K = 26
MAX_COUNT = 2**40

NAME_PATTERN = r"[a-z0-9][a-z0-9_.-]*"
PORT_PATTERN = r"[A-Za-z0-9_./:-]+"
"""What a tensor may be called: it appears in tables and error messages."""

TAG_NAME = "job_tag"
TAG_LENGTH = 16

INPUT_DTYPES = ("float32", "float64", "int32", "int64")
OUTPUT_DTYPES = ("float32", "float64", "int32", "int64")


class SrsKind(StrEnum):
    """Where a structured reference string comes from."""

    UNSAFE_DEV = "unsafe-dev"
    """Its secret is public: anybody can forge a proof. For tests and demonstrations."""
    CEREMONY = "ceremony"
    """Of a multi-party ceremony, named by its label and pinned by its digest."""


class PostProcessing(StrEnum):
    """What whoever reads the logits does with them. It is pinned, and happens outside the circuit."""

    NONE = "none"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    ARGMAX = "argmax"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of the published model and the closed interval its elements may come from."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_port(self.name, self.dtype, self.shape, INPUT_DTYPES)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise Misuse(f"input {self.name!r}: domain [{self.low}, {self.high}] is no interval")

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output. Under a circuit lock its dtype is float64: the proved integers, dequantised."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_port(self.name, self.dtype, self.shape, OUTPUT_DTYPES)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class SrsPin:
    """The structured reference string that setup and verification use."""

    kind: SrsKind
    label: str
    k: int
    digest: Digest
    """SHA-256 of the whole file, of 2**k points."""
    verify_digest: Digest
    """SHA-256 of the 516 bytes of it that verification takes."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """What the instances of a proof hold. Version 1 knows one arrangement; the lock says it all the same."""

    input: str = "public"
    output: str = "public"
    param: str = "fixed"


@dataclass(frozen=True, slots=True)
class RunArgs:
    """The arguments that ezkl was given; the settings file holds all that followed from them."""

    columns: int
    decomp_base: int
    decomp_legs: int
    input_scale: int
    param_scale: int


@dataclass(frozen=True, slots=True)
class Tag:
    """The extra input that ties a proof to a job: `length` bytes, one an element, from instance `offset`."""

    name: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class MeasuredError:
    """Proved outputs against onnxruntime's, over the calibration samples; the worst sample counts."""

    samples: int
    max_abs: float
    relative_l2: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Proving cost in counts, which do not depend on the machine."""

    k: int
    rows: int
    instances: int
    vk_bytes: int
    pk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitLock:
    """Pins a circuit: change anything that its proofs mean, and the lock's digest changes."""

    DOMAIN: ClassVar[str] = "proofhold/circuit-lock/v1"
    FILE_NAME: ClassVar[str] = "circuit.lock.json"

    name: str
    model: Digest
    derived_model: Digest
    ezkl_version: str
    settings: Digest
    vk: Digest
    pk: Digest
    srs: SrsPin
    visibility: Visibility
    run_args: RunArgs
    inputs: tuple[InputSpec, ...]
    input_scales: tuple[int, ...]
    outputs: tuple[OutputSpec, ...]
    output_scales: tuple[int, ...]
    tag: Tag
    post_processing: PostProcessing
    error: MeasuredError
    cost: Cost

    def __post_init__(self) -> None:
        _check_ports(self.inputs, self.outputs)
        if len(self.input_scales) != len(self.inputs) or len(self.output_scales) != len(self.outputs):
            raise Misuse("every input and every output of a circuit has a scale")
        if self.visibility != Visibility():
            raise Misuse("a circuit lock has public inputs, public outputs and fixed parameters")
        if self.tag != Tag(TAG_NAME, sum(spec.elements for spec in self.inputs), TAG_LENGTH):
            raise Misuse("the job tag comes right after the inputs, one instance a byte")
        instances = self.tag.offset + self.tag.length + sum(spec.elements for spec in self.outputs)
        if self.cost.instances != instances:
            raise Misuse(f"{self.cost.instances} instances, expected {instances}")
        if self.srs.k < self.cost.k:
            raise Misuse(f"an SRS of k={self.srs.k} is too small for a circuit of k={self.cost.k}")
        if any(spec.dtype != "float64" for spec in self.outputs):
            raise Misuse("a proved output is float64")

    @property
    def digest(self) -> Digest:
        """The lock's name, as jobs and receipts give it."""
        return canonical.digest(self.DOMAIN, self.encode())

    def encode(self) -> bytes:
        """Write the lock as its one canonical file."""
        return canonical.encode({"version": LOCK_VERSION, **_plain(asdict(self))})

    @classmethod
    def decode(cls, data: bytes) -> CircuitLock:
        """Read the bytes of a circuit.lock.json.

        Raises:
            Malformed: ``lock.malformed``, ``lock.version``, or a code of `canonical.decode`.

        """
        record = _open(data)
        try:
            lock = cls(
                name=_name(record),
                model=record.digest("model"),
                derived_model=record.digest("derived_model"),
                ezkl_version=record.text("ezkl_version", max_chars=32, pattern=r"[0-9]+\.[0-9]+\.[0-9]+"),
                settings=record.digest("settings"),
                vk=record.digest("vk"),
                pk=record.digest("pk"),
                srs=_read_srs(record.record("srs")),
                visibility=_read_visibility(record.record("visibility")),
                run_args=_read_run_args(record.record("run_args")),
                inputs=_read_inputs(record),
                input_scales=_read_scales(record, "input_scales"),
                outputs=_read_outputs(record),
                output_scales=_read_scales(record, "output_scales"),
                tag=_read_tag(record.record("tag")),
                post_processing=record.choice("post_processing", PostProcessing),
                error=_read_error(record.record("error")),
                cost=_read_cost(record.record("cost")),
            )
        except Misuse as error:
            raise record.error(str(error)) from error
        record.close()
        return lock


@dataclass(frozen=True, slots=True)
class Segment:
    """A cut of the graph that can be re-run alone: its tensors' names, and how far a re-run may be off."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    relative_l2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayLock:
    """Pins how the published model may be re-executed and how far two honest runs may differ."""

    DOMAIN: ClassVar[str] = "proofhold/replay-lock/v1"
    FILE_NAME: ClassVar[str] = "replay.lock.json"
    CONTRACT: ClassVar[str] = "float32"

    name: str
    model: Digest
    contract: str
    """The arithmetic that was promised; version 1 knows float32 alone."""
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    relative_l2: float
    """The tolerance end to end: |claimed - recomputed| / |recomputed| in the 2-norm, of each output."""
    segments: tuple[Segment, ...]
    post_processing: PostProcessing

    def __post_init__(self) -> None:
        _check_ports(self.inputs, self.outputs)
        if self.contract != self.CONTRACT:
            raise Misuse(f"contract {self.contract!r}, expected {self.CONTRACT!r}")
        if not self.segments:
            raise Misuse("a replay lock has at least one segment")
        for tolerance in (self.relative_l2, *(s.relative_l2 for s in self.segments)):
            if not 0 < tolerance < 1:
                raise Misuse(f"tolerance {tolerance}, expected more than 0 and less than 1")

    @property
    def digest(self) -> Digest:
        """The lock's name, as jobs and receipts give it."""
        return canonical.digest(self.DOMAIN, self.encode())

    def encode(self) -> bytes:
        """Write the lock as its one canonical file."""
        return canonical.encode({"version": LOCK_VERSION, **_plain(asdict(self))})

    @classmethod
    def decode(cls, data: bytes) -> ReplayLock:
        """Read the bytes of a replay.lock.json.

        Raises:
            Malformed: ``lock.malformed``, ``lock.version``, or a code of `canonical.decode`.

        """
        record = _open(data)
        try:
            lock = cls(
                name=_name(record),
                model=record.digest("model"),
                contract=record.text("contract", max_chars=32),
                inputs=_read_inputs(record),
                outputs=_read_outputs(record),
                relative_l2=record.number("relative_l2"),
                segments=tuple(_read_segment(r) for r in record.records("segments", max_items=MAX_SEGMENTS)),
                post_processing=record.choice("post_processing", PostProcessing),
            )
        except Misuse as error:
            raise record.error(str(error)) from error
        record.close()
        return lock


def _open(data: bytes) -> Record:
    record = Record(canonical.decode(data, max_bytes=MAX_LOCK_BYTES, what="lock"), what="lock")
    record.version(LOCK_VERSION)
    return record


def _plain(value: Json) -> Json:
    """Turn the tuples that `asdict` leaves into the lists that JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _name(record: Record) -> str:
    return record.text("name", max_chars=MAX_NAME_CHARS, pattern=NAME_PATTERN)


def _read_srs(record: Record) -> SrsPin:
    pin = SrsPin(
        kind=record.choice("kind", SrsKind),
        label=record.text("label", max_chars=128, pattern=r"[A-Za-z0-9 _./:+-]+"),
        k=record.integer("k", low=1, high=MAX_K),
        digest=record.digest("digest"),
        verify_digest=record.digest("verify_digest"),
    )
    record.close()
    return pin


def _read_visibility(record: Record) -> Visibility:
    visibility = Visibility(*(record.text(field, max_chars=32) for field in ("input", "output", "param")))
    record.close()
    return visibility


def _read_run_args(record: Record) -> RunArgs:
    run_args = RunArgs(
        columns=record.integer("columns", low=1, high=64),
        decomp_base=record.integer("decomp_base", low=2, high=2**20),
        decomp_legs=record.integer("decomp_legs", low=1, high=64),
        input_scale=record.integer("input_scale", high=MAX_SCALE),
        param_scale=record.integer("param_scale", high=MAX_SCALE),
    )
    record.close()
    return run_args


def _read_tag(record: Record) -> Tag:
    tag = Tag(
        name=record.text("name", max_chars=MAX_NAME_CHARS),
        offset=record.integer("offset", high=MAX_ELEMENTS * MAX_PORTS),
        length=record.integer("length", high=MAX_ELEMENTS),
    )
    record.close()
    return tag


def _read_error(record: Record) -> MeasuredError:
    error = MeasuredError(
        samples=record.integer("samples", low=1, high=MAX_COUNT),
        max_abs=_not_negative(record, "max_abs"),
        relative_l2=_not_negative(record, "relative_l2"),
    )
    record.close()
    return error


def _not_negative(record: Record, field: str) -> float:
    value = record.number(field)
    if value < 0:
        raise record.error(f"got {value}, expected at least 0", field)
    return value


def _read_cost(record: Record) -> Cost:
    cost = Cost(
        k=record.integer("k", low=1, high=MAX_K),
        rows=record.integer("rows", low=1, high=MAX_COUNT),
        instances=record.integer("instances", low=1, high=MAX_COUNT),
        vk_bytes=record.integer("vk_bytes", low=1, high=MAX_COUNT),
        pk_bytes=record.integer("pk_bytes", low=1, high=MAX_COUNT),
    )
    record.close()
    return cost


def _read_inputs(record: Record) -> tuple[InputSpec, ...]:
    specs = []
    for item in record.records("inputs", max_items=MAX_PORTS):
        name, dtype, shape = _read_port(item)
        specs.append(InputSpec(name, dtype, shape, item.number("low"), item.number("high")))
        item.close()
    return tuple(specs)


def _read_outputs(record: Record) -> tuple[OutputSpec, ...]:
    specs = []
    for item in record.records("outputs", max_items=MAX_PORTS):
        specs.append(OutputSpec(*_read_port(item)))
        item.close()
    return tuple(specs)


def _read_port(record: Record) -> tuple[str, str, tuple[int, ...]]:
    return (
        record.text("name", max_chars=MAX_NAME_CHARS, pattern=PORT_PATTERN),
        record.text("dtype", max_chars=16),
        _integers(record, "shape", max_items=MAX_RANK, high=MAX_ELEMENTS),
    )


def _read_scales(record: Record, field: str) -> tuple[int, ...]:
    return _integers(record, field, max_items=MAX_PORTS, high=MAX_SCALE)


def _integers(record: Record, field: str, *, max_items: int, high: int) -> tuple[int, ...]:
    values = record.items(field, max_items=max_items)
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
            raise record.error(f"expected integers from 0 to {high}", field)
    return tuple(values)


def _read_segment(record: Record) -> Segment:
    segment = Segment(
        inputs=_port_names(record, "inputs"),
        outputs=_port_names(record, "outputs"),
        relative_l2=record.number("relative_l2"),
    )
    record.close()
    return segment


def _port_names(record: Record, field: str) -> tuple[str, ...]:
    values = record.items(field, max_items=MAX_PORTS)
    for value in values:
        if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
            raise record.error(f"expected names of 1 to {MAX_NAME_CHARS} characters", field)
    return tuple(values)


def _check_port(name: str, dtype: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise Misuse(f"a tensor's name has 1 to {MAX_NAME_CHARS} characters")
    if dtype not in dtypes:
        raise Misuse(f"tensor {name!r}: dtype {dtype!r}, expected one of {', '.join(dtypes)}")
    if len(shape) > MAX_RANK or any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise Misuse(
            f"tensor {name!r}: shape {shape}, expected rank at most {MAX_RANK} and sizes of at least 1"
        )


def _check_ports(inputs: tuple[InputSpec, ...], outputs: tuple[OutputSpec, ...]) -> None:
    for what, specs in (("input", inputs), ("output", outputs)):
        if not 0 < len(specs) <= MAX_PORTS:
            raise Misuse(f"{len(specs)} {what}s, expected 1 to {MAX_PORTS}")
        if len({spec.name for spec in specs}) != len(specs):
            raise Misuse(f"two {what}s have the same name")
    if any(spec.name == TAG_NAME for spec in inputs):
        raise Misuse(f"the input name {TAG_NAME} is taken: the compile step adds it")


__all__ = [
    "CircuitLock",
    "Cost",
    "InputSpec",
    "MeasuredError",
    "OutputSpec",
    "PostProcessing",
    "ReplayLock",
    "RunArgs",
    "Segment",
    "SrsKind",
    "SrsPin",
    "Tag",
    "Visibility",
]
