"""``proofhold escrow``: an escrow in a folder, from a shell. ``fund`` and ``settle`` are in `settlement`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import FILE, clock, echo_json, json_option, now_option
from proofhold_cli.parameters import ESCROW
from proofhold_cli.settlement import fund_command, redeem_command, settle_command

if TYPE_CHECKING:
    from proofhold.canonical import Json
    from proofhold.escrow import HoldRecord, Transition

seq_option = click.option("--seq", type=click.IntRange(min=0), default=0, help="The capture, from 0.")


@click.group("escrow")
def escrow_group() -> None:
    """Hold money, record claims, settle."""


escrow_group.add_command(fund_command)
escrow_group.add_command(settle_command)
escrow_group.add_command(redeem_command)


@escrow_group.command("init")
@click.argument("home", type=ESCROW)
@click.option("--id", "escrow", default="escrow", show_default=True, help="The escrow's name, for its jobs.")
@click.option("--operator", "operators", multiple=True, help="A public key that may resolve disputes.")
@click.option(
    "--unbonding-s",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How long a released job's bond stays within reach of a transcript, in seconds.",
)
@json_option
def init_command(home: str, escrow: str, operators: tuple[str, ...], unbonding_s: int, as_json: bool) -> None:
    """Make an escrow in HOME: a folder that nobody else may look into, or the address of a database.

    An address is what PostgreSQL's own programs take: postgresql://host/name, or service=name.
    """
    from proofhold.escrow.home import create_home

    with create_home(home, escrow=escrow, operators=operators, unbonding_s=unbonding_s) as made:
        content = {"id": made.id, "operators": list(made.operators)}
    if as_json:
        echo_json(content)
    else:
        click.echo(f"escrow {content['id']} in {home}")


@escrow_group.command("deposit")
@click.argument("home", type=ESCROW)
@click.argument("account")
@click.argument("amount")
@click.option("--currency", default="USDC:6", show_default=True, help="Code and decimal places.")
@click.option("--key", "idempotency_key", required=True, help="Names the deposit: twice is once.")
@now_option
@json_option
def deposit_command(
    home: str,
    account: str,
    amount: str,
    currency: str,
    idempotency_key: str,
    now: int | None,
    as_json: bool,
) -> None:
    """Put AMOUNT, such as 12.5, into ACCOUNT: a party's public key, or a payee's name."""
    from proofhold.escrow.home import open_home
    from proofhold.money import Currency

    unit = Currency.named(currency)
    with open_home(home) as escrow:
        balance = escrow.deposit(account, unit.parse(amount), unit, key=idempotency_key, now=clock(now))
    if as_json:
        echo_json({"account": account, "balance": unit.format(balance.amount), "currency": unit.code})
    else:
        click.echo(f"{account} has {unit.show(balance.amount)}")


@escrow_group.command("claim")
@click.argument("home", type=ESCROW)
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@now_option
@json_option
def claim_command(home: str, bundle_file: Path, now: int | None, as_json: bool) -> None:
    """Record the provider's claim from BUNDLE, and deposit its output. The first claim wins."""
    from proofhold.escrow.home import open_home
    from proofhold_cli.files import read_bundle

    exchange = read_bundle(bundle_file).exchange
    with open_home(home) as escrow:
        record = escrow.record_claim(exchange.claim, exchange.output, now=clock(now))
    _report(record, as_json=as_json)


@escrow_group.command("decline")
@click.argument("home", type=ESCROW)
@click.argument("decline_file", metavar="DECLINE", type=FILE)
@now_option
@json_option
def decline_command(home: str, decline_file: Path, now: int | None, as_json: bool) -> None:
    """Give the buyer the money back at the provider's signed word, and pay it out."""
    from proofhold.escrow.home import open_home
    from proofhold.escrow.rail import LedgerRail
    from proofhold.job import Decline
    from proofhold.keys import Signed
    from proofhold_cli.files import read_file

    decline = Signed.decode(Decline, read_file(decline_file))
    with open_home(home) as escrow:
        escrow.decline(decline, now=clock(now))
        escrow.pump(LedgerRail(), now=clock(now))
        record = escrow.hold(decline.document.job)
    _report(record, as_json=as_json)


@escrow_group.command("two-keys")
@click.argument("home", type=ESCROW)
@click.argument("above")
@click.option("--currency", default="USDC:6", show_default=True, help="Code and decimal places.")
@json_option
def two_keys_command(home: str, above: str, currency: str, as_json: bool) -> None:
    """Ask for two operators' keys whenever a resolution decides a price above ABOVE, such as 1000."""
    from proofhold.escrow.home import open_home
    from proofhold.money import Currency

    unit = Currency.named(currency)
    with open_home(home) as escrow:
        escrow.set_two_keys(unit, unit.parse(above))
    if as_json:
        echo_json({"above": above, "currency": unit.code})
    else:
        click.echo(f"two keys above {unit.show(unit.parse(above))}")


