"""As much of ASGI as a gate needs: read a request whole, record a response whole, and send one."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from proofhold import canonical
from proofhold.canonical import Json
from proofhold.records import Record

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEADERS = 256
MAX_HEADER_CHARS = 16_384
MAX_RECORDED_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Recorded:
    """A response, whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def of_json(cls, status: int, content: Json, headers: Mapping[str, str]) -> Recorded:
        """Make a response of a JSON document."""
        body = canonical.encode(content)
        return cls(status, (("content-type", "application/json"), *headers.items()), body)

    def encode(self) -> bytes:
        """Write it down, as canonical JSON."""
        body = base64.b64encode(self.body).decode()
        headers = [list(pair) for pair in self.headers]
        return canonical.encode({"body": body, "headers": headers, "status": self.status, "version": 1})

    @classmethod
    def decode(cls, data: bytes) -> Recorded:
        """Read what was written down.

        Raises:
            Malformed: it is something else.

        """
        value = canonical.decode(data, max_bytes=MAX_RECORDED_BYTES, what="answer")
        record = Record(value, what="answer")
        record.version(1)
        pairs = record.items("headers", max_items=MAX_HEADERS)
        body = record.base64("body", max_bytes=MAX_RECORDED_BYTES)
        status = record.integer("status", low=100, high=599)
        record.close()
        return cls(status, tuple((str(name), str(value)) for name, value in pairs), body)

    async def send(self, send: Send) -> None:
        """Send it."""
        lengthless = [(n, v) for n, v in self.headers if n not in ("content-length", "transfer-encoding")]
        headers = [*lengthless, ("content-length", str(len(self.body)))]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def header(scope: Scope, name: bytes) -> str | None:
    """Give a header of a request, or None."""
    for key, value in scope["headers"]:
        if key.lower() == name:
            return bytes(value).decode("latin-1")
    return None


async def read_body(receive: Receive, max_bytes: int) -> bytes | None:
    """Read a request's body whole, or give None if it is longer than that or its sender went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > max_bytes:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def record(app: App, scope: Scope, request: bytes, max_bytes: int) -> Recorded | None:
    """Run an application on a request and record what it answers, or give None if that is longer."""
    given = [request]

    async def receive() -> Any:
        if given:
            return {"type": "http.request", "body": given.pop(), "more_body": False}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        del message

    watched = Watched(receive, send, max_bytes)
    await app(scope, watched.receive, watched.send)
    return watched.answer()


class Watched:
    """A connection that lets everything through and remembers it, up to a bound each way."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int) -> None:
        self.request = bytearray()
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        self._start: Any = None
        self._body = bytearray()
        self._length = 0

    async def receive(self) -> Any:
        """Pass on a message of the client."""
        message = await self._receive()
        if message["type"] == "http.request" and len(self.request) <= self._max_bytes:
            self.request += message.get("body", b"")
        return message

    async def send(self, message: Any) -> None:
        """Pass on a message of the application."""
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            chunk = message.get("body", b"")
            self._length += len(chunk)
            if self._length <= self._max_bytes:
                self._body += chunk
        await self._send(message)

    def answer(self) -> Recorded | None:
        """Give what was answered, or None if there was no answer or it is longer than the bound."""
        if self._start is None or self._length > self._max_bytes:
            return None
        pairs = self._start.get("headers", ())
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in pairs)
        return Recorded(self._start["status"], headers, bytes(self._body))
