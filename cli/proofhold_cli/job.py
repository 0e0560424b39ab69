"""``proofhold job``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import FILE, clock, echo_json, json_option, now_option, policy_option
from proofhold_cli.parameters import ESCROW
from proofhold_cli.root import root_option

if TYPE_CHECKING:
    from proofhold.catalogue import Catalogue, Entry, ServiceEntry
    from proofhold.job import Fee
    from proofhold.payload import Payload


@click.group("job")
def job_group() -> None:
    """Draft the job that buyer and provider sign."""


@job_group.command("input", epilog="\b\n$ proofhold job input --model digits --sample 0 --out input.json")
@click.option("--model", help="The model's name in the catalogue.")
@click.option("--sample", type=click.IntRange(min=0), help="Take the model's held-out sample of this number.")
@click.option("--values", "values_file", type=FILE, help='A JSON file such as {"pixels": [0.0, 0.375, …]}.')
@click.option("--request", "request_file", type=FILE, help="For a service: a chat request in JSON.")
@click.option("--out", "out_file", type=FILE, required=True, help="Where to write the payload.")
@root_option
def input_command(
    model: str | None,
    sample: int | None,
    values_file: Path | None,
    request_file: Path | None,
    out_file: Path,
    root: Path | None,
) -> None:
    """Write an input payload: a model's sample, numbers of your own, or a request to a service."""
    from proofhold.payload import encode_payload
    from proofhold_cli.files import write_file

    if request_file is not None:
        if model is not None or sample is not None or values_file is not None:
            raise click.UsageError("--request goes alone: a service takes no tensors.")
        write_file(out_file, encode_payload(_chat_request(request_file)))
        return
    if model is None:
        raise click.UsageError("Name --model, or --request for a service.")
    if (sample is None) == (values_file is None):
        raise click.UsageError("Name either --sample or --values.")
    write_file(out_file, encode_payload(_tensors(model, sample, values_file, root)))


def _tensors(model: str, sample: int | None, values_file: Path | None, root: Path | None) -> Payload:
    import json

    from proofhold.catalogue import MODELS_FOLDER, Catalogue
    from proofhold.compile.specification import read_samples
    from proofhold.domain import tensors_of
    from proofhold.errors import Misuse
    from proofhold.records import Record
    from proofhold_cli.files import read_file
    from proofhold_cli.root import find_root

    folder = find_root(root)
    entry = Catalogue.load(folder).by_name(model)
    if values_file is not None:
        try:
            values = json.loads(read_file(values_file))
        except (ValueError, RecursionError) as error:
            raise Misuse(f"{values_file} is not JSON: {error}") from error
        return tensors_of(Record(values, what="values"), entry.inputs)
    samples = read_samples(folder / MODELS_FOLDER / model / "samples.json", entry.inputs)
    if sample is None or sample >= len(samples):
        raise Misuse(f"{model} has samples 0 to {len(samples) - 1}")
    return samples[sample].inputs


def _chat_request(file: Path) -> Payload:
    """Read a request that a person wrote, and give the one encoding of it that will be sent and hashed."""
    from proofhold.chat import request_document
    from proofhold_cli.files import read_file

    return request_document(read_file(file))


def _fee(text: str | None) -> Fee | None:
    from proofhold.job import Fee, parse_rate

    if text is None:
        return None
    account, _, rate = text.rpartition("=")
    return Fee(account, parse_rate(rate))


@job_group.command("request")
@click.argument("input_file", metavar="INPUT", type=FILE)
@click.option("--out", "out_file", type=FILE, required=True, help="Where to write it.")
def request_command(input_file: Path, out_file: Path) -> None:
    """Write the request in INPUT byte for byte as it has to be sent to the service."""
    from proofhold.errors import Misuse
    from proofhold.payload import Document, decode_payload
    from proofhold_cli.files import read_file, write_file

    payload = decode_payload(read_file(input_file))
    if not isinstance(payload, Document):
        raise Misuse("this input is tensors: it is for a model, not for a service")
    write_file(out_file, payload.body)


