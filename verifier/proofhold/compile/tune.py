"""The tuner: the cheapest circuit of a model whose error stays within what was asked for.

Candidates are ranked by counted cost (`cost.py`) and tried from the cheapest on: compiled, run on the
calibration samples, compared with onnxruntime. The first that keeps the bound is chosen. No clock has a say,
so the same model and samples give the same circuit; the times of real proofs are told beside it.
"""

from __future__ import annotations

import heapq
import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from proofhold.compile import fidelity, native, settings
from proofhold.compile.cache import write_atomically
from proofhold.compile.cost import Counts
from proofhold.compile.errors import CompileError
from proofhold.compile.fidelity import Deviations
from proofhold.compile.search import MAX_BASE_BITS, SCALES, candidates, is_ezkl_default
from proofhold.compile.specification import Specification, read_samples
from proofhold.compile.toolchain import Toolchain
from proofhold.compile.trial import OnStep, calibration_data, corners_of, derive_settings
from proofhold.locks import MAX_K, TAG_LENGTH, RunArgs

DEFAULT_ERROR_SHARE = 1e-4
"""Unless it is said, the stated error may be a ten-thousandth of the range of the outputs on the samples."""
FIRST_SAMPLES = 4
"""How many samples a candidate is shown first: most that are too coarse fail on these."""
SURVEY_SAMPLES = 16
ROOMY_LEGS = 4
MAX_TRIED = 64
"""How many candidates are run before the tuner gives up: each is more expensive than the one before."""


class Goal(StrEnum):
    """What is to be least."""

    TIME = "time"
    """The counted cost of a proof."""
    SIZE = "size"
    """The bytes of verifying key and proof."""
    ACCURACY = "accuracy"
    """The error."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Arguments for ezkl, and the size of the circuit that they give."""

    run_args: RunArgs
    counts: Counts
    exact: bool
    """Whether the counts are this circuit's own, or those of one that differs in its scale."""

    @property
    def scale(self) -> int:
        """Binary digits after the point."""
        return self.run_args.input_scale


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a candidate: its deviations on the samples that it was shown, or why it has none."""

    candidate: Candidate
    deviations: Deviations | None
    refused: str = ""

    @property
    def bound(self) -> float | None:
        """The error that a lock would state."""
        return None if self.deviations is None else self.deviations.measured.bound


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was chosen, and what it was chosen from."""

    goal: Goal
    max_error: float
    chosen: Tried
    tried: tuple[Tried, ...]
    """All that were run, in the order in which they were."""
    ranked: tuple[Candidate, ...]
    """All candidates, the cheapest to prove first."""
    default: Candidate | None
    """ezkl's own arguments at the largest scale that holds the domain, if any does."""
    survey: tuple[Tried, ...] = ()
    """The cheapest candidate of each scale, whether it was in question or not, on the first samples."""

    @property
    def run_args(self) -> RunArgs:
        """The arguments that were chosen."""
        return self.chosen.candidate.run_args


_Key: TypeAlias = tuple[float, ...]


