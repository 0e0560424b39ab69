"""A house for drawn claims: an escrow, a model with cuts, and a provider that is hired again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from escrow_builders import memory_folder
from judging import BUYER, NOW, PRICE, PROVIDER, STRANGER, VERIFIER, policy, runner
from proofhold.answering import Answered, take_opening
from proofhold.backends.replay import ReplayBackend
from proofhold.catalogue import Catalogue
from proofhold.core import Answer, NeedKind
from proofhold.drafting import USDC
from proofhold.escrow import AccountKind
from proofhold.escrow.rail import LedgerRail
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.escrow.states import State
from proofhold.exchange import Bundle
from proofhold.job import PPM
from proofhold.runner import Runner
from proofhold.settlement import Decision, fund, verify_and_settle
from proofhold.verifier import Verifier
from replay_exchanges import Committed, cheap, commit, honest_run, job_on
from replay_models import entry

BOND = USDC.parse("5")
PENALTY = USDC.parse("3")
ANSWER_S = 600


@dataclass
class House:
    """An escrow, one model with cuts, and a provider that is hired again and again."""

    escrow: SqliteEscrow
    now: int = NOW
    hired: int = 0
    model: str = "chain"

    def clock(self) -> int:
        return self.now

    def verifier(self, using: Runner | None = None) -> Verifier:
        return Verifier(Catalogue.of([entry(self.model)]), (), ReplayBackend(using or runner()))

    def hire(self, *, cheating: bool = False, rate_ppm: int = PPM, **changes: Any) -> Committed:
        """Fund a job and record its claim."""
        self.hired += 1
        number = self.hired
        nonce = hashlib.sha256(b"house %d" % number).digest()
        known = entry(self.model)
        inputs, run = honest_run(known, number)
        if cheating:
            run = cheap(self.model, number).run
        if self.model == "wide":
            changes = {"projection_commitment": self.escrow.draw_projection(nonce)} | changes
        job = job_on(
            known,
            inputs,
            nonce=nonce.hex(),
            input=inputs.digest(nonce),
            sampling_commitment=self.escrow.draw_secret(nonce),
            sampling_rate_ppm=rate_ppm,
            bond=BOND,
            withholding_penalty=PENALTY,
            answer_s=ANSWER_S,
            claim_by=self.now + 3_600,
            policy=policy("sampled").digest,
            **changes,
        )
        claim = commit(known, run, inputs, job=job)
        signed = claim.exchange.job
        fund(
            signed,
            inputs,
            policy=policy("sampled"),
            verifier=self.verifier(),
            escrow=self.escrow,
            clock=self.clock,
        )
        self.escrow.record_claim(claim.exchange.claim, claim.exchange.output, now=self.now)
        return claim

    def judge(self, claim: Committed) -> Decision:
        return verify_and_settle(
            claim.exchange.job.digest,
            Bundle(claim.exchange),
            verifier=self.verifier(),
            policy=policy("sampled"),
            escrow=self.escrow,
            key=VERIFIER,
            clock=self.clock,
        )

    def take(
        self,
        claim: Committed,
        opening: Answer | Sequence[Answer],
        using: Runner | None = None,
        answers: Sequence[Answer] = (),
    ) -> Answered:
        return take_opening(
            claim.exchange.job.digest,
            Bundle(claim.exchange),
            opening,
            verifier=self.verifier(using),
            policy=policy("sampled"),
            escrow=self.escrow,
            key=VERIFIER,
            answers=answers,
            clock=self.clock,
        )

    def drawn(self, claim: Committed) -> int:
        """The segment that the verdict asked for."""
        [need] = self.judge(claim).receipt.needs
        assert need.kind is NeedKind.OPENING
        return int(need.subject)

    def state(self, claim: Committed) -> State:
        return self.escrow.hold(claim.exchange.job.digest).capture(0).state

    def wealth(self) -> int:
        """What the provider has, its bonds counted, once all that is due was paid."""
        self.escrow.pump(LedgerRail(), now=self.now)
        own = (AccountKind.PARTY, AccountKind.BOND)
        return sum(
            balance.amount
            for balance in self.escrow.balances()
            if balance.account.kind in own and balance.account.owner != BUYER.public
        )


def open_house() -> Iterator[House]:
    """Make one, with money in it."""
    with memory_folder() as folder:
        escrow = SqliteEscrow.create(folder / "escrow.db", escrow="test-escrow", operators=[STRANGER.public])
        escrow.deposit(BUYER.public, 100 * PRICE, USDC, key="buyer", now=NOW)
        escrow.deposit(PROVIDER.public, 100 * BOND, USDC, key="provider", now=NOW)
        yield House(escrow)
