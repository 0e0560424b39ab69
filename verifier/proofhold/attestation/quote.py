"""Quotes of Intel SGX and TDX (DCAP), parsed strictly before anything native sees them.

Taken here: SGX quotes of version 3, TDX quotes of version 4, and of version 5 with a TD report 1.0 or 1.5;
all with an ECDSA P-256 attestation key and a PCK certificate chain inside (certification data of type 5).
Sources: Intel, *SGX ECDSA Quote Library Reference for DCAP*, appendix A (version 3), and *TDX DCAP Quoting
Library API*, appendix A.3 (versions 4 and 5). Integers are little-endian; byte strings become lower-case
hexadecimal, as allow-lists state them. The steps:

1. Bound the size, then read the header: version, key type, TEE type.
2. Read the body that the version and its descriptor name: enclave report, TD report 1.0 or 1.5.
3. Read the signature data; every length field must say exactly what is there.
4. Nothing may follow: a quote has one encoding, and trailing bytes are refused.

Parsing proves nothing: no field may be believed before `proofhold.attestation.dcap.verify` has checked it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proofhold.attestation.refusal import Refusal

MAX_QUOTE_BYTES: Final = 16 * 2**10
"""Those in the field have 4.6 to 5.1 KB."""
MAX_CHAIN_BYTES: Final = 12 * 2**10
"""The PCK certificate chain in PEM: about 3.6 KB for its three certificates."""
MAX_QE_AUTH_BYTES: Final = 1024
"""What the quoting enclave adds to the hash that binds its key: 32 bytes in the field."""

HEADER_BYTES: Final = 48
ENCLAVE_REPORT_BYTES: Final = 384
TD_REPORT_10_BYTES: Final = 584
TD_REPORT_15_BYTES: Final = 648
SIGNATURE_BYTES: Final = 64
KEY_BYTES: Final = 64
REPORT_DATA_BYTES: Final = 64

INTEL_QE_VENDOR: Final = "939a7233f79c4ca9940a0db3957f0607"
"""Intel's quoting enclave (quote library reference, table 3): no other vendor's identity is published."""

_P256: Final = 2
_PCK_CHAIN: Final = 5
_QE_REPORT: Final = 6
_SGX_TEE: Final = 0x00
_TDX_TEE: Final = 0x81
_BODIES_V5: Final = {2: TD_REPORT_10_BYTES, 3: TD_REPORT_15_BYTES}


class Tee(StrEnum):
    """What kind of machine a quote is of."""

    SGX = "sgx"
    TDX = "tdx"


@dataclass(frozen=True, slots=True)
class EnclaveReport:
    """What an SGX processor says of an enclave: of the quoted one, or of the quoting one."""

    cpu_svn: str
    misc_select: str
    attributes: str
    mr_enclave: str
    mr_signer: str
    isv_prod_id: int
    isv_svn: int
    report_data: str

    @property
    def debug(self) -> bool:
        """Whether its memory can be read from outside (ATTRIBUTES.DEBUG, bit 1)."""
        return bool(bytes.fromhex(self.attributes)[0] & 0x02)

    @property
    def initialised(self) -> bool:
        """Whether it was initialised (ATTRIBUTES.INIT, bit 0); only such enclaves can report."""
        return bool(bytes.fromhex(self.attributes)[0] & 0x01)


@dataclass(frozen=True, slots=True)
class TdReport:
    """What the TDX module says of a trust domain. The last two fields are of TD report 1.5 only."""

    tee_tcb_svn: str
    mr_seam: str
    mr_signer_seam: str
    seam_attributes: str
    td_attributes: str
    xfam: str
    mr_td: str
    mr_config_id: str
    mr_owner: str
    mr_owner_config: str
    rtmr0: str
    rtmr1: str
    rtmr2: str
    rtmr3: str
    report_data: str
    tee_tcb_svn2: str | None = None
    mr_service_td: str | None = None

    @property
    def rtmrs(self) -> tuple[str, str, str, str]:
        """The four run-time measurement registers."""
        return (self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3)

    @property
    def debug(self) -> bool:
        """Whether any bit of ATTRIBUTES.TUD, the group that puts a domain under debugging, is set."""
        return bytes.fromhex(self.td_attributes)[0] != 0

    @property
    def sept_ve_disable(self) -> bool:
        """Whether the host cannot inject exceptions by unmapping pages (bit 28)."""
        return bool(_number(bytes.fromhex(self.td_attributes)) >> 28 & 1)

    @property
    def migratable(self) -> bool:
        """Whether the domain may move to another machine (bit 29)."""
        return bool(_number(bytes.fromhex(self.td_attributes)) >> 29 & 1)


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote as it was read, with the byte strings that its signatures are over."""

    version: int
    tee: Tee
    vendor: str
    """Of the quoting enclave; not compared here, since without its signature a flipped bit reads the same."""
    report: EnclaveReport | TdReport
    qe_report: EnclaveReport
    signed: bytes
    """Header and body: what the attestation key signed."""
    signature: bytes
    """r and s, 32 bytes each, big-endian."""
    attestation_key: bytes
    """x and y on P-256, 32 bytes each, big-endian."""
    qe_report_bytes: bytes
    """What the PCK certificate's key signed."""
    qe_report_signature: bytes
    qe_auth_data: bytes
    chain: bytes
    """The PCK certificate chain, as it stands in the quote."""

    @property
    def report_data(self) -> str:
        """The 64 bytes that the quoted code chose."""
        return self.report.report_data


