"""A false AWS and a false AMD, whole down to the root: refused unless a test pins their root.

With their root pinned, documents can be made that the genuine makers would never sign: a chain too long, a
certificate without its key usage, a TCB version out of order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from proofhold.attestation import cbor, nitro, sevsnp

AT = 1_770_000_000
"""When everything here was made, in unix seconds."""
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


Extensions = list[tuple[x509.ExtensionType, bool]]


def usage(*, sign_certificates: bool = False, sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, False, False, False, sign_certificates, False, False, False)


@dataclass
class Party:
    """A name, a key, and the certificate that somebody gave it."""

    name: str
    key: Any
    der: bytes = b""


def certify(
    party: Party,
    issuer: Party,
    *,
    extensions: Extensions,
    since: int = AT - 3600,
    until: int = AT + 3600,
    algorithm: hashes.SHA256 | hashes.SHA384 | None = None,
) -> Party:
    """Make the certificate of a party."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(party.name))
        .issuer_name(name(issuer.name))
        .public_key(party.key.public_key())
        .serial_number(7)
        .not_valid_before(moment(since))
        .not_valid_after(moment(until))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    pss = _PSS if isinstance(issuer.key, rsa.RSAPrivateKey) else None
    signed = builder.sign(issuer.key, algorithm or hashes.SHA384(), rsa_padding=pss)
    party.der = signed.public_bytes(Encoding.DER)
    return party


def authority(path_length: int | None = None) -> Extensions:
    return [(x509.BasicConstraints(True, path_length), True), (usage(sign_certificates=True), True)]


def leaf_extensions() -> Extensions:
    return [(x509.BasicConstraints(False, None), True), (usage(sign=True), False)]


