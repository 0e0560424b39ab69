"""Opening a claim that was drawn: what was asked for is made again, since the same machine gives the same."""

from __future__ import annotations

from proofhold.catalogue import Entry
from proofhold.contention import ProductOpening
from proofhold.core import Answer, NeedKind
from proofhold.errors import Misuse
from proofhold.exchange import Exchange
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Tensors
from proofhold.replay.opening import Opening
from proofhold.replay.products import pieces_of, read_pieces
from proofhold.replay.producttasks import ProductRunner
from proofhold.replay.rerun import Rerunner
from proofhold.replay.segments import held_by_verifier, sent_with
from proofhold.runner import InlineRunner, Runner


def open_products(
    exchange: Exchange, entry: Entry, key: SigningKey, *, runner: Runner | None = None
) -> tuple[Answer, ...]:
    """Run the model once more for the results of all its matrix products, and sign for them.

    Args:
        exchange: ours: the job, its input, the claim and its output.
        entry: the catalogue's entry of the job's model.
        key: the provider's.
        runner: where the model runs; by default in this process.

    Returns:
        Answers to the need for an opening of all products, all of which belong together.

    Raises:
        Misuse: the model takes no tensors, or its products do not fit into the answers of one verdict.
        RunnerError: the run gave no result.

    """
    if not isinstance(exchange.input, Tensors):
        raise Misuse("only a run on tensors has products")
    results = ProductRunner(entry, runner or InlineRunner()).results(exchange.input.items)
    pieces = pieces_of(results)
    found = read_pieces(pieces)
    if found is None:
        raise Misuse("the pieces of this opening do not fit together")
    claim = exchange.claim
    document = ProductOpening(
        job=exchange.job.digest, seq=claim.document.seq, claim=claim.digest, products=found[0]
    )
    bodies = [Signed.new(document, key).encode(), *pieces]
    return tuple(Answer(NeedKind.OPENING, body) for body in bodies)


def open_segment(exchange: Exchange, entry: Entry, segment: int, *, runner: Runner | None = None) -> Opening:
    """Run the model once more on a claim's input, and open one segment of its trace.

    Nothing is kept between the claim and this: the same machine gives the same bytes.

    Args:
        exchange: ours: the job, its input, the claim and its output.
        entry: the catalogue's entry of the job's model.
        segment: which one the verifier asked for.
        runner: where the model runs; by default in this process.

    Raises:
        Misuse: the claim has no trace, the model no such segment, or the run gives another trace here.
        RunnerError: the run gave no result.

    """
    claim, lock = exchange.claim.document, entry.replay
    if claim.trace_root is None or lock is None or not isinstance(exchange.input, Tensors):
        raise Misuse("this claim commits to no trace: there is nothing to open")
    if not 0 <= segment < len(lock.segments):
        raise Misuse(f"segment {segment}, expected 0 to {len(lock.segments) - 1}")
    sent = sent_with(lock, segment)
    traced = Rerunner(entry, runner or InlineRunner()).traced(
        bytes.fromhex(exchange.job.document.nonce),
        exchange.input.items,
        wanted=[lock.leaves[index].name for index in sent],
    )
    if traced.trace.root != claim.trace_root:
        raise Misuse(
            f"running again gives the root {traced.trace.root}, the claim has {claim.trace_root}: "
            "open it where, and with what, the model ran"
        )
    return Opening.of(traced.trace, dict(zip(sent, traced.cuts, strict=True)), held_by_verifier(lock))
