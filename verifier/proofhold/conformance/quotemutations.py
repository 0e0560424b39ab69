"""Damage to quotes and their collateral that knows where their fields are.

As `proofhold.conformance.mutations`, which asks here: each answer is the role, its new bytes, and what was
done. A quote's lengths are kept true, so that the damage gets past the parser to the checks behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Final

from proofhold.attestation.quote import KEY_BYTES, SIGNATURE_BYTES, Quote, parse_quote
from proofhold.attestation.refusal import Refusal

Files = Mapping[str, bytes]
Change = tuple[str, bytes, str]

P256_ORDER: Final = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
_QE_REPORT_BYTES: Final = 384


def change(files: Files, other: Files, random: Random, *, twin: str) -> Change | None:
    """Change a field of the quote, put another case's part in its place, or change a part of the collateral.

    `twin` is what the other signature of the same content is called.
    """
    try:
        quote, foreign = parse_quote(files["quote"]), parse_quote(other["quote"])
    except Refusal:
        return None
    draw = random.random()
    if draw < 0.45:
        return _bit_of_field(files["quote"], quote, random)
    if draw < 0.7:
        return _part_of_another(files["quote"], quote, other["quote"], foreign, random)
    if draw < 0.75:
        return _twin(files["quote"], quote, random, twin)
    return _collateral_part(files, other, random)


def _spans(data: bytes, quote: Quote) -> dict[str, tuple[int, int]]:
    """Offset and length of what a quote is made of."""
    body, report = len(quote.signed), data.index(quote.qe_report_bytes)
    after = report + _QE_REPORT_BYTES
    return {
        "header": (0, 48),
        "body": (48, body - 48),
        "signature": (body + 4, SIGNATURE_BYTES),
        "attestation_key": (body + 4 + SIGNATURE_BYTES, KEY_BYTES),
        "qe_report": (report, _QE_REPORT_BYTES),
        "qe_report_signature": (after, SIGNATURE_BYTES),
        "qe_auth_data": (after + SIGNATURE_BYTES, 2 + len(quote.qe_auth_data)),
        "chain": (len(data) - len(quote.chain), len(quote.chain)),
    }


def _bit_of_field(data: bytes, quote: Quote, random: Random) -> Change:
    name, (offset, length) = random.choice(sorted(_spans(data, quote).items()))
    at, mask = offset + random.randrange(length), 1 << random.randrange(8)
    return "quote", data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :], f"bit of {name}"


def _part_of_another(
    data: bytes, quote: Quote, theirs: bytes, foreign: Quote, random: Random
) -> Change | None:
    """Swap a key, a report, a signature or the chain, with lengths that stay true."""
    name = random.choice(sorted(_spans(data, quote)))
    (offset, length), (its_offset, its_length) = _spans(data, quote)[name], _spans(theirs, foreign)[name]
    part = theirs[its_offset : its_offset + its_length]
    if name == "chain":
        head = data[: offset - 4] + len(part).to_bytes(4, "little")
        grown = _with_lengths(head + part, quote, len(part) - length)
        return "quote", grown, "chain of another case"
    if length != its_length:
        return None
    return "quote", data[:offset] + part + data[offset + length :], f"{name} of another case"


def _with_lengths(data: bytes, quote: Quote, grown: int) -> bytes:
    """Correct the lengths around a chain that has another size now."""
    at = [len(quote.signed)]
    if quote.version > 3:  # certification data around the quoting enclave's report have a length of their own
        at.append(at[0] + 4 + SIGNATURE_BYTES + KEY_BYTES + 2)
    for offset in at:
        length = int.from_bytes(data[offset : offset + 4], "little") + grown
        data = data[:offset] + length.to_bytes(4, "little") + data[offset + 4 :]
    return data


def _twin(data: bytes, quote: Quote, random: Random, twin: str) -> Change:
    name = random.choice(["signature", "qe_report_signature"])
    at = _spans(data, quote)[name][0] + SIGNATURE_BYTES // 2
    s = int.from_bytes(data[at : at + 32], "big")
    other = ((P256_ORDER - s) % P256_ORDER).to_bytes(32, "big")
    return "quote", data[:at] + other + data[at + 32 :], twin


def _collateral_part(files: Files, other: Files, random: Random) -> Change | None:
    """Swap a part of the collateral, leave it out, empty it, or change one character of it."""
    parts, theirs = json.loads(files["collateral"]), json.loads(other["collateral"])
    name = random.choice(sorted(parts))
    match random.randrange(5):
        case 0:
            what, parts[name] = f"{name} of another case", theirs[name]
        case 1:
            del parts[name]
            what = f"{name} left out"
        case 2:
            what, parts[name] = f"{name} empty", ""
        case _:
            text, at = parts[name], random.randrange(len(parts[name]))
            what, parts[name] = f"a character of {name}", text[:at] + random.choice("0aZ9 ") + text[at + 1 :]
    data = json.dumps(parts).encode()
    return None if parts == json.loads(files["collateral"]) else ("collateral", data, what)
