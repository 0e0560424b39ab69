"""``proofhold provider``."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import FILE, echo_json, json_option
from proofhold_cli.parameters import DECIMAL
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from proofhold.catalogue import Entry, ServiceEntry
    from proofhold.job import SignedJob

key_option = click.option("--key", "key_file", type=FILE, required=True, help="The provider's private key.")
out_option = click.option("--out", "out_file", type=FILE, required=True, help="Where to write the result.")


@click.group("provider")
def provider_group() -> None:
    """Accept or decline a job, respond to it, and see what proofs cost."""


@provider_group.command("accept")
@click.argument("job_file", metavar="JOB", type=FILE)
@key_option
@out_option
@root_option
@json_option
def accept_command(job_file: Path, key_file: Path, out_file: Path, root: Path | None, as_json: bool) -> None:
    """Countersign JOB. It is refused if it pins another model, locks or allow-list than this catalogue's."""
    from proofhold.job import Job
    from proofhold.keys import Signed, SigningKey
    from proofhold.provider import accept
    from proofhold_cli.files import read_file, write_file

    job = Signed.decode(Job, read_file(job_file))
    entry = _entry_of(job, root)
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
@click.option(
    "--trace", is_flag=True, help="Commit to the tensors at the model's cuts: a check is then of one segment."
)
@key_option
@out_option
@root_option
@json_option
def respond_command(
    job_file: Path,
    input_file: Path,
    prove: bool,
    trace: bool,
    key_file: Path,
    out_file: Path,
    root: Path | None,
    as_json: bool,
) -> None:
    """Run the model on INPUT, sign the claim, and write a bundle.

    With --prove the claimed output is the proved one; the first proof of a model also makes its proving key.
    A job on a service is answered with `provider relay`.
    """
    from proofhold.catalogue import Entry
    from proofhold.errors import Misuse
    from proofhold.job import Job
    from proofhold.keys import Signed, SigningKey
    from proofhold.payload import decode_payload
    from proofhold.provider import Prover, respond
    from proofhold.runner import ProcessRunner
    from proofhold_cli.files import read_file, write_file
    from proofhold_cli.progress import steps

    job = Signed.decode(Job, read_file(job_file))
    entry = _entry_of(job, root)
    if not isinstance(entry, Entry):
        raise Misuse("this job is on a service: answer it with proofhold provider relay")
    with ProcessRunner(memory_bytes=None, threads=None) as runner, steps() as on_step:
        bundle = respond(
            job,
            decode_payload(read_file(input_file)),
            entry,
            SigningKey.load(key_file),
            prover=Prover(runner) if prove else None,
            trace=trace,
            on_step=on_step,
        )
    write_file(out_file, bundle.encode())
    _say("responded", job.digest, out_file, as_json=as_json)


