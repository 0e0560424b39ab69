"""Simulated enclaves: for demonstrations. Every finding carries the danger ``sim``.

No verifier that ships knows this kind: whoever wants it builds a `Verifier` with the root of this very run,
and a policy that is named ``dangerous_…`` and accepts ``sim`` by name. The steps:

1. Parse strictly, and find the key in the allow-list.
2. Form, validity, payee and age (`binding`).
3. The root of this run vouches for key and measurement, and the key for the answer.
4. The measurement is one of the program's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proofhold import binding as bind
from proofhold.allowlist import Binding, Measurement, Scheme
from proofhold.attestation import sim
from proofhold.attestation.refusal import Refusal
from proofhold.attestation.sim import KIND, SimulatedAnswer
from proofhold.catalogue import ServiceEntry
from proofhold.chat import read_json
from proofhold.core import Answer, Check, Evidence, Fault, Offer, Reason
from proofhold.errors import Malformed
from proofhold.exchange import Exchange
from proofhold.payload import Document, Payload

SIM: Final = "sim"
"""The danger of an enclave that is none: whoever runs the program can make it say anything."""


@dataclass(frozen=True)
class SimBackend:
    """Judges the answers of one run's simulated enclave, by its root (an Ed25519 key, 32 bytes)."""

    root: bytes
    kind: str = KIND

    def accepts(self, payload: Payload) -> bool:
        """Tell whether this kind can speak of such a payload: documents only."""
        return isinstance(payload, Document)

    def offers(self, entry: ServiceEntry | None) -> tuple[Offer, ...]:
        """Say what an answer could show, dangerously."""
        return bind.offers(KIND, entry, fresh=True, dangers=(SIM,))

    def objections(self, entry: ServiceEntry, payload: Payload) -> tuple[Reason, ...]:
        """Say why a request is none."""
        del entry
        if not isinstance(payload, Document):
            text = "the input is tensors, a service takes a document"
            return (Reason("request.kind", text, Fault.BUYER),)
        try:
            read_json(payload, what="request")
        except Malformed as error:
            return (Reason(error.code, error.message, Fault.BUYER),)
        return ()

    def check(
        self,
        evidence: Evidence,
        exchange: Exchange,
        entry: ServiceEntry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        """Judge one simulated answer about an exchange."""
        del answers
        request, output = exchange.input, exchange.output
        if not isinstance(request, Document) or not isinstance(output, Document):
            return bind.refuted(KIND, bind.against(KIND, "payload", "simulated enclaves speak of documents"))
        try:
            found = SimulatedAnswer.decode(evidence.body)  # step 1
        except Malformed as error:
            return bind.refuted(KIND, Reason(error.code, error.message, Fault.PROVIDER))
        signer = entry.document.signer(Scheme.ED25519, found.key)
        if signer is None:
            return bind.refuted(KIND, bind.unknown_signer(KIND, found.key.hex()))
        job = exchange.job
        reasons = bind.objections(  # step 2
            KIND, entry, signer, Binding.SIM, job.document, signed_at=found.signed_at, now=now
        )
        try:
            signed = sim.check(  # step 3
                self.root, found, job=job.digest, request=request.body, answer=output.body
            )
        except Refusal as error:
            return bind.refuted(
                KIND, *reasons, bind.against(KIND, error.code.partition(".")[2], error.message)
            )
        measured = Measurement.of("sim", {"measurement": found.measurement.hex()})
        if measured not in entry.document.program(signer.program).measurements:  # step 4
            text = "the measurement is not one of the program's"
            reasons.append(bind.against(KIND, "measurement", text, found.measurement.hex()))
        if reasons:
            return bind.refuted(KIND, *reasons)
        return bind.finding(
            KIND,
            entry,
            signer,
            Binding.SIM,
            signed=signed,
            signed_at=found.signed_at,
            now=now,
            facts={"freshness": "by the job's digest, which is in what was signed", "root": self.root.hex()},
            dangers=(SIM,),
        )
