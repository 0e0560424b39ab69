"""What happens in one process: a module is replaced by its mutant, or watched, and pytest runs in it."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MEMORY_BYTES = 8 * 2**30
"""A mutant that builds an endless list fails, and takes nothing else with it."""

AT_IMPORT = ""
"""In place of a test's name: lines that run when the module is imported answer to every test."""


def enter(scratch: Path) -> None:
    """Part from the parent: a process group and a folder of one's own, silence, and no endless memory."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    os.environ["TMPDIR"] = str(scratch)


def run_pytest(tests: Sequence[str], scratch: Path, *plugins: object) -> int:
    """Run tests up to the first failure, leaving nothing in the tree; the exit code of pytest."""
    from hypothesis import settings

    settings.register_profile("mutation", database=None, derandomize=True, deadline=None)
    settings.load_profile("mutation")
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not long", f"--basetemp={scratch / 'pytest'}"]
    return int(pytest.main([*options, *tests], plugins=list(plugins)))


class Overlay(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a syntax tree instead of from its file."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self.module, self.path = module, path
        self.code = compile(tree, str(path), "exec", dont_inherit=True)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def exec_module(self, module: types.ModuleType) -> None:
        exec(self.code, module.__dict__)  # noqa: S102 - the code is this repository's own, changed in one place


class Watch:
    """A pytest plugin: which test runs which lines of one file, and how long each test takes."""

    def __init__(self, path: Path) -> None:
        self.file = str(path)
        self.current = AT_IMPORT
        self.tests_by_line: dict[int, set[str]] = {}
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.current = item.nodeid
        try:
            return (yield)
        finally:
            self.current = AT_IMPORT

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    @contextmanager
    def watching(self) -> Iterator[None]:
        threading.settrace(self._enter_frame)
        sys.settrace(self._enter_frame)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter_frame(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        return self._line(frame, event, argument) if frame.f_code.co_filename == self.file else None

    def _line(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        self.tests_by_line.setdefault(frame.f_lineno, set()).add(self.current)
        return self._line
