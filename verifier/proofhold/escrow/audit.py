"""The audit: the books recomputed from what is append-only, and compared with what they say now."""

from __future__ import annotations

from collections.abc import Iterator

from proofhold.escrow import metering
from proofhold.escrow.driver import Dialect, Transaction
from proofhold.escrow.escrow import Difference
from proofhold.escrow.moves import read_job
from proofhold.escrow.states import (
    FINAL,
    RELEASE_SIDE,
    BondEvent,
    BondState,
    Event,
    State,
    bond_move,
    move,
)

# Entries are summed up first: joined one by one, SQLite would go through all of them for every account.
_BALANCES = (
    "SELECT kind, owner, currency, balance, coalesce(entered, 0) AS entered FROM account LEFT JOIN"
    " (SELECT account, sum(amount) AS entered FROM entry GROUP BY account) AS e ON e.account = account.id"
    " WHERE balance <> coalesce(entered, 0) OR (balance < 0 AND kind <> 'outside')"
)
_SUMS = "SELECT currency, sum(balance) AS total FROM account GROUP BY currency HAVING sum(balance) <> 0"
_TRANSFERS = (
    "SELECT key, count(entry.account) AS entries, coalesce(sum(amount), 0) AS total,"
    " count(DISTINCT currency) AS currencies FROM transfer LEFT JOIN entry ON entry.transfer = transfer.id"
    " LEFT JOIN account ON account.id = entry.account GROUP BY transfer.id"
    " HAVING count(entry.account) <> 2 OR coalesce(sum(amount), 0) <> 0 OR count(DISTINCT currency) <> 1"
)
_LOG = "SELECT hold, seq, subject, source, event, target FROM transition ORDER BY id"
_HELD = "SELECT owner, kind, balance FROM account WHERE kind IN ('hold', 'bond')"
_PAYMENTS = (
    "SELECT hold, seq, direction, amount, status, reference, transfer.id AS transfer FROM payment"
    " LEFT JOIN transfer ON key = 'pay:' || hold || ':' || seq || ':' || direction"
)

_CAPTURES = (
    "SELECT capture.hold, seq, state, base, amount, body FROM capture JOIN job ON job.hold = capture.hold"
    " ORDER BY capture.hold, seq"
)
_OPEN = ", ".join(f"'{state.value}'" for state in State if not state.is_decided)
_HOLDS = (
    "SELECT hold.id, body, bond_state, hold.undecided, hold.blamed,"  # noqa: S608
    f" sum(CASE WHEN state IN ({_OPEN}) THEN 1 ELSE 0 END) AS seen_undecided,"
    " sum(capture.blamed) AS seen_blamed FROM hold JOIN job ON job.hold = hold.id"
    " JOIN capture ON capture.hold = hold.id"
    " GROUP BY hold.id, body, bond_state, hold.undecided, hold.blamed"
)
_FINES = (
    "SELECT hold, count(*) AS fines FROM transition WHERE subject = 'bond' AND event = 'fine' GROUP BY hold"
)
_SLASHED = (
    "SELECT hold.id, bond_state, convicted, coalesce(-amount, 0) AS taken FROM hold"
    " LEFT JOIN (SELECT hold, min(at) AS convicted FROM adjudication WHERE outcome = 'convicted'"
    " GROUP BY hold) AS a ON a.hold = hold.id"
    " LEFT JOIN transfer ON key = 'slash:' || hold.id"
    " LEFT JOIN entry ON entry.transfer = transfer.id AND amount < 0"
    " WHERE (bond_state = 'slashed') <> (convicted IS NOT NULL)"
    # What is over cannot be slashed any more: a capture may be convicted after another ended the bond's way.
    " AND NOT EXISTS (SELECT 1 FROM transition AS t WHERE t.hold = hold.id AND t.subject = 'bond'"
    " AND t.target = 'free' AND t.at <= convicted)"
)

