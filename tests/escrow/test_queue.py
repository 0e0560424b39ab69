"""The lease table: taken in batches, acknowledged by what settles, kept, given back, and never for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from escrow_builders import OUTPUT, START, VERIFICATION_S, Scene, digest_of, make_claim, refused
from proofhold.errors import Misuse
from proofhold.escrow import MAX_ATTEMPTS, HoldRecord, Ruled, Ruling
from proofhold.escrow.queue import Lease, WorkerRecord
from proofhold.job import PPM
from stores import Store

LEASE_S = 10


def queued(scene: Scene, count: int = 1, **changes: object) -> list[HoldRecord]:
    holds = [scene.claimed(**changes) for _ in range(count)]
    for hold in holds:
        scene.escrow.queue.add(hold.id, 0, f"bundle of {hold.id}".encode(), now=scene.now)
    return holds


def take(scene: Scene, worker: str = "w", limit: int = 10) -> tuple[Lease, ...]:
    return scene.escrow.queue.take(worker, limit=limit, lease_s=LEASE_S, now=scene.now)


def outcomes(scene: Scene, hold: HoldRecord) -> list[str | None]:
    return [attempt.outcome for attempt in scene.escrow.queue.attempts(hold.id, 0)]


def test_what_is_taken_has_everything_that_a_check_takes(scene: Scene) -> None:
    (hold,) = queued(scene)
    (lease,) = take(scene)
    assert (lease.hold, lease.seq, lease.number, lease.until) == (hold.id, 0, 1, START + LEASE_S)
    assert lease.bundle == f"bundle of {hold.id}".encode()
    assert lease.answers is None
    assert lease.secret == scene.escrow.reveal(hold.id, 0)
    held = scene.escrow.hold(hold.id)
    assert lease.record == held
    assert scene.state(hold) == "verifying"
    assert take(scene) == ()


def test_work_is_taken_in_batches_oldest_first(scene: Scene) -> None:
    first = queued(scene, 3)
    scene.now += 1
    second = queued(scene, 3)
    taken = [lease.hold for _ in range(3) for lease in take(scene, limit=2)]
    assert set(taken[:3]) == {hold.id for hold in first}
    assert set(taken[3:]) == {hold.id for hold in second}


def test_a_ruling_acknowledges_its_work(scene: Scene, store: Store) -> None:
    holds = queued(scene, 3)
    take(scene)
    scene.apply(holds[0], Ruling.RELEASE)
    rulings = [Ruled(h.id, 0, Ruling.REFUND, digest_of(h.id), b"r") for h in holds[1:]]
    scene.escrow.apply_many(rulings, now=scene.now)
    assert store.query("SELECT count(*) FROM work") == [(0,)]
    assert [outcomes(scene, hold) for hold in holds] == [["release"], ["refund"], ["refund"]]


def test_a_ruling_that_is_undone_acknowledges_nothing(scene: Scene, store: Store) -> None:
    used, (hold,) = scene.claimed(), queued(scene)
    take(scene)
    one_use = (digest_of("a quote"),)
    outcomes_ = scene.escrow.apply_many(
        [Ruled(h.id, 0, Ruling.RELEASE, digest_of(h.id), b"r", one_use) for h in (used, hold)], now=scene.now
    )
    assert getattr(outcomes_[1], "code", "") == "claim.reused_evidence"
    assert store.query("SELECT count(*) FROM work") == [(1,)]
    assert outcomes(scene, hold) == [None]


def test_a_lease_that_ends_goes_to_another_worker(scene: Scene) -> None:
    (hold,) = queued(scene)
    (first,) = take(scene, "one")
    scene.now += LEASE_S - 1
    assert take(scene, "two") == ()
    scene.now += 1
    (second,) = take(scene, "two")
    assert (first.number, second.number) == (1, 2)
    attempts = scene.escrow.queue.attempts(hold.id, 0)
    assert [(a.worker, a.outcome) for a in attempts] == [("one", "lease_end"), ("two", None)]
    scene.escrow.queue.give_back(first, outcome="late", after_s=0, now=scene.now)
    assert scene.state(hold) == "verifying", "what is no longer its own it cannot give back"
    assert scene.escrow.queue.renew([first, second], lease_s=LEASE_S, now=scene.now) == ((hold.id, 0),)


def test_a_lease_is_kept_while_its_worker_says_so(scene: Scene) -> None:
    (hold,) = queued(scene)
    (lease,) = take(scene)
    for _ in range(3):
        scene.now += LEASE_S - 1
        assert scene.escrow.queue.renew([lease], lease_s=LEASE_S, now=scene.now) == ((hold.id, 0),)
        assert take(scene, "another") == ()
    assert len(scene.escrow.queue.attempts(hold.id, 0)) == 1
    scene.now += LEASE_S
    assert scene.escrow.queue.renew([lease], lease_s=LEASE_S, now=scene.now) == ()


def test_no_renewal_outlives_the_verification_deadline(scene: Scene) -> None:
    (hold,) = queued(scene)
    (lease,) = take(scene)
    scene.escrow.queue.renew([lease], lease_s=10 * VERIFICATION_S, now=scene.now)
    assert scene.escrow.hold(hold.id).capture(0).due == START + VERIFICATION_S
    scene.now += VERIFICATION_S
    assert take(scene) == ()
    assert scene.state(hold) == "disputed"


def test_what_comes_to_nothing_rests_and_is_tried_again(scene: Scene) -> None:
    (hold,) = queued(scene)
    (lease,) = take(scene)
    scene.escrow.queue.give_back(lease, outcome="runner.died", after_s=3, now=scene.now)
    assert scene.state(hold) == "claimed"
    assert take(scene) == ()
    scene.now += 3
    (again,) = take(scene)
    assert again.number == 2
    assert outcomes(scene, hold) == ["runner.died", None]


def test_poison_ends_as_a_dispute_with_its_history(scene: Scene, store: Store) -> None:
    (hold,) = queued(scene)
    for number in range(1, MAX_ATTEMPTS + 1):
        (lease,) = take(scene, f"worker {number}")
        assert lease.number == number
        if number % 2:
            scene.escrow.queue.give_back(lease, outcome="runner.died", after_s=0, now=scene.now)
        else:
            scene.escrow.queue.begin(lease, now=scene.now)
        scene.now += LEASE_S
    assert take(scene) == ()
    assert scene.state(hold) == "disputed"
    assert outcomes(scene, hold) == ["runner.died", "lease_end", "runner.died", "lease_end", "runner.died"]
    assert store.query("SELECT count(*) FROM work") == [(0,)]
    status = scene.escrow.queue.status(now=scene.now)
    assert (status.ready, status.taken, status.poisoned) == (0, 0, 1)


def test_a_lease_is_no_attempt_until_its_check_begins(scene: Scene) -> None:
    """Workers that are killed with their hands full say nothing about what they held."""
    holds = queued(scene, 3, verification_s=10**6)
    assert [lease.is_suspect for lease in take(scene)] == [False] * 3
    for _ in range(4 * MAX_ATTEMPTS):
        scene.now += LEASE_S
        (lease,) = take(scene)
        assert lease.is_suspect, "from now on each is given alone, and none of them counts"
    assert {scene.escrow.hold(hold.id).capture(0).attempts for hold in holds} == {0}
    attempts = [a for hold in holds for a in scene.escrow.queue.attempts(hold.id, 0)]
    assert len(attempts) == 3 + 4 * MAX_ATTEMPTS
    assert not any(a.begun for a in attempts)
    assert scene.escrow.queue.status(now=scene.now).poisoned == 0


def test_who_takes_workers_down_is_announced_and_disputed_alone(scene: Scene) -> None:
    """The first death is nobody's; from then on each check is known to have begun."""
    hold, *others = queued(scene, 4, verification_s=10**6)
    take(scene, "the first")
    deaths = 0
    while scene.state(hold) != "disputed":
        scene.now += LEASE_S
        scene.escrow.run_timers(scene.now)
        for lease in take(scene, "another"):
            scene.escrow.queue.begin(lease, now=scene.now)
            deaths += lease.hold == hold.id
            if lease.hold != hold.id:
                scene.apply(scene.escrow.hold(lease.hold), Ruling.RELEASE)
    assert deaths == MAX_ATTEMPTS
    attempts = scene.escrow.queue.attempts(hold.id, 0)
    assert [a.begun for a in attempts] == [False] + [True] * MAX_ATTEMPTS
    assert {scene.state(other) for other in others} == {"releasing"}
    assert {scene.escrow.hold(other.id).capture(0).attempts for other in others} == {1}


