"""A snapshot of OpenGradient's registry of enclaves, read into signers of an allow-list.

The registry (``TEERegistry.sol``) says on a chain which keys registered with which measurements, and on
which account each is paid. Nothing here asks a chain: whoever makes an allow-list has a snapshot, and vouches
by signing the list for having read it (docs/adr/0061). The steps, for each entry:

1. Read the fields of ``TEEInfo``; the key is an RSA key in DER.
2. Its name, where the snapshot states one, is the Keccak-256 of that key.
3. It is enabled.
4. Its ``pcrHash`` is that of a measurement of the program: Keccak-256 of PCRs 0, 1 and 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from proofhold.allowlist import Binding, Measurement, Program, Scheme, Signer
from proofhold.attestation.ethereum import keccak256
from proofhold.attestation.opengradient import require_rsa_key, tee_id
from proofhold.errors import Malformed, Misuse

MAX_SNAPSHOT_BYTES: Final = 4 * 2**20
MAX_TEES: Final = 10_000
CODE: Final = "registry.malformed"

_BYTES = re.compile(r"0x(?:[0-9a-fA-F]{2}){1,4096}", re.ASCII)
_HASH = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RegisteredTee:
    """One entry, as the registry states it. Only its form has been checked."""

    tee_id: str
    """Keccak-256 of the key, lower-case hexadecimal: computed here, whatever the snapshot says."""
    public_key: bytes
    payment_address: str
    pcr_hash: str
    enabled: bool
    stated_id: str | None


@dataclass(frozen=True, slots=True)
class Passed:
    """An entry that is left out, and why."""

    tee_id: str
    why: str


def read_snapshot(data: bytes) -> tuple[RegisteredTee, ...]:
    """Read a snapshot: a JSON list of ``TEEInfo``, fields named as in the contract, bytes as ``0x…``.

    Raises:
        Malformed: ``registry.malformed``.

    """
    if len(data) > MAX_SNAPSHOT_BYTES:
        raise Malformed(CODE, f"a snapshot of more than {MAX_SNAPSHOT_BYTES} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(CODE, "a snapshot that is not JSON") from error
    if not isinstance(value, list) or len(value) > MAX_TEES:
        raise Malformed(CODE, f"a snapshot is a list of at most {MAX_TEES} entries")
    return tuple(_entry(item, number) for number, item in enumerate(value))


def pcr_hash(measurement: Measurement) -> str:
    """Give what the registry calls a measurement of Nitro."""
    registers = dict(measurement.registers)
    return keccak256(b"".join(bytes.fromhex(registers[f"pcr{index}"]) for index in range(3))).hex()


def signers_of(
    tees: tuple[RegisteredTee, ...], program: Program, *, valid_from: int, valid_until: int
) -> Iterator[Signer | Passed]:
    """Make a signer of each entry that runs a program, paid on the registry's account; say why not of others.

    Raises:
        Misuse: the program has no measurement of Nitro.

    """
    hashes = {pcr_hash(one) for one in program.measurements if one.kind == "nitro"}
    if not hashes:
        raise Misuse(f"the program {program.name} has no measurement of Nitro to compare with")
    for tee in tees:
        if tee.stated_id not in (None, tee.tee_id):  # step 2
            yield Passed(tee.tee_id, f"its name is another one: {tee.stated_id}")
        elif not tee.enabled:  # step 3
            yield Passed(tee.tee_id, "it is not enabled")
        elif tee.pcr_hash not in hashes:  # step 4
            yield Passed(tee.tee_id, f"it runs something else: pcrHash {tee.pcr_hash}")
        else:
            yield Signer(
                scheme=Scheme.RSA_PSS,
                key=tee.public_key,
                program=program.name,
                payee=tee.payment_address,
                bindings=(Binding.OPENGRADIENT_CURRENT,),
                valid_from=valid_from,
                valid_until=valid_until,
            )


def _entry(value: Any, number: int) -> RegisteredTee:
    """Step 1."""
    if not isinstance(value, Mapping):
        raise Malformed(CODE, f"entry {number} is no object")
    key = bytes.fromhex(_text(value, "publicKey", _BYTES, number))
    try:
        require_rsa_key(key)
    except Misuse as error:
        raise Malformed(CODE, f"entry {number}: publicKey: {error}") from error
    enabled = value.get("enabled")
    if not isinstance(enabled, bool):
        raise Malformed(CODE, f"entry {number}: enabled: expected true or false")
    stated = None if value.get("teeId") is None else _text(value, "teeId", _HASH, number)
    address = "0x" + _text(value, "paymentAddress", _ADDRESS, number)
    return RegisteredTee(tee_id(key), key, address, _text(value, "pcrHash", _HASH, number), enabled, stated)


def _text(value: Mapping[str, Any], name: str, form: re.Pattern[str], number: int) -> str:
    """Give a field's hexadecimal digits, in lower case: the contract's tools write either."""
    text = value.get(name)
    if not isinstance(text, str) or not form.fullmatch(text):
        raise Malformed(CODE, f"entry {number}: {name}: expected 0x and hexadecimal digits")
    return text[2:].lower()
