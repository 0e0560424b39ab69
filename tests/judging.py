"""What tests of the judging side share: fixed keys, the repository's catalogue, a real proof, and re-signing.

The proof is that of ``tests/fixtures/v1/proved.bundle.json``. With the parties' keys at hand its exchange can
be changed in any one place and signed again, so that the change, and not a broken signature, is judged.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from proofhold.catalogue import Catalogue, Circuit, Entry
from proofhold.core import (
    Answer,
    Check,
    Evidence,
    Finding,
    NeedKind,
    Offer,
    Reason,
    Refuted,
    Unclear,
    Verdict,
)
from proofhold.drafting import USDC
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Claim, Delivery, Job, NamedEvidence, OnnxModel
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Payload, Tensor, Tensors, decode_payload, encode_payload
from proofhold.policy import Policy
from proofhold.runner import ProcessRunner, RunnerError, TaskRaised
from proofhold.sampling import commitment
from proofhold.zkproof import ZkProof

REPOSITORY = Path(__file__).parents[1]
PROVED_BUNDLE = REPOSITORY / "tests" / "fixtures" / "v1" / "proved.bundle.json"
MODEL = "breast_cancer"
POLICY = "dangerous_demo_proved_or_sampled"
NOW = 1_800_000_000
PRICE = USDC.parse("0.5")
RATE_PPM = 200_000


def key_of(name: str) -> SigningKey:
    """The fixed key of a party."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


BUYER, PROVIDER, VERIFIER, STRANGER = map(key_of, ("buyer", "provider", "verifier", "stranger"))
NONCE = hashlib.sha256(b"nonce").digest()
SECRET = hashlib.sha256(b"secret").digest()


@functools.cache
def catalogue() -> Catalogue:
    """The models and circuits of this repository."""
    return Catalogue.load(REPOSITORY)


@functools.cache
def entry() -> Entry:
    """The catalogue's entry of the fixture's model."""
    return catalogue().by_name(MODEL)


def circuit() -> Circuit:
    """The circuit that the fixture's proof was made for."""
    found = entry().circuit
    assert found is not None
    return found


@functools.cache
def policy(name: str = POLICY) -> Policy:
    """A shipped policy; the one that the fixture's job names unless another is asked for."""
    return Policy.shipped(name)


@functools.cache
def runner() -> ProcessRunner:
    """One worker for all tests of a process: native code runs as it does in earnest."""
    return ProcessRunner(1)


def make_job(payload: Payload, /, **changes: Any) -> Job:
    """Make the fixture's job, or one that differs from it in some fields."""
    lock = entry().replay
    assert lock is not None
    job = Job(
        escrow="test-escrow",
        verifier=VERIFIER.public,
        buyer=BUYER.public,
        provider=PROVIDER.public,
        payee=PROVIDER.public,
        model=OnnxModel(entry().model, circuit().lock.digest, lock.digest),
        input=payload.digest(NONCE),
        price=PRICE,
        currency=USDC,
        nonce=NONCE.hex(),
        claim_by=NOW + 3_600,
        verification_s=3_600,
        answer_s=3_600,
        dispute_s=86_400,
        freeze_s=7 * 86_400,
        delivery=Delivery.WITH_VERDICT,
        policy=policy().digest,
        evidence_kinds=("ezkl", "replay"),
        sampling_rate_ppm=RATE_PPM,
        bond=0,
        withholding_penalty=0,
        sampling_commitment=commitment(NONCE, SECRET),
    )
    return replace(job, **changes)


@functools.cache
def proved() -> Bundle:
    """The fixture: an honest exchange with a real proof."""
    return Bundle.decode(PROVED_BUNDLE.read_bytes())


def proved_input() -> Tensors:
    """The fixture's input."""
    payload = proved().exchange.input
    assert isinstance(payload, Tensors)
    return payload


@functools.cache
def proof() -> ZkProof:
    """The fixture's proof."""
    return ZkProof.decode(proved().evidence[0].body)


def resigned(
    bundle: Bundle,
    *,
    output: Payload | None = None,
    evidence: tuple[Evidence, ...] | None = None,
    job: Job | None = None,
    payload: Payload | None = None,
    **claim_changes: Any,
) -> Bundle:
    """Change an exchange in some places and have everybody sign what came of it."""
    exchange = bundle.exchange
    payload = exchange.input if payload is None else payload
    output = exchange.output if output is None else output
    evidence = bundle.evidence if evidence is None else evidence
    document = exchange.job.document if job is None else job
    if payload is not exchange.input:
        document = replace(document, input=payload.digest(bytes.fromhex(document.nonce)))
    signed = Signed.new(document, BUYER, PROVIDER)
    claim = replace(
        exchange.claim.document,
        job=signed.digest,
        output=output.digest(bytes.fromhex(document.nonce)),
        evidence=tuple(NamedEvidence(kind=piece.kind, digest=piece.digest) for piece in evidence),
    )
    claim = replace(claim, **claim_changes)
    return Bundle(Exchange(signed, payload, Signed.new(claim, PROVIDER), output), evidence)


