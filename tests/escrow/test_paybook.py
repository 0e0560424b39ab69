"""Payments of another protocol: answered once, settled once, whoever asks, over both drivers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from escrow_builders import START, Scene, digest_of, refused
from proofhold.escrow import Refused
from proofhold.escrow.paybook import SETTLING_LEASE_S, GatedPayment, PaymentBook, Status
from stores import INTEGRITY, Store

PAYMENT, BINDING, JOB = "a-payment-identifier", digest_of("binding"), digest_of("job")


@pytest.fixture
def book(scene: Scene) -> PaymentBook:
    return PaymentBook(scene.escrow.store)


def decide(book: PaymentBook, outcome: str = "release", *, job: str = JOB) -> GatedPayment:
    named = {"job": job, "seq": 0, "outcome": outcome, "amount": 5, "receipt": b"r"}
    return book.decide(PAYMENT, BINDING, now=START, **named)  # type: ignore[arg-type]


def settle(book: PaymentBook, *, now: int = START) -> GatedPayment:
    return book.begin_settling(PAYMENT, BINDING, 5, now=now)


def test_it_is_in_one_hand_at_a_time(book: PaymentBook) -> None:
    opened = book.open(PAYMENT, BINDING, now=START, lease_s=10)
    assert (opened.status, opened.lease_end) == (Status.OPEN, START + 10)
    with refused("payment.in_progress"):
        book.open(PAYMENT, BINDING, now=START + 9, lease_s=10)
    book.open(PAYMENT, BINDING, now=START + 10, lease_s=10)
    book.give_back(PAYMENT, now=START + 10)
    book.open(PAYMENT, BINDING, now=START + 10, lease_s=10)
    with refused("payment.mismatch"):
        book.open(PAYMENT, digest_of("another"), now=START + 99, lease_s=10)


def test_a_deposit_is_in_one_hand_and_answering_takes_it_over(book: PaymentBook) -> None:
    assert book.open(PAYMENT, BINDING, now=START, lease_s=10, deposit=True).status is Status.DEPOSITING
    with refused("payment.in_progress"):
        book.open(PAYMENT, BINDING, now=START, lease_s=10, deposit=True)
    assert book.open(PAYMENT, BINDING, now=START, lease_s=10).status is Status.OPEN
    for deposit in (True, False):
        with refused("payment.in_progress"):
            book.open(PAYMENT, BINDING, now=START, lease_s=10, deposit=deposit)


def test_sixteen_who_settle_at_once_are_one(book: PaymentBook) -> None:
    decide(book)

    def attempt(_: int) -> str:
        try:
            return settle(book).status
        except Refused as refusal:
            return refusal.code

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert sorted(outcomes) == ["payment.in_progress"] * 15 + [Status.SETTLING]


def test_sixteen_who_open_at_once_are_one(book: PaymentBook) -> None:
    def attempt(_: int) -> str:
        try:
            return book.open(PAYMENT, BINDING, now=START, lease_s=10).status
        except Refused as refusal:
            return refusal.code

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert sorted(outcomes) == [Status.OPEN] + ["payment.in_progress"] * 15


def test_what_settled_stays_settled(book: PaymentBook, store: Store) -> None:
    decide(book)
    settle(book)
    book.end_settling(PAYMENT, Status.SETTLED, reference="0x1", now=START)
    book.end_settling(PAYMENT, Status.UNKNOWN, reference="", now=START)
    again = settle(book, now=START + 10**6)
    assert (again.status, again.reference) == (Status.SETTLED, "0x1")
    for statement in ("UPDATE gated_payment SET status = 'open'", "DELETE FROM gated_payment"):
        with pytest.raises(INTEGRITY):
            store.alter(statement)


def test_silence_becomes_unknown_and_waits_for_somebody_who_knows(book: PaymentBook) -> None:
    decide(book)
    settle(book)
    late = START + SETTLING_LEASE_S
    with refused("payment.in_progress"):
        settle(book, now=late - 1)
    for _ in range(2):
        with refused("payment.settlement_unknown"):
            settle(book, now=late)
    assert [payment.status for payment in book.unsettled(now=late)] == [Status.UNKNOWN]
    book.end_settling(PAYMENT, Status.FAILED, reference="", now=late)
    with refused("payment.failed"):
        settle(book, now=late)
    assert book.unsettled(now=late) == ()


def test_without_a_verdict_for_it_nothing_settles(book: PaymentBook) -> None:
    with refused("payment.no_verdict"):
        settle(book)
    book.open(PAYMENT, BINDING, now=START, lease_s=10)
    with refused("payment.no_verdict"):
        settle(book)
    decide(book, "keep")
    with refused("payment.refused"):
        settle(book)
    decide(book)
    with refused("payment.amount"):
        book.begin_settling(PAYMENT, BINDING, 6, now=START)
    with refused("payment.decided"):
        decide(book, "refund")
    with refused("payment.reused_verdict"):
        named = {"job": JOB, "seq": 0, "outcome": "release", "amount": 5, "receipt": b"r"}
        book.decide("another-identifier", BINDING, now=START, **named)  # type: ignore[arg-type]
    with refused("payment.unknown"):
        book.end_settling("another-identifier", Status.SETTLED, reference="", now=START)


def test_a_refusal_is_for_good(book: PaymentBook) -> None:
    book.open(PAYMENT, BINDING, now=START, lease_s=10)
    assert decide(book, "dispute").status is Status.REFUSED
    assert book.open(PAYMENT, BINDING, now=START + 99, lease_s=10).status is Status.REFUSED
    with refused("payment.refused"):
        settle(book)


def test_the_first_answer_is_kept(book: PaymentBook) -> None:
    book.open(PAYMENT, BINDING, now=START, lease_s=10)
    book.keep_answer(PAYMENT, b"one")
    book.keep_answer(PAYMENT, b"two")
    found = book.find(PAYMENT)
    assert found is not None
    assert found.answer == b"one"
