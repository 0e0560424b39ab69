"""Every circuit of the repository against what ezkl makes of the same model by itself.

    python bench/zk.py [NAME...]

What was measured is kept, so that a run can be done in pieces: with names, those models are measured, and the
section is written anew once each model has been.

By itself means ``calibrate_settings(target="resources")``: ezkl's own columns, lookup base and k, at the
scale that it chooses. Both sides prove the same derived model, logits out, with the job tag, public inputs
and outputs and fixed parameters, in the same proof system. Each step runs in a process of its own, the proofs
of both sides in turn; processor time is that of all cores, memory the most that the proving process held.
"""

from __future__ import annotations

import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _results import table, write_section

from proofhold import fieldelement
from proofhold.canonical import file_digest
from proofhold.compile.passes import derive
from proofhold.compile.srs import MAX_UNSAFE_DEV_K, dev_srs
from proofhold.locks import TAG_LENGTH, CircuitLock

ROOT = Path(__file__).parents[1]
NAMES = ("breast_cancer", "parity", "digits", "trees", "digits_28", "lenet", "transformer")
GOALS = {"breast_cancer": 20.0, "parity": 5.0, "digits": 3.0, "trees": 1.3, "lenet": 1.3}
"""How many times ezkl's proving time; never slower on the others."""
SIDES = ("ezkl", "ours")
KEPT = Path(tempfile.gettempdir()) / "proofhold-bench" / "zk"
CALIBRATION_SAMPLES = 4
ERROR_SAMPLES, FEW_ERROR_SAMPLES = 32, 8
ROUNDS, LARGE_K = 5, 16
VERY_LARGE_K = 19
"""From this k on a proof takes minutes, and two a side have to do."""
VERIFICATIONS = 5
NOISE = 0.95
"""Never slower means within this of ezkl's time: two runs of one circuit differ by as much."""


def samples_of(name: str) -> list[list[float]]:
    """The samples' only input, flat."""
    document = json.loads((ROOT / "models" / name / "samples.json").read_bytes())
    return [next(iter(sample["inputs"].values())) for sample in document["samples"]]


def with_tag(values: list[float]) -> list[list[float]]:
    return [values, [float(byte) for byte in range(TAG_LENGTH)]]


