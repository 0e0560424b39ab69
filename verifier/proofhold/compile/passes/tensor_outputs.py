"""Tensor outputs: a classifier's label and map of probabilities become the one tensor that both are of.

A circuit's outputs are tensors of floats. The exporters of scikit-learn, LightGBM and XGBoost give a label
and a ``ZipMap``: a list of dictionaries from class to probability. The dictionary's tensor takes its place,
under its name, with classes in the order in which the ZipMap lists them; the label, which is the position of
the largest and needs no proof of its own, is left out. A model all of whose outputs are labels keeps them.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from proofhold.compile.errors import CompileError
from proofhold.compile.passes.fixed_axes import with_inferred_outputs
from proofhold.compile.passes.rewriting import ML_DOMAIN, without_unused

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def leave_tensor_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy whose outputs are tensors of floats, or the model itself if they are already.

    Raises:
        CompileError: ``compile.output``: an output is no tensor, and no ZipMap either.

    """
    maps = {node.output[0] for node in model.graph.node if is_zip_map(node)}
    for value in model.graph.output:
        if value.name not in maps and not value.type.HasField("tensor_type"):
            raise CompileError("compile.output", f"output {value.name[:80]!r} is neither tensor nor ZipMap")
    floats = [value for value in model.graph.output if value.name in maps or _is_float(value)]
    if not floats or (len(floats) == len(model.graph.output) and not maps):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    fixed_names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in [node for node in graph.node if is_zip_map(node)]:
        source, name = node.input[0], node.output[0]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        if source in fixed_names:
            graph.node.insert(place, helper.make_node("Identity", [source], [name], name=name))
        else:
            _rename(graph, source, name)
    del graph.output[:]
    for value in floats:
        if value.name in maps:
            graph.output.append(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None))
        else:
            graph.output.append(value)
    return with_inferred_outputs(without_unused(changed))


def is_zip_map(node: onnx.NodeProto) -> bool:
    """Whether a node makes dictionaries of a tensor."""
    return (node.domain, node.op_type) == (ML_DOMAIN, "ZipMap")


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type in _FLOATS


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
