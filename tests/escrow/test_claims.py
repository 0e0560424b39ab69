"""Claims, declines and the reveal: PROTOCOL P1, P2, P5, P6, P10."""

from __future__ import annotations

from typing import Any

import pytest

from escrow_builders import (
    BUYER,
    CLAIM_S,
    OTHER_OUTPUT,
    OUTPUT,
    PRICE,
    PROVIDER,
    START,
    STRANGER,
    VERIFICATION_S,
    Scene,
    digest_of,
    make_claim,
    make_decline,
    refused,
)
from proofhold.core import Fault, Statement
from proofhold.escrow import BondState, Ruling, State
from proofhold.job import Delivery, NamedEvidence
from proofhold.keys import Signed
from proofhold.sampling import commitment


def test_a_claim_is_recorded_with_its_time(scene: Scene) -> None:
    hold = scene.fund()
    claim = make_claim(hold.job, evidence=(NamedEvidence(kind="ezkl", digest=digest_of("proof")),))
    recorded = scene.escrow.record_claim(claim, OUTPUT, now=START + 7)
    capture = recorded.capture(0)
    assert (capture.state, capture.claim, capture.claimed_at) == (State.CLAIMED, claim, START + 7)
    assert capture.due == START + 7 + VERIFICATION_S
    assert recorded.bond.state is BondState.RESERVED
    job = hold.job.document
    assert recorded.statement(0) == Statement(hold.id, 0, PRICE, job.input, claim.document.output)
    assert (recorded.verifier, recorded.policy) == (job.verifier, job.policy)


def test_the_secret_is_revealed_after_the_claim_only(scene: Scene) -> None:
    hold = scene.fund()
    with refused("escrow.not_claimed"):
        scene.escrow.reveal(hold.id, 0)
    scene.escrow.record_claim(make_claim(hold.job), OUTPUT, now=START)
    job = hold.job.document
    assert commitment(bytes.fromhex(job.nonce), scene.escrow.reveal(hold.id, 0)) == job.sampling_commitment
    with refused("escrow.unknown_capture"):
        scene.escrow.reveal(hold.id, 1)
    with refused("escrow.unknown_capture"):
        scene.escrow.reveal(hold.id, 2**70)
    with refused("escrow.unknown_hold"):
        scene.escrow.reveal(digest_of("nothing"), 0)


@pytest.mark.parametrize("end", ["decline", "expiry"])
def test_a_hold_that_ends_unclaimed_never_reveals(scene: Scene, end: str) -> None:
    hold = scene.fund()
    if end == "decline":
        scene.escrow.decline(make_decline(hold.job), now=START)
    else:
        scene.escrow.run_timers(START + CLAIM_S + 1)
    with refused("escrow.not_claimed"):
        scene.escrow.reveal(hold.id, 0)


@pytest.mark.parametrize(
    ("changes", "code", "fault"),
    [
        ({"key": STRANGER}, "claim.signature", Fault.NOBODY),
        ({"key": BUYER}, "claim.signature", Fault.NOBODY),
        ({"job": digest_of("another job")}, "escrow.unknown_hold", None),
        ({"seq": 1}, "escrow.unknown_capture", None),
        ({"amount": PRICE + 1}, "claim.amount", Fault.PROVIDER),
        ({"amount": 0}, "claim.amount", Fault.PROVIDER),
        ({"amount": 10**70}, "claim.amount", Fault.PROVIDER),
        ({"output": OTHER_OUTPUT}, "claim.output", Fault.NOBODY),
        (
            {"evidence": (NamedEvidence(kind="nitro", digest=digest_of("x")),)},
            "claim.evidence_kind",
            Fault.PROVIDER,
        ),
    ],
)
def test_refusals_leave_the_hold_as_it_is(
    scene: Scene, changes: dict[str, Any], code: str, fault: Fault | None
) -> None:
    hold = scene.fund()
    with refused(code, fault):
        scene.escrow.record_claim(make_claim(hold.job, **changes), OUTPUT, now=START)
    assert scene.escrow.hold(hold.id) == hold


def test_an_unsigned_claim_and_one_signed_twice_over_are_dropped(scene: Scene) -> None:
    hold = scene.fund()
    claim = make_claim(hold.job).document
    for signed in (Signed.new(claim), Signed.new(claim, PROVIDER, STRANGER)):
        with refused("claim.signature"):
            scene.escrow.record_claim(signed, OUTPUT, now=START)


def test_a_claim_of_the_last_second_counts_and_one_later_does_not(scene: Scene) -> None:
    one, other = scene.fund(), scene.fund()
    deadline = START + CLAIM_S
    with refused("escrow.too_late", Fault.PROVIDER):
        scene.escrow.record_claim(make_claim(one.job), OUTPUT, now=deadline + 1)
    assert scene.escrow.run_timers(deadline) == ()
    scene.escrow.record_claim(make_claim(other.job), OUTPUT, now=deadline)
    scene.escrow.run_timers(deadline + 1)
    assert (scene.state(one), scene.state(other)) == ("refunding", "claimed")
    with refused("escrow.too_late"):
        scene.escrow.record_claim(make_claim(one.job), OUTPUT, now=deadline + 1)


