"""The guard's books: what it demanded of a hold, what the hold's end told, what is known of its provider.

Every function works inside of the caller's transaction, and whoever admits or observes a provider's job keeps
everybody else who would away from that provider in that currency until it is written: what was read is still
true then, however many settle at once. A currency without terms is not guarded,
and neither is a job that cannot be released without a check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from proofhold.canonical import Digest
from proofhold.core import Fault
from proofhold.escrow import ledger
from proofhold.escrow.books import Books, Record
from proofhold.escrow.ledger import Account, AccountKind
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import BondState, Event, State
from proofhold.escrow.tables import GUARD, GUARD_HOLD, GUARD_STANDING, HOLD
from proofhold.guard import Observation, Stake, Standing, Terms, demand, objections
from proofhold.job import PPM, REPLAY_KIND, Job, ModelReference, OnnxModel
from proofhold.keys import Key
from proofhold.money import Currency

CLEARED: Final = "cleared"
"""What an observed failure becomes when the provider is paid after all."""

_FAILURES = "SELECT coalesce(sum(failed), 0) FROM guard_standing WHERE provider = ? AND currency = ?"
_FAILED_SINCE = (
    "SELECT 1 FROM guard_hold AS g JOIN transition AS t ON t.hold = g.hold"
    " WHERE g.provider = ? AND g.currency = ? AND g.observation = 'failed' AND t.subject = 'capture'"
    " AND t.event IN ('refuted', 'dispute', 'answer_deadline', 'adjudicated_refund')"
    " AND t.id > (SELECT min(id) FROM transition WHERE hold = ?) LIMIT 1"
)
_RESOLVED = "SELECT 1 FROM transition WHERE hold = ? AND event = 'resolved_release' LIMIT 1"
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


def set_terms(books: Books, currency: Currency, terms: Terms, *, now: int) -> None:
    """Guard a currency from now on, or change how. Holds that are funded keep what was demanded of them."""
    ledger.register(books, currency)
    values = {name: getattr(terms, name) for name in _TERMS} | {"set_at": now}
    if books.find(GUARD, currency.code) is None:
        books.insert(GUARD, currency.code, *values.values())
    else:
        books.update(GUARD, (currency.code,), **values)


def find_terms(books: Books, currency: str) -> Terms | None:
    """Read a currency's terms; None where it is not guarded."""
    row = books.find(GUARD, currency)
    return None if row is None else Terms(**{name: row[name] for name in _TERMS})


def find_standing(books: Books, provider: Key, model: str, currency: str, terms: Terms) -> Standing:
    """Read what is known of a provider at a model: a newcomer's standing where nothing is."""
    row = books.find(GUARD_STANDING, provider, model, currency)
    if row is None:
        return Standing.newcomer(terms)
    return Standing(**{name: row[name] for name in _STANDING})


def find_stake(books: Books, provider: Key, currency: str) -> Stake:
    """Sum up what stands for a provider in a currency, and what stands against that."""
    exposure = "SELECT coalesce(sum(exposure), 0) FROM guard_standing WHERE provider = ? AND currency = ?"
    undecided = (
        "SELECT coalesce(sum(CASE WHEN rate_ppm < ? THEN price ELSE 0 END), 0) AS price,"
        " coalesce(sum(CASE WHEN bond_state = ? THEN bond ELSE 0 END), 0) AS bond FROM guard_hold"
        " JOIN hold ON id = hold WHERE provider = ? AND currency = ? AND observation IS NULL"
    )
    tx = books.tx  # what was written so far in this transaction is the caller's to add
    (released,) = tx.execute(exposure, (provider, currency)).fetchone()
    row = tx.execute(undecided, (PPM, BondState.RESERVED.value, provider, currency)).fetchone()
    available = ledger.balance_of(books, Account(AccountKind.PARTY, provider, currency))
    return Stake(released, row["price"], available + row["bond"])


def records(books: Books, provider: Key) -> tuple[GuardRecord, ...]:
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
            find_stake(books, provider, row["code"]),
        )
        for row in books.tx.execute(sql, (provider,)).fetchall()
    )


def enter(books: Books, job: Job) -> None:
    """Keep others away from a job's provider, before anything is read that `admit` judges by."""
    if find_terms(books, job.currency.code) is not None and REPLAY_KIND in job.evidence_kinds:
        books.lock(_name_of(job.provider, job.currency.code))


def admit(books: Books, hold: Digest, job: Job) -> None:
    """Refuse a job that carries less than the guard demands, or freeze what was demanded (PROTOCOL P11).

    Called when the hold is written: its bond is reserved already. `enter` was called before.

    Raises:
        Refused: ``guard.value``, ``guard.rate``, ``guard.bond``, ``guard.penalty`` or ``guard.exposure``;
            the code is the first one's, the message has all.

    """
    currency = job.currency.code
    terms = find_terms(books, currency)
    if terms is None or REPLAY_KIND not in job.evidence_kinds:
        return
    model = model_name(job.model)
    standing = find_standing(books, job.provider, model, currency, terms)
    stake = find_stake(books, job.provider, currency)
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
    carried = (job.price, job.sampling_rate_ppm, job.bond)
    demanded = (least.rate_ppm, least.bond, least.penalty)
    books.insert(GUARD_HOLD, hold, job.provider, model, currency, *carried, *demanded, None)


