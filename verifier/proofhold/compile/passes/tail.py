"""The tail: a last Sigmoid, Softmax or ArgMax is left to whoever reads the output.

It takes a lookup table, or comparisons, to prove what anybody computes from the logits in a moment. So the
circuit ends before it, and the lock's ``post_processing`` says what is to be done.
"""

from __future__ import annotations

import onnx

from proofhold.compile.passes.fixed_axes import with_inferred_outputs
from proofhold.compile.passes.rewriting import attributes_of, shapes_of, without_unused
from proofhold.domain import PostProcessing

_BY_OPERATOR = {
    "ArgMax": PostProcessing.ARGMAX,
    "Sigmoid": PostProcessing.SIGMOID,
    "Softmax": PostProcessing.SOFTMAX,
}


def join(moved: PostProcessing, stated: PostProcessing) -> PostProcessing | None:
    """Give the one step that does both, `moved` first; None where there is no such step."""
    if moved is PostProcessing.NONE or stated is PostProcessing.NONE:
        return stated if moved is PostProcessing.NONE else moved
    if stated is PostProcessing.ARGMAX and moved in (PostProcessing.SIGMOID, PostProcessing.SOFTMAX):
        return PostProcessing.ARGMAX  # Both keep the order.
    return None


def tail_of(model: onnx.ModelProto, stated: PostProcessing) -> PostProcessing:
    """Say which last step can be left to the reader, who does what is `stated` after it."""
    node = _last(model)
    if node is None:
        return PostProcessing.NONE
    moved = _BY_OPERATOR[node.op_type]
    if node.op_type != "Sigmoid" and not _is_over_last_axis(node, model):
        return PostProcessing.NONE
    return moved if join(moved, stated) is not None else PostProcessing.NONE


def leave_tail(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy that ends before its last step. `tail_of` has to allow it."""
    node = _last(model)
    if node is None:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    output, source = node.output[0], node.input[0]
    graph.node.remove(node)
    inputs = {value.name for value in (*graph.input, *graph.initializer)}
    if source in inputs:
        graph.node.append(onnx.helper.make_node("Identity", [source], [output], name=output))
    else:
        for other in graph.node:
            for names in (other.input, other.output):
                for index, name in enumerate(names):
                    if name == source:
                        names[index] = output
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return with_inferred_outputs(without_unused(changed))


def _last(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Give the node of the only output, if it is one of those and nothing else reads it."""
    graph = model.graph
    if len(graph.output) != 1:
        return None
    name = graph.output[0].name
    nodes: list[onnx.NodeProto] = [node for node in graph.node if name in node.output]
    if len(nodes) != 1 or nodes[0].op_type not in _BY_OPERATOR or nodes[0].domain not in ("", "ai.onnx"):
        return None
    if any(name in node.input for node in graph.node) or nodes[0].output[0] != name:
        return None
    return nodes[0]


def _is_over_last_axis(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    shape = shapes_of(model).get(node.input[0])
    if not shape:
        return False
    values = attributes_of(node)
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if node.op_type == "ArgMax":
        axis = values.get("axis", 0)
        if values.get("select_last_index"):
            return False
    else:
        # Before version 13 the operator flattened all axes from this one on.
        axis = values.get("axis", -1 if version >= 13 else 1)
    return bool(axis % len(shape) == len(shape) - 1)
