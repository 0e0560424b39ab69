"""The catalogue: audited locks only, every file as pinned, one clear error otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proofhold.canonical import file_digest
from proofhold.catalogue import Catalogue, CatalogueError, Entry, read_circuit
from proofhold.errors import Misuse
from proofhold.locks import CircuitLock
from small_repository import copy_repository

REPOSITORY = Path(__file__).parents[2]
NAME = "breast_cancer"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return copy_repository(tmp_path)


def test_the_repository_is_a_catalogue() -> None:
    catalogue = Catalogue.load(REPOSITORY)
    assert {"breast_cancer", "digits"} <= {entry.name for entry in catalogue}
    for entry in catalogue:
        assert catalogue.by_digest(entry.model) is entry
        assert catalogue.by_name(entry.name) is entry
        assert file_digest(entry.model_bytes()) == entry.model
        assert entry.circuit is not None
        assert entry.replay is not None
        assert entry.locks == (entry.circuit.lock.digest, entry.replay.digest)
        assert entry.inputs == entry.replay.inputs


def test_what_nobody_knows_is_none_or_names_what_there_is() -> None:
    catalogue = Catalogue.load(REPOSITORY)
    assert catalogue.by_digest("00" * 32) is None
    with pytest.raises(Misuse, match="breast_cancer, digits"):
        catalogue.by_name("nope")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(root: Path, old: str, new: str) -> None:
    path = root / "circuits" / NAME / "circuit.lock.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda root: flip(root / "circuits" / NAME / "vk.key"), "catalogue.digest"),
        (lambda root: flip(root / "circuits" / NAME / "settings.json"), "catalogue.digest"),
        (lambda root: flip(root / "circuits" / NAME / "verify.srs"), "catalogue.digest"),
        (lambda root: flip(root / "models" / NAME / "model.onnx"), "catalogue.model"),
        (lambda root: edit(root, '"samples":114', '"samples":115'), "catalogue.unaudited"),
        (lambda root: edit(root, '"samples":114', '"samples":0'), "catalogue.lock"),
        (lambda root: flip(root / "circuits" / "audited.json"), "catalogue.lock"),
        (lambda root: (root / "circuits" / "audited.json").unlink(), "catalogue.unaudited"),
        (lambda root: (root / "circuits" / NAME / "vk.key").unlink(), "catalogue.missing"),
        (lambda root: (root / "circuits" / NAME).rename(root / "circuits" / "other"), "catalogue.name"),
        (lambda root: (root / "circuits" / NAME / "vk.key").write_bytes(bytes(2**25)), "catalogue.too_large"),
        (
            lambda root: shutil.copyfile(
                root / "circuits" / "digits" / "circuit.lock.json",
                root / "circuits" / NAME / "circuit.lock.json",
            ),
            "catalogue.digest",
        ),
    ],
)
def test_whatever_is_not_as_pinned_is_one_clear_error(
    root: Path, spoil: Callable[[Path], object], code: str
) -> None:
    spoil(root)
    with pytest.raises(CatalogueError) as caught:
        Catalogue.load(root)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "settings",
    [
        b'{"check_mode":"UNSAFE","run_args":{"check_mode":"SAFE"}}',
        b'{"check_mode":"SAFE","run_args":{"check_mode":"UNSAFE"}}',
        b'{"check_mode":"SAFE"}',
        b"[]",
        b"no JSON",
    ],
)
def test_an_unsafe_check_mode_is_refused_even_where_it_is_pinned(settings: bytes) -> None:
    circuit = read_circuit(REPOSITORY / "circuits" / NAME)
    assert circuit is not None
    with pytest.raises(CatalogueError, match=r"catalogue\.check_mode"):
        replace(circuit, lock=replace(circuit.lock, settings=file_digest(settings)), settings=settings)


def test_an_empty_folder_is_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"catalogue\.missing"):
        Catalogue.load(tmp_path)


def test_the_model_is_compared_each_time_it_is_loaded(root: Path) -> None:
    entry = Catalogue.load(root).by_name(NAME)
    entry.model_bytes()
    flip(root / "models" / NAME / "model.onnx")
    with pytest.raises(CatalogueError, match=r"catalogue\.model"):
        entry.model_bytes()


def test_a_circuit_alone_is_enough_to_verify(root: Path) -> None:
    shutil.rmtree(root / "models" / NAME)
    entry = Catalogue.load(root).by_name(NAME)
    assert entry.circuit is not None
    with pytest.raises(CatalogueError, match=r"catalogue\.missing"):
        entry.model_bytes()


def test_a_model_without_locks_has_no_known_inputs(root: Path) -> None:
    shutil.rmtree(root / "circuits" / NAME)
    entry = Catalogue.load(root).by_name(NAME)
    assert entry.locks == ()
    with pytest.raises(Misuse, match="compile it first"):
        _ = entry.inputs


def test_two_entries_of_one_model_or_name_are_refused() -> None:
    one = Entry("one", "11" * 32)
    with pytest.raises(CatalogueError, match=r"catalogue\.duplicate"):
        Catalogue.of([one, Entry("two", "11" * 32)])
    with pytest.raises(CatalogueError, match=r"catalogue\.duplicate"):
        Catalogue.of([one, Entry("one", "22" * 32)])
    assert [entry.name for entry in Catalogue.of([one, Entry("a", "22" * 32)])] == ["a", "one"]


def test_an_entry_takes_no_lock_of_another_model() -> None:
    circuit = read_circuit(REPOSITORY / "circuits" / NAME)
    assert circuit is not None
    with pytest.raises(CatalogueError, match=r"catalogue\.model"):
        Entry(NAME, "11" * 32, circuit)


def test_a_circuit_without_its_lock_is_none(tmp_path: Path) -> None:
    assert read_circuit(tmp_path) is None
    assert CircuitLock.FILE_NAME == "circuit.lock.json"
