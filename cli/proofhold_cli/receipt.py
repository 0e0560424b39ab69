"""``proofhold receipt``: show receipts and verify who signed them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode, fail
from proofhold_cli.files import FILE, echo_json, json_option, read_file
from proofhold_cli.recheck import recheck_command
from proofhold_cli.terminal import one_line, print_table, print_unsafe

if TYPE_CHECKING:
    from proofhold.receipt import Receipt


@click.group("receipt")
def receipt_group() -> None:
    """Show, verify and recompute receipts."""


receipt_group.add_command(recheck_command)


@receipt_group.command("show")
@click.argument("file", type=FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Print what the receipt in FILE says: with --json, the signed bytes themselves.

    Its signature is good, or this fails; whether to trust the key, "receipt verify" tells.
    """
    receipt = read_receipt(file)
    if as_json:
        click.echo(receipt.envelope.payload.decode())
    else:
        _print_receipt(receipt)


@receipt_group.command("verify")
@click.argument("file", type=FILE)
@click.option("--trust", "trust_file", type=FILE, required=True, help="The trust file.")
@json_option
def verify(file: Path, trust_file: Path, as_json: bool) -> None:
    """Tell whether a key that the trust file names signed FILE, within the key's interval.

    Ends with 0 whatever the receipt's outcome, and with 4 if its signer is not to be trusted.
    """
    from proofhold.keys import TrustStore

    receipt = read_receipt(file)
    trusted = TrustStore.load(trust_file).trusts(receipt.signer, receipt.now)
    if as_json:
        summary = {"digest": receipt.digest, "now": receipt.now, "outcome": receipt.outcome}
        echo_json({**summary, "signer": receipt.signer, "trusted": trusted})
    elif trusted:
        click.echo(f"good: {receipt.outcome}, signed by {receipt.signer}")
    if not trusted:
        text = f"{trust_file} does not trust {receipt.signer} for a judgement of time {receipt.now}"
        fail(text, code="receipt.untrusted", exit_code=ExitCode.REJECTED)


def read_receipt(file: Path) -> Receipt:
    """Read a receipt file that the user named."""
    from proofhold.receipt import Receipt

    return Receipt.decode(read_file(file))


def _print_receipt(receipt: Receipt) -> None:
    lines = {
        "outcome": receipt.outcome.value,
        "receipt": receipt.digest,
        "signed by": receipt.signer,
        "as of": f"{receipt.now} (unix seconds)",
        "bundle": receipt.bundle,
        "policy": receipt.policy,
        "judged with": f"proofhold {receipt.version}",
    }
    if receipt.statement is not None:
        lines["job"] = f"{receipt.statement.job}, capture {receipt.statement.seq}"
        lines["amount"] = f"{receipt.statement.amount} atomic units"
    print_table(["receipt", ""], lines.items())
    words = {prop: " and ".join(by) for prop, by in receipt.shown.items()}
    words |= dict.fromkeys(receipt.not_shown, "not shown")
    print_table(["property", "on whose word"], words.items())
    if receipt.reasons:
        rows = [(r.code, r.fault.value, r.message, r.got, r.expected) for r in receipt.reasons]
        print_table(["reason", "at fault", "", "got", "expected"], rows)
    for need in receipt.needs:
        click.echo(f"needs: {one_line(f'{need.kind} {need.subject}'.strip())}")
    for danger in sorted({danger for finding in receipt.findings for danger in finding.dangers}):
        print_unsafe(danger)
