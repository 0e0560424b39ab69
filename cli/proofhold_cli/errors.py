"""How a command ends: exit codes, and errors as one line with their code instead of a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, NoReturn

import click

DEBUG_VARIABLE: Final = "PROOFHOLD_DEBUG"
"""Set to 1, unexpected errors keep their traceback."""


class ExitCode(IntEnum):
    """The exit codes of every command (click itself ends with 2 on a wrong argument)."""

    ACCEPTED = 0
    OUR_FAILURE = 1
    MISUSE = 2
    INCONCLUSIVE = 3
    REJECTED = 4


@contextmanager
def reported() -> Iterator[None]:
    """Turn whatever a command raises into one line on stderr and an exit code.

    A caller's mistake ends with 2, bytes that do not parse with 4, anything unforeseen with 1.
    """
    from proofhold.errors import Malformed, Misuse

    try:
        yield
    except Malformed as error:
        fail(error.message, code=error.code, exit_code=ExitCode.REJECTED)
    except Misuse as error:
        # Some misuse has a code too: a catalogue whose files are not what it pins.
        code = getattr(error, "code", "misuse")
        text = str(error).removesuffix(f" [{code}]")
        fail(text, code=code, exit_code=ExitCode.MISUSE)
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click's own, which it reports itself
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        text = (
            f"our failure, which moves no money: {type(error).__name__}: {error}; "
            f"set {DEBUG_VARIABLE}=1 for the traceback"
        )
        fail(text, code="internal", exit_code=ExitCode.OUR_FAILURE)


def fail(message: str, *, code: str, exit_code: ExitCode) -> NoReturn:
    """Write one line to stderr, red where that is a terminal, and end the command."""
    from proofhold_cli.terminal import one_line

    click.echo(f"{click.style('error', fg='red')}: {one_line(message)} [{code}]", err=True)
    click.get_current_context().exit(exit_code)
