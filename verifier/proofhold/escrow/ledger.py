"""The ledger: double entry, every transfer two entries that sum to zero.

What is inside came from the outside account, which alone may be negative; so each currency's accounts sum
to zero at all times. The balance of every other account is what is available: money in a hold or a bond
has left its owner's account and stands in one of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow.books import Books
from proofhold.escrow.driver import Transaction
from proofhold.escrow.refusals import EscrowFailure, Refused
from proofhold.escrow.tables import CURRENCY, TRANSFER
from proofhold.money import Currency


class AccountKind(StrEnum):
    """What an account is for."""

    PARTY = "party"
    """A buyer's, a provider's or a payee's: named by their key or by the job's payee."""
    HOLD = "hold"
    """A price in escrow: named by the hold."""
    BOND = "bond"
    """A provider's stake in a hold: named by the hold."""
    TREASURY = "treasury"
    """Where a slash goes beyond the buyer's loss (PROTOCOL P12)."""
    OUTSIDE = "outside"
    """The rest of the world."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account's name. The kind is no part of the owner's text, so no payee can pose as a bond."""

    kind: AccountKind
    owner: str
    currency: str


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account holds, in atomic units."""

    account: Account
    currency: Currency
    amount: int


def outside(currency: str) -> Account:
    """Name the account of the rest of the world."""
    return Account(AccountKind.OUTSIDE, "", currency)


def register(books: Books, currency: Currency) -> None:
    """Take note of a currency, or check that it is the one known under its code.

    Raises:
        Refused: ``escrow.currency``, known with another exponent.

    """
    if books.find(CURRENCY, currency.code) is None:
        books.insert(CURRENCY, currency.code, currency.exponent)
    require_known(books, currency)


def require_known(books: Books, currency: Currency) -> None:
    """Refuse a currency that was never deposited, or has another exponent here.

    Raises:
        Refused: ``escrow.currency``.

    """
    row = books.find(CURRENCY, currency.code)
    if row is None:
        raise Refused("escrow.currency", f"nothing was ever deposited here in {currency.code}")
    if row["exponent"] != currency.exponent:
        text = f"{currency.code}: exponent {currency.exponent}, expected {row['exponent']}"
        raise Refused("escrow.currency", text)


def require_storable(tx: Transaction, what: str, amount: int, *, low: int = 0) -> None:
    """Refuse an amount that this ledger cannot hold: a database counts in integers of some width.

    Raises:
        Refused: ``escrow.amount``.

    """
    if not low <= amount <= tx.greatest_amount:
        text = f"{what}: {amount} atomic units, expected {low} to {tx.greatest_amount}"
        raise Refused("escrow.amount", text)


def balance_of(books: Books, account: Account) -> int:
    """Give an account's balance in atomic units; 0 if it was never used."""
    return books.balance(*_name(account))


def transfer(
    books: Books,
    key: str,
    source: Account,
    target: Account,
    amount: int,
    *,
    at: int,
    fault: Fault = Fault.NOBODY,
) -> None:
    """Move an amount between two accounts, once under this key.

    Args:
        books: those of the transaction that the move belongs to.
        key: names the transfer; a second one of the same name is our own error, and raises.
        source: what is debited.
        target: what is credited.
        amount: atomic units, at least 1.
        at: unix seconds, for the books.
        fault: whose fault it is if the balance does not suffice.

    Raises:
        Refused: ``escrow.balance``, not enough on the source; ``escrow.amount``, a balance beyond what the
            database holds.
        EscrowFailure: the key was used.

    """
    if amount < 1 or source.currency != target.currency or source == target:
        raise Misuse(f"not a transfer: {amount} from {source} to {target}")
    available, held = balance_of(books, source), balance_of(books, target)
    if source.kind is not AccountKind.OUTSIDE and available < amount:
        text = f"{source.kind} {source.owner}: {available} {source.currency} atomic units, expected {amount}"
        raise Refused("escrow.balance", text, fault)
    if max(abs(available - amount), abs(held + amount)) > books.tx.greatest_amount:
        raise Refused("escrow.amount", f"a balance would leave the range of {books.tx.greatest_amount}")
    if books.find(TRANSFER, key) is not None:
        raise EscrowFailure("escrow.repeated_transfer", f"the transfer {key} was made before")
    books.post(key, at, (_name(source), -amount), (_name(target), amount))


def transfer_once(books: Books, key: str, source: Account, target: Account, amount: int, *, at: int) -> None:
    """Make a transfer, or do nothing if this very transfer was made before under a client's key.

    Raises:
        Refused: ``escrow.key_reused``, the key stands for another transfer; else as `transfer`.

    """
    if books.find(TRANSFER, key) is None:
        transfer(books, key, source, target, amount, at=at)
        return
    rows = books.flush().execute(
        "SELECT kind, owner, currency, amount FROM transfer JOIN entry ON transfer.id = entry.transfer"
        " JOIN account ON account.id = entry.account WHERE key = ? ORDER BY amount",
        (key,),
    )
    expected = [(*_name(source), -amount), (*_name(target), amount)]
    if [tuple(row) for row in rows.fetchall()] != expected:
        raise Refused("escrow.key_reused", f"the key of {key} stands for another transfer")


def balances(tx: Transaction) -> tuple[Balance, ...]:
    """Give every account that was ever used, with what it holds."""
    rows = tx.execute(
        "SELECT kind, owner, code, exponent, balance FROM account JOIN currency ON code = currency"
        " ORDER BY code, kind, owner"
    )
    return tuple(
        Balance(
            Account(AccountKind(row["kind"]), row["owner"], row["code"]),
            Currency(row["code"], row["exponent"]),
            row["balance"],
        )
        for row in rows
    )


def _name(account: Account) -> tuple[str, str, str]:
    return (account.kind.value, account.owner, account.currency)
