"""Signed webhooks over real HTTP: signed as the standard says, tried again, dead in the end, and replayed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook as Reader
from standardwebhooks.webhooks import WebhookVerificationError

from escrow_builders import START, Scene, memory_folder, refused
from proofhold.errors import Misuse
from proofhold.escrow import LedgerRail, Ruling
from proofhold.escrow.webhooks import LEASE_S, DeliveryStatus, WebhookBook
from proofhold.integrations import webhooks
from proofhold.integrations.webhooks import JITTER, PAUSES_S, Messenger, Told, secret_in_words
from proofhold_cli import main
from simulated_cards import serving
from stores import DRIVERS, make_store


@dataclass
class Receiver:
    """Keeps what it was sent, and answers as it is told to: a status a request, 204 past the script."""

    script: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/hook")
        async def hook(request: Request) -> Response:
            self.got.append((dict(request.headers), await request.body()))
            status = self.script.pop(0) if self.script else 204
            return Response(status_code=status, headers=self.headers)

        return app

    def read(self, secret: str) -> list[Any]:
        """Everything it was sent, verified as any library of the standard does."""
        return [Reader(secret).verify(body, headers) for headers, body in self.got]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Receiver, str]]:
    receiver = Receiver()
    with serving(receiver.app()) as address:
        yield receiver, f"{address}/hook"


@dataclass
class Office:
    """An escrow, a receiver, and a messenger between them. The clock begins now: receivers compare it."""

    scene: Scene
    receiver: Receiver
    url: str
    client: httpx.Client
    later_s: int = 0
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.book = WebhookBook(self.scene.escrow.store)
        self.secret = secret_in_words(self.add("ours"))

    def now(self) -> int:
        return self.started + self.later_s

    def add(self, name: str, url: str = "", **options: Any) -> Any:
        return self.book.add(name, url or self.url, now=self.now(), dangerous_http=True, **options)

    def run(self, **options: Any) -> Told:
        jitter = options.pop("jitter", lambda: 0.5)
        return Messenger(self.scene.escrow, self.client, clock=self.now, jitter=jitter, **options).run()

    def settle(self) -> str:
        hold = self.scene.claimed()
        self.scene.apply(hold, Ruling.RELEASE)
        self.scene.escrow.pump(LedgerRail(), now=START)
        return hold.id


@pytest.fixture(params=DRIVERS)
def office(request: pytest.FixtureRequest, served: tuple[Receiver, str]) -> Iterator[Office]:
    receiver, url = served
    receiver.__init__()  # type: ignore[misc]
    with (
        memory_folder() as folder,
        make_store(request.param, Path(folder)) as store,
        httpx.Client() as client,
    ):
        scene = Scene.create(store)
        yield Office(scene, receiver, url, client)
        assert scene.escrow.audit() == ()
        scene.escrow.close()


def test_every_move_is_told_once_signed_as_the_standard_says(office: Office) -> None:
    hold = office.settle()
    assert office.run() == Told(delivered=4)
    assert office.run() == Told()
    messages = sorted(office.receiver.read(office.secret), key=lambda message: message["data"]["number"])
    assert [message["type"] for message in messages] == [
        *("capture.funded", "capture.claimed", "capture.releasing", "capture.released")
    ]
    assert {message["data"]["hold"] for message in messages} == {hold}
    assert messages[0]["timestamp"] == "2027-01-15T08:00:00Z"
    names = {headers["webhook-id"] for headers, _ in office.receiver.got}
    assert names == {f"msg_test-escrow_{message['data']['number']}" for message in messages}
    [decided] = [m for m in messages if m["data"]["state"] == "releasing"]
    assert decided["data"]["cause"] == office.scene.escrow.hold(hold).capture(0).decisions[0].receipt_digest


def test_a_message_that_was_altered_or_is_another_receivers_does_not_verify(office: Office) -> None:
    office.scene.fund()
    office.run()
    [(headers, body)] = office.receiver.got
    Reader(office.secret).verify(body, headers)
    for changed in (
        (body.replace(b"funded", b"funder"), headers),
        (body, headers | {"webhook-id": "msg_test-escrow_999"}),
        (body, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ):
        with pytest.raises(WebhookVerificationError):
            Reader(office.secret).verify(*changed)
    with pytest.raises(WebhookVerificationError):
        Reader(secret_in_words(office.add("theirs"))).verify(body, headers)


@pytest.mark.parametrize("status", [500, 404, 301, 429])
def test_what_is_not_answered_with_2xx_is_tried_again_under_the_same_name(
    office: Office, status: int
) -> None:
    office.scene.fund()
    office.receiver.script = [status]
    assert office.run() == Told(failed=1)
    assert office.run() == Told()  # not yet
    office.later_s += PAUSES_S[0]
    assert office.run() == Told(delivered=1)
    assert len({headers["webhook-id"] for headers, _ in office.receiver.got}) == 1


def test_a_receiver_that_never_answers_well_gets_its_messages_dead_and_can_have_them_again(
    office: Office,
) -> None:
    office.scene.fund()
    office.receiver.script = [503] * (len(PAUSES_S) + 1)
    outcomes = []
    for pause_s in (*PAUSES_S, 0):
        outcomes.append(office.run())
        office.later_s += pause_s
    assert outcomes == [Told(failed=1)] * len(PAUSES_S) + [Told(dead=1)]
    assert office.run() == Told()
    [letter] = office.book.deliveries(DeliveryStatus.DEAD)
    assert (letter.attempts, letter.answered) == (len(PAUSES_S) + 1, 503)
    office.later_s = 0
    assert office.book.replay("ours", None, now=office.now()) == 1
    assert office.run() == Told(delivered=1)
    assert office.book.replay("ours", [letter.number], now=office.now()) == 1
    assert office.run() == Told(delivered=1)


def test_pauses_are_spread_by_jitter_and_a_receiver_may_ask_for_longer(office: Office) -> None:
    due = []
    for jitter in (0.0, 1.0):
        office.scene.fund()
        office.receiver.script = [500]
        office.run(jitter=lambda jitter=jitter: jitter)
        [delivery, *_] = office.book.deliveries(DeliveryStatus.DUE)
        due.append(delivery.due_at - office.now())
    assert due == [round(PAUSES_S[0] * (1 + sign * JITTER)) for sign in (-1, 1)]
    office.scene.fund()
    office.receiver.script, office.receiver.headers = [429], {"retry-after": "1000"}
    office.run()
    [delivery, *_] = office.book.deliveries(DeliveryStatus.DUE)
    assert delivery.due_at - office.now() == 1_000


def test_gone_is_gone(office: Office) -> None:
    office.scene.fund()
    office.receiver.script = [410]
    assert office.run() == Told(dead=1)


def test_one_that_cannot_be_reached_holds_up_no_other(office: Office) -> None:
    office.add("nobody", "http://127.0.0.1:9/hook")
    office.scene.fund()
    assert office.run() == Told(delivered=1, failed=1)
    [delivery] = office.book.deliveries(DeliveryStatus.DUE)
    assert (delivery.webhook.id, delivery.answered) == ("nobody", None)


class HostileReceiver:
    """Accepts whoever comes, and answers without end: piece after piece, until the other side has enough."""

    def __init__(self, first: bytes, piece: bytes, pause_s: float = 0.0) -> None:
        self._first, self._piece, self._pause_s = first, piece, pause_s
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/hook"
        self.cut_off = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(self._first)
            while True:
                connection.sendall(self._piece)
                time.sleep(self._pause_s)
        self.cut_off.release()


@pytest.mark.parametrize(
    ("first", "piece", "pause_s", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n", 0.02, Told(delivered=1, failed=1)),
        (b"", b"H", 0.02, Told(delivered=1, failed=1)),
        (b"HTTP/1.1 200 OK\r\n", b"x-more: " + b"1" * 4_096 + b"\r\n", 0.0, Told(delivered=1, failed=1)),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"more " * 20_000, 0.0, Told(delivered=2)),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\n\r\n", b"-", 0.02, Told(1, 1)),
    ],
    ids=["header by header", "byte by byte", "endless headers", "endless body", "elsewhere"],
)
def test_a_receiver_that_never_ends_its_answer_is_cut_off(
    office: Office,
    monkeypatch: pytest.MonkeyPatch,
    first: bytes,
    piece: bytes,
    pause_s: float,
    told: Told,
) -> None:
    """It costs an attempt its deadline, and nobody else's messages anything."""
    monkeypatch.setattr(webhooks, "DEADLINE_S", 0.3)
    hostile = HostileReceiver(first, piece, pause_s)
    office.add("hostile", hostile.url)
    office.scene.fund()
    assert office.run() == told
    assert hostile.cut_off.acquire(timeout=30)
    hostile.close()


