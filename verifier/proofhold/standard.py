"""The verifier as it ships: every backend of this library, put together.

An integrator who wants fewer, or one of their own, builds a `Verifier` by hand; this is one line of it.
"""

from __future__ import annotations

from proofhold.backends.dstack import DstackBackend
from proofhold.backends.ezkl import EzklBackend
from proofhold.backends.opengradient import OpenGradientBackend
from proofhold.backends.replay import ReplayBackend
from proofhold.catalogue import Catalogue, Entry
from proofhold.core import Offer
from proofhold.policy import Policy, Reach
from proofhold.runner import InlineRunner, Runner
from proofhold.verifier import Verifier


def standard_verifier(catalogue: Catalogue, runner: Runner) -> Verifier:
    """Build a verifier with every kind of evidence that this library judges; native code runs in `runner`."""
    return Verifier(
        catalogue,
        backends=(EzklBackend(runner),),
        fallback=ReplayBackend(runner),
        services=(OpenGradientBackend(), DstackBackend()),
    )


def standard_offers(entry: Entry | None = None) -> tuple[Offer, ...]:
    """Say what the standard verifier could be shown about a model, or about any at best (None)."""
    verifier = standard_verifier(Catalogue(()), InlineRunner())
    return tuple(offer for backend in verifier.judges for offer in backend.offers(entry))


def standard_reach(policy: Policy, entry: Entry | None = None) -> tuple[Reach, ...]:
    """Say which kinds of evidence can meet each tier of a policy: about a model, or about anything at best.

    A job is on a model or on a service, so that kinds of the one never add up with kinds of the other.
    """
    by_model = policy.reach(standard_offers(entry))
    if entry is not None:
        return by_model
    verifier = standard_verifier(Catalogue(()), InlineRunner())
    by_service = policy.reach([offer for backend in verifier.services for offer in backend.offers(None)])
    return tuple(
        Reach(one.tier, ways := (*one.ways, *other.ways), () if ways else (*one.reasons, *other.reasons))
        for one, other in zip(by_model, by_service, strict=True)
    )
