"""The words of a judgement: properties, findings, reasons, needs, verdicts.

Plain frozen data. The types hold the rules: an `Accepted` cannot be built with a reason against it or
without a finding for it, and no verdict can be used as a truth value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NoReturn, TypeAlias

from proofhold.canonical import Digest, digest
from proofhold.errors import Misuse


class Property(StrEnum):
    """What evidence can establish about an exchange."""

    MODEL = "model"
    """The named model produced the output."""
    INPUT = "input"
    """It was given the buyer's input."""
    OUTPUT = "output"
    """The claimed output is what it gave."""
    FRESH = "fresh"
    """The evidence was made for this job, and serves no other."""
    PROVIDER = "provider"
    """It was made by the provider that is to be paid."""


class Assurance(StrEnum):
    """On whose word a property holds."""

    PROVED = "proved"
    """A zero-knowledge proof."""
    ATTESTED = "attested"
    """The maker of a trusted execution environment."""
    REEXECUTED = "reexecuted"
    """The verifier ran the model itself."""
    NOT_DRAWN = "not_drawn"
    """Nobody's: it could have been checked, and the draw that nobody could foresee passed it over."""


class Fault(StrEnum):
    """Whose fault a reason is."""

    PROVIDER = "provider"
    BUYER = "buyer"
    VERIFIER = "verifier"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a verdict is not an acceptance: a stable code, and words for people.

    A reason is `measured` when it rests on a measurement rather than on a fact that anyone recomputes to the
    bit: a re-execution outside its tolerance. It opens a dispute; it does not settle blame.
    """

    code: str
    message: str
    fault: Fault
    got: str = ""
    expected: str = ""
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Untrusted bytes of one kind, and the collateral that checking them takes."""

    kind: str
    body: bytes
    collateral: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """What a claim names this evidence by: kind and body. Collateral may be added by anyone."""
        kind_digest = hashlib.sha256(self.kind.encode()).digest()
        return digest("proofhold/evidence/v1", kind_digest, self.body)


@dataclass(frozen=True, slots=True)
class Statement:
    """What all evidence is about: one capture of one job, its amount, its input and its output."""

    job: Digest
    seq: int
    amount: int
    input: Digest
    output: Digest

    @property
    def digest(self) -> Digest:
        """The statement's own name."""
        numbers = self.seq.to_bytes(8, "big") + self.amount.to_bytes(40, "big")
        digests = (bytes.fromhex(d) for d in (self.job, self.input, self.output))
        return digest("proofhold/statement/v1", numbers, *digests)


class NeedKind(StrEnum):
    """What a verifier may have to be handed before it can go on."""

    BUNDLE = "bundle"
    """A bundle that parses."""
    JOB = "job"
    """The job with the signatures of both sides."""
    CLAIM = "claim"
    """A claim on this job that the provider signed."""
    INPUT = "input"
    """The input payload that the job names."""
    OUTPUT = "output"
    """The output payload that the claim names."""
    EVIDENCE = "evidence"
    """Evidence that the claim names and the bundle lacks."""
    REVEAL = "reveal"
    """The sampling secret that the job commits to."""
    CHECK = "check"
    """Nobody needs it: the word that this claim is to be checked, drawn or not (PROTOCOL P11)."""
    COLLATERAL = "collateral"
    """Certificates, revocation lists and the like."""
    OPENING = "opening"
    """The tensors of one segment of a trace."""
    LOCK = "lock"
    """A lock that the job names, audited into the verifier's catalogue."""
    RETRY = "retry"
    """Nothing but another attempt: a check could not finish."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing to hand in, and the digest or index that names it (empty where there is only one)."""

    kind: NeedKind
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody handed in for a need. Untrusted: it is checked against the digest that names it."""

    kind: NeedKind
    body: bytes

    @property
    def digest(self) -> Digest:
        """The answer's own name."""
        kind_digest = hashlib.sha256(self.kind.encode()).digest()
        return digest("proofhold/answer/v1", kind_digest, self.body)


