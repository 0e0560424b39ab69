"""Disputes with real tensors: honest providers on any runtime, every kind of fraud, up to the transcript."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from judging import BUYER, PROVIDER, VERIFIER
from proofhold.canonical import file_digest
from proofhold.contention import (
    Challenge,
    Charge,
    SignedChallenge,
    SignedDisputeAnswer,
)
from proofhold.drafting import USDC
from proofhold.job import Claim, Delivery, Job, OnnxModel, SignedClaim, SignedJob
from proofhold.keys import Signed, SigningKey
from proofhold.locks import ReplayLock
from proofhold.payload import Tensor, Tensors
from proofhold.provider.answering import Answered, answer_challenge, candidates, sign_answer
from proofhold.replay.accusation import Examined, examine, gather, worst
from proofhold.replay.regions import Graph
from proofhold.replay.steps import run_stepwise
from proofhold.replay.surgery import parse
from proofhold.replay.trace import Trace
from proofhold.replay.transcript import Transcript
from proofhold.runner import InlineRunner

Arrays = dict[str, np.ndarray[Any, Any]]
Runtime = Callable[[bytes, tuple[str, ...], Arrays], Arrays]
"""Gives the named tensors of one run of a model."""

NONCE = hashlib.sha256(b"dispute").digest()


def onnxruntime_at(level: str, threads: int = 1) -> Runtime:
    """onnxruntime at an optimisation level."""

    def run(model: bytes, names: tuple[str, ...], inputs: Arrays) -> Arrays:
        import onnxruntime

        session = _session(_exposing(model, names), level, threads)
        assert isinstance(session, onnxruntime.InferenceSession)
        return dict(zip(names, session.run(list(names), inputs), strict=True))

    return run


def openvino(model: bytes, names: tuple[str, ...], inputs: Arrays) -> Arrays:
    """OpenVINO in single precision."""
    compiled = _compiled(_exposing(model, names))
    results = compiled(inputs)
    return {name: np.array(results[name]) for name in names}


def reference(model: bytes, names: tuple[str, ...], inputs: Arrays) -> Arrays:
    """The evaluator of the onnx package."""
    values = _evaluator(_exposing(model, names)).run(list(names), inputs)
    return dict(zip(names, (np.asarray(value) for value in values), strict=True))


RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime, no optimisation": onnxruntime_at("ORT_DISABLE_ALL"),
    "onnxruntime, basic": onnxruntime_at("ORT_ENABLE_BASIC"),
    "onnxruntime, extended": onnxruntime_at("ORT_ENABLE_EXTENDED"),
    "onnxruntime, all": onnxruntime_at("ORT_ENABLE_ALL"),
    "onnxruntime, all, two threads": onnxruntime_at("ORT_ENABLE_ALL", 2),
    "OpenVINO": openvino,
    "onnx reference": reference,
}


@dataclass(frozen=True)
class Case:
    """A claim with its committed tensors, and what its provider can say about each segment."""

    model: bytes
    lock: ReplayLock
    job: SignedJob
    claim: SignedClaim
    trace: Trace
    leaves: dict[str, Tensor]

    @property
    def graph(self) -> Graph:
        return parsed(self.model)

    def challenge(self, segment: int) -> SignedChallenge:
        document = Challenge(job=self.job.digest, seq=0, claim=self.claim.digest, segment=segment)
        return Signed.new(document, VERIFIER)

    def ends(self, segment: int) -> dict[str, Tensor]:
        pinned = self.lock.segments[segment]
        return {name: self.leaves[name] for name in (*pinned.inputs, *pinned.outputs)}

    def steps(self, segment: int, model: bytes | None = None) -> dict[str, Tensor]:
        """Run a segment operator by operator, from what was committed; with another model, to cheat."""
        pinned = self.lock.segments[segment]
        taken = [self.leaves[name] for name in pinned.inputs]
        if model is None:
            return dict(run_stepwise(InlineRunner(), self.model, self.lock, pinned, taken))
        return dict(run_stepwise(InlineRunner(), model, replace_model(self.lock, model), pinned, taken))

    def runs(self, segment: int) -> Iterator[Mapping[str, Tensor]]:
        """Run a segment again as the shipped provider does, in its order."""
        pinned = self.lock.segments[segment]
        taken = [self.leaves[name] for name in pinned.inputs]
        for fused in (False, True):
            yield run_stepwise(InlineRunner(), self.model, self.lock, pinned, taken, fused=fused)

    def answer(self, segment: int, steps: Mapping[str, Tensor] | None = None) -> Answered:
        """Answer as the shipped provider does."""
        return answer_challenge(
            self.challenge(segment),
            graph=self.graph,
            lock=self.lock,
            trace=self.trace,
            ends=self.ends(segment),
            runs=self.runs(segment) if steps is None else [steps],
            key=PROVIDER,
        )

    def sign(self, segment: int, shown: Mapping[str, Tensor]) -> Answered:
        """Answer with these tensors, true or not: what a dishonest provider does."""
        challenge = self.challenge(segment).document
        return Answered(*sign_answer(challenge, self.trace, {**shown, **self.ends(segment)}, PROVIDER), 0.0)

    def shown(self, segment: int, steps: Mapping[str, Tensor], *, whole: bool = False) -> dict[str, Tensor]:
        """Choose from a run's tensors what an answer shows: with the tail left out, or the whole."""
        pinned = self.lock.segments[segment]
        left_out = frozenset() if whole else list(candidates(self.graph, pinned))[-1]
        ends = self.ends(segment)
        return {
            name: tensor
            for name, tensor in steps.items()
            if name not in ends and name not in left_out and not self.graph.is_fixed(name, pinned.inputs)
        }

    def accuse(self, segment: int, answered: Answered) -> Examined:
        """Look for the one to charge, as an accuser does."""
        tensors = {t.name: t for t in answered.tensors} | self.ends(segment)
        inputs = self.lock.segments[segment].inputs
        targets = [t.name for t in answered.tensors if t.name not in inputs]
        return worst(list(examine(self.graph, targets, tensors)))

    def transcript(
        self,
        answer: SignedDisputeAnswer | None,
        tensors: Mapping[str, Tensor],
        target: str,
        *,
        element: int | None = None,
        key: SigningKey = VERIFIER,
    ) -> Transcript:
        """Put a transcript together: what is behind the charged tensor, and no more."""
        charge = Charge(
            claim=self.claim.digest,
            answer=None if answer is None else answer.digest,
            tensor=target,
            element=element,
        )
        return gather(
            self.job,
            self.claim,
            self.lock,
            self.graph,
            answer,
            Signed.new(charge, key),
            self.trace,
            {**self.leaves, **tensors},
        )


