"""Which pieces of evidence are kept for which capture, and for how long: digests only, no bytes.

The rule: as long as anybody may still have to prove something by it. That is while a capture is undecided,
disputed or not paid yet, while its bond is reserved or frozen, and after that until the challenge ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proofhold.canonical import Digest
from proofhold.escrow.books import Books
from proofhold.escrow.moves import Capture, load
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import FINAL, BondState
from proofhold.escrow.store import Store

MAX_PIECES = 64
"""How many pieces are kept a capture: who settles again with other bundles must not fill the disk."""

_PIECE = "SELECT hold, seq, digest, kind, size, kept_at FROM evidence WHERE pruned_at IS NULL"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of evidence that is kept for one capture."""

    hold: Digest
    seq: int
    digest: Digest
    """SHA-256 of its bytes."""
    kind: str
    size: int
    """Bytes."""
    kept_at: int
    """Unix seconds."""


class EvidenceBook:
    """The evidence of one escrow's captures, by digest."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, pieces: Sequence[Piece], is_there: Callable[[Digest], bool]) -> tuple[bool | Refused, ...]:
        """Write down, in one transaction, that pieces are kept whose bytes are there when it is written.

        Gives of each whether they were, or why it cannot be kept: ``escrow.unknown_hold``,
        ``escrow.unknown_capture``, ``evidence.too_many``.
        """

        def operation(tx: Any) -> tuple[bool | Refused, ...]:
            for digest in sorted({piece.digest for piece in pieces}):
                tx.lock_name(f"evidence:{digest}")  # against whoever removes the same bytes just now
            return tuple(_add(tx, piece, is_there) for piece in pieces)

        return self._store.write(operation)

    def pieces(self, hold: Digest) -> tuple[Piece, ...]:
        """Give what is kept for a hold, oldest first."""

        def operation(tx: Any) -> tuple[Piece, ...]:
            sql = f"{_PIECE} AND hold = ? ORDER BY kept_at, digest"
            return tuple(Piece(*row) for row in tx.execute(sql, (hold,)).fetchall())

        return self._store.read(operation)

    def due(self, *, now: int) -> tuple[Piece, ...]:
        """Give the pieces that nobody needs any more."""

        def operation(tx: Any) -> tuple[Piece, ...]:
            pieces = [Piece(*row) for row in tx.execute(f"{_PIECE} ORDER BY hold, seq, digest").fetchall()]
            ends: dict[tuple[Digest, int], int | None] = {}
            for piece in pieces:
                at = (piece.hold, piece.seq)
                if at not in ends:
                    ends[at] = kept_until(load(Books(tx, writing=False), *at))
            return tuple(p for p in pieces if (end := ends[p.hold, p.seq]) is not None and end <= now)

        return self._store.read(operation)

    def keepers(self, digest: Digest) -> int:
        """Say how many captures keep these bytes."""
        sql = "SELECT count(*) AS n FROM evidence WHERE digest = ? AND pruned_at IS NULL"
        return self._store.read(lambda tx: int(tx.execute(sql, (digest,)).fetchone()["n"]))

    def prune(self, piece: Piece, *, now: int) -> None:
        """Write down that a piece is not kept for its capture any more."""

        def operation(tx: Any) -> None:
            sql = "UPDATE evidence SET pruned_at = ? WHERE hold = ? AND seq = ? AND digest = ?"
            tx.execute(sql, (now, piece.hold, piece.seq, piece.digest))

        self._store.write(operation)

    def unless_kept(self, digest: Digest, remove: Callable[[], None]) -> bool:
        """Remove bytes if no capture keeps them, and tell whether they were; nobody adds them meanwhile."""

        def operation(tx: Any) -> bool:
            tx.lock_name(f"evidence:{digest}")
            sql = "SELECT 1 FROM evidence WHERE digest = ? AND pruned_at IS NULL"
            if tx.execute(sql, (digest,)).fetchone() is not None:
                return False
            remove()
            return True

        return self._store.write(operation)


def _add(tx: Any, piece: Piece, is_there: Callable[[Digest], bool]) -> bool | Refused:
    try:
        load(Books(tx, writing=False), piece.hold, piece.seq)
    except Refused as refusal:
        return refusal
    if not is_there(piece.digest):
        return False
    sql = "SELECT count(*) AS n FROM evidence WHERE hold = ? AND seq = ? AND digest <> ?"
    row = tx.execute(sql, (piece.hold, piece.seq, piece.digest)).fetchone()
    if row["n"] >= MAX_PIECES:
        return Refused("evidence.too_many", f"{row['n']} pieces are kept for this capture already")
    tx.execute(
        "INSERT INTO evidence (hold, seq, digest, kind, size, kept_at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (hold, seq, digest) DO UPDATE SET pruned_at = NULL",
        (piece.hold, piece.seq, piece.digest, piece.kind, piece.size, piece.kept_at),
    )
    return True


def kept_until(capture: Capture) -> int | None:
    """Say until when (unix seconds) a capture's evidence is kept; None while its end is not in sight."""
    if capture.state not in FINAL or capture.bond_state not in (BondState.FREE, BondState.SLASHED):
        return None
    return capture.changed_at + max(capture.job.dispute_s, capture.job.freeze_s)
