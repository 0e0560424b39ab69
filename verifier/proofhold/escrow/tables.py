"""The tables of an escrow as data: what `books` reads and writes by key, and what drivers exchange.

The files in ``migrations/`` make them; docs/formats/escrow.md says what every column is for, and tests
compare the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    NUMBER = "bigint"
    AMOUNT = "numeric"
    """Atomic units: 64 bits on SQLite, 78 digits on PostgreSQL."""
    BYTES = "bytea"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table: there is one object of each, which is what tells them apart."""

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Kind]
    """In the order in which they were made."""
    mutable: tuple[str, ...] = ()
    """The columns that may change after the row was written."""
    compared: tuple[str, ...] = ()
    """The mutable columns that must still be as they were read when a change is written."""
    numbered: bool = False
    """Whether the database numbers its rows."""
    bulky: frozenset[str] = frozenset()
    """The columns that are written with the row and not read with it: megabytes that hardly anybody wants."""

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that are read when a row is."""
        return tuple(name for name in self.columns if name not in self.bulky)


_T, _N, _A, _B = Kind.TEXT, Kind.NUMBER, Kind.AMOUNT, Kind.BYTES
_AT = {"hold": _T, "seq": _N}

ESCROW = Table("escrow", ("only",), {"only": _N, "id": _T, "unbonding_s": _N})
OPERATOR = Table("operator", ("key",), {"key": _T})
CURRENCY = Table("currency", ("code",), {"code": _T, "exponent": _N})
ACCOUNT = Table(
    "account",
    ("kind", "owner", "currency"),
    {"id": _N, "kind": _T, "owner": _T, "currency": _T, "balance": _A},
    numbered=True,
)
TRANSFER = Table("transfer", ("key",), {"id": _N, "key": _T, "at": _N}, numbered=True)
ENTRY = Table("entry", ("transfer", "account"), {"transfer": _N, "account": _N, "amount": _A})
SECRET = Table("secret", ("nonce",), {"nonce": _T, "commitment": _T, "secret": _B})
PROJECTION = Table(
    "projection",
    ("nonce",),
    {"nonce": _T, "commitment": _T, "secret": _B, "openings": _T, "recorded_at": _N},
    mutable=("openings", "recorded_at"),
)
HOLD = Table(
    "hold",
    ("id",),
    {"id": _T, "commitment": _T, "funded_at": _N, "bond_state": _T, "bond_due": _N}
    | {"unbonding_s": _N, "undecided": _N, "blamed": _N},
    mutable=("bond_state", "bond_due", "undecided", "blamed"),
    compared=("bond_state",),
)
JOB = Table("job", ("hold",), {"hold": _T, "body": _B})
CAPTURE = Table(
    "capture",
    ("hold", "seq"),
    _AT
    | {"state": _T, "due": _N, "verification_due": _N, "attempts": _N, "amount": _A}
    | {"claimed_at": _N, "changed_at": _N, "base": _A, "blamed": _N, "leases": _N},
    mutable=(
        *("state", "due", "verification_due", "attempts", "amount", "claimed_at", "changed_at"),
        *("blamed", "leases"),
    ),
    compared=("state", "leases"),
)
DOCUMENT = Table("document", ("hold", "seq", "kind"), _AT | {"kind": _T, "body": _B})
ONE_USE = Table("one_use", ("digest",), {"digest": _T} | _AT)
DECISION = Table(
    "decision",
    ("hold", "seq", "ruling"),
    _AT | {"ruling": _T, "receipt_digest": _T, "receipt": _B, "at": _N},
)
TRANSITION = Table(
    "transition",
    ("id",),
    {"id": _N} | _AT | {"subject": _T, "source": _T, "event": _T, "target": _T, "at": _N, "cause": _T},
    numbered=True,
)
OUTBOX = Table("outbox", ("id",), {"id": _N, "sent_at": _N}, mutable=("sent_at",))
PAYMENT = Table(
    "payment",
    ("hold", "seq", "direction"),
    _AT
    | {"direction": _T, "amount": _A, "account": _T, "status": _T, "rail": _T, "attempts": _N}
    | {"lease_end": _N, "reference": _T},
    mutable=("status", "rail", "attempts", "lease_end", "reference"),
    compared=("status", "attempts"),
)
GUARD = Table(
    "guard",
    ("currency",),
    {"currency": _T, "kappa": _A, "least_multiplier_ppm": _N, "detection_ppm": _N, "delta_ppm": _N}
    | {"decay_ppm": _N, "probation_checks": _N, "saving_ppm": _N, "set_at": _N},
    mutable=(
        *("kappa", "least_multiplier_ppm", "detection_ppm", "delta_ppm", "decay_ppm", "probation_checks"),
        *("saving_ppm", "set_at"),
    ),
)
GUARD_STANDING = Table(
    "guard_standing",
    ("provider", "model", "currency"),
    {"provider": _T, "model": _T, "currency": _T, "multiplier_ppm": _N, "probation_left": _N}
    | {"clean": _N, "failed": _N, "unchecked": _N, "exposure": _A},
    mutable=("multiplier_ppm", "probation_left", "clean", "failed", "unchecked", "exposure"),
)
GUARD_HOLD = Table(
    "guard_hold",
    ("hold",),
    {"hold": _T, "provider": _T, "model": _T, "currency": _T, "price": _A, "rate_ppm": _N, "bond": _A}
    | {"demanded_rate_ppm": _N, "demanded_bond": _A, "demanded_penalty": _A, "observation": _T},
    mutable=("observation",),
)
DISPUTE = Table("dispute", ("hold", "seq", "kind"), _AT | {"kind": _T, "digest": _T, "body": _B, "at": _N})
ADJUDICATION = Table(
    "adjudication",
    ("hold", "seq"),
    _AT | {"outcome": _T, "transcript_digest": _T, "transcript": _B, "at": _N},
)
SHADOW = Table(
    "shadow",
    ("hold", "seq", "receipt_digest"),
    _AT | {"receipt_digest": _T, "outcome": _T, "refused": _T, "receipt": _B, "at": _N},
)
SHADOW_ACTUAL = Table("shadow_actual", ("hold", "seq"), _AT | {"outcome": _T, "at": _N})
GATED_PAYMENT = Table(
    "gated_payment",
    ("id",),
    {"id": _T, "binding": _T, "status": _T, "lease_end": _N, "job": _T, "seq": _N, "outcome": _T}
    | {"amount": _A, "receipt": _B, "reference": _T, "answer": _B, "changed_at": _N, "deposit": _T},
)
WEBHOOK = Table("webhook", ("id",), {"id": _T, "url": _T, "secret": _B, "added_at": _N, "removed_at": _N})
WEBHOOK_DELIVERY = Table(
    "webhook_delivery",
    ("webhook", "outbox"),
    {"webhook": _T, "outbox": _N, "status": _T, "attempts": _N, "due_at": _N, "answered": _N},
)
EVIDENCE = Table(
    "evidence",
    ("hold", "seq", "digest"),
    _AT | {"digest": _T, "kind": _T, "size": _N, "kept_at": _N, "pruned_at": _N},
)
QUORUM = Table("quorum", ("currency",), {"currency": _T, "above": _A, "need": _N, "trust": _B, "set_at": _N})
ENDORSEMENT = Table(
    "endorsement",
    ("hold", "seq", "signer", "outcome"),
    _AT | {"signer": _T, "outcome": _T, "receipt_digest": _T, "receipt": _B, "at": _N},
)
TWO_KEYS = Table("two_keys", ("currency",), {"currency": _T, "above": _A}, mutable=("above",))
WORK = Table(
    "work",
    ("hold", "seq"),
    _AT | {"bundle": _B, "answers": _B, "queued_at": _N, "ready_at": _N},
    mutable=("ready_at",),
    bulky=frozenset({"bundle", "answers"}),
)
WORK_BODY = Table("work", ("hold", "seq"), _AT | {"bundle": _B, "answers": _B})
"""What `WORK` leaves out, for reading."""
ATTEMPT = Table(
    "attempt",
    ("hold", "seq", "number"),
    _AT | {"number": _N, "worker": _T, "began_at": _N, "ended_at": _N, "outcome": _T, "begun": _N},
    mutable=("ended_at", "outcome", "begun"),
)
WORKER = Table(
    "worker",
    ("id",),
    {"id": _T, "host": _T, "pid": _N, "started_at": _N, "beat_at": _N, "stopped_at": _N}
    | {"settled": _N, "kept": _N},
    mutable=("beat_at", "stopped_at", "settled", "kept"),
)

TABLES: tuple[Table, ...] = (
    *(ESCROW, OPERATOR, CURRENCY, ACCOUNT, TRANSFER, ENTRY, SECRET, PROJECTION),
    *(HOLD, JOB, CAPTURE, DOCUMENT, ONE_USE),
    *(DECISION, TRANSITION, OUTBOX, PAYMENT, GUARD, GUARD_STANDING, GUARD_HOLD),
    *(DISPUTE, ADJUDICATION, SHADOW, SHADOW_ACTUAL, GATED_PAYMENT, WEBHOOK, WEBHOOK_DELIVERY),
    *(EVIDENCE, QUORUM, ENDORSEMENT, TWO_KEYS, WORK, ATTEMPT, WORKER),
)
"""All of them, each after those that it refers to."""