def parse_quote(data: bytes) -> Quote:
    """Read a quote.

    Raises:
        Refusal: ``dcap.malformed`` (too long, truncated, trailing bytes, lengths that disagree) or
            ``dcap.unsupported`` (another version, key type or certification data).

    """
    if len(data) > MAX_QUOTE_BYTES:  # step 1
        raise _malformed(1, "a quote that is too long", f"{len(data)} bytes", f"at most {MAX_QUOTE_BYTES}")
    reader = _Reader(data, step=1)
    header = reader.take(HEADER_BYTES)
    version, key_type, tee_type = _number(header[0:2]), _number(header[2:4]), _number(header[4:8])
    # Not compared here, but signed: the vendor (12 to 28), the SVNs of quoting and provisioning enclave in
    # version 3, reserved from 4 on (8 to 12), and the quoting enclave's user data (28 to 48).
    vendor = header[12:28].hex()
    tees = {(3, _SGX_TEE): Tee.SGX, (4, _TDX_TEE): Tee.TDX, (5, _TDX_TEE): Tee.TDX}
    tee = tees.get((version, tee_type))
    if tee is None:
        got = f"version {version}, TEE type {tee_type:#x}"
        raise _unsupported(1, "a quote of another kind", got, "SGX version 3, TDX version 4 or 5")
    if key_type != _P256:
        raise _unsupported(1, "an attestation key of another type", str(key_type), f"{_P256} (ECDSA P-256)")

    reader.step = 2
    report: EnclaveReport | TdReport
    if tee is Tee.SGX:
        report = _enclave_report(reader.take(ENCLAVE_REPORT_BYTES))
    else:
        size = _body_size(reader) if version == 5 else TD_REPORT_10_BYTES
        report = _td_report(reader.take(size))
    signed = data[: reader.at]

    reader.step = 3
    reader.exactly(reader.number(4), "signature data")
    signature, attestation_key = reader.take(SIGNATURE_BYTES), reader.take(KEY_BYTES)
    if version > 3:  # from version 4 on the QE report is certification data of its own
        reader.certification(_QE_REPORT)
    qe_report_bytes = reader.take(ENCLAVE_REPORT_BYTES)
    qe_report_signature = reader.take(SIGNATURE_BYTES)
    qe_auth_data = reader.take(reader.number(2), at_most=MAX_QE_AUTH_BYTES)
    reader.certification(_PCK_CHAIN)
    chain = reader.take(reader.left, at_most=MAX_CHAIN_BYTES)
    # step 4: `exactly` held for the signature data, so nothing is left over here
    return Quote(
        version=version,
        tee=tee,
        vendor=vendor,
        report=report,
        qe_report=_enclave_report(qe_report_bytes),
        signed=signed,
        signature=signature,
        attestation_key=attestation_key,
        qe_report_bytes=qe_report_bytes,
        qe_report_signature=qe_report_signature,
        qe_auth_data=qe_auth_data,
        chain=chain,
    )


