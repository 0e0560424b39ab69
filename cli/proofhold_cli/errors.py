"""How a command ends: exit codes, and errors as one line with their code instead of a traceback."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, NoReturn

import click

DEBUG_VARIABLE: Final = "PROOFHOLD_DEBUG"
"""Set to 1, errors keep their traceback."""
INTERNAL: Final = "internal"
"""The code of what nobody foresaw."""


class ExitCode(IntEnum):
    """The exit codes of every command (click itself ends with 2 on a wrong argument)."""

    ACCEPTED = 0
    OUR_FAILURE = 1
    MISUSE = 2
    INCONCLUSIVE = 3
    REJECTED = 4


@contextmanager
def reported() -> Iterator[None]:
    """Turn whatever a command raises into one line on stderr and an exit code; never a traceback."""
    try:
        with _ended_in_order():
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click's own, which it reports itself
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        code, exit_code = _classify(error)
        text = str(error).removesuffix(f" [{code}]")
        if exit_code is ExitCode.OUR_FAILURE:
            text = f"our failure, which moves no money: {text}"
        if code == INTERNAL:
            text += f" ({type(error).__name__}; set {DEBUG_VARIABLE}=1 for the traceback)"
        fail(text, code=code, exit_code=exit_code)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let the signals that ask a process to end do so as Ctrl-C does: what was begun is tidied away.

    Only where nobody has said otherwise: under nohup a hang-up stays ignored.
    """

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for one in ours:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


def _classify(error: Exception) -> tuple[str, ExitCode]:
    """Give an error's stable code, and what a command that ends with it says.

    A caller's mistake is misuse; bytes that do not parse, and what an escrow refuses, are rejected; all else
    is ours.
    """
    from proofhold.errors import Malformed, Misuse, ProofholdError
    from proofhold.escrow.refusals import Refused

    code = getattr(error, "code", "misuse" if isinstance(error, Misuse) else INTERNAL)
    match error:
        case Misuse():
            return code, ExitCode.MISUSE
        case Malformed() | Refused():
            return code, ExitCode.REJECTED
        case ProofholdError():
            return code, ExitCode.OUR_FAILURE
        case _:
            return INTERNAL, ExitCode.OUR_FAILURE


def fail(message: str, *, code: str, exit_code: ExitCode) -> NoReturn:
    """Write one line to stderr, red where that is a terminal, and end the command."""
    from proofhold_cli.terminal import one_line

    click.echo(f"{click.style('error', fg='red')}: {one_line(message)} [{code}]", err=True)
    click.get_current_context().exit(exit_code)
