"""Receipts: what is signed is what is read, and only what a verdict could say is read at all."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import proofhold
from documents import BUNDLE, FINDING, FIXTURES, FOUR, NOW, POLICY, SECRET, STRANGER, VERDICT, VERIFIER, sha
from mutations import damaged, misfilled, same
from proofhold import canonical
from proofhold.core import (
    Accepted,
    Answer,
    Assurance,
    Fault,
    Finding,
    Inconclusive,
    Inputs,
    Need,
    NeedKind,
    Property,
    Reason,
    Rejected,
    Verdict,
)
from proofhold.errors import Malformed, Misuse
from proofhold.keys import Envelope
from proofhold.receipt import (
    MAX_ANSWERS,
    MAX_DETAIL_CHARS,
    MAX_FACTS,
    MAX_FINDINGS,
    MAX_MESSAGE_CHARS,
    MAX_NEEDS,
    MAX_REASONS,
    MAX_REVEAL_BYTES,
    NamedAnswer,
    Outcome,
    Receipt,
    predicate_of,
    same_judgement,
)

BYTES = (FIXTURES / "receipt.json").read_bytes()
PAYLOAD_TYPE = "application/vnd.in-toto+json"

FALSE_PROOF = Reason("ezkl.refuted", "the proof is false", Fault.PROVIDER, "false", "true")
TOO_FAR = Reason("replay.tolerance", "too far", Fault.PROVIDER, "1e-2", "1e-5", measured=True)
REJECTED = Rejected(
    statement=VERDICT.statement,
    policy=POLICY.digest,
    now=NOW,
    inputs=VERDICT.inputs,
    reasons=(FALSE_PROOF, TOO_FAR),
)
INCONCLUSIVE = Inconclusive(
    statement=None,
    policy=POLICY.digest,
    now=NOW,
    inputs=Inputs(sha("bundle"), (), ()),
    reasons=(Reason("bundle.not_json", "damaged", Fault.NOBODY),),
    needs=(Need(NeedKind.BUNDLE), Need(NeedKind.EVIDENCE, sha("evidence"))),
)
VERDICTS: list[Verdict] = [VERDICT, REJECTED, INCONCLUSIVE]


def signed(statement: Any) -> bytes:
    """A receipt file around any content, with a good signature: what a lying verifier can make."""
    envelope = Envelope(PAYLOAD_TYPE, canonical.encode(statement)).signed(VERIFIER)
    return canonical.encode(envelope.to_json())


def content(verdict: Verdict = VERDICT) -> Any:
    return json.loads(Receipt.issue(verdict, VERIFIER).envelope.payload)


def code_of(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        Receipt.decode(data)
    return caught.value.code


def test_version_1_is_read_whole() -> None:
    receipt = Receipt.decode(BYTES)
    assert receipt.outcome is Outcome.ACCEPTED
    assert receipt.statement == VERDICT.statement
    assert (receipt.policy, receipt.now, receipt.version) == (POLICY.digest, NOW, "0.1.0")
    assert receipt.bundle == BUNDLE.digest
    assert receipt.answers == (
        NamedAnswer(NeedKind.REVEAL, Answer(NeedKind.REVEAL, SECRET).digest, SECRET),
        NamedAnswer(NeedKind.COLLATERAL, Answer(NeedKind.COLLATERAL, b"a revocation list").digest, None),
    )
    assert receipt.locks == (sha("circuit lock"),)
    assert receipt.findings == (FINDING,)
    assert (receipt.reasons, receipt.needs) == ((), ())
    assert receipt.one_use == (sha("one use"),)
    assert receipt.shown == dict.fromkeys(FOUR, (Assurance.PROVED,))
    assert receipt.not_shown == (Property.PROVIDER,)
    assert receipt.signer == VERIFIER.public
    assert not receipt.settles_blame
    assert receipt.digest == "7ae656961e663579bebeef94c5ceb0d92cb00b1588056092320554f29699100c"
    assert receipt.encode() == BYTES


def test_the_layout_is_an_in_toto_statement_about_the_statement() -> None:
    assert VERDICT.statement is not None
    outer = content()
    assert outer["_type"] == "https://in-toto.io/Statement/v1"
    assert outer["predicateType"] == "urn:proofhold:receipt:v1"
    assert outer["subject"] == [{"digest": {"sha256": VERDICT.statement.digest}, "name": "statement"}]
    assert outer["predicate"] == json.loads(canonical.encode(predicate_of(VERDICT)))
    assert outer["predicate"]["proofhold"] == proofhold.__version__
    assert content(INCONCLUSIVE)["subject"] == [{"digest": {"sha256": sha("bundle")}, "name": "bundle"}]


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda v: type(v).__name__)
def test_what_is_issued_is_read_again(verdict: Verdict) -> None:
    issued = Receipt.issue(verdict, VERIFIER)
    assert Receipt.decode(issued.encode()) == issued
    assert issued.outcome == type(verdict).__name__.lower()
    assert same_judgement(issued, verdict) == ()
    assert (issued.statement, issued.reasons, issued.findings) == (
        verdict.statement,
        verdict.reasons,
        verdict.findings,
    )
    assert issued.needs == (verdict.needs if isinstance(verdict, Inconclusive) else ())


def test_blame_is_settled_by_facts_and_not_by_measurements() -> None:
    assert Receipt.issue(REJECTED, VERIFIER).settles_blame
    assert not Receipt.issue(replace(REJECTED, reasons=(TOO_FAR,)), VERIFIER).settles_blame
    blamed = replace(INCONCLUSIVE, reasons=(FALSE_PROOF,))
    assert not Receipt.issue(blamed, VERIFIER).settles_blame


def test_one_use_digests_are_given_once() -> None:
    other = replace(FINDING, kind="other", one_use=(sha("b"), sha("one use"), sha("a")))
    assert Receipt.issue(replace(VERDICT, findings=(FINDING, other)), VERIFIER).one_use == (
        sha("one use"),
        sha("b"),
        sha("a"),
    )


# --- who signed ------------------------------------------------------------------------------------------


def test_a_receipt_knows_who_signed_it() -> None:
    receipt = Receipt.decode(BYTES)
    assert receipt.is_signed_by(VERIFIER.public)
    assert not receipt.is_signed_by(STRANGER.public)
    forged = replace(receipt, envelope=replace(receipt.envelope, signatures=((VERIFIER.public, bytes(64)),)))
    assert not forged.is_signed_by(VERIFIER.public)


def test_two_signers_give_two_digests() -> None:
    assert Receipt.issue(VERDICT, STRANGER).digest != Receipt.decode(BYTES).digest


def test_signatures_must_be_one_and_good() -> None:
    envelope = Receipt.decode(BYTES).envelope
    two = envelope.signed(STRANGER)
    none = Envelope(PAYLOAD_TYPE, envelope.payload)
    ((_, good),) = envelope.signatures
    others = replace(envelope, signatures=((STRANGER.public, good),))
    for bad in (two, none, others):
        assert code_of(canonical.encode(bad.to_json())) == "receipt.signature"


def test_a_changed_payload_is_not_signed() -> None:
    envelope = Receipt.decode(BYTES).envelope
    changed = replace(envelope, payload=envelope.payload.replace(b'"now":1795392000', b'"now":1795392001'))
    assert changed != envelope
    assert code_of(canonical.encode(changed.to_json())) == "receipt.signature"


def test_another_kind_of_document_is_no_receipt() -> None:
    envelope = Envelope("application/vnd.proofhold.claim.v1+json", Receipt.decode(BYTES).envelope.payload)
    assert code_of(canonical.encode(envelope.signed(VERIFIER).to_json())) == "receipt.malformed"


# --- consistency -----------------------------------------------------------------------------------------


def accepted_with(**changes: Any) -> bytes:
    outer = content()
    outer["predicate"] |= changes
    return signed(outer)


def test_a_good_signature_does_not_make_sense_of_nonsense() -> None:
    reasons = content(REJECTED)["predicate"]["reasons"]
    needs = content(INCONCLUSIVE)["predicate"]["needs"]
    everything = [prop.value for prop in Property]
    finding = content()["predicate"]["findings"][0]
    for nonsense in (
        accepted_with(reasons=reasons),
        accepted_with(findings=[], shown={}, not_shown=everything),
        accepted_with(needs=needs),
        accepted_with(shown={}),
        accepted_with(shown={"model": ["proved"]}),
        accepted_with(not_shown=[]),
        accepted_with(findings=[finding | {"shows": {}}]),
        accepted_with(outcome="rejected"),
        accepted_with(outcome="rejected", reasons=reasons, needs=needs),
        accepted_with(outcome="inconclusive"),
        accepted_with(statement=None),
        accepted_with(statement=content()["predicate"]["statement"] | {"seq": 1}),
        signed(content() | {"subject": []}),
        signed(content() | {"subject": [{"digest": {"sha256": sha("other")}, "name": "statement"}]}),
    ):
        assert code_of(nonsense) == "receipt.inconsistent"


def test_a_revealed_secret_is_the_one_that_its_digest_names() -> None:
    inputs = content()["predicate"]["inputs"]
    reveal, other = inputs["answers"]
    wrong = accepted_with(inputs=inputs | {"answers": [reveal | {"body": "00" * 32}]})
    assert code_of(wrong) == "receipt.inconsistent"
    in_full = other | {"body": b"a revocation list".hex()}
    assert code_of(accepted_with(inputs=inputs | {"answers": [in_full]})) == "receipt.malformed"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "receipt.version"),
        ({"outcome": "paid"}, "receipt.malformed"),
        ({"now": -1}, "receipt.malformed"),
        ({"now": 1.5}, "receipt.malformed"),
        ({"policy": "00"}, "receipt.malformed"),
        ({"proofhold": ""}, "receipt.malformed"),
        ({"proofhold": "one"}, "receipt.malformed"),
        ({"extra": 1}, "receipt.malformed"),
        ({"findings": [{}]}, "receipt.malformed"),
    ],
)
def test_fields_have_codes(change: dict[str, Any], code: str) -> None:
    assert code_of(accepted_with(**change)) == code


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dangers", ["Unsafe"]),
        ("dangers", [1]),
        ("dangers", ["d"] * 17),
        ("facts", []),
        ("facts", {"A fact": "x"}),
        ("facts", {"fact": 1}),
        ("facts", {"fact": "x" * (MAX_DETAIL_CHARS + 1)}),
        ("facts", {f"fact{i}": "" for i in range(MAX_FACTS + 1)}),
        ("kind", "EZKL"),
        ("one_use", ["00"]),
        ("one_use", [sha("x")] * 17),
        ("shows", {"model": "promised"}),
        ("shows", {"truth": "proved"}),
    ],
)
def test_findings_are_read_strictly(field: str, value: Any) -> None:
    finding = content()["predicate"]["findings"][0] | {field: value}
    assert code_of(accepted_with(findings=[finding])) == "receipt.malformed"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", "Not a code"),
        ("code", ".x"),
        ("fault", "weather"),
        ("measured", 0),
        ("message", "x" * (MAX_MESSAGE_CHARS + 1)),
        ("got", "x" * (MAX_DETAIL_CHARS + 1)),
        ("expected", "x" * (MAX_DETAIL_CHARS + 1)),
        ("extra", ""),
    ],
)
def test_reasons_are_read_strictly(field: str, value: Any) -> None:
    outer = content(REJECTED)
    outer["predicate"]["reasons"][0][field] = value
    assert code_of(signed(outer)) == "receipt.malformed"


def test_every_field_of_what_was_signed_is_checked() -> None:
    """A verifier that signs anything else than a receipt is caught by the parser, field by field."""
    count = 0
    for verdict in VERDICTS:
        original = content(verdict)
        for statement in misfilled(original):
            count += 1
            try:
                data = signed(statement)
            except Misuse:
                continue  # JSON cannot say it
            try:
                receipt = Receipt.decode(data)
            except Malformed:
                continue
            # Texts, numbers and lists that may be anything: what is read is what was signed, nothing else.
            assert same(json.loads(receipt.envelope.payload), statement)
            assert (receipt.outcome is Outcome.ACCEPTED) == (not receipt.reasons and not receipt.needs)
    assert count > 1000


def test_another_statement_type_is_no_receipt() -> None:
    for field in ("_type", "predicateType"):
        statement = content()
        statement[field] += "x"
        assert code_of(signed(statement)) == "receipt.malformed"


NESTED = [
    ("predicate",),
    ("predicate", "inputs"),
    ("predicate", "inputs", "answers", 0),
    ("predicate", "statement"),
    ("predicate", "findings", 0),
    ("predicate", "findings", 0, "shows"),
    ("predicate", "reasons", 0),
    ("predicate", "needs", 0),
    (),
]


@pytest.mark.parametrize("path", NESTED, ids=lambda path: ".".join(map(str, path)) or "top")
def test_nothing_may_be_added_anywhere(path: tuple[str | int, ...]) -> None:
    answers = (Answer(NeedKind.REVEAL, SECRET),)
    whole = replace(
        INCONCLUSIVE,
        statement=VERDICT.statement,
        findings=(FINDING,),
        inputs=replace(INCONCLUSIVE.inputs, answers=answers),
    )
    statement = content(whole)
    assert Receipt.decode(signed(statement)).outcome is Outcome.INCONCLUSIVE
    inner = statement
    for step in path:
        inner = inner[step]
    inner["more"] = "of it"
    assert code_of(signed(statement)) == "receipt.malformed"


def test_a_damaged_receipt_is_refused() -> None:
    for data in damaged(BYTES, count=1200):
        with pytest.raises(Malformed):
            Receipt.decode(data)


def test_damage_that_keeps_the_envelope_whole_is_refused_too() -> None:
    envelope = Receipt.decode(BYTES).envelope
    for payload in damaged(envelope.payload, count=600, seed=2):
        outer = envelope.to_json() | {"payload": base64.b64encode(payload).decode()}
        with pytest.raises(Malformed):
            Receipt.decode(canonical.encode(outer))


# --- bounds of what can be issued ------------------------------------------------------------------------


def test_texts_are_cut_and_made_clean() -> None:
    long = Reason("a.b", "m" * 600, Fault.NOBODY, "g" * 300, "\ud800" + "e" * 255)
    finding = replace(FINDING, facts={"fact": "f" * 256, "longer": "f" * 257})
    receipt = Receipt.issue(replace(REJECTED, reasons=(long,), findings=(finding,)), VERIFIER)
    (reason,) = receipt.reasons
    assert reason.message == "m" * (MAX_MESSAGE_CHARS - 1) + "…"
    assert reason.got == "g" * (MAX_DETAIL_CHARS - 1) + "…"
    assert reason.expected == "?" + "e" * 255
    assert receipt.findings[0].facts == {"fact": "f" * 256, "longer": "f" * 255 + "…"}


def test_a_reveal_that_is_no_secret_is_only_named() -> None:
    for size, carried in ((MAX_REVEAL_BYTES, True), (MAX_REVEAL_BYTES + 1, False)):
        answer = Answer(NeedKind.REVEAL, bytes(size))
        verdict = replace(VERDICT, inputs=replace(VERDICT.inputs, answers=(answer,)))
        receipt = Receipt.issue(verdict, VERIFIER)
        assert receipt.answers == (
            NamedAnswer(NeedKind.REVEAL, answer.digest, bytes(size) if carried else None),
        )
        assert same_judgement(receipt, verdict) == ()


def test_what_decides_whether_to_check_is_carried_in_full_and_evidence_is_not() -> None:
    for kind, carried in ((NeedKind.CHECK, b""), (NeedKind.REVEAL, b""), (NeedKind.EVIDENCE, None)):
        answer = Answer(kind, b"")
        verdict = replace(VERDICT, inputs=replace(VERDICT.inputs, answers=(answer,)))
        assert Receipt.issue(verdict, VERIFIER).answers == (NamedAnswer(kind, answer.digest, carried),)


def many_reasons(count: int) -> Verdict:
    return replace(REJECTED, reasons=(TOO_FAR,) * count)


def many_findings(count: int) -> Verdict:
    return replace(VERDICT, findings=(FINDING,) * count)


def many_needs(count: int) -> Verdict:
    return replace(INCONCLUSIVE, needs=INCONCLUSIVE.needs[:1] * count)


def many_answers(count: int) -> Verdict:
    return replace(VERDICT, inputs=replace(VERDICT.inputs, answers=(Answer(NeedKind.INPUT, b""),) * count))


def many_locks(count: int) -> Verdict:
    return replace(VERDICT, inputs=replace(VERDICT.inputs, locks=(sha("lock"),) * count))


@pytest.mark.parametrize(
    ("build", "most"),
    [
        (many_reasons, MAX_REASONS),
        (many_findings, MAX_FINDINGS),
        (many_needs, MAX_NEEDS),
        (many_answers, MAX_ANSWERS),
        (many_locks, 16),
    ],
)
def test_what_does_not_fit_is_our_misuse(build: Callable[[int], Verdict], most: int) -> None:
    Receipt.issue(build(most), VERIFIER)
    with pytest.raises(Misuse, match=f"does not fit into a receipt.*{most + 1}"):
        Receipt.issue(build(most + 1), VERIFIER)


# --- recheck ---------------------------------------------------------------------------------------------

ELSEWHERE = replace(VERDICT, findings=(replace(FINDING, facts={"error": "1.2e-7"}),))


def test_facts_and_texts_may_differ_on_another_machine() -> None:
    assert same_judgement(Receipt.decode(BYTES), ELSEWHERE) == ()
    measured_anew = replace(TOO_FAR, message="much too far", got="1.1e-2", expected="0.00001")
    again = replace(REJECTED, reasons=(measured_anew, FALSE_PROOF))
    assert same_judgement(Receipt.issue(REJECTED, VERIFIER), again) == ()


@pytest.mark.parametrize(
    ("verdict", "parts"),
    [
        (replace(VERDICT, now=NOW + 1), {"now"}),
        (replace(VERDICT, policy=sha("another policy")), {"policy"}),
        (replace(VERDICT, statement=replace(VERDICT.statement, amount=1)), {"statement"}),  # type: ignore[type-var]
        (replace(VERDICT, inputs=replace(VERDICT.inputs, bundle=sha("other"))), {"inputs"}),
        (replace(VERDICT, inputs=replace(VERDICT.inputs, locks=())), {"inputs"}),
        (replace(VERDICT, inputs=replace(VERDICT.inputs, answers=())), {"inputs"}),
        (replace(VERDICT, inputs=replace(VERDICT.inputs, answers=VERDICT.inputs.answers[::-1])), {"inputs"}),
        (replace(VERDICT, findings=(replace(FINDING, kind="other"),)), {"findings"}),
        (replace(VERDICT, findings=(replace(FINDING, dangers=()),)), {"findings"}),
        (replace(VERDICT, findings=(replace(FINDING, one_use=()),)), {"findings"}),
        (replace(VERDICT, findings=(Finding("ezkl", {Property.MODEL: Assurance.PROVED}),)), {"findings"}),
        (replace(VERDICT, findings=(FINDING, FINDING)), {"findings"}),
        (REJECTED, {"outcome", "reasons", "findings"}),
        (INCONCLUSIVE, {"outcome", "reasons", "findings", "needs", "statement", "inputs"}),
    ],
)
def test_every_difference_is_told(verdict: Verdict, parts: set[str]) -> None:
    differences = same_judgement(Receipt.decode(BYTES), verdict)
    assert {reason.code for reason in differences} == {f"recheck.{part}" for part in parts}
    assert {reason.fault for reason in differences} == {Fault.VERIFIER}
    assert all(reason.got != reason.expected for reason in differences if reason.code != "recheck.inputs")


@pytest.mark.parametrize(
    "changed",
    [
        replace(FALSE_PROOF, code="ezkl.other"),
        replace(FALSE_PROOF, fault=Fault.NOBODY),
        replace(FALSE_PROOF, measured=True),
    ],
)
def test_code_fault_and_kind_of_a_reason_count(changed: Reason) -> None:
    (difference,) = same_judgement(
        Receipt.issue(REJECTED, VERIFIER), replace(REJECTED, reasons=(changed, TOO_FAR))
    )
    assert difference.code == "recheck.reasons"
    assert changed.code in difference.expected


def test_the_subject_of_a_need_counts() -> None:
    needs = (Need(NeedKind.BUNDLE), Need(NeedKind.EVIDENCE, sha("other")))
    (difference,) = same_judgement(Receipt.issue(INCONCLUSIVE, VERIFIER), replace(INCONCLUSIVE, needs=needs))
    assert difference.code == "recheck.needs"


# --- any verdict -----------------------------------------------------------------------------------------

texts = st.text(max_size=40)
findings = st.builds(
    Finding,
    kind=st.sampled_from(["ezkl", "replay"]),
    shows=st.dictionaries(st.sampled_from(Property), st.sampled_from(Assurance), min_size=1),
    facts=st.dictionaries(st.sampled_from(["a", "b.c"]), texts),
)
reasons = st.builds(
    Reason,
    st.sampled_from(["a.b", "c"]),
    texts,
    st.sampled_from(Fault),
    got=texts,
    expected=texts,
    measured=st.booleans(),
)
answers = st.builds(Answer, st.sampled_from(NeedKind), st.binary(max_size=40))
inputs = st.builds(Inputs, st.just(sha("b")), st.lists(answers, max_size=3).map(tuple), st.just(()))
common: dict[str, Any] = {
    "statement": st.just(VERDICT.statement),
    "policy": st.just(sha("p")),
    "now": st.integers(0, 2**53 - 1),
    "inputs": inputs,
}
some_findings, some_reasons = (st.lists(s, min_size=1, max_size=3).map(tuple) for s in (findings, reasons))
needs = st.lists(st.builds(Need, st.sampled_from(NeedKind)), min_size=1, max_size=3).map(tuple)
verdicts = st.one_of(
    st.builds(Accepted, findings=some_findings, **common),
    st.builds(Rejected, findings=some_findings, reasons=some_reasons, **common),
    st.builds(Inconclusive, reasons=some_reasons, needs=needs, **common),
)


@settings(deadline=None)
@given(verdicts)
def test_any_verdict_comes_back(verdict: Verdict) -> None:
    receipt = Receipt.decode(Receipt.issue(verdict, VERIFIER).encode())
    assert same_judgement(receipt, verdict) == ()
    assert receipt.findings == verdict.findings
    assert receipt.reasons == verdict.reasons


@settings(deadline=None)
@given(verdicts, verdicts)
def test_only_the_same_judgement_is_the_same(one: Verdict, other: Verdict) -> None:
    there = same_judgement(Receipt.issue(one, VERIFIER), other)
    back = same_judgement(Receipt.issue(other, VERIFIER), one)
    assert [reason.code for reason in there] == [reason.code for reason in back]
