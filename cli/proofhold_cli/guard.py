"""``proofhold guard``: what a guarantee in money costs, who gives it, and what is known of a provider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import FILE, FOLDER, clock, echo_json, json_option, now_option
from proofhold_cli.parameters import ESCROW
from proofhold_cli.terminal import one_line, print_table

if TYPE_CHECKING:
    from proofhold.escrow import GuardRecord
    from proofhold.guard import Plan, Stage, Terms
    from proofhold.money import Currency

DELTAS_PPM = (50_000, 10_000, 1_000, 1)
"""For which δ a plan states the worst case, in parts per million."""

loss_option = click.option("--loss", required=True, help="What may be lost undetected at most, such as 230.")
delta_option = click.option(
    "--delta", default="0.01", show_default=True, help="How probable a greater loss may be."
)
currency_option = click.option(
    "--currency", default="USDC:6", show_default=True, help="Code and decimal places."
)
detection_option = click.option(
    "--detection", default="0.999", show_default=True, help="How often a check finds a cheat: measure it."
)
saving_option = click.option(
    "--saving", default="0.5", show_default=True, help="What a cheat saves, as a share of the price."
)


@click.group("guard")
def guard_group() -> None:
    """Bound in money what an unchecked provider can cost."""


@guard_group.command("plan")
@click.option("--price", required=True, help="What one job costs, such as 1.5.")
@click.option("--bond", required=True, help="What the provider stakes on each job.")
@loss_option
@delta_option
@detection_option
@saving_option
@click.option(
    "--check-cost", default="0.14", show_default=True, help="What a check costs, as a share of an inference."
)
@currency_option
@click.option("--plot", "plot_file", type=FILE, help="Also draw it: an HTML file to write.")
@json_option
def plan_command(
    price: str,
    bond: str,
    loss: str,
    delta: str,
    detection: str,
    saving: str,
    check_cost: str,
    currency: str,
    plot_file: Path | None,
    as_json: bool,
) -> None:
    """Print the rate, the bond and the probation that keep a loss within bounds.

    One job's price and bond, and the most that may be lost undetected, give all the rest.
    """
    from proofhold.guard import plan
    from proofhold.job import parse_rate
    from proofhold.money import Currency
    from proofhold_cli.files import write_file
    from proofhold_cli.guard_plot import draw

    unit = Currency.named(currency)
    terms = _terms(unit, loss=loss, delta=delta, detection=detection, saving=saving)
    found = plan(terms, price=unit.parse(price), bond=unit.parse(bond))
    cost_ppm = parse_rate(check_cost)
    if plot_file is not None:
        write_file(plot_file, draw(found, unit).encode())
    if as_json:
        echo_json(_plan_to_json(found, unit, cost_ppm))
    else:
        _print_plan(found, unit, cost_ppm)


@guard_group.command("set")
@click.argument("home", type=ESCROW)
@loss_option
@delta_option
@detection_option
@saving_option
@currency_option
@now_option
@json_option
def set_command(
    home: str,
    loss: str,
    delta: str,
    detection: str,
    saving: str,
    currency: str,
    now: int | None,
    as_json: bool,
) -> None:
    """Guard the jobs of a currency in the escrow at HOME, from the next one that is funded."""
    from proofhold.escrow.home import open_home
    from proofhold.money import Currency

    unit = Currency.named(currency)
    terms = _terms(unit, loss=loss, delta=delta, detection=detection, saving=saving)
    with open_home(home) as escrow:
        escrow.set_guard(unit, terms, now=clock(now))
    if as_json:
        echo_json(_terms_to_json(terms, unit))
    else:
        click.echo(f"guarded: {_promise(terms, unit)}")


@guard_group.command("show")
@click.argument("provider")
@click.option("--escrow", "home", type=FOLDER, required=True, help="The escrow's folder.")
@json_option
def show_command(provider: str, home: Path, as_json: bool) -> None:
    """Show what the checks of PROVIDER, a public key, have shown so far, and how much that says.

    The failure rate is bounded from above with 95 % confidence (Clopper-Pearson, one-sided).
    """
    from proofhold.escrow.home import open_home

    with open_home(home) as escrow:
        records = escrow.guard_records(provider)
    if as_json:
        echo_json({"models": [_record_to_json(record) for record in records], "provider": provider})
        return
    if not records:
        click.echo("nothing is known of this provider: a newcomer, on probation where a guard is set")
        return
    for record in records:
        for line in _say(record):
            click.echo(one_line(line))


def _terms(unit: Currency, *, loss: str, delta: str, detection: str, saving: str) -> Terms:
    from proofhold.guard import Terms
    from proofhold.job import parse_rate

    return Terms.for_loss(
        unit.parse(loss),
        delta_ppm=parse_rate(delta),
        detection_ppm=parse_rate(detection),
        saving_ppm=parse_rate(saving),
    )


def _promise(terms: Terms, unit: Currency) -> str:
    return (
        f"at most {unit.show(terms.worst_case)} lost undetected, with probability "
        f"{_percent(1_000_000 - terms.delta_ppm)}; kappa {unit.show(terms.kappa)}"
    )


def _print_plan(found: Plan, unit: Currency, cost_ppm: int) -> None:
    click.echo(_promise(found.terms, unit))
    rows = [
        (
            stage.name,
            str(stage.clean),
            _percent(stage.demand.rate_ppm),
            unit.format(stage.demand.bond),
            unit.format(stage.demand.penalty),
            _percent(stage.demand.rate_ppm * cost_ppm // 1_000_000),
        )
        for stage in found.stages
    ]
    headings = ["stage", "clean checks", "rate", "least bond", "least penalty", "checking, of the inference"]
    print_table(headings, rows)
    click.echo(f"probation: {_probation(found)}")
    click.echo(f"the bond: {_deterrence(found, unit)}")
    print_table(
        ["with probability", "at most lost undetected"],
        [(_percent(1_000_000 - d), unit.show(_at(found.terms, d).worst_case)) for d in DELTAS_PPM],
    )


def _probation(found: Plan) -> str:
    if found.newcomer_is_covered:
        return "none, the bond covers the worst case"
    return f"{found.terms.probation_checks} clean checks, every job checked"


def _deterrence(found: Plan, unit: Currency) -> str:
    if found.least_rate_ppm is None:
        return f"{unit.show(found.bond)} deters at no rate: a cheat saves more"
    return f"{unit.show(found.bond)} deters from a rate of {_percent(found.least_rate_ppm)}"


def _plan_to_json(found: Plan, unit: Currency, cost_ppm: int) -> dict[str, object]:
    return {
        "bond": unit.format(found.bond),
        "check_cost_ppm": cost_ppm,
        "least_rate_ppm": found.least_rate_ppm,
        "newcomer_is_covered": found.newcomer_is_covered,
        "price": unit.format(found.price),
        "probation_checks": found.terms.probation_checks,
        "stages": [_stage_to_json(stage, unit, cost_ppm) for stage in found.stages],
        "terms": _terms_to_json(found.terms, unit),
        "worst_cases": [
            {"delta_ppm": d, "loss": unit.format(_at(found.terms, d).worst_case)} for d in DELTAS_PPM
        ],
    }


def _stage_to_json(stage: Stage, unit: Currency, cost_ppm: int) -> dict[str, object]:
    return {
        "bond": unit.format(stage.demand.bond),
        "checking_ppm": stage.demand.rate_ppm * cost_ppm // 1_000_000,
        "clean": stage.clean,
        "multiplier_ppm": stage.multiplier_ppm,
        "name": stage.name,
        "penalty": unit.format(stage.demand.penalty),
        "rate_ppm": stage.demand.rate_ppm,
    }


def _terms_to_json(terms: Terms, unit: Currency) -> dict[str, object]:
    return {
        "currency": unit.code,
        "delta_ppm": terms.delta_ppm,
        "detection_ppm": terms.detection_ppm,
        "kappa": unit.format(terms.kappa),
        "least_multiplier_ppm": terms.least_multiplier_ppm,
        "saving_ppm": terms.saving_ppm,
        "worst_case": unit.format(terms.worst_case),
    }


def _record_to_json(record: GuardRecord) -> dict[str, object]:
    standing, unit = record.standing, record.currency
    return {
        "clean": standing.clean,
        "currency": unit.code,
        "exposed": unit.format(standing.exposure),
        "failed": standing.failed,
        "fails_at_most_ppm": _fails_at_most_ppm(record),
        "free_bond": unit.format(record.stake.free_bond),
        "in_flight": unit.format(record.stake.in_flight),
        "model": record.model,
        "multiplier_ppm": standing.multiplier_ppm,
        "probation_left": standing.probation_left,
        "unchecked": standing.unchecked,
    }


def _say(record: GuardRecord) -> tuple[str, ...]:
    standing, stake, unit = record.standing, record.stake, record.currency
    probation = f"{standing.probation_left} clean checks left" if standing.probation_left else "served"
    return (
        f"{record.model}, in {unit.code}",
        f"  checks: {standing.clean} clean, {standing.failed} failed; with 95 % confidence at most "
        f"{_percent(_fails_at_most_ppm(record))} fail",
        f"  probation: {probation}; multiplier {_percent(standing.multiplier_ppm)}",
        f"  released unchecked: {standing.unchecked} jobs, {unit.show(standing.exposure)} of it "
        "since the last clean check",
        f"  over all models: {unit.show(stake.exposure)} unchecked, {unit.show(stake.in_flight)} in flight, "
        f"against a free bond of {unit.show(stake.free_bond)}",
    )


def _fails_at_most_ppm(record: GuardRecord) -> int:
    import math

    from proofhold.guard import failure_rate_bound

    standing = record.standing
    bound = failure_rate_bound(standing.failed, standing.clean + standing.failed)
    return math.ceil(bound * 1_000_000)


def _at(terms: Terms, delta_ppm: int) -> Terms:
    from dataclasses import replace

    return replace(terms, delta_ppm=delta_ppm)


def _percent(ppm: int) -> str:
    from proofhold.policy import percent

    return percent(ppm)
