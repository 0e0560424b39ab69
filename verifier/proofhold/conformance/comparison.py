"""Whether an answer about a case is the expected one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proofhold.conformance.index import Case, Expectation

MAX_SHOWN_CHARS = 120


class Verdict(StrEnum):
    """What a checker says of a case."""

    ACCEPT = "accept"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"
    """Not accepted, for want of something: nobody is blamed."""
    UNSUPPORTED = "unsupported"
    """The checker does not know such cases; never an agreement."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A checker's answer."""

    verdict: Verdict
    codes: tuple[str, ...] = ()
    """Why it is not accepted, every reason, in the index's codes."""
    detail: str = ""
    """In the checker's own words and codes, for people."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it read in the document; compared where the index has the same name."""
    revocation_checked: bool = False


class Outcome(StrEnum):
    """What became of a case."""

    AGREE = "agree"
    DISAGREE = "disagree"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Result:
    """One case, what was said of it, and whether that is right."""

    case: Case
    answer: Answer
    outcome: Outcome
    problem: str = ""
    """How the answer differs from the expected one."""


def compare(case: Case, answer: Answer) -> Result:
    """Compare an answer with what the index expects."""
    if answer.verdict is Verdict.UNSUPPORTED:
        return Result(case, answer, Outcome.UNSUPPORTED)
    problem = _problem(case, answer)
    return Result(case, answer, Outcome.DISAGREE if problem else Outcome.AGREE, problem)


def _problem(case: Case, answer: Answer) -> str:
    accepted = answer.verdict is Verdict.ACCEPT
    if case.expectation is Expectation.ACCEPT:
        if not accepted:
            return f"{answer.verdict} ({', '.join(answer.codes) or 'no code'}), expected accept"
        return _differing_fact(case.facts, answer.facts)
    if accepted:
        unknowing = not answer.revocation_checked
        if case.expectation is Expectation.REJECT_IF_REVOCATION_CHECKED and unknowing:
            return ""
        return f"accepted, expected {case.expectation} ({case.code or 'any code'})"
    if case.code is not None and case.code not in answer.codes:
        return f"{answer.verdict} for {', '.join(answer.codes) or 'no code'}, expected the code {case.code}"
    return ""


def _differing_fact(expected: Mapping[str, Any], got: Mapping[str, Any], path: str = "") -> str:
    """Name the first fact that both have and that differs."""
    for name, wanted in expected.items():
        if name not in got:
            continue
        found = got[name]
        if isinstance(wanted, Mapping) and isinstance(found, Mapping):
            problem = _differing_fact(wanted, found, f"{path}{name}.")
            if problem:
                return problem
        elif found != wanted or isinstance(found, bool) is not isinstance(wanted, bool):
            shown, needed = str(found)[:MAX_SHOWN_CHARS], str(wanted)[:MAX_SHOWN_CHARS]
            return f"{path}{name}: got {shown}, expected {needed}"
    return ""
