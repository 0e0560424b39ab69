"""``proofhold dispute``: from a re-execution that does not match to a transcript that anyone replays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import FILE, FOLDER, clock, echo_json, json_option, now_option
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from proofhold.catalogue import Catalogue, Entry
    from proofhold.job import SignedJob
    from proofhold.replay.judge import Judgement

EXIT_CODES = {
    "acquitted": ExitCode.ACCEPTED,
    "convicted": ExitCode.REJECTED,
    "undecided": ExitCode.INCONCLUSIVE,
    "dismissed": ExitCode.INCONCLUSIVE,
}

key_option = click.option("--key", "key_file", type=FILE, required=True, help="The signer's private key.")
out_option = click.option("--out", "out_file", type=FILE, required=True, help="Where to write the result.")
escrow_option = click.option("--escrow", "home", type=FOLDER, help="Hand it in at this escrow as well.")


@click.group("dispute")
def dispute_group() -> None:
    """Challenge a claim, answer, charge, and judge by arithmetic alone."""


@dispute_group.command("open")
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@click.option("--segment", type=click.IntRange(min=0), required=True, help="Which segment to challenge.")
@key_option
@out_option
@escrow_option
@now_option
@json_option
def open_command(
    bundle_file: Path,
    segment: int,
    key_file: Path,
    out_file: Path,
    home: Path | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Challenge one segment of the claim in BUNDLE: its provider has to show every step of it."""
    from proofhold.contention import Challenge
    from proofhold.escrow.home import open_home
    from proofhold.keys import Signed, SigningKey
    from proofhold_cli.files import read_bundle, write_file

    claim = read_bundle(bundle_file).exchange.claim
    document = Challenge(job=claim.document.job, seq=claim.document.seq, claim=claim.digest, segment=segment)
    challenge = Signed.new(document, SigningKey.load(key_file))
    write_file(out_file, challenge.encode())
    if home is not None:
        with open_home(home) as escrow:
            escrow.challenge(challenge, now=clock(now))
    _say("challenged", challenge.digest, f"segment {segment} of the claim {claim.digest}", as_json=as_json)