def make(side: str, name: str, folder: Path) -> dict[str, Any]:
    """Make circuit and keys of one side in `folder`; gives their sizes and the largest error on samples."""
    import ezkl

    published = (ROOT / "models" / name / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(derive(published).model)
    if side == "ours":
        shutil.copy(ROOT / "circuits" / name / "settings.json", folder / "settings.json")
    else:
        choose_as_ezkl(name, folder)
    settings = json.loads((folder / "settings.json").read_bytes())
    ezkl.compile_circuit(*(str(folder / file) for file in ("model.onnx", "circuit", "settings.json")))
    k = settings["run_args"]["logrows"]
    srs = folder / "srs"
    if k <= MAX_UNSAFE_DEV_K:
        srs.symlink_to(dev_srs(k).path)
    else:
        # Only ezkl's side grows so large; its time does not depend on the secret.
        ezkl.gen_srs(str(srs), k)
    began = time.process_time()
    ezkl.setup(*(str(folder / file) for file in ("circuit", "vk", "pk", "srs")))
    setup_s = time.process_time() - began
    if side == "ours":
        lock = CircuitLock.decode((ROOT / "circuits" / name / CircuitLock.FILE_NAME).read_bytes())
        assert file_digest((folder / "vk").read_bytes()) == lock.vk, "this is not the pinned circuit"
    return {
        "k": k,
        "columns": settings["run_args"]["num_inner_cols"],
        "scale": settings["run_args"]["input_scale"],
        "setup_s": setup_s,
        "vk": (folder / "vk").stat().st_size,
        "pk": (folder / "pk").stat().st_size,
        "error": largest_error(name, folder, settings, ERROR_SAMPLES if k < LARGE_K else FEW_ERROR_SAMPLES),
    }


def choose_as_ezkl(name: str, folder: Path) -> None:
    """Let ezkl choose, with our visibilities."""
    import ezkl

    run_args = ezkl.PyRunArgs()
    run_args.input_visibility = run_args.output_visibility = "public"
    run_args.param_visibility = "fixed"
    model, settings = str(folder / "model.onnx"), str(folder / "settings.json")
    ezkl.gen_settings(model, settings, py_run_args=run_args)
    some = samples_of(name)[:CALIBRATION_SAMPLES]
    # It wants the samples' values one behind the other.
    flat = [[value for sample in some for value in sample], list(range(TAG_LENGTH)) * len(some)]
    (folder / "calibration.json").write_text(json.dumps({"input_data": flat}))
    ezkl.calibrate_settings(str(folder / "calibration.json"), model, settings, "resources")


def largest_error(name: str, folder: Path, settings: dict[str, Any], count: int) -> float:
    """The largest difference of an output from onnxruntime's on the first samples."""
    import ezkl
    import onnxruntime

    session = onnxruntime.InferenceSession(ROOT / "models" / name / "model.onnx")
    port = session.get_inputs()[0]
    scale, worst = settings["model_output_scales"][0], 0.0
    for values in samples_of(name)[:count]:
        witness = witness_of(ezkl, values, folder)
        got = [fieldelement.dequantise(fieldelement.decode(e), scale) for e in witness["outputs"][0]]
        (expected,) = session.run(None, {port.name: np.array(values, np.float32).reshape(port.shape)})
        worst = max(worst, float(np.max(np.abs(np.array(got) - expected.astype(np.float64).ravel()))))
    return worst


def witness_of(ezkl: Any, values: list[float], folder: Path) -> dict[str, Any]:
    (folder / "input.json").write_text(json.dumps({"input_data": with_tag(values)}))
    ezkl.gen_witness(*(str(folder / file) for file in ("input.json", "circuit", "witness.json")))
    witness: dict[str, Any] = json.loads((folder / "witness.json").read_bytes())
    return witness


def prove(side: str, name: str, folder: Path) -> dict[str, Any]:
    """Prove the first sample; gives times, memory and the time of checking the proof."""
    import ezkl

    del side
    witness_of(ezkl, samples_of(name)[0], folder)
    files = [str(folder / file) for file in ("witness.json", "circuit", "pk", "proof.json", "srs")]
    began, on_the_clock = time.process_time(), time.perf_counter()
    ezkl.prove(*files)
    cpu_s, wall_s = time.process_time() - began, time.perf_counter() - on_the_clock
    memory = resident_peak()
    verified = []
    for _ in range(VERIFICATIONS):
        began = time.process_time()
        assert ezkl.verify(*(str(folder / file) for file in ("proof.json", "settings.json", "vk", "srs")))
        verified.append(time.process_time() - began)
    proof = json.loads((folder / "proof.json").read_bytes())["proof"]
    return {
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "memory": memory,
        "verify_s": statistics.median(verified),
        "proof": len(proof),
    }


def resident_peak() -> int:
    """The most memory that this process held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


STEPS: dict[str, Callable[[str, str, Path], dict[str, Any]]] = {"make": make, "prove": prove}


def step(what: str, side: str, name: str, folder: Path) -> dict[str, Any]:
    """Run one step in a process of its own: ezkl writes to standard output, so the answer goes to a file."""
    command = [sys.executable, __file__, "--step", what, side, name, str(folder)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_bytes())
    return answer


def compare(name: str) -> dict[str, dict[str, Any]]:
    """Measure one model, both sides in turn."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="proofhold-bench-") as temporary:
        folders = {side: Path(temporary) / side for side in SIDES}
        for side, folder in folders.items():
            folder.mkdir()
            found[side] = step("make", side, name, folder)
        rounds = 2 if max(one["k"] for one in found.values()) >= VERY_LARGE_K else ROUNDS
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side, folder in folders.items():
                runs[side].append(step("prove", side, name, folder))
        for side in SIDES:
            found[side] |= {key: statistics.median(run[key] for run in runs[side]) for key in runs[side][0]}
    print(f"{name}: {found}", file=sys.stderr, flush=True)
    return found


def rows_of(name: str, found: dict[str, dict[str, Any]]) -> list[list[str]]:
    ratio = ratio_of(found)
    goal = f" (goal {GOALS[name]:g})" if name in GOALS else ""
    return [
        [
            name if side == "ezkl" else "",
            side,
            f"{one['columns']} / {one['k']} / {one['scale']}",
            f"{one['cpu_s']:.2f}",
            f"{one['wall_s']:.2f}",
            "" if side == "ezkl" else f"**{ratio:.1f} ×**{goal}",
            f"{one['memory'] / 1e6:,.0f}",
            f"{one['pk'] / 1e6:,.1f}",
            f"{one['vk'] / 1e3:,.1f}",
            f"{one['proof']:,.0f}",
            f"{1e3 * one['verify_s']:.1f}",
            f"{one['error']:.1e}",
        ]
        for side, one in found.items()
    ]


def body_of(measured: dict[str, dict[str, dict[str, Any]]]) -> str:
    header = ("model", "side", "columns / k / scale", "prove, CPU s", "wall s", "times faster", "memory MB",
              "pk MB", "vk kB", "proof B", "verify ms", "largest error")  # fmt: skip
    body = table(header, [row for name, found in measured.items() for row in rows_of(name, found)])
    mean = math.exp(statistics.fmean(math.log(ratio_of(found)) for found in measured.values()))
    return (
        f"{body}\n\nGeometric mean: {mean:.1f} times. Medians of {ROUNDS} proofs a side in turn, two from "
        f"k = {VERY_LARGE_K} on. Seconds are of processor time, all cores together, where they are not the "
        "wall clock’s; a proof is verified in the process that has just made it. The error is on "
        f"{ERROR_SAMPLES} calibration samples, on {FEW_ERROR_SAMPLES} from k = {LARGE_K} on."
    )


def ratio_of(found: dict[str, dict[str, Any]]) -> float:
    """How many times our processor time ezkl's own choice takes."""
    ratio: float = found["ezkl"]["cpu_s"] / found["ours"]["cpu_s"]
    return ratio


def main(names: list[str]) -> int:
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in names or NAMES:
        (KEPT / f"{name}.json").write_text(json.dumps(compare(name)))
    kept = {name: KEPT / f"{name}.json" for name in NAMES}
    measured = {name: json.loads(path.read_bytes()) for name, path in kept.items() if path.exists()}
    if len(measured) == len(NAMES):
        write_section("zk.py", "Circuits", body_of(measured))
    else:
        print(body_of(measured))
    missed = [name for name, found in measured.items() if ratio_of(found) < GOALS.get(name, NOISE)]
    for name in missed:
        print(f"short of its goal: {name}, {ratio_of(measured[name]):.2f} times", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        what, side, name, place = sys.argv[2:6]
        (Path(place) / "answer.json").write_text(json.dumps(STEPS[what](side, name, Path(place))))
        sys.exit()
    sys.exit(main(sys.argv[1:]))
