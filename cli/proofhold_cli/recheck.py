"""``proofhold receipt recheck``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode, fail
from proofhold_cli.files import FILE, echo_json, json_option
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from proofhold.policy import Policy
    from proofhold.receipt import Receipt


@click.command("recheck")
@click.argument("receipt_file", metavar="RECEIPT", type=FILE)
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@click.option("--policy", "policy_name", metavar="NAME|FILE", help="Needed where it is no shipped one.")
@click.option("--answers", "answers_file", type=FILE, help="What the receipt names by digest alone.")
@root_option
@json_option
def recheck_command(
    receipt_file: Path,
    bundle_file: Path,
    policy_name: str | None,
    answers_file: Path | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Judge BUNDLE again and say whether RECEIPT says the same.

    Ends with 0 if it does, whatever the outcome was, and with 4 if not. Whose signature it bears, and whether
    to trust it, is what `proofhold receipt verify` tells.
    """
    from proofhold.answers import decode_answers
    from proofhold.catalogue import Catalogue
    from proofhold.receipt import Receipt
    from proofhold.recomputation import recheck
    from proofhold.runner import ProcessRunner
    from proofhold.standard import standard_verifier
    from proofhold_cli.files import read_bundle, read_file, read_policy
    from proofhold_cli.render import make_console, print_reasons
    from proofhold_cli.root import find_root

    receipt = Receipt.decode(read_file(receipt_file))
    bundle = read_bundle(bundle_file)
    answers = decode_answers(read_file(answers_file)) if answers_file else ()
    policy = read_policy(policy_name) if policy_name else _shipped_policy_of(receipt)
    with ProcessRunner() as runner:
        verifier = standard_verifier(Catalogue.load(find_root(root)), runner)
        reasons = recheck(receipt, bundle, policy=policy, verifier=verifier, answers=answers)
    if as_json:
        differences = [{"code": r.code, "computed": r.expected, "receipt": r.got} for r in reasons]
        echo_json({"differences": differences, "outcome": receipt.outcome, "same": not reasons})
    elif not reasons:
        click.echo(f"the same: {receipt.outcome}")
    else:
        print_reasons(make_console(), reasons)
    if reasons:
        fail("the receipt does not say what its inputs give", code="recheck", exit_code=ExitCode.REJECTED)


def _shipped_policy_of(receipt: Receipt) -> Policy:
    """Find the policy that a receipt names among the shipped ones."""
    from proofhold.errors import Misuse
    from proofhold.policy import Policy, shipped_names

    for name in shipped_names():
        policy = Policy.shipped(name)
        if policy.digest == receipt.policy:
            return policy
    raise Misuse(f"the receipt was made under policy {receipt.policy}: name its file with --policy")
