"""Structured reference strings (KZG on BN254) in ezkl's file layout: made, imported, cut, kept.

Layout: k as 4 bytes little-endian | 2^k powers tau^i G1 | 2^k Lagrange points L_i(tau) G1 | G2 | tau G2.

ezkl checks next to nothing of such a file, and a foreign one gives the same verifying key: so the digest of
the file is pinned in the lock, and a file enters the cache only under the digest it really has.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from proofhold.canonical import Digest, file_digest
from proofhold.compile.bn254 import (
    BASE,
    COORDINATE_BYTES,
    G1,
    G2,
    ORDER,
    ROOT_OF_UNITY,
    TWO_ADICITY,
    Point,
    add,
    invert_all,
    multiples_of_generator,
    multiply,
    multiply_g2,
    read_point,
    write_coordinates,
)
from proofhold.compile.cache import cache_folder, write_atomically
from proofhold.compile.errors import CompileError
from proofhold.locks import SrsKind, SrsPin

UNSAFE_DEV_LABEL = "proofhold/unsafe-dev-srs/v1"
MIN_K = 1
MAX_K = 26
MAX_UNSAFE_DEV_K = 18
"""Made in plain Python: 16 s at k = 16, four times that here. Larger circuits take a ceremony's file."""

_POINT_BYTES = 2 * COORDINATE_BYTES
_POINT2_BYTES = 4 * COORDINATE_BYTES


@dataclass(frozen=True, slots=True)
class Srs:
    """A whole reference string: its pin, and the file that holds it."""

    pin: SrsPin
    path: Path


def unsafe_dev_srs(k: int, label: str = UNSAFE_DEV_LABEL) -> bytes:
    """Make the development SRS: its secret is the SHA-256 of `label` modulo the group order.

    Deterministic, so that everybody gets the same bytes and locks can pin them; and public, so that anybody
    can forge proofs that rest on it.

    Raises:
        CompileError: ``compile.srs_size``.

    """
    if not MIN_K <= k <= MAX_UNSAFE_DEV_K:
        raise CompileError(
            "compile.srs_size", f"k = {k}: a development SRS has k from {MIN_K} to {MAX_UNSAFE_DEV_K}"
        )
    size = 1 << k
    tau = int.from_bytes(hashlib.sha256(label.encode()).digest(), "big") % ORDER
    if tau < 2 or pow(tau, 1 << TWO_ADICITY, ORDER) == 1:
        raise CompileError("compile.srs_label", f"the label {label!r} gives a degenerate secret")
    root = pow(ROOT_OF_UNITY, 1 << (TWO_ADICITY - k), ORDER)
    powers, roots = [1], [1]
    for _ in range(size - 1):
        powers.append(powers[-1] * tau % ORDER)
        roots.append(roots[-1] * root % ORDER)
    # L_i(tau) = root^i (tau^n - 1) / (n (tau - root^i))
    factor = (pow(tau, size, ORDER) - 1) * pow(size, -1, ORDER) % ORDER
    inverses = invert_all([(tau - value) % ORDER for value in roots], ORDER)
    lagrange = [
        factor * value % ORDER * inverse % ORDER for value, inverse in zip(roots, inverses, strict=True)
    ]
    points = multiples_of_generator(powers + lagrange)
    return k.to_bytes(4, "little") + b"".join(
        (
            write_coordinates(coordinate for point in points for coordinate in point),
            write_coordinates(part for coordinate in G2 for part in coordinate),
            write_coordinates(part for coordinate in multiply_g2(tau) for part in coordinate),
        )
    )


def size_of(k: int) -> int:
    """How many bytes an SRS of 2^k points takes."""
    return 4 + 2 * _POINT_BYTES * (1 << k) + 2 * _POINT2_BYTES


def verification_cut(srs: bytes) -> bytes:
    """Cut the 516 bytes that verification needs out of any SRS: the SRS of k = 1 on the same secret.

    The powers are the first two of the file; the Lagrange points follow from them without the secret:
    L_0 = (g_0 + g_1) / 2 and L_1 = (g_0 - g_1) / 2. So every file of one ceremony gives the same bytes.

    Raises:
        CompileError: ``compile.srs_malformed``.

    """
    _read_k(srs)
    try:
        first, second = read_point(srs[4:68]), read_point(srs[68:132])
    except ValueError as error:
        raise CompileError("compile.srs_malformed", f"the SRS: {error}") from error
    if first != G1 or first == second or srs[-256:-128] != _g2_bytes():
        raise CompileError("compile.srs_malformed", "the SRS does not start from the curve's generators")
    half = pow(2, -1, ORDER)
    lagrange = [multiply(add(first, other), half) for other in (second, _negate(second))]
    points = [first, second, *(point for point in lagrange if point is not None)]
    return (
        (1).to_bytes(4, "little")
        + write_coordinates(coordinate for point in points for coordinate in point)
        + srs[-256:]
    )


