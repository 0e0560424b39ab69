"""``proofhold keys``: make keys and say which ones to trust."""

from __future__ import annotations

from pathlib import Path

import click

from proofhold_cli.files import FILE, echo_json, json_option
from proofhold_cli.parameters import INSTANT


@click.group("keys")
def keys_group() -> None:
    """Make Ed25519 keys and say which verifiers to trust."""


@keys_group.command("new", epilog="\b\n$ proofhold keys new verifier.pem\ned25519:...")
@click.argument("file", type=FILE)
@json_option
def new(file: Path, as_json: bool) -> None:
    """Make a key, write its private part to FILE (mode 0600, never over an existing one), print its name."""
    from proofhold.keys import SigningKey

    key = SigningKey.generate()
    key.save(file)
    _print_key(key.public, file, as_json=as_json)


@keys_group.command("show")
@click.argument("file", type=FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """Print the name of the key in FILE, which is its public part."""
    from proofhold.keys import SigningKey

    _print_key(SigningKey.load(file).public, file, as_json=as_json)


@keys_group.command("trust")
@click.argument("key")
@click.option("--name", required=True, help="Whose key it is, in words.")
@click.option("--from", "valid_from", type=INSTANT, required=True, help="Good for judgements from then on.")
@click.option("--until", "valid_until", type=INSTANT, required=True, help="And before then.")
@click.option(
    "--trust-file", type=FILE, default=Path("trust.json"), show_default=True, help="Made if missing."
)
@json_option
def trust(key: str, name: str, valid_from: int, valid_until: int, trust_file: Path, as_json: bool) -> None:
    """Add a verifier's KEY (its name, ed25519:…) to a trust file, for an interval of time (UTC)."""
    from proofhold.keys import TrustedKey, TrustStore

    trusted = TrustedKey(key, name, valid_from, valid_until)
    store = TrustStore.load(trust_file).adding(trusted) if trust_file.exists() else TrustStore((trusted,))
    store.save(trust_file)
    if as_json:
        echo_json({"file": str(trust_file), "from": valid_from, "key": key, "until": valid_until})
    else:
        click.echo(f"{trust_file} now trusts {len(store.keys)} key(s), {key} as {name!r} among them")


trust_file_option = click.option(
    "--trust-file", type=FILE, default=Path("trust.json"), show_default=True, help="The file to change."
)


@keys_group.command("rotate")
@click.argument("old")
@click.argument("new")
@click.option("--at", type=INSTANT, required=True, help="Good for judgements from then on, in its place.")
@trust_file_option
@json_option
def rotate(old: str, new: str, at: int, trust_file: Path, as_json: bool) -> None:
    """Let the key NEW take over from OLD. What OLD judged before stays trusted."""
    from proofhold.keys import TrustStore

    TrustStore.load(trust_file).rotated(old, new, at).save(trust_file)
    if as_json:
        echo_json({"at": at, "file": str(trust_file), "new": new, "old": old})
    else:
        click.echo(f"{new} takes over from {old} at {at}")


@keys_group.command("revoke")
@click.argument("key")
@click.option("--at", type=INSTANT, help="Trust what it judged before then, and nothing after.")
@click.option(
    "--entirely", is_flag=True, help="Trust nothing of it: for a stolen key, which can date what it signs."
)
@trust_file_option
@json_option
def revoke(key: str, at: int | None, entirely: bool, trust_file: Path, as_json: bool) -> None:
    """Trust KEY no more: from a time on (--at), or at all (--entirely)."""
    from proofhold.errors import Misuse
    from proofhold.keys import TrustStore

    if entirely == (at is not None):
        raise Misuse("say from when: --at TIME, or --entirely")
    store = TrustStore.load(trust_file)
    (store.without(key) if at is None else store.ending(key, at)).save(trust_file)
    if as_json:
        echo_json({"at": at, "file": str(trust_file), "key": key})
    else:
        click.echo(f"{key} is trusted {'no more' if at is None else f'until {at}'}")


def _print_key(public: str, file: Path, *, as_json: bool) -> None:
    if as_json:
        echo_json({"file": str(file), "key": public})
    else:
        click.echo(public)
