"""``proofhold verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import FILE, clock, json_option, now_option, policy_option
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from proofhold.batch import Result
    from proofhold.receipt import Outcome

MAX_JOBS = 256
"""As `proofhold.batch` has it, which is not imported for a help text."""


@click.command("verify")
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@policy_option
@click.option("--answers", "answers_file", type=FILE, help="What an earlier verdict needed.")
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    default=1,
    show_default=True,
    help="How many bundles to judge at once, each in a worker of its own.",
)
@click.option(
    "--resume",
    "results_file",
    type=FILE,
    help="Append each result to this file, and judge none again that it holds. Needs --now.",
)
@click.option("--key", "key_file", type=FILE, help="A verifier's private key: also issue a receipt.")
@click.option("--receipt", "receipt_file", type=FILE, help="Where to write the receipt.")
@now_option
@root_option
@json_option
def verify_command(
    bundles: tuple[Path, ...],
    policy_name: str,
    answers_file: Path | None,
    jobs: int,
    results_file: Path | None,
    key_file: Path | None,
    receipt_file: Path | None,
    now: int | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Judge each BUNDLE: an exchange and its evidence.

    Prints which properties are shown and on whose word, and every reason against. Nothing is fetched: what is
    missing is named, and can be handed in with --answers. Exit codes: 0 accepted, 3 inconclusive, 4 rejected.

    Of several bundles, or those in a folder, a summary is printed; the exit code is that of the worst. What
    crashes or hangs while one is checked leaves that one inconclusive, and no other.
    """
    if len(bundles) > 1 or results_file is not None or bundles[0].is_dir():
        if answers_file or key_file or receipt_file:
            raise click.UsageError("--answers, --key and --receipt go with one bundle, judged alone.")
        _judge_many(bundles, policy_name, jobs, results_file, now, root, as_json=as_json)
        return
    from proofhold.answers import decode_answers
    from proofhold.catalogue import Catalogue
    from proofhold.errors import Misuse
    from proofhold.keys import SigningKey
    from proofhold.receipt import Receipt, outcome_of, predicate_of
    from proofhold.runner import ProcessRunner
    from proofhold.standard import standard_verifier
    from proofhold_cli.files import echo_json, read_bundle, read_file, read_policy, write_file
    from proofhold_cli.render import make_console, print_verdict
    from proofhold_cli.root import find_root

    if (key_file is None) != (receipt_file is None):
        raise Misuse("--key and --receipt go together: a receipt is a signed verdict")
    bundle = read_bundle(bundles[0])
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
    click.get_current_context().exit(_exit_code(outcome_of(verdict)))


def _judge_many(
    paths: tuple[Path, ...],
    policy_name: str,
    jobs: int,
    results_file: Path | None,
    now: int | None,
    root: Path | None,
    *,
    as_json: bool,
) -> None:
    from proofhold.batch import ResultsFile, bundle_files, judge_all
    from proofhold.catalogue import Catalogue
    from proofhold.pool import VerifierPool
    from proofhold.standard import standard_verifier
    from proofhold_cli.files import read_policy
    from proofhold_cli.root import find_root

    if results_file is not None and now is None:
        raise click.UsageError("--resume needs --now: what was judged by another time is another verdict.")
    files, policy, instant = bundle_files(paths), read_policy(policy_name), clock(now)
    record = ResultsFile(results_file) if results_file is not None else None
    finished = record.finished(policy.digest, instant) if record else {}
    catalogue = Catalogue.load(find_root(root))
    with (
        VerifierPool(catalogue, workers=jobs) as runner,
        click.progressbar(
            length=len(files), label=f"judging {len(files)} bundles", file=sys.stderr
        ) as progress,
    ):

        def on_result(result: Result, judged: bool) -> None:
            if record and judged:
                record.append(result)
            progress.update(1)

        verifier = standard_verifier(catalogue, runner)
        results = judge_all(
            files, verifier, policy, now=instant, jobs=jobs, finished=finished, on_result=on_result
        )
    if as_json:
        for result in results:
            click.echo(result.encode().decode())
    else:
        _print_summary(results)
    click.get_current_context().exit(max(_exit_code(result.outcome) for result in results))


def _print_summary(results: list[Result]) -> None:
    from collections import Counter

    from proofhold_cli.terminal import print_table

    rows = [
        (result.file, (result.bundle or "none")[:16], result.outcome.value, ", ".join(result.codes))
        for result in results
    ]
    print_table(("file", "bundle", "outcome", "reasons"), rows)
    counts = Counter(result.outcome.value for result in results)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    click.echo(f"{len(results)} bundles: {told}")


def _exit_code(outcome: Outcome) -> ExitCode:
    from proofhold.receipt import Outcome

    return {
        Outcome.ACCEPTED: ExitCode.ACCEPTED,
        Outcome.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
        Outcome.REJECTED: ExitCode.REJECTED,
    }[outcome]
