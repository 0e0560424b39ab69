"""Checking many proofs: workers that hold the circuits of a catalogue, and lose one check at a time.

What a proof does to a worker, an abort or a hang, costs that one check its result (`RunnerError`, from which
the backend makes an inconclusive verdict); the next check gets a new worker, warmed up like the first.
"""

from __future__ import annotations

from collections.abc import Iterator

from proofhold.catalogue import Catalogue
from proofhold.runner import DEFAULT_MEMORY_BYTES, ProcessRunner
from proofhold.zkverify import MAX_PINNED_FILES, prepare

CHECKS_PER_WORKER = 5_000
"""Starting a worker costs as much as some ten checks of a small circuit."""
MAX_PINNED_BYTES = 256 * 2**20
"""Circuits beyond this are sent with each check instead of held by every worker."""


class VerifierPool(ProcessRunner):
    """Workers for a verifier, each with one thread, a bound on its memory, and the catalogue's circuits."""

    def __init__(
        self,
        catalogue: Catalogue,
        workers: int = 1,
        *,
        memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
        checks_per_worker: int = CHECKS_PER_WORKER,
    ) -> None:
        """Set the pool up; no process is started before `start` or the first check.

        Args:
            catalogue: whose circuits the workers hold.
            workers: how many checks may run at once; more than there are cores gain nothing.
            memory_bytes: the address space of each worker.
            checks_per_worker: after how many checks a worker is replaced.

        """
        super().__init__(
            workers,
            memory_bytes=memory_bytes,
            tasks_per_worker=checks_per_worker,
            kept=_pinned_files(catalogue),
            warm_up=prepare,
        )


def _pinned_files(catalogue: Catalogue) -> Iterator[bytes]:
    """Give the files that checking takes, circuit by circuit, as many as a worker can hold."""
    circuits = [entry.circuit for entry in catalogue if entry.circuit]
    held_bytes = 0
    for circuit in circuits[: MAX_PINNED_FILES // 3]:
        files = (circuit.settings, circuit.vk, circuit.srs)
        held_bytes += sum(map(len, files))
        if held_bytes > MAX_PINNED_BYTES:
            return
        yield from files


__all__ = ["VerifierPool"]
