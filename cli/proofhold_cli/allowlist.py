"""``proofhold allowlist``: say which programs may run behind a service, and whose keys may answer for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import FILE, clock, echo_json, json_option, now_option, read_file, write_file
from proofhold_cli.parameters import INSTANT
from proofhold_cli.terminal import one_line

if TYPE_CHECKING:
    from proofhold.allowlist import AllowList, Program, SignedAllowList, Signer

from_option = click.option("--from", "valid_from", type=INSTANT, required=True, help="Good from then on.")
until_option = click.option("--until", "valid_until", type=INSTANT, required=True, help="And before then.")


@click.group("allowlist")
def allowlist_group() -> None:
    """Say what may run behind a service, and whose keys may answer for it."""


@allowlist_group.command("new")
@click.argument("file", type=FILE)
@click.option("--service", required=True, help="The service's name, as jobs state it.")
@click.option(
    "--max-age", "max_age_s", type=int, default=300, show_default=True, help="Seconds an answer lasts."
)
@now_option
def new(file: Path, service: str, max_age_s: int, now: int | None) -> None:
    """Write an empty list to FILE, unsigned: it admits nobody."""
    from proofhold.allowlist import AllowList
    from proofhold.errors import Misuse
    from proofhold.keys import Signed

    if file.exists():
        raise Misuse(f"{file} exists: a list that jobs name is never written over")
    signed = Signed.new(AllowList(service=service, issued_at=clock(now), max_age_s=max_age_s))
    _write(file, signed)
    click.echo(f"{file}: an empty list for {service}, which admits nobody")


@allowlist_group.group("add")
def add_group() -> None:
    """Add a program or a key; what was signed must be signed again."""


@add_group.command("program")
@click.argument("file", type=FILE)
@click.option("--name", required=True, help="What signers' entries call it.")
@click.option("--image", required=True, help="The image, in words or by its digest.")
@click.option("--source", required=True, help="Where its source is, so that anyone can build it again.")
@click.option("--model", help="SHA-256 of the one model that it can run; left out where it only routes.")
@click.option(
    "--relays-hash", is_flag=True, help="It signs a request hash that its client hands it, unchecked."
)
@click.option(
    "--measurement",
    "measurements",
    multiple=True,
    metavar="KIND:NAME=HEX,…",
    help="Such as nitro:pcr0=…,pcr1=…,pcr2=…; may be given several times.",
)
@from_option
@until_option
@now_option
def add_program(
    file: Path,
    name: str,
    image: str,
    source: str,
    model: str | None,
    relays_hash: bool,
    measurements: tuple[str, ...],
    valid_from: int,
    valid_until: int,
    now: int | None,
) -> None:
    """Add a program to the list in FILE."""
    from proofhold.allowlist import Measurement, Program

    program = Program(
        name=name,
        image=image,
        source=source,
        model=model,
        binds_input=not relays_hash,
        measurements=tuple(Measurement.of(*_measurement(text)) for text in measurements),
        valid_from=valid_from,
        valid_until=valid_until,
    )
    _add(file, program, now)


@add_group.command("signer")
@click.argument("file", type=FILE)
@click.option("--scheme", required=True, help="rsa-pss, secp256k1 or ed25519.")
@click.option("--key", required=True, metavar="HEX|FILE", help="The public key, or its file in PEM.")
@click.option("--program", required=True, help="Which program holds the key.")
@click.option("--payee", required=True, help="The account that its answers are paid on.")
@click.option("--binding", "bindings", multiple=True, required=True, help="Such as opengradient/current.")
@click.option(
    "--shown", is_flag=True, help="The evidence must itself show a document that vouches for the key."
)
@from_option
@until_option
@now_option
def add_signer(
    file: Path,
    scheme: str,
    key: str,
    program: str,
    payee: str,
    bindings: tuple[str, ...],
    shown: bool,
    valid_from: int,
    valid_until: int,
    now: int | None,
) -> None:
    """Add a key to the list in FILE."""
    from proofhold.allowlist import Binding, Scheme, Signer, Vouching
    from proofhold.errors import Misuse

    try:
        signer = Signer(
            scheme=Scheme(scheme),
            key=_key(key),
            program=program,
            payee=payee,
            bindings=tuple(sorted(Binding(binding) for binding in bindings)),
            vouched=Vouching.SHOWN if shown else Vouching.LISTED,
            valid_from=valid_from,
            valid_until=valid_until,
        )
    except ValueError as error:
        raise Misuse(str(error)) from error
    _add(file, signer, now)


@add_group.command("registry")
@click.argument("file", type=FILE)
@click.option(
    "--snapshot", "snapshot_file", type=FILE, required=True, help="OpenGradient's registry in JSON."
)
@click.option("--program", "program_name", required=True, help="Whose measurements an entry must have.")
@from_option
@until_option
@now_option
def add_registry(
    file: Path, snapshot_file: Path, program_name: str, valid_from: int, valid_until: int, now: int | None
) -> None:
    """Add every key of a registry's snapshot that runs PROGRAM, each paid on the account that it registered.

    The snapshot is a JSON list of TEEInfo. Who signs the list vouches for having read the chain.
    """
    from proofhold.allowlist import Signer
    from proofhold.attestation.registry import read_snapshot, signers_of
    from proofhold.errors import Misuse
    from proofhold.keys import Signed

    document = _read(file).document
    program = next((one for one in document.programs if one.name == program_name), None)
    if program is None:
        raise Misuse(f"the list has no program {program_name}")
    tees = read_snapshot(read_file(snapshot_file))
    added = 0
    for found in signers_of(tees, program, valid_from=valid_from, valid_until=valid_until):
        if isinstance(found, Signer):
            document, added = document.adding(found, issued_at=clock(now)), added + 1
        else:
            click.echo(f"left out {found.tee_id}: {found.why}")
    _write(file, Signed.new(document))
    click.echo(f"{file}: {added} of {len(tees)} entries added; sign it again")


@allowlist_group.command("sign")
@click.argument("file", type=FILE)
@click.option(
    "--key", "key_file", type=FILE, required=True, help="The private key of whoever vouches for it."
)
@json_option
def sign(file: Path, key_file: Path, as_json: bool) -> None:
    """Sign the list in FILE, and print the digest that jobs name."""
    from proofhold.keys import SigningKey

    signed = _read(file).signed(SigningKey.load(key_file))
    _write(file, signed)
    if as_json:
        echo_json({"digest": signed.digest, "signers": sorted(signed.envelope.signers())})
    else:
        click.echo(signed.digest)


@allowlist_group.command("show")
@click.argument("file", type=FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Show the list in FILE: what it admits, and who vouches for it."""
    signed = _read(file)
    names = sorted(signed.envelope.signers())
    if as_json:
        echo_json({"allowlist": signed.document.to_json(), "digest": signed.digest, "signers": names})
        return
    _explain(signed.document)
    click.echo(f"signed by: {', '.join(names) or 'nobody'}")
    click.echo(f"digest: {signed.digest}")


