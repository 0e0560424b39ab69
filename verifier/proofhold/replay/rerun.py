"""Run a model, with its trace, or one of its segments alone: tasks for a `Runner`, and what asks for them.

A worker keeps the sessions that it made, by the digests of what they run. It reads the published model when
it has no session for it, from a path if the catalogue has one: sending a model of a hundred megabytes with
each check would cost more than the check. The digest is compared by whoever reads.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proofhold.canonical import Digest, file_digest
from proofhold.catalogue import MAX_MODEL_BYTES, Entry
from proofhold.errors import Malformed, Misuse
from proofhold.locks import ReplayLock, Segment
from proofhold.payload import Tensor
from proofhold.replay.compare import residual
from proofhold.replay.packed import (
    PackedReader,
    describe,
    pack,
    pack_tensors,
    unpack_tensors,
)
from proofhold.replay.trace import MAX_LEAVES, Trace, TraceHasher, read_hashes
from proofhold.runner import DEFAULT_DEADLINE_S, Runner

if TYPE_CHECKING:
    import onnxruntime

SESSIONS_KEPT = 32
MAX_RUN_BYTES = 256 * 2**20
WHOLE = -1
"""In place of a segment's number: the model as it was published."""
RESIDUALS = b"residuals:"
"""What an answer of residuals begins with: any eight bytes are a number, also those of a broken worker."""
_RESIDUAL = struct.Struct("!d")


@dataclass(frozen=True, slots=True)
class Traced:
    """What a traced run gave: the model's outputs, the tensors at the cuts that were wanted, all hashes."""

    outputs: tuple[Tensor, ...]
    cuts: tuple[Tensor, ...]
    trace: Trace


