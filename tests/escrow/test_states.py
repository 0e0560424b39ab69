"""The table of states: what it promises is read off it row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proofhold.escrow.states import (
    BOND_TABLE,
    FINAL,
    REFUND_SIDE,
    RELEASE_SIDE,
    TABLE,
    BondEvent,
    BondState,
    By,
    State,
    Timer,
    bond_move,
    move,
    moves_from,
    timers_of,
)

UNATTENDED = frozenset({By.CLOCK, By.RAIL})


def reachable(start: State, by: frozenset[By]) -> set[State]:
    reached, todo = {start}, [start]
    while todo:
        for row in moves_from(todo.pop()):
            if row.by in by and row.target not in reached:
                reached.add(row.target)
                todo.append(row.target)
    return reached


@pytest.mark.parametrize("state", State)
def test_time_and_the_rail_alone_lead_from_every_state_to_a_final_one(state: State) -> None:
    assert reachable(state, UNATTENDED) & FINAL


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_every_state_but_the_final_ones_ends_by_itself(state: State) -> None:
    unattended = [row for row in moves_from(state) if row.by in UNATTENDED]
    assert unattended
    assert timers_of(state) or all(row.by is By.RAIL for row in unattended)


def test_no_clock_ever_pays_the_provider() -> None:
    for row in TABLE:
        if row.by is By.CLOCK:
            assert row.target not in RELEASE_SIDE
    for state in set(State) - RELEASE_SIDE:
        assert not reachable(state, UNATTENDED) & RELEASE_SIDE


def test_what_is_decided_is_never_turned_round() -> None:
    everyone = frozenset(By)
    for state in RELEASE_SIDE:
        assert reachable(state, everyone) <= RELEASE_SIDE
    for state in REFUND_SIDE:
        assert reachable(state, everyone) <= REFUND_SIDE


def test_only_the_rail_moves_what_is_decided() -> None:
    for row in TABLE:
        if row.source is not None and row.source.is_decided:
            assert row.by is By.RAIL
            assert row.bond is BondEvent.KEEP


def test_only_a_verdict_or_an_operator_releases() -> None:
    for row in TABLE:
        if row.target is State.RELEASING and (row.source is None or not row.source.is_decided):
            assert row.by in (By.VERIFIER, By.OPERATOR)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_leads_out_of_a_final_state(state: State) -> None:
    assert moves_from(state) == ()


def test_every_state_can_be_reached() -> None:
    assert reachable(State.FUNDED, frozenset(By)) == set(State)
    assert {row.target for row in moves_from(None)} == {State.FUNDED}


def test_a_clock_has_a_timer_and_nothing_else_has() -> None:
    for row in TABLE:
        assert (row.timer is not None) == (row.by is By.CLOCK)


def test_every_row_does_something_to_the_bond_that_the_bond_knows() -> None:
    """Follow each path through both tables at once: no capture moves to where its bond cannot follow."""
    seen: set[tuple[State, BondState]] = set()
    todo = [(State.FUNDED, BondState.RESERVED)]
    while todo:
        state, bond = todo.pop()
        if (state, bond) in seen:
            continue
        seen.add((state, bond))
        for row in moves_from(state):
            if row.bond is BondEvent.KEEP:
                todo.append((row.target, bond))
                continue
            bond_row = bond_move(bond, row.bond)
            assert bond_row is not None, f"{state} -{row.event}-> {row.target}: a bond that is {bond}"
            todo.append((row.target, bond_row.target))
    ends = {bond for state, bond in seen if state in FINAL}
    assert BondState.RESERVED not in ends
    assert {bond for state, bond in seen if state is State.RELEASED} == {BondState.FREE}
    assert {bond for state, bond in seen if state is State.DISPUTED} == {BondState.FROZEN}


def test_a_bond_becomes_free_or_slashed_and_stays_so() -> None:
    assert bond_move(BondState.FROZEN, BondEvent.FREEZE_DEADLINE) is not None
    for row in BOND_TABLE:
        assert row.source not in (BondState.FREE, BondState.SLASHED)
        assert (row.target is BondState.SLASHED) == (row.event is BondEvent.SLASH)


def test_lookups_agree_with_the_table() -> None:
    for row in TABLE:
        assert move(row.source, row.event) is row
    for bond_row in BOND_TABLE:
        assert bond_move(bond_row.source, bond_row.event) is bond_row
    possible = {(row.source, row.event) for row in TABLE}
    for state in State:
        for event in {row.event for row in TABLE}:
            assert (move(state, event) is not None) == ((state, event) in possible)


@pytest.mark.parametrize(
    ("state", "timers"),
    [
        (State.FUNDED, {Timer.CLAIM}),
        (State.VERIFYING, {Timer.LEASE, Timer.VERIFICATION}),
        (State.RELEASING, set()),
        (State.REFUNDED, set()),
    ],
)
def test_timers_of_a_state(state: State, timers: set[Timer]) -> None:
    assert set(timers_of(state)) == timers


def test_a_transcript_takes_a_bond_wherever_it_still_lies() -> None:
    for state in (BondState.FROZEN, BondState.UNBONDING):
        row = bond_move(state, BondEvent.SLASH)
        assert row is not None
        assert row.target is BondState.SLASHED


def states_in_words() -> Iterator[str]:
    yield "| from | event | to | by | guard | timer | bond |"
    yield "|---|---|---|---|---|---|---|"
    for row in TABLE:
        timer = "" if row.timer is None else row.timer
        source = row.source or "–"
        yield f"| {source} | {row.event} | {row.target} | {row.by} | {row.guard} | {timer} | {row.bond} |"


def bonds_in_words() -> Iterator[str]:
    yield "| from | event | to | when | timer |"
    yield "|---|---|---|---|---|"
    for row in BOND_TABLE:
        timer = "" if row.timer is None else row.timer
        yield f"| {row.source or '–'} | {row.event} | {row.target} | {row.guard} | {timer} |"


def test_the_format_page_holds_both_tables_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs/formats/escrow.md").read_text()
    assert "\n".join(states_in_words()) in page
    assert "\n".join(bonds_in_words()) in page
