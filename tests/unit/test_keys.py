"""Keys, signatures over typed documents, and who is trusted when."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import BUYER, FIXTURES, NOW, PROVIDER, STRANGER, TRUST, VERIFIER
from mutations import damaged, misfilled
from proofhold import canonical, keys
from proofhold.errors import Malformed, Misuse
from proofhold.keys import Envelope, SigningKey, TrustedKey, TrustStore, binds, is_signature
from proofhold.records import Record

KIND = "application/vnd.proofhold.test+json"


def test_a_key_is_that_of_rfc_8032() -> None:
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public == "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
    assert repr(key) == f"SigningKey({key.public})"


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(Misuse, match="32 bytes, got 31"):
        SigningKey(bytes(31))
    assert SigningKey.generate().public != SigningKey.generate().public


def test_a_private_key_is_written_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    BUYER.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load(path).public == BUYER.public
    with pytest.raises(Misuse, match="cannot write the key"):
        PROVIDER.save(path)
    assert SigningKey.load(path).public == BUYER.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    BUYER.save(path)
    path.chmod(mode)
    with pytest.raises(Misuse, match=f"got {mode:04o}: chmod 600"):
        SigningKey.load(path)


def test_another_file_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(Misuse, match="no private key"):
            SigningKey.load(path)
    other = X25519PrivateKey.generate()
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(Misuse, match="another kind of key"):
        SigningKey.load(path)
    with pytest.raises(Misuse, match="cannot read the key"):
        SigningKey.load(tmp_path / "none")


def test_signatures() -> None:
    signature = BUYER.sign(b"message")
    assert is_signature(BUYER.public, signature, b"message")
    assert not is_signature(BUYER.public, signature, b"massage")
    assert not is_signature(PROVIDER.public, signature, b"message")
    assert not is_signature(BUYER.public, signature[:-1], b"message")
    for name in ("", "ed25519:", BUYER.public.upper(), f"{BUYER.public}\n", f"x{BUYER.public}"):
        assert not is_signature(name, signature, b"message")
    assert not is_signature("ed25519:" + "00" * 32, bytes(64), b"message")


def test_what_is_signed_is_the_encoding_of_dsse() -> None:
    """The example of the DSSE specification."""
    envelope = Envelope("http://example.com/HelloWorld", b"hello world")
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert envelope.pre_authentication_encoding() == expected


def test_the_type_is_part_of_what_is_signed() -> None:
    signed = Envelope(KIND, b"{}").signed(BUYER)
    assert signed.signers() == {BUYER.public}
    assert Envelope(KIND + "x", b"{}", signed.signatures).signers() == frozenset()
    assert Envelope(KIND, b"{ }", signed.signatures).signers() == frozenset()


def test_the_order_of_signing_does_not_count() -> None:
    one = Envelope(KIND, b"{}").signed(BUYER).signed(PROVIDER)
    assert one == Envelope(KIND, b"{}").signed(PROVIDER).signed(BUYER)
    assert one.signed(BUYER) is one
    assert one.is_signed_by_exactly([PROVIDER.public, BUYER.public])
    assert not one.is_signed_by_exactly([BUYER.public])
    assert not one.is_signed_by_exactly([BUYER.public, PROVIDER.public, STRANGER.public])
    assert not Envelope(KIND, b"{}").is_signed_by_exactly([BUYER.public])


def test_a_bad_signature_beside_a_good_one_spoils_it() -> None:
    good = Envelope(KIND, b"{}").signed(BUYER)
    names = tuple(sorted([*good.signatures, (STRANGER.public, bytes(64))]))
    assert not Envelope(KIND, b"{}", names).is_signed_by_exactly([BUYER.public])
    assert not Envelope(KIND, b"{}", names).is_signed_by_exactly([BUYER.public, STRANGER.public])


def read(data: bytes) -> Envelope:
    value = canonical.decode(data, max_bytes=10**6, what="thing")
    return Envelope.read(Record(value, what="thing"), KIND)


def test_signatures_are_sorted_and_one_a_key() -> None:
    envelope = Envelope(KIND, b"{}").signed(BUYER).signed(PROVIDER)
    assert read(canonical.encode(envelope.to_json())) == envelope
    for signatures in (envelope.signatures[::-1], (envelope.signatures[0],) * 2):
        with pytest.raises(Malformed, match="each key once, in order"):
            read(canonical.encode(Envelope(KIND, b"{}", signatures).to_json()))
    many = Envelope(KIND, b"{}", tuple((f"ed25519:{i:064x}", bytes(64)) for i in range(9)))
    with pytest.raises(Malformed, match="9 items, expected at most 8"):
        read(canonical.encode(many.to_json()))


def test_a_damaged_envelope_is_refused_or_not_signed() -> None:
    envelope = Envelope(KIND, b'{"a":1}').signed(BUYER)
    data = canonical.encode(envelope.to_json())
    for changed in damaged(data, count=1000):
        try:
            got = read(changed)
        except Malformed:
            continue
        assert got.signers() == frozenset()


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=50), st.sets(st.sampled_from([BUYER, PROVIDER, STRANGER])))
def test_envelopes_come_back(payload: bytes, keys: set[SigningKey]) -> None:
    envelope = Envelope(KIND, payload)
    for key in keys:
        envelope = envelope.signed(key)
    assert read(canonical.encode(envelope.to_json())) == envelope
    assert envelope.is_signed_by_exactly([key.public for key in keys])


# --- trust -----------------------------------------------------------------------------------------------


def test_version_1_of_the_trust_file() -> None:
    data = (FIXTURES / "trust.json").read_bytes()
    assert TrustStore.decode(data) == TRUST
    assert TRUST.encode() == data


def test_trust_has_an_interval() -> None:
    start, end = NOW - 86_400, NOW + 86_400
    assert [TRUST.trusts(VERIFIER.public, at) for at in (start - 1, start, end - 1, end)] == [
        False,
        True,
        True,
        False,
    ]
    assert TRUST.trusts(STRANGER.public, start - 1)
    assert not TRUST.trusts(STRANGER.public, start)
    assert not TRUST.trusts(BUYER.public, NOW)


def test_a_key_may_have_several_intervals() -> None:
    store = TrustStore((TrustedKey(BUYER.public, "b", 0, 10),)).adding(TrustedKey(BUYER.public, "b", 20, 30))
    assert [store.trusts(BUYER.public, at) for at in (5, 15, 25)] == [True, False, True]
    with pytest.raises(Misuse, match="twice"):
        store.adding(TrustedKey(BUYER.public, "b", 0, 10))


def test_an_empty_store_cannot_be_built() -> None:
    with pytest.raises(Misuse, match="1 to 1024 keys, got 0"):
        TrustStore(())
    with pytest.raises(Malformed, match=r"trust\.malformed"):
        TrustStore.decode(b'{"keys":[],"version":1}')
    with pytest.raises(Misuse, match="got 1025"):
        TrustStore(tuple(TrustedKey(BUYER.public, "b", i, i + 1) for i in range(1025)))


@pytest.mark.parametrize(
    ("key", "name", "start", "end"),
    [
        ("ed25519:00", "n", 0, 1),
        (BUYER.public, "", 0, 1),
        (BUYER.public, "n" * 129, 0, 1),
        (BUYER.public, "a\x1b[2J", 0, 1),
        (BUYER.public, "n", 5, 5),
        (BUYER.public, "n", 6, 5),
        (BUYER.public, "n", -1, 5),
        (BUYER.public, "n", 0, 2**53),
    ],
)
def test_what_cannot_be_trusted(key: str, name: str, start: int, end: int) -> None:
    with pytest.raises(Misuse):
        TrustedKey(key, name, start, end)
    content = {"keys": [{"from": start, "key": key, "name": name, "until": end}], "version": 1}
    if end < 2**53:
        with pytest.raises(Malformed, match="trust: "):
            TrustStore.decode(canonical.encode(content))


def test_a_damaged_trust_file_is_refused_or_another() -> None:
    data = TRUST.encode()
    hostile = [
        json.dumps(v, sort_keys=True, separators=(",", ":")).encode() for v in misfilled(json.loads(data))
    ]
    for changed in (*damaged(data, count=500), *hostile):
        try:
            store = TrustStore.decode(changed)
        except Malformed:
            continue
        assert store.encode() == changed
        assert store != TRUST


def test_trust_files_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    TRUST.save(path)
    TRUST.adding(TrustedKey(BUYER.public, "b", 0, 1)).save(path)
    assert len(TrustStore.load(path).keys) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["trust.json"]
    with pytest.raises(Misuse, match="cannot write the trust file"):
        TRUST.save(tmp_path / "none" / "trust.json")
    with pytest.raises(Misuse, match="cannot read the trust file"):
        TrustStore.load(tmp_path / "none")


# --- rotation and revocation ----------------------------------------------------------------------------

OLD = TrustedKey(VERIFIER.public, "us", NOW - 100, NOW + 100)
OTHER = TrustedKey(BUYER.public, "them", NOW, NOW + 50)


def test_a_successor_takes_over_and_what_was_judged_before_stays_trusted() -> None:
    store = TrustStore((OLD, OTHER)).rotated(VERIFIER.public, STRANGER.public, NOW)
    assert [store.trusts(VERIFIER.public, at) for at in (NOW - 1, NOW)] == [True, False]
    assert [store.trusts(STRANGER.public, at) for at in (NOW - 1, NOW, NOW + 99, NOW + 100)] == [
        *(False, True, True, False)
    ]
    assert store.who(STRANGER.public, NOW) == store.who(VERIFIER.public, NOW - 1) == "us"
    assert store.who(VERIFIER.public, NOW) is None
    assert TrustStore.decode(store.encode()) == store


def test_a_key_that_takes_over_at_once_leaves_nothing_of_the_old_one() -> None:
    store = TrustStore((OLD,)).rotated(VERIFIER.public, STRANGER.public, NOW - 100)
    assert store.keys == (TrustedKey(STRANGER.public, "us", NOW - 100, NOW + 100),)
    earlier = TrustedKey(VERIFIER.public, "us", NOW - 300, NOW - 200)
    assert TrustStore((earlier, OLD)).rotated(VERIFIER.public, STRANGER.public, NOW - 100).keys == (
        *(earlier, store.keys[0]),
    )


def test_a_revoked_key_is_trusted_for_what_it_judged_before() -> None:
    later = TrustedKey(VERIFIER.public, "us", NOW + 200, NOW + 300)
    store = TrustStore((OLD, later, OTHER)).ending(VERIFIER.public, NOW)
    assert store.trusts(VERIFIER.public, NOW - 1)
    assert not any(store.trusts(VERIFIER.public, at) for at in (NOW, NOW + 99, NOW + 250))
    assert store.trusts(BUYER.public, NOW)


def test_a_stolen_key_is_trusted_for_nothing() -> None:
    store = TrustStore((OLD, OTHER)).without(VERIFIER.public)
    assert store.keys == (OTHER,)


def test_what_cannot_be_rotated_or_revoked() -> None:
    store = TrustStore((OLD,))
    impossible: list[Callable[[], TrustStore]] = [
        lambda: store.rotated(STRANGER.public, BUYER.public, NOW),
        lambda: store.rotated(VERIFIER.public, VERIFIER.public, NOW),
        lambda: store.rotated(VERIFIER.public, BUYER.public, NOW + 100),
        lambda: store.ending(STRANGER.public, NOW),
        lambda: store.ending(VERIFIER.public, NOW + 100),
        lambda: store.ending(VERIFIER.public, NOW - 100),  # an empty file trusts nobody
        lambda: store.without(VERIFIER.public),
        lambda: store.without(BUYER.public),
    ]
    for broken in impossible:
        with pytest.raises(Misuse):
            broken()


# --- keys that bind nobody -------------------------------------------------------------------------------

# The identity, the points of order 2, 4 and 8 with either sign, and encodings that are not the one.
SMALL = [
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "00" * 32,
    "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 31,
    "ed" + "ff" * 30 + "7f",
    "ed" + "ff" * 31,
    "ee" + "ff" * 30 + "7f",
    "ee" + "ff" * 31,
]


@pytest.mark.parametrize("key", SMALL)
def test_a_key_that_binds_nobody_signs_nothing(key: str) -> None:
    """Under the identity this very signature would be good for every message there is."""
    assert not binds(bytes.fromhex(key))
    for point in SMALL:
        signature = bytes.fromhex(point) + bytes(32)
        assert not any(is_signature(f"ed25519:{key}", signature, b"%d" % number) for number in range(16))


def test_keys_that_are_drawn_bind() -> None:
    assert all(binds(bytes.fromhex(SigningKey.generate().public.removeprefix("ed25519:"))) for _ in range(50))


def test_a_signature_has_one_encoding() -> None:
    """s and s + L are the same number to the curve, and one of them is refused (RFC 8032, section 5.1.7)."""
    order = 2**252 + 27742317777372353535851937790883648493
    key = SigningKey.generate()
    signature = key.sign(b"message")
    s = int.from_bytes(signature[32:], "little")
    assert is_signature(key.public, signature, b"message")
    assert not is_signature(key.public, signature[:32] + (s + order).to_bytes(32, "little"), b"message")


def test_a_signature_that_was_good_once_is_good_for_its_own_message_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a process remembers is key, signature and message, never only two of them, and not without end."""
    monkeypatch.setattr(keys, "MAX_REMEMBERED", 4)
    good = Envelope(KIND, b"{}").signed(BUYER)
    for _ in range(2):
        assert good.signers() == {BUYER.public}
        assert replace(good, payload=b"[]").signers() == set()
        assert replace(good, payload_type=f"{KIND}+x").signers() == set()
        ((_, signature),) = good.signatures
        assert replace(good, signatures=((PROVIDER.public, signature),)).signers() == set()
        assert replace(good, signatures=((BUYER.public, signature[::-1]),)).signers() == set()
    for number in range(20):
        assert Envelope(KIND, b"%d" % number).signed(BUYER).signers() == {BUYER.public}
    assert len(keys._good) <= 4
