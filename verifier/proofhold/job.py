"""The signed documents of the protocol: job, claim, decline, resolution.

Their fields are those of the protocol; docs/formats/documents.md states the encodings. Amounts are atomic
units here and decimal strings in the encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self, TypeAlias

from proofhold.canonical import Digest, Json, digest
from proofhold.core import Statement
from proofhold.errors import Misuse
from proofhold.keys import KEY_PATTERN, Key, Signed
from proofhold.money import Currency
from proofhold.records import Record

NONCE_BYTES = 32
JOB_TAG_BYTES = 16
PPM = 1_000_000
"""Sampling rates are integers in parts per million."""
MAX_PERIOD_S = 10 * 366 * 86_400
MAX_EVIDENCE = 8
MAX_CAPTURES = 1_000_000

REPLAY_KIND = "replay"
"""The kind of evidence that a claim without evidence is judged by: re-execution, by the verifier."""

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
ACCOUNT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9:._-]{0,127}"


class Delivery(StrEnum):
    """When the escrow hands the output to the buyer (PROTOCOL P10)."""

    WITH_VERDICT = "with_verdict"
    IMMEDIATE = "immediate"


class Payer(StrEnum):
    """Who pays for the checks (PROTOCOL P18)."""

    BUYER = "buyer"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An ONNX file by the SHA-256 of its bytes, with the locks that pin how it is proved and re-executed."""

    onnx: Digest
    circuit_lock: Digest | None
    replay_lock: Digest | None

    def to_json(self) -> Json:
        """Give the reference as JSON."""
        return {
            "circuit_lock": self.circuit_lock,
            "kind": "onnx",
            "onnx": self.onnx,
            "replay_lock": self.replay_lock,
        }


@dataclass(frozen=True, slots=True)
class Service:
    """A chat endpoint by name, with the digest of the allow-list of what may run behind it."""

    name: str
    allowlist: Digest

    def to_json(self) -> Json:
        """Give the reference as JSON."""
        return {"allowlist": self.allowlist, "kind": "service", "name": self.name}


ModelReference: TypeAlias = OnnxModel | Service


