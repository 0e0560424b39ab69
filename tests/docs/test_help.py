"""Every command's help runs, and the examples in it (lines that begin with ``$ ``) do what they say.

The examples of one command run in order in one folder, by the conventions of tests/console.py. A command
whose examples need what another makes shows the other first.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from console import Shell, read_commands
from proofhold_cli import main


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups included, walked as click lists them."""

    def walk(
        name: str, command: click.Command, parent: click.Context | None
    ) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        context = click.Context(command, parent=parent, info_name=name.split()[-1])
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                assert found is not None, f"{name} lists {child} and does not have it"
                yield from walk(f"{name} {child}", found, context)

    return walk("proofhold", main, None)


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_runs(name: str) -> None:
    result = CliRunner().invoke(main, [*name.split()[1:], "--help"])
    assert result.exit_code == 0, result.output
    assert name.split()[-1] in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_and_each_option_does(name: str) -> None:
    command = COMMANDS[name]
    assert (command.help or "").strip()
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


def examples(command: click.Command) -> str:
    """The lines of the examples in a help text or its epilogue, with what they print."""
    lines = inspect.cleandoc(f"{command.help or ''}\n\n{command.epilog or ''}").replace("\b", "").splitlines()
    shown = [line.strip() for line in lines]
    first = next((number for number, line in enumerate(shown) if line.startswith("$ ")), len(shown))
    return "\n".join(line for line in shown[first:] if line)


WITH_EXAMPLES = [name for name, command in COMMANDS.items() if examples(command)]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for example in read_commands(examples(COMMANDS[name])):
        shell.run_command(example)
