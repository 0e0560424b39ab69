"""``proofhold policy``: explain what a policy demands, and what can satisfy it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode, fail
from proofhold_cli.files import echo_json, json_option, read_policy
from proofhold_cli.root import root_option
from proofhold_cli.terminal import one_line, print_table, print_unsafe

if TYPE_CHECKING:
    from proofhold.policy import Policy, Reach, Way


@click.group("policy")
def policy_group() -> None:
    """Explain what a policy demands, and what can satisfy it."""


@policy_group.command("list")
@json_option
def list_policies(as_json: bool) -> None:
    """List the policies that ship with proofhold."""
    from proofhold.policy import Policy, shipped_names

    policies = [Policy.shipped(name) for name in shipped_names()]
    if as_json:
        echo_json([{"digest": p.digest, "name": p.name, "summary": p.summary} for p in policies])
    else:
        print_table(["policy", "what it asks"], [(p.name, p.summary) for p in policies])


@policy_group.command("show")
@click.argument("policy")
@json_option
def show(policy: str, as_json: bool) -> None:
    """Say in words what POLICY demands: a file, or the name of a shipped one."""
    found = read_policy(policy)
    if as_json:
        echo_json({"digest": found.digest, "policy": found.to_json()})
    else:
        _explain(found)


@policy_group.command("check")
@click.argument("policy")
@click.option(
    "--model", help="Ask for one model of the catalogue instead of what proofhold could do at best."
)
@root_option
@json_option
def check(policy: str, model: str | None, root: Path | None, as_json: bool) -> None:
    """Say in words what POLICY demands and which kinds of evidence can satisfy it.

    Ends with 4 if at no price any kind can.
    """
    found = read_policy(policy)
    reach = _reach(found, model, root)
    satisfiable = any(tier.ways for tier in reach)
    if as_json:
        tiers = [_reach_to_json(tier) for tier in reach]
        echo_json({"digest": found.digest, "name": found.name, "satisfiable": satisfiable, "tiers": tiers})
    else:
        _explain(found)
        _print_reach(found, reach)
    if not satisfiable:
        fail("no kind of evidence can satisfy it", code="policy.unsatisfiable", exit_code=ExitCode.REJECTED)


def _reach(policy: Policy, model: str | None, root: Path | None) -> tuple[Reach, ...]:
    """Ask which kinds of evidence can meet it: of one model, or of the best that there could be."""
    from proofhold.catalogue import Catalogue
    from proofhold.standard import standard_reach
    from proofhold_cli.root import find_root

    return standard_reach(policy, Catalogue.load(find_root(root)).by_name(model) if model else None)


def _explain(policy: Policy) -> None:
    for line in policy.explain():
        click.echo(one_line(line))
    click.echo(f"digest: {policy.digest}")
    if policy.accept_dangers:
        print_unsafe(f"{policy.name} accepts {', '.join(policy.accept_dangers)}")


def _print_reach(policy: Policy, reach: tuple[Reach, ...]) -> None:
    rows = []
    lower: int | None = None
    for tier in reach:
        ways = "; ".join(_say(way) for way in tier.ways) or "nothing"
        rows.append((policy.price_range(tier.tier, lower), ways))
        lower = tier.tier.up_to
    print_table(["price", "satisfied by"], rows)
    for tier in reach:
        for reason in tier.reasons:
            text = f"{reason.code}: {reason.message}: got {reason.got}, expected {reason.expected}"
            click.echo(one_line(text))


def _say(way: Way) -> str:
    from proofhold.policy import percent

    kinds = " with ".join(way.kinds)
    return f"{kinds}, where at least {percent(way.rate_ppm)} are drawn" if way.rate_ppm else kinds


def _reach_to_json(reach: Reach) -> dict[str, object]:
    cap = reach.tier.up_to
    return {
        "reasons": [
            {"code": r.code, "expected": r.expected, "got": r.got, "message": r.message}
            for r in reach.reasons
        ],
        "up_to_atomic": None if cap is None else str(cap),
        "ways": [{"from_rate_ppm": way.rate_ppm, "kinds": list(way.kinds)} for way in reach.ways],
    }
