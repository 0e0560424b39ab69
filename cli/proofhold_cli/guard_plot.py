"""A guard's plan as one HTML file: two curves in inline SVG, nothing fetched, nothing run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proofhold.guard import Plan
    from proofhold.money import Currency

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
POINTS = 120
TICKS = 5

Point = tuple[float, float]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ font: 15px/1.5 sans-serif; max-width: 700px; margin: 2em auto; color: #222 }}</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
{figures}
</body>
</html>
"""


def draw(plan: Plan, unit: Currency) -> str:
    """Draw how the rate falls with clean checks, and how improbable a loss is, as an HTML page."""
    terms = plan.terms
    figures = "\n".join((_rate_figure(plan), _loss_figure(plan, unit)))
    summary = (
        f"Jobs of {unit.show(plan.price)}, bond {unit.show(plan.bond)}. At most "
        f"{unit.show(terms.worst_case)} is lost undetected, with probability {1 - terms.delta_ppm / 1e6:g}; "
        f"in the steady state {plan.steady.demand.rate_ppm / 1e4:g} % of the jobs are checked."
    )
    return _PAGE.format(title="A guarantee in money", summary=escape(summary), figures=figures)


def _rate_figure(plan: Plan) -> str:
    """Draw the rate over clean checks in a row: probation first, unless the bond takes its place."""
    from proofhold.guard import Observation, Standing

    terms = plan.terms
    standing = Standing.newcomer(terms)
    probation = 0 if plan.newcomer_is_covered else terms.probation_checks
    until = TICKS * (max(probation, plan.steady.clean) // 4 + 1)  # a quarter more, in whole checks a tick
    points: list[Point] = []
    for clean in range(until + 1):
        rate = max(terms.rate_ppm(standing.multiplier_ppm, plan.price), _floor_ppm(plan))
        percent = 100.0 if clean < probation else rate / 1e4
        if points and points[-1][1] != percent:
            points.append((clean, points[-1][1]))  # a step: the rate is one number until the next check
        points.append((clean, percent))
        standing = standing.after(Observation.CLEAN, 0, terms)
    top = max(y for _, y in points)
    floor = plan.steady.demand.rate_ppm / 1e4
    note = ((0.0, floor), (float(until), floor), f"steady: {floor:g} %")
    labels = ("Sampling rate", "clean checks in a row", "% of jobs checked")
    return _figure(points, (float(until), top), labels, note)


def _loss_figure(plan: Plan, unit: Currency) -> str:
    """Draw the bound on the probability of losing more than an amount."""
    from proofhold.guard import undetected_probability

    terms = plan.terms
    scale = 10**unit.exponent
    far = 1.4 * terms.worst_case
    values = [far * step / POINTS for step in range(POINTS + 1)]
    points = [(value / scale, 100 * undetected_probability(terms, round(value))) for value in values]
    worst = terms.worst_case / scale
    note = ((worst, 0.0), (worst, 100.0), f"{worst:g} {unit.code}: {terms.delta_ppm / 1e4:g} %")
    labels = ("More than this is lost undetected", unit.code, "probability, at most, %")
    return _figure(points, (far / scale, 100.0), labels, note)


def _floor_ppm(plan: Plan) -> int:
    return 1_000_000 if plan.least_rate_ppm is None else plan.least_rate_ppm


def _figure(
    points: Sequence[Point], most: Point, labels: tuple[str, str, str], note: tuple[Point, Point, str]
) -> str:
    """Draw one curve in a frame from 0 to `most`, with a dashed line and what it says."""
    title, across, up = (escape(label) for label in labels)
    (x1, y1), (x2, y2) = (_place(point, most) for point in note[:2])
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, TOP - 16, title, size=15),
        *_ticks(most),
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#222"/>',
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" fill="none" stroke="#b33" stroke-dasharray="5 4"/>',
        f'<path d="{_path(points, most)}" fill="none" stroke="#235a97" stroke-width="2"/>',
        _text(right - 8, TOP + 14, escape(note[2]), anchor="end", colour="#b33"),
        _text((LEFT + right) / 2, HEIGHT - 10, across, anchor="middle"),
        f'<g transform="translate(16 {(TOP + bottom) / 2:.0f}) rotate(-90)">',
        _text(0, 0, up, anchor="middle"),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts)


def _ticks(most: Point) -> list[str]:
    lines = []
    for step in range(TICKS + 1):
        share = step / TICKS
        x, y = _place((most[0] * share, most[1] * share), most)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" fill="none" stroke="#e4e4e4"/>')
        lines.append(_text(LEFT - 6, y + 4, f"{most[1] * share:.4g}", anchor="end"))
        lines.append(_text(x, HEIGHT - BOTTOM + 18, f"{most[0] * share:.4g}", anchor="middle"))
    return lines


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#222", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
        f"{text}</text>"
    )


def _path(points: Sequence[Point], most: Point) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (_place(point, most) for point in points))


def _place(point: Point, most: Point) -> Point:
    """Put a point of the data where it belongs on the paper."""
    x = LEFT + point[0] / most[0] * (WIDTH - LEFT - RIGHT)
    y = HEIGHT - BOTTOM - point[1] / most[1] * (HEIGHT - TOP - BOTTOM)
    return x, y
