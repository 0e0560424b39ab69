"""The native check of an ezkl proof: a task for a `Runner`, and nothing else.

It stands apart from the backend, which judges, so that a circuit's author can try a first proof with the very
same check.
"""

from __future__ import annotations

import fcntl
import functools
import io
import os

VALID, INVALID = b"valid", b"invalid"

MAX_PINNED_FILES = 3 * 64
"""A worker holds so many files open: settings, verifying key and SRS of 64 circuits."""


def verify_natively(snark: bytes, settings: bytes, vk: bytes, srs: bytes) -> bytes:
    """Check a proof with ezkl: a task for a `Runner`.

    Args:
        snark: ezkl's proof file, of nothing but the fields ``instances`` and ``proof``.
        settings: ezkl's settings file, as pinned.
        vk: the verifying key, as pinned.
        srs: the 516-byte cut of the SRS, as pinned.

    Returns:
        `VALID` or `INVALID`. Anything that ezkl raises but RuntimeError, its panics included, goes through.

    """
    import ezkl

    pinned = [_pinned_file(data) for data in (settings, vk, srs)]
    with _in_memory(snark) as proof:
        paths = [_path(file) for file in (proof, *pinned)]
        try:
            # The last argument says that the SRS is a reduced one.
            verified = ezkl.verify(paths[0], paths[1], paths[2], paths[3], True)
        except RuntimeError:
            # The pinned files are good and the proof file parses, so this is ezkl's way to say no.
            return INVALID
    return VALID if verified is True else INVALID


def prepare(*pinned: bytes) -> bytes:
    """Load ezkl, and hold pinned files open for the checks to come: what a worker warms up with."""
    import ezkl  # noqa: F401

    for data in pinned[:MAX_PINNED_FILES]:
        _pinned_file(data)
    return b""


@functools.lru_cache(MAX_PINNED_FILES)
def _pinned_file(data: bytes) -> io.BufferedRandom:
    """Keep a pinned file open from check to check, by its content; it closes when it is forgotten."""
    return _in_memory(data)


def _in_memory(data: bytes) -> io.BufferedRandom:
    """Give bytes a path, in memory: nothing is left on a disk. Nobody can change them any more."""
    file = os.fdopen(os.memfd_create("proofhold", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    file.write(data)
    file.flush()
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file


def _path(file: io.BufferedRandom) -> str:
    return f"/proc/self/fd/{file.fileno()}"
