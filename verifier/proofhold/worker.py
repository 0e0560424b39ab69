"""The worker: takes checks from the queue, judges them side by side, and settles what it judged together.

Any number of workers, on any number of machines, work on one queue. Each says that it is there, keeps its
leases while it checks, and gives back what it has not begun when it is told to stop. One that is killed loses
nothing: its leases end, and another worker takes what it had. Whether a capture was judged twice meanwhile
does not matter: it is settled once.

A check counts as an attempt from its beginning, of which the escrow is told with the next heartbeat. What was
held by a worker that was never heard of again may be what killed it: of that one at a time is begun here,
with nothing waiting behind it, and the escrow is told before.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeAlias

from proofhold.endorsing import read_quorums
from proofhold.errors import Malformed, Misuse
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.escrow import Applied, Pumped, Ruled
from proofhold.escrow.queue import MAX_TAKEN, Lease, WorkerRecord
from proofhold.escrow.quorums import Quorum
from proofhold.escrow.rail import Rail
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.judges import Judge, Judged, bundle_of
from proofhold.retention import EvidenceFolder, Wanted, recheckable
from proofhold.settlement import AWAITS_RECEIPTS, Clock, Kept, rule, system_clock

MOST_PARALLEL = 256
TIMERS_EVERY_S = 15.0
PAYING_EVERY_S = 0.25
NOT_OURS = frozenset({"settle.verifier", "settle.untrusted"})
"""The codes of receipts that do not count here: the job is for a worker with another key."""
OTHER_PRODUCTS = "escrow.openings"
"""The code of products that come too late: the capture waits for those to which its secret was revealed."""
GATHER_S = 0.05
"""How long a judged capture waits to be settled with others, until they are a quarter of a batch."""
AHEAD_S = 1.0
"""How long what a worker takes may wait there for its check, as far as one can tell: nobody else can take it
meanwhile."""
SHUTDOWN_S = 5.0
"""How long a worker that stops still tries to say so to a database that does not answer."""

Log: TypeAlias = Callable[[str], None]


def _evidence_of(lease: Lease) -> tuple[Wanted, ...]:
    try:
        data = bundle_of(lease).encode()
    except Malformed:
        data = lease.bundle  # it will be judged by nobody, and may have to be shown
    return recheckable(lease.hold, lease.seq, data, lease.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a worker works. Durations are seconds."""

    parallel: int = 1
    """How many checks run at once."""
    batch: int = 32
    """How many captures are taken at once, and how many results are settled in one transaction, at most.
    Fewer are taken where checks take long, so that other workers have something to do, too."""
    lease_s: int = 60
    retry_after_s: int = 5
    """How long a capture rests after an attempt that came to nothing."""
    poll_s: float = 0.5
    """How long a worker waits that found nothing to do."""

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= MOST_PARALLEL:
            raise Misuse(f"parallel: got {self.parallel}, expected 1 to {MOST_PARALLEL}")
        if not 1 <= self.batch <= MAX_TAKEN:
            raise Misuse(f"batch: got {self.batch}, expected 1 to {MAX_TAKEN}")


class Pace:
    """How long checks take lately, and so how many of them are worth taking."""

    def __init__(self) -> None:
        self._usual_s: float | None = None

    def note(self, check_s: float) -> None:
        """Take note of how long a check took."""
        self._usual_s = check_s if self._usual_s is None else 0.8 * self._usual_s + 0.2 * check_s

    def ahead(self, parallel: int) -> int:
        """Give how many checks keep so many threads busy for `AHEAD_S`; one each as long as nobody knows."""
        if self._usual_s is None:
            return parallel
        return max(parallel, int(parallel * AHEAD_S / max(self._usual_s, 1e-6)))


