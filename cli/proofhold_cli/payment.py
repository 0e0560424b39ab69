"""``proofhold payment``: payments of x402 whose outcome somebody has to find out."""

from __future__ import annotations

import click

from proofhold_cli.files import clock, echo_json, json_option, now_option
from proofhold_cli.parameters import ESCROW


@click.group("payment")
def payment_group() -> None:
    """See to the payments of x402 of which nobody knows whether they settled."""


@payment_group.command("list")
@click.argument("home", type=ESCROW)
@json_option
def list_command(home: str, as_json: bool) -> None:
    """List what is being settled, or may have settled, oldest first."""
    from proofhold.escrow.home import open_home
    from proofhold.escrow.paybook import PaymentBook

    with open_home(home) as escrow:
        payments = PaymentBook(escrow.store).unsettled()
    if as_json:
        rows = [{"id": p.id, "job": p.job, "reference": p.reference, "status": p.status} for p in payments]
        echo_json({"payments": rows})
        return
    for payment in payments:
        known = f", transaction {payment.reference}" if payment.reference else ""
        click.echo(f"{payment.id}  {payment.status}, job {payment.job}{known}")


@payment_group.command("record")
@click.argument("home", type=ESCROW)
@click.argument("payment")
@click.option("--settled", "reference", metavar="TRANSACTION", help="It did, by this transaction.")
@click.option("--failed", is_flag=True, help="It did not: its payer has to make another.")
@now_option
@json_option
def record_command(
    home: str, payment: str, reference: str | None, failed: bool, now: int | None, as_json: bool
) -> None:
    """Say what became of PAYMENT, named by its identifier, after looking where it settles."""
    from proofhold.errors import Misuse
    from proofhold.escrow.home import open_home
    from proofhold.escrow.paybook import PaymentBook, Status
    from proofhold.escrow.refusals import Refused

    if failed == (reference is not None):
        raise Misuse("say what became of it: --settled TRANSACTION, or --failed")
    status = Status.FAILED if failed else Status.SETTLED
    with open_home(home) as escrow:
        book = PaymentBook(escrow.store)
        if payment not in {unsettled.id for unsettled in book.unsettled()}:
            raise Refused("payment.unknown", "no payment of this identifier waits for its outcome")
        book.end_settling(payment, status, reference=reference or "", now=clock(now))
    if as_json:
        echo_json({"payment": payment, "status": status})
    else:
        click.echo(f"{payment} is {status}")
