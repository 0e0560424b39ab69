"""The transcript of a dispute: everything that judging it takes, the model's file apart, in one file.

It holds signed documents (job, claim, answer, charge), the replay lock that the job names, the leaves of the
claim's trace that are used, and the tensors of the answer that are used. `judge` reads nothing else, asks
nobody and believes nobody: PROTOCOL P12. docs/formats/transcript.md states the bytes.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proofhold import canonical
from proofhold.canonical import Digest, Json, file_digest
from proofhold.contention import (
    MAX_ANSWER_BYTES,
    MAX_ANSWER_TENSORS,
    Charge,
    DisputeAnswer,
    SignedCharge,
    SignedDisputeAnswer,
)
from proofhold.errors import Misuse
from proofhold.job import Claim, Job, SignedClaim, SignedJob
from proofhold.keys import Signed
from proofhold.locks import MAX_LOCK_BYTES, ReplayLock
from proofhold.payload import Tensor
from proofhold.records import Record
from proofhold.replay.opening import MAX_OPENED, OpenedLeaf, Opening
from proofhold.replay.packed import PackedReader, describe, pack
from proofhold.replay.trace import MAX_LEAVES, MAX_PATH, read_hashes

MAX_TRANSCRIPT_BYTES = 64 * 2**20
MAX_TENSORS = 256


@dataclass(frozen=True)
class Transcript:
    """A dispute as a third party replays it."""

    job: SignedJob
    claim: SignedClaim
    lock_file: bytes
    """The replay lock, in its one encoding."""
    charge: SignedCharge
    opening: Opening
    """The leaves of the claim's trace that are used, each with its tensor."""
    answer: SignedDisputeAnswer | None = None
    tensors: tuple[Tensor, ...] = ()
    """Those of the answer that are used, in the order of their names."""

    def __post_init__(self) -> None:
        if any(leaf.tensor is None for leaf in self.opening.leaves):
            raise Misuse("a transcript holds every tensor that it opens")
        names = [tensor.name for tensor in self.tensors]
        if names != sorted(set(names)) or len(names) > MAX_TENSORS:
            raise Misuse(f"expected at most {MAX_TENSORS} tensors of the answer, each once, in order")

    @functools.cached_property
    def lock(self) -> ReplayLock:
        """The replay lock.

        Raises:
            Malformed: the file is none.

        """
        return ReplayLock.decode(self.lock_file)

    @property
    def lock_digest(self) -> Digest:
        """The lock's name, as the job gives it: a lock has one encoding, so its file is enough."""
        return canonical.digest(ReplayLock.DOMAIN, self.lock_file)

    @functools.cached_property
    def opened(self) -> Mapping[int, Tensor]:
        """The tensors of the opened leaves, by their places in the trace."""
        return {leaf.index: leaf.tensor for leaf in self.opening.leaves if leaf.tensor is not None}

    def encode(self) -> bytes:
        """Write the transcript: version 1."""
        leaves = [
            {"index": leaf.index, "path": [beside.hex() for beside in leaf.path], "tensor": describe(tensor)}
            for leaf, tensor in zip(self.opening.leaves, self.opened.values(), strict=True)
        ]
        header: Json = {
            "answer": None if self.answer is None else self.answer.envelope.to_json(),
            "charge": self.charge.envelope.to_json(),
            "claim": self.claim.envelope.to_json(),
            "job": self.job.envelope.to_json(),
            "leaves": leaves,
            "lock": base64.b64encode(self.lock_file).decode(),
            "size": self.opening.size,
            "tensors": [describe(tensor) for tensor in self.tensors],
            "version": 1,
        }
        return pack(header, (*self.opened.values(), *self.tensors))

    @classmethod
    def decode(cls, data: bytes) -> Transcript:
        """Read a transcript. Nothing in it is judged here.

        Raises:
            Malformed: ``transcript.too_large``, ``transcript.truncated``, ``transcript.malformed``,
                ``transcript.version``, the codes of the documents in it, or one of `canonical.decode`.

        """
        reader = PackedReader(data, max_bytes=MAX_TRANSCRIPT_BYTES, what="transcript")
        record = reader.record
        record.version(1)
        try:
            answer = record.optional("answer", record.record)
            charge = Signed.read(Charge, record.record("charge"))
            claim = Signed.read(Claim, record.record("claim"))
            job = Signed.read(Job, record.record("job"))
            lock_file = record.base64("lock", max_bytes=MAX_LOCK_BYTES)
            size = record.integer("size", low=1, high=MAX_LEAVES)
            leaves = [_read_leaf(item, reader) for item in record.records("leaves", max_items=MAX_OPENED)]
            described = record.items("tensors", max_items=MAX_TENSORS)
            transcript = cls(
                job=job,
                claim=claim,
                lock_file=lock_file,
                charge=charge,
                opening=Opening(size, tuple(leaves)),
                answer=None if answer is None else Signed.read(DisputeAnswer, answer),
                tensors=tuple(reader.tensor(item) for item in described),
            )
        except Misuse as error:
            raise record.error(str(error)) from error
        reader.close()
        _ = transcript.lock  # one that does not parse makes no transcript
        return transcript

    @property
    def digest(self) -> Digest:
        """The transcript's name: SHA-256 of its file."""
        return file_digest(self.encode())


def encode_answer(answer: SignedDisputeAnswer, tensors: Sequence[Tensor]) -> bytes:
    """Write an answer with its tensors as one file, version 1: what a provider hands in."""
    described = [describe(tensor) for tensor in tensors]
    header = {"answer": answer.envelope.to_json(), "tensors": described, "version": 1}
    return pack(header, tensors)


def decode_answer(data: bytes) -> tuple[SignedDisputeAnswer, tuple[Tensor, ...]]:
    """Read an answer with its tensors. Nothing is judged here.

    Raises:
        Malformed: ``answer-file.…``, the codes of the answer itself, or one of `canonical.decode`.

    """
    reader = PackedReader(data, max_bytes=2 * MAX_ANSWER_BYTES, what="answer-file")
    reader.record.version(1)
    try:
        answer = Signed.read(DisputeAnswer, reader.record.record("answer"))
        described = reader.record.items("tensors", max_items=MAX_ANSWER_TENSORS)
        tensors = tuple(reader.tensor(item) for item in described)
    except Misuse as error:
        raise reader.record.error(str(error)) from error
    reader.close()
    return answer, tensors


def _read_leaf(record: Record, reader: PackedReader) -> OpenedLeaf:
    index = record.integer("index", high=MAX_LEAVES - 1)
    path = read_hashes(record, "path", max_items=MAX_PATH)
    tensor = reader.tensor(record.take("tensor"))
    record.close()
    return OpenedLeaf(index, path, tensor)
