"""Thousands of hostile proofs through a pool: none accepted, the parent unharmed, and no memory gathered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from random import Random

import pytest

from damage import damaged_bytes, damaged_json, oddly_written, slightly_damaged, written
from judging import NOW, catalogue, policy, proof, proved, with_proof
from proofhold.core import Accepted, Rejected, Verdict
from proofhold.pool import VerifierPool
from proofhold.standard import standard_verifier
from proofhold.zkproof import ZkProof

WORKERS = 2
TOLERATED_KIB = 24 * 1024
"""What a process may have more at the end than a quarter through: of 10,000, three kilobytes a proof."""

ORIGINAL = proved().evidence[0].body


def hostile(seed: int) -> Iterator[bytes]:
    """Evidence that is no good: damaged bytes and structure, and false proofs for native code to find out."""

    random, document, true = Random(f"pool {seed}"), json.loads(ORIGINAL), proof()
    odd = list(oddly_written(document))
    for number in count():
        # Every other one parses, is of the right job, input and output, and false: native code has to see it.
        body = (damaged_bytes(true.proof, random, bytes(3_072)) + true.proof)[: len(true.proof)]
        yield ZkProof(true.instances, body).encode()
        match number % 4:
            case 0:
                yield damaged_bytes(ORIGINAL, random, ORIGINAL)
            case 1:
                yield written(damaged_json(document, random, document), random)
            case 2:
                yield written(slightly_damaged(document, random), random)
            case _:
                yield odd[random.randrange(len(odd))]


def resident_kib(process: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def processes(pool: VerifierPool) -> list[int]:
    """Of its workers, which are all idle now."""
    return sorted(worker._process.pid for worker in pool._idle.queue if worker._process)


@pytest.mark.parametrize(
    "proofs", [pytest.param(400, id="hundreds"), pytest.param(10_000, id="10,000", marks=pytest.mark.long)]
)
def test_hostile_proofs_through_the_pool(proofs: int) -> None:
    bodies = [body for body in islice(hostile(proofs), 2 * proofs) if body != ORIGINAL][:proofs]
    assert len(bodies) == proofs
    outcomes: Counter[str] = Counter()
    sizes: list[list[int]] = []
    descriptors: list[int] = []
    # More checks than a worker's share, so that what is seen is what one process gathers.
    with (
        VerifierPool(catalogue(), WORKERS, checks_per_worker=2 * proofs) as pool,
        ThreadPoolExecutor(WORKERS) as threads,
    ):
        pool.start()
        workers = processes(pool)
        verifier = standard_verifier(catalogue(), pool)

        def judge(body: bytes) -> Verdict:
            bundle = with_proof(body)
            return verifier.verify(bundle.exchange, bundle.evidence, policy=policy(), now=NOW)

        quarter = proofs // 4
        for start in range(0, proofs, quarter):
            for verdict in threads.map(judge, bodies[start : start + quarter]):
                assert not isinstance(verdict, Accepted)
                outcomes[type(verdict).__name__] += 1
                outcomes.update(reason.code for reason in verdict.reasons)
            sizes.append([resident_kib(process) for process in ("self", *map(str, workers))])
            descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
        assert isinstance(judge(ORIGINAL), Accepted), "it still knows a good one"
        assert processes(pool) == workers, "none was lost on the way"
    print(proofs, dict(outcomes.most_common(8)), "KiB", sizes, "descriptors", descriptors)
    assert outcomes[Rejected.__name__] == proofs
    assert outcomes["ezkl.proof"] >= 0.45 * proofs, "native code was asked about every other one"
    for first, last in zip(sizes[0], sizes[-1], strict=True):
        assert last - first < TOLERATED_KIB, sizes
    assert descriptors[-1] <= descriptors[0], "no file is left open"
