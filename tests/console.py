"""Runs what our pages and help texts show, and compares what they promise. For whoever writes them:

* A block fenced as ``console`` holds commands and their output. A line that begins with ``$ `` is a command,
  one that begins with ``> `` continues it; the lines below it, up to the next command, are what it must
  print, both streams together. Nothing below it: its output is not compared.
* In expected output ``...`` stands for any text, and on a line of its own for any number of lines. Spaces at
  the ends of lines, and empty lines at the end of the output, do not count.
* A command ends with exit code 0, or says ``# exit 4`` at its end.
* A block fenced as ``python`` is run by an interpreter of its own and must not fail. What a reader needs not
  see goes into a comment right above it, and runs before it: ``<!-- before: … -->``.
* ``<!-- not run: the reason -->`` right above a block leaves it out.
* All blocks of one page run in order in one folder that begins with nothing but copies of ``models/`` and
  ``circuits/``, so that what a command writes is there for the next. Every command has a shell of its own,
  the home is empty, and proving keys are kept between runs in the user's own cache.
* A page that ends with ``<!-- long -->`` runs with ``make test-all`` only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from small_repository import copy_repository

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 300
WIDTH = 110

FENCE = re.compile(
    r"(?:<!-- (?P<word>before|not run):(?P<comment>.*?)-->\n+)?"
    r"^```(?P<language>console|python)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
EXIT = re.compile(r"# exit (\d+)\s*$")


@dataclass(frozen=True)
class Command:
    """One command, the line of the page it stands on, and what it must do."""

    text: str
    line: int
    exit_code: int
    output: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    body: str
    line: int
    before: str = ""
    not_run: str = ""

    def commands(self) -> Iterator[Command]:
        """The commands of a console block."""
        yield from read_commands(self.body, self.line + 1)


def read_blocks(page: str) -> list[Block]:
    """The console and python blocks of a page, in order."""
    return [
        Block(
            language=match["language"],
            body=match["body"],
            line=page.count("\n", 0, match.start("language")) + 1,
            before=match["comment"] if match["word"] == "before" else "",
            not_run=match["comment"].strip() if match["word"] == "not run" else "",
        )
        for match in FENCE.finditer(page)
    ]


def read_commands(body: str, first_line: int = 1) -> Iterator[Command]:
    """The commands of some text, each with the lines below it."""
    text, line, output = "", 0, list[str]()
    for number, content in enumerate([*body.splitlines(), "$ "], first_line):
        if content.startswith("> ") and text and not output:
            text += "\n" + content[2:]
        elif content.startswith("$ "):
            if text:
                code = EXIT.search(text)
                yield Command(text, line, int(code[1]) if code else 0, tuple(output))
            text, line, output = content[2:], number, []
        elif text:
            output.append(content)


class Shell:
    """Runs blocks and commands in one folder, with this environment's commands and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "proofhold"
        home = folder / "home"
        for path in (self.folder, home):
            path.mkdir()
        copy_repository(self.folder)
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path(platformdirs.user_cache_dir("proofhold")).parent)
        self.environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(home),
            "XDG_CACHE_HOME": cache,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "NO_COLOR": "1",
            "COLUMNS": str(WIDTH),
            "TZ": "UTC",
        }

    def run_block(self, block: Block) -> None:
        """Run a block; an `AssertionError` says what went another way than the page says."""
        if block.not_run:
            return
        if block.language == "console":
            for command in block.commands():
                self.run_command(command)
        else:
            code, said = self._run([sys.executable, "-c", f"{block.before.strip()}\n{block.body}"])
            assert code == 0, f"line {block.line}: the python block ended with {code}:\n{said}"

    def run_command(self, command: Command) -> None:
        """Run a command and compare its exit code, and its output where the page shows one."""
        code, said = self._run(["bash", "-c", command.text])
        got = f"line {command.line}: $ {command.text}\nexit code {code}, output:\n{said}"
        assert code == command.exit_code, f"{got}\nexpected exit code {command.exit_code}"
        if command.output:
            assert matches(said, command.output), "\n".join([got, "expected:", *command.output])

    def _run(self, command: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


def matches(said: str, expected: tuple[str, ...]) -> bool:
    """Whether an output is the expected one, in which ``...`` stands for anything."""
    pattern = ""
    for line in "\n".join(expected).rstrip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += re.escape(line.rstrip()).replace(re.escape("..."), ".*?") + "\n"
    stripped = "".join(f"{line.rstrip()}\n" for line in said.rstrip().splitlines())
    return re.fullmatch(pattern, stripped) is not None