class FalseAws:
    """A root, one authority and a leaf; everything can be made otherwise before a document is signed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.root, self.authority, self.leaf = (
            Party(n, ec.generate_private_key(ec.SECP384R1())) for n in ("root", "authority", "leaf")
        )
        certify(self.root, self.root, extensions=authority())
        certify(self.authority, self.root, extensions=authority(0))
        certify(self.leaf, self.authority, extensions=leaf_extensions())
        self.fields: dict[str, Any] = {
            "module_id": "i-0-enc0",
            "digest": "SHA384",
            "timestamp": AT * 1000,
            "pcrs": {index: bytes([index + 1]) * 48 for index in range(16)},
            "public_key": None,
            "user_data": b"",
            "nonce": b"nonce",
        }
        self.header: dict[int, Any] = {1: -35}
        if monkeypatch is not None:
            monkeypatch.setattr(nitro, "ROOT_SHA256", hashlib.sha256(self.root.der).hexdigest())

    def document(self, *, payload: bytes | None = None, **changes: Any) -> bytes:
        """Sign a document. A field that is changed to `...` is left out."""
        chain = {"certificate": self.leaf.der, "cabundle": [self.root.der, self.authority.der]}
        fields = {k: v for k, v in {**self.fields, **chain, **changes}.items() if v is not ...}
        payload = cbor.encode(fields) if payload is None else payload
        protected = cbor.encode(self.header)
        to_sign = cbor.encode(["Signature1", protected, b"", payload])
        r, s = utils.decode_dss_signature(self.leaf.key.sign(to_sign, ec.ECDSA(hashes.SHA384())))
        return cbor.encode([protected, {}, payload, r.to_bytes(48, "big") + s.to_bytes(48, "big")])


_RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]


@dataclass
class FalseAmd:
    """An ARK, an ASK and a chip of one product line."""

    line: sevsnp.Line = sevsnp.Line.MILAN
    key: sevsnp.SigningKey = sevsnp.SigningKey.VCEK
    chip: bytes = bytes(range(64))
    tcb: bytes = bytes([4, 0, 0, 0, 0, 0, 24, 217])
    vek_tcb: bytes | None = None
    facts: Mapping[str, bytes | None] = field(default_factory=dict)
    vek_extensions: Extensions = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ark, self.ask = (Party(n, k) for n, k in zip((f"ARK-{self.line}", "ASK"), _RSA, strict=True))
        certify(self.ark, self.ark, extensions=authority())
        certify(self.ask, self.ark, extensions=authority(0))
        self.vek = Party(f"SEV-{self.key}", ec.generate_private_key(ec.SECP384R1()))
        facts: dict[str, bytes | None] = {"2": b"\x16" + bytes([len(self.line)]) + self.line.encode()}
        turin = self.line is sevsnp.Line.TURIN
        oids = ("9", "1", "2", "3", "5", "6", "7", "8") if turin else ("1", "2", "4", "5", "6", "7", "3", "8")
        for oid, value in zip(oids, self.vek_tcb or self.tcb, strict=True):
            facts[f"3.{oid}"] = b"\x02\x01" + bytes([value]) if value < 128 else bytes([2, 2, 0, value])
        if self.key is sevsnp.SigningKey.VCEK:
            facts["4"] = self.chip[:8] if turin else self.chip
        facts |= self.facts
        extensions: Extensions = [
            (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{oid}"), value), False)
            for oid, value in facts.items()
            if value is not None
        ]
        certify(self.vek, self.ask, extensions=[*extensions, *self.vek_extensions])

    def pin(self, monkeypatch: pytest.MonkeyPatch) -> FalseAmd:
        arks = {hashlib.sha256(self.ark.der).hexdigest(): self.line}
        asks = {(self.line, self.key): hashlib.sha256(self.ask.der).hexdigest()}
        monkeypatch.setattr(sevsnp, "ARK_SHA256", arks)
        monkeypatch.setattr(sevsnp, "ASK_SHA256", asks)
        return self

    def report(self, **changes: bytes) -> bytes:
        """Sign a report; changes are fields of `SNP_FIELDS`, by name."""
        from proofhold.conformance.mutations import SNP_FIELDS

        models = {"Milan": b"\x19\x01\x01", "Genoa": b"\x19\x11\x01", "Turin": b"\x1a\x02\x01"}
        content: dict[str, bytes] = {
            "version": b"\x03",
            "policy": bytes([0, 0, 3]),
            "algorithm": b"\x01",
            "key_info": b"\x04" if self.key is sevsnp.SigningKey.VLEK else b"\x00",
            "report_data": b"r" * 64,
            "measurement": b"m" * 48,
            "processor": models[self.line],
            "chip_id": self.chip,
            "current_tcb": self.tcb,
            "reported_tcb": self.tcb,
            "committed_tcb": self.tcb,
            "launch_tcb": self.tcb,
            **changes,
        }
        report = bytearray(sevsnp.REPORT_BYTES)
        for field_name, value in content.items():
            offset, length = SNP_FIELDS[field_name]
            report[offset : offset + length] = value.ljust(length, b"\x00")
        signature = self.vek.key.sign(bytes(report[: sevsnp.SIGNED_BYTES]), ec.ECDSA(hashes.SHA384()))
        for offset, number in zip((0x2A0, 0x2E8), utils.decode_dss_signature(signature), strict=True):
            report[offset : offset + 72] = number.to_bytes(72, "little")
        return bytes(report)

    def crl(self, *serials: int, since: int = AT - 60, until: int = AT + 60, key: Any = None) -> bytes:
        """Sign a revocation list."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(name(self.ark.name))
        builder = builder.last_update(moment(since)).next_update(moment(until))
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial)
            when = moment(since) - timedelta(days=1)
            builder = builder.add_revoked_certificate(revoked.revocation_date(when).build())
        signed = builder.sign(key or self.ark.key, hashes.SHA384(), rsa_padding=_PSS)
        return signed.public_bytes(Encoding.DER)

    def verify(
        self, report: bytes | None = None, *, now: int = AT, crl: bytes | None = None
    ) -> sevsnp.SnpReport:
        return sevsnp.verify(
            self.report() if report is None else report,
            vek=self.vek.der,
            ask=self.ask.der,
            ark=self.ark.der,
            now=now,
            crl=crl,
        )
