"""The errors of the compile side: a model that cannot be made into a circuit, and a tool that let us down."""

from __future__ import annotations

from proofhold.errors import Misuse, ProofholdError


class CompileError(Misuse):
    """The model, its specification or the request cannot give a circuit. `code` is stable, ``compile.…``.

    `node` and `operator` name the node of the graph that it is about, where it is about one.
    """

    def __init__(self, code: str, message: str, *, node: str = "", operator: str = "") -> None:
        where = f"node {node[:80]!r}, {operator[:80]}: " if operator else ""
        super().__init__(f"{where}{message} [{code}]")
        self.code = code
        self.message = message
        self.node = node
        self.operator = operator


class ToolFailed(ProofholdError):
    """A native tool died or hung: nobody's mistake, and nothing is known about the model."""

    code = "compile.tool_failed"
