"""Native code on a Ray cluster: the same tasks, each in a process of its own behind an actor on some node.

The actor is ours and holds a `ProcessRunner`: what a task does to its process, an abort, a hang, memory
without end, it does to that process, as it would here. Ray carries names and byte strings, never objects of
ours, so that every node must have this version of the library, and is asked.
"""

from __future__ import annotations

import importlib
import queue
import threading
from types import TracebackType
from typing import Any, Self

from proofhold.errors import Misuse
from proofhold.runner import (
    DEFAULT_DEADLINE_S,
    DEFAULT_MEMORY_BYTES,
    START_ALLOWANCE_S,
    ProcessRunner,
    Runner,
    RunnerError,
    Task,
    TaskRaised,
    WorkerDied,
    WorkerTimedOut,
    name_of,
)
from proofhold.version import __version__

NAMESPACE = "proofhold"
CARRIAGE_S = 30.0
"""How long the way there and back may take beside the task: a node may have to be started."""

_ERRORS = {error.code: error for error in (WorkerDied, WorkerTimedOut, RunnerError)}


class RayRunner:
    """Runs tasks on a cluster. Thread-safe; so many tasks at once as there are workers."""

    def __init__(
        self, address: str, workers: int = 1, *, memory_bytes: int | None = DEFAULT_MEMORY_BYTES
    ) -> None:
        """Connect; the workers start with their first task, wherever the cluster has a core for them.

        Args:
            address: ``ray://HOST:PORT``; or ``ray://`` for the cluster of this machine.
            workers: how many tasks may run at once, each on a core of its own.
            memory_bytes: the address space of each task's process.

        Raises:
            Misuse: Ray is missing, or there is no cluster at this address.

        """
        if workers < 1:
            raise Misuse(f"a pool has at least one worker, got {workers}")
        try:
            import ray
        except ImportError as error:
            raise Misuse("a Ray cluster needs Ray: pip install 'proofhold[ray]'") from error
        where = "auto" if address == "ray://" else address
        try:
            ray.init(where, namespace=NAMESPACE, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, RuntimeError) as error:
            raise Misuse(f"no Ray cluster at {address}: {error}") from error
        self._ray, self._memory_bytes, self._workers = ray, memory_bytes, workers
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._closed = threading.Event()
        for _ in range(workers):
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, task: Task, *parts: bytes, deadline_s: float = DEFAULT_DEADLINE_S) -> bytes:
        """Run the task on some node: see `Runner`."""
        if self._closed.is_set():
            raise Misuse("this runner is closed")
        actor = self._idle.get()
        try:
            actor = actor or self._start()
            return self._run(actor, name_of(task), parts, deadline_s)
        except (WorkerDied, WorkerTimedOut):
            # The node or its actor may be gone: whoever comes next gets another one.
            if actor is not None:
                self._ray.kill(actor)
            actor = None
            raise
        finally:
            self._idle.put(actor)

    def nodes(self) -> list[str]:
        """Give the node of each worker that was started."""
        actors = [self._idle.get() for _ in range(self._workers)]
        for actor in actors:
            self._idle.put(actor)
        return [self._ray.get(actor.node.remote()) for actor in actors if actor is not None]

    def close(self) -> None:
        """End the workers, after the tasks that still run; the cluster stays."""
        self._closed.set()
        for _ in range(self._workers):
            actor = self._idle.get()
            if actor is not None:
                self._ray.kill(actor)
            self._idle.put(None)

    def _start(self) -> Any:
        remote = self._ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(_Checker)
        actor = remote.remote(self._memory_bytes)
        try:
            version = self._ray.get(actor.version.remote(), timeout=CARRIAGE_S)
        except self._ray.exceptions.RayError as error:
            raise WorkerDied(f"no worker could be started on the cluster: {error}") from error
        if version != __version__:
            raise Misuse(f"a node has proofhold {version}, expected {__version__}")
        return actor

    def _run(self, actor: Any, name: str, parts: tuple[bytes, ...], deadline_s: float) -> bytes:
        errors, allowed_s = self._ray.exceptions, deadline_s + START_ALLOWANCE_S + CARRIAGE_S
        try:
            result = self._ray.get(actor.run.remote(name, parts, deadline_s), timeout=allowed_s)
        except errors.GetTimeoutError as error:
            raise WorkerTimedOut(f"no result within {allowed_s:g} s") from error
        except errors.RayError as error:
            raise WorkerDied(f"the worker's node gave up: {type(error).__name__}") from error
        code, kind, value = result
        if code == "ok":
            return bytes(value)
        if code == TaskRaised.code:
            raise TaskRaised(kind, value.decode(errors="replace"))
        raise _ERRORS.get(code, RunnerError)(value.decode(errors="replace"))


class _Checker:
    """Lives on a node: takes the name of a task, runs it in a process, and gives bytes and codes."""

    def __init__(self, memory_bytes: int | None) -> None:
        self._runner: Runner = ProcessRunner(1, memory_bytes=memory_bytes)

    def version(self) -> str:
        return __version__

    def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, name: str, parts: tuple[bytes, ...], deadline_s: float) -> tuple[str, str, bytes]:
        try:
            module, function = name.split(":")
            task: Task = getattr(importlib.import_module(module), function)
            return "ok", "", self._runner.run(task, *parts, deadline_s=deadline_s)
        except TaskRaised as error:
            return error.code, error.kind, str(error).removeprefix(f"{error.kind}: ").encode()
        except RunnerError as error:
            return error.code, "", str(error).encode()


__all__ = ["RayRunner"]
