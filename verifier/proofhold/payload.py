"""What goes in or out of an inference: named tensors, or a document.

A payload is bytes with a shape, in plain Python; numpy is imported when somebody asks for an array.
Digests are salted with the job's nonce, so that a public digest does not give a guessable input away
(PROTOCOL P16).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from proofhold import canonical
from proofhold.canonical import Digest, Json
from proofhold.errors import Misuse
from proofhold.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ITEM_BYTES = {
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "int8": 1,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "bool": 1,
}
MAX_PAYLOAD_BYTES = 8 * 2**20
MAX_TENSORS = 64
MAX_RANK = 8
MAX_NAME_CHARS = 256
MAX_MEDIA_TYPE_CHARS = 128


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array: C order, little-endian, `shape` in elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise Misuse(f"{self.name!r}: dtype {self.dtype!r}, expected one of {', '.join(ITEM_BYTES)}")
        if not 0 < len(self.name) <= MAX_NAME_CHARS:
            raise Misuse(f"a tensor's name has 1 to {MAX_NAME_CHARS} characters")
        if len(self.shape) > MAX_RANK or any(size < 0 for size in self.shape):
            raise Misuse(f"tensor {self.name!r}: shape {self.shape}, expected rank at most {MAX_RANK}")
        if math.prod(size or 1 for size in self.shape) > MAX_PAYLOAD_BYTES:
            # An empty tensor takes no bytes, but numpy refuses a shape whose other sizes overflow.
            raise Misuse(f"tensor {self.name!r}: shape {self.shape} has too many elements")
        expected = math.prod(self.shape) * ITEM_BYTES[self.dtype]
        if len(self.data) != expected:
            raise Misuse(f"tensor {self.name!r}: {len(self.data)} bytes, expected {expected} for its shape")

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> Tensor:
        """Take a numpy array's values.

        Raises:
            Misuse: its dtype is none of `ITEM_BYTES`.

        """
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return cls(name, array.dtype.name, tuple(array.shape), little.tobytes(order="C"))

    def numpy(self) -> NDArray[Any]:
        """Give the values as a read-only numpy array of `shape`."""
        import numpy as np

        return np.frombuffer(self.data, little_endian(self.dtype)).reshape(self.shape)

    def _header(self) -> dict[str, Json]:
        return {"dtype": self.dtype, "name": self.name, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Tensors:
    """Tensors in the order of the model's inputs or outputs, names unique."""

    items: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.items) <= MAX_TENSORS:
            raise Misuse(f"{len(self.items)} tensors, expected 1 to {MAX_TENSORS}")
        if len({t.name for t in self.items}) != len(self.items):
            raise Misuse("two tensors have the same name")
        if sum(len(t.data) for t in self.items) > MAX_PAYLOAD_BYTES:
            raise Misuse(f"a payload holds at most {MAX_PAYLOAD_BYTES} bytes")

    @classmethod
    def of(cls, arrays: Iterable[tuple[str, NDArray[Any]]]) -> Tensors:
        """Take named numpy arrays."""
        return cls(tuple(Tensor.of(name, array) for name, array in arrays))

    def pieces(self) -> Iterator[bytes]:
        """Write the payload as it stands in a bundle: canonical JSON, in pieces (ADR 0147)."""
        yield b'{"kind":"tensors","tensors":['
        for index, tensor in enumerate(self.items):
            yield b',{"data":' if index else b'{"data":'
            yield from canonical.quoted_base64(tensor.data)
            # The other keys come behind in any case: dtype, name, shape.
            yield b"," + canonical.encode(tensor._header())[1:]
        yield b"]}"

    def digest(self, nonce: bytes) -> Digest:
        """Name the payload, salted with the job's 32-byte nonce."""
        header = {"kind": "tensors", "tensors": [t._header() for t in self.items]}
        return _payload_digest(nonce, header, b"".join(t.data for t in self.items))


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes of a media type: a chat request, a chat answer."""

    media_type: str
    body: bytes

    def __post_init__(self) -> None:
        if not 0 < len(self.media_type) <= MAX_MEDIA_TYPE_CHARS:
            raise Misuse(f"a media type has 1 to {MAX_MEDIA_TYPE_CHARS} characters")
        if len(self.body) > MAX_PAYLOAD_BYTES:
            raise Misuse(f"a payload holds at most {MAX_PAYLOAD_BYTES} bytes")

    def pieces(self) -> Iterator[bytes]:
        """Write the payload as it stands in a bundle: canonical JSON, in pieces (ADR 0147)."""
        yield b'{"body":'
        yield from canonical.quoted_base64(self.body)
        yield b"," + canonical.encode({"kind": "document", "media_type": self.media_type})[1:]

    def digest(self, nonce: bytes) -> Digest:
        """Name the payload, salted with the job's 32-byte nonce."""
        return _payload_digest(nonce, {"kind": "document", "media_type": self.media_type}, self.body)


Payload: TypeAlias = Tensors | Document


@functools.cache
def little_endian(dtype: str) -> np.dtype[Any]:
    """Give numpy's dtype for a payload's: little-endian, whatever the machine is."""
    import numpy as np

    return np.dtype(dtype).newbyteorder("<")


def read_payload(record: Record) -> Payload:
    """Read a payload out of a bundle.

    Raises:
        Malformed: unknown kind or dtype, sizes that do not fit, anything left over.

    """
    kind = record.text("kind")
    try:
        if kind == "tensors":
            tensors = tuple(_read_tensor(r) for r in record.records("tensors", max_items=MAX_TENSORS))
            record.close()
            return Tensors(tensors)
        if kind == "document":
            media_type = record.text("media_type", max_chars=MAX_MEDIA_TYPE_CHARS)
            body = record.base64("body", max_bytes=MAX_PAYLOAD_BYTES)
            record.close()
            return Document(media_type, body)
    except Misuse as error:
        raise record.error(str(error)) from error
    raise record.error(f"got {kind[:80]!r}, expected tensors or document", "kind")


def encode_payload(payload: Payload) -> bytes:
    """Write a payload as a file of its own: canonical JSON."""
    return b"".join(payload.pieces())


def decode_payload(data: bytes) -> Payload:
    """Read a payload file.

    Raises:
        Malformed: not the canonical encoding of a payload.

    """
    value = canonical.decode(data, max_bytes=2 * MAX_PAYLOAD_BYTES, what="payload")
    return read_payload(Record(value, what="payload"))


def _read_tensor(record: Record) -> Tensor:
    name = record.text("name", max_chars=MAX_NAME_CHARS)
    dtype = record.text("dtype")
    sizes = record.items("shape", max_items=MAX_RANK)
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
        raise record.error("expected a list of integers", "shape")
    data = record.base64("data", max_bytes=MAX_PAYLOAD_BYTES)
    record.close()
    return Tensor(name, dtype, tuple(sizes), data)


def _payload_digest(nonce: bytes, header: Json, data: bytes) -> Digest:
    encoded = canonical.encode(header)
    return canonical.digest("proofhold/payload/v1", nonce, len(encoded).to_bytes(8, "big"), encoded, data)


__all__ = [
    "Document",
    "Payload",
    "Tensor",
    "Tensors",
    "decode_payload",
    "encode_payload",
    "little_endian",
    "read_payload",
]