def test_what_is_not_suspect_is_taken_together_before_and_after(scene: Scene) -> None:
    first = queued(scene, 2, verification_s=10**6)
    take(scene)
    scene.now += LEASE_S - 1
    later = queued(scene, 2, verification_s=10**6)
    scene.now += 1
    assert {lease.hold for lease in take(scene)} == {hold.id for hold in later}
    (alone,) = take(scene)
    (other,) = take(scene)
    assert {alone.hold, other.hold} == {hold.id for hold in first}


def test_a_heartbeat_says_which_checks_run(scene: Scene) -> None:
    holds = queued(scene, 3, verification_s=10**6)
    for _ in range(2):
        leases = take(scene)
        for _ in range(3):  # said often, counted once
            scene.escrow.queue.renew(leases, begun=leases[:1], lease_s=LEASE_S, now=scene.now)
        scene.now += LEASE_S
    first = {lease.hold for lease in leases[:1]}
    counted = {hold.id: scene.escrow.hold(hold.id).capture(0).attempts for hold in holds}
    assert {counted[hold] for hold in first} <= {1, 2}
    assert sum(counted.values()) == 2


def test_what_a_stopping_worker_did_not_begin_is_not_counted(scene: Scene) -> None:
    (hold,) = queued(scene, verification_s=10**6)
    for _ in range(2 * MAX_ATTEMPTS):
        (lease,) = take(scene)
        scene.escrow.queue.give_back(lease, outcome="stopped", after_s=0, now=scene.now, counts=False)
    assert scene.state(hold) == "claimed"
    assert scene.escrow.hold(hold.id).capture(0).attempts == 0


