"""One segment of a committed run: which leaves its opening shows, whether one is it, and how far it is off.

Every opening binds the whole exchange: it leads the job's input and the claim's output, which the verifier
holds itself, to the root as well. So none fits a root of another input, or one that ends in another output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from proofhold.canonical import Digest
from proofhold.errors import Malformed
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor
from proofhold.replay.compare import is_finite
from proofhold.replay.opening import Opening
from proofhold.replay.rerun import Rerunner
from proofhold.replay.trace import TraceHasher


@dataclass(frozen=True, slots=True)
class Committed:
    """What a claim commits to: the root, its hasher, and the input and output that the verifier holds."""

    root: Digest
    hasher: TraceHasher
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A segment's tensors as the provider committed to them, by name; or what is wrong with their form."""

    tensors: Mapping[str, Tensor]
    objection: str = ""


def sent_with(lock: ReplayLock, segment: int) -> tuple[int, ...]:
    """Give the indices of the leaves whose tensors come with a segment's opening: the cuts around it."""
    first = len(lock.inputs)
    around = (segment - 1, segment)
    return tuple(first + cut for cut in around if 0 <= cut < len(lock.boundaries))


def held_by_verifier(lock: ReplayLock) -> tuple[int, ...]:
    """Give the indices of the leaves that every opening binds by paths alone: all inputs, all outputs."""
    inputs, cuts = len(lock.inputs), len(lock.boundaries)
    return (*range(inputs), *range(inputs + cuts, len(lock.leaves)))


def opened(lock: ReplayLock, segment: int, body: bytes, committed: Committed) -> Opened | None:
    """Read an opening of a segment; None where it is not one that fits the claim.

    One that fits is the provider's own word, since nobody else can make it: if its tensors then have another
    form than the lock's, that is a fact against the provider.
    """
    try:
        opening = Opening.decode(body)
    except Malformed:
        return None
    sent, held = sent_with(lock, segment), held_by_verifier(lock)
    by_index = {leaf.index: leaf for leaf in opening.leaves}
    ours = dict(zip(held, (*committed.inputs, *committed.outputs), strict=True))
    if opening.size != len(lock.leaves):
        # The root itself has another number of leaves, if any leaf of this opening leads to it.
        fits = opening.fits(committed.root, committed.hasher, ours)
        return Opened({}, f"{opening.size} leaves, expected {len(lock.leaves)}") if fits else None
    if set(by_index) != {*sent, *held} or any((by_index[i].tensor is None) is (i in sent) for i in by_index):
        return None
    if not opening.fits(committed.root, committed.hasher, ours):
        return None
    tensors = {t.name: t for t in (*committed.inputs, *committed.outputs)}
    for index in sent:
        tensor, leaf = by_index[index].tensor, lock.leaves[index]
        if tensor is None:
            return None
        got, expected = (tensor.name, tensor.dtype, tensor.shape), (leaf.name, leaf.dtype, leaf.shape)
        if got != expected:
            return Opened({}, f"leaf {index} is {got}, expected {expected}")
        if not is_finite(tensor):
            return Opened({}, f"leaf {index} holds NaN or infinity, expected finite numbers")
        tensors[tensor.name] = tensor
    return Opened(tensors)


def distances(rerunner: Rerunner, segment: int, tensors: Mapping[str, Tensor]) -> Mapping[str, float]:
    """Run a segment from its committed inputs; gives how far each committed output is from what came out.

    Raises:
        RunnerError: no result.
        Malformed: the worker sent something else than tensors.

    """
    pinned = rerunner.lock.segments[segment]
    given, claimed = ([tensors[name] for name in names] for names in (pinned.inputs, pinned.outputs))
    found = rerunner.residuals(segment, given, claimed)
    return {name: found.get(name, math.inf) for name in pinned.outputs}
