"""A deadline for a whole HTTP request, which timeouts are not: they begin anew with every byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any, Self


class Deadline:
    """Cuts the connection of one request off when its time is over; the request then fails like a lost one.

    Hand `trace` to httpx as the request's extension ``trace``, and see to it that the request gets a
    connection of its own (``connection: close``).
    """

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._cut_off)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._is_over = False
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for handle in self._sockets:
                handle.close()
            self._sockets.clear()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Take note of the connection as soon as there is one, before anybody speaks TLS on it."""
        if not event.endswith("connect_tcp.complete"):
            return
        connected = info["return_value"].get_extra_info("socket")
        with self._lock:
            # A handle of our own: wrapping a socket in TLS takes the other one away.
            self._sockets.append(connected.dup())
            if self._is_over:
                self._shut_down()

    def _cut_off(self) -> None:
        with self._lock:
            self._is_over = True
            self._shut_down()

    def _shut_down(self) -> None:
        for handle in self._sockets:
            with contextlib.suppress(OSError):  # it was closed by the other side
                handle.shutdown(socket.SHUT_RDWR)
