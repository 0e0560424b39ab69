"""The tuner's report: one HTML file that needs nothing else, for whoever wants to see why this circuit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from proofhold.compile.charts import Bar, Point, bars, histogram, scatter
from proofhold.compile.rowcount import OperatorRows, share
from proofhold.compile.timing import Timed, rank_correlation
from proofhold.compile.tune import FIRST_SAMPLES, SURVEY_SAMPLES, Candidate, Tried, Tuning
from proofhold.locks import RunArgs

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6675; --line: #d9dee6; --paper: #fff;
  --mark: #2f6fde; --quiet: #9fb3cf; --warn: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa4b2; --line: #333b47;
  --paper: #14181f; --mark: #6da2ff; --quiet: #51647f; --warn: #ef9355; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.note, caption { color: var(--soft); text-align: left; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
tr.chosen td { color: var(--mark); font-weight: 600; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif;
  fill: var(--soft); } svg text.strong { fill: var(--ink); }
svg .axis { stroke: var(--line); } svg .mark { fill: var(--mark); } svg .quiet { fill: var(--quiet); }
svg .limit { stroke: var(--warn); stroke-dasharray: 4 3; } svg .path { stroke: var(--mark); fill: none; }
"""


def render(name: str, tuning: Tuning, rows: Sequence[OperatorRows] = (), timed: Sequence[Timed] = ()) -> str:
    """Write the report of a tuning."""
    chosen = tuning.chosen.candidate
    sections = [
        f"<h1>{escape(name)}: how its circuit was chosen</h1>",
        f"<p>{_verdict(tuning)}</p>",
        _section(
            "What was tried",
            f"{len(tuning.ranked)} candidates were counted, and run from the cheapest on until one kept the "
            f"error. The first {FIRST_SAMPLES} samples come first: of one that fails there, the error is of "
            "those.",
            _tried_table(tuning),
        ),
    ]
    if tuning.survey:
        sections.append(
            _section(
                "What accuracy costs",
                f"The cheapest candidate of each scale, on the first {SURVEY_SAMPLES} samples: counted cost "
                "of a proof (rows, weighted) against the error that a lock would state; both on logarithmic "
                "axes.",
                _frontier(tuning),
            )
        )
    if tuning.chosen.deviations is not None:
        values = np.concatenate([one for run in tuning.chosen.deviations.differences for one in run])
        measured = tuning.chosen.deviations.measured
        sections.append(
            _section(
                "The error of the chosen circuit",
                f"Output less onnxruntime’s, {values.size} values on {measured.samples} samples; dashed, "
                f"what the lock states: ± {measured.bound:.2g}.",
                histogram(values, limit=measured.bound),
            )
        )
    if rows:
        sections.append(
            _section(
                "Where the rows go",
                f"By operator, about: the chosen circuit has {chosen.counts.rows:,} rows, and the model is "
                "counted up to each node in turn, with the rows of the outputs that it would end in there.",
                bars([Bar(f"{o.operator} × {o.nodes}", o.rows, f"{share(rows, o):.0%}") for o in rows]),
            )
        )
    if timed:
        sections.append(_section("Real proofs", _agreement(timed), _timed_table(timed, chosen)))
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}: tuning</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _verdict(tuning: Tuning) -> str:
    chosen = tuning.chosen.candidate
    said = (
        f"<b>{words(chosen.run_args)}</b>: k = {chosen.counts.k}, {chosen.counts.rows:,} rows, stated error "
        f"{tuning.chosen.bound or 0.0:.2g}. Asked for: least {tuning.goal.value}, error at most "
        f"{tuning.max_error:.2g}."
    )
    if tuning.default is None:
        return f"{said} ezkl’s own columns and base cannot hold the domain at any scale."
    factor = tuning.default.counts.proving / chosen.counts.proving
    if math.isclose(factor, 1.0):
        return f"{said} It costs what ezkl’s own columns and base cost."
    return (
        f"{said} By count, ezkl’s own columns and base, at the finest scale that they hold, cost "
        f"{factor:.2g} times as much to prove."
    )


def words(run_args: RunArgs) -> str:
    """Say what the arguments are."""
    return (
        f"{run_args.columns} columns, base {run_args.decomp_base} × {run_args.decomp_legs}, "
        f"scale {run_args.input_scale}"
    )


def _section(title: str, note: str, content: str) -> str:
    return f'<h2>{escape(title)}</h2>\n<p class="note">{note}</p>\n<div class="wide">{content}</div>'


def _tried_table(tuning: Tuning) -> str:
    head = ("candidate", "k", "rows", "counted cost", "samples", "largest error", "a lock would state", "")
    lines = [_tried_row(one, tuning) for one in tuning.tried]
    return _table(head, lines, chosen=[one is tuning.chosen for one in tuning.tried])


def _tried_row(one: Tried, tuning: Tuning) -> list[str]:
    counts = one.candidate.counts
    start = [words(one.candidate.run_args), str(counts.k), f"{counts.rows:,}", f"{counts.proving:,.0f}"]
    if one.deviations is None:
        return [*start, "", "", "", escape(one.refused)]
    measured = one.deviations.measured
    said = "chosen" if one is tuning.chosen else "" if measured.bound <= tuning.max_error else "too coarse"
    return [*start, str(measured.samples), f"{measured.max_abs:.2g}", f"{measured.bound:.2g}", said]


def _frontier(tuning: Tuning) -> str:
    points = [
        Point(
            one.candidate.counts.proving,
            max(one.deviations.measured.bound, 1e-9),
            f"scale {one.candidate.scale}",
            strong=one.candidate.scale == tuning.chosen.candidate.scale,
        )
        for one in tuning.survey
        if one.deviations is not None
    ]
    return scatter(
        points,
        x_title="counted cost of a proof",
        y_title="error that a lock would state",
        limit=tuning.max_error,
    )


def _agreement(timed: Sequence[Timed]) -> str:
    found = rank_correlation(timed)
    said = "" if found is None else f" Rank correlation of counted cost and time: {found:.2f}."
    return (
        f"Seconds of processor time on this machine, for keys and for one proof; nothing rests on them.{said}"
    )


def _timed_table(timed: Sequence[Timed], chosen: Candidate) -> str:
    head = ("candidate", "k", "counted cost", "keys, s", "proof, s")
    lines = [
        [
            words(one.candidate.run_args),
            str(one.candidate.counts.k),
            f"{one.candidate.counts.proving:,.0f}",
            f"{one.setup_s:.2f}",
            f"{one.prove_s:.2f}",
        ]
        for one in timed
    ]
    return _table(head, lines, chosen=[one.candidate is chosen for one in timed])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], *, chosen: Sequence[bool]) -> str:
    header = "".join(f"<th>{escape(title)}</th>" for title in head)
    opened = {True: '<tr class="chosen">', False: "<tr>"}
    body = "\n".join(
        f"{opened[mark]}{''.join(f'<td>{cell}</td>' for cell in line)}</tr>"
        for line, mark in zip(lines, chosen, strict=True)
    )
    return f"<table><tr>{header}</tr>\n{body}</table>"
