"""The allow-list of a service: which programs may run behind it, and whose keys may answer for it.

A signed file (DSSE, docs/formats/allowlist.md), named by its digest in every job on the service. It maps
measurements to what they run, and keys to the program that holds them and to the account that they are paid
on. Whoever signs it vouches for three things that no attestation states: that a measurement is that image,
which model the image runs (if it can run only one), and who owns a key's answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar, Final, Self, TypeAlias

from proofhold.canonical import DIGEST_PATTERN, MAX_SAFE_INTEGER, Digest, Json
from proofhold.errors import Misuse
from proofhold.job import ACCOUNT_PATTERN, NAME_PATTERN
from proofhold.keys import Signed
from proofhold.records import Record

MAX_PROGRAMS = 64
MAX_SIGNERS = 256
MAX_MEASUREMENTS = 16
MAX_BINDINGS = 8
MAX_KEY_BYTES = 1024
MAX_AGE_S: Final = 3_600
"""No list may let an answer be older than this when its claim is recorded."""
MAX_WORDS_CHARS = 512

REGISTERS: Final[Mapping[str, Mapping[str, int]]] = {
    "nitro": {"pcr0": 48, "pcr1": 48, "pcr2": 48},
    "sev-snp": {"measurement": 48},
    "sim": {"measurement": 32},
    "tdx": {"compose_hash": 32, "mr_td": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48},
}
"""What must be pinned of each kind of enclave, each register with its length in bytes: all of them, or the
part that is left open is the part that an attacker changes."""


class Scheme(StrEnum):
    """How a key signs, and what names it."""

    RSA_PSS = "rsa-pss"
    """An RSA key, by the DER of its SubjectPublicKeyInfo."""
    SECP256K1 = "secp256k1"
    """An Ethereum account, by its 20-byte address; signatures are EIP-191."""
    ED25519 = "ed25519"
    """An Ed25519 key, by its 32 bytes."""


KEY_BYTES: Final[Mapping[Scheme, range]] = {
    Scheme.RSA_PSS: range(256, MAX_KEY_BYTES + 1),
    Scheme.SECP256K1: range(20, 21),
    Scheme.ED25519: range(32, 33),
}


class Binding(StrEnum):
    """How a service's signature covers a request and its answer; a signer's entry names those to try."""

    OPENGRADIENT_CURRENT = "opengradient/current"
    OPENGRADIENT_STR_LIST = "opengradient/str-list"
    OPENGRADIENT_LEGACY = "opengradient/legacy"
    DSTACK_PAIR = "dstack/pair"
    DSTACK_MODEL = "dstack/model"
    SIM = "sim/v1"

    @property
    def kind(self) -> str:
        """The kind of evidence that it belongs to."""
        return self.value.partition("/")[0]


class Vouching(StrEnum):
    """On whose word a key is the program's."""

    LISTED = "listed"
    """Whoever signed the list checked the attestation, or the registry that did."""
    SHOWN = "shown"
    """The evidence itself must hold a document that vouches for the key."""


