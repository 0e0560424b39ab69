"""One commit for whoever waits, each undone by itself, durable when answered, and bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from escrow_builders import PRICE, START, USDC, Scene, digest_of, refused
from proofhold.errors import Misuse
from proofhold.escrow import Applied, EscrowFailure, HoldRecord, Refused, Ruled, Ruling
from proofhold.escrow.database import SqliteDatabase
from proofhold.escrow.driver import Joint, Transaction
from proofhold.escrow.writer import GroupWriter, Task
from stores import SqliteStore, Store

CALLERS = 32


class Gate:
    """A commit that waits until it is let go, and does what it is told then."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.open = threading.Event()
        self.batches: list[int] = []
        self.failure = failure

    def commit(self, tasks: Sequence[Task]) -> None:
        self.batches.append(len(tasks))
        self.open.wait()
        if self.failure is not None:
            raise self.failure
        for task in tasks:
            task.result = task.operation(None)  # type: ignore[arg-type]


def _same(number: int, _: Transaction) -> int:
    return number


def test_who_comes_during_a_commit_shares_the_next() -> None:
    gate = Gate()
    writer = GroupWriter(gate.commit)
    futures = [writer.submit(lambda _: 0)]
    while not gate.batches:
        pass
    futures += [writer.submit(partial(_same, n)) for n in range(1, 100)]
    gate.open.set()
    assert [future.result(timeout=10) for future in futures] == list(range(100))
    assert gate.batches == [1, 99]
    assert (writer.commits, writer.operations) == (2, 100)
    writer.close()


def test_nobody_is_answered_whose_commit_failed() -> None:
    gate = Gate(EscrowFailure("escrow.database", "the disk is full"))
    gate.open.set()
    writer = GroupWriter(gate.commit)
    for future in [writer.submit(lambda _: 0) for _ in range(3)]:
        with pytest.raises(EscrowFailure, match="the disk is full"):
            future.result(timeout=10)
    writer.close()


def test_who_comes_when_too_many_wait_is_held_up_then_refused() -> None:
    gate = Gate()
    writer = GroupWriter(gate.commit, max_waiting=2)
    first = writer.submit(lambda _: 0)
    while not gate.batches:
        pass
    waiting = [writer.submit(lambda _: 0) for _ in range(2)]
    with refused("escrow.busy"):
        writer.submit(lambda _: 0, timeout_s=0)
    late = ThreadPoolExecutor(1).submit(lambda: writer.submit(lambda _: 4).result(timeout=10))
    gate.open.set()
    assert late.result(timeout=10) == 4
    assert [future.result(timeout=10) for future in (first, *waiting)] == [0, 0, 0]
    writer.close()
    with pytest.raises(Misuse):
        writer.submit(lambda _: 0)


def test_what_was_submitted_is_written_before_closing() -> None:
    gate = Gate()
    gate.open.set()
    writer = GroupWriter(gate.commit)
    futures = [writer.submit(lambda _: 1) for _ in range(50)]
    writer.close()
    assert all(future.done() for future in futures)


