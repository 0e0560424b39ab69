"""The published model as a judge reads it: which operators lie between tensors that somebody committed to.

A *region* is everything that leads from committed tensors (and weights) to one tensor. Where every tensor is
committed to, it is one operator. Its enclosure in float64 says what an honest run may give.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proofhold.errors import Malformed
from proofhold.payload import Tensor
from proofhold.replay.bounds.enclosure import Enclosure, NoBound, Step
from proofhold.replay.bounds.movement import promoted
from proofhold.replay.bounds.rules import PRODUCTS, evaluate, step_of

if TYPE_CHECKING:
    import onnx

MAX_NODES = 20_000
MAX_PRODUCTS = 1
"""How many products one behind another an answer may leave in one piece: each more hides much more."""


@dataclass(frozen=True, slots=True)
class Region:
    """The operators that give `target` from committed tensors."""

    target: str
    nodes: tuple[int, ...]
    """Their places in the model, in its order."""
    entries: tuple[str, ...]
    """The committed tensors that they take, sorted."""
    products: int
    """The most products that lie one behind another."""

    @property
    def is_coarse(self) -> bool:
        """Whether it is more than an answer may leave in one piece."""
        return self.products > MAX_PRODUCTS


class Graph:
    """A parsed model. Its bytes must be those of an audited file: they are not treated as hostile."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index the nodes by what they give.

        Raises:
            Malformed: ``model.too_large`` or ``model.not_onnx``.

        """
        graph = model.graph
        if len(graph.node) > MAX_NODES:
            raise Malformed("model.too_large", f"{len(graph.node)} nodes, expected at most {MAX_NODES}")
        self.nodes = tuple(graph.node)
        self._opsets = {item.domain: item.version for item in model.opset_import}
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._promoted: dict[str, Enclosure] = {}
        self._producers = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.inputs = tuple(value.name for value in graph.input if value.name not in self._weights)
        self.outputs = tuple(value.name for value in graph.output)

    @classmethod
    def parse(cls, data: bytes) -> Graph:
        """Parse a model file.

        Raises:
            Malformed: ``model.not_onnx`` or ``model.too_large``.

        """
        from proofhold.replay.surgery import parse

        return cls(parse(data))

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Give the operator that computes a tensor, or None."""
        place = self._producers.get(name)
        return None if place is None else self.nodes[place]

    def between(self, ends: Collection[str], starts: Collection[str]) -> tuple[int, ...]:
        """Give the places of all operators that computing `ends` from `starts` takes."""
        places: set[int] = set()
        waiting = [name for name in ends if name not in starts]
        while waiting:
            place = self._producers.get(waiting.pop())
            if place is not None and place not in places:
                places.add(place)
                waiting += [name for name in self.nodes[place].input if name and name not in starts]
        return tuple(sorted(places))

    def is_fixed(self, name: str, starts: Collection[str]) -> bool:
        """Tell whether a tensor depends on none of `starts`: it follows from weights alone."""
        places = self.between([name], starts)
        return name not in starts and not any(
            read in starts for place in places for read in self.nodes[place].input
        )

    def region(self, target: str, committed: Collection[str]) -> Region:
        """Give what lies between committed tensors and one of them.

        Raises:
            NoBound: it takes a tensor that is neither committed to nor computed.

        """
        # A weight is what the model says, whatever somebody else commits to under its name.
        others = set(committed) - {target} - self._weights.keys()
        places = self.between([target], others)
        made = {name for place in places for name in self.nodes[place].output}
        reads = {name for place in places for name in self.nodes[place].input if name}
        entries = reads & others
        unknown = reads - others - made - self._weights.keys()
        if unknown or not places:
            raise NoBound(
                f"{target} takes {min(unknown) if unknown else 'nothing'}, which nobody committed to"
            )
        depth: dict[str, int] = {}
        for place in places:
            node = self.nodes[place]
            before = max((depth.get(name, 0) for name in node.input), default=0)
            here = before + (node.op_type in PRODUCTS)
            depth.update(dict.fromkeys(node.output, here))
        return Region(target, places, tuple(sorted(entries)), depth[target])

    def enclose(self, region: Region, tensors: Mapping[str, Tensor]) -> Enclosure:
        """Evaluate a region in float64 on committed tensors, with what an honest run may be off by.

        Raises:
            NoBound: nothing is known about one of its operators, or an input is not finite.

        """
        known = entries_of(region, tensors)
        for place in region.nodes:
            node = self.nodes[place]
            given = [None if not name else known.get(name) or self.weight(name) for name in node.input]
            known.update(zip(node.output, self.evaluate(node, given), strict=False))
        return known[region.target]

    def evaluate(self, node: onnx.NodeProto, given: Sequence[Enclosure | None]) -> list[Enclosure]:
        """Evaluate one operator of the model.

        Raises:
            NoBound: nothing is known about it.

        """
        return evaluate(node, given, self._opsets.get(node.domain, 1))

    def step(self, node: onnx.NodeProto, given: Sequence[Enclosure | None]) -> Step:
        """Read an operator's attributes, as a rule takes them."""
        return step_of(node, given, self._opsets.get(node.domain, 1))

    def weight(self, name: str) -> Enclosure:
        """Give a weight of the model, exactly."""
        from onnx import numpy_helper

        if name not in self._promoted:
            self._promoted[name] = Enclosure(promoted(numpy_helper.to_array(self._weights[name])))
        return self._promoted[name]


def entries_of(region: Region, tensors: Mapping[str, Tensor]) -> dict[str, Enclosure]:
    """Take the committed tensors that a region takes, as they are.

    Raises:
        NoBound: one of them is not finite, or of a type that the contract does not know.

    """
    import numpy as np

    known: dict[str, Enclosure] = {}
    for name in region.entries:
        value = promoted(tensors[name].numpy())
        if value.dtype == np.float64 and not np.isfinite(value).all():
            raise NoBound(f"{name} is not finite: its own operator is to be charged")
        known[name] = Enclosure(value)
    return known


__all__ = ["MAX_NODES", "MAX_PRODUCTS", "Graph", "Region", "entries_of"]
