"""The last pass: an extra input that no node reads, whose values a proof nevertheless binds.

All inputs of a circuit are instances of its proofs, used or not. Sixteen bytes of the job's digest, one an
element, so make a proof good for one job and no other (PROTOCOL P7). As INT64 the input has scale 0: the
field element is the byte itself. It comes last, so the instances are inputs, tag, outputs.

With private inputs an unused tag would be no instance and bind nothing: such circuits are refused elsewhere
(`circuit.py`), and that is the only reason why this pass may leave the graph alone.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from proofhold.compile.errors import CompileError
from proofhold.locks import TAG_LENGTH, TAG_NAME


def add_job_tag(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy of the model with the input ``job_tag``, INT64 of shape [1, 16].

    Raises:
        CompileError: ``compile.tag_name``: the model has something of that name.

    """
    graph = model.graph
    taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    taken |= {name for node in graph.node for name in (*node.input, *node.output)}
    if TAG_NAME in taken:
        raise CompileError("compile.tag_name", f"the model has a tensor named {TAG_NAME} already")
    tagged = onnx.ModelProto()
    tagged.CopyFrom(model)
    tagged.graph.input.append(helper.make_tensor_value_info(TAG_NAME, TensorProto.INT64, [1, TAG_LENGTH]))
    return tagged