@dispute_group.command("answer")
@click.argument("challenge_file", metavar="CHALLENGE", type=FILE)
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@key_option
@out_option
@escrow_option
@root_option
@now_option
@json_option
def answer_command(
    challenge_file: Path,
    bundle_file: Path,
    key_file: Path,
    out_file: Path,
    home: Path | None,
    root: Path | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Answer CHALLENGE of the claim in BUNDLE: run its segment operator by operator, sign, write.

    What is written was examined as a judge examines it: it cannot be convicted. Where no honest run agrees
    with the claim, nothing is signed.
    """
    from proofhold.adjudication import record_answer
    from proofhold.catalogue import Catalogue
    from proofhold.contention import Challenge
    from proofhold.escrow.home import open_home
    from proofhold.keys import Signed, SigningKey
    from proofhold.provider.answering import answer_exchange
    from proofhold.replay.transcript import encode_answer
    from proofhold.runner import ProcessRunner
    from proofhold_cli.files import read_bundle, read_file, write_file
    from proofhold_cli.root import find_root

    challenge = Signed.decode(Challenge, read_file(challenge_file))
    exchange = read_bundle(bundle_file).exchange
    catalogue = Catalogue.load(find_root(root))
    entry = _entry_of(exchange.job, catalogue)
    with ProcessRunner(memory_bytes=None) as runner:
        answered = answer_exchange(challenge, exchange, entry, SigningKey.load(key_file), runner=runner)
    write_file(out_file, encode_answer(answered.document, answered.tensors))
    if home is not None:
        with open_home(home) as escrow:
            record_answer(
                answered.document,
                answered.tensors,
                catalogue=catalogue,
                escrow=escrow,
                clock=lambda: clock(now),
            )
    text = f"{len(answered.tensors)} tensors, the furthest at {answered.ratio:.2f} of its bound"
    _say("answered", answered.document.digest, text, as_json=as_json)


@dispute_group.command("acknowledge")
@click.argument("hold")
@click.option("--seq", type=click.IntRange(0), default=0, show_default=True, help="The capture.")
@click.option("--escrow", "home", type=FOLDER, required=True, help="The escrow that has recorded the answer.")
@key_option
@out_option
@json_option
def acknowledge_command(
    hold: str, seq: int, home: Path, key_file: Path, out_file: Path, as_json: bool
) -> None:
    """Sign, as the verifier, that the answer for HOLD's challenge is on record, and since when.

    Whoever has it cannot be called silent.
    """
    from proofhold.adjudication import acknowledge_answer
    from proofhold.escrow.home import open_home
    from proofhold.keys import SigningKey
    from proofhold_cli.files import write_file

    with open_home(home) as escrow:
        word = acknowledge_answer(hold, escrow=escrow, key=SigningKey.load(key_file), seq=seq)
    write_file(out_file, word.encode())
    _say("acknowledged", word.document.opening, f"recorded at {word.document.at}", as_json=as_json)


@dispute_group.command("charge")
@click.argument("answer_file", metavar="ANSWER", type=FILE)
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@key_option
@click.option("--tensor", "target", help="Charge this one; else the one that is furthest off.")
@out_option
@root_option
@json_option
def charge_command(
    answer_file: Path,
    bundle_file: Path,
    key_file: Path,
    target: str | None,
    out_file: Path,
    root: Path | None,
    as_json: bool,
) -> None:
    """Look for what contradicts itself in ANSWER, charge it, and write the transcript."""
    from proofhold.catalogue import Catalogue
    from proofhold.errors import Misuse
    from proofhold.keys import SigningKey
    from proofhold.replay.accusation import charge
    from proofhold.replay.regions import Graph
    from proofhold.replay.transcript import decode_answer
    from proofhold_cli.files import read_bundle, read_file, write_file
    from proofhold_cli.root import find_root

    answer, tensors = decode_answer(read_file(answer_file))
    exchange = read_bundle(bundle_file).exchange
    entry = _entry_of(exchange.job, Catalogue.load(find_root(root)))
    if entry.replay is None:
        raise Misuse(f"{entry.name} has no replay lock")
    transcript, found = charge(
        exchange.job,
        exchange.claim,
        entry.replay,
        Graph.parse(entry.model_bytes()),
        answer,
        tensors,
        SigningKey.load(key_file),
        target=target,
    )
    write_file(out_file, transcript.encode())
    how = found.unbounded or f"at {found.ratio:.3g} of its bound"
    _say("charged", transcript.digest, f"{found.tensor}, {how}", as_json=as_json)


@dispute_group.command("judge")
@click.argument("transcript_file", metavar="TRANSCRIPT", type=FILE)
@click.option("--model", "model_file", type=FILE, help="The published model; else it is looked up.")
@escrow_option
@root_option
@now_option
@json_option
def judge_command(
    transcript_file: Path,
    model_file: Path | None,
    home: Path | None,
    root: Path | None,
    now: int | None,
    as_json: bool,
) -> None:
    """Replay TRANSCRIPT: does what the provider signed contradict itself?

    Needs the transcript and the model, and asks nobody. Ends with 0 where the provider is acquitted, 4 where
    it is convicted, 3 where nobody can say or it is no case. With --escrow the outcome moves the money.
    """
    from proofhold.adjudication import adjudicate
    from proofhold.catalogue import Catalogue
    from proofhold.escrow.home import open_home
    from proofhold.escrow.rail import LedgerRail
    from proofhold.replay.judge import Judgement, judge_task
    from proofhold.replay.transcript import Transcript
    from proofhold.runner import ProcessRunner
    from proofhold_cli.files import read_file
    from proofhold_cli.root import find_root

    data = read_file(transcript_file)
    transcript = Transcript.decode(data)
    with ProcessRunner(memory_bytes=None) as runner:
        if home is not None:
            catalogue = Catalogue.load(find_root(root))
            with open_home(home) as escrow:
                settled = adjudicate(
                    data, catalogue=catalogue, escrow=escrow, runner=runner, clock=lambda: clock(now)
                )
                escrow.pump(LedgerRail(), now=clock(now))
            judgement = settled.judgement
        else:
            if model_file is not None:
                model = read_file(model_file)
            else:
                model = _entry_of(transcript.job, Catalogue.load(find_root(root))).model_bytes()
            judgement = Judgement.read(runner.run(judge_task, data, model))
    _report(judgement, transcript.digest, as_json=as_json)
    click.get_current_context().exit(EXIT_CODES[judgement.outcome.value])


def _report(judgement: Judgement, digest: str, *, as_json: bool) -> None:
    if as_json:
        echo_json({**judgement.to_json(), "transcript": digest})
        return
    click.echo(f"{judgement.outcome}: {judgement.message} [{judgement.code}]")
    if judgement.operators:
        click.echo(f"operators   {', '.join(judgement.operators)}")
    click.echo(f"transcript  {digest}")


def _entry_of(job: SignedJob, catalogue: Catalogue) -> Entry:
    from proofhold.errors import Misuse
    from proofhold.job import OnnxModel

    model = job.document.model
    entry = catalogue.by_digest(model.onnx) if isinstance(model, OnnxModel) else None
    if entry is None:
        raise Misuse("the job's model is not in this catalogue")
    return entry


def _say(what: str, digest: str, text: str, *, as_json: bool) -> None:
    if as_json:
        echo_json({what: digest, "text": text})
    else:
        click.echo(f"{what} {digest}: {text}")
