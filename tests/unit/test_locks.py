"""Lock files: version 1 stays readable, and nothing but its one encoding is read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofhold import canonical
from proofhold.audited import Audited
from proofhold.errors import Malformed
from proofhold.locks import CircuitLock, ReplayLock, SrsKind

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v1"
CIRCUIT = (FIXTURES / "circuit.lock.json").read_bytes()
REPLAY = (FIXTURES / "replay.lock.json").read_bytes()
AUDITED = (FIXTURES / "audited.json").read_bytes()

Decode = Callable[[bytes], CircuitLock | ReplayLock | Audited]
FORMATS = [
    pytest.param(CircuitLock.decode, CIRCUIT, id="circuit"),
    pytest.param(ReplayLock.decode, REPLAY, id="replay"),
    pytest.param(Audited.decode, AUDITED, id="audited"),
]


def changed(data: bytes, path: str, value: Any) -> bytes:
    """`data` with the field at the dotted `path` set to `value`, or removed when it is `...`."""
    document = json.loads(data)
    *parents, last = path.split(".")
    place = document
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place[step]
    key: Any = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return canonical.encode(document)


@pytest.mark.parametrize(("decode", "data"), FORMATS)
def test_version_1_reads_and_writes_back_the_same(decode: Decode, data: bytes) -> None:
    assert decode(data).encode() == data


def test_version_1_digests_stay() -> None:
    circuit, replay = CircuitLock.decode(CIRCUIT), ReplayLock.decode(REPLAY)
    audited = Audited.decode(AUDITED)
    assert circuit.digest in audited
    assert replay.digest in audited
    assert circuit.digest != canonical.file_digest(CIRCUIT), "the digest is domain-separated"
    assert circuit.srs.kind is SrsKind.UNSAFE_DEV
    assert circuit.tag.offset == 30
    assert circuit.inputs == replay.inputs


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra", 1),
        ("name", ...),
        ("name", "../etc"),
        ("name", "Breast"),
        ("name", ""),
        ("model", "AB" * 32),
        ("vk", "ab" * 31),
        ("vk", None),
        ("error.bound", ...),
        ("error.bound", 0),
        ("error.bound", "NaN"),
        ("ezkl_version", "latest"),
        ("ezkl_version", "22.9.9"),
        ("passes", ...),
        ("passes.0.name", "Job Tag"),
        ("passes.0.max_abs", -1),
        ("passes.0.extra", 0),
        ("srs.kind", "safe"),
        ("srs.k", 99),
        ("srs.k", 9),  # smaller than the circuit
        ("srs.extra", 0),
        ("visibility.param", "private"),
        ("visibility.input", "hashed"),
        ("run_args.columns", 0),
        ("run_args.input_scale", 1000),
        ("run_args.lookup_range", ...),
        ("run_args.lookup_range", [-1]),
        ("run_args.lookup_range", [-1, 2.5]),
        ("run_args.lookup_range", [1, 2]),
        ("run_args.lookup_range", [0, 0]),
        ("run_args.lookup_range", [-1, 2**41]),
        ("inputs", []),
        ("inputs.0.shape", [0, 30]),
        ("inputs.0.shape", [2**20, 2**20]),
        ("inputs.0.shape", [1, True]),
        ("inputs.0.dtype", "float16"),
        ("inputs.0.low", 17),  # above high
        ("inputs.0.low", "0"),
        ("inputs.0.name", "job_tag"),
        ("inputs.0.name", "a b"),
        ("input_scales", []),
        ("input_scales", [13, 13]),
        ("output_scales", [-1]),
        ("outputs.0.dtype", "float32"),
        ("tag.offset", 31),
        ("tag.length", 8),
        ("tag.name", "tag"),
        ("post_processing", "exec"),
        ("peak", "large"),
        ("error.samples", 0),
        ("error.max_abs", -1),
        ("cost.instances", 46),
        ("cost.k", 0),
        ("cost.rows", 1.5),
        ("cost.pk_bytes", True),
    ],
)
def test_a_circuit_lock_that_makes_no_sense_is_malformed(path: str, value: Any) -> None:
    with pytest.raises(Malformed, match=r"lock\.malformed"):
        CircuitLock.decode(changed(CIRCUIT, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("contract", "float16"),
        ("relative_l2", 0),
        ("relative_l2", 1),
        ("relative_l2", True),
        ("segments", []),
        ("segments", {}),
        ("segments.0.relative_l2", 2),
        ("segments.0.inputs", [1]),
        ("segments.0.extra", 1),
        ("outputs", "logits"),
        ("outputs.0.shape", [1] * 9),
    ],
)
def test_a_replay_lock_that_makes_no_sense_is_malformed(path: str, value: Any) -> None:
    with pytest.raises(Malformed, match=r"lock\.malformed"):
        ReplayLock.decode(changed(REPLAY, path, value))


@pytest.mark.parametrize(("decode", "data"), FORMATS)
def test_another_version_has_a_code_of_its_own(decode: Decode, data: bytes) -> None:
    with pytest.raises(Malformed, match=r"\.version\]"):
        decode(changed(data, "version", 2))


def test_a_list_of_audits_is_in_order_and_names_each_lock_once() -> None:
    locks = json.loads(AUDITED)["locks"]
    for wrong in (locks[::-1], [*locks, locks[-1]]):
        with pytest.raises(Malformed, match=r"audited\.malformed"):
            Audited.decode(changed(AUDITED, "locks", wrong))


def test_accepting_replaces_the_lock_of_the_same_name_and_kind() -> None:
    audited = Audited.decode(AUDITED)
    other = CircuitLock.decode(changed(CIRCUIT, "error.relative_l2", 0.5))
    again = audited.accept([other])
    assert len(again.locks) == len(audited.locks)
    assert other.digest in again
    assert CircuitLock.decode(CIRCUIT).digest not in again
    assert again.accept([CircuitLock.decode(CIRCUIT)]) == audited


@pytest.mark.parametrize(("decode", "data"), FORMATS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: json.dumps(json.loads(data), indent=1).encode(),
        lambda data: data.replace(b'"version":1', b'"version":1,"version":1'),
        lambda data: data.replace(b'"version":1', b'"version":1.0'),
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"null",
        lambda data: b"[" * 100_000,
        lambda data: data + b" " * 2**20,
    ],
)
def test_another_encoding_is_refused(decode: Decode, data: bytes, spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Malformed):
        decode(spoil(data))


@pytest.mark.parametrize(("decode", "data"), FORMATS)
def test_a_thousand_mutations_give_malformed_or_another_lock(decode: Decode, data: bytes) -> None:
    draw = random.Random(11)
    original = decode(data)
    for _ in range(1000):
        mutated = mutate(data, draw)
        try:
            lock = decode(mutated)
        except Malformed:
            continue
        assert lock.encode() == mutated
        assert (lock == original) == (mutated == data)


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Change bytes, or a value deep in the document: the second kind gets past the JSON parser."""
    if draw.random() < 0.5:
        spoiled = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(spoiled))
            kind = draw.randrange(3)
            if kind == 0:
                spoiled[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del spoiled[at : at + draw.randint(1, 8)]
            else:
                spoiled[at:at] = draw.randbytes(draw.randint(1, 4))
        return bytes(spoiled)
    document = json.loads(data)
    place, key = draw.choice(list(places(document)))
    place[key] = draw.choice([None, True, -1, 0, 1, 2**53 - 1, 0.5, 1e300, "", "a", "ab" * 32, [], {}, [[]]])
    return canonical.encode(document)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((value, key), *places(inner))]


@given(st.binary(max_size=200))
def test_random_bytes_are_malformed(data: bytes) -> None:
    for decode in (CircuitLock.decode, ReplayLock.decode, Audited.decode):
        with pytest.raises(Malformed):
            decode(data)
