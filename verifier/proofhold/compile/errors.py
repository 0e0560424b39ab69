"""The errors of the compile side: a model that cannot be made into a circuit, and a tool that let us down."""

from __future__ import annotations

from proofhold.errors import Misuse, ProofholdError


class CompileError(Misuse):
    """The model, its specification or the request cannot give a circuit. `code` is stable, ``compile.…``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message


class ToolFailed(ProofholdError):
    """A native tool died or hung: nobody's mistake, and nothing is known about the model."""

    code = "compile.tool_failed"
