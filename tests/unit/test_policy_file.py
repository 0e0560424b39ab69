"""The policy file: version 1 stays readable, and everything that is not one is refused by code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documents import FIXTURES, FOUR, POLICY, POLICY_TOML
from mutations import damaged
from proofhold.core import Assurance, Property
from proofhold.demand import AllOf, AnyOf, Show
from proofhold.errors import Malformed, Misuse
from proofhold.job import PPM
from proofhold.money import Currency
from proofhold.policy import MAX_POLICY_BYTES, Policy

PROVED, ATTESTED, REEXECUTED, NOT_DRAWN = Assurance
TEXT = POLICY_TOML.decode()

LEAST = 'version = 1\nname = "p"\nsummary = "s"\n[[tiers]]\n[tiers.demand]\nshow = ["model"]\nby = "proved"\n'


def code_of(text: str | bytes) -> str:
    with pytest.raises(Malformed) as caught:
        Policy.parse(text.encode() if isinstance(text, str) else text)
    assert str(caught.value).count("\n") == 0
    return caught.value.code


def message_of(text: str) -> str:
    with pytest.raises(Malformed) as caught:
        Policy.parse(text.encode())
    assert caught.value.code == "policy.malformed"
    return caught.value.message


def replaced(old: str, new: str, text: str = TEXT) -> str:
    assert old in text
    return text.replace(old, new, 1)


def test_version_1_is_read_whole() -> None:
    policy = Policy.load(FIXTURES / "policy.toml")
    assert policy == POLICY
    assert policy.name == "dangerous_fixture"
    assert policy.summary == "Every part of a policy file, once."
    assert policy.currency == Currency("USDC", 6)
    assert policy.accept_dangers == ("unsafe-dev-srs",)
    sampled, both, open_ended = policy.tiers
    assert (sampled.up_to, sampled.least_sampling_rate_ppm) == (2_500_000, 50_000)
    assert sampled.demand == AnyOf((Show(FOUR, (PROVED,)), Show(FOUR, (REEXECUTED, NOT_DRAWN))))
    assert (both.up_to, both.least_sampling_rate_ppm) == (100_000_000, None)
    assert both.demand == AllOf((Show(FOUR, (PROVED,)), Show((Property.PROVIDER,), (PROVED, ATTESTED))))
    assert (open_ended.up_to, open_ended.demand) == (None, Show(tuple(Property), (ATTESTED,)))
    assert policy.digest == "9e69bfa0efe527110463c14d9198f5298b1f504198a6e853b36e922d6b1e3234"


def test_comments_and_layout_do_not_count() -> None:
    laid_out = "\r\n".join(line for line in TEXT.splitlines() if line and not line.startswith("#"))
    other = replaced(
        'show = ["provider"], by = ["attested", "proved"]', "by=['proved','attested'],show=['provider']"
    )
    for text in (laid_out, f"# another comment\n{TEXT}", other):
        assert Policy.parse(text.encode()).digest == POLICY.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dangerous_fixture", "dangerous_other"),
        ("Every part", "Any part"),
        ("exponent = 6", "exponent = 7"),
        ('"USDC"', '"EURC"'),
        ("unsafe-dev-srs", "sim"),
        ('"2.5"', '"2.6"'),
        ('"0.05"', '"0.06"'),
        ('"reexecuted", "not_drawn"', '"reexecuted", "not_drawn", "attested"'),
        ("any = [", "all = ["),
        ('"fresh"], by = "proved"', '"provider"], by = "proved"'),
    ],
)
def test_everything_else_counts(old: str, new: str) -> None:
    assert Policy.parse(replaced(old, new).encode()).digest != POLICY.digest


def test_the_least_policy() -> None:
    policy = Policy.parse(LEAST.encode())
    assert (policy.currency, policy.accept_dangers) == (None, ())
    assert policy.tiers[0].demand == Show((Property.MODEL,), (PROVED,))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"\xff", "policy.not_toml"),
        ("version = ", "policy.not_toml"),
        ("", "policy.malformed"),
        ('version = 1\nversion = 1\nname = "p"', "policy.not_toml"),
        ("\ufeff" + LEAST, "policy.not_toml"),
        (LEAST.replace("version = 1", "version = 2"), "policy.version"),
        (LEAST.replace("version = 1", "version = true"), "policy.malformed"),
        (LEAST.replace("version = 1", "version = " + "9" * 5000), "policy.not_toml"),
        (LEAST.replace("version = 1", "version = 2026-11-23"), "policy.malformed"),
        (LEAST + "#" * (MAX_POLICY_BYTES - len(LEAST) + 1), "policy.too_large"),
    ],
)
def test_what_is_no_policy_has_a_code(text: str | bytes, code: str) -> None:
    assert code_of(text) == code


def test_the_largest_policy_is_read() -> None:
    assert Policy.parse((LEAST + "#" * (MAX_POLICY_BYTES - len(LEAST))).encode()) == Policy.parse(
        LEAST.encode()
    )


def test_what_the_toml_parser_says_is_passed_on() -> None:
    with pytest.raises(Malformed, match=r"not TOML: Invalid value \(at line 1, column 11\)"):
        Policy.parse(b"version = \n")


def test_a_date_is_called_one() -> None:
    assert "expected an integer, got a date" in message_of(
        LEAST.replace("version = 1", "version = 2026-11-23")
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "dangerous_fixture"', "", "name: missing"),
        ('name = "dangerous_fixture"', "name = 3", "name: expected a string, got a number"),
        ('name = "dangerous_fixture"', 'name = "fixture"', "name that begins with dangerous_"),
        ("summary = ", 'colour = "red"\nsummary = ', "unknown field 'colour'"),
        ("Every part of a policy file, once.", "", "summary: expected one line"),
        ("exponent = 6", "exponent = 6, sign = '$'", "currency: unknown field 'sign'"),
        ("exponent = 6", "exponent = 25", "exponent: got 25, expected 0 to 24"),
        ('"USDC"', '"usdc"', "currency code"),
        (
            'currency = { code = "USDC", exponent = 6 }',
            "",
            "up_to: an amount, in a policy that states no currency",
        ),
        ('["unsafe-dev-srs"]', '"unsafe-dev-srs"', "accept_dangers: expected a list"),
        ('["unsafe-dev-srs"]', '["sim", 1]', "accept_dangers: expected a list of strings"),
        ('["unsafe-dev-srs"]', "[1]", "accept_dangers: expected a list of strings"),
        (
            '["unsafe-dev-srs"]',
            str([f"d{i}" for i in range(9)]),
            "accept_dangers: 9 items, expected at most 8",
        ),
        ('up_to = "2.5"', "up_to = 2.5", "tiers[0].up_to: expected a string, got a number"),
        ('up_to = "2.5"', 'up_to = "2.50"', "got '2.50', expected '2.5'"),
        ('up_to = "2.5"', 'up_to = "2.0000001"', "finer than its 6 decimal places"),
        ('up_to = "2.5"', 'up_to = "-1"', "expected a plain decimal"),
        ('up_to = "2.5"', 'up_to = "0"', "expected more than nothing"),
        ('up_to = "2.5"', 'up_to = "100"', "each up_to above the one before"),
        ('up_to = "2.5"', "", "only the last one open"),
        ('least_sampling_rate = "0.05"', "", "tiers[0]: least_sampling_rate: missing"),
        ('least_sampling_rate = "0.05"', "least_sampling_rate = 0.05", "expected a string, got a number"),
        (
            'up_to = "100"',
            'up_to = "100"\nleast_sampling_rate = "0.5"',
            "tiers[1]: least_sampling_rate: given",
        ),
        ('up_to = "100"', 'up_to = "100"\nforce = true', "tiers[1]: unknown field 'force'"),
        ("any = [", "none = [", "got none of show, all, any, expected exactly one"),
        ("any = [", 'show = ["model"]\nany = [', "got any and show of show, all, any, expected exactly one"),
        ("all = [", 'by = "proved"\nall = [', "unknown field 'by'"),
        (', by = "proved"', "", "demand.any[0].by: missing"),
        ('by = "proved"', 'by = "promised"', "got 'promised', expected a list out of proved, attested"),
        ('by = "proved"', "by = []", "an empty demand demands nothing"),
        ('by = "proved"', "by = 1", "by: got '1', expected a list"),
        ('by = "proved"', 'by = ["proved", 1]', "expected a list out of"),
        ('by = "proved"', 'by = ["proved", "proved"]', "by: the same word twice"),
        ('by = "proved"', 'by = "proved", of = 1', "demand.any[0]: unknown field 'of'"),
        ('["reexecuted", "not_drawn"]', '"not_drawn"', "not_drawn without reexecuted"),
        ('show = ["provider"]', "show = []", "an empty demand demands nothing"),
        (
            'show = ["provider"]',
            'show = ["truth"]',
            "expected a list out of model, input, output, fresh, provider",
        ),
        ('show = ["provider"]', 'show = ["provider", "provider"]', "demand.all[1].show: the same word twice"),
        ('show = ["provider"]', "show = { provider = 1 }", "demand.all[1].show: got"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, said: str) -> None:
    assert said in message_of(replaced(old, new))


def with_demand(demand: str) -> str:
    return f'version = 1\nname = "p"\nsummary = "s"\n[[tiers]]\ndemand = {demand}\n'


LEAF = '{show=["model"],by="proved"}'


def nested(levels: int) -> str:
    return LEAF if levels == 1 else f"{{any=[{nested(levels - 1)}]}}"


def wide(*counts: int) -> str:
    branches = ",".join(f"{{any=[{','.join([LEAF] * count)}]}}" for count in counts)
    return f"{{all=[{branches}]}}"


def test_depth_and_width_are_bounded() -> None:
    Policy.parse(with_demand(nested(4)).encode())
    assert "nested deeper than 4 levels" in message_of(with_demand(nested(5)))
    Policy.parse(with_demand(wide(8, 8)).encode())
    assert "tiers[0].demand: 17 demands, expected at most 16" in message_of(with_demand(wide(8, 8, 1)))
    assert "9 items, expected at most 8" in message_of(with_demand(wide(9)))
    assert "all: 0 demands, expected 1 to 8" in message_of(with_demand("{all=[]}"))
    assert "any: 0 demands, expected 1 to 8" in message_of(with_demand("{any=[]}"))
    assert "demand.all[0]: expected an object, got a string" in message_of(with_demand('{all=["proved"]}'))
    assert "demand: expected an object, got a list" in message_of(with_demand("[]"))


def test_tiers_are_bounded() -> None:
    tier = '[[tiers]]\nup_to = "{}"\n[tiers.demand]\nshow = ["model"]\nby = "proved"\n'
    head = LEAST.split("[[tiers]]")[0] + 'currency = { code = "USDC", exponent = 6 }\n'
    Policy.parse((head + "".join(tier.format(n) for n in range(1, 9))).encode())
    assert "9 items" in message_of(head + "".join(tier.format(n) for n in range(1, 10)))
    assert "tiers: got 0" in message_of(head + "tiers = []")


@pytest.mark.parametrize(
    ("text", "ppm"),
    [
        ("1", PPM),
        ("0.5", 500_000),
        ("0.05", 50_000),
        ("0.000001", 1),
        ("0.999999", 999_999),
        ("0.100001", 100_001),
    ],
)
def test_rates_are_exact(text: str, ppm: int) -> None:
    assert Policy.parse(replaced('"0.05"', f'"{text}"').encode()).tiers[0].least_sampling_rate_ppm == ppm


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.0",
        "1.0",
        "1.5",
        "2",
        "0.50",
        ".5",
        "0,5",
        "5%",
        "0.0000001",
        "0.0000010",
        "1e-3",
        "-0.5",
        "0.5\\n",
        "",
    ],
)
def test_rates_have_one_form(text: str) -> None:
    assert "least_sampling_rate: got" in message_of(replaced('"0.05"', f'"{text}"'))


def test_files_that_cannot_be_read_are_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=re.escape(f"cannot read the policy {tmp_path / 'none'}")):
        Policy.load(tmp_path / "none")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * 10 * MAX_POLICY_BYTES)
    with pytest.raises(Malformed, match=r"policy\.too_large"):
        Policy.load(large)


def test_a_damaged_policy_is_refused_or_is_another_policy() -> None:
    """What parses all the same either says the same or has another digest."""
    accepted = 0
    for data in damaged(POLICY_TOML, count=1500):
        try:
            policy = Policy.parse(data)
        except Malformed:
            continue
        accepted += 1
        assert (policy.digest == POLICY.digest) == (policy.to_json() == POLICY.to_json())
    assert accepted > 20  # damage to comments, for the least


def test_nesting_that_python_does_not_survive() -> None:
    """The last test of its file: what traces the tests for mutants does not outlive a RecursionError."""
    assert code_of(f"deep = {'[' * 3000}") == "policy.not_toml"
