"""What was decided on a capture: the frozen answer that a settlement service gets, and can log as it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proofhold import canonical
from proofhold.canonical import Digest, Json
from proofhold.core import Need
from proofhold.escrow.states import State
from proofhold.receipt import Receipt


class Mode(StrEnum):
    """Whether a decision moves money."""

    LIVE = "live"
    SHADOW = "shadow"
    """It is made and recorded, and nothing moves: to be switched on beside what pays today."""


class Outcome(StrEnum):
    """What a verdict does to a hold."""

    RELEASE = "release"
    REFUND = "refund"
    DISPUTE = "dispute"
    KEEP = "keep"
    """Nothing: the verdict is inconclusive, and its needs say what would change that."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on a capture. Asked again, the same decision comes back and nothing moves again."""

    hold: Digest
    seq: int
    outcome: Outcome
    state: State
    """Where the capture stands now."""
    receipt: Receipt
    """Why: the receipt that first decided it, or the one that kept it."""
    amount: int = 0
    """What the outcome moves, in atomic units: the claimed amount, or the whole price back; else nothing."""
    open_until: int | None = None
    """Unix seconds: until when something else can still be decided; None where nothing can.

    For a kept capture that is its verification deadline, after which it is disputed; for a disputed one the
    end of the dispute, at which the buyer is refunded.
    """
    mode: Mode = Mode.LIVE
    refused: str = ""
    """In shadow mode, the code with which the escrow would have refused this; empty where it would not."""

    missing_receipts: int = 0
    """How many more verifiers have to say the same before money of this amount moves."""

    @property
    def id(self) -> Digest:
        """The decision's name: what was decided about which capture, by which receipt."""
        parts = (bytes.fromhex(self.hold), self.seq.to_bytes(8, "big"), bytes.fromhex(self.receipt.digest))
        return canonical.digest("proofhold/decision/v1", *parts, self.outcome.encode())

    @property
    def policy(self) -> Digest:
        """The policy that was judged by."""
        return self.receipt.policy

    @property
    def reason_codes(self) -> tuple[str, ...]:
        """Every stable code against it, each once, in the verdict's order."""
        return tuple(dict.fromkeys(reason.code for reason in self.receipt.reasons))

    @property
    def needs(self) -> tuple[Need, ...]:
        """What would have to be handed in to decide; empty where it is decided."""
        return self.receipt.needs

    @property
    def retryable(self) -> bool:
        """Whether asking again, with what is needed or missing, may give another outcome."""
        return self.outcome is Outcome.KEEP

    def to_json(self) -> Json:
        """Give the decision for a log, without its receipt, which is named."""
        return {
            "amount_atomic": str(self.amount),
            "decision": self.id,
            "hold": self.hold,
            "missing_receipts": self.missing_receipts,
            "mode": self.mode,
            "needs": [{"kind": need.kind, "subject": need.subject} for need in self.needs],
            "open_until": self.open_until,
            "outcome": self.outcome,
            "policy": self.policy,
            "reasons": [{"code": r.code, "fault": r.fault} for r in self.receipt.reasons],
            "receipt": self.receipt.digest,
            "refused": self.refused,
            "retryable": self.retryable,
            "seq": self.seq,
            "state": self.state,
        }
