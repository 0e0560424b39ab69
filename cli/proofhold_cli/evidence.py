"""``proofhold evidence``: what an escrow keeps so that its receipts can be recomputed."""

from __future__ import annotations

from pathlib import Path

import click

from proofhold_cli.files import (
    FILE,
    clock,
    echo_json,
    evidence_folder,
    evidence_option,
    json_option,
    now_option,
)
from proofhold_cli.parameters import ESCROW


@click.group("evidence")
def evidence_group() -> None:
    """Keep evidence as long as somebody may have to prove something by it."""


@evidence_group.command("list")
@click.argument("home", type=ESCROW)
@click.argument("hold")
@evidence_option
@json_option
def list_command(home: str, hold: str, folder: Path | None, as_json: bool) -> None:
    """List what is kept for HOLD."""
    from proofhold.escrow.home import open_home
    from proofhold.retention import EvidenceFolder

    with open_home(home) as escrow:
        pieces = EvidenceFolder(evidence_folder(home, folder), escrow).pieces(hold)
    if as_json:
        echo_json({"evidence": [{"digest": p.digest, "kind": p.kind, "seq": p.seq} for p in pieces]})
        return
    for piece in pieces:
        click.echo(f"{piece.digest}  {piece.kind} of capture {piece.seq}, {piece.size} bytes")


@evidence_group.command("get")
@click.argument("home", type=ESCROW)
@click.argument("digest")
@click.option("--out", "out_file", type=FILE, required=True, help="Where to write it.")
@evidence_option
@json_option
def get_command(home: str, digest: str, out_file: Path, folder: Path | None, as_json: bool) -> None:
    """Write the evidence of this DIGEST to a file, such as a bundle for "receipt recheck"."""
    from proofhold.escrow.home import open_home
    from proofhold.retention import EvidenceFolder
    from proofhold_cli.files import write_file

    with open_home(home) as escrow:
        data = EvidenceFolder(evidence_folder(home, folder), escrow).read(digest)
    write_file(out_file, data)
    if as_json:
        echo_json({"digest": digest, "out": str(out_file)})
    else:
        click.echo(f"written to {out_file}")


@evidence_group.command("prune")
@click.argument("home", type=ESCROW)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@now_option
@evidence_option
@json_option
def prune_command(home: str, dry_run: bool, now: int | None, folder: Path | None, as_json: bool) -> None:
    """Remove evidence that nobody needs any more.

    Kept is whatever belongs to a capture that is undecided, disputed or not paid yet, or whose bond is
    reserved or frozen; and of a final one until its challenge ends.
    """
    from proofhold.escrow.home import open_home
    from proofhold.retention import EvidenceFolder

    with open_home(home) as escrow:
        pruned = EvidenceFolder(evidence_folder(home, folder), escrow).prune(now=clock(now), dry_run=dry_run)
    if as_json:
        echo_json({"bytes": pruned.freed, "dry_run": dry_run, "files": pruned.files})
        return
    for piece in pruned.pieces:
        click.echo(f"{piece.hold}:{piece.seq}  {piece.kind} {piece.digest}")
    said = "would be removed" if dry_run else "removed"
    click.echo(f"{pruned.files} file(s) of {pruned.freed} bytes {said}")
