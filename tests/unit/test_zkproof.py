"""Evidence of kind ezkl: one encoding, and the instances that a proof of an exchange must have."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from judging import altered, circuit, logits, proof, proved
from proofhold import canonical
from proofhold.errors import Malformed
from proofhold.fieldelement import MODULUS, decode
from proofhold.job import job_tag
from proofhold.payload import Document, Payload, Tensors
from proofhold.zkproof import (
    MAX_EVIDENCE_BYTES,
    MAX_INSTANCES,
    MAX_PROOF_BYTES,
    ZkProof,
    expected_instances,
    proved_output,
)

BODY: dict[str, Any] = json.loads(proved().evidence[0].body)
JOB = proved().exchange.job.digest
INPUT, OUTPUT = proved().exchange.input, proved().exchange.output


def element(value: int) -> str:
    return value.to_bytes(32, "little").hex()


def refused(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        ZkProof.decode(data)
    return caught.value.code


def test_evidence_has_one_encoding() -> None:
    assert proof().encode() == proved().evidence[0].body
    assert ZkProof.decode(proof().encode()) == proof()


def test_the_instances_of_an_honest_proof_are_those_rebuilt_from_its_exchange() -> None:
    expected = expected_instances(circuit().lock, JOB, INPUT, OUTPUT)
    assert expected.column == proof().instances
    assert [len(part) for part in (expected.input, expected.tag, expected.output)] == [30, 16, 1]
    assert bytes(decode(text) for text in expected.tag) == job_tag(JOB)


def test_the_proved_output_is_the_claimed_one_to_the_bit() -> None:
    assert proved_output(circuit().lock, proof().instances) == OUTPUT


def test_the_largest_field_element_is_one() -> None:
    instances = (*proof().instances[:-1], element(MODULUS - 1))
    assert ZkProof.decode(replace(proof(), instances=instances).encode()).instances == instances


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        (element(MODULUS), "felt.malformed"),
        (element(2**256 - 1), "felt.malformed"),
        (element(171).upper(), "felt.malformed"),
        (element(1)[:-2], "felt.malformed"),
        (element(1) + "00", "felt.malformed"),
        ("0x" + element(1)[2:], "felt.malformed"),
        ("٠" * 64, "felt.malformed"),
        ("", "felt.malformed"),
        (1, "felt.malformed"),
        (None, "felt.malformed"),
        ([], "felt.malformed"),
    ],
)
def test_every_instance_is_a_canonical_field_element(instance: Any, code: str) -> None:
    assert refused(canonical.encode(BODY | {"instances": [*BODY["instances"][:-1], instance]})) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "ezkl.version"),
        ({"version": True}, "ezkl.malformed"),
        ({"more": 1}, "ezkl.malformed"),
        ({"pretty_public_inputs": {}}, "ezkl.malformed"),
        ({"proof": 1}, "ezkl.malformed"),
        ({"proof": "ab"}, "ezkl.malformed"),
        ({"proof": BODY["proof"] + "\n"}, "ezkl.malformed"),
        ({"proof": base64.b64encode(bytes(MAX_PROOF_BYTES + 1)).decode()}, "ezkl.malformed"),
        ({"instances": "00" * 32}, "ezkl.malformed"),
        ({"instances": [element(0)] * (MAX_INSTANCES + 1)}, "ezkl.malformed"),
    ],
)
def test_another_form_is_refused(change: dict[str, Any], code: str) -> None:
    assert refused(canonical.encode(BODY | change)) == code


@pytest.mark.parametrize("field", ["instances", "proof", "version"])
def test_no_field_may_be_missing(field: str) -> None:
    assert refused(canonical.encode({name: BODY[name] for name in BODY if name != field})) == "ezkl.malformed"


@pytest.mark.parametrize("data", [b"", b"nonsense", b'{"a":1,"a":1}', b"[" * 100_000, b"\xff", b"NaN"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    assert refused(data) == "ezkl.not_json"


@pytest.mark.parametrize(
    "data", [b" " + proof().encode(), proof().encode() + b" ", json.dumps(BODY).encode()]
)
def test_json_of_another_form_is_refused(data: bytes) -> None:
    assert refused(data) == "ezkl.not_canonical"


def test_evidence_is_bounded_before_it_is_read() -> None:
    assert refused(b"[" * (MAX_EVIDENCE_BYTES + 1)) == "ezkl.too_large"


def test_too_few_instances_prove_no_output() -> None:
    with pytest.raises(Malformed, match="46 instances are too few"):
        proved_output(circuit().lock, proof().instances[:-1])


def test_an_alias_modulo_2_to_the_128_is_no_output() -> None:
    alias = element((-(2**128 + 5)) % MODULUS)
    with pytest.raises(Malformed) as caught:
        proved_output(circuit().lock, (*proof().instances[:-1], alias))
    assert caught.value.code == "felt.range"


def test_a_negative_output_comes_back_negative() -> None:
    five_steps_below = proved_output(circuit().lock, (*proof().instances[:-1], element(MODULUS - 5)))
    assert five_steps_below == logits(-5 * 2.0**-13)


def test_outputs_are_written_little_endian() -> None:
    (tensor,) = proved_output(circuit().lock, (*proof().instances[:-1], element(1))).items
    assert tensor.data == struct.pack("<d", 2.0**-13)


@pytest.mark.parametrize(
    ("value", "quantised"), [(0.5 * 2.0**-13, 1), (-0.5 * 2.0**-13, -1), (0.49 * 2.0**-13, 0), (-0.0, 0)]
)
def test_an_input_is_rounded_half_away_from_zero(value: float, quantised: int) -> None:
    payload = altered(INPUT, lambda array: array.flat.__setitem__(0, value))
    expected = expected_instances(circuit().lock, JOB, payload, OUTPUT)
    assert decode(expected.input[0]) == quantised


def _of_other_dtype(payload: Payload, dtype: str) -> Tensors:
    return altered(payload, lambda array: None, dtype=dtype)


def _renamed(payload: Payload) -> Tensors:
    assert isinstance(payload, Tensors)
    return Tensors.of([("other", payload.items[0].numpy())])


def _reshaped(payload: Payload) -> Tensors:
    assert isinstance(payload, Tensors)
    return Tensors.of([(payload.items[0].name, payload.items[0].numpy().T.reshape(-1))])


def _doubled(payload: Payload) -> Tensors:
    assert isinstance(payload, Tensors)
    return Tensors((*payload.items, Tensors.of([("more", np.zeros(1, "float32"))]).items[0]))


@pytest.mark.parametrize(
    "payload",
    [
        _of_other_dtype(INPUT, "float64"),
        _renamed(INPUT),
        _reshaped(INPUT),
        _doubled(INPUT),
        Document("text/plain", b""),
    ],
)
def test_another_input_than_the_circuits_has_no_instances(payload: Payload) -> None:
    with pytest.raises(Malformed) as caught:
        expected_instances(circuit().lock, JOB, payload, OUTPUT)
    assert caught.value.code == "ezkl.payload"


@pytest.mark.parametrize(
    "payload",
    [
        _of_other_dtype(OUTPUT, "float32"),
        _renamed(OUTPUT),
        _reshaped(OUTPUT),
        _doubled(OUTPUT),
        Document("text/plain", b""),
    ],
)
def test_another_output_than_the_circuits_has_no_instances(payload: Payload) -> None:
    with pytest.raises(Malformed) as caught:
        expected_instances(circuit().lock, JOB, INPUT, payload)
    assert caught.value.code == "ezkl.payload"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_has_no_instance(value: float) -> None:
    payload = altered(INPUT, lambda array: array.flat.__setitem__(3, value))
    with pytest.raises(Malformed) as caught:
        expected_instances(circuit().lock, JOB, payload, OUTPUT)
    assert caught.value.code == "felt.not_finite"
