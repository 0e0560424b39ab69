"""Tries the light models of onnx's backend tests; writes tests/fixtures/operators.json, docs/operators.md.

    PYTHONPATH=tests python tests/make_operators_page.py [--only PATTERN]

It takes a quarter of an hour. tests/compile/test_operators.py holds a sample of it to what is written.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from backend_cases import COMPILED, INACCURATE, MAX_INPUT_ELEMENTS, RUN_ARGS, TOLERANCE, cases, outcome_of
from proofhold.compile.toolchain import Toolchain

REPOSITORY = Path(__file__).parents[1]
OUTCOMES = REPOSITORY / "tests" / "fixtures" / "operators.json"
PAGE = REPOSITORY / "docs" / "operators.md"
EXPANDED = "_expanded"
"""Cases of a function's body, spelled out: they say nothing of the operator in the case's name."""

HEAD = """\
# What can be compiled

Written by `tests/make_operators_page.py`: do not edit. Each light model of the onnx package's own backend
tests that is a plain function of float tensors, of at most {elements} elements, goes through the passes,
ezkl's settings and the circuit's evaluation, with one set of arguments for all ({columns} columns, base
{base}, {legs} legs, scale {scale}; ezkl {ezkl}, onnx {onnx}). *Compiled* means: the circuit's outputs are the
expected ones within {tolerance:.0%} of the largest, and of 1. All others are refused with a code, before any
key is made; `proofhold compile --plan MODEL` says which node it is and what to do. The nine architectures
among them (`light_…`) are derived only.

"""

WORDS = {
    COMPILED: "a circuit that computes it",
    INACCURATE: "a circuit whose outputs are further off at this scale",
    "compile.unsupported": "ezkl, or a pass, does not know an operator or a form of it",
    "compile.inaccurate": "ezkl makes a circuit that computes something else, which is found on the samples",
    "compile.dtype": "an input or output is no float32, and cannot be made one",
    "compile.shape": "a size is not fixed, not even by the inputs' sizes",
    "compile.too_large": "no circuit holds it",
    "compile.not_provable": "for some input a value leaves the circuit's range: a division by zero, say",
    "compile.not_finite": "a constant is infinite or NaN (masks of attention), or an output is",
    "compile.domain_too_wide": "values can arise that the circuit does not hold",
    "compile.opset": "an operator set older than onnxruntime runs (before 7), or newer than was looked at",
    "compile.custom_operators": "operators of other domains",
    "compile.samples": "an input is infinite, NaN or of no elements",
    "compile.specification": "a tensor has a name, or a size, that no lock can hold",
    "compile.settings_failed": "ezkl gives no settings",
    "compile.unexpected_settings": "ezkl's settings are of other shapes than the model's",
    "compile.tool_failed": "a tool died or took too long",
    "compile.pass_differs": "a rewriting would change the model: it is left alone",
    "compile.output": "an output is no tensor",
    "compile.trees": "trees of a form that is not known",
    "model.invalid": "onnx itself refuses the file",
}


def render(outcomes: dict[str, list[object]], versions: dict[str, str]) -> str:
    """The page, from what is in operators.json."""
    counts = Counter(str(outcome) for outcome, _ in outcomes.values())
    head = HEAD.format(
        columns=RUN_ARGS.columns,
        base=RUN_ARGS.decomp_base,
        legs=RUN_ARGS.decomp_legs,
        scale=RUN_ARGS.input_scale,
        tolerance=TOLERANCE,
        elements=MAX_INPUT_ELEMENTS,
        **versions,
    )
    lines = [f"## {len(outcomes)} models", "", "| outcome | models | what it says |", "|---|---|---|"]
    for words, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| `{words}` | {count} | {WORDS[words]} |")
    by_operator: dict[str, Counter[str]] = defaultdict(Counter)
    for name, (outcome, operators) in outcomes.items():
        assert isinstance(operators, list)
        if len(operators) == 1 and not name.startswith("light_") and EXPANDED not in name:
            by_operator[operators[0]][str(outcome)] += 1
    lines += [
        "",
        "## By operator",
        "",
        "Of models of one operator; in how many forms of the tests it is compiled.",
        "",
    ]
    lines += ["| operator | compiled | refused |", "|---|---|---|"]
    for operator, told in sorted(by_operator.items()):
        refused = ", ".join(f"`{code}` {count}" for code, count in sorted(told.items()) if code != COMPILED)
        lines.append(f"| {operator} | {told[COMPILED]} of {told.total()} | {refused} |")
    return head + "\n".join(lines) + "\n"


def main() -> None:
    import importlib.metadata

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name matches; the others stay as they were")
    only = parser.parse_args().only
    kept = json.loads(OUTCOMES.read_bytes())["outcomes"] if only else {}
    outcomes: dict[str, list[object]] = {}
    with Toolchain() as tools:
        for case in cases():
            if only and not re.search(only, case.name) and case.name in kept:
                outcomes[case.name] = kept[case.name]
                continue
            with tempfile.TemporaryDirectory() as folder:
                outcomes[case.name] = [outcome_of(case, Path(folder), tools), case.operators]
            print(case.name, *outcomes[case.name], flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("ezkl", "onnx")}
    document = {"versions": versions, "outcomes": outcomes}
    lines = [f" {json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(outcomes.items())]
    OUTCOMES.write_text(
        f'{{"versions": {json.dumps(versions)}, "outcomes": {{\n' + ",\n".join(lines) + "\n}}\n"
    )
    assert json.loads(OUTCOMES.read_text()) == document
    PAGE.write_text(render(dict(sorted(outcomes.items())), versions))
    print(f"written: {OUTCOMES}, {PAGE}")


if __name__ == "__main__":
    main()
