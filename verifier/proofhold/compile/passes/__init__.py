"""The passes that an ONNX model goes through before it becomes a circuit, in order.

Some only look: they refuse what a circuit cannot hold, or what would make the digest of the file mean less
than the model. The others rewrite, and each is one module that knows one thing. Whatever they change is
compared with what there was before (`compile/comparison.py`), and the difference is in the lock.

These functions read bytes that anyone may have made, with native code that was never meant for that: call
them through `native.py`, in a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx

from proofhold.compile.derivation import Derivation
from proofhold.compile.passes.job_tag import add_job_tag
from proofhold.compile.passes.static_shapes import check_static_shapes
from proofhold.compile.passes.well_formed import check_well_formed, parse_model

Pass: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]

PASSES: tuple[tuple[str, Pass], ...] = (
    ("well_formed", check_well_formed),
    ("static_shapes", check_static_shapes),
    ("job_tag", add_job_tag),
)


def derive(published: bytes) -> Derivation:
    """Run all passes over a published model; the same bytes give the same bytes.

    Raises:
        Malformed: ``model.…``: the bytes are no valid ONNX model.
        CompileError: ``compile.…``: it is valid, and no circuit can be made of it.

    """
    model = parse_model(published)
    changes: list[tuple[str, bytes]] = []
    for name, apply in PASSES:
        changed = apply(model)
        if changed is not model:
            changes.append((name, changed.SerializeToString(deterministic=True)))
        model = changed
    return Derivation(tuple(changes))


__all__ = ["PASSES", "Pass", "derive", "parse_model"]
