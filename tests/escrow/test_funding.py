"""Money in, and jobs funded: every refusal by its code, and nothing moved by one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from escrow_builders import (
    BOND,
    BUYER,
    CLAIM_S,
    PRICE,
    PROVIDER,
    START,
    STRANGER,
    USDC,
    Scene,
    digest_of,
    make_job,
    refused,
    sign_job,
)
from proofhold.core import Fault
from proofhold.errors import Malformed, Misuse
from proofhold.escrow import AccountKind, BondState, State
from proofhold.keys import Signed
from proofhold.money import Currency
from stores import make_store


def test_funding_moves_price_and_bond(scene: Scene) -> None:
    before = scene.amounts()
    hold = scene.fund()
    assert hold.id == hold.job.digest
    assert hold.capture(0).state is State.FUNDED
    assert hold.capture(0).due == START + CLAIM_S + 1
    assert (hold.bond.state, hold.bond.amount, hold.bond.due) == (BondState.RESERVED, BOND, None)
    assert hold.statement(0) is None
    assert scene.amount(BUYER.public) == before[BUYER.public] - PRICE
    assert scene.amount(PROVIDER.public) == before[PROVIDER.public] - BOND
    assert scene.amount(hold.id, AccountKind.HOLD) == PRICE
    assert scene.amount(hold.id, AccountKind.BOND) == BOND
    assert scene.escrow.hold(hold.id) == hold


def test_a_job_without_a_bond_funds(scene: Scene) -> None:
    hold = scene.fund(bond=0, withholding_penalty=0)
    assert hold.bond.state is BondState.RESERVED
    assert scene.amount(hold.id, AccountKind.BOND) == 0


@pytest.mark.parametrize(
    ("changes", "code", "fault"),
    [
        ({"escrow": "another-escrow"}, "job.escrow", None),
        ({"claim_by": START - 1}, "escrow.too_late", Fault.BUYER),
        ({"captures": 10_001}, "job.captures", None),
        ({"captures": 2}, "job.captures_sampled", None),
        ({"price": 0}, "job.price", Fault.BUYER),
        ({"withholding_penalty": BOND + 1}, "job.penalty", None),
        ({"sampling_commitment": digest_of("mine")}, "job.commitment", None),
        ({"nonce": "ab" * 32}, "job.commitment", None),
        ({"currency": Currency("USDC", 18)}, "escrow.currency", None),
        ({"currency": Currency("EURC", 6)}, "escrow.currency", None),
        ({"price": 100 * PRICE + 1}, "escrow.balance", Fault.BUYER),
        ({"bond": 100 * BOND + 1}, "escrow.balance", Fault.PROVIDER),
        ({"buyer": STRANGER.public}, "job.signature", None),
    ],
)
def test_refusals(scene: Scene, changes: dict[str, Any], code: str, fault: Fault | None) -> None:
    job, before = scene.draft(**changes), scene.escrow.balances()
    with refused(code, fault):
        scene.escrow.fund(job, now=START)
    assert scene.escrow.balances() == before
    with refused("escrow.unknown_hold"):
        scene.escrow.hold(job.digest)


def test_the_last_second_of_the_claim_deadline_still_funds(scene: Scene) -> None:
    assert scene.fund(claim_by=START).capture(0).state is State.FUNDED


@pytest.mark.parametrize("signers", [(), (BUYER,), (PROVIDER,), (BUYER, PROVIDER, STRANGER)])
def test_both_signatures_and_no_others(scene: Scene, signers: tuple[Any, ...]) -> None:
    job = scene.draft().document
    with refused("job.signature"):
        scene.escrow.fund(Signed.new(job, *signers), now=START)


def test_a_job_is_funded_once(scene: Scene) -> None:
    job = scene.draft()
    hold = scene.escrow.fund(job, now=START)
    with refused("escrow.already_funded"):
        scene.escrow.fund(job, now=START)
    scene.escrow.run_timers(START + 10_000)
    with refused("escrow.already_funded"):
        scene.escrow.fund(job, now=START)
    assert scene.escrow.hold(hold.id).job == job


def test_a_commitment_serves_one_hold(scene: Scene) -> None:
    """Else one job's reveal would foretell the other's draw."""
    first = scene.fund().job.document
    again = make_job(first.sampling_commitment, bytes.fromhex(first.nonce), input=digest_of("other input"))
    with refused("job.commitment_used"):
        scene.escrow.fund(sign_job(again), now=START)


def test_a_secret_is_drawn_once_a_nonce(scene: Scene) -> None:
    one, other = (hashlib.sha256(text).digest() for text in (b"one", b"other"))
    assert scene.escrow.draw_secret(one) == scene.escrow.draw_secret(one)
    assert scene.escrow.draw_secret(one) != scene.escrow.draw_secret(other)
    with pytest.raises(Misuse):
        scene.escrow.draw_secret(b"short")


def test_an_object_that_says_other_than_its_bytes_is_misuse(scene: Scene) -> None:
    signed, cheaper = scene.draft(), scene.draft(price=1)
    with pytest.raises(Misuse):
        scene.escrow.fund(Signed(cheaper.document, signed.envelope), now=START)
    with pytest.raises(Malformed):
        scene.escrow.fund(scene.draft(payee="no account, this"), now=START)


def test_a_deposit_counts_once_under_its_key(scene: Scene) -> None:
    balance = scene.escrow.deposit("alice", 7, USDC, key="one", now=START)
    assert balance.amount == 7
    assert scene.escrow.deposit("alice", 7, USDC, key="one", now=START + 5).amount == 7
    assert scene.escrow.deposit("alice", 7, USDC, key="two", now=START).amount == 14
    for account, amount in (("alice", 8), ("bob", 7)):
        with refused("escrow.key_reused"):
            scene.escrow.deposit(account, amount, USDC, key="one", now=START)


def test_a_withdrawal_takes_what_is_available(scene: Scene) -> None:
    scene.escrow.deposit("alice", 7, USDC, key="in", now=START)
    assert scene.escrow.withdraw("alice", 5, USDC, key="out", now=START).amount == 2
    assert scene.escrow.withdraw("alice", 5, USDC, key="out", now=START).amount == 2
    with refused("escrow.balance"):
        scene.escrow.withdraw("alice", 3, USDC, key="more", now=START)


@pytest.mark.parametrize(("driver", "most"), [("sqlite", 2**63 - 1), ("postgres", 10**78 - 1)])
def test_the_ledger_stays_within_its_integers(folder: Path, driver: str, most: int) -> None:
    eur = Currency("EURC", 6)
    with make_store(driver, folder) as store, Scene.create(store).escrow as escrow:
        assert escrow.deposit("alice", most, eur, key="all", now=START).amount == most
        for account in ("alice", "bob"):
            with refused("escrow.amount"):
                escrow.deposit(account, 1, eur, key="more", now=START)
        with refused("escrow.amount"):
            escrow.deposit("bob", 2**300, USDC, key="more", now=START)
        assert [b.amount for b in escrow.balances() if b.currency == eur] == [-most, most]
        assert escrow.audit() == ()


@pytest.mark.parametrize("field", ["price", "bond"])
def test_what_sqlite_cannot_count_is_not_funded(folder: Path, field: str) -> None:
    scene = Scene.create(folder)
    with refused("escrow.amount"):
        scene.fund(**{field: 2**63})
    scene.escrow.close()


def test_a_currency_has_one_exponent(scene: Scene) -> None:
    with refused("escrow.currency"):
        scene.escrow.deposit("alice", 1, Currency("USDC", 2), key="x", now=START)


@pytest.mark.parametrize(
    ("account", "amount", "key", "now"),
    [
        ("no account, this", 1, "k", START),
        ("", 1, "k", START),
        ("alice", 0, "k", START),
        ("alice", -1, "k", START),
        ("alice", 1, "", START),
        ("alice", 1, "k" * 129, START),
        ("alice", 1, "k", -1),
        ("alice", 1, "k", 2**60),
    ],
)
def test_a_senseless_deposit_is_misuse(scene: Scene, account: str, amount: int, key: str, now: int) -> None:
    with pytest.raises(Misuse):
        scene.escrow.deposit(account, amount, USDC, key=key, now=now)


def test_a_payee_cannot_pose_as_another_kind_of_account(scene: Scene) -> None:
    """Account names are pairs, so a payee called like a hold is a party like any other."""
    hold = scene.fund()
    scene.escrow.deposit(hold.id, 5, USDC, key="pose", now=START)
    assert scene.amount(hold.id, AccountKind.HOLD) == PRICE
    assert scene.amount(hold.id, AccountKind.PARTY) == 5