@escrow_group.command("resolve")
@click.argument("home", type=ESCROW)
@click.argument("hold")
@click.option("--outcome", type=click.Choice(["release", "refund"]), help="Who gets it.")
@click.option("--reason", help="Why, in words: it is signed.")
@click.option(
    "--key", "key_files", type=FILE, required=True, multiple=True, help="An operator's private key."
)
@click.option("--sign-to", "signed_file", type=FILE, help="Only sign, and write it there for a second key.")
@click.option("--signed", "from_file", type=FILE, help="What another operator has signed, to sign as well.")
@seq_option
@now_option
@json_option
def resolve_command(
    home: str,
    hold: str,
    outcome: str | None,
    reason: str | None,
    key_files: tuple[Path, ...],
    signed_file: Path | None,
    from_file: Path | None,
    seq: int,
    now: int | None,
    as_json: bool,
) -> None:
    """Decide a disputed HOLD by an operator's signed word, and pay it out.

    Above the amount of `two-keys` it takes two operators: one signs with --sign-to, the other with --signed.
    """
    from proofhold.escrow.home import open_home
    from proofhold.escrow.rail import LedgerRail
    from proofhold.job import Resolution, ResolutionOutcome
    from proofhold.keys import Signed, SigningKey
    from proofhold_cli.files import read_file, write_file

    if (from_file is None) == (outcome is None or not reason):
        raise click.UsageError("Say --outcome and --reason, or what was --signed.")
    if from_file is not None:
        signed = Signed.decode(Resolution, read_file(from_file))
        if (signed.document.job, signed.document.seq) != (hold, seq):
            raise click.UsageError(f"It resolves capture {signed.document.seq} of {signed.document.job}.")
        click.echo(f"{signed.document.outcome}, because: {signed.document.reason}", err=True)
    else:
        chosen = ResolutionOutcome(outcome or "")
        signed = Signed.new(Resolution(job=hold, seq=seq, outcome=chosen, reason=reason or ""))
    for key_file in key_files:
        signed = signed.signed(SigningKey.load(key_file))
    if signed_file is not None:
        write_file(signed_file, signed.encode())
        click.echo(f"signed, for another operator to sign as well: {signed_file}")
        return
    with open_home(home) as escrow:
        escrow.resolve(signed, now=clock(now))
        escrow.pump(LedgerRail(), now=clock(now))
        record = escrow.hold(hold)
    _report(record, as_json=as_json)


@escrow_group.command("export")
@click.argument("home", type=ESCROW)
@click.argument("file", type=FILE)
@json_option
def export_command(home: str, file: Path, as_json: bool) -> None:
    """Write everything that the escrow at HOME holds into a new FILE. Keep it: it holds secrets."""
    from proofhold.escrow.home import open_home

    with open_home(home) as escrow:
        rows = escrow.export_to(file)
    if as_json:
        echo_json({"file": str(file), "rows": rows})
    else:
        click.echo(f"{rows} rows in {file}")


@escrow_group.command("import")
@click.argument("home", type=ESCROW)
@click.argument("file", type=FILE)
@json_option
def import_command(home: str, file: Path, as_json: bool) -> None:
    """Make a new escrow at HOME of FILE, an export of any escrow; its books are audited before it is kept."""
    from proofhold.escrow.home import import_home

    with import_home(home, file) as escrow:
        name = escrow.id
    if as_json:
        echo_json({"file": str(file), "id": name})
    else:
        click.echo(f"escrow {name} from {file}: the books agree")


@escrow_group.command("expire")
@click.argument("home", type=ESCROW)
@now_option
@json_option
def expire_command(home: str, now: int | None, as_json: bool) -> None:
    """Do everything that time alone does, and pay out what is decided."""
    from proofhold.escrow.home import open_home
    from proofhold.escrow.rail import LedgerRail

    with open_home(home) as escrow:
        moves = escrow.run_timers(clock(now))
        pumped = escrow.pump(LedgerRail(), now=clock(now))
    if as_json:
        echo_json({"moves": [_move(move) for move in moves], "paid": pumped.paid, "unknown": pumped.unknown})
        return
    for move in moves:
        click.echo(f"{move.hold}  {move.subject}: {move.source} -> {move.target} ({move.event})")
    click.echo(f"{len(moves)} moves by time, {pumped.paid} payments")


@escrow_group.command("show")
@click.argument("home", type=ESCROW)
@click.argument("hold")
@json_option
def show_command(home: str, hold: str, as_json: bool) -> None:
    """Show HOLD, named by its job's digest, with everything that happened to it."""
    from proofhold.escrow.home import open_home

    with open_home(home) as escrow:
        record, moves = escrow.hold(hold), escrow.history(hold)
    if as_json:
        echo_json(_content(record) | {"moves": [_move(move) for move in moves]})
        return
    _report(record, as_json=False)
    for move in moves:
        cause = f" by {move.cause}" if move.cause else ""
        click.echo(
            f"  {move.at}  {move.subject}: {move.source or '-'} -> {move.target} ({move.event}){cause}"
        )


