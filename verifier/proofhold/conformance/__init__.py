"""A corpus of attestation evidence, and who judges it rightly: ours, or anybody's.

`index` reads a corpus (docs/formats/conformance.md), `checkers` answers with our verifiers, `foreign` asks
another program, `comparison` says whether an answer is the expected one, `mutations` makes further cases that
nobody may accept. Answers speak the index's codes, to which `codes` maps ours.
"""
