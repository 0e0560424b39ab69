"""Fixed axes: a circuit has one shape, so sizes that the file leaves free are taken from the specification.

``shape`` in model.toml says all sizes of an input. Without it a free first size becomes 1, since that is what
exporters leave free for the batch; any other free size is refused later, by `static_shapes`.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from proofhold.compile.errors import CompileError

FREE = -1


def fix_axes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Give a copy in which the inputs' free sizes are fixed, and what was inferred from them is forgotten.

    Raises:
        CompileError: ``compile.shape``: a shape in the specification contradicts the file's.

    """
    constants = {tensor.name for tensor in model.graph.initializer}
    sizes: dict[str, tuple[int, ...]] = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if value.name in constants or not value.type.HasField("tensor_type"):
            continue
        if not tensor.HasField("shape"):
            if value.name in shapes:
                sizes[value.name] = shapes[value.name]
            continue
        found = tuple(dim.dim_value if dim.HasField("dim_value") else FREE for dim in tensor.shape.dim)
        if FREE not in found and value.name not in shapes:
            continue
        wanted = shapes.get(value.name, (1, *found[1:]))
        if FREE in wanted:
            continue
        if len(wanted) != len(found) or any(
            size not in (FREE, want) for size, want in zip(found, wanted, strict=True)
        ):
            raise CompileError(
                "compile.shape", f"input {value.name[:80]!r} has shape {found}, model.toml says {wanted}"
            )
        if wanted != found:
            sizes[value.name] = wanted
    if not sizes:
        return model
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in sizes:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in sizes[value.name]:
                shape.dim.add().dim_value = size
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return with_inferred_outputs(fixed)


def with_inferred_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the shapes that inference finds for the outputs into the model, in place."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return model  # `static_shapes` looks again, and says what is wrong.
    found = {value.name: value for value in inferred.graph.output}
    for value in model.graph.output:
        if value.name in found:
            value.CopyFrom(found[value.name])
    return model
