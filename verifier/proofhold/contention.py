"""What is signed when a re-execution is answered for or disputed (PROTOCOL P12).

The verifier challenges one segment of a recorded claim. The provider answers with the hashes of every tensor
of that segment, which ties it to each step of the computation. Whoever accuses it then charges one tensor.
docs/dispute.md says why these three are enough; docs/formats/transcript.md states the encodings. Before any
of it, an acknowledgement says that the opening of a drawn claim came, and when (docs/formats/trace.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self, TypeAlias

from proofhold.canonical import Digest, Json
from proofhold.errors import Misuse
from proofhold.job import MAX_CAPTURES
from proofhold.keys import Signed
from proofhold.payload import MAX_NAME_CHARS, MAX_PAYLOAD_BYTES
from proofhold.records import Record

MAX_ANSWER_TENSORS = 1024
MAX_ANSWER_BYTES = 64 * 2**20
"""How many bytes of tensors one answer may come with."""
MAX_ANSWER_LEAVES = 1024
MAX_SEGMENT = MAX_ANSWER_LEAVES


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The verifier's demand that the provider shows every step of one segment.

    The segment lies between two neighbouring cuts, whose leaves the claim's trace root commits to.
    """

    job: Digest
    seq: int
    claim: Digest
    segment: int

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.challenge.v1+json"
    FORMAT: ClassVar[str] = "challenge"

    def to_json(self) -> Json:
        """Give the challenge as JSON, version 1."""
        return {
            "claim": self.claim,
            "job": self.job,
            "segment": self.segment,
            "seq": self.seq,
            "version": 1,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read a challenge.

        Raises:
            Malformed: anything but a version 1 challenge.

        """
        record.version(1)
        return cls(
            job=record.digest("job"),
            seq=record.integer("seq", high=MAX_CAPTURES),
            claim=record.digest("claim"),
            segment=record.integer("segment", high=MAX_SEGMENT),
        )


@dataclass(frozen=True, slots=True)
class NamedHash:
    """A tensor's name in the published model, and its hash as a leaf of the job's traces."""

    name: str
    hash: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeAnswer:
    """The provider's signed hashes: of every leaf of the claim's trace, and of the tensors of one segment.

    The segment's tensors are named, in order, those at its ends among them. What lies between and is not
    named is judged in one piece.
    """

    job: Digest
    seq: int
    claim: Digest
    segment: int
    leaves: tuple[Digest, ...]
    """What the claim's trace root is made of."""
    tensors: tuple[NamedHash, ...]

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.dispute-answer.v1+json"
    FORMAT: ClassVar[str] = "dispute-answer"

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if names != sorted(set(names)) or len(names) > MAX_ANSWER_TENSORS:
            raise Misuse(f"an answer names at most {MAX_ANSWER_TENSORS} tensors, each once, in order")
        if not 0 < len(self.leaves) <= MAX_ANSWER_LEAVES:
            raise Misuse(f"{len(self.leaves)} leaves, expected 1 to {MAX_ANSWER_LEAVES}")

    def hash_of(self, name: str) -> Digest | None:
        """Give the hash that the provider signed for a tensor, or None."""
        return next((tensor.hash for tensor in self.tensors if tensor.name == name), None)

    def to_json(self) -> Json:
        """Give the answer as JSON, version 1."""
        return {
            "claim": self.claim,
            "job": self.job,
            "leaves": list(self.leaves),
            "segment": self.segment,
            "seq": self.seq,
            "tensors": [{"hash": t.hash, "name": t.name} for t in self.tensors],
            "version": 1,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read an answer.

        Raises:
            Malformed: anything but a version 1 answer.

        """
        record.version(1)
        try:
            return cls(
                job=record.digest("job"),
                seq=record.integer("seq", high=MAX_CAPTURES),
                claim=record.digest("claim"),
                segment=record.integer("segment", high=MAX_SEGMENT),
                leaves=tuple(
                    Record({"hash": leaf}, what=cls.FORMAT, path="leaves").digest("hash")
                    for leaf in record.items("leaves", max_items=MAX_ANSWER_LEAVES)
                ),
                tensors=tuple(
                    _read_named(r) for r in record.records("tensors", max_items=MAX_ANSWER_TENSORS)
                ),
            )
        except Misuse as error:
            raise record.error(str(error), "tensors") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The accusation: this tensor is not what its operator gives for the inputs that the provider signed.

    `element` is a place in the flattened tensor: then nothing else of it is judged.
    """

    claim: Digest
    answer: Digest | None
    """None accuses on the trace that the claim commits to alone."""
    tensor: str
    element: int | None = None

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.charge.v1+json"
    FORMAT: ClassVar[str] = "charge"

    def to_json(self) -> Json:
        """Give the charge as JSON, version 1."""
        return {
            "answer": self.answer,
            "claim": self.claim,
            "element": self.element,
            "tensor": self.tensor,
            "version": 1,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read a charge.

        Raises:
            Malformed: anything but a version 1 charge.

        """
        record.version(1)
        return cls(
            claim=record.digest("claim"),
            answer=record.optional("answer", record.digest),
            tensor=record.text("tensor", max_chars=MAX_NAME_CHARS),
            element=record.optional("element", lambda field: record.integer(field, high=MAX_PAYLOAD_BYTES)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Whoever settles says that an opening, or the answer to a challenge, came and fits.

    Silence cannot be held against a provider that has it.
    """

    job: Digest
    seq: int
    opening: Digest
    """Of the answer, by the domain of answers: of its first piece, the provider's signed word, if it is an
    opening of all products. Or of the signed answer to a challenge."""
    at: int
    """Unix seconds, by the escrow's clock."""

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.acknowledgement.v1+json"
    FORMAT: ClassVar[str] = "acknowledgement"

    def to_json(self) -> Json:
        """Give the acknowledgement as JSON, version 1."""
        return {"at": self.at, "job": self.job, "opening": self.opening, "seq": self.seq, "version": 1}

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read an acknowledgement.

        Raises:
            Malformed: anything but a version 1 acknowledgement.

        """
        record.version(1)
        return cls(
            job=record.digest("job"),
            seq=record.integer("seq", high=MAX_CAPTURES),
            opening=record.digest("opening"),
            at=record.integer("at"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductOpening:
    """The provider's word for the results of all matrix products of a claimed run, by their digest (P3)."""

    job: Digest
    seq: int
    claim: Digest
    products: Digest

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.product-opening.v1+json"
    FORMAT: ClassVar[str] = "product-opening"

    def to_json(self) -> Json:
        """Give the opening as JSON, version 1."""
        return {
            "claim": self.claim,
            "job": self.job,
            "products": self.products,
            "seq": self.seq,
            "version": 1,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read an opening.

        Raises:
            Malformed: anything but a version 1 opening of products.

        """
        record.version(1)
        return cls(
            job=record.digest("job"),
            seq=record.integer("seq", high=MAX_CAPTURES),
            claim=record.digest("claim"),
            products=record.digest("products"),
        )


SignedProductOpening: TypeAlias = Signed[ProductOpening]
SignedAcknowledgement: TypeAlias = Signed[Acknowledgement]
SignedChallenge: TypeAlias = Signed[Challenge]
SignedDisputeAnswer: TypeAlias = Signed[DisputeAnswer]
SignedCharge: TypeAlias = Signed[Charge]


def _read_named(record: Record) -> NamedHash:
    named = NamedHash(record.text("name", max_chars=MAX_NAME_CHARS), record.digest("hash"))
    record.close()
    return named
