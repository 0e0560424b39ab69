"""What a proof of one circuit shows and does not show, in words, from its lock alone.

Nothing is compiled and nothing proved: the words follow from what was pinned, and the pinned digests are
compared with the files that are there. Whether the lock itself is true is what ``compile --check`` finds out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from proofhold.canonical import Digest
from proofhold.catalogue import (
    CIRCUITS_FOLDER,
    MAX_MODEL_BYTES,
    MAX_SETTINGS_BYTES,
    MAX_VK_BYTES,
    MODEL_FILE_NAME,
    MODELS_FOLDER,
    SAFE_CHECK_MODE,
    SETTINGS_FILE_NAME,
    VERIFY_SRS_BYTES,
    VERIFY_SRS_FILE_NAME,
    VK_FILE_NAME,
    check_modes,
    read_audited,
)
from proofhold.domain import PostProcessing
from proofhold.errors import Misuse
from proofhold.locks import MAX_LOCK_BYTES, CircuitLock, SrsKind, check_name
from proofhold.regular import digest_of, open_regular

MISSING = "missing"


class Says(StrEnum):
    """What kind of thing is said."""

    SHOWS = "shows"
    DOES_NOT_SHOW = "does not show"
    PINNED = "pinned"
    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing to know about the circuit's proofs: of which topic, of what kind, in a sentence."""

    topic: str
    says: Says
    text: str


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A file that the lock pins, with the digest that it should have and what is there."""

    file: str
    pinned: str
    found: str

    @property
    def is_as_pinned(self) -> bool:
        """Tell whether the file is the pinned one."""
        return self.found == self.pinned


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Everything that there is to say about a circuit without compiling it again."""

    name: str
    lock: Digest
    files: tuple[FileCheck, ...]
    statements: tuple[Statement, ...]

    @property
    def is_as_pinned(self) -> bool:
        """Tell whether every file is as pinned, and the lock listed as audited."""
        return all(check.is_as_pinned for check in self.files)


def disclose(name: str, root: Path) -> Disclosure:
    """Read the circuit lock ``circuits/NAME`` under `root`, compare its files, and say what follows.

    Raises:
        Misuse: there is no such circuit.
        Malformed: ``lock.…``: its lock does not parse, or pins what is always refused.

    """
    check_name(name)
    folder = root / CIRCUITS_FOLDER / name
    path = folder / CircuitLock.FILE_NAME
    if not path.is_file():
        raise Misuse(f"no circuit {name!r} under {root}")
    with open_regular(path) as file:
        lock = CircuitLock.decode(file.read(MAX_LOCK_BYTES + 1))
    files = tuple(_compare(lock, name, root))
    return Disclosure(name, lock.digest, files, tuple(_statements(lock)))


def _compare(lock: CircuitLock, name: str, root: Path) -> Iterator[FileCheck]:
    folder = root / CIRCUITS_FOLDER / name
    yield FileCheck("the lock's name", name, lock.name)
    model = root / MODELS_FOLDER / name / MODEL_FILE_NAME
    # A verifier needs only the circuit, and may well lack the weights.
    if model.exists() or model.is_symlink():
        yield FileCheck(model.name, lock.model, _digest(model, MAX_MODEL_BYTES))
    for path, pinned, max_bytes in (
        (folder / SETTINGS_FILE_NAME, lock.settings, MAX_SETTINGS_BYTES),
        (folder / VK_FILE_NAME, lock.vk, MAX_VK_BYTES),
        (folder / VERIFY_SRS_FILE_NAME, lock.srs.verify_digest, VERIFY_SRS_BYTES),
    ):
        yield FileCheck(path.name, pinned, _digest(path, max_bytes))
    yield FileCheck(f"check mode in {SETTINGS_FILE_NAME}", SAFE_CHECK_MODE, _check_mode(folder))
    found = lock.digest if lock.digest in read_audited(root) else "not listed"
    yield FileCheck("audited.json", lock.digest, found)


def _digest(path: Path, max_bytes: int) -> str:
    try:
        if path.stat().st_size > max_bytes:
            return f"more than {max_bytes} bytes"
        return digest_of(path)
    except OSError:
        return MISSING


def _check_mode(folder: Path) -> str:
    try:
        with open_regular(folder / SETTINGS_FILE_NAME) as file:
            modes = check_modes(json.loads(file.read(MAX_SETTINGS_BYTES)))
    except (OSError, ValueError, RecursionError):
        return MISSING
    return ", ".join(sorted(modes)) or MISSING


def _statements(lock: CircuitLock) -> Iterator[Statement]:
    """Say what follows from a lock. What a lock cannot say otherwise (visibility) was refused on reading."""
    yield from _on_the_run(lock)
    yield from _on_the_numbers(lock)
    yield from _on_the_domain(lock)
    yield from _on_the_srs(lock)
    yield from _on_the_tools(lock)


