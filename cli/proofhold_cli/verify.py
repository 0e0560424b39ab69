"""``proofhold verify``."""

from __future__ import annotations

from pathlib import Path

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import FILE, clock, json_option, now_option, policy_option
from proofhold_cli.root import root_option


@click.command("verify")
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@policy_option
@click.option("--answers", "answers_file", type=FILE, help="What an earlier verdict needed.")
@click.option("--key", "key_file", type=FILE, help="A verifier's private key: also issue a receipt.")
@click.option("--receipt", "receipt_file", type=FILE, help="Where to write the receipt.")
@now_option
@root_option
@json_option
def verify_command(
    bundle_file: Path,
    policy_name: str,
    answers_file: Path | None,
    key_file: Path | None,
    receipt_file: Path | None,
    now: int | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Judge BUNDLE: an exchange and its evidence.

    Prints which properties are shown and on whose word, and every reason against. Nothing is fetched: what is
    missing is named, and can be handed in with --answers. Exit codes: 0 accepted, 3 inconclusive, 4 rejected.
    """
    from proofhold.answers import decode_answers
    from proofhold.catalogue import Catalogue
    from proofhold.core import Accepted, Inconclusive
    from proofhold.errors import Misuse
    from proofhold.keys import SigningKey
    from proofhold.receipt import Receipt, predicate_of
    from proofhold.runner import ProcessRunner
    from proofhold.standard import standard_verifier
    from proofhold_cli.files import echo_json, read_bundle, read_file, read_policy, write_file
    from proofhold_cli.render import make_console, print_verdict
    from proofhold_cli.root import find_root

    if (key_file is None) != (receipt_file is None):
        raise Misuse("--key and --receipt go together: a receipt is a signed verdict")
    bundle = read_bundle(bundle_file)
    answers = decode_answers(read_file(answers_file)) if answers_file else ()
    policy = read_policy(policy_name)
    with ProcessRunner() as runner:
        verifier = standard_verifier(Catalogue.load(find_root(root)), runner)
        verdict = verifier.verify(
            bundle.exchange, bundle.evidence, policy=policy, now=clock(now), answers=answers
        )
    if key_file and receipt_file:
        write_file(receipt_file, Receipt.issue(verdict, SigningKey.load(key_file)).encode())
    if as_json:
        echo_json(predicate_of(verdict))
    else:
        print_verdict(make_console(), verdict)
    match verdict:
        case Accepted():
            code = ExitCode.ACCEPTED
        case Inconclusive():
            code = ExitCode.INCONCLUSIVE
        case _:
            code = ExitCode.REJECTED
    click.get_current_context().exit(code)
