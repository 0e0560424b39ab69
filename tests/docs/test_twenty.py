"""docs/twenty-tests.md lists the numbered tests there are, and no other."""

from __future__ import annotations

import re

from console import ROOT

NUMBERED = re.compile(r"^def (test_0?(\d{1,2})_\w+)", re.MULTILINE)
NOT_BUILT = {13, 14, 15, 16, 17, 18}


def test_every_numbered_test_is_on_the_page_under_its_number() -> None:
    sources = [path.read_text() for path in sorted((ROOT / "tests" / "attestation").glob("test_*.py"))]
    there = {name: int(number) for text in sources for name, number in NUMBERED.findall(text)}
    listed: dict[str, int] = {}
    number = 0
    for line in (ROOT / "docs" / "twenty-tests.md").read_text().splitlines():
        if heading := re.match(r"## (\d+)\. ", line):
            number = int(heading[1])
        listed |= dict.fromkeys(re.findall(r"`(test_\w+)`", line), number)
    assert listed == there
    assert set(listed.values()) == set(range(1, 21)) - NOT_BUILT
