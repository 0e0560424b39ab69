"""Work for workers: jobs that are funded, claimed and queued by the thousand, and slow checks.

The evidence is a message authentication code, so that a check costs what the check is told to wait and little
else; everything around it is as in earnest: signed jobs and claims, policy, verdict, receipt, ledger.

Run as a program it is one worker: ``python workshop.py '{"location": …}'``; see `Order`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from judging import BUYER, PROVIDER, VERIFIER, catalogue, make_job, unproved
from proofhold.backends.replay import ReplayBackend
from proofhold.canonical import Digest
from proofhold.core import Answer, Assurance, Evidence, Fault, Finding, Offer, Property, Reason, Refuted
from proofhold.drafting import USDC
from proofhold.escrow import AccountKind, LedgerRail, PaymentKey, Rail, RailReceipt, RailUnknown
from proofhold.escrow import operations as op
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.driver import Operation, Transaction
from proofhold.escrow.home import open_home
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Claim, Fee, NamedEvidence, SignedJob, statement_of
from proofhold.keys import Signed
from proofhold.payload import Payload
from proofhold.policy import Policy
from proofhold.runner import InlineRunner
from proofhold.verifier import Verifier
from proofhold.worker import Terms, VerifierJudge, Worker

T = TypeVar("T")

CODE_KEY = b"known to the enclave and to the verifier"
PRICE, BOND = 1_000, 100
AT_ONCE = 64
"""How many jobs one transaction makes."""
SHOWS = dict.fromkeys((Property.MODEL, Property.OUTPUT, Property.PROVIDER), Assurance.ATTESTED)

POLICY = Policy.parse(b"""
version = 1
name = "workshop"
summary = "A message authentication code, which is a toy."
[[tiers]]
[tiers.demand]
show = ["model", "output", "provider"]
by = "attested"
""")


@dataclass(frozen=True)
class WaitingCode:
    """Checks a code, and waits as a proof would make it wait (without a core, since there may be two)."""

    wait_s: float = 0.0
    kind: str = "toy-hmac"

    def accepts(self, payload: Payload) -> bool:
        return True

    def offers(self, entry: object) -> tuple[Offer, ...]:
        return (Offer(self.kind, SHOWS),)

    def check(
        self,
        evidence: Evidence | None,
        exchange: Exchange,
        entry: object,
        *,
        answers: Sequence[Answer],
        now: int,
    ) -> Finding | Refuted:
        time.sleep(self.wait_s)
        body = evidence.body if evidence else b""
        if not hmac.compare_digest(body, code_of(exchange)):
            return Refuted(self.kind, (Reason("toy_hmac.code", "a false code", Fault.PROVIDER),))
        return Finding(self.kind, SHOWS, one_use=(hashlib.sha256(body).hexdigest(),))


def code_of(exchange: Exchange) -> bytes:
    statement = statement_of(exchange.job.document, exchange.claim.document)
    return hmac.digest(CODE_KEY, bytes.fromhex(statement.output + statement.job), "sha256")


def make_judge(wait_s: float = 0.0) -> VerifierJudge:
    """A judge whose checks wait."""
    verifier = Verifier(catalogue(), backends=(WaitingCode(wait_s),), fallback=ReplayBackend(InlineRunner()))
    return VerifierJudge(verifier, [POLICY], VERIFIER)


def write(escrow: LedgerEscrow, *operations: Operation[Any]) -> list[Any]:
    """Do several things in one transaction."""

    def all_of_them(tx: Transaction) -> list[Any]:
        return [operation(tx) for operation in operations]

    return escrow._database.write(all_of_them)


def stock(
    escrow: LedgerEscrow,
    count: int,
    *,
    forged: Callable[[int], bool] = lambda _: False,
    first: int = 0,
    queued: bool = True,
    proved: bool = True,
    fee: Fee | None = None,
    **changes: Any,
) -> list[Digest]:
    """Fund and claim jobs, and hand their bundles in; `forged` says which ones have a false code.

    Without `proved` they are claims without evidence, for a verifier that runs the model again.
    """
    now = int(time.time())
    made: list[Digest] = []
    for key, amount in ((BUYER, PRICE), (PROVIDER, BOND)):
        name = f"stock {first} {key.public[-6:]}"
        escrow.deposit(key.public, amount * count, USDC, key=name, now=now)
    for begin in range(first, first + count, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, first + count))
        nonces = [hashlib.sha256(b"workshop %d" % n).digest() for n in numbers]
        drawn = write(escrow, *(op.draw_secret(n, hashlib.sha256(n).digest()) for n in nonces))
        jobs = [
            _job(nonce, commitment, now, fee, changes)
            for nonce, commitment in zip(nonces, drawn, strict=True)
        ]
        write(escrow, *(op.fund(escrow.id, job, now=now) for job in jobs))
        bundles = [_bundle(job, forged(n), proved) for n, job in zip(numbers, jobs, strict=True)]
        write(
            escrow,
            *(op.record_claim(b.exchange.claim, b.exchange.output, now=now, one_use=()) for b in bundles),
        )
        if queued:
            for bundle in bundles:
                escrow.queue.add(bundle.exchange.job.digest, 0, bundle.encode(), now=now)
        made += [job.digest for job in jobs]
    return made


def _job(nonce: bytes, commitment: Digest, now: int, fee: Fee | None, changes: dict[str, Any]) -> SignedJob:
    payload = unproved().exchange.input
    terms: dict[str, Any] = {
        "input": payload.digest(nonce),
        "nonce": nonce.hex(),
        "sampling_commitment": commitment,
        "claim_by": now + 86_400,
        "verification_s": 86_400,
        "policy": POLICY.digest,
        "evidence_kinds": ("toy-hmac",),
        "price": PRICE,
        "bond": BOND,
        "fee": fee,
    }
    return Signed.new(make_job(payload, **(terms | changes)), BUYER, PROVIDER)


def _bundle(job: SignedJob, is_forged: bool, is_proved: bool) -> Bundle:
    example = unproved().exchange
    output = example.output.digest(bytes.fromhex(job.document.nonce))
    unsigned = Exchange(
        job,
        example.input,
        Signed.new(Claim(job=job.digest, seq=0, amount=job.document.price, output=output)),
        example.output,
    )
    evidence = Evidence("toy-hmac", b"forged" if is_forged else code_of(unsigned))
    named = (NamedEvidence(kind="toy-hmac", digest=evidence.digest),) if is_proved else ()
    claim = Claim(job=job.digest, seq=0, amount=job.document.price, output=output, evidence=named)
    return Bundle(
        Exchange(job, example.input, Signed.new(claim, PROVIDER), example.output),
        (evidence,) if is_proved else (),
    )


class FlakyRail:
    """A rail with a database of its own that keeps no one from paying twice, and fails at random.

    It is asked by its file whether a payment happened, which it answers, or does not.
    """

    name = "flaky"
    lands_in = AccountKind.OUTSIDE

    def __init__(self, path: Path, *, failing: float = 0.1) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # a process is killed here, not a machine
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS paid (id INTEGER PRIMARY KEY, key, amount, currency, account)"
        )
        self._connection.execute("CREATE INDEX IF NOT EXISTS paid_key ON paid (key)")
        self._failing = failing
        self._random = random.Random()

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        chance = self._random.random()
        if chance < self._failing / 2:
            raise RailUnknown("no answer, and nothing happened")
        sql = "INSERT INTO paid (key, amount, currency, account) VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (str(key), amount, currency, account))
        if chance < self._failing:
            raise RailUnknown("it happened, and the answer is lost")
        return RailReceipt(str(key), amount, currency, account)

    def query(self, key: PaymentKey) -> RailReceipt | None:
        if self._random.random() < self._failing:
            raise RailUnknown("no answer to a question either")
        sql = "SELECT key, amount, currency, account FROM paid WHERE key = ?"
        row = self._connection.execute(sql, (str(key),)).fetchone()
        return None if row is None else RailReceipt(*row)

    def payments(self) -> list[tuple[str, int]]:
        """Give the key and amount of every payment that was made, as often as it was."""
        return self._connection.execute("SELECT key, amount FROM paid ORDER BY id").fetchall()


@dataclass
class Order:
    """What a worker's process is told."""

    location: str
    name: str = ""
    wait_s: float = 0.0
    parallel: int = 1
    batch: int = 32
    lease_s: int = 60
    poll_s: float = 0.1
    until_empty: bool = True
    rail: str = ""
    """A file for a flaky rail; the ledger's own if empty."""
    failing: float = 0.1
    naive: bool = False
    """Pay, then decide: the design that everyone writes first."""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """The command that carries it out."""
        return [sys.executable, __file__, json.dumps(asdict(self))]