def without_padding(data: bytes) -> bytes:
    """Cut the zeros that some services hand out behind a quote, since they fill a buffer of fixed size.

    For those who know that their source pads; `parse_quote` itself refuses whatever follows a quote. What
    follows and is not zero stays, and is refused there. Replay caches go by what is signed, never by bytes.
    """
    head = HEADER_BYTES + TD_REPORT_10_BYTES
    if data[:2] == b"\x03\x00":
        head = HEADER_BYTES + ENCLAVE_REPORT_BYTES
    elif data[:2] == b"\x05\x00":
        head = HEADER_BYTES + 6 + _number(data[HEADER_BYTES + 2 : HEADER_BYTES + 6])
    end = head + 4 + _number(data[head : head + 4])
    return data if any(data[end:]) else data[:end]


def _body_size(reader: _Reader) -> int:
    """Read version 5's body descriptor."""
    kind, size = reader.number(2), reader.number(4)
    expected = _BODIES_V5.get(kind)
    if expected is None:
        known = " or ".join(f"{kind} ({size} bytes)" for kind, size in _BODIES_V5.items())
        raise _unsupported(2, "a body of another type", str(kind), known)
    if size != expected:
        raise _malformed(2, "a body of another size than its type's", str(size), str(expected))
    return size


def _enclave_report(data: bytes) -> EnclaveReport:
    """Read an enclave report (quote library reference, table 5); offsets are given there."""
    return EnclaveReport(
        cpu_svn=data[0:16].hex(),
        misc_select=data[16:20].hex(),
        attributes=data[48:64].hex(),
        mr_enclave=data[64:96].hex(),
        mr_signer=data[128:160].hex(),
        isv_prod_id=_number(data[256:258]),
        isv_svn=_number(data[258:260]),
        report_data=data[320:384].hex(),
    )


def _td_report(data: bytes) -> TdReport:
    """Read a TD report: 1.5 is 1.0 with two fields more (TDX quoting library API, A.3.2 and A.3.3)."""
    newer = len(data) == TD_REPORT_15_BYTES
    return TdReport(
        tee_tcb_svn=data[0:16].hex(),
        mr_seam=data[16:64].hex(),
        mr_signer_seam=data[64:112].hex(),
        seam_attributes=data[112:120].hex(),
        td_attributes=data[120:128].hex(),
        xfam=data[128:136].hex(),
        mr_td=data[136:184].hex(),
        mr_config_id=data[184:232].hex(),
        mr_owner=data[232:280].hex(),
        mr_owner_config=data[280:328].hex(),
        rtmr0=data[328:376].hex(),
        rtmr1=data[376:424].hex(),
        rtmr2=data[424:472].hex(),
        rtmr3=data[472:520].hex(),
        report_data=data[520:584].hex(),
        tee_tcb_svn2=data[584:600].hex() if newer else None,
        mr_service_td=data[600:648].hex() if newer else None,
    )


class _Reader:
    """Takes bytes from the front, and never more than there are."""

    def __init__(self, data: bytes, *, step: int) -> None:
        self._data = data
        self.at = 0
        self.step = step

    @property
    def left(self) -> int:
        return len(self._data) - self.at

    def take(self, count: int, *, at_most: int = MAX_QUOTE_BYTES) -> bytes:
        if count > at_most:
            raise _malformed(self.step, "a field that is too long", f"{count} bytes", f"at most {at_most}")
        if count > self.left:
            got = f"{self.left} bytes left at offset {self.at}"
            raise _malformed(self.step, "a quote that ends early", got, f"{count} bytes")
        self.at += count
        return self._data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return _number(self.take(count))

    def exactly(self, count: int, what: str) -> None:
        """Require that as many bytes are left as a length field says: no more, no fewer."""
        if count != self.left:
            raise _malformed(self.step, f"another length of {what}", f"{self.left} bytes left", f"{count}")

    def certification(self, kind: int) -> None:
        """Read the head of certification data, which must be of one type and reach to the end."""
        got = self.number(2)
        if got != kind:
            raise _unsupported(self.step, "certification data of another type", str(got), str(kind))
        self.exactly(self.number(4), "certification data")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _malformed(step: int, message: str, got: str, expected: str) -> Refusal:
    text = f"{message}: got {got}, expected {expected}"
    return Refusal("dcap.malformed", text, step=step, got=got, expected=expected)


def _unsupported(step: int, message: str, got: str, expected: str) -> Refusal:
    text = f"{message}: got {got}, expected {expected}"
    return Refusal("dcap.unsupported", text, step=step, got=got, expected=expected)