Registers: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One state of an enclave: every register of its kind, as (name, lower-case hexadecimal), in order."""

    kind: str
    registers: Registers

    def __post_init__(self) -> None:
        if self.kind not in REGISTERS:
            raise Misuse(f"measurement: got kind {self.kind[:80]!r}, expected one of {', '.join(REGISTERS)}")
        lengths = REGISTERS[self.kind]
        if [name for name, _ in self.registers] != sorted(lengths):
            raise Misuse(f"measurement: expected the registers {', '.join(sorted(lengths))} of {self.kind}")
        for name, value in self.registers:
            if not re.fullmatch(r"[0-9a-f]+", value) or len(value) != 2 * lengths[name]:
                raise Misuse(f"{name}: expected {2 * lengths[name]} lower-case hexadecimal digits")
        if all(not value.strip("0") for _, value in self.registers):
            # Nitro and SEV-SNP report zeros for an enclave that anybody can debug.
            raise Misuse(
                f"measurement: all registers of {self.kind} are zero, which is an enclave in debug mode"
            )

    @classmethod
    def of(cls, kind: str, registers: Mapping[str, str]) -> Measurement:
        """Take registers by name, in any order."""
        return cls(kind, tuple(sorted(registers.items())))

    def to_json(self) -> Json:
        """Give the measurement as JSON."""
        return {"kind": self.kind, "registers": dict(self.registers)}

    @classmethod
    def read(cls, record: Record) -> Measurement:
        """Read a measurement; raises as its constructor does."""
        kind, registers = record.text("kind", pattern=NAME_PATTERN), record.record("registers")
        record.close()
        lengths = REGISTERS.get(kind, {})
        found = {name: registers.hexadecimal(name, length_bytes=size) for name, size in lengths.items()}
        registers.close()
        return cls.of(kind, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs behind a service: its measurements, and what they are in words and digests."""

    name: str
    image: str
    source: str
    measurements: tuple[Measurement, ...]
    model: Digest | None = None
    """The digest of the one model that it can run; None where it only routes (PROTOCOL P15)."""
    binds_input: bool = True
    """False where it signs a hash of the request that its client hands it, unchecked (as vllm-proxy can)."""
    valid_from: int
    valid_until: int

    def __post_init__(self) -> None:
        _check_name("program", self.name)
        for what, words in (("image", self.image), ("source", self.source)):
            if not words.isprintable() or not 0 < len(words) <= MAX_WORDS_CHARS:
                raise Misuse(f"{what}: expected one line of 1 to {MAX_WORDS_CHARS} characters")
        if len(self.measurements) > MAX_MEASUREMENTS or len(set(self.measurements)) != len(self.measurements):
            raise Misuse(f"measurements: expected at most {MAX_MEASUREMENTS}, each once")
        if self.model is not None and not re.fullmatch(DIGEST_PATTERN, self.model):
            raise Misuse("model: expected a SHA-256 in lower-case hexadecimal")
        _check_interval(self.valid_from, self.valid_until)

    def covers(self, at: int) -> bool:
        """Tell whether the entry holds at time `at` (unix seconds, half open)."""
        return self.valid_from <= at < self.valid_until

    def to_json(self) -> Json:
        """Give the entry as JSON."""
        return {
            "binds_input": self.binds_input,
            "from": self.valid_from,
            "image": self.image,
            "measurements": [measurement.to_json() for measurement in self.measurements],
            "model": self.model,
            "name": self.name,
            "source": self.source,
            "until": self.valid_until,
        }

    @classmethod
    def read(cls, record: Record) -> Program:
        """Read an entry; raises as its constructor does."""
        records = record.records("measurements", max_items=MAX_MEASUREMENTS)
        program = cls(
            name=record.text("name", pattern=NAME_PATTERN),
            image=record.text("image", max_chars=MAX_WORDS_CHARS),
            source=record.text("source", max_chars=MAX_WORDS_CHARS),
            measurements=tuple(Measurement.read(item) for item in records),
            model=record.optional("model", record.digest),
            binds_input=record.boolean("binds_input"),
            valid_from=record.integer("from"),
            valid_until=record.integer("until"),
        )
        record.close()
        return program


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key that may answer for the service, the program that holds it and the account that it is paid on."""

    scheme: Scheme
    key: bytes
    program: str
    payee: str
    bindings: tuple[Binding, ...]
    vouched: Vouching = Vouching.LISTED
    valid_from: int
    valid_until: int

    def __post_init__(self) -> None:
        _check_name("program", self.program)
        if len(self.key) not in KEY_BYTES[self.scheme]:
            raise Misuse(f"key: got {len(self.key)} bytes, which no {self.scheme} key has")
        if not re.fullmatch(ACCOUNT_PATTERN, self.payee, re.ASCII):
            raise Misuse(f"payee: got {self.payee[:80]!r}, expected the form {ACCOUNT_PATTERN}")
        if not self.bindings or list(self.bindings) != sorted(set(self.bindings)):
            raise Misuse("bindings: expected at least one, each once, in order")
        _check_interval(self.valid_from, self.valid_until)

    @property
    def order(self) -> tuple[str, bytes]:
        """Where it stands in the list, and what no two may share."""
        return self.scheme.value, self.key

    def covers(self, at: int) -> bool:
        """Tell whether the entry holds at time `at` (unix seconds, half open)."""
        return self.valid_from <= at < self.valid_until

    def to_json(self) -> Json:
        """Give the entry as JSON."""
        return {
            "bindings": list(self.bindings),
            "from": self.valid_from,
            "key": self.key.hex(),
            "payee": self.payee,
            "program": self.program,
            "scheme": self.scheme,
            "until": self.valid_until,
            "vouched": self.vouched,
        }

    @classmethod
    def read(cls, record: Record) -> Signer:
        """Read an entry; raises as its constructor does."""
        names = record.items("bindings", max_items=MAX_BINDINGS)
        if not all(isinstance(name, str) and name in set(Binding) for name in names):
            raise record.error(f"expected a list out of {', '.join(Binding)}", "bindings")
        signer = cls(
            scheme=record.choice("scheme", Scheme),
            key=bytes.fromhex(
                record.text("key", max_chars=2 * MAX_KEY_BYTES, pattern=r"([0-9a-f]{2})+"),
            ),
            program=record.text("program", pattern=NAME_PATTERN),
            payee=record.text("payee", pattern=ACCOUNT_PATTERN),
            bindings=tuple(Binding(name) for name in names),
            vouched=record.choice("vouched", Vouching),
            valid_from=record.integer("from"),
            valid_until=record.integer("until"),
        )
        record.close()
        return signer


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowList:
    """Programs and signers of one service. One that is empty admits nobody."""

    service: str
    issued_at: int
    max_age_s: int
    """How old an answer may be, by its own signed time, when its claim is recorded."""
    programs: tuple[Program, ...] = ()
    signers: tuple[Signer, ...] = ()

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.allowlist.v1+json"
    FORMAT: ClassVar[str] = "allowlist"

    def __post_init__(self) -> None:
        _check_name("service", self.service)
        if not 0 <= self.issued_at <= MAX_SAFE_INTEGER:
            raise Misuse(f"issued_at: got {self.issued_at}, expected unix seconds")
        if not 0 < self.max_age_s <= MAX_AGE_S:
            raise Misuse(f"max_age_s: got {self.max_age_s}, expected 1 to {MAX_AGE_S}")
        if len(self.programs) > MAX_PROGRAMS or len(self.signers) > MAX_SIGNERS:
            raise Misuse(f"expected at most {MAX_PROGRAMS} programs and {MAX_SIGNERS} signers")
        names = [program.name for program in self.programs]
        if names != sorted(set(names)):
            raise Misuse("programs: expected each name once, in order")
        orders = [signer.order for signer in self.signers]
        if orders != sorted(set(orders)):
            raise Misuse("signers: expected each key once, in order of scheme and key")
        if unknown := sorted({signer.program for signer in self.signers} - set(names)):
            raise Misuse(f"signers: program {unknown[0]!r} is not in the list")
        measured = [m for program in self.programs for m in program.measurements]
        if len(set(measured)) != len(measured):
            # Which of the two would run then, and on which model, nobody could say.
            raise Misuse("programs: two of them have one measurement")

    def signer(self, scheme: Scheme, key: bytes) -> Signer | None:
        """Give the entry of a key, or None: what a stranger names need not exist."""
        return next((s for s in self.signers if s.scheme is scheme and s.key == key), None)

    def program(self, name: str) -> Program:
        """Give the program that a signer's entry names."""
        return next(program for program in self.programs if program.name == name)

    def adding(self, entry: Program | Signer, *, issued_at: int) -> AllowList:
        """Give the list with one entry more, in its place.

        Raises:
            Misuse: it is there already, or names a program that is not.

        """
        if isinstance(entry, Program):
            programs = tuple(sorted((*self.programs, entry), key=lambda program: program.name))
            return replace(self, programs=programs, issued_at=issued_at)
        signers = tuple(sorted((*self.signers, entry), key=lambda signer: signer.order))
        return replace(self, signers=signers, issued_at=issued_at)

    def to_json(self) -> Json:
        """Give the list as JSON, version 1."""
        return {
            "issued_at": self.issued_at,
            "max_age_s": self.max_age_s,
            "programs": [program.to_json() for program in self.programs],
            "service": self.service,
            "signers": [signer.to_json() for signer in self.signers],
            "version": 1,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read a list.

        Raises:
            Malformed: anything but a version 1 list.

        """
        record.version(1)
        try:
            return cls(
                service=record.text("service", pattern=NAME_PATTERN),
                issued_at=record.integer("issued_at"),
                max_age_s=record.integer("max_age_s"),
                programs=tuple(Program.read(r) for r in record.records("programs", max_items=MAX_PROGRAMS)),
                signers=tuple(Signer.read(r) for r in record.records("signers", max_items=MAX_SIGNERS)),
            )
        except Misuse as error:
            raise record.error(str(error)) from error


SignedAllowList: TypeAlias = Signed[AllowList]


def _check_name(what: str, name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name, re.ASCII):
        raise Misuse(f"{what}: got {name[:80]!r}, expected the form {NAME_PATTERN}")


def _check_interval(valid_from: int, valid_until: int) -> None:
    if not 0 <= valid_from < valid_until <= MAX_SAFE_INTEGER:
        raise Misuse(f"got from {valid_from} until {valid_until}, expected from before until")


__all__ = [
    "AllowList",
    "Binding",
    "Measurement",
    "Program",
    "Scheme",
    "SignedAllowList",
    "Signer",
    "Vouching",
]
