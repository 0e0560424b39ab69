"""The group-commit writer: one thread that writes for all, and one commit for whoever waits at that moment.

A commit costs a flush of the disk however much it holds. So callers hand their operations in and wait; the
writer takes all that are there, runs each by itself, commits once, and only then answers. Callers are
threads, which block, or event loops, which hold a future; at most `MAX_WAITING` operations wait at a time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from proofhold.errors import Misuse
from proofhold.escrow.driver import BUSY_TIMEOUT_S, Operation
from proofhold.escrow.refusals import Refused

T = TypeVar("T")

MAX_BATCH = 1024
"""How many operations one commit takes: more, and the first of them waits for long."""
MAX_WAITING = 8 * MAX_BATCH
"""The bound of the back-pressure: whoever comes when so many wait is held up, then refused."""
GATHER_S = 0.005
"""How long the writer waits for those whom its last commit has answered: they are likely to come again."""
IDLE_S = 1.0
"""How long the thread stays when nothing is to be done. It starts again by itself."""


@dataclass(slots=True)
class Task:
    """One operation that waits for its commit."""

    operation: Operation[Any]
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: BaseException | None = None

    def answer(self) -> None:
        """Tell the caller, who may have given up."""
        if self.future.set_running_or_notify_cancel():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class GroupWriter:
    """Gathers operations and commits them together. Thread-safe."""

    def __init__(self, commit: Callable[[Sequence[Task]], None], *, max_waiting: int = MAX_WAITING) -> None:
        """Make a writer; its thread starts with the first operation.

        Args:
            commit: runs tasks, each undone by itself if it raises, and makes the rest durable; leaves in
                each task its result or its error, and raises only if none of them is durable.
            max_waiting: the bound of the back-pressure.

        """
        self._commit = commit
        self._max_waiting = max_waiting
        self._waiting: deque[Task] = deque()
        self._changed = threading.Condition()
        self._room = threading.Condition(self._changed._lock)  # type: ignore[attr-defined]
        self._thread: threading.Thread | None = None
        self._closed = False
        self.commits = 0
        """How many commits were made: for benchmarks and tests."""
        self.operations = 0
        """How many operations were in them."""

    def submit(self, operation: Operation[T], *, timeout_s: float | None = None) -> Future[T]:
        """Hand an operation in.

        Args:
            operation: what is to be done.
            timeout_s: how long to wait for room; as long as for a busy database if left out. An event loop
                gives 0.

        Raises:
            Refused: ``escrow.busy``, too many wait already.
            Misuse: the writer is closed.

        """
        task, deadline = (
            Task(operation),
            time.monotonic() + (BUSY_TIMEOUT_S if timeout_s is None else timeout_s),
        )
        with self._changed:
            while len(self._waiting) >= self._max_waiting and not self._closed:
                if not self._room.wait(deadline - time.monotonic()):
                    text = f"{self._max_waiting} operations wait for the escrow already: try again"
                    raise Refused("escrow.busy", text)
            if self._closed:
                raise Misuse("this escrow is closed")
            self._waiting.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="escrow-writer", daemon=True)
                self._thread.start()
            self._changed.notify()
        return task.future

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._room.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        expected = 1
        while batch := self._take(expected):
            try:
                self._commit(batch)
            except BaseException as error:  # noqa: BLE001
                for task in batch:
                    task.error = error
            self.commits += 1
            self.operations += len(batch)
            for task in batch:
                task.answer()
            expected = len(batch)

    def _take(self, expected: int) -> list[Task]:
        """Take what is to be committed next; nothing ends the thread."""
        with self._changed:
            while not self._waiting:
                if self._closed or not self._changed.wait(IDLE_S):
                    if self._waiting:
                        break
                    self._thread = None
                    return []
            deadline = time.monotonic() + GATHER_S
            while len(self._waiting) < min(expected, MAX_BATCH):
                if self._closed or not self._changed.wait(deadline - time.monotonic()):
                    break
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            self._room.notify_all()
            return batch
