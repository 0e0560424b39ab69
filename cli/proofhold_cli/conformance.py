"""``proofhold conformance``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode, fail
from proofhold_cli.files import FILE, echo_json, json_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proofhold.conformance.comparison import Result
    from proofhold.conformance.index import Case


@click.command("conformance")
@click.argument("index_file", metavar="INDEX", type=FILE)
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only cases of this kind; repeatable.")
@click.option("--command", metavar="CMD", help="Ask this program instead of our own verifiers.")
@json_option
def conformance_command(index_file: Path, kinds: tuple[str, ...], command: str | None, as_json: bool) -> None:
    """Run every case of INDEX and say where the verifier agrees with it.

    Files are looked for beside INDEX. Ends with 0 only when every case agrees; with 4 when one disagrees;
    with 3 when none does, but some are of a kind that the verifier does not know: those are never agreement.
    What an index is, and what CMD reads and writes, is in docs/formats/conformance.md.
    """
    from proofhold.conformance.comparison import Outcome
    from proofhold.conformance.index import load_index
    from proofhold.errors import Misuse

    cases = [case for case in load_index(index_file) if not kinds or case.kind in kinds]
    missing = sorted(set(kinds) - {case.kind for case in cases})
    if not cases or missing:
        raise Misuse(f"no case{f' of the kind {missing[0]}' if missing else ''} in {index_file}")
    results = list(_results(cases, index_file.parent, command))
    count = Counter(result.outcome for result in results)
    if as_json:
        echo_json({**{str(o): count[o] for o in Outcome}, "cases": [_described(r) for r in results]})
    else:
        _print(results)
    if count[Outcome.DISAGREE]:
        text = f"{count[Outcome.DISAGREE]} of {len(results)} cases disagree"
        fail(text, code="conformance.disagree", exit_code=ExitCode.REJECTED)
    if count[Outcome.UNSUPPORTED]:
        text = f"{count[Outcome.UNSUPPORTED]} of {len(results)} cases are unsupported"
        fail(text, code="conformance.unsupported", exit_code=ExitCode.INCONCLUSIVE)


def _results(cases: Iterable[Case], folder: Path, command: str | None) -> Iterator[Result]:
    from proofhold.conformance.checkers import check
    from proofhold.conformance.comparison import compare
    from proofhold.conformance.foreign import Foreign

    if command is None:
        for case in cases:
            yield compare(case, check(case.kind, case.read(folder), case.now, case.params))
        return
    with Foreign(command) as foreign:
        for case in cases:
            yield compare(case, foreign.check(case, case.read(folder)))


def _described(result: Result) -> dict[str, object]:
    return {
        "codes": list(result.answer.codes),
        "detail": result.answer.detail,
        "id": result.case.id,
        "kind": result.case.kind,
        "outcome": str(result.outcome),
        "problem": result.problem,
        "verdict": str(result.answer.verdict),
    }


def _print(results: list[Result]) -> None:
    from proofhold.conformance.comparison import Outcome
    from proofhold_cli.terminal import print_table

    def row(result: Result) -> tuple[str, ...]:
        answer = result.answer
        said = f"{answer.verdict} {', '.join(answer.codes)}".strip()
        return result.case.id, str(result.outcome), result.problem or said

    judged = [result for result in results if result.outcome is not Outcome.UNSUPPORTED]
    print_table(("case", "", "said"), map(row, judged))
    if len(judged) < len(results):
        click.echo("Unsupported, and no agreement:")
        apart = [result for result in results if result.outcome is Outcome.UNSUPPORTED]
        print_table(("case", "why"), ((r.case.id, r.answer.detail) for r in apart))
    counts = Counter((result.case.kind, result.outcome) for result in results)
    kinds = sorted({result.case.kind for result in results})
    print_table(
        ("kind", *(str(outcome) for outcome in Outcome)),
        ((kind, *(str(counts[kind, outcome]) for outcome in Outcome)) for kind in kinds),
    )
