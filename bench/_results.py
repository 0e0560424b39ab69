"""bench/RESULTS.md: one file for people, of which every benchmark owns one section and rewrites only that."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

PATH = Path(__file__).with_name("RESULTS.md")
PREFACE = """# Benchmarks

Each section is written by the script that it names: `make bench` runs them all. Absolute times belong to the
machine that a section describes; what carries over are the ratios and the counts.
"""


def machine() -> str:
    """What the figures were taken on: the kind of machine, never its name or its paths."""
    today = datetime.now(UTC).date().isoformat()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{_cpu()}, {os.cpu_count()} cores; {python}, {platform.system()} {platform.machine()}; {today}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(script: str, title: str, body: str) -> None:
    """Replace a script's section, or add it at the end; the others stay as they are."""
    begin, end = f"<!-- begin {script} -->", f"<!-- end {script} -->"
    section = f"{begin}\n## {title}\n\n`bench/{script}`, on {machine()}.\n\n{body.strip()}\n{end}"
    text = PATH.read_text() if PATH.exists() else PREFACE
    if begin in text:
        before, rest = text.split(begin, 1)
        after = rest.split(end, 1)[1]
        text = before + section + after
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    PATH.write_text(text)
    print(f"{body.strip()}\n\nWritten to bench/{PATH.name}, section {title!r}")


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
