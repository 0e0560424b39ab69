"""What ezkl alone lets pass, each time shown with ezkl itself, and what of ours refuses it.

The rest of the cheats with proofs (tags, instances, lengths) are in tests/unit/test_ezkl_backend.py, and
checks.toml lists all of them, each with the check that it is caught by.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from judging import (
    MODEL,
    NOW,
    REPOSITORY,
    catalogue,
    circuit,
    entry,
    proof,
    proved,
    proved_input,
    runner,
    said,
)
from proofhold import canonical, fieldelement
from proofhold.backends.ezkl import EzklBackend
from proofhold.canonical import file_digest
from proofhold.catalogue import CatalogueError
from proofhold.compile import CompileError, compile_model, ensure_proving_key, native, settings
from proofhold.compile.srs import dev_srs, unsafe_dev_srs, verification_cut
from proofhold.compile.toolchain import Toolchain
from proofhold.core import Unclear
from proofhold.errors import Malformed
from proofhold.job import job_tag
from proofhold.locks import CircuitLock, Visibility
from proofhold.pool import VerifierPool
from proofhold.runner import TaskRaised, WorkerTimedOut
from proofhold.zkproof import ZkProof
from proofhold.zkverify import INVALID, VALID, verify_natively

FILES = (circuit().settings, circuit().vk, circuit().srs)


def natively(snark: bytes | None = None, **files: bytes) -> bytes:
    """Ask ezkl itself, with some of the pinned files replaced."""
    known = {"settings": circuit().settings, "vk": circuit().vk, "srs": circuit().srs} | files
    return runner().run(
        verify_natively, snark or proof().snark(), known["settings"], known["vk"], known["srs"]
    )


def with_settings(**changes: Any) -> bytes:
    """The pinned settings with other run arguments."""
    document = json.loads(circuit().settings)
    document["run_args"] |= changes
    return json.dumps(document).encode()


# --- fields and files that no key authenticates ---------------------------------------------------------


ELEMENTS = [["ab" * 32]]
LIES = {
    "pretty_public_inputs": {
        "rescaled_inputs": [["9.0"]],
        "inputs": ELEMENTS,
        "processed_inputs": [],
        "processed_params": [],
        "processed_outputs": [],
        "rescaled_outputs": [["9.0"]],
        "outputs": ELEMENTS,
    },
    "hex_proof": "0xdead",
    "timestamp": 1,
    "version": "99.0.0",
    "split": None,
}


@pytest.mark.parametrize("field", LIES)
def test_a_lie_beside_the_proof_verifies_and_has_no_place_in_evidence(field: str) -> None:
    lie = {field: LIES[field]}
    assert natively(json.dumps(json.loads(proof().snark()) | lie).encode()) == VALID
    with pytest.raises(Malformed, match=r"ezkl\.malformed"):
        ZkProof.decode(canonical.encode(json.loads(proof().encode()) | {field: "a lie"}))


@pytest.mark.parametrize(
    "change",
    [
        {"lookup_range": [0, 1]},
        {"param_visibility": "Private"},
        {"input_visibility": "Private"},
        {"input_scale": 3},
        {"check_mode": "UNSAFE"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_say_otherwise_verify_and_cannot_enter_a_circuit(change: dict[str, Any]) -> None:
    assert natively(settings=with_settings(**change)) == VALID
    with pytest.raises(CatalogueError, match="the settings has SHA-256"):
        replace(circuit(), settings=with_settings(**change))


def test_shapes_that_say_otherwise_verify_and_cannot_enter_a_circuit() -> None:
    document = json.loads(circuit().settings) | {"model_instance_shapes": [[1, 40], [1, 6], [1, 1]]}
    other = json.dumps(document).encode()
    assert natively(settings=other) == VALID
    with pytest.raises(CatalogueError, match="the settings has SHA-256"):
        replace(circuit(), settings=other)


def test_a_proving_key_verifies_as_a_verifying_key_and_cannot_enter_a_circuit() -> None:
    pk = ensure_proving_key(entry()).pk.read_bytes()
    assert natively(vk=pk) == VALID
    with pytest.raises(CatalogueError, match="the verifying key has SHA-256"):
        replace(circuit(), vk=pk)


# --- settings that take ezkl down -----------------------------------------------------------------------


def test_a_panic_is_no_exception_and_costs_its_own_check_only() -> None:
    with VerifierPool(catalogue()) as pool:
        with pytest.raises(TaskRaised) as caught:
            pool.run(verify_natively, proof().snark(), with_settings(num_inner_cols=0), *FILES[1:])
        assert caught.value.kind == "PanicException"
        assert pool.run(verify_natively, proof().snark(), *FILES) == VALID


def test_a_hang_of_ezkl_is_ended_and_costs_its_own_check_only() -> None:
    hanging = with_settings(num_inner_cols=1_000_000)
    with VerifierPool(catalogue()) as pool:
        pool.start()
        with pytest.raises(WorkerTimedOut):
            pool.run(verify_natively, proof().snark(), hanging, *FILES[1:], deadline_s=0.5)
        assert pool.run(verify_natively, proof().snark(), *FILES) == VALID


@pytest.mark.parametrize(("columns", "code"), [(0, "ezkl.check_failed"), (1_000_000, "ezkl.check_timed_out")])
def test_a_check_without_result_blames_nobody(columns: int, code: str) -> None:
    """Even if such settings were pinned and audited, the provider would not be the one to pay for it."""
    taking_down = with_settings(num_inner_cols=columns)
    lock = replace(circuit().lock, settings=file_digest(taking_down))
    bad = replace(entry(), circuit=replace(circuit(), lock=lock, settings=taking_down))
    with VerifierPool(catalogue()) as pool:
        pool.start()
        judged = EzklBackend(pool, deadline_s=0.5).check(
            proved().evidence[0], proved().exchange, bad, answers=(), now=NOW
        )
    assert isinstance(judged, Unclear)
    assert said(judged) == {(code, "nobody")}


# --- what does not bind the weights, or the reference string --------------------------------------------


@pytest.fixture(scope="module")
def tools() -> Iterator[Toolchain]:
    with Toolchain() as toolchain:
        yield toolchain


@dataclass(frozen=True)
class Built:
    """A circuit that was made by hand, past all that our compiler refuses."""

    folder: Path
    settings: bytes
    vk: bytes
    srs: Path

    def proves(self, tools: Toolchain) -> bytes:
        """A proof of the fixture's input, as ezkl reads it."""
        numbers = proved_input().items[0].numpy().ravel().tolist()
        tag = list(job_tag(proved().exchange.job.digest))
        instances, body = tools.prove(
            self.folder / native.CIRCUIT_FILE,
            self.folder / native.PK_FILE,
            self.srs,
            [numbers, tag],
            lookup_range=None,
        )
        return ZkProof(tuple(instances), body).snark()


