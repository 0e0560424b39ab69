"""Workers: what is queued is judged and settled once, whoever dies, stops or stumbles on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from escrow_builders import memory_folder
from judging import VERIFIER, key_of
from proofhold.errors import Misuse
from proofhold.escrow import EscrowFailure, LedgerRail, State
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.queue import Lease
from proofhold.worker import Judged, Terms, VerifierJudge, Worker
from stores import DRIVERS, Store, make_store
from workshop import Order, make_judge, stock


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as path:
        yield path


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, folder: Path) -> Iterator[Store]:
    with make_store(request.param, folder) as made:
        yield made


@pytest.fixture
def escrow(store: Store) -> Iterator[LedgerEscrow]:
    with store.create(escrow="test-escrow") as made:
        yield made
        assert made.audit() == ()


def location_of(store: Store, folder: Path) -> str:
    location = str(getattr(store, "location", ""))
    return str(folder) if location.startswith("/") else location


def states(escrow: LedgerEscrow, holds: list[str]) -> list[State]:
    return [escrow.hold(hold).capture(0).state for hold in holds]


def test_a_worker_judges_settles_and_pays_what_is_queued(escrow: LedgerEscrow) -> None:
    holds = stock(escrow, 12, forged=lambda n: n % 4 == 0)
    worker = Worker(escrow, make_judge(), terms=Terms(parallel=2, batch=4), rail=LedgerRail())
    record = worker.run(threading.Event(), until_empty=True)
    expected = [State.REFUNDED if n % 4 == 0 else State.RELEASED for n in range(12)]
    assert states(escrow, holds) == expected
    assert (record.settled, record.kept) == (12, 0)
    status = escrow.queue.status(now=int(time.time()))
    assert (status.ready, status.taken, status.poisoned) == (0, 0, 0)
    (seen,) = status.workers
    assert (seen.id, seen.settled) == (record.id, 12)
    assert seen.stopped_at is not None


class Stumbling:
    """A judge that trips over some of what it is given, as often as it is told to."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left = times
        self.error = error
        self.judge = make_judge()
        self.lock = threading.Lock()

    def __call__(self, lease: Lease) -> Judged:
        with self.lock:
            self.left -= 1
            stumbles = self.left >= 0
        if stumbles:
            raise self.error
        return self.judge(lease)


def test_one_that_stumbles_keeps_nobody_else_back(escrow: LedgerEscrow) -> None:
    (hold, *others) = stock(escrow, 4)
    judge = Stumbling(1, EscrowFailure("worker.tripped", "it trips"))
    said: list[str] = []
    terms = Terms(retry_after_s=0, poll_s=0.01, batch=1)
    Worker(escrow, judge, terms=terms, log=said.append).run(threading.Event(), until_empty=True)
    assert set(states(escrow, [hold, *others])) == {State.RELEASING}
    tried = [[a.outcome for a in escrow.queue.attempts(h, 0)] for h in (hold, *others)]
    assert sorted(tried, key=len) == [["release"]] * 3 + [["worker.tripped", "release"]]
    assert any("it trips" in line for line in said)


def test_poison_is_disputed_and_the_worker_lives(escrow: LedgerEscrow) -> None:
    (hold,) = stock(escrow, 1)
    judge = Stumbling(99, RuntimeError("always"))
    terms = Terms(retry_after_s=0, poll_s=0.01, lease_s=1)
    Worker(escrow, judge, terms=terms).run(threading.Event(), until_empty=True)
    assert states(escrow, [hold]) == [State.DISPUTED]
    attempts = escrow.queue.attempts(hold, 0)
    assert [a.outcome for a in attempts] == ["RuntimeError"] * 5


def test_a_bundle_that_does_not_parse_rejects_nobody(escrow: LedgerEscrow) -> None:
    (hold,) = stock(escrow, 1, queued=False)
    escrow.queue.add(hold, 0, b"no bundle", now=int(time.time()))
    stop = threading.Event()
    worker = Worker(escrow, make_judge(), terms=Terms(retry_after_s=60, poll_s=0.01))
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    while not (tried := escrow.queue.attempts(hold, 0)) or tried[0].outcome is None:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert tried[0].outcome == "bundle.not_json"
    assert states(escrow, [hold]) == [State.CLAIMED]


@pytest.mark.parametrize("case", ["key", "policy"])
def test_a_worker_of_another_verifier_or_without_the_policy_moves_nothing(
    escrow: LedgerEscrow, case: str
) -> None:
    (hold,) = stock(escrow, 1)
    judge = make_judge()
    if case == "key":
        judge._key = key_of("somebody")
    else:
        judge = VerifierJudge(judge._verifier, [], VERIFIER)
    stop = threading.Event()
    worker = Worker(escrow, judge, terms=Terms(retry_after_s=60, poll_s=0.01))
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    while not (tried := escrow.queue.attempts(hold, 0)) or tried[0].outcome is None:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert tried[0].outcome == {"key": "settle.verifier", "policy": "Misuse"}[case]
    assert states(escrow, [hold]) == [State.CLAIMED]


def test_who_is_told_to_stop_finishes_what_it_began_and_gives_the_rest_back(escrow: LedgerEscrow) -> None:
    holds = stock(escrow, 6)
    began, goes_on, stop, judge = threading.Event(), threading.Event(), threading.Event(), make_judge()

    def slow(lease: Lease) -> Judged:
        began.set()
        goes_on.wait()
        return judge(lease)

    worker = Worker(escrow, slow, terms=Terms(batch=6, poll_s=0.01))
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    began.wait()
    stop.set()
    while escrow.queue.status(now=int(time.time())).ready < 5:
        time.sleep(0.01)
    goes_on.set()
    thread.join()
    assert sorted(states(escrow, holds)) == [State.CLAIMED] * 5 + [State.RELEASING]
    assert escrow.queue.status(now=int(time.time())).ready == 5


def test_terms_make_sense() -> None:
    for changes in ({"parallel": 0}, {"batch": 0}, {"batch": 2000}, {"parallel": 1000}):
        with pytest.raises(Misuse):
            Terms(**changes)


def test_a_killed_workers_job_is_done_by_another_within_one_lease_once(
    escrow: LedgerEscrow, store: Store, folder: Path
) -> None:
    (hold,) = stock(escrow, 1)
    order = Order(location_of(store, folder), name="first", wait_s=60, lease_s=3)
    with subprocess.Popen(order.command, stdout=subprocess.PIPE, text=True) as first:
        while states(escrow, [hold]) != [State.VERIFYING]:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    second = replace(order, name="second", wait_s=0)
    done = subprocess.run(second.command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout.splitlines()[-1])["settled"] == 1
    assert time.monotonic() - killed < 60
    attempts = escrow.queue.attempts(hold, 0)
    assert [(a.worker, a.outcome) for a in attempts] == [("first", "lease_end"), ("second", "release")]
    assert attempts[1].began_at - attempts[0].began_at <= 2 * order.lease_s + 1
    assert states(escrow, [hold]) == [State.RELEASED]
