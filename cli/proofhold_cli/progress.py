"""Telling people what takes long: a line a step, with its time, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

WORTH_TELLING_S = 0.2


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Give a function to be told each step; when the next begins, the time that the last took is printed."""
    running: list[tuple[str, float]] = []

    def finish() -> None:
        if running:
            step, began = running.pop()
            took = time.monotonic() - began
            if took >= WORTH_TELLING_S:
                click.echo(f"   {step}: {took:.1f} s", err=True)

    def on_step(step: str) -> None:
        finish()
        running.append((step, time.monotonic()))

    yield on_step
    finish()
