"""The runner on a real Ray cluster of two nodes, on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import runner_tasks
from proofhold.errors import Misuse
from proofhold.rayrunner import RayRunner
from proofhold.runner import TaskRaised, WorkerDied, WorkerTimedOut

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="no Ray here: pip install 'proofhold[ray]'")
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(runner_tasks.__file__).parent))  # the tasks of these tests lie here
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def runner(cluster: Any) -> Iterator[RayRunner]:
    import ray

    with RayRunner(str(cluster.address), workers=2) as made:
        yield made
    ray.shutdown()


def test_tasks_run_on_both_nodes_at_once(runner: RayRunner) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda n: runner.run(runner_tasks.echo, b"%d" % n, b"x"), range(20)))
    assert results == [b"%d|x" % n for n in range(20)]
    assert len(set(runner.nodes())) == 2


def test_what_a_task_does_to_its_process_is_told_and_survived(runner: RayRunner) -> None:
    with pytest.raises(TaskRaised) as raised:
        runner.run(runner_tasks.fail, b"nonsense")
    assert raised.value.kind == "ValueError"
    with pytest.raises(WorkerDied):
        runner.run(runner_tasks.abort)
    with pytest.raises(WorkerTimedOut):
        runner.run(runner_tasks.pause, b"600", deadline_s=0.5)
    assert runner.run(runner_tasks.echo, b"still", b"there") == b"still|there"


def test_a_node_that_goes_away_costs_the_checks_it_had(cluster: Any, runner: RayRunner) -> None:
    node = cluster.add_node(num_cpus=1)
    with RayRunner(str(cluster.address), workers=1) as third:
        assert third.run(runner_tasks.echo, b"a") == b"a"
        assert len(third.nodes()) == 1
        cluster.remove_node(node, allow_graceful=False)
        # One task may be lost with the node; the next one finds another, or waits for a core.
        with contextlib.suppress(WorkerDied):
            assert third.run(runner_tasks.echo, b"b") == b"b"
    assert runner.run(runner_tasks.echo, b"c") == b"c"


def test_no_cluster_is_misuse() -> None:
    with pytest.raises(Misuse):
        RayRunner("ray://", workers=0)
