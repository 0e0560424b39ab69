"""A receipt: a verdict that its verifier signed, which anyone can check offline and recompute (PROTOCOL P13).

The envelope is DSSE, the layout an in-toto Statement v1 (https://in-toto.io/Statement/v1) whose subject is
what was judged and whose predicate is the judgement; docs/formats/receipt.md states every field. Parsing
enforces what the verdict types enforce, by building one: a receipt that says "accepted" and gives a reason
against, or shows nothing, is malformed whoever signed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from proofhold import canonical
from proofhold.canonical import Digest, Json
from proofhold.core import (
    Accepted,
    Answer,
    Assurance,
    Fault,
    Finding,
    Inconclusive,
    Inputs,
    Judgement,
    Need,
    NeedKind,
    Property,
    Reason,
    Rejected,
    Statement,
    Verdict,
)
from proofhold.errors import Malformed, Misuse
from proofhold.job import MAX_CAPTURES, NAME_PATTERN
from proofhold.keys import MAX_DOCUMENT_BYTES, Envelope, Key, SigningKey
from proofhold.records import Record
from proofhold.version import __version__

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:proofhold:receipt:v1"

MAX_REASONS = 128
MAX_FINDINGS = 16
MAX_FACTS = 32
MAX_DANGERS = 16
MAX_ONE_USE = 16
MAX_NEEDS = 32
MAX_ANSWERS = 64
MAX_LOCKS = 16
MAX_REVEAL_BYTES = 256
OPEN_TO_ALL: Final = frozenset((NeedKind.REVEAL, NeedKind.CHECK))
"""Answers that a receipt carries in full: with them anybody repeats the draw."""
MAX_MESSAGE_CHARS = 512
MAX_DETAIL_CHARS = 256
"""Longest ``got``, ``expected`` and fact."""

CODE_PATTERN: Final = r"[a-z0-9_]{1,64}(\.[a-z0-9_]{1,64}){0,4}"
SUBJECT_PATTERN: Final = r"[a-zA-Z0-9:._-]{0,128}"
VERSION_PATTERN: Final = r"[0-9][0-9a-zA-Z.+!-]{0,63}"
AMOUNT_PATTERN: Final = r"0|[1-9][0-9]{0,77}"


class Outcome(StrEnum):
    """What a verdict came to."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class NamedAnswer:
    """An answer that a verdict rests on, by its digest; a revealed secret in full, for all to check."""

    kind: NeedKind
    digest: Digest
    body: bytes | None = None

    @classmethod
    def of(cls, answer: Answer) -> NamedAnswer:
        """Name an answer. A reveal that is no secret of any job's, being too long, is only named."""
        open_to_all = answer.kind in OPEN_TO_ALL and len(answer.body) <= MAX_REVEAL_BYTES
        return cls(answer.kind, answer.digest, answer.body if open_to_all else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A signed judgement, parsed. Made by `issue` or `decode`: the signature of `signer` was good then."""

    outcome: Outcome
    statement: Statement | None
    """What was judged; None where not even that could be read, and then the outcome is inconclusive."""
    policy: Digest
    now: int
    """As of when (unix seconds): the escrow's recorded time of the claim."""
    bundle: Digest
    answers: tuple[NamedAnswer, ...]
    locks: tuple[Digest, ...]
    findings: tuple[Finding, ...]
    reasons: tuple[Reason, ...]
    needs: tuple[Need, ...]
    version: str
    """Of proofhold, the one that judged."""
    settles_blame: bool
    """Whether it is a rejection for a fact that puts the fault on the provider and that anyone recomputes."""
    shown: Mapping[Property, tuple[Assurance, ...]]
    not_shown: tuple[Property, ...]
    envelope: Envelope

    @classmethod
    def issue(cls, verdict: Verdict, key: SigningKey) -> Receipt:
        """Sign a verdict. Texts are cut to their bounds; nothing else is.

        Raises:
            Misuse: more reasons, findings or answers than a receipt holds, or codes of another form.

        """
        statement = _statement_to_json(verdict)
        payload = canonical.encode(statement)
        if len(payload) > MAX_DOCUMENT_BYTES:
            raise Misuse(f"a receipt of {len(payload)} bytes, expected at most {MAX_DOCUMENT_BYTES}")
        envelope = Envelope(PAYLOAD_TYPE, payload).signed(key)
        try:
            # Through the parser: what a verifier signs, others must be able to read.
            return _read(statement, envelope)
        except Malformed as error:
            raise Misuse(f"this verdict does not fit into a receipt: {error.message}") from error

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Read a receipt file. Whether its signer may be trusted is the caller's to ask, of a trust store.

        Raises:
            Malformed: ``receipt.malformed`` and the like; ``receipt.signature``: not exactly one signature,
                or not a good one; ``receipt.inconsistent``: it says what no verdict can say.

        """
        value = canonical.decode(data, max_bytes=2 * MAX_DOCUMENT_BYTES, what="receipt")
        envelope = Envelope.read(Record(value, what="receipt"), PAYLOAD_TYPE)
        if len(envelope.signatures) != 1 or len(envelope.signers()) != 1:
            raise Malformed("receipt.signature", "receipt: expected exactly one signature, and a good one")
        statement = canonical.decode(envelope.payload, max_bytes=MAX_DOCUMENT_BYTES, what="receipt")
        return _read(statement, envelope)

    def encode(self) -> bytes:
        """Write the receipt: the canonical JSON of its envelope."""
        return canonical.encode(self.envelope.to_json())

    @property
    def digest(self) -> Digest:
        """The receipt's name: what it says, and on whose word."""
        signer = bytes.fromhex(self.signer.removeprefix("ed25519:"))
        return canonical.digest("proofhold/receipt/v1", signer, self.envelope.payload)

    @property
    def signer(self) -> Key:
        """The key that signed."""
        ((key, _),) = self.envelope.signatures
        return key

    def is_signed_by(self, key: Key) -> bool:
        """Tell whether this key signed, and signed well."""
        return self.envelope.is_signed_by_exactly([key])

    @property
    def one_use(self) -> tuple[Digest, ...]:
        """Digests of signed payloads that may serve once (PROTOCOL P6), of all findings, each once."""
        return tuple(dict.fromkeys(digest for finding in self.findings for digest in finding.one_use))


def same_judgement(receipt: Receipt, verdict: Verdict) -> tuple[Reason, ...]:
    """List where a receipt and a verdict computed anew differ; empty means the same judgement.

    Compared is what is deterministic and what money or blame rests on: outcome, the code, fault and kind of
    each reason, what each finding shows, its dangers and what it uses up, needs, statement, policy, `now`
    and the inputs. Measured numbers, which differ between machines, and texts are not (PROTOCOL P13).
    """
    mine, theirs = _essence_of_receipt(receipt), _essence_of_verdict(verdict)
    return tuple(
        Reason(
            f"recheck.{part}",
            f"the receipt's {part} is not what its inputs give",
            Fault.VERIFIER,
            _clip(mine[part], MAX_DETAIL_CHARS),
            _clip(theirs[part], MAX_DETAIL_CHARS),
        )
        for part in mine
        if mine[part] != theirs[part]
    )


def outcome_of(verdict: Verdict) -> Outcome:
    """Give a verdict's outcome as receipts and summaries write it."""
    match verdict:
        case Accepted():
            return Outcome.ACCEPTED
        case Rejected():
            return Outcome.REJECTED
        case Inconclusive():
            return Outcome.INCONCLUSIVE


def _needs_of(verdict: Verdict) -> tuple[Need, ...]:
    return verdict.needs if isinstance(verdict, Inconclusive) else ()


# --- recheck --------------------------------------------------------------------------------------------


def _essence_of_receipt(receipt: Receipt) -> dict[str, str]:
    return _essence(
        receipt.outcome, receipt, receipt.needs, receipt.bundle, list(receipt.answers), receipt.locks
    )


def _essence_of_verdict(verdict: Verdict) -> dict[str, str]:
    inputs = verdict.inputs
    answers = [NamedAnswer.of(answer) for answer in inputs.answers]
    return _essence(outcome_of(verdict), verdict, _needs_of(verdict), inputs.bundle, answers, inputs.locks)


def _essence(
    outcome: Outcome,
    judgement: Receipt | Judgement,
    needs: Iterable[Need],
    bundle: Digest,
    answers: list[NamedAnswer],
    locks: Iterable[Digest],
) -> dict[str, str]:
    """Say each compared part as text, so that one comparison and one message serve them all."""
    findings = [
        [f.kind, _shows_to_json(f.shows), sorted(f.dangers), sorted(f.one_use)] for f in judgement.findings
    ]
    parts: dict[str, Json] = {
        "outcome": outcome,
        "statement": _judged_to_json(judgement.statement),
        "policy": judgement.policy,
        "now": judgement.now,
        "inputs": [bundle, [[a.kind, a.digest] for a in answers], list(locks)],
        "findings": sorted(findings, key=canonical.encode),
        "reasons": sorted([r.code, r.fault, "measured" if r.measured else "fact"] for r in judgement.reasons),
        "needs": sorted([n.kind, n.subject] for n in needs),
    }
    return {name: canonical.encode(part).decode() for name, part in parts.items()}


# --- writing --------------------------------------------------------------------------------------------


def _statement_to_json(verdict: Verdict) -> Json:
    return {
        "_type": STATEMENT_TYPE,
        "predicate": predicate_of(verdict),
        "predicateType": PREDICATE_TYPE,
        "subject": [_subject(verdict.statement, verdict.inputs.bundle)],
    }


def _subject(statement: Statement | None, bundle: Digest) -> Json:
    """Name what the receipt is about: the statement, or, where none could be read, the bundle."""
    if statement is None:
        return {"digest": {"sha256": bundle}, "name": "bundle"}
    return {"digest": {"sha256": statement.digest}, "name": "statement"}


def predicate_of(verdict: Verdict) -> Json:
    """Say a verdict as JSON: what a receipt signs, and what ``proofhold verify --json`` prints."""
    return {
        "findings": [_finding_to_json(finding) for finding in verdict.findings],
        "inputs": {
            "answers": [_answer_to_json(NamedAnswer.of(answer)) for answer in verdict.inputs.answers],
            "bundle": verdict.inputs.bundle,
            "locks": list(verdict.inputs.locks),
        },
        "needs": [{"kind": need.kind, "subject": need.subject} for need in _needs_of(verdict)],
        "not_shown": list(verdict.not_shown),
        "now": verdict.now,
        "outcome": outcome_of(verdict),
        "policy": verdict.policy,
        "proofhold": __version__,
        "reasons": [_reason_to_json(reason) for reason in verdict.reasons],
        "shown": {prop: list(words) for prop, words in verdict.shown.items()},
        "statement": _judged_to_json(verdict.statement),
        "version": 1,
    }


def _judged_to_json(statement: Statement | None) -> Json:
    if statement is None:
        return None
    return {
        "amount_atomic": str(statement.amount),
        "input": statement.input,
        "job": statement.job,
        "output": statement.output,
        "seq": statement.seq,
    }


def _finding_to_json(finding: Finding) -> Json:
    return {
        "dangers": list(finding.dangers),
        "facts": {name: _clip(value, MAX_DETAIL_CHARS) for name, value in finding.facts.items()},
        "kind": finding.kind,
        "one_use": list(finding.one_use),
        "shows": _shows_to_json(finding.shows),
    }


def _shows_to_json(shows: Mapping[Property, Assurance]) -> dict[str, str]:
    return {prop.value: word.value for prop, word in shows.items()}


def _reason_to_json(reason: Reason) -> Json:
    return {
        "code": reason.code,
        "expected": _clip(reason.expected, MAX_DETAIL_CHARS),
        "fault": reason.fault,
        "got": _clip(reason.got, MAX_DETAIL_CHARS),
        "measured": reason.measured,
        "message": _clip(reason.message, MAX_MESSAGE_CHARS),
    }


def _answer_to_json(answer: NamedAnswer) -> Json:
    body = None if answer.body is None else answer.body.hex()
    return {"body": body, "digest": answer.digest, "kind": answer.kind}


def _clip(text: str, max_chars: int) -> str:
    """Cut a text for people to its bound, and replace what no JSON can carry (lone surrogates)."""
    clean = text.encode(errors="replace").decode()
    return clean if len(clean) <= max_chars else f"{clean[: max_chars - 1]}…"


# --- reading --------------------------------------------------------------------------------------------


def _read(value: Json, envelope: Envelope) -> Receipt:
    """Read what an envelope, whose signature is good, says; `value` is what its payload encodes."""
    outer = Record(value, what="receipt")
    _expect(outer, "_type", STATEMENT_TYPE)
    _expect(outer, "predicateType", PREDICATE_TYPE)
    record = outer.record("predicate")
    record.version(1)
    outcome = record.choice("outcome", Outcome)
    inputs = record.record("inputs")
    bundle = inputs.digest("bundle")
    answers = tuple(_read_answer(r) for r in inputs.records("answers", max_items=MAX_ANSWERS))
    locks = inputs.digests("locks", max_items=MAX_LOCKS)
    inputs.close()
    needs = tuple(_read_need(r) for r in record.records("needs", max_items=MAX_NEEDS))
    verdict = _build(
        outcome,
        needs,
        statement=_read_statement(record),
        policy=record.digest("policy"),
        now=record.integer("now"),
        inputs=Inputs(bundle, (), locks),
        findings=tuple(_read_finding(r) for r in record.records("findings", max_items=MAX_FINDINGS)),
        reasons=tuple(_read_reason(r) for r in record.records("reasons", max_items=MAX_REASONS)),
    )
    _expect(record, "shown", {prop: list(words) for prop, words in verdict.shown.items()})
    _expect(record, "not_shown", list(verdict.not_shown))
    _expect(outer, "subject", [_subject(verdict.statement, bundle)])
    receipt = Receipt(
        outcome=outcome,
        statement=verdict.statement,
        policy=verdict.policy,
        now=verdict.now,
        bundle=bundle,
        answers=answers,
        locks=locks,
        findings=verdict.findings,
        reasons=verdict.reasons,
        needs=needs,
        version=record.text("proofhold", pattern=VERSION_PATTERN),
        settles_blame=isinstance(verdict, Rejected) and verdict.settles_blame,
        shown=verdict.shown,
        not_shown=verdict.not_shown,
        envelope=envelope,
    )
    record.close()
    outer.close()
    return receipt


def _build(outcome: Outcome, needs: tuple[Need, ...], **judged: Any) -> Verdict:
    """Build the verdict that a receipt says it is, so that one set of rules holds for both.

    It stays inside this module: a verdict that was merely read must never reach what releases money.
    """
    try:
        if outcome is Outcome.INCONCLUSIVE:
            return Inconclusive(needs=needs, **judged)
        if needs:
            raise Misuse(f"a verdict that is {outcome} needs nothing more")
        return Accepted(**judged) if outcome is Outcome.ACCEPTED else Rejected(**judged)
    except Misuse as error:
        raise Malformed("receipt.inconsistent", f"receipt: {error}") from error


def _expect(record: Record, field: str, expected: Json) -> None:
    """Take a field whose value follows from the others."""
    got = record.take(field)
    if got != expected:  # exactly: nothing expected holds a number, of which Python takes 1 and True for one
        code = "receipt.inconsistent" if field in ("shown", "not_shown", "subject") else "receipt.malformed"
        raise Malformed(code, f"receipt: {field}: got {str(got)[:200]}, expected {str(expected)[:200]}")


def _read_statement(record: Record) -> Statement | None:
    inner = record.optional("statement", record.record)
    if inner is None:
        return None
    statement = Statement(
        job=inner.digest("job"),
        seq=inner.integer("seq", high=MAX_CAPTURES),
        amount=int(inner.text("amount_atomic", pattern=AMOUNT_PATTERN)),
        input=inner.digest("input"),
        output=inner.digest("output"),
    )
    inner.close()
    return statement


def _read_answer(record: Record) -> NamedAnswer:
    answer = NamedAnswer(
        record.choice("kind", NeedKind),
        record.digest("digest"),
        record.optional("body", lambda f: _hex(record, f)),
    )
    record.close()
    if answer.body is not None:
        if answer.kind not in OPEN_TO_ALL:
            raise record.error("only what decides the draw is carried in full", "body")
        if Answer(answer.kind, answer.body).digest != answer.digest:
            raise Malformed("receipt.inconsistent", "receipt: an answer's body is not what its digest names")
    return answer


def _hex(record: Record, field: str) -> bytes:
    text = record.text(field, max_chars=2 * MAX_REVEAL_BYTES, pattern=r"([0-9a-f]{2})*")
    return bytes.fromhex(text)


def _read_finding(record: Record) -> Finding:
    kind = record.text("kind", pattern=NAME_PATTERN)
    shows = record.record("shows")
    found = {prop: shows.choice(prop, Assurance) for prop in Property if shows.has(prop)}
    shows.close()
    facts = record.take("facts")
    if not isinstance(facts, dict) or len(facts) > MAX_FACTS or not all(map(_is_name, facts)):
        raise record.error(f"expected an object of at most {MAX_FACTS} named facts", "facts")
    texts = Record(facts, what="receipt", path=record.at("facts"))
    dangers = record.items("dangers", max_items=MAX_DANGERS)
    if not all(map(_is_name, dangers)):
        raise record.error("expected a list of names", "dangers")
    try:
        finding = Finding(
            kind,
            found,
            {name: texts.text(name, max_chars=MAX_DETAIL_CHARS) for name in sorted(facts)},
            tuple(dangers),
            record.digests("one_use", max_items=MAX_ONE_USE),
        )
    except Misuse as error:
        raise Malformed("receipt.inconsistent", f"receipt: {error}") from error
    record.close()
    return finding


def _read_reason(record: Record) -> Reason:
    reason = Reason(
        code=record.text("code", pattern=CODE_PATTERN),
        message=record.text("message", max_chars=MAX_MESSAGE_CHARS),
        fault=record.choice("fault", Fault),
        got=record.text("got", max_chars=MAX_DETAIL_CHARS),
        expected=record.text("expected", max_chars=MAX_DETAIL_CHARS),
        measured=record.boolean("measured"),
    )
    record.close()
    return reason


def _read_need(record: Record) -> Need:
    need = Need(record.choice("kind", NeedKind), record.text("subject", pattern=SUBJECT_PATTERN))
    record.close()
    return need


def _is_name(value: Json) -> bool:
    return isinstance(value, str) and re.fullmatch(NAME_PATTERN, value, re.ASCII) is not None
