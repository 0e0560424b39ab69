"""Processes that end at a chosen step, as kill -9 ends them: what a crash between any two steps leaves.

A step is a commit of the escrow's database, or a call to the outside; a life can be told to end before or
after any of them. Run as a program this is the place where such lives are made: a line of JSON for each, and
how it ended comes back, so that every one of them need not read all modules again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
from x402.schemas import SettleResponse

from escrow_builders import OUTPUT, START, Scene, make_claim
from judging import VERIFIER
from proofhold.escrow import LedgerRail, Refused, Ruling
from proofhold.escrow.database import SqliteDatabase
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.driver import Operation
from proofhold.integrations.card_rail import ManualCaptureRail
from proofhold.integrations.webhooks import Messenger
from proofhold.integrations.x402_facilitator import FacilitatorGate
from proofhold.job import SignedJob
from proofhold.receipt import Receipt
from settling import FALSE, Hall, accepted, rejected
from simulated_cards import SECRET_KEY
from simulated_x402 import NETWORK, PAY_TO, Shop, SimulatedLedger

T = TypeVar("T")
PR_SET_PDEATHSIG = 1
KILLED = -signal.SIGKILL
LATEST = START + 10**6
"""The jobs' deadline, the same in every life."""


@dataclass(frozen=True)
class Life:
    """One process: what it does, and when it ends."""

    does: str
    folder: str
    number: int
    """Which job it is about."""
    now: int
    dies_at: int = 0
    """The step at which it is killed, from 1; 0 lets it live."""
    address: str = ""
    ruling: str = "release"
    flow: str = "authorization"


class Steps:
    """Counts steps, and ends the process at the one that it was told."""

    def __init__(self, dies_at: int) -> None:
        self.left = dies_at

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class SteppingDatabase:
    """A database each of whose commits is a step before and a step after."""

    def __init__(self, path: Path, step: Steps) -> None:
        self._database, self._step = SqliteDatabase(path), step
        self.read, self.close = self._database.read, self._database.close

    def write(self, operation: Operation[T]) -> T:
        self._step()
        done = self._database.write(operation)
        self._step()
        return done

    def submit(self, operation: Operation[T]) -> Future[T]:
        return self._database.submit(operation)


@contextlib.contextmanager
def stepping(life: Life) -> Iterator[tuple[LedgerEscrow, Steps]]:
    """Open a life's escrow."""
    step = Steps(life.dies_at)
    with LedgerEscrow(SteppingDatabase(Path(life.folder) / "escrow.db", step)) as escrow:
        yield escrow, step


def calling(step: Steps, **options: Any) -> httpx.Client:
    """A client each of whose requests is a step before and a step after."""
    return httpx.Client(event_hooks={"request": [step], "response": [step]}, **options)


def fund_once(escrow: LedgerEscrow, job: SignedJob, *, now: int) -> None:
    """Fund a job, unless an earlier life did."""
    try:
        escrow.fund(job, now=now)
    except Refused as refusal:
        if refusal.code != "escrow.already_funded":
            raise


def sell_by_card(life: Life) -> None:
    """Authorize, fund, claim, settle and capture: from the top, as an application that begins again does."""
    with (
        stepping(life) as (escrow, step),
        calling(step, base_url=life.address, auth=(SECRET_KEY, "")) as client,
    ):
        scene, orders = Scene(escrow, now=life.now, funded=life.number), dict[str, str]()
        rail = ManualCaptureRail(client, orders.__getitem__)
        job = scene.draft(claim_by=LATEST)
        orders[job.digest] = rail.authorize(job, payment_method="pm_good").intent
        fund_once(escrow, job, now=life.now)
        escrow.record_claim(make_claim(job), OUTPUT, now=life.now)
        scene.apply(escrow.hold(job.digest), Ruling(life.ruling))
        while escrow.pump(rail, now=life.now).unknown:
            pass


def settle_and_tell(life: Life) -> None:
    """Settle a job, and tell the receivers everything that is due."""
    with stepping(life) as (escrow, step), calling(step) as client:
        scene = Scene(escrow, now=life.now, funded=life.number)
        job = scene.draft(claim_by=LATEST)
        fund_once(escrow, job, now=life.now)
        escrow.record_claim(make_claim(job), OUTPUT, now=life.now)
        scene.apply(escrow.hold(job.digest), Ruling(life.ruling))
        escrow.pump(LedgerRail(), now=life.now)
        Messenger(escrow, client, threads=1, clock=lambda: life.now, jitter=lambda: 0.0).run()


