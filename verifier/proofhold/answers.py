"""The answers file: what somebody hands in for the needs of an inconclusive verdict.

``proofhold verify --answers`` reads it, and escrows write it when they reveal a sampling secret.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from proofhold import canonical
from proofhold.core import Answer, NeedKind
from proofhold.records import Record

MAX_ANSWERS = 64
MAX_ANSWER_BYTES = 16 * 2**20
MAX_FILE_BYTES = 64 * 2**20


def encode_answers(answers: Sequence[Answer]) -> bytes:
    """Write an answers file: canonical JSON, version 1 (docs/formats/bundle.md)."""
    items = [{"body": base64.b64encode(a.body).decode(), "kind": a.kind} for a in answers]
    return canonical.encode({"answers": items, "version": 1})


def decode_answers(data: bytes) -> tuple[Answer, ...]:
    """Read an answers file.

    Raises:
        Malformed: not the canonical encoding of a version 1 answers file.

    """
    record = Record(canonical.decode(data, max_bytes=MAX_FILE_BYTES, what="answers"), what="answers")
    record.version(1)
    answers = tuple(_read_answer(r) for r in record.records("answers", max_items=MAX_ANSWERS))
    record.close()
    return answers


def _read_answer(record: Record) -> Answer:
    kind = record.choice("kind", NeedKind)
    answer = Answer(kind, record.base64("body", max_bytes=MAX_ANSWER_BYTES))
    record.close()
    return answer
