"""As far as a circuit can be tried without keys: derived, sized, run on every sample, and measured."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from proofhold import fieldelement
from proofhold.compile import native, settings
from proofhold.compile.cache import write_atomically
from proofhold.compile.derivation import Derivation
from proofhold.compile.errors import CompileError
from proofhold.compile.specification import Sample, Specification, read_samples
from proofhold.compile.tables import ASSUMED_RANGE, measure_range
from proofhold.compile.toolchain import Toolchain
from proofhold.domain import InputSpec, OutputSpec
from proofhold.locks import MAX_K, TAG_LENGTH, TAG_NAME, MeasuredError, PassRecord, RunArgs
from proofhold.payload import Tensor, Tensors

OnStep: TypeAlias = Callable[[str], None]

PEAK_MARGIN = 1.05
"""Quantised weights and inputs differ from the real ones by half a step: what interval arithmetic says of
the real ones is widened by this factor."""
ERROR_MARGIN = 2.0
"""What a lock states is the worst seen on the samples times this, and one step of the outputs' scale
(docs/adr/0085-the-stated-error.md)."""
MAX_ERROR = 0.25
"""Beyond this share of the model's largest output a circuit is not an inaccurate one, but another's."""
LEAST_OUTPUT = 1e-3
PROBES = 16
MAX_LAYOUTS = 3
PROBE_SEED = 1
NO_JOB = Tensor.of(TAG_NAME, np.zeros((1, TAG_LENGTH), np.int64))


@dataclass(frozen=True, slots=True)
class Trial:
    """A circuit that was run, and never proved; the folder holds its model, settings and ezkl's file."""

    derivation: Derivation
    passes: tuple[PassRecord, ...]
    inputs: tuple[InputSpec, ...]
    samples: tuple[Sample, ...]
    peak: float | None
    settings: bytes
    k: int
    run_args: RunArgs
    """Those that were asked for, with the range of the lookup tables."""
    outputs: tuple[tuple[NDArray[np.float64], ...], ...]
    """Of each sample each output, flat, dequantised."""
    error: MeasuredError


def try_out(
    published: bytes,
    specification: Specification,
    folder: Path,
    *,
    run_args: RunArgs,
    tools: Toolchain,
    on_step: OnStep = lambda _: None,
) -> Trial:
    """Compile a model into an empty `folder` and run the circuit on all samples and corners of the domain.

    Raises:
        Malformed: ``model.…``: the bytes are no ONNX model.
        CompileError: ``compile.…``: no circuit can be made of it, or none that computes what the model does.
        ToolFailed: a tool died or hung.

    """
    on_step("checking the model")
    derivation = tools.derive(published, specification.request)
    write_atomically(folder / native.MODEL_FILE, derivation.model)
    inputs, outputs = specification.inputs(derivation.inputs), derivation.outputs
    samples = read_samples(specification.samples, inputs)
    peak = check_peak(tools.peak(derivation.model, inputs), run_args)
    passes = _compare_passes(published, derivation, samples, tools)

    on_step("deriving the circuit's settings")
    pinned, k, run_args = derive_settings(
        folder, run_args, inputs, outputs, tools, data=calibration_data(samples, inputs)
    )
    if run_args.lookup_range is not None:
        peak = None  # A bound on the tensors is none on what is looked up: an input may leave the tables.
    tools.compile(folder)
    on_step(f"measuring the error on {len(samples)} samples, and probing the domain")
    data = calibration_data(samples, inputs)
    elements = tools.evaluate(folder / native.CIRCUIT_FILE, data, lookup_range=run_args.lookup_range)
    scales = json.loads(pinned)["model_output_scales"]
    found = tuple(dequantised(row, scales) for row in elements[: len(samples)])
    error = _measure(derivation.model, samples, found, scales, tools)
    return Trial(derivation, passes, inputs, samples, peak, pinned, k, run_args, found, error)