def tune(
    published: bytes,
    specification: Specification,
    *,
    goal: Goal,
    max_error: float | None = None,
    scales: Sequence[int] = SCALES,
    surveyed: bool = False,
    tools: Toolchain,
    on_step: OnStep = lambda _: None,
) -> Tuning:
    """Choose ezkl's arguments for a model.

    Args:
        published: the ONNX file's bytes.
        specification: the model's domain and its calibration samples.
        goal: what is to be least.
        max_error: what the lock may state as largest absolute error; see `DEFAULT_ERROR_SHARE`.
        scales: the scales to look at.
        surveyed: run the cheapest candidate of every scale too, for a picture of what accuracy costs.
        tools: workers for onnx and ezkl.
        on_step: is told in words what happens next.

    Raises:
        Malformed: ``model.…``: the bytes are no ONNX model.
        CompileError: ``compile.no_candidate``: none keeps the bound; or whatever compiling raises.
        ToolFailed: a tool died or hung.

    """
    with tempfile.TemporaryDirectory(prefix="proofhold-") as folder:
        bench = _Workbench(published, specification, Path(folder), tools)
        allowed = bench.default_max_error() if max_error is None else max_error
        on_step("counting candidates")
        ranked = bench.rank(candidates(bench.peak, scales))
        if not ranked:
            raise CompileError(
                "compile.no_candidate", "no lookup base holds the domain at any scale: narrow the domain"
            )
        search = _most_accurate if goal is Goal.ACCURACY else _cheapest
        tried = search(bench, ranked, goal, allowed, on_step)
        fitting = [one for one in tried if _fits(one, allowed)]
        if not fitting:
            best = min((one.bound for one in tried if one.bound is not None), default=None)
            seen = "none could be run" if best is None else f"the best of {len(tried)} states {best:.2g}"
            raise CompileError(
                "compile.no_candidate", f"no circuit keeps an error of {allowed:.2g} ({seen}): allow more"
            )
        chosen = min(fitting, key=lambda one: one.bound or 0.0) if goal is Goal.ACCURACY else fitting[-1]
        defaults = [one for one in ranked if is_ezkl_default(one.run_args)]
        default = max(defaults, key=lambda one: one.scale, default=None)
        survey = _survey(bench, ranked, on_step) if surveyed else ()
        return Tuning(goal, allowed, chosen, tuple(tried), tuple(ranked), default, survey)


def order(goal: Goal, candidate: Candidate) -> _Key:
    """Rank a candidate: by its goal, then finer scales first, then ezkl's own choice before one as good."""
    counts, run_args = candidate.counts, candidate.run_args
    cost = (counts.proving, counts.verifier_bytes)
    first = cost if goal is not Goal.SIZE else cost[::-1]
    ours = not is_ezkl_default(run_args)
    return (*first, -candidate.scale, counts.rows, ours, run_args.decomp_base, run_args.decomp_legs)


def _cheapest(
    bench: _Workbench, ranked: Sequence[Candidate], goal: Goal, allowed: float, on_step: OnStep
) -> list[Tried]:
    """Try from the cheapest on until one keeps the bound."""
    heap = [(order(goal, one), one.run_args.columns, place, one) for place, one in enumerate(ranked)]
    heapq.heapify(heap)
    tried: list[Tried] = []
    while heap and len(tried) < MAX_TRIED:
        key, columns, place, candidate = heapq.heappop(heap)
        if bench.is_hopeless(candidate):
            continue
        if not candidate.exact:
            candidate = bench.count(candidate.run_args)
            if order(goal, candidate) > key:
                heapq.heappush(heap, (order(goal, candidate), columns, place, candidate))
                continue
        on_step(f"trying {describe(candidate)}")
        tried.append(bench.run(candidate, allowed))
        if _fits(tried[-1], allowed):
            break
    return tried


def _most_accurate(
    bench: _Workbench, ranked: Sequence[Candidate], _: Goal, allowed: float, on_step: OnStep
) -> list[Tried]:
    """Try the cheapest candidate of each scale that can be run, from the finest scale on."""
    tried: list[Tried] = []
    for scale in sorted({one.scale for one in ranked}, reverse=True):
        at_scale = sorted((o for o in ranked if o.scale == scale), key=lambda o: order(Goal.TIME, o))
        for candidate in at_scale:
            if bench.is_hopeless(candidate):
                continue
            on_step(f"trying {describe(candidate)}")
            tried.append(bench.run(candidate, allowed))
            if tried[-1].deviations is not None:
                break
    return tried


