"""What checking an attestation takes, as a multiple of the bare native or signature checks that it needs.

Every round runs a check and its bare part once each, in a shuffled order, and the two of one round are
compared: whatever else the machine does at that moment falls on both. Medians over the rounds. A new format
is one more function in `FORMATS` that gives its rows.

Needs the test vectors: the folder that PROOFHOLD_VECTORS names, or `shared/vectors` beside the repository,
unpacked or with `vectors.tar.gz` in it. Without them nothing is measured, and the section stays as it was.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from _results import table, write_section

ROUNDS = 400
WARM_UP_ROUNDS = 20
MUTATIONS = 1_000
RESPONSES = (
    "A response was to take at most 1.3 times its one signature, and takes more: that "
    "signature costs a few hundredths of a millisecond, and three Keccak-256 in the library that is at hand, "
    "and reading evidence, request and answer in their one encoding, each cost as much. In absolute terms a "
    "response under a kept document is cheaper than the document was by an order of magnitude."
)
"""What stands below the table about the rows without a bar."""


@dataclass(frozen=True)
class Row:
    """One check, what it is compared with, and how many times that it may take."""

    name: str
    bare_name: str
    ours: Callable[[], object]
    bare: Callable[[], object]
    at_most: float | None


def dcap_rows(vectors: Path) -> Iterator[Row]:
    """Quotes against dcap-qvl alone, the collateral already read on both sides, and read anew on both."""
    import dcap_qvl

    from proofhold.attestation import collateral, dcap

    for name, what in (
        ("tdx-gcp-2026-06", "TDX v4"),
        ("tdx-v5-go-tdx-guest", "TDX v5"),
        ("sgx-automata-swh", "SGX v3"),
    ):
        files, now = case_of(vectors, name)
        quote, data = files["quote"], files["collateral"]
        parsed = dcap_qvl.QuoteCollateralV3.from_json(data.decode())

        def ours(quote: bytes = quote, data: bytes = data, now: int = now) -> object:
            return dcap.verify(quote, data, now=now)

        def bare(quote: bytes = quote, parsed: object = parsed, now: int = now) -> object:
            return dcap_qvl.verify(quote, parsed, now)

        yield Row(f"{what}, collateral as before", "dcap_qvl.verify", ours, bare, 1.2)

        def ours_anew(quote: bytes = quote, data: bytes = data, now: int = now) -> object:
            collateral.read_collateral.cache_clear()
            return dcap.verify(quote, data, now=now)

        def bare_anew(quote: bytes = quote, data: bytes = data, now: int = now) -> object:
            return dcap_qvl.verify(quote, dcap_qvl.QuoteCollateralV3.from_json(data.decode()), now)

        yield Row(f"{what}, new collateral", "from_json, dcap_qvl.verify", ours_anew, bare_anew, None)


def nitro_rows(vectors: Path) -> Iterator[Row]:
    """A Nitro document against its five P-384 checks: four certificates and the document itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    from proofhold.attestation import cbor, nitro

    files, now = case_of(vectors, "nitro-opengradient-2026-02")
    document = files["doc"]
    parsed = nitro.parse(document)
    protected, _, payload, signature = cbor.decode(document, max_bytes=len(document), what="document")
    chain = [x509.load_der_x509_certificate(der) for der in (*parsed.cabundle, parsed.certificate)]
    keys = [certificate.public_key() for certificate in chain]
    checks = [(c.signature, c.tbs_certificate_bytes) for c in chain[1:]]
    r, s = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    signed = cbor.encode(["Signature1", protected, b"", payload])
    checks.append((utils.encode_dss_signature(r, s), signed))

    def ours() -> object:
        return nitro.verify(document, now=now)

    def bare() -> None:
        for key, (value, what) in zip(keys, checks, strict=True):
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(value, what, ec.ECDSA(hashes.SHA384()))

    yield Row("Nitro document", "5 × P-384", ours, bare, 1.5)


