"""What runs in a worker: everything that hands bytes to onnx or ezkl. Tasks for a `Runner`.

ezkl panics with a BaseException, holds the GIL, and writes to the terminal; onnx's checker is C++ that reads
a stranger's file. Each task takes and gives bytes. A refusal crosses the border as data: its class and code.
"""

from __future__ import annotations

import functools
import importlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proofhold import canonical
from proofhold.compile.derivation import Request
from proofhold.compile.errors import CompileError
from proofhold.compile.packing import unpack
from proofhold.domain import InputSpec, PostProcessing
from proofhold.errors import Malformed
from proofhold.payload import Tensors, decode_payload
from proofhold.runner import Task

OK, MALFORMED, REFUSED = b"\x00", b"\x01", b"\x02"

MODEL_FILE, SETTINGS_FILE, CIRCUIT_FILE = "model.onnx", "settings.json", "circuit.ezkl"
MAX_NAME = 80
"""A node's name comes from a stranger's file, and is only ever shown."""
VK_FILE, PK_FILE = "vk.key", "pk.key"


def refusals_as_data(task: Callable[..., bytes]) -> Task:
    """Give the task's result behind one byte, or its refusal as JSON behind another."""

    @functools.wraps(task)
    def guarded(*parts: bytes) -> bytes:
        try:
            return OK + task(*parts)
        except (Malformed, CompileError) as error:
            kind = MALFORMED if isinstance(error, Malformed) else REFUSED
            where = [error.node, error.operator] if isinstance(error, CompileError) else []
            return kind + json.dumps([error.code, error.message, *where]).encode()

    return guarded


def unwrap(result: bytes) -> bytes:
    """Give a task's result, or raise its refusal on this side.

    Raises:
        Malformed: the bytes it was given are not what they claim to be.
        CompileError: they cannot become a circuit.

    """
    kind, body = result[:1], result[1:]
    if kind == OK:
        return body
    code, message, *where = json.loads(body)
    if kind == MALFORMED:
        raise Malformed(code, message)
    node, operator = where
    raise CompileError(code, message, node=node, operator=operator)


@refusals_as_data
def derive_model(published: bytes, request: bytes) -> bytes:
    """Run all passes over a published model, for an encoded `Request`; gives an encoded `Derivation`."""
    from proofhold.compile.passes import derive

    return derive(published, Request.decode(request)).encode()


@refusals_as_data
def compare_models(before: bytes, after: bytes, samples: bytes, moved: bytes) -> bytes:
    """Give `comparison.largest_difference` as JSON; `samples` packs encoded payloads."""
    from proofhold.compile.comparison import largest_difference

    payloads = [decode_payload(sample) for sample in unpack(samples)]
    arrays = [{t.name: t.numpy() for t in p.items} for p in payloads if isinstance(p, Tensors)]
    step = PostProcessing(moved.decode())
    return json.dumps(largest_difference(before, after, arrays, step)).encode()


@refusals_as_data
def list_nodes(published: bytes) -> bytes:
    """List a model's nodes: JSON, lists of [name, operator, domain]. It need not have passed anything."""
    from proofhold.compile.passes import parse_model

    nodes = parse_model(published).graph.node
    rows = [[text[:MAX_NAME] for text in (node.name, node.op_type, node.domain)] for node in nodes]
    return json.dumps(rows).encode()


@refusals_as_data
def cut_model(derived: bytes, count: bytes) -> bytes:
    """Give the model of the first `count` nodes alone, with the last one's outputs and all inputs."""
    import onnx

    from proofhold.compile.passes import parse_model

    model = parse_model(derived)
    shapes = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in (*shapes.value_info, *shapes.output)}
    nodes = list(model.graph.node)[: int(count)]
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    for name in nodes[-1].output:
        model.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
    cut: bytes = model.SerializeToString(deterministic=True)
    return cut


@refusals_as_data
def bound_model(published: bytes, domain: bytes) -> bytes:
    """Give `bounds.peak_magnitude` as JSON; `domain` lists [name, dtype, shape, low, high] of each input."""
    from proofhold.compile.bounds import peak_magnitude
    from proofhold.compile.passes import parse_model

    specs = tuple(
        InputSpec(name, dtype, tuple(shape), low, high)
        for name, dtype, shape, low, high in json.loads(domain)
    )
    return json.dumps(peak_magnitude(parse_model(published), specs)).encode()


@refusals_as_data
def generate_settings(folder: bytes, arguments: bytes) -> bytes:
    """Let ezkl derive the settings of the model in `folder` for `arguments` (JSON: name to value)."""
    ezkl = _ezkl()
    work = Path(folder.decode())
    run_args = ezkl.PyRunArgs()
    for name, value in json.loads(arguments).items():
        # A range is a tuple to ezkl, and a list to JSON.
        setattr(run_args, name, tuple(value) if isinstance(value, list) else value)
    raw = work / "settings.raw.json"
    if not ezkl.gen_settings(str(work / MODEL_FILE), str(raw), py_run_args=run_args):
        raise CompileError("compile.settings_failed", "ezkl gave no settings for this model")
    return raw.read_bytes()


