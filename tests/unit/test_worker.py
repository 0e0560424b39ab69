"""Workers: what is queued is judged and settled once, whoever dies, stops or stumbles on the way."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from escrow_builders import ScriptedRail, memory_folder
from judging import PRICE, VERIFIER, catalogue, key_of, logits, policy, runner
from proofhold.answers import encode_answers
from proofhold.core import Answer, NeedKind
from proofhold.drafting import USDC
from proofhold.errors import Misuse
from proofhold.escrow import (
    MAX_ATTEMPTS,
    Applied,
    EscrowFailure,
    LedgerRail,
    PaymentKey,
    RailReceipt,
    Refused,
    Ruled,
    State,
)
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.payments import LEASE_S
from proofhold.escrow.queue import Lease
from proofhold.exchange import Bundle
from proofhold.guard import Terms as GuardTerms
from proofhold.job import PPM
from proofhold.judges import Judged, VerifierJudge
from proofhold.receipt import Receipt
from proofhold.recomputation import recheck
from proofhold.retention import EvidenceFolder
from proofhold.standard import standard_verifier
from proofhold.worker import Terms, Worker
from settling import MEASURED, accepted, inconclusive, open_hall, rejected
from stores import DRIVERS, Store, make_store
from workshop import POLICY, Order, is_running, make_judge, nursery, stock


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
    worker = Worker(escrow, make_judge(escrow), terms=Terms(parallel=2, batch=4), rail=LedgerRail())
    record = worker.run(threading.Event(), until_empty=True)
    expected = [State.REFUNDED if n % 4 == 0 else State.RELEASED for n in range(12)]
    assert states(escrow, holds) == expected
    assert (record.settled, record.kept) == (12, 0)
    status = escrow.queue.status(now=int(time.time()))
    assert (status.ready, status.taken, status.poisoned) == (0, 0, 0)
    (seen,) = status.workers
    assert (seen.id, seen.settled) == (record.id, 12)
    assert seen.stopped_at is not None


def test_what_is_judged_within_a_moment_is_settled_together(escrow: LedgerEscrow) -> None:
    stock(escrow, 32)
    decided: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(escrow, name)

        def apply_many(self, rulings: Sequence[Ruled], *, now: int) -> Sequence[Applied | Refused]:
            decided.append(len(rulings))
            return escrow.apply_many(rulings, now=now)

    counting: Any = Counting()
    Worker(counting, make_judge(escrow), terms=Terms(batch=32)).run(threading.Event(), until_empty=True)
    assert sum(decided) == 32
    assert len(decided) < 32


class Stumbling:
    """A judge that trips over some of what it is given, as often as it is told to."""

    def __init__(self, escrow: LedgerEscrow, times: int, error: Exception) -> None:
        self.left = times
        self.error = error
        self.judge = make_judge(escrow)
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
    judge = Stumbling(escrow, 1, EscrowFailure("worker.tripped", "it trips"))
    said: list[str] = []
    terms = Terms(retry_after_s=0, poll_s=0.01, batch=1)
    Worker(escrow, judge, terms=terms, log=said.append).run(threading.Event(), until_empty=True)
    assert set(states(escrow, [hold, *others])) == {State.RELEASING}
    tried = [[(a.outcome, a.begun) for a in escrow.queue.attempts(h, 0)] for h in (hold, *others)]
    # What the escrow itself stumbled over says nothing about the capture: no attempt.
    stumbled = [("worker.tripped", False), ("release", True)]
    assert sorted(tried, key=len) == [[("release", True)]] * 3 + [stumbled]
    assert any("it trips" in line for line in said)


def test_poison_is_disputed_and_the_worker_lives(escrow: LedgerEscrow) -> None:
    (hold,) = stock(escrow, 1)
    judge = Stumbling(escrow, 99, RuntimeError("always"))
    terms = Terms(retry_after_s=0, poll_s=0.01, lease_s=1)
    Worker(escrow, judge, terms=terms).run(threading.Event(), until_empty=True)
    assert states(escrow, [hold]) == [State.DISPUTED]
    attempts = escrow.queue.attempts(hold, 0)
    assert [a.outcome for a in attempts] == ["RuntimeError"] * 5


def test_a_bundle_that_does_not_parse_rejects_nobody(escrow: LedgerEscrow) -> None:
    (hold,) = stock(escrow, 1, queued=False)
    escrow.queue.add(hold, 0, b"no bundle", now=int(time.time()))
    stop = threading.Event()
    worker = Worker(escrow, make_judge(escrow), terms=Terms(retry_after_s=60, poll_s=0.01))
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
    judge = make_judge(escrow)
    if case == "key":
        judge._key = key_of("somebody")
    else:
        judge = VerifierJudge(judge._verifier, [], VERIFIER, escrow=escrow)
    stop = threading.Event()
    worker = Worker(escrow, judge, terms=Terms(retry_after_s=0, poll_s=0.01))
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    while len(tried := [a for a in escrow.queue.attempts(hold, 0) if a.outcome]) <= MAX_ATTEMPTS:
        time.sleep(0.01)
    stop.set()
    thread.join()
    # Its own fault, however often: it leaves the job to a worker who can, and disputes nobody's.
    assert {(a.outcome, a.begun) for a in tried} == {
        ({"key": "settle.verifier", "policy": "Misuse"}[case], False)
    }
    assert states(escrow, [hold]) == [State.CLAIMED]
    Worker(escrow, make_judge(escrow), terms=Terms(poll_s=0.01)).run(threading.Event(), until_empty=True)
    assert states(escrow, [hold]) == [State.RELEASING]


def test_who_is_told_to_stop_finishes_what_it_began_and_gives_the_rest_back(escrow: LedgerEscrow) -> None:
    holds = stock(escrow, 7)
    began, goes_on, stop, judge = threading.Event(), threading.Event(), threading.Event(), make_judge(escrow)
    calls = itertools.count()

    def slow_from_the_second_on(lease: Lease) -> Judged:
        if next(calls):
            began.set()
            goes_on.wait()
        return judge(lease)

    worker = Worker(escrow, slow_from_the_second_on, terms=Terms(batch=6, poll_s=0.01))
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    began.wait()
    assert escrow.queue.status(now=int(time.time())).ready == 0  # five wait behind the one that is begun
    stop.set()
    while escrow.queue.status(now=int(time.time())).ready < 5:
        time.sleep(0.01)
    goes_on.set()
    thread.join()
    assert Counter(states(escrow, holds)) == {State.CLAIMED: 5, State.RELEASING: 2}
    assert escrow.queue.status(now=int(time.time())).ready == 5


def test_where_checks_take_long_workers_leave_each_other_some(escrow: LedgerEscrow) -> None:
    holds = stock(escrow, 12)
    workers = [Worker(escrow, make_judge(escrow, 0.4), terms=Terms(poll_s=0.01)) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        records = list(pool.map(lambda w: w.run(threading.Event(), until_empty=True), workers))
    assert states(escrow, holds) == [State.RELEASING] * 12
    assert min(record.settled for record in records) >= 2, "one took what the others could have done"


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


def test_a_check_that_takes_its_workers_down_is_disputed_and_spares_the_rest(
    escrow: LedgerEscrow, store: Store, folder: Path
) -> None:
    """Killed with a handful of leases, a worker says nothing about those that it had not begun."""
    holds = stock(escrow, 6)
    poison = sorted(holds)[2]  # in the middle of what each worker takes
    order = Order(location_of(store, folder), deadly=poison, lease_s=20, poll_s=0.01, batch=6)
    with nursery() as start:
        for life in range(MAX_ATTEMPTS + 2):  # each begins when the leases of the last have ended
            pid = start(replace(order, shift_s=30 * life, until_empty=True))
            while is_running(pid):
                time.sleep(0.01)
    assert set(states(escrow, [hold for hold in holds if hold != poison])) == {State.RELEASED}
    assert states(escrow, [poison]) == [State.DISPUTED]
    attempts = escrow.queue.attempts(poison, 0)
    assert [(a.outcome, a.begun) for a in attempts] == [("lease_end", n > 0) for n in range(MAX_ATTEMPTS + 1)]
    assert escrow.queue.status(now=int(time.time())).poisoned == 1
    spared = [a.begun for hold in holds if hold != poison for a in escrow.queue.attempts(hold, 0)]
    assert spared.count(True) == len(holds) - 1, "each was begun once: what may be deadly is begun alone"


def test_what_is_checked_is_kept_as_evidence_as_long_as_its_state_asks_for_it(
    escrow: LedgerEscrow, folder: Path
) -> None:
    kept = EvidenceFolder(folder / "evidence", escrow)
    released, refunded, poisoned, broken = stock(escrow, 4, forged=lambda n: n == 1, queued=True)
    escrow.queue.add(broken, 0, b"no bundle", now=int(time.time()))
    judge = make_judge(escrow)

    def choking(lease: Lease) -> Judged:
        if lease.hold == poisoned:
            raise RuntimeError("always")
        return judge(lease)

    terms = Terms(retry_after_s=0, poll_s=0.01, lease_s=1)
    worker = Worker(escrow, choking, terms=terms, rail=LedgerRail(), evidence=kept)
    worker.run(threading.Event(), until_empty=True)
    expected = [State.RELEASED, State.REFUNDED, State.DISPUTED, State.DISPUTED]
    assert states(escrow, [released, refunded, poisoned, broken]) == expected
    assert [len(kept.pieces(hold)) for hold in (released, refunded, poisoned, broken)] == [1] * 4
    receipt = Receipt.decode(escrow.hold(refunded).capture(0).decisions[0].receipt)
    bundle = Bundle.decode(kept.read(kept.pieces(refunded)[0].digest))
    assert recheck(receipt, bundle, policy=POLICY, verifier=judge._verifier) == ()
    assert kept.read(kept.pieces(broken)[0].digest) == b"no bundle"
    late = int(time.time()) + 10**6
    assert [piece.hold for piece in kept.prune(now=late).pieces] == [released], "the others are in question"
    escrow.run_timers(late)
    escrow.run_timers(2 * late)
    escrow.pump(LedgerRail(), now=2 * late)
    pruned = kept.prune(now=3 * late)
    assert {piece.hold for piece in pruned.pieces} == {refunded, poisoned, broken}


def test_evidence_that_cannot_be_kept_keeps_nobody_from_being_paid(
    escrow: LedgerEscrow, folder: Path
) -> None:
    (folder / "evidence").write_bytes(b"a file where a folder should be")
    said: list[str] = []
    holds, kept = stock(escrow, 2), EvidenceFolder(folder / "evidence", escrow)
    Worker(escrow, make_judge(escrow), evidence=kept, log=said.append).run(
        threading.Event(), until_empty=True
    )
    assert set(states(escrow, holds)) == {State.RELEASING}
    assert any("evidence is not kept" in line for line in said)


def test_what_the_guard_wants_checked_is_checked_by_a_worker_too() -> None:
    """After a failed check undecided jobs are checked, drawn or not (P11), whoever takes them."""
    with open_hall() as hall:
        terms = GuardTerms(kappa=PRICE, probation_checks=1, saving_ppm=0)
        hall.escrow.set_guard(USDC, terms, now=hall.now)
        first = hall.fund(sampling_rate_ppm=PPM)
        hall.judge(first, hall.claim(first))
        hall.escrow.set_guard(USDC, replace(terms, kappa=100 * PRICE), now=hall.now)
        honest, dishonest, failing = (hall.fund(sampling_rate_ppm=PPM // 5) for _ in range(3))
        for hold, output in ((honest, None), (dishonest, logits(0.0, dtype="float32"))):
            hall.escrow.queue.add(hold.id, 0, hall.claim(hold, output).encode(), now=hall.now)
        hall.claim(failing)
        hall.settle(failing, rejected(hall.escrow.hold(failing.id), MEASURED))
        verifier = standard_verifier(catalogue(), runner())
        judge = VerifierJudge(verifier, [policy()], VERIFIER, escrow=hall.escrow)
        worker = Worker(hall.escrow, judge, terms=Terms(poll_s=0.01), clock=hall.clock)
        worker.run(threading.Event(), until_empty=True)
        assert [hall.state(hold) for hold in (honest, dishonest)] == [State.RELEASING, State.DISPUTED]


def test_a_secret_that_somebody_hands_in_is_not_heard() -> None:
    """What is revealed is the escrow's to say, in a worker as in the hook (P3)."""
    with open_hall() as hall:
        hold = hall.fund(sampling_rate_ppm=PPM)
        handed_in = encode_answers([Answer(NeedKind.REVEAL, bytes(32))])
        hall.escrow.queue.add(hold.id, 0, hall.claim(hold).encode(), answers=handed_in, now=hall.now)
        verifier = standard_verifier(catalogue(), runner())
        judge = VerifierJudge(verifier, [policy()], VERIFIER, escrow=hall.escrow)
        (lease,) = hall.escrow.queue.take("worker", limit=1, lease_s=60, now=hall.now)
        heard = [answer.body for answer in judge(lease).receipt.answers if answer.kind is NeedKind.REVEAL]
        assert heard == [hall.escrow.reveal(hold.id, 0)]


