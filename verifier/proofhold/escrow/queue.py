"""The queue of checks: one lease table beside the ledger, so that a settlement acknowledges its own work.

Whoever records a claim hands in what a check of it takes. A worker takes many at once, each for a lease; what
its verdict decides and that the work is done are one transaction (`verifying.apply`). A lease that ends is
the state machine's: the capture goes back to be claimed by another worker. Every lease leaves a row.

What a worker holds is no attempt until its check begins: one that is killed with a hundred leases in its
hands says nothing about a hundred captures. A lease that ended without another word leaves a suspicion,
though: from then on each check of that capture is announced before it begins (`WorkQueue.begin`), so that one
that takes its workers down with it is disputed after `MAX_ATTEMPTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from proofhold.canonical import Digest
from proofhold.errors import Misuse
from proofhold.escrow import guarding, guards, moves, reports, timers
from proofhold.escrow.books import Books
from proofhold.escrow.driver import Database, Dialect, Operation, Transaction
from proofhold.escrow.escrow import MAX_ATTEMPTS, MAX_LEASE_S, HoldRecord
from proofhold.escrow.moves import Capture, Noted
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import Event, State
from proofhold.escrow.tables import (
    ATTEMPT,
    CAPTURE,
    DOCUMENT,
    GUARD_HOLD,
    SECRET,
    WORK,
    WORK_BODY,
    WORKER,
)

MAX_TAKEN = 1024
"""How many leases one transaction takes."""
MAX_WORK_BYTES = 64 * 2**20
"""A bundle and its answers, each."""
MAX_NAME_CHARS = 128
SILENT_S = 60
"""A worker that was not heard of for so long is counted as gone."""

LEASE_END = "lease_end"
"""The outcome of a lease whose worker did not come back in time."""

_READY = "SELECT w.hold, w.seq FROM work AS w JOIN hold AS h ON h.id = w.hold WHERE w.ready_at <= ?"
_FIRST = " ORDER BY w.ready_at, w.hold, w.seq LIMIT ?"
_WORKERS = (
    "SELECT id, host, pid, started_at, beat_at, stopped_at, settled, kept FROM worker ORDER BY started_at, id"
)
_SILENT = "SELECT 1 FROM attempt WHERE hold = ? AND seq = ? AND outcome = ? LIMIT 1"
_ALONE = {Dialect.SQLITE: "", Dialect.POSTGRES: " FOR NO KEY UPDATE OF h SKIP LOCKED"}
"""Workers do not wait for each other: what one is looking at, another passes over."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One capture in a worker's hands, with everything that a check of it takes."""

    record: HoldRecord
    """The hold, with this one capture."""
    seq: int
    number: int
    """The lease's number at its capture, from 1. An older one's worker can do nothing to it."""
    until: int
    """Unix seconds: the first at which another worker may take it."""
    bundle: bytes
    answers: bytes | None
    secret: bytes
    """The job's sampling secret, revealed since the claim is recorded."""
    is_suspect: bool = False
    """An earlier lease ended without a word: `begin` before this one's check does, and begin it alone."""
    is_raised: bool = False
    """The guard wants a check, whatever the draw says (PROTOCOL P11)."""

    @property
    def hold(self) -> Digest:
        """The hold's name."""
        return self.record.id


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a capture with one worker."""

    number: int
    worker: str
    began_at: int
    ended_at: int | None
    outcome: str | None
    """A ruling, or the code of what kept it from one; None while it runs."""
    begun: bool
    """Whether its check is known to have begun: only then it counts."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """Who works, or worked, on the queue. Times are unix seconds."""

    id: str
    host: str
    pid: int
    started_at: int
    beat_at: int
    stopped_at: int | None
    settled: int
    kept: int

    def is_alive(self, now: int) -> bool:
        """Tell whether it was heard of lately, and has not said goodbye."""
        return self.stopped_at is None and now - self.beat_at < SILENT_S


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How the queue stands."""

    ready: int
    """What a worker could take now."""
    taken: int
    """What is in somebody's hands, or waits for its next attempt."""
    oldest_s: int
    """How long the oldest of it waits since it was handed in, seconds."""
    poisoned: int
    """How many captures were disputed because their attempts were spent."""
    workers: tuple[WorkerRecord, ...]


