"""Answering for a service: the claim on an answer that an enclave signed."""

from __future__ import annotations

from proofhold.catalogue import ServiceEntry
from proofhold.core import Evidence
from proofhold.errors import Misuse
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Claim, NamedEvidence, Service, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Payload


def respond_with(
    job: SignedJob,
    payload: Payload,
    output: Payload,
    evidence: Evidence,
    entry: ServiceEntry,
    key: SigningKey,
) -> Bundle:
    """Sign the claim on an answer, and bundle it with its evidence.

    Args:
        job: signed by both sides.
        payload: the buyer's request.
        output: the signed part of the answer (`chat.signed_part`).
        evidence: what the enclave stated beside it.
        entry: the catalogue's entry of the job's service.
        key: the provider's.

    Raises:
        Misuse: the job is not ours, is not signed by both, or does not go with this request or service.

    """
    document = job.document
    if document.provider != key.public:
        raise Misuse(f"this job is for {document.provider}, not for {key.public}")
    check_service(job, entry)
    if not job.envelope.is_signed_by_exactly(document.signers):
        raise Misuse("this job is not signed by both sides: accept it first")
    nonce = bytes.fromhex(document.nonce)
    if payload.digest(nonce) != document.input:
        raise Misuse("this input is not the one that the job names")
    if evidence.kind not in document.evidence_kinds:
        raise Misuse(f"the job is judged by {', '.join(document.evidence_kinds)}, not by {evidence.kind}")
    claim = Claim(
        job=job.digest,
        seq=0,
        amount=document.price,
        output=output.digest(nonce),
        evidence=(NamedEvidence(kind=evidence.kind, digest=evidence.digest),),
    )
    return Bundle(Exchange(job, payload, Signed.new(claim, key), output), (evidence,))


def check_service(job: SignedJob, entry: ServiceEntry) -> None:
    """Refuse a job that pins another service, or another allow-list, than ours.

    Raises:
        Misuse: it does.

    """
    if job.document.model != Service(entry.name, entry.digest):
        raise Misuse(f"the job pins another service or allow-list than {entry.name} in this catalogue")
