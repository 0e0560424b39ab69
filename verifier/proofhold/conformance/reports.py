"""The index's cases of a dstack service's attestation report: what its signing key rests on.

Such a case holds what ``/v1/attestation/report`` of a vllm-proxy gave, the collateral of its quotes, and
what NVIDIA said of its GPUs. Judged here is what our backend `dstack` would build on: that the report is an
answer to our nonce, and that a TDX machine, genuine and up to date, vouches for the signing key and for the
compose file. GPU evidence beside it is a kind of its own and is not judged here: only that it is bound to
the same nonce. The steps:

1. Read the report; a relay's report, which answers another nonce, is refused whatever else it holds.
2. Check the quote against the collateral for its platform.
3. Compare its report data with the signing key and the nonce.
4. Replay the event log, and compare the compose file with what it names.
5. Compare the GPUs' nonce with ours.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from proofhold.allowlist import KEY_BYTES, Binding, Scheme
from proofhold.attestation import dcap, dstack
from proofhold.attestation.dstack import SignedText
from proofhold.attestation.eventlog import check_compose, check_event_log, parse_event_log
from proofhold.attestation.quote import TdReport, without_padding
from proofhold.attestation.refusal import Lacking, Refusal, first_of

DSTACK_PROVIDERS: Final = frozenset({"nanogpt", "phala", "phalacloud", "redpill", "venice"})
"""Whose reports are of this family, by the index's parameter ``provider``."""
MAX_REPORT_BYTES: Final = 8 * 2**20
NONCE_BYTES: Final = 32
MALFORMED: Final = "service.malformed"
GPUS_NOT_JUDGED: Final = "of the GPUs' evidence only the nonce was compared"
_SCHEMES: Final = {"ecdsa": Scheme.SECP256K1, "ed25519": Scheme.ED25519}
_SPDM_NONCE: Final = slice(4, 36)
"""Of the request that a GPU's report begins with."""


class UnknownReport(Exception):
    """The report is not of this family."""


def check_report(files: Mapping[str, bytes], nonce: bytes, now: int) -> dict[str, Any]:
    """Check one report, and give the facts in it.

    Raises:
        UnknownReport: it has another form.
        Refusal, Lacking: as `dcap.verify`, `dcap.tcb_mismatches`, `dstack.check_report_data`,
            `check_event_log` and `check_compose`; ``service.malformed``, ``dstack.nonce`` or ``dstack.gpu``.

    """
    report = _object(files["attestation"])
    findings: list[Refusal | Lacking] = list(_nonce_findings(report, nonce))  # step 1
    if "intel_quote" not in report or "signing_address" not in report:
        if findings:
            raise first_of(findings)
        raise UnknownReport("a report of another form than a vllm-proxy's")
    try:
        signed, quote, log, compose = _read(report)
        payload = _object(report["nvidia_payload"].encode()) if "nvidia_payload" in report else {}
        gpus = [base64.b64decode(gpu["evidence"], validate=True) for gpu in payload.get("evidence_list", ())]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refusal(MALFORMED, f"not a report: {type(error).__name__}", step=1) from error
    facts: dict[str, Any] = {}
    try:
        found = dcap.verify(quote, _collateral_of(quote, files), now=now)  # step 2
        findings += (
            Refusal(m.code, m.message, step=2, got=m.got, expected=m.expected)
            for m in dcap.tcb_mismatches(found)
        )
        body = found.quote.report
        if not isinstance(body, TdReport):
            raise Refusal("dstack.measurement", "not the quote of a TDX machine", step=2)
        facts = {
            "tcb_status": found.tcb_status.value,
            "compose_hash": _checked(body, signed, nonce, log, compose),
        }
    except (Refusal, Lacking) as error:
        findings.append(error)
    for gpu in gpus:  # step 5
        if gpu[_SPDM_NONCE] != nonce:
            got = gpu[_SPDM_NONCE].hex()
            findings.append(
                Refusal("dstack.gpu", "a GPU answered another nonce", step=5, got=got, expected=nonce.hex())
            )
            break
    if findings:
        raise first_of(findings)
    return facts


def _nonce_findings(report: Mapping[str, Any], nonce: bytes) -> Iterator[Refusal]:
    for name in ("request_nonce", "nonce"):
        stated = report.get(name)
        if stated is not None and stated != nonce.hex():
            text = "the report answers another nonce than ours: somebody else asked for it"
            yield Refusal("dstack.nonce", text, step=1, got=str(stated)[:80], expected=nonce.hex())


def _read(report: Mapping[str, Any]) -> tuple[SignedText, bytes, bytes, bytes]:
    """Step 1: the key as evidence names it, the quote without padding, event log and compose file."""
    scheme, key = (
        _SCHEMES[report["signing_algo"]],
        bytes.fromhex(report["signing_address"].removeprefix("0x")),
    )
    if len(key) not in KEY_BYTES[scheme]:  # padded, a short key would read as a long one
        raise ValueError("signing_address")
    signed = SignedText(binding=Binding.DSTACK_PAIR, scheme=scheme, key=key, text="", signature=b"")
    quote = without_padding(bytes.fromhex(report["intel_quote"].removeprefix("0x")))
    log = report["event_log"]
    text = log if isinstance(log, str) else json.dumps(log)
    info = report["info"]["tcb_info"]
    info = json.loads(info) if isinstance(info, str) else info
    return signed, quote, text.encode(), info["app_compose"].encode()


def _checked(body: TdReport, signed: SignedText, nonce: bytes, log: bytes, compose: bytes) -> str:
    """Steps 3 and 4, and the compose hash that they establish."""
    got = dstack.check_report_data(signed, bytes.fromhex(body.report_data))
    if got != nonce:
        text = "the quote was made for another nonce"
        raise Refusal("dstack.nonce", text, step=3, got=got.hex(), expected=nonce.hex())
    events = parse_event_log(log)
    check_event_log(events, body)
    return check_compose(events, compose, body)


def _collateral_of(quote: bytes, files: Mapping[str, bytes]) -> bytes:
    """Take the collateral that the case holds for the quote's platform: roles end with its FMSPC."""
    try:
        fmspc = dcap.platform_of(quote).fmspc
    except Refusal:
        return b""  # what is wrong with the quote is said by whoever checks it
    return files.get(f"collateral_{fmspc}", b"")


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_REPORT_BYTES:
        raise Refusal(MALFORMED, f"more than {MAX_REPORT_BYTES} bytes", step=1)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refusal(MALFORMED, "not JSON", step=1) from error
    if not isinstance(value, dict):
        raise Refusal(MALFORMED, "not a JSON object", step=1)
    return value
