"""``proofhold quorum``: several verifiers above a price."""

from __future__ import annotations

from pathlib import Path

import click

from proofhold_cli.files import FILE, clock, echo_json, json_option, now_option
from proofhold_cli.parameters import ESCROW


@click.group("quorum")
def quorum_group() -> None:
    """Ask for the receipts of several verifiers above a price."""


@quorum_group.command("set")
@click.argument("home", type=ESCROW)
@click.option("--above", required=True, help="A higher price than this takes them, such as 100.")
@click.option(
    "--need", type=click.IntRange(2, 16), required=True, help="How many verifiers must say the same."
)
@click.option("--trust", "trust_file", type=FILE, required=True, help="The trust file of those that count.")
@click.option("--currency", default="USDC:6", show_default=True, help="Code and decimal places.")
@now_option
@json_option
def set_command(
    home: str, above: str, need: int, trust_file: Path, currency: str, now: int | None, as_json: bool
) -> None:
    """Let no money of a hold above a price move until NEED verifiers have said the same.

    The job's own verifier is one of them. Verifiers are told apart by their names in the trust file.
    """
    from proofhold.escrow.home import open_home
    from proofhold.escrow.quorums import QuorumBook
    from proofhold.keys import TrustStore
    from proofhold.money import Currency

    unit, trust = Currency.named(currency), TrustStore.load(trust_file)
    with open_home(home) as escrow:
        QuorumBook(escrow.store).set(unit, above=unit.parse(above), need=need, trust=trust, now=clock(now))
    if as_json:
        echo_json({"above": above, "currency": unit.code, "need": need})
    else:
        click.echo(f"above {above} {unit.code}, {need} verifiers must say the same")
