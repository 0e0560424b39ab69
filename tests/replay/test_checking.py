"""A drawn claim with a trace: one segment is opened and run again, and what was committed to counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from judging import BUYER, NONCE, NOW, PROVIDER, SECRET, FailingRunner, runner, said
from proofhold.backends.replay import ReplayBackend
from proofhold.core import Answer, Assurance, Check, Finding, Need, NeedKind, Property, Refuted, Unclear
from proofhold.errors import Misuse
from proofhold.job import PPM
from proofhold.keys import Signed
from proofhold.payload import Tensor, Tensors
from proofhold.provider import open_segment, respond
from proofhold.replay.opening import Opening
from proofhold.replay.rerun import Rerunner
from proofhold.replay.segments import Committed as Known
from proofhold.replay.segments import distances, opened
from proofhold.sampling import commitment, draw_segment, is_drawn, seed
from replay_exchanges import (
    Committed,
    cheap,
    commit,
    honest,
    honest_run,
    job_on,
    nudged,
)
from replay_models import MODELS, entry


def finding(judged: Check) -> Finding:
    assert isinstance(judged, Finding), judged
    assert set(judged.shows.values()) == {Assurance.REEXECUTED}
    return judged


def asks_for(judged: Check, code: str, segment: int) -> None:
    assert isinstance(judged, Unclear), judged
    assert said(judged) == {(code, "nobody")}
    assert judged.needs == (Need(NeedKind.OPENING, str(segment)),)


def refuted(judged: Check, code: str, *, measured: bool) -> Refuted:
    assert isinstance(judged, Refuted), judged
    assert said(judged) == {(code, "provider")}
    assert all(reason.measured is measured for reason in judged.reasons)
    return judged


# --- the honest provider --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_an_honest_claim_is_asked_for_one_segment_and_shown_by_it(name: str) -> None:
    claim = honest(name)
    asks_for(claim.judged(), "replay.opening_missing", claim.segment)
    found = finding(claim.judged(claim.opening()))
    assert set(found.shows) == {Property.MODEL, Property.INPUT, Property.OUTPUT, Property.FRESH}
    assert found.facts["segment"] == f"{claim.segment} of {len(claim.lock.segments)}"
    assert float(found.facts["relative_l2"]) <= 1e-6


def test_what_the_provider_writes_is_what_the_verifier_takes() -> None:
    """`respond` commits, `open_segment` runs again and opens: here, and the backend checks elsewhere."""
    known = entry("ports")
    inputs, _ = honest_run(known, 3)
    job = Signed.new(job_on(known, inputs), BUYER, PROVIDER)
    bundle = respond(job, inputs, known, PROVIDER, trace=True)
    claim = bundle.exchange.claim.document
    assert claim.trace_root is not None
    backend = ReplayBackend(runner())
    reveal = Answer(NeedKind.REVEAL, SECRET)
    asked = backend.check(None, bundle.exchange, known, answers=[reveal], now=NOW)
    assert isinstance(asked, Unclear)
    opening = open_segment(bundle.exchange, known, int(asked.needs[0].subject))
    answers = [reveal, Answer(NeedKind.OPENING, opening.encode())]
    finding(backend.check(None, bundle.exchange, known, answers=answers, now=NOW))


def test_a_claim_without_a_trace_is_run_again_whole() -> None:
    claim = honest()
    bare = replace(claim.exchange.claim.document, trace_root=None)
    exchange = replace(claim.exchange, claim=Signed.new(bare, PROVIDER))
    found = finding(replace(claim, exchange=exchange).judged())
    assert "segment" not in found.facts


def test_every_segment_of_an_honest_run_passes() -> None:
    claim = honest("ports")
    output, given = claim.exchange.output, claim.exchange.input
    assert isinstance(output, Tensors)
    assert isinstance(given, Tensors)
    known = Known(claim.trace.root, claim.trace.hasher, given.items, output.items)
    for segment in range(len(claim.lock.segments)):
        found = opened(claim.lock, segment, claim.opening(segment).body, known)
        assert found is not None
        assert found.objection == ""
        residuals = distances(Rerunner(claim.entry, runner()), segment, found.tensors)
        assert max(residuals.values()) <= 1e-6


# --- three things that are not an honest opening --------------------------------------------------------


def test_a_run_on_cheaper_weights_contradicts_the_model_in_every_segment() -> None:
    for number in range(4):
        claim = cheap(number=number)
        refuted(claim.judged(claim.opening()), "replay.mismatch", measured=True)


def wrong_openings(claim: Committed) -> dict[str, Answer]:
    """What anybody may hand in, and what is not the opening that was asked for."""
    body = claim.opening().body
    opening = Opening.decode(body)
    first, *others = opening.leaves
    sent = next(leaf for leaf in opening.leaves if leaf.tensor is not None)
    assert sent.tensor is not None
    forged = replace(sent, tensor=nudged(sent.tensor))
    changed = tuple(forged if leaf is sent else leaf for leaf in opening.leaves)
    bare = tuple(replace(leaf, tensor=None) for leaf in opening.leaves)
    segments = len(claim.lock.segments)
    bodies = {
        "nothing": b"",
        "no opening": b"\xff" * 100,
        "truncated": body[:-1],
        "another tensor": replace(opening, leaves=changed).encode(),
        "without the tensors": replace(opening, leaves=bare).encode(),
        "without the input": replace(opening, leaves=tuple(others)).encode(),
        "without its way": replace(opening, leaves=(replace(first, path=()), *others)).encode(),
        "another segment": claim.opening((claim.segment + 1) % segments).body,
        "another job": honest(number=9).opening(claim.segment).body,
    }
    return {name: Answer(NeedKind.OPENING, data) for name, data in bodies.items()}


@pytest.mark.parametrize("wrong", wrong_openings(honest()))
def test_a_wrong_opening_blames_nobody_and_the_need_stays(wrong: str) -> None:
    claim = honest()
    answer = wrong_openings(claim)[wrong]
    asks_for(claim.judged(answer), "replay.opening_mismatch", claim.segment)
    finding(claim.judged(answer, claim.opening()))


def test_a_root_that_does_not_end_in_the_claimed_output_cannot_be_opened() -> None:
    """Serving one model and committing to another: no segment of such a claim has an opening that fits."""
    known = entry("chain")
    inputs, run = honest_run(known)
    served = Tensors((nudged(run[known.replay.outputs[0].name]),)) if known.replay else None
    claim = commit(known, run, inputs, output=served)
    for segment in range(len(claim.lock.segments)):
        asks_for(claim.judged(claim.opening(segment)), "replay.opening_mismatch", claim.segment)


def test_a_run_on_another_input_cannot_be_opened() -> None:
    known = entry("chain")
    _, run = honest_run(known, 1)
    inputs, _ = honest_run(known, 2)
    claim = commit(known, run, inputs)
    asks_for(claim.judged(claim.opening()), "replay.opening_mismatch", claim.segment)


def test_one_falsified_output_is_seen_where_it_happens_and_nowhere_else() -> None:
    """A value attack on one of k segments is caught once in k: what Freivalds' check is for."""
    known = entry("chain")
    inputs, run = honest_run(known)
    assert known.replay is not None
    name = known.replay.outputs[0].name
    seen = set()
    for number in range(40):
        forged = nudged(run[name], 0.01 + number / 1000)
        claim = commit(known, {**run, name: forged}, inputs)
        judged = claim.judged(claim.opening())
        last = claim.segment == len(claim.lock.segments) - 1
        seen.add(last)
        if last:
            refuted(judged, "replay.mismatch", measured=True)
        else:
            finding(judged)
    assert seen == {True, False}


