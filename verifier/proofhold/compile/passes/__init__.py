"""The passes that an ONNX model goes through before it becomes a circuit, in order.

Three only look: they refuse what a circuit cannot hold, or what would make the digest of the file mean less
than the model. The others rewrite, and each is one module that knows one thing. Whatever they change is
compared with what there was before (`compile/comparison.py`), and the difference is in the lock.

These functions read bytes that anyone may have made, with native code that was never meant for that: call
them through `native.py`, in a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx

from proofhold.compile.derivation import TAIL, Change, Derivation, Request
from proofhold.compile.errors import CompileError
from proofhold.compile.passes.classical import rewrite_classical
from proofhold.compile.passes.constants import fold_constants
from proofhold.compile.passes.decomposed import decompose
from proofhold.compile.passes.fixed_axes import fix_axes
from proofhold.compile.passes.job_tag import add_job_tag
from proofhold.compile.passes.size import check_size
from proofhold.compile.passes.static_shapes import check_static_shapes, inputs_of, outputs_of
from proofhold.compile.passes.tail import join, leave_tail, tail_of
from proofhold.compile.passes.tensor_outputs import leave_tensor_outputs
from proofhold.compile.passes.well_formed import check_well_formed, parse_model
from proofhold.domain import OutputSpec, PostProcessing

Pass: TypeAlias = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Gives the model itself where it has nothing to do."""

FIXED_AXES = "fixed_axes"
REWRITING: tuple[tuple[str, Pass], ...] = (
    ("tensor_outputs", leave_tensor_outputs),
    ("classical", rewrite_classical),
    ("decomposed", decompose),
    ("constants", fold_constants),
)
LAST: tuple[tuple[str, Pass], ...] = (
    ("static_shapes", check_static_shapes),
    ("size", check_size),
    ("job_tag", add_job_tag),
)
NAMES = ("well_formed", FIXED_AXES, *(name for name, _ in REWRITING), TAIL, *(name for name, _ in LAST))


def derive(published: bytes, request: Request | None = None) -> Derivation:
    """Run all passes over a published model; the same bytes and request give the same bytes.

    Raises:
        Malformed: ``model.…``: the bytes are no valid ONNX model.
        CompileError: ``compile.…``: it is valid, and no circuit can be made of it.

    """
    told = request or Request()
    model = check_well_formed(parse_model(published))
    changes: list[Change] = []

    def note(name: str, before: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
        if after is not before:
            changes.append(Change(name, after.SerializeToString(deterministic=True)))
        return after

    fixed = model = note(FIXED_AXES, model, fix_axes(model, told.shapes))
    for name, apply in REWRITING:
        model = note(name, model, apply(model))
    rewritten = model
    moved = PostProcessing.NONE if told.keep_tail else tail_of(model, told.post_processing)
    if moved is not PostProcessing.NONE:
        model = leave_tail(model)
        changes.append(Change(TAIL, model.SerializeToString(deterministic=True), moved))
    untagged = model
    for name, apply in LAST:
        model = note(name, model, apply(model))
    return Derivation(
        tuple(changes),
        inputs_of(untagged),
        outputs_of(untagged),
        _tensor_outputs(fixed, rewritten),
        join(moved, told.post_processing) or PostProcessing.NONE,
    )


def _tensor_outputs(fixed: onnx.ModelProto, rewritten: onnx.ModelProto) -> tuple[OutputSpec, ...] | None:
    """Describe the published outputs: inference knows little of ai.onnx.ml, but more of what replaced it."""
    known = {value.name: value for value in rewritten.graph.output}
    model = onnx.ModelProto()
    model.CopyFrom(fixed)
    for value in model.graph.output:
        tensor = value.type.tensor_type
        found = known.get(value.name)
        if value.type.HasField("tensor_type") and found and not tensor.HasField("shape"):
            value.CopyFrom(found)
    try:
        return outputs_of(model)
    except CompileError:
        return None


__all__ = ["NAMES", "Pass", "derive", "parse_model"]