@job_group.command("new")
@click.argument("input_file", metavar="INPUT", type=FILE)
@click.option("--model", help="The model's name in the catalogue.")
@click.option("--service", help="Or a service's name in the catalogue.")
@click.option("--escrow", "home", type=ESCROW, required=True, help="The escrow's folder, or its address.")
@click.option("--key", "key_file", type=FILE, required=True, help="The buyer's private key.")
@click.option("--provider", required=True, help="The provider's public key, ed25519:…")
@click.option("--verifier", required=True, help="The verifier's public key, ed25519:…")
@click.option("--price", required=True, help="Such as 0.25.")
@click.option("--bond", default="0", show_default=True, help="What the provider stakes.")
@click.option("--penalty", default="0", show_default=True, help="What withheld answers cost the provider.")
@click.option("--currency", default="USDC:6", show_default=True, help="Code and decimal places.")
@click.option("--rate", default="1", show_default=True, help="How often re-execution is drawn, such as 0.2.")
@click.option(
    "--evidence",
    "kinds",
    multiple=True,
    help="What the claim may be judged by; may be repeated. By default ezkl and replay, or whatever the "
    "service's allow-list admits.",
)
@click.option("--payee", help="The account to pay: by default the provider's, or the one in the allow-list.")
@click.option(
    "--claim-within-s",
    type=click.IntRange(min=1),
    default=3_600,
    show_default=True,
    help="How long the provider has for its claim.",
)
@click.option(
    "--dispute-s",
    type=click.IntRange(min=0),
    default=86_400,
    show_default=True,
    help="How long a dispute may stay open before the buyer is refunded.",
)
@click.option(
    "--delivery",
    type=click.Choice(["with_verdict", "immediate"]),
    default="with_verdict",
    show_default=True,
    help="When the buyer gets the output.",
)
@click.option(
    "--captures",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="How many claims it takes, each for more than the one before.",
)
@click.option(
    "--fee", metavar="ACCOUNT=RATE", help="Who else gets a share of what is paid, such as house=0.01."
)
@click.option(
    "--check-products",
    is_flag=True,
    help="If drawn, check every matrix product by random projection: for jobs worth falsifying one value.",
)
@click.option("--out", "out_file", type=FILE, required=True, help="Where to write the job.")
@policy_option
@now_option
@root_option
@json_option
def new_command(
    input_file: Path,
    model: str | None,
    service: str | None,
    home: str,
    key_file: Path,
    provider: str,
    verifier: str,
    price: str,
    bond: str,
    penalty: str,
    currency: str,
    rate: str,
    kinds: tuple[str, ...],
    payee: str | None,
    claim_within_s: int,
    dispute_s: int,
    delivery: str,
    captures: int,
    fee: str | None,
    check_products: bool,
    out_file: Path,
    policy_name: str,
    now: int | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Draft a job for INPUT, a payload file, and sign it as the buyer."""
    from proofhold.catalogue import Catalogue
    from proofhold.drafting import Terms, draft_job
    from proofhold.escrow.home import open_home
    from proofhold.job import Delivery, parse_rate
    from proofhold.keys import SigningKey
    from proofhold.money import Currency
    from proofhold.payload import decode_payload
    from proofhold_cli.files import read_file, read_policy, write_file
    from proofhold_cli.root import find_root

    if (model is None) == (service is None):
        raise click.UsageError("Name either --model or --service.")
    entry = _entry(Catalogue.load(find_root(root)), model, service)
    kinds, payee = _defaults(entry, kinds, payee)
    unit = Currency.named(currency)
    terms = Terms(
        price=unit.parse(price),
        bond=unit.parse(bond),
        withholding_penalty=unit.parse(penalty),
        currency=unit,
        sampling_rate_ppm=parse_rate(rate),
        evidence_kinds=kinds,
        delivery=Delivery(delivery),
        claim_within_s=claim_within_s,
        dispute_s=dispute_s,
        captures=captures,
        fee=_fee(fee),
        check_products=check_products,
    )
    with open_home(home) as escrow:
        job = draft_job(
            terms,
            entry=entry,
            payload=decode_payload(read_file(input_file)),
            policy=read_policy(policy_name),
            buyer=SigningKey.load(key_file),
            provider=provider,
            verifier=verifier,
            escrow=escrow,
            now=clock(now),
            payee=payee,
        )
    write_file(out_file, job.encode())
    _print_job(job.digest, out_file, as_json=as_json)


def _entry(catalogue: Catalogue, model: str | None, service: str | None) -> Entry | ServiceEntry:
    from proofhold.errors import Misuse

    if service is None:
        return catalogue.by_name(model or "")
    if (entry := catalogue.service(service)) is None:
        known = ", ".join(one.name for one in catalogue.services) or "none"
        raise Misuse(f"the catalogue has no service {service}; it has {known}")
    return entry


def _defaults(
    entry: Entry | ServiceEntry, kinds: tuple[str, ...], payee: str | None
) -> tuple[tuple[str, ...], str | None]:
    """Fill in what was not named: for a service its allow-list says what may be."""
    from proofhold.catalogue import ServiceEntry
    from proofhold.errors import Misuse

    if not isinstance(entry, ServiceEntry):
        return kinds or ("ezkl", "replay"), payee
    signers = entry.document.signers
    kinds = kinds or tuple({binding.kind for signer in signers for binding in signer.bindings})
    payees = sorted({signer.payee for signer in signers})
    if payee is None and len(payees) != 1:
        raise Misuse(f"name --payee: the allow-list pays {', '.join(payees) or 'nobody'}")
    return kinds, payee or payees[0]


@job_group.command("show")
@click.argument("job_file", metavar="JOB", type=FILE)
@json_option
def show_command(job_file: Path, as_json: bool) -> None:
    """Print a job's terms and who signed it."""
    from proofhold.job import Job
    from proofhold.keys import Signed
    from proofhold_cli.files import read_file
    from proofhold_cli.terminal import print_table

    job = Signed.decode(Job, read_file(job_file))
    signers = job.envelope.signers()
    if as_json:
        echo_json({"digest": job.digest, "job": job.document.to_json(), "signers": sorted(signers)})
        return
    rows = [(name, str(value)) for name, value in job.document.to_json().items()]
    missing = "buyer and provider" if not signers else "the other side"
    bound = job.envelope.is_signed_by_exactly(job.document.signers)
    signed = "by both sides: it binds" if bound else f"not yet by {missing}"
    print_table(["job", job.digest], [*rows, ("signed", signed)])


def _print_job(digest: str, out_file: Path, *, as_json: bool) -> None:
    if as_json:
        echo_json({"file": str(out_file), "job": digest})
    else:
        click.echo(f"job {digest}, written to {out_file}")
