"""Our verifiers, as checkers of cases: one adapter a kind, in a table.

A case's params are the relying party's expectations. One that an adapter does not know makes the case
unsupported, since a checker that passes over an expectation checks another case; what a case does not expect
is waived, in so many words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from proofhold.attestation.expectation import WAIVED, Expected, Mismatch, Waived
from proofhold.attestation.refusal import Lacking, Refusal
from proofhold.conformance.codes import index_codes
from proofhold.conformance.comparison import Answer, Verdict

Checker: TypeAlias = Callable[[Mapping[str, bytes], int, Mapping[str, Any]], Answer]
"""Files by role, the time in unix seconds, params."""

UNDATED_NOW: Final = 1_735_689_600
"""2025-01-01: the time for a case that states none, because time does not matter to it."""

REPORT_DATA_BYTES: Final = 64
_MAX_EXPECTED_BYTES = 4096
_PCR = re.compile(r"pcr(\d|[12]\d|3[01])", re.ASCII)


class _Unknown(Exception):
    """A case asks for what this adapter does not know."""


def check(kind: str, files: Mapping[str, bytes], now: int | None, params: Mapping[str, Any]) -> Answer:
    """Answer a case with our verifier of its kind; unsupported where there is none.

    Whatever a verifier says of the case's bytes is an answer; that nothing else is raised is what the
    mutation tests are for.
    """
    checker = CHECKERS.get(kind)
    if checker is None:
        return Answer(Verdict.UNSUPPORTED, detail=f"no checker of {kind}")
    stated = {name: value for name, value in params.items() if value is not None}
    try:
        return checker(files, UNDATED_NOW if now is None else now, stated)
    except _Unknown as unknown:
        return Answer(Verdict.UNSUPPORTED, detail=str(unknown))
    except Refusal as refusal:
        every = (refusal, *refusal.also)
        return _answer(Verdict.REJECT, [r.code for r in every], "; ".join(str(r) for r in every))
    except Lacking as lacking:
        return _answer(Verdict.INCONCLUSIVE, [lacking.code], str(lacking))


def _nitro(files: Mapping[str, bytes], now: int, params: Mapping[str, Any]) -> Answer:
    from proofhold.attestation import nitro

    _require(files, {"doc"})
    pcrs = {int(name[3:]): _hex(params, name) for name in params if _PCR.fullmatch(name)}
    _require_known(params, {"max_age_s", "nonce", "user_data", "public_key", *(f"pcr{i}" for i in pcrs)})
    expectations = nitro.Expectations(
        measurements=(pcrs,) if pcrs else WAIVED,
        nonce=_expected(params, "nonce"),
        user_data=_expected(params, "user_data"),
        public_key=_expected(params, "public_key"),
    )
    document = nitro.verify(files["doc"], now=now, max_age_s=_integer(params, "max_age_s"))
    facts = {
        "module_id": document.module_id,
        "timestamp_ms": document.timestamp_ms,
        "nonce": _shown(document.nonce),
        "user_data": _shown(document.user_data),
        "public_key": _shown(document.public_key),
        **{f"pcr{index}": value.hex() for index, value in document.pcrs.items()},
    }
    return _judged(nitro.validate(document, expectations), facts)


def _snp(files: Mapping[str, bytes], now: int, params: Mapping[str, Any]) -> Answer:
    from proofhold.attestation import sevsnp

    certificates = {"leaf", "ask", "ark"}
    _require(files, {"report"}, optional={"crl", *certificates})
    _require_known(params, {"report_data", "nonce", "host_data", "measurement"})
    if missing := sorted(certificates - set(files)):
        sevsnp.parse(files["report"])  # what is out of form is so without them
        raise Lacking("snp.collateral_missing", f"no {', '.join(missing)} for this report", step=4)
    report = sevsnp.verify(
        files["report"], vek=files["leaf"], ask=files["ask"], ark=files["ark"], now=now, crl=files.get("crl")
    )
    expectations = sevsnp.Expectations(
        report_data=_report_data(params, report.report_data),
        measurements=(_hex(params, "measurement"),) if "measurement" in params else WAIVED,
        host_data=_expected(params, "host_data"),
        allow_unknown_revocation=True,
    )
    stated = {
        "version": report.version,
        "policy": f"0x{report.policy:x}",
        "vmpl": report.vmpl,
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "host_data": report.host_data.hex(),
        "chip_id": report.chip_id.hex(),
        "reported_tcb": report.reported_tcb.hex(),
        "signing_key": report.signing_key.value,
    }
    facts = {"product": report.product, "report": stated}
    mismatches = sevsnp.validate(report, expectations)
    return _judged(mismatches, facts, revocation_checked=report.revocation_checked)


def _dcap(files: Mapping[str, bytes], now: int, params: Mapping[str, Any]) -> Answer:
    from proofhold.attestation import dcap

    described = {"fmspc", "quote_version", "tcb_eval"}  # what the case is about, not what is expected of it
    _require(files, {"quote"}, optional={"collateral"})
    _require_known(params, {"report_data", "nonce", *described, *dcap.MEASUREMENTS})
    allowed = {name: frozenset({_text(params, name)}) for name in params if name in dcap.MEASUREMENTS}
    measurements: Mapping[str, frozenset[str]] | Waived = allowed or WAIVED
    report = dcap.verify(files["quote"], files.get("collateral", b""), now=now)
    body = report.quote.report
    expectations = dcap.Expectations(
        report_data=_report_data(params, bytes.fromhex(body.report_data)), measurements=measurements
    )
    facts = {
        "tcb_status": report.tcb_status.value,
        "advisory_ids": list(report.advisory_ids),
        "report": asdict(body),
    }
    return _judged(dcap.validate(report, expectations), facts, revocation_checked=True)


def _service(files: Mapping[str, bytes], now: int, params: Mapping[str, Any]) -> Answer:
    """Check a service's signature, or the attestation report of a service of the dstack family."""
    from proofhold.conformance.services import check_signature

    if "attestation" in files:
        return _report(files, now, params)
    _require(files, {"vector"})
    _require_known(params, set())
    return Answer(Verdict.ACCEPT, facts=check_signature(files["vector"]))


