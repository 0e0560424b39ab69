"""Our codes in the words of the index (docs/formats/conformance.md).

One of ours may stand for several of the index's: where the index's authors drew a finer or another line.
The map says what is true whenever our code is given, never what a case would like to hear. So of a chain that
does not lead to the pinned root it says all that may be the cause: whether a certificate was altered, left
out, or made by somebody else cannot be told from what arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

INDEX_CODES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "nitro.malformed": ("malformed",),
        "nitro.alg": ("bad_alg",),
        "nitro.root": ("untrusted_root", "bad_chain"),
        "nitro.certificate": ("bad_certificate", "bad_chain"),
        "nitro.chain": ("bad_chain", "bad_certificate"),
        "nitro.certificate_signature": ("bad_chain", "bad_certificate"),
        "nitro.expired": ("expired",),
        "nitro.not_yet_valid": ("not_yet_valid",),
        "nitro.signature": ("bad_signature",),
        "nitro.stale": ("stale",),
        "nitro.debug": ("debug",),
        "nitro.measurement": ("measurement_mismatch",),
        "nitro.nonce": ("nonce_mismatch",),
        "nitro.user_data": ("user_data_mismatch",),
        "nitro.public_key": ("public_key_mismatch",),
        "nitro.no_expectation": ("no_expectation",),
        "snp.malformed": ("malformed",),
        "snp.root": ("untrusted_root", "bad_chain"),
        "snp.certificate": ("bad_certificate", "bad_chain"),
        "snp.chain": ("bad_chain", "bad_certificate", "untrusted_root"),
        "snp.certificate_signature": ("bad_chain", "bad_certificate"),
        "snp.expired": ("expired",),
        "snp.not_yet_valid": ("not_yet_valid",),
        "snp.vek_kind": ("vcek_mismatch",),
        "snp.product": ("vcek_mismatch", "product_mismatch"),
        "snp.chip": ("vcek_mismatch",),
        "snp.tcb": ("tcb_mismatch",),
        "snp.tcb_order": ("tcb_mismatch",),
        "snp.signature": ("bad_signature",),
        "snp.revoked": ("revoked",),
        "snp.crl": ("bad_collateral_signature", "bad_collateral", "revocation_unknown"),
        "snp.crl_expired": ("collateral_expired", "revocation_unknown"),
        "snp.collateral_missing": ("no_collateral",),
        "snp.debug": ("debug",),
        "snp.migration": ("policy",),
        "snp.vmpl": ("vmpl",),
        "snp.report_data": ("nonce_mismatch", "report_data_mismatch"),
        "snp.host_data": ("host_data_mismatch",),
        "snp.measurement": ("measurement_mismatch",),
        "snp.tcb_low": ("tcb_status",),
        "snp.revocation_unknown": ("revocation_unknown",),
        "snp.no_expectation": ("no_expectation",),
        "dcap.malformed": ("malformed",),
        "dcap.unsupported": ("malformed", "unsupported"),
        "dcap.signature": ("bad_signature",),
        "dcap.attestation_key": ("ak_not_bound",),
        "dcap.qe_signature": ("bad_signature",),
        "dcap.chain": ("untrusted_chain", "untrusted_root", "bad_chain", "bad_certificate"),
        "dcap.certificate_expired": ("expired",),
        "dcap.certificate_not_yet_valid": ("not_yet_valid",),
        "dcap.debug": ("debug",),
        "dcap.sept_ve_disable": ("sept_ve_disable_off",),
        "dcap.service_td": ("service_td",),
        "dcap.attributes": ("attributes",),
        "dcap.revoked": ("revoked",),
        "dcap.tcb_unsupported": ("tcb_unsupported",),
        "dcap.tcb_revoked": ("tcb_status", "revoked"),
        "dcap.qe_identity": ("qe_identity",),
        "dcap.collateral_missing": ("no_collateral", "bad_collateral"),
        "dcap.collateral_malformed": ("bad_collateral", "malformed"),
        "dcap.collateral_expired": ("collateral_expired", "expired"),
        "dcap.collateral_not_yet_valid": ("collateral_not_yet_valid", "not_yet_valid"),
        "dcap.collateral_signature": ("bad_collateral_signature", "bad_collateral"),
        "dcap.crl_issuer": ("bad_collateral", "bad_collateral_signature", "revocation_unknown"),
        "dcap.fmspc": ("fmspc_mismatch", "bad_collateral"),
        "dcap.tcb_status": ("tcb_status",),
        "dcap.advisory": ("tcb_status",),
        "dcap.tcb_evaluation_number": ("tcb_status",),
        "dcap.report_data": ("nonce_mismatch", "report_data_mismatch"),
        "dcap.measurement": ("measurement_mismatch",),
        "dcap.isv_svn": ("tcb_status",),
        "dcap.platform": ("platform",),
        "dcap.no_expectation": ("no_expectation",),
        "service.malformed": ("malformed",),
        "dstack.text": ("malformed",),
        "dstack.nonce": ("nonce_mismatch",),
        "dstack.gpu": ("nonce_mismatch",),
        "dstack.report_data": ("report_data_mismatch", "key_not_bound"),
        "dstack.measurement": ("measurement_mismatch",),
        "eventlog.malformed": ("malformed", "event_log_mismatch"),
        "eventlog.digest": ("event_log_mismatch", "measurement_mismatch"),
        "eventlog.register": ("event_log_mismatch", "measurement_mismatch"),
        "eventlog.compose_hash": ("event_log_mismatch", "measurement_mismatch"),
        "eventlog.config_id": ("event_log_mismatch", "measurement_mismatch"),
        "dstack.signature": ("bad_signature",),
        "ethereum.signature": ("bad_signature",),
        "ethereum.malleable": ("bad_signature",),
        "opengradient.request": ("request_mismatch",),
        "opengradient.signature": ("bad_signature",),
    }
)


def index_codes(ours: Iterable[str]) -> tuple[str, ...]:
    """Give the index's codes for ours, each once; one that the map lacks stands for itself."""
    return tuple(dict.fromkeys(code for our in ours for code in INDEX_CODES.get(our, (our,))))
