"""An exchange, and the bundle: the file that holds an exchange and its evidence.

A bundle is what travels, so parts of it may be damaged or swapped on the way. Reading one only parses it;
whether its bytes are those that job and claim name is `mismatches`' to say, and what a verifier does about
it is to ask for the true ones (PROTOCOL P1).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from proofhold import canonical
from proofhold.canonical import Digest
from proofhold.core import Answer, Evidence, Fault, Need, NeedKind, Reason
from proofhold.errors import Malformed
from proofhold.job import MAX_EVIDENCE, NAME_PATTERN, Claim, Job, SignedClaim, SignedJob
from proofhold.keys import Signed
from proofhold.payload import Payload, decode_payload, read_payload
from proofhold.records import Record

MAX_EVIDENCE_BYTES = 8 * 2**20
MAX_COLLATERAL_ITEMS = 32
MAX_BUNDLE_BYTES = 64 * 2**20

PARTS = frozenset((NeedKind.JOB, NeedKind.CLAIM, NeedKind.INPUT, NeedKind.OUTPUT, NeedKind.EVIDENCE))
"""The needs that are parts of a bundle: an answer to one of them is put in its place, and is then no more."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The job, what went in, the claim, and what came out."""

    job: SignedJob
    input: Payload
    claim: SignedClaim
    output: Payload


