"""What a runner and its worker speak: messages of byte strings over a socket, whole by a deadline or not.

The other side may have been taken over. It can send wrong bytes, few or many, and stop anywhere: sizes are
bounded, and the deadline is that of the whole exchange, however slowly it drips.

A message is the number of its parts, the length of each (all 4 bytes, big-endian), and the parts.
"""

from __future__ import annotations

import socket
import struct
import time

MAX_PARTS = 128
MAX_MESSAGE_BYTES = 512 * 2**20
_CHUNK_BYTES = 2**20


class Channel:
    """One end. Without a deadline (monotonic seconds) it waits for ever, as a worker does.

    Both methods raise TimeoutError at the deadline, and another OSError or EOFError when the other side is
    gone.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send(self, *parts: bytes, by: float | None = None) -> None:
        """Send a message."""
        header = struct.pack(f"!{1 + len(parts)}I", len(parts), *map(len, parts))
        self._wait_until(by)
        self._end.sendall(b"".join((header, *parts)))

    def receive(self, *, max_parts: int = MAX_PARTS, by: float | None = None) -> list[bytes]:
        """Receive a message of one part or more.

        Raises:
            ValueError: too many parts or bytes.

        """
        (count,) = struct.unpack("!I", self._read(4, by))
        if not 0 < count <= max_parts:
            raise ValueError(f"{count} parts, expected 1 to {max_parts}")
        lengths = struct.unpack(f"!{count}I", self._read(4 * count, by))
        if sum(lengths) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{sum(lengths)} bytes, expected at most {MAX_MESSAGE_BYTES}")
        return [self._read(length, by) for length in lengths]

    def _read(self, size: int, by: float | None) -> bytes:
        chunks = []
        while size > 0:
            self._wait_until(by)
            chunk = self._end.recv(min(size, _CHUNK_BYTES))
            if not chunk:
                raise EOFError("the other side is gone")
            chunks.append(chunk)
            size -= len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _wait_until(self, by: float | None) -> None:
        """Let the next call on the socket take until then."""
        if by is not None:
            left_s = by - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._end.settimeout(left_s)