@pytest.mark.parametrize("spoil", ["shape", "dtype", "name", "nan"])
def test_a_committed_run_of_another_form_is_a_fact_against_the_provider(spoil: str) -> None:
    known = entry("chain")
    assert known.replay is not None
    inputs, run = honest_run(known)
    leaves = [run[leaf.name] for leaf in known.replay.leaves]
    for at in range(1, len(leaves) - 1):
        tensor = leaves[at]
        match spoil:
            case "shape":
                leaves[at] = Tensor(tensor.name, tensor.dtype, tensor.shape[::-1], tensor.data)
            case "dtype":
                leaves[at] = Tensor(tensor.name, "int32", tensor.shape, tensor.data)
            case "name":
                leaves[at] = Tensor("another", tensor.dtype, tensor.shape, tensor.data)
            case "nan":
                leaves[at] = Tensor.of(tensor.name, np.full(tensor.shape, np.nan, np.float32))
    by_place = {leaf.name: tensor for leaf, tensor in zip(known.replay.leaves, leaves, strict=True)}
    claim = commit(known, by_place, inputs, leaves=tuple(leaves))
    refuted(claim.judged(claim.opening()), "replay.trace_form", measured=False)


def test_so_is_a_root_over_another_number_of_leaves() -> None:
    known = entry("chain")
    inputs, run = honest_run(known)
    assert known.replay is not None
    leaves = [run[leaf.name] for leaf in known.replay.leaves]
    claim = commit(known, run, inputs, leaves=(*leaves, leaves[-1]))
    opening = Opening.of(claim.trace, {}, held=[0])
    judged = claim.judged(Answer(NeedKind.OPENING, opening.encode()))
    refuted(judged, "replay.trace_form", measured=False)


