"""The native tools behind one typed door: each call runs in a worker, and comes back or fails clearly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proofhold.compile import native
from proofhold.compile.derivation import Derivation, Request
from proofhold.compile.errors import CompileError, ToolFailed
from proofhold.compile.packing import pack
from proofhold.domain import InputSpec, PostProcessing
from proofhold.execution import run_model
from proofhold.payload import Tensors, decode_payload, encode_payload
from proofhold.runner import ProcessRunner, Runner, RunnerError, Task, TaskRaised
from proofhold.zkverify import VALID, verify_natively

PARSE_DEADLINE_S = 60.0
PARSE_MEMORY_BYTES = 4 * 2**30
PROVE_DEADLINE_S = 3600.0


class Toolchain:
    """onnx, onnxruntime and ezkl in workers: one with limits for reading models, one without for proving.

    Methods raise CompileError ``compile.unsupported`` where a tool raised: it has looked at the model and
    refuses it; ToolFailed where it died or hung; and whatever the tasks of `native` refuse.
    """

    def __init__(self) -> None:
        self._reader = ProcessRunner(memory_bytes=PARSE_MEMORY_BYTES)
        self._prover = ProcessRunner(memory_bytes=None, threads=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def reader(self) -> Runner:
        """The workers that read and run models, within limits."""
        return self._reader

    def close(self) -> None:
        """End the workers."""
        self._reader.close()
        self._prover.close()

    def derive(self, published: bytes, request: Request | None = None) -> Derivation:
        """Run all passes over a published model."""
        told = (request or Request()).encode()
        return Derivation.decode(self._read(native.derive_model, published, told))

    def difference(
        self,
        before: bytes,
        after: bytes,
        samples: Sequence[Tensors],
        moved: PostProcessing = PostProcessing.NONE,
    ) -> float:
        """Give the largest difference of two models' outputs; see `comparison.largest_difference`."""
        payloads = pack(encode_payload(sample) for sample in samples)
        step = moved.value.encode()
        found: float = json.loads(self._read(native.compare_models, before, after, payloads, step))
        return found

    def nodes(self, published: bytes) -> list[tuple[str, str, str]]:
        """List a model's nodes in order: name, operator, domain."""
        return [tuple(node) for node in json.loads(self._read(native.list_nodes, published))]

    def cut(self, derived: bytes, count: int) -> bytes:
        """Give the model of the first `count` nodes alone."""
        return self._read(native.cut_model, derived, str(count).encode())

    def peak(self, published: bytes, inputs: tuple[InputSpec, ...]) -> float | None:
        """Bound every tensor of a model over its input domain; see `bounds.peak_magnitude`."""
        domain = [[spec.name, spec.dtype, spec.shape, spec.low, spec.high] for spec in inputs]
        peak: float | None = json.loads(
            self._read(native.bound_model, published, json.dumps(domain).encode())
        )
        return peak

    def run(self, published: bytes, inputs: Tensors) -> Tensors:
        """Run a model in onnxruntime."""
        result = self._run(self._reader, run_model, PARSE_DEADLINE_S, published, encode_payload(inputs))
        outputs = decode_payload(result)
        if not isinstance(outputs, Tensors):
            raise ToolFailed("onnxruntime gave no tensors")
        return outputs

    def settings(self, folder: Path, arguments: dict[str, Any]) -> bytes:
        """Let ezkl derive the settings of the derived model in `folder`."""
        return self._prove(native.generate_settings, _path(folder), json.dumps(arguments).encode())

    def compile(self, folder: Path) -> None:
        """Compile the derived model and the settings in `folder`."""
        self._prove(native.compile_circuit, _path(folder))

    def set_up(self, folder: Path, srs: Path) -> None:
        """Make both keys of the circuit in `folder`."""
        self._prove(native.set_up, _path(folder), _path(srs))

    def evaluate(
        self, circuit: Path, inputs: list[Any], *, lookup_range: tuple[int, int] | None
    ) -> list[list[list[str]]]:
        """Run a circuit on many inputs; gives for each, for each output, its field elements."""
        parts = (json.dumps(inputs).encode(), json.dumps(lookup_range).encode())
        result: list[list[list[str]]] = json.loads(self._prove(native.evaluate, _path(circuit), *parts))
        return result

    def lookups(self, circuit: Path, inputs: list[Any]) -> tuple[int, int]:
        """Give the least and the largest integer that a circuit looks up in tables on many inputs."""
        low, high = json.loads(
            self._prove(native.measure_lookups, _path(circuit), json.dumps(inputs).encode())
        )
        return low, high

    def prove(
        self, circuit: Path, pk: Path, srs: Path, inputs: Any, *, lookup_range: tuple[int, int] | None
    ) -> tuple[list[str], bytes]:
        """Prove one run; gives the instances and the proof."""
        paths = (_path(circuit), _path(pk), _path(srs))
        parts = (json.dumps(inputs).encode(), json.dumps(lookup_range).encode())
        made = json.loads(self._prove(native.prove, *paths, *parts))
        return made["instances"], bytes.fromhex(made["proof"])

    def time_proof(
        self, folder: Path, srs: Path, inputs: Any, *, lookup_range: tuple[int, int] | None
    ) -> tuple[float, float]:
        """Make keys of the circuit in `folder` and prove one run: processor seconds of either."""
        paths = (_path(folder / native.CIRCUIT_FILE), _path(folder / native.PK_FILE), _path(srs))
        parts = (json.dumps(inputs).encode(), json.dumps(lookup_range).encode())
        setup_s: float = json.loads(self._prove(native.time_set_up, _path(folder), _path(srs)))
        prove_s: float = json.loads(self._prove(native.time_proof, *paths, *parts))
        return setup_s, prove_s

    def verify(self, snark: bytes, settings: bytes, vk: bytes, srs: bytes) -> bool:
        """Check a proof with the very task that the verifier's backend uses."""
        parts = (snark, settings, vk, srs)
        return self._run(self._prover, verify_natively, PROVE_DEADLINE_S, *parts) == VALID

    def _read(self, task: Task, *parts: bytes) -> bytes:
        return native.unwrap(self._run(self._reader, task, PARSE_DEADLINE_S, *parts))

    def _prove(self, task: Task, *parts: bytes) -> bytes:
        return native.unwrap(self._run(self._prover, task, PROVE_DEADLINE_S, *parts))

    def _run(self, runner: Runner, task: Task, deadline_s: float, *parts: bytes) -> bytes:
        try:
            return runner.run(task, *parts, deadline_s=deadline_s)
        except TaskRaised as error:
            raise CompileError("compile.unsupported", f"{_words(task)}: {error}") from error
        except RunnerError as error:
            raise ToolFailed(f"{_words(task)}: {error}") from error


def _words(task: Task) -> str:
    return task.__name__.replace("_", " ")


def _path(path: Path) -> bytes:
    return str(path.resolve()).encode()
