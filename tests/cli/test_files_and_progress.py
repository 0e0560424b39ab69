"""Files are written whole or not at all; what takes long is told, and counted where there is a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proofhold.errors import Misuse
from proofhold_cli.files import write_file
from proofhold_cli.progress import steps

STEPS = """
import time
from proofhold_cli.progress import steps
with steps() as on_step:
    on_step("proving [bold]\\x1b[2J (about 1 s)")
    time.sleep(1.2)
    on_step("a moment")
"""


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_file(path, b"one")
    path.chmod(0o600)
    write_file(path, b"two")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_file(tmp_path / "link", b"one")
    assert (tmp_path / "target").read_bytes() == b"one"
    assert (tmp_path / "link").is_symlink()


def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"before")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Misuse, match="No space left"):
        write_file(path, b"after")
    monkeypatch.undo()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(Misuse, match="cannot write"):
        write_file(tmp_path / "no" / "such" / "folder", b"")


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_file(path, b"through")
    reader.join(10)
    assert read == [b"through"]
    assert path.is_fifo()


def test_a_step_is_told_with_its_time_when_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    with steps() as on_step:
        on_step("quick")
        on_step("one\nline")
        threading.Event().wait(0.25)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("   one\\nline: 0.")
    assert said.err.count("\n") == 1


def test_a_terminal_sees_the_time_pass_and_nothing_of_a_strangers(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", STEPS], stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # what Linux says when the other side has closed
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    assert process.wait(30) == 0
    text = said.decode()
    assert "proving [bold]\\x1b[2J (about 1 s)" in text
    assert "0:00:01" in text
    assert "\x1b[2J" not in text
    assert "(about 1 s): 1." in text
