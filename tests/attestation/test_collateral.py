"""Collateral: read in one form, fetched from whom one names, shown, put into bundles; never trusted."""

from __future__ import annotations

import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dcap_vectors import GOOD, GOOD_SGX, DcapCase, case_of, cases, code_of
from documents import FIXTURES
from proofhold.attestation.collateral import MAX_COLLATERAL_BYTES, DcapCollateral, read_collateral
from proofhold.errors import Malformed, Misuse
from proofhold.exchange import Bundle
from proofhold_cli import fetching, main


@pytest.fixture(scope="session")
def good(vectors: Path) -> DcapCase:
    return case_of(vectors, GOOD)


# --- the file ---------------------------------------------------------------------------------------------


def test_every_collateral_of_the_index_is_read_and_written_again(vectors: Path) -> None:
    index = {case["id"]: case for case in json.loads((vectors / "index.json").read_text())}
    seen = 0
    for case in cases(vectors):
        if not case.collateral:
            continue
        collateral, reading = read_collateral(case.collateral)
        assert DcapCollateral.decode(collateral.encode()) == collateral
        window = index[case.id].get("valid_window")
        if window:
            from datetime import datetime

            expected = tuple(int(datetime.fromisoformat(instant).timestamp()) for instant in window)
            assert (reading.not_before, reading.not_after) == expected, case.id
        seen += 1
    assert seen >= 33


def changed(case: DcapCase, name: str, value: object) -> bytes:
    return json.dumps({**json.loads(case.collateral), name: value}).encode()


@pytest.mark.parametrize("name", [f.name for f in fields(DcapCollateral)])
@pytest.mark.parametrize("value", [None, 1, "", "x", "é", "\ud800", [], "00", "A0" * 64, "{}", "[" * 50_000])
def test_a_part_of_another_form_is_refused(good: DcapCase, name: str, value: object) -> None:
    with pytest.raises(Malformed):
        read_collateral(changed(good, name, value))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tcb_info", '"nextUpdate":"2026-07-30T07:53:47Z"', '"nextUpdate":"2026-07-30 07:53:47Z"'),
        ("tcb_info", '"nextUpdate":"2026-07-30T07:53:47Z"', '"nextUpdate":"2026-13-30T07:53:47Z"'),
        ("tcb_info", '"nextUpdate":"2026-07-30T07:53:47Z"', '"nextUpdate":99999999999999'),
        ("tcb_info", '"tcbEvaluationDataNumber":19', '"tcbEvaluationDataNumber":true'),
        ("tcb_info", '"fmspc":"00806F050000"', '"fmspc":5'),
        ("qe_identity", '"issueDate"', '"issuedDate"'),
        ("pck_crl_issuer_chain", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\r\n"),
        ("tcb_info_issuer_chain", "-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\n\n"),
    ],
)
def test_a_part_that_states_something_else_is_refused(good: DcapCase, name: str, old: str, new: str) -> None:
    text = json.loads(good.collateral)[name]
    assert old in text
    with pytest.raises(Malformed) as caught:
        read_collateral(changed(good, name, text.replace(old, new, 1)))
    assert caught.value.code == "collateral.unsigned"


def test_a_file_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(Malformed) as caught:
        read_collateral(b" " * (MAX_COLLATERAL_BYTES + 1))
    assert caught.value.code == "collateral.too_large"


# --- fetching ---------------------------------------------------------------------------------------------