class WorkQueue:
    """The queue of one escrow: see `LedgerEscrow.queue`. All `now` are unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, hold: Digest, seq: int, bundle: bytes, *, answers: bytes | None = None, now: int) -> None:
        """Hand in what a check of a claimed capture takes. Handed in again, it replaces what was there.

        Raises:
            Misuse: empty or too large.
            Refused: ``escrow.unknown_hold``, ``escrow.unknown_capture``, ``escrow.not_claimed``;
                ``escrow.decided``, nothing is left to be checked; ``escrow.wrong_state``, it waits for
                an opening, which has to be acknowledged first (`answering`), or is disputed.

        """
        self._database.write(adding(hold, seq, bundle, answers=answers, now=now))

    def take(
        self, worker: str, *, limit: int, lease_s: int, now: int, suspects: bool = True
    ) -> tuple[Lease, ...]:
        """Take what is ready, oldest first, at most `limit`, each for `lease_s` seconds.

        What turns out to be disputed by now, or decided, leaves the queue on the way. What may have taken a
        worker down is given alone, so that it takes little with it; without `suspects` it is passed over.

        Raises:
            Misuse: a limit or a lease out of bounds, or no name.

        """
        guards.require_time(now)
        if not 1 <= limit <= MAX_TAKEN or not 1 <= lease_s <= MAX_LEASE_S:
            raise Misuse(f"limit {limit} or lease_s {lease_s}: expected 1 to {MAX_TAKEN}, 1 to {MAX_LEASE_S}")
        _require_name(worker)
        return self._database.write(
            partial(_take, worker=worker, limit=limit, lease_s=lease_s, now=now, suspects=suspects)
        )

    def begin(self, lease: Lease, *, now: int) -> None:
        """Say that the check of a lease begins just now: it is an attempt then, whatever becomes of it.

        Raises:
            Refused: ``escrow.lease_ended``, the capture is in other hands by now, or in nobody's.

        """
        guards.require_time(now)

        def operation(tx: Transaction) -> None:
            books = Books(tx)
            capture = timers.advance(books, moves.load(books, lease.hold, lease.seq), now=now)
            if not _is_held(capture, lease):
                raise Refused("escrow.lease_ended", f"lease {lease.number} is over: it is {capture.state}")
            _count(books, capture)
            books.flush()

        self._database.write(operation)

    def renew(
        self, leases: Iterable[Lease], *, begun: Iterable[Lease] = (), lease_s: int, now: int
    ) -> tuple[tuple[Digest, int], ...]:
        """Keep leases for longer, and give (hold, seq) of those that are still in the same hands.

        Args:
            leases: all that are to be kept.
            begun: those among them whose checks have begun.
            lease_s: from now on.
            now: unix seconds.

        """
        guards.require_time(now)
        known = frozenset((lease.hold, lease.seq) for lease in begun)
        return self._database.write(
            partial(_renew, leases=tuple(leases), begun=known, lease_s=lease_s, now=now)
        )

    def give_back(self, lease: Lease, *, outcome: str, after_s: int, now: int, counts: bool = True) -> None:
        """End a lease without a ruling; the next one begins after `after_s` seconds at the earliest.

        It `counts` as an attempt unless it says nothing about the capture, such as that this worker may not
        judge it. After the last one that counts the lease just runs out, and the capture is disputed. A
        lease that is no longer the capture's is only noted.
        """
        guards.require_time(now)

        def operation(tx: Transaction) -> None:
            books = Books(tx)
            capture = timers.advance(books, moves.load(books, lease.hold, lease.seq), now=now)
            if _is_held(capture, lease):
                capture = _count(books, capture, counts=counts)
            if _is_held(capture, lease) and capture.attempts < MAX_ATTEMPTS:
                moves.move_capture(books, capture, Event.GIVE_BACK, now=now)
                _postpone(books, lease.hold, lease.seq, now + after_s)
            _end(books, lease.hold, lease.seq, lease.number, outcome, now)
            books.flush()

        self._database.write(operation)

    def set_aside(self, lease: Lease, *, outcome: str, now: int) -> None:
        """Take work out of the queue that waits for somebody else; `add` puts it back.

        Its check came to something: it is no attempt that failed.
        """

        def operation(tx: Transaction) -> None:
            books = Books(tx)
            capture = timers.advance(books, moves.load(books, lease.hold, lease.seq), now=now)
            if _is_held(capture, lease):
                capture = _count(books, capture, counts=False)
                moves.move_capture(books, capture, Event.GIVE_BACK, now=now)
            books.remove(WORK, lease.hold, lease.seq)
            _end(books, lease.hold, lease.seq, lease.number, outcome, now)
            books.flush()

        self._database.write(operation)

    def beat(self, record: WorkerRecord) -> None:
        """Say that a worker is there, or that it stops.

        Raises:
            Misuse: no name.

        """
        _require_name(record.id)

        def operation(tx: Transaction) -> None:
            books = Books(tx)
            if books.find(WORKER, record.id) is None:
                values = (record.host, record.pid, record.started_at, record.beat_at)
                books.insert(WORKER, record.id, *values, record.stopped_at, record.settled, record.kept)
            else:
                books.update(
                    WORKER,
                    (record.id,),
                    beat_at=record.beat_at,
                    stopped_at=record.stopped_at,
                    settled=record.settled,
                    kept=record.kept,
                )
            books.flush()

        self._database.write(operation)

    def attempts(self, hold: Digest, seq: int) -> tuple[Attempt, ...]:
        """Give everything that workers made of a capture, in order."""
        sql = (
            "SELECT number, worker, began_at, ended_at, outcome, begun FROM attempt"
            " WHERE hold = ? AND seq = ? ORDER BY number"
        )
        rows = self._database.read(lambda tx: tx.execute(sql, (hold, seq)).fetchall())
        return tuple(
            Attempt(
                number=row["number"],
                worker=row["worker"],
                began_at=row["began_at"],
                ended_at=row["ended_at"],
                outcome=row["outcome"],
                begun=bool(row["begun"]),
            )
            for row in rows
        )

    def is_empty(self) -> bool:
        """Tell whether there is nothing for anybody, now or later. (`status` looks at the whole log.)"""
        return self._database.read(lambda tx: tx.execute("SELECT 1 FROM work LIMIT 1").fetchone() is None)

    def status(self, *, now: int) -> QueueStatus:
        """Say how the queue stands."""
        return self._database.read(partial(_status, now=now))


def adding(
    hold: Digest, seq: int, bundle: bytes, *, answers: bytes | None = None, now: int
) -> Operation[None]:
    """Hand work in: see `WorkQueue.add`."""
    guards.require_time(now)
    for part in (bundle, answers or b"-"):
        if not 0 < len(part) <= MAX_WORK_BYTES:
            raise Misuse(f"work: {len(part)} bytes, expected 1 to {MAX_WORK_BYTES}")

    def operation(tx: Transaction) -> None:
        books = Books(tx)
        capture = moves.load(books, hold, seq)
        if capture.claimed_at is None:
            raise Refused("escrow.not_claimed", f"the capture is {capture.state}")
        if capture.state.is_decided:
            raise Refused("escrow.decided", f"the capture is {capture.state}")
        if capture.state not in (State.CLAIMED, State.VERIFYING):
            # No worker would take it, and whoever handed an opening in would think that it was seen.
            raise Refused("escrow.wrong_state", f"the capture is {capture.state}: settle it by hand")
        leased = capture.state is State.VERIFYING and capture.due is not None
        if books.find(WORK, hold, seq) is not None:
            books.remove(WORK, hold, seq)
            books.flush()
        books.insert(WORK, hold, seq, bundle, answers, now, capture.due if leased else now)
        books.flush()

    return operation


def acknowledge(books: Books, capture: Capture, outcome: str, *, now: int) -> Capture:
    """Take a capture's work out of the queue in the transaction that decides it; give it as it is then."""
    if books.find(WORK, capture.hold, capture.seq) is None:
        return capture
    books.remove(WORK, capture.hold, capture.seq)
    capture = _count(books, capture)
    _end(books, capture.hold, capture.seq, capture.leases, outcome, now)
    return capture


