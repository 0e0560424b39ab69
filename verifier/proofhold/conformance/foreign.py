"""Asks another program, line by line (docs/formats/conformance.md, "The protocol").

The program is started once. For each case it is given one line of JSON and writes one line of JSON. It is
its user's own program, not a stranger's: what is guarded against is one that hangs, dies or babbles.
"""

from __future__ import annotations

import base64
import json
import queue
import shlex
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from proofhold import canonical
from proofhold.conformance.comparison import Answer, Verdict
from proofhold.conformance.index import Case
from proofhold.errors import Misuse

ANSWER_DEADLINE_S = 60.0
MAX_ANSWER_BYTES = 2**20
MAX_CODES = 64
MAX_TEXT_CHARS = 2000


class Foreign:
    """Another verifier, behind its standard input and output. Use it as a context."""

    def __init__(self, command: str, *, deadline_s: float = ANSWER_DEADLINE_S) -> None:
        try:
            arguments = shlex.split(command)
        except ValueError as error:
            raise Misuse(f"not a command: {error}") from error
        if not arguments:
            raise Misuse("an empty command")
        try:
            self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise Misuse(f"cannot run {arguments[0]}: {error.strerror}") from error
        self._deadline_s = deadline_s
        self._lines: queue.Queue[bytes] = queue.Queue(maxsize=1)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Foreign:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the program: its input ends; if that does not do, it is killed."""
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self, case: Case, files: Mapping[str, bytes]) -> Answer:
        """Ask about one case.

        Raises:
            Misuse: the program died, said nothing in time, or something else than the protocol has.

        """
        question = {
            "files": {role: base64.b64encode(data).decode() for role, data in files.items()},
            "id": case.id,
            "now": case.now,
            "params": dict(case.params),
            "tee": case.kind,
        }
        assert self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(canonical.encode(question) + b"\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=self._deadline_s)
        except OSError as error:
            raise Misuse(f"{case.id}: the command does not read: {error.strerror}") from error
        except queue.Empty as error:
            raise Misuse(f"{case.id}: the command did not answer within {self._deadline_s:g} s") from error
        return _answer(case, line)

    def _read(self) -> None:
        """Read lines as they come; one too long, and the end, are lines that do not parse."""
        assert self._process.stdout is not None  # noqa: S101
        while True:
            line = self._process.stdout.readline(MAX_ANSWER_BYTES)
            self._lines.put(line)
            if not line.endswith(b"\n"):
                return


def _answer(case: Case, line: bytes) -> Answer:
    if not line:
        raise Misuse(f"{case.id}: the command ended without an answer")
    try:
        value = json.loads(line)
        verdict = Verdict(value["verdict"])
        codes, detail, facts = value.get("codes", []), value.get("detail", ""), value.get("facts", {})
        checked = value.get("revocation_checked", False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Misuse(f"{case.id}: not an answer: {error}"[:300]) from error
    if value.get("id") != case.id:
        raise Misuse(f"{case.id}: an answer about another case")
    texts = isinstance(codes, list) and len(codes) <= MAX_CODES and all(_is_text(code) for code in codes)
    if not texts or not _is_text(detail) or not isinstance(facts, dict) or not isinstance(checked, bool):
        raise Misuse(f"{case.id}: not an answer: a field is of another type")
    return Answer(verdict, tuple(codes), detail, facts, checked)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT_CHARS
