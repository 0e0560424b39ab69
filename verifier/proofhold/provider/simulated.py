"""A simulated enclave: signs chat answers as a real one would, with a root that is drawn for this run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

from proofhold.attestation.sim import KIND, SimulatedAnswer, document, statement
from proofhold.core import Evidence
from proofhold.errors import Misuse
from proofhold.job import SignedJob
from proofhold.keys import SigningKey
from proofhold.payload import Document


@dataclass(frozen=True)
class SimulatedEnclave:
    """Proves nothing to anybody: its root is this program's own."""

    root: SigningKey
    key: SigningKey
    measurement: bytes

    @classmethod
    def start(cls, image: str) -> Self:
        """Draw a root and a key, and "measure" an image by its name."""
        return cls(SigningKey.generate(), SigningKey.generate(), hashlib.sha256(image.encode()).digest())

    @property
    def root_key(self) -> bytes:
        """What a `SimBackend` must be given to believe this run."""
        return _raw(self.root)

    @property
    def public_key(self) -> bytes:
        """What the allow-list names."""
        return _raw(self.key)

    def sign(self, job: SignedJob, request: Document, answer: Document, *, now: int) -> Evidence:
        """Sign an answer to a job.

        Raises:
            Misuse: the request is not the job's.

        """
        if request.digest(bytes.fromhex(job.document.nonce)) != job.document.input:
            raise Misuse("this request is not the one that the job names")
        found = SimulatedAnswer(
            key=self.public_key,
            measurement=self.measurement,
            document_signature=self.root.sign(document(self.public_key, self.measurement)),
            signed_at=now,
            signature=self.key.sign(statement(job.digest, request.body, answer.body, now)),
        )
        return Evidence(KIND, found.encode())


def _raw(key: SigningKey) -> bytes:
    return bytes.fromhex(key.public.removeprefix("ed25519:"))
