"""The corpus: every case of the built kinds agrees, another verifier can be asked, mutations are refused."""

from __future__ import annotations

import json
import sys
import time
from base64 import encodebytes
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proofhold.attestation.inspection import inspect
from proofhold.attestation.quote import parse_quote
from proofhold.conformance.checkers import CHECKERS, check
from proofhold.conformance.codes import INDEX_CODES
from proofhold.conformance.comparison import Answer, Outcome, Verdict, compare
from proofhold.conformance.foreign import Foreign
from proofhold.conformance.index import Case, Expectation, load_index, parse_index
from proofhold.conformance.mutations import TWIN, Files, mutations
from proofhold.errors import Malformed, Misuse
from proofhold_cli import main

BUILT = ("nitro", "sev-snp", "sgx", "tdx")
"""The kinds of which every case is to agree."""
MUTATED = ("nitro", "sev-snp", "sgx", "tdx")
GENUINE_SWAPS = (
    "quote: of another case",
    "collateral: of another case",
    "collateral: pck_crl of another case",
    "collateral: pck_crl_issuer_chain of another case",  # the list itself is checked by the quote's own
    "collateral: root_ca_crl of another case",
)
"""What Intel signed for another case is as good for this one where platform, issuer and time fit: nothing in
it was damaged."""
SLOWEST_S = 2.0
"""A bound of work for one damaged document; a whole verification takes a few milliseconds."""

GOOD = {
    "id": "one",
    "tee": "nitro",
    "files": {"doc": "doc.cbor"},
    "verify_at": "2026-02-12T17:56:32Z",
    "params": {},
    "expected": {"verdict": "reject", "code": "malformed"},
}


def index(**changes: Any) -> bytes:
    return json.dumps([{**GOOD, **changes}]).encode()


def case(**changes: Any) -> Case:
    return parse_index(index(**changes))[0]


@pytest.mark.parametrize("kind", BUILT)
def test_every_case_of_a_built_kind_agrees(vectors: Path, kind: str) -> None:
    cases = [c for c in load_index(vectors / "index.json") if c.kind == kind]
    results = [compare(c, check(kind, c.read(vectors), c.now, c.params)) for c in cases]
    assert {r.case.id: r.problem or r.answer.detail for r in results if r.outcome is not Outcome.AGREE} == {}
    assert cases


def test_no_case_disagrees(vectors: Path) -> None:
    results = [
        compare(c, check(c.kind, c.read(vectors), c.now, c.params))
        for c in load_index(vectors / "index.json")
    ]
    assert {r.case.id: r.problem for r in results if r.outcome is Outcome.DISAGREE} == {}


def mutate(vectors: Path, kind: str, count: int, seed: str) -> Counter[str]:
    """Mutate the good cases of a kind; give which code and step refused how many. None may be accepted."""
    cases = [c for c in load_index(vectors / "index.json") if c.kind == kind]
    # Of SGX the corpus has no quote that is up to date: there its status is the one thing against it.
    sound = {Expectation.ACCEPT} if kind != "sgx" else {Expectation.REJECT_BY_DEFAULT}
    cases = [c for c in cases if c.expectation in sound]
    good = [c.read(vectors) for c in cases]
    refused: Counter[str] = Counter()
    for number, mutation in enumerate(mutations(kind, good, seed=seed, count=count)):
        original = cases[number % len(cases)]
        started = time.perf_counter()
        answer = check(kind, mutation.files, original.now, original.params)
        assert time.perf_counter() - started < SLOWEST_S, mutation.what
        if answer.verdict is Verdict.ACCEPT or answer.codes == ("tcb_status",):
            # (r, n - s) is the same signature: what was signed has not changed (mutations.TWIN). It is the
            # only byte of Nitro and SEV-SNP that is not signed and has more than one content; what else is
            # free around quotes, `same_meaning` names.
            twin = mutation.what.endswith(TWIN)
            meant = twin or mutation.what in GENUINE_SWAPS or same_meaning(mutation.files, good, number)
            assert meant, (original.id, mutation.what)
            continue
        assert not mutation.what.endswith(TWIN), (original.id, mutation.what)
        refused[answer.detail.rpartition("[")[2].rstrip("]")] += 1
    return refused


def same_meaning(one: Files, good: Sequence[Files], number: int) -> bool:
    """Whether damage changed only what is free around a quote: the NUL and the last newline of a PCK chain,
    white space and escapes in the file of collateral, and a last newline of its chains.
    """
    other = good[number % len(good)]
    if set(one) != {"quote", "collateral"}:
        return False

    def texts(data: bytes) -> dict[str, str]:
        return {name: text.removesuffix("\n") for name, text in json.loads(data).items()}

    quotes = [parse_quote(files["quote"]) for files in (one, other)]
    chains = [quote.chain.removesuffix(b"\0").removesuffix(b"\n") for quote in quotes]
    bare = [replace(quote, chain=b"") for quote in quotes]
    return (
        bare[0] == bare[1]
        and chains[0] == chains[1]
        and texts(one["collateral"]) == texts(other["collateral"])
    )


