"""The adversary: a dishonest provider, buyer, verifier or carrier, whose methods are the cheats.

Each method plays one cheat against a real escrow, real proofs and the standard verifier, and gives what came
of it: the codes that refused it, who was held at fault, and where the capture stands afterwards. What each
must come to is in tests/dishonesty/.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from proofhold.catalogue import Entry, read_circuit, read_replay
from proofhold.compile import compile_model
from proofhold.compile.specification import read_samples
from proofhold.core import Accepted, Answer, Evidence, Fault, NeedKind, Verdict
from proofhold.drafting import Terms, draft_job
from proofhold.escrow.refusals import Refused
from proofhold.escrow.states import BondState, State
from proofhold.exchange import Bundle
from proofhold.execution import run_model
from proofhold.job import Job, OnnxModel, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Tensor, Tensors, decode_payload, encode_payload
from proofhold.policy import Policy
from proofhold.provider import accept, decline
from proofhold.receipt import Receipt
from proofhold.settlement import Decision, fund, settle, settle_receipt
from proofhold.zkproof import ZkProof, proved_output
from proofhold_cli.story.cheats import rounded_to_int8
from proofhold_cli.story.stage import BOND, PRICE, Funded, Stage

MODEL = "breast_cancer"
PROVED = Terms(price=PRICE, bond=BOND, evidence_kinds=("ezkl",))
ALWAYS_DRAWN = Terms(price=PRICE, bond=BOND, evidence_kinds=("replay",), dispute_s=0)


@dataclass(frozen=True)
class Outcome:
    """What came of a cheat."""

    reasons: frozenset[tuple[str, Fault]]
    """Codes and whose fault they name."""
    state: State | None = None
    bond: BondState | None = None
    needs: frozenset[NeedKind] = frozenset()
    paid: int = 0
    """What the provider's balance gained, in atomic units, the bond counted as its own."""


