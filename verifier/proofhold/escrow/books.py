"""The books as one transaction sees them: rows are read once, and written together at its end.

Everything that the escrow does to a database goes through here by primary key. What was read is remembered,
what is written is gathered, and `flush` writes it table by table: so the same rules, written for one capture,
settle a thousand in as many statements as one takes. On a database with several writers the order in which
locks are taken is the same for all: holds by their digests, names, then accounts by their numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from proofhold.escrow.driver import Transaction, Value, Values
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.escrow.tables import ACCOUNT, ENTRY, HOLD, OUTBOX, TABLES, TRANSFER, TRANSITION, Table

Record: TypeAlias = dict[str, Any]
"""A row of a table by column. The books' own: change it with `Books.update` only."""

_BY_HAND = frozenset({ACCOUNT, TRANSFER, ENTRY, TRANSITION, OUTBOX})
"""Tables whose rows get numbers first: `flush` writes them by itself."""


_Step: TypeAlias = tuple[Any, Any, Any]
"""How to take a change back: in which container, under which key, and what was there before."""
_LAST: Final = object()
"""In place of a key: the container is a list, and grew by one."""
_WHOLE: Final = object()
"""In place of a key: the container is a record, of which several columns changed."""
_NOTHING: Final = object()
"""In place of what was there before."""


@dataclass(slots=True)
class _Posting:
    """A transfer that is to be written: the account's keys and what each gets."""

    key: str
    at: int
    entries: tuple[tuple[Values, int], ...]