def _take(
    tx: Transaction, *, worker: str, limit: int, lease_s: int, now: int, suspects: bool
) -> tuple[Lease, ...]:
    rows = tx.execute(_READY + _FIRST + _ALONE[tx.dialect], (now, limit)).fetchall()
    keys = [(row["hold"], row["seq"]) for row in rows]
    books = Books(tx)
    moves.fetch(books, keys)
    # Read only now that nobody else can move these holds: what was ready may be so no more.
    for table in (WORK, WORK_BODY):
        books.fetch(table, keys)
    books.fetch(DOCUMENT, [(*key, "claim") for key in keys])
    captures = [moves.load(books, hold, seq) for hold, seq in keys]
    books.fetch(SECRET, [(capture.job.nonce,) for capture in captures])
    books.fetch(ATTEMPT, [(c.hold, c.seq, n) for c in captures for n in (c.leases, c.leases + 1)])
    books.fetch(GUARD_HOLD, [(c.hold,) for c in captures])
    leases: list[Lease] = []
    for hold, seq in keys:
        capture = moves.load(books, hold, seq)  # as it is by now: another of its hold may have moved the bond
        work = books.find(WORK, hold, seq)
        if work is not None and work["ready_at"] <= now and capture.changed_at <= now:
            lease = _lease(books, capture, worker, lease_s, now, suspects=suspects and not leases)
            leases += [lease] if lease else []
            if lease is not None and lease.is_suspect:
                break
    books.flush()
    return tuple(leases)


