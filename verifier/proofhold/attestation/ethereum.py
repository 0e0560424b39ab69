"""Keccak-256 and personal signatures (EIP-191) over secp256k1, as services of the Ethereum world use them.

The steps of `recover`:

1. A signature has 65 bytes: r, s and a recovery number of 0, 1, 27 or 28.
2. s lies in the lower half of the group's order (EIP-2): for each signature there is then no second one.
3. The message is prefixed, hashed, and the key that signed it recovered.
4. The account is the last 20 bytes of the Keccak-256 of the uncompressed key.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Final

from proofhold.attestation.refusal import Refusal
from proofhold.errors import Misuse

SIGNATURE_BYTES: Final = 65
ADDRESS_BYTES: Final = 20
HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half the order of secp256k1 (SEC 2, section 2.4.1), rounded down."""


def keccak256(data: bytes) -> bytes:
    """Keccak-256, which is not SHA3-256: the padding differs.

    Raises:
        Misuse: the extra ``tee`` is not installed.

    """
    return _keccak256()(data)


@functools.cache
def _keccak256() -> Callable[[bytes], bytes]:
    """Find out once who computes it: OpenSSL, from 3.2 on, or the library, which takes four times as long."""
    try:
        hashlib.new("keccak-256")
    except ValueError:
        pass
    else:
        return lambda data: hashlib.new("keccak-256", data).digest()
    try:
        from Crypto.Hash import keccak
    except ImportError as error:
        raise Misuse("Keccak-256 needs an extra: pip install 'proofhold[tee]'") from error
    return lambda data: keccak.new(digest_bits=256, data=data).digest()


def recover(text: bytes, signature: bytes) -> bytes:
    """Give the 20-byte address of the account that signed a text.

    Raises:
        Refusal: ``ethereum.signature`` or ``ethereum.malleable``.
        Misuse: the extra ``tee`` is not installed.

    """
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (0, 1, 27, 28):  # step 1
        text_ = "a signature has 65 bytes and a recovery number of 0, 1, 27 or 28"
        raise Refusal("ethereum.signature", text_, step=1, got=f"{len(signature)} bytes")
    if int.from_bytes(signature[32:64], "big") > HALF_ORDER:  # step 2
        raise Refusal("ethereum.malleable", "s lies in the upper half of the group's order", step=2)
    try:
        from coincurve import PublicKey
    except ImportError as error:
        raise Misuse("secp256k1 needs an extra: pip install 'proofhold[tee]'") from error
    prefixed = b"\x19Ethereum Signed Message:\n%d%s" % (len(text), text)
    compact = signature[:64] + bytes([signature[64] % 27])
    try:
        public = PublicKey.from_signature_and_message(compact, keccak256(prefixed), hasher=None)  # step 3
    except Exception as error:  # the library raises bare ones for a bad r
        raise Refusal("ethereum.signature", "no key gives this signature", step=3) from error
    return keccak256(public.format(compressed=False)[1:])[-ADDRESS_BYTES:]  # step 4
