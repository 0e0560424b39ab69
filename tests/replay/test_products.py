"""Valuable jobs: every matrix product is checked by random projection, and nothing false gets by."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from blake3 import blake3

from judging import NONCE, PROVIDER, SECRET, STRANGER, runner, said
from proofhold.compile.replay.pin import pin_replay
from proofhold.core import Answer, Check, Finding, Need, NeedKind, Refuted, Unclear
from proofhold.errors import Misuse
from proofhold.payload import Tensor, Tensors
from proofhold.provider import open_products
from proofhold.replay.products import (
    MAX_PIECE_BYTES,
    Product,
    discrepancy,
    pieces_of,
    randoms,
    read_pieces,
)
from proofhold.replay.producttasks import ProductRunner
from proofhold.sampling import projection_commitment, projection_seed
from replay_exchanges import Committed, cheap, commit, honest_run, job_on, nudged, signed_results
from replay_models import Graph, entry, specification

SECOND = bytes(range(100, 132))
SEED = "5a" * 32


@functools.cache
def valuable(number: int = 0) -> Committed:
    """An honest claim on a job that commits to a second secret."""
    known = entry("wide")
    inputs, run = honest_run(known, number)
    job = job_on(known, inputs, projection_commitment=projection_commitment(NONCE, SECOND))
    return commit(known, run, inputs, job=job)


@functools.cache
def honest_results(number: int = 0) -> tuple[Tensor, ...]:
    given = valuable(number).exchange.input
    assert isinstance(given, Tensors)
    return ProductRunner(entry("wide"), runner()).results(given.items)


SECOND_REVEAL = Answer(NeedKind.REVEAL, SECOND)


def judged(results: tuple[Tensor, ...], claim: Committed | None = None) -> Check:
    claim = claim or valuable()
    return claim.judged(*signed_results(claim.exchange, results), SECOND_REVEAL)


def test_first_the_products_are_asked_for_then_the_second_secret() -> None:
    claim = valuable()
    asked = claim.judged()
    assert isinstance(asked, Unclear)
    assert (said(asked), asked.needs) == (
        {("replay.opening_missing", "nobody")},
        (Need(NeedKind.OPENING, "products"),),
    )
    answers = open_products(claim.exchange, claim.entry, PROVIDER)
    asked = claim.judged(*answers)
    assert isinstance(asked, Unclear)
    assert said(asked) == {("replay.projection_missing", "nobody")}
    [need] = asked.needs
    assert (need.kind, len(need.subject)) == (NeedKind.REVEAL, 64)
    found = claim.judged(*answers, SECOND_REVEAL)
    assert isinstance(found, Finding)
    assert found.facts["products"] == "4"
    assert float(found.facts["relative_l2"]) < 2e-6


def test_another_second_secret_is_none() -> None:
    answers = open_products(valuable().exchange, valuable().entry, PROVIDER)
    for wrong in (SECRET, bytes(32), b"short"):
        asked = valuable().judged(*answers, Answer(NeedKind.REVEAL, wrong))
        assert isinstance(asked, Unclear)
        assert said(asked) == {("replay.projection_missing", "nobody")}


def test_one_falsified_element_of_any_product_is_caught() -> None:
    """At a hundredth of the root mean square, in any product and place: one segment would miss most."""
    random = np.random.default_rng(3)
    honest = honest_results()
    for at, _ in itertools.product(range(len(honest)), range(5)):
        values = honest[at].numpy().copy()
        place = random.integers(values.size)
        values.flat[place] += 0.01 * np.sqrt(np.mean(np.square(values)))
        forged = tuple(Tensor.of(t.name, values) if index == at else t for index, t in enumerate(honest))
        found = judged(forged)
        assert isinstance(found, Refuted), (at, place)
        assert said(found) == {("replay.mismatch", "provider")}
        assert all(reason.measured for reason in found.reasons)


def test_a_falsified_output_is_caught_though_every_product_is_true() -> None:
    claim = valuable()
    output = claim.exchange.output
    assert isinstance(output, Tensors)
    forged = commit(
        claim.entry,
        claim.run,
        _inputs(claim),
        output=Tensors((nudged(output.items[0], 0.1),)),
        job=claim.exchange.job.document,
    )
    found = judged(honest_results(), forged)
    assert isinstance(found, Refuted)
    assert [reason.message for reason in found.reasons] == [
        f"tensor output {output.items[0].name} is not what the model gives"
    ]


def test_cheaper_weights_are_caught() -> None:
    served = cheap("wide").run
    claim = commit(entry("wide"), served, _inputs(valuable()), job=valuable().exchange.job.document)
    names = [t.name for t in honest_results()]
    results = tuple(served.get(name, t) for name, t in zip(names, honest_results(), strict=True))
    assert isinstance(judged(results, claim), Refuted)


def test_results_that_the_provider_did_not_sign_for_are_dropped() -> None:
    claim, honest = valuable(), honest_results()
    forged = (nudged(honest[0], 1.0), *honest[1:])
    right = signed_results(claim.exchange, honest)
    strangers = signed_results(claim.exchange, forged, STRANGER)
    mixed = [right[0], *signed_results(claim.exchange, forged)[1:]]
    other = signed_results(valuable(1).exchange, honest)
    for answers in (strangers, mixed, other, right[1:], right[:1]):
        asked = claim.judged(*answers, SECOND_REVEAL)
        assert isinstance(asked, Unclear)
        assert said(asked) == {("replay.opening_mismatch", "nobody")}
        assert asked.needs == (Need(NeedKind.OPENING, "products"),)


@pytest.mark.parametrize("spoil", ["fewer", "order", "name", "shape", "nan"])
def test_signing_for_other_products_than_the_models_is_a_fact(spoil: str) -> None:
    honest = honest_results()
    first = honest[0]
    forged = {
        "fewer": honest[1:],
        "order": honest[::-1],
        "name": (Tensor("another", first.dtype, first.shape, first.data), *honest[1:]),
        "shape": (Tensor(first.name, first.dtype, first.shape[::-1], first.data), *honest[1:]),
        "nan": (Tensor.of(first.name, np.full(first.shape, np.nan, np.float32)), *honest[1:]),
    }[spoil]
    found = judged(forged)
    assert isinstance(found, Refuted)
    assert said(found) == {("replay.trace_form", "provider")}
    assert not any(reason.measured for reason in found.reasons)


def test_pieces_go_together_in_any_order_and_only_all_of_them() -> None:
    big = [Tensor.of(f"t{n}", np.full((1, MAX_PIECE_BYTES // 16), n, np.float32)) for n in range(5)]
    pieces = pieces_of(big)
    assert len(pieces) == 2
    found = read_pieces(pieces)
    assert found is not None
    assert found[1] == tuple(big)
    assert read_pieces([b"rubbish", *reversed(pieces)]) == found
    assert read_pieces(pieces[:1]) is None
    assert read_pieces([]) is None
    changed = pieces_of([nudged(big[0]), *big[1:]])
    other = read_pieces(changed)
    assert other is not None
    assert other[0] != found[0]
    with pytest.raises(Misuse):
        pieces_of([Tensor.of(f"t{n}", np.zeros((2, 2**20), np.float32)) for n in range(130)])


def test_the_random_numbers_are_those_of_the_page() -> None:
    key = blake3(bytes.fromhex(SEED), derive_key_context="proofhold/projection/v1").digest()
    data = blake3(b"y", key=key).digest(length=12)
    expected = [[byte - 127.5 for byte in data[4 * row : 4 * row + 4]] for row in range(3)]
    assert randoms(SEED, "y", 3).tolist() == expected
    assert not np.array_equal(randoms(SEED, "y", 3), randoms("00" * 32, "y", 3))
    assert projection_seed(SECOND, "0" * 64) != projection_seed(SECOND, "1" * 64)


@pytest.mark.parametrize("left_transposed", [False, True])
@pytest.mark.parametrize("right_transposed", [False, True])
@pytest.mark.parametrize("bias", [(), (7,), (5, 7), (1,)])
def test_every_form_of_gemm_is_compared_as_onnx_defines_it(
    left_transposed: bool, right_transposed: bool, bias: tuple[int, ...]
) -> None:
    random = np.random.default_rng(1)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((5, 6), (6, 7)))
    c = random.normal(size=bias).astype(np.float32)
    product = Product("y", "a", "b", "c", 0.5, 2.0, left_transposed, right_transposed)
    values = {
        "a": a.T if left_transposed else a,
        "b": b.T if right_transposed else b,
        "c": c,
        "y": (0.5 * a @ b + 2.0 * c).astype(np.float32),
    }
    assert discrepancy(product, values, SEED) < 1e-6
    values["y"][3, 2] += 0.01
    assert discrepancy(product, values, SEED) > 1e-4


def test_products_of_stacks_of_matrices_are_compared() -> None:
    random = np.random.default_rng(2)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((2, 3, 5, 6), (3, 6, 7)))
    values = {"a": a, "b": b, "y": np.matmul(a, b)}
    assert discrepancy(Product("y", "a", "b"), values, SEED) < 1e-6
    values["y"][1, 2, 4, 6] += 0.01
    assert discrepancy(Product("y", "a", "b"), values, SEED) > 1e-4


def test_a_result_of_zeros_is_no_way_out() -> None:
    random = np.random.default_rng(2)
    values = {name: random.normal(size=(16, 16)).astype(np.float32) for name in ("a", "b")}
    values["y"] = np.zeros((16, 16), np.float32)
    assert discrepancy(Product("y", "a", "b"), values, SEED) > 1
    values["a"] = np.zeros((16, 16), np.float32)
    assert discrepancy(Product("y", "a", "b"), values, SEED) == 0


def test_a_model_without_products_worth_it_is_run_again_whole() -> None:
    graph = Graph()
    data = graph.model(["x"], [graph.layer("x", "y")])  # four rows
    lock = pin_replay(data, specification(["x"]), name="small", runner=runner()).lock
    known = replace(entry("wide"), name="small", model=lock.model, replay=lock, source=data)
    inputs, run = honest_run(known)
    job = job_on(known, inputs, projection_commitment=projection_commitment(NONCE, SECOND))
    claim = commit(known, run, inputs, job=job)
    assert isinstance(judged((), claim), Finding)
    forged = commit(known, run, inputs, output=Tensors((nudged(run["y"], 0.1),)), job=job)
    assert isinstance(judged((), forged), Refuted)


def _inputs(claim: Committed) -> Tensors:
    assert isinstance(claim.exchange.input, Tensors)
    return claim.exchange.input
