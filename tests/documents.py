"""One of each document, with fixed keys and fixed contents: what the files in tests/fixtures/v1/ hold.

The files were written once and stay: ``python -P -m documents FOLDER`` (with tests/ on the path) writes
those that are missing, for a new format, and never over one that is there.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from pathlib import Path

from proofhold.core import (
    Accepted,
    Answer,
    Assurance,
    Evidence,
    Finding,
    Inputs,
    NeedKind,
    Property,
)
from proofhold.exchange import Bundle, Exchange
from proofhold.job import (
    Claim,
    Decline,
    Delivery,
    Job,
    NamedEvidence,
    OnnxModel,
    Payer,
    Resolution,
    ResolutionOutcome,
    SignedClaim,
    SignedDecline,
    SignedJob,
    SignedResolution,
    statement_of,
)
from proofhold.keys import Signed, SigningKey, TrustedKey, TrustStore
from proofhold.money import Currency
from proofhold.payload import Tensor, Tensors
from proofhold.policy import Policy
from proofhold.receipt import Receipt
from proofhold.replay.opening import Opening
from proofhold.replay.trace import Trace

FIXTURES = Path(__file__).parent / "fixtures" / "v1"

USDC = Currency("USDC", 6)
BUYER, PROVIDER, VERIFIER, OPERATOR, STRANGER = (SigningKey(bytes([number]) * 32) for number in range(1, 6))
NOW = 1_795_392_000
SECRET = bytes(range(32))
FOUR = (Property.MODEL, Property.INPUT, Property.OUTPUT, Property.FRESH)

INPUT = Tensors((Tensor("x", "float32", (1, 3), struct.pack("<3f", 0.5, -1.25, 3.0)),))
OUTPUT = Tensors((Tensor("y", "float64", (1, 2), struct.pack("<2d", 0.125, -7.0)),))
EVIDENCE = Evidence("ezkl", b'{"proof":"00"}', {"chain": b"certificate"})

POLICY_TOML = b"""\
# A policy of format version 1 that uses everything the format has.
version = 1
name = "dangerous_fixture"
summary = "Every part of a policy file, once."
currency = { code = "USDC", exponent = 6 }
accept_dangers = ["unsafe-dev-srs"]

[[tiers]]
up_to = "2.5"
least_sampling_rate = "0.05"
[tiers.demand]
any = [
  { show = ["model", "input", "output", "fresh"], by = "proved" },
  { show = ["model", "input", "output", "fresh"], by = ["reexecuted", "not_drawn"] },
]

[[tiers]]
up_to = "100"
[tiers.demand]
all = [
  { show = ["model", "input", "output", "fresh"], by = "proved" },
  { show = ["provider"], by = ["attested", "proved"] },
]

[[tiers]]
[tiers.demand]
show = ["model", "input", "output", "fresh", "provider"]
by = "attested"
"""
POLICY = Policy.parse(POLICY_TOML)


def sha(text: str) -> str:
    """Any digest."""
    return hashlib.sha256(text.encode()).hexdigest()


NONCE = bytes.fromhex(sha("nonce"))

JOB = Job(
    escrow="escrow.example",
    verifier=VERIFIER.public,
    buyer=BUYER.public,
    provider=PROVIDER.public,
    payee="provider-account:1",
    model=OnnxModel(onnx=sha("model"), circuit_lock=sha("circuit lock"), replay_lock=sha("replay lock")),
    input=INPUT.digest(NONCE),
    price=1_500_000,
    currency=USDC,
    nonce=NONCE.hex(),
    claim_by=NOW + 600,
    verification_s=600,
    answer_s=60,
    dispute_s=3600,
    freeze_s=86_400,
    delivery=Delivery.WITH_VERDICT,
    policy=POLICY.digest,
    evidence_kinds=("ezkl", "replay"),
    sampling_rate_ppm=200_000,
    bond=7_500_000,
    withholding_penalty=250_000,
    sampling_commitment=sha("sampling commitment"),
    projection_commitment=sha("projection commitment"),
    checks_paid_by=Payer.PROVIDER,
    captures=3,
)
SIGNED_JOB: SignedJob = Signed.new(JOB, BUYER, PROVIDER)
CLAIM = Claim(
    job=SIGNED_JOB.digest,
    seq=0,
    amount=1_500_000,
    output=OUTPUT.digest(NONCE),
    evidence=(NamedEvidence(kind="ezkl", digest=EVIDENCE.digest),),
    trace_root=sha("trace root"),
)
SIGNED_CLAIM: SignedClaim = Signed.new(CLAIM, PROVIDER)
DECLINE: SignedDecline = Signed.new(Decline(SIGNED_JOB.digest), PROVIDER)
RESOLUTION: SignedResolution = Signed.new(
    Resolution(
        job=SIGNED_JOB.digest, seq=0, outcome=ResolutionOutcome.REFUND, reason="The disk was lost: refunded."
    ),
    OPERATOR,
)
BUNDLE = Bundle(Exchange(SIGNED_JOB, INPUT, SIGNED_CLAIM, OUTPUT), (EVIDENCE,))
TRUST = TrustStore(
    (
        TrustedKey(VERIFIER.public, "the verifier", NOW - 86_400, NOW + 86_400),
        TrustedKey(STRANGER.public, "its predecessor", 0, NOW - 86_400),
    )
)
FINDING = Finding(
    "ezkl",
    dict.fromkeys(FOUR, Assurance.PROVED),
    {"circuit": sha("circuit lock"), "model": "holds because the lock was audited"},
    ("unsafe-dev-srs",),
    (sha("one use"),),
)
VERDICT = Accepted(
    statement=statement_of(JOB, CLAIM),
    policy=POLICY.digest,
    now=NOW,
    inputs=Inputs(
        BUNDLE.digest,
        (Answer(NeedKind.REVEAL, SECRET), Answer(NeedKind.COLLATERAL, b"a revocation list")),
        (sha("circuit lock"),),
    ),
    findings=(FINDING,),
)

HIDDEN = Tensor("hidden", "float32", (1, 2), struct.pack("<2f", 1.5, -0.0))
TRACE = Trace.of(bytes.fromhex(JOB.nonce), (*INPUT.items, HIDDEN, *OUTPUT.items))
OPENING = Opening.of(TRACE, {1: HIDDEN}, held=(0, 2))


def files() -> dict[str, bytes]:
    """What belongs into the folder of fixtures, by file name."""
    return {
        "bundle.json": BUNDLE.encode(),
        "claim.json": SIGNED_CLAIM.encode(),
        "decline.json": DECLINE.encode(),
        "job.json": SIGNED_JOB.encode(),
        "opening.bin": OPENING.encode(),
        "policy.toml": POLICY_TOML,
        "receipt.json": Receipt.issue(VERDICT, VERIFIER).encode(),
        "resolution.json": RESOLUTION.encode(),
        "trace.json": TRACE.encode(),
        "trust.json": TRUST.encode(),
    }


if __name__ == "__main__":
    for name, data in files().items():
        path = Path(sys.argv[1]) / name
        if not path.exists():
            path.write_bytes(data)
