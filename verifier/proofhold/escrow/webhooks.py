"""Who is told what the outbox holds, and how far telling has come: endpoints, deliveries, dead letters.

Nothing here speaks HTTP. A row of the outbox is fanned out to every endpoint once; a delivery is claimed
for a while, tried, and recorded. One that was claimed and not recorded is tried again: receivers may get a
message twice, under the same name, and never lose one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from proofhold.errors import Misuse
from proofhold.escrow.escrow import Transition
from proofhold.escrow.refusals import Refused
from proofhold.escrow.store import Store

SECRET_BYTES = 32
MAX_URL_CHARS = 2_048
MAX_WEBHOOKS = 64
LEASE_S = 120
"""How long whoever claimed a delivery has for it. Past it, it is due again."""
FAN_OUT = 512
"""How many rows of the outbox one transaction hands out."""

_ID_PATTERN = r"[a-z0-9][a-z0-9-]{0,63}"
_DELIVERY = (
    "SELECT d.webhook, d.outbox, d.status, d.attempts, d.due_at, d.answered, w.url, w.secret,"
    " t.hold, t.seq, t.subject, t.source, t.event, t.target, t.at, t.cause FROM webhook_delivery AS d"
    " JOIN webhook AS w ON w.id = d.webhook JOIN transition AS t ON t.id = d.outbox"
)
_DUE = "WHERE d.webhook = ? AND d.status = 'due' AND d.due_at <= ?"


class DeliveryStatus(StrEnum):
    """How far one message to one receiver has come."""

    DUE = "due"
    DELIVERED = "delivered"
    DEAD = "dead"
    """It was tried as often as it is: a person may have it tried again."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One receiver. Its secret signs what it is sent."""

    id: str
    url: str
    secret: bytes
    added_at: int
    """Unix seconds."""

    def __repr__(self) -> str:
        return f"Webhook(id={self.id!r}, url={self.url!r})"  # never the secret


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one receiver: a move of a capture, numbered as in the outbox."""

    webhook: Webhook
    number: int
    move: Transition
    status: DeliveryStatus
    attempts: int
    due_at: int
    answered: int | None
    """The HTTP status of the last answer; None where there was none."""


class WebhookBook:
    """The webhooks of one escrow."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(
        self, webhook: str, url: str, *, now: int, backlog: bool = False, dangerous_http: bool = False
    ) -> Webhook:
        """Tell a receiver from now on, with a new secret for it.

        Args:
            webhook: its name, for good: one that was removed is not given again.
            url: where it listens.
            now: unix seconds.
            backlog: whether the first receiver is also told what was never told to anybody.
            dangerous_http: whether its address may be plain HTTP, which anybody on the way can read.

        Raises:
            Misuse: a malformed name or address.
            Refused: ``webhook.exists``, ``webhook.too_many``.

        """
        if not re.fullmatch(_ID_PATTERN, webhook, re.ASCII):
            raise Misuse(f"webhook: got {webhook[:80]!r}, expected lower-case letters, digits and dashes")
        schemes = ("https://", "http://") if dangerous_http else ("https://",)
        if not url.startswith(schemes) or len(url) > MAX_URL_CHARS or not url.isprintable() or " " in url:
            raise Misuse(f"webhook address: got {url[:80]!r}, expected https://… of up to {MAX_URL_CHARS}")
        secret = os.urandom(SECRET_BYTES)

        def operation(tx: Any) -> None:
            active = tx.execute("SELECT count(*) AS n FROM webhook WHERE removed_at IS NULL").fetchone()["n"]
            if active >= MAX_WEBHOOKS:
                raise Refused("webhook.too_many", f"{active} webhooks are told already")
            added = tx.execute(
                "INSERT INTO webhook (id, url, secret, added_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO NOTHING",
                (webhook, url, secret, now),
            )
            if added.rowcount != 1:
                raise Refused("webhook.exists", f"there is, or was, a webhook {webhook}")
            if not active and not backlog:
                tx.execute("UPDATE outbox SET sent_at = ? WHERE sent_at IS NULL", (now,))

        self._store.write(operation)
        return Webhook(webhook, url, secret, now)

    def remove(self, webhook: str, *, now: int) -> None:
        """Stop telling a receiver. What was due to it is dead.

        Raises:
            Refused: ``webhook.unknown``.

        """

        def operation(tx: Any) -> None:
            sql = "UPDATE webhook SET removed_at = ? WHERE id = ? AND removed_at IS NULL"
            if tx.execute(sql, (now, webhook)).rowcount != 1:
                raise Refused("webhook.unknown", f"no webhook {webhook[:80]}")
            sql = "UPDATE webhook_delivery SET status = 'dead' WHERE webhook = ? AND status = 'due'"
            tx.execute(sql, (webhook,))

        self._store.write(operation)

    def all(self) -> tuple[Webhook, ...]:
        """Give the receivers that are told."""
        return self._store.read(_active)

    def fan_out(self, *, now: int) -> int:
        """Make a delivery to every receiver of what the outbox holds, and give of how many rows."""

        def operation(tx: Any) -> int:
            webhooks = _active(tx)
            if not webhooks:
                return 0
            sql = "SELECT id FROM outbox WHERE sent_at IS NULL ORDER BY id LIMIT ?"
            numbers = [row["id"] for row in tx.execute(sql, (FAN_OUT,)).fetchall()]
            for number in numbers:
                sql = "UPDATE outbox SET sent_at = ? WHERE id = ? AND sent_at IS NULL"
                if tx.execute(sql, (now, number)).rowcount == 1:
                    for webhook in webhooks:
                        _make_due(tx, webhook.id, number, now)
            return len(numbers)

        done = 0
        while more := self._store.write(operation):
            done += more
        return done

    def claim(
        self, *, now: int, limit: int, each: int | None = None, without: Collection[str] = ()
    ) -> tuple[Delivery, ...]:
        """Take deliveries that are due, each counted as an attempt; nobody else gets them meanwhile.

        Args:
            now: unix seconds.
            limit: how many at most.
            each: how many of one receiver at most, so that none of them keeps the others waiting.
            without: receivers that are to be left alone.

        """

        def operation(tx: Any) -> tuple[Delivery, ...]:
            rows = []
            for webhook in _active(tx):
                if webhook.id not in without:
                    sql = f"{_DELIVERY} {_DUE} ORDER BY d.due_at, d.outbox LIMIT ?"
                    rows += tx.execute(sql, (webhook.id, now, each or limit)).fetchall()
            oldest = sorted(map(_delivery, rows), key=lambda due: (due.due_at, due.number))[:limit]
            return tuple(delivery for delivery in oldest if _take(tx, delivery, now))

        return self._store.write(operation)

    def record(
        self, delivery: Delivery, status: DeliveryStatus, *, answered: int | None, due_at: int
    ) -> None:
        """Record how a claimed delivery ended; DUE is for another attempt, not before `due_at`."""

        def operation(tx: Any) -> None:
            tx.execute(
                "UPDATE webhook_delivery SET status = ?, answered = ?, due_at = ?"
                " WHERE webhook = ? AND outbox = ? AND attempts = ? AND status = 'due'",
                (status, answered, due_at, delivery.webhook.id, delivery.number, delivery.attempts + 1),
            )

        self._store.write(operation)

    def deliveries(
        self, *statuses: DeliveryStatus, webhook: str = "", limit: int = 1_000
    ) -> tuple[Delivery, ...]:
        """Give the newest deliveries of these statuses (of all, if none is named), newest first."""

        def operation(tx: Any) -> tuple[Delivery, ...]:
            wanted = statuses or tuple(DeliveryStatus)
            marks = ", ".join("?" for _ in wanted)
            where, named = ("AND d.webhook = ?", (webhook,)) if webhook else ("", ())
            sql = f"{_DELIVERY} WHERE d.status IN ({marks}) {where} ORDER BY d.outbox DESC, d.webhook LIMIT ?"
            rows = tx.execute(sql, (*wanted, *named, limit)).fetchall()
            return tuple(_delivery(row) for row in rows)

        return self._store.read(operation)

    def replay(self, webhook: str, numbers: Sequence[int] | None, *, now: int) -> int:
        """Have messages delivered once more: these, whatever became of them, or all dead ones (None).

        Raises:
            Refused: ``webhook.unknown``, or ``webhook.no_message``: there is none of that number.

        """

        def operation(tx: Any) -> int:
            if webhook not in {active.id for active in _active(tx)}:
                raise Refused("webhook.unknown", f"no webhook {webhook[:80]}")
            if numbers is None:
                sql = (
                    "UPDATE webhook_delivery SET status = 'due', attempts = 0, due_at = ?"
                    " WHERE webhook = ? AND status = 'dead'"
                )
                return int(tx.execute(sql, (now, webhook)).rowcount)
            for number in numbers:
                if tx.execute("SELECT 1 FROM outbox WHERE id = ?", (number,)).fetchone() is None:
                    raise Refused("webhook.no_message", f"the outbox has no message {number}")
                _make_due(tx, webhook, number, now)
                tx.execute(
                    "UPDATE webhook_delivery SET status = 'due', attempts = 0, due_at = ?"
                    " WHERE webhook = ? AND outbox = ?",
                    (now, webhook, number),
                )
            return len(numbers)

        return self._store.write(operation)