def test_the_same_claim_again_is_the_same_claim(scene: Scene) -> None:
    hold = scene.claimed()
    again = scene.escrow.record_claim(make_claim(hold.job), OUTPUT, now=START + 50)
    assert again == hold


@pytest.mark.parametrize("after", ["claimed", "released"])
def test_two_outputs_are_equivocation_and_kept(scene: Scene, after: str) -> None:
    hold = scene.claimed()
    if after == "released":
        scene.apply(hold, Ruling.RELEASE)
    held = scene.escrow.hold(hold.id)
    for second in (
        make_claim(hold.job, output=OTHER_OUTPUT),
        make_claim(hold.job, trace_root=digest_of("root")),
        make_claim(hold.job, output=OTHER_OUTPUT),
    ):
        with refused("claim.equivocation", Fault.PROVIDER):
            scene.escrow.record_claim(second, OTHER_OUTPUT, now=START + CLAIM_S + 9)
    assert scene.escrow.hold(hold.id) == held
    assert scene.escrow.equivocation(hold.id, 0) == make_claim(hold.job, output=OTHER_OUTPUT)


def test_an_unsigned_contradiction_is_nobodys(scene: Scene) -> None:
    hold = scene.claimed()
    with refused("claim.signature"):
        scene.escrow.record_claim(
            make_claim(hold.job, output=OTHER_OUTPUT, key=STRANGER), OTHER_OUTPUT, now=START
        )
    assert scene.escrow.equivocation(hold.id, 0) is None


def test_another_proof_of_the_same_output_is_no_equivocation(scene: Scene) -> None:
    hold = scene.claimed()
    other = make_claim(hold.job, evidence=(NamedEvidence(kind="ezkl", digest=digest_of("other proof")),))
    with refused("claim.already_recorded", Fault.PROVIDER):
        scene.escrow.record_claim(other, OUTPUT, now=START)
    assert scene.escrow.equivocation(hold.id, 0) is None


def test_what_serves_once_serves_once(scene: Scene) -> None:
    one, other = scene.fund(), scene.fund()
    quote = digest_of("an attestation")
    scene.escrow.record_claim(make_claim(one.job), OUTPUT, now=START, one_use=[quote, quote])
    scene.escrow.record_claim(make_claim(one.job), OUTPUT, now=START, one_use=[quote])
    with refused("claim.reused_evidence", Fault.PROVIDER):
        scene.escrow.record_claim(make_claim(other.job), OUTPUT, now=START, one_use=[digest_of("new"), quote])
    assert scene.state(other) == "funded"
    scene.escrow.record_claim(make_claim(other.job), OUTPUT, now=START, one_use=[digest_of("new")])


def test_a_decline_refunds_at_once(scene: Scene) -> None:
    hold = scene.fund()
    with refused("decline.signature"):
        scene.escrow.decline(make_decline(hold.job, BUYER), now=START)
    declined = scene.escrow.decline(make_decline(hold.job), now=START)
    assert (declined.capture(0).state, declined.bond.state) == (State.REFUNDING, BondState.FREE)
    assert scene.escrow.decline(make_decline(hold.job), now=START + 9) == declined
    with refused("escrow.decided"):
        scene.escrow.record_claim(make_claim(hold.job), OUTPUT, now=START)


def test_who_claimed_cannot_decline(scene: Scene) -> None:
    hold = scene.claimed()
    with refused("escrow.wrong_state"):
        scene.escrow.decline(make_decline(hold.job), now=START)


def test_delivery_with_the_verdict(scene: Scene) -> None:
    released, refunded, unclaimed = scene.claimed(), scene.claimed(), scene.fund()
    with refused("escrow.not_delivered"):
        scene.escrow.deliver(released.id, 0)
    scene.apply(released, Ruling.RELEASE)
    scene.apply(refunded, Ruling.REFUND)
    assert scene.escrow.deliver(released.id, 0) == OUTPUT
    with refused("escrow.not_delivered"):
        scene.escrow.deliver(refunded.id, 0)
    with refused("escrow.not_claimed"):
        scene.escrow.deliver(unclaimed.id, 0)


def test_immediate_delivery(scene: Scene) -> None:
    hold = scene.fund(delivery=Delivery.IMMEDIATE)
    with refused("escrow.not_claimed"):
        scene.escrow.deliver(hold.id, 0)
    scene.escrow.record_claim(make_claim(hold.job), OUTPUT, now=START)
    assert scene.escrow.deliver(hold.id, 0) == OUTPUT
