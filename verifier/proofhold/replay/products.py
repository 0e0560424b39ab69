"""Freivalds' check of every matrix product of a run: what the provider shows, how a product is compared.

The provider shows the result of each MatMul and Gemm. The verifier runs the rest of the graph on those
results, so it knows what each product was of, and compares Y·r with A·(B·r) for random r: products with a few
columns in place of products of matrices. r is derived from a secret that is revealed once the digest of the
results is recorded (PROTOCOL P3), so nobody can fit a false result to it. docs/formats/trace.md states the
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from proofhold import canonical
from proofhold.canonical import Digest
from proofhold.errors import Malformed, Misuse
from proofhold.payload import Tensor
from proofhold.replay.compare import is_finite, residual
from proofhold.replay.packed import PackedReader, describe, pack

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

COLUMNS = 4
"""How many random vectors: a wrong row passes one by chance in 1 of 256 at most, and all in 2^-32."""
SCALE = math.sqrt((256**2 - 1) / 12)
"""The root mean square of a random element."""
MAX_PIECE_BYTES = 15 * 2**20
MAX_PIECES = 60
MAX_PRODUCTS = 512
OPERATORS = ("MatMul", "Gemm")
SUBJECT = "products"
"""What a need for an opening names, where not a segment but all products are asked for."""


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product of a graph, by the tensors around it, and how they enter it."""

    output: str
    left: str
    right: str
    bias: str = ""
    alpha: float = 1.0
    beta: float = 1.0
    left_transposed: bool = False
    right_transposed: bool = False


def pieces_of(tensors: Sequence[Tensor]) -> list[bytes]:
    """Write the results of all products, in order, as bodies of answers: each is one piece of the opening.

    Raises:
        Misuse: they do not fit into the answers of one verdict.

    """
    pieces: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if pieces[-1] and sum(len(t.data) for t in pieces[-1]) + len(tensor.data) > MAX_PIECE_BYTES:
            pieces.append([])
        pieces[-1].append(tensor)
    if len(pieces) > MAX_PIECES:
        raise Misuse(f"the products of this model fill {len(pieces)} answers, expected at most {MAX_PIECES}")
    return [
        pack(
            {"piece": n, "pieces": len(pieces), "tensors": [describe(t) for t in piece], "version": 1}, piece
        )
        for n, piece in enumerate(pieces)
    ]


def read_pieces(bodies: Sequence[bytes]) -> tuple[Digest, tuple[Tensor, ...]] | None:
    """Put the pieces of an opening together, whatever else lies among the answers; None where one is missing.

    Gives the digest that the second secret waits for, and the results in order.
    """
    found: dict[int, tuple[bytes, tuple[Tensor, ...]]] = {}
    expected = 0
    for body in bodies:
        try:
            reader = PackedReader(body, max_bytes=2 * MAX_PIECE_BYTES, what="opening")
            reader.record.version(1)
            piece = reader.record.integer("piece", high=MAX_PIECES - 1)
            pieces = reader.record.integer("pieces", low=1, high=MAX_PIECES)
            described = reader.record.items("tensors", max_items=MAX_PRODUCTS)
            tensors = tuple(reader.tensor(item) for item in described)
            reader.close()
        except (Malformed, Misuse):
            continue
        if piece not in found and (not found or pieces == expected):
            expected = pieces
            found[piece] = (body, tensors)
    if not found or set(found) != set(range(expected)):
        return None
    ordered = [found[piece] for piece in range(expected)]
    digests = b"".join(blake3(body).digest() for body, _ in ordered)
    digest = canonical.digest("proofhold/products/v1", digests)
    return digest, tuple(tensor for _, tensors in ordered for tensor in tensors)


def fits(products: Sequence[Tensor], described: Sequence[Sequence[Any]]) -> bool:
    """Tell whether results have the names, dtypes and shapes of the model's products, and are finite."""
    got = [[t.name, t.dtype, list(t.shape)] for t in products]
    return got == [list(row) for row in described] and all(is_finite(tensor) for tensor in products)


def find_products(model: onnx.ModelProto) -> list[Product]:
    """List the products of a graph that depend on its input, in order; inner graphs are run again whole."""
    from proofhold.replay.surgery import model_inputs, reads

    live, found = set(model_inputs(model.graph)), []
    for node in model.graph.node:
        if not reads(node) & live:
            continue
        live.update(node.output)
        if node.op_type in OPERATORS and node.domain in ("", "ai.onnx"):
            values = {a.name: a for a in node.attribute}
            found.append(
                Product(
                    output=node.output[0],
                    left=node.input[0],
                    right=node.input[1],
                    bias=node.input[2] if len(node.input) > 2 else "",
                    alpha=values["alpha"].f if "alpha" in values else 1.0,
                    beta=values["beta"].f if "beta" in values else 1.0,
                    left_transposed="transA" in values and bool(values["transA"].i),
                    right_transposed="transB" in values and bool(values["transB"].i),
                )
            )
    return found[:MAX_PRODUCTS]


def randoms(seed: Digest, name: str, rows: int) -> NDArray[Any]:
    """Give the random columns of one product: bytes of BLAKE3, seeded, as numbers from -127.5 to 127.5."""
    import numpy as np

    context = blake3(bytes.fromhex(seed), derive_key_context="proofhold/projection/v1").digest()
    data = blake3(name.encode(), key=context).digest(length=rows * COLUMNS)
    values = np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(127.5)
    return values.reshape(rows, COLUMNS)


def discrepancy(product: Product, values: Mapping[str, NDArray[Any]], seed: Digest) -> float:
    """Give the worst row of Y·r - A·(B·r), over what random elements of its size would give."""
    import numpy as np

    left, right, claimed = values[product.left], values[product.right], values[product.output]
    left = np.swapaxes(left, -1, -2) if product.left_transposed else left
    right = np.swapaxes(right, -1, -2) if product.right_transposed else right
    if left.ndim < 2 or right.ndim < 2:
        return residual(claimed, np.matmul(left, right))
    columns = randoms(seed, product.output, claimed.shape[-1])
    expected = product.alpha * np.matmul(left, np.matmul(right, columns))
    if product.bias:
        bias = np.broadcast_to(values[product.bias], claimed.shape)
        expected = expected + product.beta * np.matmul(bias, columns)
    off = np.abs(np.matmul(claimed, columns).astype(np.float64) - expected)
    squares = np.einsum("...i,...i->...", claimed, claimed).astype(np.float64)
    # A row that is next to nothing is measured by the others: its own rounding may be all there is of it.
    size = np.sqrt(np.maximum(squares, squares.mean()))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = off.max(axis=-1) / (SCALE * size)
    worst = float(np.where(off.max(axis=-1) == 0, 0.0, ratios).max(initial=0.0))
    return worst if math.isfinite(worst) else math.inf