def dequantised(outputs: Sequence[Sequence[str]], scales: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
    """Give each output's field elements as numbers."""
    return tuple(
        np.array([fieldelement.dequantise(fieldelement.decode(element), scale) for element in output])
        for output, scale in zip(outputs, scales, strict=True)
    )


def _compare_passes(
    published: bytes, derivation: Derivation, samples: tuple[Sample, ...], tools: Toolchain
) -> tuple[PassRecord, ...]:
    """Compare the model before and after each pass that changed it."""
    before, records = published, []
    inputs = [sample.inputs for sample in samples]
    for change in derivation.changes:
        difference = tools.difference(before, change.model, inputs, change.moved)
        records.append(PassRecord(change.name, difference))
        before = change.model
    return tuple(records)


def derive_settings(
    folder: Path,
    run_args: RunArgs,
    inputs: tuple[InputSpec, ...],
    outputs: tuple[OutputSpec, ...],
    tools: Toolchain,
    *,
    data: list[Any] | None,
) -> tuple[bytes, int, RunArgs]:
    """Write the settings of the derived model in `folder`; gives them, the k that fits, and the arguments.

    The arguments come back with the range of the lookup tables: as asked for, or measured on `data` (ezkl's
    input data); where there is none of that either, some range is assumed.

    Raises:
        CompileError: ``compile.…``: ezkl refuses the model, or we what it made of it.
        ToolFailed: it died or hung.

    """
    instances = sum(spec.elements for spec in inputs) + TAG_LENGTH + sum(port.elements for port in outputs)
    raw = tools.settings(folder, settings.arguments(run_args, settings.LOGROWS_GUESS))
    guess = json.loads(raw)
    settings.check(guess, run_args, inputs, outputs)
    if not settings.needs_tables(guess):
        run_args = replace(run_args, lookup_range=None)
    elif run_args.lookup_range is None:
        write_atomically(folder / native.SETTINGS_FILE, settings.stabilise(raw))
        found = ASSUMED_RANGE if data is None else measure_range(folder, data, tools)
        run_args = replace(run_args, lookup_range=found)
    k = settings.smallest_k(guess, instances, run_args.lookup_range)
    if k > MAX_K:
        raise CompileError("compile.too_large", f"the circuit takes k = {k}, expected at most {MAX_K}")
    for _ in range(MAX_LAYOUTS):
        pinned = settings.stabilise(tools.settings(folder, settings.arguments(run_args, k)))
        parsed = json.loads(pinned)
        settings.check(parsed, run_args, inputs, outputs)
        fitting = settings.smallest_k(parsed, instances, run_args.lookup_range)
        if fitting <= k:
            write_atomically(folder / native.SETTINGS_FILE, pinned)
            return pinned, k, run_args
        # ezkl lays out other rows in shorter columns, now and then a few more than were counted in long ones.
        k = fitting
    raise CompileError("compile.unexpected_settings", f"the number of rows changes with every k, up to {k}")


def check_peak(peak: float | None, run_args: RunArgs) -> float | None:
    """Refuse a domain whose values the circuit cannot hold at the scale of a product.

    Raises:
        CompileError: ``compile.domain_too_wide``.

    """
    if peak is None:
        return None
    capacity = float(run_args.decomp_base) ** run_args.decomp_legs
    largest = peak * PEAK_MARGIN * 2.0 ** (run_args.input_scale + run_args.param_scale)
    if largest >= capacity:
        raise CompileError(
            "compile.domain_too_wide",
            f"values up to {peak:.4g} can arise within the input domain, and the circuit holds up to "
            f"{peak * capacity / largest:.4g} at these scales: narrow the domain or lower the scales",
        )
    return peak


def _measure(
    derived: bytes,
    samples: tuple[Sample, ...],
    outputs: tuple[tuple[NDArray[np.float64], ...], ...],
    scales: Sequence[int],
    tools: Toolchain,
) -> MeasuredError:
    """Compare the circuit's outputs with onnxruntime's on the model that it was made of.

    Raises:
        CompileError: ``compile.not_finite``, or ``compile.inaccurate``: they are not the model's at all.

    """
    max_abs = relative_l2 = largest = 0.0
    for sample, output in zip(samples, outputs, strict=True):
        reference = tools.run(derived, Tensors((*sample.inputs.items, NO_JOB)))
        for tensor, got in zip(reference.items, output, strict=True):
            expected = tensor.numpy().astype(np.float64).ravel()
            if got.shape != expected.shape:
                raise CompileError("compile.inaccurate", "the circuit's outputs have another shape")
            if not np.isfinite(expected).all():
                raise CompileError(
                    "compile.not_finite", "the model gives NaN or infinite outputs on a sample"
                )
            difference = got - expected
            norm = float(np.linalg.norm(expected))
            max_abs = max(max_abs, float(np.max(np.abs(difference))))
            largest = max(largest, float(np.max(np.abs(expected))))
            if norm > 0:
                relative_l2 = max(relative_l2, float(np.linalg.norm(difference)) / norm)
    if max_abs > MAX_ERROR * max(largest, LEAST_OUTPUT):
        raise CompileError(
            "compile.inaccurate",
            f"the circuit's outputs are off by {max_abs:.3g}, the model's reach {largest:.3g}: the scale is "
            "too low, or ezkl computes an operator in another way than onnxruntime",
        )
    return MeasuredError(len(samples), max_abs, relative_l2, stated_bound(max_abs, scales))


def stated_bound(max_abs: float, output_scales: Sequence[int]) -> float:
    """Give what a lock states of inputs like the samples, where the worst sample was off by `max_abs`."""
    return ERROR_MARGIN * max_abs + 2.0 ** -min(output_scales)


def calibration_data(samples: tuple[Sample, ...], inputs: tuple[InputSpec, ...]) -> list[Any]:
    """Give all on which lookup tables are measured: the samples, and corners of the domain."""
    return [sample_data(sample) for sample in samples] + corners_of(inputs)


def sample_data(sample: Sample) -> list[list[float | int]]:
    """Give one sample as ezkl's input data, with a tag that is no job's."""
    return _input_data([tensor.numpy() for tensor in sample.inputs.items])


def corners_of(inputs: tuple[InputSpec, ...]) -> list[Any]:
    """Give corners of the domain: all low, all high, and some mixed ones, always the same."""
    draw = random.Random(PROBE_SEED)  # noqa: S311 - chosen for being repeatable
    corners = [
        [np.full(spec.elements, spec.low) for spec in inputs],
        [np.full(spec.elements, spec.high) for spec in inputs],
    ]
    corners += [
        [np.array([draw.choice((spec.low, spec.high)) for _ in range(spec.elements)]) for spec in inputs]
        for _ in range(PROBES)
    ]
    return [_input_data(list(corner)) for corner in corners]


def _input_data(arrays: list[Any]) -> list[list[float | int]]:
    """Give ezkl's input data: a flat list for each input, then the tag."""
    return [np.asarray(array).ravel().tolist() for array in arrays] + [list(range(TAG_LENGTH))]
