"""The draw that nobody can steer (PROTOCOL P2): a committed secret, a seed from secret and claim, a rate.

The escrow draws the secret when the job is drafted and the job carries its commitment, so the verifier
cannot choose it afterwards; the claim enters the seed, so nobody can know the draw before the provider is
bound to an output. The receipt reveals the secret, and with these three functions anyone repeats the draw.
"""

from __future__ import annotations

from proofhold import canonical
from proofhold.canonical import DIGEST_BYTES, Digest
from proofhold.errors import Misuse
from proofhold.job import NONCE_BYTES, PPM

SECRET_BYTES = 32
SEED_PREFIX_BYTES = 8
"""How much of the seed decides whether a job is drawn, and as much again which segment: 64 bits make the
drawn rate exact to 5e-20."""


def commitment(nonce: bytes, secret: bytes) -> Digest:
    """Commit to a secret for the job with this nonce: H(domain ‖ job nonce ‖ secret).

    Raises:
        Misuse: the nonce or the secret has another length than 32 bytes.

    """
    _expect_length("nonce", nonce, NONCE_BYTES)
    _expect_length("secret", secret, SECRET_BYTES)
    return canonical.digest("proofhold/sampling-commitment/v1", nonce, secret)


def seed(secret: bytes, claim: Digest) -> Digest:
    """Derive the seed of a claim's draw: H(domain ‖ secret ‖ claim digest).

    Raises:
        Misuse: the secret has another length than 32 bytes, or `claim` is no digest.

    """
    _expect_length("secret", secret, SECRET_BYTES)
    claim_bytes = bytes.fromhex(claim)
    _expect_length("claim digest", claim_bytes, DIGEST_BYTES)
    return canonical.digest("proofhold/sampling-seed/v1", secret, claim_bytes)


def projection_commitment(nonce: bytes, secret: bytes) -> Digest:
    """Commit to the second secret of a job, from which random projections come (PROTOCOL P3).

    Raises:
        Misuse: the nonce or the secret has another length than 32 bytes.

    """
    _expect_length("nonce", nonce, NONCE_BYTES)
    _expect_length("secret", secret, SECRET_BYTES)
    return canonical.digest("proofhold/projection-commitment/v1", nonce, secret)


def projection_seed(secret: bytes, openings: Digest) -> Digest:
    """Derive what a check's projections are drawn from: H(domain ‖ secret ‖ digest of the openings).

    Raises:
        Misuse: the secret has another length than 32 bytes, or `openings` is no digest.

    """
    _expect_length("secret", secret, SECRET_BYTES)
    openings_bytes = bytes.fromhex(openings)
    _expect_length("openings digest", openings_bytes, DIGEST_BYTES)
    return canonical.digest("proofhold/projection-seed/v1", secret, openings_bytes)


def is_drawn(seed: Digest, rate_ppm: int) -> bool:
    """Tell whether the claim with this seed is to be checked, at a rate in parts per million.

    The first 64 bits of the seed, as a big-endian number, are below rate x 2^64: rate 0 draws nothing and
    rate 1,000,000 everything.

    Raises:
        Misuse: the rate lies outside of 0 to 1,000,000.

    """
    if not 0 <= rate_ppm <= PPM:
        raise Misuse(f"sampling rate: got {rate_ppm} parts per million, expected 0 to {PPM}")
    prefix = bytes.fromhex(seed)[:SEED_PREFIX_BYTES]
    _expect_length("seed prefix", prefix, SEED_PREFIX_BYTES)
    threshold = (rate_ppm << 8 * SEED_PREFIX_BYTES) // PPM
    return int.from_bytes(prefix, "big") < threshold


def draw_segment(seed: Digest, segments: int) -> int:
    """Draw which of a model's segments is checked: each is as likely as every other.

    The second 64 bits of the seed, as a big-endian number, times the number of segments, divided by 2^64.

    Raises:
        Misuse: there is no segment.

    """
    if segments < 1:
        raise Misuse(f"segments: got {segments}, expected at least 1")
    part = bytes.fromhex(seed)[SEED_PREFIX_BYTES : 2 * SEED_PREFIX_BYTES]
    _expect_length("second part of the seed", part, SEED_PREFIX_BYTES)
    return int.from_bytes(part, "big") * segments >> 8 * SEED_PREFIX_BYTES


def _expect_length(what: str, value: bytes, expected: int) -> None:
    # Fixed lengths are what keeps the concatenation under the hash unambiguous.
    if len(value) != expected:
        raise Misuse(f"{what}: {len(value)} bytes, expected {expected}")
