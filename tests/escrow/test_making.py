"""An escrow is there whole, or not at all: whoever is killed while making one can make it again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgserver import running_server
from proofhold.errors import Misuse
from proofhold.escrow import SqliteEscrow, open_home
from proofhold.escrow.home import create_home
from stores import DRIVERS

KILLED_BEFORE_THE_END = """
import os, sys
from proofhold.escrow import desk, postgres, sqlite
from proofhold.escrow.home import create_home

establish = desk.establish

def establish_and_die(tx, **terms):
    establish(tx, **terms)
    os.kill(os.getpid(), 9)

sqlite.establish = postgres.establish = establish_and_die
create_home(sys.argv[1], escrow="test-escrow")
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_whoever_is_killed_while_making_an_escrow_leaves_none(driver: str, tmp_path: Path) -> None:
    if driver == "sqlite":
        make_and_be_killed(str(tmp_path / "home"))
    else:
        with running_server() as server:
            make_and_be_killed(server.make_schema())


def make_and_be_killed(home: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_END, home], check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(Misuse, match="init"):
        open_home(home)
    create_home(home, escrow="test-escrow").close()
    with open_home(home) as escrow:
        assert escrow.id == "test-escrow"


def test_an_escrow_is_not_made_over_another(tmp_path: Path) -> None:
    path = tmp_path / "escrow.db"
    SqliteEscrow.create(path, escrow="first").close()
    with pytest.raises(Misuse, match="exists"):
        SqliteEscrow.create(path, escrow="second")
    with SqliteEscrow.open(path) as escrow:
        assert escrow.id == "first"
    assert [child.name for child in tmp_path.iterdir()] == ["escrow.db"]
    assert path.stat().st_mode & 0o777 == 0o600
