"""Opening files that are files: whoever names the things in a folder can make one of them a pipe."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, past links; never wait for a pipe, nor read a device for ever.

    Raises:
        OSError: there is none, or something else.

    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "this is no regular file", os.fspath(path))
    return path.open("rb")
