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
UNSAFE_DEV_DIGESTS = (
    "1997da46cc96a181b72c4ce31313f049417b821c22962d5be64b6c8b7af2e2a6",
    "685bd2f1cbdcbaf9d772f42e2b7992383857120d678684f5c9cb0847805bbb38",
    "dd9fd8b4d9798829f6eda7b948cb0b899ba9b622f3e8384458f911a6080d57ec",
    "f3dca61f7a188eb81e5d38a2ac4d3defc134d37d55e351d8014dea171421e59d",
    "fe36184d53f9c8516707f362d16fe5d77ed93be73803e23bb5bba929cb501c3f",
    "931229f3e2859175141c22176e5c310bba1e8bbacb78caeac15ebf77da322e07",
    "94d703f5a6abbcc370f9c1a0679a223e81e5063077f3173b5dea94af4ad1286a",
    "e759f646d092b2180526e4ea5accf6222c9398447c66830f891f61b0a3a71b8e",
    "cc397d62970d0b7fc42435794ec2b766443a1ba57d6cfcdb95b91afdc1c03eee",
    "442e194b91e8ede6d56bfddc5bb9889a043e9b38d97d0aebcc4474ee26eac5dc",
    "081ef4beb66897e6269607216123105bf37ed728829baba85219ccbbe4ffa4c7",
    "67e4856bc3db67600ef839867c650395802ff5f334a5fd939dbc0fab06a36937",
    "6a828bc586fa70ad903653f5a01050daa76ad2210bc14fc4538bf0910cc4ee0b",
    "dd95c9883b42c44fdd06c7d25ce3f63e1e87690bed69e9c159ab4c5bd116ed16",
    "b040797eca2118163346291cbce31c982a03f8aac59dd0f9b760f4c5b2c9b6c8",
    "6213f51264c3aad0c53e8edb07dfc324a24ccd7dc949d470cf6ce877b4e4cce5",
    "57770af84fc88ffac884eecadeb9afb64771e7b0712e9614ca28c84eb179e52c",
    "41f437b6b655c440e1e33accfd777e7ea3ef816988fad4a210f5ae7723018d8d",
    # k = 1 to 18, which takes a minute in plain Python. For larger ones import a ceremony's file.
)
"""SHA-256 of the development SRS of each size, so that a cached file is known for what it is."""
MAX_UNSAFE_DEV_K = len(UNSAFE_DEV_DIGESTS)

_POINT_BYTES = 2 * COORDINATE_BYTES
_POINT2_BYTES = 4 * COORDINATE_BYTES


@dataclass(frozen=True, slots=True)
class Srs:
    """A whole reference string: its pin, and the file that holds it."""

    pin: SrsPin
    path: Path


@dataclass(frozen=True, slots=True)
class SrsFile:
    """What a file says of itself: k, the digests that a lock would pin, and whether its secret is public."""

    k: int
    digest: Digest
    verify_digest: Digest
    unsafe_dev: bool


def unsafe_dev_srs(k: int, label: str = UNSAFE_DEV_LABEL) -> bytes:
    """Make the development SRS: its secret is the SHA-256 of `label` modulo the group order.

    Deterministic, so that everybody gets the same bytes and locks can pin them; and public, so that anybody
    can forge proofs that rest on it.

    Raises:
        CompileError: ``compile.srs_size``.

    """
    _check_dev_size(k)
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
    _check_dev_size(k)
    path = cache_folder("srs", cache) / f"unsafe-dev-v1-k{k}.srs"
    expected = UNSAFE_DEV_DIGESTS[k - 1]
    data = path.read_bytes() if path.is_file() else b""
    if file_digest(data) != expected:
        # Missing or damaged: a cache heals itself.
        data = unsafe_dev_srs(k)
        if file_digest(data) != expected:
            raise CompileError("compile.srs_digest", f"the development SRS of k = {k} came out wrong")
        write_atomically(path, data)
    return Srs(pin(data, SrsKind.UNSAFE_DEV, UNSAFE_DEV_LABEL), path)


def import_ceremony(path: Path, *, digest: Digest, label: str, cache: Path | None = None) -> Srs:
    """Take a ceremony's file into the cache, if it is the one that `digest` names.

    Raises:
        CompileError: ``compile.srs_digest`` for any other file, ``compile.srs_malformed``, or
            ``compile.srs_unsafe`` for the development SRS under another name.

    """
    data = _read(path)
    if file_digest(data) != digest:
        raise CompileError("compile.srs_digest", f"{path}: SHA-256 {file_digest(data)}, expected {digest}")
    taken = pin(data, SrsKind.CEREMONY, label)
    if _is_dev(data):
        raise CompileError("compile.srs_unsafe", f"{path} is the development SRS, whose secret is public")
    kept = _ceremony_path(digest, cache)
    write_atomically(kept, data)
    return Srs(taken, kept)


def identify_srs(path: Path) -> SrsFile:
    """Say what a file is.

    Raises:
        CompileError: ``compile.srs_malformed``: it is no SRS.

    """
    data = _read(path)
    return SrsFile(
        _read_k(data), file_digest(data), file_digest(verification_cut(data)), unsafe_dev=_is_dev(data)
    )


def find(pinned: SrsPin, *, cache: Path | None = None) -> Srs:
    """Give the SRS that a lock pins: a development one is made, a ceremony's must have been imported.

    Raises:
        CompileError: ``compile.srs_missing``, or ``compile.srs_digest`` where the file is another.

    """
    if pinned.kind is SrsKind.UNSAFE_DEV:
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
    data = _read(path)
    if file_digest(data) != digest:
        raise CompileError("compile.srs_digest", f"{path}: SHA-256 {file_digest(data)}, expected {digest}")
    return Srs(pin(data, SrsKind.CEREMONY, label), path)


def pin(srs: bytes, kind: SrsKind, label: str) -> SrsPin:
    """Say what a lock says about an SRS.

    Raises:
        CompileError: ``compile.srs_malformed``.

    """
    return SrsPin(kind, label, _read_k(srs), file_digest(srs), file_digest(verification_cut(srs)))


def _check_dev_size(k: int) -> None:
    if not MIN_K <= k <= MAX_UNSAFE_DEV_K:
        raise CompileError(
            "compile.srs_size", f"k = {k}: a development SRS has k from {MIN_K} to {MAX_UNSAFE_DEV_K}"
        )


def _read_k(srs: bytes) -> int:
    k = int.from_bytes(srs[:4], "little") if len(srs) >= 4 else 0
    if not MIN_K <= k <= MAX_K or len(srs) != size_of(k):
        raise CompileError("compile.srs_malformed", f"{len(srs)} bytes are no SRS of k = {min(k, 2**20)}")
    return k


def _is_dev(srs: bytes) -> bool:
    """Whether the secret is that of the development SRS: the last point, tau G2, gives it away."""
    return srs[-_POINT2_BYTES:] == unsafe_dev_srs(MIN_K)[-_POINT2_BYTES:]


def _read(path: Path) -> bytes:
    largest = size_of(MAX_K)
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise CompileError("compile.missing", f"{path}: {error.strerror}") from error
    if len(data) > largest:
        raise CompileError("compile.srs_malformed", f"{path}: more than {largest} bytes")
    return data


def _ceremony_path(digest: Digest, cache: Path | None) -> Path:
    return cache_folder("srs", cache) / f"ceremony-{digest}.srs"


def _negate(point: Point) -> Point:
    return point[0], -point[1] % BASE


def _g2_bytes() -> bytes:
    return write_coordinates(part for coordinate in G2 for part in coordinate)
