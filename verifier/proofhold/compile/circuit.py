"""From a model to a circuit: every step whose result the lock pins, and none that touches the repository."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from proofhold import fieldelement
from proofhold.canonical import file_digest
from proofhold.compile import native, settings
from proofhold.compile.cache import write_atomically
from proofhold.compile.derivation import Derivation
from proofhold.compile.errors import CompileError
from proofhold.compile.specification import Sample, Specification, read_samples
from proofhold.compile.srs import Srs, verification_cut
from proofhold.compile.tables import ASSUMED_RANGE, measure_range
from proofhold.compile.toolchain import Toolchain
from proofhold.domain import InputSpec, OutputSpec
from proofhold.locks import (
    MAX_K,
    TAG_LENGTH,
    TAG_NAME,
    CircuitLock,
    Contract,
    Cost,
    MeasuredError,
    PassRecord,
    ReplayLock,
    RunArgs,
    Segment,
    Tag,
    Visibility,
)
from proofhold.zkproof import ZkProof

OnStep: TypeAlias = Callable[[str], None]
SrsForK: TypeAlias = Callable[[int], Srs]
"""Gives a reference string that is large enough for k."""

DEFAULT_RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=5, input_scale=13, param_scale=13)
DEFAULT_RELATIVE_L2 = 1e-5
PEAK_MARGIN = 1.05
"""Quantised weights and inputs differ from the real ones by half a step: what interval arithmetic says of
the real ones is widened by this factor."""
PROBES = 16
PROBE_SEED = 1


@dataclass(frozen=True, slots=True)
class Built:
    """Everything that one compilation gave; `folder` still holds the keys and ezkl's files."""

    circuit: CircuitLock
    replay: ReplayLock
    settings: bytes
    vk: bytes
    verify_srs: bytes
    srs: Srs
    folder: Path


def refuse_private(visibility: Visibility) -> None:
    """Refuse what would let a proof say less than it seems to.

    Raises:
        CompileError: ``compile.private_inputs``, ``compile.private_outputs`` or ``compile.private_params``.

    """
    if visibility.input != "public":
        raise CompileError(
            "compile.private_inputs",
            f"inputs {visibility.input}: the job tag would be no instance of the proof and bind nothing",
        )
    if visibility.output != "public":
        raise CompileError(
            "compile.private_outputs",
            f"outputs {visibility.output}: the proof would not say what the model gave",
        )
    if visibility.param != "fixed":
        raise CompileError(
            "compile.private_params",
            f"parameters {visibility.param}: the verifying key would not bind the weights, "
            "and any other model of this shape could prove",
        )


def build(
    published: bytes,
    specification: Specification,
    folder: Path,
    *,
    name: str,
    run_args: RunArgs,
    srs_for_k: SrsForK,
    tools: Toolchain,
    on_step: OnStep,
) -> Built:
    """Compile a model into an empty `folder`.

    Raises:
        Malformed: ``model.…``: the bytes are no ONNX model.
        CompileError: ``compile.…``: no circuit can be made of it.
        ToolFailed: a tool died or hung.

    """
    on_step("checking the model")
    derivation = tools.derive(published)
    write_atomically(folder / native.MODEL_FILE, derivation.model)
    ports, outputs = tools.describe(published)
    inputs = specification.inputs(ports)
    samples = read_samples(specification.samples, inputs)
    peak = check_peak(tools.peak(published, inputs), run_args)
    passes = _compare_passes(published, derivation, samples, tools)

    on_step("deriving the circuit's settings")
    pinned, k, run_args = derive_settings(
        folder, run_args, inputs, outputs, tools, data=calibration_data(samples, inputs)
    )
    parsed = json.loads(pinned)
    on_step(f"preparing the reference string, k = {k}")
    srs = srs_for_k(k)
    on_step(f"making the keys, {parsed['num_rows']} rows")
    tools.compile(folder)
    tools.set_up(folder, srs.path)
    vk = (folder / native.VK_FILE).read_bytes()
    cut = verification_cut(srs.path.read_bytes())

    on_step(f"measuring the error on {len(samples)} samples, and probing the domain")
    output_scales = tuple(parsed["model_output_scales"])
    error = _measure(folder, published, samples, output_scales, run_args, tools)
    tools.evaluate(folder / native.CIRCUIT_FILE, _corners(inputs), lookup_range=run_args.lookup_range)
    on_step("proving one sample")
    proof_bytes = _prove_one(folder, samples[0], run_args, srs, pinned, vk, cut, tools)

    offset = sum(spec.elements for spec in inputs)
    circuit = CircuitLock(
        name=name,
        model=file_digest(published),
        derived_model=file_digest(derivation.model),
        passes=passes,
        ezkl_version=version("ezkl"),
        settings=file_digest(pinned),
        vk=file_digest(vk),
        pk=file_digest((folder / native.PK_FILE).read_bytes()),
        srs=srs.pin,
        visibility=Visibility(),
        run_args=run_args,
        inputs=inputs,
        input_scales=(run_args.input_scale,) * len(inputs),
        outputs=tuple(OutputSpec(port.name, "float64", port.shape) for port in outputs),
        output_scales=output_scales,
        tag=Tag(TAG_NAME, offset, TAG_LENGTH),
        post_processing=specification.post_processing,
        peak=peak,
        error=error,
        cost=Cost(
            k=k,
            rows=parsed["num_rows"],
            instances=offset + TAG_LENGTH + sum(port.elements for port in outputs),
            proof_bytes=proof_bytes,
            vk_bytes=len(vk),
            pk_bytes=(folder / native.PK_FILE).stat().st_size,
        ),
    )
    replay = ReplayLock(
        name=name,
        model=circuit.model,
        contract=Contract.FLOAT32,
        inputs=inputs,
        outputs=outputs,
        relative_l2=DEFAULT_RELATIVE_L2,
        segments=(
            Segment(
                inputs=tuple(spec.name for spec in inputs),
                outputs=tuple(port.name for port in outputs),
                relative_l2=DEFAULT_RELATIVE_L2,
            ),
        ),
        post_processing=specification.post_processing,
    )
    return Built(circuit, replay, pinned, vk, cut, srs, folder)


