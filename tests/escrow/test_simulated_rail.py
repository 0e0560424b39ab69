"""The simulated rail on bad days: what the pump makes of each, and the one that no pump can mend."""

from __future__ import annotations

import itertools

from escrow_builders import START, Scene
from proofhold.escrow import HoldRecord, Rail, Ruling
from proofhold.escrow.payments import LEASE_S
from proofhold.escrow.simulated import Fault, SimulatedRail


def paid_out(scene: Scene, rail: SimulatedRail) -> HoldRecord:
    hold = scene.claimed()
    scene.apply(hold, Ruling.RELEASE)
    rounds = itertools.count()
    while scene.state(hold) != "released":
        scene.escrow.pump(rail, now=START + next(rounds) * LEASE_S)
    assert scene.state(hold) == "released"
    return hold


def test_a_rail_that_keeps_its_keys_pays_once_whatever_happens(scene: Scene) -> None:
    for faults in itertools.product(Fault, repeat=2):
        rail = SimulatedRail(faults)
        checked: Rail = rail
        paid_out(scene, rail)
        assert (len(rail.movements), checked.name) == (1, "simulated"), faults


def test_a_rail_that_keeps_no_keys_pays_once_if_its_answers_are_true(scene: Scene) -> None:
    for faults in itertools.product((Fault.NONE, Fault.LOST, Fault.LATE), repeat=3):
        rail = SimulatedRail(faults, keeps_keys=False)
        paid_out(scene, rail)
        assert len(rail.movements) == 1, faults


def test_a_rail_that_keeps_neither_keys_nor_its_word_pays_twice(scene: Scene) -> None:
    for fault in (Fault.FORGOTTEN, Fault.DUPLICATED):
        rail = SimulatedRail([fault], keeps_keys=False)
        paid_out(scene, rail)
        assert len(rail.movements) == 2
