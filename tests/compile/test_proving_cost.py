"""What a provider is told of a proof's cost, and that a proof that is called off leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from console import ROOT
from proofhold.canonical import file_digest
from proofhold.catalogue import Catalogue
from proofhold.compile import ensure_proving_key
from proofhold.compile.prediction import predict
from proofhold.compile.specification import Specification, read_samples
from proofhold.errors import Misuse
from proofhold.provider import Prover
from proofhold.provider.cost import ProvingCost, measure
from proofhold.runner import ProcessRunner
from proofhold_cli import main

NAME = "breast_cancer"
PATIENCE_S = 60


@pytest.fixture(scope="module")
def cost() -> ProvingCost:
    entry = Catalogue.load(ROOT).by_name(NAME)
    specification = Specification.read(ROOT / "models" / NAME / "model.toml")
    sample = read_samples(specification.samples, entry.inputs)[0]
    with ProcessRunner(memory_bytes=None, threads=None) as runner:
        return measure(Prover(runner), entry, sample.inputs, runs=2)


def test_the_cost_is_that_of_real_proofs_with_the_pinned_key(cost: ProvingCost) -> None:
    lock = Catalogue.load(ROOT).by_name(NAME).circuit
    assert lock is not None
    assert (cost.name, cost.k, cost.rows) == (NAME, lock.lock.cost.k, lock.lock.cost.rows)
    assert file_digest(cost.pk_path.read_bytes()) == cost.pk == lock.lock.pk
    assert cost.pk_path.stat().st_size == cost.pk_bytes
    assert len(cost.prove_s) == 2
    # A proof takes CPU time on the cores there are, and no more of it than passes on all of them.
    assert 0 < cost.cpu_s <= sum(cost.prove_s) * cost.cores
    # The key alone is held in memory, and no gigabyte is needed.
    assert cost.pk_bytes < cost.memory_bytes < 2**30
    assert cost.foretold == predict(cost.k, columns=lock.lock.run_args.columns)


@pytest.mark.parametrize(
    ("hour", "seconds", "price"),
    [
        ("0.10", (36.0,), "0.00100"),
        ("1", (3600.0, 1.0, 3600.0), "1.00"),
        ("0.1", (1.0, 2.0), "0.0000417"),
        ("1", (0.0001,), "0.0000000278"),
    ],
)
def test_a_price_is_the_share_of_an_hour_rounded_up(
    cost: ProvingCost, hour: str, seconds: tuple[float, ...], price: str
) -> None:
    assert replace(cost, prove_s=seconds).price(Decimal(hour)) == Decimal(price)


@pytest.mark.parametrize("hour", ["0", "-1", "NaN", "Infinity"])
def test_an_hour_has_a_price(cost: ProvingCost, hour: str) -> None:
    with pytest.raises(Misuse, match="machine-hour"):
        cost.price(Decimal(hour))


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def bench() -> Result:
    arguments = ["provider", "bench", NAME, "--runs", "1", "--machine-hour", "0.10", "--json"]
    return CliRunner().invoke(main, [*arguments, "--root", str(ROOT)])


def test_bench_says_what_a_proof_costs(bench: Result) -> None:
    assert bench.exit_code == 0, bench.output
    told = json.loads(bench.stdout)
    assert told["machine_hour"] == "0.10"
    assert Decimal(told["price"]) == pytest.approx(
        Decimal(str(told["prove_s"][0])) / 36000, rel=Decimal("0.01")
    )
    assert Path(told["pk"]["path"]).stat().st_size == told["pk"]["bytes"]
    assert "s on two shared cores" in bench.stderr


@pytest.mark.parametrize("price", ["free", "-1", "1e3", "", "0.1.1", "inf"])
def test_a_price_is_written_as_people_write_it(price: str) -> None:
    result = CliRunner().invoke(main, ["provider", "bench", NAME, "--machine-hour", price])
    assert (result.exit_code, "no number such as 0.10" in result.output) == (2, True)


def begun(temporary: Path, home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Begin to prove digits in a process of its own, with a folder for its temporary files and a home."""
    command = [sys.executable, "-c", "from proofhold_cli import main; main()", "provider", "bench", "digits"]
    return subprocess.Popen(
        [*command, "--root", str(ROOT), *arguments],
        env={**os.environ, "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waiting_for(what: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not list(what.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def processes_with(text: str) -> list[int]:
    """Those whose environment holds a text: ours have a folder for temporary files that is this test's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A cache of this test alone, with the reference strings and the key that earlier runs have made."""
    keys = ensure_proving_key(Catalogue.load(ROOT).by_name("digits"))
    cache = tmp_path / "home" / "proofhold"
    (cache / "keys").mkdir(parents=True)
    (cache / "keys" / keys.pk.parent.name).symlink_to(keys.pk.parent)
    (cache / "srs").symlink_to(keys.srs.parent)
    return tmp_path / "home"


@pytest.mark.parametrize(
    "how",
    [signal.SIGINT, signal.SIGKILL]
    + [pytest.param(one, marks=pytest.mark.long) for one in (signal.SIGTERM, signal.SIGHUP)],
)
def test_a_proof_that_is_called_off_leaves_no_files_and_no_process(
    how: signal.Signals, tmp_path: Path, home: Path
) -> None:
    if how in (signal.SIGTERM, signal.SIGHUP) and signal.getsignal(how) is signal.SIG_IGN:
        pytest.skip(f"the tests were started with {how.name} ignored, as by nohup, and so are the commands")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = begun(temporary, home, "--runs", "1000")
    kept = sorted((home / "proofhold" / "keys").iterdir())
    # The witness is written: for the next second or two native code proves, and hears of nothing.
    waiting_for(temporary, "proofhold-worker-*/proofhold-*/witness.json", process)
    process.send_signal(how)
    said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (1, 128 + how, -how), said
    assert "Traceback" not in said[1]
    until = time.monotonic() + 5
    while processes_with(str(temporary)):
        assert time.monotonic() < until, "a worker goes on"
        time.sleep(0.05)
    assert sorted((home / "proofhold" / "keys").iterdir()) == kept
    if how is not signal.SIGKILL:  # which lets nobody tidy up
        assert list(temporary.iterdir()) == []


def test_a_key_that_is_called_off_is_not_there(tmp_path: Path, home: Path) -> None:
    temporary, keys = tmp_path / "temporary", home / "proofhold" / "keys"
    temporary.mkdir()
    for link in keys.iterdir():
        link.unlink()
    process = begun(temporary, home)
    waiting_for(temporary, "proofhold-*/circuit.ezkl", process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert list(keys.iterdir()) == []
    assert list(temporary.iterdir()) == []
