"""Running a model for its matrix products, and checking them: tasks for a `Runner`, and who asks for them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proofhold.canonical import Digest
from proofhold.payload import MAX_PAYLOAD_BYTES, Tensor
from proofhold.replay.compare import residual
from proofhold.replay.packed import pack_tensors, unpack_tensors
from proofhold.replay.products import Product, discrepancy, find_products
from proofhold.replay.rerun import MAX_RUN_BYTES, Rerunner, encode_request, open_session, read_model

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from proofhold.replay.surgery import Port

MODELS_KEPT = 4
LEAST_ROWS = 16
"""A product of fewer rows is run again with the rest: a projection reads the same matrix, for as much."""
CLAIMED = "claimed output "


class ProductRunner(Rerunner):
    """Runs the model of one catalogue entry for its products, and checks those that somebody claims."""

    def products(self) -> list[list[Any]]:
        """List name, dtype and shape of every product's result, in order; raises as `segment` does."""
        found: list[list[Any]] = json.loads(self.run_task(list_products, encode_request(self._asked()), ()))
        return found

    def results(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the model for the results of all its products; raises as `segment` does."""
        return unpack_tensors(
            self.run_task(run_products, encode_request(self._asked()), inputs), max_bytes=MAX_RUN_BYTES
        )

    def check(
        self, seed: Digest, inputs: Sequence[Tensor], results: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> Mapping[str, float]:
        """Check every product by random projection, and the outputs of the rest; raises as `segment` does.

        Gives the discrepancy of each product and the residual of each output, by name.
        """
        # An output may be a product's own result, so the claimed ones travel under names of their own.
        claimed = [Tensor(CLAIMED + t.name, t.dtype, t.shape, t.data) for t in outputs]
        request = self._asked() | {"seed": seed}
        given = json.loads(
            self.run_task(check_products, encode_request(request), [*inputs, *results, *claimed])
        )
        return {name: math.inf if value is None else float(value) for name, value in given.items()}

    def _asked(self) -> dict[str, Any]:
        outputs = [spec.name for spec in self.lock.outputs]
        return self.request | {"outputs": outputs, "norms": self.lock.norms}


@dataclass(frozen=True, slots=True)
class _Model:
    """What a worker keeps of a model: its products and their forms, the rest's session, constant matrices."""

    products: list[Product]
    forms: list[list[Any]]
    rest: onnxruntime.InferenceSession
    whole: onnxruntime.InferenceSession
    constants: Mapping[str, Any]


_MODELS: dict[Any, _Model] = {}


def list_products(request: bytes, source: bytes, tensors: bytes) -> bytes:
    """List the products' results; the task behind `ProductRunner.products`."""
    del tensors
    return json.dumps(_prepared(json.loads(request), source).forms).encode()


def run_products(request: bytes, source: bytes, tensors: bytes) -> bytes:
    """Run a model for its products' results; the task behind `ProductRunner.results`."""
    known = _prepared(json.loads(request), source)
    feed = {t.name: t.numpy() for t in unpack_tensors(tensors, max_bytes=MAX_RUN_BYTES)}
    names = [name for name, _, _ in known.forms]
    values = known.whole.run(names, feed) if names else []
    return pack_tensors([Tensor.of(name, value) for name, value in zip(names, values, strict=True)])


def check_products(request: bytes, source: bytes, tensors: bytes) -> bytes:
    """Run the rest on claimed results and compare all of it; the task behind `ProductRunner.check`.

    Gives JSON: a number for each product and each output, null where it is infinite.
    """
    asked = json.loads(request)
    known = _prepared(asked, source)
    given = {t.name: t.numpy() for t in unpack_tensors(tensors, max_bytes=MAX_RUN_BYTES)}
    feed = {port.name: given[port.name] for port in known.rest.get_inputs()}
    names = [port.name for port in known.rest.get_outputs()]
    rest = dict(zip(names, known.rest.run(names, feed), strict=True))
    values = {**known.constants, **given, **rest}
    told = {product.output: discrepancy(product, values, asked["seed"]) for product in known.products}
    for name in asked["outputs"]:
        told[f"output {name}"] = residual(given[CLAIMED + name], values[name], asked["norms"].get(name, 0.0))
    return json.dumps({n: value if math.isfinite(value) else None for n, value in told.items()}).encode()


def _prepared(asked: Mapping[str, Any], source: bytes) -> _Model:
    key = (asked["model"], json.dumps(asked["ports"]))
    if key not in _MODELS:
        while len(_MODELS) >= MODELS_KEPT:
            del _MODELS[next(iter(_MODELS))]
        _MODELS[key] = _prepare(read_model(asked, source), asked["ports"], asked["outputs"])
    return _MODELS[key]


def _prepare(data: bytes, forms: Mapping[str, Any], outputs: Sequence[str]) -> _Model:
    import onnx

    from proofhold.replay.surgery import Port, expose, model_inputs, parse

    model = parse(data)
    inputs = [Port(name, forms[name][0], tuple(forms[name][1])) for name in model_inputs(model.graph)]
    found = {product.output: product for product in find_products(model)}
    ports = [port for port in _measured(model, inputs, list(found)) if _is_worth_it(port)]
    products = [found[port.name] for port in ports]
    names = {port.name for port in ports}
    rest = parse(expose(model, inputs, ()))
    kept = [node for node in rest.graph.node if not set(node.output) & names]
    del rest.graph.node[:], rest.graph.output[:]
    rest.graph.node.extend(kept)
    rest.graph.input.extend(port.value_info() for port in ports)
    constants = _constants(model)
    operands = [name for p in products for name in (p.left, p.right, p.bias) if name]
    given = {port.name for port in (*inputs, *ports)} | set(constants)
    wanted = [name for name in dict.fromkeys([*operands, *outputs]) if name not in given]
    rest.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    more = [port for port in ports if port.name not in outputs]
    return _Model(
        products=products,
        forms=[[port.name, port.dtype, list(port.shape)] for port in ports],
        rest=open_session(rest.SerializeToString()),
        whole=open_session(expose(model, inputs, more)),
        constants={name: constants[name] for name in set(operands) & set(constants)},
    )


def _measured(model: onnx.ModelProto, inputs: Sequence[Port], names: Sequence[str]) -> list[Port]:
    """Run a model once, on zeros, to know the forms of some tensors: they follow from the inputs' shapes."""
    import numpy as np
    import onnx

    from proofhold.replay.surgery import Port, expose, parse

    exposed = parse(expose(model, inputs, ()))
    own = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
    session = open_session(exposed.SerializeToString())
    values = session.run(list(names), {p.name: np.zeros(p.shape, p.dtype) for p in inputs}) if names else []
    return [Port(n, v.dtype.name, tuple(v.shape)) for n, v in zip(names, values, strict=True)]


def _is_worth_it(port: Port) -> bool:
    """Tell whether a product is cheaper to check than to run again, and fits into a payload."""
    rows = math.prod(port.shape[:-1])
    fits = 4 * math.prod(port.shape) <= MAX_PAYLOAD_BYTES
    return port.dtype == "float32" and len(port.shape) >= 2 and rows >= LEAST_ROWS and fits


def _constants(model: onnx.ModelProto) -> dict[str, Any]:
    from onnx import numpy_helper

    graph = model.graph
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found
