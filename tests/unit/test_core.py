"""The types hold the rules: what must not be said cannot be built, and no verdict is a truth value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from documents import FINDING, FOUR, NOW, VERDICT, sha
from proofhold.core import (
    Accepted,
    Answer,
    Assurance,
    Evidence,
    Fault,
    Finding,
    Inconclusive,
    Inputs,
    Need,
    NeedKind,
    Property,
    Reason,
    Refuted,
    Rejected,
    Statement,
    Unclear,
    Verdict,
)
from proofhold.errors import Misuse

REASON = Reason("a.b", "so", Fault.PROVIDER)
COMMON: dict[str, Any] = {
    "statement": VERDICT.statement,
    "policy": sha("policy"),
    "now": NOW,
    "inputs": Inputs(sha("bundle"), (), ()),
}


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Accepted(**COMMON, findings=(FINDING,), reasons=(REASON,)), "with a reason against it"),
        (lambda: Accepted(**COMMON), "without a finding"),
        (lambda: Accepted(**COMMON | {"statement": None}, findings=(FINDING,)), "of no statement"),
        (lambda: Rejected(**COMMON), "needs a reason"),
        (lambda: Rejected(**COMMON | {"statement": None}, reasons=(REASON,)), "of no statement"),
        (lambda: Inconclusive(**COMMON, needs=()), "what it needs"),
        (lambda: Finding("ezkl", {}), "shows nothing"),
        (lambda: Refuted("ezkl", ()), "needs a reason"),
        (lambda: Unclear("ezkl", (), ()), "what it needs"),
    ],
)
def test_what_must_not_be_said_cannot_be_built(build: Any, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        build()


@pytest.mark.parametrize(
    "verdict",
    [
        VERDICT,
        Rejected(**COMMON, reasons=(REASON,)),
        Inconclusive(**COMMON | {"statement": None}, needs=(Need(NeedKind.BUNDLE),)),
    ],
)
def test_a_verdict_is_not_a_truth_value(verdict: Verdict) -> None:
    with pytest.raises(TypeError, match=f"match on {type(verdict).__name__}"):
        bool(verdict)
    with pytest.raises(TypeError):
        _ = not verdict


def test_what_is_shown_and_what_is_not() -> None:
    other = Finding("nitro", {Property.PROVIDER: Assurance.ATTESTED, Property.MODEL: Assurance.ATTESTED})
    both = replace(VERDICT, findings=(FINDING, other))
    assert both.shown == {
        Property.MODEL: (Assurance.ATTESTED, Assurance.PROVED),
        Property.INPUT: (Assurance.PROVED,),
        Property.OUTPUT: (Assurance.PROVED,),
        Property.FRESH: (Assurance.PROVED,),
        Property.PROVIDER: (Assurance.ATTESTED,),
    }
    assert list(both.shown) == list(Property)
    assert both.not_shown == ()
    assert VERDICT.not_shown == (Property.PROVIDER,)
    assert Rejected(**COMMON, reasons=(REASON,)).not_shown == tuple(Property)


@pytest.mark.parametrize(
    ("reasons", "settled"),
    [
        ((REASON,), True),
        ((replace(REASON, measured=True),), False),
        ((replace(REASON, fault=Fault.NOBODY),), False),
        ((replace(REASON, fault=Fault.BUYER), replace(REASON, measured=True)), False),
        ((replace(REASON, measured=True), REASON), True),
    ],
)
def test_only_a_fact_against_the_provider_settles_blame(reasons: tuple[Reason, ...], settled: bool) -> None:
    assert Rejected(**COMMON, reasons=reasons).settles_blame is settled


def test_a_finding_cannot_be_changed_through_what_it_was_made_of() -> None:
    shows, facts = dict.fromkeys(FOUR, Assurance.NOT_DRAWN), {"a": "b"}
    finding = Finding("replay", shows, facts)
    shows[Property.MODEL] = Assurance.PROVED
    facts["a"] = "c"
    assert finding.shows[Property.MODEL] is Assurance.NOT_DRAWN
    assert finding.facts == {"a": "b"}
    with pytest.raises(TypeError):
        finding.shows[Property.MODEL] = Assurance.PROVED  # type: ignore[index]


def test_every_part_of_a_statement_counts() -> None:
    statement = Statement(sha("job"), 1, 2, sha("input"), sha("output"))
    changed = [
        replace(statement, job=sha("x")),
        replace(statement, seq=2),
        replace(statement, amount=3),
        replace(statement, input=sha("x")),
        replace(statement, output=sha("x")),
        replace(statement, input=statement.output, output=statement.input),
        replace(statement, seq=2, amount=1),
    ]
    assert len({s.digest for s in (statement, *changed)}) == 8
    assert len(replace(statement, amount=10**78 - 1).digest) == 64


def test_evidence_and_answers_are_named_by_kind_and_body() -> None:
    evidence = Evidence("ezkl", b"body")
    assert replace(evidence, collateral={"a": b"b"}).digest == evidence.digest
    assert len({e.digest for e in (evidence, Evidence("ezk", b"lbody"), Evidence("ezkl", b"bod"))}) == 3
    answers = (Answer(NeedKind.INPUT, b"x"), Answer(NeedKind.OUTPUT, b"x"), Answer(NeedKind.INPUT, b"y"))
    assert len({answer.digest for answer in answers}) == 3
    assert Answer(NeedKind.INPUT, b"x").digest != Evidence("input", b"x").digest
