"""Just enough of the curve BN254 to write a structured reference string and to cut one, in plain Python.

Points are affine (x, y); None is the point at infinity. Coordinates are integers modulo `BASE`, those of G2
pairs of them (c0 + c1 i, i^2 = -1). Nothing here is constant-time, and nothing here holds a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from proofhold.fieldelement import MODULUS

ORDER = MODULUS
"""The order of the groups: scalars are integers modulo it."""
BASE = 21888242871839275222246405745257275088696311157297823662689037894645226208583
"""Coordinates are integers modulo it."""
COORDINATE_BYTES = 32
TWO_ADICITY = 28
ROOT_OF_UNITY = pow(7, (ORDER - 1) >> TWO_ADICITY, ORDER)
"""Generates the subgroup of order 2^28, as halo2curves has it (snarkjs starts from 5)."""

Point: TypeAlias = tuple[int, int]
Coordinate2: TypeAlias = tuple[int, int]
Point2: TypeAlias = tuple[Coordinate2, Coordinate2]

G1: Point = (1, 2)
G2: Point2 = (
    (
        10857046999023057135944570762232829481370756359578518086990519993285655852781,
        11559732032986387107991004021392285783925812861821192530917403151452391805634,
    ),
    (
        8495653923123431417604973247489272438418190587263600148770280649306958101930,
        4082367875863433681332203403145435568316851327593401208105741076214120093531,
    ),
)

_MONTGOMERY = pow(2, 256, BASE)
_MONTGOMERY_INVERSE = pow(_MONTGOMERY, -1, BASE)
_SCALAR_BITS = ORDER.bit_length()


def invert_all(values: Sequence[int], modulus: int) -> list[int]:
    """Invert every value (none of them 0) at the price of one inversion and three products each."""
    prefixes, product = [], 1
    for value in values:
        prefixes.append(product)
        product = product * value % modulus
    inverse = pow(product, -1, modulus)
    inverses = [0] * len(values)
    for index in range(len(values) - 1, -1, -1):
        inverses[index] = prefixes[index] * inverse % modulus
        inverse = inverse * values[index] % modulus
    return inverses


def double(point: Point) -> Point:
    """Add a point to itself."""
    x, y = point
    slope = 3 * x * x * pow(2 * y, -1, BASE) % BASE
    x3 = (slope * slope - 2 * x) % BASE
    return x3, (slope * (x - x3) - y) % BASE


def add(left: Point | None, right: Point | None) -> Point | None:
    """Add any two points."""
    if left is None or right is None:
        return left or right
    if left[0] == right[0]:
        return double(left) if left[1] == right[1] else None
    return _add_distinct([left], [right])[0]


def multiply(point: Point | None, scalar: int) -> Point | None:
    """Multiply one point by a scalar."""
    result: Point | None = None
    for bit in bin(scalar % ORDER)[2:]:
        result = add(add(result, result), point if bit == "1" else None)
    return result


def multiples_of_generator(scalars: Sequence[int]) -> list[Point]:
    """Multiply G1 by every scalar; each lies in 1 to ORDER - 1.

    Fixed-base windows: in window w a scalar adds digit * 2^(w * bits) * G1 to what the lower windows gave.
    The lower sum is c * G1 with c < 2^(w * bits), so the two are never equal and never opposite (their sum is
    at most the scalar, which is below the order): the cheap addition of distinct points is enough, and all
    scalars share the inversions.
    """
    bits = min(max(len(scalars).bit_length() - 4, 4), 12)
    mask = (1 << bits) - 1
    sums: list[Point | None] = [None] * len(scalars)
    base = G1
    for shift in range(0, _SCALAR_BITS, bits):
        table, base = _window_table(base, bits)
        sums = _add_or_take(sums, [table[(scalar >> shift) & mask] for scalar in scalars])
    return [point for point in sums if point is not None]


def multiply_g2(scalar: int) -> Point2:
    """Multiply the generator of G2 by a scalar from 1 to ORDER - 1."""
    result = G2
    for bit in bin(scalar)[3:]:
        result = _add2(result, result)
        if bit == "1":
            result = _add2(result, G2)
    return result


def on_curve(point: Point) -> bool:
    """Whether a point lies on the curve; its group has prime order, so then it is in the group."""
    x, y = point
    return (y * y - x * x * x - 3) % BASE == 0


def write_coordinates(coordinates: Iterable[int]) -> bytes:
    """Write coordinates as ezkl's SRS files hold them: Montgomery form, 32 bytes little-endian each."""
    return b"".join(
        (value * _MONTGOMERY % BASE).to_bytes(COORDINATE_BYTES, "little") for value in coordinates
    )


