"""``proofhold srs``: structured reference strings, made for development or imported from a ceremony."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.files import FILE, echo_json, json_option, write_file
from proofhold_cli.terminal import one_line, print_unsafe

if TYPE_CHECKING:
    from proofhold.compile import Srs


@click.group("srs")
def srs_group() -> None:
    """Make or import a structured reference string (SRS)."""


@srs_group.command("new")
@click.option(
    "--unsafe-dev", "k", type=int, required=True, metavar="K", help="2^K points; the secret is public."
)
@click.option("--out", type=FILE, help="Also write the file here.")
@json_option
def new(k: int, out: Path | None, as_json: bool) -> None:
    """Make the development SRS: the same bytes everywhere, and anybody can forge proofs made with it."""
    from proofhold.compile import dev_srs

    srs = dev_srs(k)
    if out is not None:
        write_file(out, srs.path.read_bytes())
    _print(srs, as_json)


@srs_group.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--digest", required=True, metavar="HEX", help="The SHA-256 that the ceremony published.")
@click.option("--label", required=True, metavar="TEXT", help="What the ceremony is called, in locks.")
@json_option
def import_file(file: Path, digest: str, label: str, as_json: bool) -> None:
    """Take a ceremony's file into the cache, if it is the one that DIGEST names."""
    from proofhold.compile import import_ceremony

    _print(import_ceremony(file, digest=digest, label=label), as_json)


@srs_group.command("show")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def show(file: Path, as_json: bool) -> None:
    """Say what a file is: its size, its digest, the digest of its verification part, whether it is unsafe."""
    from proofhold.compile import identify_srs

    srs = identify_srs(file)
    fields: dict[str, str | int | bool] = {
        "k": srs.k,
        "digest": srs.digest,
        "verify_digest": srs.verify_digest,
        "unsafe_dev": srs.unsafe_dev,
    }
    _print_fields(fields, as_json, unsafe=srs.unsafe_dev)


def _print(srs: Srs, as_json: bool) -> None:
    pin = srs.pin
    fields: dict[str, str | int | bool] = {
        "kind": pin.kind.value,
        "label": pin.label,
        "k": pin.k,
        "digest": pin.digest,
        "verify_digest": pin.verify_digest,
        "path": str(srs.path),
    }
    _print_fields(fields, as_json, unsafe=pin.kind.value.startswith("unsafe"))


def _print_fields(fields: dict[str, str | int | bool], as_json: bool, *, unsafe: bool) -> None:
    if as_json:
        echo_json(fields)
    else:
        for name, value in fields.items():
            click.echo(f"{name:14}{one_line(str(value))}")
    if unsafe:
        print_unsafe("the secret is public, anybody can forge proofs made with it")
