"""Telling others what moved: signed webhooks (https://www.standardwebhooks.com), from the outbox.

A message is a move of a capture. It is signed for its receiver, posted, and tried again with growing
pauses until it is answered with 2xx, or dead. Messages may come twice and out of order: `webhook-id` names
a message, `number` orders them. They name holds and receipts by their digests and carry no payload
(PROTOCOL P16).
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from proofhold import canonical
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Escrow
from proofhold.escrow.webhooks import Delivery, DeliveryStatus, Webhook, WebhookBook
from proofhold.integrations.deadline import Deadline
from proofhold.settlement import Clock, system_clock

if TYPE_CHECKING:
    import httpx

PAUSES_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""How long to wait after each failed attempt, jitter apart. After one more the message is dead."""
JITTER: Final = 0.2
"""By which share a pause is lengthened or shortened at random, so that receivers do not get herds."""
MAX_RETRY_AFTER_S: Final = 86_400
TIMEOUT_S: Final = 15.0
"""How long a receiver may be silent."""
DEADLINE_S: Final = 20.0
"""How long an attempt may take as a whole, whatever trickles in meanwhile."""
BATCH: Final = 4
"""How many messages are taken up a thread: few enough for all of them to be tried within a claim's lease."""
GONE: Final = 410
"""By this status a receiver says that it wants to be told no more."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one round of delivering did."""

    delivered: int = 0
    failed: int = 0
    """To be tried again."""
    dead: int = 0


class Messenger:
    """Delivers what is due. Any number of them may run, on any machine that shares the escrow's database."""

    def __init__(
        self,
        escrow: Escrow,
        client: httpx.Client,
        *,
        threads: int = 8,
        clock: Clock = system_clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Make a messenger.

        Args:
            escrow: whose outbox it is.
            client: posts; redirects are not followed, whatever it would do.
            threads: how many receivers are told at once, so that a slow one holds up few.
            clock: unix seconds; receivers compare it with theirs.
            jitter: gives numbers from 0 to 1.

        Raises:
            Misuse: the extra ``service`` is not installed.

        """
        try:
            import standardwebhooks  # noqa: F401
        except ImportError as error:
            raise Misuse("webhooks need an extra: pip install 'proofhold[service]'") from error
        self._escrow, self._client = escrow, client
        self._book = WebhookBook(escrow.store)
        self._threads, self._clock, self._jitter = threads, clock, jitter

    def run(self) -> Told:
        """Hand out what the outbox holds, and try everything that is due once."""
        self._book.fan_out(now=self._clock())
        ended: list[DeliveryStatus] = []
        limit, silent = BATCH * self._threads, set[str]()
        with ThreadPoolExecutor(self._threads) as pool:
            while claimed := self._book.claim(
                now=self._clock(), limit=limit, each=self._threads, without=silent
            ):
                for delivery, (status, answered) in zip(claimed, pool.map(self._try, claimed), strict=True):
                    ended.append(status)
                    if answered is None:
                        silent.add(delivery.webhook.id)  # it has cost the others enough for this round
        return Told(
            delivered=ended.count(DeliveryStatus.DELIVERED),
            failed=ended.count(DeliveryStatus.DUE),
            dead=ended.count(DeliveryStatus.DEAD),
        )

    def _try(self, delivery: Delivery) -> tuple[DeliveryStatus, int | None]:
        """Try a delivery once; give what it is then, and the status that was answered."""
        answered, retry_after_s = self._post(delivery)
        due_at = self._clock()
        if answered is not None and 200 <= answered < 300:
            status = DeliveryStatus.DELIVERED
        elif answered == GONE or delivery.attempts >= len(PAUSES_S):
            status = DeliveryStatus.DEAD
        else:
            status = DeliveryStatus.DUE
            pause_s = PAUSES_S[delivery.attempts] * (1 - JITTER + 2 * JITTER * self._jitter())
            due_at += max(round(pause_s), retry_after_s)
        self._book.record(delivery, status, answered=answered, due_at=due_at)
        return status, answered

    def _post(self, delivery: Delivery) -> tuple[int | None, int]:
        """Post a message; give the status of the answer, if there was one, and how long it asks to wait."""
        import httpx

        body = body_of(delivery)
        # A connection of its own, which can be cut off without anybody else noticing.
        headers = {"content-type": "application/json", "connection": "close"} | sign(
            delivery.webhook, message_id(self._escrow.id, delivery.number), body, at=self._clock()
        )
        try:
            # Streamed and closed unread: a receiver's answer is its status, however long its body is.
            with (
                Deadline(DEADLINE_S) as deadline,
                self._client.stream(
                    "POST",
                    delivery.webhook.url,
                    content=body,
                    headers=headers,
                    timeout=TIMEOUT_S,
                    follow_redirects=False,
                    extensions={"trace": deadline.trace},
                ) as response,
            ):
                return response.status_code, _retry_after_s(response.headers.get("retry-after", ""))
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return None, 0


def message_id(escrow: str, number: int) -> str:
    """Name a message: the same for every receiver and every attempt."""
    return f"msg_{escrow}_{number}"


def body_of(delivery: Delivery) -> bytes:
    """Say a move of a capture as a message: canonical JSON."""
    move = delivery.move
    return canonical.encode(
        {
            "data": {
                "at": move.at,
                "cause": move.cause,
                "event": move.event,
                "hold": move.hold,
                "number": delivery.number,
                "seq": move.seq,
                "source": move.source,
                "state": move.target,
            },
            "timestamp": datetime.fromtimestamp(move.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "type": f"capture.{move.target}",
        }
    )


def sign(webhook: Webhook, message: str, body: bytes, *, at: int) -> dict[str, str]:
    """Give the three headers of a signed message."""
    from standardwebhooks import Webhook as Signer

    signature = Signer(webhook.secret).sign(message, datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": message, "webhook-timestamp": str(at), "webhook-signature": signature}


def secret_in_words(webhook: Webhook) -> str:
    """Give a receiver's secret in the form that every library of the standard takes."""
    return f"whsec_{base64.b64encode(webhook.secret).decode()}"


def _retry_after_s(value: str) -> int:
    return min(int(value), MAX_RETRY_AFTER_S) if value.isascii() and value.isdigit() and len(value) < 9 else 0
