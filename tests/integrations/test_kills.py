"""kill -9 between any two steps of what plugs the escrow into cards, x402 and webhooks.

A few steps of each as a rule, all of them in the long run: whoever dies, the next life goes on from the top.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response

from escrow_builders import START, Scene, memory_folder
from mortal import Cradle, Life, cradle
from proofhold.escrow import SqliteEscrow, State
from proofhold.escrow.paybook import SETTLING_LEASE_S, Deposit, GatedPayment, PaymentBook, Status
from proofhold.escrow.payments import LEASE_S
from proofhold.escrow.webhooks import LEASE_S as MESSAGE_LEASE_S
from proofhold.escrow.webhooks import DeliveryStatus, WebhookBook
from proofhold.integrations.webhooks import PAUSES_S
from proofhold.integrations.x402_server import DEFAULT_LEASE_S
from simulated_cards import processing, serving

SOME = range(3, 1_000, 9)
EVERY = pytest.param(range(1, 1_000), marks=pytest.mark.long, id="every step")
STEPS = pytest.mark.parametrize("steps", [pytest.param(SOME, id="some steps"), EVERY])


@pytest.fixture(scope="module")
def lives() -> Iterator[Cradle]:
    with cradle() as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        Scene.create(path, jobs=1_000_000).escrow.close()
        yield path


@STEPS
@pytest.mark.parametrize("ruling", ["release", "refund"])
def test_a_card_is_captured_once_wherever_the_application_dies(
    lives: Cradle, folder: Path, ruling: str, steps: Iterable[int]
) -> None:
    with processing(START) as (processor, address):
        first = Life("card", str(folder), 0, START, address=address, ruling=ruling)
        for ended in lives.end_at(first, steps):
            assert lives.live(replace(ended, dies_at=0, now=START + LEASE_S)) == 0
    intents = processor.intents
    assert len(intents) > 2
    captured = Counter(intent for intent, _ in processor.captures)
    assert captured == (Counter(intents.keys()) if ruling == "release" else Counter())
    assert {i["status"] for i in intents.values()} == {"succeeded" if ruling == "release" else "canceled"}
    holds = [intent["metadata"]["hold"] for intent in intents.values()]
    assert len(set(holds)) == len(holds), "an authorization was made twice"
    with SqliteEscrow.open(folder / "escrow.db") as escrow:
        final = State.RELEASED if ruling == "release" else State.REFUNDED
        assert {escrow.hold(hold).capture(0).state for hold in holds} == {final}
        assert escrow.audit() == ()


@STEPS
def test_every_message_is_delivered_wherever_the_messenger_dies(
    lives: Cradle, folder: Path, steps: Iterable[int]
) -> None:
    got: defaultdict[str, list[bytes]] = defaultdict(list)
    app = FastAPI()

    @app.post("/hook")
    async def hook(request: Request) -> Response:
        got[request.headers["webhook-id"]].append(await request.body())
        return Response(status_code=204)

    with serving(app) as address:
        with SqliteEscrow.open(folder / "escrow.db") as escrow:
            WebhookBook(escrow.store).add("ours", f"{address}/hook", now=START, dangerous_http=True)
        deaths = 0
        for ended in lives.end_at(Life("webhook", str(folder), 0, START), steps):
            deaths += 1
            assert lives.live(replace(ended, dies_at=0, now=START + MESSAGE_LEASE_S)) == 0
        # One that died after its last claim has left messages to whoever comes when they are due again.
        assert lives.live(Life("webhook", str(folder), 0, START + PAUSES_S[0] + MESSAGE_LEASE_S)) == 0
    with SqliteEscrow.open(folder / "escrow.db") as escrow:
        sql = "SELECT id FROM outbox ORDER BY id"
        rows = escrow.store.read(lambda tx: [row["id"] for row in tx.execute(sql).fetchall()])
        assert set(got) == {f"msg_test-escrow_{number}" for number in rows}, "lost, or made up"
        assert WebhookBook(escrow.store).deliveries(DeliveryStatus.DUE, DeliveryStatus.DEAD) == ()
    assert deaths > 2
    assert all(len(set(bodies)) == 1 for bodies in got.values()), "one name, two messages"
    again = sum(len(bodies) - 1 for bodies in got.values())
    assert again <= deaths, "told again without anybody having died"


@dataclass
class Aftermath:
    """What stands in the escrow's book of payments, and what happened on the chain."""

    folder: Path
    now: int

    def __post_init__(self) -> None:
        with SqliteEscrow.open(self.folder / "escrow.db") as escrow:
            book = PaymentBook(escrow.store)
            sql = "SELECT id FROM gated_payment"
            rows = escrow.store.read(lambda tx: [row["id"] for row in tx.execute(sql).fetchall()])
            found = [payment for payment in map(book.find, rows) if payment is not None]
            self.payments: dict[str, GatedPayment] = {p.id.removeprefix("pay_"): p for p in found}
            self.listed = {p.id.removeprefix("pay_") for p in book.unsettled(now=self.now)}
            assert escrow.audit() == ()
        self.moved: defaultdict[str, set[str]] = defaultdict(set)
        self.asked: Counter[tuple[str, str]] = Counter()
        connection = sqlite3.connect(self.folder / "chain.db")
        for nonce, kind in connection.execute("SELECT nonce, kind FROM moved"):
            self.moved[nonce].add(kind)
        self.asked.update(connection.execute("SELECT nonce, kind FROM asked").fetchall())
        connection.close()

    def status(self, job: str) -> Status | None:
        return self.payments[job].status if job in self.payments else None

    def require_nothing_stranded(self) -> None:
        """Whatever lies on the chain is captured or given back, or somebody is told to look after it."""
        for job, kinds in self.moved.items():
            assert kinds <= {"deposit", "capture"} or kinds <= {"deposit", "refund"}, kinds
            if "deposit" in kinds and not kinds & {"capture", "refund"}:
                assert job in self.listed, f"a deposit is stranded, and the payment is {self.status(job)}"
            if "capture" in kinds:
                assert self.status(job) is Status.SETTLED or job in self.listed
            if "refund" in kinds:
                assert self.payments[job].deposit is Deposit.RETURNED or job in self.listed
        for job, payment in self.payments.items():
            if payment.status is Status.SETTLED:
                assert "capture" in self.moved[job], "settled by nobody"


