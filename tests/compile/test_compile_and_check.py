"""Compiling gives the committed circuits, and `check` sees every way in which they could be others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from proofhold import fieldelement
from proofhold.canonical import file_digest
from proofhold.catalogue import Catalogue
from proofhold.compile import (
    CompileError,
    Difference,
    check,
    compile_model,
    ensure_proving_key,
    native,
    settings,
)
from proofhold.compile.build import accept
from proofhold.compile.replay.calibration.calibrate import calibrate, write_profile
from proofhold.compile.replay.pin import write_lock
from proofhold.compile.srs import dev_srs
from proofhold.compile.toolchain import Toolchain
from proofhold.errors import Malformed, Misuse
from proofhold.locks import CircuitLock, Contract, ReplayLock, Visibility
from proofhold.runner import InlineRunner

NAME = "breast_cancer"


def fields(differences: list[Any]) -> set[str]:
    return {difference.field for difference in differences}


def lock_of(root: Path) -> CircuitLock:
    return CircuitLock.decode((root / "circuits" / NAME / "circuit.lock.json").read_bytes())


def write(root: Path, lock: CircuitLock, *, audited: bool = True) -> None:
    (root / "circuits" / NAME / "circuit.lock.json").write_bytes(lock.encode())
    if audited:
        accept(root / "circuits", lock)


def test_compiling_again_gives_the_committed_files(root: Path, cache: Path, tools: Toolchain) -> None:
    steps: list[str] = []
    model, out = root / "models" / NAME / "model.onnx", root / "again" / NAME
    committed = lock_of(root)
    lock = compile_model(
        model, out, run_args=committed.run_args, cache=cache, tools=tools, on_step=steps.append
    )
    assert steps
    for path in sorted(out.iterdir()):
        if path.name != "circuit.lock.json":  # holds measured errors
            assert path.read_bytes() == (root / "circuits" / NAME / path.name).read_bytes(), path.name
    assert replace(lock, error=committed.error) == committed
    listed = {entry.name for entry in Catalogue.load(root)}
    assert {"breast_cancer", "digits"} <= listed


def test_the_larger_circuit_is_as_pinned(root: Path, cache: Path, tools: Toolchain) -> None:
    assert check(["digits"], root, cache=cache, tools=tools) == []


def test_a_calibrated_lock_beside_a_circuit_is_made_again_too(
    root: Path, cache: Path, tools: Toolchain
) -> None:
    entry = Catalogue.load(root).by_name(NAME)
    assert entry.replay is not None
    folder, runner = root / "circuits" / NAME, InlineRunner()
    profile = calibrate(entry.model_bytes(), entry.replay, runner=runner, inputs=2, contract=Contract.REDUCED)
    calibrated = write_profile(profile, entry.replay, folder)
    assert check([NAME], root, cache=cache, tools=tools) == []
    write_lock(replace(calibrated, relative_l2=0.25), folder)
    found = check([NAME], root, cache=cache, tools=tools)
    assert fields(found) == {"replay lock: relative_l2"}


def test_the_proving_key_is_made_when_missing_and_when_damaged(root: Path, cache: Path) -> None:
    entry = Catalogue.load(root).by_name(NAME)
    lock = lock_of(root)
    steps: list[str] = []
    keys = ensure_proving_key(entry, cache=cache, on_step=steps.append)
    assert file_digest(keys.pk.read_bytes()) == lock.pk
    steps.clear()
    keys.pk.write_bytes(bytes(lock.cost.pk_bytes))
    assert ensure_proving_key(entry, cache=cache, on_step=steps.append) == keys
    assert len(steps) == 1
    assert file_digest(keys.pk.read_bytes()) == lock.pk
    assert ensure_proving_key(entry, cache=cache, on_step=steps.append) == keys
    assert len(steps) == 1, "a good key is not made again"
    keys.circuit.write_bytes(keys.circuit.read_bytes()[:-1])
    ensure_proving_key(entry, cache=cache, on_step=steps.append)
    assert len(steps) == 2, "a damaged circuit file is made again too"


def test_two_processes_may_want_the_same_key_at_once(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from proofhold.catalogue import Catalogue\n"
        "from proofhold.compile import ensure_proving_key\n"
        "entry = Catalogue.load(Path(sys.argv[1])).by_name('breast_cancer')\n"
        "print(ensure_proving_key(entry, cache=Path(sys.argv[2])).pk)\n"
    )
    command = [sys.executable, "-c", script, str(root), str(tmp_path / "empty")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    (path,) = paths
    assert file_digest(Path(path.strip()).read_bytes()) == lock_of(root).pk
    assert not list((tmp_path / "empty" / "keys").glob(".staging-*"))


def test_a_cache_that_cannot_be_is_one_clear_error(root: Path, tmp_path: Path, tools: Toolchain) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompileError, match=r"compile\.cache"):
        check([NAME], root, cache=tmp_path / "file", tools=tools)


def test_another_name_or_model_is_said(root: Path, cache: Path, tools: Toolchain) -> None:
    with pytest.raises(Misuse, match="there are: breast_cancer, digits"):
        check(["nope"], root, cache=cache, tools=tools)
    (root / "models" / NAME / "model.onnx").unlink()
    (found,) = check([NAME], root, cache=cache, tools=tools)
    assert found.field == "the model"
    assert "No such file" in found.found


def change_a_weight(root: Path, by: float, name: str = NAME) -> None:
    path = root / "models" / name / "model.onnx"
    model = onnx.load(path)
    weights = model.graph.initializer[0]
    values = numpy_helper.to_array(weights).copy()
    values[7, 0] += np.float32(by)
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    path.write_bytes(model.SerializeToString(deterministic=True))


def changes_circuit(differences: list[Difference]) -> dict[str, bool | None]:
    return {difference.field: difference.changes_circuit for difference in differences}


def test_one_weight_changed_by_a_thousandth_is_caught(root: Path, cache: Path, tools: Toolchain) -> None:
    change_a_weight(root, 1e-3)
    found = changes_circuit(check([NAME], root, cache=cache, tools=tools))
    assert found["circuit lock: model"] is True
    assert found["replay lock: model"] is True
    assert {"circuit lock: derived_model", "circuit lock: vk", "circuit lock: pk"} <= found.keys()
    assert found["circuit lock: vk"] is None, "it is about the model file"


def test_one_weight_changed_by_less_than_a_step_is_caught_and_said_apart(
    root: Path, cache: Path, tools: Toolchain
) -> None:
    """The weights lie on a grid of 2^-13, so a hundred-thousandth is rounded away (ADR 0014)."""
    change_a_weight(root, 1e-5)
    found = changes_circuit(check([NAME], root, cache=cache, tools=tools))
    assert found["circuit lock: model"] is False
    assert found["replay lock: model"] is False
    assert "circuit lock: derived_model" in found
    assert not {"circuit lock: vk", "circuit lock: pk", "circuit lock: settings"} & found.keys()


@pytest.mark.long
@pytest.mark.parametrize(("by", "differs"), [(1e-2, True), (1e-6, False)])
def test_one_weight_of_a_network_is_told_apart_too(
    by: float, differs: bool, root: Path, cache: Path, tools: Toolchain
) -> None:
    change_a_weight(root, by, "digits")
    found = changes_circuit(check(["digits"], root, cache=cache, tools=tools))
    assert found["circuit lock: model"] is differs
    assert ("circuit lock: vk" in found) is differs


@pytest.mark.long
def test_any_changed_byte_of_a_model_is_refused(root: Path, cache: Path, tools: Toolchain) -> None:
    path = root / "models" / NAME / "model.onnx"
    original, random = path.read_bytes(), Random("model bytes")
    said = set()
    for _ in range(30):
        at, bit = random.randrange(len(original)), 1 << random.randrange(8)
        path.write_bytes(original[:at] + bytes([original[at] ^ bit]) + original[at + 1 :])
        differences = check([NAME], root, cache=cache, tools=tools)
        (found,) = [d for d in differences if d.field in ("circuit lock: model", "the model")]
        assert found.file == f"models/{NAME}/model.onnx"
        said.add(found.changes_circuit)
    # A weight beyond a step, one below it, and what is no model any more.
    assert said == {True, False, None}


def edit_settings(root: Path) -> None:
    path = root / "circuits" / NAME / "settings.json"
    changed = json.loads(path.read_bytes())
    changed["run_args"]["decomp_legs"] = 4
    path.write_text(json.dumps(changed))


def swap_vk(root: Path) -> None:
    vk = (root / "circuits" / "digits" / "vk.key").read_bytes()
    (root / "circuits" / NAME / "vk.key").write_bytes(vk)


def swap_vk_and_lock(root: Path) -> None:
    """The same, by somebody who also has the list of audited locks."""
    swap_vk(root)
    vk = (root / "circuits" / NAME / "vk.key").read_bytes()
    write(root, replace(lock_of(root), vk=file_digest(vk)))


def another_ezkl(root: Path) -> None:
    write(root, replace(lock_of(root), ezkl_version="23.0.6"))


def another_domain(root: Path) -> None:
    path = root / "models" / NAME / "model.toml"
    path.write_text(path.read_text().replace("high = 16.0", "high = 15.0"))


def another_tolerance(root: Path) -> None:
    path = root / "circuits" / NAME / "replay.lock.json"
    lock = replace(ReplayLock.decode(path.read_bytes()), relative_l2=0.5)
    path.write_bytes(lock.encode())
    accept(root / "circuits", lock)


def smaller_error(root: Path) -> None:
    lock = lock_of(root)
    write(root, replace(lock, error=replace(lock.error, max_abs=lock.error.max_abs / 2)))


def not_audited(root: Path) -> None:
    (root / "circuits" / "audited.json").unlink()


def private_in_the_lock(root: Path) -> None:
    path = root / "circuits" / NAME / "circuit.lock.json"
    path.write_bytes(path.read_bytes().replace(b'"param":"fixed"', b'"param":"private"'))


def no_replay_lock(root: Path) -> None:
    (root / "circuits" / NAME / "replay.lock.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (edit_settings, {"settings.json", "settings.json: run_args.decomp_legs"}),
        (swap_vk, {"vk.key"}),
        (swap_vk_and_lock, {"circuit lock: vk"}),
        (another_ezkl, {"ezkl_version"}),
        (another_domain, {"circuit lock: inputs[0].high", "replay lock: inputs[0].high"}),
        (another_tolerance, {"replay lock: relative_l2"}),
        (smaller_error, {"circuit lock: error.max_abs"}),
        (not_audited, {"audited.json: circuit.lock.json", "audited.json: replay.lock.json"}),
        (private_in_the_lock, {"circuit.lock.json"}),
        (no_replay_lock, {"replay.lock.json"}),
    ],
)
def test_whatever_differs_is_caught_and_named(
    spoil: Callable[[Path], None], expected: set[str], root: Path, cache: Path, tools: Toolchain
) -> None:
    spoil(root)
    differences = check([NAME], root, cache=cache, tools=tools)
    assert expected <= fields(differences)
    # What is spoiled is named, and nothing that is not.
    assert len(differences) <= len(expected) + 1


def test_a_circuit_with_private_parameters_is_caught(root: Path, cache: Path, tools: Toolchain) -> None:
    """Consistent in itself, and listed as audited: only compiling the model again shows what it is."""
    folder = root / "private"
    folder.mkdir()
    lock = lock_of(root)
    published = (root / "models" / NAME / "model.onnx").read_bytes()
    (folder / native.MODEL_FILE).write_bytes(tools.derive(published).model)
    arguments = settings.arguments(lock.run_args, lock.cost.k) | {"param_visibility": "private"}
    private = settings.stabilise(tools.settings(folder, arguments))
    with pytest.raises(CompileError, match=r"compile\.unexpected_settings"):
        settings.check(json.loads(private), lock.run_args, lock.inputs, lock.outputs)
    (folder / native.SETTINGS_FILE).write_bytes(private)
    tools.compile(folder)
    tools.set_up(folder, dev_srs(lock.cost.k, cache=cache).path)
    vk = (folder / native.VK_FILE).read_bytes()
    (root / "circuits" / NAME / "settings.json").write_bytes(private)
    (root / "circuits" / NAME / "vk.key").write_bytes(vk)
    write(root, replace(lock, settings=file_digest(private), vk=file_digest(vk)))
    Catalogue.load(root)

    differences = check([NAME], root, cache=cache, tools=tools)
    by_field = {difference.field: difference for difference in differences}
    visibility = by_field["settings.json: run_args.param_visibility"]
    assert (visibility.pinned, visibility.found) == ('"Private"', '"Fixed"')
    assert {"circuit lock: settings", "circuit lock: vk"} <= by_field.keys()


@pytest.mark.parametrize("place", ["at the top", "in run_args"])
def test_settings_with_an_unsafe_check_mode_are_refused(place: str, root: Path) -> None:
    lock = lock_of(root)
    found = json.loads((root / "circuits" / NAME / "settings.json").read_bytes())
    settings.check(found, lock.run_args, lock.inputs, lock.outputs)
    (found if place == "at the top" else found["run_args"])["check_mode"] = "UNSAFE"
    with pytest.raises(CompileError, match=r"compile\.unsafe_check_mode"):
        settings.check(found, lock.run_args, lock.inputs, lock.outputs)


def test_accepting_lists_what_was_recompiled_and_nothing_else(
    root: Path, cache: Path, tools: Toolchain
) -> None:
    audited = root / "circuits" / "audited.json"
    audited.unlink()
    assert check([NAME], root, accept_locks=True, cache=cache, tools=tools) == []
    listed = {(entry["name"], entry["kind"]) for entry in json.loads(audited.read_bytes())["locks"]}
    assert listed == {(NAME, "circuit"), (NAME, "replay")}
    another_ezkl(root)
    audited.unlink()
    assert check([NAME], root, accept_locks=True, cache=cache, tools=tools)
    assert not audited.exists()


def test_the_worst_input_of_the_domain_has_a_witness(root: Path, cache: Path, tools: Toolchain) -> None:
    """`peak` is reached, and the circuit holds it: no buyer can ask for what no provider can prove."""
    entry = Catalogue.load(root).by_name(NAME)
    keys = ensure_proving_key(entry, cache=cache)
    weights, bias = (
        numpy_helper.to_array(t) for t in onnx.load_from_string(entry.model_bytes()).graph.initializer
    )
    worst = np.where(weights[:, 0] > 0, 16.0, -16.0).tolist()
    best = [-value for value in worst]
    logits = [
        fieldelement.dequantise(fieldelement.decode(outputs[0][0]), 13)
        for outputs in tools.evaluate(
            keys.circuit, [[x, [255] * 16] for x in (worst, best)], lookup_range=None
        )
    ]
    reach = 16.0 * float(np.abs(weights).sum())
    assert logits == pytest.approx([float(bias[0]) + reach, float(bias[0]) - reach], rel=1e-5)
    assert lock_of(root).peak == pytest.approx(max(map(abs, logits)), rel=1e-5)


@pytest.mark.parametrize(
    ("visibility", "code"),
    [
        (Visibility(param="private"), "compile.private_params"),
        (Visibility(param="hashed"), "compile.private_params"),
        (Visibility(input="private"), "compile.private_inputs"),
        (Visibility(input="hashed"), "compile.private_inputs"),
        (Visibility(output="private"), "compile.private_outputs"),
    ],
)
def test_what_would_bind_nothing_is_refused(visibility: Visibility, code: str, root: Path) -> None:
    with pytest.raises(CompileError) as caught:
        compile_model(root / "models" / NAME / "model.onnx", root / "out", visibility=visibility)
    assert caught.value.code == code
    assert not (root / "out").exists()


def test_a_domain_that_the_circuit_cannot_hold_is_refused(root: Path, cache: Path, tools: Toolchain) -> None:
    path = root / "models" / NAME / "model.toml"
    path.write_text(path.read_text().replace("high = 16.0", "high = 64.0"))
    with pytest.raises(CompileError, match=r"compile\.domain_too_wide"):
        compile_model(root / "models" / NAME / "model.onnx", root / "out", cache=cache, tools=tools)


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("model.toml", "", "compile.specification"),
        ("model.toml", "version = 1\n[", "compile.specification"),
        (
            "model.toml",
            'version = 1\npost_processing = "exec"\nsamples = "x"\n[inputs]',
            "compile.specification",
        ),
        (
            "model.toml",
            'version = 1\npost_processing = "none"\nsamples = "s"\n[inputs.other]\nlow = 0\nhigh = 1',
            "compile.specification",
        ),
        ("samples.json", "[]", "compile.samples"),
        ("samples.json", '{"version": 1, "label_names": [], "samples": []}', "compile.samples"),
        (
            "samples.json",
            '{"version": 1, "label_names": [], "samples": [{"inputs": {"features": [99]}, "label": 1}]}',
            "compile.samples",
        ),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(
    file: str, text: str, code: str, root: Path, cache: Path, tools: Toolchain
) -> None:
    (root / "models" / NAME / file).write_text(text)
    with pytest.raises(CompileError) as caught:
        compile_model(root / "models" / NAME / "model.onnx", root / "out", cache=cache, tools=tools)
    assert caught.value.code == code


def test_a_file_that_is_no_model_is_malformed(root: Path, cache: Path, tools: Toolchain) -> None:
    (root / "models" / NAME / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(Malformed, match=r"model\.not_onnx"):
        compile_model(root / "models" / NAME / "model.onnx", root / "out", cache=cache, tools=tools)