def _survey(bench: _Workbench, ranked: Sequence[Candidate], on_step: OnStep) -> tuple[Tried, ...]:
    """Run the cheapest candidate of each scale that can be run, on the first samples."""
    found = []
    for scale in sorted({one.scale for one in ranked}):
        for candidate in (one for one in ranked if one.scale == scale):
            if bench.has_room(candidate):
                on_step(f"surveying {describe(candidate)}")
                tried = bench.run(candidate, allowed=0.0, first=SURVEY_SAMPLES)
                if tried.deviations is not None:
                    found.append(tried)
                    break
    return tuple(found)


def describe(candidate: Candidate) -> str:
    """Say in a few words what a candidate is."""
    run_args = candidate.run_args
    return (
        f"{run_args.columns} columns, base {run_args.decomp_base} × {run_args.decomp_legs}, "
        f"scale {candidate.scale}: k = {candidate.counts.k}"
    )


def _fits(tried: Tried, allowed: float) -> bool:
    return tried.bound is not None and tried.bound <= allowed


class _Workbench:
    """A model with its samples, and what counting and running its circuits has shown so far."""

    def __init__(
        self, published: bytes, specification: Specification, folder: Path, tools: Toolchain
    ) -> None:
        self._tools, self._folder = tools, folder
        derivation = tools.derive(published, specification.request)
        write_atomically(folder / native.MODEL_FILE, derivation.model)
        self._inputs, self._outputs = specification.inputs(derivation.inputs), derivation.outputs
        self._samples = read_samples(specification.samples, self._inputs)
        self._expected = fidelity.references(derivation.model, self._samples, tools)
        self._data = calibration_data(self._samples, self._inputs)
        elements = [port.elements for port in self._inputs] + [port.elements for port in self._outputs]
        self._instances = TAG_LENGTH + sum(elements)
        self.peak = tools.peak(derivation.model, self._inputs)
        self._settings: dict[tuple[int, int], dict[str, Any]] = {}
        """ezkl's settings by columns and legs, at whatever scale came first."""
        self._has_tables = False
        self._ranges: dict[int, tuple[int, int]] = {}
        """How far the tables reach, by scale: integers of that scale, whatever they are decomposed to."""
        self._too_small: dict[int, float] = {}
        """The largest capacity that did not hold the samples, by scale."""
        self._too_coarse = -1
        """The finest scale that was off by more than is allowed."""

    def default_max_error(self) -> float:
        """A share of the range of the outputs over all samples."""
        low = min(float(output.min()) for run in self._expected for output in run)
        high = max(float(output.max()) for run in self._expected for output in run)
        return DEFAULT_ERROR_SHARE * (high - low)

    def rank(self, grid: Iterable[RunArgs]) -> list[Candidate]:
        """Count every candidate, about; the cheapest to prove comes first, and one too large not at all."""
        counted = [self._estimate(run_args) for run_args in grid]
        fitting = [candidate for candidate in counted if candidate.counts.k <= MAX_K]
        return sorted(fitting, key=lambda candidate: order(Goal.TIME, candidate))

    def count(self, run_args: RunArgs) -> Candidate:
        """Count a candidate by its own settings, which are then the folder's."""
        if self._has_tables:
            run_args = replace(run_args, lookup_range=self._range(run_args))
        pinned, k, run_args = self._derive(run_args)
        counts = _counts(json.loads(pinned), k, run_args, run_args.lookup_range)
        return Candidate(run_args, counts, exact=True)

    def has_room(self, candidate: Candidate) -> bool:
        """Whether no candidate with as much room has failed to hold a value at this scale."""
        return _capacity(candidate.run_args) > self._too_small.get(candidate.scale, 0.0)

    def is_hopeless(self, candidate: Candidate) -> bool:
        """Whether what was run already tells that this one fails: no finer, or with no more room."""
        return candidate.scale <= self._too_coarse or not self.has_room(candidate)

    def run(self, candidate: Candidate, allowed: float, first: int = FIRST_SAMPLES) -> Tried:
        """Compile a candidate and run it on the first samples, and on all while it keeps what is allowed."""
        candidate = self.count(candidate.run_args)
        try:
            self._tools.compile(self._folder)
            if self.peak is None:
                # Nothing else shows that the whole domain fits.
                self._tools.evaluate(
                    self._folder / native.CIRCUIT_FILE,
                    corners_of(self._inputs),
                    lookup_range=candidate.run_args.lookup_range,
                )
            tried = self._compare(candidate, first)
            if _fits(tried, allowed):
                tried = self._compare(candidate, len(self._samples))
        except CompileError as error:
            if error.code != "compile.not_provable":
                raise
            room = max(_capacity(candidate.run_args), self._too_small.get(candidate.scale, 0.0))
            self._too_small[candidate.scale] = room
            return Tried(candidate, None, "a value does not fit")
        if not _fits(tried, allowed):
            self._too_coarse = max(self._too_coarse, candidate.scale)
        return tried

    def _compare(self, candidate: Candidate, count: int) -> Tried:
        pinned = json.loads((self._folder / native.SETTINGS_FILE).read_bytes())
        found = fidelity.deviations(
            self._folder / native.CIRCUIT_FILE,
            self._samples[:count],
            self._expected[:count],
            pinned["model_output_scales"],
            candidate.run_args.lookup_range,
            self._tools,
        )
        return Tried(candidate, found)

    def _estimate(self, run_args: RunArgs) -> Candidate:
        """Count a candidate by the settings of one that differs in its scale, and so in few rows."""
        key = (run_args.columns, run_args.decomp_legs)
        if key not in self._settings:
            arguments = settings.arguments(run_args, settings.LOGROWS_GUESS)
            self._settings[key] = json.loads(self._tools.settings(self._folder, arguments))
        found = self._settings[key]
        self._has_tables = settings.needs_tables(found)
        tables = self._estimated_range(run_args) if self._has_tables else None
        # The ranges in which digits are looked up are as long as the base, which differs too.
        plain = {**found, "required_range_checks": []}
        k = settings.smallest_k(plain, self._instances, tables)
        k = max(k, (run_args.decomp_base + settings.RESERVED_ROWS - 1).bit_length())
        return Candidate(run_args, _counts(found, k, run_args, tables), exact=False)

    def _range(self, run_args: RunArgs) -> tuple[int, int]:
        """Measure how far the model's tables reach at a scale, once."""
        scale = run_args.input_scale
        if scale not in self._ranges:
            # Digits to spare: what is looked up does not depend on them.
            roomy = replace(run_args, decomp_base=2**MAX_BASE_BITS, decomp_legs=ROOMY_LEGS)
            measured = self._derive(replace(roomy, lookup_range=None))[2].lookup_range
            if measured is None:
                raise CompileError("compile.unexpected_settings", "tables come and go with the lookup base")
            self._ranges[scale] = measured
        return self._ranges[scale]

    def _estimated_range(self, run_args: RunArgs) -> tuple[int, int]:
        """Give the range at a scale by that of another one: what is looked up grows with the scale."""
        if not self._ranges:
            self._range(run_args)
        scale, (low, high) = next(iter(self._ranges.items()))
        factor = 2.0 ** (run_args.input_scale - scale)
        return math.floor(factor * low), math.ceil(factor * high)

    def _derive(self, run_args: RunArgs) -> tuple[bytes, int, RunArgs]:
        return derive_settings(
            self._folder, run_args, self._inputs, self._outputs, self._tools, data=self._data
        )


def _counts(found: dict[str, Any], k: int, run_args: RunArgs, lookup_range: tuple[int, int] | None) -> Counts:
    tables = 0
    if lookup_range is not None:
        low, high = lookup_range
        tables = len(found["required_lookups"]) * -(-(high - low + 1) // 2**k)
    return Counts(k, found["num_rows"], run_args.columns, tables, found["num_shuffles"])


def _capacity(run_args: RunArgs) -> float:
    return float(run_args.decomp_base) ** run_args.decomp_legs