def _report(files: Mapping[str, bytes], now: int, params: Mapping[str, Any]) -> Answer:
    from proofhold.conformance.reports import DSTACK_PROVIDERS, GPUS_NOT_JUDGED, UnknownReport, check_report

    _require_known(params, {"model", "nonce", "provider"})
    if params.get("provider") not in DSTACK_PROVIDERS or "nonce" not in params:
        raise _Unknown("no checker of this provider's reports")
    try:
        facts = check_report(files, _hex(params, "nonce"), now)
    except UnknownReport as unknown:
        raise _Unknown(str(unknown)) from unknown
    return Answer(Verdict.ACCEPT, detail=GPUS_NOT_JUDGED, facts=facts, revocation_checked=True)


CHECKERS: Final[Mapping[str, Checker]] = MappingProxyType(
    {"nitro": _nitro, "providers": _service, "sev-snp": _snp, "sgx": _dcap, "tdx": _dcap}
)
"""By the index's kind. A kind that is not here is unsupported."""


def _judged(
    mismatches: Iterable[Mismatch], facts: Mapping[str, Any], *, revocation_checked: bool = False
) -> Answer:
    found = tuple(mismatches)
    if not found:
        return Answer(Verdict.ACCEPT, facts=facts, revocation_checked=revocation_checked)
    detail = "; ".join(f"{m.message} [{m.code}]" for m in found)
    return _answer(Verdict.REJECT, [m.code for m in found], detail)


def _answer(verdict: Verdict, ours: Iterable[str], detail: str) -> Answer:
    return Answer(verdict, index_codes(ours), detail)


def _require(
    files: Mapping[str, bytes], roles: set[str], optional: frozenset[str] | set[str] = frozenset()
) -> None:
    if not roles <= set(files) <= roles | optional:
        raise _Unknown(f"files of the roles {sorted(files)}, expected {sorted(roles)}")


def _require_known(params: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(params) - known)
    if unknown:
        raise _Unknown(f"no checker of the parameter {unknown[0]}")


def _expected(params: Mapping[str, Any], name: str) -> Expected:
    return _hex(params, name) if name in params else WAIVED


def _report_data(params: Mapping[str, Any], got: bytes) -> Expected:
    """Give what report data are expected: stated whole, or as a nonce that fills a part of them.

    A nonce shorter than report data stands at their beginning or their end, with whatever the service binds
    beside it.
    """
    if "nonce" not in params:
        return _expected(params, "report_data")
    nonce = _hex(params, "nonce")
    if not 0 < len(nonce) <= REPORT_DATA_BYTES:
        raise _Unknown(f"a nonce of {len(nonce)} bytes")
    fits = got.startswith(nonce) or got.endswith(nonce)
    return got if fits else nonce.ljust(REPORT_DATA_BYTES, b"\0")


def _hex(params: Mapping[str, Any], name: str) -> bytes:
    text = _text(params, name)
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise _Unknown(f"the parameter {name} is not hexadecimal") from error


def _text(params: Mapping[str, Any], name: str) -> str:
    value = params[name]
    if not isinstance(value, str) or len(value) > 2 * _MAX_EXPECTED_BYTES:
        raise _Unknown(f"the parameter {name} is not a text of its bounds")
    return value


def _integer(params: Mapping[str, Any], name: str) -> int | None:
    value = params.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise _Unknown(f"the parameter {name} is not a number of seconds")
    return value


def _shown(value: bytes | None) -> str | None:
    """Show a field of a Nitro document as the index does: empty and absent are one."""
    return value.hex() if value else None
