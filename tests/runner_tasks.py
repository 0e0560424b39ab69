"""Tasks for a worker: good ones, and everything that native code can do to a process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import time

CALLS = 0
REMEMBERED: list[bytes] = []


class Panic(BaseException):
    """What pyo3 raises when Rust panics is no Exception either."""


def echo(*parts: bytes) -> bytes:
    return b"|".join(parts)


def pid() -> bytes:
    return str(os.getpid()).encode()


def count() -> bytes:
    global CALLS
    CALLS += 1
    return b"%d of %d" % (CALLS, os.getpid())


def environment(name: bytes) -> bytes:
    return os.environ.get(name.decode(), "").encode()


def pause(seconds: bytes) -> bytes:
    began = time.monotonic()
    time.sleep(float(seconds))
    return f"{began} {time.monotonic()}".encode()


def hang_with_the_lock(folder: bytes) -> bytes:
    """Sleep in native code without giving the interpreter's lock back, as a proof system may."""
    with open(os.path.join(folder.decode(), "pid"), "w") as file:  # noqa: PTH118, PTH123
        file.write(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)
    return b""


def die(number: bytes) -> bytes:
    os.kill(os.getpid(), int(number))
    return b""


def leave() -> bytes:
    os._exit(7)


def abort() -> bytes:
    os.abort()


def fail(message: bytes) -> bytes:
    raise ValueError(message.decode(errors="surrogateescape"))


def panic() -> bytes:
    raise Panic("a panic")


def end() -> bytes:
    raise SystemExit(3)


def interrupt() -> bytes:
    raise KeyboardInterrupt


def give_no_bytes() -> bytes:
    return 5  # type: ignore[return-value]


def litter(then: bytes) -> bytes:
    """Write a temporary file and leave it lying; gives its path."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"litter")
    if then == b"hang":
        signal.pause()
    return file.name.encode()


def identity(part: bytes) -> bytes:
    return str(id(part)).encode()


def remember(*parts: bytes) -> bytes:
    REMEMBERED.extend(parts)
    return b""


def remembered() -> bytes:
    return b"|".join(REMEMBERED)


def allocate(megabytes: bytes) -> bytes:
    return str(len(bytearray(int(megabytes) * 2**20))).encode()


def limits() -> bytes:
    import resource

    return repr(
        (resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CORE)[0])
    ).encode()


def shout() -> bytes:
    print("shouted", flush=True)
    print("shouted", file=sys.stderr, flush=True)
    return sys.stdin.read().encode() + b"heard nothing"


def take_over(message: bytes, then: bytes) -> bytes:
    """Write to the worker's own socket, as code would that had taken the process over."""
    os.write(int(sys.argv[1]), message)
    if then == b"stay":
        signal.pause()
    os._exit(0)


def drip(every_s: bytes) -> bytes:
    """Send a long answer a byte at a time, by way of the worker's own socket."""
    os.write(int(sys.argv[1]), b"\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x01\x00")
    for _ in range(256):
        time.sleep(float(every_s))
        os.write(int(sys.argv[1]), b"\x00")
    return b""
