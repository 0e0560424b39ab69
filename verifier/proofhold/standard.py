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
    offers = [backend.offers(entry) for backend in verifier.judges]
    if entry is None:
        offers += [backend.offers(None) for backend in verifier.services]
    return tuple(offer for some in offers for offer in some)