@dataclass(frozen=True, slots=True)
class Offer:
    """What one kind of evidence can show when all goes well: for asking whether a policy can be satisfied."""

    kind: str
    shows: Mapping[Property, Assurance]
    dangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one piece of evidence establishes, on whose word, with the facts that a policy may judge."""

    kind: str
    shows: Mapping[Property, Assurance]
    facts: Mapping[str, str] = field(default_factory=dict)
    dangers: tuple[str, ...] = ()
    """What is unsafe about it, such as ``unsafe-dev-srs``: refused by every policy that does not name it."""
    one_use: tuple[Digest, ...] = ()
    """Digests of signed payloads that may serve once (PROTOCOL P6)."""

    def __post_init__(self) -> None:
        if not self.shows:
            raise Misuse(f"a finding of kind {self.kind} that shows nothing is no finding")
        object.__setattr__(self, "shows", MappingProxyType(dict(self.shows)))
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))


@dataclass(frozen=True, slots=True)
class Refuted:
    """The evidence is false. A refuted proof is not a missing proof: nothing falls back from here."""

    kind: str
    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if not self.reasons:
            raise Misuse("a refutation needs a reason")


@dataclass(frozen=True, slots=True)
class Unclear:
    """The check could not be finished; `needs` says what would let it."""

    kind: str
    reasons: tuple[Reason, ...]
    needs: tuple[Need, ...]

    def __post_init__(self) -> None:
        if not self.needs:
            raise Misuse("an unclear check must say what it needs")


Check: TypeAlias = Finding | Refuted | Unclear


@dataclass(frozen=True, slots=True)
class Inputs:
    """Digests of everything that a verdict was computed from, `now` and policy apart (PROTOCOL P4, P13)."""

    bundle: Digest
    answers: tuple[Answer, ...]
    locks: tuple[Digest, ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What every verdict carries: what it is about, under which policy, as of when, and what it rests on."""

    statement: Statement | None
    policy: Digest
    now: int
    inputs: Inputs
    findings: tuple[Finding, ...] = ()
    reasons: tuple[Reason, ...] = ()

    def __bool__(self) -> NoReturn:
        raise TypeError(f"a verdict is not a truth value: match on {type(self).__name__} instead")

    @cached_property
    def shown(self) -> Mapping[Property, tuple[Assurance, ...]]:
        """Every property that some finding established, with the words it rests on."""
        words: dict[Property, set[Assurance]] = {}
        for finding in self.findings:
            for prop, word in finding.shows.items():
                words.setdefault(prop, set()).add(word)
        return MappingProxyType({prop: tuple(sorted(words[prop])) for prop in Property if prop in words})

    @property
    def not_shown(self) -> tuple[Property, ...]:
        """Every property that no evidence established."""
        shown = self.shown
        return tuple(prop for prop in Property if prop not in shown)


@dataclass(frozen=True, kw_only=True)
class Accepted(Judgement):
    """The evidence satisfies the policy. The only verdict that can release money."""

    def __post_init__(self) -> None:
        if self.reasons:
            raise Misuse("an acceptance with a reason against it cannot be built")
        if not self.findings:
            raise Misuse("an acceptance without a finding cannot be built")
        if self.statement is None:
            raise Misuse("an acceptance of no statement cannot be built")


@dataclass(frozen=True, kw_only=True)
class Rejected(Judgement):
    """The claim is valid, and what it claims is false, or not what the policy demands."""

    def __post_init__(self) -> None:
        if not self.reasons:
            raise Misuse("a rejection needs a reason")
        if self.statement is None:
            raise Misuse("a rejection of no statement cannot be built")

    @property
    def settles_blame(self) -> bool:
        """Whether a fact that anyone can recompute puts the fault on the provider."""
        return any(r.fault is Fault.PROVIDER and not r.measured for r in self.reasons)


@dataclass(frozen=True, kw_only=True)
class Inconclusive(Judgement):
    """Something is missing, damaged or unfinished; nobody is blamed, and `needs` says what would help."""

    needs: tuple[Need, ...]

    def __post_init__(self) -> None:
        if not self.needs:
            raise Misuse("an inconclusive verdict must say what it needs")


Verdict: TypeAlias = Accepted | Rejected | Inconclusive