def test_whose_lease_is_over_begins_nothing(scene: Scene) -> None:
    (hold,) = queued(scene)
    (first,) = take(scene)
    scene.now += LEASE_S
    with refused("escrow.lease_ended"):
        scene.escrow.queue.begin(first, now=scene.now)
    (second,) = take(scene)
    with refused("escrow.lease_ended"):
        scene.escrow.queue.begin(first, now=scene.now)
    scene.escrow.queue.begin(second, now=scene.now)
    scene.escrow.queue.begin(second, now=scene.now)
    assert scene.escrow.hold(hold.id).capture(0).attempts == 1


def test_an_opening_is_something_new_to_check(scene: Scene) -> None:
    (hold,) = queued(scene, verification_s=10**6)
    for number in range(1, 3):
        (lease,) = take(scene)
        scene.escrow.queue.give_back(lease, outcome="runner.died", after_s=0, now=scene.now)
        assert scene.escrow.hold(hold.id).capture(0).attempts == number
    (lease,) = take(scene)
    scene.escrow.await_opening(hold.id, 0, now=scene.now)
    scene.escrow.queue.set_aside(lease, outcome="awaits_opening", now=scene.now)
    assert scene.escrow.opened(hold.id, 0, opening=digest_of("o"), now=scene.now).attempts == 0
    scene.escrow.queue.add(hold.id, 0, b"the same", answers=b"the opening", now=scene.now)
    (lease,) = take(scene)
    assert lease.number == 4


def test_what_time_or_people_decided_leaves_the_queue(scene: Scene, store: Store) -> None:
    holds = queued(scene, 2)
    scene.apply(holds[0], Ruling.DISPUTE)
    scene.now += VERIFICATION_S
    scene.escrow.run_timers(scene.now)
    assert {scene.state(hold) for hold in holds} == {"disputed"}
    assert take(scene) == ()
    assert store.query("SELECT count(*) FROM work") == [(0,)]


