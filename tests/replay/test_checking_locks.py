"""``compile --check`` and locks of re-execution: cut, calibrated, beside a circuit or with none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from escrow_builders import memory_folder
from proofhold import canonical
from proofhold.catalogue import Catalogue
from proofhold.compile import Difference, check
from proofhold.compile.build import accept
from proofhold.compile.replay.calibration import calibrate as calibration
from proofhold.compile.replay.calibration.calibrate import calibrate, write_profile
from proofhold.compile.replay.calibration.profile import Profile
from proofhold.compile.replay.calibration.runtimes import Runtime
from proofhold.compile.toolchain import Toolchain
from proofhold.locks import ReplayLock
from proofhold.runner import InlineRunner
from replay_exchanges import half, with_weights
from replay_models import MODELS, SPECIFICATION, pinned


@pytest.fixture(scope="module")
def tools() -> Iterator[Toolchain]:
    with Toolchain() as toolchain:
        yield toolchain


@pytest.fixture(scope="module")
def calibrated() -> Profile:
    two = (Runtime("onnxruntime/ORT_DISABLE_ALL/1"), Runtime("onnx-reference", 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "available", lambda *, python: two)
        return calibrate(MODELS["chain"](), pinned("chain").lock, runner=InlineRunner(), inputs=2)


@dataclass(frozen=True)
class Repository:
    """A model with eight segments, pinned and calibrated, and no circuit."""

    root: Path
    tools: Toolchain

    @property
    def model(self) -> Path:
        return self.root / "models" / "chain" / "model.onnx"

    @property
    def profile(self) -> Path:
        return self.root / "circuits" / "chain" / "calibration.json"

    def check(self, *, accept_locks: bool = False) -> dict[str, Difference]:
        found = check(["chain"], self.root, tools=self.tools, accept_locks=accept_locks)
        return {difference.field: difference for difference in found}


@pytest.fixture
def repository(tools: Toolchain, calibrated: Profile) -> Iterator[Repository]:
    with memory_folder() as root:
        made = Repository(root, tools)
        made.model.parent.mkdir(parents=True)
        made.model.write_bytes(MODELS["chain"]())
        made.model.with_name("model.toml").write_text(SPECIFICATION)
        write_profile(calibrated, pinned("chain").lock, made.profile.parent)
        yield made


def rewrite(repository: Repository, change: Callable[[Any], object], name: str = "replay.lock.json") -> None:
    """Change a file beside the lock, and vouch for the lock as somebody careless does."""
    path = repository.profile.with_name(name)
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(canonical.encode(value))
    if name == ReplayLock.FILE_NAME:
        accept(repository.root / "circuits", ReplayLock.decode(path.read_bytes()))


def test_a_model_that_is_only_re_executed_is_as_pinned(repository: Repository) -> None:
    assert repository.check() == {}
    assert Catalogue.load(repository.root).by_name("chain").circuit is None


def test_another_model_is_refused(repository: Repository) -> None:
    repository.model.write_bytes(with_weights(MODELS["chain"](), half))
    [found] = repository.check().values()
    assert "profile.model" in found.found
    repository.profile.unlink()
    found = repository.check()["replay lock: model"]
    assert (found.file, found.pinned != found.found) == ("models/chain/model.onnx", True)


def test_a_model_without_the_cuts_is_refused(repository: Repository) -> None:
    repository.model.write_bytes(MODELS["residual"]())
    [found] = repository.check().values()
    assert (found.file, "compile.unsupported" in found.found) == ("models/chain/model.onnx", True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda lock: lock["segments"][2].update(relative_l2=0.01), "segments[2].relative_l2"),
        (lambda lock: lock.update(relative_l2=0.01), "relative_l2"),
        (lambda lock: lock["segments"][1].update(norms=[1e9]), "segments[1].norms[0]"),
        (lambda lock: lock["segments"][0].update(model="0" * 64), "segments[0].model"),
        (lambda lock: lock.update(contract="reduced"), "contract"),
        (lambda lock: lock["inputs"][0].update(high=2.0), "inputs[0].high"),
        (lambda lock: lock.update(post_processing="sigmoid"), "post_processing"),
    ],
)
def test_a_lock_that_says_other_than_model_and_profile_is_refused(
    repository: Repository, change: Callable[[Any], object], field: str
) -> None:
    """Though somebody listed it as audited: a wide tolerance would let every substitute pass."""
    rewrite(repository, change)
    assert repository.check().keys() == {f"replay lock: {field}"}


def test_a_profile_that_was_written_by_hand_is_refused(repository: Repository) -> None:
    def widen(profile: Any) -> None:
        profile["tolerances"] = [0.01] * len(profile["tolerances"])

    rewrite(repository, widen, "calibration.json")
    found = repository.check()
    assert {field.split("[")[0] for field in found} == {"calibration.json: tolerances"}
    assert found["calibration.json: tolerances[0]"].file == "circuits/chain/calibration.json"


def test_so_is_one_of_another_model_and_one_that_no_tolerance_fits(repository: Repository) -> None:
    rewrite(repository, lambda profile: profile.update(model="0" * 64), "calibration.json")
    [found] = repository.check().values()
    assert "profile.model" in found.found
    rewrite(repository, lambda profile: profile.update(model=pinned("chain").lock.model), "calibration.json")
    assert repository.check() == {}

    def blur(profile: Any) -> None:
        for rows in profile["honest"].values():
            rows[0][0] = 0.1

    rewrite(repository, blur, "calibration.json")
    [found] = repository.check().values()
    assert "compile.tolerance" in found.found


def test_a_calibrated_lock_without_its_profile_is_refused(repository: Repository) -> None:
    repository.profile.unlink()
    found = repository.check()
    assert any("norms" in field for field in found)


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"[]", b'{"version":1}'])
def test_a_profile_that_does_not_parse_is_a_difference(repository: Repository, rubbish: bytes) -> None:
    repository.profile.write_bytes(rubbish)
    [found] = repository.check().values()
    assert found.file == "circuits/chain/calibration.json"


def test_a_lock_is_accepted_once_it_is_as_it_follows(repository: Repository) -> None:
    (repository.root / "circuits" / "audited.json").unlink()
    assert repository.check().keys() == {"audited.json: replay.lock.json"}
    assert repository.check(accept_locks=True) == {}
    assert Catalogue.load(repository.root).by_name("chain").replay is not None


def test_a_circuit_that_is_gone_is_missed_still(repository: Repository) -> None:
    """A model that was proved, and whose lock somebody removed, is no model that is only re-executed."""
    listed = repository.root / "circuits" / "audited.json"
    value = json.loads(listed.read_bytes())
    value["locks"].insert(0, {"digest": "0" * 64, "kind": "circuit", "name": "chain"})
    listed.write_bytes(canonical.encode(value))
    assert "circuit.lock.json" in repository.check()
