"""Getting collateral over the network: the only part of this project that asks the makers of TEEs anything.

What comes back is written to a file and believed no more than if a stranger had sent it: verification reads
the file, checks every signature in it and never comes here. Sources: Intel, *SGX and TDX Provisioning
Certification Service API*, version 4 (which caching services, PCCS, repeat); AMD 57230, *VCEK Certificate and
KDS Interface Specification*.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import IO, Final, NoReturn

from proofhold.errors import Malformed, Misuse, ProofholdError

INTEL_URL: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL_URL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
AMD_URL: Final = "https://kdsintf.amd.com"

MAX_RESPONSE_BYTES: Final = 2**20
MAX_HEADER_CHARS: Final = 32 * 2**10
TIMEOUT_S: Final = 20.0
"""For one answer, from asking to its last byte."""
CHUNK_BYTES: Final = 64 * 2**10

_LINES: Final = {
    "Milan": (0x19, frozenset(range(0x10))),
    "Genoa": (0x19, frozenset({*range(0x10, 0x20), *range(0xA0, 0xB0)})),
    "Turin": (0x1A, frozenset(range(0x20))),
}
"""Family and models of AMD's product lines, as a report from version 3 on states them."""
_TURIN_HWID_BYTES: Final = 8
"""How much of the chip id names a chip from Turin on; before, all of it does."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_SIGNED: Final = re.compile(r'\{"(\w+)":(\{.*\}),"signature":"([0-9a-f]{128})"\}\s*', re.ASCII | re.DOTALL)


class FetchError(ProofholdError):
    """The network, or whoever was asked, did not give what was asked for."""

    def __init__(self, url: str, message: str) -> None:
        super().__init__(f"{url}: {message} [collateral.fetch]")
        self.code = "collateral.fetch"


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    url: str
    body: bytes
    headers: Mapping[str, str]

    def header(self, *names: str) -> str:
        """Give a header's value, percent-decoded, under the first of its names that is there."""
        for name in names:
            value = self.headers.get(name.lower(), "")
            if value and len(value) <= MAX_HEADER_CHARS:
                return urllib.parse.unquote(value)
        raise FetchError(self.url, f"the answer has no header {names[0]}")

    def der(self) -> bytes:
        """Give a revocation list's DER, which servers send as it is or in hexadecimal digits."""
        text = self.body.strip()
        if re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", text):
            return bytes.fromhex(text.decode())
        return self.body

    def signed(self, name: str) -> tuple[str, bytes]:
        """Give the text that Intel signed, byte for byte, and its signature."""
        try:
            match = _SIGNED.fullmatch(self.body.decode())
        except UnicodeDecodeError:
            match = None
        if match is None or match[1] != name:
            raise FetchError(self.url, f"the answer is not a signed {name}")
        return match[2], bytes.fromhex(match[3])


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An address is asked, or it is not: nobody sends us on, least of all to one without TLS."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> NoReturn:
        """Refuse."""
        del fp, msg, headers, newurl
        raise FetchError(req.full_url, f"redirected ({code}), which is not followed")


def checked_base(url: str) -> str:
    """Take an address that a user named: https, or http to this machine.

    Raises:
        Misuse: anything else.

    """
    parts = urllib.parse.urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if (
        not parts.hostname
        or parts.username
        or parts.query
        or parts.fragment
        or not (parts.scheme == "https" or local)
    ):
        raise Misuse(f"{url}: expected an https address")
    return url.rstrip("/")


