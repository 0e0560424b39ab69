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
from pathlib import Path
from typing import Any

from _results import table, write_section

ROUNDS = 400
WARM_UP_ROUNDS = 20


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

        def ours(files: dict[str, bytes] = files, now: int = now) -> object:
            vek, ask, ark = (files[role] for role in ("leaf", "ask", "ark"))
            return sevsnp.verify(files["report"], vek=vek, ask=ask, ark=ark, now=now)

        def bare(
            vek: Any = vek,
            issuer: Any = issuer,
            key: Any = key,
            signature: bytes = signature,
            files: dict[str, bytes] = files,
        ) -> None:
            digest, signed = hashes.SHA384(), files["report"][: sevsnp.SIGNED_BYTES]
            pss = padding.PSS(padding.MGF1(digest), 48)
            issuer.verify(vek.signature, vek.tbs_certificate_bytes, pss, digest)
            key.verify(signature, signed, ec.ECDSA(digest))

        yield Row(what, "RSA-PSS, P-384", ours, bare, 1.5)


FORMATS = (nitro_rows, snp_rows, dcap_rows)
"""One function a format."""


def case_of(vectors: Path, name: str) -> tuple[dict[str, bytes], int]:
    """The files of one case of the index by role, and when to judge it, in unix seconds."""
    index = json.loads((vectors / "index.json").read_text())
    case = next(case for case in index if case["id"] == name)
    files = {role: (vectors / path).read_bytes() for role, path in case["files"].items()}
    return files, int(datetime.fromisoformat(case["verify_at"]).timestamp())


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
    began = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began)


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
    body = table(["", "compared with", "its ms", "ms", "times", "at most"], lines)
    note = f"Medians of {ROUNDS} paired rounds in shuffled order, inline, without a worker."
    write_section("tee.py", "Attestations", f"{body}\n\n{note}")
    for name in missed:
        print(f"over its bar: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
