"""What the passes made of a model, as it is carried out of the worker in which they ran."""

from __future__ import annotations

from dataclasses import dataclass

from proofhold.compile.packing import pack, unpack


@dataclass(frozen=True, slots=True)
class Derivation:
    """The model after each pass that changed it, by the pass's name; the last is what becomes a circuit."""

    changes: tuple[tuple[str, bytes], ...]

    @property
    def model(self) -> bytes:
        """The derived model."""
        return self.changes[-1][1]

    def encode(self) -> bytes:
        """Write it for the other side of a worker."""
        return pack(part for name, model in self.changes for part in (name.encode(), model))

    @classmethod
    def decode(cls, data: bytes) -> Derivation:
        """Read what `encode` wrote."""
        parts = unpack(data)
        names = [name.decode() for name in parts[::2]]
        return cls(tuple(zip(names, parts[1::2], strict=True)))
