"""Where checks wait for a worker: leases by (root, segment), so that one that dies is taken again.

`CheckQueue` is the protocol; `MemoryQueue` serves one process, and a database can serve the same protocol to
many (a row a check, a lease that ends by itself). A check is idempotent and named by what it is about: handed
in twice it is one, and its first result is final.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from proofhold.canonical import Digest
from proofhold.errors import Misuse
from proofhold.runner import RunnerError

MAX_ATTEMPTS = 3
MAX_WAITING = 100_000
MAX_OUTCOMES = 100_000
"""How many results a queue in memory remembers: a check that it forgot runs again, and settles nothing."""
MAX_SEGMENT = 2**16
POLL_S = 0.05


@dataclass(frozen=True, slots=True, order=True)
class CheckKey:
    """What a check is about: a run by the root of its trace, and one of its segments."""

    root: Digest
    segment: int

    def __post_init__(self) -> None:
        if len(self.root) != 64 or not 0 <= self.segment <= MAX_SEGMENT:
            raise Misuse(f"check {self.root[:80]!r}, {self.segment}: expected a root and a segment")


@dataclass(frozen=True, slots=True)
class Lease:
    """One worker's hold on a check, until `ends_at` (seconds of the queue's clock)."""

    key: CheckKey
    body: bytes
    attempt: int
    """From 1."""
    ends_at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a check: its result, or why there is none after the last attempt."""

    result: bytes | None
    attempts: int
    error: str = ""


class CheckQueue(Protocol):
    """Keeps checks until they are done. Thread-safe. `now` is in seconds, of a clock that never goes back."""

    def put(self, key: CheckKey, body: bytes) -> bool:
        """Hand in a check; False if one of this key is known already.

        Raises:
            Misuse: more checks wait than a queue holds.

        """

    def take(self, *, now: float, lease_s: float) -> Lease | None:
        """Take the check that has waited longest, or one whose lease has ended; None if there is none."""

    def finish(self, lease: Lease, result: bytes) -> bool:
        """Record a result; False if another worker finished the check meanwhile: the first one counts."""

    def give_back(self, lease: Lease, error: str) -> None:
        """Give a check back unfinished: it waits again, or has failed for good after the last attempt.

        A lease that has ended, and whose check somebody else holds, gives nothing back.
        """

    def outcome(self, key: CheckKey) -> Outcome | None:
        """Give what became of a check, or None while it waits or runs, or is not known."""

    def pending(self) -> int:
        """Count the checks that wait or run."""


class MemoryQueue:
    """A queue for the threads of one process; what it held is lost with it, and is handed in again."""

    def __init__(self, *, max_attempts: int = MAX_ATTEMPTS, max_outcomes: int = MAX_OUTCOMES) -> None:
        self._max_attempts, self._max_outcomes = max_attempts, max_outcomes
        self._waiting: OrderedDict[CheckKey, Lease] = OrderedDict()
        self._leased: OrderedDict[CheckKey, Lease] = OrderedDict()
        self._outcomes: OrderedDict[CheckKey, Outcome] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: CheckKey, body: bytes) -> bool:
        """Hand in a check: see `CheckQueue`."""
        with self._lock:
            if key in self._waiting or key in self._leased or key in self._outcomes:
                return False
            if len(self._waiting) >= MAX_WAITING:
                raise Misuse(f"{MAX_WAITING} checks wait already")
            self._waiting[key] = Lease(key, body, 0, 0.0)
            return True

    def take(self, *, now: float, lease_s: float) -> Lease | None:
        """Take a check: see `CheckQueue`."""
        with self._lock:
            self._expire(now)
            if not self._waiting:
                return None
            key, waiting = self._waiting.popitem(last=False)
            lease = replace(waiting, attempt=waiting.attempt + 1, ends_at=now + lease_s)
            self._leased[key] = lease
            return lease

    def finish(self, lease: Lease, result: bytes) -> bool:
        """Record a result: see `CheckQueue`."""
        with self._lock:
            if lease.key in self._outcomes:
                return False
            # From whom it comes does not matter: a check gives one result, whoever runs it.
            self._waiting.pop(lease.key, None)
            self._leased.pop(lease.key, None)
            self._end(lease.key, Outcome(result, lease.attempt))
            return True

    def give_back(self, lease: Lease, error: str) -> None:
        """Give a check back: see `CheckQueue`."""
        with self._lock:
            if self._leased.get(lease.key) == lease:
                del self._leased[lease.key]
                self._again(lease, error)

    def outcome(self, key: CheckKey) -> Outcome | None:
        """Give what became of a check: see `CheckQueue`."""
        with self._lock:
            return self._outcomes.get(key)

    def pending(self) -> int:
        """Count what waits or runs: see `CheckQueue`."""
        with self._lock:
            return len(self._waiting) + len(self._leased)

    def _expire(self, now: float) -> None:
        for lease in [held for held in self._leased.values() if held.ends_at <= now]:
            del self._leased[lease.key]
            self._again(lease, "its lease ended")

    def _again(self, lease: Lease, error: str) -> None:
        if lease.attempt >= self._max_attempts:
            self._end(lease.key, Outcome(None, lease.attempt, error))
        else:
            self._waiting[lease.key] = lease

    def _end(self, key: CheckKey, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        while len(self._outcomes) > self._max_outcomes:
            self._outcomes.popitem(last=False)


def work(
    queue: CheckQueue,
    check: Callable[[Lease], bytes],
    *,
    clock: Callable[[], float],
    workers: int = 1,
    lease_s: float = 120.0,
) -> None:
    """Run the checks of a queue in threads until none is left, waiting or leased.

    Args:
        queue: where they wait.
        check: runs one, through a `Runner`: the threads only wait for its processes.
        clock: seconds, never going back.
        workers: how many at once.
        lease_s: after how long a worker that says nothing is taken for dead.

    Raises:
        Misuse: no worker; or whatever `check` raises but `RunnerError`, which is our own failure.

    """
    if workers < 1:
        raise Misuse(f"workers: got {workers}, expected at least 1")
    failures: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        while queue.pending() and not stop.is_set():
            lease = queue.take(now=clock(), lease_s=lease_s)
            if lease is None:
                stop.wait(POLL_S)
                continue
            try:
                queue.finish(lease, check(lease))
            except RunnerError as error:
                queue.give_back(lease, str(error))
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that called
                queue.give_back(lease, str(error))
                failures.append(error)
                stop.set()

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


__all__ = ["CheckKey", "CheckQueue", "Lease", "MemoryQueue", "Outcome", "work"]
