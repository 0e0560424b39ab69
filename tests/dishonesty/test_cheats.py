"""Every cheat of the adversary comes to a stated code, the right party at fault, and no undeserved money."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adversary import Adversary, Outcome
from proofhold.core import Fault, NeedKind
from proofhold.escrow.states import BondState, State
from proofhold.provider import Prover
from proofhold.runner import ProcessRunner
from proofhold_cli.story.stage import PRICE, SimulatedClock, Stage

REPOSITORY = Path(__file__).parents[2]
START = 1_800_000_000

PROVIDER, BUYER, VERIFIER, NOBODY = Fault.PROVIDER, Fault.BUYER, Fault.VERIFIER, Fault.NOBODY


def _refuted(code: str) -> Outcome:
    """A false claim: the buyer gets the money back and the bond is frozen."""
    return Outcome(frozenset({(code, PROVIDER)}), State.REFUNDED, BondState.FROZEN)


def _untouched(code: str, fault: Fault, state: State = State.CLAIMED) -> Outcome:
    """Refused, and the hold stands as it stood."""
    return Outcome(frozenset({(code, fault)}), state, BondState.RESERVED)


def _unheld(code: str, fault: Fault) -> Outcome:
    """Refused before there was a hold."""
    return Outcome(frozenset({(code, fault)}))


def _asks(code: str, need: NeedKind, state: State, fault: Fault = NOBODY) -> Outcome:
    """Inconclusive: the hold stands, and the verifier says what it needs."""
    return Outcome(frozenset({(code, fault)}), state, BondState.RESERVED, frozenset({need}))


EXPECTED = {
    # the dishonest provider
    "altered_output": _refuted("ezkl.output"),
    "swapped_input": _refuted("ezkl.input"),
    "replayed_proof": _refuted("ezkl.tag"),
    "proof_of_a_look_alike": _refuted("ezkl.proof"),
    "own_verifying_key": _asks("ezkl.collateral", NeedKind.BUNDLE, State.CLAIMED),
    "trailing_bytes": _refuted("ezkl.proof_length"),
    "cheap_model": _refuted("replay.mismatch"),
    "no_proof_where_one_is_due": _refuted("claim.no_evidence"),
    "equivocation": _untouched("claim.equivocation", PROVIDER),
    "overcharging": _untouched("claim.amount", PROVIDER, State.FUNDED),
    "late_claim": _untouched("escrow.too_late", PROVIDER, State.FUNDED),
    "claim_after_declining": Outcome(frozenset({("escrow.decided", NOBODY)}), State.REFUNDED, BondState.FREE),
    # somebody on the way
    "others_job_claim": _asks("claim.other_job", NeedKind.CLAIM, State.FUNDED),
    "unsigned_claim": _untouched("claim.signature", NOBODY, State.FUNDED),
    "unsigned_claim_in_a_bundle": _asks("claim.signature", NeedKind.CLAIM, State.FUNDED),
    "evidence_swapped_in_transit": _asks("evidence.digest", NeedKind.EVIDENCE, State.CLAIMED),
    "output_swapped_in_transit": _asks("output.digest", NeedKind.OUTPUT, State.CLAIMED),
    # the dishonest buyer
    "early_expiry": Outcome(frozenset(), State.FUNDED, BondState.RESERVED),
    "job_funded_twice": _untouched("escrow.already_funded", NOBODY, State.FUNDED),
    "missing_countersignature": _unheld("job.signature", NOBODY),
    "input_outside_of_the_domain": _unheld("input.domain.range", BUYER),
    "policy_that_nothing_satisfies": _unheld("policy.unsatisfiable", BUYER),
    "other_locks": _unheld("catalogue.lock_digest", VERIFIER),
    # the dishonest verifier, and whoever settles
    "double_settle": Outcome(frozenset(), State.RELEASED, BondState.FREE, paid=PRICE),
    "change_of_mind": Outcome(
        frozenset({("escrow.decided", NOBODY)}), State.RELEASED, BondState.FREE, paid=PRICE
    ),
    "forged_receipt": _untouched("settle.verifier", VERIFIER),
    "receipt_for_another_hold": _untouched("settle.hold", VERIFIER),
    "receipt_of_a_milder_policy": _untouched("settle.policy", VERIFIER),
    "receipt_of_another_time": _untouched("settle.time", VERIFIER),
    "receipt_of_another_output": _untouched("settle.statement", VERIFIER),
    "second_secret": _asks("replay.reveal_mismatch", NeedKind.REVEAL, State.FUNDED, VERIFIER),
    "early_reveal": _untouched("escrow.not_claimed", NOBODY, State.FUNDED),
}


@pytest.fixture(scope="module")
def checking() -> Iterator[ProcessRunner]:
    with ProcessRunner() as runner:
        yield runner


@pytest.fixture(scope="module")
def proving() -> Iterator[ProcessRunner]:
    with ProcessRunner(memory_bytes=None, threads=None) as runner:
        yield runner


@pytest.fixture
def adversary(checking: ProcessRunner, proving: ProcessRunner, tmp_path: Path) -> Adversary:
    stage = Stage(REPOSITORY, tmp_path, checking, Prover(proving), SimulatedClock(START))
    return Adversary(stage, tmp_path)


def test_every_cheat_is_expected() -> None:
    cheats = {
        name for name in vars(Adversary) if not name.startswith("_") and callable(vars(Adversary)[name])
    }
    assert cheats == set(EXPECTED)


@pytest.mark.parametrize("cheat", EXPECTED)
def test_cheat(cheat: str, adversary: Adversary) -> None:
    assert getattr(adversary, cheat)() == EXPECTED[cheat]
    assert adversary.stage.escrow.audit() == ()
