"""P6: what may serve once serves one capture, whether it was known at the claim or at the verdict."""

from __future__ import annotations

import pytest

from escrow_builders import OUTPUT, START, Scene, digest_of, make_claim, refused
from proofhold.canonical import Digest
from proofhold.core import Fault
from proofhold.escrow import HoldRecord, Ruling, State

SERVED_ONCE = digest_of("a signed response")


def settle(scene: Scene, hold: HoldRecord, *digests: Digest, ruling: Ruling = Ruling.RELEASE) -> State:
    applied = scene.escrow.apply(
        hold.id,
        0,
        ruling,
        receipt_digest=digest_of(f"receipt of {hold.id}"),
        receipt=b"a receipt",
        now=START + 1,
        one_use=digests,
    )
    return applied.state


def test_a_second_hold_cannot_rest_on_what_released_the_first(scene: Scene) -> None:
    first, second = scene.claimed(), scene.claimed()
    assert settle(scene, first, SERVED_ONCE) is State.RELEASING
    with refused("claim.reused_evidence", Fault.PROVIDER):
        settle(scene, second, SERVED_ONCE)
    assert scene.state(second) == "claimed"
    assert scene.escrow.audit() == ()


def test_nor_on_what_was_taken_with_another_claim(scene: Scene) -> None:
    first, second = scene.fund(), scene.claimed()
    scene.escrow.record_claim(make_claim(first.job), OUTPUT, now=START, one_use=[SERVED_ONCE])
    with refused("claim.reused_evidence", Fault.PROVIDER):
        settle(scene, second, SERVED_ONCE)
    assert settle(scene, first, SERVED_ONCE) is State.RELEASING


@pytest.mark.parametrize("ruling", [Ruling.REFUND, Ruling.DISPUTE])
def test_a_ruling_that_does_not_pay_uses_nothing_up(scene: Scene, ruling: Ruling) -> None:
    first, second = scene.claimed(), scene.claimed()
    settle(scene, first, SERVED_ONCE, ruling=ruling)
    assert settle(scene, second, SERVED_ONCE) is State.RELEASING