@STEPS
def test_a_facilitator_settles_once_wherever_it_dies(
    lives: Cradle, folder: Path, steps: Iterable[int]
) -> None:
    first, late = Life("facilitator", str(folder), 0, START), START + SETTLING_LEASE_S
    for ended in lives.end_at(first, steps):
        assert lives.live(replace(ended, dies_at=0, now=late)) == 0
    after = Aftermath(folder, late)
    after.require_nothing_stranded()
    assert len(after.payments) > 2
    assert set(after.asked.values()) == {1}, "settled again without asking"
    for job in after.payments:
        # Settled, or in doubt and on the list: a payer is never asked for another while it may have paid.
        assert after.status(job) is Status.SETTLED or job in after.listed


@STEPS
@pytest.mark.parametrize("flow", ["authorization", "escrow"])
@pytest.mark.parametrize("ruling", ["release", "refund"])
def test_a_paid_request_strands_no_deposit_wherever_the_server_dies(
    lives: Cradle, folder: Path, flow: str, ruling: str, steps: Iterable[int]
) -> None:
    life = Life("server", str(folder), 0, START, flow=flow, ruling=ruling)
    for ended in lives.end_at(life, steps):
        # As if the buyer never came back, and then as if it did, until the gate has nothing new to say.
        later = START + DEFAULT_LEASE_S + SETTLING_LEASE_S
        Aftermath(folder, later).require_nothing_stranded()
        for again in range(2):
            later += again * (DEFAULT_LEASE_S + SETTLING_LEASE_S)
            lives.live(replace(ended, dies_at=0, now=later))
            Aftermath(folder, later + DEFAULT_LEASE_S).require_nothing_stranded()
    after = Aftermath(folder, START + 10**5)
    assert len(after.payments) > 2
    assert all(count == 1 for (_, kind), count in after.asked.items() if kind == "capture")
    captured = {job for job, kinds in after.moved.items() if "capture" in kinds}
    assert bool(captured) == (ruling == "release")
    settled = {job for job in after.payments if after.status(job) is Status.SETTLED}
    assert settled == captured - after.listed
