"""What a provider runs: accept or decline a job, and respond to it with or without a proof.

This is the side that a relying party does not trust; nothing that judges imports it.
"""

from proofhold.provider.opening import open_products, open_segment
from proofhold.provider.prove import Prover
from proofhold.provider.respond import accept, decline, respond

__all__ = ["Prover", "accept", "decline", "open_products", "open_segment", "respond"]