_STANDINGS = (
    "SELECT s.provider, s.model, s.currency, s.clean, s.unchecked, s.failed,"
    " count(CASE WHEN observation = 'clean' THEN 1 END) AS seen_clean,"
    " count(CASE WHEN observation = 'unchecked' THEN 1 END) AS seen_unchecked,"
    " count(CASE WHEN observation = 'failed' THEN 1 END) AS seen_failed"
    " FROM guard_standing AS s LEFT JOIN guard_hold AS h"
    " ON h.provider = s.provider AND h.model = s.model AND h.currency = s.currency"
    " GROUP BY s.provider, s.model, s.currency, s.clean, s.unchecked, s.failed"
)


def audit(tx: Transaction) -> tuple[Difference, ...]:
    """List everything in the books that contradicts something else in them."""
    checks = (_file, _entries, _moves, _money, _bonds, _guard)
    return tuple(difference for check in checks for difference in check(tx))


def _file(tx: Transaction) -> Iterator[Difference]:
    """Is the file itself whole? (A server keeps its references itself, and has tools for its files.)"""
    if tx.dialect is not Dialect.SQLITE:
        return
    for (finding,) in tx.execute("PRAGMA integrity_check"):
        if finding != "ok":
            yield Difference("file", str(finding))
    for row in tx.execute("PRAGMA foreign_key_check"):
        yield Difference(f"table {row[0]}", f"row {row[1]} refers to a row of {row[2]} that is not there")


def _entries(tx: Transaction) -> Iterator[Difference]:
    """Are balances what was entered, is every transfer two entries, and does everything sum to zero?"""
    for row in tx.execute(_BALANCES):
        text = f"the balance is {row['balance']}, its entries sum to {row['entered']} {row['currency']}"
        yield Difference(f"account {row['kind']} {row['owner']}", text)
    for row in tx.execute(_SUMS):
        yield Difference(f"currency {row['currency']}", f"all accounts sum to {row['total']}, not to zero")
    for row in tx.execute(_TRANSFERS):
        text = f"{row['entries']} entries in {row['currencies']} currencies, which sum to {row['total']}"
        yield Difference(f"transfer {row['key']}", text)


def _moves(tx: Transaction) -> Iterator[Difference]:
    """Does the log lead, by rows of the table alone, to where captures and bonds stand?"""
    reached: dict[tuple[str, str, int], str] = {}
    for hold, seq, subject, source, event, target in tx.execute(_LOG):
        at = (subject, hold, seq if subject == "capture" else 0)  # a hold has one bond, whoever moves it
        name = f"{subject} {hold}:{seq}"
        if reached.get(at) != source:
            yield Difference(name, f"the log leaves {source}, where it stood at {reached.get(at)}")
        if not _is_in_table(subject, source, event, target):
            yield Difference(name, f"the log has {source} -{event}-> {target}, the table has not")
        reached[at] = target
    states = (
        "SELECT 'capture', hold, seq, state FROM capture UNION ALL SELECT 'bond', id, 0, bond_state FROM hold"
    )
    for subject, hold, seq, state in tx.execute(states):
        logged = reached.pop((subject, hold, seq), None)
        if logged != state:
            yield Difference(f"{subject} {hold}:{seq}", f"it is {state}, the log says {logged}")
    for subject, hold, seq in reached:
        yield Difference(f"{subject} {hold}:{seq}", "the log speaks of it, and it is not there")
    silent = "SELECT id FROM transition WHERE subject = 'capture' AND id NOT IN (SELECT id FROM outbox)"
    for (number,) in tx.execute(silent):
        yield Difference(f"transition {number}", "it has no outbox row")


