"""The worker's end of a `ProcessRunner`: ``python -m proofhold.runner_worker SOCKET LIFELINE MEMORY_BYTES``.

Takes tasks from the socket until it closes. The process limits itself before it touches any native code.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
import socket
import sys

from proofhold.runner import MAX_KEPT, OK, RAISED, SENT, Task
from proofhold.runner_channel import Channel

MAX_ERROR_CHARS = 500


def end_with_our_parent(lifeline: int) -> None:
    """Have the kernel kill us when the other end of a pipe is closed, whatever native code does meanwhile.

    The parent writes nothing to it and keeps it open: it closes when the parent ends, in whatever way. A
    parent-death signal would come when the *thread* that started us ends, which may be soon.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    # Ctrl-C reaches every process of a terminal: whether a task is to end is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def limit_resources(memory_bytes: int) -> None:
    """Bound the address space, and leave no core dump with somebody's data in it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def serve(channel: Channel) -> None:
    """Run tasks until the other side is gone."""
    try:
        warm_up, *kept = channel.receive(max_parts=1 + MAX_KEPT)
        if warm_up:
            _task(warm_up)(*kept)
        while True:
            name, numbers, *sent = channel.receive()
            following = iter(sent)
            parts = [
                next(following) if number == SENT else kept[number] for number in map(int, numbers.split())
            ]
            channel.send(*_result(name, parts))
    except (EOFError, OSError):
        return


def _result(name: bytes, parts: list[bytes]) -> tuple[bytes, ...]:
    try:
        return OK, _task(name)(*parts)
    except BaseException as error:  # noqa: BLE001 - a panic of native code is no Exception
        kind, message = type(error).__name__, str(error)[:MAX_ERROR_CHARS]
        return RAISED, kind.encode(), message.encode(errors="replace")


def _task(name: bytes) -> Task:
    module, _, function = name.decode().partition(":")
    task: Task = getattr(importlib.import_module(module), function)
    return task


if __name__ == "__main__":
    end_with_our_parent(int(sys.argv[2]))
    limit_resources(int(sys.argv[3]))
    serve(Channel(socket.socket(fileno=int(sys.argv[1]))))
