"""Many bundles at once: results in order, one bundle's crash is its own, and nothing is judged twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as CliResult

import runner_tasks
from judging import NOW, POLICY, PROVED_BUNDLE, REPOSITORY, catalogue, logits, policy, proved, resigned
from judging import runner as shared_runner
from proofhold.backends.ezkl import EzklBackend
from proofhold.batch import MAX_JOBS, Result, ResultsFile, bundle_files, judge_all
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import Bundle
from proofhold.pool import VerifierPool
from proofhold.receipt import Outcome
from proofhold.runner import DEFAULT_DEADLINE_S, Runner, Task
from proofhold.verifier import Verifier
from proofhold_cli import main
from proofhold_cli import verify as verify_module


def honest(number: int) -> Bundle:
    """The fixture with another amount claimed: as good, and another bundle."""
    return resigned(proved(), amount=proved().exchange.claim.document.amount - number)


def written(folder: Path, bundles: Sequence[Bundle | bytes]) -> list[Path]:
    files = [folder / f"{number:02}.json" for number in range(len(bundles))]
    for path, bundle in zip(files, bundles, strict=True):
        path.write_bytes(bundle if isinstance(bundle, bytes) else bundle.encode())
    return files


def verifier(runner: Runner, deadline_s: float = 30.0) -> Verifier:
    return Verifier(catalogue(), backends=(EzklBackend(runner, deadline_s=deadline_s),))


class CrashingRunner:
    """A real pool in which the nth checks do to their worker what native code can do to a process."""

    def __init__(self, pool: Runner, crashes: dict[int, tuple[Task, bytes]]) -> None:
        self._pool, self._crashes = pool, crashes
        self._calls, self._lock = 0, threading.Lock()

    def run(self, task: Task, *parts: bytes, deadline_s: float = DEFAULT_DEADLINE_S) -> bytes:
        with self._lock:
            number, self._calls = self._calls, self._calls + 1
        if number in self._crashes:
            task, argument = self._crashes[number]
            return self._pool.run(task, argument, deadline_s=1.0)
        return self._pool.run(task, *parts, deadline_s=deadline_s)


def test_what_a_worker_suffers_costs_one_bundle_and_no_other(tmp_path: Path) -> None:
    files = written(tmp_path, [honest(number) for number in range(6)])
    with VerifierPool(catalogue(), workers=2) as pool:
        pool.start()  # both workers are there before a deadline of a second means anything
        crashes: dict[int, tuple[Task, bytes]] = {
            0: (runner_tasks.hang_with_the_lock, str(tmp_path).encode()),
            3: (runner_tasks.die, str(int(signal.SIGKILL)).encode()),
        }
        results = judge_all(files, verifier(CrashingRunner(pool, crashes)), policy(), now=NOW, jobs=2)
    lost = [result for result in results if result.outcome is Outcome.INCONCLUSIVE]
    assert {result.codes for result in lost} == {("ezkl.check_timed_out",), ("ezkl.check_crashed",)}
    assert [result.outcome for result in results if result not in lost] == [Outcome.ACCEPTED] * 4


def test_results_come_in_the_order_of_the_files_each_with_its_reasons(tmp_path: Path) -> None:
    files = written(tmp_path, [honest(0), b"{}", resigned(proved(), output=logits(0.0))])
    files.append(tmp_path / "gone.json")
    told: list[Result] = []
    results = judge_all(
        files,
        verifier(shared_runner()),
        policy(),
        now=NOW,
        jobs=3,
        on_result=lambda result, _: told.append(result),
    )
    assert [(result.outcome.value, result.codes) for result in results] == [
        ("accepted", ()),
        ("inconclusive", ("bundle.malformed",)),
        ("rejected", ("ezkl.output",)),
        ("inconclusive", ("bundle.unreadable",)),
    ]
    assert sorted(told, key=lambda result: result.file) == results


def test_what_is_finished_is_not_judged_again_and_what_is_not_is(tmp_path: Path) -> None:
    record = ResultsFile(tmp_path / "results")
    files = written(tmp_path, [honest(0), honest(1), b"{}"])

    def judged_now() -> list[str]:
        judged: list[str] = []

        def on_result(result: Result, was_judged: bool) -> None:
            if was_judged:
                record.append(result)
                judged.append(Path(result.file).name)

        finished = record.finished(policy().digest, NOW)
        judge_all(files, verifier(shared_runner()), policy(), now=NOW, finished=finished, on_result=on_result)
        return judged

    assert judged_now() == ["00.json", "01.json", "02.json"]
    assert judged_now() == ["02.json"], "a file that is no bundle is tried again"
    files[0].write_bytes(honest(2).encode())
    assert judged_now() == ["00.json", "02.json"], "the bundle counts, not the file's name"
    assert record.finished(policy().digest, NOW + 1) == {}
    assert record.finished(policy("proved").digest, NOW) == {}


def test_a_torn_line_counts_for_nothing_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results"
    one = Result("a", "11" * 32, policy().digest, NOW, Outcome.ACCEPTED)
    two = replace(one, file="b", bundle="22" * 32, outcome=Outcome.REJECTED, codes=("ezkl.proof",))
    path.write_bytes(one.encode()[:-9])
    record = ResultsFile(path)
    assert record.finished(policy().digest, NOW) == {}
    record.append(two)
    assert record.finished(policy().digest, NOW) == {two.bundle: two}
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    assert record.finished(policy().digest, NOW) == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b'"accepted"', b'"perhaps"'),
        lambda line: line.replace(b'"codes":[]', b'"codes":[1]'),
        lambda line: line.replace(b'"proofhold":"', b'"proofhold":"9'),
        lambda line: line + b" ",
    ],
)
def test_a_line_of_another_form_is_malformed(spoil: Callable[[bytes], bytes]) -> None:
    line = Result("a", "11" * 32, policy().digest, NOW, Outcome.ACCEPTED).encode()
    assert Result.decode(line).encode() == line
    with pytest.raises(Malformed):
        Result.decode(spoil(line))


def test_folders_are_listed_in_order_and_an_empty_one_is_misuse(tmp_path: Path) -> None:
    files = written(tmp_path, [b"", b""])
    (tmp_path / "notes.txt").touch()
    assert bundle_files([PROVED_BUNDLE, tmp_path]) == [PROVED_BUNDLE, *files]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misuse, match="no bundle"):
        bundle_files([tmp_path / "empty"])
    assert MAX_JOBS == verify_module.MAX_JOBS, "the command's bound is the library's"
    with pytest.raises(Misuse, match="0 jobs"):
        judge_all(files, verifier(shared_runner()), policy(), now=NOW, jobs=0)


# --- the command ----------------------------------------------------------------------------------------


def verify(*arguments: object) -> CliResult:
    options = ["--policy", POLICY, "--root", REPOSITORY]
    command = ["verify", *arguments, *options]
    return CliRunner().invoke(main, [str(argument) for argument in command], env={"COLUMNS": "200"})


def test_a_folder_gives_a_table_and_the_worst_exit_code(tmp_path: Path) -> None:
    written(tmp_path, [honest(0), b"nonsense", resigned(proved(), output=logits(0.0))])
    result = verify(tmp_path, "--jobs", 2, "--now", NOW)
    assert result.exit_code == 4, result.output
    assert "3 bundles: 1 accepted, 1 inconclusive, 1 rejected" in result.stdout
    assert "ezkl.output" in result.stdout
    assert "judging 3 bundles" in result.stderr
    (tmp_path / "02.json").unlink()
    assert verify(tmp_path, "--now", NOW).exit_code == 3


def test_json_is_a_line_a_bundle_and_resume_reads_the_same_lines(tmp_path: Path) -> None:
    one, two = written(tmp_path, [honest(0), honest(1)])
    results = tmp_path / "results.jsonl"
    first = verify(one, two, "--now", NOW, "--resume", results, "--json")
    assert first.exit_code == 0, first.output
    lines = [Result.decode(line.encode()) for line in first.stdout.splitlines()]
    assert [line.outcome for line in lines] == [Outcome.ACCEPTED] * 2
    held = results.read_bytes()
    again = verify(one, two, "--now", NOW, "--resume", results, "--json")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert results.read_bytes() == held, "nothing was judged, so nothing was appended"


def test_what_goes_with_one_bundle_is_misuse_with_many(tmp_path: Path) -> None:
    files = written(tmp_path, [honest(0), honest(1)])
    assert "judged alone" in verify(*files, "--answers", files[0]).output
    refused = verify(*files, "--resume", tmp_path / "results")
    assert (refused.exit_code, "--resume needs --now" in refused.output) == (2, True)
