"""The report: both distributions on one logarithmic axis, and what follows. One file, nothing fetched."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from proofhold.compile.replay.calibration.profile import LEAST_CHEAT_MARGIN, Profile, Residuals

REPORT_FILE_NAME = "calibration.html"

LEFT, WIDTH, ROW, TOP = 280, 640, 26, 34
LOWEST, HIGHEST = -9, 1
"""The axis, in powers of ten; what is less is drawn at its left end."""
HONEST, CAUGHT, MISSED = "#1b6e4b", "#b3261e", "#c77700"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1b1f; background: #fff }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums } svg { max-width: 100%; height: auto }
.honest { color: #1b6e4b } .caught { color: #b3261e } .missed { color: #c77700 }
"""


def render(profile: Profile, name: str) -> str:
    """Write the report of a profile as one HTML file."""
    title = f"Replay profile of {html.escape(name)}"
    missed = profile.not_told_apart
    words = (
        f"Not told apart by a check of one segment: <b class=missed>{html.escape(', '.join(missed))}</b>."
        if missed
        else "Every substitute that was made is told apart by a check of one segment."
    )
    if not profile.cheats:
        words = "The model has no weights to round, so no substitute was made of it."
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1>"
        f"<p>Contract <b>{html.escape(profile.contract)}</b>. The largest residual of an honest run is "
        f"{profile.honest_max:.2g}; every tolerance lies at least {profile.honest_margin:.1f} times above "
        f"those of its segment. {words}</p>"
        f"<h2>Residuals</h2><p>Each dot is one segment of one input, run again from what was committed to: "
        f"‖committed − recomputed‖ ⁄ ‖recomputed‖, or ⁄ what that norm usually is where it is less. The band "
        f"is where the tolerances lie.</p>{_plot(profile)}"
        f"<h2>Substitutes</h2>{_cheats(profile)}<h2>Tolerances</h2>{_tolerances(profile)}"
        f"{_mistaken(profile)}<p>Model <code>{profile.model}</code></p></html>\n"
    )


def _plot(profile: Profile) -> str:
    rows = [(name, values, HONEST) for name, values in profile.honest.items()]
    for name, values in profile.cheats.items():
        rows.append((name, values, MISSED if name in profile.not_told_apart else CAUGHT))
    height = TOP + ROW * len(rows) + 10
    low, high = _x(min(profile.tolerances[:-1])), _x(max(profile.tolerances[:-1]))
    parts = [
        f'<svg viewBox="0 0 {LEFT + WIDTH + 20} {height}" role="img" '
        'aria-label="residuals of honest runs and of substitutes">',
        f'<rect x="{low - 1:.1f}" y="{TOP - 8}" width="{high - low + 2:.1f}" height="{height - TOP}" '
        'fill="#b0bec5"/>',
    ]
    for power in range(LOWEST, HIGHEST + 1):
        x = _x(10.0**power)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 8}" stroke="#eee"/>')
        parts.append(
            f'<text x="{x:.1f}" y="16" font-size="11" text-anchor="middle" fill="#555">'
            f'10<tspan dy="-5" font-size="8">{power}</tspan></text>'
        )
    for index, (name, values, colour) in enumerate(rows):
        y = TOP + ROW * index + ROW / 2
        parts.append(
            f'<text x="{LEFT - 12}" y="{y + 4:.0f}" font-size="12" text-anchor="end" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
        parts += [
            f'<circle cx="{_x(value):.1f}" cy="{y + shift:.1f}" r="2.2" fill="{colour}" fill-opacity=".45"/>'
            for value, shift in _dots(values)
        ]
    return "".join(parts) + "</svg>"


def _dots(rows: Residuals) -> Sequence[tuple[float, float]]:
    """Give every segment's residual with a small shift, so that dots do not hide each other."""
    found = []
    for number, row in enumerate(rows):
        for column, value in enumerate(row[:-1]):
            found.append((value, ((number * 7 + column * 3) % 13 - 6) * 0.9))
    return found


def _x(value: float) -> float:
    power = math.log10(max(value, 10.0**LOWEST))
    return LEFT + WIDTH * (min(power, HIGHEST) - LOWEST) / (HIGHEST - LOWEST)


def _cheats(profile: Profile) -> str:
    lines = []
    for name in profile.cheats:
        found = profile.separation(name)
        mark = "missed" if name in profile.not_told_apart else "caught"
        lines.append(
            f"<tr><td class={mark}>{html.escape(name)}<td class=n>{100 * found.detection:.2f} %"
            f"<td class=n>{found.margin:.3g}×"
        )
    head = "<tr><th>substitute<th>caught by one segment<th>least residual ⁄ tolerance"
    note = f"<p>A float32 contract wants at least {LEAST_CHEAT_MARGIN:g}× of those that save money.</p>"
    return f"<table>{head}{''.join(lines)}</table>{note}"


def _tolerances(profile: Profile) -> str:
    largest = [
        max(row[column] for rows in profile.honest.values() for row in rows)
        for column in range(len(profile.tolerances))
    ]
    names = [*(f"segment {index}" for index in range(len(largest) - 1)), "whole model"]
    lines = [
        f"<tr><td>{name}<td class=n>{tolerance:g}<td class=n>{honest:.2g}"
        for name, tolerance, honest in zip(names, profile.tolerances, largest, strict=True)
    ]
    return f"<table><tr><th>of<th>tolerance<th>largest honest residual{''.join(lines)}</table>"


def _mistaken(profile: Profile) -> str:
    return "".join(
        f"<p>{html.escape(name)} was left out, since it makes a mistake: {html.escape(mistake)}.</p>"
        for name, mistake in profile.mistaken.items()
    )


__all__ = ["REPORT_FILE_NAME", "render"]
