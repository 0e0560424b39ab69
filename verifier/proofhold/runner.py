"""Where native code runs: in worker processes that may die, hang or run out of memory without harm.

A `Runner` takes a task, which is a module-level function of this library from byte strings to bytes, and
runs it somewhere. `ProcessRunner` keeps a pool of workers, each a fresh interpreter: native code that was
given hostile bytes can abort or hang that process, and the lock that it holds is not ours. Nothing is
pickled on the way, in either direction: a worker that was taken over can send bytes, not objects.

A worker leaves nothing behind. Its temporary files are in a folder that we remove with it, and a pipe that
nobody writes to ties its life to ours (runner_worker.py).
"""

from __future__ import annotations

import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from proofhold.errors import Misuse, ProofholdError
from proofhold.runner_channel import Channel

Task: TypeAlias = Callable[..., bytes]
"""A module-level function of this package that takes byte strings and gives one."""

DEFAULT_DEADLINE_S = 30.0
DEFAULT_MEMORY_BYTES = 4 * 2**30
START_ALLOWANCE_S = 20.0
"""A worker's first task also imports the native library, which may be slow on a cold disk."""
TASKS_PER_WORKER = 1000
"""A worker is replaced after so many tasks: what native code leaks stays bounded."""
KEEP_FREED_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**27), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""For glibc: a worker keeps up to 128 MiB of what its tasks freed. Each check allocates the same again, and a
page that was handed back has to be zeroed and mapped anew: a sixth of the time at k = 16. 32 MiB is the
largest threshold that glibc takes."""
MAX_ANSWER_PARTS = 3
MAX_KEPT = 4096
SENT = -1
"""In place of a kept part's number: the part itself follows."""

OK, RAISED = b"\x00", b"\x01"


class RunnerError(ProofholdError):
    """A task gave no result. Says nothing about the data that it was given."""

    code = "runner.failed"


class WorkerDied(RunnerError):
    """The worker process ended in the middle of a task: aborted, or killed for its memory."""

    code = "runner.died"


class WorkerTimedOut(RunnerError):
    """The task took longer than its deadline; its worker was killed."""

    code = "runner.timeout"


class TaskRaised(RunnerError):
    """The task raised; `kind` is the exception's class name, which is all that crosses the border."""

    code = "runner.raised"

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Runner(Protocol):
    """Runs tasks. Thread-safe."""

    def run(self, task: Task, *parts: bytes, deadline_s: float = DEFAULT_DEADLINE_S) -> bytes:
        """Run `task(*parts)`.

        Raises:
            RunnerError: no result, for whatever reason; its `code` says which.

        """


class InlineRunner:
    """Runs tasks in this very process: for tests of backends, and for nothing that a stranger sent."""

    def run(self, task: Task, *parts: bytes, deadline_s: float = DEFAULT_DEADLINE_S) -> bytes:
        """Run the task here; no deadline can be kept."""
        del deadline_s
        try:
            return task(*parts)
        except BaseException as error:
            # As in a worker: ezkl's panics are BaseExceptions.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise TaskRaised(type(error).__name__, str(error)) from error


class ProcessRunner:
    """A pool of persistent worker processes, started when they are first needed."""

    def __init__(
        self,
        workers: int = 1,
        *,
        memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
        threads: int | None = 1,
        tasks_per_worker: int = TASKS_PER_WORKER,
        kept: Iterable[bytes] = (),
        warm_up: Task | None = None,
    ) -> None:
        """Set the pool up; no process is started yet.

        Args:
            workers: how many tasks may run at once.
            memory_bytes: the address space of each worker, or no limit (a prover needs gigabytes).
            threads: threads that native code may use in a worker, or as many as it likes.
            tasks_per_worker: after how many tasks a worker is replaced.
            kept: byte strings that every worker is given once: a part that equals one is not sent again, and
                is the same object in each task.
            warm_up: what a new worker runs on them before its first task.

        """
        if workers < 1:
            raise Misuse(f"a pool has at least one worker, got {workers}")
        settings = _Settings(
            memory_bytes,
            threads,
            tasks_per_worker,
            {part: number for number, part in enumerate(dict.fromkeys(kept))},
            name_of(warm_up) if warm_up else "",
        )
        if len(settings.kept) > MAX_KEPT:
            raise Misuse(f"{len(settings.kept)} kept parts, expected at most {MAX_KEPT}")
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._taking_all = threading.Lock()
        self._closed = False
        for _ in range(workers):
            self._idle.put(_Worker(settings))
        self._workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start and warm up every worker now, side by side, so that no task waits for it.

        Raises:
            RunnerError: a worker did not come up.

        """
        with self._all_workers() as workers, ThreadPoolExecutor(len(workers)) as threads:
            self._check_open()
            list(threads.map(lambda worker: worker.run(name_of(ready), (), START_ALLOWANCE_S), workers))

    def run(self, task: Task, *parts: bytes, deadline_s: float = DEFAULT_DEADLINE_S) -> bytes:
        """Run the task in a worker, waiting for an idle one."""
        name = name_of(task)
        worker = self._idle.get()
        try:
            # Only now: it may have been closed while we waited, and nothing is to start after that.
            self._check_open()
            return worker.run(name, parts, deadline_s)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the workers, after the tasks that still run."""
        self._closed = True
        with self._all_workers() as workers:
            for worker in workers:
                worker.stop()

    @contextmanager
    def _all_workers(self) -> Iterator[list[_Worker]]:
        """Take every worker, waiting for those that work; nobody else takes some and waits for the rest."""
        with self._taking_all:
            workers = [self._idle.get() for _ in range(self._workers)]
            try:
                yield workers
            finally:
                for worker in workers:
                    self._idle.put(worker)

    def _check_open(self) -> None:
        if self._closed:
            raise Misuse("this runner is closed")