def with_proof(body: bytes | ZkProof, bundle: Bundle | None = None) -> Bundle:
    """The fixture with another body of its evidence, which the provider signed for."""
    body = body.encode() if isinstance(body, ZkProof) else body
    return resigned(bundle or proved(), evidence=(Evidence("ezkl", body),))


@functools.cache
def unproved() -> Bundle:
    """The fixture's exchange answered without evidence: the output is that of onnxruntime, and true."""
    from proofhold.execution import run_model

    encoded = encode_payload(proved().exchange.input)
    output = decode_payload(runner().run(run_model, entry().model_bytes(), encoded))
    return resigned(proved(), output=output, evidence=())


def claim_of(bundle: Bundle) -> Claim:
    """The claim's document."""
    return bundle.exchange.claim.document


def shifted(payload: Payload, by: float, *, dtype: str | None = None) -> Tensors:
    """The payload with a number added to its first element, or its dtype changed."""
    return altered(payload, lambda array: _add(array, by), dtype=dtype)


def altered(payload: Payload, change: Callable[[Any], None], *, dtype: str | None = None) -> Tensors:
    """The payload with a change made in its first tensor."""
    assert isinstance(payload, Tensors)
    first, *others = payload.items
    array = first.numpy().copy()
    change(array)
    return Tensors((Tensor.of(first.name, array.astype(dtype or array.dtype)), *others))


def _add(array: Any, by: float) -> None:
    array.flat[0] += by


def logits(*numbers: float, dtype: str = "float64", name: str = "logits") -> Tensors:
    """An output of the fixture's model, by its numbers."""
    return Tensors.of([(name, np.array([numbers], dtype=dtype))])


def reveal(secret: bytes = SECRET) -> Answer:
    """The answer that opens the job's sampling commitment."""
    return Answer(NeedKind.REVEAL, secret)


def secret_that(draws: bool, bundle_of: Callable[[bytes], Bundle], rate_ppm: int) -> bytes:
    """The first of a fixed row of secrets under which a claim is drawn, or is not."""
    from proofhold.sampling import is_drawn, seed

    for number in range(1_000):
        secret = hashlib.sha256(b"secret %d" % number).digest()
        if is_drawn(seed(secret, bundle_of(secret).exchange.claim.digest), rate_ppm) is draws:
            return secret
    raise AssertionError("no such secret")


class FailingRunner:
    """Gives no result to anything, as a worker that was killed."""

    def __init__(self, error: RunnerError | None = None) -> None:
        self.calls = 0
        self.error = error or TaskRaised("PanicException", "on purpose")

    def run(self, task: Callable[..., bytes], *parts: bytes, deadline_s: float = 1.0) -> bytes:
        self.calls += 1
        raise self.error


class AnsweringRunner:
    """Gives one and the same answer, and remembers what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[tuple[Callable[..., bytes], tuple[bytes, ...], float]] = []

    def run(self, task: Callable[..., bytes], *parts: bytes, deadline_s: float = 1.0) -> bytes:
        self.asked.append((task, parts, deadline_s))
        return self.answer


def said(judged: Verdict | Refuted | Unclear | Finding | Sequence[Reason]) -> set[tuple[str, str]]:
    """The codes of all reasons, each with the party at fault."""
    if isinstance(judged, Finding):
        return set()
    reasons = judged if isinstance(judged, Sequence) else judged.reasons
    return {(reason.code, reason.fault.value) for reason in reasons}


class SayingBackend:
    """Judges whatever it is asked about in one and the same way, and remembers what it was asked."""

    def __init__(self, kind: str, says: Check, *, offers: tuple[Offer, ...] = ()) -> None:
        self._kind, self.says, self._offers = kind, says, offers
        self.asked: list[tuple[Evidence | None, Exchange, Entry, tuple[Answer, ...], int]] = []

    @property
    def kind(self) -> str:
        return self._kind

    def accepts(self, payload: Payload) -> bool:
        return isinstance(payload, Tensors)

    def offers(self, entry: Entry | None) -> tuple[Offer, ...]:
        return self._offers

    def check(
        self,
        evidence: Evidence | None,
        exchange: Exchange,
        entry: Entry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        self.asked.append((evidence, exchange, entry, tuple(answers), now))
        return self.says