def test_a_commit_has_room_for_many_and_each_stands_alone(folder: Path) -> None:
    scene = Scene.create(folder)
    database = scene.escrow._database
    assert isinstance(database, SqliteDatabase)
    before, barrier = database.writer.commits, threading.Barrier(CALLERS)

    def deposit(number: int) -> str:
        barrier.wait()
        try:
            # Every second one uses a key that stands for another transfer.
            key = f"key {number}" if number % 2 else "buyer"
            scene.escrow.deposit(f"party{number}", 5, USDC, key=key, now=START)
        except Refused as refusal:
            return refusal.code
        return "paid in"

    with ThreadPoolExecutor(CALLERS) as pool:
        said = list(pool.map(deposit, range(CALLERS)))
    assert said == ["escrow.key_reused", "paid in"] * (CALLERS // 2)
    assert database.writer.commits - before < CALLERS // 2
    assert scene.amount("party1") == 5
    assert scene.amount("party2") == 0
    assert scene.escrow.audit() == ()
    scene.escrow.close()


def test_rulings_of_many_callers_are_carried_out_together_and_each_stands_alone(folder: Path) -> None:
    scene = Scene.create(folder)
    holds = [scene.claimed() if number % 2 else scene.fund() for number in range(CALLERS)]
    barrier = threading.Barrier(CALLERS)

    def rule(hold: HoldRecord) -> str:
        barrier.wait()
        try:
            return str(scene.apply(hold, Ruling.RELEASE).state)
        except Refused as refusal:
            return refusal.code

    with ThreadPoolExecutor(CALLERS) as pool:
        said = list(pool.map(rule, holds))
    assert said == ["escrow.not_claimed", "releasing"] * (CALLERS // 2)
    assert scene.escrow.audit() == ()
    scene.escrow.close()


def test_what_is_done_together_is_done_one_by_one_where_that_trips(folder: Path) -> None:
    """A failure that is no refusal is of one operation all the same."""
    scene = Scene.create(folder)
    database = scene.escrow._database
    rounds: list[int] = []

    def together(tx: Transaction, names: Sequence[str]) -> list[str | Refused]:
        rounds.append(len(names))
        for name in names:
            tx.execute("INSERT INTO operator (key) VALUES (?)", (name,))
        if "bad" in names:
            raise EscrowFailure("escrow.database", "on purpose")
        return [Refused("no", "not this one") if name == "refused" else name for name in names]

    started, go_on = threading.Event(), threading.Event()

    def hold_up(_: Transaction) -> None:
        started.set()
        assert go_on.wait(10)

    database.submit(hold_up)
    assert started.wait(10)
    futures = {name: database.submit(Joint(together, name)) for name in ("a", "bad", "refused", "b")}
    go_on.set()
    assert [futures[name].result(10) for name in ("a", "b")] == ["a", "b"]
    with pytest.raises(EscrowFailure, match="on purpose"):
        futures["bad"].result(10)
    with refused("no"):
        futures["refused"].result(10)
    assert rounds == [4, 1, 1, 1, 1]
    kept = database.read(lambda tx: [row["key"] for row in tx.execute("SELECT key FROM operator")])
    assert {"a", "b"} <= set(kept)
    assert not {"bad", "refused"} & set(kept)
    scene.escrow.close()


def test_what_was_answered_is_there_for_whoever_opens_the_file_next(folder: Path) -> None:
    store = SqliteStore(folder)
    scene = Scene.create(store)
    scene.escrow.deposit("alice", 5, USDC, key="k", now=START)
    with store.open() as other:
        assert other.balances() == scene.escrow.balances()
    scene.escrow.close()


def test_event_loops_use_the_same_escrow(scene: Scene) -> None:
    holds = [scene.claimed() for _ in range(8)]
    rulings = [Ruled(h.id, 0, Ruling.RELEASE, digest_of(h.id), b"receipt") for h in holds]

    async def settle() -> list[Applied]:
        desk = scene.escrow.asynchronous
        return await asyncio.gather(*(desk.apply(ruled, now=START) for ruled in (*rulings, *rulings)))

    applied = asyncio.run(settle())
    assert [a.repeated for a in applied].count(False) == len(holds)
    assert {scene.state(hold) for hold in holds} == {"releasing"}


def test_an_event_loop_funds_claims_and_reads(scene: Scene) -> None:
    from escrow_builders import OUTPUT, make_claim

    job = scene.draft()

    async def play() -> str:
        desk = scene.escrow.asynchronous
        hold = await desk.fund(job, now=START)
        await desk.record_claim(make_claim(hold.job), OUTPUT, now=START)
        await desk.begin_verification(hold.id, 0, lease_s=5, now=START)
        await desk.end_verification(hold.id, 0, now=START)
        with pytest.raises(Refused):
            await desk.begin_verification(hold.id, 1, lease_s=5, now=START)
        ruled = Ruled(hold.id, 0, Ruling.REFUND, digest_of("r"), b"r")
        (outcome,) = await desk.apply_many([ruled], now=START)
        assert isinstance(outcome, Applied)
        return str((await desk.hold(hold.id)).capture(0).state)

    assert asyncio.run(play()) == "refunding"


def test_many_rulings_are_one_transaction_and_each_stands_alone(scene: Scene, store: Store) -> None:
    held = [scene.claimed() for _ in range(4)]
    unclaimed, zero = scene.fund(), scene.claimed(dispute_s=0)
    scene.apply(held[3], Ruling.REFUND)

    def ruled(hold: str, ruling: Ruling = Ruling.RELEASE, *, one_use: tuple[str, ...] = ()) -> Ruled:
        return Ruled(hold, 0, ruling, digest_of(f"{ruling}{hold}"), b"receipt", one_use)

    outcomes = scene.escrow.apply_many(
        [
            ruled(held[0].id, one_use=(digest_of("a quote"),)),
            ruled(held[1].id, Ruling.REFUND),
            ruled(held[2].id, one_use=(digest_of("another"), digest_of("a quote"))),
            ruled(held[3].id),
            ruled(unclaimed.id),
            ruled(digest_of("nothing")),
            ruled(zero.id, Ruling.DISPUTE),
            ruled(held[0].id),
        ],
        now=START,
    )
    said = [o.code if isinstance(o, Refused) else f"{o.state} {o.repeated}" for o in outcomes]
    assert said == [
        *("releasing False", "refunding False", "claim.reused_evidence", "escrow.decided"),
        *("escrow.not_claimed", "escrow.unknown_hold", "refunding False", "releasing True"),
    ]
    assert scene.state(held[2]) == "claimed"
    assert scene.escrow.hold(held[2].id).capture(0).decisions == ()
    assert store.query("SELECT count(*) FROM one_use") == [(1,)], "what was refused has taken nothing"
    assert scene.escrow.apply_many([], now=START) == ()
    assert scene.amount(held[0].id) == 0
    assert scene.escrow.hold(held[0].id).job.document.price == PRICE


def test_too_many_rulings_are_misuse(scene: Scene) -> None:
    ruled = Ruled(digest_of("x"), 0, Ruling.RELEASE, digest_of("r"), b"r")
    with pytest.raises(Misuse):
        scene.escrow.apply_many([ruled] * 8193, now=START)
    with pytest.raises(Misuse):
        scene.escrow.apply_many([Ruled(ruled.hold, 0, Ruling.RELEASE, "no digest", b"r")], now=START)
