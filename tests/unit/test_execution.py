"""Running a model: the same bytes every time, in the model's order, from bytes to bytes."""

from __future__ import annotations

import numpy as np
import pytest

from judging import catalogue, entry, proved, runner, unproved
from proofhold.errors import Malformed
from proofhold.execution import SESSIONS_KEPT, open_session, run_model
from proofhold.payload import Document, Tensors, decode_payload, encode_payload
from proofhold.runner import TaskRaised

INPUT = encode_payload(proved().exchange.input)


def test_a_model_gives_the_outputs_that_its_lock_names() -> None:
    lock = entry().replay
    assert lock is not None
    output = decode_payload(run_model(entry().model_bytes(), INPUT))
    assert isinstance(output, Tensors)
    got = [(t.name, t.dtype, t.shape) for t in output.items]
    assert got == [(spec.name, spec.dtype, spec.shape) for spec in lock.outputs]


def test_a_run_here_and_in_a_worker_gives_the_same_bytes() -> None:
    here = [run_model(entry().model_bytes(), INPUT) for _ in range(3)]
    assert {*here, runner().run(run_model, entry().model_bytes(), INPUT)} == {here[0]}


def test_the_proved_output_is_near_to_the_runs_and_not_the_same() -> None:
    run, under_proof = unproved().exchange.output, proved().exchange.output
    assert isinstance(run, Tensors)
    assert isinstance(under_proof, Tensors)
    assert run != under_proof
    assert np.allclose(run.items[0].numpy(), under_proof.items[0].numpy(), atol=1e-3)


def test_a_session_is_kept_for_each_of_a_few_models() -> None:
    open_session.cache_clear()
    for _ in range(2):
        run_model(entry().model_bytes(), INPUT)
    open_session(catalogue().by_name("digits").model_bytes())
    info = open_session.cache_info()
    assert (info.hits, info.misses, info.maxsize) == (1, 2, SESSIONS_KEPT)


def test_a_model_takes_tensors() -> None:
    with pytest.raises(TypeError, match="tensors"):
        run_model(entry().model_bytes(), encode_payload(Document("text/plain", b"")))


def test_a_payload_that_does_not_parse_is_malformed() -> None:
    with pytest.raises(Malformed):
        run_model(entry().model_bytes(), b"nonsense")


@pytest.mark.parametrize("model", [b"", b"nonsense"])
def test_a_file_that_is_no_model_fails_in_the_worker(model: bytes) -> None:
    with pytest.raises(TaskRaised):
        runner().run(run_model, model, INPUT)
    assert runner().run(run_model, entry().model_bytes(), INPUT)
