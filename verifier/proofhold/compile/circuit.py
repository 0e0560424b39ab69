"""From a model to a circuit: every step whose result the lock pins, and none that touches the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from proofhold import fieldelement
from proofhold.canonical import file_digest
from proofhold.compile import native
from proofhold.compile.errors import CompileError
from proofhold.compile.specification import Specification
from proofhold.compile.srs import Srs, verification_cut
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import (
    OnStep,
    Trial,
    calibration_data,
    check_peak,
    derive_settings,
    sample_data,
    try_out,
)
from proofhold.domain import OutputSpec
from proofhold.locks import (
    TAG_LENGTH,
    TAG_NAME,
    CircuitLock,
    Contract,
    Cost,
    ReplayLock,
    RunArgs,
    Segment,
    Tag,
    Visibility,
)
from proofhold.zkproof import ZkProof

SrsForK: TypeAlias = Callable[[int], Srs]
"""Gives a reference string that is large enough for k."""

DEFAULT_RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=5, input_scale=13, param_scale=13)
DEFAULT_RELATIVE_L2 = 1e-5


@dataclass(frozen=True, slots=True)
class Built:
    """Everything that one compilation gave; `folder` still holds the keys and ezkl's files."""

    circuit: CircuitLock
    replay: ReplayLock | None
    settings: bytes
    vk: bytes
    verify_srs: bytes
    srs: Srs
    folder: Path

    @property
    def locks(self) -> tuple[CircuitLock | ReplayLock, ...]:
        """Both locks, or the one of the circuit where the model cannot be re-executed."""
        return (self.circuit,) if self.replay is None else (self.circuit, self.replay)


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
    trial = try_out(published, specification, folder, run_args=run_args, tools=tools, on_step=on_step)
    rows = json.loads(trial.settings)["num_rows"]
    on_step(f"preparing the reference string, k = {trial.k}")
    srs = srs_for_k(trial.k)
    on_step(f"making the keys, {rows} rows")
    tools.set_up(folder, srs.path)
    vk = (folder / native.VK_FILE).read_bytes()
    cut = verification_cut(srs.path.read_bytes())
    on_step("proving one sample")
    proof_bytes = _prove_one(folder, trial, srs, vk, cut, tools)

    inputs, outputs = trial.inputs, trial.derivation.outputs
    offset = sum(spec.elements for spec in inputs)
    circuit = CircuitLock(
        name=name,
        model=file_digest(published),
        derived_model=file_digest(trial.derivation.model),
        passes=trial.passes,
        ezkl_version=version("ezkl"),
        settings=file_digest(trial.settings),
        vk=file_digest(vk),
        pk=file_digest((folder / native.PK_FILE).read_bytes()),
        srs=srs.pin,
        visibility=Visibility(),
        run_args=trial.run_args,
        inputs=inputs,
        input_scales=(run_args.input_scale,) * len(inputs),
        outputs=tuple(OutputSpec(port.name, "float64", port.shape) for port in outputs),
        output_scales=tuple(json.loads(trial.settings)["model_output_scales"]),
        tag=Tag(TAG_NAME, offset, TAG_LENGTH),
        post_processing=trial.derivation.post_processing,
        peak=trial.peak,
        error=trial.error,
        cost=Cost(
            k=trial.k,
            rows=rows,
            instances=offset + TAG_LENGTH + sum(port.elements for port in outputs),
            proof_bytes=proof_bytes,
            vk_bytes=len(vk),
            pk_bytes=(folder / native.PK_FILE).stat().st_size,
        ),
    )
    replay = _replay_lock(circuit, trial.derivation.published_outputs, specification)
    return Built(circuit, replay, trial.settings, vk, cut, srs, folder)


def _replay_lock(
    circuit: CircuitLock, outputs: tuple[OutputSpec, ...] | None, specification: Specification
) -> ReplayLock | None:
    """Pin how the published model is re-executed; None where an output is nothing that a claim can hold."""
    if outputs is None:
        return None
    return ReplayLock(
        name=circuit.name,
        model=circuit.model,
        contract=Contract.FLOAT32,
        inputs=circuit.inputs,
        outputs=outputs,
        relative_l2=DEFAULT_RELATIVE_L2,
        segments=(
            Segment(
                inputs=tuple(spec.name for spec in circuit.inputs),
                outputs=tuple(port.name for port in outputs),
                relative_l2=DEFAULT_RELATIVE_L2,
            ),
        ),
        post_processing=specification.post_processing,
    )


def _prove_one(folder: Path, trial: Trial, srs: Srs, vk: bytes, cut: bytes, tools: Toolchain) -> int:
    """Prove and verify one sample, so that no lock is written of a circuit that cannot; gives the length.

    Its instances have to begin as every verifier will rebuild them: inputs in the model's order, the tag.
    """
    data, scale = sample_data(trial.samples[0]), trial.run_args.input_scale
    paths = (folder / native.CIRCUIT_FILE, folder / native.PK_FILE, srs.path)
    instances, proof = tools.prove(*paths, data, lookup_range=trial.run_args.lookup_range)
    *inputs, tag = data
    expected = [fieldelement.quantise(number, scale) for numbers in inputs for number in numbers]
    expected += [int(byte) for byte in tag]
    if instances[: len(expected)] != [fieldelement.encode(value) for value in expected]:
        raise CompileError("compile.self_test", "a proof's instances are not inputs, tag, outputs")
    snark = ZkProof(tuple(instances), proof).snark()
    if not tools.verify(snark, trial.settings, vk, cut):
        raise CompileError("compile.self_test", "a proof of the new circuit does not verify")
    return len(proof)


__all__ = [
    "DEFAULT_RELATIVE_L2",
    "DEFAULT_RUN_ARGS",
    "Built",
    "OnStep",
    "SrsForK",
    "build",
    "calibration_data",
    "check_peak",
    "derive_settings",
    "refuse_private",
]