def ready() -> bytes:
    """Do nothing: the task whose answer says that a worker is up."""
    return b""


@dataclass(frozen=True)
class _Settings:
    """What the workers of one pool have in common."""

    memory_bytes: int | None
    threads: int | None
    tasks: int
    kept: Mapping[bytes, int]
    warm_up: str


class _Worker:
    """One process and the channel to it. Used by one thread at a time."""

    def __init__(self, settings: _Settings) -> None:
        self._settings = settings
        self._left = 0
        self._is_warm = False
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._lifeline: int | None = None
        self._remove_folder: Callable[[], object] = lambda: None

    def run(self, name: str, parts: tuple[bytes, ...], deadline_s: float) -> bytes:
        channel = self._channel
        if channel is None or self._left == 0 or self._has_ended():
            self.stop()
            channel = self._start()
            deadline_s += START_ALLOWANCE_S
        self._left -= 1
        by, finished = time.monotonic() + deadline_s, False
        try:
            if not self._is_warm:
                channel.send(self._settings.warm_up.encode(), *self._settings.kept, by=by)
                self._is_warm = True
            numbers = [self._settings.kept.get(part, SENT) for part in parts]
            sent = [part for part, number in zip(parts, numbers, strict=True) if number == SENT]
            channel.send(name.encode(), " ".join(map(str, numbers)).encode(), *sent, by=by)
            status, *values = channel.receive(max_parts=MAX_ANSWER_PARTS, by=by)
            expected = {OK: 1, RAISED: 2}.get(status)
            if len(values) != expected:
                raise ValueError("not an answer")
            finished = True
        except TimeoutError as error:
            raise WorkerTimedOut(f"no result within {deadline_s:g} s") from error
        except (EOFError, OSError, ValueError) as error:
            raise WorkerDied(f"the worker ended or spoke nonsense ({self._exit_status()})") from error
        finally:
            # Also on KeyboardInterrupt: a worker with half a task in it would answer the next one wrongly.
            if not finished:
                self.stop()
        if status == OK:
            return values[0]
        raise TaskRaised(*(value.decode(errors="replace") for value in values))

    def stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._lifeline is not None:
            os.close(self._lifeline)
        self._remove_folder()
        self._channel = self._process = self._lifeline = None

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _start(self) -> Channel:
        try:
            folder = tempfile.mkdtemp(prefix="proofhold-worker-")
            # Also when this process ends without having closed its pools.
            self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._channel = channel = self._spawn(folder)
        except OSError as error:
            self.stop()
            raise WorkerDied(f"no worker could be started: {error.strerror}") from error
        self._left, self._is_warm = self._settings.tasks, False
        return channel

    def _spawn(self, folder: str) -> Channel:
        ours, theirs = socket.socketpair()
        reading, self._lifeline = os.pipe()
        environment = dict(os.environ) | {"TMPDIR": folder} | KEEP_FREED_MEMORY
        if (threads := self._settings.threads) is not None:
            environment |= {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        # A new interpreter, not a fork (ezkl's threads do not survive one) and not multiprocessing's spawn,
        # which would run the caller's main module again: a hook must work from any script.
        command = [sys.executable, "-P", "-m", "proofhold.runner_worker"]
        command += [str(number) for number in (theirs.fileno(), reading, self._settings.memory_bytes or 0)]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno(), reading],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(reading)
        return Channel(ours)

    def _exit_status(self) -> str:
        if self._process is None:
            return "never started"
        try:
            return f"exit status {self._process.wait(timeout=1)}"
        except subprocess.TimeoutExpired:
            return "still running"


def name_of(task: Task) -> str:
    """Give the name by which another process finds a task.

    Raises:
        Misuse: it is no module-level function.

    """
    module, name = task.__module__, task.__qualname__
    if "." in name or "<" in name:
        raise Misuse(f"a task is a module-level function, got {module}.{name}")
    return f"{module}:{name}"


__all__ = [
    "InlineRunner",
    "ProcessRunner",
    "Runner",
    "RunnerError",
    "TaskRaised",
    "WorkerDied",
    "WorkerTimedOut",
]