class Books:
    """What one transaction has read of an escrow, and what it is going to write."""

    def __init__(self, tx: Transaction, *, writing: bool = True) -> None:
        """Open the books of a transaction.

        Args:
            tx: the transaction.
            writing: whether holds are locked when they are read.

        """
        self.tx = tx
        self._writing = writing
        self._rows: dict[tuple[Table, Values], Record | None] = {}
        self._added: dict[Table, dict[Values, Record]] = {}
        self._before: dict[Table, dict[Values, Record]] = {}
        self._removed: dict[Table, list[Values]] = {}
        self._postings: list[_Posting] = []
        self._deltas: dict[Values, int] = {}
        self._log: list[Record] = []
        self._names: set[str] = set()
        self._undo: list[_Step] | None = None
        """What the innermost attempt would take back. Outside of one, what fails ends the transaction."""
        self.logged: list[Record] = []
        """Every move that was logged, oldest first."""

    def find(self, table: Table, *key: Value) -> Record | None:
        """Read a row by its primary key: as the transaction sees it, with what it has not written yet."""
        at = (table, key)
        if at not in self._rows:
            self.fetch(table, [key])
        return self._rows[at]

    def fetch(self, table: Table, keys: Iterable[Values]) -> None:
        """Read many rows at once, which `find` then gives without asking the database."""
        missing = list(dict.fromkeys(key for key in keys if (table, key) not in self._rows))
        if not missing:
            return
        for key in missing:
            self._rows[table, key] = None
        names = table.read
        for row in self.tx.select_many(table, missing, lock=self._writing and table is HOLD):
            record = dict(zip(names, row, strict=True))
            self._rows[table, tuple(record[name] for name in table.key)] = record

    def insert(self, table: Table, *values: Value) -> Record:
        """Write a new row, all of its columns in order."""
        record = dict(zip(table.columns, values, strict=True))
        key = tuple(record[name] for name in table.key)
        before, added = self._rows.get((table, key)), self._added.setdefault(table, {})
        if before is not None:
            raise EscrowFailure("escrow.repeated_row", f"{table.name} {key} is there already")
        added[key] = self._rows[table, key] = record
        self._remember((added, key, _NOTHING), (self._rows, (table, key), None))
        return record

    def update(self, table: Table, key: Values, **changes: Value) -> None:
        """Change mutable columns of a row that was found."""
        record = self._rows[table, key]
        if record is None:
            raise EscrowFailure("escrow.no_row", f"{table.name} {key} is not there")
        old, before = record.copy(), self._before.setdefault(table, {})
        if key not in before and key not in self._added.get(table, {}):
            before[key] = old
            self._remember((before, key, _NOTHING))
        record.update(changes)
        self._remember((record, _WHOLE, old))

    def remove(self, table: Table, *key: Value) -> None:
        """Remove a row, if it is there."""
        record, removed = self.find(table, *key), self._removed.setdefault(table, [])
        if record is None:
            return
        removed.append(key)
        self._rows[table, key] = None
        self._remember((removed, _LAST, None), (self._rows, (table, key), record))

    def balance(self, *account: str) -> int:
        """Give what an account holds: kind, owner, currency. 0 if it was never used."""
        row = self.find(ACCOUNT, *account)
        return (int(row["balance"] or 0) if row else 0) + self._deltas.get(account, 0)

    def post(self, key: str, at: int, *entries: tuple[tuple[str, str, str], int]) -> None:
        """Write a transfer under a key that is free: what each account gets, in sum nothing."""
        self._postings.append(_Posting(key, at, entries))
        self._rows[TRANSFER, (key,)] = {"id": None, "key": key, "at": at}
        self._remember((self._postings, _LAST, None), (self._rows, (TRANSFER, (key,)), None))
        for account, amount in entries:
            before = self._deltas.get(account, 0)
            self._deltas[account] = before + amount
            self._remember((self._deltas, account, before))

    def log(self, *values: Value) -> None:
        """Write down a move: hold, seq, subject, source, event, target, at, cause."""
        record = dict(zip(TRANSITION.columns, (None, *values), strict=True))
        self._log.append(record)
        self.logged.append(record)
        self._remember((self._log, _LAST, None), (self.logged, _LAST, None))

    def lock(self, *names: str) -> None:
        """Keep other transactions that ask for one of these names out until this one ends."""
        for name in sorted(set(names) - self._names):
            self._names.add(name)
            self.tx.lock_name(name)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Run a block of which, if it raises, nothing will be written."""
        steps: list[_Step] = []
        outer, self._undo = self._undo, steps
        try:
            yield
        except BaseException:
            for where, key, before in reversed(steps):
                if key is _LAST:
                    where.pop()
                elif key is _WHOLE:
                    where.update(before)
                elif before is _NOTHING:
                    del where[key]
                else:
                    where[key] = before
            raise
        else:
            if outer is not None:
                outer += steps
        finally:
            self._undo = outer

    def flush(self) -> Transaction:
        """Write what was gathered, and give the transaction, in which statements of any kind now see it."""
        for table in TABLES:
            if table not in _BY_HAND and (added := self._added.get(table)):
                self.tx.insert_many(table, [tuple(record.values()) for record in added.values()])
        self._write_log()
        self._write_changes()
        self._write_postings()
        self._added, self._before, self._removed = {}, {}, {}
        if self._undo is not None:
            self._undo.clear()  # it is in the transaction now
        return self.tx

    def _remember(self, *steps: _Step) -> None:
        if self._undo is not None:
            self._undo += steps

    def _number_accounts(self) -> dict[Values, int]:
        """Find the numbers of all accounts that get something, and make those that are new."""
        used = {account for posting in self._postings for account, _ in posting.entries}
        self.fetch(ACCOUNT, used)
        new = sorted((account for account in used if self._rows[ACCOUNT, account] is None), key=str)
        if new:
            numbers = self.tx.next_ids(ACCOUNT, len(new))
            rows = [(number, *account, 0) for number, account in zip(numbers, new, strict=True)]
            self.tx.insert_many(ACCOUNT, rows, once=True)
            for account in new:  # read again: somebody else may have made it just now
                del self._rows[ACCOUNT, account]
            self.fetch(ACCOUNT, new)
        return {account: number for account in used if (number := self._number(account))}

    def _number(self, account: Values) -> int:
        row = self._rows[ACCOUNT, account]
        if row is None:
            raise EscrowFailure("escrow.no_row", f"the account {account} was made and is not there")
        return int(row["id"] or 0)

    def _write_log(self) -> None:
        if not self._log:
            return
        for record, number in zip(self._log, self.tx.next_ids(TRANSITION, len(self._log)), strict=True):
            record["id"] = number
        self.tx.insert_many(TRANSITION, [tuple(record.values()) for record in self._log])
        told = [(record["id"], None) for record in self._log if record["subject"] == "capture"]
        if told:
            self.tx.insert_many(OUTBOX, told)
        self._log = []

    def _write_changes(self) -> None:
        for table in TABLES:
            if before := self._before.get(table):
                rows = [self._changed(table, key, old) for key, old in before.items()]
                if self.tx.update_many(table, rows) != len(rows):
                    raise Refused("escrow.lost_race", f"somebody else changed the {table.name} first")
            if keys := self._removed.get(table):
                self.tx.delete_many(table, keys)

    def _changed(self, table: Table, key: Values, old: Record) -> Values:
        new = self._rows[table, key]
        if new is None:
            raise LookupError(f"{table.name} {key} was changed and removed at once")
        return (*(new[name] for name in table.mutable), *key, *(old[name] for name in table.compared))

    def _write_postings(self) -> None:
        if not self._postings:
            return
        ids = self._number_accounts()
        numbers = self.tx.next_ids(TRANSFER, len(self._postings))
        numbered = list(zip(numbers, self._postings, strict=True))
        self.tx.insert_many(TRANSFER, [(number, p.key, p.at) for number, p in numbered])
        entries = [(number, ids[account], amount) for number, p in numbered for account, amount in p.entries]
        self.tx.insert_many(ENTRY, entries)
        # Last, since these are the locks that everybody wants: one addition an account, whatever the batch.
        deltas = sorted((ids[account], delta) for account, delta in self._deltas.items() if delta)
        if deltas:
            self.tx.add_balances(deltas)
        for account, delta in self._deltas.items():
            row = self._rows[ACCOUNT, account]
            if row is not None:
                row["balance"] = int(row["balance"] or 0) + delta
        self._postings, self._deltas = [], {}
