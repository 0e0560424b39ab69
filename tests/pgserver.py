"""A PostgreSQL server of our own for tests: in a folder of its own, on a Unix socket, gone when we are.

`initdb` refuses to run as root, so a root's server runs as the first unprivileged user of a few. Tests skip,
with how to change that, where there is no PostgreSQL 15 or later.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

LEAST_VERSION = 15
USERS = ("postgres", "nobody")
START_S = 60.0


def find_binaries() -> Path | None:
    """Find the folder of the newest server's programs."""
    folders = [Path(found).parent for found in [shutil.which("initdb")] if found]
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    folders += Path("/usr/local/opt").glob("postgresql@*/bin")
    found = [(version, folder) for folder in folders if (version := _version(folder)) >= LEAST_VERSION]
    return max(found)[1] if found else None


def require_binaries() -> Path:
    """Give the folder, or skip the test that asks."""
    folder = find_binaries()
    if folder is None:
        pytest.skip("no PostgreSQL 15 or later here: apt-get install postgresql")
    return folder


@dataclass
class Server:
    """A running server. `durable` ones flush to the disk, as in production; the others are faster."""

    folder: Path
    binaries: Path
    durable: bool
    process: subprocess.Popen[bytes] | None = None
    schemas: int = field(default=0)

    @property
    def url(self) -> str:
        """Where libpq finds it."""
        return f"host={self.folder} port=5432 user=tester dbname=postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ["listen_addresses=", f"unix_socket_directories={self.folder}", "max_connections=200"]
        settings += ["shared_buffers=64MB", "autovacuum=on", "logging_collector=off"]
        if not self.durable:
            settings += ["fsync=off", "full_page_writes=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **_as_somebody_else(),
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill every process of it with SIGKILL, as a power failure would (the disk's cache apart)."""
        if self.process is None:
            return
        # The others notice by themselves that the postmaster is gone; nobody may start a new one before.
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        for pid in [self.process.pid, *map(int, children.stdout.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """Stop it, and remove what it left."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_schema(self) -> str:
        """Make an empty schema, and give the address of a database that begins there."""
        self.schemas += 1
        name = f"s{os.getpid()}_{self.schemas}"
        self.run(f"CREATE SCHEMA {name}")
        return f"{self.url} options=-csearch_path={name}"

    def run(self, sql: str, url: str | None = None) -> None:
        """Run statements."""
        import psycopg

        with psycopg.connect(url or self.url, autocommit=True) as connection:
            connection.execute(sql.encode())

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def make_server(*, durable: bool) -> Server:
    """Make a server in a folder of its own, and start it."""
    binaries = require_binaries()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if user := _somebody_else():
        os.chown(folder, user.pw_uid, user.pw_gid)
    command = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "tester", "-A", "trust"]
    command += ["-E", "UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, **_as_somebody_else())
    if made.returncode:
        raise RuntimeError(f"initdb: {made.stderr[-2000:]}")
    server = Server(folder, binaries, durable)
    server.start()
    return server


@lru_cache(maxsize=1)
def shared_server() -> Server:
    """The server that the tests of one process share."""
    server = make_server(durable=False)
    atexit.register(server.stop)
    return server


@contextlib.contextmanager
def running_server(*, durable: bool = True) -> Iterator[Server]:
    """A server for one test alone."""
    server = make_server(durable=durable)
    try:
        yield server
    finally:
        server.stop()


def _version(folder: Path) -> int:
    try:
        said = subprocess.run(
            [str(folder / "postgres"), "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 0
    found = re.search(r"(\d+)", said.stdout)
    return int(found[1]) if found else 0


def _somebody_else() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("a server does not run as root, and there is no other user")


def _as_somebody_else() -> dict[str, Any]:
    user = _somebody_else()
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
