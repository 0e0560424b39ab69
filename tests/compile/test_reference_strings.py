"""Structured reference strings: the development one to the byte, cuts, imports, the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofhold.canonical import file_digest
from proofhold.compile import CompileError, dev_srs, identify_srs, import_ceremony, srs
from proofhold.compile.bn254 import G1, ORDER, add, multiples_of_generator, multiply, on_curve
from proofhold.locks import SrsKind, SrsPin

CUT = "1997da46cc96a181b72c4ce31313f049417b821c22962d5be64b6c8b7af2e2a6"
PUBLISHED = {
    9: "cc397d62970d0b7fc42435794ec2b766443a1ba57d6cfcdb95b91afdc1c03eee",
    12: "67e4856bc3db67600ef839867c650395802ff5f334a5fd939dbc0fab06a36937",
    14: "dd95c9883b42c44fdd06c7d25ce3f63e1e87690bed69e9c159ab4c5bd116ed16",
}


@pytest.mark.parametrize("k", [1, 2, 5, 9, 10])
def test_the_development_srs_is_the_same_everywhere(k: int) -> None:
    data = srs.unsafe_dev_srs(k)
    assert len(data) == srs.size_of(k)
    assert file_digest(data) == srs.UNSAFE_DEV_DIGESTS[k - 1]
    assert file_digest(srs.verification_cut(data)) == CUT


def test_the_digests_are_those_that_were_measured_before_this_code_was_written() -> None:
    assert {k: srs.UNSAFE_DEV_DIGESTS[k - 1] for k in PUBLISHED} == PUBLISHED
    assert srs.UNSAFE_DEV_DIGESTS[0] == CUT, "the cut is the SRS of k = 1"


def test_another_label_gives_another_secret() -> None:
    assert srs.unsafe_dev_srs(2, "another") != srs.unsafe_dev_srs(2)


@pytest.mark.parametrize("k", [-1, 0, 19, 10**9])
def test_a_size_out_of_bounds_is_refused(k: int) -> None:
    with pytest.raises(CompileError, match=r"compile\.srs_size"):
        srs.unsafe_dev_srs(k)


def test_a_damaged_cache_heals(tmp_path: Path) -> None:
    made = dev_srs(3, cache=tmp_path)
    good = made.path.read_bytes()
    made.path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert dev_srs(3, cache=tmp_path).path.read_bytes() == good
    assert made.pin == SrsPin(SrsKind.UNSAFE_DEV, srs.UNSAFE_DEV_LABEL, 3, file_digest(good), CUT)


def test_only_the_ceremony_that_its_digest_names_is_imported(tmp_path: Path) -> None:
    data = srs.unsafe_dev_srs(2, "stands in for a ceremony")
    file = tmp_path / "ceremony.srs"
    file.write_bytes(data)
    with pytest.raises(CompileError, match=r"compile\.srs_digest"):
        import_ceremony(file, digest="00" * 32, label="test", cache=tmp_path)
    taken = import_ceremony(file, digest=file_digest(data), label="test", cache=tmp_path)
    assert (taken.pin.kind, taken.pin.k) == (SrsKind.CEREMONY, 2)
    assert srs.find(taken.pin, cache=tmp_path) == taken
    assert not identify_srs(file).unsafe_dev
    taken.path.write_bytes(data[:-1])
    with pytest.raises(CompileError, match=r"compile\.srs_digest"):
        srs.find(taken.pin, cache=tmp_path)
    taken.path.unlink()
    with pytest.raises(CompileError, match=r"compile\.srs_missing"):
        srs.find(taken.pin, cache=tmp_path)


def test_the_development_srs_cannot_pass_for_a_ceremony(tmp_path: Path) -> None:
    file = tmp_path / "renamed.srs"
    file.write_bytes(srs.unsafe_dev_srs(2))
    assert identify_srs(file).unsafe_dev
    with pytest.raises(CompileError, match=r"compile\.srs_unsafe"):
        import_ceremony(file, digest=file_digest(file.read_bytes()), label="honest", cache=tmp_path)


def test_a_lock_that_pins_another_development_srs_is_refused(tmp_path: Path) -> None:
    pin = dev_srs(2, cache=tmp_path).pin
    with pytest.raises(CompileError, match=r"compile\.srs_digest"):
        srs.find(SrsPin(pin.kind, pin.label, 2, "00" * 32, pin.verify_digest), cache=tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:3],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\xff\xff\xff\xff" + data[4:],
        lambda data: data[:4] + bytes(64) + data[68:],  # off the curve
        lambda data: data[:4] + b"\xff" * 64 + data[68:],  # not below the modulus
        lambda data: data[:4] + data[68:132] + data[68:],  # not the generator
        lambda data: data[:-256] + data[-128:] * 2,  # not the generator of G2
    ],
)
def test_what_is_no_srs_is_refused(spoil: object, tmp_path: Path) -> None:
    assert callable(spoil)
    file = tmp_path / "bad.srs"
    file.write_bytes(spoil(srs.unsafe_dev_srs(3)))
    with pytest.raises(CompileError, match=r"compile\.srs_malformed"):
        identify_srs(file)


def test_the_curve_agrees_with_itself() -> None:
    scalars = [1, 2, 3, 2**100 + 1, ORDER - 1]
    points = multiples_of_generator(scalars)
    assert all(on_curve(point) for point in points)
    assert points == [multiply(G1, scalar) for scalar in scalars]
    assert add(points[0], points[1]) == points[2]
    assert add(points[0], points[-1]) is None
    assert multiply(G1, ORDER) is None
