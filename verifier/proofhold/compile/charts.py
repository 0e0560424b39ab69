"""Three plain charts as inline SVG: no script, no other file, colours from the page's own style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 15, 45
_BINS = 41
_BAR_HEIGHT, _LABEL_WIDTH = 26, 190


@dataclass(frozen=True, slots=True)
class Point:
    """A point on logarithmic axes, with its label."""

    x: float
    y: float
    label: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its label, and what is written behind it."""

    label: str
    value: int
    note: str


def histogram(values: NDArray[np.float64], *, limit: float) -> str:
    """Draw how often which difference occurs, with a dashed line at either limit."""
    reach = 1.1 * max(limit, float(np.max(np.abs(values), initial=0.0)), 1e-12)
    counts, _ = np.histogram(values, bins=_BINS, range=(-reach, reach))
    most = max(1, int(counts.max()))
    width = (_WIDTH - _LEFT - _RIGHT) / _BINS
    floor = _HEIGHT - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (value + reach) / (2 * reach) * (_WIDTH - _LEFT - _RIGHT)

    parts = []
    for place, count in enumerate(counts):
        height = (floor - _TOP) * count / most
        parts.append(_rectangle(_LEFT + place * width + 0.5, floor - height, width - 1, height, "mark"))
    parts += [_line(across(end), _TOP, across(end), floor, "limit") for end in (-limit, limit)]
    parts.append(_line(_LEFT, floor, _WIDTH - _RIGHT, floor, "axis"))
    parts += [_text(across(tick), floor + 18, f"{tick:.2g}", "middle") for tick in (-limit, 0.0, limit)]
    parts += [_text(_LEFT - 8, _TOP + 6, str(most), "end"), _text(_LEFT - 8, floor, "0", "end")]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "difference", "middle"))
    return _svg(_HEIGHT, parts)


def scatter(points: Sequence[Point], *, x_title: str, y_title: str, limit: float) -> str:
    """Draw points on two logarithmic axes, a dashed line at the limit of y, and the steps of the frontier."""
    if not points:
        return ""
    low_x, high_x = _decades([point.x for point in points])
    low_y, high_y = _decades([*(point.y for point in points), limit])
    floor = _HEIGHT - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (math.log10(value) - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return floor - (math.log10(value) - low_y) / (high_y - low_y) * (floor - _TOP)

    parts = [_line(_LEFT, floor, _WIDTH - _RIGHT, floor, "axis"), _line(_LEFT, _TOP, _LEFT, floor, "axis")]
    parts += [
        _text(_LEFT - 8, up(10.0**tick) + 4, f"1e{tick}", "end")
        for tick in range(math.ceil(low_y), math.floor(high_y) + 1)
    ]
    parts.append(_text(_LEFT, floor + 18, f"{10.0**low_x:,.0f}", "start"))
    parts.append(_text(_WIDTH - _RIGHT, floor + 18, f"{10.0**high_x:,.0f}", "end"))
    parts.append(_line(_LEFT, up(limit), _WIDTH - _RIGHT, up(limit), "limit"))
    parts.append(_text(_WIDTH - _RIGHT, up(limit) - 5, "allowed", "end"))
    frontier = _frontier(points)
    steps = [f"M{across(frontier[0].x):.1f},{up(frontier[0].y):.1f}"]
    steps += [f"H{across(point.x):.1f}V{up(point.y):.1f}" for point in frontier[1:]]
    parts.append(f'<path class="path" d="{"".join(steps)}"/>')
    labelled: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: not point.strong):
        at = (across(point.x), up(point.y))
        kind = "mark" if point.strong else "quiet"
        parts.append(
            f'<circle class="{kind}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{6 if point.strong else 4}"/>'
        )
        # A label that would lie on another one is left out: the points stay.
        if all(abs(at[1] - y) > 12 or abs(at[0] - x) > 70 for x, y in labelled):
            labelled.append(at)
            anchor, shift = ("end", -9) if at[0] > _WIDTH - 110 else ("start", 9)
            parts.append(_text(at[0] + shift, at[1] + 4, point.label, anchor, strong=point.strong))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_title, "middle"))
    parts.append(_text(_LEFT + 6, _TOP + 4, y_title, "start"))
    return _svg(_HEIGHT, parts)


def bars(rows: Sequence[Bar]) -> str:
    """Draw one bar a row, each with its label before it and its value behind."""
    most = max((row.value for row in rows), default=1) or 1
    room = _WIDTH - _LABEL_WIDTH - 130
    parts = []
    for place, row in enumerate(rows):
        top = place * _BAR_HEIGHT + 4
        width = room * row.value / most
        parts.append(_text(_LABEL_WIDTH - 10, top + 13, row.label, "end", strong=True))
        parts.append(_rectangle(_LABEL_WIDTH, top, max(width, 1), _BAR_HEIGHT - 9, "mark"))
        parts.append(_text(_LABEL_WIDTH + width + 8, top + 13, f"{row.value:,} ({row.note})", "start"))
    return _svg(len(rows) * _BAR_HEIGHT + 8, parts)


def _frontier(points: Sequence[Point]) -> list[Point]:
    """Give the points that no other beats on both axes, by x."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, point.y)):
        if not best or point.y < best[-1].y:
            best.append(point)
    return best


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Give the ends of a logarithmic axis, with some room beyond the values."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.1, 0.08 * (high - low))
    return low - room, high + room


def _svg(height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">\n{body}\n</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, content: str, anchor: str, *, strong: bool = False) -> str:
    kind = ' class="strong"' if strong else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'
