"""Many at once on one hold: one movement, whether they share the escrow or only its database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from escrow_builders import (
    OTHER_OUTPUT,
    OUTPUT,
    START,
    Scene,
    ScriptedRail,
    digest_of,
    make_claim,
)
from proofhold.escrow import Applied, Refused, Ruling
from proofhold.escrow.desk import LedgerEscrow
from stores import Store

THREADS = 8


@pytest.fixture(params=["one escrow", "one database"])
def escrows(request: pytest.FixtureRequest, scene: Scene, store: Store) -> Iterator[list[LedgerEscrow]]:
    if request.param == "one escrow":
        yield [scene.escrow] * THREADS
        return
    opened = [store.open() for _ in range(THREADS)]
    yield opened
    for escrow in opened:
        escrow.close()


def at_once(escrows: list[LedgerEscrow], call: Callable[[int, LedgerEscrow], object]) -> list[object]:
    barrier = threading.Barrier(len(escrows))

    def run(numbered: tuple[int, LedgerEscrow]) -> object:
        barrier.wait()
        try:
            return call(*numbered)
        except Refused as refusal:
            return refusal.code

    with ThreadPoolExecutor(len(escrows)) as pool:
        return list(pool.map(run, enumerate(escrows)))


def test_settling_at_once_is_one_movement(scene: Scene, escrows: list[LedgerEscrow]) -> None:
    hold, rail = scene.claimed(), ScriptedRail()

    def settle(_: int, escrow: LedgerEscrow) -> Applied:
        applied = escrow.apply(
            hold.id, 0, Ruling.RELEASE, receipt_digest=digest_of("r"), receipt=b"r", now=START
        )
        escrow.pump(rail, now=START)
        return applied

    results = at_once(escrows, settle)
    assert [r.repeated for r in results if isinstance(r, Applied)].count(False) == 1
    assert len(results) == THREADS
    assert len(rail.paid) == 1
    assert scene.state(hold) == "released"


def test_verdicts_that_race_have_one_winner(scene: Scene, escrows: list[LedgerEscrow]) -> None:
    hold = scene.claimed()

    def settle(number: int, escrow: LedgerEscrow) -> Applied:
        ruling = (Ruling.RELEASE, Ruling.REFUND)[number % 2]
        return escrow.apply(
            hold.id, 0, ruling, receipt_digest=digest_of(ruling), receipt=ruling.encode(), now=START
        )

    results = at_once(escrows, settle)
    won = {r.decision.ruling for r in results if isinstance(r, Applied)}
    assert len(won) == 1
    assert results.count("escrow.decided") == THREADS // 2
    assert len(scene.escrow.hold(hold.id).capture(0).decisions) == 1


def test_claims_that_race_have_one_winner(scene: Scene, escrows: list[LedgerEscrow]) -> None:
    hold = scene.fund()

    def claim(number: int, escrow: LedgerEscrow) -> object:
        output = (OUTPUT, OTHER_OUTPUT)[number % 2]
        return escrow.record_claim(make_claim(hold.job, output=output), output, now=START).id

    results = at_once(escrows, claim)
    assert results.count(hold.id) == results.count("claim.equivocation") == THREADS // 2


def test_one_job_is_funded_once(scene: Scene, escrows: list[LedgerEscrow]) -> None:
    job = scene.draft()
    results = at_once(escrows, lambda _, escrow: escrow.fund(job, now=START).id)
    assert results.count(job.digest) == 1
    assert results.count("escrow.already_funded") == THREADS - 1


def test_one_lease_is_taken(scene: Scene, escrows: list[LedgerEscrow]) -> None:
    hold = scene.claimed()
    results = at_once(
        escrows, lambda _, escrow: escrow.begin_verification(hold.id, 0, lease_s=9, now=START).attempts
    )
    assert results.count(1) == 1
    assert results.count("escrow.leased") == THREADS - 1