NITRO_STEPS = {1, 2, 3, 4, 5, 6, 7}
SNP_STEPS = {1, 2, 3, 4, 5, 11}
DCAP_STEPS = {1, 2, 3, 4, 5, 7, 8}


def steps(refused: Counter[str]) -> set[int]:
    return {int(key.rpartition(" ")[2]) for key in refused}


@pytest.mark.parametrize(
    ("kind", "at_least"),
    [("nitro", NITRO_STEPS), ("sev-snp", SNP_STEPS), ("tdx", DCAP_STEPS), ("sgx", DCAP_STEPS)],
)
def test_a_thousand_mutations_are_refused_at_their_steps(
    vectors: Path, kind: str, at_least: set[int]
) -> None:
    refused = mutate(vectors, kind, 1000, "short")
    assert steps(refused) >= at_least, refused


@pytest.mark.long
@pytest.mark.parametrize("kind", MUTATED)
def test_ten_thousand_mutations_are_refused(vectors: Path, kind: str) -> None:
    assert sum(mutate(vectors, kind, 10_000, "long").values()) > 8_000


def test_mutations_repeat_and_differ_from_what_they_were_made_of() -> None:
    good = [{"doc": bytes(range(200))}, {"doc": bytes(range(50, 250))}]
    first, again = (list(mutations("other", good, seed="x", count=300)) for _ in range(2))
    assert first == again
    assert all(dict(m.files) != good[i % 2] for i, m in enumerate(first))
    with pytest.raises(Misuse):
        next(mutations("other", [], seed="x", count=1))


@pytest.mark.parametrize("kind", sorted({*CHECKERS, "eat"}))
def test_whatever_is_in_the_files_is_answered(kind: str) -> None:
    roles = {"nitro": ["doc"], "sev-snp": ["report", "leaf", "ask", "ark"], "providers": ["vector"]}
    for data in (b"\x00", b"", bytes(1184), b"\x84" * 5000, b"x" * 2**20):
        answer = check(kind, dict.fromkeys(roles.get(kind, ["quote"]), data), None, {})
        assert answer.verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE, Verdict.UNSUPPORTED)
    assert check(kind, {"other": b""}, None, {}).verdict is Verdict.UNSUPPORTED


def test_an_expectation_that_is_not_known_is_unsupported_and_no_agreement() -> None:
    for params in ({"tls_key": "00"}, {"nonce": "x"}, {"nonce": 5}, {"max_age_s": "9"}, {"pcr32": "00"}):
        answer = check("nitro", {"doc": b""}, 0, params)
        assert compare(case(params=params), answer).outcome is Outcome.UNSUPPORTED


@pytest.mark.parametrize(
    ("verdict", "expected", "outcome"),
    [
        ("accept", {"verdict": "accept"}, "agree"),
        ("accept", {"verdict": "accept", "nonce": "00", "more": 1}, "agree"),
        ("accept", {"verdict": "accept", "nonce": "01"}, "disagree"),
        ("accept", {"verdict": "accept", "report": {"vmpl": 0}}, "agree"),
        ("accept", {"verdict": "accept", "report": {"vmpl": 1}}, "disagree"),
        ("accept", {"verdict": "accept", "report": {"vmpl": False}}, "disagree"),
        ("accept", {"verdict": "reject"}, "disagree"),
        ("accept", {"verdict": "reject_by_default_policy"}, "disagree"),
        ("accept", {"verdict": "reject_if_revocation_checked"}, "agree"),
        ("reject", {"verdict": "reject_if_revocation_checked", "code": "b"}, "agree"),
        ("reject", {"verdict": "accept"}, "disagree"),
        ("reject", {"verdict": "reject"}, "agree"),
        ("reject", {"verdict": "reject", "code": "b"}, "agree"),
        ("reject", {"verdict": "reject", "code": "c"}, "disagree"),
        ("inconclusive", {"verdict": "reject", "code": "a"}, "agree"),
        ("inconclusive", {"verdict": "accept"}, "disagree"),
        ("unsupported", {"verdict": "reject"}, "unsupported"),
        ("unsupported", {"verdict": "accept"}, "unsupported"),
    ],
)
def test_an_answer_is_compared_with_what_is_expected(
    verdict: str, expected: dict[str, Any], outcome: str
) -> None:
    answer = Answer(Verdict(verdict), ("a", "b"), facts={"nonce": "00", "report": {"vmpl": 0}})
    assert compare(case(expected=expected), answer).outcome == outcome


def test_who_has_looked_at_revocation_must_have_seen_it() -> None:
    answer = Answer(Verdict.ACCEPT, revocation_checked=True)
    result = compare(case(expected={"verdict": "reject_if_revocation_checked"}), answer)
    assert result.outcome is Outcome.DISAGREE


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{}",
        b"[1]",
        b'[{"id": "one", "id": "two"}]',
        index(id=""),
        index(id=5),
        index(tee=None),
        index(files=[]),
        index(files={"doc": 5}),
        index(files={str(i): "x" for i in range(33)}),
        index(verify_at="yesterday"),
        index(verify_at="2026-02-12T17:56:32"),
        index(verify_at=5),
        index(params=[]),
        index(expected={}),
        index(expected={"verdict": "perhaps"}),
        index(expected={"verdict": "reject", "code": 5}),
        json.dumps([GOOD, GOOD]).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_index_is_refused(wrong: bytes) -> None:
    with pytest.raises(Malformed, match="no index"):
        parse_index(wrong)


