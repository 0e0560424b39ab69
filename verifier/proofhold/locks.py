"""What the compile step pins: the circuit lock and the replay lock, format version 1.

A lock is one canonical JSON document, named by the digest of its bytes; a job names the locks it rests on
(PROTOCOL P14). docs/formats/locks.md describes every field. Nothing here reads a file.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import ClassVar

from proofhold import canonical
from proofhold.canonical import Digest, Json
from proofhold.domain import (
    MAX_ELEMENTS,
    MAX_NAME_CHARS,
    MAX_PORTS,
    InputSpec,
    OutputSpec,
    PostProcessing,
    check_ports,
    read_inputs,
    read_integers,
    read_outputs,
)
from proofhold.errors import Misuse
from proofhold.fieldelement import MAX_SCALE
from proofhold.payload import ITEM_BYTES, MAX_RANK
from proofhold.payload import MAX_NAME_CHARS as MAX_TENSOR_NAME_CHARS
from proofhold.records import Record

LOCK_VERSION = 1
MAX_LOCK_BYTES = 64 * 1024
MAX_SEGMENTS = 1024
MAX_K = 26
MAX_COUNT = 2**40

NAME_PATTERN = r"[a-z0-9][a-z0-9_.-]*"
MIN_EZKL_VERSION = (23, 0, 0)
"""What was looked at here begins with it. Trail of Bits' audit of early 2025 found soundness bugs in versions
before 21."""
MAX_LOOKUP = 2**40
"""How far from zero a lookup table may reach, in the circuit's integers."""
MAX_PASSES = 64
STAGE_PATTERN = r"[a-z][a-z0-9_]*"

BOUNDARY_PATTERN = r"[A-Za-z0-9_./:-]+"
MAX_BOUNDARY_BYTES = 7 * 2**20
"""Of one tensor at a cut. The opening of a segment holds two, and an answer at most 16 MiB."""

TAG_NAME = "job_tag"
TAG_LENGTH = 16


class SrsKind(StrEnum):
    """Where a structured reference string comes from."""

    UNSAFE_DEV = "unsafe-dev"
    """Its secret is public: anybody can forge a proof. For tests and demonstrations."""
    CEREMONY = "ceremony"
    """Of a multi-party ceremony, named by its label and pinned by its digest."""


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
    lookup_range: tuple[int, int] | None = None
    """The integers that the circuit's lookup tables cover, both ends included; None where it has no table
    (asked for: where the compile step is to find it)."""

    def __post_init__(self) -> None:
        if self.lookup_range is not None:
            low, high = self.lookup_range
            if not -MAX_LOOKUP <= low <= 0 <= high <= MAX_LOOKUP or low == high:
                raise Misuse(f"lookup range {low} to {high}, expected an interval that holds 0")


@dataclass(frozen=True, slots=True)
class PassRecord:
    """A pass that changed the model on its way to the circuit, and by how much its outputs then differed.

    `max_abs` is between the model before and after it, both run by onnxruntime on the calibration samples.
    """

    name: str
    max_abs: float


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
    bound: float
    """What is stated of inputs like the samples: no output is further off than this. More than `max_abs`,
    since the next input may be worse than the worst of a few."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Proving cost in counts, which do not depend on the machine."""

    k: int
    rows: int
    instances: int
    proof_bytes: int
    """Every proof of this circuit has this length; ezkl itself ignores what is appended to one."""
    vk_bytes: int
    pk_bytes: int


