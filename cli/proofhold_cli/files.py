"""Reading and writing what commands take and give, and the options that many of them share."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proofhold_cli.errors import ExitCode, fail
from proofhold_cli.parameters import INSTANT

if TYPE_CHECKING:
    from proofhold.exchange import Bundle
    from proofhold.policy import Policy

MAX_FILE_BYTES = 128 * 2**20

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print canonical JSON.")
now_option = click.option("--now", type=INSTANT, help="The time to judge by, in place of the clock.")
policy_option = click.option(
    "--policy",
    "policy_name",
    required=True,
    metavar="NAME|FILE",
    help="A shipped policy's name, or a policy file.",
)


evidence_option = click.option(
    "--evidence",
    "folder",
    type=FOLDER,
    help="Where the escrow's evidence is kept; HOME/evidence, unless HOME is a database.",
)


def find_evidence(home: str, folder: Path | None) -> Path | None:
    """Give the folder of an escrow's evidence: the one that the user named, or the one in a folder HOME."""
    from proofhold.escrow.home import is_address
    from proofhold.retention import FOLDER_NAME

    return folder if folder is not None or is_address(home) else Path(home) / FOLDER_NAME


def evidence_folder(home: str, folder: Path | None) -> Path:
    """Give the folder of an escrow's evidence.

    Raises:
        Misuse: the escrow is in a database, and the user named none.

    """
    from proofhold.errors import Misuse

    found = find_evidence(home, folder)
    if found is None:
        raise Misuse("the escrow is in a database: say with --evidence where its evidence is kept")
    return found


def read_file(path: Path) -> bytes:
    """Read a file that the user named, bounded.

    Raises:
        Misuse: it cannot be read, or is larger than anything that is read here.

    """
    from proofhold.errors import Misuse

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise Misuse(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return data


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what is there; a device or a pipe is written to as it is.

    Raises:
        Misuse: it cannot be written.

    """
    from proofhold.errors import Misuse

    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise Misuse(f"cannot write {path}: {error.strerror}") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    mode = path.stat().st_mode & 0o777 if path.exists() else None
    try:
        temporary.write_bytes(data)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle, or end the command as inconclusive.

    A bundle that does not parse was damaged by anyone: nobody is to blame, the true one is needed, and no
    script may take it for a rejection (PROTOCOL P1).

    Raises:
        Misuse: the file cannot be read.

    """
    from proofhold.errors import Malformed
    from proofhold.exchange import Bundle

    data = read_file(path)
    try:
        return Bundle.decode(data)
    except Malformed as error:
        text = f"inconclusive, this bundle does not parse: {error.message}; needs the true one"
        fail(text, code=error.code, exit_code=ExitCode.INCONCLUSIVE)


def read_policy(name_or_file: str) -> Policy:
    """Give the shipped policy of that name, or read a policy file.

    Raises:
        Misuse: neither exists.
        Malformed: the file is no policy.

    """
    from proofhold.policy import Policy, shipped_names

    if name_or_file in shipped_names():
        return Policy.shipped(name_or_file)
    return Policy.load(Path(name_or_file))


def echo_json(value: object) -> None:
    """Print a value as one line of canonical JSON."""
    from proofhold import canonical

    click.echo(canonical.encode(value).decode())


def clock(now: int | None) -> int:
    """Give the time that the user stated, or this machine's, in unix seconds."""
    return int(time.time()) if now is None else now