@refusals_as_data
def compile_circuit(folder: bytes) -> bytes:
    """Compile the model and settings in `folder` to ezkl's circuit file. Its bytes differ from run to run."""
    ezkl = _ezkl()
    work = Path(folder.decode())
    ezkl.compile_circuit(str(work / MODEL_FILE), str(work / CIRCUIT_FILE), str(work / SETTINGS_FILE))
    return b""


@refusals_as_data
def set_up(folder: bytes, srs: bytes) -> bytes:
    """Make both keys of the circuit in `folder` with the SRS at the path `srs`."""
    ezkl = _ezkl()
    work = Path(folder.decode())
    ezkl.setup(str(work / CIRCUIT_FILE), str(work / VK_FILE), str(work / PK_FILE), srs.decode())
    return b""


@refusals_as_data
def evaluate(circuit: bytes, inputs: bytes, lookup_range: bytes) -> bytes:
    """Run the circuit at the path `circuit` on many inputs without proving.

    `inputs` is a JSON list of what ezkl calls input data, `lookup_range` that of the circuit, or null; gives
    a JSON list of the outputs' field elements.

    Raises:
        CompileError: ``compile.not_provable``, naming the first input that has no proof.

    """
    results = []
    with tempfile.TemporaryDirectory(prefix="proofhold-") as folder:
        for index, data in enumerate(json.loads(inputs)):
            witness = _witness(circuit.decode(), data, Path(folder), index)
            _check_lookups(witness, json.loads(lookup_range), index)
            results.append(witness["outputs"])
    return json.dumps(results).encode()


@refusals_as_data
def measure_lookups(circuit: bytes, inputs: bytes) -> bytes:
    """Give the least and the largest integer, as JSON, that the circuit looks up in tables on many inputs."""
    low = high = 0
    with tempfile.TemporaryDirectory(prefix="proofhold-") as folder:
        for index, data in enumerate(json.loads(inputs)):
            witness = _witness(circuit.decode(), data, Path(folder), index)
            low = min(low, witness["min_lookup_inputs"])
            high = max(high, witness["max_lookup_inputs"])
    return json.dumps([low, high]).encode()


@refusals_as_data
def prove(circuit: bytes, pk: bytes, srs: bytes, inputs: bytes, lookup_range: bytes) -> bytes:
    """Prove one run: paths of circuit, proving key and SRS, ezkl's input data and the lookup range as JSON.

    Gives canonical JSON, ``{"instances": [field elements], "proof": hexadecimal}``: the only parts of ezkl's
    proof file that the verifying key authenticates.
    """
    ezkl = _ezkl()
    with tempfile.TemporaryDirectory(prefix="proofhold-") as folder:
        work = Path(folder)
        witness = _witness(circuit.decode(), json.loads(inputs), work, 0)
        _check_lookups(witness, json.loads(lookup_range), 0)
        proof = work / "proof.json"
        ezkl.prove(str(work / "witness.json"), circuit.decode(), pk.decode(), str(proof), srs.decode())
        made = json.loads(proof.read_bytes())
    return canonical.encode({"instances": made["instances"][0], "proof": bytes(made["proof"]).hex()})


@refusals_as_data
def time_proof(*parts: bytes) -> bytes:
    """Prove as `prove` does; gives the seconds of processor time that it took, as JSON."""
    began = time.process_time()
    unwrap(prove(*parts))
    return json.dumps(time.process_time() - began).encode()


@refusals_as_data
def time_set_up(*parts: bytes) -> bytes:
    """Make both keys as `set_up` does; gives the seconds of processor time that it took, as JSON."""
    began = time.process_time()
    unwrap(set_up(*parts))
    return json.dumps(time.process_time() - began).encode()


def _ezkl() -> Any:
    """Import ezkl untyped: the stubs that it ships demand arguments that it does not."""
    return importlib.import_module("ezkl")


def _witness(circuit: str, data: Any, work: Path, index: int) -> dict[str, Any]:
    ezkl = _ezkl()
    source, witness = work / "input.json", work / "witness.json"
    source.write_text(json.dumps({"input_data": data}))
    try:
        ezkl.gen_witness(str(source), circuit, str(witness))
    except RuntimeError as error:
        raise CompileError(
            "compile.not_provable", f"input {index} has no witness: a value leaves the circuit's range"
        ) from error
    made: dict[str, Any] = json.loads(witness.read_bytes())
    return made


def _check_lookups(witness: dict[str, Any], lookup_range: list[int] | None, index: int) -> None:
    """Refuse a witness that leaves the tables: ezkl makes it without a word, and then hangs while proving."""
    if lookup_range is None:
        return
    low, high = lookup_range
    least, largest = witness["min_lookup_inputs"], witness["max_lookup_inputs"]
    if least < low or largest > high:
        raise CompileError(
            "compile.not_provable",
            f"input {index} looks up {least} to {largest} in tables of {low} to {high}: it has no proof",
        )
