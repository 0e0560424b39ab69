"""What a relying party expects of a document that checks out: apart from whether it checks out.

An expectation is a value, or `WAIVED`, which has to be written down; one that was not supplied is a mismatch
of its own, so that an empty policy accepts nothing. All mismatches are reported, not the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias


class Waiver(Enum):
    """The type of `WAIVED`."""

    WAIVED = "waived"


WAIVED: Final = Waiver.WAIVED
"""Said in place of an expectation: whoever asks does not care, and knows it."""

Waived: TypeAlias = Literal[Waiver.WAIVED]
Expected: TypeAlias = bytes | Waived | None
"""Bytes that a field must equal, or `WAIVED`; None is an expectation that nobody supplied, and never met."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing in which a genuine document is not what was expected. `code` is stable."""

    code: str
    message: str
    got: str
    expected: str


def compare(code: str, name: str, got: bytes | None, expected: Expected) -> tuple[Mismatch, ...]:
    """Compare one field with what is expected of it: no mismatch, or one.

    The code is `code` where the two differ, and ``<format>.no_expectation`` where none was supplied.
    """
    shown = "nothing" if got is None else got.hex()
    if expected is WAIVED:
        return ()
    if expected is None:
        missing = f"{code.partition('.')[0]}.no_expectation"
        return (Mismatch(missing, f"no expectation of the {name} was supplied", shown, "an expectation"),)
    if got == expected:
        return ()
    return (Mismatch(code, f"the {name} is another one", shown, expected.hex()),)
