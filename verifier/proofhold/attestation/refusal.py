"""How a document is turned away: what was wrong, and at which step of its specification."""

from __future__ import annotations

from proofhold.errors import ProofholdError


class Refusal(ProofholdError):
    """A document is not what it must be. `code` is stable, such as ``nitro.signature``.

    `also` holds what else the same step found: all mismatches are reported, not the first.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        step: int,
        got: str = "",
        expected: str = "",
        also: tuple[Refusal, ...] = (),
    ) -> None:
        super().__init__(f"{message} [{code}, step {step}]")
        self.code = code
        self.message = message
        self.step = step
        self.got = got
        self.expected = expected
        self.also = also


class Lacking(ProofholdError):
    """Nothing speaks against a document, but collateral is missing or expired: nobody is to blame."""

    def __init__(self, code: str, message: str, *, step: int) -> None:
        super().__init__(f"{message} [{code}, step {step}]")
        self.code = code
        self.message = message
        self.step = step
