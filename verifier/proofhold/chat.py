"""Chat requests and answers as documents: read strictly, so that what is hashed is what was said.

Both are canonical JSON (RFC 8785) of the shape that chat endpoints take and give, cut down to what a
signature can cover. What a service does not sign (`usage`, a second choice, a reason for having stopped) is
not part of an answer that is paid for: left in, it would look signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from proofhold import canonical
from proofhold.canonical import Json
from proofhold.errors import Malformed, Misuse
from proofhold.payload import Document
from proofhold.records import Record

MEDIA_TYPE: Final = "application/json"
MAX_CHAT_BYTES = 1024 * 1024
MAX_MESSAGES = 512
MAX_PARTS = 64
MAX_TOOL_CALLS = 64
MAX_NAME_CHARS = 256
MAX_TEXT_CHARS = MAX_CHAT_BYTES
MAX_STREAM_EVENTS = 65_536
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; `arguments` is the model's own text."""

    id: str
    name: str
    arguments: str

    def to_json(self) -> Json:
        """Give the call as endpoints write it."""
        function = {"arguments": self.arguments, "name": self.name}
        return {"function": function, "id": self.id, "type": "function"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said: text, or calls, never both. `finish_reason` is None where nobody signs it."""

    model: str
    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        if (self.content is None) != bool(self.tool_calls):
            raise Misuse("an answer is text or tool calls: got both or neither")

    def to_json(self) -> Json:
        """Give the answer in the shape of a chat completion, with nothing in it that is not stated here."""
        message: dict[str, Json] = {"role": "assistant"}
        choice: dict[str, Json] = {"index": 0, "message": message}
        if self.content is not None:
            message["content"] = self.content
        if self.tool_calls:
            message["tool_calls"] = [call.to_json() for call in self.tool_calls]
            choice["finish_reason"] = "tool_calls"
        if self.finish_reason is not None:
            choice["finish_reason"] = self.finish_reason
        return {"choices": [choice], "model": self.model}

    def document(self) -> Document:
        """Write the answer as a payload."""
        return Document(MEDIA_TYPE, canonical.encode(self.to_json()))


def request_document(data: bytes) -> Document:
    """Make a payload of a request as a person or a program wrote it: in the one encoding that will be sent.

    Raises:
        Misuse: it is no JSON object, says something twice, or is not to be sent as a request.

    """
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
        document = Document(MEDIA_TYPE, canonical.encode(value))
        read_json(document, what="request")
    except (Malformed, ValueError, RecursionError) as error:
        raise Misuse(f"this is no chat request: {error}") from error
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("an object has the same key twice")
    return dict(pairs)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def read_json(document: Document, *, what: str) -> dict[str, Any]:
    """Read a document that must be one canonical JSON object.

    Raises:
        Malformed: ``<what>.media_type``, ``<what>.malformed``, or `canonical.decode`'s codes.

    """
    if document.media_type != MEDIA_TYPE:
        text = f"got the media type {document.media_type[:80]!r}, expected {MEDIA_TYPE}"
        raise Malformed(f"{what}.media_type", text)
    value = canonical.decode(document.body, max_bytes=MAX_CHAT_BYTES, what=what)
    if not isinstance(value, dict):
        raise Malformed(f"{what}.malformed", f"{what}: expected an object")
    if document.body.count(b"{") + document.body.count(b"[") >= MAX_DEPTH:  # else it cannot be that deep
        _check_depth(value, what)
    return value


def _check_depth(value: Json, what: str) -> None:
    """Refuse what nests so deep that whoever writes it out again would run out of stack."""
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise Malformed(f"{what}.malformed", f"{what}: nested deeper than {MAX_DEPTH} levels")


def read_answer(document: Document, *, signed_finish_reason: bool) -> Answer:
    """Read an answer.

    Args:
        document: what the provider claims to have got.
        signed_finish_reason: whether the binding covers why the model stopped; else a text states none.

    Raises:
        Malformed: with a code for each thing that nobody signs: ``answer.usage``, ``answer.choices``,
            ``answer.finish_reason``, ``answer.mixed``, ``answer.attachment``; ``answer.malformed`` and those
            of `read_json` for the rest.

    """
    value = read_json(document, what="answer")
    if "usage" in value:
        raise Malformed(
            "answer.usage", "usage is signed by nobody: it is no part of an answer that is paid for"
        )
    record = Record(value, what="answer")
    model = record.text("model", max_chars=MAX_NAME_CHARS)
    choices = record.records("choices", max_items=MAX_PARTS)
    record.close()
    if len(choices) != 1:
        raise Malformed("answer.choices", f"{len(choices)} choices, expected the one that is signed")
    (choice,) = choices
    choice.integer("index", high=0)
    message = choice.record("message")
    finish_reason = choice.text("finish_reason") if choice.has("finish_reason") else None
    choice.close()
    if message.text("role") != "assistant":
        raise message.error("expected the role assistant", "role")
    content, calls = _content(message), _calls(message)
    message.close()
    if calls:
        if finish_reason != "tool_calls":
            raise Malformed("answer.finish_reason", "tool calls whose finish_reason does not say so")
        return Answer(model, None, calls, None)
    if finish_reason is not None and not signed_finish_reason:
        raise Malformed("answer.finish_reason", "finish_reason is signed by nobody: leave it out")
    if content is None:
        raise Malformed("answer.malformed", "answer: neither text nor tool calls")
    return Answer(model, content, (), finish_reason)


def _content(message: Record) -> str | None:
    if not message.has("content"):
        return None
    value = message.take("content")
    if isinstance(value, list):
        raise Malformed("answer.attachment", "images and attachments in an answer are signed by nobody")
    if not isinstance(value, str):
        raise message.error("expected a string", "content")
    if message.has("tool_calls"):
        raise Malformed("answer.mixed", "text beside tool calls: only one of the two is signed")
    return value


def _calls(message: Record) -> tuple[ToolCall, ...]:
    for field in ("images", "attachments", "audio"):
        if message.has(field):
            raise Malformed("answer.attachment", f"{field} in an answer are signed by nobody")
    if not message.has("tool_calls"):
        return ()
    calls = tuple(read_call(r) for r in message.records("tool_calls", max_items=MAX_TOOL_CALLS))
    if not calls:
        raise message.error("expected at least one", "tool_calls")
    return calls


def read_call(record: Record) -> ToolCall:
    """Read one tool call, strictly: what is neither name nor arguments is signed by nobody."""
    identity, kind = record.text("id", max_chars=MAX_NAME_CHARS), record.text("type")
    function = record.record("function")
    record.close()
    if kind != "function":
        raise record.error(f"got {kind[:80]!r}, expected function", "type")
    name = function.text("name", max_chars=MAX_NAME_CHARS)
    arguments = function.text("arguments", max_chars=MAX_TEXT_CHARS)
    function.close()
    return ToolCall(identity, name, arguments)


def signed_part(response: Mapping[str, Any]) -> Answer:
    """Cut an endpoint's response down to what it signs: what a provider claims, and a buyer pays for.

    Raises:
        Misuse: it is no chat completion with one choice, or it says more than one signature can cover.

    """
    try:
        (choice,) = response["choices"]
        message = choice["message"]
        calls = tuple(
            ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        )
        content = None if calls else message["content"]
        return Answer(response["model"], content, calls)
    except (KeyError, TypeError, ValueError) as error:
        raise Misuse(f"this is no chat completion with one choice: {error}") from error


def from_stream(data: bytes) -> dict[str, Any]:
    """Rebuild the response that a stream of server-sent events spells: deltas in order, calls by index.

    The last event's other fields (the signature among them) become those of the response.

    Raises:
        Malformed: ``stream.malformed``: not events of one choice, or no ``[DONE]`` at the end.

    """
    text: list[str] = []
    calls: dict[int, dict[str, str]] = {}
    fields: dict[str, Any] = {}
    finish_reason = None
    for event in _events(data):
        choices = event.pop("choices", [])
        fields |= event
        if not choices:
            continue
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise Malformed("stream.malformed", "an event of another choice than the one")
        if choices[0].get("index", 0) != 0:
            raise Malformed("stream.malformed", "an event of another choice than the one")
        finish_reason = choices[0].get("finish_reason") or finish_reason
        delta = choices[0].get("delta") or {}
        if not isinstance(delta, dict):
            raise Malformed("stream.malformed", "a delta that is no object")
        if isinstance(piece := delta.get("content"), str):
            text.append(piece)
        for part in delta.get("tool_calls") or ():
            _merge(calls, part)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text)}
    if calls:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for _, call in sorted(calls.items())
        ]
    fields["choices"] = [{"index": 0, "message": message, "finish_reason": finish_reason}]
    return fields


def _merge(calls: dict[int, dict[str, str]], part: Any) -> None:
    try:
        index, function = part["index"], part.get("function") or {}
        if not isinstance(index, int) or not 0 <= index < MAX_TOOL_CALLS:
            raise ValueError("index")
        call = calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        call["id"] = part.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        call["arguments"] += function.get("arguments") or ""
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed("stream.malformed", f"a tool call that cannot be put together: {error}") from error


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    if len(data) > MAX_CHAT_BYTES:
        raise Malformed("stream.malformed", f"{len(data)} bytes, expected at most {MAX_CHAT_BYTES}")
    lines = [line for line in data.split(b"\n") if line.strip()]
    if len(lines) > MAX_STREAM_EVENTS or not lines or lines[-1].strip() != b"data: [DONE]":
        raise Malformed("stream.malformed", "no [DONE] at the end: the stream was cut, or is none")
    for line in lines[:-1]:
        try:
            event = json.loads(line.removeprefix(b"data: "))
        except (ValueError, RecursionError) as error:
            raise Malformed("stream.malformed", "an event that is not JSON") from error
        if not isinstance(event, dict):
            raise Malformed("stream.malformed", "an event that is no object")
        yield event


__all__ = [
    "Answer",
    "ToolCall",
    "from_stream",
    "read_answer",
    "read_call",
    "read_json",
    "request_document",
    "signed_part",
]
