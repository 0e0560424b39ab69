"""The catalogue: an immutable map from a model's digest to the model and what was pinned about it.

A service stands beside the models: its name and the allow-list of what may run behind it, which somebody
that ``services/trust.json`` trusts has signed.

Only audited locks are in it (`audited.py`), and every file is compared with the digest that its lock pins,
so whatever a backend takes from an entry is what the audit saw.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proofhold.allowlist import AllowList, SignedAllowList
from proofhold.audited import AUDITED_FILE_NAME, MAX_AUDITED_BYTES, Audited
from proofhold.canonical import Digest, file_digest
from proofhold.domain import InputSpec, check_input
from proofhold.errors import Malformed, Misuse
from proofhold.keys import MAX_DOCUMENT_BYTES, Signed, TrustStore
from proofhold.locks import MAX_LOCK_BYTES, CircuitLock, ReplayLock
from proofhold.regular import digest_of, open_regular

MODELS_FOLDER = "models"
CIRCUITS_FOLDER = "circuits"
MODEL_FILE_NAME = "model.onnx"
SERVICES_FOLDER = "services"
ALLOWLIST_FILE_NAME = "allowlist.json"
TRUST_FILE_NAME = "trust.json"
SETTINGS_FILE_NAME = "settings.json"
VK_FILE_NAME = "vk.key"
VERIFY_SRS_FILE_NAME = "verify.srs"

MAX_MODEL_BYTES = 256 * 2**20
MAX_SETTINGS_BYTES = 2**20
MAX_VK_BYTES = 16 * 2**20
VERIFY_SRS_BYTES = 516
MAX_ENTRIES = 1024

SAFE_CHECK_MODE = "SAFE"
"""ezkl's mode with its sanity checks on: free, and no part of what a proof says (ADR 0015)."""


