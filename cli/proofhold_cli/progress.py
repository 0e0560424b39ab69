"""Telling people what takes long: a line a step, with its time, and a clock where there is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import click

from proofhold_cli.terminal import one_line

WORTH_TELLING_S = 0.2


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Give a function to be told each step; when the next begins, the time that the last took is printed.

    On a terminal the running step is shown with the time that it has taken so far. Whoever can foretell how
    long it will be says so in the step's words.
    """
    running: list[tuple[str, float]] = []
    with _Clock() if sys.stderr.isatty() else nullcontext() as clock:

        def finish() -> None:
            if running:
                step, began = running.pop()
                if clock:
                    clock.stop()
                took = time.monotonic() - began
                if took >= WORTH_TELLING_S:
                    click.echo(f"   {one_line(step)}: {took:.1f} s", err=True)

        def on_step(step: str) -> None:
            finish()
            running.append((step, time.monotonic()))
            if clock:
                clock.show(step)

        yield on_step
        finish()


class _Clock:
    """A line at the bottom of a terminal that says what runs and for how long; gone when it stops."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._line = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> _Clock:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def show(self, step: str) -> None:
        self._line.add_task(one_line(step), total=None)
        self._line.start()

    def stop(self) -> None:
        self._line.stop()
        for task in self._line.task_ids:
            self._line.remove_task(task)
