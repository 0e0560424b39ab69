"""The replay backend: a draw that the committed secret decides, and the model run again."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judging import (
    NONCE,
    NOW,
    AnsweringRunner,
    FailingRunner,
    altered,
    entry,
    logits,
    make_job,
    proved,
    proved_input,
    resigned,
    reveal,
    runner,
    said,
    secret_that,
    shifted,
    unproved,
)
from proofhold.backends.replay import RUN_DEADLINE_S, ReplayBackend
from proofhold.canonical import file_digest
from proofhold.catalogue import Entry
from proofhold.core import (
    Answer,
    Assurance,
    Check,
    Finding,
    Need,
    NeedKind,
    Offer,
    Property,
    Refuted,
    Unclear,
)
from proofhold.exchange import Bundle
from proofhold.job import PPM
from proofhold.payload import Document, Payload, Tensor, Tensors
from proofhold.replay.compare import relative_l2
from proofhold.replay.rerun import RESIDUALS, compare_run
from proofhold.runner import Runner
from proofhold.sampling import commitment

HALF = PPM // 2
PROPERTIES = (Property.MODEL, Property.INPUT, Property.OUTPUT, Property.FRESH)
REEXECUTED = dict.fromkeys(PROPERTIES, Assurance.REEXECUTED)
NOT_DRAWN = dict.fromkeys(PROPERTIES, Assurance.NOT_DRAWN)


def with_secret(secret: bytes, rate_ppm: int, output: Payload | None = None) -> Bundle:
    """The honest answer without evidence, on a job of that secret and rate."""
    base = unproved()
    job = make_job(
        base.exchange.input, sampling_commitment=commitment(NONCE, secret), sampling_rate_ppm=rate_ppm
    )
    return resigned(base, job=job, output=output)


def at_rate(rate_ppm: int, output: Payload | None = None) -> Bundle:
    job = make_job(unproved().exchange.input, sampling_rate_ppm=rate_ppm)
    return resigned(unproved(), job=job, output=output)


def check(bundle: Bundle, *answers: Answer, using: Runner | None = None, known: Entry | None = None) -> Check:
    backend = ReplayBackend(using or runner())
    return backend.check(None, bundle.exchange, known or entry(), answers=answers, now=NOW)


def finding(judged: Check) -> Finding:
    assert isinstance(judged, Finding), judged
    assert (judged.kind, judged.dangers, judged.one_use) == ("replay", (), ())
    return judged


def unclear(judged: Check, code: str, fault: str, need: NeedKind) -> Unclear:
    assert isinstance(judged, Unclear), judged
    assert judged.kind == "replay"
    assert said(judged) == {(code, fault)}
    assert judged.needs == (Need(need),)
    return judged


def mismatch(judged: Check) -> Refuted:
    assert isinstance(judged, Refuted), judged
    assert said(judged) == {("replay.mismatch", "provider")}
    assert all(reason.measured for reason in judged.reasons)
    return judged


def badly_formed(judged: Check) -> Refuted:
    assert isinstance(judged, Refuted), judged
    assert said(judged) == {("replay.output_form", "provider")}
    assert not any(reason.measured for reason in judged.reasons)
    return judged


# --- the draw -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [True, False])
def test_the_committed_secret_decides_what_is_drawn(draws: bool) -> None:
    secret = secret_that(draws, lambda s: with_secret(s, HALF), HALF)
    found = finding(check(with_secret(secret, HALF), reveal(secret)))
    assert dict(found.shows) == (REEXECUTED if draws else NOT_DRAWN)
    assert found.facts["sampling_rate_ppm"] == str(HALF)


def test_at_rate_zero_nothing_is_drawn_and_nothing_runs() -> None:
    failing = FailingRunner()
    found = finding(check(at_rate(0), reveal(), using=failing))
    assert dict(found.shows) == NOT_DRAWN
    assert dict(found.facts) == {"sampling_rate_ppm": "0"}
    assert failing.calls == 0


def test_what_the_guard_wants_checked_is_checked_though_it_was_not_drawn() -> None:
    found = finding(check(at_rate(0), Answer(NeedKind.CHECK, b""), reveal()))
    assert dict(found.shows) == REEXECUTED
    assert found.facts["raised"] == "1"
    mismatch(check(at_rate(0, logits(0.0, dtype="float32")), Answer(NeedKind.CHECK, b""), reveal()))


def test_at_rate_one_everything_is_drawn() -> None:
    found = finding(check(at_rate(PPM), reveal()))
    assert dict(found.shows) == REEXECUTED
    lock = entry().replay
    assert lock is not None
    assert dict(found.facts) == {
        "sampling_rate_ppm": "1000000",
        "replay_lock": lock.digest,
        "relative_l2": "0",
    }


def test_another_output_is_another_draw() -> None:
    """The claim enters the seed: the secret alone does not tell what will be drawn."""
    secret = secret_that(True, lambda s: with_secret(s, HALF), HALF)
    outputs = [shifted(unproved().exchange.output, 0.001 * number) for number in range(20)]
    shown = {
        isinstance(check(with_secret(secret, HALF, output), reveal(secret), using=FailingRunner()), Finding)
        for output in outputs
    }
    assert shown == {True, False}


def test_without_the_reveal_it_is_asked_for() -> None:
    unclear(check(at_rate(PPM)), "replay.reveal_missing", "nobody", NeedKind.REVEAL)


@pytest.mark.parametrize("rate_ppm", [0, PPM])
def test_a_second_secret_is_not_the_one_that_was_committed_to(rate_ppm: int) -> None:
    judged = check(at_rate(rate_ppm), reveal(bytes(32)))
    unclear(judged, "replay.reveal_mismatch", "verifier", NeedKind.REVEAL)


@pytest.mark.parametrize("secret", [b"", b"short", bytes(31), bytes(33), bytes(1_000)])
def test_a_secret_of_another_length_is_none(secret: bytes) -> None:
    judged = check(at_rate(PPM), reveal(secret))
    unclear(judged, "replay.reveal_mismatch", "verifier", NeedKind.REVEAL)


def test_the_true_secret_counts_wherever_it_stands_among_others() -> None:
    others = reveal(bytes(32)), reveal(b"short")
    assert finding(check(at_rate(0), *others, reveal()))
    assert finding(check(at_rate(0), reveal(), *others))


def test_an_answer_of_another_kind_is_no_reveal() -> None:
    judged = check(at_rate(0), Answer(NeedKind.OPENING, reveal().body))
    unclear(judged, "replay.reveal_missing", "nobody", NeedKind.REVEAL)


def test_the_commitment_is_bound_to_the_jobs_nonce() -> None:
    payload = unproved().exchange.input
    nonce = bytes(32)
    job = make_job(payload, nonce=nonce.hex(), input=payload.digest(nonce))
    judged = check(resigned(unproved(), job=job), reveal())
    unclear(judged, "replay.reveal_mismatch", "verifier", NeedKind.REVEAL)


# --- the re-execution -----------------------------------------------------------------------------------


def far(*distances: float) -> AnsweringRunner:
    """A worker that found the outputs to be so far from what came out."""
    return AnsweringRunner(RESIDUALS + struct.pack(f"!{len(distances)}d", *distances))


def test_it_runs_the_published_model_on_the_buyers_input() -> None:
    asked, given, claimed = far(0.0), proved_input(), unproved().exchange.output
    assert isinstance(claimed, Tensors)
    assert finding(check(at_rate(PPM), reveal(), using=asked))
    [(task, (request, source, *tensors), deadline_s)] = asked.asked
    assert (task, deadline_s) == (compare_run, RUN_DEADLINE_S)
    wanted = json.loads(request)
    assert (wanted["model"], wanted["segment"], wanted["is_path"]) == (entry().model, None, True)
    assert file_digest(Path(source.decode()).read_bytes()) == entry().model
    assert tensors == [tensor.data for tensor in (*given.items, *claimed.items)]
    assert RUN_DEADLINE_S == 120.0


def test_another_output_is_a_measured_mismatch() -> None:
    judged = mismatch(check(at_rate(PPM, shifted(unproved().exchange.output, 0.01)), reveal()))
    (reason,) = judged.reasons
    assert reason.got.startswith("relative L2 0.00")
    assert reason.expected == "at most 1e-05"


def test_another_input_is_a_measured_mismatch() -> None:
    bundle = resigned(at_rate(PPM), payload=shifted(unproved().exchange.input, 0.5))
    mismatch(check(bundle, reveal()))


@pytest.mark.parametrize(("factor", "within"), [(1 + 0.9e-5, True), (1 + 1.1e-5, False), (1 - 1.1e-5, False)])
def test_the_pinned_tolerance_decides(factor: float, within: bool) -> None:
    def scale(array: Any) -> None:
        array *= factor

    judged = check(at_rate(PPM, altered(unproved().exchange.output, scale)), reveal())
    assert isinstance(judged, Finding if within else Refuted)


@pytest.mark.parametrize(("distance", "within"), [(0.25, True), (math.nextafter(0.25, 1), False)])
def test_a_distance_of_just_the_tolerance_is_within(distance: float, within: bool) -> None:
    lock = entry().replay
    assert lock is not None
    known = replace(entry(), replay=replace(lock, relative_l2=0.25))
    judged = check(at_rate(PPM), reveal(), using=far(distance), known=known)
    assert isinstance(judged, Finding if within else Refuted)
    assert not within or finding(judged).facts["relative_l2"] == "0.25"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_distance_that_is_no_number_is_within_nothing(number: float) -> None:
    mismatch(check(at_rate(PPM), reveal(), using=far(number)))


def test_a_run_that_fails_is_retried() -> None:
    judged = check(at_rate(PPM), reveal(), using=FailingRunner())
    unclear(judged, "replay.run_failed", "nobody", NeedKind.RETRY)


@pytest.mark.parametrize("answer", [b"", b"nonsense", RESIDUALS, RESIDUALS + bytes(16)])
def test_a_run_that_gives_nonsense_is_retried(answer: bytes) -> None:
    judged = check(at_rate(PPM), reveal(), using=AnsweringRunner(answer))
    unclear(judged, "replay.run_failed", "nobody", NeedKind.RETRY)


def test_an_input_that_the_lock_does_not_know_is_not_run() -> None:
    """A verdict finds that out before; whoever asks the backend itself gets no answer for it."""
    bundle = resigned(at_rate(PPM), payload=shifted(proved_input(), 0.0, dtype="float64"))
    unclear(check(bundle, reveal()), "replay.run_failed", "nobody", NeedKind.RETRY)


# --- the form of the output -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        logits(1.0, dtype="float64"),
        logits(1.0, 1.0, dtype="float32"),
        logits(1.0, dtype="float32", name="logit"),
        logits(float("nan"), dtype="float32"),
        logits(float("inf"), dtype="float32"),
        Tensors((*logits(1.0, dtype="float32").items, Tensor("more", "float32", (1,), bytes(4)))),
        Document("text/plain", b"1"),
    ],
    ids=["float64", "shape", "name", "nan", "inf", "another tensor", "document"],
)
@pytest.mark.parametrize("rate_ppm", [0, PPM])
def test_an_output_that_no_run_gives_is_refuted_drawn_or_not(output: Payload, rate_ppm: int) -> None:
    badly_formed(check(at_rate(rate_ppm, output), reveal()))


def test_an_output_of_no_form_is_refuted_before_any_secret_is_asked_for() -> None:
    badly_formed(check(at_rate(PPM, logits(float("nan"), dtype="float32"))))


def test_the_proved_output_is_not_one_of_a_run() -> None:
    """It is float64 and quantised: a claim under a proof cannot be judged by re-execution (P17)."""
    badly_formed(check(resigned(proved(), evidence=()), reveal()))


# --- what it takes, and what it offers ------------------------------------------------------------------


def test_without_lock_or_model_the_lock_is_asked_for() -> None:
    for known in (replace(entry(), replay=None), replace(entry(), source=None)):
        judged = check(at_rate(PPM), reveal(), known=known)
        unclear(judged, "replay.no_lock", "verifier", NeedKind.LOCK)


def test_offers_are_both_outcomes_of_the_draw() -> None:
    expected = (Offer("replay", REEXECUTED), Offer("replay", NOT_DRAWN))
    assert ReplayBackend(runner()).offers(entry()) == expected
    assert ReplayBackend(runner()).offers(None) == expected


def test_without_lock_or_model_there_is_nothing_to_offer() -> None:
    for known in (replace(entry(), replay=None), replace(entry(), source=None)):
        assert ReplayBackend(runner()).offers(known) == ()


def test_it_speaks_of_tensors_only() -> None:
    assert ReplayBackend(runner()).accepts(unproved().exchange.input) is True
    assert ReplayBackend(runner()).accepts(Document("text/plain", b"")) is False


def _tensor(*numbers: float) -> Tensor:
    return Tensor.of("x", np.array(numbers, dtype="float64"))


@pytest.mark.parametrize(
    ("claimed", "recomputed", "distance"),
    [
        (_tensor(3.0, 4.0), _tensor(3.0, 4.0), 0.0),
        (_tensor(3.0, 9.0), _tensor(3.0, 4.0), 1.0),
        (_tensor(0.0, 0.0), _tensor(3.0, 4.0), 1.0),
        (_tensor(0.0), _tensor(0.0), 0.0),
        (_tensor(-0.0), _tensor(0.0), 0.0),
        (_tensor(1e-100), _tensor(0.0), math.inf),
        (_tensor(math.nan), _tensor(1.0), math.inf),
        (_tensor(1.0), _tensor(math.nan), math.inf),
        (_tensor(math.inf), _tensor(math.inf), math.inf),
        (_tensor(1e308, 1e308), _tensor(-1e308, -1e308), math.inf),
        (_tensor(1.0), _tensor(1.0, 1.0), math.inf),
    ],
)
def test_the_distance_is_relative_and_never_nan(claimed: Tensor, recomputed: Tensor, distance: float) -> None:
    assert relative_l2(claimed, recomputed) == distance
