"""The draw of PROTOCOL P2."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofhold.errors import Misuse
from proofhold.sampling import commitment, is_drawn, seed

NONCE, SECRET, CLAIM = b"n" * 32, b"s" * 32, "ab" * 32


def test_commitment_and_seed_are_the_hashes_that_the_protocol_states() -> None:
    committed = hashlib.sha256(b"proofhold/sampling-commitment/v1" + NONCE + SECRET).hexdigest()
    assert commitment(NONCE, SECRET) == committed
    drawn = hashlib.sha256(b"proofhold/sampling-seed/v1" + SECRET + bytes.fromhex(CLAIM)).hexdigest()
    assert seed(SECRET, CLAIM) == drawn


@pytest.mark.parametrize(
    ("prefix", "rate_ppm", "drawn"),
    [
        ("00" * 8, 0, False),
        ("00" * 8, 1, True),
        ("ff" * 8, 999_999, False),
        ("ff" * 8, 1_000_000, True),
        ("7fffffffffffffff", 500_000, True),
        ("8000000000000000", 500_000, False),
        ("3333333333333332", 200_000, True),
        ("3333333333333333", 200_000, False),
    ],
)
def test_is_drawn_at_the_edges(prefix: str, rate_ppm: int, drawn: bool) -> None:
    assert is_drawn(prefix + "00" * 24, rate_ppm) is drawn
    assert is_drawn(prefix + "ff" * 24, rate_ppm) is drawn


@given(st.binary(min_size=32, max_size=32), st.integers(0, 999_999))
def test_a_higher_rate_draws_what_a_lower_one_drew(body: bytes, rate_ppm: int) -> None:
    assert is_drawn(body.hex(), rate_ppm) <= is_drawn(body.hex(), rate_ppm + 1)


def test_the_rate_is_met() -> None:
    draws = [is_drawn(seed(SECRET, hashlib.sha256(b"%d" % i).hexdigest()), 200_000) for i in range(5_000)]
    assert 900 < sum(draws) < 1_100  # 1,000 expected; four standard deviations are 113


def test_what_is_of_no_length_or_rate_is_misuse() -> None:
    for call in (
        lambda: commitment(b"n", SECRET),
        lambda: commitment(NONCE, b"s"),
        lambda: seed(b"s", CLAIM),
        lambda: seed(SECRET, "ab"),
        lambda: is_drawn("ab", 1),
        lambda: is_drawn(CLAIM, -1),
        lambda: is_drawn(CLAIM, 1_000_001),
    ):
        with pytest.raises(Misuse):
            call()
