"""The guard's books: what it demanded of a hold, what the hold's end told, what is known of its provider.

Every function works inside of the caller's transaction, which the database runs one at a time: what was
read is still true when it is written, however many settle at once. A currency without terms is not guarded,
and neither is a job that cannot be released without a check.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from proofhold.canonical import Digest
from proofhold.escrow import ledger
from proofhold.escrow.database import Transaction
from proofhold.escrow.ledger import Account, AccountKind
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import BondState, Event, State
from proofhold.guard import Observation, Stake, Standing, Terms, demand, objections
from proofhold.job import PPM, REPLAY_KIND, Job, ModelReference, OnnxModel
from proofhold.keys import Key
from proofhold.money import Currency

CLEARED: Final = "cleared"
"""What an observed failure becomes when the provider is paid after all."""

_TERMS = tuple(field.name for field in fields(Terms))
_STANDING = tuple(field.name for field in fields(Standing))
_OF_EVENT = {
    Event.ANSWER_DEADLINE: Observation.FAILED,  # silence when drawn is a failed check (P12)
    Event.ADJUDICATED_REFUND: Observation.FAILED,
}
"""What an event tells that no verdict made. A release by an operator's word is one that nobody checked."""


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """What the guard knows of one provider at one model, in one currency. Amounts are atomic units."""

    provider: Key
    model: str
    currency: Currency
    standing: Standing
    stake: Stake
    """Over all its models."""


def set_terms(tx: Transaction, currency: Currency, terms: Terms, *, now: int) -> None:
    """Guard a currency from now on, or change how. Holds that are funded keep what was demanded of them."""
    ledger.register(tx, currency)
    columns = ", ".join(_TERMS)
    marks = ", ".join("?" * (len(_TERMS) + 2))
    values = tuple(getattr(terms, name) for name in _TERMS)
    tx.execute(
        f"INSERT OR REPLACE INTO guard (currency, {columns}, set_at) VALUES ({marks})",  # noqa: S608
        (currency.code, *values, now),
    )


def find_terms(tx: Transaction, currency: str) -> Terms | None:
    """Read a currency's terms; None where it is not guarded."""
    row = tx.execute("SELECT * FROM guard WHERE currency = ?", (currency,)).fetchone()
    return None if row is None else Terms(**{name: row[name] for name in _TERMS})


def find_standing(tx: Transaction, provider: Key, model: str, currency: str, terms: Terms) -> Standing:
    """Read what is known of a provider at a model: a newcomer's standing where nothing is."""
    sql = "SELECT * FROM guard_standing WHERE provider = ? AND model = ? AND currency = ?"
    row = tx.execute(sql, (provider, model, currency)).fetchone()
    if row is None:
        return Standing.newcomer(terms)
    return Standing(**{name: row[name] for name in _STANDING})


def find_stake(tx: Transaction, provider: Key, currency: str) -> Stake:
    """Sum up what stands for a provider in a currency, and what stands against that."""
    exposure = "SELECT coalesce(sum(exposure), 0) FROM guard_standing WHERE provider = ? AND currency = ?"
    undecided = (
        "SELECT coalesce(sum(iif(rate_ppm < ?, price, 0)), 0) AS price,"
        " coalesce(sum(iif(bond_state = ?, bond, 0)), 0) AS bond FROM guard_hold JOIN hold ON id = hold"
        " WHERE provider = ? AND currency = ? AND observation IS NULL"
    )
    (released,) = tx.execute(exposure, (provider, currency)).fetchone()
    row = tx.execute(undecided, (PPM, BondState.RESERVED, provider, currency)).fetchone()
    available = ledger.balance_of(tx, Account(AccountKind.PARTY, provider, currency))
    return Stake(released, row["price"], available + row["bond"])


def records(tx: Transaction, provider: Key) -> tuple[GuardRecord, ...]:
    """Read everything that is known of a provider."""
    sql = (
        "SELECT * FROM guard_standing JOIN currency ON code = currency WHERE provider = ?"
        " ORDER BY model, currency"
    )
    return tuple(
        GuardRecord(
            provider,
            row["model"],
            Currency(row["code"], row["exponent"]),
            Standing(**{name: row[name] for name in _STANDING}),
            find_stake(tx, provider, row["code"]),
        )
        for row in tx.execute(sql, (provider,)).fetchall()
    )


