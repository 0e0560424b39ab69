"""``proofhold collateral``: what it takes to judge a quote or a report, fetched, shown, put into a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode, fail
from proofhold_cli.files import (
    FILE,
    clock,
    echo_json,
    json_option,
    now_option,
    read_bundle,
    read_file,
    write_file,
)
from proofhold_cli.terminal import one_line

if TYPE_CHECKING:
    from proofhold.attestation.collateral import Window
    from proofhold.exchange import Bundle

DCAP = "dcap"
"""Under which name evidence carries the collateral of a quote."""
SNP = "snp"
"""Under which name it carries the certificates and the revocation list of a SEV-SNP report."""
SNP_REPORT_BYTES = 1184
PEM_START = b"-----BEGIN "

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("collateral")
def collateral_group() -> None:
    """Fetch, show and pass on what it takes to judge an attestation.

    Verification never fetches: it reads what a bundle carries, or what it is handed.
    """


@collateral_group.command("fetch")
@click.argument("file", type=EXISTING)
@click.option("--out", type=FILE, required=True, help="Write the collateral file here.")
@click.option("--pccs", metavar="URL", help="A caching service to ask for a quote's, in place of Intel.")
@click.option("--kds", metavar="URL", help="Whom to ask for a report's, in place of AMD.")
@click.option(
    "--line",
    type=click.Choice(["Milan", "Genoa", "Turin"]),
    help="Of which line a SEV-SNP report is; those of version 2 do not say.",
)
def fetch(file: Path, out: Path, pccs: str | None, kds: str | None, line: str | None) -> None:
    """Ask the network for the collateral of FILE: a TDX or SGX quote, or a SEV-SNP report, as binary.

    What comes back is not trusted: whoever verifies checks every signature in it.
    """
    from proofhold.attestation.refusal import Refusal
    from proofhold_cli.fetching import FetchError, dcap_collateral, snp_collateral

    data = read_file(file)
    try:
        if len(data) == SNP_REPORT_BYTES:
            collateral = snp_collateral(data, kds, line)
        else:
            collateral = dcap_collateral(data, pccs)
    except FetchError as error:
        text = str(error).removesuffix(f" [{error.code}]")
        fail(f"could not be fetched: {text}", code=error.code, exit_code=ExitCode.INCONCLUSIVE)
    except Refusal as refusal:
        fail(refusal.message, code=refusal.code, exit_code=ExitCode.REJECTED)
    write_file(out, collateral)
    click.echo(f"wrote {out}, good {_span(*_common(_windows(collateral)))}")


@collateral_group.command("show")
@click.argument("file", type=EXISTING)
@now_option
@json_option
def show(file: Path, now: int | None, as_json: bool) -> None:
    """Say what a collateral FILE holds and when each part of it may be used; nothing in it is checked."""
    windows = _windows(read_file(file))
    instant = clock(now)
    if as_json:
        parts = [
            {"part": w.part, "from": w.not_before, "until": w.not_after, "in_force": w.holds(instant)}
            for w in windows
        ]
        echo_json({"now": instant, "parts": parts})
        return
    # Plain lines: a table of this width would break instants in two on a terminal of 80 columns.
    for w in windows:
        in_force = "in force" if w.holds(instant) else "not now"
        click.echo(f"{one_line(w.part):28}{_date(w.not_before)}  {_date(w.not_after)}  {in_force}")
    click.echo(f"all of it: {_span(*_common(windows))}; no signature was checked")


@collateral_group.command("bundle")
@click.argument("bundle", type=EXISTING)
@click.argument("file", type=EXISTING)
@click.option("--out", type=FILE, help="Write the bundle here, and leave BUNDLE as it is.")
@click.option("--evidence", "number", type=int, metavar="N", help="Which evidence it is for, from 0.")
def bundle_command(bundle: Path, file: Path, out: Path | None, number: int | None) -> None:
    """Put a collateral FILE into a BUNDLE, beside the evidence that it is for.

    Claims name evidence without its collateral, so anyone may do this, and nobody's signature is disturbed.
    """
    data = read_file(file)
    _windows(data)
    changed = _with_collateral(read_bundle(bundle), number, DCAP if _is_dcap(data) else SNP, data)
    write_file(out or bundle, changed.encode())
    click.echo(f"wrote {out or bundle}")


def _with_collateral(bundle: Bundle, number: int | None, name: str, data: bytes) -> Bundle:
    from proofhold.errors import Misuse

    count = len(bundle.evidence)
    if number is None and count != 1:
        raise Misuse(f"the bundle holds {count} pieces of evidence: say which with --evidence")
    chosen = number or 0
    if not 0 <= chosen < count:
        raise Misuse(f"evidence {chosen} of {count}: they are counted from 0")
    evidence = list(bundle.evidence)
    collateral = {**evidence[chosen].collateral, name: data}
    evidence[chosen] = replace(evidence[chosen], collateral=collateral)
    return replace(bundle, evidence=tuple(evidence))


def _is_dcap(data: bytes) -> bool:
    return not data.startswith(PEM_START)


def _windows(data: bytes) -> list[Window]:
    """Give every part's window.

    Raises:
        Malformed: neither form of a collateral file.

    """
    from proofhold.attestation.collateral import read_collateral

    if _is_dcap(data):
        _, reading = read_collateral(data)
        return list(reading.windows)
    return list(_pem_windows(data))


def _pem_windows(data: bytes) -> Iterator[Window]:
    import warnings

    from cryptography import x509

    from proofhold.attestation.collateral import Window
    from proofhold.errors import Malformed

    head, mark, lists = data.partition(b"-----BEGIN X509 CRL-----")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # AMD's chips have certificates of serial number zero
            for certificate in x509.load_pem_x509_certificates(head):
                window = certificate.not_valid_before_utc, certificate.not_valid_after_utc
                names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
                part = str(names[0].value) if names else "certificate"
                yield Window(part, *(int(instant.timestamp()) for instant in window))
        if mark:
            crl = x509.load_pem_x509_crl(mark + lists)
            end = crl.next_update_utc or crl.last_update_utc
            yield Window("revocation list", int(crl.last_update_utc.timestamp()), int(end.timestamp()))
    except Exception as error:  # the parser's errors are many, and all say the same
        raise Malformed("collateral.malformed", "neither Intel's JSON nor certificates in PEM") from error


def _common(windows: list[Window]) -> tuple[int, int]:
    return max(w.not_before for w in windows), min(w.not_after for w in windows)


def _span(start: int, end: int) -> str:
    if start > end:
        return "at no time: its parts do not overlap"
    return f"from {_date(start)} until {_date(end)}"


def _date(instant: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
