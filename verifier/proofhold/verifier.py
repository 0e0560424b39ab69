"""From evidence to a verdict: who judges, in what order, and what is left to ask for.

`Verifier.verify` is a pure function of its arguments. It never fetches, waits or asks: what it lacks it
names as needs, and the caller comes again with answers. The order is that of the protocol:

1. What job and claim do not vouch for blames nobody; the true bytes are asked for (P1).
2. The job's model and locks must be those that this verifier's catalogue audited (P14).
3. The claim must be one that the job allows.
4. Every piece of evidence is judged by the backend of its kind; a claim without evidence by re-execution.
   A refuted proof is a rejection and never falls back (P17).
5. The policy judges the findings, never the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from proofhold.canonical import Digest
from proofhold.catalogue import Catalogue, Entry, ServiceEntry
from proofhold.core import (
    Accepted,
    Answer,
    Check,
    Evidence,
    Fault,
    Finding,
    Inconclusive,
    Inputs,
    Need,
    NeedKind,
    Offer,
    Reason,
    Refuted,
    Rejected,
    Statement,
    Unclear,
    Verdict,
)
from proofhold.domain import check_input
from proofhold.errors import Misuse
from proofhold.exchange import PARTS, Bundle, Exchange, mismatches
from proofhold.job import REPLAY_KIND, Job, OnnxModel, Service, statement_of
from proofhold.payload import Payload
from proofhold.policy import Policy


class Backend(Protocol):
    """Turns evidence of one kind into a finding, a refutation or "unclear".

    Pure: no network and no clock of its own. It is given the catalogue's entry and never the policy.
    """

    @property
    def kind(self) -> str:
        """The kind of evidence, as claims and jobs name it."""

    def accepts(self, payload: Payload) -> bool:
        """Tell whether evidence of this kind can speak of such a payload."""

    def offers(self, entry: Entry | None) -> tuple[Offer, ...]:
        """Say what evidence of this kind could show about a model, or about any at best (None).

        Several are alternatives; none says that there can be no such evidence.
        """

    def check(
        self,
        evidence: Evidence | None,
        exchange: Exchange,
        entry: Entry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        """Judge one piece of evidence about an exchange whose digests and signatures were checked.

        Args:
            evidence: what the claim names, or None for the kind that judges claims without evidence.
            exchange: the exchange it is about.
            entry: what the catalogue pins about the job's model.
            answers: what was handed in so far; untrusted.
            now: the escrow's recorded time of the claim, unix seconds.

        """


class ServiceBackend(Protocol):
    """Turns evidence of one kind about a service's answer into a finding, a refutation or "unclear".

    A `Backend` whose entry is the service's allow-list. It also says which requests its kind can bind: what
    the service's signature leaves out, a provider may ignore, so nobody should pay for it.
    """

    @property
    def kind(self) -> str:
        """The kind of evidence, as claims and jobs name it."""

    def accepts(self, payload: Payload) -> bool:
        """Tell whether evidence of this kind can speak of such a payload."""

    def offers(self, entry: ServiceEntry | None) -> tuple[Offer, ...]:
        """Say what evidence of this kind could show about a service, or about any at best (None)."""

    def objections(self, entry: ServiceEntry, payload: Payload) -> tuple[Reason, ...]:
        """Say why evidence of this kind could never bind such a request; the buyer's fault."""

    def check(
        self,
        evidence: Evidence,
        exchange: Exchange,
        entry: ServiceEntry,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        """Judge one piece of evidence; as `Backend.check`."""


@dataclass(frozen=True)
class Verifier:
    """A catalogue and the kinds of evidence that it can judge.

    `backends` judge evidence by its kind; `fallback` judges claims that name none; `services` judge evidence
    about the answers of services.
    """

    catalogue: Catalogue
    backends: tuple[Backend, ...]
    fallback: Backend | None = None
    services: tuple[ServiceBackend, ...] = ()

    def __post_init__(self) -> None:
        kinds = [*(judge.kind for judge in self.judges), *(service.kind for service in self.services)]
        if not kinds or len(set(kinds)) != len(kinds):
            raise Misuse(
                f"a verifier has at least one backend and one a kind, got {', '.join(kinds) or 'none'}"
            )

    @property
    def judges(self) -> tuple[Backend, ...]:
        """All backends for models, the fallback last."""
        return self.backends if self.fallback is None else (*self.backends, self.fallback)

    def offers(self, job: Job) -> tuple[Offer, ...]:
        """Say what the kinds of evidence that a job names could show about its model."""
        entry = self._pinned_entry(job)
        match entry:
            case Reason():
                return ()
            case ServiceEntry():
                named = [b.offers(entry) for b in self.services if b.kind in job.evidence_kinds]
            case Entry():
                named = [b.offers(entry) for b in self.judges if b.kind in job.evidence_kinds]
        return tuple(offer for offers in named for offer in offers)

    def objections_to(self, job: Job, payload: Payload) -> tuple[Reason, ...]:
        """Say what is wrong with a job's model, locks and input, before anyone pays for it (P9)."""
        entry = self._pinned_entry(job)
        if isinstance(entry, Reason):
            return (entry,)
        judges = self.services if isinstance(entry, ServiceEntry) else self.judges
        unknown = sorted(set(job.evidence_kinds) - {backend.kind for backend in judges})
        reasons = [_unknown_kind(kind) for kind in unknown]
        return (*reasons, *self._input_objections(entry, job, payload))

    def verify(
        self,
        exchange: Exchange,
        evidence: Sequence[Evidence] = (),
        *,
        policy: Policy,
        now: int,
        answers: Sequence[Answer] = (),
    ) -> Verdict:
        """Judge an exchange by its evidence under a policy.

        Args:
            exchange: what was agreed, given, claimed and returned; untrusted.
            evidence: what the provider sent along; untrusted.
            policy: what the buyer demands.
            now: the escrow's recorded time of the claim, unix seconds (P8).
            answers: what was handed in for the needs of an earlier verdict; untrusted.

        Returns:
            A verdict with every reason, never a truth value. Bad data is a verdict; it does not raise.

        """
        bundle = Bundle(exchange, tuple(evidence)).repaired(answers)
        exchange = bundle.exchange
        job, claim = exchange.job.document, exchange.claim.document
        # What repaired the bundle is in its digest now: the verdict rests on the rest of the answers.
        answers = tuple(answer for answer in answers if answer.kind not in PARTS)
        draft = _Draft(None, policy.digest, now, Inputs(bundle.digest, answers, _locks_of(job)))

        damaged = mismatches(bundle)  # step 1
        if damaged:
            return draft.inconclusive([m.reason for m in damaged], [m.need for m in damaged])
        draft = replace(draft, statement=statement_of(job, claim))

        entry = self._pinned_entry(job)  # step 2
        if isinstance(entry, Reason):
            return draft.inconclusive([entry], [Need(NeedKind.LOCK)])

        against = [  # step 3
            *_claim_objections(exchange),
            *self._input_objections(entry, job, exchange.input),
        ]
        if against:
            return draft.rejected(against)

        checks = self._check_all(bundle, entry, answers, now)  # step 4
        findings = tuple(check for check in checks if isinstance(check, Finding))
        refuted = [reason for check in checks if isinstance(check, Refuted) for reason in check.reasons]
        if refuted:
            return draft.rejected(refuted, findings)
        unclear = [check for check in checks if isinstance(check, Unclear)]
        if unclear:
            reasons = [reason for check in unclear for reason in check.reasons]
            needs = [need for check in unclear for need in check.needs]
            return draft.inconclusive(reasons, needs, findings)

        objections = policy.objections(  # step 5
            findings,
            price=job.price,
            currency=job.currency,
            sampling_rate_ppm=job.sampling_rate_ppm,
        )
        return draft.rejected(objections, findings) if objections else draft.accepted(findings)

    def _input_objections(
        self, entry: Entry | ServiceEntry, job: Job, payload: Payload
    ) -> tuple[Reason, ...]:
        """Compare the input with the model's domain, or with what the job's kinds of evidence can bind."""
        if isinstance(entry, Entry):
            return check_input(entry.inputs, payload)
        named = [backend for backend in self.services if backend.kind in job.evidence_kinds]
        return tuple(
            dict.fromkeys(reason for backend in named for reason in backend.objections(entry, payload))
        )

    def _pinned_service(self, model: Service) -> ServiceEntry | Reason:
        """Find the catalogue's entry, if the allow-list is the one that the job pins."""
        entry = self.catalogue.service(model.name)
        if entry is None:
            text = "the job's service is not in this verifier's catalogue"
            return Reason("catalogue.service", text, Fault.VERIFIER, model.name, "a known service")
        if entry.digest != model.allowlist:
            text = "the job pins another allow-list than this verifier's catalogue"
            return Reason("catalogue.allowlist", text, Fault.VERIFIER, model.allowlist, entry.digest)
        return entry

    def _pinned_entry(self, job: Job) -> Entry | ServiceEntry | Reason:
        """Find the catalogue's entry, if model and locks are those that the job pins."""
        if isinstance(job.model, Service):
            return self._pinned_service(job.model)
        entry = self.catalogue.by_digest(job.model.onnx)
        if entry is None:
            text = "the job's model is not in this verifier's catalogue"
            return Reason("catalogue.unknown_model", text, Fault.VERIFIER, job.model.onnx, "a known model")
        if not entry.locks:
            text = "no audited lock of the job's model is in this verifier's catalogue"
            return Reason("catalogue.no_lock", text, Fault.VERIFIER, entry.name, "an audited lock")
        ours = (
            entry.circuit.lock.digest if entry.circuit else None,
            entry.replay.digest if entry.replay else None,
        )
        theirs = (job.model.circuit_lock, job.model.replay_lock)
        if ours != theirs:
            text = "the job pins other locks than this verifier's catalogue"
            return Reason("catalogue.lock_digest", text, Fault.VERIFIER, _show(theirs), _show(ours))
        return entry

    def _check_all(
        self, bundle: Bundle, entry: Entry | ServiceEntry, answers: Sequence[Answer], now: int
    ) -> list[Check]:
        if isinstance(entry, ServiceEntry):
            return self._check_service(bundle, entry, answers, now)
        if not bundle.evidence:
            # Only a claim that names nothing gets here: a refuted proof is not a missing proof (P17).
            return [self._check_one(self.fallback, None, bundle.exchange, entry, answers, now)]
        by_kind = {backend.kind: backend for backend in self.backends}
        return [
            self._check_one(by_kind.get(piece.kind), piece, bundle.exchange, entry, answers, now)
            for piece in bundle.evidence
        ]

    def _check_one(
        self,
        backend: Backend | None,
        piece: Evidence | None,
        exchange: Exchange,
        entry: Entry,
        answers: Sequence[Answer],
        now: int,
    ) -> Check:
        kind = REPLAY_KIND if piece is None else piece.kind
        if backend is None:
            return _unjudged(kind)
        if not (backend.accepts(exchange.input) and backend.accepts(exchange.output)):
            return _speechless(kind)
        return backend.check(piece, exchange, entry, answers=answers, now=now)

    def _check_service(
        self, bundle: Bundle, entry: ServiceEntry, answers: Sequence[Answer], now: int
    ) -> list[Check]:
        """Judge a service's answer. Nobody can run one again: a claim without evidence stays open."""
        exchange = bundle.exchange
        by_kind = {backend.kind: backend for backend in self.services}
        checks: list[Check] = [] if bundle.evidence else [_unjudged(REPLAY_KIND)]
        for piece in bundle.evidence:
            backend = by_kind.get(piece.kind)
            if backend is None:
                checks.append(_unjudged(piece.kind))
            elif not (backend.accepts(exchange.input) and backend.accepts(exchange.output)):
                checks.append(_speechless(piece.kind))
            else:
                checks.append(backend.check(piece, exchange, entry, answers=answers, now=now))
        return checks


@dataclass(frozen=True)
class _Draft:
    """What every verdict on one exchange has in common."""

    statement: Statement | None
    policy: Digest
    now: int
    inputs: Inputs

    def accepted(self, findings: tuple[Finding, ...]) -> Accepted:
        return Accepted(
            statement=self.statement, policy=self.policy, now=self.now, inputs=self.inputs, findings=findings
        )

    def rejected(self, reasons: Iterable[Reason], findings: tuple[Finding, ...] = ()) -> Rejected:
        return Rejected(
            statement=self.statement,
            policy=self.policy,
            now=self.now,
            inputs=self.inputs,
            findings=findings,
            reasons=tuple(reasons),
        )

    def inconclusive(
        self, reasons: Iterable[Reason], needs: Iterable[Need], findings: tuple[Finding, ...] = ()
    ) -> Inconclusive:
        return Inconclusive(
            statement=self.statement,
            policy=self.policy,
            now=self.now,
            inputs=self.inputs,
            findings=findings,
            reasons=tuple(reasons),
            needs=tuple(dict.fromkeys(needs)),
        )


def _claim_objections(exchange: Exchange) -> list[Reason]:
    """Compare the claim with what the job allows (step 3). The claim is signed: the provider is at fault."""
    job, claim = exchange.job.document, exchange.claim.document
    reasons = []
    if claim.seq >= job.captures:
        got, expected = str(claim.seq), f"below {job.captures}"
        reasons.append(_against("claim.seq", "the job has no such capture", got, expected))
    if claim.amount > job.price:
        got, expected = job.currency.show(claim.amount), f"at most {job.currency.show(job.price)}"
        reasons.append(_against("claim.amount", "the claim asks for more than the price", got, expected))
    kinds = {piece.kind for piece in claim.evidence}
    allowed = set(job.evidence_kinds)
    if not claim.evidence and REPLAY_KIND not in allowed:
        expected = ", ".join(job.evidence_kinds)
        reasons.append(_against("claim.no_evidence", "the job asks for evidence", "none", expected))
    if not kinds <= allowed or REPLAY_KIND in kinds:
        got, expected = ", ".join(sorted(kinds)), ", ".join(job.evidence_kinds)
        text = "the claim names a kind of evidence that the job does not allow"
        reasons.append(_against("claim.evidence_kind", text, got, expected))
    return reasons


def _against(code: str, message: str, got: str, expected: str) -> Reason:
    return Reason(code, message, Fault.PROVIDER, got, expected)


def _unjudged(kind: str) -> Unclear:
    return Unclear(kind, (_unknown_kind(kind),), (Need(NeedKind.RETRY),))


def _speechless(kind: str) -> Refuted:
    text = f"evidence of kind {kind} cannot speak of such a payload"
    return Refuted(kind, (Reason("evidence.payload", text, Fault.PROVIDER),))


def _unknown_kind(kind: str) -> Reason:
    text = f"no backend of this verifier judges evidence of kind {kind}"
    return Reason("backend.unknown_kind", text, Fault.VERIFIER, kind, "a known kind")


def _locks_of(job: Job) -> tuple[Digest, ...]:
    """Give the locks that a job pins, or the allow-list that stands in their place."""
    if isinstance(job.model, OnnxModel):
        return tuple(lock for lock in (job.model.circuit_lock, job.model.replay_lock) if lock is not None)
    return (job.model.allowlist,)


def _show(digests: tuple[Digest | None, ...]) -> str:
    return ", ".join(digest or "none" for digest in digests)
