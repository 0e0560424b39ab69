"""Pages that show commands and code are run as a reader would run them (conventions: tests/console.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from console import ROOT, Command, Shell, matches, read_blocks, read_commands

PAGES = [page for page in ("README.md", "docs/tutorial.md", "docs/integrations.md") if (ROOT / page).exists()]


def _pages() -> list[object]:
    return [
        pytest.param(page, marks=pytest.mark.long) if "<!-- long -->" in (ROOT / page).read_text() else page
        for page in PAGES
    ]


@pytest.mark.parametrize("page", _pages())
def test_page(page: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for block in read_blocks((ROOT / page).read_text()):
        shell.run_block(block)


PAGE = """
<!-- not run: it takes a minute -->
```console
$ make demo
```

<!-- before:
answer = 42
-->
```python
assert answer == 42
```

```console
$ echo one; echo \\
>   two
one
tw...
$ exit 4  # exit 4
```
"""


def test_blocks_are_read() -> None:
    demo, code, shown = read_blocks(PAGE)
    assert demo.not_run == "it takes a minute"
    assert code.before.strip() == "answer = 42"
    assert [*shown.commands()] == [
        Command("echo one; echo \\\n  two", 15, 0, ("one", "tw...")),
        Command("exit 4  # exit 4", 19, 4),
    ]


def test_blocks_are_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for block in read_blocks(PAGE):
        shell.run_block(block)


@pytest.mark.parametrize("wrong", ["$ false", "$ true # exit 1", "$ echo one\ntwo", "$ no-such-command"])
def test_a_broken_promise_fails(wrong: str, tmp_path: Path) -> None:
    [command] = read_commands(wrong)
    with pytest.raises(AssertionError, match="line 1"):
        Shell(tmp_path).run_command(command)


@pytest.mark.parametrize(
    ("expected", "matched"),
    [
        ("a\nb", True),
        ("a\n...", True),
        ("...\nb", True),
        ("...", True),
        ("a", False),
        ("... \nc", False),
        ("...a\nb", True),
    ],
)
def test_wildcards(expected: str, matched: bool) -> None:
    assert matches("a \nb\n\n", tuple(expected.splitlines())) is matched
