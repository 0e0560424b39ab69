"""Damage, from a seed: what accidents, proxies and adversaries do to bytes and to JSON."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from proofhold import canonical
from proofhold.errors import Misuse

Json = Any

DEEP = 3_000
HOSTILE_VALUES: list[Json] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**53 - 1,
    2**53,
    2**63,
    2**64,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    "",
    "0",
    "-1",
    "NaN",
    "1e999",
    "\u0000",
    "\ud800",
    "é",
    "e\u0301",
    "\u202e",
    "ａｂｃ",
    "٣",
    "😀" * 100,
    "x" * 3_000,
    "../../etc/passwd",
    "[bold]",
    [],
    [[]],
    [None] * 100,
    {},
    {"": None},
    {"__class__": "x"},
    ["A" * 64] * 70,
]


def damaged_bytes(original: bytes, random: Random, other: bytes = b"") -> bytes:
    """Damage bytes without knowing what they mean; `other` is what they may be spliced with."""
    data = bytearray(original)
    match random.randrange(9):
        case 0:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        case 1:
            for _ in range(random.randrange(1, 9)):
                data[random.randrange(len(data))] = random.randrange(256)
        case 2:
            del data[random.randrange(len(data)) :]
        case 3:
            first, second = _cut(data, random)
            del data[first:second]
        case 4:
            first, second = _cut(data, random)
            data[first:first] = data[first:second]
        case 5:
            at = random.randrange(len(data) + 1)
            data[at:at] = random.randbytes(random.randrange(1, 20))
        case 6:
            at = random.randrange(len(data))
            data[at:] = other[random.randrange(len(other) + 1) :]
        case 7:
            (first, second), at = _cut(data, random), random.randrange(len(data))
            piece = data[first:second]
            del data[first:second]
            data[at:at] = piece
        case _:
            data += random.choice([b" ", b"\n", b"\x00", bytes(data), b"}", b"\xef\xbb\xbf"])
    return bytes(data)


def damaged_json(value: Json, random: Random, other: Json = None) -> Json:
    """Damage a JSON value in one to three places, knowing its structure."""
    value = _copy(value)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        places = list(_places(value))
        if not places:
            return value
        holder, key = random.choice(places)
        match random.randrange(9):
            case 0 | 1:
                holder[key] = _copy(random.choice(HOSTILE_VALUES))
            case 2:
                del holder[key]
            case 3:
                other_holder, other_key = random.choice(places)
                # Copies: a value that is swapped with a part of its own would hold itself.
                mine, others = _copy(holder[key]), _copy(other_holder[other_key])
                holder[key], other_holder[other_key] = others, mine
            case 4:
                foreign = list(_places(other)) or places
                foreign_holder, foreign_key = random.choice(foreign)
                holder[key] = _copy(foreign_holder[foreign_key])
            case 5 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 5:
                holder[random.choice(["", "more", "version", "é"])] = _copy(random.choice(HOSTILE_VALUES))
            case 6 | 7:
                holder[key] = _nearby(holder[key], random)
            case _:
                holder[key] = [holder[key]] if random.random() < 0.5 else {"value": holder[key]}
        if len(json.dumps(value)) > 200_000:
            return value
    return value


def slightly_damaged(value: Json, random: Random) -> Json:
    """Change one leaf so that it keeps its type and form: what a parser lets through, and a judge must not.

    Bytes in base64 that are JSON themselves are damaged inside, all other bytes in one bit.
    """
    value = _copy(value)
    leaves = [place for place in _places(value) if not isinstance(place[0][place[1]], dict | list)]
    holder, key = random.choice(leaves)
    holder[key] = _kin(holder[key], random)
    return value


def written(value: Json, random: Random) -> bytes:
    """Write a value: canonically where it can be, else, and now and then all the same, in another way."""
    if random.random() < 0.85:
        try:
            return canonical.encode(value)
        except (Misuse, RecursionError):
            pass
    text = json.dumps(value, indent=random.choice([None, 1]), sort_keys=random.random() < 0.5)
    return text.encode(errors="surrogatepass")


def oddly_written(value: Json) -> Iterator[bytes]:
    """Write a JSON object in ways that no encoder of ours would, and that a loose parser might take."""
    good = canonical.encode(value)
    first = next(iter(json.loads(good)))
    yield good[:1] + b'"%s":1,' % first.encode() + good[1:]
    yield good[:-1] + b',"%s":1}' % first.encode()
    yield good + good
    yield b"\xef\xbb\xbf" + good
    yield good.decode().encode("utf-16")
    yield good.replace(b":1", b":1.0", 1)
    yield good.replace(b":1", b":01", 1)
    yield good.replace(b":1", b":1e0", 1)
    yield good.replace(b'"version":1', b'"version":1e999')
    yield good.replace(b'"version":1', b'"version":NaN')
    yield good.replace(b'"version":1', b'"version":-Infinity')
    yield good.replace(b'"version":1', b'"version":' + b"9" * 5_000)
    yield good.replace(b'"version":1', b'"version":' + b"[" * DEEP + b"]" * DEEP)
    yield good.replace(b'"version":1', b'"version":' + b'{"a":' * 400 + b"1" + b"}" * 400)
    yield good.replace(b'"version"', b'"\\u0076ersion"')
    yield good.replace(b'"', b"'")
    yield b"[" * 200_000
    yield b'{"a":' * 100_000
    yield b"[" + good + b"]"
    yield b"null"
    yield b'"%s"' % (b"\\ud800" * 10)
    yield b""
    yield b"\x80" + good


def many(count: int, seed: object, make: Callable[[Random], bytes], original: bytes) -> Iterator[bytes]:
    """Make damaged bytes until there are `count` that differ from the original."""
    random = Random(repr(seed))
    made = 0
    while made < count:
        data = make(random)
        if data != original:
            made += 1
            yield data


def _kin(leaf: Json, random: Random) -> Json:
    """Another value of the same form."""
    if isinstance(leaf, bool) or leaf is None:
        return leaf if leaf is None else not leaf
    if isinstance(leaf, int):
        return max(0, leaf + random.choice([-1, 1]))
    if not isinstance(leaf, str) or not leaf:
        return leaf
    if re.search(r"[0-9a-f]{64}$", leaf):
        at = len(leaf) - 1 - random.randrange(64)
        return leaf[:at] + random.choice("0123456789abcdef") + leaf[at + 1 :]
    if re.fullmatch(r"(?:[A-Za-z0-9+/]{4})+={0,2}", leaf + "=" * (-len(leaf) % 4)):
        data = base64.b64decode(leaf + "=" * (-len(leaf) % 4))
        try:
            inner = slightly_damaged(json.loads(data), random)
            data = canonical.encode(inner)
        except (ValueError, IndexError, TypeError):
            at = random.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
        return base64.b64encode(data).decode()
    at = random.randrange(len(leaf))
    return leaf[:at] + random.choice("0123456789az") + leaf[at + 1 :]


def _copy(value: Json) -> Json:
    return json.loads(json.dumps(value))


def _nearby(value: Json, random: Random) -> Json:
    """A value that is almost the one given."""
    match value:
        case bool() | None:
            return not value
        case int():
            return value + random.choice([-1, 1, 2**32, 2**53])
        case float():
            return -value
        case str() if value:
            at = random.randrange(len(value))
            return random.choice(
                [
                    value[:at] + random.choice("0aAfz=+/ .:\n") + value[at + 1 :],
                    value[:at],
                    value[:at] + value[at:] * 2,
                    value.upper(),
                    value.lower(),
                    value + random.choice(["", " ", "=", "\n", "0", "AAAA"]),
                    value[::-1],
                ]
            )
        case list():
            return value[::-1] if random.random() < 0.5 else value * 2
        case dict():
            return dict(random.sample(list(value.items()), len(value) // 2))
    return value


def _places(value: Json) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: its holder and its key or index."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _cut(data: bytearray, random: Random) -> tuple[int, int]:
    first = random.randrange(len(data))
    return first, min(len(data), first + random.randrange(1, 400))