class NaiveEscrow:
    """Pays, then marks: what the worker's transaction guards against, put in its place."""

    def __init__(self, escrow: LedgerEscrow, rail: Rail) -> None:
        self._escrow, self._rail = escrow, rail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._escrow, name)

    def apply_many(self, rulings: Iterable[Any], *, now: int) -> Any:
        from proofhold.escrow.rail import Direction

        for ruled in (rulings := list(rulings)):
            job = self._escrow.hold(ruled.hold).job.document
            release = ruled.ruling == "release"
            key = PaymentKey(ruled.hold, 0, Direction.RELEASE if release else Direction.REFUND)
            try:
                self._rail.pay(key, job.price, "USDC", job.payee if release else job.buyer)
            except RailUnknown:
                self._rail.pay(key, job.price, "USDC", job.payee if release else job.buyer)
        outcomes = self._escrow.apply_many(rulings, now=now)
        self._escrow.pump(LedgerRail(), now=now)  # its books believe that this is where it happened
        return outcomes


def work(order: Order) -> None:
    """Be one worker."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    terms = Terms(
        parallel=order.parallel,
        batch=order.batch,
        lease_s=order.lease_s,
        poll_s=order.poll_s,
        retry_after_s=1,
    )
    rail: Rail = FlakyRail(Path(order.rail), failing=order.failing) if order.rail else LedgerRail()
    with open_home(order.location) as escrow:
        used: Any = NaiveEscrow(escrow, rail) if order.naive else escrow
        worker = Worker(
            used,
            make_judge(order.wait_s),
            terms=terms,
            name=order.name,
            rail=None if order.naive else rail,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print("ready", flush=True)
        began = time.monotonic()
        record = worker.run(stop, until_empty=order.until_empty)
        seconds = time.monotonic() - began
    print(json.dumps({"settled": record.settled, "kept": record.kept, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    work(Order(**json.loads(sys.argv[1])))
