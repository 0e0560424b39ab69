"""Accepting a job, declining it, and the response: output, evidence, signed claim, in one bundle."""

from __future__ import annotations

from collections.abc import Callable

from proofhold.catalogue import Entry, ServiceEntry
from proofhold.core import Evidence
from proofhold.domain import check_input
from proofhold.errors import Misuse
from proofhold.exchange import Bundle, Exchange
from proofhold.execution import run_model
from proofhold.job import (
    REPLAY_KIND,
    Claim,
    Decline,
    NamedEvidence,
    OnnxModel,
    SignedDecline,
    SignedJob,
)
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Payload, Tensors, decode_payload, encode_payload
from proofhold.provider.chat import check_service
from proofhold.provider.prove import Prover
from proofhold.replay.rerun import Rerunner
from proofhold.runner import InlineRunner, Runner
from proofhold.zkproof import KIND as EZKL_KIND
from proofhold.zkproof import proved_output


def accept(job: SignedJob, key: SigningKey, *, entry: Entry | ServiceEntry | None = None) -> SignedJob:
    """Countersign a job that the buyer signed.

    Args:
        job: the buyer's draft.
        key: the provider's.
        entry: the catalogue's entry of the job's model or service. With it, a job that pins other locks, or
            another allow-list, is refused.

    Raises:
        Misuse: the job is not for this key, the buyer has not signed it, or it pins something else.

    """
    document = job.document
    _check_provider(job, key)
    if document.buyer not in job.envelope.signers():
        raise Misuse("the buyer has not signed this job")
    if isinstance(entry, ServiceEntry):
        check_service(job, entry)
    elif entry is not None:
        _check_model(job, entry)
    return job.signed(key)


def decline(job: SignedJob, key: SigningKey) -> SignedDecline:
    """Refuse a job, funded or not: the buyer gets the money back.

    Raises:
        Misuse: the job is not for this key.

    """
    _check_provider(job, key)
    return Signed.new(Decline(job.digest), key)


def respond(
    job: SignedJob,
    payload: Payload,
    entry: Entry,
    key: SigningKey,
    *,
    prover: Prover | None = None,
    trace: bool = False,
    runner: Runner | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Run the model, prove it if there is a prover, sign the claim, and bundle it all.

    Under a proof the claimed output is the proved one, dequantised to float64: the float output of
    onnxruntime is not what was proved.

    Args:
        job: signed by both sides.
        payload: the buyer's input.
        entry: the catalogue's entry of the job's model.
        key: the provider's.
        prover: makes the proof; without one the claim names no evidence and will be sampled.
        trace: commit to the tensors at the model's cuts, so that a check is of one segment. Without it, and
            where the model has no cuts, a claim that is drawn is re-run whole. A proof needs no trace.
        runner: where the model runs; by default in this process, since a provider trusts its own model.
        on_step: told in words what happens.

    Raises:
        Misuse: the job is not ours, is not signed by both, or does not go with this input or model.

    """
    document = job.document
    _check_provider(job, key)
    _check_model(job, entry)
    if not job.envelope.is_signed_by_exactly(document.signers):
        raise Misuse("this job is not signed by both sides: accept it first")
    if payload.digest(bytes.fromhex(document.nonce)) != document.input:
        raise Misuse("this input is not the one that the job names")
    objections = check_input(entry.inputs, payload)
    if objections or not isinstance(payload, Tensors):
        raise Misuse("; ".join(reason.message for reason in objections) or "the model takes tensors")
    kind = REPLAY_KIND if prover is None else EZKL_KIND
    if kind not in document.evidence_kinds:
        raise Misuse(f"the job is judged by {', '.join(document.evidence_kinds)}, not by {kind}")

    evidence: tuple[Evidence, ...] = ()
    trace_root = None
    if trace and prover is not None:
        raise Misuse("a claim with a proof is judged by that proof: it needs no trace")
    if trace and entry.replay is not None and entry.replay.boundaries:
        on_step("running the model, and hashing what crosses its cuts")
        rerunner = Rerunner(entry, runner or InlineRunner())
        traced = rerunner.traced(bytes.fromhex(document.nonce), payload.items)
        output: Payload = Tensors(traced.outputs)
        trace_root = traced.trace.root
    elif prover is None:
        on_step("running the model")
        output = decode_payload(
            (runner or InlineRunner()).run(run_model, entry.model_bytes(), encode_payload(payload))
        )
    else:
        proof = prover.prove(entry, job.digest, payload, on_step=on_step)
        output = proved_output(prover.circuit_of(entry).lock, proof.instances)
        evidence = (Evidence(EZKL_KIND, proof.encode()),)

    claim = Claim(
        job=job.digest,
        seq=0,
        amount=document.price,
        output=output.digest(bytes.fromhex(document.nonce)),
        evidence=tuple(NamedEvidence(kind=piece.kind, digest=piece.digest) for piece in evidence),
        trace_root=trace_root,
    )
    return Bundle(Exchange(job, payload, Signed.new(claim, key), output), evidence)


def _check_provider(job: SignedJob, key: SigningKey) -> None:
    if job.document.provider != key.public:
        raise Misuse(f"this job is for {job.document.provider}, not for {key.public}")


def _check_model(job: SignedJob, entry: Entry) -> None:
    """Refuse a job that pins another model, or other locks, than ours: its proof would be worth nothing."""
    model = job.document.model
    ours = OnnxModel(
        onnx=entry.model,
        circuit_lock=entry.circuit.lock.digest if entry.circuit else None,
        replay_lock=entry.replay.digest if entry.replay else None,
    )
    if model != ours:
        raise Misuse(f"the job pins another model or other locks than {entry.name} in this catalogue")