def _on_the_run(lock: CircuitLock) -> Iterator[Statement]:
    yield Statement(
        "visibility",
        Says.SHOWS,
        "Input and output are public: a proof names every element of both, and is good for no others.",
    )
    yield Statement("visibility", Says.DOES_NOT_SHOW, "It hides neither input nor output from anybody.")
    yield Statement(
        "weights",
        Says.SHOWS,
        "The parameters are fixed: the verifying key binds the quantised weights, and another model's proof "
        "does not verify.",
    )
    yield Statement(
        "weights",
        Says.DOES_NOT_SHOW,
        "That this key is that of the model rests on the audit (compile --check), not on any proof; nor does "
        "a proof say that the model is good, or what it was trained on.",
    )
    yield Statement(
        "job tag",
        Says.SHOWS,
        f"{lock.tag.length} bytes of the job's digest are instances {lock.tag.offset} to "
        f"{lock.tag.offset + lock.tag.length - 1}: a proof is good for one job.",
    )
    yield Statement(
        "job tag",
        Says.DOES_NOT_SHOW,
        "It does not show who proved, when, or on which machine.",
    )


def _on_the_numbers(lock: CircuitLock) -> Iterator[Statement]:
    scales = ", ".join(f"2^-{scale}" for scale in sorted({*lock.input_scales, lock.run_args.param_scale}))
    yield Statement(
        "quantisation",
        Says.DOES_NOT_SHOW,
        f"It is about integers, not floats: inputs and weights are rounded to steps of {scales}. On "
        f"{lock.error.samples} samples the outputs were off onnxruntime's by at most "
        f"{lock.error.max_abs:.2g}, or {lock.error.relative_l2:.2g} of their norm; of inputs like them the "
        f"lock states no more than {lock.error.bound:.2g}, of all others in the domain nothing.",
    )
    outputs = ", ".join(spec.name for spec in lock.outputs)
    if lock.post_processing is PostProcessing.NONE:
        text = f"{outputs} is the model's output itself: no post-processing is left to the reader."
        yield Statement("post-processing", Says.SHOWS, text)
    else:
        yield Statement(
            "post-processing",
            Says.DOES_NOT_SHOW,
            f"It ends at {outputs}: {lock.post_processing.value} is left to whoever reads the output.",
        )


def _on_the_domain(lock: CircuitLock) -> Iterator[Statement]:
    domains = "; ".join(
        f"{spec.name} {spec.dtype}{list(spec.shape)} from {spec.low:g} to {spec.high:g}"
        for spec in lock.inputs
    )
    yield Statement(
        "input domain",
        Says.PINNED,
        f"Inputs are promised in this domain: {domains}. A verifier refuses any other; the circuit itself "
        "enforces no bound.",
    )
    if lock.peak is None:
        yield Statement(
            "peak",
            Says.DOES_NOT_SHOW,
            "No bound on the tensors is known over that domain: it was probed at corners only, and an input "
            "may have no proof.",
        )
    else:
        yield Statement(
            "peak",
            Says.PINNED,
            f"Over the whole domain no tensor exceeds {lock.peak:.6g}, by interval arithmetic, and the "
            "circuit was checked to hold that: every input of the domain can be proved.",
        )


def _on_the_srs(lock: CircuitLock) -> Iterator[Statement]:
    made = f"The SRS is {lock.srs.label!r}, 2^{lock.srs.k} points, pinned by its digest"
    if lock.srs.kind is SrsKind.UNSAFE_DEV:
        yield Statement(
            "SRS",
            Says.UNSAFE,
            f"{made}. It is unsafe-dev: its secret is public, so anybody can forge a proof of anything. "
            "Only policies named dangerous_… accept it (unsafe-dev-srs).",
        )
    else:
        yield Statement(
            "SRS",
            Says.DOES_NOT_SHOW,
            f"{made}, of a ceremony: sound unless all of its participants colluded, which no proof shows.",
        )


def _on_the_tools(lock: CircuitLock) -> Iterator[Statement]:
    yield Statement(
        "ezkl", Says.PINNED, f"Made by ezkl {lock.ezkl_version}; its soundness is taken on trust."
    )
    args, cost = lock.run_args, lock.cost
    yield Statement(
        "circuit",
        Says.PINNED,
        f"{args.columns} columns, base {args.decomp_base} with {args.decomp_legs} legs, k {cost.k}, "
        f"{cost.rows} rows, {cost.instances} instances; every proof has {cost.proof_bytes} bytes.",
    )
    yield Statement(
        "digests",
        Says.PINNED,
        f"Model {lock.model}, derived model {lock.derived_model}, settings {lock.settings}, verifying key "
        f"{lock.vk}, proving key {lock.pk}, SRS {lock.srs.digest}.",
    )


__all__ = ["Disclosure", "FileCheck", "Says", "Statement", "disclose"]
