"""One element of a region, without the rest: what bounds a judge's work, however large the tensors are.

From the charged element back through operators that work element by element to one product, of which one row,
one column or one window is enough. A region of another make is evaluated whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from proofhold.replay.bounds import products
from proofhold.replay.bounds.elementwise import ACCURACY
from proofhold.replay.bounds.enclosure import Array, Enclosure, Step
from proofhold.replay.bounds.windows import Windows

if TYPE_CHECKING:
    import onnx

    from proofhold.replay.regions import Graph, Region

Index: TypeAlias = tuple[int, ...]
Shape: TypeAlias = tuple[int, ...]

ELEMENTWISE = frozenset(ACCURACY) | frozenset(
    {"Abs", "Add", "Clip", "Div", "Identity", "LeakyRelu", "Max", "Mean", "Min", "Mul", "Neg", "PRelu"}
    | {"Reciprocal", "Relu", "Sqrt", "Sub", "Sum"}
)


@dataclass(frozen=True, slots=True)
class Pinpointed:
    """One element, as an enclosure of one number, and the shape of the tensor that it is of."""

    enclosure: Enclosure
    shape: Shape


class _Whole(Exception):
    """The region cannot be narrowed down to one element."""


def pinpoint(
    graph: Graph, region: Region, tensors: Mapping[str, Enclosure], element: int
) -> Pinpointed | None:
    """Evaluate one element of a region; None where only the whole can be evaluated.

    Args:
        graph: the published model.
        region: what lies behind the charged tensor.
        tensors: its entries.
        element: a place in the flattened tensor.

    Raises:
        NoBound: nothing is known about an operator.

    """
    narrowed = _Narrowed(graph, region, tensors)
    try:
        shape = narrowed.shape(region.target)
        if not element < math.prod(shape):
            return None
        index = tuple(int(i) for i in np.unravel_index(element, shape)) if shape else ()
        return Pinpointed(narrowed.at(region.target, index), shape)
    except _Whole:
        return None


class _Narrowed:
    def __init__(self, graph: Graph, region: Region, tensors: Mapping[str, Enclosure]) -> None:
        self._graph, self._tensors = graph, tensors
        made = {name for place in region.nodes for name in graph.nodes[place].output}
        self._inside = made - tensors.keys() | {region.target}
        self._shapes: dict[str, Shape] = {}

    def shape(self, name: str) -> Shape:
        """Give a tensor's shape without computing it."""
        if name not in self._inside:
            return self._known(name).value.shape
        if name not in self._shapes:
            self._shapes[name] = self._shape_of(self._node(name))
        return self._shapes[name]

    def at(self, name: str, index: Index) -> Enclosure:
        """Give one element as an enclosure of one number, with as many axes as the tensor has."""
        if name not in self._inside:
            return _cut(self._known(name), tuple(slice(i, i + 1) for i in index))
        node = self._node(name)
        if node.op_type in ELEMENTWISE:
            given = [self._beside(read, index) if read else None for read in node.input]
        elif node.op_type == "BatchNormalization":
            channel = (slice(index[1], index[1] + 1),)
            given = [self.at(node.input[0], index)]
            given += [_cut(self._known_only(read), channel) for read in node.input[1:]]
        elif node.op_type == "Conv":
            return self._window(node, index)
        else:
            given = self._of_product(node, index)
        return self._graph.evaluate(node, given)[0]

    def _beside(self, name: str, index: Index) -> Enclosure:
        """Give the element of an input that meets an element of the result: sizes of 1 are stretched."""
        shape = self.shape(name)
        own = index[len(index) - len(shape) :]
        return self.at(name, tuple(0 if size == 1 else i for size, i in zip(shape, own, strict=True)))

    def _shape_of(self, node: onnx.NodeProto) -> Shape:
        if node.op_type in ELEMENTWISE:
            return np.broadcast_shapes(*(self.shape(name) for name in node.input if name))
        if node.op_type == "BatchNormalization":
            return self.shape(node.input[0])
        a, b = self.shape(node.input[0]), self.shape(node.input[1]) if len(node.input) > 1 else ()
        step = self._graph.step(node, [])
        match node.op_type:
            case "MatMul" if len(a) >= 2 and len(b) >= 2:
                return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
            case "Gemm":
                rows = a[1] if step.attributes.get("transA", 0) else a[0]
                return (rows, b[0] if step.attributes.get("transB", 0) else b[1])
            case "Conv":
                return (a[0], b[0], *Windows.of(step, a[2:], b[2:]).out)
            case _:
                raise _Whole

    def _of_product(self, node: onnx.NodeProto, index: Index) -> list[Enclosure | None]:
        """Give of a product's inputs what one element takes, for the same operator."""
        a, b = (self._known_only(name) for name in node.input[:2])
        step = self._graph.step(node, [])
        match node.op_type:
            case "MatMul":
                row = (*_stretched(index[:-2], a.value.shape[:-2]), slice(index[-2], index[-2] + 1))
                last = slice(index[-1], index[-1] + 1)
                column = (*_stretched(index[:-2], b.value.shape[:-2]), slice(None), last)
                return [_cut(a, row), _cut(b, column)]
            case "Gemm":
                rows, columns = (slice(i, i + 1) for i in index)
                left = (slice(None), rows) if step.attributes.get("transA", 0) else (rows,)
                right = (columns,) if step.attributes.get("transB", 0) else (slice(None), columns)
                c = [self._beside(node.input[2], index)] if len(node.input) > 2 and node.input[2] else []
                return [_cut(a, left), _cut(b, right), *c]
            case _:
                raise _Whole

    def _window(self, node: onnx.NodeProto, index: Index) -> Enclosure:
        """Evaluate one place of one channel of a convolution: of its image, one window is enough."""
        x, w = (self._known_only(name) for name in node.input[:2])
        step = self._graph.step(node, [])
        windows = Windows.of(step, x.value.shape[2:], w.value.shape[2:])
        image, channel, place = index[0], index[1], index[2:]
        group = channel // (w.value.shape[0] // int(step.attributes.get("group", 1)))
        first = group * w.value.shape[1]
        part = _cut(x, (slice(image, image + 1), slice(first, first + w.value.shape[1])))
        window = windows.view(part.value, 0.0)[0]
        for where in place:  # channels stay in front, and each axis of places goes
            window = window[:, where]
        bias = [self._beside(node.input[2], (channel,))] if len(node.input) > 2 and node.input[2] else []
        given = [Enclosure(window[None]), _cut(w, (slice(channel, channel + 1),)), *bias]
        return products.conv(Step("Conv", {}, given, 1, step.opset))[0]

    def _node(self, name: str) -> onnx.NodeProto:
        node = self._graph.producer(name)
        if node is None or node.domain not in ("", "ai.onnx") or node.output[0] != name:
            raise _Whole
        return node

    def _known(self, name: str) -> Enclosure:
        return self._tensors[name] if name in self._tensors else self._graph.weight(name)

    def _known_only(self, name: str) -> Enclosure:
        if name in self._inside:
            raise _Whole
        return self._known(name)


def _stretched(index: Index, shape: Shape) -> tuple[slice, ...]:
    own = index[len(index) - len(shape) :]
    return tuple(slice(0, 1) if size == 1 else slice(i, i + 1) for size, i in zip(shape, own, strict=True))


def _cut(tensor: Enclosure, places: tuple[slice, ...]) -> Enclosure:
    value: Array = tensor.value[places]
    if tensor.is_exact:
        return Enclosure(value)
    return Enclosure(value, np.broadcast_to(tensor.error, tensor.value.shape)[places], tensor.terms)


__all__ = ["Pinpointed", "pinpoint"]
