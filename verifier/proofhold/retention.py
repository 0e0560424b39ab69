"""Evidence kept in a folder by its digest, as long as somebody may have to prove something by it.

A file is named by the SHA-256 of its bytes, so that whoever reads it can tell that it is the one. The
escrow's database says which capture keeps which file; one that no capture keeps is removed by `prune`.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from proofhold.answers import encode_answers
from proofhold.canonical import Digest, file_digest
from proofhold.core import Answer
from proofhold.errors import Malformed, Misuse
from proofhold.escrow.escrow import Escrow
from proofhold.escrow.evidences import EvidenceBook, Piece
from proofhold.escrow.refusals import Refused
from proofhold.exchange import Bundle

FOLDER_NAME = "evidence"
FOLDER_MODE = 0o700
BUNDLE, ANSWERS = "bundle", "answers"
HALF_WRITTEN_S = 3_600
"""How old a file is that was never finished before it is taken for a dead process's."""
ATTEMPTS = 8
"""How often a file is written again that somebody removed at the same time."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning removed, or would: pieces by capture, files, and the bytes in them."""

    pieces: tuple[Piece, ...]
    files: int
    freed: int


class Wanted(NamedTuple):
    """A piece of evidence that is to be kept for a capture."""

    hold: Digest
    seq: int
    kind: str
    data: bytes


def recheckable(hold: Digest, seq: int, bundle: bytes, answers: bytes | None) -> tuple[Wanted, ...]:
    """Say what is to be kept so that a receipt can be recomputed (P13): the bundle, and answers if any."""
    pieces = ((BUNDLE, bundle), (ANSWERS, answers))
    return tuple(Wanted(hold, seq, kind, data) for kind, data in pieces if data is not None)


class EvidenceFolder:
    """The evidence of one escrow, in a folder that nobody but its owner may look into."""

    def __init__(self, folder: Path, escrow: Escrow) -> None:
        """Take a folder, which is made when the first piece is kept."""
        self._folder, self._book = folder, EvidenceBook(escrow.store)

    def keep(self, hold: Digest, seq: int, kind: str, data: bytes, *, now: int) -> Piece:
        """Keep a piece of evidence for a capture. Once is as good as twice.

        Raises:
            Misuse: the folder cannot be written to.
            Refused: the capture is not known here, or keeps too many pieces.

        """
        [kept] = self.keep_many([Wanted(hold, seq, kind, data)], now=now)
        if isinstance(kept, Refused):
            raise kept
        return kept

    def keep_many(self, wanted: Sequence[Wanted], *, now: int) -> tuple[Piece | Refused, ...]:
        """Keep many pieces, written down in one transaction; where one cannot be kept, give why.

        Raises:
            Misuse: the folder cannot be written to.

        """
        given = {file_digest(piece.data): piece.data for piece in wanted}
        pieces = [Piece(w.hold, w.seq, file_digest(w.data), w.kind, len(w.data), now) for w in wanted]
        done: dict[Piece, Piece | Refused] = {}
        for _ in range(ATTEMPTS):
            left = [piece for piece in dict.fromkeys(pieces) if piece not in done]
            for digest in {piece.digest for piece in left}:
                if not self._path(digest).exists():
                    self._write(self._path(digest), given[digest])
            outcomes = self._book.add(left, lambda digest: self._path(digest).exists()) if left else ()
            for piece, outcome in zip(left, outcomes, strict=True):
                if outcome is not False:
                    done[piece] = piece if outcome is True else outcome
            if len(done) == len(set(pieces)):
                return tuple(done[piece] for piece in pieces)
        raise Misuse(f"evidence does not stay in {self._folder}: is something else removing it?")

    def keep_bundle(
        self, hold: Digest, seq: int, bundle: Bundle, answers: Sequence[Answer] = (), *, now: int
    ) -> tuple[Piece, ...]:
        """Keep what a receipt is recomputed from (P13): the bundle, and the answers if there were any."""
        encoded = encode_answers(answers) if answers else None
        return tuple(self.keep(*piece, now=now) for piece in recheckable(hold, seq, bundle.encode(), encoded))

    def pieces(self, hold: Digest) -> tuple[Piece, ...]:
        """Give what is kept for a hold, oldest first."""
        return self._book.pieces(hold)

    def read(self, digest: Digest) -> bytes:
        """Give a piece's bytes.

        Raises:
            Misuse: there is no such file.
            Malformed: ``evidence.altered``, its bytes are not those that it is named by.

        """
        try:
            data = self._path(digest).read_bytes()
        except (OSError, ValueError) as error:
            raise Misuse(f"no evidence {digest[:80]} in {self._folder}") from error
        if file_digest(data) != digest:
            raise Malformed("evidence.altered", f"the file of {digest} was altered")
        return data

    def prune(self, *, now: int, dry_run: bool = False) -> Pruned:
        """Remove what nobody needs any more, files that no capture keeps, and what was left half-written.

        Args:
            now: unix seconds.
            dry_run: only say what would be removed.

        """
        due = self._book.due(now=now)
        gone = Counter(piece.digest for piece in due)
        if not dry_run:
            for piece in due:
                self._book.prune(piece, now=now)
        files = freed = 0
        for path in self._files():
            digest, size = path.parent.name + path.name, path.stat().st_size
            if dry_run:
                removed = self._book.keepers(digest) == gone[digest]
            else:
                removed = self._book.unless_kept(digest, partial(path.unlink, missing_ok=True))
            if removed:
                files, freed = files + 1, freed + size
        for path in self._half_written(now):
            files, freed = files + 1, freed + path.stat().st_size
            if not dry_run:
                path.unlink(missing_ok=True)
        return Pruned(due, files, freed)

    def _files(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from sorted(
                path for path in self._folder.glob("[0-9a-f][0-9a-f]/*") if len(path.name) == 62
            )

    def _half_written(self, now: int) -> Iterator[Path]:
        """Give the files that somebody was writing when it died: nobody takes that long over one."""
        if self._folder.is_dir():
            for path in sorted(self._folder.glob("[0-9a-f][0-9a-f]/.*")):
                if path.stat().st_mtime < now - HALF_WRITTEN_S:
                    yield path

    def _path(self, digest: Digest) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Misuse(f"no digest: {digest[:80]!r}")
        return self._folder / digest[:2] / digest[2:]

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file whole or not at all, for its owner only."""
        try:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(path)
            _flush_names(path.parent)
        except OSError as error:
            raise Misuse(f"cannot keep evidence in {self._folder}: {error.strerror}") from error


def _flush_names(folder: Path) -> None:
    """Make the names in a folder durable: what the books say is kept must survive the machine."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
