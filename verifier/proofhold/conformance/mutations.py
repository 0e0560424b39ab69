"""Further cases that nobody may accept: good evidence, damaged where it hurts.

From a seed, so that a finding can be repeated. Each mutation says what it did; the caller says which step
refused it. Damage that leaves what a format *means* as it was (the twin of an ECDSA signature) is made too,
under a name of its own: `TWIN`, the only one that a verifier may accept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from proofhold.attestation import cbor
from proofhold.conformance import quotemutations
from proofhold.errors import Malformed, Misuse

Files = Mapping[str, bytes]

TWIN: Final = "twin"
"""(r, n - s) in place of (r, s): the same signature of the same content (SEC 1, section 4.1). Both verify,
and neither encoding is the more canonical: half of the genuine documents have the larger s."""

P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
MAX_DOCUMENT_BYTES = 2**20

SNP_FIELDS: Final = {
    "version": (0x00, 4),
    "guest_svn": (0x04, 4),
    "policy": (0x08, 8),
    "family_id": (0x10, 16),
    "image_id": (0x20, 16),
    "vmpl": (0x30, 4),
    "algorithm": (0x34, 4),
    "current_tcb": (0x38, 8),
    "platform_info": (0x40, 8),
    "key_info": (0x48, 4),
    "report_data": (0x50, 64),
    "measurement": (0x90, 48),
    "host_data": (0xC0, 32),
    "id_key_digest": (0xE0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "reported_tcb": (0x180, 8),
    "processor": (0x188, 3),
    "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8),
    "launch_tcb": (0x1F0, 8),
    "signature_r": (0x2A0, 72),
    "signature_s": (0x2E8, 72),
    "reserved_after_signature": (0x330, 368),
}
"""Offset and length in a report (AMD 56860, ATTESTATION_REPORT)."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """Damaged evidence, and what was done to it, such as ``doc: bit of pcrs``."""

    what: str
    files: Files


def mutations(kind: str, good: Sequence[Files], *, seed: str, count: int) -> Iterator[Mutation]:
    """Make `count` mutations of good cases of one kind, each unlike the case it was made of.

    Args:
        kind: as in an index; a kind without fields known here is damaged as bytes.
        good: the files of cases that are accepted; several, so that parts can be swapped.
        seed: the same seed makes the same mutations.
        count: how many. The i-th is made of ``good[i % len(good)]``.

    Raises:
        Misuse: there is nothing to damage.

    """
    if not good:
        raise Misuse(f"no good case of {kind} to damage")
    random = Random(f"{kind}/{seed}")  # noqa: S311 - not for secrets
    makers = (*_ANY, *_BY_KIND.get(kind, ()))
    made = 0
    while made < count:
        original = good[made % len(good)]
        other = random.choice(good)
        mutation = random.choice(makers)(original, other, random)
        if mutation is not None and dict(mutation.files) != dict(original):
            made += 1
            yield mutation


def _role(files: Files, random: Random) -> str:
    return random.choice(sorted(role for role, data in files.items() if data))


def _with(files: Files, role: str, data: bytes, what: str) -> Mutation:
    return Mutation(f"{role}: {what}", {**files, role: data})


def _flip(files: Files, other: Files, random: Random) -> Mutation:
    del other
    role = _role(files, random)
    data = files[role]
    return _with(files, role, _bit(data, random.randrange(8 * len(data))), "bit anywhere")


def _truncate(files: Files, other: Files, random: Random) -> Mutation:
    del other
    role = _role(files, random)
    return _with(files, role, files[role][: random.randrange(len(files[role]))], "truncated")


def _extend(files: Files, other: Files, random: Random) -> Mutation:
    del other
    role = _role(files, random)
    more = random.choice([b"\x00", b"\n", random.randbytes(random.randrange(1, 64)), files[role]])
    return _with(files, role, files[role] + more, "bytes appended")


def _cut(files: Files, other: Files, random: Random) -> Mutation:
    del other
    role = _role(files, random)
    data = files[role]
    at = random.randrange(len(data))
    return _with(files, role, data[:at] + data[at + random.randrange(1, 64) :], "bytes cut out")


def _overwrite(files: Files, other: Files, random: Random) -> Mutation:
    del other
    role = _role(files, random)
    data = files[role]
    at = random.randrange(len(data))
    patch = random.choice([bytes(16), b"\xff" * 16, random.randbytes(8)])
    return _with(files, role, (data[:at] + patch + data[at + len(patch) :])[: len(data)], "bytes overwritten")


def _splice(files: Files, other: Files, random: Random) -> Mutation | None:
    role = _role(files, random)
    if not other.get(role):
        return None
    at = random.randrange(min(len(files[role]), len(other[role])))
    spliced = files[role][:at] + other[role][at:]
    # Cut where the two agree up to there, or from there on, a splice is the one or the other, whole.
    return None if spliced == other[role] else _with(files, role, spliced, "spliced with another")


def _swap(files: Files, other: Files, random: Random) -> Mutation | None:
    """Put a whole file of another case in place: a certificate, a report. Some are the same for both."""
    role = _role(files, random)
    if len(files) < 2 or not other.get(role):
        return None
    return _with(files, role, other[role], "of another case")


def _snp_field(files: Files, other: Files, random: Random) -> Mutation:
    del other
    name = random.choice(sorted(SNP_FIELDS))
    offset, length = SNP_FIELDS[name]
    at = 8 * offset + random.randrange(8 * length)
    return _with(files, "report", _bit(files["report"], at), f"bit of {name}")


def _snp_swap_field(files: Files, other: Files, random: Random) -> Mutation:
    name = random.choice(sorted(SNP_FIELDS))
    offset, length = SNP_FIELDS[name]
    mine, its = files["report"], other["report"]
    report = mine[:offset] + its[offset : offset + length] + mine[offset + length :]
    return _with(files, "report", report, f"{name} of another case")


def _snp_twin(files: Files, other: Files, random: Random) -> Mutation:
    del other, random
    report = files["report"]
    s = int.from_bytes(report[0x2E8 : 0x2E8 + 72], "little")
    twin = ((P384_ORDER - s) % P384_ORDER).to_bytes(72, "little")
    return _with(files, "report", report[:0x2E8] + twin + report[0x330:], TWIN)


def _nitro_parts(document: bytes) -> tuple[list[cbor.Cbor], dict[str, cbor.Cbor]] | None:
    try:
        cose = cbor.decode(document, max_bytes=MAX_DOCUMENT_BYTES, what="a good document")
        fields = cbor.decode(cose[2], max_bytes=MAX_DOCUMENT_BYTES, what="its payload", open_map=True)
    except (Malformed, TypeError, IndexError):
        return None
    return cose, fields


def _nitro_field(files: Files, other: Files, random: Random) -> Mutation | None:
    """Change one field of the payload and write it again, in its one encoding."""
    parts, others = _nitro_parts(files["doc"]), _nitro_parts(other["doc"])
    if parts is None or others is None:
        return None
    cose, fields = parts
    name = random.choice(sorted(fields))
    if random.random() < 0.4:
        what, fields[name] = f"{name} of another document", others[1].get(name)
    elif random.random() < 0.1:
        del fields[name]
        what = f"{name} left out"
    else:
        what, fields[name] = f"bit of {name}", _changed(fields[name], random)
    return _with(files, "doc", cbor.encode([cose[0], cose[1], cbor.encode(fields), cose[3]]), what)


def _nitro_chain(files: Files, other: Files, random: Random) -> Mutation | None:
    """Rearrange the certificates: another's, one left out, doubled, swapped, appended."""
    parts, others = _nitro_parts(files["doc"]), _nitro_parts(other["doc"])
    if parts is None or others is None:
        return None
    (cose, fields), (_, foreign) = parts, others
    bundle, at = list(fields["cabundle"]), random.randrange(len(fields["cabundle"]))
    match random.randrange(7):
        case 0:
            what, bundle = "another's authorities", list(foreign["cabundle"])
        case 1:
            what, fields["certificate"] = "another's leaf", foreign["certificate"]
        case 2:
            what, bundle = "an authority left out", bundle[:at] + bundle[at + 1 :]
        case 3:
            what, bundle = "an authority twice", [*bundle[:at], bundle[at], *bundle[at:]]
        case 4:
            what, bundle = "authorities in another order", random.sample(bundle, len(bundle))
        case 5:
            what, bundle[at] = "an authority of another", foreign["cabundle"][at % len(foreign["cabundle"])]
        case _:
            what, bundle = "another's root appended", [*bundle, foreign["cabundle"][0]]
    fields["cabundle"] = bundle
    return _with(files, "doc", cbor.encode([cose[0], cose[1], cbor.encode(fields), cose[3]]), what)


