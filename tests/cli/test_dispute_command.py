"""The command ``proofhold dispute``, and the acts of the demo that play a dispute through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from escrow_builders import memory_folder
from judging import REPOSITORY, runner
from proofhold.compile.replay.cutter import Limits
from proofhold.compile.replay.pin import pin_file
from proofhold.compile.specification import SPECIFICATION_FILE_NAME
from proofhold.contention import Acknowledgement
from proofhold.escrow import State
from proofhold.exchange import Bundle
from proofhold.keys import Signed
from proofhold.policy import Policy
from proofhold.provider import Prover
from proofhold.replay.transcript import Transcript, decode_answer
from proofhold_cli import main
from proofhold_cli.story.disputes import MODEL, TERMS, play_disputes
from proofhold_cli.story.stage import SimulatedClock, Stage


@dataclass(frozen=True)
class Dispute:
    """An honest claim that is disputed, in a folder with keys, an escrow and a catalogue of its own."""

    stage: Stage
    bundle: Bundle

    def path(self, name: str) -> Path:
        return self.stage.folder / name

    def run(self, *arguments: object) -> Result:
        now = ["--now", self.stage.clock()] if "--escrow" in arguments else []
        return CliRunner().invoke(main, ["dispute", *map(str, (*arguments, *now))])

    def state(self) -> State:
        return self.stage.escrow.hold(self.bundle.exchange.job.digest).capture(0).state


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A catalogue with one model, cut into segments."""
    with memory_folder() as folder:
        shutil.copytree(REPOSITORY / "models" / MODEL, folder / "models" / MODEL)
        model, limits = folder / "models" / MODEL, Limits(least_segment_s=0.0, most_committing=1.0)
        pin_file(
            model / "model.onnx",
            model / SPECIFICATION_FILE_NAME,
            folder / "circuits" / MODEL,
            runner=runner(),
            limits=limits,
        )
        yield folder


@pytest.fixture
def dispute(root: Path) -> Iterator[Dispute]:
    with memory_folder() as folder:
        stage = Stage(root, folder, runner(), Prover(runner()), SimulatedClock(1_800_000_000))
        funded = stage.hire(MODEL, TERMS, Policy.shipped("dangerous_demo_sampled"))
        bundle = stage.respond(funded, prove=False, trace=True)
        stage.claim(bundle)
        stage.clock.pass_by(funded.job.document.verification_s + 1)
        stage.escrow.run_timers(stage.clock())
        (folder / "bundle.json").write_bytes(bundle.encode())
        for name in ("judge", "provider", "buyer"):
            getattr(stage, name).save(folder / f"{name}.pem")
        found = Dispute(stage, bundle)
        assert found.state() is State.DISPUTED
        yield found
        assert stage.escrow.audit() == ()


def test_an_honest_provider_answers_and_is_paid(dispute: Dispute, root: Path) -> None:
    path, home = dispute.path, dispute.stage.folder
    keyed = ("--root", root)
    opened = dispute.run(
        "open", path("bundle.json"), "--segment", 1, "--key", path("judge.pem"), "--out", path("challenge"),
        "--escrow", home,
    )  # fmt: skip
    assert opened.exit_code == 0, opened.output
    assert dispute.state() is State.ANSWERING
    answered = dispute.run(
        "answer", path("challenge"), path("bundle.json"), "--key", path("provider.pem"),
        "--out", path("answer"), "--escrow", home, *keyed,
    )  # fmt: skip
    assert answered.exit_code == 0, answered.output
    assert dispute.state() is State.DISPUTED
    said = {}
    for name in ("buyer", "judge"):
        key, hold = path(f"{name}.pem"), dispute.bundle.exchange.job.digest
        arguments = ["acknowledge", hold, "--escrow", home, "--out", path("word"), "--key", key]
        said[name] = CliRunner().invoke(main, ["dispute", *map(str, arguments)])
    assert said["buyer"].exit_code == 2, "nobody but the job's verifier acknowledges"
    assert said["judge"].exit_code == 0, said["judge"].output
    word = Signed.decode(Acknowledgement, path("word").read_bytes())
    answer, _ = decode_answer(path("answer").read_bytes())
    assert (word.document.opening, word.document.job) == (answer.digest, answer.document.job)
    assert word.envelope.is_signed_by_exactly([dispute.stage.judge.public])
    vain = ("charge", path("answer"), path("bundle.json"), "--out", path("transcript"), *keyed)
    assert dispute.run(*vain, "--key", path("buyer.pem")).exit_code == 0
    dismissed = dispute.run("judge", path("transcript"), "--escrow", home, *keyed)
    assert (dismissed.exit_code, dispute.state()) == (3, State.DISPUTED)
    assert "dispute.no_standing" in dismissed.output
    charged = dispute.run(*vain, "--key", path("judge.pem"), "--json")
    assert json.loads(charged.output)["charged"] == Transcript.decode(path("transcript").read_bytes()).digest
    judged = dispute.run("judge", path("transcript"), "--escrow", home, *keyed)
    assert judged.exit_code == 0, judged.output
    assert "acquitted" in judged.output
    assert dispute.state() is State.RELEASED
    alone = dispute.run(
        "judge", path("transcript"), "--model", root / "models" / MODEL / "model.onnx", "--json"
    )
    assert (alone.exit_code, json.loads(alone.output)["code"]) == (0, "dispute.within_bound")


