"""The answers file: one encoding, bounded, of known kinds only."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from proofhold import canonical
from proofhold.answers import MAX_ANSWERS, decode_answers, encode_answers
from proofhold.core import Answer, NeedKind
from proofhold.errors import Malformed

ANSWERS = (Answer(NeedKind.REVEAL, bytes(range(256))), Answer(NeedKind.OUTPUT, b""))


def refused(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        decode_answers(data)
    return caught.value.code


def test_answers_come_back_as_they_were_written_in_their_order() -> None:
    assert decode_answers(encode_answers(ANSWERS)) == ANSWERS
    assert decode_answers(encode_answers(ANSWERS[::-1])) == ANSWERS[::-1]
    assert decode_answers(encode_answers(())) == ()


@pytest.mark.parametrize("kind", NeedKind)
def test_every_kind_of_need_can_be_answered(kind: NeedKind) -> None:
    assert decode_answers(encode_answers([Answer(kind, b"x")])) == (Answer(kind, b"x"),)


def test_the_file_is_canonical_json_of_version_1() -> None:
    expected = {"answers": [{"body": base64.b64encode(b"x").decode(), "kind": "reveal"}], "version": 1}
    assert encode_answers([Answer(NeedKind.REVEAL, b"x")]) == canonical.encode(expected)


def test_as_many_as_are_allowed_and_no_more() -> None:
    most = ANSWERS[:1] * MAX_ANSWERS
    assert decode_answers(encode_answers(most)) == most
    assert refused(encode_answers((*most, ANSWERS[0]))) == "answers.malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"kind": 1},
        {"kind": "REVEAL"},
        {"body": "ab"},
        {"body": None},
        {"body": "aGVsbG9="},
        {"more": 1},
    ],
)
def test_an_answer_of_another_form_is_refused(change: dict[str, Any]) -> None:
    answer = {"body": "aGVsbG8=", "kind": "reveal"}
    assert decode_answers(canonical.encode({"answers": [answer], "version": 1}))
    assert refused(canonical.encode({"answers": [answer | change], "version": 1})) == "answers.malformed"


@pytest.mark.parametrize("field", ["answers", "version"])
def test_no_field_may_be_missing(field: str) -> None:
    whole = {"answers": [], "version": 1}
    assert refused(canonical.encode({k: v for k, v in whole.items() if k != field})) == "answers.malformed"


def test_another_version_is_refused() -> None:
    assert refused(canonical.encode({"answers": [], "version": 2})) == "answers.version"


def test_a_field_more_is_refused() -> None:
    assert refused(canonical.encode({"answers": [], "more": 1, "version": 1})) == "answers.malformed"


def test_another_layout_is_refused() -> None:
    loose = json.dumps(json.loads(encode_answers(ANSWERS))).encode()
    assert refused(loose) == "answers.not_canonical"
