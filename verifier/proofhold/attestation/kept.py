"""Documents that were checked once and hold for a while: attestation once, responses many.

What is kept is a pure function of the bytes that name it and holds from one instant until another, both
included; outside of these, and for other bytes, it is as if it had never been kept. Only good answers are
kept: a refusal costs its sender no less the second time.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Checked = TypeVar("Checked")

MAX_KEPT: Final = 64
"""A service has a handful of enclaves, and each a document a day."""


class Kept(Generic[Checked]):
    """A bounded memory of checks; threads may share it."""

    def __init__(self, window: Callable[[Checked], tuple[int, int]], *, most: int = MAX_KEPT) -> None:
        """`window` says from when until when a check holds, in unix seconds."""
        self._window = window
        self._most = most
        self._checks: OrderedDict[bytes, Checked] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._checks)

    def get(self, *parts: bytes, now: int, check: Callable[[], Checked]) -> Checked:
        """Give what a check of these bytes gives at `now`: kept, or made by `check`, whose errors pass."""
        name = self._name(parts)
        with self._lock:
            found = self._checks.get(name)
            if found is not None:
                self._checks.move_to_end(name)
        if found is not None:
            since, until = self._window(found)
            if since <= now <= until:
                return found
        made = check()
        with self._lock:
            self._checks[name] = made
            self._checks.move_to_end(name)
            while len(self._checks) > self._most:
                self._checks.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._checks.clear()

    @staticmethod
    def _name(parts: tuple[bytes, ...]) -> bytes:
        """Digests of fixed length, one after the other: no two lists of parts share a name."""
        return b"".join(hashlib.sha256(part).digest() for part in parts)