def get(url: str) -> Answer:
    """Ask for one thing, within a time and a size.

    Raises:
        FetchError: whatever went wrong, in words.

    """
    deadline = time.monotonic() + TIMEOUT_S
    opener = urllib.request.build_opener(_NoRedirects())
    request = urllib.request.Request(url, headers={"Accept": "*/*", "User-Agent": "proofhold"})  # noqa: S310
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            body = b""
            while chunk := response.read1(CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise FetchError(url, f"more than {MAX_RESPONSE_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise FetchError(url, f"not finished after {TIMEOUT_S:.0f} s")
            headers = {name.lower(): value for name, value in response.headers.items()}
    except urllib.error.HTTPError as error:
        raise FetchError(url, f"HTTP status {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise FetchError(url, str(reason) or type(error).__name__) from error
    return Answer(url, body, headers)


def dcap_collateral(quote: bytes, pccs: str | None) -> bytes:
    """Fetch everything that judging a TDX or SGX quote takes.

    Args:
        quote: as it came; zeros behind it do no harm here.
        pccs: the address of a caching service, or None for Intel's own.

    Raises:
        FetchError: something could not be had.
        Refusal: it is no quote.
        Misuse: dcap-qvl is not installed.

    """
    from proofhold.attestation.collateral import DcapCollateral, read_collateral
    from proofhold.attestation.dcap import platform_of
    from proofhold.attestation.quote import without_padding

    platform = platform_of(without_padding(quote))
    base = INTEL_URL if pccs is None else checked_base(pccs)
    sgx, own = (f"{base}/{tee}/certification/v4" for tee in ("sgx", platform.tee))
    pck_crl = get(f"{sgx}/pckcrl?ca={platform.ca}&encoding=der")
    root_crl = get(INTEL_ROOT_CRL_URL if pccs is None else f"{sgx}/rootcacrl")
    tcb = get(f"{own}/tcb?fmspc={platform.fmspc.upper()}")
    identity = get(f"{own}/qe/identity")
    tcb_info, tcb_info_signature = tcb.signed("tcbInfo")
    qe_identity, qe_identity_signature = identity.signed("enclaveIdentity")
    collateral = DcapCollateral(
        pck_crl_issuer_chain=pck_crl.header("SGX-PCK-CRL-Issuer-Chain"),
        root_ca_crl=root_crl.der(),
        pck_crl=pck_crl.der(),
        tcb_info_issuer_chain=tcb.header("TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"),
        tcb_info=tcb_info,
        tcb_info_signature=tcb_info_signature,
        qe_identity_issuer_chain=identity.header("SGX-Enclave-Identity-Issuer-Chain"),
        qe_identity=qe_identity,
        qe_identity_signature=qe_identity_signature,
    ).encode()
    try:
        read_collateral(collateral)  # what does not even parse is not worth a file
    except Malformed as error:
        raise FetchError(base, error.message) from error
    return collateral


def snp_collateral(report: bytes, kds: str | None, line: str | None) -> bytes:
    """Fetch a chip's certificate, its issuers and their revocation list: a PEM file.

    Args:
        report: the attestation report.
        kds: the address of AMD's key distribution service, or of who repeats it; None for AMD's own.
        line: Milan, Genoa or Turin, where the report is too old to say (version 2).

    Raises:
        FetchError: something could not be had.
        Refusal: it is no report.
        Misuse: the report is signed by a cloud's key (VLEK), which AMD gives to the cloud alone, or does not
            say of which line it is.

    """
    import warnings

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from proofhold.attestation import sevsnp

    parsed = sevsnp.parse(report)
    if parsed.signing_key is not sevsnp.SigningKey.VCEK:
        raise Misuse("signed by a VLEK: whoever runs the machine hands its certificate out, not AMD")
    product = sevsnp.Line(line or _line_of(parsed.processor))
    chip = parsed.chip_id[: _TURIN_HWID_BYTES if product is sevsnp.Line.TURIN else None].hex()
    tcb = sevsnp.tcb_components(parsed.reported_tcb, product)
    query = "&".join(
        f"{name}SPL={tcb[name]:02d}" for name in ("fmc", "bl", "tee", "snp", "ucode") if name in tcb
    )
    base = f"{AMD_URL if kds is None else checked_base(kds)}/vcek/v1/{product}"
    leaf, chain, revoked = get(f"{base}/{chip}?{query}"), get(f"{base}/cert_chain"), get(f"{base}/crl")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # AMD's chips have certificates of serial number zero
            vcek = x509.load_der_x509_certificate(leaf.body).public_bytes(Encoding.PEM)
        issuers = x509.load_pem_x509_certificates(chain.body)
        crl = x509.load_der_x509_crl(revoked.der()).public_bytes(Encoding.PEM)
    except Exception as error:  # the parser's errors are many, and all say the same
        raise FetchError(base, "the answers are not certificates and a revocation list") from error
    pems = [vcek, *(issuer.public_bytes(Encoding.PEM) for issuer in issuers), crl]
    return b"".join(pems)


def _line_of(processor: tuple[int, int, int] | None) -> str:
    for name, (family, models) in _LINES.items():
        if processor is not None and processor[0] == family and processor[1] in models:
            return name
    raise Misuse("the report does not say of which line its processor is: name it with --line")