class Worker:
    """One worker. `run` ends when it is told to stop, and what it began is done then."""

    def __init__(
        self,
        escrow: LedgerEscrow,
        judge: Judge,
        *,
        terms: Terms | None = None,
        name: str = "",
        rail: Rail | None = None,
        evidence: EvidenceFolder | None = None,
        clock: Clock = system_clock,
        log: Log = lambda _: None,
    ) -> None:
        """Set a worker up.

        Args:
            escrow: with the queue.
            judge: makes receipts.
            terms: how it works.
            name: its name among all workers; made of the machine and the process if left out.
            rail: pays out what is decided; somebody else does if left out.
            evidence: keeps what is checked, so that receipts can be recomputed and disputes have something to
                go by; kept before the check, since the queue lets go of it with the ruling.
            clock: unix seconds.
            log: is told in one line whatever a person should look at.

        """
        self._escrow, self._queue, self._judge = escrow, escrow.queue, judge
        self._terms = terms or Terms()
        self._rail, self._evidence, self._clock, self._log = rail, evidence, clock, log
        host, now = socket.gethostname()[:64], clock()
        self.record = WorkerRecord(
            id=name or f"{host}-{os.getpid()}-{os.urandom(3).hex()}",
            host=host,
            pid=os.getpid(),
            started_at=now,
            beat_at=now,
            stopped_at=None,
            settled=0,
            kept=0,
        )
        self._pace = Pace()
        self._under_way: dict[Future[Judged], Lease] = {}
        self._suspect: Lease | None = None
        self._paying: Future[Pumped] | None = None
        self._beaten = self._timed = self._paid = 0.0

    def run(self, stop: threading.Event, *, until_empty: bool = False) -> WorkerRecord:
        """Work until `stop` is set, or nothing is left to do; give what was done.

        Args:
            stop: set it from a signal handler or another thread.
            until_empty: also end when the queue has nothing for anybody.

        """
        terms = self._terms
        with (
            ThreadPoolExecutor(terms.parallel, thread_name_prefix="check") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="pay") as payer,
        ):
            while not stop.is_set() or self._under_way or self._suspect:
                try:
                    if stop.is_set():
                        self._let_go()
                    self._say_so()
                    self._pay(payer)
                    taken = 0 if stop.is_set() or self._suspect else self._take(pool)
                    self._begin_suspect(pool)
                    self._finish()
                    if taken or self._under_way or self._suspect:
                        continue
                    if until_empty and self._queue.is_empty():
                        break
                    stop.wait(terms.poll_s)
                except (EscrowFailure, Refused) as failure:
                    # The database is away or busy. Nothing is lost: leases end, and rulings can be repeated.
                    self._log(f"the escrow does not answer: {failure}")
                    time.sleep(terms.poll_s)
            self._bid_farewell()
        return self.record

    def _take(self, pool: ThreadPoolExecutor) -> int:
        """Take as much as may wait here, once half of it is done: a lease that waits keeps others from it."""
        parallel, batch = self._terms.parallel, self._terms.batch
        beside_suspect = any(lease.is_suspect for lease in self._under_way.values())
        most = parallel if beside_suspect else min(batch, self._pace.ahead(parallel))
        room = most - len(self._under_way)
        if room <= 0 or (room < most / 2 and not beside_suspect):
            return 0
        leases = self._queue.take(
            self.record.id,
            limit=room,
            lease_s=self._terms.lease_s,
            now=self._clock(),
            suspects=not beside_suspect,
        )
        self._keep(leases)
        for lease in leases:
            if lease.is_suspect:
                self._suspect = lease
            else:
                self._under_way[pool.submit(self._check, lease)] = lease
        return len(leases)

    def _check(self, lease: Lease) -> Judged:
        began = time.monotonic()
        try:
            return self._judge(lease)
        finally:
            self._pace.note(time.monotonic() - began)

    def _begin_suspect(self, pool: ThreadPoolExecutor) -> None:
        """Begin a check that may take this worker down, once it does not have to wait for others."""
        lease = self._suspect
        if lease is None or len(self._under_way) >= self._terms.parallel:
            return
        try:
            self._queue.begin(lease, now=self._clock())
        except Refused as refusal:
            if refusal.code != "escrow.lease_ended":
                raise
            self._log(f"{lease.hold}:{lease.seq}: {refusal}")
        else:
            self._under_way[pool.submit(self._check, lease)] = lease
        self._suspect = None

    def _keep(self, leases: Sequence[Lease]) -> None:
        """Keep the evidence of what was taken. Where it cannot be kept it is checked all the same."""
        if self._evidence is None or not leases:
            return
        wanted = [piece for lease in leases for piece in _evidence_of(lease)]
        try:
            kept = self._evidence.keep_many(wanted, now=self._clock())
        except Misuse as failure:
            self._log(f"evidence is not kept: {failure}")
            return
        for piece, outcome in zip(wanted, kept, strict=True):
            if isinstance(outcome, Refused):
                self._log(f"{piece.hold}:{piece.seq}: the {piece.kind} is not kept: {outcome}")

    def _finish(self) -> None:
        """Settle what is judged by now, waiting for something to be."""
        if not self._under_way:
            return
        patience = min(self._terms.poll_s, self._terms.lease_s / 4)
        done, running = wait(self._under_way, timeout=patience, return_when=FIRST_COMPLETED)
        if not done:
            return
        # One settlement costs nearly as much as a few together, so what is judged waits a moment for more.
        deadline = time.monotonic() + GATHER_S
        while running and len(done) < self._terms.batch // 4 and (left_s := deadline - time.monotonic()) > 0:
            more, running = wait(running, timeout=left_s, return_when=FIRST_COMPLETED)
            done |= more
        rulings, leases, quorums = [], [], read_quorums(self._escrow)
        for future in done:
            lease = self._under_way[future]
            judged = self._result(future, lease)
            ruled = None if judged is None else self._ruled(lease, judged, quorums)
            if ruled is not None:
                rulings.append(ruled)
                leases.append(lease)
        if rulings:
            # As one transaction. Should the answer be lost, all of it is still under way, and is asked again.
            for lease, outcome in zip(
                leases, self._escrow.apply_many(rulings, now=self._clock()), strict=True
            ):
                if isinstance(outcome, Applied):
                    self.record = replace(self.record, settled=self.record.settled + (not outcome.repeated))
                else:
                    self._log(f"{lease.hold}:{lease.seq}: {outcome}")
                    self._give_back(lease, outcome.code)
        for future in done:
            del self._under_way[future]

    def _result(self, future: Future[Judged], lease: Lease) -> Judged | None:
        """Give what the judge said; None where that was nothing, and the work has gone back."""
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001 (one capture's trouble is not the others')
            code = getattr(error, "code", type(error).__name__)
            self._log(f"{lease.hold}:{lease.seq}: {type(error).__name__}: {error}")
            # Neither what this worker lacks nor a database that is away says anything about the capture.
            counts = not isinstance(error, Misuse | EscrowFailure) and code != "escrow.busy"
        if code == OTHER_PRODUCTS:
            self._set_aside(lease, code)
        else:
            self._give_back(lease, code, counts=counts)
        return None

    def _ruled(self, lease: Lease, judged: Judged, quorums: Mapping[str, Quorum]) -> Ruled | None:
        """Give the ruling of a receipt; None if it keeps the capture as it is, which is then seen to."""
        try:
            ruled = rule(
                lease.record, judged.receipt, escrow=self._escrow, now=self._clock(), quorums=quorums
            )
            if isinstance(ruled, Kept) and judged.awaits_opening:
                self._escrow.await_opening(lease.hold, lease.seq, now=self._clock())
        except Refused as refusal:
            if refusal.code == "escrow.busy":
                raise  # it says nothing about the capture: asked again, it will
            self._log(f"{lease.hold}:{lease.seq}: {refusal}")
            self._give_back(lease, refusal.code, counts=refusal.code not in NOT_OURS)
            return None
        if not isinstance(ruled, Kept):
            return ruled
        if judged.awaits_opening:
            self._set_aside(lease, "awaits_opening")
        elif ruled.code == AWAITS_RECEIPTS:
            self._set_aside(lease, ruled.code)
        else:
            self._give_back(lease, ruled.code)
        return None

    def _set_aside(self, lease: Lease, outcome: str) -> None:
        self._queue.set_aside(lease, outcome=outcome, now=self._clock())
        self.record = replace(self.record, kept=self.record.kept + 1)

    def _give_back(self, lease: Lease, outcome: str, *, counts: bool = True) -> None:
        after_s = self._terms.retry_after_s
        self._queue.give_back(lease, outcome=outcome, after_s=after_s, now=self._clock(), counts=counts)
        self.record = replace(self.record, kept=self.record.kept + 1)

    def _let_go(self) -> None:
        """Give back what was not begun yet."""
        for future, lease in list(self._under_way.items()):
            if future.cancel():
                del self._under_way[future]
                self._stop_before(lease)
        if self._suspect is not None:
            self._stop_before(self._suspect)
            self._suspect = None

    def _stop_before(self, lease: Lease) -> None:
        now = self._clock()
        self._queue.give_back(lease, outcome="stopped", after_s=0, now=now, counts=False)

    def _say_so(self) -> None:
        """Be heard of, keep the leases, and do what time does: each as often as it takes."""
        now = time.monotonic()
        if now - self._beaten >= self._terms.lease_s / 4:
            self._beaten = now
            self.record = replace(self.record, beat_at=self._clock())
            self._queue.beat(self.record)
            if leases := [*self._under_way.values(), *([self._suspect] if self._suspect else [])]:
                begun = [lease for future, lease in self._under_way.items() if future.running()]
                self._queue.renew(leases, begun=begun, lease_s=self._terms.lease_s, now=self._clock())
        if now - self._timed >= TIMERS_EVERY_S:
            self._timed = now
            self._escrow.run_timers(self._clock())

    def _pay(self, payer: ThreadPoolExecutor) -> None:
        """Pay what is decided, beside everything else: a rail may take its time, and leases do not wait."""
        if self._rail is None or not self._is_paid_up():
            return
        if time.monotonic() - self._paid >= PAYING_EVERY_S:
            self._paid = time.monotonic()
            self._paying = payer.submit(self._escrow.pump, self._rail, now=self._clock())

    def _is_paid_up(self) -> bool:
        """Tell whether no round of payments is under way, and say how the last one went if it went wrong."""
        if self._paying is None:
            return True
        if not self._paying.done():
            return False
        if error := self._paying.exception():
            # What it had in hand is asked about before it is paid: another round may go better.
            self._log(f"paying: {type(error).__name__}: {error}")
        self._paying = None
        return True

    def _pay_what_is_left(self) -> None:
        try:
            while self._rail is not None and self._escrow.pump(self._rail, now=self._clock()).paid:
                pass
        except (EscrowFailure, Refused):
            raise
        except Exception as error:  # noqa: BLE001 (a rail that trips keeps nobody from saying goodbye)
            self._log(f"paying: {type(error).__name__}: {error}")

    def _bid_farewell(self) -> None:
        """Pay what is left to pay, and say goodbye; a database that is away will find out by itself."""
        if self._paying is not None:
            wait([self._paying])
            self._is_paid_up()
        deadline = time.monotonic() + SHUTDOWN_S
        while True:
            try:
                self._pay_what_is_left()
                now = self._clock()
                self.record = replace(self.record, beat_at=now, stopped_at=now)
                return self._queue.beat(self.record)
            except (EscrowFailure, Refused) as failure:
                if time.monotonic() > deadline:
                    return self._log(f"stopped, and could not say so: {failure}")
                time.sleep(self._terms.poll_s)
