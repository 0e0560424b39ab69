"""dstack's event log: it is believed as far as it replays to the registers of a quote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mutations import damaged
from proofhold.attestation.eventlog import (
    MAX_EVENTS,
    RUNTIME_EVENT,
    check_compose,
    check_config_id,
    check_event_log,
    compose_hash,
    parse_event_log,
    replay,
)
from proofhold.attestation.quote import TdReport, parse_quote, without_padding
from proofhold.attestation.refusal import Refusal


@dataclass(frozen=True)
class Machine:
    """One dstack machine as a provider's endpoint describes it."""

    where: str
    log: bytes
    report: TdReport
    compose: bytes | None


def machines(vectors: Path) -> Iterator[Machine]:
    for file in sorted(vectors.glob("providers/*/attestation.json")):
        for where, found in walk(json.loads(file.read_text()), file.parent.name):
            log = found["event_log"]
            text = log if isinstance(log, str) else json.dumps(log)
            report = parse_quote(
                without_padding(bytes.fromhex(found.get("intel_quote") or found["quote"]))
            ).report
            assert isinstance(report, TdReport)
            info = found.get("info", {}).get("tcb_info") or {}
            info = json.loads(info) if isinstance(info, str) else info
            compose = info.get("app_compose")
            yield Machine(where, text.encode(), report, compose.encode() if compose else None)


def walk(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "event_log" in value and ("intel_quote" in value or "quote" in value):
            yield path, value
        for key, item in value.items():
            yield from walk(item, f"{path}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from walk(item, f"{path}[{number}]")


@pytest.fixture(scope="session")
def machine(vectors: Path) -> Machine:
    return next(m for m in machines(vectors) if m.compose)


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value.code


def event(name: str, payload: bytes = b"", *, register: int = 3, kind: int = RUNTIME_EVENT) -> dict[str, Any]:
    state = b":".join((kind.to_bytes(4, "little"), name.encode(), payload))
    digest = hashlib.sha384(state).hexdigest()
    return {
        "imr": register,
        "event_type": kind,
        "digest": digest,
        "event": name,
        "event_payload": payload.hex(),
    }


def log_of(*events: dict[str, Any]) -> bytes:
    return json.dumps(events).encode()


def test_every_log_of_the_vectors_replays_to_all_four_registers(vectors: Path) -> None:
    seen = 0
    for machine in machines(vectors):
        events = parse_event_log(machine.log)
        check_event_log(events, machine.report)
        named = compose_hash(events)
        check_config_id(machine.report, named, required=True)
        if machine.compose is not None:
            assert check_compose(events, machine.compose, machine.report) == named
        seen += 1
    assert seen >= 8


def test_a_dropped_swapped_or_changed_event_does_not_replay(machine: Machine) -> None:
    whole = json.loads(machine.log)
    runtime = [number for number, item in enumerate(whole) if item["imr"] == 3]
    firmware = [number for number, item in enumerate(whole) if item["imr"] == 0]
    swapped = list(whole)
    a, b = runtime[:2]
    swapped[a], swapped[b] = swapped[b], swapped[a]
    changed = [dict(item) for item in whole]
    changed[firmware[0]]["digest"] = "00" * 48
    for log in (whole[:-1], whole[1:], swapped, changed, [*whole, event("more")]):
        with pytest.raises(Refusal) as caught:
            check_event_log(parse_event_log(json.dumps(log).encode()), machine.report)
        assert caught.value.code == "eventlog.register"


def test_all_registers_that_differ_are_reported(machine: Machine) -> None:
    with pytest.raises(Refusal) as caught:
        check_event_log((), machine.report)
    assert len(caught.value.also) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("event", "compose-hasH"), ("event_payload", "00" * 32), ("event_type", 1), ("digest", "00" * 48)],
)
def test_an_event_of_register_3_has_the_digest_of_its_content(
    machine: Machine, field: str, value: Any
) -> None:
    log = json.loads(machine.log)
    next(item for item in log if item["event"] == "compose-hash")[field] = value
    events = parse_event_log(json.dumps(log).encode())
    assert code_of(lambda: replay(events)) == "eventlog.digest"


def test_a_name_with_a_colon_is_refused_since_two_events_would_share_a_digest() -> None:
    one, other = event("a:b", b"c"), event("a", b"b:c")
    assert one["digest"] == other["digest"]
    assert code_of(lambda: replay(parse_event_log(log_of(one)))) == "eventlog.digest"
    replay(parse_event_log(log_of(other)))


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event("compose-hash", bytes(32)), event("compose-hash", bytes(32))],
        [event("system-ready"), event("compose-hash", bytes(32))],
        [event("compose-hash", bytes(31))],
        [event("compose-hash", bytes(32), register=2)],
    ],
)
def test_the_compose_hash_is_measured_once_and_before_the_system_is_ready(
    events: list[dict[str, Any]],
) -> None:
    assert code_of(lambda: compose_hash(parse_event_log(log_of(*events)))) == "eventlog.compose_hash"


def test_another_compose_file_or_configuration_is_refused(machine: Machine) -> None:
    events = parse_event_log(machine.log)
    assert machine.compose is not None
    compose = machine.compose
    assert code_of(lambda: check_compose(events, compose + b" ", machine.report)) == "eventlog.compose_hash"
    other = replace(machine.report, mr_config_id="01" + "22" * 47)
    assert code_of(lambda: check_compose(events, compose, other)) == "eventlog.config_id"
    none = replace(machine.report, mr_config_id="00" * 48)
    assert check_compose(events, compose, none) == hashlib.sha256(compose).hexdigest()
    assert code_of(lambda: check_config_id(none, "11" * 32, required=True)) == "eventlog.config_id"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b"[1]",
        b'[{"imr": 0}]',
        b'[{"imr": 0, "imr": 1}]',
        b"\xff",
        log_of({**event("a"), "imr": 4}),
        log_of({**event("a"), "imr": -1}),
        log_of({**event("a"), "event_type": 2**32}),
        log_of({**event("a"), "digest": "00"}),
        log_of({**event("a"), "digest": "0A" * 48}),
        log_of({**event("a"), "event_payload": "0"}),
        log_of({**event("a"), "event": "\ud800"}),
        log_of({**event("a"), "more": 1}),
        log_of(*[event("a")] * (MAX_EVENTS + 1)),
        b" " * (2**20 + 1),
    ],
)
def test_a_log_has_one_form(data: bytes) -> None:
    assert code_of(lambda: parse_event_log(data)) == "eventlog.malformed"


def test_damaged_logs_are_refused_or_say_the_same(machine: Machine) -> None:
    whole = parse_event_log(machine.log)
    for data in damaged(machine.log, count=1000, seed=5):
        try:
            events = parse_event_log(data)
            check_event_log(events, machine.report)
        except Refusal:
            continue
        # What firmware and kernel write beside their digests is in no register: description, not evidence.
        assert [(e.register, e.digest) for e in events] == [(e.register, e.digest) for e in whole]
        assert [e for e in events if e.register == 3] == [e for e in whole if e.register == 3]
