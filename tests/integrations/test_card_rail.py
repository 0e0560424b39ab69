"""Card payments that are captured by hand, over real HTTP against a processor of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from escrow_builders import (
    BUYER,
    OUTPUT,
    PAYEE,
    PRICE,
    START,
    Scene,
    make_claim,
    memory_folder,
    refused,
)
from proofhold.canonical import Digest
from proofhold.core import Fault
from proofhold.errors import Misuse
from proofhold.escrow import Direction, HoldRecord, PaymentKey, Pumped, RailUnknown, Ruling
from proofhold.integrations.card_rail import (
    AUTHORIZATION_S,
    CardAuthorization,
    CardExpired,
    ManualCaptureRail,
    latest_decision,
    require_outlives,
)
from proofhold.job import Fee, SignedJob
from simulated_cards import SECRET_KEY, SimulatedProcessor, processing
from stores import SqliteStore


@dataclass
class Till:
    """An escrow whose payments go over cards."""

    scene: Scene
    processor: SimulatedProcessor
    client: httpx.Client
    orders: dict[Digest, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rail = ManualCaptureRail(self.client, self.orders.__getitem__)

    def authorized(self, **changes: Any) -> SignedJob:
        job = self.scene.draft(**changes)
        self.orders[job.digest] = self.rail.authorize(job, payment_method="pm_good").intent
        return job

    def decided(self, ruling: Ruling = Ruling.RELEASE, *, claimed: int = PRICE) -> HoldRecord:
        job = self.authorized()
        hold = self.scene.escrow.fund(job, now=START)
        self.scene.escrow.record_claim(make_claim(job, amount=claimed), OUTPUT, now=START)
        self.scene.apply(hold, ruling)
        return hold

    def pump(self, *script: str) -> Pumped:
        self.processor.script = list(script)
        return self.scene.escrow.pump(self.rail, now=START)

    def intent(self, hold: HoldRecord) -> dict[str, Any]:
        return self.processor.intents[self.orders[hold.id]]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[SimulatedProcessor, str]]:
    with processing(START) as served:
        yield served


@pytest.fixture
def till(served: tuple[SimulatedProcessor, str]) -> Iterator[Till]:
    processor, address = served
    processor.__init__(START)  # type: ignore[misc]
    with memory_folder() as folder, httpx.Client(base_url=address, auth=(SECRET_KEY, "")) as client:
        scene = Scene.create(SqliteStore(Path(folder)))
        yield Till(scene, processor, client)
        assert scene.escrow.audit() == ()
        scene.escrow.close()


def test_a_release_captures(till: Till) -> None:
    hold = till.decided()
    assert till.pump() == Pumped(1, 0)
    assert till.scene.state(hold) == "released"
    assert (till.intent(hold)["status"], till.processor.captures) == ("succeeded", [("pi_1", PRICE)])


def test_a_refund_cancels(till: Till) -> None:
    hold = till.decided(Ruling.REFUND)
    assert till.pump() == Pumped(1, 0)
    assert till.scene.state(hold) == "refunded"
    assert (till.intent(hold)["status"], till.processor.captures) == ("canceled", [])


def test_a_partial_capture_gives_the_rest_back_by_itself(till: Till) -> None:
    hold = till.decided(claimed=PRICE // 4)
    while till.scene.state(hold) != "released":
        till.pump()
    assert till.processor.captures == [("pi_1", PRICE // 4)]
    returned = till.rail.query(PaymentKey(hold.id, 0, Direction.REFUND))
    assert returned is not None
    assert (returned.amount, returned.account) == (PRICE - PRICE // 4, BUYER.public)


def test_a_remainder_is_never_given_back_before_the_rest_is_captured(till: Till) -> None:
    hold = till.decided(claimed=PRICE // 4)
    with pytest.raises(RailUnknown, match="once the rest is captured"):
        till.rail.pay(PaymentKey(hold.id, 0, Direction.REFUND), PRICE - PRICE // 4, "USDC", BUYER.public)
    assert till.intent(hold)["status"] == "requires_capture"


@pytest.mark.parametrize("script", [("ok", "late"), ("ok", "lost"), ("lost",), ("busy",), ("ok", "busy")])
@pytest.mark.parametrize("ruling", [Ruling.RELEASE, Ruling.REFUND])
def test_whatever_gets_lost_it_is_paid_once(till: Till, script: tuple[str, ...], ruling: Ruling) -> None:
    hold = till.decided(ruling)
    assert till.pump(*script) == Pumped(0, 1)
    assert till.scene.state(hold).startswith("reconcile_")
    assert till.pump() == Pumped(1, 0)
    assert till.scene.state(hold) == ("released" if ruling is Ruling.RELEASE else "refunded")
    assert till.processor.captures == ([("pi_1", PRICE)] if ruling is Ruling.RELEASE else [])


def test_an_answer_that_was_lost_is_asked_for_and_not_captured_again(till: Till) -> None:
    till.decided()
    till.pump("ok", "late")
    till.processor.requests.clear()
    till.pump()
    assert till.processor.requests == ["GET /v1/payment_intents/pi_1"]


def test_an_authorization_ends_after_seven_days(till: Till) -> None:
    hold, refund = till.decided(), till.decided(Ruling.REFUND)
    till.processor.now += AUTHORIZATION_S
    with pytest.raises(CardExpired):
        till.rail.pay(PaymentKey(hold.id, 0, Direction.RELEASE), PRICE, "USDC", PAYEE)
    assert till.pump() == Pumped(1, 1)
    assert (till.scene.state(hold), till.scene.state(refund)) == ("reconcile_release", "refunded")
    assert till.intent(refund)["cancellation_reason"] == "automatic"


def test_a_job_that_outlives_its_authorization_is_refused(till: Till) -> None:
    job = till.scene.draft()
    end = latest_decision(job.document)
    require_outlives(CardAuthorization("pi_1", PRICE, "USDC", end + 1), job)
    with refused("card.expires", Fault.BUYER):
        require_outlives(CardAuthorization("pi_1", PRICE, "USDC", end), job)
    made = till.rail.authorize(job, payment_method="pm_good")
    assert made == CardAuthorization("pi_1", PRICE, "USDC", START + AUTHORIZATION_S)


def test_authorizing_twice_is_once(till: Till) -> None:
    job = till.scene.draft()
    first = till.rail.authorize(job, payment_method="pm_good")
    assert till.rail.authorize(job, payment_method="pm_good") == first
    assert len(till.processor.intents) == 1
    with pytest.raises(RailUnknown, match="idempotency_key_reused"):
        till.rail.authorize(job, payment_method="pm_another")


def test_a_declined_card_is_the_buyers_fault(till: Till) -> None:
    with refused("card.declined", Fault.BUYER):
        till.rail.authorize(till.scene.draft(), payment_method="pm_declined")
    for changes in ({"captures": 2}, {"fee": Fee(ppm=1, account="protocol")}):
        with refused("card.split"):
            till.rail.authorize(till.scene.draft(**changes), payment_method="pm_good")
    with refused("card.amount"):
        till.rail.authorize(till.scene.draft(price=10**9), payment_method="pm_good")


def test_an_intent_of_another_hold_pays_nothing(till: Till) -> None:
    first, second = till.decided(), till.decided()
    till.orders[second.id] = till.orders[first.id]
    with pytest.raises(Misuse, match="not authorized for the hold"):
        till.rail.query(PaymentKey(second.id, 0, Direction.RELEASE))


def test_it_pays_what_was_authorized_to_whom_it_was_and_once(till: Till) -> None:
    hold = till.decided()
    key = PaymentKey(hold.id, 0, Direction.RELEASE)
    for amount, currency, account in (
        (PRICE + 1, "USDC", PAYEE),
        (PRICE, "EUR", PAYEE),
        (PRICE, "USDC", "somebody-else"),
    ):
        with pytest.raises(Misuse):
            till.rail.pay(key, amount, currency, account)
    assert till.rail.query(key) is None
    receipt = till.rail.pay(key, PRICE, "USDC", PAYEE)
    assert receipt == till.rail.pay(key, PRICE, "USDC", PAYEE) == till.rail.query(key)
    with pytest.raises(Misuse, match="moved 1000, not 999"):
        till.rail.pay(key, PRICE - 1, "USDC", PAYEE)
    with pytest.raises(Misuse, match="seq 0"):
        till.rail.query(PaymentKey(hold.id, 1, Direction.RELEASE))
    assert till.processor.captures == [("pi_1", PRICE)]


def test_a_processor_that_cannot_be_reached_or_does_not_know_us_is_unknown(till: Till) -> None:
    hold = till.decided()
    key = PaymentKey(hold.id, 0, Direction.RELEASE)
    address = str(till.client.base_url)
    with (
        httpx.Client(base_url=address, auth=("sk_wrong", "")) as stranger,
        pytest.raises(RailUnknown, match="401: unauthorized"),
    ):
        ManualCaptureRail(stranger, till.orders.__getitem__).query(key)
    with (
        httpx.Client(base_url="http://127.0.0.1:9") as nobody,
        pytest.raises(RailUnknown, match="ConnectError"),
    ):
        ManualCaptureRail(nobody, till.orders.__getitem__).query(key)