class CatalogueError(Misuse):
    """The folders of a catalogue do not hold what they pin. `code` is stable, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit lock with the files that verification takes, each as pinned.

    `settings` and `vk` are ezkl's files; `srs` is the 516-byte cut that verification reads.
    """

    lock: CircuitLock
    settings: bytes = field(repr=False)
    vk: bytes = field(repr=False)
    srs: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for what, data, pinned in (
            ("settings", self.settings, self.lock.settings),
            ("verifying key", self.vk, self.lock.vk),
            ("SRS for verification", self.srs, self.lock.srs.verify_digest),
        ):
            if file_digest(data) != pinned:
                raise CatalogueError(
                    "catalogue.digest",
                    f"{self.lock.name}: the {what} has SHA-256 {file_digest(data)}, the lock pins {pinned}",
                )
        modes = _modes_in(self.settings)
        if modes != {SAFE_CHECK_MODE}:
            raise CatalogueError(
                "catalogue.check_mode",
                f"{self.lock.name}: its settings have the check mode {', '.join(sorted(modes)) or 'none'}, "
                f"expected {SAFE_CHECK_MODE}: compile the model again",
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """One model, named by the SHA-256 of its ONNX file, with its locks where it has them.

    `source` is the published model: a path, bytes, or None where only its circuit is known, which is enough
    to verify proofs.
    """

    name: str
    model: Digest
    circuit: Circuit | None = None
    replay: ReplayLock | None = None
    source: Path | bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for lock in self._locks():
            if lock.model != self.model:
                raise CatalogueError(
                    "catalogue.model",
                    f"{self.name}: the model has SHA-256 {self.model}, "
                    f"its {lock.FILE_NAME} pins {lock.model}",
                )
        if self.circuit and self.replay and self.circuit.lock.inputs != self.replay.inputs:
            raise CatalogueError("catalogue.inputs", f"{self.name}: its two locks disagree about the inputs")

    @property
    def locks(self) -> tuple[Digest, ...]:
        """The digests of its locks: what a job names beside the model."""
        return tuple(lock.digest for lock in self._locks())

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What the model takes, for `domain.check_input`.

        Raises:
            Misuse: the entry has no lock, so nothing about its inputs was pinned.

        """
        for lock in self._locks():
            return lock.inputs
        raise Misuse(f"{self.name} has no lock: compile it first")

    def model_bytes(self) -> bytes:
        """Load the published model, compared with its digest each time.

        Raises:
            CatalogueError: ``catalogue.missing`` or ``catalogue.model``.

        """
        if self.source is None:
            raise CatalogueError(
                "catalogue.missing", f"{self.name}: the model itself is not in this catalogue"
            )
        data = self.source if isinstance(self.source, bytes) else _read(self.source, MAX_MODEL_BYTES)
        if file_digest(data) != self.model:
            raise CatalogueError(
                "catalogue.model",
                f"{self.name}: the model has SHA-256 {file_digest(data)}, expected {self.model}",
            )
        return data

    def _locks(self) -> tuple[CircuitLock | ReplayLock, ...]:
        circuit = self.circuit.lock if self.circuit else None
        return tuple(lock for lock in (circuit, self.replay) if lock is not None)


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service with its allow-list, which at least one key has signed, and none badly."""

    allowlist: SignedAllowList

    def __post_init__(self) -> None:
        envelope = self.allowlist.envelope
        if not envelope.signatures or not envelope.is_signed_by_exactly(k for k, _ in envelope.signatures):
            raise CatalogueError(
                "catalogue.allowlist_signature", f"{self.name}: its allow-list bears no good signature"
            )

    @property
    def name(self) -> str:
        """The service's name, as jobs state it."""
        return self.allowlist.document.service

    @property
    def digest(self) -> Digest:
        """The digest of the allow-list: what a job pins."""
        return self.allowlist.digest

    @property
    def document(self) -> AllowList:
        """What the list says."""
        return self.allowlist.document


@dataclass(frozen=True)
class Catalogue:
    """Entries by the digest of their model; built from a folder or, in a test, from entries."""

    entries: tuple[Entry, ...]
    services: tuple[ServiceEntry, ...] = ()

    def __post_init__(self) -> None:
        if len(self.entries) > MAX_ENTRIES or len(self.services) > MAX_ENTRIES:
            raise Misuse(f"{len(self.entries)} entries, expected at most {MAX_ENTRIES}")
        names = [service.name for service in self.services]
        if len(set(names)) != len(names):
            raise CatalogueError("catalogue.duplicate", "two allow-lists are for one service")
        for what in ("model", "name"):
            values = [getattr(entry, what) for entry in self.entries]
            for value in values:
                if values.count(value) > 1:
                    raise CatalogueError("catalogue.duplicate", f"two entries have the {what} {value}")

    @classmethod
    def of(cls, entries: Iterable[Entry], services: Iterable[ServiceEntry] = ()) -> Catalogue:
        """Build a catalogue of `entries` and `services`, in order of their names."""
        by_name = sorted(entries, key=lambda entry: entry.name)
        return cls(tuple(by_name), tuple(sorted(services, key=lambda service: service.name)))

    @classmethod
    def load(cls, root: Path) -> Catalogue:
        """Read ``root/models/*/model.onnx`` and ``root/circuits/*/``; folders of one name belong together.

        Allow-lists are ``root/services/*/allowlist.json``, each signed by a key that
        ``root/services/trust.json`` trusts at the time the list was issued.

        Raises:
            CatalogueError: ``catalogue.missing``, ``catalogue.lock`` (a lock does not parse),
                ``catalogue.unaudited``, ``catalogue.digest``, ``catalogue.model``, ``catalogue.name``, …

        """
        models = {path.parent.name: path for path in root.glob(f"{MODELS_FOLDER}/*/{MODEL_FILE_NAME}")}
        folders = {path.parent.name: path.parent for path in root.glob(f"{CIRCUITS_FOLDER}/*/*.lock.json")}
        services = _load_services(root)
        if not models and not folders and not services:
            raise CatalogueError("catalogue.missing", f"no model and no circuit under {root}")
        audited = read_audited(root)
        names = sorted(models.keys() | folders.keys())
        entries = tuple(_load(name, models.get(name), folders.get(name), audited) for name in names)
        return cls(entries, services)

    def by_digest(self, model: Digest) -> Entry | None:
        """Give the entry of a model, or None: what a stranger names need not exist."""
        return next((entry for entry in self.entries if entry.model == model), None)

    def service(self, name: str) -> ServiceEntry | None:
        """Give the entry of a service, or None: what a stranger names need not exist."""
        return next((service for service in self.services if service.name == name), None)

    def by_name(self, name: str) -> Entry:
        """Give the entry that the user names.

        Raises:
            Misuse: there is none; the message lists the names there are.

        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise Misuse(f"no model {name!r}; there are: {', '.join(entry.name for entry in self.entries)}")

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read_audited(root: Path) -> Audited:
    """Read ``root/circuits/audited.json``; a missing file is the empty list.

    Raises:
        CatalogueError: ``catalogue.lock``: the file does not parse.

    """
    path = root / CIRCUITS_FOLDER / AUDITED_FILE_NAME
    if not path.is_file():
        return Audited()
    try:
        return Audited.decode(_read(path, MAX_AUDITED_BYTES))
    except Malformed as error:
        raise CatalogueError("catalogue.lock", f"{path}: {error}") from error


def check_modes(settings: Any) -> set[str]:
    """Give the check modes that ezkl's parsed settings name: one mode, in two places, if all is well."""
    if not isinstance(settings, dict) or not isinstance(settings.get("run_args"), dict):
        return set()
    return {str(place.get("check_mode")) for place in (settings, settings["run_args"])}


def _modes_in(settings: bytes) -> set[str]:
    try:
        return check_modes(json.loads(settings))
    except (ValueError, RecursionError):
        return set()  # Pinned and audited, and still no settings: named by its lack of a mode.


def read_circuit(folder: Path) -> Circuit | None:
    """Read a circuit lock and its files, audited or not; None where the folder has no circuit lock.

    Raises:
        CatalogueError: ``catalogue.lock``, ``catalogue.missing`` or ``catalogue.digest``.

    """
    path = folder / CircuitLock.FILE_NAME
    if not path.is_file():
        return None
    try:
        lock = CircuitLock.decode(_read(path, MAX_LOCK_BYTES))
    except Malformed as error:
        raise CatalogueError("catalogue.lock", f"{path}: {error}") from error
    return Circuit(
        lock,
        settings=_read(folder / SETTINGS_FILE_NAME, MAX_SETTINGS_BYTES),
        vk=_read(folder / VK_FILE_NAME, MAX_VK_BYTES),
        srs=_read(folder / VERIFY_SRS_FILE_NAME, VERIFY_SRS_BYTES),
    )


def read_replay(folder: Path) -> ReplayLock | None:
    """Read a replay lock, audited or not; None where the folder has none.

    Raises:
        CatalogueError: ``catalogue.lock``.

    """
    path = folder / ReplayLock.FILE_NAME
    if not path.is_file():
        return None
    try:
        return ReplayLock.decode(_read(path, MAX_LOCK_BYTES))
    except Malformed as error:
        raise CatalogueError("catalogue.lock", f"{path}: {error}") from error


def _load(name: str, model: Path | None, folder: Path | None, audited: Audited) -> Entry:
    circuit = read_circuit(folder) if folder else None
    replay = read_replay(folder) if folder else None
    locks = [lock for lock in (circuit.lock if circuit else None, replay) if lock is not None]
    for lock in locks:
        if lock.name != name:
            raise CatalogueError("catalogue.name", f"{name}: its {lock.FILE_NAME} is that of {lock.name}")
        if lock.digest not in audited:
            raise CatalogueError(
                "catalogue.unaudited",
                f"{name}: its {lock.FILE_NAME} was not audited: "
                f"run `proofhold compile --check --accept {name}`",
            )
    digest = _stream_digest(model) if model else locks[0].model
    return Entry(name, digest, circuit, replay, model)


def _load_services(root: Path) -> tuple[ServiceEntry, ...]:
    paths = sorted(root.glob(f"{SERVICES_FOLDER}/*/{ALLOWLIST_FILE_NAME}"))
    if not paths:
        return ()
    try:
        trust = TrustStore.load(root / SERVICES_FOLDER / TRUST_FILE_NAME)
    except (Misuse, Malformed) as error:
        raise CatalogueError("catalogue.allowlist_trust", str(error)) from error
    return tuple(_load_service(path, trust) for path in paths)


def _load_service(path: Path, trust: TrustStore) -> ServiceEntry:
    try:
        signed = Signed.decode(AllowList, _read(path, 2 * MAX_DOCUMENT_BYTES))
    except Malformed as error:
        raise CatalogueError("catalogue.lock", f"{path}: {error}") from error
    entry = ServiceEntry(signed)
    if entry.name != path.parent.name:
        raise CatalogueError("catalogue.name", f"{path}: this is the allow-list of {entry.name}")
    if not any(trust.trusts(key, entry.document.issued_at) for key in signed.envelope.signers()):
        raise CatalogueError(
            "catalogue.allowlist_signature",
            f"{path}: nobody whom {SERVICES_FOLDER}/{TRUST_FILE_NAME} trusts has signed this allow-list",
        )
    return entry


def _stream_digest(path: Path) -> Digest:
    try:
        return digest_of(path)
    except OSError as error:
        raise CatalogueError("catalogue.missing", f"{path}: {error.strerror}") from error


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise CatalogueError("catalogue.missing", f"{path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise CatalogueError("catalogue.too_large", f"{path}: more than {max_bytes} bytes")
    return data


__all__ = [
    "Catalogue",
    "CatalogueError",
    "Circuit",
    "Entry",
    "ServiceEntry",
    "check_input",
    "read_audited",
    "read_circuit",
    "read_replay",
]
