"""How long `import proofhold` and `proofhold --help` take over a bare interpreter.

Every round runs all of them once, in a shuffled order, and each is compared with the bare interpreter of its
own round: whatever else the machine does at that moment falls on all of them alike. Medians over the rounds.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _results import table, write_section

ROUNDS = 40
WARM_UP_ROUNDS = 3

BARE = "bare interpreter"
COMMANDS = {
    BARE: [sys.executable, "-c", "pass"],
    "import proofhold": [sys.executable, "-c", "import proofhold"],
    # Names are loaded on first use: what the import saves is paid here, so it is shown, though it has no bar.
    "every public name": [sys.executable, "-c", "from proofhold import *"],
    "proofhold --help": [str(Path(sys.executable).with_name("proofhold")), "--help"],
}
BARS_MS = {"import proofhold": 150.0, "proofhold --help": 200.0}
"""What each may take over a bare interpreter."""


def run_ms(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - began)


def rounds() -> list[dict[str, float]]:
    order = list(COMMANDS)
    taken = []
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        random.shuffle(order)
        times = {name: run_ms(COMMANDS[name]) for name in order}
        if number >= WARM_UP_ROUNDS:
            taken.append(times)
    return taken


def main() -> int:
    taken = rounds()
    rows, missed = [], []
    for name in COMMANDS:
        own = statistics.median(times[name] for times in taken)
        over = statistics.median(times[name] - times[BARE] for times in taken)
        ratio = statistics.median(times[name] / times[BARE] for times in taken)
        bar = f"{BARS_MS[name]:.0f}" if name in BARS_MS else ""
        rows.append([name, f"{own:.1f}", f"{over:.1f}", f"{ratio:.2f}", bar])
        if over > BARS_MS.get(name, float("inf")):
            missed.append(name)
    body = table(["", "ms", "ms over bare", "times bare", "at most, ms over bare"], rows)
    write_section("startup.py", "Start-up", f"{body}\n\nMedians of {ROUNDS} paired rounds in shuffled order.")
    for name in missed:
        print(f"over its bar: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