def built(
    folder: Path,
    tools: Toolchain,
    *,
    pinned: bytes | None = None,
    srs: Path | None = None,
    factor: float = 1.0,
) -> Built:
    """Make a circuit of the fixture's model, with its weights multiplied by a factor."""
    folder.mkdir()
    model = onnx.load_from_string(tools.derive(entry().model_bytes()).model)
    for weights in model.graph.initializer:
        numbers = numpy_helper.to_array(weights)
        weights.CopyFrom(numpy_helper.from_array((numbers * factor).astype(numbers.dtype), weights.name))
    (folder / native.MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
    (folder / native.SETTINGS_FILE).write_bytes(pinned or circuit().settings)
    tools.compile(folder)
    srs = srs or dev_srs(circuit().lock.cost.k).path
    tools.set_up(folder, srs)
    return Built(folder, pinned or circuit().settings, (folder / native.VK_FILE).read_bytes(), srs)


def test_private_parameters_bind_nothing_and_are_refused(tmp_path: Path, tools: Toolchain) -> None:
    private = with_settings(param_visibility="Private")
    good, halved = (
        built(tmp_path / str(factor), tools, pinned=private, factor=factor) for factor in (1.0, 0.5)
    )
    assert good.vk == halved.vk, "nothing of the weights is in the key"
    assert natively(halved.proves(tools), settings=private, vk=good.vk) == VALID

    with pytest.raises(CompileError, match=r"compile\.private_params"):
        compile_model(
            REPOSITORY / "models" / MODEL / "model.onnx", tmp_path, visibility=Visibility(param="private")
        )
    with pytest.raises(Malformed, match=r"lock\.malformed"):
        CircuitLock.decode(circuit().lock.encode().replace(b'"param":"fixed"', b'"param":"private"'))


def test_fixed_parameters_bind_the_weights(tmp_path: Path, tools: Toolchain) -> None:
    halved = built(tmp_path / "halved", tools, factor=0.5)
    assert halved.vk != circuit().vk
    assert natively(halved.proves(tools)) == INVALID


def test_the_order_of_range_checks_changes_the_key_and_is_the_same_each_time(
    tmp_path: Path, tools: Toolchain
) -> None:
    document = json.loads(circuit().settings)
    assert len(document["required_range_checks"]) > 1
    turned = document | {"required_range_checks": document["required_range_checks"][::-1], "timestamp": 1}
    assert settings.stabilise(json.dumps(turned).encode()) == circuit().settings
    other = built(tmp_path / "turned", tools, pinned=json.dumps(turned).encode())
    assert other.vk != circuit().vk


def test_a_foreign_reference_string_gives_the_same_key_and_is_refused(
    tmp_path: Path, tools: Toolchain
) -> None:
    """Whoever knows the secret in its last point can forge: so its digest is pinned beside the key's."""
    pinned = dev_srs(circuit().lock.cost.k).path.read_bytes()
    foreign = tmp_path / "foreign.srs"
    foreign.write_bytes(pinned[:-128] + unsafe_dev_srs(1, "a secret of somebody's own")[-128:])
    assert built(tmp_path / "made", tools, srs=foreign).vk == circuit().vk
    cut = verification_cut(foreign.read_bytes())
    assert cut != circuit().srs
    with pytest.raises(CatalogueError, match="the SRS for verification has SHA-256"):
        replace(circuit(), srs=cut)


# --- numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_zero_to_ezkl_and_nothing_to_us(number: float) -> None:
    import ezkl

    kind = ezkl.PyInputType.F32
    if math.isnan(number):
        assert ezkl.float_to_felt(number, 13, kind) == ezkl.float_to_felt(0.0, 13, kind)
    with pytest.raises(Malformed, match=r"felt\.not_finite"):
        fieldelement.quantise(number, 13)


def test_an_output_carried_as_float32_is_another_number() -> None:
    """At scale 26 float32 holds outputs up to a quarter only: proved outputs are float64, and exact."""
    value, scale = 2**25 + 1, 26
    carried = float(np.float32(fieldelement.dequantise(value, scale)))
    assert fieldelement.quantise(carried, scale) != value
    assert fieldelement.requantise(fieldelement.dequantise(value, scale), scale) == value


def test_an_alias_modulo_2_to_the_128_is_the_same_to_ezkl_and_refused_by_us() -> None:
    import ezkl

    alias = ((-(2**128 + 5)) % fieldelement.MODULUS).to_bytes(32, "little").hex()
    assert ezkl.felt_to_int(alias) == -5
    with pytest.raises(Malformed, match=r"felt\.range"):
        fieldelement.decode(alias)
