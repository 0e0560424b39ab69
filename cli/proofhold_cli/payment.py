"""``proofhold payment``: payments of x402 whose outcome somebody has to find out."""

from __future__ import annotations

import click

from proofhold_cli.files import clock, echo_json, json_option, now_option
from proofhold_cli.parameters import ESCROW


@click.group("payment")
def payment_group() -> None:
    """See to the payments of x402 that nobody else looks after."""


@payment_group.command("list")
@click.argument("home", type=ESCROW)
@now_option
@json_option
def list_command(home: str, now: int | None, as_json: bool) -> None:
    """List what is being settled or may have settled, and deposits that nobody gave back, oldest first."""
    from proofhold.escrow.home import open_home
    from proofhold.escrow.paybook import PaymentBook

    with open_home(home) as escrow:
        payments = PaymentBook(escrow.store).unsettled(now=clock(now))
    if as_json:
        names = ("deposit", "id", "job", "reference", "status")
        echo_json({"payments": [{name: getattr(p, name) for name in names} for p in payments]})
        return
    for payment in payments:
        known = f", transaction {payment.reference}" if payment.reference else ""
        deposited = ", deposited" if payment.deposit == "sent" else ""
        click.echo(f"{payment.id}  {payment.status}{deposited}, job {payment.job}{known}")


@payment_group.command("record")
@click.argument("home", type=ESCROW)
@click.argument("payment")
@click.option("--settled", "reference", metavar="TRANSACTION", help="It did, by this transaction.")
@click.option("--failed", is_flag=True, help="It did not: its payer has to make another.")
@click.option("--returned", metavar="TRANSACTION", help="Its deposit was given back, by this transaction.")
@now_option
@json_option
def record_command(
    home: str,
    payment: str,
    reference: str | None,
    failed: bool,
    returned: str | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Say what became of PAYMENT, named by its identifier, after looking where it settles."""
    from proofhold.errors import Misuse
    from proofhold.escrow.home import open_home
    from proofhold.escrow.paybook import Deposit, PaymentBook, Status
    from proofhold.escrow.refusals import Refused

    if [reference is not None, failed, returned is not None].count(True) != 1:
        raise Misuse("say what became of it: --settled TRANSACTION, --failed, or --returned TRANSACTION")
    at = clock(now)
    with open_home(home) as escrow:
        book = PaymentBook(escrow.store)
        if payment not in {unsettled.id for unsettled in book.unsettled(now=at)}:
            raise Refused("payment.unknown", "no payment of this identifier waits for its outcome")
        if reference is not None:
            book.end_settling(payment, Status.SETTLED, reference=reference, now=at)
        else:
            deposit = None if returned is None else Deposit.RETURNED
            book.end_deposit(payment, deposit, reference=returned or "", now=at)
        found = book.find(payment)
    status = "unknown" if found is None else found.status
    if as_json:
        echo_json({"payment": payment, "status": status})
    else:
        click.echo(f"{payment} is {status}")
