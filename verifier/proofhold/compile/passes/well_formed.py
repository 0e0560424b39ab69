"""Parse and check: the file is one valid ONNX model, standard operators only, nothing outside the file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from proofhold.compile.errors import CompileError
from proofhold.errors import Malformed

MAX_MODEL_BYTES = 256 * 2**20
MAX_NODES = 100_000
MAX_DEPTH = 8
"""How deep graphs may be nested in attributes (If, Loop)."""

STANDARD_DOMAINS = ("", "ai.onnx")
KNOWN_DOMAINS = (*STANDARD_DOMAINS, "ai.onnx.ml")
"""The second is that of scikit-learn's exports: a later pass rewrites its operators, or names the first that
it does not know."""
MIN_OPSET, MAX_OPSET = 7, 26
MAX_ML_OPSET = 5


def parse_model(data: bytes) -> onnx.ModelProto:
    """Parse the bytes of an ONNX file.

    Raises:
        Malformed: ``model.too_large`` or ``model.not_onnx``.

    """
    if len(data) > MAX_MODEL_BYTES:
        raise Malformed("model.too_large", f"{len(data)} bytes, expected at most {MAX_MODEL_BYTES}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise Malformed("model.not_onnx", "the file is no ONNX model") from error
    # An empty file, and many a random one, is a valid protocol buffer of unknown fields.
    if not model.HasField("graph") or not model.opset_import:
        raise Malformed("model.not_onnx", "the file is no ONNX model: it has no graph or no operator set")
    return model


def check_well_formed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the model pass unchanged, if it is valid and self-contained.

    Raises:
        Malformed: ``model.invalid``: onnx's own checker refuses it.
        CompileError: ``compile.external_data``, ``compile.custom_operators``, ``compile.opset``,
            ``compile.not_finite``, ``compile.too_large``.

    """
    _check_operators(model)
    graphs = list(_graphs(model.graph))
    if sum(len(graph.node) for graph in graphs) > MAX_NODES:
        raise CompileError("compile.too_large", f"more than {MAX_NODES} nodes")
    for tensor in _tensors(graphs):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise CompileError(
                "compile.external_data",
                f"tensor {tensor.name[:80]!r} lies in another file, which the model's digest does not cover",
            )
    try:
        onnx.checker.check_model(model, full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise Malformed("model.invalid", f"onnx refuses the model: {_first_line(error)}") from error
    _check_weights(graphs)
    return model


def _check_weights(graphs: list[onnx.GraphProto]) -> None:
    for tensor in _tensors(graphs):
        if tensor.data_type == TensorProto.UNDEFINED:
            continue  # An attribute that holds no tensor.
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, LookupError) as error:
            raise Malformed("model.invalid", f"tensor {tensor.name[:80]!r}: {_first_line(error)}") from error
        # ezkl's quantiser turns NaN into 0 without a word.
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise CompileError(
                "compile.not_finite", f"tensor {tensor.name[:80]!r} holds NaN or infinite numbers"
            )


def _check_operators(model: onnx.ModelProto) -> None:
    if len(model.functions) or len(model.training_info):
        raise CompileError("compile.custom_operators", "the model defines functions or training steps")
    versions = {opset.domain: opset.version for opset in model.opset_import}
    for node in model.graph.node:
        if node.domain not in KNOWN_DOMAINS:
            raise CompileError(
                "compile.custom_operators",
                f"an operator of {node.domain[:80]!r}, expected standard ones only",
                node=node.name,
                operator=node.op_type,
            )
    for domain, version in versions.items():
        # An operator set of which no node is does not matter.
        low, high = (MIN_OPSET, MAX_OPSET) if domain in STANDARD_DOMAINS else (1, MAX_ML_OPSET)
        if domain in KNOWN_DOMAINS and not low <= version <= high:
            raise CompileError("compile.opset", f"operator set {version}, expected {low} to {high}")


def _graphs(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """Give the graph and all that its attributes hold."""
    if depth > MAX_DEPTH:
        raise CompileError("compile.too_large", f"graphs nested more than {MAX_DEPTH} deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _graphs(inner, depth + 1)


def _tensors(graphs: list[onnx.GraphProto]) -> Iterator[TensorProto]:
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
