"""What is kept holds for its bytes and its time, and no longer."""

from __future__ import annotations

import pytest

from proofhold.attestation.kept import Kept
from proofhold.attestation.refusal import Refusal


def kept(most: int = 3) -> Kept[tuple[str, int, int]]:
    return Kept(lambda check: check[1:], most=most)


def test_a_check_is_made_once_within_its_window_and_again_outside() -> None:
    made: list[int] = []
    memory = kept()

    def ask(now: int, *parts: bytes) -> str:
        def check() -> tuple[str, int, int]:
            made.append(now)
            return f"made at {now}", 10, 20

        return memory.get(*parts, now=now, check=check)[0]

    assert [ask(now, b"a") for now in (15, 10, 20)] == ["made at 15"] * 3
    assert ask(9, b"a") == "made at 9"
    assert ask(21, b"a") == "made at 21"
    assert made == [15, 9, 21]
    assert ask(15, b"a", b"") == "made at 15", "no two lists of parts are one"
    assert ask(16, b"", b"a") == "made at 16"


def test_no_refusal_is_kept() -> None:
    memory = kept()

    def refuse() -> tuple[str, int, int]:
        raise Refusal("nitro.signature", "no", step=7)

    for _ in range(2):
        with pytest.raises(Refusal):
            memory.get(b"a", now=1, check=refuse)
    assert len(memory) == 0
    assert memory.get(b"a", now=1, check=lambda: ("good", 0, 9))[0] == "good"


def test_what_was_asked_for_last_stays() -> None:
    memory = kept(most=2)
    made: list[bytes] = []

    def ask(part: bytes) -> None:
        def check() -> tuple[str, int, int]:
            made.append(part)
            return "good", 0, 9

        memory.get(part, now=1, check=check)

    for part in (b"a", b"b", b"a", b"c", b"a", b"b"):
        ask(part)
    assert made == [b"a", b"b", b"c", b"b"]
    assert len(memory) == 2
    memory.clear()
    assert len(memory) == 0
