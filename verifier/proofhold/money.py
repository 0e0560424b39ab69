"""Amounts: integers in atomic units inside, decimal strings in formats, nothing inexact between the two."""

from __future__ import annotations

import re
from dataclasses import dataclass

from proofhold.errors import Misuse

MAX_EXPONENT = 24
MAX_AMOUNT_DIGITS = 78
"""The widest amount that any format states: 2^256 fits. A ledger may hold less and then refuses."""

_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)
_CODE = re.compile(r"[A-Z0-9]{2,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency and how many decimal places its atomic unit lies below one: USDC has exponent 6."""

    code: str
    exponent: int

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise Misuse(f"currency code: got {self.code!r}, expected 2 to 12 capital letters or digits")
        if not 0 <= self.exponent <= MAX_EXPONENT:
            raise Misuse(f"currency exponent: got {self.exponent}, expected 0 to {MAX_EXPONENT}")

    @classmethod
    def named(cls, text: str) -> Currency:
        """Read a code with its exponent, as people write it: ``USDC:6``.

        Raises:
            Misuse: anything else.

        """
        code, colon, exponent = text.partition(":")
        if not colon or not re.fullmatch(r"[0-9]{1,2}", exponent, re.ASCII):
            raise Misuse(f"currency: got {text[:40]!r}, expected a code and decimal places, such as USDC:6")
        return cls(code, int(exponent))

    def parse(self, text: str) -> int:
        """Read a decimal string as atomic units.

        Raises:
            Misuse: not a plain non-negative decimal, finer than the atomic unit, or too large.

        """
        match = _DECIMAL.fullmatch(text) if len(text) <= MAX_AMOUNT_DIGITS + 1 else None
        if match is None:
            raise Misuse(f"amount: got {text[:90]!r}, expected a plain decimal such as 12.5")
        whole, fraction = match[1], (match[2] or "").rstrip("0")
        if len(fraction) > self.exponent:
            raise Misuse(f"amount: {text} {self.code} is finer than its {self.exponent} decimal places")
        digits = whole + fraction.ljust(self.exponent, "0")
        if len(digits.lstrip("0")) > MAX_AMOUNT_DIGITS:
            raise Misuse(f"amount: {text} {self.code} has more than {MAX_AMOUNT_DIGITS} digits")
        return int(digits)

    def format(self, atomic: int) -> str:
        """Write atomic units as the shortest decimal string that says exactly the same."""
        sign, digits = ("-" if atomic < 0 else ""), str(abs(atomic)).rjust(self.exponent + 1, "0")
        cut = len(digits) - self.exponent
        fraction = digits[cut:].rstrip("0")
        return sign + digits[:cut] + (f".{fraction}" if fraction else "")

    def show(self, atomic: int) -> str:
        """Write an amount for people: ``12.5 USDC``."""
        return f"{self.format(atomic)} {self.code}"