@dataclass(frozen=True, slots=True)
class Fee:
    """What somebody else, such as whoever runs the escrow, gets of every amount that is released."""

    account: str
    ppm: int
    """Parts per million of the amount, rounded down."""

    def to_json(self) -> Json:
        """Give the fee as JSON."""
        return {"account": self.account, "ppm": self.ppm}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One paid inference, as buyer and provider sign it before it is funded."""

    escrow: str
    verifier: Key
    buyer: Key
    provider: Key
    payee: str
    model: ModelReference
    input: Digest
    price: int
    currency: Currency
    nonce: str
    claim_by: int
    """Unix seconds: a claim recorded later is none."""
    verification_s: int
    answer_s: int
    dispute_s: int
    freeze_s: int
    """How long a frozen bond waits for an adjudication before it is free."""
    delivery: Delivery
    policy: Digest
    evidence_kinds: tuple[str, ...]
    """What the claim may be judged by, ``replay`` (re-execution by the verifier) among it; sorted."""
    sampling_rate_ppm: int
    bond: int
    withholding_penalty: int
    sampling_commitment: Digest
    projection_commitment: Digest | None = None
    checks_paid_by: Payer = Payer.BUYER
    captures: int = 1
    """How many claims the hold takes at most, each for more than the one before."""
    fee: Fee | None = None

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.job.v1+json"
    FORMAT: ClassVar[str] = "job"

    def __post_init__(self) -> None:
        if list(self.evidence_kinds) != sorted(set(self.evidence_kinds)) or not self.evidence_kinds:
            raise Misuse("evidence_kinds: expected at least one kind, each once, in order")
        if self.buyer == self.provider:
            raise Misuse("buyer and provider are one key: nothing is at stake between them")

    def to_json(self) -> Json:
        """Give the job as JSON, version 1."""
        money = self.currency.format
        # Left out where there is none, so that jobs without one are what they were before there were fees.
        fee: dict[str, Json] = {} if self.fee is None else {"fee": self.fee.to_json()}
        return fee | {
            "bond": money(self.bond),
            "buyer": self.buyer,
            "captures": self.captures,
            "checks_paid_by": self.checks_paid_by,
            "currency": {"code": self.currency.code, "exponent": self.currency.exponent},
            "deadlines": {
                "answer_s": self.answer_s,
                "claim_by": self.claim_by,
                "dispute_s": self.dispute_s,
                "freeze_s": self.freeze_s,
                "verification_s": self.verification_s,
            },
            "delivery": self.delivery,
            "escrow": self.escrow,
            "evidence_kinds": list(self.evidence_kinds),
            "input": self.input,
            "model": self.model.to_json(),
            "nonce": self.nonce,
            "payee": self.payee,
            "policy": self.policy,
            "price": money(self.price),
            "projection_commitment": self.projection_commitment,
            "provider": self.provider,
            "sampling_commitment": self.sampling_commitment,
            "sampling_rate_ppm": self.sampling_rate_ppm,
            "verifier": self.verifier,
            "version": 1,
            "withholding_penalty": money(self.withholding_penalty),
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read a job.

        Raises:
            Malformed: anything but a version 1 job, amounts in another than their shortest form included.

        """
        record.version(1)
        currency = _read_currency(record.record("currency"))
        deadlines = record.record("deadlines")
        kinds = [
            Record({"kind": kind}, what="job", path="evidence_kinds").text("kind", pattern=NAME_PATTERN)
            for kind in record.items("evidence_kinds", max_items=MAX_EVIDENCE)
        ]
        try:
            job = cls(
                escrow=record.text("escrow", pattern=NAME_PATTERN),
                verifier=record.text("verifier", pattern=KEY_PATTERN),
                buyer=record.text("buyer", pattern=KEY_PATTERN),
                provider=record.text("provider", pattern=KEY_PATTERN),
                payee=record.text("payee", pattern=ACCOUNT_PATTERN),
                model=_read_model(record.record("model")),
                input=record.digest("input"),
                price=read_amount(record, "price", currency),
                currency=currency,
                nonce=record.hexadecimal("nonce", length_bytes=NONCE_BYTES),
                claim_by=deadlines.integer("claim_by"),
                verification_s=deadlines.integer("verification_s", low=1, high=MAX_PERIOD_S),
                answer_s=deadlines.integer("answer_s", low=1, high=MAX_PERIOD_S),
                dispute_s=deadlines.integer("dispute_s", high=MAX_PERIOD_S),
                freeze_s=deadlines.integer("freeze_s", high=MAX_PERIOD_S),
                delivery=record.choice("delivery", Delivery),
                policy=record.digest("policy"),
                evidence_kinds=tuple(kinds),
                sampling_rate_ppm=record.integer("sampling_rate_ppm", high=PPM),
                bond=read_amount(record, "bond", currency),
                withholding_penalty=read_amount(record, "withholding_penalty", currency),
                sampling_commitment=record.digest("sampling_commitment"),
                projection_commitment=record.optional("projection_commitment", record.digest),
                checks_paid_by=record.choice("checks_paid_by", Payer),
                captures=record.integer("captures", low=1, high=MAX_CAPTURES),
                fee=_read_fee(record.record("fee")) if record.has("fee") else None,
            )
        except Misuse as error:
            raise record.error(str(error)) from error
        deadlines.close()
        return job

    @property
    def signers(self) -> tuple[Key, Key]:
        """Who must have signed before the job binds anyone (PROTOCOL P9)."""
        return (self.buyer, self.provider)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEvidence:
    """A piece of evidence as a claim names it."""

    kind: str
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The provider's signed response to a job: the only thing that anyone can be blamed for.

    It carries its amount as atomic units in a decimal string, since the currency stands in the job.
    """

    job: Digest
    seq: int
    amount: int
    """Cumulative over the captures of the hold, in atomic units."""
    output: Digest
    evidence: tuple[NamedEvidence, ...] = ()
    trace_root: Digest | None = None

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.claim.v1+json"
    FORMAT: ClassVar[str] = "claim"

    def to_json(self) -> Json:
        """Give the claim as JSON, version 1."""
        return {
            "amount_atomic": str(self.amount),
            "evidence": [{"digest": e.digest, "kind": e.kind} for e in self.evidence],
            "job": self.job,
            "output": self.output,
            "seq": self.seq,
            "trace_root": self.trace_root,
            "version": 1,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read a claim.

        Raises:
            Malformed: anything but a version 1 claim.

        """
        record.version(1)
        return cls(
            job=record.digest("job"),
            seq=record.integer("seq", high=MAX_CAPTURES),
            amount=int(record.text("amount_atomic", pattern=r"0|[1-9][0-9]{0,77}")),
            output=record.digest("output"),
            evidence=tuple(
                _read_named_evidence(r) for r in record.records("evidence", max_items=MAX_EVIDENCE)
            ),
            trace_root=record.optional("trace_root", record.digest),
        )


