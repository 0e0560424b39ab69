"""The same signed responses before the published `opengradient` client's verifier and before ours.

Theirs runs in an environment of its own, since the package overwrites another one's files: name its
interpreter in ``OPENGRADIENT_PYTHON`` (``python -m venv E; E/bin/pip install opengradient==1.1.4``). Without
it the column stays empty. Ours judges what a provider would claim, through funding, verdict and escrow; the
key is made here, since nobody publishes a real one's private half.
"""

# The tests' folders come first on the path.
# ruff: noqa: E402

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from _results import table, write_section

sys.path[:0] = [
    str(Path(__file__).parents[1] / "tests"),
    str(Path(__file__).parents[1] / "tests" / "dishonesty"),
]

from test_chat_cheats import TEN, sell

from escrow_builders import memory_folder
from judging import BUYER, NOW, PRICE, VERIFIER
from proofhold.chat import signed_part
from proofhold.drafting import USDC
from proofhold.escrow.refusals import Refused
from proofhold.escrow.sqlite import SqliteEscrow
from proofhold.settlement import NotFundable
from serving import REQUEST, respond, spki

THEIRS = """
import base64, json, sys
from opengradient.client.tee_verify import VerificationError, build_inner_request, pem_from_der
from opengradient.client.tee_verify import response_content_for_hash, verify_response
cases = json.load(sys.stdin)
pem = pem_from_der(base64.b64decode(cases["key"]))
said = {}
for name, (request, response) in cases["cases"].items():
    _, canonical = build_inner_request(request)
    try:
        verify_response(canonical_request=canonical, response_body=response,
                        response_content=response_content_for_hash(response), signing_key_pem=pem)
        said[name] = "accepts"
    except VerificationError as error:
        said[name] = "refuses"
print(json.dumps(said))
"""
IMAGE = [
    {"type": "text", "text": "hi"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
]


def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Request, response on the wire and claimed answer, by name; the honest ones first."""
    honest = respond()
    found = {"honest": (REQUEST, honest, signed_part(honest).to_json())}
    for name, (response, output, _) in TEN.items():
        if name != "answer_to_a_cheaper_question":  # theirs refuses that one as well
            found[name] = (REQUEST, response | output, output)
    request = REQUEST | {"messages": [{"content": IMAGE, "role": "user"}]}
    hashed = REQUEST | {"messages": [{"content": [IMAGE[0], {"type": "image_url"}], "role": "user"}]}
    swapped = respond(hashed)
    found["another_attachment"] = (request, swapped, signed_part(swapped).to_json())
    return found


def ours() -> dict[str, str]:
    """What becomes of each when money hangs on it."""
    said = {}
    with memory_folder() as folder:
        escrow = SqliteEscrow.create(folder / "escrow.db", escrow="test-escrow", operators=[VERIFIER.public])
        escrow.deposit(BUYER.public, 100 * PRICE, USDC, key="buyer", now=NOW)
        for name, (request, response, output) in (*cases().items(), ("the_honest_one_again", cases_again())):
            try:
                decision, _ = sell(escrow, response, output, request=request)
                codes = ", ".join(reason.code for reason in decision.receipt.reasons)
                said[name] = f"refuses: `{codes}`" if codes else "accepts"
            except NotFundable as error:
                said[name] = f"refuses to fund: `{error.reasons[0].code}`"
            except Refused as error:
                said[name] = f"refuses: `{error.code}`"
    return said


def cases_again() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The honest response once more: PSS is randomised, so not even its bytes are the same."""
    return cases()["honest"]


def theirs() -> dict[str, str]:
    """What the published client says, or nothing where it is not installed."""
    python = os.environ.get("OPENGRADIENT_PYTHON")
    if not python:
        return {}
    wire = {name: (request, response) for name, (request, response, _) in cases().items()}
    wire["the_honest_one_again"] = wire["honest"]
    given = json.dumps({"cases": wire, "key": base64.b64encode(spki()).decode()})
    run = subprocess.run(
        [python, "-c", THEIRS], input=given, capture_output=True, text=True, check=True, timeout=120
    )
    said: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return said


def main() -> None:
    mine, peers = ours(), theirs()
    rows = [[name.replace("_", " "), peers.get(name, "not run"), said] for name, said in mine.items()]
    body = "What each says of one response, signed by a key of the run; ours through funding and escrow.\n\n"
    body += table(["response", "`opengradient` 1.1.4", "proofhold"], rows)
    write_section("chat.py", "Forged chat answers", body)


if __name__ == "__main__":
    main()
