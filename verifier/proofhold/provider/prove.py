"""Making a proof of one run, in a worker: proving takes gigabytes and all cores, and may be interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proofhold import canonical
from proofhold.canonical import Digest
from proofhold.catalogue import Circuit, Entry
from proofhold.compile import native
from proofhold.compile.errors import ToolFailed
from proofhold.compile.provingkey import about, ensure_proving_key, foretell
from proofhold.errors import Misuse
from proofhold.job import job_tag
from proofhold.payload import Tensors
from proofhold.runner import Runner
from proofhold.zkproof import ZkProof, expected_instances, proved_output
from proofhold.zkverify import VALID, verify_natively

PROVE_DEADLINE_S = 3600.0
MAX_NATIVE_PROOF_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Prover:
    """Makes ezkl proofs; the native part runs in `runner`, keys are kept in the user's cache.

    Give it a runner of its own, without a memory limit and with all threads:
    ``ProcessRunner(memory_bytes=None, threads=None)``.
    """

    runner: Runner
    cache: Path | None = None
    deadline_s: float = PROVE_DEADLINE_S

    def circuit_of(self, entry: Entry) -> Circuit:
        """Give the circuit that proofs of this model are made for.

        Raises:
            Misuse: the entry has none.

        """
        if entry.circuit is None:
            raise Misuse(f"{entry.name} has no circuit: compile it first")
        return entry.circuit

    def prove(
        self,
        entry: Entry,
        job: Digest,
        inputs: Tensors,
        *,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> ZkProof:
        """Prove the model's run on these inputs, for this job and no other.

        Args:
            entry: the catalogue's entry of the model.
            job: the job's digest; 16 bytes of it enter the circuit (PROTOCOL P7).
            inputs: within the input domain.
            on_step: told in words what happens.

        Raises:
            Misuse: the entry has no circuit.
            CompileError: this machine cannot make the circuit's proving key, or there is no witness.
            ToolFailed: the proof that came out is false.
            RunnerError: the prover died or took too long.

        """
        circuit = self.circuit_of(entry)
        lock = circuit.lock
        keys = ensure_proving_key(entry, cache=self.cache, on_step=on_step)
        on_step(f"proving (k = {lock.cost.k}, {lock.cost.rows} rows; {about(foretell(lock).prove_s)})")
        numbers = [tensor.numpy().ravel().tolist() for tensor in inputs.items]
        data = json.dumps([*numbers, list(job_tag(job))]).encode()
        parts = [str(path).encode() for path in (keys.circuit, keys.pk, keys.srs)]
        parts += [data, json.dumps(lock.run_args.lookup_range).encode()]
        made = native.unwrap(self.runner.run(native.prove, *parts, deadline_s=self.deadline_s))
        proof = _read(made)
        # Before signing: what we claim must be what a verifier will rebuild.
        expected = expected_instances(lock, job, inputs, proved_output(lock, proof.instances))
        if expected.column != proof.instances:
            raise Misuse("the proof's instances are not those of this job and input")
        # ezkl hands out false proofs without a word, in either check mode (docs/adr/0015): a fault of this
        # machine would cost the bond.
        verified = self.runner.run(verify_natively, proof.snark(), circuit.settings, circuit.vk, circuit.srs)
        if verified != VALID:
            raise ToolFailed(f"the proof of {lock.name} that was just made does not verify: sign nothing")
        return proof


def _read(made: bytes) -> ZkProof:
    value = canonical.decode(made, max_bytes=MAX_NATIVE_PROOF_BYTES, what="proof")
    return ZkProof(tuple(value["instances"]), bytes.fromhex(value["proof"]))