@escrow_group.command("balances")
@click.argument("home", type=ESCROW)
@json_option
def balances_command(home: str, as_json: bool) -> None:
    """List what every account holds. They sum to zero."""
    from proofhold.escrow.home import open_home

    with open_home(home) as escrow:
        balances = escrow.balances()
    if as_json:
        rows: list[Json] = [
            {
                "amount": balance.currency.format(balance.amount),
                "currency": balance.currency.code,
                "kind": balance.account.kind,
                "owner": balance.account.owner,
            }
            for balance in balances
        ]
        echo_json({"accounts": rows})
        return
    for balance in balances:
        name = f"{balance.account.kind} {balance.account.owner}".rstrip()
        click.echo(f"{balance.currency.show(balance.amount):>24}  {name}")


@escrow_group.command("audit")
@click.argument("home", type=ESCROW)
@json_option
def audit_command(home: str, as_json: bool) -> None:
    """Recompute the books from what is append-only. Ends with 1 if they do not agree."""
    from proofhold.escrow.home import open_home

    with open_home(home) as escrow:
        differences = escrow.audit()
    if as_json:
        echo_json({"differences": [{"message": d.message, "subject": d.subject} for d in differences]})
    else:
        for difference in differences:
            click.echo(f"{difference.subject}: {difference.message}")
        click.echo(f"{len(differences)} differences" if differences else "the books agree")
    if differences:
        click.get_current_context().exit(ExitCode.OUR_FAILURE)


@escrow_group.command("reveal")
@click.argument("home", type=ESCROW)
@click.argument("hold")
@click.option("--out", "out_file", type=FILE, help="Also write it as an answers file for `proofhold verify`.")
@seq_option
@json_option
def reveal_command(home: str, hold: str, out_file: Path | None, seq: int, as_json: bool) -> None:
    """Print the sampling secret of HOLD, in hexadecimal, once its claim is recorded."""
    from proofhold.answers import encode_answers
    from proofhold.escrow.home import open_home
    from proofhold.settlement import answers_of
    from proofhold_cli.files import write_file

    with open_home(home) as escrow:
        secret, answers = escrow.reveal(hold, seq), answers_of(escrow, hold, seq)
    if out_file is not None:
        write_file(out_file, encode_answers(answers))
    if as_json:
        echo_json({"hold": hold, "secret": secret.hex(), "seq": seq})
    else:
        click.echo(secret.hex())


@escrow_group.command("deliver")
@click.argument("home", type=ESCROW)
@click.argument("hold")
@click.option("--out", "out_file", type=FILE, required=True, help="Where to write the output payload.")
@seq_option
@json_option
def deliver_command(home: str, hold: str, out_file: Path, seq: int, as_json: bool) -> None:
    """Write the buyer's output to a file, when the job's delivery rule allows."""
    from proofhold.escrow.home import open_home
    from proofhold.payload import encode_payload
    from proofhold_cli.files import write_file

    with open_home(home) as escrow:
        output = escrow.deliver(hold, seq)
    write_file(out_file, encode_payload(output))
    if as_json:
        echo_json({"hold": hold, "out": str(out_file), "seq": seq})
    else:
        click.echo(f"delivered to {out_file}")


def _report(record: HoldRecord, *, as_json: bool) -> None:
    if as_json:
        echo_json(_content(record))
        return
    money = record.job.document.currency
    click.echo(f"hold {record.id}: {money.show(record.job.document.price)}")
    for capture in record.captures:
        timer = f", until {capture.due}" if capture.due is not None else ""
        click.echo(f"  capture {capture.seq}: {capture.state}{timer}")
    timer = f", until {record.bond.due}" if record.bond.due is not None else ""
    click.echo(f"  bond {money.show(record.bond.amount)}: {record.bond.state}{timer}")


def _content(record: HoldRecord) -> dict[str, Json]:
    job = record.job.document
    captures: list[Json] = [
        {
            "attempts": capture.attempts,
            "claim": None if capture.claim is None else capture.claim.digest,
            "claimed_at": capture.claimed_at,
            "decisions": [{"receipt": d.receipt_digest, "ruling": d.ruling} for d in capture.decisions],
            "due": capture.due,
            "seq": capture.seq,
            "state": capture.state,
        }
        for capture in record.captures
    ]
    bond = {
        "amount": job.currency.format(record.bond.amount),
        "due": record.bond.due,
        "state": record.bond.state,
    }
    return {
        "bond": bond,
        "captures": captures,
        "currency": job.currency.code,
        "funded_at": record.funded_at,
        "hold": record.id,
        "price": job.currency.format(job.price),
    }


def _move(move: Transition) -> Json:
    return {
        "at": move.at,
        "cause": move.cause,
        "event": move.event,
        "hold": move.hold,
        "seq": move.seq,
        "source": move.source,
        "subject": move.subject,
        "target": move.target,
    }