def _lease(
    books: Books, capture: Capture, worker: str, lease_s: int, now: int, *, suspects: bool
) -> Lease | None:
    """Take one capture; None if it leaves the queue, or waits for somebody else or to be taken alone."""
    before = capture.leases
    capture = timers.advance(books, capture, now=now)
    if capture.state is State.VERIFYING:
        # Somebody who does not work from the queue has it.
        _postpone(books, capture.hold, capture.seq, capture.due or now)
        return None
    _end(books, capture.hold, capture.seq, before, LEASE_END, now)
    if capture.state is not State.CLAIMED:
        books.remove(WORK, capture.hold, capture.seq)
        return None
    is_suspect = _is_suspect(books, capture)
    if is_suspect and not suspects:
        return None
    body = books.find(WORK_BODY, capture.hold, capture.seq) or {}
    capture = moves.move_capture(books, capture, Event.LEASE, now=now, noted=Noted(lease_s=lease_s))
    until = capture.due or now
    books.update(WORK, (capture.hold, capture.seq), ready_at=until)
    books.insert(ATTEMPT, capture.hold, capture.seq, capture.leases, worker, now, None, None, 0)
    secret = books.find(SECRET, capture.job.nonce) or {}
    return Lease(
        record=reports.record_in_books(books, capture),
        seq=capture.seq,
        number=capture.leases,
        until=until,
        bundle=bytes(body["bundle"]),
        answers=None if body["answers"] is None else bytes(body["answers"]),
        secret=bytes(secret["secret"]),
        is_suspect=is_suspect,
        is_raised=guarding.is_raised(books, capture.hold),
    )