def test_captures_of_one_hold_leave_the_queue_together(scene: Scene, store: Store) -> None:
    """What one of them does to the bond, the other finds done."""
    hold = scene.fund(captures=3, sampling_rate_ppm=PPM)
    for seq, amount in enumerate((100, 200)):
        scene.escrow.record_claim(make_claim(hold.job, seq=seq, amount=amount), OUTPUT, now=scene.now)
        scene.escrow.queue.add(hold.id, seq, b"a bundle", now=scene.now)
    scene.now += VERIFICATION_S
    assert take(scene) == ()
    assert [c.state for c in scene.escrow.hold(hold.id).captures[:2]] == ["disputed", "disputed"]
    assert scene.escrow.audit() == ()
    assert store.query("SELECT count(*) FROM work") == [(0,)]


def test_a_check_outside_of_the_queue_is_not_disturbed(scene: Scene) -> None:
    (hold,) = queued(scene)
    scene.escrow.begin_verification(hold.id, 0, lease_s=LEASE_S, now=scene.now)
    assert take(scene) == ()
    scene.now += LEASE_S
    (lease,) = take(scene)
    assert lease.number == 2


def test_work_that_is_handed_in_again_is_replaced(scene: Scene) -> None:
    (hold,) = queued(scene)
    (lease,) = take(scene)
    scene.escrow.queue.set_aside(lease, outcome="awaits_opening", now=scene.now)
    scene.escrow.end_verification(hold.id, 0, now=scene.now)
    assert take(scene) == ()
    for answers in (b"no", b"the opening"):
        scene.escrow.queue.add(hold.id, 0, b"the same", answers=answers, now=scene.now)
    (again,) = take(scene)
    assert (again.bundle, again.answers, again.number) == (b"the same", b"the opening", 2)
    assert outcomes(scene, hold) == ["awaits_opening", None]


def test_only_what_waits_for_a_verdict_is_queued(scene: Scene) -> None:
    hold, decided = scene.fund(), scene.claimed()
    with refused("escrow.not_claimed"):
        scene.escrow.queue.add(hold.id, 0, b"b", now=scene.now)
    scene.apply(decided, Ruling.REFUND)
    with refused("escrow.decided"):
        scene.escrow.queue.add(decided.id, 0, b"b", now=scene.now)
    with refused("escrow.unknown_hold"):
        scene.escrow.queue.add(digest_of("x"), 0, b"b", now=scene.now)
    with pytest.raises(Misuse):
        scene.escrow.queue.add(hold.id, 0, b"", now=scene.now)


@pytest.mark.parametrize(
    ("worker", "limit", "lease_s"), [("", 1, 1), ("w", 0, 1), ("w", 1025, 1), ("w", 1, 0)]
)
def test_senseless_terms_are_misuse(scene: Scene, worker: str, limit: int, lease_s: int) -> None:
    with pytest.raises(Misuse):
        scene.escrow.queue.take(worker, limit=limit, lease_s=lease_s, now=scene.now)


def test_workers_that_take_at_once_take_each_thing_once(scene: Scene, store: Store) -> None:
    holds = queued(scene, 60)
    escrows = [store.open() for _ in range(6)]

    def work(number: int) -> list[str]:
        taken: list[str] = []
        while leases := escrows[number].queue.take(f"w{number}", limit=4, lease_s=LEASE_S, now=scene.now):
            taken += [lease.hold for lease in leases]
        return taken

    with ThreadPoolExecutor(6) as pool:
        taken = [hold for some in pool.map(work, range(6)) for hold in some]
    rest = [lease.hold for lease in take(scene, limit=60)]  # passed over while others looked at them
    assert sorted(taken + rest) == sorted(hold.id for hold in holds)
    for escrow in escrows:
        escrow.close()


def test_workers_are_counted(scene: Scene) -> None:
    queued(scene, 2)
    take(scene, limit=1)
    worker = WorkerRecord("w", "host", 7, START, START, None, 0, 0)
    scene.escrow.queue.beat(worker)
    scene.escrow.queue.beat(WorkerRecord("w", "host", 7, START, START + 5, None, 3, 1))
    status = scene.escrow.queue.status(now=START + 5)
    assert (status.ready, status.taken, status.oldest_s) == (1, 1, 5)
    assert [(w.settled, w.kept, w.is_alive(START + 5)) for w in status.workers] == [(3, 1, True)]
    assert not status.workers[0].is_alive(START + 100)
