"""Shows what an attestation document says, of whatever format it is, and believes none of it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from proofhold.attestation.refusal import Refusal
from proofhold.errors import Malformed

if TYPE_CHECKING:
    from proofhold.attestation import nitro

MAX_NAME_CHARS = 200
MAX_WRAPPED_BYTES = 64 * 1024

Tree: TypeAlias = dict[str, Any]
"""Texts, numbers, booleans, None, and lists and dicts of these."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A document's format and its fields, as it states them. Nothing about it has been checked."""

    format: str
    fields: Tree


def inspect(document: bytes) -> Inspection:
    """Read a document of any format known here; the format is the one whose parser takes it.

    Hexadecimal and base64, in which services hand documents out, are taken off first: here, where nothing is
    believed. Whoever verifies takes the document itself.

    Raises:
        Malformed: ``attestation.unknown``: none does; the message says what each of them found.

    """
    found = []
    bare = _unwrapped(document)
    for name, reader in _READERS.items():
        try:
            return Inspection(name, reader(bare))
        except (Refusal, Malformed) as error:
            found.append(f"{name}: {error.message}")
    raise Malformed("attestation.unknown", f"no attestation document known here ({'; '.join(found)})")


def _unwrapped(document: bytes) -> bytes:
    """Take hexadecimal or base64 off, if the whole file is that; white space does not count."""
    if len(document) > MAX_WRAPPED_BYTES:
        return document
    text = b"".join(document.split())
    try:
        return bytes.fromhex(text.decode("ascii").removeprefix("0x"))
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True) or document
    except ValueError:
        return document


def _nitro(document: bytes) -> Tree:
    from proofhold.attestation import nitro

    parsed = nitro.parse(document)
    tree: Tree = described(parsed)
    tree |= {"is_debug": parsed.is_debug, "certificate": _certificate(parsed.certificate)}
    tree["cabundle"] = [_certificate(der) for der in parsed.cabundle]
    tree["timestamp"] = _moment(parsed)
    for unchecked in ("valid_from", "valid_until"):
        del tree[unchecked]
    return tree


def _snp(document: bytes) -> Tree:
    from proofhold.attestation import sevsnp

    parsed = sevsnp.parse(document)
    tree: Tree = described(parsed)
    tree |= {"is_debug": parsed.is_debug, "is_migratable": parsed.is_migratable}
    # 64 bits do not fit into a JSON number.
    tree |= {"policy": f"0x{parsed.policy:x}", "platform_info": f"0x{parsed.platform_info:x}"}
    tree["signature"] = [f"{number:096x}" for number in parsed.signature]
    for unchecked in ("line", "product", "revocation_checked", "valid_from", "valid_until"):
        del tree[unchecked]
    return tree


def _quote(document: bytes) -> Tree:
    from proofhold.attestation.quote import parse_quote

    tree: Tree = described(parse_quote(document))
    return tree


_READERS: Final[Mapping[str, Callable[[bytes], Tree]]] = {
    "AWS Nitro attestation document": _nitro,
    "AMD SEV-SNP attestation report": _snp,
    "Intel TDX or SGX quote": _quote,
}


def described(value: Any) -> Any:
    """Give a parsed document's fields as plain data: bytes in hexadecimal, dataclasses as dicts."""
    match value:
        case Enum():
            return str(value.value)
        case None | bool() | int() | str():
            return value
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): described(item) for key, item in value.items()}
        case tuple() | list():
            return [described(item) for item in value]
    if is_dataclass(value):
        return {f.name: described(getattr(value, f.name)) for f in fields(value)}
    return str(value)


def _certificate(der: bytes) -> Tree:
    """Summarise a certificate; one that does not parse is shown as its bytes."""
    import warnings

    from cryptography import x509

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = x509.load_der_x509_certificate(der)
            return {
                "subject": parsed.subject.rfc4514_string()[:MAX_NAME_CHARS],
                "issuer": parsed.issuer.rfc4514_string()[:MAX_NAME_CHARS],
                "not_before": parsed.not_valid_before_utc.isoformat(),
                "not_after": parsed.not_valid_after_utc.isoformat(),
            }
    except Exception as error:  # noqa: BLE001 - the parser's errors are many, and all say the same
        return {"does_not_parse": str(error)[:MAX_NAME_CHARS], "bytes": der.hex()}


def _moment(document: nitro.NitroDocument) -> str:
    return datetime.fromtimestamp(document.timestamp_ms / 1000, UTC).isoformat()
