"""The evidence of kind ``ezkl``: its format, and the instances that a proof of an exchange must have.

Both sides need it: a provider builds such evidence, a verifier takes it apart. Whether a proof is any good
is not decided here (backends/ezkl.py).
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass

from proofhold import canonical, fieldelement
from proofhold.canonical import Digest
from proofhold.errors import Malformed
from proofhold.job import job_tag
from proofhold.locks import CircuitLock
from proofhold.payload import Payload, Tensor, Tensors
from proofhold.records import Record

KIND = "ezkl"

MAX_INSTANCES = 2**16
MAX_PROOF_BYTES = 2**20
MAX_EVIDENCE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ZkProof:
    """The evidence of this kind: instances (canonical field elements) and the proof's bytes."""

    instances: tuple[str, ...]
    proof: bytes

    def encode(self) -> bytes:
        """Write the evidence: canonical JSON, version 1 (docs/formats/bundle.md)."""
        proof = base64.b64encode(self.proof).decode()
        return canonical.encode({"instances": list(self.instances), "proof": proof, "version": 1})

    def snark(self) -> bytes:
        """Give what ezkl reads as a proof file, of nothing but what the verifying key authenticates."""
        return json.dumps({"instances": [list(self.instances)], "proof": list(self.proof)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> ZkProof:
        """Read the evidence.

        Raises:
            Malformed: ``ezkl.…``: not the one encoding of instances below the modulus and a proof.

        """
        record = Record(canonical.decode(data, max_bytes=MAX_EVIDENCE_BYTES, what=KIND), what=KIND)
        record.version(1)
        instances = record.items("instances", max_items=MAX_INSTANCES)
        for instance in instances:
            fieldelement.parse(instance)
        proof = record.base64("proof", max_bytes=MAX_PROOF_BYTES)
        record.close()
        return cls(tuple(instances), proof)


@dataclass(frozen=True, slots=True)
class Instances:
    """The instances of a proof, in the circuit's order: input, job tag, output."""

    input: tuple[str, ...]
    tag: tuple[str, ...]
    output: tuple[str, ...]

    @property
    def column(self) -> tuple[str, ...]:
        """All of them, one after the other, as the proof has them."""
        return self.input + self.tag + self.output


def expected_instances(lock: CircuitLock, job: Digest, entering: Payload, leaving: Payload) -> Instances:
    """Give the instances that a proof of this job, input and output must have.

    Raises:
        Malformed: a payload is not what the circuit takes or gives, or no field element stands for it.

    """
    tag = tuple(fieldelement.encode(byte) for byte in job_tag(job))
    return Instances(_encode_input(lock, entering), tag, _encode_output(lock, leaving))


def proved_output(lock: CircuitLock, instances: tuple[str, ...]) -> Tensors:
    """Read the output that a proof proves, dequantised: float64 tensors of the lock's names and shapes.

    Raises:
        Malformed: too few instances, or one that is no integer within 2^53.

    """
    tensors = []
    start = lock.tag.offset + lock.tag.length
    for spec, scale in zip(lock.outputs, lock.output_scales, strict=True):
        part = instances[start : start + spec.elements]
        if len(part) != spec.elements:
            raise Malformed("ezkl.instances", f"{len(instances)} instances are too few")
        numbers = [fieldelement.dequantise(fieldelement.decode(text), scale) for text in part]
        tensors.append(Tensor(spec.name, "float64", spec.shape, struct.pack(f"<{len(numbers)}d", *numbers)))
        start += spec.elements
    return Tensors(tuple(tensors))


def _encode_input(lock: CircuitLock, payload: Payload) -> tuple[str, ...]:
    tensors = _tensors_like(payload, [(spec.name, spec.dtype, spec.shape) for spec in lock.inputs])
    return tuple(
        fieldelement.encode(fieldelement.quantise(float(number), scale))
        for tensor, scale in zip(tensors.items, lock.input_scales, strict=True)
        # ezkl reads every input as float32 before it quantises.
        for number in tensor.numpy().astype("float32").ravel()
    )


def _encode_output(lock: CircuitLock, payload: Payload) -> tuple[str, ...]:
    tensors = _tensors_like(payload, [(spec.name, spec.dtype, spec.shape) for spec in lock.outputs])
    return tuple(
        fieldelement.encode(fieldelement.requantise(float(number), scale))
        for tensor, scale in zip(tensors.items, lock.output_scales, strict=True)
        for number in tensor.numpy().ravel()
    )


def _tensors_like(payload: Payload, ports: list[tuple[str, str, tuple[int, ...]]]) -> Tensors:
    if not isinstance(payload, Tensors):
        raise Malformed("ezkl.payload", "a circuit speaks of tensors, not of documents")
    got = [(tensor.name, tensor.dtype, tensor.shape) for tensor in payload.items]
    if got != ports:
        raise Malformed("ezkl.payload", f"got {_ports(got)}, expected {_ports(ports)}")
    return payload


def _ports(ports: list[tuple[str, str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, dtype, shape in ports)[:200]
