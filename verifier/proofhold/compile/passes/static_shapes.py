"""Shape inference: every tensor that goes in or comes out has one fixed shape and a dtype a circuit takes."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from proofhold.compile.errors import CompileError
from proofhold.domain import DTYPES, MAX_ELEMENTS, MAX_NAME_CHARS, MAX_PORTS, MAX_RANK, OutputSpec
from proofhold.errors import Malformed, Misuse

_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
}
CIRCUIT_DTYPE = "float32"
INTEGERS = ("int32", "int64")
"""What an output may be as well: the circuit gives integers as they are."""


def check_static_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the model pass unchanged, if its shapes are consistent and those of its inputs and outputs fixed.

    Raises:
        Malformed: ``model.invalid``: shapes or types contradict each other.
        CompileError: ``compile.shape`` or ``compile.dtype``.

    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Malformed("model.invalid", f"shape inference refuses the model: {text}") from error
    for ports, allowed in (
        (inputs_of(model), (CIRCUIT_DTYPE,)),
        (outputs_of(inferred), (CIRCUIT_DTYPE, *INTEGERS)),
    ):
        for port in ports:
            if port.dtype not in allowed:
                expected = " or ".join(allowed)
                raise CompileError(
                    "compile.dtype", f"tensor {port.name!r}: {port.dtype}, expected {expected}"
                )
    return model


def inputs_of(model: onnx.ModelProto) -> tuple[OutputSpec, ...]:
    """Give name, dtype and shape of each input that is not an initializer.

    Raises:
        CompileError: ``compile.shape`` or ``compile.dtype``.

    """
    constants = {tensor.name for tensor in model.graph.initializer}
    return _ports([value for value in model.graph.input if value.name not in constants])


def outputs_of(model: onnx.ModelProto) -> tuple[OutputSpec, ...]:
    """Give name, dtype and shape of each output; raises as `inputs_of` does."""
    return _ports(list(model.graph.output))


def _ports(values: list[onnx.ValueInfoProto]) -> tuple[OutputSpec, ...]:
    if not 0 < len(values) <= MAX_PORTS:
        raise CompileError("compile.shape", f"{len(values)} inputs or outputs, expected 1 to {MAX_PORTS}")
    return tuple(_port(value) for value in values)


def _port(value: onnx.ValueInfoProto) -> OutputSpec:
    name = value.name[:MAX_NAME_CHARS]
    if not value.type.HasField("tensor_type"):
        raise CompileError("compile.dtype", f"{name!r} is no tensor")
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type)
    if dtype is None:
        raise CompileError("compile.dtype", f"tensor {name!r}: expected one of {', '.join(DTYPES)}")
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or len(dims) > MAX_RANK:
        raise CompileError("compile.shape", f"tensor {name!r}: expected a shape of rank at most {MAX_RANK}")
    if not all(dim.HasField("dim_value") and 0 < dim.dim_value <= MAX_ELEMENTS for dim in dims):
        raise CompileError(
            "compile.shape",
            f"tensor {name!r} has a shape with a free or absurd dimension: export it with fixed shapes",
        )
    try:
        return OutputSpec(value.name, dtype, tuple(dim.dim_value for dim in dims))
    except Misuse as error:
        raise CompileError("compile.shape", str(error)) from error
