"""Answers of OpenGradient's enclaves: a proxy to model vendors, signed per response.

What their own client takes on trust is refused here, each by a code. The steps:

1. Parse the evidence strictly, and find its key in the allow-list.
2. Form, validity, payee and age (`binding`).
3. Read the answer strictly: what nobody signs has no place in it.
4. The model's label is the request's, and tool calls are of tools that the request offered.
5. Hash request and answer ourselves, and check the signature.
6. Where the list asks for it, a Nitro document vouches for the key.

MODEL is not shown unless the list names one for the program: such an enclave proves routing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proofhold import binding as bind
from proofhold import core
from proofhold.allowlist import Binding, Measurement, Program, Scheme, Signer, Vouching
from proofhold.attestation import nitro, opengradient
from proofhold.attestation.kept import Kept
from proofhold.attestation.opengradient import KIND, SignedResponse
from proofhold.attestation.refusal import Refusal
from proofhold.attestation.refusal import reasons as reasons_of
from proofhold.canonical import Digest
from proofhold.catalogue import ServiceEntry
from proofhold.chat import Answer, read_answer, read_json
from proofhold.core import Check, Evidence, Fault, Offer, Reason
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import Exchange
from proofhold.payload import Document, Payload

NONCE_BYTES: Final = 20
"""The nonce that the gateway's attestation endpoint takes: 40 hexadecimal digits."""

_DOCUMENTS: Final[Kept[nitro.NitroDocument]] = Kept(lambda found: (found.valid_from, found.valid_until))
"""An enclave attests once and answers many times; a document's age is judged at each claim."""


@dataclass(frozen=True)
class OpenGradientBackend:
    """Judges one signed response under the service's allow-list."""

    kind: str = KIND

    def accepts(self, payload: Payload) -> bool:
        """Tell whether this kind can speak of such a payload: documents only."""
        return isinstance(payload, Document)

    def offers(self, entry: ServiceEntry | None) -> tuple[Offer, ...]:
        """Say what a response could show: freshness by age, the model only if the list names it."""
        return bind.offers(KIND, entry, fresh=True)

    def objections(self, entry: ServiceEntry, payload: Payload) -> tuple[Reason, ...]:
        """Say why no form that the list admits covers such a request."""
        if not isinstance(payload, Document):
            return (_buyers("request.kind", "the input is tensors, a service takes a document"),)
        admitted = {b for signer in entry.document.signers for b in signer.bindings if b.kind == KIND}
        found = []
        for form in sorted(admitted):
            try:
                opengradient.request_text(form, read_json(payload, what="request"))
            except Malformed as error:
                found.append(_buyers(error.code, error.message))
            else:
                return ()
        return tuple(found) or (_buyers("request.no_form", "the allow-list admits no form of this kind"),)

    def check(
        self,
        evidence: Evidence,
        exchange: Exchange,
        entry: ServiceEntry,
        *,
        answers: Sequence[core.Answer],
        now: int,
    ) -> Check:
        """Judge one signed response about an exchange."""
        del answers
        job = exchange.job.document
        try:
            response = SignedResponse.decode(evidence.body)  # step 1
        except Malformed as error:
            return bind.refuted(KIND, Reason(error.code, error.message, Fault.PROVIDER))
        signer = _signer(entry, response.tee_id)
        if signer is None:
            return bind.refuted(KIND, bind.unknown_signer(KIND, response.tee_id))
        signed_at = response.signed_at
        reasons = bind.objections(  # step 2
            KIND, entry, signer, response.binding, job, signed_at=signed_at, now=now
        )
        try:
            request = _read_request(exchange.input)
            answer = _read_answer(exchange.output, response.binding)  # step 3
            reasons += _compare_with_request(answer, request)  # step 4
            signed = opengradient.check(signer.key, response, request, answer)  # step 5
        except Malformed as error:
            return bind.refuted(KIND, *reasons, Reason(error.code, error.message, Fault.PROVIDER))
        except Refusal as error:
            return bind.refuted(KIND, *reasons, *reasons_of(error))
        except Misuse as error:
            return bind.unfit_list(KIND, str(error))
        facts: dict[str, str] = {}
        if signer.vouched is Vouching.SHOWN or response.attestation is not None:  # step 6
            try:
                program = entry.document.program(signer.program)
                facts = _vouched_by_document(response.attestation, signer, program, exchange.job.digest, now)
            except Refusal as error:
                reasons += reasons_of(error)
        if reasons:
            return bind.refuted(KIND, *reasons)
        return bind.finding(
            KIND,
            entry,
            signer,
            response.binding,
            signed=signed,
            signed_at=signed_at,
            now=now,
            facts=facts,
        )


