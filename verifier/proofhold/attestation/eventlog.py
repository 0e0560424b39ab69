"""The event log of a dstack machine: what was measured into its four run-time registers, replayed.

A TDX quote holds only the registers; the log beside it says what went in, and nobody signs the log: it is
believed exactly as far as it replays to the registers of a quote that was verified. Sources: *TDX Module Base
Architecture Specification*, RTMR extension (a register becomes SHA-384 of itself and the digest); dstack's
guest agent, run-time events. The steps:

1. Parse the log: a JSON list of events with five fields, bounded.
2. Recompute the digest of every event in register 3: SHA-384 of the event type in four little-endian bytes,
   ``:``, the event's name, ``:``, its payload. (Registers 0 to 2 are filled by firmware and kernel, whose
   events have formats of their own: their digests are taken as they stand, and only the replay speaks.)
3. Extend the registers, from zero, in the order of the log.
4. Compare all four with those of the quote.
5. The event ``compose-hash`` names what runs: SHA-256 of the compose file. It must occur exactly once, and
   before ``system-ready``; afterwards the machine's own programs may measure what they like.
6. Where the domain was configured with a compose hash, MRCONFIGID is ``01``, the hash, and zeros.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from proofhold.attestation.quote import TdReport
from proofhold.attestation.refusal import Refusal
from proofhold.canonical import DIGEST_BYTES, Digest
from proofhold.errors import Malformed
from proofhold.records import Record

MAX_LOG_BYTES: Final = 2**20
"""Those in the field have 9 to 20 KB."""
MAX_EVENTS: Final = 1024
"""Those in the field have 29 or 30."""
MAX_EVENT_NAME_CHARS: Final = 256
MAX_PAYLOAD_BYTES: Final = 64 * 2**10
MAX_COMPOSE_BYTES: Final = 2**20

REGISTERS: Final = 4
REGISTER_BYTES: Final = 48
RUNTIME_REGISTER: Final = 3
RUNTIME_EVENT: Final = 0x08000001
"""The event type that dstack's guest agent gives what it measures at run time."""
COMPOSE_HASH: Final = "compose-hash"
SYSTEM_READY: Final = "system-ready"
CONFIG_ID_COMPOSE: Final = "01"
"""First byte of an MRCONFIGID that is made of a compose hash."""


@dataclass(frozen=True, slots=True)
class Event:
    """One measurement: which register, what kind, and the digest that went in."""

    register: int
    kind: int
    digest: bytes
    name: str
    payload: bytes


def parse_event_log(data: bytes) -> tuple[Event, ...]:
    """Read a log (step 1).

    Raises:
        Refusal: ``eventlog.malformed``.

    """
    if len(data) > MAX_LOG_BYTES:
        raise _refusal("malformed", "a log that is too long", 1, f"{len(data)} bytes", f"{MAX_LOG_BYTES}")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique_keys)
        if not isinstance(value, list) or len(value) > MAX_EVENTS:
            raise _refusal("malformed", "not a list of events", 1, expected=f"at most {MAX_EVENTS}")
        return tuple(_event(item, number) for number, item in enumerate(value))
    except (ValueError, RecursionError) as error:
        raise _refusal("malformed", "not JSON, or with a key twice", 1) from error
    except Malformed as error:
        raise _refusal("malformed", error.message, 1) from error


def replay(events: Sequence[Event]) -> tuple[str, str, str, str]:
    """Give the registers that a log leads to (steps 2 and 3), in hexadecimal.

    Raises:
        Refusal: ``eventlog.digest``: an event of register 3 whose digest is not that of its content.

    """
    registers = [bytes(REGISTER_BYTES)] * REGISTERS
    for number, event in enumerate(events):
        if event.register == RUNTIME_REGISTER:
            _check_digest(event, number)
        state = registers[event.register] + event.digest
        registers[event.register] = hashlib.sha384(state).digest()
    first, second, third, fourth = (register.hex() for register in registers)
    return first, second, third, fourth


def check_event_log(events: Sequence[Event], report: TdReport) -> None:
    """Require that a log replays to the registers of a report (steps 2 to 4).

    Raises:
        Refusal: ``eventlog.digest``, or ``eventlog.register`` for the first register that differs; the others
            that do are in its `also`.

    """
    pairs = zip(replay(events), report.rtmrs, strict=True)
    wrong = [
        _refusal("register", f"the log does not replay to RTMR{number}", 4, got, expected)
        for number, (got, expected) in enumerate(pairs)
        if got != expected
    ]
    if wrong:
        first, *others = wrong
        got, expected = first.got, first.expected
        raise Refusal(first.code, first.message, step=4, got=got, expected=expected, also=tuple(others))


