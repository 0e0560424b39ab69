"""Amounts: exact both ways, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofhold.errors import Misuse
from proofhold.money import MAX_AMOUNT_DIGITS, Currency

USDC = Currency("USDC", 6)
currencies = st.builds(Currency, st.just("USDC"), st.integers(0, 24))


@pytest.mark.parametrize(
    ("text", "atomic"),
    [
        ("0", 0),
        ("1", 1_000_000),
        ("0.000001", 1),
        ("12.5", 12_500_000),
        ("12.50", 12_500_000),
        ("1.000000000", 1_000_000),
    ],
)
def test_decimals_are_read_exactly(text: str, atomic: int) -> None:
    assert USDC.parse(text) == atomic


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "01",
        "1.",
        ".5",
        "1e3",
        "1,5",
        " 1",
        "1 ",
        "1\n",
        "٣",
        "0x1",
        "1.2.3",
        "nan",
        "9" * 200,
    ],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="expected a plain decimal"):
        USDC.parse(text)


def test_nothing_is_rounded() -> None:
    with pytest.raises(Misuse, match="finer than its 6 decimal places"):
        USDC.parse("0.0000001")
    with pytest.raises(Misuse, match="finer than its 0 decimal places"):
        Currency("JPY", 0).parse("0.5")


def test_the_widest_amount() -> None:
    assert Currency("WEI", 0).parse("9" * MAX_AMOUNT_DIGITS) == 10**MAX_AMOUNT_DIGITS - 1
    with pytest.raises(Misuse, match="more than 78 digits"):
        Currency("WEI", 0).parse("1" + "0" * MAX_AMOUNT_DIGITS)
    assert Currency("WEI", 18).parse("9" * 60) == (10**60 - 1) * 10**18
    with pytest.raises(Misuse, match="more than 78 digits"):
        Currency("WEI", 18).parse("9" * 61)


@pytest.mark.parametrize(
    ("atomic", "text"), [(0, "0"), (1, "0.000001"), (1_000_000, "1"), (-12_500_000, "-12.5"), (10, "0.00001")]
)
def test_amounts_are_written_shortest(atomic: int, text: str) -> None:
    assert USDC.format(atomic) == text
    assert USDC.show(atomic) == f"{text} USDC"


@given(currencies, st.integers(0, 10**60))
def test_what_is_written_is_read_again(currency: Currency, atomic: int) -> None:
    text = currency.format(atomic)
    if len(text) <= MAX_AMOUNT_DIGITS:
        assert currency.parse(text) == atomic


@pytest.mark.parametrize("code", ["", "U", "usdc", "A" * 13, "US-D", "USDC\n", "ÜSD"])
def test_codes_have_one_form(code: str) -> None:
    with pytest.raises(Misuse, match="currency code"):
        Currency(code, 6)


@pytest.mark.parametrize("exponent", [-1, 25])
def test_exponents_are_bounded(exponent: int) -> None:
    with pytest.raises(Misuse, match="exponent"):
        Currency("USDC", exponent)
    assert Currency("A" * 12, 24).exponent == 24
    assert Currency("9Z", 0).code == "9Z"


def test_currencies_can_be_named() -> None:
    assert Currency.named("USDC:6") == USDC
    for text in ("USDC", "USDC:", "USDC:x", "USDC:-1", "USDC:006", "USDC:6:6", ":6"):
        with pytest.raises(Misuse, match="currency"):
            Currency.named(text)
