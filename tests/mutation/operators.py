"""The changes that are tried: small mistakes that a person could make in code that decides about money.

Every change replaces one node of a module's syntax tree by another. It is made in a process of its own, so
nothing is ever undone and no file is ever written.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
TWINS = {"any": "all", "all": "any", "min": "max", "max": "min"}

CODE_LIKE = re.compile(r"[\w./:%+-]+")
"""Strings that a program reads, such as reason codes and keys. Sentences for people may be reworded."""

ANNOTATIONS = {"annotation", "returns", "decorator_list", "type_comment", "type_params", "bases", "keywords"}
"""Fields of statements that say what something is, not what it does."""


@dataclass(frozen=True)
class Mutant:
    """One change: where, what, and the slot of the tree that it goes into."""

    where: str
    line: int
    change: str
    span: range
    """The lines of the statement it sits in: a test that runs none of them cannot notice."""
    parent: ast.AST
    field: str
    index: int | None
    replacement: ast.AST

    def apply(self) -> None:
        """Make the change, in the tree that it was found in."""
        if self.index is None:
            setattr(self.parent, self.field, self.replacement)
        else:
            getattr(self.parent, self.field)[self.index] = self.replacement


def mutants(tree: ast.Module) -> list[Mutant]:
    """Every change to a module, in the order of its lines; equal ones in one place are numbered."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for mutant in _Walk(_siblings(tree)).statements(tree, "body", "", range(0)):
        seen[mutant.where, mutant.change] += 1
        nth = seen[mutant.where, mutant.change]
        found.append(_renamed(mutant, f"{mutant.change} #{nth}") if nth > 1 else mutant)
    return found


def _renamed(mutant: Mutant, change: str) -> Mutant:
    fields = {name: getattr(mutant, name) for name in mutant.__dataclass_fields__}
    return Mutant(**{**fields, "change": change})


def _siblings(tree: ast.Module) -> dict[str, list[str]]:
    """For each name in the module, the constants that it is asked for: the members of an enumeration."""
    members: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr.isupper():
            members.setdefault(node.value.id, set()).add(node.attr)
    return {name: sorted(attrs) for name, attrs in members.items()}


class _Walk:
    def __init__(self, members: dict[str, list[str]]) -> None:
        self.members = members

    def statements(self, parent: ast.AST, field: str, where: str, span: range) -> Iterator[Mutant]:
        """Visit what one field of a node holds: a node, a list of them, or neither."""
        value = getattr(parent, field)
        slots = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, node in slots:
            if isinstance(node, ast.AST) and not _says_nothing(node):
                yield from self.visit(node, parent, field, index, where, span)

    def visit(
        self, node: ast.AST, parent: ast.AST, field: str, index: int | None, where: str, span: range
    ) -> Iterator[Mutant]:
        if isinstance(node, ast.stmt):
            span = _span(node)
        for replacement in self.alternatives(node, at_top=not where):
            ast.copy_location(replacement, node)
            ast.fix_missing_locations(replacement)
            line = getattr(node, "lineno", span.start)
            change = f"{_text(node)}  →  {_text(replacement)}"
            yield Mutant(where, line, change, span, parent, field, index, replacement)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}".lstrip(".")
        for name in node._fields:
            if not (name in ANNOTATIONS and isinstance(node, ast.stmt | ast.arg)):
                yield from self.statements(node, name, where, span)

    def alternatives(self, node: ast.AST, *, at_top: bool) -> Iterator[ast.AST]:
        match node:
            case ast.Compare():
                for position, operator in enumerate(node.ops):
                    for other in COMPARISONS[type(operator)]:
                        yield _with(node, ops=[*node.ops[:position], other(), *node.ops[position + 1 :]])
            case ast.BoolOp():
                yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            case ast.UnaryOp(op=ast.Not()):
                yield copy.deepcopy(node.operand)
            case ast.BinOp() if type(node.op) in ARITHMETIC:
                yield _with(node, op=ARITHMETIC[type(node.op)]())
            case ast.Constant():
                yield from _constants(node.value)
            case ast.If() | ast.While() | ast.IfExp() if not isinstance(node.test, ast.Compare | ast.UnaryOp):
                yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
            case ast.comprehension() if node.ifs:
                yield _with(node, ifs=[])
            case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
                yield ast.Return(ast.Constant(None))
            case ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call() | ast.Yield()):
                yield ast.Pass()
            case ast.For(iter=ast.Tuple() | ast.List() as listed) if len(listed.elts) > 1:
                for position in range(len(listed.elts)):
                    elts = listed.elts[:position] + listed.elts[position + 1 :]
                    yield _with(node, iter=_with(listed, elts=elts))
            case ast.Break():
                yield ast.Continue()
            case ast.Continue():
                yield ast.Break()
            case ast.Match() if len(node.cases) > 1:
                for position in range(len(node.cases)):
                    yield _with(node, cases=node.cases[:position] + node.cases[position + 1 :])
            case ast.Attribute(value=ast.Name(id=name), attr=attr, ctx=ast.Load()) if attr.isupper():
                others = self.members[name]
                if len(others) > 1:
                    yield _with(node, attr=others[(others.index(attr) + 1) % len(others)])
            case ast.Name(id=name, ctx=ast.Load()) if name in TWINS:
                yield ast.Name(TWINS[name], ast.Load())
            case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()) | ast.Set() if (
                at_top and len(node.elts) > 1
            ):
                for position in range(len(node.elts)):
                    yield _with(node, elts=node.elts[:position] + node.elts[position + 1 :])
            case ast.Dict() if at_top and len(node.keys) > 1:
                for position in range(len(node.keys)):
                    keys, values = list(node.keys), list(node.values)
                    del keys[position], values[position]
                    yield _with(node, keys=keys, values=values)


def _constants(value: object) -> Iterator[ast.AST]:
    match value:
        case bool():
            yield ast.Constant(not value)
        case int() | float():
            yield ast.Constant(value + 1)
        case str() if CODE_LIKE.fullmatch(value):
            yield ast.Constant(value + "X")
        case bytes():
            yield ast.Constant(value + b"X")


def _says_nothing(node: ast.AST) -> bool:
    """Imports, docstrings, formatted text for people, names of types, and what only a type checker runs."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.JoinedStr():
            texts = [value.value for value in node.values if isinstance(value, ast.Constant)]
            return not all(CODE_LIKE.fullmatch(str(text)) for text in texts)
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
    return False


def _span(node: ast.stmt) -> range:
    body = getattr(node, "body", None)
    end = body[0].lineno - 1 if body else (node.end_lineno or node.lineno)
    return range(node.lineno, max(node.lineno, end) + 1)


def _with(node: ast.AST, **changes: object) -> ast.AST:
    """A shallow copy: what lies below stays shared, for only one change is ever made to a tree."""
    other = copy.copy(node)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def _text(node: ast.AST) -> str:
    """The node as one short line of source."""
    if isinstance(node, ast.comprehension):
        return " if ".join(map(ast.unparse, [node.iter, *node.ifs]))
    if isinstance(node, ast.For):
        return f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}:"
    if isinstance(node, ast.If | ast.While | ast.Match):
        head = "match" if isinstance(node, ast.Match) else type(node).__name__.lower()
        subject = node.subject if isinstance(node, ast.Match) else node.test
        cases = [ast.unparse(case.pattern) for case in node.cases] if isinstance(node, ast.Match) else []
        return f"{head} {ast.unparse(subject)}:" + "".join(f" case {case}:" for case in cases)
    line = " ".join(ast.unparse(node).split())
    return line if len(line) <= 160 else f"{line[:100]} … {line[-56:]}"
