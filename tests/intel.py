"""An Intel of the tests' own: keys, certificates, lists and quotes in the shape of the real ones.

What the real one has never signed, such as a revoked machine, is made here. Checks take it only where a test
has put its root in the place of Intel's, in our pin and in dcap-qvl both.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dcap_qvl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from dcap_vectors import DcapCase
from proofhold.attestation import intelchain
from proofhold.attestation.quote import parse_quote

SGX_EXTENSION = ObjectIdentifier("1.2.840.113741.1.13.1")
QE_REPORT_DATA = slice(320, 384)


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass
class Authority:
    """A key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    name: str,
    issuer: Authority | None,
    span: tuple[datetime, datetime],
    *,
    ca: bool,
    extension: x509.UnrecognizedExtension | None = None,
) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issued_by = issuer.certificate.subject if issuer else subject
    signer = issuer.key if issuer else key
    number = x509.random_serial_number()
    builder = x509.CertificateBuilder(issued_by, subject, key.public_key(), number, *span)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(identifier, critical=False)
    usage = x509.KeyUsage(not ca, not ca, False, False, False, ca, ca, False, False)
    builder = builder.add_extension(usage, critical=True)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return Authority(key, builder.sign(signer, SHA256()))


@dataclass
class Intel:
    """Makes quotes and collateral out of a genuine pair; what is to be wrong is set before."""

    genuine: DcapCase
    revoked: list[Authority] = field(default_factory=list)
    tcb_edits: list[tuple[str, str]] = field(default_factory=list)
    qe_edits: list[tuple[str, str]] = field(default_factory=list)
    body_edits: dict[int, bytes] = field(default_factory=dict)
    """Offsets in header and body, and what to put there before signing."""
    crl_signer: Authority | None = None

    def __post_init__(self) -> None:
        now = datetime.fromtimestamp(self.genuine.now, UTC)
        self.from_, self.until = now - timedelta(days=10), now + timedelta(days=10)
        quote = parse_quote(self.genuine.quote)
        leaf = x509.load_pem_x509_certificate(quote.chain)
        extension = leaf.extensions.get_extension_for_oid(SGX_EXTENSION).value
        assert isinstance(extension, x509.UnrecognizedExtension)
        span = (self.from_, self.until)
        self.root = issue("Intel SGX Root CA", None, span, ca=True)
        self.pck_ca = issue("Intel SGX PCK Platform CA", self.root, span, ca=True)
        self.tcb = issue("Intel SGX TCB Signing", self.root, span, ca=False)
        self.pck = issue("Intel SGX PCK Certificate", self.pck_ca, span, ca=False, extension=extension)

    def trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put this root in the place of Intel's, for one test."""
        intelchain.read_chain.cache_clear()
        digest = hashlib.sha256(self.root.der).hexdigest()
        monkeypatch.setattr(intelchain, "INTEL_SGX_ROOT_SHA256", digest)
        root = self.root.der

        def verify(quote: bytes, collateral: object, now: int) -> object:
            return dcap_qvl.verify_with_root_ca(quote, collateral, root, now)

        monkeypatch.setattr(dcap_qvl, "verify", verify)

    def quote(self) -> bytes:
        quote = parse_quote(self.genuine.quote)
        signed = bytearray(quote.signed)
        for at, value in self.body_edits.items():
            signed[at : at + len(value)] = value
        key = ec.generate_private_key(ec.SECP256R1())
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        report = bytearray(quote.qe_report_bytes)
        bound = hashlib.sha256(point + quote.qe_auth_data).digest()
        report[QE_REPORT_DATA] = bound + bytes(32)
        chain = self.pck.pem + self.pck_ca.pem + self.root.pem
        auth = len(quote.qe_auth_data).to_bytes(2, "little") + quote.qe_auth_data
        inner = bytes(report) + sign(self.pck.key, bytes(report)) + auth
        inner += (5).to_bytes(2, "little") + len(chain).to_bytes(4, "little") + chain
        if quote.version > 3:
            inner = (6).to_bytes(2, "little") + len(inner).to_bytes(4, "little") + inner
        data = sign(key, bytes(signed)) + point + inner
        return bytes(signed) + len(data).to_bytes(4, "little") + data

    def crl(self, issuer: Authority, signer: Authority) -> bytes:
        builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, self.from_, self.until)
        number, key = x509.CRLNumber(1), issuer.key.public_key()
        builder = builder.add_extension(number, critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
        builder = builder.add_extension(identifier, critical=False)
        for authority in self.revoked:
            serial = authority.certificate.serial_number
            entry = x509.RevokedCertificateBuilder(serial, self.from_)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(signer.key, SHA256()).public_bytes(Encoding.DER)

    def collateral(self) -> bytes:
        parts = json.loads(self.genuine.collateral)
        tcb_info, qe_identity = parts["tcb_info"], parts["qe_identity"]
        for old, new in self.tcb_edits:
            assert old in tcb_info
            tcb_info = tcb_info.replace(old, new)
        for old, new in self.qe_edits:
            assert old in qe_identity
            qe_identity = qe_identity.replace(old, new)
        issuer = (self.tcb.pem + self.root.pem).decode()
        parts |= {
            "pck_crl_issuer_chain": (self.pck_ca.pem + self.root.pem).decode(),
            "root_ca_crl": self.crl(self.root, self.root).hex(),
            "pck_crl": self.crl(self.pck_ca, self.crl_signer or self.pck_ca).hex(),
            "tcb_info_issuer_chain": issuer,
            "tcb_info": tcb_info,
            "tcb_info_signature": sign(self.tcb.key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": issuer,
            "qe_identity": qe_identity,
            "qe_identity_signature": sign(self.tcb.key, qe_identity.encode()).hex(),
        }
        return json.dumps(parts).encode()
