"""A simulated enclave's word: for demonstrations, and refused by every policy not named ``dangerous_…``.

It has a format of its own and a root of its own, drawn anew for each run: no genuine document reads as one of
these, none of these reads as genuine, and no two runs believe each other. The root stands in for a maker of
hardware; it vouches for a key and a measurement, and the key signs the answer. The steps of `check`:

1. The root signed the key and the measurement.
2. The key signed this job, this request, this answer and this time.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from proofhold import canonical
from proofhold.attestation.refusal import Refusal
from proofhold.canonical import Digest
from proofhold.keys import SIGNATURE_BYTES, is_signature
from proofhold.records import Record

KIND: Final = "sim"
TAG: Final = "proofhold-simulated-enclave"
MAX_SIM_BYTES = 4096
KEY_BYTES = 32
MEASUREMENT_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAnswer:
    """The evidence: the simulated document and the signature over the answer."""

    key: bytes
    """Ed25519, 32 bytes."""
    measurement: bytes
    document_signature: bytes
    signed_at: int
    """Unix seconds."""
    signature: bytes

    def encode(self) -> bytes:
        """Write the evidence: canonical JSON, version 1."""
        return canonical.encode(
            {
                "document_signature": base64.b64encode(self.document_signature).decode(),
                "key": self.key.hex(),
                "measurement": self.measurement.hex(),
                "signature": base64.b64encode(self.signature).decode(),
                "signed_at": self.signed_at,
                "tag": TAG,
                "version": 1,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> SimulatedAnswer:
        """Read the evidence.

        Raises:
            Malformed: ``sim.…``: not the canonical encoding of version 1.

        """
        record = Record(canonical.decode(data, max_bytes=MAX_SIM_BYTES, what=KIND), what=KIND)
        record.version(1)
        if record.text("tag") != TAG:
            raise record.error(f"expected {TAG}", "tag")
        answer = cls(
            key=bytes.fromhex(record.hexadecimal("key", length_bytes=KEY_BYTES)),
            measurement=bytes.fromhex(record.hexadecimal("measurement", length_bytes=MEASUREMENT_BYTES)),
            document_signature=record.base64("document_signature", max_bytes=SIGNATURE_BYTES),
            signed_at=record.integer("signed_at"),
            signature=record.base64("signature", max_bytes=SIGNATURE_BYTES),
        )
        record.close()
        return answer


def document(key: bytes, measurement: bytes) -> bytes:
    """Give what the root signs."""
    return bytes.fromhex(canonical.digest("proofhold/sim-document/v1", key, measurement))


def statement(job: Digest, request: bytes, answer: bytes, signed_at: int) -> bytes:
    """Give what the key signs. The job's digest is in it: no answer serves two jobs."""
    hashes = hashlib.sha256(request).digest() + hashlib.sha256(answer).digest()
    return bytes.fromhex(
        canonical.digest("proofhold/sim-answer/v1", bytes.fromhex(job), hashes, signed_at.to_bytes(8, "big"))
    )


def check(root: bytes, found: SimulatedAnswer, *, job: Digest, request: bytes, answer: bytes) -> bytes:
    """Check that an enclave of this run signed, and give the bytes that it signed.

    Raises:
        Refusal: ``sim.document`` or ``sim.signature``.

    """
    if not _is_signed(root, found.document_signature, document(found.key, found.measurement)):  # step 1
        raise Refusal("sim.document", "the simulated document is not of this run", step=1)
    signed = statement(job, request, answer, found.signed_at)
    if not _is_signed(found.key, found.signature, signed):  # step 2
        raise Refusal("sim.signature", "signed for another job, request, answer or time", step=2)
    return signed


def _is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    return is_signature(f"ed25519:{key.hex()}", signature, message)