@functools.lru_cache(maxsize=64)
def parsed(model: bytes) -> Graph:
    return Graph.parse(model)


def replace_model(lock: ReplayLock, model: bytes) -> ReplayLock:
    return replace(lock, model=file_digest(model))


def run(model: bytes, lock: ReplayLock, inputs: Arrays, runtime: Runtime) -> dict[str, Tensor]:
    """Give the leaves of one run."""
    names = (*(cut.name for cut in lock.boundaries), *(end.name for end in lock.outputs))
    values = runtime(model, names, inputs)
    return {name: Tensor.of(name, value) for name, value in {**inputs, **values}.items()}


def case(model: bytes, lock: ReplayLock, leaves: dict[str, Tensor]) -> Case:
    """Make and sign a job and the claim that commits to these leaves."""
    trace = Trace.of(NONCE, [leaves[leaf.name] for leaf in lock.leaves])
    given = Tensors(tuple(leaves[spec.name] for spec in lock.inputs))
    output = Tensors(tuple(leaves[spec.name] for spec in lock.outputs))
    job = Signed.new(
        Job(
            escrow="test",
            verifier=VERIFIER.public,
            buyer=BUYER.public,
            provider=PROVIDER.public,
            payee="payee",
            model=OnnxModel(lock.model, None, lock.digest),
            input=given.digest(NONCE),
            price=1_000,
            currency=USDC,
            nonce=NONCE.hex(),
            claim_by=2_000_000_000,
            verification_s=100,
            answer_s=50,
            dispute_s=300,
            freeze_s=1_000,
            delivery=Delivery.WITH_VERDICT,
            policy="00" * 32,
            evidence_kinds=("replay",),
            sampling_rate_ppm=200_000,
            bond=5_000,
            withholding_penalty=5_000,
            sampling_commitment="00" * 32,
        ),
        BUYER,
        PROVIDER,
    )
    claim = Claim(job=job.digest, seq=0, amount=1_000, output=output.digest(NONCE), trace_root=trace.root)
    return Case(model, lock, job, Signed.new(claim, PROVIDER), trace, leaves)


def cheaper(model: bytes, how: str) -> bytes:
    """Make a cheaper model of a model: its large weights in fewer bits, or with fewer of them."""
    proto = parse(model)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim >= 2:
            tensor.CopyFrom(numpy_helper.from_array(_CHEAPER[how](values), tensor.name))
    return bytes(proto.SerializeToString(deterministic=True))


def _steps(values: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    scale = np.abs(values).max() / steps
    return np.asarray(np.round(values / scale) * scale, np.float32)


def _pruned(values: np.ndarray[Any, Any], share: float) -> np.ndarray[Any, Any]:
    return np.where(np.abs(values) < np.quantile(np.abs(values), share), np.float32(0), values)


_CHEAPER: Mapping[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "fp16": lambda v: v.astype(np.float16).astype(np.float32),
    "bf16": lambda v: (v.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32),
    "int8": lambda v: _steps(v, 127),
    "int4": lambda v: _steps(v, 7),
    "10 % pruned": lambda v: _pruned(v, 0.1),
}
CHEAPER = tuple(_CHEAPER)


@functools.lru_cache(maxsize=256)
def _exposing(model: bytes, names: tuple[str, ...]) -> bytes:
    proto = parse(model)
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names if n not in known)
    return bytes(onnx.shape_inference.infer_shapes(proto).SerializeToString(deterministic=True))


@functools.lru_cache(maxsize=64)
def _session(model: bytes, level: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.lru_cache(maxsize=32)
def _compiled(model: bytes) -> Any:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    core = openvino.Core()
    return core.compile_model(core.read_model(model), "CPU", hints)


@functools.lru_cache(maxsize=32)
def _evaluator(model: bytes) -> ReferenceEvaluator:
    return ReferenceEvaluator(onnx.ModelProto.FromString(model))
