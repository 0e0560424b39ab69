"""``proofhold provider``."""

from __future__ import annotations

from pathlib import Path

import click

from proofhold_cli.files import FILE, echo_json, json_option
from proofhold_cli.root import root_option

key_option = click.option("--key", "key_file", type=FILE, required=True, help="The provider's private key.")
out_option = click.option("--out", "out_file", type=FILE, required=True, help="Where to write the result.")


@click.group("provider")
def provider_group() -> None:
    """Accept or decline a job, and respond to it."""


@provider_group.command("accept")
@click.argument("job_file", metavar="JOB", type=FILE)
@key_option
@out_option
@root_option
@json_option
def accept_command(job_file: Path, key_file: Path, out_file: Path, root: Path | None, as_json: bool) -> None:
    """Countersign JOB. It is refused if it pins another model or other locks than this catalogue's."""
    from proofhold.catalogue import Catalogue
    from proofhold.errors import Misuse
    from proofhold.job import Job, OnnxModel
    from proofhold.keys import Signed, SigningKey
    from proofhold.provider import accept
    from proofhold_cli.files import read_file, write_file
    from proofhold_cli.root import find_root

    job = Signed.decode(Job, read_file(job_file))
    model = job.document.model
    entry = Catalogue.load(find_root(root)).by_digest(model.onnx) if isinstance(model, OnnxModel) else None
    if entry is None:
        raise Misuse("the job's model is not in this catalogue")
    signed = accept(job, SigningKey.load(key_file), entry=entry)
    write_file(out_file, signed.encode())
    _say("accepted", signed.digest, out_file, as_json=as_json)


@provider_group.command("decline")
@click.argument("job_file", metavar="JOB", type=FILE)
@key_option
@out_option
@json_option
def decline_command(job_file: Path, key_file: Path, out_file: Path, as_json: bool) -> None:
    """Refuse JOB, funded or not: at the escrow it gives the buyer the money back."""
    from proofhold.job import Job
    from proofhold.keys import Signed, SigningKey
    from proofhold.provider import decline
    from proofhold_cli.files import read_file, write_file

    job = Signed.decode(Job, read_file(job_file))
    write_file(out_file, decline(job, SigningKey.load(key_file)).encode())
    _say("declined", job.digest, out_file, as_json=as_json)


@provider_group.command("respond")
@click.argument("job_file", metavar="JOB", type=FILE)
@click.argument("input_file", metavar="INPUT", type=FILE)
@click.option("--prove", is_flag=True, help="Make a zero-knowledge proof; without it the claim is sampled.")
@key_option
@out_option
@root_option
@json_option
def respond_command(
    job_file: Path,
    input_file: Path,
    prove: bool,
    key_file: Path,
    out_file: Path,
    root: Path | None,
    as_json: bool,
) -> None:
    """Run the model on INPUT, sign the claim, and write a bundle.

    With --prove the claimed output is the proved one; the first proof of a model also makes its proving key.
    """
    from proofhold.catalogue import Catalogue
    from proofhold.errors import Misuse
    from proofhold.job import Job, OnnxModel
    from proofhold.keys import Signed, SigningKey
    from proofhold.payload import decode_payload
    from proofhold.provider import Prover, respond
    from proofhold.runner import ProcessRunner
    from proofhold_cli.files import read_file, write_file
    from proofhold_cli.progress import steps
    from proofhold_cli.root import find_root

    job = Signed.decode(Job, read_file(job_file))
    model = job.document.model
    entry = Catalogue.load(find_root(root)).by_digest(model.onnx) if isinstance(model, OnnxModel) else None
    if entry is None:
        raise Misuse("the job's model is not in this catalogue")
    with ProcessRunner(memory_bytes=None, threads=None) as runner, steps() as on_step:
        bundle = respond(
            job,
            decode_payload(read_file(input_file)),
            entry,
            SigningKey.load(key_file),
            prover=Prover(runner) if prove else None,
            on_step=on_step,
        )
    write_file(out_file, bundle.encode())
    _say("responded", job.digest, out_file, as_json=as_json)


def _say(what: str, job: str, out_file: Path, *, as_json: bool) -> None:
    if as_json:
        echo_json({"done": what, "file": str(out_file), "job": job})
    else:
        click.echo(f"{what}: job {job}, written to {out_file}")