def _money(tx: Transaction) -> Iterator[Difference]:
    """Does what lies in holds and bonds, and what was paid, fit the states?"""
    held = {(row["kind"], row["owner"]): row["balance"] for row in tx.execute(_HELD)}
    paid: dict[tuple[str, int], int] = {}
    ordered: dict[tuple[str, int], dict[str, int]] = {}
    for row in tx.execute(_PAYMENTS):
        at = (row["hold"], row["seq"])
        ordered.setdefault(at, {})[row["direction"]] = row["amount"]
        is_paid = row["status"] == "paid"
        if is_paid != (row["transfer"] is not None) or is_paid != (row["reference"] is not None):
            text = f"it is {row['status']}; its transfer and its receipt say otherwise"
            yield Difference(f"payment {row['hold']}:{row['seq']}:{row['direction']}", text)
        paid[at] = paid.get(at, 0) + (row["amount"] if is_paid else 0)
    left: dict[str, int] = {}
    before: tuple[str, int, int] = ("", 0, 0)
    for row in tx.execute(_CAPTURES).fetchall():
        at, job = (row["hold"], row["seq"]), read_job(bytes(row["body"])).document
        state, name = State(row["state"]), f"capture {row['hold']}:{row['seq']}"
        follows = (row["hold"], row["seq"], row["base"])
        if follows not in (before, (row["hold"], 0, 0)):
            yield Difference(name, f"it begins at {row['base']}, which is not where one before it ended")
        before = (row["hold"], row["seq"] + 1, row["amount"])
        share = metering.share(job, row["seq"], row["base"], row["amount"]) - paid.get(at, 0)
        left[row["hold"]] = left.get(row["hold"], 0) + share
        if state in FINAL and share:
            yield Difference(name, f"it is {state}, and {share} of its share were not paid")
        expected: dict[str, int] = {}
        if state.is_decided:
            release = state in RELEASE_SIDE
            orders = metering.orders(job, row["seq"], row["base"], row["amount"], release=release)
            expected = {direction.value: amount for direction, (_, amount) in orders.items()}
        if ordered.get(at, {}) != expected:
            text = f"payments of {ordered.get(at, {})} are ordered, expected {expected} when {state}"
            yield Difference(name, text)
    fines = {row["hold"]: row["fines"] for row in tx.execute(_FINES)}
    for row in tx.execute(_HOLDS).fetchall():
        job, bond = read_job(bytes(row["body"])).document, BondState(row["bond_state"])
        for what in ("undecided", "blamed"):
            if row[what] != row[f"seen_{what}"]:
                text = f"{row[what]} captures are {what}, counted {row[f'seen_{what}']}"
                yield Difference(f"hold {row['id']}", text)
        lies, due = held.get(("hold", row["id"]), 0), left.get(row["id"], 0)
        if lies != due:
            yield Difference(f"hold {row['id']}", f"{lies} lie in it, not {due}")
        is_over = bond in (BondState.FREE, BondState.SLASHED)
        stake = 0 if is_over else max(0, job.bond - fines.get(row["id"], 0) * job.withholding_penalty)
        if held.get(("bond", row["id"]), 0) != stake:
            text = f"{held.get(('bond', row['id']), 0)} lie in it, not {stake}, and it is {bond}"
            yield Difference(f"bond {row['id']}", text)


def _bonds(tx: Transaction) -> Iterator[Difference]:
    """Was each bond taken where a transcript convicts, and only there (PROTOCOL P12)?"""
    for row in tx.execute(_SLASHED):
        text = f"the bond is {row['bond_state']}, {row['taken']} of it was taken, a transcript says"
        convicts = "nothing" if row["convicted"] is None else "convicted"
        yield Difference(f"bond {row['id']}", f"{text} {convicts}")


def _guard(tx: Transaction) -> Iterator[Difference]:
    """Does what is known of providers count what was observed?"""
    for row in tx.execute(_STANDINGS):
        name = f"guard {row['provider']} {row['model']} {row['currency']}"
        for what in ("clean", "unchecked", "failed"):
            if row[what] != row[f"seen_{what}"]:
                yield Difference(name, f"{row[what]} {what}, its holds say {row[f'seen_{what}']}")


def _is_in_table(subject: str, source: str | None, event: str, target: str) -> bool:
    try:
        if subject == "capture":
            row = move(None if source is None else State(source), Event(event))
            return row is not None and row.target == target
        bond = bond_move(None if source is None else BondState(source), BondEvent(event))
        return bond is not None and bond.target == target
    except ValueError:
        return False