def _explain(document: AllowList) -> None:
    """Say it in lines rather than in a table: keys and accounts are there to be copied."""
    click.echo(f"service {document.service}: an answer counts for {document.max_age_s} s")
    for p in document.programs:
        click.echo(f"program {p.name}: {one_line(p.image)}, {_days(p.valid_from, p.valid_until)}")
        click.echo(f"  source {one_line(p.source)}")
        click.echo(f"  runs {f'the model {p.model}' if p.model else 'any model: it shows routing only'}")
        if not p.binds_input:
            click.echo("  signs request hashes unchecked: answers do not show their input")
        for measurement in p.measurements:
            click.echo(f"  measures {measurement.kind}")
            for name, value in measurement.registers:
                click.echo(f"    {name} {value}")
    for s in document.signers:
        click.echo(f"key {s.scheme.value} {_short(s.key)}, {_days(s.valid_from, s.valid_until)}")
        click.echo(f"  of program {s.program}, {s.vouched.value}, signs as {', '.join(s.bindings)}")
        click.echo(f"  paid on {s.payee}")


def _days(since: int, until: int) -> str:
    from datetime import UTC, datetime

    start, end = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d") for at in (since, until))
    return f"from {start} until {end}"


def _short(key: bytes) -> str:
    return key.hex() if len(key) <= 32 else f"{key.hex()[:16]}… ({len(key)} bytes)"


def _measurement(text: str) -> tuple[str, dict[str, str]]:
    """Read ``KIND:NAME=HEX,…``."""
    kind, _, rest = text.partition(":")
    return kind, {name: value for name, _, value in (pair.partition("=") for pair in rest.split(","))}


def _key(text: str) -> bytes:
    """Read a key's hexadecimal digits, with or without 0x, or the PEM file of a public key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    from proofhold.errors import Misuse

    path = Path(text)
    if not path.is_file():
        return bytes.fromhex(text.removeprefix("0x"))
    try:
        public = load_pem_public_key(read_file(path))
    except UnsupportedAlgorithm as error:
        raise Misuse(f"{path} holds a key of an unknown kind") from error
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _add(file: Path, entry: Program | Signer, now: int | None) -> None:
    from proofhold.keys import Signed

    document = _read(file).document.adding(entry, issued_at=clock(now))
    _write(file, Signed.new(document))
    click.echo(f"{file}: {len(document.programs)} program(s), {len(document.signers)} key(s); sign it again")


def _read(file: Path) -> SignedAllowList:
    from proofhold.allowlist import AllowList
    from proofhold.keys import Signed

    return Signed.decode(AllowList, read_file(file))


def _write(file: Path, signed: SignedAllowList) -> None:
    write_file(file, signed.encode())