def test_files_stay_beside_the_index(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "doc.cbor").write_bytes(b"y")
    (folder / "link").symlink_to(tmp_path / "secret")
    assert case().read(folder) == {"doc": b"y"}
    for path in ("../secret", str(tmp_path / "secret"), "link", "missing", "."):
        with pytest.raises(Malformed, match=r"conformance\.file"):
            case(files={"doc": path}).read(folder)


def test_the_map_of_codes_is_the_documents_and_covers_what_is_raised() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "formats" / "conformance.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `") and "." in line]
    stated = {row[1].strip(" `"): tuple(c.strip(" `") for c in row[2].split(",")) for row in rows}
    assert stated == dict(INDEX_CODES)


# Another verifier, behind the protocol.

ECHO = """
import json, sys
for line in sys.stdin:
    case = json.loads(line)
    print(json.dumps({"id": case["id"], "verdict": "reject", "codes": ["malformed"]}), flush=True)
"""


def program(tmp_path: Path, text: str) -> str:
    file = tmp_path / "verifier.py"
    file.write_text(text)
    return f"{sys.executable} {file}"


def corpus(tmp_path: Path, **changes: Any) -> str:
    (tmp_path / "doc.cbor").write_bytes(b"\x00")
    (tmp_path / "index.json").write_bytes(index(**changes))
    return str(tmp_path / "index.json")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["conformance", *arguments])
    return result.exit_code, result.output


def test_the_command_says_who_agrees(tmp_path: Path) -> None:
    code, output = run(corpus(tmp_path), "--json")
    assert code == 0
    assert json.loads(output)["agree"] == 1
    assert run(corpus(tmp_path))[0] == 0
    code, output = run(corpus(tmp_path, expected={"verdict": "accept"}))
    assert code == 4
    assert "expected accept" in output.replace("\n", " ")
    code, output = run(corpus(tmp_path, tee="gpu"))
    assert code == 3
    assert "Unsupported, and no agreement" in output
    assert run(corpus(tmp_path), "--kind", "sgx")[0] == 2
    assert run(corpus(tmp_path, files={"doc": "missing"}))[0] == 4


def test_another_verifier_is_asked_the_same_cases(tmp_path: Path) -> None:
    command = program(tmp_path, ECHO)
    assert run(corpus(tmp_path), "--command", command)[0] == 0
    assert run(corpus(tmp_path, expected={"verdict": "accept"}), "--command", command)[0] == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print('hello', flush=True)",
        "print('[]', flush=True)",
        'print(\'{"verdict": "perhaps", "id": "one"}\', flush=True)',
        ECHO.replace('case["id"]', "'another'"),
        ECHO.replace('["malformed"]', '"malformed"'),
        ECHO.replace('["malformed"]', "[5]"),
        "print('x' * 2**21, flush=True)",
        "import time; time.sleep(60)",
    ],
)
def test_a_verifier_that_does_not_keep_to_the_protocol_is_our_users_mistake(
    tmp_path: Path, text: str
) -> None:
    with Foreign(program(tmp_path, text), deadline_s=3) as foreign, pytest.raises(Misuse):
        foreign.check(case(), {"doc": b""})


@pytest.mark.parametrize("command", ["", "'", "/no/such/program"])
def test_a_command_that_is_none_is_misuse(command: str) -> None:
    with pytest.raises(Misuse):
        Foreign(command)


# Looking at documents.


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("nitro/opengradient-2026-02.cbor", "i-0340e0cb833504eb6-enc019c12d31f78864d"),
        ("nitro/fortanix-tampered-certificate.cbor", "does_not_parse"),
        ("sev-snp/turin-oak.report.bin", "report_data"),
        ("tdx/nearmpc-2026-08.quote.bin", "mr_td"),
        ("sgx/phala-sample.quote.bin", "mr_enclave"),
    ],
)
def test_a_document_is_shown_and_said_to_be_unverified(vectors: Path, file: str, shown: str) -> None:
    result = CliRunner().invoke(main, ["attestation", "inspect", str(vectors / file)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("NOT VERIFIED")
    assert shown in result.output
    result = CliRunner().invoke(main, ["attestation", "inspect", str(vectors / file), "--json"])
    told = json.loads(result.output)
    assert told["verified"] is False
    document = (vectors / file).read_bytes()
    for wrapped in (document.hex().encode(), b"0x" + document.hex().encode() + b"\n", encodebytes(document)):
        assert inspect(wrapped).format == told["format"]


def test_what_is_no_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    result = CliRunner().invoke(main, ["attestation", "inspect", str(tmp_path / "file")])
    assert result.exit_code == 4
    assert "attestation.unknown" in result.output