def read_point(data: bytes) -> Point:
    """Read a point of G1 from 64 bytes.

    Raises:
        ValueError: a coordinate that is not below the modulus, or a point off the curve.

    """
    raw = [int.from_bytes(data[at : at + COORDINATE_BYTES], "little") for at in (0, COORDINATE_BYTES)]
    if any(value >= BASE for value in raw):
        raise ValueError("a coordinate is not below the modulus")
    point = (raw[0] * _MONTGOMERY_INVERSE % BASE, raw[1] * _MONTGOMERY_INVERSE % BASE)
    if not on_curve(point):
        raise ValueError("a point is off the curve")
    return point


def _add_distinct(left: Sequence[Point], right: Sequence[Point]) -> list[Point]:
    """Add pairs of points whose x differ."""
    sums = []
    inverses = invert_all([q[0] - p[0] for p, q in zip(left, right, strict=True)], BASE)
    for (x1, y1), (x2, y2), inverse in zip(left, right, inverses, strict=True):
        slope = (y2 - y1) * inverse % BASE
        x3 = (slope * slope - x1 - x2) % BASE
        sums.append((x3, (slope * (x1 - x3) - y1) % BASE))
    return sums


def _add_or_take(left: list[Point | None], right: list[Point | None]) -> list[Point | None]:
    """Add pairs of points whose x differ, or take the other where one is at infinity."""
    pairs = [(p, q) for p, q in zip(left, right, strict=True) if p is not None and q is not None]
    added = iter(_add_distinct([p for p, _ in pairs], [q for _, q in pairs]))
    return [p or q if p is None or q is None else next(added) for p, q in zip(left, right, strict=True)]


def _window_table(base: Point, bits: int) -> tuple[list[Point | None], Point]:
    """Give the multiples 0 to 2^bits - 1 of `base`, and 2^bits * base."""
    table: list[Point | None] = [None, base]
    step = base
    for _ in range(bits - 1):
        step = double(step)
        known = [point for point in table if point is not None]
        table += [step, *_add_distinct(known, [step] * len(known))]
    return table, double(step)


def _multiply_fp2(a: Coordinate2, b: Coordinate2) -> Coordinate2:
    return (a[0] * b[0] - a[1] * b[1]) % BASE, (a[0] * b[1] + a[1] * b[0]) % BASE


def _subtract_fp2(a: Coordinate2, b: Coordinate2) -> Coordinate2:
    return (a[0] - b[0]) % BASE, (a[1] - b[1]) % BASE


def _invert_fp2(a: Coordinate2) -> Coordinate2:
    norm = pow(a[0] * a[0] + a[1] * a[1], -1, BASE)
    return a[0] * norm % BASE, -a[1] * norm % BASE


def _add2(p: Point2, q: Point2) -> Point2:
    """Add two points of G2 that are not opposite."""
    (x1, y1), (x2, y2) = p, q
    if p == q:
        rise, run = _multiply_fp2((3, 0), _multiply_fp2(x1, x1)), _multiply_fp2((2, 0), y1)
    else:
        rise, run = _subtract_fp2(y2, y1), _subtract_fp2(x2, x1)
    slope = _multiply_fp2(rise, _invert_fp2(run))
    x3 = _subtract_fp2(_subtract_fp2(_multiply_fp2(slope, slope), x1), x2)
    return x3, _subtract_fp2(_multiply_fp2(slope, _subtract_fp2(x1, x3)), y1)
