"""How a document is turned away: what was wrong, and at which step of its specification."""

from __future__ import annotations

from collections.abc import Sequence

from proofhold.core import Fault, Reason
from proofhold.errors import ProofholdError

MAX_SHOWN_CHARS = 200


class Refusal(ProofholdError):
    """A document is not what it must be. `code` is stable, such as ``nitro.signature``.

    `also` holds what else was found: all mismatches are reported, not the first.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        step: int,
        got: str = "",
        expected: str = "",
        also: Sequence[Refusal | Lacking] = (),
    ) -> None:
        super().__init__(f"{message} [{code}, step {step}]")
        self.code = code
        self.message = message
        self.step = step
        self.got = got
        self.expected = expected
        self.also = tuple(also)

    def beside(self, *others: Refusal | Lacking) -> Refusal:
        """Give the same refusal with more findings in its `also`."""
        also = (*self.also, *others)
        return Refusal(
            self.code, self.message, step=self.step, got=self.got, expected=self.expected, also=also
        )


class Lacking(ProofholdError):
    """Nothing speaks against a document, but collateral is missing or expired: nobody is to blame."""

    def __init__(self, code: str, message: str, *, step: int) -> None:
        super().__init__(f"{message} [{code}, step {step}]")
        self.code = code
        self.message = message
        self.step = step


def first_of(findings: Sequence[Refusal | Lacking]) -> Refusal | Lacking:
    """Make one of several findings: the first refusal, beside which the others stand.

    Where nothing is refused, the first of what is lacking.
    """
    refusals = [one for one in findings if isinstance(one, Refusal)]
    if not refusals:
        return findings[0]
    return refusals[0].beside(*(one for one in findings if one is not refusals[0]))


def reasons(refusal: Refusal) -> list[Reason]:
    """Give a refusal, and all that was found besides, as reasons.

    A false document is the fault of the provider, who signed for it; what is lacking is nobody's.
    """
    found = []
    for one in (refusal, *refusal.also):
        if isinstance(one, Lacking):
            found.append(Reason(one.code, one.message, Fault.NOBODY))
        else:
            shown = (one.got[:MAX_SHOWN_CHARS], one.expected[:MAX_SHOWN_CHARS])
            found.append(Reason(one.code, one.message, Fault.PROVIDER, *shown))
    return found
