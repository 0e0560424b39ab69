"""Intel's collateral for a quote: what it takes to judge one, and from when until when that may be done.

The file is the JSON object that dcap-qvl and the services around it use: three issuer chains in PEM, two
revocation lists in hexadecimal DER, TCB info and QE identity as the very texts that Intel signed, and their
signatures. Its parts are Intel's (*SGX and TDX Provisioning Certification Service API*, version 4). Anyone
may hand collateral in: none of it is believed before its signatures have been checked, and when a part is
expired nobody is to blame for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from proofhold.attestation.intelchain import ChainError, Link, read_chain
from proofhold.errors import Malformed

MAX_COLLATERAL_BYTES: Final = 2 * 2**20
"""Those of today have 14 to 21 KB; revocation lists grow."""
MAX_CRL_BYTES: Final = 512 * 2**10
MAX_SIGNED_TEXT_CHARS: Final = 256 * 2**10
"""TCB info has about 6 KB, a QE identity half of one."""
CACHED_COLLATERALS: Final = 16
"""Collateral is per kind of platform and lasts for days; reading it is a pure function of its bytes."""
SIGNATURE_BYTES: Final = 64
ISSUER_CHAIN_LENGTH: Final = 2
"""An issuer and Intel's root."""

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Window:
    """One part of the collateral and when it holds, in unix seconds, both ends included."""

    part: str
    not_before: int
    not_after: int

    def holds(self, now: int) -> bool:
        """Tell whether it may be used at `now`."""
        return self.not_before <= now <= self.not_after


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """What TCB info says of itself; its levels are matched by dcap-qvl."""

    id: str
    fmspc: str
    pce_id: str
    evaluation_number: int