def _nitro_envelope(files: Files, other: Files, random: Random) -> Mutation | None:
    """Change what is around the payload."""
    parts, others = _nitro_parts(files["doc"]), _nitro_parts(other["doc"])
    if parts is None or others is None:
        return None
    cose = parts[0]
    match random.randrange(6):
        case 0:
            what, cose[0] = "another algorithm", cbor.encode({1: random.choice([-7, -36, -37, 5, 0, None])})
        case 1:
            what, cose[0] = "more in the protected header", cbor.encode({1: -35, 4: b"x"})
        case 2:
            what, cose[1] = "an unprotected header", {1: -35}
        case 3:
            what, cose[3] = "another's signature", others[0][3]
        case 4:
            what, cose[3] = "bit of the signature", _changed(cose[3], random)
        case _:
            s = int.from_bytes(cose[3][48:], "big")
            what, cose[3] = TWIN, cose[3][:48] + ((P384_ORDER - s) % P384_ORDER).to_bytes(48, "big")
    return _with(files, "doc", cbor.encode(cose), what)


def _quote(files: Files, other: Files, random: Random) -> Mutation | None:
    changed = quotemutations.change(files, other, random, twin=TWIN)
    return None if changed is None else _with(files, *changed)


def _changed(value: cbor.Cbor, random: Random) -> cbor.Cbor:
    """Give another value of the same type: one bit, one item."""
    match value:
        case bytes() if value:
            return _bit(value, random.randrange(8 * len(value)))
        case str() if value:
            at = random.randrange(len(value))
            return value[:at] + random.choice("0aZ-") + value[at + 1 :]
        case int():
            return value ^ 1 << random.randrange(40)
        case list() if value:
            at = random.randrange(len(value))
            return [*value[:at], _changed(value[at], random), *value[at + 1 :]]
        case dict() if value:
            key = random.choice(sorted(value))
            return {**value, key: _changed(value[key], random)}
    return random.randbytes(8)


def _bit(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


_Maker = Callable[[Files, Files, Random], Mutation | None]
_ANY: Final[tuple[_Maker, ...]] = (_flip, _truncate, _extend, _cut, _overwrite, _splice, _swap)
_BY_KIND: Final[Mapping[str, tuple[_Maker, ...]]] = {
    "nitro": (*(_nitro_field,) * 3, *(_nitro_chain,) * 2, *(_nitro_envelope,) * 2),
    "sgx": (_quote,) * 7,
    "tdx": (_quote,) * 7,
    "sev-snp": (*(_snp_field,) * 4, *(_snp_swap_field,) * 2, _snp_twin),
}
"""The makers that know a kind's fields, with their weights."""