def _signer(entry: ServiceEntry, tee_id: str) -> Signer | None:
    keys = (s for s in entry.document.signers if s.scheme is Scheme.RSA_PSS)
    return next((signer for signer in keys if opengradient.tee_id(signer.key) == tee_id), None)


def _vouched_by_document(
    document: bytes | None, signer: Signer, program: Program, job: Digest, now: int
) -> dict[str, str]:
    """Check a Nitro document for the key (step 6), and give what it adds to the facts.

    Raises:
        Refusal: it is missing or false, or of another program or key.

    """
    if document is None:
        text = "the allow-list asks for a document that vouches for the key"
        raise Refusal("opengradient.attestation", text, step=6)
    found = _DOCUMENTS.get(document, now=now, check=lambda: _genuine(document))
    nitro.require_age(found, now=now, max_age_s=None)
    registers = {f"pcr{index}": found.pcrs[index].hex() for index in (0, 1, 2)}
    if found.is_debug or Measurement.of("nitro", registers) not in program.measurements:
        text = "what the document measures is not the program that the allow-list names"
        raise Refusal("opengradient.measurement", text, step=6, got=registers["pcr0"], expected=program.name)
    key = hashlib.sha256(signer.key).digest()
    if (got := opengradient.attested_key(found.user_data)) != key:
        text = "the document vouches for another key"
        raise Refusal("opengradient.attested_key", text, step=6, got=got.hex(), expected=key.hex())
    asked = bytes.fromhex(job)[:NONCE_BYTES]
    freshness = (
        "by our nonce, the beginning of the job's digest"
        if found.nonce is not None and hmac.compare_digest(found.nonce, asked)
        else f"by age, which is weaker than a nonce: {max(0, found.age_s(now))} s"
    )
    return {
        "attested_at": str(found.timestamp_ms // 1000),
        "document_freshness": freshness,
        "measurement": registers["pcr0"],
    }


def _genuine(document: bytes) -> nitro.NitroDocument:
    """Check a document's signatures as of its own time."""
    made_at = nitro.parse(document).timestamp_ms // 1000
    return nitro.verify(document, now=made_at)


def _read_request(payload: Payload) -> dict[str, Any]:
    if not isinstance(payload, Document):
        raise Malformed("request.kind", "the input is tensors, a service takes a document")
    return read_json(payload, what="request")


def _read_answer(payload: Payload, form: Binding) -> Answer:
    if not isinstance(payload, Document):
        raise Malformed("answer.kind", "the output is tensors, a service gives a document")
    answer = read_answer(payload, signed_finish_reason=form is Binding.OPENGRADIENT_LEGACY)
    if form is Binding.OPENGRADIENT_LEGACY and answer.tool_calls:
        raise Malformed("answer.tool_calls", "the legacy form signs texts only")
    return answer


def _compare_with_request(answer: Answer, request: Mapping[str, Any]) -> list[Reason]:
    """Compare what the signature covers through the request only (step 4)."""
    found = []
    if answer.model != request.get("model"):
        text = "the answer is labelled with another model than was asked for"
        found.append(bind.against(KIND, "model_label", text, answer.model, str(request.get("model"))))
    offered = _offered_tools(request)
    if strange := sorted({call.name for call in answer.tool_calls} - offered):
        # A text that spells a tool call has the same hash as the call: what was not offered is a text.
        text = "calls of tools that the request did not offer: a text in disguise"
        found.append(bind.against(KIND, "tool_calls", text, strange[0], ", ".join(sorted(offered)) or "none"))
    return found


def _offered_tools(request: Mapping[str, Any]) -> set[str]:
    functions = [tool.get("function") for tool in request.get("tools") or () if isinstance(tool, dict)]
    names = [function.get("name") for function in functions if isinstance(function, dict)]
    return {name for name in names if isinstance(name, str)}


def _buyers(code: str, message: str) -> Reason:
    return Reason(code, message, Fault.BUYER)