@dataclass(frozen=True, slots=True)
class DcapCollateral:
    """The nine parts of the file, as they stand in it, hexadecimal ones decoded."""

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes

    @classmethod
    def decode(cls, data: bytes) -> DcapCollateral:
        """Read the file. White space between its parts is free; everything else has one form.

        Raises:
            Malformed: ``collateral.too_large``, ``collateral.malformed``, ``collateral.incomplete`` (a part
                is missing or empty) or ``collateral.unsigned`` (a part that can bear no signature of Intel's,
                since it does not decode).

        """
        if len(data) > MAX_COLLATERAL_BYTES:
            text = f"{len(data)} bytes, expected at most {MAX_COLLATERAL_BYTES}"
            raise Malformed("collateral.too_large", text)
        try:
            value = json.loads(data.decode(), object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise _malformed("not JSON, or with a key twice") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or not set(value) <= names:
            raise _malformed(f"expected an object of exactly {', '.join(sorted(names))}")
        if lacking := sorted(name for name in names if not value.get(name)):
            raise Malformed("collateral.incomplete", f"the collateral lacks {', '.join(lacking)}")
        if not all(isinstance(part, str) for part in value.values()):
            raise _malformed("every part must be a string")
        for name in ("tcb_info", "qe_identity"):
            if len(value[name]) > MAX_SIGNED_TEXT_CHARS:
                raise _malformed(f"{name}: more than {MAX_SIGNED_TEXT_CHARS} characters")
        return cls(
            pck_crl_issuer_chain=value["pck_crl_issuer_chain"],
            root_ca_crl=_hexadecimal(value, "root_ca_crl", at_most=MAX_CRL_BYTES),
            pck_crl=_hexadecimal(value, "pck_crl", at_most=MAX_CRL_BYTES),
            tcb_info_issuer_chain=value["tcb_info_issuer_chain"],
            tcb_info=value["tcb_info"],
            tcb_info_signature=_signature(value, "tcb_info_signature"),
            qe_identity_issuer_chain=value["qe_identity_issuer_chain"],
            qe_identity=value["qe_identity"],
            qe_identity_signature=_signature(value, "qe_identity_signature"),
        )

    def encode(self) -> bytes:
        """Write the file."""
        parts = {
            field.name: part.hex() if isinstance(part := getattr(self, field.name), bytes) else part
            for field in fields(self)
        }
        return json.dumps(parts, indent=1).encode() + b"\n"

    def read(self) -> Reading:
        """Read every part.

        Raises:
            Malformed: ``collateral.unsigned``: a part that does not parse, so that it is none that Intel
                signed, or a chain that does not end at Intel's root.

        """
        tcb, tcb_window = _signed_text(self.tcb_info, "tcb_info")
        _, qe_window = _signed_text(self.qe_identity, "qe_identity")
        chains = {
            name: _issuer_chain(getattr(self, name), name)
            for name in ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain")
        }
        windows = [
            tcb_window,
            qe_window,
            _crl_window(self.root_ca_crl, "root_ca_crl"),
            _crl_window(self.pck_crl, "pck_crl"),
            *(
                Window(f"{name}[{number}]", link.not_before, link.not_after)
                for name, links in chains.items()
                for number, link in enumerate(links)
            ),
        ]
        info = TcbInfo(
            id=_text(tcb, "id", "tcb_info"),
            fmspc=_text(tcb, "fmspc", "tcb_info").lower(),
            pce_id=_text(tcb, "pceId", "tcb_info").lower(),
            evaluation_number=_integer(tcb, "tcbEvaluationDataNumber", "tcb_info"),
        )
        return Reading(
            info,
            tuple(windows),
            chains["pck_crl_issuer_chain"],
            chains["tcb_info_issuer_chain"],
            chains["qe_identity_issuer_chain"],
            not_before=max(window.not_before for window in windows),
            not_after=min(window.not_after for window in windows),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What the parts say. Nothing of it has been checked."""

    tcb_info: TcbInfo
    windows: tuple[Window, ...]
    pck_crl_issuer: tuple[Link, ...]
    tcb_info_issuer: tuple[Link, ...]
    qe_identity_issuer: tuple[Link, ...]
    not_before: int
    """From when all of it holds, in unix seconds."""
    not_after: int
    """Until when all of it holds, in unix seconds, that second included."""


@lru_cache(maxsize=CACHED_COLLATERALS)
def read_collateral(data: bytes) -> tuple[DcapCollateral, Reading]:
    """Read a file and its parts, once for many quotes of one platform.

    Raises:
        Malformed: as `DcapCollateral.decode` and `DcapCollateral.read`.

    """
    collateral = DcapCollateral.decode(data)
    return collateral, collateral.read()


def _signed_text(text: str, part: str) -> tuple[Mapping[str, Any], Window]:
    # A key twice does no harm here: Intel signed these very bytes, and dcap-qvl checks that it did.
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unsigned(f"{part}: not JSON") from error
    if not isinstance(value, dict):
        raise _unsigned(f"{part}: expected an object")
    issued, next_update = (_instant(value, name, part) for name in ("issueDate", "nextUpdate"))
    return value, Window(part, issued, next_update)


def _issuer_chain(pem: str, part: str) -> tuple[Link, ...]:
    try:
        return read_chain(pem.encode(), ISSUER_CHAIN_LENGTH)
    except (ChainError, UnicodeEncodeError) as error:
        raise _unsigned(f"{part}: {error}") from error


def _crl_window(der: bytes, part: str) -> Window:
    from cryptography import x509

    try:
        crl = x509.load_der_x509_crl(der)
        last, following = crl.last_update_utc, crl.next_update_utc
    except Exception as error:  # the parser's errors are many, and all say the same
        raise _unsigned(f"{part}: not a revocation list") from error
    if following is None:
        raise _unsigned(f"{part}: a revocation list without an end")
    return Window(part, int(last.timestamp()), int(following.timestamp()))


def _instant(value: Mapping[str, Any], name: str, part: str) -> int:
    text = value.get(name)
    if isinstance(text, str) and _INSTANT.fullmatch(text):
        try:
            return int(datetime.fromisoformat(text).timestamp())
        except (ValueError, OverflowError):
            pass
    raise _unsigned(f"{part}: {name}: expected an instant such as 2026-01-31T12:00:00Z")


def _text(value: Mapping[str, Any], name: str, part: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise _unsigned(f"{part}: {name}: expected a string")
    return text


def _integer(value: Mapping[str, Any], name: str, part: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool):
        raise _unsigned(f"{part}: {name}: expected an integer")
    return number


def _hexadecimal(value: Mapping[str, str], name: str, *, at_most: int) -> bytes:
    text = value[name]
    if len(text) > 2 * at_most:
        raise _unsigned(f"{name}: more than {at_most} bytes")
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if not data or data.hex() != text:
        raise _unsigned(f"{name}: expected lower-case hexadecimal digits")
    return data


def _signature(value: Mapping[str, str], name: str) -> bytes:
    signature = _hexadecimal(value, name, at_most=SIGNATURE_BYTES)
    if len(signature) != SIGNATURE_BYTES:
        raise _unsigned(f"{name}: {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    return signature


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _unsigned(message: str) -> Malformed:
    return Malformed("collateral.unsigned", f"the collateral: {message}")


def _malformed(message: str) -> Malformed:
    return Malformed("collateral.malformed", f"the collateral: {message}")
