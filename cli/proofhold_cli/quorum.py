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
    "--need", type=click.IntRange(1, 16), required=True, help="How many verifiers must say the same."
)
@click.option("--trust", "trust_file", type=FILE, required=True, help="The trust file of those that count.")
@click.option("--currency", default="USDC:6", show_default=True, help="Code and decimal places.")
@now_option
@json_option
def set_command(
    home: str, above: str, need: int, trust_file: Path, currency: str, now: int | None, as_json: bool
) -> None:
    """Let no money of a hold above a price move until NEED verifiers have said the same.

    The job's own verifier is one of them. Verifiers are told apart by their names in the trust file, which is
    copied into the escrow: after "keys rotate" or "keys revoke" hand it in again. With "--above 0 --need 1"
    every job takes a receipt of its verifier alone, and of a key that the trust file has for that time.
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
        say = "1 trusted verifier must say so" if need == 1 else f"{need} verifiers must say the same"
        click.echo(f"above {above} {unit.code}, {say}")
