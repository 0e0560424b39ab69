"""Running an ONNX model in onnxruntime: what a provider does, and what a verifier does again.

One thread and one session per model in a process: a re-execution must not depend on the machine's size.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from proofhold.payload import Tensor, Tensors, decode_payload, encode_payload

if TYPE_CHECKING:
    import onnxruntime

SESSIONS_KEPT = 8


def run_model(model: bytes, payload: bytes) -> bytes:
    """Run a model on encoded tensors and give the encoded outputs, in the model's order.

    A task for a `Runner`: `model` is an ONNX file whose digest was checked, `payload` comes from anyone and
    was checked against the model's input domain.
    """
    inputs = decode_payload(payload)
    if not isinstance(inputs, Tensors):
        raise TypeError("a model takes tensors")
    session = open_session(model)
    outputs = session.run(None, {tensor.name: tensor.numpy() for tensor in inputs.items})
    names = [port.name for port in session.get_outputs()]
    return encode_payload(Tensors(tuple(Tensor.of(n, a) for n, a in zip(names, outputs, strict=True))))


@functools.lru_cache(maxsize=SESSIONS_KEPT)
def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a model for running it in this process; the same bytes give the same session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