@dataclass(frozen=True, slots=True)
class Decline:
    """The provider's signed refusal of a funded job: the buyer gets the money back at once."""

    job: Digest

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.decline.v1+json"
    FORMAT: ClassVar[str] = "decline"

    def to_json(self) -> Json:
        """Give the decline as JSON, version 1."""
        return {"job": self.job, "version": 1}

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read a decline.

        Raises:
            Malformed: anything but a version 1 decline.

        """
        record.version(1)
        return cls(record.digest("job"))


class ResolutionOutcome(StrEnum):
    """What an operator can decide on a disputed hold."""

    RELEASE = "release"
    REFUND = "refund"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """An operator's signed decision on a disputed capture, with the reason in words."""

    job: Digest
    seq: int
    outcome: ResolutionOutcome
    reason: str

    PAYLOAD_TYPE: ClassVar[str] = "application/vnd.proofhold.resolution.v1+json"
    FORMAT: ClassVar[str] = "resolution"

    def to_json(self) -> Json:
        """Give the resolution as JSON, version 1."""
        return {
            "job": self.job,
            "outcome": self.outcome,
            "reason": self.reason,
            "seq": self.seq,
            "version": 1,
        }

    @classmethod
    def read(cls, record: Record) -> Self:
        """Read a resolution.

        Raises:
            Malformed: anything but a version 1 resolution.

        """
        record.version(1)
        return cls(
            job=record.digest("job"),
            seq=record.integer("seq", high=MAX_CAPTURES),
            outcome=record.choice("outcome", ResolutionOutcome),
            reason=record.text("reason"),
        )


SignedJob: TypeAlias = Signed[Job]
SignedClaim: TypeAlias = Signed[Claim]
SignedDecline: TypeAlias = Signed[Decline]
SignedResolution: TypeAlias = Signed[Resolution]


def job_tag(job: Digest) -> bytes:
    """Give the 16 bytes of a job's digest that enter the circuit (PROTOCOL P7)."""
    return bytes.fromhex(digest("proofhold/job-tag/v1", bytes.fromhex(job)))[:JOB_TAG_BYTES]


def parse_rate(text: str) -> int:
    """Read a sampling rate as people write it, such as ``0.2``, as parts per million, exactly.

    Raises:
        Misuse: not a decimal of at most six places, or more than 1.

    """
    ppm = Currency("RATE", 6).parse(text)
    if ppm > PPM:
        raise Misuse(f"sampling rate: got {text}, expected at most 1")
    return ppm


def statement_of(job: Job, claim: Claim) -> Statement:
    """Say what the evidence of a claim is about."""
    return Statement(claim.job, claim.seq, claim.amount, job.input, claim.output)


def read_amount(record: Record, field: str, currency: Currency) -> int:
    """Take an amount in its one encoding: the shortest decimal string.

    Raises:
        Malformed: not a decimal, finer than the atomic unit, or not the shortest form.

    """
    text = record.text(field)
    try:
        atomic = currency.parse(text)
    except Misuse as error:
        raise record.error(str(error), field) from error
    if currency.format(atomic) != text:
        raise record.error(f"got {text!r}, expected {currency.format(atomic)!r}", field)
    return atomic


def _read_fee(record: Record) -> Fee:
    fee = Fee(record.text("account", pattern=ACCOUNT_PATTERN), record.integer("ppm", low=1, high=PPM - 1))
    record.close()
    return fee


def _read_currency(record: Record) -> Currency:
    code, exponent = record.text("code"), record.integer("exponent")
    record.close()
    try:
        return Currency(code, exponent)
    except Misuse as error:
        raise record.error(str(error)) from error


def _read_model(record: Record) -> ModelReference:
    readers: dict[str, Callable[[Record], ModelReference]] = {"onnx": _read_onnx, "service": _read_service}
    kind = record.text("kind")
    if kind not in readers:
        raise record.error(f"got {kind[:80]!r}, expected onnx or service", "kind")
    model = readers[kind](record)
    record.close()
    return model


def _read_onnx(record: Record) -> OnnxModel:
    return OnnxModel(
        onnx=record.digest("onnx"),
        circuit_lock=record.optional("circuit_lock", record.digest),
        replay_lock=record.optional("replay_lock", record.digest),
    )


def _read_service(record: Record) -> Service:
    return Service(record.text("name", pattern=NAME_PATTERN), record.digest("allowlist"))


def _read_named_evidence(record: Record) -> NamedEvidence:
    named = NamedEvidence(kind=record.text("kind", pattern=NAME_PATTERN), digest=record.digest("digest"))
    record.close()
    return named