class Trickling(ScriptedRail):
    """A rail that does not answer until it is let, and trips the first time."""

    def __init__(self) -> None:
        super().__init__("broken")
        self.called, self.lets = threading.Event(), threading.Event()

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        self.called.set()
        self.lets.wait()
        return super().pay(key, amount, currency, account)


def test_a_rail_that_takes_its_time_or_trips_holds_up_no_check(escrow: LedgerEscrow) -> None:
    """Leases go on being kept, checks being settled; what was in hand is paid in another round."""
    holds, rail, said = stock(escrow, 2), Trickling(), list[str]()
    worker = Worker(escrow, make_judge(escrow), terms=Terms(poll_s=0.01), rail=rail, log=said.append)
    thread = threading.Thread(target=worker.run, args=(stop := threading.Event(),))
    thread.start()
    rail.called.wait()
    more = stock(escrow, 2, first=2)  # while a payment hangs
    while set(states(escrow, more)) != {State.RELEASING}:
        time.sleep(0.01)
    rail.lets.set()
    while set(states(escrow, more)) != {State.RELEASED}:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert any("the process trips" in line for line in said)
    while escrow.pump(rail, now=int(time.time()) + LEASE_S).paid:
        pass
    assert set(states(escrow, [*holds, *more])) == {State.RELEASED}
    assert len(set(rail.paid)) == len(rail.paid) == 4


