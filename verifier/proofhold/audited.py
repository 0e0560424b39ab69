"""The list of locks that were audited: what lets a lock into a catalogue (PROTOCOL P14).

A lock says which circuit a proof is about; that this circuit is that model holds only because somebody
compiled the model and got the same circuit. `proofhold compile` and `proofhold compile --check --accept` do
that and write the lock's digest into ``circuits/audited.json``. Whoever ships the file vouches for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proofhold import canonical
from proofhold.canonical import Digest
from proofhold.domain import MAX_NAME_CHARS
from proofhold.locks import NAME_PATTERN, CircuitLock, ReplayLock
from proofhold.records import Record

AUDITED_FILE_NAME = "audited.json"
AUDITED_VERSION = 1
MAX_AUDITED_BYTES = 2**20
MAX_AUDITED = 4096


@dataclass(frozen=True, slots=True, order=True)
class AuditedLock:
    """One line of the list: which model's lock, of which kind, by its digest."""

    name: str
    kind: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Audited:
    """The list, in order of name and kind; at most one lock of a kind for each name."""

    locks: tuple[AuditedLock, ...] = ()

    def __contains__(self, digest: object) -> bool:
        return any(lock.digest == digest for lock in self.locks)

    def accept(self, locks: Iterable[CircuitLock | ReplayLock]) -> Audited:
        """Give the list with `locks` on it, each in place of the one of its name and kind."""
        by_key = {(entry.name, entry.kind): entry for entry in self.locks}
        for lock in locks:
            kind = "circuit" if isinstance(lock, CircuitLock) else "replay"
            by_key[lock.name, kind] = AuditedLock(lock.name, kind, lock.digest)
        return Audited(tuple(sorted(by_key.values())))

    def encode(self) -> bytes:
        """Write the list as its one canonical file."""
        locks = [{"digest": entry.digest, "kind": entry.kind, "name": entry.name} for entry in self.locks]
        return canonical.encode({"locks": locks, "version": AUDITED_VERSION})

    @classmethod
    def decode(cls, data: bytes) -> Audited:
        """Read the bytes of an audited.json.

        Raises:
            Malformed: ``audited.malformed``, ``audited.version``, or a code of `canonical.decode`.

        """
        record = Record(canonical.decode(data, max_bytes=MAX_AUDITED_BYTES, what="audited"), what="audited")
        record.version(AUDITED_VERSION)
        locks = tuple(_read(item) for item in record.records("locks", max_items=MAX_AUDITED))
        if list(locks) != sorted(locks) or len({(entry.name, entry.kind) for entry in locks}) != len(locks):
            raise record.error("expected each name and kind once, in order", "locks")
        record.close()
        return cls(locks)


def _read(record: Record) -> AuditedLock:
    entry = AuditedLock(
        name=record.text("name", max_chars=MAX_NAME_CHARS, pattern=NAME_PATTERN),
        kind=record.text("kind", max_chars=16, pattern="circuit|replay"),
        digest=record.digest("digest"),
    )
    record.close()
    return entry
