"""Ed25519 keys, and signatures over typed documents (DSSE v1, https://github.com/secure-systems-lab/dsse).

A public key is its own name: ``ed25519:`` and 64 hexadecimal digits. Everything that anyone signs here is a
DSSE envelope, whose pre-authentication encoding binds the document's type: a signed claim can never be
passed off as a signed decline.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar

from proofhold import canonical
from proofhold.canonical import MAX_SAFE_INTEGER, Digest, Json
from proofhold.errors import Malformed, Misuse
from proofhold.records import Record

Key: TypeAlias = str
"""A public key's name, such as ``ed25519:3b6a27…``."""

KEY_PATTERN = r"ed25519:[0-9a-f]{64}"
SIGNATURE_BYTES = 64
MAX_SIGNATURES = 8
MAX_KEY_NAME_CHARS = 128
MAX_DOCUMENT_BYTES = 256 * 1024
MAX_REMEMBERED = 4096
"""How many good signatures a process remembers."""
PRIVATE_FILE_MODE = 0o600


class SigningKey:
    """A private Ed25519 key."""

    def __init__(self, seed: bytes) -> None:
        """Take the 32-byte seed of RFC 8032."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != 32:
            raise Misuse(f"an Ed25519 seed has 32 bytes, got {len(seed)}")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: Key = "ed25519:" + self._private.public_key().public_bytes_raw().hex()

    def __repr__(self) -> str:
        return f"SigningKey({self.public})"

    @classmethod
    def generate(cls) -> Self:
        """Draw a new key from the operating system's randomness."""
        return cls(os.urandom(32))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a private key file (PKCS #8 PEM).

        Raises:
            Misuse: no such file, others may read it, or it holds no Ed25519 key.

        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                pem = file.read(MAX_DOCUMENT_BYTES)
        except OSError as error:
            raise Misuse(f"cannot read the key {path}: {error.strerror}") from error
        if os.name == "posix" and mode & 0o077:
            raise Misuse(f"{path}: a private key's mode is 0600, got {mode:04o}: chmod 600 {path}")
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Misuse(f"{path} is no private key in PEM") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise Misuse(f"{path} holds another kind of key, expected Ed25519")
        return cls(private.private_bytes_raw())

    def save(self, path: Path) -> None:
        """Write a private key file, mode 0600, never over an existing one."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            # O_EXCL: a key that is overwritten is lost, with all that was bonded under it.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE)
        except OSError as error:
            raise Misuse(f"cannot write the key {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)

    def sign(self, message: bytes) -> bytes:
        """Sign raw bytes (64-byte signature)."""
        return self._private.sign(message)


_FIELD = 2**255 - 19
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
        ),
    }
)
"""The y of every point whose order divides 8 ("Taming the many EdDSAs", 2020, table 1)."""


def binds(key: bytes) -> bool:
    """Tell whether an Ed25519 public key can bind anybody: in its one encoding, and of the large order.

    Under a key of small order one signature serves for many messages, or for all of them: who "signed" with
    it has signed nothing. RFC 8032 leaves such keys to the caller.
    """
    y = int.from_bytes(key, "little") & (2**255 - 1)
    return y < _FIELD and y not in _SMALL_ORDER


def is_signature(key: Key, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature over raw bytes is this key's, and the key is one that binds."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not re.fullmatch(KEY_PATTERN, key, re.ASCII):
        return False
    public = bytes.fromhex(key.removeprefix("ed25519:"))
    if not binds(public):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


_good: dict[tuple[Key, bytes, bytes], None] = {}
"""Key, signature and the message's SHA-256 of signatures that were found good (ADR 0128)."""


def _has_signed(key: Key, signature: bytes, message: bytes) -> bool:
    """`is_signature`, which takes as long as all else about a receipt, once for each signature that is good.

    What a document's signatures are worth is asked at every step of its way, as it should be.
    """
    name = _name_of(key, signature, message)
    if name in _good:
        return True
    if not is_signature(key, signature, message):
        return False
    _remember(name)
    return True


def _name_of(key: Key, signature: bytes, message: bytes) -> tuple[Key, bytes, bytes]:
    return key, signature, hashlib.sha256(message).digest()


def _remember(name: tuple[Key, bytes, bytes]) -> None:
    if len(_good) >= MAX_REMEMBERED:
        _good.clear()
    _good[name] = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope: typed bytes and who signed them, signatures in the order of the keys' names."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[Key, bytes], ...] = ()

    def signed(self, key: SigningKey) -> Envelope:
        """Add a signature, or give the same envelope if this key signed it already."""
        if key.public in {name for name, _ in self.signatures}:
            return self
        message = self.pre_authentication_encoding()
        added = (key.public, key.sign(message))
        _remember(_name_of(*added, message))
        return Envelope(self.payload_type, self.payload, tuple(sorted((*self.signatures, added))))

    def signers(self) -> frozenset[Key]:
        """Give the keys whose signatures are good."""
        message = self.pre_authentication_encoding()
        return frozenset(key for key, signature in self.signatures if _has_signed(key, signature, message))

    def is_signed_by_exactly(self, keys: Iterable[Key]) -> bool:
        """Tell whether these keys signed, all of them, and nobody else's signature hangs on."""
        expected = frozenset(keys)
        return {key for key, _ in self.signatures} == expected and self.signers() == expected

    def pre_authentication_encoding(self) -> bytes:
        """PAE of DSSE v1: what is signed in place of the payload."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)

    def to_json(self) -> Json:
        """Give the envelope as JSON."""
        signatures = [{"keyid": k, "sig": base64.b64encode(s).decode()} for k, s in self.signatures]
        payload = base64.b64encode(self.payload).decode()
        return {"payload": payload, "payloadType": self.payload_type, "signatures": signatures}

    @classmethod
    def read(cls, record: Record, payload_type: str) -> Envelope:
        """Read an envelope of an expected type.

        Raises:
            Malformed: another type, too large, or signatures unsorted or twice from one key.

        """
        got = record.text("payloadType")
        if got != payload_type:
            raise record.error(f"got {got[:80]!r}, expected {payload_type!r}", "payloadType")
        payload = record.base64("payload", max_bytes=MAX_DOCUMENT_BYTES)
        signatures = tuple(_read_signature(r) for r in record.records("signatures", max_items=MAX_SIGNATURES))
        record.close()
        names = [key for key, _ in signatures]
        if names != sorted(set(names)):
            raise record.error("expected each key once, in order", "signatures")
        return cls(payload_type, payload, signatures)


class SignedDocument(Protocol):
    """A document that can be signed: it knows its type and its one encoding."""

    PAYLOAD_TYPE: ClassVar[str]
    FORMAT: ClassVar[str]

    def to_json(self) -> Json:
        """Give the document as JSON."""

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read the document from JSON."""


D = TypeVar("D", bound=SignedDocument)


@dataclass(frozen=True)
class Signed(Generic[D]):
    """A document together with the envelope that it came in. One that says something else cannot be built."""

    document: D
    envelope: Envelope

    def __post_init__(self) -> None:
        # Whoever judges reads the document, and the signatures are over the envelope's bytes.
        if canonical.encode(self.document.to_json()) != self.envelope.payload:
            raise Misuse(f"this {self.document.FORMAT} is not the one in its envelope")
        if self.envelope.payload_type != self.document.PAYLOAD_TYPE:
            raise Misuse(f"an envelope of {self.envelope.payload_type} holds no {self.document.FORMAT}")

    @classmethod
    def new(cls, document: D, *signers: SigningKey) -> Signed[D]:
        """Put a document in an envelope and sign it."""
        envelope = Envelope(document.PAYLOAD_TYPE, canonical.encode(document.to_json()))
        for key in signers:
            envelope = envelope.signed(key)
        return cls(document, envelope)

    @classmethod
    def read(cls, kind: type[D], record: Record) -> Signed[D]:
        """Read an envelope and the document in it. Signatures are not judged here.

        Raises:
            Malformed: either does not parse.

        """
        envelope = Envelope.read(record, kind.PAYLOAD_TYPE)
        value = canonical.decode(envelope.payload, max_bytes=MAX_DOCUMENT_BYTES, what=kind.FORMAT)
        inner = Record(value, what=kind.FORMAT)
        document = kind.read(inner)
        inner.close()
        return cls(document, envelope)

    @classmethod
    def decode(cls, kind: type[D], data: bytes) -> Signed[D]:
        """Read a file that holds one envelope."""
        value = canonical.decode(data, max_bytes=2 * MAX_DOCUMENT_BYTES, what=kind.FORMAT)
        return cls.read(kind, Record(value, what=kind.FORMAT))

    def encode(self) -> bytes:
        """Write a file that holds one envelope: canonical JSON."""
        return canonical.encode(self.envelope.to_json())

    def signed(self, key: SigningKey) -> Signed[D]:
        """Add a signature."""
        return Signed(self.document, self.envelope.signed(key))

    @cached_property
    def digest(self) -> Digest:
        """The document's name: signatures do not count, so that both sides' copies have one name."""
        return canonical.digest(f"proofhold/{self.document.FORMAT}/v1", self.envelope.payload)


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that somebody trusts, with the interval in which it may have signed (unix seconds, half open)."""

    key: Key
    name: str
    valid_from: int
    valid_until: int

    def __post_init__(self) -> None:
        if not re.fullmatch(KEY_PATTERN, self.key, re.ASCII):
            raise Misuse(f"key: got {self.key[:80]!r}, expected the form {KEY_PATTERN}")
        if not self.name.isprintable() or not 0 < len(self.name) <= MAX_KEY_NAME_CHARS:
            raise Misuse(f"name: expected one line of 1 to {MAX_KEY_NAME_CHARS} characters")
        if not 0 <= self.valid_from < self.valid_until <= MAX_SAFE_INTEGER:
            raise Misuse(f"got from {self.valid_from} until {self.valid_until}, expected from before until")

    def covers(self, at: int) -> bool:
        """Tell whether a signature of time `at` (unix seconds) falls into the interval."""
        return self.valid_from <= at < self.valid_until


@dataclass(frozen=True, slots=True)
class TrustStore:
    """The verifier keys that a relying party trusts. An empty store cannot be built."""

    keys: tuple[TrustedKey, ...]

    MAX_KEYS: ClassVar[int] = 1024

    def __post_init__(self) -> None:
        if not 0 < len(self.keys) <= self.MAX_KEYS:
            raise Misuse(f"a trust file names 1 to {self.MAX_KEYS} keys, got {len(self.keys)}")
        if len(set(self.keys)) != len(self.keys):
            raise Misuse("a trust file names the same key with the same interval twice")

    def trusts(self, key: Key, at: int) -> bool:
        """Tell whether this key was trusted at time `at` (unix seconds)."""
        return any(trusted.key == key and trusted.covers(at) for trusted in self.keys)

    def who(self, key: Key, at: int) -> str | None:
        """Say whose key this was at time `at` (unix seconds), or None if it was nobody's that is trusted."""
        return next((t.name for t in self.keys if t.key == key and t.covers(at)), None)

    def ending(self, key: Key, at: int) -> TrustStore:
        """Give a store that trusts a key for what it judged before `at` (unix seconds), and no more.

        Raises:
            Misuse: it is not trusted at or after that time, or nobody would be trusted any more.

        """
        if not any(trusted.key == key and trusted.valid_until > at for trusted in self.keys):
            raise Misuse(f"{key} is not trusted from {at} on")
        return TrustStore(self._ended(key, at))

    def without(self, key: Key) -> TrustStore:
        """Give a store that never trusted a key: whoever stole it may date what it signs as they like.

        Raises:
            Misuse: it is not in the store, or nobody would be trusted any more.

        """
        kept = tuple(trusted for trusted in self.keys if trusted.key != key)
        if len(kept) == len(self.keys):
            raise Misuse(f"{key} is not in the trust file")
        return TrustStore(kept)

    def rotated(self, old: Key, new: Key, at: int) -> TrustStore:
        """Give a store in which a key takes over from another at `at` (unix seconds), for as long as it had.

        Raises:
            Misuse: the old key is not trusted then, or the new one is the old one.

        """
        taken_over = next((t for t in self.keys if t.key == old and t.covers(at)), None)
        if taken_over is None or new == old:
            raise Misuse(f"{old} is not trusted at {at}, or its successor is itself")
        heir = TrustedKey(new, taken_over.name, at, taken_over.valid_until)
        return TrustStore((*self._ended(old, at), heir))

    def _ended(self, key: Key, at: int) -> tuple[TrustedKey, ...]:
        kept = [
            replace(trusted, valid_until=min(trusted.valid_until, at)) if trusted.key == key else trusted
            for trusted in self.keys
            if trusted.key != key or trusted.valid_from < at
        ]
        return tuple(dict.fromkeys(kept))

    def adding(self, trusted: TrustedKey) -> TrustStore:
        """Give a store that trusts one key more.

        Raises:
            Misuse: it stands there already, or there is no room.

        """
        return TrustStore((*self.keys, trusted))

    @classmethod
    def load(cls, path: Path) -> TrustStore:
        """Read a trust file.

        Raises:
            Misuse: it cannot be read.
            Malformed: as `decode`.

        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise Misuse(f"cannot read the trust file {path}: {error.strerror}") from error
        return cls.decode(data)

    def save(self, path: Path) -> None:
        """Write a trust file, whole or not at all.

        Raises:
            Misuse: it cannot be written.

        """
        import tempfile

        try:
            # Beside the file, so that the rename stays on one file system and is atomic.
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                file.write(self.encode())
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError as error:
            raise Misuse(f"cannot write the trust file {path}: {error.strerror}") from error

    def encode(self) -> bytes:
        """Write a trust file: canonical JSON, version 1."""
        keys: list[dict[str, Any]] = [
            {"from": t.valid_from, "key": t.key, "name": t.name, "until": t.valid_until} for t in self.keys
        ]
        return canonical.encode({"keys": keys, "version": 1})

    @classmethod
    def decode(cls, data: bytes) -> TrustStore:
        """Read a trust file.

        Raises:
            Malformed: not the canonical encoding of at least one key.

        """
        value = canonical.decode(data, max_bytes=MAX_DOCUMENT_BYTES, what="trust")
        record = Record(value, what="trust")
        record.version(1)
        keys = tuple(_read_trusted(r) for r in record.records("keys", max_items=cls.MAX_KEYS))
        record.close()
        try:
            return cls(keys)
        except Misuse as error:
            raise Malformed("trust.malformed", str(error)) from error


def _read_signature(record: Record) -> tuple[Key, bytes]:
    key = record.text("keyid", pattern=KEY_PATTERN)
    signature = record.base64("sig", max_bytes=SIGNATURE_BYTES)
    record.close()
    return key, signature


def _read_trusted(record: Record) -> TrustedKey:
    key, name = record.text("key", pattern=KEY_PATTERN), record.text("name", max_chars=MAX_KEY_NAME_CHARS)
    valid_from, valid_until = record.integer("from"), record.integer("until")
    record.close()
    try:
        return TrustedKey(key, name, valid_from, valid_until)
    except Misuse as error:
        raise record.error(str(error)) from error
