"""Cuts: at one tensor each, where the graph allows; every segment alone gives what the whole run gave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import replay_models
from judging import runner
from proofhold.catalogue import Entry
from proofhold.compile.errors import CompileError
from proofhold.compile.replay.analysis import Analysis, Candidate
from proofhold.compile.replay.cutter import Limits, choose
from proofhold.compile.replay.pin import draw, pin_replay, specify
from proofhold.domain import InputSpec
from proofhold.errors import Malformed, Misuse
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor
from proofhold.replay.compare import relative_l2
from proofhold.replay.rerun import Rerunner, ports, segment_digest
from proofhold.replay.surgery import Port, closure, parse
from proofhold.runner import TaskRaised
from replay_models import MODELS, entry, pinned, specification


@pytest.mark.parametrize("name", MODELS)
def test_segments_alone_give_what_the_whole_run_gave(name: str) -> None:
    lock = pinned(name).lock
    rerunner = Rerunner(entry(name), runner())
    sample = draw(lock.inputs, 7)
    traced = rerunner.traced(bytes(32), sample, wanted=[b.name for b in lock.boundaries])
    run = {t.name: t for t in (*sample, *traced.cuts, *traced.outputs)}
    hasher = traced.trace.hasher
    assert traced.trace.leaves == tuple(hasher.leaf(run[leaf.name]) for leaf in lock.leaves)
    for index, segment in enumerate(lock.segments):
        given = rerunner.segment(index, [run[n] for n in segment.inputs])
        assert [t.name for t in given] == list(segment.outputs)
        assert all(relative_l2(run[t.name], t) <= segment.relative_l2 for t in given)


@pytest.mark.parametrize("name", MODELS)
def test_each_segments_digest_follows_from_the_model_and_the_names(name: str) -> None:
    lock = ReplayLock.decode(pinned(name).lock.encode())
    assert lock == pinned(name).lock
    for segment in lock.segments:
        if segment.model is not None:
            assert segment_digest(MODELS[name](), ports(lock), segment) == segment.model


def test_a_chain_is_cut_evenly() -> None:
    shares = pinned("chain").shares
    assert len(shares) >= 4
    assert max(shares) < 0.5


def test_no_cut_lies_beside_a_residual_link() -> None:
    cuts = {boundary.name for boundary in pinned("residual").lock.boundaries}
    assert cuts
    ends = {f"{end}{index}" for end in ("sum", "block") for index in range(4)}
    # What the first block's link carries is the input itself, which every segment may be given.
    assert cuts <= ends | {"in0"}


def test_an_input_that_every_segment_needs_is_given_to_each() -> None:
    lock = pinned("ports").lock
    assert len(lock.segments) > 2
    assert all("mask" in segment.inputs for segment in lock.segments[:-1])
    assert [segment.outputs for segment in lock.segments if "early" in segment.outputs]
    assert set(lock.segments[-1].outputs) >= {"late"}


def test_two_towers_are_cut_only_where_they_have_met() -> None:
    cuts = {boundary.name for boundary in pinned("towers").lock.boundaries}
    # A cut in one tower is one: the other is then computed by the segment behind it, once.
    sides = [{c for c in cuts if c.startswith(side)} for side in ("x", "mask")]
    assert not all(sides)


def test_control_flow_is_kept_whole_with_what_it_reads_from_outside() -> None:
    lock = pinned("branches").lock
    names = {boundary.name for boundary in lock.boundaries}
    assert not names & {"yes", "no"}
    graph = parse(MODELS["branches"]()).graph
    assert len(closure(graph, ["chosen"], ["before3"])) == 3, "the sum, the comparison, the If"


def test_another_model_or_segment_is_not_run() -> None:
    lock = pinned("chain").lock
    inputs = draw(lock.inputs, 1)
    first, *others = lock.segments
    bad = replace(lock, segments=(replace(first, model="0" * 64), *others))
    right = Entry("chain", lock.model, None, bad, MODELS["chain"]())
    with pytest.raises(TaskRaised, match="not the pinned one"):
        Rerunner(right, runner()).segment(0, inputs)
    swapped = replace(right, source=MODELS["shared"]())
    with pytest.raises(TaskRaised, match=f"expected {lock.model}"):
        Rerunner(swapped, runner()).segment(0, inputs)


def test_what_is_no_model_is_malformed() -> None:
    for data in (b"", b"\0\1", MODELS["chain"]()[:100]):
        with pytest.raises(Malformed, match=r"model\.not_onnx"):
            pin_replay(data, specification(["x"]), name="x", runner=runner())


def test_a_model_that_draws_at_random_is_refused() -> None:
    graph = replay_models.Graph()
    noise = graph.node("RandomNormalLike", ["x"], "noise")
    data = graph.model(["x"], [graph.node("Add", ["x", noise], "y")])
    with pytest.raises(CompileError, match=r"compile\.not_repeatable"):
        pin_replay(data, specification(["x"]), name="random", runner=runner())


def test_free_sizes_have_to_be_stated() -> None:
    described = [["x", "float32", [None, 3]]]
    with pytest.raises(CompileError, match=r"compile\.shape"):
        specify(described, specification(["x"]))
    with pytest.raises(CompileError, match=r"compile\.specification"):
        specify(described, specification(["y"]))
    stated = specification(["x"])
    stated.shapes["x"] = (2, 3)  # type: ignore[index]
    assert specify(described, stated) == (InputSpec("x", "float32", (2, 3), -1.0, 1.0),)


def candidate(
    name: str, before: float, *behind: str, again: float = 0.0, size: int = 1, weights: float | None = None
) -> Candidate:
    share = before if weights is None else weights
    return Candidate(Port(name, "float32", (size,)), before, again, frozenset(behind), share)


def test_cuts_are_balanced_and_avoid_large_tensors() -> None:
    a, b, c = (
        candidate("a", 0.45, "b", "c", "y", size=2**20),
        candidate("b", 0.5, "c", "y", size=16),
        candidate("c", 0.95, "y"),
    )
    chosen = choose(Analysis((a, b, c), (), 1.0), Limits(segments=2))
    assert [cut.port.name for cut in chosen.chosen] == ["b"]
    assert chosen.shares == (0.5, 0.5)


def test_what_would_be_computed_again_is_no_cut() -> None:
    dear = candidate("a", 0.5, "y", again=0.3)
    assert choose(Analysis((dear,), (), 1.0)).chosen == ()


def test_committing_costs_a_provider_little() -> None:
    """1.4 MB are half a millisecond: too much beside a run of ten, unless a smaller tensor is to be had."""
    large = candidate("a", 0.5, "b", "y", size=350_000)
    assert choose(Analysis((large,), (), 0.01)).chosen == ()
    assert len(choose(Analysis((large,), (), 0.1)).chosen) == 1
    small = candidate("b", 0.9, "y", size=35)
    assert [cut.port.name for cut in choose(Analysis((large, small), (), 0.01)).chosen] == ["b"]


def test_what_cannot_all_be_afforded_is_not_given_up_at_once() -> None:
    """The blocks of a residual network: large tensors at first, then smaller ones; five segments of six."""
    places = ((0.23, 8), (0.43, 4), (0.64, 2), (0.75, 2), (0.85, 1))
    names = "abcde"
    blocks = tuple(
        candidate(name, before, *names[index + 1 :], "y", size=200_000 * size)
        for index, (name, (before, size)) in enumerate(zip(names, places, strict=True))
    )

    def segments(run_s: float) -> int:
        return len(choose(Analysis(blocks, (), run_s)).shares)

    assert [segments(run_s) for run_s in (0.2, 0.18, 0.1, 0.01)] == [6, 5, 5, 1]


def test_a_small_model_is_run_again_whole() -> None:
    """Where a whole run takes less than two openings cost, no cut is worth its leaf."""
    cut = (candidate("a", 0.5, "y"),)
    assert choose(Analysis(cut, (), 0.0019)).chosen == ()
    assert len(choose(Analysis(cut, (), 0.0021)).chosen) == 1
    assert len(choose(Analysis(cut, (), 0.0001), Limits(least_segment_s=0)).chosen) == 1


def test_no_segment_is_without_weights() -> None:
    """There, a run on rounded weights is an honest one."""
    half = (candidate("a", 0.3, "b", "y", weights=0.4), candidate("b", 0.6, "y", weights=0.4))
    assert len(choose(Analysis(half, (), 1.0)).chosen) == 1
    for none in (0.0, 1.0):
        assert choose(Analysis((candidate("a", 0.5, "y", weights=none),), (), 1.0)).chosen == ()


def test_cuts_lie_one_behind_another() -> None:
    aside = (candidate("a", 0.4, "y"), candidate("b", 0.6, "y"))
    assert len(choose(Analysis(aside, (), 1.0)).chosen) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lock: {"segments": lock.segments[:-1]},
        lambda lock: {"segments": lock.segments[::-1]},
        lambda lock: {"boundaries": lock.boundaries[::-1]},
        lambda lock: {"boundaries": ()},
        lambda lock: {"boundaries": lock.boundaries[:1] * len(lock.boundaries)},
    ],
)
def test_a_lock_whose_segments_make_no_run_cannot_be_built(spoil: object) -> None:
    lock = pinned("chain").lock
    with pytest.raises(Misuse):
        replace(lock, **spoil(lock))  # type: ignore[operator]


def test_tensors_are_compared_by_their_residual() -> None:
    def tensor(*values: float) -> Tensor:
        return Tensor.of("t", np.array(values, np.float32))

    assert relative_l2(tensor(3, 4), tensor(3, 4)) == 0
    assert relative_l2(tensor(3, 5), tensor(3, 4)) == pytest.approx(0.2)
    assert relative_l2(tensor(3), tensor(3, 4)) == float("inf")
    assert relative_l2(tensor(1), tensor(0)) == float("inf")
    assert relative_l2(tensor(float("nan")), tensor(1)) == float("inf")
    # Squares that float32 cannot hold, at either end.
    assert relative_l2(tensor(3e30, 5e30), tensor(3e30, 4e30)) == pytest.approx(0.2)
    assert relative_l2(tensor(3e-30, 5e-30), tensor(3e-30, 4e-30)) == pytest.approx(0.2)
    assert relative_l2(tensor(float("inf")), tensor(1)) == float("inf")


def test_integers_are_compared_like_all_else() -> None:
    def labels(*values: int) -> Tensor:
        return Tensor.of("t", np.array(values, np.int64))

    assert relative_l2(labels(3, 4), labels(3, 4)) == 0
    assert relative_l2(labels(3, 5), labels(3, 4)) == pytest.approx(0.2)
    assert relative_l2(labels(2**62, 1), labels(-(2**62), 1)) > 1