def test_a_receiver_that_does_not_answer_costs_the_others_one_round(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is due to it, so much is tried as there are threads; the rest waits for the next round."""
    monkeypatch.setattr(webhooks, "DEADLINE_S", 0.1)
    hostile = HostileReceiver(b"", b"H", 0.02)
    office.add("hostile", hostile.url)
    for _ in range(9):
        office.scene.fund()
    assert office.run(threads=2) == Told(delivered=9, failed=2)
    assert len(office.book.deliveries(DeliveryStatus.DUE)) == 9
    hostile.close()


def test_messengers_side_by_side_tell_everything_once(office: Office) -> None:
    for _ in range(12):
        office.scene.fund()
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: office.run(), range(4)))
    assert sum(one.delivered for one in told) == 12
    names = [headers["webhook-id"] for headers, _ in office.receiver.got]
    assert len(set(names)) == len(names) == 12


def test_a_messenger_that_dies_with_a_message_in_hand_leaves_it_to_the_next(office: Office) -> None:
    office.scene.fund()
    office.book.fan_out(now=office.now())
    assert len(office.book.claim(now=office.now(), limit=10)) == 1
    assert office.run() == Told()
    office.later_s += LEASE_S
    assert office.run() == Told(delivered=1)


def test_only_what_comes_after_is_told_unless_the_backlog_is_asked_for(office: Office) -> None:
    office.scene.fund()
    office.book.remove("ours", now=office.now())
    office.scene.fund()
    assert office.run() == Told()
    office.add("later")
    assert office.run() == Told()
    office.book.remove("later", now=office.now())
    office.scene.fund()
    office.add("latest", backlog=True)
    assert office.run() == Told(delivered=1)


def test_names_and_addresses(office: Office) -> None:
    for name, url in (("", "https://a"), ("Big", "https://a"), ("a", "ftp://a"), ("a", "https://a b")):
        with pytest.raises(Misuse):
            office.book.add(name, url, now=0)
    with pytest.raises(Misuse, match="expected https://"):
        office.book.add("plain", "http://example.org", now=0)
    with refused("webhook.exists"):
        office.add("ours")
    with refused("webhook.unknown"):
        office.book.remove("nobody", now=0)
    with refused("webhook.unknown"):
        office.book.replay("nobody", None, now=0)
    with refused("webhook.no_message"):
        office.book.replay("ours", [10**6], now=0)
    assert "secret" not in repr(office.book.all())


def test_the_commands(served: tuple[Receiver, str]) -> None:
    receiver, url = served
    receiver.__init__()  # type: ignore[misc]

    def run(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(main, ["webhook", arguments[0], str(home), *arguments[1:], "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.output)

    with memory_folder() as folder, make_store("sqlite", Path(folder)) as store:
        home = Path(folder)
        scene = Scene.create(store)
        secret = run("add", "ours", url, "--dangerous-http")["secret"]
        scene.fund()
        receiver.script = [500, 410]
        assert run("deliver", code=3) == {"dead": 0, "delivered": 0, "failed": 1}
        assert run("list") == {"webhooks": [{"name": "ours", "url": url}]}
        assert run("replay", "ours", "--message", "1") == {"messages": 1, "name": "ours"}
        assert run("deliver") == {"dead": 1, "delivered": 0, "failed": 0}
        [letter] = run("list", "--dead")["dead"]
        assert (letter["answered"], letter["name"]) == (410, "ours")
        assert run("replay", "ours", "--dead")["messages"] == 1
        assert run("deliver") == {"dead": 0, "delivered": 1, "failed": 0}
        assert len(receiver.read(secret)) == 3
        assert run("remove", "ours") == {"name": "ours"}
        neither = CliRunner().invoke(main, ["webhook", "replay", str(home), "ours"])
        assert neither.exit_code == 2
        scene.escrow.close()
