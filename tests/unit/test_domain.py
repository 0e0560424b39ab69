"""The check of an input at funding: every mismatch is said, with its code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofhold.core import Fault
from proofhold.domain import InputSpec, check_input
from proofhold.errors import Misuse
from proofhold.payload import Document, Tensors

SPECS = (InputSpec("x", "float32", (1, 3), -1.0, 1.0), InputSpec("n", "int64", (2,), 0, 9))


def payload(x: object = (0.0, 1.0, -1.0), n: object = (0, 9), dtype: str = "float32") -> Tensors:
    return Tensors.of([("x", np.array([x], dtype=dtype)), ("n", np.array(n, dtype="int64"))])


def codes(tensors: Tensors | Document) -> list[str]:
    reasons = check_input(SPECS, tensors)
    assert all(reason.fault is Fault.BUYER and reason.got and reason.expected for reason in reasons)
    return [reason.code.removeprefix("input.domain.") for reason in reasons]


def test_what_lies_in_the_domain_has_no_reasons() -> None:
    assert codes(payload()) == []


def test_each_mismatch_has_its_code() -> None:
    assert codes(Document("text/plain", b"x")) == ["kind"]
    assert codes(Tensors.of([("x", np.zeros((1, 3), "float32"))])) == ["names"]
    assert codes(Tensors((payload().items[1], payload().items[0]))) == ["names"]
    assert codes(payload(dtype="float64")) == ["dtype"]
    assert codes(payload(dtype="float16")) == ["dtype"]
    assert codes(payload(x=(0.0, 0.5))) == ["shape"]
    assert codes(payload(x=(0.0, math.nan, 0.0))) == ["not_finite"]
    assert codes(payload(x=(0.0, 0.0, math.inf))) == ["not_finite"]
    assert codes(payload(x=(0.0, 0.0, 1.0000001))) == ["range"]
    assert codes(payload(n=(0, 10))) == ["range"]


def test_all_mismatches_are_said() -> None:
    assert codes(payload(x=(math.nan, 5.0), n=(-1, 2), dtype="float64")) == [
        "dtype",
        "shape",
        "not_finite",
        "range",
        "range",
    ]


@given(st.lists(st.floats(width=32), min_size=3, max_size=3))
def test_range_is_exactly_the_interval(values: list[float]) -> None:
    fine = all(-1 <= value <= 1 for value in values)
    assert (codes(payload(x=values)) == []) is fine


@pytest.mark.parametrize(
    "spec",
    [
        lambda: InputSpec("x", "float32", (1,), 1.0, -1.0),
        lambda: InputSpec("x", "float32", (1,), math.nan, 1.0),
        lambda: InputSpec("x", "float32", (1,), 0.0, math.inf),
        lambda: InputSpec("", "float32", (1,), 0.0, 1.0),
        lambda: InputSpec("x", "complex64", (1,), 0.0, 1.0),
        lambda: InputSpec("x", "float32", (0,), 0.0, 1.0),
    ],
)
def test_a_specification_that_makes_no_sense_cannot_be_built(spec: object) -> None:
    assert callable(spec)
    with pytest.raises(Misuse):
        spec()
