"""The process that the kill tests kill: it settles whatever is claimed, and pays it over a rail of its own.

The rail is the worst that can be asked to pay: it pays every time it is told to, and takes its time to
answer. ``outbox`` settles as the escrow does; ``naive`` is the design that everyone writes first, and that
the harness must catch: pay, then mark.

Usage: python escrow_kill_worker.py FOLDER MODE NOW
"""

from __future__ import annotations

import sqlite3
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from proofhold.canonical import Digest
from proofhold.escrow import (
    AccountKind,
    Escrow,
    LedgerRail,
    PaymentKey,
    Rail,
    RailReceipt,
    Ruling,
    SqliteEscrow,
    State,
)
from proofhold.escrow.rail import Direction

ANSWER_S = 0.02
"""Longer than all the rest of settling: most kills fall between paying and knowing."""


class BareRail:
    """A rail with a database of its own that keeps nobody from paying twice."""

    name = "bare"
    lands_in = AccountKind.OUTSIDE

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS paid (id INTEGER PRIMARY KEY, key, amount, currency, account)"
        )

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        sql = "INSERT INTO paid (key, amount, currency, account) VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (str(key), amount, currency, account))
        time.sleep(ANSWER_S)
        return RailReceipt(str(key), amount, currency, account)

    def query(self, key: PaymentKey) -> RailReceipt | None:
        sql = "SELECT key, amount, currency, account FROM paid WHERE key = ?"
        row = self._connection.execute(sql, (str(key),)).fetchone()
        return None if row is None else RailReceipt(*row)

    def payments(self) -> list[str]:
        """Give the key of every payment that was made, as often as it was."""
        return [key for (key,) in self._connection.execute("SELECT key FROM paid ORDER BY id")]


class OutboxPayer:
    """Decides, then pays what was decided: the escrow's own way."""

    def __init__(self, escrow: Escrow, rail: Rail) -> None:
        self._escrow, self._rail = escrow, rail

    def settle(self, hold: Digest, ruling: Ruling, now: int) -> None:
        decide(self._escrow, hold, ruling, now)
        self._escrow.pump(self._rail, now=now)


@dataclass
class NaivePayer:
    """Pays, then marks: no outbox, no key, and nobody asks the rail."""

    escrow: Escrow
    rail: Rail

    def settle(self, hold: Digest, ruling: Ruling, now: int) -> None:
        job = self.escrow.hold(hold).job.document
        direction = Direction.RELEASE if ruling is Ruling.RELEASE else Direction.REFUND
        account = job.payee if ruling is Ruling.RELEASE else job.buyer
        self.rail.pay(PaymentKey(hold, 0, direction), job.price, job.currency.code, account)
        decide(self.escrow, hold, ruling, now)
        self.escrow.pump(LedgerRail(), now=now)  # its books believe that this is where it happened


def decide(escrow: Escrow, hold: Digest, ruling: Ruling, now: int) -> None:
    receipt = f"{ruling} {hold}".encode()
    digest = sha256(receipt).hexdigest()
    escrow.apply(hold, 0, ruling, receipt_digest=digest, receipt=receipt, now=now)


def ruling_of(hold: Digest) -> Ruling:
    """Refund every fourth hold: both directions are to be crashed through."""
    return Ruling.REFUND if int(hold[:2], 16) % 4 == 0 else Ruling.RELEASE


def work(folder: Path, mode: str, now: int) -> None:
    rail = BareRail(folder / "rail.db")
    holds = (folder / "holds").read_text().split()
    with SqliteEscrow.open(folder / "escrow.db") as escrow:
        payer = OutboxPayer(escrow, rail) if mode == "outbox" else NaivePayer(escrow, rail)
        print("ready", flush=True)
        if mode == "outbox":
            escrow.pump(rail, now=now)  # what an earlier life left half-way
        for hold in holds:
            if escrow.hold(hold).capture(0).state is State.CLAIMED:
                payer.settle(hold, ruling_of(hold), now)
    print("done", flush=True)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
