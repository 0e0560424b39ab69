"""What a lock states about the error holds on rows that neither trained nor calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from proofhold import fieldelement
from proofhold.canonical import file_digest
from proofhold.compile import Specification, check, circuit_names, native
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import ERROR_MARGIN, derive_settings, stated_bound
from proofhold.locks import TAG_LENGTH, CircuitLock
from repository_models import MODELS, NAMES, held_out

CIRCUITS = MODELS.parent / "circuits"
ROWS = 1_000
FEW_ROWS = 100
AT_ONCE = 50
SMALL = ("breast_cancer", "parity", "digits", "trees")


def derive_pinned(name: str, lock: CircuitLock, folder: Path, tools: Toolchain) -> None:
    """Derive model and settings that the lock pins into `folder`."""
    published = (MODELS / name / "model.onnx").read_bytes()
    specification = Specification.read(MODELS / name / "model.toml")
    derivation = tools.derive(published, specification.request)
    assert file_digest(derivation.model) == lock.derived_model
    (folder / native.MODEL_FILE).write_bytes(derivation.model)
    inputs = specification.inputs(derivation.inputs)
    pinned, *_ = derive_settings(folder, lock.run_args, inputs, derivation.outputs, tools, data=None)
    assert file_digest(pinned) == lock.settings


def errors(name: str, count: int, folder: Path, tools: Toolchain) -> tuple[CircuitLock, list[float]]:
    """The largest error of each of `count` rows, of the circuit that the lock pins."""
    lock = CircuitLock.decode((CIRCUITS / name / CircuitLock.FILE_NAME).read_bytes())
    derive_pinned(name, lock, folder, tools)
    tools.compile(folder)
    (port,) = lock.inputs
    session = onnxruntime.InferenceSession(MODELS / name / "model.onnx", providers=["CPUExecutionProvider"])
    rows = held_out(name, count).reshape(count, *port.shape)
    found = []
    for start in range(0, count, AT_ONCE):
        some = rows[start : start + AT_ONCE]
        runs = tools.evaluate(
            folder / native.CIRCUIT_FILE,
            [[row.ravel().tolist(), list(range(TAG_LENGTH))] for row in some],
            lookup_range=lock.run_args.lookup_range,
        )
        for row, (elements,) in zip(some, runs, strict=True):
            (expected,) = session.run(None, {port.name: row})
            got = [fieldelement.dequantise(fieldelement.decode(e), lock.output_scales[0]) for e in elements]
            found.append(float(np.max(np.abs(np.array(got) - np.asarray(expected, np.float64).ravel()))))
    return lock, found


@pytest.mark.parametrize("name", SMALL)
def test_the_stated_error_holds_on_rows_never_seen(name: str, tmp_path: Path, tools: Toolchain) -> None:
    lock, found = errors(name, FEW_ROWS, tmp_path, tools)
    assert max(found) <= lock.error.bound


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_stated_error_holds_on_a_thousand_rows(name: str, tmp_path: Path, tools: Toolchain) -> None:
    lock, found = errors(name, ROWS, tmp_path, tools)
    outside = sum(error > lock.error.bound for error in found)
    print(f"{name}: worst {max(found):.2g} of {len(found)} rows, stated {lock.error.bound:.2g}")
    assert outside == 0


def test_the_bound_is_not_so_wide_that_it_says_nothing(tmp_path: Path, tools: Toolchain) -> None:
    lock, found = errors("parity", FEW_ROWS, tmp_path, tools)
    assert max(found) > lock.error.bound / 8


@pytest.mark.parametrize("name", NAMES)
def test_every_lock_states_the_bound_that_follows_from_what_was_measured(name: str) -> None:
    lock = CircuitLock.decode((CIRCUITS / name / CircuitLock.FILE_NAME).read_bytes())
    assert lock.error.bound == stated_bound(lock.error.max_abs, lock.output_scales)
    assert lock.error.bound > ERROR_MARGIN * lock.error.max_abs


@pytest.mark.parametrize("name", NAMES)
def test_passes_and_settings_of_every_circuit_are_as_pinned(
    name: str, tmp_path: Path, tools: Toolchain
) -> None:
    lock = CircuitLock.decode((CIRCUITS / name / CircuitLock.FILE_NAME).read_bytes())
    derive_pinned(name, lock, tmp_path, tools)


@pytest.mark.long
def test_every_circuit_comes_out_again(tools: Toolchain) -> None:
    assert circuit_names(MODELS.parent) == tuple(sorted(NAMES))
    assert check(NAMES, MODELS.parent, tools=tools) == []
