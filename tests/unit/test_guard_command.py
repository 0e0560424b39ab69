"""``proofhold guard``: what it prints, what it draws, and what it knows of a provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from escrow_builders import PROVIDER, START, USDC, Scene, digest_of, memory_folder
from proofhold.escrow import Ruling, create_home
from proofhold.guard import Observation, Terms
from proofhold.job import PPM
from proofhold_cli import main

PLAN = ("guard", "plan", "--price", "1", "--bond", "50", "--loss", "1000")


@pytest.fixture
def home() -> Iterator[Path]:
    with memory_folder() as folder:
        create_home(folder / "home", escrow="test-escrow").close()
        yield folder / "home"


def ok(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def read(*arguments: str | Path) -> Any:
    return json.loads(ok(*arguments, "--json"))


def test_a_plan_is_printed() -> None:
    shown = ok(*PLAN)
    assert shown.startswith("at most 999.999983 USDC lost undetected, with probability 99 %")
    for word in ("probation", "steady", "138 clean checks", "deters from a rate of 1.0011 %", "99.9999 %"):
        assert word in shown
    assert "deters at no rate" in ok(*PLAN[:5], "0.1", *PLAN[6:])


def test_a_plan_is_written_as_json() -> None:
    found = read(*PLAN)
    assert [stage["name"] for stage in found["stages"]] == ["probation", "steady"]
    assert found["stages"][-1]["rate_ppm"] == found["least_rate_ppm"] == 10_011
    assert found["terms"]["kappa"] == "43.386018"
    assert len(found["worst_cases"]) == 4
    assert read(*PLAN[:5], "1100", *PLAN[6:])["newcomer_is_covered"] is True


@pytest.mark.parametrize("bond", ["0", "50", "1100"])
def test_a_plan_is_drawn_within_its_frame(tmp_path: Path, bond: str) -> None:
    page = tmp_path / "plan.html"
    ok(*PLAN[:5], bond, *PLAN[6:], "--plot", page)
    text = page.read_text()
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", text)  # it fetches nothing
    assert "<script" not in text
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) == 2
    for figure in figures:
        root = ElementTree.fromstring(figure)  # noqa: S314
        for path in root.findall("{http://www.w3.org/2000/svg}path"):
            for x, y in re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"]):
                assert 0 <= float(x) <= 640
                assert 0 <= float(y) <= 340


def test_what_cannot_be_planned_is_misuse() -> None:
    for changes in (("--delta", "0"), ("--delta", "2"), ("--loss", "0"), ("--price", "0")):
        result = CliRunner().invoke(main, [*PLAN, *changes])
        assert result.exit_code == 2, result.output


def test_an_escrow_is_guarded(home: Path) -> None:
    shown = read("guard", "set", home, "--loss", "1000", "--now", str(START))
    assert shown["worst_case"] == "999.999983"
    assert "guarded: at most" in ok("guard", "set", home, "--loss", "1000", "--delta", "0.001")


def test_evidence_is_shown_with_its_bound() -> None:
    with memory_folder() as folder:
        (folder / "home").mkdir(mode=0o700)
        scene = Scene.create(folder / "home")
        scene.escrow.set_guard(USDC, Terms(kappa=1_000), now=START)
        for number in range(30):
            hold = scene.claimed(sampling_rate_ppm=PPM)
            scene.escrow.apply(
                hold.id,
                0,
                Ruling.RELEASE,
                receipt_digest=digest_of(str(number)),
                receipt=b"r",
                now=START,
                observation=Observation.CLEAN,
            )
        scene.escrow.close()
        (found,) = read("guard", "show", PROVIDER.public, "--escrow", folder / "home")["models"]
        shown = ok("guard", "show", PROVIDER.public, "--escrow", folder / "home")
    assert (found["clean"], found["failed"], found["probation_left"]) == (30, 0, 108)
    assert found["fails_at_most_ppm"] == 95_034
    assert "30 clean, 0 failed; with 95 % confidence at most 9.5034 % fail" in shown


def test_a_newcomer_is_said_to_be_one(home: Path) -> None:
    assert "newcomer" in ok("guard", "show", PROVIDER.public, "--escrow", home)
    assert read("guard", "show", PROVIDER.public, "--escrow", home)["models"] == []
