"""The passes that an ONNX model goes through before it becomes a circuit, in order.

All but the last only look: they refuse what a circuit cannot hold, or what would make the digest of the file
mean less than the model. So the derived model is the published one plus the job tag, and nothing else.

These functions read bytes that anyone may have made, with native code that was never meant for that: call
them through `native.py`, in a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx

from proofhold.compile.passes.job_tag import add_job_tag
from proofhold.compile.passes.static_shapes import check_static_shapes
from proofhold.compile.passes.well_formed import check_well_formed, parse_model

Pass: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]

PASSES: tuple[Pass, ...] = (check_well_formed, check_static_shapes, add_job_tag)


def derive(published: bytes) -> bytes:
    """Give the derived model of a published one: deterministic bytes.

    Raises:
        Malformed: ``model.…``: the bytes are no valid ONNX model.
        CompileError: ``compile.…``: it is valid, and no circuit can be made of it.

    """
    model = parse_model(published)
    for apply in PASSES:
        model = apply(model)
    derived: bytes = model.SerializeToString(deterministic=True)
    return derived


__all__ = ["PASSES", "Pass", "derive", "parse_model"]
