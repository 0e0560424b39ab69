"""``proofhold escrow fund`` and ``proofhold escrow settle``: the two that need both verifier and escrow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import (
    FILE,
    clock,
    echo_json,
    evidence_option,
    find_evidence,
    json_option,
    now_option,
    policy_option,
)
from proofhold_cli.parameters import ESCROW
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from proofhold.settlement import Decision


@click.command("fund")
@click.argument("home", type=ESCROW)
@click.argument("job_file", metavar="JOB", type=FILE)
@click.argument("input_file", metavar="INPUT", type=FILE)
@policy_option
@now_option
@root_option
@json_option
def fund_command(
    home: str,
    job_file: Path,
    input_file: Path,
    policy_name: str,
    now: int | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Take the price of JOB, and the provider's bond, into the escrow at HOME.

    Checks first what must hold before a job binds anyone: both signatures, the input against the model's
    domain, the locks, and that what the job admits can satisfy the policy.
    """
    from proofhold.catalogue import Catalogue
    from proofhold.escrow.home import open_home
    from proofhold.job import Job
    from proofhold.keys import Signed
    from proofhold.payload import decode_payload
    from proofhold.runner import ProcessRunner
    from proofhold.settlement import fund
    from proofhold.standard import standard_verifier
    from proofhold_cli.files import read_file, read_policy
    from proofhold_cli.root import find_root

    job = Signed.decode(Job, read_file(job_file))
    with open_home(home) as escrow, ProcessRunner() as runner:
        record = fund(
            job,
            decode_payload(read_file(input_file)),
            policy=read_policy(policy_name),
            verifier=standard_verifier(Catalogue.load(find_root(root)), runner),
            escrow=escrow,
            clock=lambda: clock(now),
        )
    price = job.document.currency.show(job.document.price)
    if as_json:
        echo_json({"hold": record.id, "price": price, "state": record.capture(0).state})
    else:
        click.echo(f"funded: {price} in hold {record.id}")


