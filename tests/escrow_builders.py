"""Small parts for tests of the escrow: parties, jobs, claims, and a scene with all of them on stage."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from proofhold.canonical import Digest
from proofhold.contention import (
    Challenge,
    DisputeAnswer,
    NamedHash,
    SignedChallenge,
    SignedDisputeAnswer,
)
from proofhold.core import Fault
from proofhold.escrow import (
    Account,
    AccountKind,
    Adjudged,
    Applied,
    HoldRecord,
    PaymentKey,
    RailReceipt,
    RailUnknown,
    Refused,
    Ruling,
)
from proofhold.escrow.desk import LedgerEscrow
from proofhold.job import (
    Claim,
    Decline,
    Delivery,
    Job,
    NamedEvidence,
    OnnxModel,
    Resolution,
    ResolutionOutcome,
    SignedClaim,
    SignedDecline,
    SignedJob,
    SignedResolution,
)
from proofhold.keys import Signed, SigningKey
from proofhold.money import Currency
from proofhold.payload import Document, Tensor
from proofhold.replay.trace import TraceHasher
from stores import SqliteStore, Store

USDC = Currency("USDC", 6)
START = 1_800_000_000
PRICE, BOND = 1_000, 5_000
CLAIM_S, VERIFICATION_S, ANSWER_S, DISPUTE_S, FREEZE_S = 100, 200, 50, 300, 1_000

BUYER, PROVIDER, VERIFIER, OPERATOR, STRANGER = (
    SigningKey(hashlib.sha256(name.encode()).digest())
    for name in ("buyer", "provider", "verifier", "operator", "stranger")
)
PAYEE = "payee-of-the-provider"
OUTPUT = Document("text/plain", b"the answer")
SEGMENT = 2
TENSORS = tuple(Tensor(name, "uint8", (2,), name.encode() * 2) for name in "ab")
OTHER_OUTPUT = Document("text/plain", b"another answer")


def digest_of(text: str) -> Digest:
    """Make up a digest."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_job(commitment: Digest, nonce: bytes, /, **changes: Any) -> Job:
    """Make a job that funds, unless the changes see to it that it does not."""
    job = Job(
        escrow="test-escrow",
        verifier=VERIFIER.public,
        buyer=BUYER.public,
        provider=PROVIDER.public,
        payee=PAYEE,
        model=OnnxModel(digest_of("model"), digest_of("circuit lock"), digest_of("replay lock")),
        input=digest_of("input"),
        price=PRICE,
        currency=USDC,
        nonce=nonce.hex(),
        claim_by=START + CLAIM_S,
        verification_s=VERIFICATION_S,
        answer_s=ANSWER_S,
        dispute_s=DISPUTE_S,
        freeze_s=FREEZE_S,
        delivery=Delivery.WITH_VERDICT,
        policy=digest_of("policy"),
        evidence_kinds=("ezkl", "replay"),
        sampling_rate_ppm=200_000,
        bond=BOND,
        withholding_penalty=BOND,
        sampling_commitment=commitment,
    )
    return replace(job, **changes)


def sign_job(job: Job) -> SignedJob:
    """Sign a job as both sides."""
    return Signed.new(job, BUYER, PROVIDER)


def make_claim(
    job: SignedJob,
    /,
    *,
    output: Document = OUTPUT,
    key: SigningKey = PROVIDER,
    evidence: tuple[NamedEvidence, ...] = (),
    **changes: Any,
) -> SignedClaim:
    """Make and sign a claim on a job."""
    nonce = bytes.fromhex(job.document.nonce)
    claim = Claim(
        job=job.digest, seq=0, amount=job.document.price, output=output.digest(nonce), evidence=evidence
    )
    return Signed.new(replace(claim, **changes), key)


def make_challenge(hold: HoldRecord, key: SigningKey = VERIFIER, **changes: Any) -> SignedChallenge:
    """Make and sign a challenge of a hold's claim."""
    challenge = Challenge(job=hold.id, seq=0, claim=_claim_of(hold), segment=SEGMENT)
    return Signed.new(replace(challenge, **changes), key)


def make_answer(hold: HoldRecord, key: SigningKey = PROVIDER, **changes: Any) -> SignedDisputeAnswer:
    """Make and sign an answer that names `TENSORS`."""
    hasher = TraceHasher(bytes.fromhex(hold.job.document.nonce))
    named = tuple(NamedHash(tensor.name, hasher.leaf(tensor).hex()) for tensor in TENSORS)
    leaves = (digest_of("leaf"),)
    answer = DisputeAnswer(
        job=hold.id, seq=0, claim=_claim_of(hold), segment=SEGMENT, leaves=leaves, tensors=named
    )
    return Signed.new(replace(answer, **changes), key)


def _claim_of(hold: HoldRecord) -> Digest:
    claim = hold.capture(0).claim
    return digest_of("no claim") if claim is None else claim.digest


def make_decline(job: SignedJob, key: SigningKey = PROVIDER) -> SignedDecline:
    """Make and sign a decline."""
    return Signed.new(Decline(job.digest), key)