def _is_suspect(books: Books, capture: Capture) -> bool:
    """Tell whether a lease ended without a word, the last one or an earlier one."""
    last = books.find(ATTEMPT, capture.hold, capture.seq, capture.leases)
    if last is not None and last["outcome"] == LEASE_END:
        return True
    if capture.leases <= capture.attempts:
        return False  # what ended without a word first was not counted
    return books.tx.execute(_SILENT, (capture.hold, capture.seq, LEASE_END)).fetchone() is not None


def _renew(
    tx: Transaction,
    *,
    leases: Sequence[Lease],
    begun: frozenset[tuple[Digest, int]],
    lease_s: int,
    now: int,
) -> tuple[tuple[Digest, int], ...]:
    books, renewed = Books(tx), []
    keys = [(lease.hold, lease.seq) for lease in leases]
    moves.fetch(books, keys)
    books.fetch(WORK, keys)
    books.fetch(ATTEMPT, [(lease.hold, lease.seq, lease.number) for lease in leases])
    for lease in leases:
        capture = moves.load(books, lease.hold, lease.seq)
        if not _is_held(capture, lease) or capture.due is None or capture.due <= now:
            continue
        if (lease.hold, lease.seq) in begun:
            _count(books, capture)
        due = now + lease_s
        if capture.verification_due is not None:
            due = min(due, capture.verification_due)
        due = max(due, capture.due)  # whoever renews does not shorten
        books.update(CAPTURE, (lease.hold, lease.seq), due=due)
        _postpone(books, lease.hold, lease.seq, due)
        renewed.append((lease.hold, lease.seq))
    books.flush()
    return tuple(renewed)


def _is_held(capture: Capture, lease: Lease) -> bool:
    return capture.state is State.VERIFYING and capture.leases == lease.number


def _count(books: Books, capture: Capture, *, counts: bool = True) -> Capture:
    """Count the newest lease's check as an attempt once, or not, whatever was thought of it before."""
    row = books.find(ATTEMPT, capture.hold, capture.seq, capture.leases)
    if row is None or row["begun"] == counts or row["ended_at"] is not None:
        return capture
    attempts = capture.attempts + (1 if counts else -1)
    books.update(ATTEMPT, (capture.hold, capture.seq, capture.leases), begun=int(counts))
    books.update(CAPTURE, (capture.hold, capture.seq), attempts=attempts)
    return moves.load(books, capture.hold, capture.seq)


def _postpone(books: Books, hold: Digest, seq: int, ready_at: int) -> None:
    if books.find(WORK, hold, seq) is not None:
        books.update(WORK, (hold, seq), ready_at=ready_at)


def _end(books: Books, hold: Digest, seq: int, number: int, outcome: str, now: int) -> None:
    """Write down how an attempt ended, unless that stands there already."""
    row = books.find(ATTEMPT, hold, seq, number)
    if row is not None and row["ended_at"] is None:
        books.update(ATTEMPT, (hold, seq, number), ended_at=now, outcome=outcome[:MAX_NAME_CHARS])


def _status(tx: Transaction, *, now: int) -> QueueStatus:
    row = tx.execute(
        "SELECT count(*) AS total, coalesce(sum(CASE WHEN ready_at <= ? THEN 1 ELSE 0 END), 0) AS ready,"
        " coalesce(min(queued_at), ?) AS oldest FROM work",
        (now, now),
    ).fetchone()
    sql = "SELECT count(*) AS spent FROM transition WHERE event = ?"
    spent = tx.execute(sql, (Event.ATTEMPTS_SPENT.value,)).fetchone()["spent"]
    workers = tuple(WorkerRecord(*row) for row in tx.execute(_WORKERS).fetchall())
    ready = int(row["ready"])
    return QueueStatus(ready, int(row["total"]) - ready, max(0, now - row["oldest"]), spent, workers)


def _require_name(worker: str) -> None:
    if not 0 < len(worker) <= MAX_NAME_CHARS or not worker.isprintable():
        raise Misuse(f"worker: expected one line of 1 to {MAX_NAME_CHARS} characters")
