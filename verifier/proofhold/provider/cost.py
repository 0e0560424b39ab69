"""What a proof costs a provider: measured on its own machine, with the very steps that answer a job."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal
from pathlib import Path

from proofhold.canonical import Digest
from proofhold.catalogue import Entry
from proofhold.compile.prediction import Prediction
from proofhold.compile.provingkey import ensure_proving_key, foretell
from proofhold.errors import Misuse
from proofhold.payload import Tensors
from proofhold.provider.prove import Prover
from proofhold.runner import ready

MAX_RUNS = 1000
PRICE_DIGITS = 3
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class ProvingCost:
    """What was measured. Seconds are wall time while this machine does nothing else; bytes are bytes."""

    name: str
    k: int
    rows: int
    cores: int
    pk: Digest
    pk_path: Path
    pk_bytes: int
    keys_s: float
    """Making the keys, or comparing those that were there with the lock."""
    keys_made: bool
    prove_s: tuple[float, ...]
    """Each proof whole: keys compared, proved, and verified before anything would be signed."""
    cpu_s: float
    """CPU time of one proof, over all cores."""
    memory_bytes: int
    """The most that the prover ever held, since it was started."""
    proof_bytes: int
    foretold: Prediction

    @property
    def median_s(self) -> float:
        """The median of the proofs' times."""
        return statistics.median(self.prove_s)

    def price(self, machine_hour: Decimal) -> Decimal:
        """Give the price of one proof where an hour of this machine has a price, rounded up, in its unit.

        Raises:
            Misuse: a price that is no positive number.

        """
        if not (machine_hour.is_finite() and machine_hour > 0):
            raise Misuse(f"a machine-hour costs {machine_hour}, expected a positive number")
        share = Decimal(str(self.median_s)) / SECONDS_PER_HOUR
        return Context(prec=PRICE_DIGITS, rounding=ROUND_UP).multiply(machine_hour, share)


def measure(
    prover: Prover,
    entry: Entry,
    inputs: Tensors,
    *,
    runs: int,
    on_step: Callable[[str], None] = lambda _: None,
) -> ProvingCost:
    """Make `runs` proofs of a model, one after the other, and measure them.

    Args:
        prover: its runner has one worker, or the memory would be that of some other.
        entry: the catalogue's entry of the model.
        inputs: within the input domain.
        runs: how many proofs.
        on_step: told in words what happens.

    Raises:
        Misuse: a number of runs that makes no sense; and whatever `Prover.prove` raises.

    """
    if not 0 < runs <= MAX_RUNS:
        raise Misuse(f"{runs} runs, expected 1 to {MAX_RUNS}")
    lock = prover.circuit_of(entry).lock
    steps: list[str] = []

    def told(step: str) -> None:
        steps.append(step)
        on_step(step)

    began = time.monotonic()
    keys = ensure_proving_key(entry, cache=prover.cache, on_step=told)
    keys_s = time.monotonic() - began
    prover.runner.run(ready)  # its start is no part of a proof
    cpu_before, taken = float(prover.runner.run(cpu_seconds)), []
    for number in range(runs):
        # Another job each time: nothing that could be kept from one to the next is.
        job = hashlib.sha256(f"{lock.digest} {number}".encode()).hexdigest()
        began = time.monotonic()
        prover.prove(entry, job, inputs, on_step=lambda step: on_step(f"{number + 1} of {runs}: {step}"))  # noqa: B023
        taken.append(time.monotonic() - began)
    return ProvingCost(
        name=entry.name,
        k=lock.cost.k,
        rows=lock.cost.rows,
        cores=os.cpu_count() or 1,
        pk=lock.pk,
        pk_path=keys.pk,
        pk_bytes=lock.cost.pk_bytes,
        keys_s=keys_s,
        keys_made=bool(steps),
        prove_s=tuple(taken),
        cpu_s=(float(prover.runner.run(cpu_seconds)) - cpu_before) / runs,
        memory_bytes=int(prover.runner.run(peak_memory)),
        proof_bytes=lock.cost.proof_bytes,
        foretold=foretell(lock),
    )


def cpu_seconds() -> bytes:
    """Give the CPU time of the process that this task runs in."""
    return str(time.process_time()).encode()


def peak_memory() -> bytes:
    """Give the most memory that the process of this task ever held, in bytes.

    The kernel's figure for this program alone: what `getrusage` says includes the program that started it.
    """
    with Path("/proc/self/status").open() as file:
        kibibytes = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    return str(1024 * kibibytes).encode()


__all__ = ["ProvingCost", "measure"]
