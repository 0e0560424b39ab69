"""What a model takes and gives: its inputs with their domain, its outputs, and the check at funding.

The domain is a promise to both sides (PROTOCOL P9): a provider can answer, and prove, whatever lies in it,
and a buyer cannot fund a job that asks for more.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from proofhold.core import Fault, Reason
from proofhold.errors import Misuse
from proofhold.payload import Payload, Tensor, Tensors
from proofhold.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PORTS = 32
MAX_RANK = 8
MAX_ELEMENTS = 2**21
MAX_NAME_CHARS = 64

PORT_PATTERN = r"[A-Za-z0-9_./:-]+"
"""What a tensor may be called: the name appears in tables and error messages."""

DTYPES = ("float32", "float64", "int32", "int64")


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
        _check_port(self.name, self.dtype, self.shape)
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
        _check_port(self.name, self.dtype, self.shape)

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def check_input(specs: tuple[InputSpec, ...], payload: Payload) -> tuple[Reason, ...]:
    """Compare an input payload with what a model takes; every mismatch is a reason, none is none.

    All codes begin with ``input.domain.``: ``kind`` (a document), ``names``, ``dtype``, ``shape``,
    ``not_finite``, ``range``. The fault is the buyer's, who chose the input. A payload that passes has its
    tensors in the model's order.
    """
    if not isinstance(payload, Tensors):
        return (_reason("kind", "the input is a document", "document", "tensors"),)
    got, expected = [t.name for t in payload.items], [spec.name for spec in specs]
    if got != expected:
        return (_reason("names", "other inputs than the model's", ", ".join(got), ", ".join(expected)),)
    return tuple(
        reason
        for spec, tensor in zip(specs, payload.items, strict=True)
        for reason in _check_tensor(spec, tensor)
    )


def _check_tensor(spec: InputSpec, tensor: Tensor) -> list[Reason]:
    what = f"input {spec.name}"
    reasons = []
    if tensor.dtype != spec.dtype:
        reasons.append(_reason("dtype", f"{what}: another dtype", tensor.dtype, spec.dtype))
    if tensor.shape != spec.shape:
        reasons.append(_reason("shape", f"{what}: another shape", str(tensor.shape), str(spec.shape)))
    if tensor.dtype not in DTYPES:
        return reasons

    import numpy as np

    given = tensor.numpy()
    if not reasons and _is_within(given, spec):
        return []
    with np.errstate(invalid="ignore"):  # a signalling NaN complains when it is widened; reported below
        values = given.astype(np.float64)
    finite = np.isfinite(values)
    interval = f"[{spec.low:g}, {spec.high:g}]"
    if not finite.all():
        got = f"{np.count_nonzero(~finite)} such elements"
        reasons.append(_reason("not_finite", f"{what}: NaN or infinite", got, interval))
    with np.errstate(invalid="ignore"):  # a NaN compares as outside of nothing, and was reported above
        outside = values[finite & ((values < spec.low) | (values > spec.high))]
    if outside.size:
        worst = outside[np.argmax(np.abs(outside))]
        got = f"{outside.size} elements, such as {worst:g}"
        reasons.append(_reason("range", f"{what}: outside the domain", got, interval))
    return reasons


def _is_within(values: NDArray[Any], spec: InputSpec) -> bool:
    """Tell whether all is as it should be, as of most inputs it is: in two passes, with nothing allocated."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        # A NaN makes both of them NaN, which is nowhere.
        return values.size > 0 and spec.low <= float(values.min()) and float(values.max()) <= spec.high


def _reason(code: str, message: str, got: str, expected: str) -> Reason:
    return Reason(f"input.domain.{code}", message, Fault.BUYER, got=got[:200], expected=expected[:200])


def tensors_of(record: Record, specs: tuple[InputSpec, ...]) -> Tensors:
    """Read a model's input from lists of numbers by name, in C order: ``{"pixels": [0.0, 0.375, …]}``.

    Raises:
        Malformed: other names, or another number of numbers, than the model takes.

    """
    import numpy as np

    arrays = []
    for spec in specs:
        numbers = record.items(spec.name, max_items=spec.elements)
        if len(numbers) != spec.elements or not all(type(number) in (int, float) for number in numbers):
            raise record.error(f"expected {spec.elements} numbers", spec.name)
        try:
            with np.errstate(over="ignore"):
                array = np.array(numbers, dtype=spec.dtype)
        except OverflowError:  # an integer past the largest of its dtype, or past every float
            raise record.error(f"expected numbers of {spec.dtype}", spec.name) from None
        arrays.append((spec.name, array.reshape(spec.shape)))
    record.close()
    return Tensors.of(arrays)


def check_ports(inputs: tuple[InputSpec, ...], outputs: tuple[OutputSpec, ...]) -> None:
    """Check what holds for the inputs and for the outputs of any model.

    Raises:
        Misuse: none or too many, or two of one name.

    """
    for what, specs in (("input", inputs), ("output", outputs)):
        if not 0 < len(specs) <= MAX_PORTS:
            raise Misuse(f"{len(specs)} {what}s, expected 1 to {MAX_PORTS}")
        if len({spec.name for spec in specs}) != len(specs):
            raise Misuse(f"two {what}s have the same name")


def read_inputs(record: Record) -> tuple[InputSpec, ...]:
    """Take the field ``inputs`` of a lock.

    Raises:
        Malformed: not a list of input specifications.
        Misuse: specifications that make no sense; the reader of the lock turns it into Malformed.

    """
    specs = []
    for item in record.records("inputs", max_items=MAX_PORTS):
        name, dtype, shape = _read_port(item)
        specs.append(InputSpec(name, dtype, shape, item.number("low"), item.number("high")))
        item.close()
    return tuple(specs)


def read_outputs(record: Record) -> tuple[OutputSpec, ...]:
    """Take the field ``outputs`` of a lock; raises as `read_inputs` does."""
    specs = []
    for item in record.records("outputs", max_items=MAX_PORTS):
        specs.append(OutputSpec(*_read_port(item)))
        item.close()
    return tuple(specs)


def read_integers(record: Record, field: str, *, max_items: int, high: int) -> tuple[int, ...]:
    """Take a list of integers from 0 to `high`.

    Raises:
        Malformed: anything else.

    """
    values = record.items(field, max_items=max_items)
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
            raise record.error(f"expected integers from 0 to {high}", field)
    return tuple(values)


def _read_port(record: Record) -> tuple[str, str, tuple[int, ...]]:
    return (
        record.text("name", max_chars=MAX_NAME_CHARS),
        record.text("dtype", max_chars=16),
        read_integers(record, "shape", max_items=MAX_RANK, high=MAX_ELEMENTS),
    )


def _check_port(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if not 0 < len(name) <= MAX_NAME_CHARS or not re.fullmatch(PORT_PATTERN, name):
        raise Misuse(
            f"tensor {name[:80]!r}: a name has 1 to {MAX_NAME_CHARS} characters of the form {PORT_PATTERN}"
        )
    if dtype not in DTYPES:
        raise Misuse(f"tensor {name!r}: dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
    if len(shape) > MAX_RANK or any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise Misuse(
            f"tensor {name!r}: shape {shape}, expected rank at most {MAX_RANK} and sizes of at least 1"
        )