@provider_group.command("bench")
@click.argument("model", metavar="MODEL")
@click.option("--runs", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many proofs.")
@click.option(
    "--machine-hour", type=DECIMAL, metavar="PRICE", help="What an hour of this machine costs, in any unit."
)
@root_option
@json_option
def bench_command(
    model: str, runs: int, machine_hour: Decimal | None, root: Path | None, as_json: bool
) -> None:
    """Measure what a proof of MODEL costs on this machine: time, memory, and the price of it.

    Proves samples of the model as a job would have it, one after the other on all cores. The first time, it
    makes the proving key, and says where it is kept.
    """
    from proofhold.catalogue import MODELS_FOLDER, Catalogue
    from proofhold.compile.specification import SPECIFICATION_FILE_NAME, Specification, read_samples
    from proofhold.provider import Prover
    from proofhold.provider.cost import measure
    from proofhold.runner import ProcessRunner
    from proofhold_cli.progress import steps
    from proofhold_cli.root import find_root

    folder = find_root(root)
    entry = Catalogue.load(folder).by_name(model)
    specification = Specification.read(folder / MODELS_FOLDER / model / SPECIFICATION_FILE_NAME)
    sample = read_samples(specification.samples, entry.inputs)[0]
    with ProcessRunner(memory_bytes=None, threads=None) as runner, steps() as on_step:
        cost = measure(Prover(runner), entry, sample.inputs, runs=runs, on_step=on_step)
    price = None if machine_hour is None else cost.price(machine_hour)
    if as_json:
        echo_json(
            {
                "cores": cost.cores,
                "cpu_s": cost.cpu_s,
                "foretold_s": cost.foretold.prove_s,
                "k": cost.k,
                "keys": {"made": cost.keys_made, "s": cost.keys_s},
                "machine_hour": None if machine_hour is None else f"{machine_hour:f}",
                "memory_bytes": cost.memory_bytes,
                "name": cost.name,
                "pk": {"bytes": cost.pk_bytes, "digest": cost.pk, "path": str(cost.pk_path)},
                "price": None if price is None else f"{price:f}",
                "proof_bytes": cost.proof_bytes,
                "prove_s": list(cost.prove_s),
                "rows": cost.rows,
            }
        )
        return
    keys = "made" if cost.keys_made else "found as the lock pins it"
    click.echo(f"{cost.name}: k {cost.k}, {cost.rows} rows, on {cost.cores} cores")
    click.echo(f"  proving key  {cost.pk_bytes / 1e6:.1f} MB, {keys} in {cost.keys_s:.2g} s: {cost.pk_path}")
    click.echo(
        f"  a proof      {cost.median_s:.2g} s, median of {runs} ({min(cost.prove_s):.2g} to "
        f"{max(cost.prove_s):.2g}); {cost.cpu_s:.2g} s of CPU; foretold {cost.foretold.prove_s:.2g} s"
    )
    click.echo(f"  memory       {cost.memory_bytes / 1e6:.0f} MB at its peak")
    if price is not None:
        click.echo(f"  price        {price:f} a proof, at {machine_hour:f} an hour")


@provider_group.command("open")
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@click.option("--segment", type=click.IntRange(0), help="Which segment is asked for.")
@click.option("--products", is_flag=True, help="All products are asked for: sign for their results.")
@click.option("--key", "key_file", type=FILE, help="The provider's private key, with --products.")
@out_option
@root_option
@json_option
def open_command(
    bundle_file: Path,
    segment: int | None,
    products: bool,
    key_file: Path | None,
    out_file: Path,
    root: Path | None,
    as_json: bool,
) -> None:
    """Open what was drawn of the claim in BUNDLE, one segment or all products, and write it as answers.

    The model runs once more: the same machine gives the same bytes, so nothing has to be kept between the
    claim and its opening. `proofhold verify --answers` reads what is written.
    """
    from proofhold.answers import encode_answers
    from proofhold.catalogue import Catalogue
    from proofhold.core import Answer, NeedKind
    from proofhold.errors import Misuse
    from proofhold.job import OnnxModel
    from proofhold.keys import SigningKey
    from proofhold.provider import open_products, open_segment
    from proofhold_cli.files import read_bundle, write_file
    from proofhold_cli.root import find_root

    if products is (segment is not None) or products is (key_file is None):
        raise click.UsageError("Name --segment, or --products with --key.")
    exchange = read_bundle(bundle_file).exchange
    model = exchange.job.document.model
    entry = Catalogue.load(find_root(root)).by_digest(model.onnx) if isinstance(model, OnnxModel) else None
    if entry is None:
        raise Misuse("the job's model is not in this catalogue")
    if key_file is not None:
        answers = open_products(exchange, entry, SigningKey.load(key_file))
    else:
        opening = open_segment(exchange, entry, segment or 0)
        answers = (Answer(NeedKind.OPENING, opening.encode()),)
    write_file(out_file, encode_answers(answers))
    _say("opened", exchange.job.digest, out_file, as_json=as_json)


@provider_group.command("relay")
@click.argument("job_file", metavar="JOB", type=FILE)
@click.argument("input_file", metavar="INPUT", type=FILE)
@click.option(
    "--response",
    "response_file",
    type=FILE,
    required=True,
    help="What the service answered, byte for byte: JSON, or a stream of events.",
)
@click.option(
    "--signature",
    "signature_file",
    type=FILE,
    help="Of a dstack proxy: what /v1/signature/ID gave. OpenGradient's is in the response.",
)
@click.option("--form", help="How it was signed, where the allow-list leaves a choice.")
@click.option(
    "--attestation", "attestation_file", type=FILE, help="A Nitro document, or a TDX quote, for its key."
)
@click.option("--collateral", "collateral_file", type=FILE, help="The quote's collateral.")
@click.option("--tls-fingerprint", help="SHA-256 of the endpoint's certificate, where the quote hashes it.")
@key_option
@out_option
@root_option
@json_option
def relay_command(
    job_file: Path,
    input_file: Path,
    response_file: Path,
    signature_file: Path | None,
    form: str | None,
    attestation_file: Path | None,
    collateral_file: Path | None,
    tls_fingerprint: str | None,
    key_file: Path,
    out_file: Path,
    root: Path | None,
    as_json: bool,
) -> None:
    """Claim a service's signed answer to the request in INPUT, and write a bundle.

    The answer is cut down to what its signature covers, and the signature is checked before the claim is
    signed: what would be refused is not claimed.
    """
    from proofhold.allowlist import Binding
    from proofhold.catalogue import ServiceEntry
    from proofhold.errors import Misuse
    from proofhold.job import Job
    from proofhold.keys import Signed, SigningKey
    from proofhold.payload import Document, decode_payload
    from proofhold.provider.chat import respond_with
    from proofhold.provider.services import dstack_answer, opengradient_answer
    from proofhold_cli.files import read_file, write_file

    job = Signed.decode(Job, read_file(job_file))
    entry, payload = _entry_of(job, root), decode_payload(read_file(input_file))
    if not isinstance(entry, ServiceEntry) or not isinstance(payload, Document):
        raise Misuse("this job is on a model: answer it with proofhold provider respond")
    response, attestation = read_file(response_file), _optional(attestation_file)
    try:
        named = None if form is None else Binding(form)
        fingerprint = None if tls_fingerprint is None else bytes.fromhex(tls_fingerprint)
    except ValueError as error:
        raise Misuse(
            f"--form is one of {', '.join(Binding)}, a fingerprint is hexadecimal: {error}"
        ) from error
    if signature_file is None:
        if collateral_file or tls_fingerprint:
            raise click.UsageError("--collateral and --tls-fingerprint go with --signature.")
        answer = opengradient_answer(entry, payload, response, form=named, attestation=attestation)
    else:
        answer = dstack_answer(
            entry,
            payload,
            response,
            read_file(signature_file),
            form=named,
            quote=attestation,
            tls_fingerprint=fingerprint,
            collateral=_optional(collateral_file),
        )
    bundle = respond_with(job, payload, answer.output, answer.evidence, entry, SigningKey.load(key_file))
    write_file(out_file, bundle.encode())
    _say("responded", job.digest, out_file, as_json=as_json)


def _optional(file: Path | None) -> bytes | None:
    from proofhold_cli.files import read_file

    return None if file is None else read_file(file)


def _entry_of(job: SignedJob, root: Path | None) -> Entry | ServiceEntry:
    """Give the catalogue's entry of what a job is on.

    Raises:
        Misuse: the catalogue has none.

    """
    from proofhold.catalogue import Catalogue
    from proofhold.errors import Misuse
    from proofhold.job import OnnxModel
    from proofhold_cli.root import find_root

    catalogue, model = Catalogue.load(find_root(root)), job.document.model
    entry: Entry | ServiceEntry | None
    if isinstance(model, OnnxModel):
        entry, what = catalogue.by_digest(model.onnx), "model"
    else:
        entry, what = catalogue.service(model.name), "service"
    if entry is None:
        raise Misuse(f"the job's {what} is not in this catalogue")
    return entry


def _say(what: str, job: str, out_file: Path, *, as_json: bool) -> None:
    if as_json:
        echo_json({"done": what, "file": str(out_file), "job": job})
    else:
        click.echo(f"{what}: job {job}, written to {out_file}")