@click.command("settle")
@click.argument("home", type=ESCROW)
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@click.option("--key", "key_file", type=FILE, required=True, help="The verifier's private key.")
@click.option("--answers", "answers_file", type=FILE, help="What an earlier verdict needed.")
@click.option(
    "--acknowledgement",
    "acknowledgement_file",
    type=FILE,
    help="Where to write the signed word that an opening came.",
)
@click.option("--receipt", "receipt_file", type=FILE, help="Where to write the receipt.")
@policy_option
@evidence_option
@now_option
@root_option
@json_option
def settle_command(
    home: str,
    bundle_file: Path,
    key_file: Path,
    answers_file: Path | None,
    acknowledgement_file: Path | None,
    receipt_file: Path | None,
    policy_name: str,
    folder: Path | None,
    now: int | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Judge BUNDLE for its recorded claim and let the verdict decide the money in the escrow at HOME.

    An opening that was waited for, and fits, is acknowledged by signature: with it, no provider is silent.

    BUNDLE is kept there, so that the receipt can be recomputed: "evidence prune" says for how long.
    Ends with 0 if the provider is paid, 3 if nothing was decided, 4 if the verdict went against it.
    """
    from proofhold.answering import take_opening
    from proofhold.answers import decode_answers
    from proofhold.catalogue import Catalogue
    from proofhold.core import NeedKind
    from proofhold.escrow.home import open_home
    from proofhold.escrow.rail import LedgerRail
    from proofhold.escrow.states import State
    from proofhold.keys import SigningKey
    from proofhold.retention import EvidenceFolder
    from proofhold.runner import ProcessRunner
    from proofhold.settlement import verify_and_settle
    from proofhold.standard import standard_verifier
    from proofhold_cli.files import read_bundle, read_file, read_policy, write_file
    from proofhold_cli.root import find_root

    bundle = read_bundle(bundle_file)
    hold, seq = bundle.exchange.job.digest, bundle.exchange.claim.document.seq
    answers = decode_answers(read_file(answers_file)) if answers_file else ()
    with open_home(home) as escrow, ProcessRunner() as runner:
        if (kept := find_evidence(home, folder)) is not None:
            EvidenceFolder(kept, escrow).keep_bundle(hold, seq, bundle, answers, now=clock(now))
        verifier = standard_verifier(Catalogue.load(find_root(root)), runner)
        policy = read_policy(policy_name)
        key, openings = SigningKey.load(key_file), [a for a in answers if a.kind is NeedKind.OPENING]
        others = [answer for answer in answers if answer.kind is not NeedKind.OPENING]
        if openings and escrow.hold(hold).capture(seq).state is State.ANSWERING:
            answered = take_opening(
                hold,
                bundle,
                openings,
                verifier=verifier,
                policy=policy,
                escrow=escrow,
                key=key,
                seq=seq,
                answers=others,
                clock=lambda: clock(now),
            )
            decision = answered.decision
            if acknowledgement_file:
                write_file(acknowledgement_file, answered.acknowledgement.encode())
        else:
            decision = verify_and_settle(
                hold,
                bundle,
                verifier=verifier,
                policy=policy,
                escrow=escrow,
                key=key,
                seq=seq,
                answers=answers,
                clock=lambda: clock(now),
            )
        escrow.pump(LedgerRail(), now=clock(now))
        state = escrow.hold(hold).capture(decision.seq).state
    if receipt_file:
        write_file(receipt_file, decision.receipt.encode())
    _finish(decision, state.value, as_json=as_json)


@click.command("redeem")
@click.argument("home", type=ESCROW)
@click.argument("receipt_file", metavar="RECEIPT", type=FILE)
@now_option
@json_option
def redeem_command(home: str, receipt_file: Path, now: int | None, as_json: bool) -> None:
    """Let a signed RECEIPT decide: for a verifier that runs elsewhere. It decides one capture of one hold."""
    from proofhold.errors import Misuse
    from proofhold.escrow.home import open_home
    from proofhold.escrow.rail import LedgerRail
    from proofhold.receipt import Receipt
    from proofhold.settlement import settle_receipt
    from proofhold_cli.files import read_file

    receipt = Receipt.decode(read_file(receipt_file))
    if receipt.statement is None:
        raise Misuse("this receipt is about no capture: the bundle that it judged could not be read")
    hold = receipt.statement.job
    with open_home(home) as escrow:
        decision = settle_receipt(hold, receipt, escrow=escrow, clock=lambda: clock(now))
        escrow.pump(LedgerRail(), now=clock(now))
        state = escrow.hold(hold).capture(decision.seq).state
    _finish(decision, state.value, as_json=as_json)


def _finish(decision: Decision, state: str, *, as_json: bool) -> None:
    """Say what was decided, and end with the exit code that says it too."""
    from proofhold.settlement import Outcome
    from proofhold_cli.render import make_console, print_needs, print_reasons

    receipt = decision.receipt
    if as_json:
        reasons = [{"code": r.code, "fault": r.fault} for r in receipt.reasons]
        needs = [{"kind": n.kind, "subject": n.subject} for n in receipt.needs]
        echo_json(
            {
                "hold": decision.hold,
                "missing_receipts": decision.missing_receipts,
                "needs": needs,
                "outcome": decision.outcome,
                "reasons": reasons,
                "receipt": receipt.digest,
                "state": state,
            }
        )
    else:
        click.echo(f"{receipt.outcome}: {decision.outcome}, the capture is {state}")
        if decision.missing_receipts:
            click.echo(f"receipts of {decision.missing_receipts} more verifier(s) are needed for this price")
        console = make_console()
        print_reasons(console, receipt.reasons)
        print_needs(console, receipt.needs)
    codes = {Outcome.RELEASE: ExitCode.ACCEPTED, Outcome.KEEP: ExitCode.INCONCLUSIVE}
    click.get_current_context().exit(codes.get(decision.outcome, ExitCode.REJECTED))
