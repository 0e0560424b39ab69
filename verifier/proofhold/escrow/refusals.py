"""What the escrow raises: a refusal of data or of state, or its own failure. Neither moves money."""

from __future__ import annotations

from proofhold.core import Fault
from proofhold.errors import ProofholdError


class Refused(ProofholdError):
    """The escrow does not do what was asked: the document is not good, or the hold is in another state.

    `code` is stable and meant for programs, such as ``escrow.already_funded``; docs/formats/escrow.md lists
    them all. `fault` names the party whose doing it is, as in a `Reason`.
    """

    def __init__(self, code: str, message: str, fault: Fault = Fault.NOBODY) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message
        self.fault = fault


class EscrowFailure(ProofholdError):
    """The escrow itself cannot go on: its database is broken, full, or not what this version wrote.

    Whatever was under way is rolled back, so nothing moved. `code` is stable.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message
