"""Zero-knowledge proofs made by ezkl (https://github.com/zkonduit/ezkl), checked against an audited circuit.

What a proof binds is its instances and the verifying key, nothing else. So nothing that the provider sent
but instances and proof bytes is ever used; the instances must equal those rebuilt here from the job's tag,
the claimed input and the claimed output; and key, settings and SRS are the catalogue's. The steps:

1. Parse the evidence strictly: one encoding, bounded sizes, canonical field elements.
2. Rebuild the instances: quantised input, job tag, requantised output, in the circuit's order.
3. Require equality, and say which part differs.
4. Check the proof natively, in a worker.

A proof that fails any of these was signed for by the provider: it is refuted. A check that could not
finish says nothing about the proof: it is unclear, and retried (PROTOCOL P17).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proofhold import fieldelement
from proofhold.catalogue import Circuit, Entry
from proofhold.core import (
    Answer,
    Assurance,
    Check,
    Evidence,
    Fault,
    Finding,
    Need,
    NeedKind,
    Offer,
    Property,
    Reason,
    Refuted,
    Unclear,
)
from proofhold.errors import Malformed
from proofhold.exchange import Exchange
from proofhold.locks import CircuitLock, SrsKind
from proofhold.payload import Payload, Tensors
from proofhold.runner import Runner, RunnerError, WorkerDied, WorkerTimedOut
from proofhold.zkproof import KIND, ZkProof, expected_instances
from proofhold.zkverify import VALID, verify_natively

UNSAFE_DEV_SRS = "unsafe-dev-srs"
"""The danger of a proof whose SRS has a public secret: anyone can forge it."""

CHECK_DEADLINE_S = 60.0


@dataclass(frozen=True)
class EzklBackend:
    """Checks ezkl proofs; the native part runs in the runner it is given."""

    runner: Runner
    deadline_s: float = CHECK_DEADLINE_S
    kind: str = KIND

    def accepts(self, payload: Payload) -> bool:
        """Tell whether evidence of this kind can speak of such a payload: tensors only."""
        return isinstance(payload, Tensors)

    def offers(self, entry: Entry | None) -> tuple[Offer, ...]:
        """Say what a proof of this model (None: of any, at best) would show."""
        if entry is None:
            return (Offer(KIND, _SHOWS),)
        if entry.circuit is None:
            return ()
        return (Offer(KIND, _SHOWS, _dangers(entry.circuit.lock)),)

    def check(
        self,
        evidence: Evidence | None,
        exchange: Exchange,
        entry: Entry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        """Judge one proof. `answers` and `now` play no part: a proof stands for itself."""
        del answers, now
        if evidence is None:
            text = "there is no proof to check"
            return _unclear("ezkl.missing", text, Fault.NOBODY, Need(NeedKind.EVIDENCE))
        circuit = entry.circuit
        if circuit is None:
            text = f"no audited circuit of {entry.name} is in this catalogue"
            return _unclear("ezkl.no_circuit", text, Fault.VERIFIER, Need(NeedKind.LOCK))
        if evidence.collateral:
            # The claim does not name collateral, so anyone may have hung it on: a bundle has one content.
            text = "a proof takes no collateral"
            return _unclear("ezkl.collateral", text, Fault.NOBODY, Need(NeedKind.BUNDLE))
        try:
            proof = ZkProof.decode(evidence.body)  # step 1
        except Malformed as error:
            return _refuted(Reason(error.code, error.message, Fault.PROVIDER))
        reasons = _compare(proof, exchange, circuit.lock)  # steps 2 and 3
        if reasons:
            return _refuted(*reasons)
        return self._check_natively(proof, circuit)  # step 4

    def _check_natively(self, proof: ZkProof, circuit: Circuit) -> Check:
        try:
            answer = self.runner.run(
                verify_natively,
                proof.snark(),
                circuit.settings,
                circuit.vk,
                circuit.srs,
                deadline_s=self.deadline_s,
            )
        except RunnerError as error:
            text = f"the proof could not be checked: {error}"
            code = _UNFINISHED.get(error.code, "ezkl.check_failed")
            return _unclear(code, text, Fault.NOBODY, Need(NeedKind.RETRY))
        if answer != VALID:
            text = "the proof does not verify under the pinned verifying key"
            return _refuted(Reason("ezkl.proof", text, Fault.PROVIDER, "a false proof", "a valid proof"))
        lock = circuit.lock
        facts = {
            "circuit_lock": lock.digest,
            "ezkl_version": lock.ezkl_version,
            "model": "the lock was audited: the verifying key is that of the model's quantised weights",
            "srs": f"{lock.srs.kind} ({lock.srs.label})",
        }
        return Finding(KIND, _SHOWS, facts, _dangers(lock))


def _compare(proof: ZkProof, exchange: Exchange, lock: CircuitLock) -> list[Reason]:
    """Compare what was proved with what is claimed; every part that differs is a reason."""
    try:
        job = exchange.job.digest
        expected = expected_instances(lock, job, exchange.input, exchange.output)
    except Malformed as error:
        text = f"the claimed output cannot be a proved one: {error.message}"
        return [Reason("ezkl.output_form", text, Fault.PROVIDER, error.code, "an exact, proved output")]
    column = expected.column
    if len(proof.instances) != len(column):
        got, wanted = str(len(proof.instances)), str(len(column))
        return [Reason("ezkl.instances", "another number of instances", Fault.PROVIDER, got, wanted)]
    if len(proof.proof) != lock.cost.proof_bytes:
        # Trailing bytes would verify: a proof has one encoding here.
        got, wanted = f"{len(proof.proof)} bytes", f"{lock.cost.proof_bytes} bytes"
        return [Reason("ezkl.proof_length", "a proof of another length", Fault.PROVIDER, got, wanted)]
    reasons = []
    for part, start, code, text in (
        (expected.input, 0, "ezkl.input", "the proof is of another input"),
        (expected.tag, lock.tag.offset, "ezkl.tag", "the proof was made for another job"),
        (
            expected.output,
            lock.tag.offset + lock.tag.length,
            "ezkl.output",
            "the proof is of another output",
        ),
    ):
        differing = [i for i, wanted in enumerate(part) if proof.instances[start + i] != wanted]
        if differing:
            first = differing[0]
            got = f"element {first} is {_readable(proof.instances[start + first])} ({len(differing)} differ)"
            reasons.append(Reason(code, text, Fault.PROVIDER, got, _readable(part[first])))
    return reasons


_UNFINISHED = {
    WorkerTimedOut.code: "ezkl.check_timed_out",
    WorkerDied.code: "ezkl.check_crashed",
}
"""What the check of a proof came to that did not come to an end, by the runner's code."""

_SHOWS = {
    Property.MODEL: Assurance.PROVED,
    Property.INPUT: Assurance.PROVED,
    Property.OUTPUT: Assurance.PROVED,
    Property.FRESH: Assurance.PROVED,
}


def _readable(instance: str) -> str:
    try:
        return str(fieldelement.decode(instance))
    except Malformed:
        return f"0x{instance} (little-endian)"


def _dangers(lock: CircuitLock) -> tuple[str, ...]:
    return (UNSAFE_DEV_SRS,) if lock.srs.kind is SrsKind.UNSAFE_DEV else ()


def _refuted(*reasons: Reason) -> Refuted:
    return Refuted(KIND, reasons)


def _unclear(code: str, message: str, fault: Fault, need: Need) -> Unclear:
    return Unclear(KIND, (Reason(code, message, fault),), (need,))
