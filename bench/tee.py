"""What checking an attestation takes, as a multiple of the bare native or signature checks that it needs.

Every round runs a check and its bare part once each, in a shuffled order, and the two of one round are
compared: whatever else the machine does at that moment falls on both. Medians over the rounds. A new format
is one more function in `FORMATS` that gives its rows.

Needs the test vectors: the folder that PROOFHOLD_VECTORS names, or `shared/vectors` beside the repository,
unpacked or with `vectors.tar.gz` in it. Without them nothing is measured, and the section stays as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _results import table, write_section
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from proofhold.catalogue import ServiceEntry
    from proofhold.exchange import Bundle

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

ROUNDS = 400
WARM_UP_ROUNDS = 20
MUTATIONS = 1_000
RESPONSES = (
    "A response was to take at most 1.3 times its signature, and takes more. The rows above a response are "
    "what Python can hardly go below: the signature and the hashes, each one call into C, and that with "
    "evidence, request and answer read and written once by the standard library, as finding out that they "
    "are in their one encoding takes. What is left is every field by name, type and form, the allow-list, "
    "payee and time, and the finding; where the evidence carries the document, its bytes too."
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


def opengradient_rows(vectors: Path) -> Iterator[Row]:
    """A response whose key's document has been checked before, against its one signature.

    The whole of what a backend does for one answer: evidence, request and answer read strictly, hashed,
    compared with allow-list, payee and time, and the signature checked; once with the key on the list's word,
    once with the document in the evidence. The keys are ours, and the document is a real one of which this
    process remembers that it vouches for them.
    """
    from proofhold.allowlist import Vouching
    from proofhold.attestation import nitro, opengradient
    from proofhold.backends import opengradient as backend
    from proofhold.chat import signed_part
    from proofhold.core import Finding
    from serving import NOW, REQUEST, chat, document, enclave_key, respond, service, signer, spki

    response, entry = respond(), service()
    bundle, answer = chat(response), signed_part(response)

    def ours(bundle: Bundle = bundle, entry: ServiceEntry = entry) -> object:
        found, exchange = bundle.evidence[0], bundle.exchange
        check = backend.OpenGradientBackend().check(found, exchange, entry, answers=(), now=NOW)
        assert isinstance(check, Finding)
        return check

    stated = opengradient.SignedResponse.of(response)
    message = opengradient.check(spki(), stated, REQUEST, answer)
    key, sha256 = enclave_key(0).public_key(), SHA256()
    scheme = padding.PSS(padding.MGF1(SHA256()), 32)

    def bare() -> None:
        key.verify(stated.signature, message, scheme, sha256)

    texts = [opengradient.request_text(stated.binding, REQUEST), opengradient.output_text(answer)]
    hashed = [*(text.encode() for text in texts), bytes(96)]

    def floor() -> None:
        bare()
        for data in hashed:
            hashlib.sha3_256(data).digest()  # Keccak-256 but for its padding, and built in everywhere

    read = [bundle.evidence[0].body, document(REQUEST).body, answer.document().body]
    yield Row("OpenGradient: signature and hashes", "RSA-PSS 2048", floor, bare, None)
    yield Row("OpenGradient: and JSON, in C", "RSA-PSS 2048", lambda: (floor(), rewrite(read)), bare, None)
    yield Row("OpenGradient response, key listed", "RSA-PSS 2048", ours, bare, None)

    files, now = case_of(vectors, "nitro-opengradient-2026-02")
    vouching = replace(
        nitro.verify(files["doc"], now=now),
        pcrs={index: bytes([index + 1]) * 48 for index in range(3)},
        user_data=b"".join(b"\x12\x20" + hashlib.sha256(one).digest() for one in (b"TLS", spki())),
        timestamp_ms=NOW * 1000,
        valid_from=NOW - 60,
        valid_until=NOW + 60,
    )
    shown = service(signer(vouched=Vouching.SHOWN))
    attested = chat(response, entry=shown, proof={"attestation": files["doc"]})
    backend._DOCUMENTS.get(files["doc"], now=NOW, check=lambda: vouching)
    yield Row(
        "OpenGradient response, document kept", "RSA-PSS 2048", lambda: ours(attested, shown), bare, None
    )


def dstack_rows(vectors: Path) -> Iterator[Row]:
    """The same for a proxy's signed text, an Ethereum account's over request and answer."""
    from coincurve import PrivateKey, PublicKey

    from proofhold.allowlist import Binding, Scheme
    from proofhold.attestation.dstack import SignedText
    from proofhold.attestation.ethereum import keccak256
    from proofhold.backends.dstack import DstackBackend
    from proofhold.core import Evidence, Finding
    from proofhold.payload import Document
    from serving import NOW, REQUEST, bundle_of, document, make_job, service, signer

    del vectors
    private, output = PrivateKey(b"\7" * 32), Document("application/json", b'{"choices":[]}')
    point = private.public_key.format(compressed=False)[1:]
    address = keccak256(point)[-20:]
    asked = document(REQUEST)
    text = ":".join(hashlib.sha256(one.body).hexdigest() for one in (asked, output)).encode()
    prefixed = b"\x19Ethereum Signed Message:\n%d%s" % (len(text), text)
    digest = keccak256(prefixed)
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

    def ours() -> object:
        check = DstackBackend().check(relayed.evidence[0], relayed.exchange, listed, answers=(), now=NOW)
        assert isinstance(check, Finding)
        return check

    def bare() -> object:
        return PublicKey.from_signature_and_message(compact, digest, hasher=None)

    def floor() -> None:
        bare()
        for data in (asked.body, output.body):
            hashlib.sha256(data).digest()
        for data in (prefixed, point):
            hashlib.sha3_256(data).digest()

    read = [relayed.evidence[0].body, asked.body]
    yield Row("dstack: signature and hashes", "secp256k1 recovery", floor, bare, None)
    yield Row("dstack: and JSON, in C", "secp256k1 recovery", lambda: (floor(), rewrite(read)), bare, None)
    yield Row("dstack response, key listed", "secp256k1 recovery", ours, bare, None)


def rewrite(documents: Sequence[bytes]) -> None:
    """Read and write each once, as comparing with the one encoding takes, and as fast as Python can."""
    for data in documents:
        assert COMPACT.encode(json.loads(data)).encode() == data


COMPACT = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


FORMATS = (nitro_rows, snp_rows, dcap_rows, opengradient_rows, dstack_rows)
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
