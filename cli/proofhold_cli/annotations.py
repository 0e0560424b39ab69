"""Differences as CI systems show them beside a change: GitHub's annotations and GitLab's code quality report.

Both name a file by its path from the repository's root, where a CI's commands run, so paths are given from
the working directory. What is told may be a stranger's text, such as a value in a settings file: GitHub obeys
whatever line begins with two colons, so nothing of it begins one, nor ends one early.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from proofhold_cli.terminal import one_line

if TYPE_CHECKING:
    from proofhold.compile import Difference

RULE = "proofhold/not-as-pinned"

CIRCUIT_WORDS = {
    True: "the circuit differs too: proofs of one say nothing of the other model",
    False: "the circuit is the same: the models differ by less than a quantisation step",
}
"""What the comparison of a changed model file says of the circuit (`Difference.changes_circuit`)."""


def github(differences: Iterable[Difference], root: Path) -> Iterator[str]:
    """Give each difference as the workflow command of an error at the file it is about."""
    for difference in differences:
        file = _property(_path(difference, root))
        title = _property(f"{difference.name}: {difference.field}")
        yield f"::error file={file},title={title}::{_data(_words(difference))}"


def code_quality(differences: Iterable[Difference], root: Path) -> bytes:
    """Give all differences as one report, a JSON list; an empty one where nothing differs."""
    from proofhold import canonical

    return canonical.encode(
        [
            {
                "check_name": RULE,
                "description": f"{one_line(difference.name)}: {_words(difference)}",
                # The same difference in another run is the same finding.
                "fingerprint": hashlib.sha256(
                    "\0".join((difference.name, difference.field, difference.found)).encode()
                ).hexdigest(),
                "location": {"lines": {"begin": 1}, "path": _path(difference, root)},
                "severity": "critical",
            }
            for difference in differences
        ]
    )


def _words(difference: Difference) -> str:
    text = f"{difference.field}: pinned {difference.pinned}, found {difference.found}"
    if difference.changes_circuit is not None:
        text += f"; {CIRCUIT_WORDS[difference.changes_circuit]}"
    return one_line(text)


def _path(difference: Difference, root: Path) -> str:
    return Path(os.path.relpath(root / difference.file)).as_posix()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(one_line(text)).replace(":", "%3A").replace(",", "%2C")
