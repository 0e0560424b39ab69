"""How a job of the story is told: one line."""

from __future__ import annotations

from dataclasses import dataclass

from proofhold.settlement import Decision


@dataclass(frozen=True, slots=True)
class Line:
    """One job of the story and how it ended."""

    act: int
    what: str
    evidence: str
    state: str
    why: str
    paid: bool


def line_of(act: int, what: str, evidence: str, decision: Decision) -> Line:
    """Tell how a verdict ended a job."""
    receipt = decision.receipt
    why = ", ".join(dict.fromkeys(reason.code for reason in receipt.reasons))
    if not why:
        words = sorted({word for shown in receipt.shown.values() for word in shown})
        why = f"{', '.join(receipt.shown)}: {', '.join(words)}"
    state = decision.state.value
    return Line(act, what, evidence, state, why, paid=state == "released")