def make_resolution(
    hold: Digest, outcome: ResolutionOutcome, *keys: SigningKey, reason: str = "we looked"
) -> SignedResolution:
    """Make and sign a resolution, as the operator unless other keys are given."""
    return Signed.new(Resolution(job=hold, seq=0, outcome=outcome, reason=reason), *(keys or (OPERATOR,)))


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Give a folder that costs no flush of a disk, where the machine has such a place."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@contextlib.contextmanager
def refused(code: str, fault: Fault | None = None) -> Iterator[None]:
    """Expect a refusal of a code, and of a party at fault where one is named."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code
    assert fault is None or caught.value.fault is fault


class ScriptedRail:
    """A rail that keeps no one from paying twice, and fails as it is told to.

    Each element of `script` answers one call of `pay`: "ok", "lost" (unknown, and not paid), "late" (unknown,
    and paid) or "broken" (paid, then our process trips). Past the script all is well.
    """

    name = "scripted"
    lands_in = AccountKind.OUTSIDE

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.dumb = 0
        self.paid: list[PaymentKey] = []
        self._receipts: dict[PaymentKey, RailReceipt] = {}

    def pay(self, key: PaymentKey, amount: int, currency: str, account: str) -> RailReceipt:
        answer = self.script.pop(0) if self.script else "ok"
        if answer == "lost":
            raise RailUnknown("no answer")
        self.paid.append(key)
        self._receipts[key] = RailReceipt(f"scripted:{key}", amount, currency, account)
        if answer == "late":
            raise RailUnknown("no answer in time")
        if answer == "broken":
            raise RuntimeError("the process trips")
        return self._receipts[key]

    def query(self, key: PaymentKey) -> RailReceipt | None:
        if self.dumb:
            self.dumb -= 1
            raise RailUnknown("no answer to a question either")
        return self._receipts.get(key)

    def total(self) -> int:
        return sum(self._receipts[key].amount for key in self.paid)


@dataclass
class Scene:
    """An escrow with money in it, and shorthands for what everybody does to it."""

    escrow: LedgerEscrow
    now: int = START
    funded: int = field(default=0)

    @classmethod
    def create(cls, where: Path | Store, *, jobs: int = 100, **changes: Any) -> Scene:
        """Make an escrow in a folder, or elsewhere, rich enough for some jobs."""
        store = SqliteStore(where) if isinstance(where, Path) else where
        escrow = store.create(escrow="test-escrow", operators=[OPERATOR.public], **changes)
        escrow.deposit(BUYER.public, PRICE * jobs, USDC, key="buyer", now=START)
        escrow.deposit(PROVIDER.public, BOND * jobs, USDC, key="provider", now=START)
        return cls(escrow)

    def draft(self, **changes: Any) -> SignedJob:
        """Draft and sign a job of its own nonce; its claim deadline counts from now."""
        self.funded += 1
        nonce = hashlib.sha256(b"nonce %d" % self.funded).digest()
        commitment = self.escrow.draw_secret(nonce)
        return sign_job(make_job(commitment, nonce, **{"claim_by": self.now + CLAIM_S} | changes))

    def fund(self, **changes: Any) -> HoldRecord:
        """Draft and fund a job."""
        return self.escrow.fund(self.draft(**changes), now=self.now)

    def claimed(self, **changes: Any) -> HoldRecord:
        """Draft and fund a job, and record its claim."""
        hold = self.fund(**changes)
        return self.escrow.record_claim(make_claim(hold.job), OUTPUT, now=self.now)

    def apply(self, hold: HoldRecord, ruling: Ruling) -> Applied:
        """Rule on a hold, with a receipt made up for it."""
        receipt = f"receipt of {ruling} on {hold.id}"
        return self.escrow.apply(
            hold.id,
            0,
            ruling,
            receipt_digest=digest_of(receipt),
            receipt=receipt.encode(),
            now=self.now,
        )

    def challenge(self, hold: HoldRecord, key: SigningKey = VERIFIER, **changes: Any) -> HoldRecord:
        """Challenge a claimed hold's segment."""
        return self.escrow.challenge(make_challenge(hold, key, **changes), now=self.now)

    def answer(self, hold: HoldRecord, tensors: tuple[Tensor, ...] = TENSORS, **changes: Any) -> HoldRecord:
        """Answer for a claimed hold's segment."""
        return self.escrow.answer(make_answer(hold, **changes), tensors, now=self.now)

    def adjudicate(self, hold: HoldRecord, outcome: Adjudged, transcript: bytes = b"a transcript") -> None:
        """End a hold's dispute, by a transcript made up for it."""
        self.escrow.adjudicate(hold.id, 0, outcome, transcript=transcript, now=self.now)

    def state(self, hold: HoldRecord) -> str:
        """Say where the hold's capture stands."""
        return str(self.escrow.hold(hold.id).capture(0).state)

    def bond(self, hold: HoldRecord) -> str:
        """Say where the hold's bond stands."""
        return str(self.escrow.hold(hold.id).bond.state)

    def amounts(self) -> dict[str, int]:
        """Give what every party and the outside hold, by owner."""
        kinds = (AccountKind.PARTY, AccountKind.OUTSIDE, AccountKind.TREASURY)
        return {b.account.owner: b.amount for b in self.escrow.balances() if b.account.kind in kinds}

    def amount(self, owner: str, kind: AccountKind = AccountKind.PARTY) -> int:
        """Give what one account holds."""
        account = Account(kind, owner, USDC.code)
        return sum(b.amount for b in self.escrow.balances() if b.account == account)
