"""The audit finds what somebody changed behind the escrow's back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from escrow_builders import START, Scene
from proofhold.escrow import Difference, LedgerRail, Ruling
from stores import SqliteStore, Store


@pytest.fixture
def busy(store: Store) -> Iterator[Scene]:
    """A scene with a hold in every kind of state. (Not `scene`: its books are broken here.)"""
    scene = Scene.create(store)
    scene.apply(scene.claimed(), Ruling.RELEASE)
    scene.escrow.pump(LedgerRail(), now=START)
    scene.apply(scene.claimed(), Ruling.RELEASE)
    scene.apply(scene.claimed(), Ruling.REFUND)
    scene.apply(scene.claimed(), Ruling.DISPUTE)
    scene.claimed()
    scene.fund()
    yield scene
    scene.escrow.close()


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ("UPDATE account SET balance = balance + 1 WHERE kind = 'party'", "account"),
        ("UPDATE account SET balance = balance + 1 WHERE kind = 'outside'", "currency"),
        ("UPDATE account SET balance = balance - 1 WHERE kind = 'hold' AND balance > 0", "hold"),
        ("UPDATE account SET balance = balance - 1 WHERE kind = 'bond' AND balance > 0", "bond"),
        ("INSERT INTO transfer (key, at) VALUES ('mine', 1)", "transfer"),
        ("UPDATE entry SET amount = amount + 1 WHERE amount > 0", "transfer"),
        ("DELETE FROM entry WHERE transfer = (SELECT min(id) FROM transfer) AND amount > 0", "transfer"),
        ("UPDATE capture SET state = 'releasing' WHERE state = 'claimed'", "capture"),
        ("UPDATE hold SET bond_state = 'free' WHERE bond_state = 'frozen'", "bond"),
        ("DELETE FROM transition WHERE event = 'claim'", "capture"),
        ("DELETE FROM transition WHERE event = 'dispute'", "capture"),
        ("UPDATE transition SET event = 'fund' WHERE event = 'claim'", "capture"),
        ("UPDATE transition SET event = 'magic' WHERE event = 'claim'", "capture"),
        ("UPDATE transition SET seq = 3 WHERE event = 'fund'", "capture"),
        ("DELETE FROM outbox", "transition"),
        ("DELETE FROM payment WHERE status = 'new'", "capture"),
        ("UPDATE payment SET amount = amount - 1 WHERE status = 'new'", "capture"),
        ("UPDATE payment SET direction = 'refund' WHERE status = 'new'", "capture"),
        ("UPDATE payment SET status = 'paid' WHERE status = 'new'", "payment"),
        ("UPDATE payment SET reference = NULL WHERE status = 'paid'", "payment"),
    ],
)
def test_a_change_is_found(busy: Scene, store: Store, change: str, subject: str) -> None:
    assert busy.escrow.audit() == ()
    assert store.tamper(change)
    found = busy.escrow.audit()
    assert any(difference.subject.startswith(subject) for difference in found), found
    assert all(isinstance(difference, Difference) and difference.message for difference in found)


def test_a_row_that_refers_to_nothing_is_found(folder: Path) -> None:
    store = SqliteStore(folder)
    with Scene.create(store).escrow as escrow:
        assert store.tamper("INSERT INTO one_use VALUES ('x', 'no hold', 0)")
        assert [difference.subject for difference in escrow.audit()] == ["table one_use"]
