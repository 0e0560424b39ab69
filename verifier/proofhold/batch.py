"""Many bundles, judged side by side: one verifier, one policy, one time, and a result for each.

What one bundle does to a worker costs that bundle an inconclusive result and no other: the runner starts
another worker. A batch that was interrupted is taken up again from its file of results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from proofhold import canonical
from proofhold.canonical import Digest
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import MAX_BUNDLE_BYTES, Bundle
from proofhold.policy import Policy
from proofhold.receipt import Outcome, outcome_of
from proofhold.records import Record
from proofhold.regular import open_regular
from proofhold.verifier import Verifier
from proofhold.version import __version__

BUNDLE_PATTERN = "*.json"
"""Which files of a folder are taken for bundles."""
MAX_BUNDLES = 100_000
MAX_JOBS = 256
MAX_CODES = 16
"""A result names so many codes; the verdict itself names them all."""
MAX_LINE_BYTES = 16 * 1024
MAX_RESULTS_BYTES = 1024 * 2**20


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one bundle: a line of the summary and of the file of results."""

    file: str
    bundle: Digest | None
    """The bundle's digest; None where the file holds no bundle."""
    policy: Digest
    now: int
    """The time that it was judged by, unix seconds."""
    outcome: Outcome
    codes: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Tell whether judging again would give the same; an inconclusive bundle may come out otherwise."""
        return self.bundle is not None and self.outcome is not Outcome.INCONCLUSIVE

    def encode(self) -> bytes:
        """Write the result as one line of canonical JSON, without the line's end."""
        return canonical.encode(
            {
                "bundle": self.bundle,
                "codes": list(self.codes),
                "file": self.file,
                "now": self.now,
                "outcome": self.outcome.value,
                "policy": self.policy,
                "proofhold": __version__,
                "version": 1,
            }
        )

    @classmethod
    def decode(cls, line: bytes) -> Result:
        """Read a line.

        Raises:
            Malformed: ``result.…``: not such a line, or of another version of this library.

        """
        record = Record(canonical.decode(line, max_bytes=MAX_LINE_BYTES, what="result"), what="result")
        record.version(1)
        if record.text("proofhold") != __version__:
            raise record.error(f"expected a result of proofhold {__version__}", "proofhold")
        codes = record.items("codes", max_items=MAX_CODES)
        if not all(isinstance(code, str) for code in codes):
            raise record.error("expected texts", "codes")
        result = cls(
            file=record.text("file", max_chars=MAX_LINE_BYTES),
            bundle=record.optional("bundle", record.digest),
            policy=record.digest("policy"),
            now=record.integer("now"),
            outcome=record.choice("outcome", Outcome),
            codes=tuple(codes),
        )
        record.close()
        return result


class ResultsFile:
    """An append-only file of results, a line each. It is the user's own, and trusted as such.

    A line that does not parse, such as one that a crash cut short, counts for nothing: judging a bundle
    again is always right.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self._path = path

    def finished(self, policy: Digest, now: int) -> dict[Digest, Result]:
        """Give what was finished under this policy at this time, by the bundle's digest.

        Raises:
            Misuse: the file cannot be read or is absurdly large.

        """
        found = {}
        for line in self._lines():
            try:
                result = Result.decode(line)
            except Malformed:
                continue
            if result.bundle and result.is_finished and (result.policy, result.now) == (policy, now):
                found[result.bundle] = result
        return found

    def append(self, result: Result) -> None:
        """Add a line, written through to the system before this returns.

        Raises:
            Misuse: the file cannot be written.

        """
        try:
            with self._path.open("ab+") as file:
                torn = file.tell() > 0 and not self._ends_a_line()
                file.write((b"\n" if torn else b"") + result.encode() + b"\n")
        except OSError as error:
            raise Misuse(f"cannot write {self._path}: {error.strerror}") from error

    def _ends_a_line(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"

    def _lines(self) -> Iterable[bytes]:
        if not (self._path.exists() or self._path.is_symlink()):
            return []
        try:
            if self._path.stat().st_size > MAX_RESULTS_BYTES:
                raise Misuse(f"{self._path} is larger than {MAX_RESULTS_BYTES} bytes")
            with open_regular(self._path) as file:
                return file.read(MAX_RESULTS_BYTES).split(b"\n")
        except OSError as error:
            raise Misuse(f"cannot read {self._path}: {error.strerror}") from error


def bundle_files(paths: Sequence[Path]) -> list[Path]:
    """List the files that the user named, and the bundles of each folder in order of their names.

    Raises:
        Misuse: a folder without bundles, or too many.

    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob(BUNDLE_PATTERN)) if path.is_dir() else [path]
        if not found:
            raise Misuse(f"no bundle ({BUNDLE_PATTERN}) in {path}")
        files += found
    if len(files) > MAX_BUNDLES:
        raise Misuse(f"{len(files)} bundles, expected at most {MAX_BUNDLES}")
    return files


def judge_all(
    files: Sequence[Path],
    verifier: Verifier,
    policy: Policy,
    *,
    now: int,
    jobs: int = 1,
    finished: Mapping[Digest, Result] | None = None,
    on_result: Callable[[Result, bool], None] = lambda _result, _judged: None,
) -> list[Result]:
    """Judge the bundle in each file; gives the results in the order of the files.

    Args:
        files: where the bundles are.
        verifier: who judges; its `VerifierPool` should have as many workers as there are `jobs`.
        policy: what is demanded.
        now: the time to judge by, unix seconds.
        jobs: how many bundles at once.
        finished: results that stand, by the bundle's digest.
        on_result: told each result as it comes, one at a time, and whether it was judged just now.

    Raises:
        Misuse: a number of jobs that makes no sense.

    """
    if not 0 < jobs <= MAX_JOBS:
        raise Misuse(f"{jobs} jobs, expected 1 to {MAX_JOBS}")
    known = finished or {}
    telling = threading.Lock()

    def one(path: Path) -> Result:
        result, judged = _judge(path, verifier, policy, now, known)
        with telling:
            on_result(result, judged)
        return result

    pool = ThreadPoolExecutor(jobs, thread_name_prefix="proofhold-batch")
    try:
        return list(pool.map(one, files))
    finally:
        # After an interrupt or a full disk, what has not begun does not begin.
        pool.shutdown(cancel_futures=True)


def _judge(
    path: Path, verifier: Verifier, policy: Policy, now: int, known: Mapping[Digest, Result]
) -> tuple[Result, bool]:
    """Judge one file; what is wrong with it is its own result, never the batch's end."""
    # A name on a disk is bytes, and need be no text.
    name = os.fsencode(path).decode(errors="backslashreplace")

    def inconclusive(code: str) -> Result:
        return Result(name, None, policy.digest, now, Outcome.INCONCLUSIVE, (code,))

    try:
        with open_regular(path) as file:
            data = file.read(MAX_BUNDLE_BYTES + 1)
        bundle = Bundle.decode(data)
    except OSError:
        return inconclusive("bundle.unreadable"), True
    except Malformed as error:
        return inconclusive(error.code), True
    digest = bundle.digest
    if digest in known:
        before = known[digest]
        return Result(name, digest, policy.digest, now, before.outcome, before.codes), False
    verdict = verifier.verify(bundle.exchange, bundle.evidence, policy=policy, now=now)
    codes = tuple(dict.fromkeys(reason.code for reason in verdict.reasons))[:MAX_CODES]
    return Result(name, digest, policy.digest, now, outcome_of(verdict), codes), True


__all__ = ["Result", "ResultsFile", "bundle_files", "judge_all"]