def _active(tx: Any) -> tuple[Webhook, ...]:
    rows = tx.execute("SELECT * FROM webhook WHERE removed_at IS NULL ORDER BY id").fetchall()
    return tuple(Webhook(row["id"], row["url"], bytes(row["secret"]), row["added_at"]) for row in rows)


def _make_due(tx: Any, webhook: str, number: int, now: int) -> None:
    tx.execute(
        "INSERT INTO webhook_delivery (webhook, outbox, status, attempts, due_at)"
        " VALUES (?, ?, 'due', 0, ?) ON CONFLICT (webhook, outbox) DO NOTHING",
        (webhook, number, now),
    )


def _take(tx: Any, delivery: Delivery, now: int) -> bool:
    """Claim one delivery, if it is still as it was read."""
    done = tx.execute(
        "UPDATE webhook_delivery SET attempts = attempts + 1, due_at = ?"
        " WHERE webhook = ? AND outbox = ? AND status = 'due' AND attempts = ? AND due_at = ?",
        (now + LEASE_S, delivery.webhook.id, delivery.number, delivery.attempts, delivery.due_at),
    )
    return bool(done.rowcount == 1)


def _delivery(row: Any) -> Delivery:
    move = Transition(
        *(row["hold"], row["seq"], row["subject"], row["source"]),
        *(row["event"], row["target"], row["at"], row["cause"]),
    )
    return Delivery(
        webhook=Webhook(row["webhook"], row["url"], bytes(row["secret"]), 0),
        number=row["outbox"],
        move=move,
        status=DeliveryStatus(row["status"]),
        attempts=row["attempts"],
        due_at=row["due_at"],
        answered=row["answered"],
    )
