"""Reports of the dstack family's services: a real one, spoilt in every part that its key rests on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proofhold.conformance.checkers import check
from proofhold.conformance.comparison import Answer, Verdict
from proofhold.conformance.index import Case, load_index

VENICE, RELAY = "provider-venice-2026-06-10", "provider-redpill-relay-2026-06-10"
Report = dict[str, Any]


@pytest.fixture(scope="module")
def cases(vectors: Path) -> dict[str, tuple[Case, dict[str, bytes]]]:
    found = {case.id: case for case in load_index(vectors / "index.json")}
    return {name: (found[name], dict(found[name].read(vectors))) for name in (VENICE, RELAY)}


Cases = dict[str, tuple[Case, dict[str, bytes]]]


def said(cases: Cases, edit: Callable[[Report], object] = lambda _: None, **changes: Any) -> Answer:
    case, files = cases[VENICE]
    report = json.loads(files["attestation"])
    edit(report)
    return check(
        "providers",
        files | {"attestation": json.dumps(report).encode()},
        case.now,
        {**case.params, **changes},
    )


def test_the_honest_one_is_accepted_and_says_what_it_did_not_judge(cases: Cases) -> None:
    answer = said(cases)
    assert answer.verdict is Verdict.ACCEPT
    assert "GPU" in answer.detail
    assert answer.facts["compose_hash"] == json.loads(cases[VENICE][1]["attestation"])["info"]["compose_hash"]


def test_20_a_relays_report_is_refused_whatever_it_holds(cases: Cases) -> None:
    case, files = cases[RELAY]
    assert check("providers", files, case.now, case.params).codes == ("nonce_mismatch",)
    assert "nonce_mismatch" in said(cases, nonce="00" * 32).codes


def first_gpu(report: Report, change: Callable[[str], str]) -> None:
    payload = json.loads(report["nvidia_payload"])
    payload["evidence_list"][0]["evidence"] = change(payload["evidence_list"][0]["evidence"])
    report["nvidia_payload"] = json.dumps(payload)


OTHER = "6525e128afcffebf7eed05d485d7be983cdae935"
EDITS: dict[str, tuple[Callable[[Report], object], str]] = {
    "another nonce stated": (lambda r: r.update(request_nonce="00" * 32), "nonce_mismatch"),
    "another key": (lambda r: r.update(signing_address="0x" + OTHER), "report_data_mismatch"),
    "another scheme": (lambda r: r.update(signing_algo="ed25519"), "malformed"),
    "no scheme": (lambda r: r.update(signing_algo="rsa"), "malformed"),
    "a bit of the quote": (
        lambda r: r.update(intel_quote=r["intel_quote"][:200] + "f" + r["intel_quote"][201:]),
        "bad_signature",
    ),
    "half a quote": (lambda r: r.update(intel_quote=r["intel_quote"][:3000]), "malformed"),
    "an event left out": (lambda r: r["event_log"].pop(), "event_log_mismatch"),
    "an event twice": (lambda r: r["event_log"].append(r["event_log"][-1]), "event_log_mismatch"),
    "events in another order": (lambda r: r["event_log"].reverse(), "event_log_mismatch"),
    "an event's content": (lambda r: r["event_log"][-1].update(event="system-steady"), "event_log_mismatch"),
    "no events": (lambda r: r.update(event_log=[]), "event_log_mismatch"),
    "a log that is none": (lambda r: r.update(event_log=7), "event_log_mismatch"),
    "another compose file": (
        lambda r: r["info"]["tcb_info"].update(app_compose=r["info"]["tcb_info"]["app_compose"] + " "),
        "event_log_mismatch",
    ),
    "no compose file": (lambda r: r["info"].pop("tcb_info"), "malformed"),
    "a GPU of another nonce": (lambda r: first_gpu(r, lambda text: "AAAA" * 3 + text[12:]), "nonce_mismatch"),
    "a GPU that is none": (lambda r: first_gpu(r, lambda _: "!"), "malformed"),
}


@pytest.mark.parametrize("how", EDITS)
def test_a_spoilt_report_is_refused_by_its_code(cases: Cases, how: str) -> None:
    edit, code = EDITS[how]
    answer = said(cases, edit)
    assert answer.verdict is Verdict.REJECT
    assert code in answer.codes, answer


def test_collateral_that_is_missing_or_old_leaves_it_open(cases: Cases) -> None:
    case, files = cases[VENICE]
    assert case.now is not None
    without = {role: data for role, data in files.items() if not role.startswith("collateral")}
    for given, now, code in (
        (without, case.now, "no_collateral"),
        (files, case.now + 90 * 86_400, "collateral_expired"),
    ):
        answer = check("providers", given, now, case.params)
        assert (answer.verdict, code in answer.codes) == (Verdict.INCONCLUSIVE, True)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"7", b"[" * 99_999, b'{"intel_quote":1}'])
def test_nonsense_is_no_report(cases: Cases, data: bytes) -> None:
    case, files = cases[VENICE]
    answer = check("providers", files | {"attestation": data}, case.now, case.params)
    assert answer.verdict in (Verdict.REJECT, Verdict.UNSUPPORTED)


def test_other_providers_and_wishes_are_unsupported(cases: Cases) -> None:
    for changes in ({"provider": "chutes"}, {"provider": None}, {"nonce": None}, {"gpus": 8}):
        assert said(cases, **changes).verdict is Verdict.UNSUPPORTED
    _, files = cases[VENICE]
    assert check("providers", {"attestation": files["attestation"]}, None, {}).verdict is Verdict.UNSUPPORTED