def _compare_passes(
    published: bytes, derivation: Derivation, samples: tuple[Sample, ...], tools: Toolchain
) -> tuple[PassRecord, ...]:
    """Compare the model before and after each pass that changed it."""
    before, records = published, []
    for name, after in derivation.changes:
        difference = tools.difference(before, after, [sample.inputs for sample in samples])
        records.append(PassRecord(name, difference))
        before = after
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
    pinned = settings.stabilise(tools.settings(folder, settings.arguments(run_args, k)))
    parsed = json.loads(pinned)
    settings.check(parsed, run_args, inputs, outputs)
    if settings.smallest_k(parsed, instances, run_args.lookup_range) != k:
        raise CompileError("compile.unexpected_settings", f"the number of rows changed with k = {k}")
    write_atomically(folder / native.SETTINGS_FILE, pinned)
    return pinned, k, run_args


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


def _input_data(arrays: list[Any]) -> list[list[float | int]]:
    """Give ezkl's input data: a flat list for each input, then the tag."""
    return [np.asarray(array).ravel().tolist() for array in arrays] + [list(range(TAG_LENGTH))]


def _measure(
    folder: Path,
    published: bytes,
    samples: tuple[Sample, ...],
    output_scales: tuple[int, ...],
    run_args: RunArgs,
    tools: Toolchain,
) -> MeasuredError:
    """Compare the circuit's outputs, dequantised, with onnxruntime's on the published model."""
    circuit, data = folder / native.CIRCUIT_FILE, [_sample_data(sample) for sample in samples]
    outputs = tools.evaluate(circuit, data, lookup_range=run_args.lookup_range)
    max_abs = relative_l2 = 0.0
    for sample, elements in zip(samples, outputs, strict=True):
        reference = tools.run(published, sample.inputs)
        for tensor, output, scale in zip(reference.items, elements, output_scales, strict=True):
            expected = tensor.numpy().astype(np.float64).ravel()
            got = np.array([fieldelement.dequantise(fieldelement.decode(e), scale) for e in output])
            difference = got - expected
            norm = float(np.linalg.norm(expected))
            max_abs = max(max_abs, float(np.max(np.abs(difference))))
            if norm > 0:
                relative_l2 = max(relative_l2, float(np.linalg.norm(difference)) / norm)
            if not np.isfinite(difference).all():
                raise CompileError(
                    "compile.not_finite", "the model gives NaN or infinite outputs on a sample"
                )
    return MeasuredError(len(samples), max_abs, relative_l2)


def calibration_data(samples: tuple[Sample, ...], inputs: tuple[InputSpec, ...]) -> list[Any]:
    """Give all on which lookup tables are measured: the samples, and corners of the domain."""
    return [_sample_data(sample) for sample in samples] + _corners(inputs)


def _sample_data(sample: Sample) -> list[list[float | int]]:
    return _input_data([tensor.numpy() for tensor in sample.inputs.items])


def _corners(inputs: tuple[InputSpec, ...]) -> list[Any]:
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


def _prove_one(
    folder: Path,
    sample: Sample,
    run_args: RunArgs,
    srs: Srs,
    pinned: bytes,
    vk: bytes,
    cut: bytes,
    tools: Toolchain,
) -> int:
    """Prove and verify one sample, so that no lock is written of a circuit that cannot; gives the length.

    Its instances have to begin as every verifier will rebuild them: inputs in the model's order, the tag.
    """
    data = _sample_data(sample)
    paths = (folder / native.CIRCUIT_FILE, folder / native.PK_FILE, srs.path)
    instances, proof = tools.prove(*paths, data, lookup_range=run_args.lookup_range)
    *inputs, tag = data
    expected = [
        fieldelement.quantise(number, run_args.input_scale) for numbers in inputs for number in numbers
    ]
    expected += [int(byte) for byte in tag]
    if instances[: len(expected)] != [fieldelement.encode(value) for value in expected]:
        raise CompileError("compile.self_test", "a proof's instances are not inputs, tag, outputs")
    snark = ZkProof(tuple(instances), proof).snark()
    if not tools.verify(snark, pinned, vk, cut):
        raise CompileError("compile.self_test", "a proof of the new circuit does not verify")
    return len(proof)
