"""One cause, many ways: whichever way a fault arises, the index's code for it is among the reasons.

The corpus shows each fault once. Here genuine cases are spoilt in the other ways that lead to the same fault,
and the answer must name it, whatever else it names: all mismatches are reported, not the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from proofhold.attestation import cbor
from proofhold.attestation.quote import parse_quote
from proofhold.conformance.checkers import check
from proofhold.conformance.comparison import Verdict
from proofhold.conformance.index import Case, load_index

Files = Mapping[str, bytes]
YEAR_S = 366 * 86_400
NITRO, OTHER_NITRO = "nitro-opengradient-2026-02", "nitro-nautilus-weather-2025-04"
TDX, SGX = "tdx-gcp-2026-06", "sgx-automata-swh"


@pytest.fixture(scope="module")
def corpus(vectors: Path) -> Callable[[str], tuple[Case, Files]]:
    cases = {case.id: case for case in load_index(vectors / "index.json")}
    return lambda name: (cases[name], cases[name].read(vectors))


Corpus = Callable[[str], tuple[Case, Files]]


def said(case: Case, files: Files, later_s: int = 0, **params: Any) -> tuple[str, ...]:
    """The codes for spoilt files; there is never an acceptance among the answers here."""
    assert case.now is not None
    answer = check(case.kind, files, case.now + later_s, params)
    assert answer.verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE), answer
    return answer.codes


def flipped(data: bytes, at: int, mask: int = 1) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def opened(document: bytes) -> tuple[list[Any], dict[str, Any]]:
    cose = cbor.decode(document, max_bytes=2**16, what="document")
    return cose, cbor.decode(cose[2], max_bytes=2**16, what="payload", open_map=True)


def closed(cose: list[Any], payload: Mapping[str, Any], **parts: Any) -> bytes:
    envelope = {"protected": cose[0], "unprotected": cose[1], "payload": cbor.encode(dict(payload))}
    return cbor.encode(list((envelope | {"signature": cose[3]} | parts).values()))


PCRS = [bytes([number]) * 48 for number in range(3)]
PAYLOADS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]], str]] = {
    "another time": (lambda p, _: {"timestamp": p["timestamp"] + 1000}, "bad_signature"),
    "another machine": (lambda p, _: {"module_id": "i-0"}, "bad_signature"),
    "no machine": (lambda p, _: {"module_id": ""}, "bad_signature"),
    "no nonce": (lambda p, _: {"nonce": None}, "bad_signature"),
    "another key": (lambda p, _: {"public_key": b"another"}, "bad_signature"),
    "PCRs left out": (lambda p, _: {"pcrs": dict(enumerate(PCRS[:2]))}, "bad_signature"),
    "PCRs of zero": (lambda p, _: {"pcrs": {**p["pcrs"], 0: bytes(48)}}, "bad_signature"),
    "another hash": (lambda p, _: {"digest": "SHA512"}, "malformed"),
    "a bit of the leaf's name": (
        lambda p, _: {"certificate": flipped(p["certificate"], 80)},
        "bad_certificate",
    ),
    "a bit of the leaf's key": (
        lambda p, _: {"certificate": flipped(p["certificate"], 300)},
        "bad_certificate",
    ),
    "a bit of its signature": (
        lambda p, _: {"certificate": flipped(p["certificate"], -3)},
        "bad_certificate",
    ),
    "half a leaf": (lambda p, _: {"certificate": p["certificate"][:300]}, "bad_certificate"),
    "another's leaf": (lambda p, other: {"certificate": other["certificate"]}, "bad_chain"),
    "another's authorities": (lambda p, other: {"cabundle": other["cabundle"]}, "bad_chain"),
    "another's chain": (
        lambda p, other: {name: other[name] for name in ("certificate", "cabundle")},
        "bad_signature",
    ),
    "no root": (lambda p, _: {"cabundle": p["cabundle"][1:]}, "untrusted_root"),
    "a bit of the root": (
        lambda p, _: {"cabundle": [flipped(p["cabundle"][0], 200), *p["cabundle"][1:]]},
        "untrusted_root",
    ),
    "the root last": (lambda p, _: {"cabundle": p["cabundle"][::-1]}, "untrusted_root"),
    "another order": (lambda p, _: {"cabundle": [p["cabundle"][at] for at in (0, 2, 1, 3)]}, "bad_chain"),
    "a bit of an authority": (
        lambda p, _: {"cabundle": [p["cabundle"][0], flipped(p["cabundle"][1], -3), *p["cabundle"][2:]]},
        "bad_chain",
    ),
    "a root appended": (lambda p, _: {"cabundle": [*p["cabundle"], p["cabundle"][0]]}, "bad_chain"),
}


@pytest.mark.parametrize("how", PAYLOADS)
def test_nitro_a_payload_changed_after_signing(corpus: Corpus, how: str) -> None:
    case, files = corpus(NITRO)
    (cose, payload), (_, other) = opened(files["doc"]), opened(corpus(OTHER_NITRO)[1]["doc"])
    edit, code = PAYLOADS[how]
    assert code in said(case, {"doc": closed(cose, payload | edit(payload, other))})


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"protected": b""}, "bad_alg"),  # none
        ({"protected": cbor.encode({})}, "bad_alg"),
        ({"protected": b"", "unprotected": {1: -35}}, "bad_alg"),  # where nobody signs it
        ({"protected": cbor.encode({1: -257})}, "bad_alg"),
        ({"protected": cbor.encode({1: -35, 4: b"kid"})}, "bad_alg"),
        ({"signature": bytes(96)}, "bad_signature"),
        ({"signature": b"\xff" * 96}, "bad_signature"),
        ({"signature": bytes(95)}, "bad_signature"),
        ({"signature": b""}, "bad_signature"),
        ({"unprotected": {4: b"kid"}}, "malformed"),
    ],
)
def test_nitro_another_envelope(corpus: Corpus, parts: dict[str, Any], code: str) -> None:
    case, files = corpus(NITRO)
    assert code in said(case, {"doc": closed(*opened(files["doc"]), **parts)})


def test_nitro_other_bytes_around(corpus: Corpus) -> None:
    case, files = corpus(NITRO)
    good = files["doc"]
    for wrong in (b"", good[:-1], good[:700], good + b"\n", good * 2, b"\xd2" + good, good.hex().encode()):
        assert "malformed" in said(case, {"doc": wrong})


def test_nitro_other_times_and_wishes(corpus: Corpus) -> None:
    case, files = corpus(NITRO)
    assert "expired" in said(case, files, YEAR_S)
    assert "not_yet_valid" in said(case, files, -YEAR_S)
    assert {"stale", "expired"} <= set(said(case, files, 86_400, max_age_s=300))
    assert "measurement_mismatch" in said(case, files, pcr2="00" * 48)
    assert "measurement_mismatch" in said(case, files, pcr16="11" * 48)
    assert "user_data_mismatch" in said(case, files, user_data="00")


SNP = ["snp-milan-trustee", "snp-genoa-oak", "snp-turin-oak", "snp-milan-vlek-aws"]
SIGNED = {
    "version": 0x00,
    "guest SVN": 0x04,
    "policy": 0x08,
    "bit 17 of the policy": 0x0A,
    "VMPL": 0x30,
    "algorithm": 0x34,
    "current TCB": 0x38,
    "signing key": 0x48,
    "report data": 0x50,
    "measurement": 0x90,
    "host data": 0xC0,
    "reported TCB": 0x180,
    "processor": 0x188,
    "chip id": 0x1A0,
    "committed TCB": 0x1E0,
}


@pytest.mark.parametrize("name", SNP)
def test_snp_whatever_is_signed_and_changed_is_a_forgery(corpus: Corpus, name: str) -> None:
    case, files = corpus(name)
    for what, at in SIGNED.items():
        mask = {"bit 17 of the policy": 2, "signing key": 4}.get(what, 1)
        codes = said(case, {**files, "report": flipped(files["report"], at, mask)})
        assert "bad_signature" in codes, what
        if what == "reported TCB":
            assert "tcb_mismatch" in codes
        if what == "chip id" and "vlek" not in name:
            assert "vcek_mismatch" in codes


@pytest.mark.parametrize("name", SNP)
def test_snp_certificates_altered_swapped_or_missing(corpus: Corpus, name: str) -> None:
    case, files = corpus(name)
    for role, code in (("leaf", "bad_certificate"), ("ask", "bad_chain"), ("ark", "untrusted_root")):
        assert code in said(case, {**files, role: flipped(files[role], 400)})
        assert "bad_chain" in said(case, {**files, role: flipped(files[role], -3)})
        assert "no_collateral" in said(case, {key: data for key, data in files.items() if key != role})
    assert "bad_chain" in said(case, {**files, "ask": files["ark"]})
    assert "bad_chain" in said(case, {**files, "leaf": files["ask"]})
    for other in ("snp-milan-virtee", "snp-genoa-tinfoil-2026"):
        theirs = corpus(other)[1]
        chain = {role: theirs[role] for role in ("leaf", "ask", "ark")}
        assert "vcek_mismatch" in said(case, {**files, "leaf": theirs["leaf"]})
        assert {"vcek_mismatch", "bad_signature"} <= set(said(case, {**files, **chain}))
        if theirs["ark"] != files["ark"]:
            assert "bad_chain" in said(case, {**files, "ark": theirs["ark"]})
            assert "bad_chain" in said(case, {**files, "ark": theirs["ark"], "ask": theirs["ask"]})


@pytest.mark.parametrize("name", SNP)
def test_snp_other_times_bytes_and_wishes(corpus: Corpus, name: str) -> None:
    case, files = corpus(name)
    assert "expired" in said(case, files, 40 * YEAR_S)
    assert "not_yet_valid" in said(case, files, -20 * YEAR_S)
    for wrong in (b"", files["report"][:-1], files["report"] + b"\0", flipped(files["report"], 0x400)):
        assert "malformed" in said(case, {**files, "report": wrong})
    assert "nonce_mismatch" in said(case, files, report_data="ee" * 64)
    assert "nonce_mismatch" in said(case, files, nonce="ee" * 32)
    assert "measurement_mismatch" in said(case, files, measurement="ee" * 48)


@pytest.mark.parametrize("name", [TDX, "tdx-v5-go-tdx-guest", SGX])
def test_dcap_whatever_is_signed_and_changed_is_a_forgery(corpus: Corpus, name: str) -> None:
    case, files = corpus(name)
    quote, parsed = files["quote"], parse_quote(files["quote"])
    end, report = len(parsed.signed), quote.index(parsed.qe_report_bytes)
    for at, code in (
        (8, "bad_signature"),  # reserved, or the SVNs of the enclaves
        (12, "bad_signature"),  # the vendor
        (30, "bad_signature"),
        (60, "bad_signature"),
        (end - 1, "bad_signature"),
        (end + 6, "bad_signature"),
        (end + 4 + 64 + 3, "ak_not_bound"),  # the attestation key
        (report, "bad_signature"),
        (report + 320, "ak_not_bound"),
        (report + 320, "bad_signature"),
        (report + 384 + 4, "bad_signature"),
        (report + 384 + 64 + 3, "ak_not_bound"),
        (0, "malformed"),
        (2, "malformed"),
        (4, "malformed"),
        (end, "malformed"),
    ):
        assert code in said(case, {**files, "quote": flipped(quote, at)}), at
        assert code in said(case, {"quote": flipped(quote, at)}), f"{at}, without collateral"
    chain = quote.index(parsed.chain)
    for at in range(60, 1500, 120):
        letter = b"A" if quote[chain + at] != ord("A") else b"B"
        spoilt = quote[: chain + at] + letter + quote[chain + at + 1 :]
        assert {"untrusted_chain", "bad_certificate"} <= set(said(case, {**files, "quote": spoilt}))


@pytest.mark.parametrize("name", [TDX, SGX])
def test_dcap_each_part_of_the_collateral(corpus: Corpus, name: str) -> None:
    case, files = corpus(name)
    parts = json.loads(files["collateral"])

    def with_part(part: str, value: str | None) -> tuple[str, ...]:
        changed = {key: text for key, text in {**parts, part: value}.items() if text is not None}
        return said(case, {**files, "collateral": json.dumps(changed).encode()})

    for part, text in parts.items():
        middle = len(text) // 2
        other = ("1" if text[middle] != "1" else "2") if part != "tcb_info" else " "
        assert "no_collateral" in with_part(part, None)
        assert "no_collateral" in with_part(part, "")
        assert "bad_collateral_signature" in with_part(part, text[:middle] + other + text[middle + 1 :]), part
        assert "bad_collateral_signature" in with_part(part, text[:-40])
    assert "bad_collateral" in said(case, {**files, "collateral": b"junk"})


def test_dcap_other_times_and_wishes(corpus: Corpus) -> None:
    case, files = corpus(TDX)
    assert "collateral_expired" in said(case, files, YEAR_S)
    assert {"collateral_expired", "expired"} <= set(said(case, files, 15 * YEAR_S))
    assert "not_yet_valid" in said(case, files, -YEAR_S)
    assert "nonce_mismatch" in said(case, files, nonce="ee" * 32)
    assert "nonce_mismatch" in said(case, files, report_data="ee" * 64)
    assert "measurement_mismatch" in said(case, files, mr_td="ee" * 48)
    other, theirs = corpus("tdx-azure-2026-06")
    assert case.now is not None
    assert other.now is not None
    swapped = {**files, "collateral": theirs["collateral"]}
    assert "fmspc_mismatch" in said(case, swapped, other.now - case.now)


def test_a_nonce_may_fill_a_part_of_the_report_data(corpus: Corpus) -> None:
    for name in ("snp-genoa-tinfoil-2026", TDX):
        case, files = corpus(name)
        assert case.now is not None
        facts = check(case.kind, files, case.now, {}).facts["report"]
        for nonce in (facts["report_data"], facts["report_data"][:64], facts["report_data"][-64:]):
            assert check(case.kind, files, case.now, {"nonce": nonce}).verdict is Verdict.ACCEPT


def test_what_is_null_is_not_expected_and_what_is_unknown_is_another_case(corpus: Corpus) -> None:
    case, files = corpus(TDX)
    assert check("tdx", files, case.now, {"nonce": None}).verdict is Verdict.ACCEPT
    strange: tuple[dict[str, Any], ...]
    strange = ({"colour": 1}, {"nonce": 7}, {"nonce": "zz"}, {"nonce": ""}, {"mr_td": []})
    for params in strange:
        assert check("tdx", files, case.now, params).verdict is Verdict.UNSUPPORTED
    assert check("tdx", {**files, "gpu": b""}, case.now, {}).verdict is Verdict.UNSUPPORTED
    assert check("nvidia", files, case.now, {}).verdict is Verdict.UNSUPPORTED