def dev_srs(k: int, *, cache: Path | None = None) -> Srs:
    """Give the development SRS of size k from the cache, made when missing."""
    path = cache_folder("srs", cache) / f"unsafe-dev-v1-k{k}.srs"
    data = path.read_bytes() if path.is_file() else b""
    # Only the constants of this file know what the bytes must be; a file of another length is a torn one,
    # and every use compares the digest with the lock's.
    if len(data) != size_of(k):
        data = unsafe_dev_srs(k)
        write_atomically(path, data)
    return Srs(pin(data, SrsKind.UNSAFE_DEV, UNSAFE_DEV_LABEL), path)


def import_ceremony(path: Path, *, digest: Digest, label: str, cache: Path | None = None) -> Srs:
    """Take a ceremony's file into the cache, if it is the one that `digest` names.

    Raises:
        CompileError: ``compile.srs_digest`` for any other file, ``compile.srs_malformed``, or
            ``compile.srs_unsafe`` for the development SRS under another name.

    """
    largest = size_of(MAX_K)
    if path.stat().st_size > largest:
        raise CompileError("compile.srs_malformed", f"{path}: more than {largest} bytes")
    data = path.read_bytes()
    if file_digest(data) != digest:
        raise CompileError("compile.srs_digest", f"{path}: SHA-256 {file_digest(data)}, expected {digest}")
    taken = pin(data, SrsKind.CEREMONY, label)
    if data[-256:] == unsafe_dev_srs(1)[-256:]:
        raise CompileError("compile.srs_unsafe", f"{path} is the development SRS, whose secret is public")
    kept = _ceremony_path(digest, cache)
    write_atomically(kept, data)
    return Srs(taken, kept)


def find(pinned: SrsPin, *, cache: Path | None = None) -> Srs:
    """Give the SRS that a lock pins: a development one is made, a ceremony's must have been imported.

    Raises:
        CompileError: ``compile.srs_missing``, or ``compile.srs_digest`` where the file is another.

    """
    if pinned.kind is SrsKind.UNSAFE_DEV:
        srs = dev_srs(pinned.k, cache=cache)
        if srs.pin != pinned:
            # A damaged cache heals itself; a lock that pins something else does not.
            srs.path.unlink()
            srs = dev_srs(pinned.k, cache=cache)
    else:
        srs = find_ceremony(pinned.digest, label=pinned.label, cache=cache)
    if srs.pin != pinned:
        raise CompileError(
            "compile.srs_digest", f"the SRS has SHA-256 {srs.pin.digest}, the lock pins {pinned.digest}"
        )
    return srs


def find_ceremony(digest: Digest, *, label: str, cache: Path | None = None) -> Srs:
    """Give an imported ceremony's file by its digest.

    Raises:
        CompileError: ``compile.srs_missing`` or ``compile.srs_digest``.

    """
    path = _ceremony_path(digest, cache)
    if not path.is_file():
        raise CompileError(
            "compile.srs_missing",
            f"no SRS {digest} here: run `proofhold srs import FILE --digest {digest} --label '{label}'`",
        )
    data = path.read_bytes()
    if file_digest(data) != digest:
        raise CompileError("compile.srs_digest", f"{path}: SHA-256 {file_digest(data)}, expected {digest}")
    return Srs(pin(data, SrsKind.CEREMONY, label), path)


def pin(srs: bytes, kind: SrsKind, label: str) -> SrsPin:
    """Say what a lock says about an SRS.

    Raises:
        CompileError: ``compile.srs_malformed``.

    """
    return SrsPin(kind, label, _read_k(srs), file_digest(srs), file_digest(verification_cut(srs)))


def _read_k(srs: bytes) -> int:
    k = int.from_bytes(srs[:4], "little") if len(srs) >= 4 else 0
    if not MIN_K <= k <= MAX_K or len(srs) != size_of(k):
        raise CompileError("compile.srs_malformed", f"{len(srs)} bytes are no SRS of k = {min(k, 2**20)}")
    return k


def _ceremony_path(digest: Digest, cache: Path | None) -> Path:
    return cache_folder("srs", cache) / f"ceremony-{digest}.srs"


def _negate(point: Point) -> Point:
    return point[0], -point[1] % BASE


def _g2_bytes() -> bytes:
    return write_coordinates(part for coordinate in G2 for part in coordinate)
