"""The pool of a verifier: its workers hold the catalogue's circuits, and a lost check is one check."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import runner_tasks
from judging import NOW, catalogue, circuit, policy, proof, proved
from proofhold import pool as pool_module
from proofhold import zkverify
from proofhold.catalogue import Catalogue
from proofhold.core import Accepted
from proofhold.pool import VerifierPool
from proofhold.runner import WorkerDied, WorkerTimedOut
from proofhold.standard import standard_verifier
from proofhold.zkverify import INVALID, MAX_PINNED_FILES, VALID, prepare, verify_natively

FILES = (circuit().settings, circuit().vk, circuit().srs)
FALSE = replace(proof(), proof=bytes(3_072)).snark()


def test_its_workers_hold_the_files_of_every_circuit_of_the_catalogue() -> None:
    circuits = [entry.circuit for entry in catalogue() if entry.circuit]
    assert len(circuits) > 1
    with VerifierPool(catalogue()) as pool:
        for one in circuits:
            for part in (one.settings, one.vk, one.srs):
                first, second = (pool.run(runner_tasks.identity, part) for _ in range(2))
                assert first == second, "the very same object: nothing was sent"


def test_it_says_yes_and_no_as_ezkl_does() -> None:
    with VerifierPool(catalogue(), 2) as pool:
        pool.start()
        assert pool.run(verify_natively, proof().snark(), *FILES) == VALID
        assert pool.run(verify_natively, FALSE, *FILES) == INVALID
        verdict = standard_verifier(catalogue(), pool).verify(
            proved().exchange, proved().evidence, policy=policy(), now=NOW
        )
    assert isinstance(verdict, Accepted)


def test_workers_have_one_thread_a_bound_on_memory_and_an_end() -> None:
    with VerifierPool(catalogue(), memory_bytes=2**30, checks_per_worker=2) as pool:
        assert pool.run(runner_tasks.environment, b"RAYON_NUM_THREADS") == b"1"
        assert pool.run(runner_tasks.limits) == repr((2**30, 0)).encode()
        processes = [pool.run(runner_tasks.pid) for _ in range(4)]
    assert processes[0] == processes[1] != processes[2] == processes[3]


@pytest.mark.parametrize(
    ("task", "argument", "error"),
    [(runner_tasks.die, b"9", WorkerDied), (runner_tasks.hang_with_the_lock, b"", WorkerTimedOut)],
)
def test_a_crash_or_a_hang_costs_its_own_check_and_no_other(
    task: Any, argument: bytes, error: type[Exception], tmp_path: Any
) -> None:
    argument = argument or str(tmp_path).encode()
    with VerifierPool(catalogue(), 2) as pool, ThreadPoolExecutor(3) as threads:
        pool.start()
        begun = threading.Event()

        def harm() -> None:
            begun.set()
            with pytest.raises(error):
                pool.run(task, argument, deadline_s=1.0)

        harmed = threads.submit(harm)
        begun.wait()
        checks = [threads.submit(pool.run, verify_natively, proof().snark(), *FILES) for _ in range(20)]
        assert {check.result() for check in checks} == {VALID}
        harmed.result()
        # The worker that took the place of the lost one.
        assert {pool.run(verify_natively, proof().snark(), *FILES) for _ in range(4)} == {VALID}


def test_a_circuit_that_no_worker_holds_is_sent_with_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_PINNED_BYTES", 100)
    with VerifierPool(catalogue()) as pool:
        assert pool.run(verify_natively, proof().snark(), *FILES) == VALID
    with VerifierPool(Catalogue(())) as pool:
        assert pool.run(verify_natively, proof().snark(), *FILES) == VALID


def test_this_ezkl_offers_no_aggregation() -> None:
    """When a new one does, docs/adr/0091-no-aggregate-path.md is to be thought over."""
    import ezkl

    assert not [name for name in dir(ezkl) if "aggr" in name.lower()]


# --- pinned files ---------------------------------------------------------------------------------------


def test_a_pinned_file_stays_open_and_nobody_can_change_it() -> None:
    prepare(b"pinned")
    file = zkverify._pinned_file(b"pinned")
    path = Path(zkverify._path(file))
    assert zkverify._pinned_file(b"%s" % b"pinned") is file
    with pytest.raises(PermissionError), path.open("r+b", buffering=0) as again:
        again.write(b"x")
    with pytest.raises(PermissionError), path.open("r+b", buffering=0) as again:
        again.truncate(0)
    assert path.read_bytes() == b"pinned"


def test_so_many_files_are_open_and_no_more() -> None:
    prepare(*(b"%d" % number for number in range(2 * MAX_PINNED_FILES)))
    assert zkverify._pinned_file.cache_info().currsize <= MAX_PINNED_FILES
    forgotten = zkverify._pinned_file(b"forgotten")
    descriptor = forgotten.fileno()
    zkverify._pinned_file.cache_clear()
    del forgotten
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
