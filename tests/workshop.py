"""Work for workers: jobs that are funded, claimed and queued by the thousand, and slow checks.

The evidence is a message authentication code, so that a check costs what the check is told to wait and little
else; everything around it is as in earnest: signed jobs and claims, policy, verdict, receipt, ledger.

Run as a program it is one worker: ``python workshop.py '{"location": …}'``; see `Order`.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import hashlib
import hmac
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from judging import BUYER, PROVIDER, VERIFIER, catalogue, entry, make_job, policy, proved, unproved
from proofhold.backends.replay import ReplayBackend
from proofhold.canonical import Digest
from proofhold.core import Answer, Assurance, Evidence, Fault, Finding, Offer, Property, Reason, Refuted
from proofhold.drafting import USDC
from proofhold.escrow import AccountKind, Escrow, LedgerRail, PaymentKey, Rail, RailReceipt, RailUnknown
from proofhold.escrow import operations as op
from proofhold.escrow.desk import LedgerEscrow
from proofhold.escrow.driver import Operation, Transaction
from proofhold.escrow.home import open_home
from proofhold.escrow.queue import Lease, adding
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Claim, Fee, NamedEvidence, SignedJob, statement_of
from proofhold.judges import Judged, VerifierJudge
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Payload, Tensor, Tensors
from proofhold.policy import Policy
from proofhold.pool import VerifierPool
from proofhold.retention import EvidenceFolder
from proofhold.runner import InlineRunner, ProcessRunner
from proofhold.sampling import commitment
from proofhold.standard import standard_verifier
from proofhold.verifier import Verifier
from proofhold.worker import Terms, Worker

T = TypeVar("T")

CODE_KEY = b"known to the enclave and to the verifier"
PRICE, BOND = 1_000, 100
PR_SET_PDEATHSIG = 1
AT_ONCE = 32
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


class DeadlyJudge(VerifierJudge):
    """A judge that one capture takes down, with its worker and everything that this one holds."""

    deadly = ""

    def __call__(self, lease: Lease) -> Judged:
        if lease.hold == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(lease)


def make_judge(escrow: Escrow, wait_s: float = 0.0, *, deadly: str = "") -> VerifierJudge:
    """A judge whose checks wait."""
    verifier = Verifier(catalogue(), backends=(WaitingCode(wait_s),), fallback=ReplayBackend(InlineRunner()))
    judge = DeadlyJudge(verifier, [POLICY], VERIFIER, escrow=escrow)
    judge.deadly = deadly
    return judge


def make_proof_judge(escrow: Escrow) -> VerifierJudge:
    """A judge of real proofs, which checks one at a time in a process that is there from the beginning."""
    pool = VerifierPool(catalogue(), 1)
    pool.start()
    return VerifierJudge(standard_verifier(catalogue(), pool), [policy()], VERIFIER, escrow=escrow)


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
    resumes: bool = False,
    now: int | None = None,
    providers: Sequence[SigningKey] = (PROVIDER,),
    fee: Fee | None = None,
    claimed_amount: int | None = None,
    **changes: Any,
) -> list[Digest]:
    """Fund and claim jobs, and hand their bundles in; `forged` says which ones have a false code.

    Made again with the same numbers and `now`, what is there stays as it is (`resumes`). Without `proved`
    they are claims without evidence, for a verifier that runs the model again.
    """
    now = int(time.time()) if now is None else now
    made: list[Digest] = []
    for key, amount in ((BUYER, PRICE), *((provider, BOND) for provider in providers)):
        name = f"stock {first} {key.public[-6:]}"
        escrow.deposit(key.public, amount * count, USDC, key=name, now=now)
    for begin in range(first, first + count, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, first + count))
        jobs = [_job(n, now, fee, changes, providers[n % len(providers)]) for n in numbers]
        made += [job.digest for job in jobs]
        if resumes and _is_known(escrow, jobs[0].digest):
            continue
        steps: list[Operation[Any]] = []
        for number, job in zip(numbers, jobs, strict=True):
            provider = providers[number % len(providers)]
            bundle = _bundle(job, forged(number), proved, provider, amount=claimed_amount)
            steps += _steps(escrow, bundle, number, now=now, queued=queued)
        write(escrow, *steps)
    return made


def proved_bundles(count: int) -> list[Bundle]:
    """Prove the answers to jobs on the smallest circuit, each with a proof of its own."""
    from proofhold.provider import Prover, respond  # workers, which read this file, need no prover

    payload, now = proved().exchange.input, int(time.time())
    jobs = []
    for number in range(count):
        nonce = hashlib.sha256(b"proved %d" % number).digest()
        terms: dict[str, Any] = {
            "input": payload.digest(nonce),
            "nonce": nonce.hex(),
            "sampling_commitment": commitment(nonce, _secret(number)),
            "claim_by": now + 86_400,
            "verification_s": 86_400,
            "price": PRICE,
        }
        jobs.append(Signed.new(make_job(payload, **terms), BUYER, PROVIDER))
    with ProcessRunner(2, memory_bytes=None) as runner, ThreadPoolExecutor(2) as threads:
        prover = Prover(runner)
        return list(threads.map(lambda j: respond(j, payload, entry(), PROVIDER, prover=prover), jobs))


def hand_in(escrow: LedgerEscrow, bundles: Sequence[Bundle]) -> None:
    """Fund, claim and queue what `proved_bundles` gave, in an escrow that does not know it yet."""
    now = int(time.time())
    escrow.deposit(BUYER.public, PRICE * len(bundles), USDC, key="proved", now=now)
    for number, bundle in enumerate(bundles):
        write(escrow, *_steps(escrow, bundle, number, now=now))


def _steps(
    escrow: LedgerEscrow, bundle: Bundle, number: int, *, now: int, queued: bool = True
) -> list[Operation[Any]]:
    """Give what brings a job from its draft into the queue."""
    job, exchange = bundle.exchange.job, bundle.exchange
    steps: list[Operation[Any]] = [
        op.draw_secret(bytes.fromhex(job.document.nonce), _secret(number)),
        op.fund(escrow.id, job, now=now),
        op.record_claim(exchange.claim, exchange.output, now=now, one_use=()),
    ]
    return [*steps, adding(job.digest, 0, bundle.encode(), now=now)] if queued else steps


def _is_known(escrow: LedgerEscrow, hold: Digest) -> bool:
    try:
        escrow.hold(hold)
    except Refused:
        return False
    return True


def _secret(number: int) -> bytes:
    return hashlib.sha256(b"secret %d" % number).digest()


def _job(
    number: int, now: int, fee: Fee | None, changes: dict[str, Any], provider: SigningKey = PROVIDER
) -> SignedJob:
    payload, nonce = unproved().exchange.input, hashlib.sha256(b"workshop %d" % number).digest()
    terms: dict[str, Any] = {
        "input": payload.digest(nonce),
        "nonce": nonce.hex(),
        "sampling_commitment": commitment(nonce, _secret(number)),
        "claim_by": now + 86_400,
        "verification_s": 86_400,
        "policy": POLICY.digest,
        "evidence_kinds": ("toy-hmac",),
        "price": PRICE,
        "bond": BOND,
        "fee": fee,
        "provider": provider.public,
    }
    return Signed.new(make_job(payload, **(terms | changes)), BUYER, provider)


def _bundle(
    job: SignedJob,
    is_forged: bool,
    is_proved: bool,
    provider: SigningKey = PROVIDER,
    *,
    seq: int = 0,
    amount: int | None = None,
) -> Bundle:
    amount = job.document.price if amount is None else amount
    example = unproved().exchange
    if is_forged and not is_proved:
        example = replace(example, output=_wrong(example.output))
    output = example.output.digest(bytes.fromhex(job.document.nonce))
    unsigned = Exchange(
        job,
        example.input,
        Signed.new(Claim(job=job.digest, seq=seq, amount=amount, output=output)),
        example.output,
    )
    evidence = Evidence("toy-hmac", b"forged" if is_forged else code_of(unsigned))
    named = (NamedEvidence(kind="toy-hmac", digest=evidence.digest),) if is_proved else ()
    claim = Claim(job=job.digest, seq=seq, amount=amount, output=output, evidence=named)
    return Bundle(
        Exchange(job, example.input, Signed.new(claim, provider), example.output),
        (evidence,) if is_proved else (),
    )


def _wrong(output: Payload) -> Payload:
    """Say something else than what the model says."""
    assert isinstance(output, Tensors)
    (tensor,) = output.items
    return Tensors((Tensor(tensor.name, tensor.dtype, tensor.shape, tensor.data[::-1]),))


class FlakyRail:
    """A rail with a database of its own that keeps no one from paying twice, and fails at random.

    It is asked by its file whether a payment happened, which it answers, or does not.
    """

    name = "flaky"
    lands_in = AccountKind.OUTSIDE

    def __init__(self, path: Path, *, failing: float = 0.1, answer_s: float = 0.0) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # a process is killed here, not a machine
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS paid (id INTEGER PRIMARY KEY, key, amount, currency, account)"
        )
        self._connection.execute("CREATE INDEX IF NOT EXISTS paid_key ON paid (key)")
        self._failing, self._answer_s = failing, answer_s
        self._random = random.Random()

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        chance = self._random.random()
        if chance < self._failing / 2:
            raise RailUnknown("no answer, and nothing happened")
        sql = "INSERT INTO paid (key, amount, currency, account) VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (str(key), amount, currency, account))
        time.sleep(self._answer_s)
        if chance < self._failing:
            raise RailUnknown("it happened, and the answer is lost")
        return RailReceipt(str(key), amount, currency, account)

    def query(self, key: PaymentKey) -> RailReceipt | None:
        if self._random.random() < self._failing:
            raise RailUnknown("no answer to a question either")
        sql = "SELECT key, amount, currency, account FROM paid WHERE key = ?"
        row = self._connection.execute(sql, (str(key),)).fetchone()
        return None if row is None else RailReceipt(*row)

    def count(self) -> int:
        """Say how many payments were made."""
        return int(self._connection.execute("SELECT count(*) FROM paid").fetchone()[0])

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
    waits: bool = False
    """Begin when a line comes in."""
    until_empty: bool = True
    rail: str = ""
    """A file for a flaky rail; the ledger's own if empty."""
    failing: float = 0.1
    answer_s: float = 0.0
    naive: bool = False
    """Pay, then decide: the design that everyone writes first."""
    feeds: int = 0
    """Do not work: fund, claim and queue so many jobs."""
    forged_every: int = 0
    evidence: str = ""
    """A folder where it keeps what it checks."""
    deadly: str = ""
    """The hold whose check takes the whole process down."""
    shift_s: int = 0
    """By how much its clock is ahead: a lease need not be waited for."""
    now: int = 0
    """When what is fed was made."""
    proofs: bool = False
    """Judge real proofs of this repository's circuits, in a process of its own."""

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
    rail: Rail = LedgerRail()
    if order.rail:
        rail = FlakyRail(Path(order.rail), failing=order.failing, answer_s=order.answer_s)
    with open_home(order.location) as escrow:
        used: Any = NaiveEscrow(escrow, rail) if order.naive else escrow
        judge = (
            make_proof_judge(escrow)
            if order.proofs
            else make_judge(escrow, order.wait_s, deadly=order.deadly)
        )
        worker = Worker(
            used,
            judge,
            terms=terms,
            name=order.name,
            rail=None if order.naive else rail,
            evidence=EvidenceFolder(Path(order.evidence), escrow) if order.evidence else None,
            clock=lambda: int(time.time()) + order.shift_s,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print("ready", flush=True)
        if order.waits:
            sys.stdin.readline()
        began = time.monotonic()
        record = worker.run(stop, until_empty=order.until_empty)
        seconds = time.monotonic() - began
    print(json.dumps({"settled": record.settled, "kept": record.kept, "seconds": seconds}), flush=True)


def is_forged(number: int, every: int) -> bool:
    """Tell whether a job's code is a false one, where every so many are."""
    return bool(every) and number % every == 0


def feed(order: Order) -> None:
    """Be the application that takes jobs in, and goes on where an earlier one was killed."""
    while True:
        try:
            with open_home(order.location) as escrow:
                first = _resume_at(escrow, order)
                if first >= order.feeds:
                    return
                forged = lambda number: is_forged(number, order.forged_every)  # noqa: E731
                stock(escrow, order.feeds - first, first=first, forged=forged, resumes=True, now=order.now)
                return
        except (EscrowFailure, Refused):
            time.sleep(order.poll_s)  # its server is away; `unconfirmed` is found out by asking


def _resume_at(escrow: LedgerEscrow, order: Order) -> int:
    """Find where an earlier life ended, without signing all of its jobs again."""
    begins = range(0, order.feeds, AT_ONCE)
    return AT_ONCE * bisect.bisect_left(
        begins, True, key=lambda n: not _is_known(escrow, _job(n, order.now, None, {}).digest)
    )


def nurse() -> None:
    """Make processes of orders, a line each, and say their numbers: they need not read all of this again.

    A fork, so that a worker is there in no time and can be killed at any point of its life.
    """
    catalogue(), unproved()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody outlives the nurse
            sys.stdin.close()
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
            (feed if order.feeds else work)(order)
            os._exit(0)
        print(pid, flush=True)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def nursery() -> Iterator[Callable[[Order], int]]:
    """Give a function that starts a process for an order, at once."""
    with subprocess.Popen(
        [sys.executable, __file__, "nurse"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nurse:
        assert nurse.stdin is not None
        assert nurse.stdout is not None

        def start(order: Order) -> int:
            assert nurse.stdin is not None
            assert nurse.stdout is not None
            nurse.stdin.write(json.dumps(asdict(order)) + "\n")
            nurse.stdin.flush()
            return int(nurse.stdout.readline())

        yield start
        nurse.kill()


if __name__ == "__main__":
    if sys.argv[1] == "nurse":
        nurse()
    else:
        work(Order(**json.loads(sys.argv[1])))
