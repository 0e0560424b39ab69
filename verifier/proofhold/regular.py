"""Reading files that are files: whoever names the things in a folder can make one of them a pipe."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path

from proofhold.canonical import Digest


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, past links; never wait for a pipe, nor read a device for ever.

    Raises:
        OSError: there is none, or something else.

    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "this is no regular file", os.fspath(path))
    return path.open("rb")


def digest_of(path: Path) -> Digest:
    """Give the SHA-256 of a regular file, however large: it is never in memory whole.

    Raises:
        OSError: there is none, or something else.

    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