def admit(tx: Transaction, hold: Digest, job: Job) -> None:
    """Refuse a job that carries less than the guard demands, or freeze what was demanded (PROTOCOL P11).

    Called when the hold is written: its bond is reserved already.

    Raises:
        Refused: ``guard.value``, ``guard.rate``, ``guard.bond``, ``guard.penalty`` or ``guard.exposure``;
            the code is the first one's, the message has all.

    """
    currency = job.currency.code
    terms = find_terms(tx, currency)
    if terms is None or REPLAY_KIND not in job.evidence_kinds:
        return
    model = model_name(job.model)
    standing = find_standing(tx, job.provider, model, currency, terms)
    stake = find_stake(tx, job.provider, currency)
    # This hold's bond lies in its own account already, and stands for the provider as before.
    stake = Stake(stake.exposure, stake.in_flight, stake.free_bond + job.bond)
    found = objections(
        terms,
        standing,
        stake,
        price=job.price,
        rate_ppm=job.sampling_rate_ppm,
        bond=job.bond,
        penalty=job.withholding_penalty,
    )
    if found:
        text = "; ".join(f"{r.message}: got {r.got}, expected {r.expected}" for r in found)
        raise Refused(found[0].code, text, found[0].fault)
    least = demand(terms, standing, price=job.price, rate_ppm=job.sampling_rate_ppm, bond=job.bond)
    tx.execute(
        "INSERT INTO guard_hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (
            *(hold, job.provider, model, currency, job.price, job.sampling_rate_ppm, job.bond),
            *(least.rate_ppm, least.bond, least.penalty),
        ),
    )


def observe(
    tx: Transaction,
    hold: Digest,
    event: Event,
    state: State,
    observation: Observation | None,
    *,
    amount: int,
) -> None:
    """Write down what a move of a capture tells about its provider, in the transaction that moves it.

    Args:
        tx: the transaction of the move.
        hold: the capture's.
        event: what happened to it.
        state: where it stands now.
        observation: what a verdict says about the check; None where none made the move.
        amount: what was claimed, atomic units.

    """
    row = tx.execute("SELECT * FROM guard_hold WHERE hold = ?", (hold,)).fetchone()
    if row is None:
        return
    terms = find_terms(tx, row["currency"])
    told = observation or _OF_EVENT.get(event)
    if told is None and state is State.RELEASING:
        told = Observation.UNCHECKED
    if told is None and state is State.REFUNDING:
        told = Observation.VOID
    if told is None or terms is None:
        return
    if row["observation"] is None:
        standing = find_standing(tx, row["provider"], row["model"], row["currency"], terms)
        _write(tx, row["provider"], row["model"], row["currency"], standing.after(told, amount, terms))
        tx.execute("UPDATE guard_hold SET observation = ? WHERE hold = ?", (told, hold))
    elif state is State.RELEASING:
        clear(tx, hold)


def clear(tx: Transaction, hold: Digest) -> None:
    """Take back an observed failure whose provider a transcript has acquitted."""
    row = tx.execute("SELECT * FROM guard_hold WHERE hold = ?", (hold,)).fetchone()
    if row is None or row["observation"] != Observation.FAILED:
        return
    terms = find_terms(tx, row["currency"])
    if terms is None:
        return
    standing = find_standing(tx, row["provider"], row["model"], row["currency"], terms)
    _write(tx, row["provider"], row["model"], row["currency"], standing.cleared())
    tx.execute("UPDATE guard_hold SET observation = ? WHERE hold = ?", (CLEARED, hold))


def model_name(model: ModelReference) -> str:
    """Name a model in the guard's books: an ONNX file by its digest, a service by name and allow-list.

    Locks are left out: a new calibration of one model must not make a newcomer of its provider, nor hide it.
    """
    if isinstance(model, OnnxModel):
        return f"onnx:{model.onnx}"
    return f"service:{model.name}:{model.allowlist}"


def _write(tx: Transaction, provider: Key, model: str, currency: str, standing: Standing) -> None:
    columns = ", ".join(_STANDING)
    marks = ", ".join("?" * (len(_STANDING) + 3))
    tx.execute(
        f"INSERT OR REPLACE INTO guard_standing (provider, model, currency, {columns}) VALUES ({marks})",  # noqa: S608
        (provider, model, currency, *(getattr(standing, name) for name in _STANDING)),
    )