@dataclass
class Server:
    """Whom the tests ask instead of Intel and AMD: a table of paths, on this machine's loopback."""

    url: str
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            table.asked.append(self.path)
            status, headers, body = table.answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    table = Server(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield table
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def serve_intel(server: Server, case: DcapCase, *, tee: str, fmspc: str, ca: str = "platform") -> None:
    parts = json.loads(case.collateral)

    def chain(name: str) -> str:
        return urllib.parse.quote(parts[name])

    def signed(name: str, part: str) -> bytes:
        return f'{{"{name}":{parts[part]},"signature":"{parts[f"{part}_signature"]}"}}'.encode()

    server.answers |= {
        f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der": (
            200,
            {"SGX-PCK-CRL-Issuer-Chain": chain("pck_crl_issuer_chain")},
            bytes.fromhex(parts["pck_crl"]),
        ),
        "/sgx/certification/v4/rootcacrl": (200, {}, parts["root_ca_crl"].encode()),
        f"/{tee}/certification/v4/tcb?fmspc={fmspc}": (
            200,
            {"TCB-Info-Issuer-Chain": chain("tcb_info_issuer_chain")},
            signed("tcbInfo", "tcb_info"),
        ),
        f"/{tee}/certification/v4/qe/identity": (
            200,
            {"SGX-Enclave-Identity-Issuer-Chain": chain("qe_identity_issuer_chain")},
            signed("enclaveIdentity", "qe_identity"),
        ),
    }


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["collateral", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize(
    ("name", "tee", "fmspc"), [(GOOD, "tdx", "00806F050000"), (GOOD_SGX, "sgx", "00606A000000")]
)
def test_what_is_fetched_judges_the_quote(
    vectors: Path, tmp_path: Path, server: Server, name: str, tee: str, fmspc: str
) -> None:
    case = case_of(vectors, name)
    serve_intel(server, case, tee=tee, fmspc=fmspc)
    quote, out = tmp_path / "quote.bin", tmp_path / "collateral.json"
    quote.write_bytes(case.quote + bytes(70))  # as dstack hands quotes out
    result = run("fetch", quote, "--pccs", server.url, "--out", out)
    assert result.exit_code == 0, result.output
    assert len(server.asked) == 4
    assert read_collateral(out.read_bytes())[0] == read_collateral(case.collateral)[0]
    assert code_of(case.quote, out.read_bytes(), case.now) == "accepted"


def test_a_server_that_does_not_answer_well_is_named_and_nothing_is_written(
    good: DcapCase, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_RESPONSE_BYTES", 64 * 2**10)
    quote, out = tmp_path / "quote.bin", tmp_path / "collateral.json"
    quote.write_bytes(good.quote)
    path = "/tdx/certification/v4/tcb?fmspc=00806F050000"
    serve_intel(server, good, tee="tdx", fmspc="00806F050000")
    _, headers, body = server.answers[path]
    for answer, words in (
        ((404, headers, body), "HTTP status 404"),
        ((302, {"Location": "http://example.invalid/"}, b""), "redirected"),
        ((200, {}, body), "TCB-Info-Issuer-Chain"),
        ((200, headers, b"{}"), "not a signed tcbInfo"),
        ((200, headers, b"\xff"), "not a signed tcbInfo"),
        ((200, headers, body.replace(b"2026-07-30", b"someday")), "instant"),
        ((200, headers, b"x" * (65 * 2**10)), "more than"),
    ):
        server.answers[path] = answer
        result = run("fetch", quote, "--pccs", server.url, "--out", out)
        assert result.exit_code == 3, result.output
        assert words in result.stderr
        assert "[collateral.fetch]" in result.stderr
        assert not out.exists()


def test_nobody_there_is_one_clear_line(good: DcapCase, tmp_path: Path) -> None:
    quote = tmp_path / "quote.bin"
    quote.write_bytes(good.quote)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = run("fetch", quote, "--pccs", url, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "[collateral.fetch]" in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "https://",
        "https://a:b@c",
        "https://a?b",
        "x",
    ],
)
def test_only_https_or_this_machine_is_asked(good: DcapCase, tmp_path: Path, url: str) -> None:
    with pytest.raises(Misuse):
        fetching.checked_base(url)
    quote = tmp_path / "quote.bin"
    quote.write_bytes(good.quote)
    assert run("fetch", quote, "--pccs", url, "--out", tmp_path / "out").exit_code == 2


def test_what_is_no_quote_is_refused(tmp_path: Path) -> None:
    quote = tmp_path / "quote.bin"
    quote.write_bytes(b"\x04\x00" + bytes(2000))
    result = run("fetch", quote, "--pccs", "http://127.0.0.1:9", "--out", tmp_path / "out")
    assert result.exit_code == 4
    assert "[dcap." in result.stderr


def test_a_report_of_amd_is_asked_for_by_chip_and_tcb(
    vectors: Path, tmp_path: Path, server: Server, good: DcapCase
) -> None:
    line, chip_bytes = "Genoa", 64
    folder = vectors / "sev-snp"
    report = (folder / "genoa-tinfoil-2026.report.bin").read_bytes()
    ders = [(folder / f"genoa-tinfoil-2026.{part}.der").read_bytes() for part in ("ask", "ark")]
    pem = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)
    chip = report[0x1A0 : 0x1A0 + chip_bytes].hex()
    bl, tee, snp, ucode = report[0x180], report[0x181], report[0x186], report[0x187]
    query = f"blSPL={bl:02d}&teeSPL={tee:02d}&snpSPL={snp:02d}&ucodeSPL={ucode:02d}"
    # No list of AMD's is at hand: any list will do, since nothing here checks it.
    crl = bytes.fromhex(json.loads(good.collateral)["root_ca_crl"])
    server.answers |= {
        f"/vcek/v1/{line}/{chip}?{query}": (
            200,
            {},
            (folder / "genoa-tinfoil-2026.vcek.der").read_bytes(),
        ),
        f"/vcek/v1/{line}/cert_chain": (200, {}, pem),
        f"/vcek/v1/{line}/crl": (200, {}, crl),
    }
    file, out = tmp_path / "report.bin", tmp_path / "snp.pem"
    file.write_bytes(report)
    options = ("--kds", server.url, "--line", line, "--out", out)
    result = run("fetch", file, *options)
    assert result.exit_code == 0, (result.output, server.asked)
    assert out.read_bytes().count(b"BEGIN CERTIFICATE") == 3
    shown = json.loads(run("show", out, "--now", "2026-06-29", "--json").stdout)
    assert [part["part"] for part in shown["parts"]] == [
        "SEV-VCEK",
        "SEV-Genoa",
        "ARK-Genoa",
        "revocation list",
    ]
    assert all(part["in_force"] for part in shown["parts"])
    del server.answers[f"/vcek/v1/{line}/crl"]
    assert run("fetch", file, *options).exit_code == 3


