"""Answers of the dstack family's proxies: a signed text over the bytes that went in and out.

The steps:

1. Parse the evidence strictly, and find its key in the allow-list.
2. Form, validity and payee (`binding`); the text states no time, so nothing about freshness is shown.
3. Hash request and answer ourselves, byte for byte, and check the signature.
4. A text that names a model names the one that was asked for.
5. Where the list asks for it, or the evidence brings one, a quote vouches for the key: genuine, up to date,
   of a measurement of the program, and with the key in its report data.

INPUT is shown only where the list says that the program hashes the request itself (`binds_input`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proofhold import binding as bind
from proofhold.allowlist import Measurement, Program, Vouching
from proofhold.attestation import dcap, dstack
from proofhold.attestation.dstack import KIND, SignedText
from proofhold.attestation.kept import Kept
from proofhold.attestation.quote import TdReport
from proofhold.attestation.refusal import Lacking, Refusal
from proofhold.attestation.refusal import reasons as reasons_of
from proofhold.catalogue import ServiceEntry
from proofhold.chat import read_json
from proofhold.core import Answer, Check, Evidence, Fault, Need, NeedKind, Offer, Reason, Unclear
from proofhold.errors import Malformed
from proofhold.exchange import Exchange
from proofhold.payload import Document, Payload

COLLATERAL: Final = "dcap"
"""The name under which evidence carries its quote's collateral."""
_COMPOSE: Final = "01"
"""What stands before the compose hash in MRCONFIGID (dstack, version 1 of the field)."""


_QUOTES: Final[Kept[dcap.DcapReport]] = Kept(lambda report: (report.not_before, report.not_after))
"""Quotes with their collateral, for as long as that holds: attested once, a machine answers many times."""


@dataclass(frozen=True)
class DstackBackend:
    """Judges one signed text under the service's allow-list."""

    kind: str = KIND

    def accepts(self, payload: Payload) -> bool:
        """Tell whether this kind can speak of such a payload: documents only."""
        return isinstance(payload, Document)

    def offers(self, entry: ServiceEntry | None) -> tuple[Offer, ...]:
        """Say what a signed text could show: never freshness."""
        return bind.offers(KIND, entry, fresh=False)

    def objections(self, entry: ServiceEntry, payload: Payload) -> tuple[Reason, ...]:
        """Say why a request is none; all of its bytes are hashed, so there is nothing that is not covered."""
        del entry
        try:
            _model_of(payload)
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
        """Judge one signed text about an exchange."""
        try:
            signed = SignedText.decode(evidence.body)  # step 1
        except Malformed as error:
            return bind.refuted(KIND, Reason(error.code, error.message, Fault.PROVIDER))
        signer = entry.document.signer(signed.scheme, signed.key)
        if signer is None:
            return bind.refuted(KIND, bind.unknown_signer(KIND, signed.key.hex()))
        job = exchange.job
        reasons = bind.objections(  # step 2
            KIND, entry, signer, signed.binding, job.document, signed_at=None, now=now
        )
        program = entry.document.program(signer.program)
        facts: dict[str, str] = {}
        try:
            request, output = _document(exchange.input), _document(exchange.output)
            text = dstack.check(signed, request.body, output.body)  # step 3
            named, asked = dstack.signed_model(signed), _model_of(request)  # step 4
            if named is not None and named != asked:
                message = "the proxy signed for another model than was asked for"
                reasons.append(bind.against(KIND, "model_label", message, named, asked))
            if signer.vouched is Vouching.SHOWN or signed.quote is not None:  # step 5
                collateral = _collateral(evidence, answers)
                facts = _vouched_by_quote(signed, program, collateral, job.digest, now)
        except Lacking as error:
            reason = Reason(error.code, error.message, Fault.NOBODY)
            return Unclear(KIND, (reason,), (Need(NeedKind.COLLATERAL, COLLATERAL),))
        except Malformed as error:
            reasons.append(Reason(error.code, error.message, Fault.PROVIDER))
        except Refusal as error:
            reasons += reasons_of(error)
        if reasons:
            return bind.refuted(KIND, *reasons)
        return bind.finding(
            KIND, entry, signer, signed.binding, signed=text, signed_at=None, now=now, facts=facts
        )


def _document(payload: Payload) -> Document:
    if not isinstance(payload, Document):
        raise Malformed("request.kind", "these are tensors, a service takes and gives documents")
    return payload


def _model_of(payload: Payload) -> str:
    model = read_json(_document(payload), what="request").get("model")
    if not isinstance(model, str) or not model:
        raise Malformed("request.malformed", "request: model: expected a string")
    return model


def _collateral(evidence: Evidence, answers: Sequence[Answer]) -> bytes:
    """Take what the evidence carries, or what was handed in for the need; neither is trusted."""
    handed_in = [answer.body for answer in answers if answer.kind is NeedKind.COLLATERAL]
    return (handed_in or [evidence.collateral.get(COLLATERAL, b"")])[-1]


def _vouched_by_quote(
    signed: SignedText, program: Program, collateral: bytes, job: str, now: int
) -> dict[str, str]:
    """Check the quote (step 5), and give what it adds to the facts.

    Raises:
        Refusal: it is false, of another program or another key, or of a platform that is not up to date.
        Lacking: its collateral is missing or expired.

    """
    if signed.quote is None:
        raise Refusal("dstack.quote", "the allow-list asks for a quote that vouches for the key", step=5)
    quote = signed.quote
    report = _QUOTES.get(quote, collateral, now=now, check=lambda: dcap.verify(quote, collateral, now=now))
    for mismatch in dcap.tcb_mismatches(report):
        raise Refusal(mismatch.code, mismatch.message, step=5, got=mismatch.got, expected=mismatch.expected)
    found = report.quote.report
    if not isinstance(found, TdReport) or not found.mr_config_id.startswith(_COMPOSE):
        raise Refusal("dstack.measurement", "not the quote of a dstack machine", step=5)
    registers = {name: getattr(found, name) for name in ("mr_td", "rtmr0", "rtmr1", "rtmr2")}
    compose_hash = found.mr_config_id[len(_COMPOSE) :][:64]
    if Measurement.of("tdx", registers | {"compose_hash": compose_hash}) not in program.measurements:
        text = "what the quote measures is not the program that the allow-list names"
        raise Refusal("dstack.measurement", text, step=5, got=compose_hash, expected=program.name)
    nonce = dstack.check_report_data(signed, bytes.fromhex(found.report_data))
    whose = "the job's digest" if nonce.hex() == job else "not this job's: the quote may be an old one"
    return {"quote": "up to date", "quote_nonce": whose}
