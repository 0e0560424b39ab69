"""The second secret of a valuable job: drawn with the first, revealed to what is opened first (P3)."""

from __future__ import annotations

import hashlib

import pytest

from escrow_builders import OUTPUT, Scene, digest_of, make_claim, refused
from proofhold.errors import Misuse
from proofhold.escrow.escrow import HoldRecord
from proofhold.sampling import projection_commitment
from stores import INTEGRITY, Store

ONE, OTHER = digest_of("openings"), digest_of("other openings")


def valuable(scene: Scene) -> HoldRecord:
    """A funded job that commits to a second secret."""
    nonce = hashlib.sha256(b"nonce %d" % (scene.funded + 1)).digest()
    return scene.fund(projection_commitment=scene.escrow.draw_projection(nonce))


def test_it_is_revealed_once_openings_of_a_claim_are_recorded_and_to_those_alone(scene: Scene) -> None:
    hold = valuable(scene)
    with refused("escrow.not_claimed"):
        scene.escrow.record_openings(hold.id, 0, openings=ONE, now=scene.now)
    scene.escrow.record_claim(make_claim(hold.job), OUTPUT, now=scene.now)
    secret = scene.escrow.record_openings(hold.id, 0, openings=ONE, now=scene.now)
    job = hold.job.document
    assert projection_commitment(bytes.fromhex(job.nonce), secret) == job.projection_commitment
    assert secret != scene.escrow.reveal(hold.id, 0)
    with refused("escrow.openings"):
        scene.escrow.record_openings(hold.id, 0, openings=OTHER, now=scene.now)
    assert scene.escrow.record_openings(hold.id, 0, openings=ONE, now=scene.now + 9) == secret


def test_it_is_drawn_once_a_nonce_and_for_that_nonce(scene: Scene) -> None:
    one, other = (hashlib.sha256(text).digest() for text in (b"one", b"other"))
    assert scene.escrow.draw_projection(one) == scene.escrow.draw_projection(one)
    assert scene.escrow.draw_projection(one) not in (
        scene.escrow.draw_projection(other),
        scene.escrow.draw_secret(one),
    )
    with pytest.raises(Misuse):
        scene.escrow.draw_projection(b"short")
    with refused("job.projection"):
        scene.fund(projection_commitment=scene.escrow.draw_projection(one))


def test_a_job_without_one_has_nothing_to_reveal(scene: Scene) -> None:
    hold = scene.claimed()
    with refused("escrow.no_projection"):
        scene.escrow.record_openings(hold.id, 0, openings=ONE, now=scene.now)


def test_the_database_itself_keeps_what_was_recorded(scene: Scene, store: Store) -> None:
    hold = valuable(scene)
    scene.escrow.record_claim(make_claim(hold.job), OUTPUT, now=scene.now)
    scene.escrow.record_openings(hold.id, 0, openings=ONE, now=scene.now)
    for sql in (f"UPDATE projection SET openings = '{OTHER}'", "DELETE FROM projection"):  # noqa: S608
        with pytest.raises(INTEGRITY):
            store.alter(sql)
