"""Facts about attestation documents: parse one, check every signature in it, and say what it states.

One module a format. None of them knows an exchange, a policy or a network: what a document *means* for a
payment is a backend's to say. Checking raises `Refusal` with the numbered step of the specification that was
not met; what cannot be decided for want of current collateral raises `Lacking`.
"""
