"""The two families of errors: a caller's mistake, and bytes that are not what they claim to be.

Whatever a stranger sends is data, never an exception that escapes: parsers raise `Malformed`, and whoever
judges turns it into a verdict. Everything else that is raised says that our own caller did something wrong.
"""

from __future__ import annotations


class ProofholdError(Exception):
    """Base of everything that this library raises on purpose."""


class Misuse(ProofholdError):
    """The caller of this library, or the user of the command, asked for something that makes no sense."""


class Malformed(ProofholdError):
    """Bytes do not parse as the one canonical encoding of their format.

    `code` is stable and meant for programs, such as ``bundle.not_canonical``; the message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message