def test_what_somebody_else_decided_meanwhile_holds_up_no_worker() -> None:
    """It was drawn, and an opening was to be asked for; by then the capture is released."""
    with open_hall() as hall:
        hold = hall.fund()
        hall.escrow.queue.add(hold.id, 0, hall.claim(hold).encode(), now=hall.now)

        def overtaken(lease: Lease) -> Judged:
            claimed = hall.escrow.hold(lease.hold)
            hall.settle(claimed, accepted(claimed))
            return Judged(Receipt.issue(inconclusive(claimed), VERIFIER), awaits_opening=True)

        worker = Worker(hall.escrow, overtaken, terms=Terms(poll_s=0.01), clock=hall.clock)
        worker.run(threading.Event(), until_empty=True)
        assert hall.state(hold) is State.RELEASING
        assert [a.outcome for a in hall.escrow.queue.attempts(hold.id, 0)] == ["release"]


def test_of_what_may_be_deadly_one_at_a_time_is_checked_beside_the_rest(escrow: LedgerEscrow) -> None:
    now = int(time.time())
    holds = stock(escrow, 4, now=now - 20)
    for _ in range(2):  # two workers die, and what they had is suspect from now on
        (_,) = escrow.queue.take("dead", limit=1, lease_s=1, now=now - 10)
    seen, lock, judge = list[list[bool]](), threading.Lock(), make_judge(escrow)
    running: list[Lease] = []

    def watching(lease: Lease) -> Judged:
        with lock:
            running.append(lease)
            seen.append([one.is_suspect for one in running])
        time.sleep(0.05)
        with lock:
            running.remove(lease)
        return judge(lease)

    terms = Terms(parallel=3, batch=8, poll_s=0.01)
    Worker(escrow, watching, terms=terms).run(threading.Event(), until_empty=True)
    assert set(states(escrow, holds)) == {State.RELEASING}
    assert max(sum(together) for together in seen) == 1
    counted = [a.begun for hold in holds for a in escrow.queue.attempts(hold, 0)]
    assert sorted(counted) == [False, False, True, True, True, True]