@dataclass(frozen=True, slots=True)
class Bundle:
    """An exchange with its evidence, as one file."""

    exchange: Exchange
    evidence: tuple[Evidence, ...] = ()

    def encode(self) -> bytes:
        """Write the bundle: canonical JSON, version 1 (docs/formats/bundle.md)."""
        return b"".join(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        """Write it in pieces: a verdict digests every bundle, whose payloads may be large (ADR 0147)."""
        exchange = self.exchange
        yield b'{"claim":' + canonical.encode(exchange.claim.envelope.to_json())
        yield b',"evidence":['
        for index, evidence in enumerate(self.evidence):
            yield b"," if index else b""
            yield from _evidence_pieces(evidence)
        yield b'],"input":'
        yield from exchange.input.pieces()
        yield b',"job":' + canonical.encode(exchange.job.envelope.to_json())
        yield b',"output":'
        yield from exchange.output.pieces()
        yield b',"version":1}'

    @classmethod
    def decode(cls, data: bytes) -> Bundle:
        """Read a bundle. Nothing in it is judged here.

        Raises:
            Malformed: not the canonical encoding of a version 1 bundle.

        """
        value = canonical.decode(data, max_bytes=MAX_BUNDLE_BYTES, what="bundle")
        record = Record(value, what="bundle")
        record.version(1)
        exchange = Exchange(
            job=Signed.read(Job, record.record("job")),
            input=read_payload(record.record("input")),
            claim=Signed.read(Claim, record.record("claim")),
            output=read_payload(record.record("output")),
        )
        evidence = tuple(_read_evidence(r) for r in record.records("evidence", max_items=MAX_EVIDENCE))
        record.close()
        return cls(exchange, evidence)

    @property
    def digest(self) -> Digest:
        """The bundle's name: of its content, whatever file it came in."""
        return canonical.digest("proofhold/bundle/v1", *self._pieces())

    def repaired(self, answers: Iterable[Answer]) -> Bundle:
        """Put the true bytes in place of damaged ones, where an answer holds them.

        An answer counts only if its digest is the one that job or claim names; all others are left aside.
        """
        bundle = self
        for answer in answers:
            bundle = _repair(bundle, answer)
        return bundle


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Bytes that are not what a signed document names, and what to ask for instead."""

    reason: Reason
    need: Need


def mismatches(bundle: Bundle) -> tuple[Mismatch, ...]:
    """List everything in a bundle that job and claim do not vouch for.

    Nobody is to blame for any of it: somebody on the way put it there (PROTOCOL P1). Evidence that the claim
    does not name is listed too, so that a bundle has one content. What hangs on a document that is itself
    dropped is not compared: the digests of a stranger's claim say nothing.
    """
    exchange = bundle.exchange
    job = exchange.job.document
    if not exchange.job.envelope.is_signed_by_exactly(job.signers):
        text = "the job does not carry the good signatures of its buyer and its provider, and theirs alone"
        names = _names(exchange.job)
        return (_mismatch("job.signature", text, NeedKind.JOB, "", names, "buyer and provider"),)
    found = []
    nonce = bytes.fromhex(job.nonce)
    if (got := exchange.input.digest(nonce)) != job.input:
        text = "the input is not the one that the job names"
        found.append(_mismatch("input.digest", text, NeedKind.INPUT, job.input, got, job.input))
    against_claim = _claim_mismatches(exchange)
    if against_claim:
        return (*found, *against_claim)
    claim = exchange.claim.document
    if (got := exchange.output.digest(nonce)) != claim.output:
        text = "the output is not the one that the claim names"
        found.append(_mismatch("output.digest", text, NeedKind.OUTPUT, claim.output, got, claim.output))
    return (*found, *_evidence_mismatches(bundle))


def _claim_mismatches(exchange: Exchange) -> list[Mismatch]:
    job, claim = exchange.job.document, exchange.claim
    found = []
    if not claim.envelope.is_signed_by_exactly([job.provider]):
        text = "the claim does not carry the good signature of the job's provider, and that alone"
        found.append(_mismatch("claim.signature", text, NeedKind.CLAIM, "", _names(claim), job.provider))
    if (got := claim.document.job) != exchange.job.digest:
        text = "the claim answers another job"
        found.append(_mismatch("claim.other_job", text, NeedKind.CLAIM, "", got, exchange.job.digest))
    return found


def _evidence_mismatches(bundle: Bundle) -> list[Mismatch]:
    named = [e.digest for e in bundle.exchange.claim.document.evidence]
    held = [e.digest for e in bundle.evidence]
    if held == named:
        return []
    got = ", ".join(held) or "none"
    missing = [digest for digest in named if digest not in held]
    if not missing:
        text = "the evidence is not, in order and number, what the claim names"
        return [_mismatch("evidence.digest", text, NeedKind.BUNDLE, "", got, ", ".join(named) or "none")]
    text = "evidence that the claim names is not there"
    return [_mismatch("evidence.digest", text, NeedKind.EVIDENCE, d, got, d) for d in missing]


def _repair(bundle: Bundle, answer: Answer) -> Bundle:
    exchange = bundle.exchange
    job, claim = exchange.job.document, exchange.claim.document
    try:
        match answer.kind:
            case NeedKind.JOB:
                signed_job = Signed.decode(Job, answer.body)
                # In place of a job that binds nobody, any that binds will do: if it is another than the
                # claim's, the claim is what is asked for next.
                wanted = signed_job.digest == claim.job or not _binds(exchange.job)
                if wanted and _binds(signed_job):
                    return replace(bundle, exchange=replace(exchange, job=signed_job))
            case NeedKind.CLAIM:
                signed_claim = Signed.decode(Claim, answer.body)
                if signed_claim.document.job == exchange.job.digest and (
                    signed_claim.envelope.is_signed_by_exactly([job.provider])
                ):
                    return replace(bundle, exchange=replace(exchange, claim=signed_claim))
            case NeedKind.INPUT:
                payload = decode_payload(answer.body)
                if payload.digest(bytes.fromhex(job.nonce)) == job.input:
                    return replace(bundle, exchange=replace(exchange, input=payload))
            case NeedKind.OUTPUT:
                payload = decode_payload(answer.body)
                if payload.digest(bytes.fromhex(job.nonce)) == claim.output:
                    return replace(bundle, exchange=replace(exchange, output=payload))
            case NeedKind.EVIDENCE:
                return _with_evidence(bundle, answer.body)
            case _:
                pass
    except Malformed:
        pass  # an answer that does not parse answers nothing: the need stays, and says so
    return bundle


def _with_evidence(bundle: Bundle, body: bytes) -> Bundle:
    """Take the evidence whose body this is, if the claim names it, in the claim's order."""
    held = {e.digest: e for e in bundle.evidence}
    named = bundle.exchange.claim.document.evidence
    for name in named:
        piece = Evidence(name.kind, body)
        if piece.digest == name.digest and name.digest not in held:
            held[name.digest] = piece
            present = tuple(held[n.digest] for n in named if n.digest in held)
            return replace(bundle, evidence=present)
    return bundle


def _binds(job: SignedJob) -> bool:
    return job.envelope.is_signed_by_exactly(job.document.signers)


def _names(signed: SignedJob | SignedClaim) -> str:
    return ", ".join(sorted(signed.envelope.signers())) or "no good signature"


def _mismatch(code: str, message: str, need: NeedKind, subject: str, got: str, expected: str) -> Mismatch:
    return Mismatch(Reason(code, message, Fault.NOBODY, got, expected), Need(need, subject))


def _evidence_pieces(evidence: Evidence) -> Iterator[bytes]:
    collateral = {name: base64.b64encode(value).decode() for name, value in evidence.collateral.items()}
    yield b'{"body":'
    yield from canonical.quoted_base64(evidence.body)
    yield b"," + canonical.encode({"collateral": collateral, "kind": evidence.kind})[1:]


def _read_evidence(record: Record) -> Evidence:
    kind = record.text("kind", pattern=NAME_PATTERN)
    body = record.base64("body", max_bytes=MAX_EVIDENCE_BYTES)
    collateral = record.take("collateral")
    record.close()
    if not isinstance(collateral, dict) or len(collateral) > MAX_COLLATERAL_ITEMS:
        raise record.error(f"expected an object of at most {MAX_COLLATERAL_ITEMS} items", "collateral")
    reader = Record(collateral, what="bundle", path="evidence.collateral")
    return Evidence(
        kind, body, {name: reader.base64(name, max_bytes=MAX_EVIDENCE_BYTES) for name in collateral}
    )