def snp_rows(vectors: Path) -> Iterator[Row]:
    """A report against its two checks: the VEK by the ASK (RSA-PSS) and the report by the VEK (P-384).

    ARK and ASK are pinned bytes; that they belong together is found out once.
    """
    import warnings

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

    from proofhold.attestation import sevsnp

    for name, what in (
        ("snp-milan-dstack-v3", "SEV-SNP report, Milan"),
        ("snp-turin-oak", "SEV-SNP report, Turin"),
        ("snp-milan-vlek-aws", "SEV-SNP report, VLEK"),
    ):
        files, now = case_of(vectors, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of serial number 0
            ask, vek = (x509.load_der_x509_certificate(files[role]) for role in ("ask", "leaf"))
        issuer, key = ask.public_key(), vek.public_key()
        signature = utils.encode_dss_signature(*sevsnp.parse(files["report"]).signature)

        def known(files: dict[str, bytes] = files, now: int = now) -> object:
            vek, ask, ark = (files[role] for role in ("leaf", "ask", "ark"))
            return sevsnp.verify(files["report"], vek=vek, ask=ask, ark=ark, now=now)

        def anew(known: Callable[[], object] = known) -> object:
            sevsnp._issued.cache_clear()
            return known()

        def bare_report(
            key: Any = key, signature: bytes = signature, report: bytes = files["report"]
        ) -> None:
            key.verify(signature, report[: sevsnp.SIGNED_BYTES], ec.ECDSA(hashes.SHA384()))

        def bare(vek: Any = vek, issuer: Any = issuer, report: Callable[[], object] = bare_report) -> None:
            pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
            issuer.verify(vek.signature, vek.tbs_certificate_bytes, pss, hashes.SHA384())
            report()

        yield Row(f"{what}, VEK as before", "P-384", known, bare_report, 1.5)
        yield Row(f"{what}, new VEK", "RSA-PSS, P-384", anew, bare, 1.5)


def response_rows(vectors: Path) -> Iterator[Row]:
    """A response whose key's document has been checked before, against its one signature.

    The whole of what a backend does for one answer: evidence, request and answer read strictly, hashed,
    compared with allow-list, payee and time, and the signature checked. The keys are ours.
    """
    import hashlib

    from coincurve import PublicKey
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
    from judging import NOW
    from proofhold.allowlist import Binding, Scheme
    from proofhold.attestation import opengradient
    from proofhold.attestation.dstack import SignedText
    from proofhold.attestation.ethereum import keccak256
    from proofhold.backends.dstack import DstackBackend
    from proofhold.backends.opengradient import OpenGradientBackend
    from proofhold.chat import signed_part
    from proofhold.core import Evidence, Finding
    from proofhold.payload import Document
    from serving import (
        REQUEST,
        bundle_of,
        chat,
        document,
        enclave_key,
        make_job,
        respond,
        service,
        signer,
        spki,
    )

    del vectors
    response = respond()
    bundle, entry = chat(response), service()

    def ours() -> object:
        check = OpenGradientBackend().check(bundle.evidence[0], bundle.exchange, entry, answers=(), now=NOW)
        assert isinstance(check, Finding)
        return check

    stated = opengradient.SignedResponse.of(response)
    message = opengradient.check(spki(), stated, REQUEST, signed_part(response))
    key = enclave_key(0).public_key()

    def bare() -> None:
        key.verify(stated.signature, message, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())

    yield Row("OpenGradient response, document kept", "RSA-PSS 2048", ours, bare, None)

    from coincurve import PrivateKey

    private, output = PrivateKey(b"\7" * 32), Document("application/json", b'{"choices":[]}')
    address = keccak256(private.public_key.format(compressed=False)[1:])[-20:]
    asked = document(REQUEST)
    text = ":".join(hashlib.sha256(one.body).hexdigest() for one in (asked, output)).encode()
    digest = keccak256(b"\x19Ethereum Signed Message:\n%d%s" % (len(text), text))
    compact = private.sign_recoverable(digest, hasher=None)
    proxy = signer(address, scheme=Scheme.SECP256K1, bindings=(Binding.DSTACK_PAIR,))
    listed = service(proxy)
    signed = SignedText(
        binding=Binding.DSTACK_PAIR,
        scheme=Scheme.SECP256K1,
        key=address,
        text=text.decode(),
        signature=compact[:64] + bytes([27 + compact[64]]),
    )
    job = make_job(listed, asked, evidence_kinds=("dstack",))
    relayed = bundle_of(job, asked, output, Evidence("dstack", signed.encode()))

    def ours_dstack() -> object:
        check = DstackBackend().check(relayed.evidence[0], relayed.exchange, listed, answers=(), now=NOW)
        assert isinstance(check, Finding)
        return check

    yield Row(
        "dstack response, quote kept",
        "secp256k1 recovery",
        ours_dstack,
        lambda: PublicKey.from_signature_and_message(compact, digest, hasher=None),
        None,
    )


FORMATS = (nitro_rows, snp_rows, dcap_rows, response_rows)
"""One function a format."""


def case_of(vectors: Path, name: str) -> tuple[dict[str, bytes], int]:
    """The files of one case of the index by role, and when to judge it, in unix seconds."""
    index = json.loads((vectors / "index.json").read_text())
    case = next(case for case in index if case["id"] == name)
    files = {role: (vectors / path).read_bytes() for role, path in case["files"].items()}
    return files, int(datetime.fromisoformat(case["verify_at"]).timestamp())


def mutation_times(vectors: Path) -> Iterator[list[str]]:
    """How long damaged evidence takes to be refused: no damage makes it cost more than a bound of work."""
    from proofhold.conformance.checkers import check
    from proofhold.conformance.index import Expectation, load_index
    from proofhold.conformance.mutations import mutations

    cases = load_index(vectors / "index.json")
    for kind in ("nitro", "sev-snp", "tdx", "sgx", "providers"):
        good = [
            (case, case.read(vectors))
            for case in cases
            if case.kind == kind
            and (case.expectation is Expectation.ACCEPT or kind == "sgx")
            and ("vector" in case.files or kind != "providers")
            and (kind != "sgx" or "collateral" in case.files)
        ]
        times = []
        files = [found for _, found in good]
        for number, mutation in enumerate(mutations(kind, files, seed="bench", count=MUTATIONS)):
            now = good[number % len(good)][0].now
            times.append(once_ms(partial(check, kind, mutation.files, now, {})))
        times.sort()
        shown = (statistics.median(times), times[int(0.99 * len(times))], times[-1])
        yield [kind, str(len(times)), *(f"{value:.2f}" for value in shown)]


def find_vectors(scratch: Path) -> Path | None:
    beside = Path(__file__).parents[2] / "shared" / "vectors"
    folder = Path(os.environ.get("PROOFHOLD_VECTORS", beside))
    archive = folder / "vectors.tar.gz"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        return scratch / "vectors"
    return folder if (folder / "index.json").is_file() else None


def once_ms(action: Callable[[], object]) -> float:
    """Its time on the processor, in ms: what else the machine does does not count."""
    began = time.thread_time()
    action()
    return 1000 * (time.thread_time() - began)


def measure(row: Row) -> tuple[float, float, float]:
    """Medians: bare and ours in ms, and ours as a multiple of bare."""
    taken = []
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        order = [("bare", row.bare), ("ours", row.ours)]
        random.shuffle(order)
        times = {name: once_ms(action) for name, action in order}
        if number >= WARM_UP_ROUNDS:
            taken.append((times["bare"], times["ours"], times["ours"] / times["bare"]))
    bare, ours, ratio = (statistics.median(column) for column in zip(*taken, strict=True))
    return bare, ours, ratio


def main() -> int:
    missed, lines = [], []
    with tempfile.TemporaryDirectory() as scratch:
        vectors = find_vectors(Path(scratch))
        if vectors is None:
            print("no vectors: set PROOFHOLD_VECTORS to their folder; nothing was measured", file=sys.stderr)
            return 0
        for rows in FORMATS:
            for row in rows(vectors):
                bare, ours, ratio = measure(row)
                bar = "" if row.at_most is None else f"{row.at_most:.1f}"
                lines.append([row.name, row.bare_name, f"{bare:.2f}", f"{ours:.2f}", f"{ratio:.2f}", bar])
                if row.at_most is not None and ratio > row.at_most:
                    missed.append(row.name)
        damaged = list(mutation_times(vectors))
    body = table(["", "compared with", "its ms", "ms", "times", "at most"], lines)
    note = (
        f"Medians of {ROUNDS} paired rounds in shuffled order, processor time, inline, without a worker. "
        + RESPONSES
    )
    refused = table(["", "mutations", "ms, median", "ms, 99 %", "ms, longest"], damaged)
    title = "Mutations of good evidence, each judged once; what refused them is in tests/attestation:"
    write_section("tee.py", "Attestations", f"{body}\n\n{note}\n\n{title}\n\n{refused}")
    for name in missed:
        print(f"over its bar: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