# --- the machinery --------------------------------------------------------------------------------------


def test_a_worker_that_dies_blames_nobody() -> None:
    claim = honest()
    backend = ReplayBackend(FailingRunner())
    answers = [Answer(NeedKind.REVEAL, SECRET), claim.opening()]
    judged = backend.check(None, claim.exchange, claim.entry, answers=answers, now=NOW)
    assert isinstance(judged, Unclear)
    assert said(judged) == {("replay.run_failed", "nobody")}
    assert judged.needs == (Need(NeedKind.RETRY),)


def test_segments_are_drawn_evenly() -> None:
    drawn = [
        draw_segment(seed(SECRET, commitment(NONCE, bytes([n % 256, n // 256] * 16))), 8) for n in range(4000)
    ]
    counts = np.bincount(drawn, minlength=8)
    assert len(counts) == 8
    # Chi-squared of 7 degrees of freedom: 24.3 is exceeded once in a thousand.
    assert float(((counts - 500) ** 2 / 500).sum()) < 24.3
    assert draw_segment("f" * 64, 3) == 2
    assert draw_segment("0" * 64, 3) == 0
    with pytest.raises(Misuse):
        draw_segment("0" * 64, 0)


def test_a_provider_that_cannot_repeat_its_run_is_told_so() -> None:
    claim = honest()
    forged = commit(claim.entry, claim.run, Tensors(tuple(nudged(tensor) for tensor in _inputs(claim))))
    with pytest.raises(Misuse, match="gives the root"):
        open_segment(forged.exchange, claim.entry, 0)
    with pytest.raises(Misuse, match="segment 99"):
        open_segment(claim.exchange, claim.entry, 99)
    bare = replace(claim.exchange.claim.document, trace_root=None)
    with pytest.raises(Misuse, match="no trace"):
        open_segment(replace(claim.exchange, claim=Signed.new(bare, PROVIDER)), claim.entry, 0)


def _inputs(claim: Committed) -> tuple[Tensor, ...]:
    assert isinstance(claim.exchange.input, Tensors)
    return claim.exchange.input.items


# --- steering the draw ----------------------------------------------------------------------------------


def test_a_provider_that_tries_ten_thousand_claims_learns_nothing_of_the_draw() -> None:
    """It may sign as many claims as it likes: without the secret, no feature of a claim tells its draw."""
    rate, tried = PPM // 10, 10_000
    claims = [commitment(NONCE, n.to_bytes(32, "big")) for n in range(tried)]
    guess = bytes(32)
    truly = [is_drawn(seed(SECRET, claim), rate) for claim in claims]
    guessed = [is_drawn(seed(guess, claim), rate) for claim in claims]
    passed_over = [drawn for drawn, told in zip(truly, guessed, strict=True) if not told]
    rates = sum(truly) / tried, sum(passed_over) / len(passed_over)
    # Choosing among ten thousand by any guess at the secret changes the chance to be drawn by nothing.
    assert all(abs(found - 0.1) < 4 * (0.09 / tried) ** 0.5 for found in rates), rates


def test_a_verifier_that_draws_a_second_secret_is_found_out() -> None:
    claim = honest()
    backend = ReplayBackend(runner())
    for wrong in (bytes(32), SECRET[::-1]):
        answers = [Answer(NeedKind.REVEAL, wrong), claim.opening()]
        judged = backend.check(None, claim.exchange, claim.entry, answers=answers, now=NOW)
        assert isinstance(judged, Unclear)
        assert said(judged) == {("replay.reveal_mismatch", "verifier")}