def test_a_vlek_is_not_to_be_had_from_amd(vectors: Path, tmp_path: Path) -> None:
    index = json.loads((vectors / "index.json").read_text())
    reports = [
        (vectors / case["files"]["report"]).read_bytes()
        for case in index
        if case["tee"] == "sev-snp" and "report" in case["files"]
    ]
    vlek = next(data for data in reports if len(data) == 1184 and data[0x48] >> 2 & 7 == 1)
    file = tmp_path / "report.bin"
    file.write_bytes(vlek)
    result = run("fetch", file, "--kds", "http://127.0.0.1:9", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "VLEK" in result.stderr


# --- showing, and bundles ---------------------------------------------------------------------------------


def test_show_prints_every_window_and_whether_it_is_in_force(good: DcapCase, tmp_path: Path) -> None:
    file = tmp_path / "collateral.json"
    file.write_bytes(good.collateral)
    shown = json.loads(run("show", file, "--now", good.now, "--json").stdout)
    assert len(shown["parts"]) == 10
    assert all(part["in_force"] for part in shown["parts"])
    later = json.loads(run("show", file, "--now", "2026-07-31", "--json").stdout)
    assert {p["part"] for p in later["parts"] if not p["in_force"]} == {"tcb_info", "qe_identity", "pck_crl"}
    text = run("show", file, "--now", good.now).stdout
    assert "from 2026-06-30T08:12:19Z until 2026-07-30T07:53:47Z" in text
    file.write_bytes(b"{}")
    assert run("show", file).exit_code == 4
    file.write_bytes(b"-----BEGIN NOTHING-----\n")
    assert run("show", file).exit_code == 4


def test_a_bundle_takes_collateral_beside_its_evidence(good: DcapCase, tmp_path: Path) -> None:
    file, bundle, out = tmp_path / "collateral.json", FIXTURES / "proved.bundle.json", tmp_path / "out.json"
    file.write_bytes(good.collateral)
    before = Bundle.decode(bundle.read_bytes())
    assert run("bundle", bundle, file, "--out", out).exit_code == 0
    after = Bundle.decode(out.read_bytes())
    assert after.evidence[0].collateral == {"dcap": good.collateral}
    assert after.evidence[0].digest == before.evidence[0].digest  # what the claim names has not changed
    assert after.exchange == before.exchange
    assert run("bundle", bundle, file, "--out", out, "--evidence", 1).exit_code == 2
    empty = tmp_path / "empty.json"
    empty.write_bytes((FIXTURES / "bundle.json").read_bytes())
    if not Bundle.decode(empty.read_bytes()).evidence:
        assert run("bundle", empty, file).exit_code == 2
