"""Real quotes and their collateral, and what our codes are called in the index of the vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from proofhold.attestation import dcap
from proofhold.attestation.refusal import Lacking, Refusal

GOOD = "tdx-gcp-2026-06"
"""The quote that most tests damage: version 4, in force, UpToDate."""
GOOD_SGX = "sgx-automata-swh"

INDEX_CODES = {
    "dcap.malformed": "malformed",
    "dcap.unsupported": "malformed",
    "dcap.signature": "bad_signature",
    "dcap.qe_signature": "bad_signature",
    "dcap.attestation_key": "ak_not_bound",
    "dcap.chain": "untrusted_chain",
    "dcap.certificate_expired": "expired",
    "dcap.certificate_not_yet_valid": "not_yet_valid",
    "dcap.debug": "debug",
    "dcap.sept_ve_disable": "sept_ve_disable_off",
    "dcap.service_td": "service_td",
    "dcap.attributes": "attributes",
    "dcap.revoked": "revoked",
    "dcap.tcb_unsupported": "tcb_unsupported",
    "dcap.qe_identity": "qe_identity",
    "dcap.tcb_status": "tcb_status",
    "dcap.advisory": "tcb_status",
    "dcap.collateral_missing": "no_collateral",
    "dcap.collateral_malformed": "malformed",
    "dcap.collateral_expired": "collateral_expired",
    "dcap.collateral_not_yet_valid": "collateral_not_yet_valid",
    "dcap.collateral_signature": "bad_collateral_signature",
    "dcap.crl_issuer": "no_collateral",
    "dcap.fmspc": "fmspc_mismatch",
    "dcap.report_data": "nonce_mismatch",
    "dcap.measurement": "measurement_mismatch",
}
"""From our codes to those of the index."""


@dataclass(frozen=True)
class DcapCase:
    """One case of the index."""

    id: str
    quote: bytes
    collateral: bytes
    now: int
    expected: dict[str, Any]


def cases(vectors: Path) -> Iterator[DcapCase]:
    for case in json.loads((vectors / "index.json").read_text()):
        if case["tee"] in ("tdx", "sgx"):
            files = {role: (vectors / path).read_bytes() for role, path in case["files"].items()}
            # One case states no time: whatever it is, what is wrong with its quote must be found.
            at = case["verify_at"] or "2023-01-01T00:00:00Z"
            now = int(datetime.fromisoformat(at).timestamp())
            yield DcapCase(case["id"], files["quote"], files.get("collateral", b""), now, case["expected"])


def case_of(vectors: Path, name: str) -> DcapCase:
    return next(case for case in cases(vectors) if case.id == name)


def code_of(quote: bytes, collateral: bytes, now: int) -> str:
    """The code with which a quote is turned away, or `accepted`; any other exception is a failure."""
    try:
        dcap.verify(quote, collateral, now=now)
    except (Refusal, Lacking) as error:
        return error.code
    return "accepted"