@dataclass(frozen=True, kw_only=True)
class CircuitLock:
    """Pins a circuit: change anything that its proofs mean, and the lock's digest changes."""

    DOMAIN: ClassVar[str] = "proofhold/circuit-lock/v1"
    FILE_NAME: ClassVar[str] = "circuit.lock.json"

    name: str
    model: Digest
    derived_model: Digest
    passes: tuple[PassRecord, ...]
    """What lies between `model` and `derived_model`, in order: passes that changed nothing are not listed,
    so that a new one leaves the locks of models alone that it does not touch."""
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
    peak: float | None
    """The largest magnitude that any tensor of the model can take over the input domain, by interval
    arithmetic: the circuit was checked to hold it. None where the model has an operator that the arithmetic
    does not know, and the domain was only probed."""
    error: MeasuredError
    cost: Cost

    def __post_init__(self) -> None:
        check_name(self.name)
        check_ports(self.inputs, self.outputs)
        if any(spec.name == TAG_NAME for spec in self.inputs):
            raise Misuse(f"the input name {TAG_NAME} is taken: the compile step adds it")
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
        if tuple(int(part) for part in self.ezkl_version.split(".")) < MIN_EZKL_VERSION:
            oldest = ".".join(str(part) for part in MIN_EZKL_VERSION)
            raise Misuse(f"ezkl {self.ezkl_version} is too old to be sound, expected at least {oldest}")
        if self.error.bound < self.error.max_abs:
            raise Misuse(
                f"error bound {self.error.bound}, expected at least the measured {self.error.max_abs}"
            )
        if self.peak is not None and self.peak < 0:
            raise Misuse(f"peak {self.peak}, expected at least 0")
        if any(spec.dtype != "float64" for spec in self.outputs):
            raise Misuse("a proved output is float64")

    @functools.cached_property
    def digest(self) -> Digest:
        """The lock's name, as jobs and receipts give it: every check compares it, so it is computed once."""
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
                name=record.text("name"),
                model=record.digest("model"),
                derived_model=record.digest("derived_model"),
                passes=tuple(_read_pass(r) for r in record.records("passes", max_items=MAX_PASSES)),
                ezkl_version=record.text("ezkl_version", max_chars=32, pattern=r"[0-9]+\.[0-9]+\.[0-9]+"),
                settings=record.digest("settings"),
                vk=record.digest("vk"),
                pk=record.digest("pk"),
                srs=_read_srs(record.record("srs")),
                visibility=_read_visibility(record.record("visibility")),
                run_args=_read_run_args(record.record("run_args")),
                inputs=read_inputs(record),
                input_scales=_read_scales(record, "input_scales"),
                outputs=read_outputs(record),
                output_scales=_read_scales(record, "output_scales"),
                tag=_read_tag(record.record("tag")),
                post_processing=record.choice("post_processing", PostProcessing),
                peak=record.optional("peak", record.number),
                error=_read_error(record.record("error")),
                cost=_read_cost(record.record("cost")),
            )
        except Misuse as error:
            raise record.error(str(error)) from error
        record.close()
        return lock