def require_covered(books: Books, party: Account, amount: int) -> None:
    """Refuse to pay out what a guarded provider's unchecked jobs may still have to be answered with (P11).

    Raises:
        Refused: ``guard.exposure``.

    """
    if find_terms(books, party.currency) is None:
        return
    books.lock(_name_of(party.owner, party.currency))
    stake = find_stake(books, party.owner, party.currency)
    needed = stake.exposure + stake.in_flight
    if needed and stake.free_bond - amount < needed:
        text = f"{needed} atomic units are unchecked or under way, {stake.free_bond - amount} would be left"
        raise Refused("guard.exposure", text, Fault.PROVIDER)


def prepare(books: Books, rows: Sequence[Record]) -> None:
    """Read, and lock, what observing these guarded holds is going to ask for, with a few statements."""
    for row in rows:
        find_terms(books, row["currency"])
    books.lock(*(_name_of(row["provider"], row["currency"]) for row in rows))
    books.fetch(GUARD_STANDING, [(row["provider"], row["model"], row["currency"]) for row in rows])


def observe(
    books: Books,
    hold: Digest,
    event: Event,
    state: State,
    observation: Observation | None,
    *,
    amount: int,
) -> None:
    """Write down what a move of a capture tells about its provider, in the transaction that moves it.

    Args:
        books: those of the transaction of the move.
        hold: the capture's.
        event: what happened to it.
        state: where it stands now.
        observation: what a verdict says about the check; None where none made the move.
        amount: what was claimed, atomic units.

    """
    row = books.find(GUARD_HOLD, hold)
    if row is None:
        return
    terms = find_terms(books, row["currency"])
    told = observation or _OF_EVENT.get(event)
    if told is None and state is State.RELEASING:
        told = Observation.UNCHECKED
    if told is None and state is State.REFUNDING:
        told = Observation.VOID
    if told is None or terms is None:
        return
    held = books.find(HOLD, hold) or {}
    if told is not Observation.FAILED and held["undecided"]:
        return  # a metered hold is observed once, when all of it is decided, unless a check fails before
    if told is Observation.CLEAN and books.tx.execute(_RESOLVED, (hold,)).fetchone():
        told, amount = Observation.UNCHECKED, row["price"]  # an operator released another capture of it
    books.lock(_name_of(row["provider"], row["currency"]))
    if row["observation"] is None:
        standing = find_standing(books, row["provider"], row["model"], row["currency"], terms)
        _write(books, row["provider"], row["model"], row["currency"], standing.after(told, amount, terms))
        books.update(GUARD_HOLD, (hold,), observation=told.value)
    elif state is State.RELEASING:
        clear(books, hold)


def is_raised(books: Books, hold: Digest) -> bool:
    """Tell whether a hold's claims must be checked whatever the draw: its provider has failed since (P11).

    Only what was funded before the failure is in question: a later job is on probation, and signed for it.
    """
    row = books.find(GUARD_HOLD, hold)
    if row is None or row["rate_ppm"] >= PPM:
        return False
    where = (row["provider"], row["currency"])
    for move in books.logged:  # what this very transaction has not written yet
        other = books.find(GUARD_HOLD, move["hold"]) or {}
        failed = other.get("observation") == Observation.FAILED
        if failed and (other["provider"], other["currency"]) == where:
            return True
    (failures,) = books.tx.execute(_FAILURES, where).fetchone()
    return bool(failures) and books.tx.execute(_FAILED_SINCE, (*where, hold)).fetchone() is not None


def require_unraised(books: Books, hold: Digest) -> None:
    """Refuse to release unchecked what must be checked.

    Raises:
        Refused: ``guard.unchecked``.

    """
    row = books.find(GUARD_HOLD, hold)
    if row is None:
        return
    books.lock(_name_of(row["provider"], row["currency"]))
    if is_raised(books, hold):
        text = "its provider has failed a check since it was funded: it is to be checked, drawn or not"
        raise Refused("guard.unchecked", text)


def clear(books: Books, hold: Digest) -> None:
    """Take back an observed failure whose provider a transcript has acquitted."""
    row = books.find(GUARD_HOLD, hold)
    if row is None or row["observation"] != Observation.FAILED:
        return
    terms = find_terms(books, row["currency"])
    if terms is None:
        return
    books.lock(_name_of(row["provider"], row["currency"]))
    standing = find_standing(books, row["provider"], row["model"], row["currency"], terms)
    _write(books, row["provider"], row["model"], row["currency"], standing.cleared())
    books.update(GUARD_HOLD, (hold,), observation=CLEARED)


def model_name(model: ModelReference) -> str:
    """Name a model in the guard's books: an ONNX file by its digest, a service by name and allow-list.

    Locks are left out: a new calibration of one model must not make a newcomer of its provider, nor hide it.
    """
    if isinstance(model, OnnxModel):
        return f"onnx:{model.onnx}"
    return f"service:{model.name}:{model.allowlist}"


def _write(books: Books, provider: Key, model: str, currency: str, standing: Standing) -> None:
    key, values = (provider, model, currency), {name: getattr(standing, name) for name in _STANDING}
    if books.find(GUARD_STANDING, *key) is None:
        books.insert(GUARD_STANDING, *key, *values.values())
    else:
        books.update(GUARD_STANDING, key, **values)


def _name_of(provider: Key, currency: str) -> str:
    return f"guard:{currency}:{provider}"
