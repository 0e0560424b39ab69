"""The stage of the demo: its cast, its clock, and what every act does the same way.

Real: models, proofs, signatures, verdicts, the ledger. Simulated, and named so: the clock, which is moved by
hand so that deadlines pass, and the money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from proofhold.allowlist import AllowList, Binding, Measurement, Program, Scheme, Signer
from proofhold.backends.sim import SimBackend
from proofhold.canonical import Digest
from proofhold.catalogue import MODELS_FOLDER, Catalogue, Entry, ServiceEntry
from proofhold.compile.replay.cutter import Limits
from proofhold.compile.replay.pin import pin_replay
from proofhold.compile.specification import SPECIFICATION_FILE_NAME, Specification, read_samples
from proofhold.core import Answer, Evidence
from proofhold.drafting import USDC, Terms, draft_job
from proofhold.escrow.rail import LedgerRail
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.exchange import Bundle, Exchange
from proofhold.job import Claim, NamedEvidence, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Payload, Tensors
from proofhold.policy import Policy
from proofhold.provider import Prover, accept, respond
from proofhold.provider.simulated import SimulatedEnclave
from proofhold.receipt import Receipt
from proofhold.runner import Runner
from proofhold.settlement import Decision, fund, verify_and_settle
from proofhold.standard import standard_verifier
from proofhold_cli.progress import steps

PRICE = USDC.parse("0.5")
BOND = USDC.parse("1")
CAPITAL = USDC.parse("1000")
CHAT = "simulated-chat"
CHAT_AGE_S = 300
CHAT_VALIDITY_S = 86_400


class SimulatedClock:
    """A clock that stands still until it is moved. Unix seconds."""

    def __init__(self, start: int) -> None:
        """Start at a time."""
        self.now = start

    def __call__(self) -> int:
        """Tell the time; every look takes a second."""
        self.now += 1
        return self.now

    def pass_by(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Funded:
    """A job in escrow, with its input."""

    job: SignedJob
    payload: Tensors
    entry: Entry

    @property
    def id(self) -> Digest:
        """The hold's name."""
        return self.job.digest


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt with the bundle that it judged, as the demo leaves them in its folder."""

    name: str
    receipt: Receipt
    bundle: Bundle
    policy: Policy


@dataclass
class Stage:
    """Who plays, and where."""

    root: Path
    folder: Path
    runner: Runner
    prover: Prover
    clock: SimulatedClock
    services: tuple[ServiceEntry, ...] = ()
    """Services beside the catalogue's own and the simulated one."""
    kept: list[Kept] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Set the cast up: keys, an escrow with money in it, a verifier."""
        self.buyer, self.provider, self.judge = (SigningKey.generate() for _ in range(3))
        self.enclave = SimulatedEnclave.start(CHAT)
        found = Catalogue.load(self.root)
        self.catalogue = replace(found, services=(*found.services, self._chat(), *self.services))
        standard = standard_verifier(self.catalogue, self.runner)
        # The verifier that ships does not know simulated enclaves: whoever plays with them says so here.
        self.verifier = replace(standard, services=(*standard.services, SimBackend(self.enclave.root_key)))
        self.escrow = SqliteEscrow.create(self.folder / "escrow.db", escrow="demo")
        self.rail = LedgerRail()
        for name, key in (("buyer", self.buyer), ("provider", self.provider)):
            self.escrow.deposit(key.public, CAPITAL, USDC, key=f"capital-{name}", now=self.clock())

    def _chat(self) -> ServiceEntry:
        """Vouch for this run's simulated enclave, as the demo's own curator."""
        now = self.clock()
        until = now + CHAT_VALIDITY_S
        measured = Measurement.of("sim", {"measurement": self.enclave.measurement.hex()})
        program = Program(
            name=CHAT,
            image="none: it is simulated",
            source="proofhold.provider.simulated",
            measurements=(measured,),
            valid_from=now,
            valid_until=until,
        )
        signer = Signer(
            scheme=Scheme.ED25519,
            key=self.enclave.public_key,
            program=CHAT,
            payee=self.provider.public,
            bindings=(Binding.SIM,),
            valid_from=now,
            valid_until=until,
        )
        allowed = AllowList(
            service=CHAT, issued_at=now, max_age_s=CHAT_AGE_S, programs=(program,), signers=(signer,)
        )
        return ServiceEntry(Signed.new(allowed, self.judge))

    def pin(self, model: str) -> None:
        """Cut a model into segments and take its replay lock into the catalogue, as its curator."""
        entry = self.catalogue.by_name(model)
        specification = Specification.read(self.root / MODELS_FOLDER / model / SPECIFICATION_FILE_NAME)
        # It is too small for cuts to be worth their while: they are what the story is about.
        limits = Limits(least_segment_s=0.0, most_committing=1.0)
        published = entry.model_bytes()
        lock = pin_replay(published, specification, name=model, runner=self.runner, limits=limits).lock
        others = tuple(other for other in self.catalogue if other.name != model)
        pinned = replace(entry, replay=lock)
        self.catalogue = Catalogue.of((*others, pinned), self.catalogue.services)
        self.verifier = replace(self.verifier, catalogue=self.catalogue)

    def hire(self, model: str, terms: Terms, policy: Policy, *, sample: int = 0) -> Funded:
        """Draft a job on a held-out sample, have it accepted, and fund it."""
        entry = self.catalogue.by_name(model)
        samples = read_samples(self.root / MODELS_FOLDER / model / "samples.json", entry.inputs)
        payload = samples[sample % len(samples)].inputs
        draft = draft_job(
            terms,
            entry=entry,
            payload=payload,
            policy=policy,
            buyer=self.buyer,
            provider=self.provider.public,
            verifier=self.judge.public,
            escrow=self.escrow,
            now=self.clock(),
        )
        job = accept(draft, self.provider, entry=entry)
        fund(job, payload, policy=policy, verifier=self.verifier, escrow=self.escrow, clock=self.clock)
        return Funded(job, payload, entry)

    def respond(self, funded: Funded, *, prove: bool, trace: bool = False) -> Bundle:
        """Answer honestly."""
        prover = self.prover if prove else None
        with steps() as on_step:
            return respond(
                funded.job,
                funded.payload,
                funded.entry,
                self.provider,
                prover=prover,
                trace=trace,
                on_step=on_step,
            )

    def sign(self, funded: Funded, output: Payload, evidence: tuple[Evidence, ...] = ()) -> Bundle:
        """Sign whatever is claimed, true or not: what a dishonest provider does."""
        claim = Claim(
            job=funded.id,
            seq=0,
            amount=funded.job.document.price,
            output=output.digest(bytes.fromhex(funded.job.document.nonce)),
            evidence=tuple(NamedEvidence(kind=piece.kind, digest=piece.digest) for piece in evidence),
        )
        signed = Signed.new(claim, self.provider)
        return Bundle(Exchange(funded.job, funded.payload, signed, output), evidence)

    def claim(self, bundle: Bundle) -> None:
        """Have the escrow record the claim and keep the output."""
        exchange = bundle.exchange
        self.escrow.record_claim(exchange.claim, exchange.output, now=self.clock())

    def judge_and_pay(
        self, name: str, bundle: Bundle, policy: Policy, *, answers: Sequence[Answer] = ()
    ) -> Decision:
        """Verify a bundle, settle its hold, let the money move, and keep receipt and bundle."""
        hold = bundle.exchange.claim.document.job
        decision = verify_and_settle(
            hold,
            bundle,
            verifier=self.verifier,
            policy=policy,
            escrow=self.escrow,
            key=self.judge,
            answers=answers,
            clock=self.clock,
        )
        self.escrow.pump(self.rail, now=self.clock())
        self.keep(name, decision.receipt, bundle.repaired(answers), policy)
        return replace(decision, state=self.escrow.hold(hold).capture(0).state)

    def keep(self, name: str, receipt: Receipt, bundle: Bundle, policy: Policy) -> None:
        """Leave a receipt and its bundle in the folder."""
        (self.folder / f"{name}.receipt.json").write_bytes(receipt.encode())
        (self.folder / f"{name}.bundle.json").write_bytes(bundle.encode())
        self.kept.append(Kept(name, receipt, bundle, policy))


__all__ = ["BOND", "CHAT", "PRICE", "Funded", "Kept", "SimulatedClock", "Stage"]
