"""proofhold: check inference before you pay for it."""

__version__ = "0.1.0"