class Contract(StrEnum):
    """The arithmetic that a provider promises."""

    FLOAT32 = "float32"
    """Single precision throughout: every cheaper arithmetic lies outside of the tolerance."""
    REDUCED = "reduced"
    """Half precision is allowed; the tolerance is that of the runtimes that were measured."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """A tensor at a cut: a leaf of the run's trace."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_TENSOR_NAME_CHARS or not re.fullmatch(BOUNDARY_PATTERN, self.name):
            raise Misuse(
                f"boundary {self.name[:80]!r}: a name has 1 to {MAX_TENSOR_NAME_CHARS} characters "
                f"of the form {BOUNDARY_PATTERN}"
            )
        if self.dtype not in ITEM_BYTES:
            raise Misuse(
                f"boundary {self.name!r}: dtype {self.dtype!r}, expected one of {', '.join(ITEM_BYTES)}"
            )
        if len(self.shape) > MAX_RANK or any(size < 1 for size in self.shape):
            raise Misuse(f"boundary {self.name!r}: shape {self.shape}, expected sizes of at least 1")
        if math.prod(self.shape) * ITEM_BYTES[self.dtype] > MAX_BOUNDARY_BYTES:
            raise Misuse(f"boundary {self.name!r} holds more than {MAX_BOUNDARY_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the graph that can be re-run alone: its tensors' names, and how far a re-run may be off.

    `model` is the digest of the segment's own ONNX model, or None where the one segment is the whole model.
    `norms` are the 2-norms that its outputs usually have: a smaller one is measured by them. There are none
    before calibration.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    relative_l2: float
    model: Digest | None = None
    norms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.norms and len(self.norms) != len(self.outputs):
            raise Misuse(f"{len(self.norms)} norms of {len(self.outputs)} outputs, expected one each or none")
        if not all(0 <= norm < math.inf for norm in self.norms):
            raise Misuse(f"norms {self.norms}, expected finite ones of at least 0")


@dataclass(frozen=True, kw_only=True)
class ReplayLock:
    """Pins how the published model may be re-executed and how far two honest runs may differ."""

    DOMAIN: ClassVar[str] = "proofhold/replay-lock/v1"
    FILE_NAME: ClassVar[str] = "replay.lock.json"

    name: str
    model: Digest
    contract: Contract
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    relative_l2: float
    """The tolerance end to end: |claimed - recomputed| / |recomputed| in the 2-norm, of each output."""
    segments: tuple[Segment, ...]
    post_processing: PostProcessing
    boundaries: tuple[Boundary, ...] = ()
    """The tensors at the cuts, one behind another: a trace has leaves of inputs, boundaries, outputs."""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_ports(self.inputs, self.outputs)
        if not self.segments:
            raise Misuse("a replay lock has at least one segment")
        _check_segments(self)
        for tolerance in (self.relative_l2, *(s.relative_l2 for s in self.segments)):
            if not 0 < tolerance < 1:
                raise Misuse(f"tolerance {tolerance}, expected more than 0 and less than 1")

    @functools.cached_property
    def digest(self) -> Digest:
        """The lock's name, as jobs and receipts give it: every check compares it, so it is computed once."""
        return canonical.digest(self.DOMAIN, self.encode())

    @property
    def leaves(self) -> tuple[InputSpec | Boundary | OutputSpec, ...]:
        """What a run's trace commits to, in order."""
        return (*self.inputs, *self.boundaries, *self.outputs)

    @functools.cached_property
    def norms(self) -> Mapping[str, float]:
        """The usual norm of every cut and output by name, as far as it was measured."""
        return {
            name: norm
            for segment in self.segments
            for name, norm in zip(segment.outputs, segment.norms, strict=bool(segment.norms))
        }

    def encode(self) -> bytes:
        """Write the lock as its one canonical file; a model without cuts has no field for them."""
        plain = _plain(asdict(self))
        if not self.boundaries:
            del plain["boundaries"]
            del plain["segments"][0]["model"]
        for segment in plain["segments"]:
            if not segment["norms"]:
                del segment["norms"]
        return canonical.encode({"version": LOCK_VERSION, **plain})

    @classmethod
    def decode(cls, data: bytes) -> ReplayLock:
        """Read the bytes of a replay.lock.json.

        Raises:
            Malformed: ``lock.malformed``, ``lock.version``, or a code of `canonical.decode`.

        """
        record = _open(data)
        try:
            lock = cls(
                name=record.text("name"),
                model=record.digest("model"),
                contract=record.choice("contract", Contract),
                inputs=read_inputs(record),
                outputs=read_outputs(record),
                relative_l2=record.number("relative_l2"),
                segments=tuple(_read_segment(r) for r in record.records("segments", max_items=MAX_SEGMENTS)),
                post_processing=record.choice("post_processing", PostProcessing),
                boundaries=_read_boundaries(record),
            )
        except Misuse as error:
            raise record.error(str(error)) from error
        record.close()
        return lock


def check_name(name: str) -> None:
    """Check what a model may be called: it is the name of two folders.

    Raises:
        Misuse: anything but lower-case letters, digits, ``_``, ``.`` and ``-``, or too long.

    """
    if len(name) > MAX_NAME_CHARS or not re.fullmatch(NAME_PATTERN, name):
        raise Misuse(f"name {name[:80]!r}, expected at most {MAX_NAME_CHARS} of the form {NAME_PATTERN}")


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


def _read_pass(record: Record) -> PassRecord:
    made = PassRecord(
        name=record.text("name", max_chars=MAX_NAME_CHARS, pattern=STAGE_PATTERN),
        max_abs=_not_negative(record, "max_abs"),
    )
    record.close()
    return made


def _read_run_args(record: Record) -> RunArgs:
    run_args = RunArgs(
        columns=record.integer("columns", low=1, high=64),
        decomp_base=record.integer("decomp_base", low=2, high=2**20),
        decomp_legs=record.integer("decomp_legs", low=1, high=64),
        input_scale=record.integer("input_scale", high=MAX_SCALE),
        param_scale=record.integer("param_scale", high=MAX_SCALE),
        lookup_range=record.optional("lookup_range", lambda field: _read_range(record, field)),
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
        bound=_not_negative(record, "bound"),
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
        proof_bytes=record.integer("proof_bytes", low=1, high=MAX_COUNT),
        vk_bytes=record.integer("vk_bytes", low=1, high=MAX_COUNT),
        pk_bytes=record.integer("pk_bytes", low=1, high=MAX_COUNT),
    )
    record.close()
    return cost


def _read_range(record: Record, field: str) -> tuple[int, int]:
    ends = record.items(field, max_items=2)
    if len(ends) != 2 or not all(type(end) is int for end in ends):
        raise record.error("expected two integers", field)
    return ends[0], ends[1]


def _read_scales(record: Record, field: str) -> tuple[int, ...]:
    return read_integers(record, field, max_items=MAX_PORTS, high=MAX_SCALE)


def _check_segments(lock: ReplayLock) -> None:
    """Check that the segments make one run: each takes the cut before it, and every leaf comes from one."""
    inputs, outputs = ([spec.name for spec in specs] for specs in (lock.inputs, lock.outputs))
    cuts = [boundary.name for boundary in lock.boundaries]
    if len(set(inputs + cuts + outputs)) != len(inputs) + len(cuts) + len(outputs):
        raise Misuse("two leaves of a trace have the same name")
    if len(lock.segments) != len(cuts) + 1:
        raise Misuse(f"{len(lock.segments)} segments, expected {len(cuts) + 1}: one more than boundaries")
    if any((segment.model is None) is bool(cuts) for segment in lock.segments):
        raise Misuse("every segment of a model with cuts has a model of its own, and no other has")
    given: list[str] = []
    for before, segment, after in zip(["", *cuts], lock.segments, [*cuts, ""], strict=True):
        if not set(segment.inputs) <= {*inputs, before} or (before and before not in segment.inputs):
            raise Misuse(
                f"a segment takes {', '.join(segment.inputs)}, expected the cut before it, and inputs"
            )
        if not set(segment.outputs) <= {*outputs, after} or (after and after not in segment.outputs):
            raise Misuse(
                f"a segment gives {', '.join(segment.outputs)}, expected the cut behind it, and outputs"
            )
        given += segment.outputs
    if sorted(given) != sorted(cuts + outputs):
        raise Misuse("every boundary and every output is given by one segment")


def _read_boundaries(record: Record) -> tuple[Boundary, ...]:
    if not record.has("boundaries"):
        return ()
    found = []
    for item in record.records("boundaries", max_items=MAX_SEGMENTS):
        name = item.text("name", max_chars=MAX_TENSOR_NAME_CHARS)
        dtype = item.text("dtype", max_chars=16)
        shape = read_integers(item, "shape", max_items=MAX_RANK, high=MAX_BOUNDARY_BYTES)
        item.close()
        found.append(Boundary(name, dtype, shape))
    if not found:
        raise record.error("a model without cuts has no such field", "boundaries")
    return tuple(found)


def _read_segment(record: Record) -> Segment:
    segment = Segment(
        inputs=_port_names(record, "inputs"),
        outputs=_port_names(record, "outputs"),
        relative_l2=record.number("relative_l2"),
        model=record.digest("model") if record.has("model") else None,
        norms=_read_norms(record) if record.has("norms") else (),
    )
    record.close()
    return segment


def _read_norms(record: Record) -> tuple[float, ...]:
    values = record.items("norms", max_items=MAX_PORTS + 1)
    if not values or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise record.error("expected numbers; before calibration there is no such field", "norms")
    return tuple(float(v) for v in values if isinstance(v, int | float))


def _port_names(record: Record, field: str) -> tuple[str, ...]:
    values = record.items(field, max_items=MAX_PORTS + 1)
    for value in values:
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TENSOR_NAME_CHARS:
            raise record.error(f"expected names of 1 to {MAX_TENSOR_NAME_CHARS} characters", field)
    return tuple(values)


__all__ = [
    "Boundary",
    "CircuitLock",
    "Contract",
    "Cost",
    "InputSpec",
    "MeasuredError",
    "OutputSpec",
    "PassRecord",
    "PostProcessing",
    "ReplayLock",
    "RunArgs",
    "Segment",
    "SrsKind",
    "SrsPin",
    "Tag",
    "Visibility",
]