def compose_hash(events: Sequence[Event]) -> Digest:
    """Give the compose hash that a log names (step 5), as true as the log: `check_event_log` comes first.

    Raises:
        Refusal: ``eventlog.compose_hash``: none, two, after the system was ready, or not 32 bytes.

    """
    runtime = [event for event in events if event.register == RUNTIME_REGISTER]
    named = [number for number, event in enumerate(runtime) if event.name == COMPOSE_HASH]
    if len(named) != 1:
        got = f"{len(named)} of them"
        raise _refusal("compose_hash", "not exactly one compose-hash event", 5, got, "one")
    before = runtime[: named[0]]
    if any(event.name == SYSTEM_READY for event in before):
        raise _refusal("compose_hash", "a compose-hash event after the system was ready", 5)
    payload = runtime[named[0]].payload
    if len(payload) != DIGEST_BYTES:
        raise _refusal("compose_hash", "not a SHA-256", 5, f"{len(payload)} bytes", f"{DIGEST_BYTES}")
    return payload.hex()


def check_compose(events: Sequence[Event], app_compose: bytes, report: TdReport) -> Digest:
    """Require that a compose file is the one that a log, and MRCONFIGID if it is set, name; give its hash.

    Raises:
        Refusal: ``eventlog.compose_hash`` or ``eventlog.config_id``.

    """
    named = compose_hash(events)  # step 5
    if len(app_compose) > MAX_COMPOSE_BYTES:
        raise _refusal("compose_hash", "a compose file that is too long", 5, f"{len(app_compose)} bytes")
    actual = hashlib.sha256(app_compose).hexdigest()
    if actual != named:
        raise _refusal("compose_hash", "another compose file than the log names", 5, actual, named)
    check_config_id(report, actual)
    return actual


def check_config_id(report: TdReport, digest: Digest, *, required: bool = False) -> None:
    """Require that MRCONFIGID names a compose hash (step 6); all zeros name none.

    Raises:
        Refusal: ``eventlog.config_id``: it names another, or none though `required`.

    """
    if not int(report.mr_config_id, 16) and not required:
        return
    expected = f"{CONFIG_ID_COMPOSE}{digest}".ljust(2 * REGISTER_BYTES, "0")
    if report.mr_config_id != expected:
        text = "MRCONFIGID is not made of this compose hash"
        raise _refusal("config_id", text, 6, report.mr_config_id, expected)


def _check_digest(event: Event, number: int) -> None:
    """Step 2."""
    if event.kind != RUNTIME_EVENT:
        got, expected = f"{event.kind:#x}", f"{RUNTIME_EVENT:#x}"
        raise _refusal("digest", f"event {number} of register 3 is of another type", 2, got, expected)
    # A name with a colon would let two events share a digest.
    if ":" in event.name:
        raise _refusal("digest", f"event {number} has a name that holds a colon", 2, event.name)
    parts = (event.kind.to_bytes(4, "little"), event.name.encode(), event.payload)
    expected = hashlib.sha384(b":".join(parts)).hexdigest()
    if event.digest.hex() != expected:
        text = f"event {number} ({event.name[:40]!r}) has another digest than its content"
        raise _refusal("digest", text, 2, event.digest.hex(), expected)


def _event(value: Any, number: int) -> Event:
    record = Record(value, what="eventlog", path=f"events[{number}]")
    event = Event(
        register=record.integer("imr", high=REGISTERS - 1),
        kind=record.integer("event_type", high=2**32 - 1),
        digest=bytes.fromhex(record.hexadecimal("digest", length_bytes=REGISTER_BYTES)),
        name=record.text("event", max_chars=MAX_EVENT_NAME_CHARS),
        payload=bytes.fromhex(
            record.text("event_payload", max_chars=2 * MAX_PAYLOAD_BYTES, pattern="(?:[0-9a-f]{2})*")
        ),
    )
    event.name.encode()  # half of a surrogate pair is no text
    record.close()
    return event


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _refusal(code: str, message: str, step: int, got: str = "", expected: str = "") -> Refusal:
    text = f"{message}: got {got}" if got else message
    text = f"{text}, expected {expected}" if got and expected else text
    return Refusal(f"eventlog.{code}", text, step=step, got=got, expected=expected)
