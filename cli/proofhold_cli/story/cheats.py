"""How a dishonest provider of the demo saves on computing."""

from __future__ import annotations

INT8_STEPS = 127


def rounded_to_int8(model: bytes) -> bytes:
    """Give the same ONNX model with each float32 weight tensor rounded to 255 levels, as int8 has them."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        weights = numpy_helper.to_array(tensor)
        step = float(np.abs(weights).max()) / INT8_STEPS or 1.0
        rounded = (np.round(weights / step) * step).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    return bytes(proto.SerializeToString(deterministic=True))
