"""What holds for every service's answer, whatever it is signed with: whose key, for whom, when, how often.

The steps, for backends to name in their own order:

1. The key stands in the allow-list, and the list names this way of signing for it.
2. The entries of key and program hold when the claim is recorded.
3. The key's answers are paid on the account that the job pays (PROTOCOL P6).
4. The answer is not older than the list allows, nor from the future (P8).

A signature that states no time shows nothing about freshness; one that does shows it by its age only, which
is weaker than a nonce of ours, and the finding says so. One use (P6) is what makes age enough: an answer that
has been paid for is never paid for again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from proofhold.allowlist import Binding, Program, Signer
from proofhold.canonical import Digest, digest
from proofhold.catalogue import ServiceEntry
from proofhold.core import (
    Assurance,
    Fault,
    Finding,
    Need,
    NeedKind,
    Offer,
    Property,
    Reason,
    Refuted,
    Unclear,
)
from proofhold.job import Job

MAX_FUTURE_S: Final = 60
"""How far an enclave's clock may run ahead of the escrow's."""
ROUTING_ONLY: Final = "routing only: no measurement names the model"


def objections(
    kind: str,
    entry: ServiceEntry,
    signer: Signer,
    binding: Binding,
    job: Job,
    *,
    signed_at: int | None,
    now: int,
) -> list[Reason]:
    """List what speaks against a key's answer being paid for; the claim is signed, so its signer is at fault.

    Args:
        kind: of the evidence, the first half of the codes.
        entry: the service's.
        signer: the key's entry in the list.
        binding: how it signed.
        job: the exchange's.
        signed_at: unix seconds, None where the signature states no time.
        now: the recorded time of the claim, unix seconds.

    """
    document = entry.document
    found = []
    if binding not in signer.bindings:  # step 1
        text = "the allow-list does not let this key sign in this form"
        found.append(against(kind, "binding", text, binding, ", ".join(signer.bindings)))
    if not signer.covers(now):  # step 2
        expected = f"from {signer.valid_from}, before {signer.valid_until}"
        found.append(against(kind, "signer_expired", "the key's entry does not hold now", str(now), expected))
    program = document.program(signer.program)
    if not program.covers(now):
        expected = f"from {program.valid_from}, before {program.valid_until}"
        text = "the program's entry does not hold now"
        found.append(against(kind, "program_expired", text, str(now), expected))
    if signer.payee != job.payee:  # step 3
        text = "the answer is another payee's: whoever is paid did not give it"
        found.append(against(kind, "payee", text, signer.payee, job.payee))
    if signed_at is not None:  # step 4
        if signed_at > now + MAX_FUTURE_S:
            expected = f"at most {now + MAX_FUTURE_S}"
            found.append(against(kind, "from_the_future", "signed after its claim", str(signed_at), expected))
        if now - signed_at > document.max_age_s:
            text = "older than the allow-list lets an answer be"
            expected = f"at most {document.max_age_s} s"
            found.append(against(kind, "too_old", text, f"{now - signed_at} s", expected))
    return found


def unknown_signer(kind: str, name: str) -> Reason:
    """Say that nobody vouches for a key (step 1)."""
    return against(kind, "signer", "the allow-list does not know this key", name, "a key that it names")


def shows(program: Program | None, *, fresh: bool) -> dict[Property, Assurance]:
    """Give what a good answer of a program shows (PROTOCOL P15); None stands for the best that there is."""
    properties = [Property.OUTPUT, Property.PROVIDER]
    properties += [Property.INPUT] if program is None or program.binds_input else []
    properties += [Property.MODEL] if program is None or program.model is not None else []
    properties += [Property.FRESH] if fresh else []
    return dict.fromkeys(properties, Assurance.ATTESTED)


def offers(
    kind: str, entry: ServiceEntry | None, *, fresh: bool, dangers: tuple[str, ...] = ()
) -> tuple[Offer, ...]:
    """Say what an answer of a service could show: programs are alternatives, None the best there is."""
    if entry is None:
        return (Offer(kind, shows(None, fresh=fresh), dangers),)
    signers = [s for s in entry.document.signers if any(b.kind == kind for b in s.bindings)]
    programs = dict.fromkeys(signer.program for signer in signers)
    shown = [shows(entry.document.program(name), fresh=fresh) for name in programs]
    distinct = [some for index, some in enumerate(shown) if some not in shown[:index]]
    return tuple(Offer(kind, some, dangers) for some in distinct)


def finding(
    kind: str,
    entry: ServiceEntry,
    signer: Signer,
    binding: Binding,
    *,
    signed: bytes,
    signed_at: int | None,
    now: int,
    facts: Mapping[str, str] | None = None,
    dangers: tuple[str, ...] = (),
) -> Finding:
    """Say what a good answer establishes, with the digest that lets it serve once."""
    program = entry.document.program(signer.program)
    if signed_at is None:
        freshness = "none: the signature states no time"
    else:
        age, most = max(0, now - signed_at), entry.document.max_age_s
        freshness = f"by age, which is weaker than a nonce: {age} s of at most {most} s"
    stated = {
        "allowlist": entry.digest,
        "binding": binding.value,
        "freshness": freshness,
        "key": _name(signer),
        "key_vouched": signer.vouched.value,
        "model": program.model or ROUTING_ONLY,
        "payee": signer.payee,
        "program": program.name,
    }
    return Finding(
        kind,
        shows(program, fresh=signed_at is not None),
        stated | dict(facts or {}),
        dangers,
        (one_use(signer.key, signed),),
    )


def one_use(key: bytes, signed: bytes) -> Digest:
    """Name a signed payload, whatever bytes its signature has: ECDSA and PSS have many for one payload.

    Nor does the form count that it was read by: two forms may give one payload, which is then good once.
    """
    return digest("proofhold/one-use/v1", hashlib.sha256(key).digest(), hashlib.sha256(signed).digest())


def against(kind: str, code: str, message: str, got: str = "", expected: str = "") -> Reason:
    """Make a reason that is the provider's fault."""
    return Reason(f"{kind}.{code}", message, Fault.PROVIDER, got[:200], expected[:200])


def refuted(kind: str, *reasons: Reason) -> Refuted:
    """Refute evidence."""
    return Refuted(kind, reasons)


def unfit_list(kind: str, message: str) -> Unclear:
    """Say that the verifier's own allow-list cannot be used: another one would do."""
    reason = Reason(f"{kind}.allowlist", message, Fault.VERIFIER)
    return Unclear(kind, (reason,), (Need(NeedKind.LOCK),))


def _name(signer: Signer) -> str:
    return signer.key.hex() if len(signer.key) <= 32 else f"sha256:{hashlib.sha256(signer.key).hexdigest()}"
