"""A settlement hall for tests of the hook: an escrow with money, real verdicts, and verdicts made up."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from escrow_builders import memory_folder
from judging import (
    BUYER,
    NOW,
    PRICE,
    PROVIDER,
    VERIFIER,
    catalogue,
    make_job,
    policy,
    proved,
    reveal,
    runner,
    unproved,
)
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
from proofhold.drafting import USDC
from proofhold.escrow.escrow import HoldRecord
from proofhold.escrow.rail import LedgerRail
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.escrow.states import BondState, State
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Claim, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Payload
from proofhold.settlement import Decision, fund, settle, verify_and_settle
from proofhold.standard import standard_verifier

INPUT = proved().exchange.input
BOND = USDC.parse("1")
FINDING = Finding("ezkl", dict.fromkeys(Property, Assurance.PROVED))
FALSE = Reason("ezkl.output", "it is false", Fault.PROVIDER)
MEASURED = Reason("replay.mismatch", "it is not what we got", Fault.PROVIDER, measured=True)
NOBODYS = Reason("policy.danger", "it is unsafe", Fault.NOBODY)


@dataclass
class Hall:
    """An escrow with money in it, and a clock that is looked at."""

    path: Path
    escrow: SqliteEscrow
    now: int = NOW
    drafted: int = field(default=0)

    def clock(self) -> int:
        return self.now

    def draft(self, **changes: Any) -> SignedJob:
        self.drafted += 1
        nonce = hashlib.sha256(b"hall %d" % self.drafted).digest()
        job = make_job(
            INPUT,
            nonce=nonce.hex(),
            input=INPUT.digest(nonce),
            sampling_commitment=self.escrow.draw_secret(nonce),
            bond=BOND,
            withholding_penalty=BOND,
        )
        return Signed.new(replace(job, **changes), BUYER, PROVIDER)

    def fund(self, job: SignedJob | None = None, payload: Payload = INPUT, **changes: Any) -> HoldRecord:
        verifier = standard_verifier(catalogue(), runner())
        return fund(
            job or self.draft(**changes),
            payload,
            policy=policy(),
            verifier=verifier,
            escrow=self.escrow,
            clock=self.clock,
        )

    def bundle(self, hold: HoldRecord, output: Payload | None = None, **changes: Any) -> Bundle:
        """What the provider answers without evidence: the true output unless another is given."""
        output = unproved().exchange.output if output is None else output
        nonce = bytes.fromhex(hold.job.document.nonce)
        claim = Claim(job=hold.id, seq=0, amount=PRICE, output=output.digest(nonce))
        return Bundle(Exchange(hold.job, INPUT, Signed.new(replace(claim, **changes), PROVIDER), output))

    def claim(self, hold: HoldRecord, output: Payload | None = None, **changes: Any) -> Bundle:
        bundle = self.bundle(hold, output, **changes)
        self.escrow.record_claim(bundle.exchange.claim, bundle.exchange.output, now=self.now)
        return bundle

    def claimed(self, **changes: Any) -> HoldRecord:
        hold = self.fund(**changes)
        self.claim(hold)
        return self.escrow.hold(hold.id)

    def settle(self, hold: HoldRecord, verdict: Verdict, key: SigningKey = VERIFIER) -> Decision:
        return settle(hold.id, verdict, escrow=self.escrow, key=key, clock=self.clock)

    def judge(
        self,
        hold: HoldRecord,
        bundle: Bundle,
        *answers: Answer,
        escrow: SqliteEscrow | None = None,
        **more: Any,
    ) -> Decision:
        return verify_and_settle(
            hold.id,
            bundle,
            verifier=standard_verifier(catalogue(), runner()),
            policy=policy(),
            escrow=escrow or self.escrow,
            key=VERIFIER,
            answers=answers,
            clock=self.clock,
            **more,
        )

    def state(self, hold: HoldRecord) -> State:
        return self.escrow.hold(hold.id).capture(0).state

    def bond(self, hold: HoldRecord) -> BondState:
        return self.escrow.hold(hold.id).bond.state

    def balance(self, key: SigningKey) -> int:
        self.escrow.pump(LedgerRail(), now=self.now)
        return sum(b.amount for b in self.escrow.balances() if b.account.owner == key.public)

    def movements(self, hold: HoldRecord) -> int:
        return len(self.escrow.history(hold.id))


@contextlib.contextmanager
def open_hall() -> Iterator[Hall]:
    """An escrow with money in it; at its end the books agree."""
    with memory_folder() as folder:
        path = folder / "escrow.db"
        escrow = SqliteEscrow.create(path, escrow="test-escrow")
        for name, key in (("buyer", BUYER), ("provider", PROVIDER)):
            escrow.deposit(key.public, 1_000 * PRICE, USDC, key=name, now=NOW)
        yield Hall(path, escrow)
        assert escrow.audit() == ()
        escrow.close()


def _judged(hold: HoldRecord, **changes: Any) -> dict[str, Any]:
    about: dict[str, Any] = {
        "statement": hold.statement(0),
        "policy": hold.policy,
        "now": hold.capture(0).claimed_at,
        "inputs": Inputs("ab" * 32, (reveal(),), ("cd" * 32,)),
    }
    return about | changes


def accepted(hold: HoldRecord, **changes: Any) -> Accepted:
    return Accepted(findings=(FINDING,), **_judged(hold, **changes))


def rejected(hold: HoldRecord, *reasons: Reason, **changes: Any) -> Rejected:
    return Rejected(reasons=reasons or (FALSE,), **_judged(hold, **changes))


def inconclusive(hold: HoldRecord, **changes: Any) -> Inconclusive:
    return Inconclusive(needs=(Need(NeedKind.OUTPUT),), **_judged(hold, **changes))
