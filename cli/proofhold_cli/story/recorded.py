"""Acts 9 and 10: evidence that OpenGradient's enclaves really handed out, judged at its own time.

None of it is part of this repository. It is read where a corpus of attestation evidence lies: in the folder
that PROOFHOLD_VECTORS names, or in shared/vectors beside the repository, unpacked or as the archive that such
a corpus comes in.
"""

from __future__ import annotations

import base64
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proofhold.allowlist import AllowList, Binding, Program, Scheme, Signer
from proofhold.attestation import nitro
from proofhold.attestation.opengradient import SignedResponse, tee_id
from proofhold.attestation.refusal import Refusal
from proofhold.catalogue import ServiceEntry
from proofhold.chat import Answer, request_document
from proofhold.core import Evidence
from proofhold.drafting import USDC, Terms, draft_job
from proofhold.errors import ProofholdError
from proofhold.escrow.refusals import Refused
from proofhold.exchange import Bundle
from proofhold.keys import Signed, SigningKey
from proofhold.payload import Document
from proofhold.policy import Policy
from proofhold.provider import accept
from proofhold.provider.chat import respond_with
from proofhold.settlement import fund
from proofhold_cli.story.stage import Stage
from proofhold_cli.story.telling import Line, line_of

VECTORS = "PROOFHOLD_VECTORS"
ARCHIVE = "vectors.tar.gz"
RESPONSE = "providers/opengradient-legacy-response.json"
DOCUMENT = "nitro/opengradient-2026-02.cbor"
MAX_EVIDENCE_BYTES = 64 * 1024
SERVICE = "opengradient"
GATEWAY = "opengradient-gateway"
TERMS = Terms(price=USDC.parse("0.5"), evidence_kinds=("opengradient",))
POLICY = "attested-routing"
"""The production policy: there is nothing dangerous about this evidence."""
MAX_AGE_S = 300
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Recorded:
    """One response with what it answers, the key that signed it, and a Nitro document of another enclave."""

    response: SignedResponse
    request: Document
    answer: Document
    key: bytes
    document: bytes

    def service(self) -> ServiceEntry:
        """List the key, as somebody would who had checked in those days what held it."""
        at = self.response.signed_at
        program = Program(
            name="tee-gateway",
            image="OpenGradient's gateway of December 2025",
            source="https://github.com/OpenGradient/tee-gateway",
            measurements=(),
            valid_from=at - DAY_S,
            valid_until=at + DAY_S,
        )
        signer = Signer(
            scheme=Scheme.RSA_PSS,
            key=self.key,
            program=program.name,
            payee=GATEWAY,
            bindings=(Binding.OPENGRADIENT_LEGACY,),
            valid_from=at - DAY_S,
            valid_until=at + DAY_S,
        )
        listed = AllowList(
            service=SERVICE, issued_at=at, max_age_s=MAX_AGE_S, programs=(program,), signers=(signer,)
        )
        return ServiceEntry(Signed.new(listed, SigningKey.generate()))


def find_recorded(root: Path) -> Recorded | None:
    """Read the evidence, where it is; None where it is not, or is not what it was."""
    folder = Path(os.environ.get(VECTORS) or root.resolve().parent / "shared" / "vectors")
    try:
        return _recorded(json.loads(_read(folder, RESPONSE)), _read(folder, DOCUMENT))
    except (OSError, KeyError, ValueError, TypeError, tarfile.TarError, ProofholdError):
        return None


def _read(folder: Path, name: str) -> bytes:
    """Read one file of a corpus, unpacked or not.

    Raises:
        OSError: it is not there.
        KeyError, tarfile.TarError: nor in the archive, or that is none.

    """
    archive = folder / ARCHIVE
    if not archive.is_file():
        with (folder / name).open("rb") as file:
            return file.read(MAX_EVIDENCE_BYTES)
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"vectors/{name}")
        if member is None:
            raise KeyError(name)
        return member.read(MAX_EVIDENCE_BYTES)


def _recorded(vector: dict[str, Any], document: bytes) -> Recorded:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    public = load_pem_public_key(vector["public_key_pem"].encode())
    key = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signed = vector["signed_data"]
    response = SignedResponse(
        binding=Binding.OPENGRADIENT_LEGACY,
        tee_id=tee_id(key),
        request_hash=signed["request_hash"],
        output_hash=None,
        timestamp=signed["timestamp"],
        signature=base64.b64decode(vector["signature_b64"], validate=True),
    )
    answer = Answer(signed["model"], signed["message"]["content"], (), signed["finish_reason"])
    request = request_document(json.dumps(vector["request"]).encode())
    return Recorded(SignedResponse.decode(response.encode()), request, answer.document(), key, document)


def play_recorded(stage: Stage, recorded: Recorded) -> Iterator[Line]:
    """Play both acts on a stage whose clock stands at the response's own time."""
    day = recorded.response.timestamp[:10]
    bundle = _hired(stage, recorded)
    decision = stage.judge_and_pay("9-recorded", bundle, Policy.shipped(POLICY))
    yield line_of(9, f"a real answer of OpenGradient's, judged as of {day}", "opengradient", decision)
    yield _again(stage, recorded)


def _again(stage: Stage, recorded: Recorded) -> Line:
    """Act 10: an answer is paid for once. Nobody can settle, and time gives the buyer the money back."""
    bundle = _hired(stage, recorded)
    hold = bundle.exchange.job.digest
    try:
        stage.judge_and_pay("10-again", bundle, Policy.shipped(POLICY))
        why = "paid twice"
    except Refused as refusal:
        why = refusal.code
    for wait_s in (TERMS.verification_s, TERMS.dispute_s):
        stage.clock.pass_by(wait_s + 1)
        stage.escrow.run_timers(stage.clock())
    stage.escrow.pump(stage.rail, now=stage.clock())
    state = stage.escrow.hold(hold).capture(0).state.value
    return Line(10, "the same answer, for another job", "opengradient", state, why, paid=state == "released")


def _hired(stage: Stage, recorded: Recorded) -> Bundle:
    """Fund a job on the recorded request, and claim the recorded answer for it."""
    entry, policy = stage.catalogue.service(SERVICE), Policy.shipped(POLICY)
    if entry is None:
        raise LookupError(SERVICE)
    draft = draft_job(
        TERMS,
        entry=entry,
        payload=recorded.request,
        policy=policy,
        buyer=stage.buyer,
        provider=stage.provider.public,
        verifier=stage.judge.public,
        escrow=stage.escrow,
        now=stage.clock(),
        payee=GATEWAY,
    )
    job, request = accept(draft, stage.provider, entry=entry), recorded.request
    fund(job, request, policy=policy, verifier=stage.verifier, escrow=stage.escrow, clock=stage.clock)
    evidence = Evidence("opengradient", recorded.response.encode())
    bundle = respond_with(job, request, recorded.answer, evidence, entry, stage.provider)
    stage.claim(bundle)
    return bundle


def told_document(document: bytes) -> str:
    """Say what a document of one of OpenGradient's enclaves shows, at its time and a day later."""
    made_at = nitro.parse(document).timestamp_ms // 1000
    found = nitro.verify(document, now=made_at)
    day = datetime.fromtimestamp(made_at, UTC).strftime("%Y-%m-%d")
    try:
        nitro.require_age(found, now=made_at + DAY_S, max_age_s=None)
        later = "still good"
    except Refusal as refusal:
        later = f"refused: {refusal.code}"
    return f"genuine as of {day}, PCR0 {found.pcrs[0].hex()[:16]}…; a day later {later}"
