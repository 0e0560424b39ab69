"""The mutation tool changes what it should, leaves the rest alone, and tells one change from another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mutation.__main__ import Baseline, Survivor
from mutation.operators import mutants
from mutation.process import AT_IMPORT

ROOT = Path(__file__).resolve().parents[2]


def changes(source: str) -> list[str]:
    return [mutant.change for mutant in mutants(ast.parse(source))]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("if a < b: pass", ["a < b  →  a <= b", "a < b  →  a >= b"]),
        ("if ok: pass", ["if ok:  →  if not ok:"]),
        ("x = a and b", ["a and b  →  a or b"]),
        ("x = not a", ["not a  →  a"]),
        ("x = 'escrow.too_late'", ["'escrow.too_late'  →  'escrow.too_lateX'"]),
        ("def f():\n    raise E", ["raise E  →  pass"]),
        ("def f():\n    return a", ["return a  →  return None"]),
        ("x = s.OPEN, s.SHUT", ["(s.OPEN, s.SHUT)  →  (s.SHUT,)", "(s.OPEN, s.SHUT)  →  (s.OPEN,)"]),
        ("x = s.OPEN\ny = s.SHUT", ["s.OPEN  →  s.SHUT", "s.SHUT  →  s.OPEN"]),
        ("def f():\n    yield row", ["yield row  →  pass"]),
        ("x = a == b\ny = a == b", ["a == b  →  a != b", "a == b  →  a != b #2"]),
    ],
)
def test_changes(source: str, expected: list[str]) -> None:
    assert changes(source)[: len(expected)] == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""Only words."""',
        "import a",
        "from __future__ import annotations\ndef f(x: a | b) -> c | d: ...",
        "x = 'words for people'",
        "x = f'got {a + 1}, expected less'",
        "if TYPE_CHECKING:\n    x = 1",
        "@decorator(1)\ndef f(): ...",
    ],
)
def test_what_says_nothing_is_left_alone(source: str) -> None:
    assert changes(source) == []


@pytest.mark.parametrize("module", ["escrow/states.py", "settlement.py", "policy.py", "verifier.py"])
def test_changes_compile_and_change_something(module: str) -> None:
    source = (ROOT / "verifier" / "proofhold" / module).read_text()
    original = ast.unparse(ast.parse(source))
    for number in range(0, len(mutants(ast.parse(source))), 50):
        tree = ast.parse(source)
        mutants(tree)[number].apply()
        assert ast.unparse(tree) != original
        compile(tree, module, "exec", dont_inherit=True)


def test_the_tests_of_a_line_are_those_that_run_it() -> None:
    baseline = Baseline({3: {"slow", "quick"}, 7: {AT_IMPORT}}, {"slow": 2.0, "quick": 0.1, "other": 0.5})
    assert baseline.tests_for(range(2, 5)) == ["quick", "slow"]
    assert baseline.tests_for(range(7, 8)) == ["quick", "other", "slow"]
    assert baseline.tests_for(range(9, 10)) == []


def test_a_listed_survivor_is_recognised() -> None:
    [mutant, _] = mutants(ast.parse("def f():\n    a < b"))
    assert Survivor("m", "f", "a < b  →  a <= b", "why").covers("m", mutant)
    assert Survivor("m", "*", "a < b*", "why").covers("m", mutant)
    assert not Survivor("m", "f", "a < b  →  a >= b", "why").covers("m", mutant)
    assert not Survivor("n", "f", "*", "why").covers("m", mutant)