def test_an_answer_that_hides_something_is_not_recorded(dispute: Dispute, root: Path) -> None:
    from proofhold.adjudication import acknowledge_answer, adjudicate, record_answer
    from proofhold.contention import Challenge
    from proofhold.escrow import Refused
    from proofhold.keys import Signed
    from proofhold.provider.answering import answer_exchange
    from proofhold.replay.accusation import charge
    from proofhold.replay.regions import Graph

    stage = dispute.stage
    with pytest.raises(Refused) as caught:
        acknowledge_answer(dispute.bundle.exchange.job.digest, escrow=stage.escrow, key=stage.judge)
    assert caught.value.code == "answer.missing"
    claim, entry = dispute.bundle.exchange.claim, stage.catalogue.by_name(MODEL)
    assert entry.replay is not None
    document = Challenge(job=claim.document.job, seq=0, claim=claim.digest, segment=1)
    challenge = Signed.new(document, stage.judge)
    stage.escrow.challenge(challenge, now=stage.clock())
    answered = answer_exchange(challenge, dispute.bundle.exchange, entry, stage.provider, runner=runner())
    segment, whole = entry.replay.segments[1], answered.document.document
    ends = {*segment.inputs, *segment.outputs}
    kept = [t for t in answered.tensors if t.name in ends]
    for document_, tensors in (
        (replace(whole, tensors=tuple(n for n in whole.tensors if n.name in ends)), kept),
        (replace(whole, tensors=whole.tensors[1:]), answered.tensors[1:]),
        (replace(whole, leaves=whole.leaves[::-1]), answered.tensors),
    ):
        hiding = Signed.new(document_, stage.provider)
        with pytest.raises(Refused) as caught:
            record_answer(hiding, tensors, catalogue=stage.catalogue, escrow=stage.escrow, clock=stage.clock)
        assert caught.value.code == "answer.none"
    assert dispute.state() is State.ANSWERING

    # A transcript of an answer that was never recorded pays nobody.
    graph = Graph.parse(entry.model_bytes())
    job = dispute.bundle.exchange.job
    transcript, _ = charge(job, claim, entry.replay, graph, answered.document, answered.tensors, stage.judge)
    with pytest.raises(Refused) as caught:
        adjudicate(
            transcript.encode(),
            catalogue=stage.catalogue,
            escrow=stage.escrow,
            runner=runner(),
            clock=stage.clock,
        )
    assert caught.value.code == "dispute.answer"
    stage.clock.pass_by(TERMS.answer_s + 1)
    stage.escrow.run_timers(stage.clock())
    assert dispute.state() is State.REFUNDING
    taken = sum(b.amount for b in stage.escrow.balances() if b.account.kind == "treasury")
    assert taken == TERMS.withholding_penalty


def test_the_acts_of_the_demo_end_as_told_and_their_transcripts_are_replayed(tmp_path: Path) -> None:
    stage = Stage(REPOSITORY, tmp_path, runner(), Prover(runner()), SimulatedClock(1_800_000_000))
    lines = list(play_disputes(stage))
    assert [(line.act, line.state) for line in lines[-2:]] == [(11, "refunded"), (12, "released")]
    assert stage.escrow.audit() == ()
    model = REPOSITORY / "models" / MODEL / "model.onnx"
    for name, exit_code, outcome in (("11", 4, "convicted"), ("12", 0, "acquitted")):
        path = tmp_path / f"{name}-transcript.bin"
        result = CliRunner().invoke(main, ["dispute", "judge", str(path), "--model", str(model)])
        assert (result.exit_code, result.output.split(":")[0]) == (exit_code, outcome)
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes((tmp_path / "11-transcript.bin").read_bytes()[:-1])
    result = CliRunner().invoke(main, ["dispute", "judge", str(damaged), "--model", str(model)])
    assert (result.exit_code, "transcript.truncated" in result.output) == (4, True)
