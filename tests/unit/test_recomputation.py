"""Recomputing a receipt: it says what its inputs give, or the difference is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from judging import (
    NOW,
    VERIFIER,
    AnsweringRunner,
    catalogue,
    logits,
    make_job,
    policy,
    proved,
    resigned,
    reveal,
    runner,
    shifted,
    unproved,
)
from proofhold.catalogue import Catalogue
from proofhold.core import Answer, Fault, NeedKind, Reason, Rejected, Verdict
from proofhold.exchange import Bundle
from proofhold.job import PPM
from proofhold.payload import encode_payload
from proofhold.receipt import Receipt
from proofhold.recomputation import recheck
from proofhold.runner import Runner
from proofhold.standard import standard_verifier
from proofhold.zkverify import INVALID, VALID

DRAWN = resigned(unproved(), job=make_job(unproved().exchange.input, sampling_rate_ppm=PPM))


def judge(bundle: Bundle, *answers: Answer, using: Runner | None = None) -> Verdict:
    return standard_verifier(catalogue(), using or runner()).verify(
        bundle.exchange, bundle.evidence, policy=policy(), now=NOW, answers=answers
    )


def again(
    receipt: Receipt, bundle: Bundle, *, name: str | None = None, using: Runner | None = None
) -> Sequence[Reason]:
    verifier = standard_verifier(catalogue(), using or runner())
    named = policy(name) if name else policy()
    return recheck(Receipt.decode(receipt.encode()), bundle, policy=named, verifier=verifier)


@pytest.mark.parametrize(
    ("bundle", "answers"),
    [
        (proved(), ()),
        (resigned(proved(), output=logits(0.0)), ()),
        (DRAWN, (reveal(),)),
        (resigned(DRAWN, output=logits(0.0, dtype="float32")), (reveal(),)),
        (DRAWN, ()),
        (DRAWN, (reveal(bytes(32)),)),
    ],
    ids=["accepted", "refuted", "re-executed", "mismatch", "inconclusive", "a false reveal"],
)
def test_an_honest_receipt_rechecks(bundle: Bundle, answers: tuple[Answer, ...]) -> None:
    receipt = Receipt.issue(judge(bundle, *answers), VERIFIER)
    assert again(receipt, bundle) == ()


def test_a_repaired_bundle_rechecks_as_the_whole_one() -> None:
    damaged = replace(
        proved(), exchange=replace(proved().exchange, output=shifted(proved().exchange.output, 1.0))
    )
    answer = Answer(NeedKind.OUTPUT, encode_payload(proved().exchange.output))
    receipt = Receipt.issue(judge(damaged, answer), VERIFIER)
    assert again(receipt, proved()) == ()


def test_another_bundle_is_named_and_not_judged() -> None:
    receipt = Receipt.issue(judge(proved()), VERIFIER)
    (reason,) = again(receipt, DRAWN)
    assert (reason.code, reason.fault) == ("recheck.bundle", Fault.NOBODY)
    assert (reason.got, reason.expected) == (DRAWN.digest, proved().digest)


def test_another_policy_is_named_and_not_judged_by() -> None:
    receipt = Receipt.issue(judge(proved()), VERIFIER)
    (reason,) = again(receipt, proved(), name="proved")
    assert (reason.code, reason.fault) == ("recheck.policy", Fault.NOBODY)
    assert (reason.got, reason.expected) == (policy("proved").digest, policy().digest)


@pytest.mark.parametrize(("said", "true"), [(VALID, INVALID), (INVALID, VALID)])
def test_a_verifier_that_lied_is_exposed(said: bytes, true: bytes) -> None:
    receipt = Receipt.issue(judge(proved(), using=AnsweringRunner(said)), VERIFIER)
    reasons = again(receipt, proved(), using=AnsweringRunner(true))
    assert {reason.code for reason in reasons} == {"recheck.outcome", "recheck.reasons", "recheck.findings"}
    assert {reason.fault for reason in reasons} == {Fault.VERIFIER}


def test_a_verifier_that_invented_a_reason_is_exposed() -> None:
    verdict = judge(resigned(proved(), output=logits(0.0)))
    assert isinstance(verdict, Rejected)
    forged = replace(verdict, reasons=(*verdict.reasons, Reason("ezkl.tag", "invented", Fault.PROVIDER)))
    reasons = again(Receipt.issue(forged, VERIFIER), resigned(proved(), output=logits(0.0)))
    assert [reason.code for reason in reasons] == ["recheck.reasons"]


def test_the_revealed_secret_travels_in_the_receipt() -> None:
    receipt = Receipt.decode(Receipt.issue(judge(DRAWN, reveal()), VERIFIER).encode())
    assert [answer.body for answer in receipt.answers] == [reveal().body]


def test_a_verifier_that_hid_the_secret_is_exposed() -> None:
    verdict = judge(DRAWN, reveal())
    hidden = replace(verdict, inputs=replace(verdict.inputs, answers=()))
    codes = {reason.code for reason in again(Receipt.issue(hidden, VERIFIER), DRAWN)}
    assert "recheck.outcome" in codes


def test_without_the_locks_nothing_is_confirmed() -> None:
    receipt = Receipt.issue(judge(proved()), VERIFIER)
    verifier = standard_verifier(Catalogue(()), runner())
    codes = {reason.code for reason in recheck(receipt, proved(), policy=policy(), verifier=verifier)}
    assert "recheck.outcome" in codes


def test_an_answer_that_the_receipt_only_names_must_be_handed_in_again() -> None:
    opening = Answer(NeedKind.OPENING, b"not needed, and recorded all the same")
    receipt = Receipt.issue(judge(proved(), opening), VERIFIER)
    verifier = standard_verifier(catalogue(), runner())
    (reason,) = recheck(receipt, proved(), policy=policy(), verifier=verifier)
    assert (reason.code, reason.fault) == ("recheck.answer", Fault.NOBODY)
    assert reason.expected == f"opening {opening.digest}"
    other = Answer(NeedKind.OPENING, b"another")
    assert recheck(receipt, proved(), policy=policy(), verifier=verifier, answers=[other]) == (reason,)
    assert recheck(receipt, proved(), policy=policy(), verifier=verifier, answers=[other, opening]) == ()