class Rerunner:
    """Runs the model of one catalogue entry, whole or in segments, in the runner that it is given."""

    def __init__(self, entry: Entry, runner: Runner, *, deadline_s: float = DEFAULT_DEADLINE_S) -> None:
        """Take an entry.

        Raises:
            Misuse: it has no replay lock, or the model itself is not in the catalogue.

        """
        if entry.replay is None or entry.source is None:
            raise Misuse(f"{entry.name} cannot be re-executed here: its model or its replay lock is missing")
        self.lock = entry.replay
        self._runner, self._deadline_s = runner, deadline_s
        is_path = isinstance(entry.source, Path)
        self._source = (
            str(entry.source.resolve()).encode() if isinstance(entry.source, Path) else entry.source
        )
        self._forms = ports(self.lock)
        self.request = {"is_path": is_path, "model": entry.model, "ports": self._forms}
        self._asked_of: dict[int, bytes] = {}

    def segment(self, index: int, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run one segment on the tensors that it takes, in its order.

        Raises:
            RunnerError: no result.
            Malformed: the worker sent something else than tensors.

        """
        given = self.run_task(run_segment, self._segment_request(index), inputs)
        return unpack_tensors(given, max_bytes=MAX_RUN_BYTES)

    def residuals(
        self, index: int, inputs: Sequence[Tensor], claimed: Sequence[Tensor]
    ) -> Mapping[str, float]:
        """Run one segment, and give how far each of its claimed outputs is from what came out.

        Compared where it ran, so that what comes out does not travel. What goes there goes as it is: the lock
        says what it is.

        Raises:
            RunnerError: no result.
            Malformed: a tensor is not the lock's, or the worker sent something else than residuals.

        """
        pinned = self.lock.segments[index]
        return self._compared(self._segment_request(index), pinned.inputs, pinned.outputs, inputs, claimed)

    def whole(self, inputs: Sequence[Tensor], claimed: Sequence[Tensor]) -> Mapping[str, float]:
        """Run the whole model, and give how far each of its outputs is from the claim's; as `residuals`."""
        taken, given = (tuple(spec.name for spec in specs) for specs in (self.lock.inputs, self.lock.outputs))
        if WHOLE not in self._asked_of:
            self._asked_of[WHOLE] = self._request(taken, given, None)
        return self._compared(self._asked_of[WHOLE], taken, given, inputs, claimed)

    def _compared(
        self,
        request: bytes,
        taken: Sequence[str],
        given: Sequence[str],
        inputs: Sequence[Tensor],
        claimed: Sequence[Tensor],
    ) -> Mapping[str, float]:
        tensors = (*inputs, *claimed)
        got = [[t.name, t.dtype, list(t.shape)] for t in tensors]
        if got != [[name, *self._forms[name]] for name in (*taken, *given)]:
            raise Malformed("residuals.form", f"these are not the tensors that the lock names: {got}"[:500])
        answer = self._runner.run(
            compare_run,
            request,
            self._source,
            *(tensor.data for tensor in tensors),
            deadline_s=self._deadline_s,
        )
        head, body = answer[: len(RESIDUALS)], answer[len(RESIDUALS) :]
        if head != RESIDUALS or len(body) != len(given) * _RESIDUAL.size:
            raise Malformed("residuals.malformed", f"{len(answer)} bytes, expected {len(given)} residuals")
        return {name: value for name, (value,) in zip(given, _RESIDUAL.iter_unpack(body), strict=True)}

    def _segment_request(self, index: int) -> bytes:
        if index not in self._asked_of:
            segment = self.lock.segments[index]
            self._asked_of[index] = self._request(segment.inputs, segment.outputs, segment.model)
        return self._asked_of[index]

    def _request(self, inputs: Sequence[str], outputs: Sequence[str], segment: Digest | None) -> bytes:
        """Write what a run of a segment, or of the whole model (None), is asked for."""
        request = {
            "inputs": list(inputs),
            "norms": {name: self.lock.norms.get(name, 0.0) for name in outputs},
            "outputs": list(outputs),
            "ports": {name: self._forms[name] for name in (*inputs, *outputs)},
            "segment": segment,
        }
        return encode_request(self.request | request)

    def traced(self, nonce: bytes, inputs: Sequence[Tensor], *, wanted: Sequence[str] = ()) -> Traced:
        """Run the whole model once and hash what crosses the cuts; raises as `segment` does.

        The same inputs give the same hashes on the same machine: a provider keeps no tensors between a claim
        and its opening, and asks again for those that are `wanted`.
        """
        cuts = [boundary.name for boundary in self.lock.boundaries]
        request = self.request | {"cuts": cuts, "nonce": nonce.hex(), "wanted": list(wanted)}
        reader = PackedReader(
            self.run_task(run_traced, encode_request(request), inputs),
            max_bytes=MAX_RUN_BYTES,
            what="tensors",
        )
        leaves = read_hashes(reader.record, "leaves", max_items=MAX_LEAVES)
        tensors = tuple(reader.tensor(item) for item in reader.record.items("tensors"))
        reader.close()
        return Traced(tensors[len(wanted) :], tensors[: len(wanted)], Trace(TraceHasher(nonce), leaves))

    def run_task(self, task: Any, request: bytes, tensors: Sequence[Tensor]) -> bytes:
        """Run a task of this package: its request, where the model lies, and tensors.

        Raises:
            RunnerError: no result.

        """
        return self._runner.run(
            task, request, self._source, pack_tensors(tensors), deadline_s=self._deadline_s
        )


def encode_request(request: Mapping[str, Any]) -> bytes:
    """Write what a task is asked for."""
    return json.dumps(request).encode()


def ports(lock: ReplayLock) -> dict[str, list[Any]]:
    """Give dtype and shape of every leaf by name: what surgery takes, as JSON."""
    return {leaf.name: [leaf.dtype, list(leaf.shape)] for leaf in lock.leaves}


def segment_digest(model: bytes, lock_ports: Mapping[str, Any], segment: Segment) -> Digest:
    """Make a segment's model and give its digest; parses the model: call it in a worker."""
    return file_digest(_extracted(model, lock_ports, segment.inputs, segment.outputs))


def run_segment(request: bytes, source: bytes, tensors: bytes) -> bytes:
    """Run one segment; the task behind `Rerunner.segment`.

    Raises:
        Misuse: the model or the segment's model is not the pinned one.

    """
    asked = json.loads(request)
    session = _segment_session(asked, source)
    return pack_tensors(_outputs(session, asked["outputs"], tensors))


def compare_run(request: bytes, source: bytes, *tensors: bytes) -> bytes:
    """Run a segment or a model, and compare with what was claimed: the task behind `Rerunner.residuals`.

    `tensors` are the bytes of the inputs and of the claimed outputs. Gives `RESIDUALS`, and eight bytes for
    each of the latter.

    Raises:
        Misuse: as `run_segment` does, or for bytes that are no such tensors.

    """
    asked = _read_request(request)
    names, forms = (*asked["inputs"], *asked["outputs"]), asked["ports"]
    given = {
        name: Tensor(name, forms[name][0], tuple(forms[name][1]), data).numpy()
        for name, data in zip(names, tensors, strict=True)
    }
    session = _segment_session(asked, source)
    values = session.run(asked["outputs"], {name: given[name] for name in asked["inputs"]})
    found = (
        _RESIDUAL.pack(residual(given[name], value, asked["norms"][name]))
        for name, value in zip(asked["outputs"], values, strict=True)
    )
    return b"".join((RESIDUALS, *found))


@functools.lru_cache(maxsize=SESSIONS_KEPT)
def _read_request(request: bytes) -> Mapping[str, Any]:
    """Read what a check asks for: of one segment it is the same every time."""
    asked: dict[str, Any] = json.loads(request)
    return asked


def _segment_session(asked: Mapping[str, Any], source: bytes) -> onnxruntime.InferenceSession:
    key = (asked["model"], asked["segment"], tuple(asked["outputs"]))
    session = _SESSIONS.get(key)
    if session is None:
        model = read_model(asked, source)
        if asked["segment"] is not None:
            model = _extracted(model, asked["ports"], asked["inputs"], asked["outputs"])
            if file_digest(model) != asked["segment"]:
                raise Misuse(f"the segment's model has SHA-256 {file_digest(model)}, not the pinned one")
        session = _keep(key, model)
    return session


def run_traced(request: bytes, source: bytes, tensors: bytes) -> bytes:
    """Run the model with its cuts exposed and hash every leaf; the task behind `Rerunner.traced`."""
    asked = json.loads(request)
    session = _exposed(asked, source)
    feed = unpack_tensors(tensors, max_bytes=MAX_RUN_BYTES)
    names = [port.name for port in session.get_outputs()]
    values = session.run(names, {tensor.name: tensor.numpy() for tensor in feed})
    hasher = TraceHasher(bytes.fromhex(asked["nonce"]))
    leaves = [hasher.leaf(tensor) for tensor in feed]
    leaves += [hasher.leaf_of(name, value) for name, value in zip(names, values, strict=True)]
    found = dict(zip(names, values, strict=True))
    given = [Tensor.of(name, found[name]) for name in (*asked["wanted"], *names[len(asked["cuts"]) :])]
    header = {"leaves": [leaf.hex() for leaf in leaves], "tensors": [describe(t) for t in given]}
    return pack(header, given)


_SESSIONS: dict[Any, onnxruntime.InferenceSession] = {}


def _exposed(asked: Mapping[str, Any], source: bytes) -> onnxruntime.InferenceSession:
    from proofhold.replay.surgery import Port, expose, model_inputs, parse

    key = (asked["model"], "exposed", tuple(asked["cuts"]), json.dumps(asked["ports"]))
    session = _SESSIONS.get(key)
    if session is None:
        model = parse(read_model(asked, source))
        forms = asked["ports"]
        inputs = [Port(name, forms[name][0], tuple(forms[name][1])) for name in model_inputs(model.graph)]
        cuts = [Port(name, forms[name][0], tuple(forms[name][1])) for name in asked["cuts"]]
        session = _keep(key, expose(model, inputs, cuts))
    return session


def _extracted(
    model: bytes, forms: Mapping[str, Any], inputs: Sequence[str], outputs: Sequence[str]
) -> bytes:
    from proofhold.replay.surgery import Port, extract

    given, asked = (
        [Port(name, forms[name][0], tuple(forms[name][1])) for name in names] for names in (inputs, outputs)
    )
    return extract(_parsed(model), given, asked)


@functools.lru_cache(maxsize=1)
def _parsed(model: bytes) -> Any:
    """Parse a model once for all its segments."""
    from proofhold.replay.surgery import parse

    return parse(model)


def read_model(asked: Mapping[str, Any], source: bytes) -> bytes:
    """Give a published model: from a path, or as it came; compared with its digest.

    Raises:
        Misuse: it is another one.

    """
    data = source
    if asked["is_path"]:
        with Path(source.decode()).open("rb") as file:
            data = file.read(MAX_MODEL_BYTES + 1)
    if file_digest(data) != asked["model"]:
        raise Misuse(f"the model has SHA-256 {file_digest(data)}, expected {asked['model']}")
    return data


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load a model as every check does: one thread, the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _keep(key: Any, model: bytes) -> onnxruntime.InferenceSession:
    session = open_session(model)
    while len(_SESSIONS) >= SESSIONS_KEPT:
        del _SESSIONS[next(iter(_SESSIONS))]
    _SESSIONS[key] = session
    return session


def _outputs(
    session: onnxruntime.InferenceSession, names: Sequence[str], tensors: bytes
) -> tuple[Tensor, ...]:
    feed = {t.name: t.numpy() for t in unpack_tensors(tensors, max_bytes=MAX_RUN_BYTES)}
    values = session.run(list(names), feed)
    return tuple(Tensor.of(name, value) for name, value in zip(names, values, strict=True))


__all__ = ["Rerunner", "Traced", "ports", "segment_digest"]
