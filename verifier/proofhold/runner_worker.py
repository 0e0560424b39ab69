"""The worker's end of a `ProcessRunner`: ``python -m proofhold.runner_worker DESCRIPTOR MEMORY_BYTES``.

Reads tasks from the pipe until it closes. The process limits itself before it touches any native code.
"""

from __future__ import annotations

import importlib
import signal
import sys
from multiprocessing.connection import Connection

from proofhold.runner import OK, RAISED, receive_parts, send_parts

MAX_ERROR_CHARS = 500
ALARM_GRACE_S = 5


def limit_resources(memory_bytes: int) -> None:
    """Bound the address space, and leave no core dump with somebody's data in it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def serve(pipe: Connection[bytes, bytes]) -> None:
    """Run tasks until the other side closes the pipe."""
    while True:
        try:
            name, deadline_s, *parts = receive_parts(pipe)
        except (EOFError, OSError):
            return
        # If the parent dies it cannot kill us: the kernel's alarm ends even a hung native call.
        signal.alarm(int(float(deadline_s)) + ALARM_GRACE_S)
        module, _, function = name.decode().partition(":")
        result: tuple[bytes, ...]
        try:
            result = (OK, getattr(importlib.import_module(module), function)(*parts))
        except BaseException as error:  # noqa: BLE001 - a panic of native code is no Exception
            kind, message = type(error).__name__, str(error)[:MAX_ERROR_CHARS]
            result = (RAISED, kind.encode(), message.encode(errors="replace"))
        signal.alarm(0)
        send_parts(pipe, *result)


if __name__ == "__main__":
    limit_resources(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
