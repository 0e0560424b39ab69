"""Checks wait in a queue: each is run once, and one whose worker dies is taken again."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from signal import SIGKILL

import pytest

from judging import PRICE, VERIFIER, FailingRunner, policy
from proofhold.checking import CheckPool
from proofhold.errors import Misuse
from proofhold.escrow import Refused, State
from proofhold.exchange import Bundle
from proofhold.receipt import Receipt
from proofhold.replay.queue import MAX_ATTEMPTS, CheckKey, Lease, MemoryQueue, work
from proofhold.replay.rerun import Rerunner, compare_run
from proofhold.replay.segments import distances
from proofhold.runner import DEFAULT_DEADLINE_S, ProcessRunner, Task
from replay_exchanges import honest_run
from replay_house import BOND, House, open_house
from replay_models import entry
from runner_tasks import die


@pytest.fixture
def house() -> Iterator[House]:
    yield from open_house()


def key(number: int, segment: int = 0) -> CheckKey:
    return CheckKey(f"{number:064x}", segment)


def test_a_check_is_named_by_its_run_and_segment() -> None:
    queue = MemoryQueue()
    assert queue.put(key(1, 0), b"a")
    assert queue.put(key(1, 1), b"b")
    assert queue.put(key(2, 0), b"c")
    assert not queue.put(key(1, 0), b"another")
    assert [queue.take(now=0, lease_s=1).body for _ in range(3)] == [b"a", b"b", b"c"]  # type: ignore[union-attr]
    assert queue.take(now=0, lease_s=1) is None
    for wrong in (("short", 0), ("0" * 64, -1)):
        with pytest.raises(Misuse):
            CheckKey(*wrong)


def test_a_finished_check_is_not_taken_again() -> None:
    queue = MemoryQueue()
    queue.put(key(1), b"")
    lease = queue.take(now=0, lease_s=1)
    assert lease is not None
    assert queue.finish(lease, b"result")
    assert not queue.put(key(1), b"")
    assert queue.take(now=9, lease_s=1) is None
    found = queue.outcome(key(1))
    assert found is not None
    assert (found.result, found.attempts, queue.pending()) == (b"result", 1, 0)


def test_a_worker_that_says_nothing_loses_its_lease_and_the_first_result_counts() -> None:
    queue = MemoryQueue()
    queue.put(key(1), b"")
    slow = queue.take(now=0, lease_s=10)
    assert queue.take(now=9.9, lease_s=10) is None
    quick = queue.take(now=10, lease_s=10)
    assert slow is not None
    assert quick is not None
    assert (slow.attempt, quick.attempt) == (1, 2)
    queue.give_back(slow, "late")  # it holds nothing any more
    assert queue.take(now=11, lease_s=10) is None
    assert queue.finish(slow, b"first")
    assert not queue.finish(quick, b"second")
    found = queue.outcome(key(1))
    assert found is not None
    assert found.result == b"first"


def test_a_queue_remembers_so_many_results_and_no_more() -> None:
    queue = MemoryQueue(max_outcomes=2)
    for number in range(3):
        queue.put(key(number), b"")
        lease = queue.take(now=0, lease_s=1)
        assert lease is not None
        queue.finish(lease, b"%d" % number)
    kept = [queue.outcome(key(number)) for number in range(3)]
    assert [outcome.result if outcome else None for outcome in kept] == [None, b"1", b"2"]


def test_after_the_last_attempt_a_check_has_failed() -> None:
    queue = MemoryQueue()
    queue.put(key(1), b"")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        lease = queue.take(now=attempt, lease_s=10)
        assert lease is not None
        assert (lease.attempt, queue.outcome(key(1))) == (attempt, None)
        queue.give_back(lease, "the worker died")
    found = queue.outcome(key(1))
    assert found is not None
    assert (found.result, found.attempts, found.error) == (None, MAX_ATTEMPTS, "the worker died")
    assert queue.pending() == 0


def test_many_workers_run_each_check_once() -> None:
    queue, ran, lock = MemoryQueue(), [], threading.Lock()
    for number in range(300):
        queue.put(key(number), b"%d" % number)

    def check(lease: Lease) -> bytes:
        with lock:
            ran.append(lease.key)
        return lease.body

    work(queue, check, clock=time.monotonic, workers=8)
    assert sorted(ran) == [key(number) for number in range(300)]
    outcomes = [queue.outcome(key(number)) for number in range(300)]
    assert [outcome.result for outcome in outcomes if outcome] == [b"%d" % n for n in range(300)]


def test_a_worker_process_that_is_killed_in_the_middle_is_replaced_and_its_check_taken_again() -> None:
    """Real processes: the first attempt at every third check ends its worker."""
    known = entry("chain")
    _, run = honest_run(known)
    queue = MemoryQueue()
    segments = len(known.replay.segments) if known.replay else 0
    for number, segment in itertools.product(range(3), range(segments)):
        queue.put(key(number, segment), b"")
    with ProcessRunner(2) as runner:
        rerunner = Rerunner(known, runner)

        def check(lease: Lease) -> bytes:
            if lease.key.segment % 3 == 0 and lease.attempt == 1:
                runner.run(die, str(int(SIGKILL)).encode())
            return json.dumps(dict(distances(rerunner, lease.key.segment, run))).encode()

        work(queue, check, clock=time.monotonic, workers=2)
    for number, segment in itertools.product(range(3), range(segments)):
        found = queue.outcome(key(number, segment))
        assert found is not None
        assert found.result is not None
        assert max(json.loads(found.result).values()) < 1e-6
        assert found.attempts == (2 if segment % 3 == 0 else 1)


def test_checks_that_always_die_end_all_the_same() -> None:
    queue = MemoryQueue()
    queue.put(key(1), b"")

    def check(lease: Lease) -> bytes:
        return FailingRunner().run(die)

    work(queue, check, clock=time.monotonic, workers=2)
    found = queue.outcome(key(1))
    assert found is not None
    assert found.result is None
    assert "on purpose" in found.error


def test_our_own_mistakes_are_raised_and_no_worker_hangs() -> None:
    queue = MemoryQueue()
    for number in range(20):
        queue.put(key(number), b"")

    def check(lease: Lease) -> bytes:
        raise ValueError("our own mistake")

    with pytest.raises(ValueError, match="our own"):
        work(queue, check, clock=time.monotonic, workers=3)
    with pytest.raises(Misuse):
        work(queue, check, clock=time.monotonic, workers=0)


class Murderous:
    """Kills the worker of the first `deaths` checks of a segment, and runs everything else as it should."""

    def __init__(self, runner: ProcessRunner, deaths: int) -> None:
        self._runner, self.deaths, self.checks = runner, deaths, 0

    def run(self, task: Task, *parts: bytes, deadline_s: float = DEFAULT_DEADLINE_S) -> bytes:
        if task is compare_run:
            self.checks += 1
            if self.checks <= self.deaths:
                self._runner.run(die, str(int(SIGKILL)).encode())
        return self._runner.run(task, *parts, deadline_s=deadline_s)


@pytest.mark.parametrize("deaths", [0, 2])
def test_a_drawn_check_whose_process_is_killed_is_taken_again_and_settles_once(
    house: House, deaths: int
) -> None:
    """From the claim to the money, with real processes."""
    claim = house.hire()
    segment, hold = house.drawn(claim), claim.exchange.job.digest
    with ProcessRunner(2) as runner:
        murderous = Murderous(runner, deaths)
        verifier = house.verifier(murderous)
        pool = CheckPool(verifier, [policy("sampled")], escrow=house.escrow, key=VERIFIER, clock=house.clock)
        opening, bundle = claim.opening(segment), Bundle(claim.exchange)
        key = pool.hand_in(hold, bundle, [opening], segment=segment)
        assert pool.hand_in(hold, bundle, [opening], segment=segment) == key
        pool.run(workers=2)
    assert murderous.checks == deaths + 1
    receipt = pool.decided(key)
    assert receipt is not None
    assert Receipt.decode(receipt).outcome == "accepted"
    assert house.wealth() == 100 * BOND + PRICE
    assert house.state(claim) is State.RELEASED
    assert house.escrow.audit() == ()


def test_a_check_that_always_dies_blames_nobody_and_the_escrows_clock_goes_on(house: House) -> None:
    claim = house.hire()
    segment = house.drawn(claim)
    with ProcessRunner() as runner:
        pool = CheckPool(
            house.verifier(Murderous(runner, 99)),
            [policy("sampled")],
            escrow=house.escrow,
            key=VERIFIER,
            clock=house.clock,
        )
        key = pool.hand_in(
            claim.exchange.job.digest, Bundle(claim.exchange), [claim.opening(segment)], segment=segment
        )
        pool.run()
    assert pool.decided(key) is None
    assert house.state(claim) is State.CLAIMED
    house.now += 2 * 3_600
    house.escrow.run_timers(house.now)
    assert house.state(claim) is State.DISPUTED
    assert house.wealth() == 100 * BOND, "the fee waits, and nothing is taken"


def test_a_pool_takes_recorded_claims_under_policies_that_it_has(house: House) -> None:
    claim = house.hire()
    hold, bundle = claim.exchange.job.digest, Bundle(claim.exchange)
    pool = CheckPool(house.verifier(), [], escrow=house.escrow, key=VERIFIER, clock=house.clock)
    pool.hand_in(hold, bundle)
    with pytest.raises(Misuse, match="policy"):
        pool.run()
    with pytest.raises(Refused):
        pool.hand_in("0" * 64, bundle)
