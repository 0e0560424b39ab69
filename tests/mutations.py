"""Damage to files: random, but the same in every run."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**53,
    10**30,
    "",
    "x" * 5000,
    "\x00",
    "é",
    [],
    {},
    [[]],
    {"": None},
)
"""Values that no field expects."""


def damaged(data: bytes, *, count: int, seed: int = 1) -> Iterator[bytes]:
    """Give `count` files with bytes flipped, dropped, doubled, swapped or cut off, none equal to `data`."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            at = rng.randrange(len(changed))
            match rng.randrange(6):
                case 0:
                    changed[at] ^= 1 << rng.randrange(8)
                case 1:
                    del changed[at : at + rng.randrange(1, 20)]
                case 2:
                    changed[at:at] = changed[at : at + rng.randrange(1, 20)]
                case 3:
                    changed[at] = rng.randrange(256)
                case 4:
                    del changed[at:]
                case _:
                    other = rng.randrange(len(changed))
                    changed[at], changed[other] = changed[other], changed[at]
            if not changed:
                break
        if bytes(changed) != data:
            made += 1
            yield bytes(changed)


def misfilled(value: Any) -> Iterator[Any]:
    """Give copies of a JSON value with each field removed, doubled under another name, or set to nonsense."""
    for number, path in enumerate(paths(value)):
        # Every path gets some of the values, and every value meets many paths.
        for put in (*HOSTILE[number % 3 :: 3], ...):
            changed = copy.deepcopy(value)
            place = changed
            for step in path[:-1]:
                place = place[step]
            if put is ...:
                del place[path[-1]]
            elif same(place[path[-1]], put):
                continue
            else:
                place[path[-1]] = put
            yield changed
        if isinstance(path[-1], str):
            changed = copy.deepcopy(value)
            place = changed
            for step in path[:-1]:
                place = place[step]
            place[f"{path[-1]}_"] = place[path[-1]]
            yield changed


def paths(value: Any, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of every field and item below a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*prefix, key)
        yield from paths(inner, (*prefix, key))


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are written alike (Python holds 1 and True to be equal)."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