class Chain(SimulatedLedger):
    """A ledger that outlives its facilitator: a nonce is deposited, captured or given back once each."""

    def __init__(self, path: Path, step: Steps) -> None:
        super().__init__()
        self._step = step
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for table in (
            "asked (nonce TEXT, kind TEXT)",
            "moved (nonce TEXT, kind TEXT, UNIQUE (nonce, kind))",
        ):
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")

    def settle(self, payload: Any, requirements: Any, context: Any = None) -> SettleResponse:
        self._step()
        kind = requirements.extra.get("kind") or ("refund" if requirements.amount == "0" else "capture")
        nonce = payload.payload["authorization"]["nonce"]
        self._connection.execute("INSERT INTO asked VALUES (?, ?)", (nonce, kind))
        try:
            self._connection.execute("INSERT INTO moved VALUES (?, ?)", (nonce, kind))
        except sqlite3.IntegrityError:
            self.script = ["nonce_used"]  # what a chain says of an authorization that was used
        response = super().settle(payload, requirements, context)
        self._step()
        return response


def settle_at_a_facilitator(life: Life) -> None:
    """Admit a verdict, and settle its payment over a facilitator with the gate in front of it."""
    from x402.facilitator import x402FacilitatorSync

    with stepping(life) as (escrow, step):
        hall = Hall(Path(life.folder) / "escrow.db", escrow, now=life.now, drafted=life.number)  # type: ignore[arg-type]
        shop, facilitator = Shop(hall), x402FacilitatorSync()
        facilitator.register([NETWORK], Chain(Path(life.folder) / "chain.db", step))
        gate = FacilitatorGate(escrow, clock=hall.clock)
        gate.attach(facilitator)
        hold = claimed(hall)
        payload = shop.pay(hold)
        gate.admit(payload, hold.job, Receipt.issue(accepted(hold), VERIFIER))
        with contextlib.suppress(Exception):  # x402's own: the gate did not let it through
            facilitator.settle(payload, shop.requirements())


def serve_a_paid_request(life: Life) -> None:
    """Answer one paid request at a server with the gate inside and outside of x402's middleware."""
    with stepping(life) as (escrow, step):
        hall = Hall(Path(life.folder) / "escrow.db", escrow, now=life.now, drafted=life.number)  # type: ignore[arg-type]
        ledger = Chain(Path(life.folder) / "chain.db", step)
        shop = Shop(hall, ledger=ledger, flow=life.flow)
        if life.ruling == "refund":
            shop.verdict = lambda hold: rejected(hold, FALSE)
        shop.gate.attach(shop.server)
        response = asyncio.run(shop.ask(shop.app(), shop.pay(hired(hall))))
        sys.exit(0 if response.status_code == 200 else 3)


def hired(hall: Hall) -> Any:
    """Fund a job for x402's payee, unless an earlier life did."""
    job = hall.draft(payee=PAY_TO, claim_by=LATEST)
    fund_once(hall.escrow, job, now=hall.now)
    return hall.escrow.hold(job.digest)


def claimed(hall: Hall) -> Any:
    """The same, and claimed."""
    hold = hired(hall)
    hall.claim(hold)
    return hall.escrow.hold(hold.id)


LIVES: dict[str, Callable[[Life], None]] = {
    "card": sell_by_card,
    "facilitator": settle_at_a_facilitator,
    "server": serve_a_paid_request,
    "webhook": settle_and_tell,
}


class Cradle:
    """Where lives are made, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def live(self, life: Life) -> int:
        """Let a life run to its end, and give how it ended: 0, 3, or `KILLED`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(asdict(life)) + "\n")
        stdin.flush()
        code = int(stdout.readline())
        assert code in (0, 3, KILLED), f"a life that tripped: {life}"
        return code

    def end_at(self, life: Life, steps: Iterable[int]) -> Iterator[Life]:
        """End a life at each of these steps, until one lives on; each is about a job of its own."""
        for step in steps:
            made = replace(life, dies_at=step, number=life.number + step)
            if self.live(made) != KILLED:
                return
            yield made


@contextlib.contextmanager
def cradle() -> Iterator[Cradle]:
    """Start a process that makes lives."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Cradle(process)
        process.kill()


def main() -> None:
    """Make lives, a line each."""
    for line in sys.stdin:
        life = Life(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            sys.stdout = sys.stderr
            try:
                LIVES[life.does](life)
            except SystemExit as exit_:
                os._exit(int(str(exit_.code or 0)))
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
