"""Facts about re-executing a model: commit to a run's tensors, open some, run a segment again, compare.

None of these modules knows an exchange, a policy or a draw: what a fact *means* for a payment is a backend's
to say. `trace` and `opening` are plain data and hashes; what parses or runs ONNX is a task for a `Runner`.
"""
