"""``proofhold shadow``: what a hook in shadow mode would have done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from proofhold_cli.files import clock, echo_json, json_option, now_option
from proofhold_cli.parameters import ESCROW

if TYPE_CHECKING:
    from proofhold.shadow import CurrencyReport


@click.group("shadow")
def shadow_group() -> None:
    """Compare a hook in shadow mode with what really happened."""


@shadow_group.command("report")
@click.argument("home", type=ESCROW)
@json_option
def report_command(home: str, as_json: bool) -> None:
    """Show where the hook agrees with what became of the money, and what is at stake where it does not."""
    from proofhold.escrow.home import open_home
    from proofhold.shadow import report

    with open_home(home) as escrow:
        found = report(escrow)
    if as_json:
        echo_json(found.to_json())
        return
    if not found.currencies:
        click.echo("no shadow decisions yet")
    for currency in found.currencies:
        _print_currency(currency)
    for differing in found.disagreements:
        shadow = differing.shadow
        reasons = ", ".join(differing.reason_codes) or "nothing against it"
        click.echo(
            f"  {shadow.hold}:{shadow.seq}  {shadow.currency.show(shadow.amount)}: it was a {shadow.actual}, "
            f"the hook says {shadow.outcome} ({reasons})"
        )


@shadow_group.command("tell")
@click.argument("home", type=ESCROW)
@click.argument("hold")
@click.option("--actual", type=click.Choice(["release", "refund"]), required=True, help="Who got the money.")
@click.option("--seq", type=click.IntRange(min=0), default=0, help="The capture, from 0.")
@now_option
@json_option
def tell_command(home: str, hold: str, actual: str, seq: int, now: int | None, as_json: bool) -> None:
    """Say what became of HOLD where the money moved outside of this escrow. It is told once."""
    from proofhold.escrow.escrow import Ruling
    from proofhold.escrow.home import open_home
    from proofhold.escrow.shadows import ShadowBook

    with open_home(home) as escrow:
        ShadowBook(escrow.store).tell(hold, seq, Ruling(actual), now=clock(now))
    if as_json:
        echo_json({"actual": actual, "hold": hold, "seq": seq})
    else:
        click.echo(f"{hold}:{seq} was a {actual}")


def _print_currency(report: CurrencyReport) -> None:
    share = report.agreement_ppm
    agreed = "nothing to compare yet" if share is None else f"{share / 10_000:.2f} % agreement"
    click.echo(f"{report.currency.code}: {report.compared} compared, {agreed}")
    for finding, total in report.sums.items():
        if total.captures:
            name = finding.replace("_", " ")
            click.echo(f"  {name:<16} {total.captures:>6}  {report.currency.show(total.amount)}")
    if report.at_stake:
        click.echo(f"  at stake: {report.currency.show(report.at_stake)} paid that would not have been")
