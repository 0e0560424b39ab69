"""The error of the compile side: a model that cannot be made into a circuit, or a tool that failed at it."""

from __future__ import annotations

from proofhold.errors import Misuse


class CompileError(Misuse):
    """The model, its specification or the request cannot give a circuit. `code` is stable, ``compile.…``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message
