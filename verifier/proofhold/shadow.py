"""What a hook in shadow mode found: where it agrees with what really happened, and the money where not.

A team that pays today by other rules switches the hook on with ``mode="shadow"``. Nothing moves; each
decision is kept beside what became of the money, in this escrow or as told by whoever paid elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from proofhold.canonical import Json
from proofhold.decision import Outcome
from proofhold.escrow.escrow import Escrow, Ruling
from proofhold.escrow.shadows import Shadow, ShadowBook
from proofhold.money import Currency
from proofhold.receipt import Receipt

ALREADY_DECIDED = "escrow.decided"
"""The one refusal that does not weaken a shadow decision: it comes after what it is compared with."""


class Finding(StrEnum):
    """How a shadow decision compares with what really happened."""

    AGREED = "agreed"
    """Paid and would have been; or not paid and would not have been."""
    WOULD_HAVE_HELD = "would_have_held"
    """The provider was paid, and would not have been: refunded or disputed."""
    WOULD_HAVE_PAID = "would_have_paid"
    """The buyer got the money back, and the provider would have been paid."""
    UNDECIDED = "undecided"
    """The verdict was inconclusive, or the escrow would have refused it: needs were open."""
    PENDING = "pending"
    """What becomes of the money is not known yet."""


@dataclass(frozen=True, slots=True)
class Sum:
    """How many captures, and the atomic units in them."""

    captures: int = 0
    amount: int = 0

    def plus(self, amount: int) -> Sum:
        """Count one capture more."""
        return Sum(self.captures + 1, self.amount + amount)


@dataclass(frozen=True, slots=True)
class CurrencyReport:
    """The comparison in one currency."""

    currency: Currency
    sums: dict[Finding, Sum]

    @property
    def compared(self) -> int:
        """How many captures both sides decided."""
        return sum(
            self.sums[finding].captures
            for finding in (Finding.AGREED, Finding.WOULD_HAVE_HELD, Finding.WOULD_HAVE_PAID)
        )

    @property
    def agreement_ppm(self) -> int | None:
        """Agreement in parts per million of what both sides decided; None where that is nothing."""
        return self.sums[Finding.AGREED].captures * 1_000_000 // self.compared if self.compared else None

    @property
    def at_stake(self) -> int:
        """The atomic units that were paid and would not have been."""
        return self.sums[Finding.WOULD_HAVE_HELD].amount


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One capture on which the two sides differ, and why the hook decided as it did."""

    shadow: Shadow
    finding: Finding
    reason_codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """The comparison as a whole: sums a currency, and every capture on which the sides differ."""

    currencies: tuple[CurrencyReport, ...]
    disagreements: tuple[Disagreement, ...]

    def to_json(self) -> Json:
        """Give the report for programs; amounts are decimal strings."""
        return {
            "currencies": [
                {
                    "agreement_ppm": report.agreement_ppm,
                    "at_stake": report.currency.format(report.at_stake),
                    "currency": report.currency.code,
                    "findings": {
                        finding: {
                            "amount": report.currency.format(total.amount),
                            "captures": total.captures,
                        }
                        for finding, total in report.sums.items()
                    },
                }
                for report in self.currencies
            ],
            "disagreements": [
                {
                    "actual": found.shadow.actual,
                    "amount": found.shadow.currency.format(found.shadow.amount),
                    "currency": found.shadow.currency.code,
                    "finding": found.finding,
                    "hold": found.shadow.hold,
                    "outcome": found.shadow.outcome,
                    "reasons": list(found.reason_codes),
                    "receipt": found.shadow.receipt_digest,
                    "seq": found.shadow.seq,
                }
                for found in self.disagreements
            ],
        }


def report(escrow: Escrow) -> ShadowReport:
    """Compare all shadow decisions of an escrow with what really happened."""
    book = ShadowBook(escrow.store)
    shadows = book.all()
    differing = [
        Disagreement(shadow, found, _reasons(book, shadow))
        for shadow in shadows
        if (found := finding_of(shadow)) in (Finding.WOULD_HAVE_HELD, Finding.WOULD_HAVE_PAID)
    ]
    return ShadowReport(_sums(shadows), tuple(differing))


def finding_of(shadow: Shadow) -> Finding:
    """Compare one shadow decision with what really happened."""
    if shadow.outcome == Outcome.KEEP or shadow.refused not in ("", ALREADY_DECIDED):
        return Finding.UNDECIDED
    if shadow.actual is None:
        return Finding.PENDING
    pays, paid = shadow.outcome == Outcome.RELEASE, shadow.actual is Ruling.RELEASE
    if pays == paid:
        return Finding.AGREED
    return Finding.WOULD_HAVE_PAID if pays else Finding.WOULD_HAVE_HELD


def _sums(shadows: Iterable[Shadow]) -> tuple[CurrencyReport, ...]:
    sums: dict[Currency, dict[Finding, Sum]] = {}
    for shadow in shadows:
        totals = sums.setdefault(shadow.currency, {finding: Sum() for finding in Finding})
        found = finding_of(shadow)
        totals[found] = totals[found].plus(shadow.amount)
    ordered = sorted(sums.items(), key=lambda item: item[0].code)
    return tuple(CurrencyReport(currency, totals) for currency, totals in ordered)


def _reasons(book: ShadowBook, shadow: Shadow) -> tuple[str, ...]:
    receipt = book.receipt(shadow.receipt_digest)
    if receipt is None:
        return ()
    return tuple(dict.fromkeys(reason.code for reason in Receipt.decode(receipt).reasons))