@dataclass
class Adversary:
    """Plays cheats on a stage."""

    stage: Stage
    folder: Path
    refusals: list[Refused] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start from a known balance."""
        self.before = self._wealth()

    # --- the dishonest provider ---------------------------------------------------------------------------

    def altered_output(self) -> Outcome:
        """An honest proof beside an output that is one step of the circuit's grid away."""
        funded, honest = self._proved()
        return self._claims(funded, self._off_by_one_step(honest), honest.evidence)

    def swapped_input(self) -> Outcome:
        """A good proof for this job, of an input that flatters the provider."""
        funded = self._hire()
        other = self.stage.hire(MODEL, PROVED, self._policy, sample=5).payload
        proof = self.stage.prover.prove(funded.entry, funded.id, other)
        return self._claims(funded, self._output(funded, proof), (Evidence("ezkl", proof.encode()),))

    def replayed_proof(self) -> Outcome:
        """Yesterday's proof, on the same input, for today's job."""
        _, earlier = self._proved()
        return self._claims(self._hire(), earlier.exchange.output, earlier.evidence)

    def proof_of_a_look_alike(self) -> Outcome:
        """A good proof of a model of the same shape, with one weight changed."""
        funded = self._hire()
        proof = self.stage.prover.prove(self._look_alike, funded.id, funded.payload)
        return self._claims(funded, self._output(funded, proof), (Evidence("ezkl", proof.encode()),))

    def own_verifying_key(self) -> Outcome:
        """The same, and the key under which it verifies comes along as collateral."""
        funded = self._hire()
        proof = self.stage.prover.prove(self._look_alike, funded.id, funded.payload)
        circuit = self.stage.prover.circuit_of(self._look_alike)
        collateral = {"vk": circuit.vk, "settings": circuit.settings, "srs": circuit.srs}
        evidence = (Evidence("ezkl", proof.encode(), collateral),)
        return self._claims(funded, self._output(funded, proof), evidence)

    def trailing_bytes(self) -> Outcome:
        """A good proof with bytes behind it, which ezkl alone would let pass."""
        funded, honest = self._proved()
        proof = ZkProof.decode(honest.evidence[0].body)
        longer = replace(proof, proof=proof.proof + bytes(32))
        return self._claims(funded, honest.exchange.output, (Evidence("ezkl", longer.encode()),))

    def cheap_model(self) -> Outcome:
        """No proof, and the output of int8 weights, in a job that is drawn."""
        funded = self._hire(ALWAYS_DRAWN)
        model = rounded_to_int8(funded.entry.model_bytes())
        output = decode_payload(run_model(model, encode_payload(funded.payload)))
        return self._claims(funded, output, ())

    def no_proof_where_one_is_due(self) -> Outcome:
        """A bare word in a job that takes proofs only."""
        funded, honest = self._proved()
        return self._claims(funded, honest.exchange.output, ())

    def equivocation(self) -> Outcome:
        """Two signed claims with different outputs."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        with self._expecting_refusal():
            self.stage.claim(self.stage.sign(funded, self._off_by_one_step(honest), honest.evidence))
        return self._outcome(funded)

    def overcharging(self) -> Outcome:
        """A claim for more than the price."""
        funded, honest = self._proved()
        claim = replace(honest.exchange.claim.document, amount=PRICE + 1)
        signed = Signed.new(claim, self.stage.provider)
        with self._expecting_refusal():
            self.stage.claim(replace(honest, exchange=replace(honest.exchange, claim=signed)))
        return self._outcome(funded)

    def late_claim(self) -> Outcome:
        """A good claim after the deadline."""
        funded, honest = self._proved()
        self.stage.clock.pass_by(PROVED.claim_within_s)
        with self._expecting_refusal():
            self.stage.claim(honest)
        return self._outcome(funded)

    def claim_after_declining(self) -> Outcome:
        """The money went back, and the provider wants it after all."""
        funded, honest = self._proved()
        self.stage.escrow.decline(decline(funded.job, self.stage.provider), now=self.stage.clock())
        self.stage.escrow.pump(self.stage.rail, now=self.stage.clock())
        with self._expecting_refusal():
            self.stage.claim(honest)
        return self._outcome(funded)

    # --- somebody on the way ------------------------------------------------------------------------------

    def others_job_claim(self) -> Outcome:
        """A bundle whose claim is that of another job."""
        _, other = self._proved()
        funded, honest = self._proved()
        mixed = replace(honest, exchange=replace(honest.exchange, claim=other.exchange.claim))
        return self._verdict(funded, mixed)

    def unsigned_claim(self) -> Outcome:
        """A claim that a stranger signed in the provider's place, brought to the escrow."""
        funded, honest = self._proved()
        forged = Signed.new(honest.exchange.claim.document, SigningKey.generate())
        with self._expecting_refusal():
            self.stage.claim(replace(honest, exchange=replace(honest.exchange, claim=forged)))
        return self._outcome(funded)

    def unsigned_claim_in_a_bundle(self) -> Outcome:
        """The same, in a bundle that a verifier gets."""
        funded, honest = self._proved()
        forged = Signed.new(honest.exchange.claim.document, SigningKey.generate())
        return self._verdict(funded, replace(honest, exchange=replace(honest.exchange, claim=forged)))

    def evidence_swapped_in_transit(self) -> Outcome:
        """A false proof in place of the good one that the claim names: the provider must not pay for it."""
        funded, honest = self._proved()
        _, other = self._proved()
        self.stage.claim(honest)
        decision = self._judge(replace(honest, evidence=other.evidence))
        return self._outcome(funded, decision)

    def output_swapped_in_transit(self) -> Outcome:
        """Another output than the one that the claim names."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        exchange = replace(honest.exchange, output=self._off_by_one_step(honest))
        return self._outcome(funded, self._judge(replace(honest, exchange=exchange)))

    # --- the dishonest buyer ------------------------------------------------------------------------------

    def early_expiry(self) -> Outcome:
        """The buyer has the timers run a second before the deadline."""
        funded, _ = self._proved()
        self.stage.escrow.run_timers(funded.job.document.claim_by)
        return self._outcome(funded)

    def job_funded_twice(self) -> Outcome:
        """One signed job, two holds."""
        funded = self._hire()
        with self._expecting_refusal():
            self.stage.escrow.fund(funded.job, now=self.stage.clock())
        return self._outcome(funded)

    def missing_countersignature(self) -> Outcome:
        """A job that the provider never accepted: it would lose its bond by silence."""
        with self._expecting_refusal():
            self._fund(self._draft(PROVED))
        return self._outcome(None)

    def input_outside_of_the_domain(self) -> Outcome:
        """An input that no proof can be made of, so that the provider fails."""
        good = self._hire()
        first = good.payload.items[0]
        wild = Tensors((Tensor.of(first.name, first.numpy() * 1e6),))
        document = good.job.document
        job = replace(document, input=wild.digest(bytes.fromhex(document.nonce)))
        signed = Signed.new(job, self.stage.buyer, self.stage.provider)
        with self._expecting_refusal():
            self._fund(signed, wild)
        return self._outcome(None)

    def policy_that_nothing_satisfies(self) -> Outcome:
        """A job whose policy the allowed evidence can never meet: the provider would work for nothing."""
        draft = self._draft(ALWAYS_DRAWN)  # replay only, under a policy that wants a proof
        with self._expecting_refusal():
            self._fund(accept(draft, self.stage.provider))
        return self._outcome(None)

    def other_locks(self) -> Outcome:
        """A job that pins the locks of a look-alike, under the published model's name."""
        document = self._draft(PROVED).document
        assert isinstance(document.model, OnnxModel)
        model = replace(document.model, circuit_lock="ab" * 32)
        with self._expecting_refusal():
            self._fund(Signed.new(replace(document, model=model), self.stage.buyer, self.stage.provider))
        return self._outcome(None)

    # --- the dishonest verifier, and whoever settles -----------------------------------------------------

    def double_settle(self) -> Outcome:
        """The same acceptance presented twice."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        verdict = self._verify(funded, honest)
        for _ in range(2):
            decision = settle(
                funded.id, verdict, escrow=self.stage.escrow, key=self.stage.judge, clock=self.stage.clock
            )
            self.stage.escrow.pump(self.stage.rail, now=self.stage.clock())
        return self._outcome(funded, decision)

    def change_of_mind(self) -> Outcome:
        """A rejection after the money went out."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        self._judge(honest)
        verdict = self._verify(funded, honest, policy=Policy.shipped("proved"))
        with self._expecting_refusal():
            self._settle_receipt(funded, replace(verdict, policy=self._policy.digest))
        return self._outcome(funded)

    def forged_receipt(self) -> Outcome:
        """An acceptance of a false claim, signed by somebody who is not the job's verifier."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        verdict = self._verify(funded, honest)
        with self._expecting_refusal():
            settle_receipt(
                funded.id,
                Receipt.issue(verdict, SigningKey.generate()),
                escrow=self.stage.escrow,
                clock=self.stage.clock,
            )
        return self._outcome(funded)

    def receipt_for_another_hold(self) -> Outcome:
        """A good receipt of one job, presented for another."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        other, other_bundle = self._proved()
        self.stage.claim(other_bundle)
        with self._expecting_refusal():
            self._settle_receipt(other, self._verify(funded, honest))
        return self._outcome(other)

    def receipt_of_a_milder_policy(self) -> Outcome:
        """An acceptance by another policy than the job's."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        milder = Policy.shipped("dangerous_demo_proved_or_sampled")
        with self._expecting_refusal():
            self._settle_receipt(funded, self._verify(funded, honest, policy=milder))
        return self._outcome(funded)

    def receipt_of_another_time(self) -> Outcome:
        """An acceptance as of a time at which, say, collateral was still good."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        verdict = self._verify(funded, honest)
        with self._expecting_refusal():
            self._settle_receipt(funded, replace(verdict, now=verdict.now - 1))
        return self._outcome(funded)

    def receipt_of_another_output(self) -> Outcome:
        """An acceptance of a bundle that was never claimed here."""
        funded, honest = self._proved()
        self.stage.claim(honest)
        verdict = self._verify(funded, honest)
        assert verdict.statement is not None
        other = replace(verdict.statement, output="cd" * 32)
        with self._expecting_refusal():
            self._settle_receipt(funded, replace(verdict, statement=other))
        return self._outcome(funded)

    def second_secret(self) -> Outcome:
        """A verifier that reveals another secret than the one it committed to, to steer the draw."""
        funded = self._hire(ALWAYS_DRAWN)
        honest = self.stage.respond(funded, prove=False)
        return self._verdict(funded, honest, answers=[Answer(NeedKind.REVEAL, bytes(32))])

    def early_reveal(self) -> Outcome:
        """Somebody wants the sampling secret before the provider is bound to an output."""
        funded = self._hire(ALWAYS_DRAWN)
        with self._expecting_refusal():
            self.stage.escrow.reveal(funded.id, 0)
        return self._outcome(funded)

    # --- how the cheats are played ------------------------------------------------------------------------

    @property
    def _policy(self) -> Policy:
        return Policy.shipped("dangerous_demo_proved")

    def _policy_for(self, terms: Terms) -> Policy:
        return self._policy if "ezkl" in terms.evidence_kinds else Policy.shipped("dangerous_demo_sampled")

    @cached_property
    def _look_alike(self) -> Entry:
        """A model with one weight changed, and a circuit of its own with the arguments of the true one."""
        import numpy as np
        import onnx
        from onnx import numpy_helper

        true = self.stage.catalogue.by_name(MODEL)
        model = onnx.load_from_string(true.model_bytes())
        weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
        weights.flat[int(np.argmax(np.abs(weights)))] *= 1.01
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, model.graph.initializer[0].name))
        source = self.folder / "model.onnx"
        source.write_bytes(model.SerializeToString())
        out = self.folder / "circuits" / MODEL
        specification = self.stage.root / "models" / MODEL / "model.toml"
        assert true.circuit is not None
        lock = compile_model(
            source,
            out,
            specification_path=specification,
            run_args=true.circuit.lock.run_args,
            cache=self.stage.prover.cache,
        )
        return Entry(MODEL, lock.model, read_circuit(out), read_replay(out), source)

    def _draft(self, terms: Terms) -> SignedJob:
        entry = self.stage.catalogue.by_name(MODEL)
        return draft_job(
            terms,
            entry=entry,
            payload=self._sample,
            policy=self._policy,
            buyer=self.stage.buyer,
            provider=self.stage.provider.public,
            verifier=self.stage.judge.public,
            escrow=self.stage.escrow,
            now=self.stage.clock(),
        )

    @cached_property
    def _sample(self) -> Tensors:
        entry = self.stage.catalogue.by_name(MODEL)
        return read_samples(self.stage.root / "models" / MODEL / "samples.json", entry.inputs)[0].inputs

    def _fund(self, job: SignedJob, payload: Tensors | None = None) -> None:
        fund(
            job,
            payload or self._sample,
            policy=self._policy,
            verifier=self.stage.verifier,
            escrow=self.stage.escrow,
            clock=self.stage.clock,
        )

    def _hire(self, terms: Terms = PROVED) -> Funded:
        return self.stage.hire(MODEL, terms, self._policy_for(terms))

    def _proved(self) -> tuple[Funded, Bundle]:
        funded = self._hire()
        return funded, self.stage.respond(funded, prove=True)

    def _output(self, funded: Funded, proof: ZkProof) -> Tensors:
        return proved_output(self.stage.prover.circuit_of(funded.entry).lock, proof.instances)

    def _off_by_one_step(self, bundle: Bundle) -> Tensors:
        output = bundle.exchange.output
        assert isinstance(output, Tensors)
        lock = self.stage.prover.circuit_of(self.stage.catalogue.by_name(MODEL)).lock
        array = output.items[0].numpy().copy()
        array.flat[0] += 2.0 ** -lock.output_scales[0]
        return Tensors((Tensor.of(output.items[0].name, array),))

    def _claims(self, funded: Funded, output: object, evidence: tuple[Evidence, ...]) -> Outcome:
        """Sign it, have it recorded, and have it judged."""
        assert isinstance(output, Tensors)
        bundle = self.stage.sign(funded, output, evidence)
        self.stage.claim(bundle)
        return self._outcome(funded, self._judge(bundle))

    def _judge(self, bundle: Bundle) -> Decision:
        policy = self._policy_of(bundle.exchange.job.document)
        decision = self.stage.judge_and_pay("cheat", bundle, policy)
        self.stage.escrow.run_timers(self.stage.clock())
        self.stage.escrow.pump(self.stage.rail, now=self.stage.clock())
        return decision

    def _policy_of(self, job: Job) -> Policy:
        shipped = (self._policy, Policy.shipped("dangerous_demo_sampled"))
        return next(policy for policy in shipped if policy.digest == job.policy)

    def _verify(self, funded: Funded, bundle: Bundle, *, policy: Policy | None = None) -> Verdict:
        claimed_at = self.stage.escrow.hold(funded.id).capture(0).claimed_at
        return self.stage.verifier.verify(
            bundle.exchange,
            bundle.evidence,
            policy=policy or self._policy,
            now=claimed_at or self.stage.clock.now,
        )

    def _verdict(self, funded: Funded, bundle: Bundle, *, answers: list[Answer] | None = None) -> Outcome:
        """Judge a bundle without settling it."""
        verdict = self.stage.verifier.verify(
            bundle.exchange,
            bundle.evidence,
            policy=self._policy_of(funded.job.document),
            now=self.stage.clock(),
            answers=answers or (),
        )
        assert not isinstance(verdict, Accepted)
        needs = frozenset(need.kind for need in getattr(verdict, "needs", ()))
        reasons = frozenset((reason.code, reason.fault) for reason in verdict.reasons)
        return replace(self._outcome(funded), reasons=reasons, needs=needs)

    def _settle_receipt(self, funded: Funded, verdict: Verdict) -> None:
        receipt = Receipt.issue(verdict, self.stage.judge)
        settle_receipt(funded.id, receipt, escrow=self.stage.escrow, clock=self.stage.clock)

    @contextmanager
    def _expecting_refusal(self) -> Iterator[None]:
        try:
            yield
        except Refused as refused:
            self.refusals.append(refused)
        else:
            raise AssertionError("the escrow let it pass")

    def _outcome(self, funded: Funded | None, decision: Decision | None = None) -> Outcome:
        reasons = {(refused.code, refused.fault) for refused in self.refusals}
        needs: frozenset[NeedKind] = frozenset()
        if decision is not None:
            reasons |= {(reason.code, reason.fault) for reason in decision.receipt.reasons}
            needs = frozenset(need.kind for need in decision.receipt.needs)
        record = None if funded is None else self.stage.escrow.hold(funded.id)
        return Outcome(
            frozenset(reasons),
            record.capture(0).state if record else None,
            record.bond.state if record else None,
            needs,
            self._wealth() - self.before,
        )

    def _wealth(self) -> int:
        """What the provider owns, its bonds among it."""
        balances = self.stage.escrow.balances()
        mine = [b for b in balances if b.account.owner == self.stage.provider.public]
        bonds = [b for b in balances if b.account.kind == "bond"]
        return sum(balance.amount for balance in (*mine, *bonds))
