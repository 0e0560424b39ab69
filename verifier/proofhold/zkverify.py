"""The native check of an ezkl proof: a task for a `Runner`, and nothing else.

It stands apart from the backend, which judges, so that a circuit's author can try a first proof with the very
same check.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

VALID, INVALID = b"valid", b"invalid"


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

    with ExitStack() as files:
        paths = [files.enter_context(_as_file(data)) for data in (snark, settings, vk, srs)]
        try:
            # The last argument says that the SRS is a reduced one.
            verified = ezkl.verify(paths[0], paths[1], paths[2], paths[3], True)
        except RuntimeError:
            # The pinned files are good and the proof file parses, so this is ezkl's way to say no.
            return INVALID
    return VALID if verified is True else INVALID


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Give bytes a path for the length of a native call, in memory: nothing is left on a disk."""
    descriptor = os.memfd_create("proofhold")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
