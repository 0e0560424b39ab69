"""The verifier: who judges, in what order, what is asked for, and that a refuted proof never falls back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from judging import (
    BUYER,
    NOW,
    PRICE,
    PROVIDER,
    STRANGER,
    AnsweringRunner,
    FailingRunner,
    SayingBackend,
    catalogue,
    claim_of,
    entry,
    logits,
    make_job,
    policy,
    proof,
    proved,
    resigned,
    reveal,
    runner,
    said,
    shifted,
    unproved,
    with_proof,
)
from proofhold.backends.ezkl import EzklBackend
from proofhold.backends.replay import ReplayBackend
from proofhold.catalogue import Catalogue
from proofhold.core import (
    Accepted,
    Answer,
    Assurance,
    Check,
    Evidence,
    Fault,
    Finding,
    Inconclusive,
    Need,
    NeedKind,
    Offer,
    Property,
    Reason,
    Refuted,
    Rejected,
    Unclear,
    Verdict,
)
from proofhold.errors import Misuse
from proofhold.exchange import Bundle
from proofhold.job import PPM, Job, NamedEvidence, OnnxModel, Service, statement_of
from proofhold.keys import Signed
from proofhold.payload import Document, encode_payload
from proofhold.runner import Runner
from proofhold.standard import standard_offers, standard_verifier
from proofhold.verifier import Backend, Verifier
from proofhold.zkverify import INVALID, VALID

PROVED = {
    Property.MODEL: Assurance.PROVED,
    Property.INPUT: Assurance.PROVED,
    Property.OUTPUT: Assurance.PROVED,
    Property.FRESH: Assurance.PROVED,
}
FINDING = Finding("one", PROVED)
REASON = Reason("two.false", "it is false", Fault.PROVIDER)
REFUTED = Refuted("two", (REASON,))
UNCLEAR = Unclear("three", (Reason("three.unclear", "it is unclear", Fault.NOBODY),), (Need(NeedKind.RETRY),))


def judge(
    bundle: Bundle,
    *answers: Answer,
    using: Runner | None = None,
    fallback: Backend | None = None,
    policy_name: str = "dangerous_demo_proved_or_sampled",
    known: Catalogue | None = None,
) -> Verdict:
    """Judge as the standard verifier does; native code says "valid" unless another runner is given."""
    run = using or AnsweringRunner(VALID)
    verifier = Verifier(known or catalogue(), (EzklBackend(run),), fallback or ReplayBackend(run))
    return verifier.verify(
        bundle.exchange, bundle.evidence, policy=policy(policy_name), now=NOW, answers=answers
    )


def inconclusive(verdict: Verdict, *expected: tuple[str, str, Need]) -> Inconclusive:
    assert isinstance(verdict, Inconclusive), verdict
    assert said(verdict) == {(code, fault) for code, fault, _ in expected}
    assert verdict.needs == tuple(need for _, _, need in expected)
    return verdict


def rejected(verdict: Verdict, *expected: tuple[str, str]) -> Rejected:
    assert isinstance(verdict, Rejected), verdict
    assert [(reason.code, reason.fault.value) for reason in verdict.reasons] == list(expected)
    return verdict


def job_of(bundle: Bundle) -> Job:
    return bundle.exchange.job.document


def with_model(model: OnnxModel | Service) -> Bundle:
    return resigned(proved(), job=make_job(proved().exchange.input, model=model))


# --- acceptance -----------------------------------------------------------------------------------------


def test_an_honest_proof_is_accepted_by_native_code() -> None:
    verdict = judge(proved(), using=runner())
    assert isinstance(verdict, Accepted)
    assert dict(verdict.shown) == dict.fromkeys(PROVED, (Assurance.PROVED,))
    assert verdict.not_shown == (Property.PROVIDER,)


def test_a_verdict_says_what_it_is_about_and_rests_on() -> None:
    verdict = judge(proved(), reveal())
    job, claim = job_of(proved()), claim_of(proved())
    assert verdict.statement == statement_of(job, claim)
    assert (verdict.policy, verdict.now) == (policy().digest, NOW)
    assert verdict.inputs.bundle == proved().digest
    assert verdict.inputs.answers == (reveal(),)
    assert verdict.inputs.locks == entry().locks
    assert len(entry().locks) == 2


def test_a_claim_without_evidence_is_judged_by_re_execution() -> None:
    drawn = resigned(unproved(), job=make_job(unproved().exchange.input, sampling_rate_ppm=PPM))
    verdict = judge(drawn, reveal(), using=runner())
    assert isinstance(verdict, Accepted)
    assert {word for words in verdict.shown.values() for word in words} == {Assurance.REEXECUTED}


def test_backends_get_evidence_exchange_entry_answers_and_time() -> None:
    one = SayingBackend("ezkl", FINDING)
    Verifier(catalogue(), (one,)).verify(
        proved().exchange, proved().evidence, policy=policy(), now=NOW, answers=[reveal()]
    )
    assert one.asked == [(proved().evidence[0], proved().exchange, entry(), (reveal(),), NOW)]


# --- step 1: what job and claim do not vouch for blames nobody ------------------------------------------


def _damage(bundle: Bundle, part: str) -> Bundle:
    exchange = bundle.exchange
    match part:
        case "output":
            return replace(bundle, exchange=replace(exchange, output=shifted(exchange.output, 1.0)))
        case "input":
            return replace(bundle, exchange=replace(exchange, input=shifted(exchange.input, 1.0)))
        case "evidence":
            return replace(bundle, evidence=())
        case "claim":
            unsigned = Signed.new(exchange.claim.document, STRANGER)
            return replace(bundle, exchange=replace(exchange, claim=unsigned))
        case "job":
            return replace(bundle, exchange=replace(exchange, job=Signed.new(exchange.job.document, BUYER)))
    raise AssertionError(part)


DAMAGED = {
    "output": ("output.digest", Need(NeedKind.OUTPUT, claim_of(proved()).output)),
    "input": ("input.digest", Need(NeedKind.INPUT, job_of(proved()).input)),
    "evidence": ("evidence.digest", Need(NeedKind.EVIDENCE, proved().evidence[0].digest)),
    "claim": ("claim.signature", Need(NeedKind.CLAIM)),
    "job": ("job.signature", Need(NeedKind.JOB)),
}


@pytest.mark.parametrize("part", DAMAGED)
def test_a_damaged_part_blames_nobody_and_the_true_one_is_asked_for(part: str) -> None:
    code, need = DAMAGED[part]
    verdict = inconclusive(judge(_damage(proved(), part)), (code, "nobody", need))
    assert (verdict.statement, verdict.findings) == (None, ())


@pytest.mark.parametrize("part", DAMAGED)
def test_the_true_part_as_an_answer_repairs_the_bundle_and_is_no_answer_any_more(part: str) -> None:
    exchange = proved().exchange
    true = {
        "output": encode_payload(exchange.output),
        "input": encode_payload(exchange.input),
        "evidence": proved().evidence[0].body,
        "claim": exchange.claim.encode(),
        "job": exchange.job.encode(),
    }
    verdict = judge(_damage(proved(), part), reveal(), Answer(NeedKind(part), true[part]))
    assert isinstance(verdict, Accepted)
    assert verdict.inputs.bundle == proved().digest
    assert verdict.inputs.answers == (reveal(),)


def test_all_damage_is_reported_at_once() -> None:
    damaged = _damage(_damage(_damage(proved(), "output"), "input"), "evidence")
    expected = [
        (code, "nobody", need) for code, need in (DAMAGED["input"], DAMAGED["output"], DAMAGED["evidence"])
    ]
    inconclusive(judge(damaged), *expected)


def test_evidence_that_the_claim_does_not_name_blames_nobody() -> None:
    more = replace(proved(), evidence=(*proved().evidence, Evidence("ezkl", b"more")))
    inconclusive(judge(more), ("evidence.digest", "nobody", Need(NeedKind.BUNDLE)))


def test_another_jobs_claim_blames_nobody() -> None:
    other = resigned(proved(), job=make_job(proved().exchange.input, bond=1))
    mixed = replace(proved(), exchange=replace(proved().exchange, claim=other.exchange.claim))
    inconclusive(judge(mixed), ("claim.other_job", "nobody", Need(NeedKind.CLAIM)))


def test_a_damaged_bundle_reaches_no_backend() -> None:
    fallback, one = SayingBackend("replay", FINDING), SayingBackend("ezkl", FINDING)
    for part in DAMAGED:
        damaged = _damage(proved(), part)
        Verifier(catalogue(), (one,), fallback).verify(
            damaged.exchange, damaged.evidence, policy=policy(), now=NOW
        )
    assert (one.asked, fallback.asked) == ([], [])


# --- step 2: model and locks ----------------------------------------------------------------------------

LOCK = Need(NeedKind.LOCK)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"onnx": "00" * 32}, "catalogue.unknown_model"),
        ({"circuit_lock": "00" * 32}, "catalogue.lock_digest"),
        ({"replay_lock": "00" * 32}, "catalogue.lock_digest"),
        ({"circuit_lock": None}, "catalogue.lock_digest"),
        ({"replay_lock": None}, "catalogue.lock_digest"),
    ],
)
def test_a_model_or_lock_that_is_not_ours_is_our_lack(change: dict[str, str | None], code: str) -> None:
    model = job_of(proved()).model
    assert isinstance(model, OnnxModel)
    verdict = inconclusive(judge(with_model(replace(model, **change))), (code, "verifier", LOCK))  # type: ignore[arg-type]
    assert verdict.statement is not None
    assert verdict.findings == ()


def test_the_locks_that_differ_are_named() -> None:
    model = job_of(proved()).model
    assert isinstance(model, OnnxModel)
    verdict = judge(with_model(replace(model, replay_lock=None)))
    (reason,) = verdict.reasons
    assert reason.got == f"{model.circuit_lock}, none"
    assert reason.expected == f"{model.circuit_lock}, {model.replay_lock}"


def test_locks_do_not_count_in_each_others_place() -> None:
    model = job_of(proved()).model
    assert isinstance(model, OnnxModel)
    swapped = replace(model, circuit_lock=model.replay_lock, replay_lock=model.circuit_lock)
    inconclusive(judge(with_model(swapped)), ("catalogue.lock_digest", "verifier", LOCK))


def test_a_job_on_a_service_is_inconclusive_and_its_allow_list_is_named() -> None:
    verdict = judge(with_model(Service("chat", "11" * 32)))
    inconclusive(verdict, ("catalogue.service", "verifier", LOCK))
    assert verdict.inputs.locks == ("11" * 32,)


def test_a_missing_lock_is_not_among_the_inputs() -> None:
    model = job_of(proved()).model
    assert isinstance(model, OnnxModel)
    verdict = judge(with_model(replace(model, circuit_lock=None)))
    assert verdict.inputs.locks == (model.replay_lock,)


@pytest.mark.parametrize("lock", ["circuit", "replay"])
def test_a_catalogue_with_one_lock_only_takes_jobs_that_pin_just_that(lock: str) -> None:
    without = {"circuit": "replay", "replay": "circuit"}[lock]
    known = Catalogue((replace(entry(), **{without: None}),))  # type: ignore[arg-type]
    model = replace(job_of(proved()).model, **{f"{without}_lock": None})  # type: ignore[arg-type]
    verdict = judge(with_model(model), known=known)
    assert isinstance(verdict, Rejected | Inconclusive)
    assert not {code for code, _ in said(verdict)} & {"catalogue.lock_digest", "catalogue.no_lock"}
    inconclusive(judge(proved(), known=known), ("catalogue.lock_digest", "verifier", LOCK))


def test_a_model_whose_locks_nobody_audited_is_our_lack() -> None:
    known = Catalogue((replace(entry(), circuit=None, replay=None),))
    bare = with_model(OnnxModel(entry().model, None, None))
    inconclusive(judge(bare, known=known), ("catalogue.no_lock", "verifier", LOCK))


# --- step 3: the claim against the job ------------------------------------------------------------------

OTHER = Evidence("other", b"body")
NAMED = NamedEvidence(kind="ezkl", digest=proved().evidence[0].digest)


def test_a_capture_that_the_job_does_not_have_is_rejected() -> None:
    verdict = rejected(judge(resigned(proved(), seq=1)), ("claim.seq", "provider"))
    assert (verdict.reasons[0].got, verdict.reasons[0].expected) == ("1", "below 1")
    assert verdict.settles_blame


def test_the_last_capture_of_a_job_is_one() -> None:
    several = resigned(unproved(), job=make_job(unproved().exchange.input, captures=3, sampling_rate_ppm=PPM))
    assert isinstance(judge(resigned(several, seq=2), reveal(), using=runner()), Accepted)
    rejected(judge(resigned(several, seq=3), reveal()), ("claim.seq", "provider"))


def test_an_amount_above_the_price_is_rejected() -> None:
    verdict = rejected(judge(resigned(proved(), amount=PRICE + 1)), ("claim.amount", "provider"))
    assert (verdict.reasons[0].got, verdict.reasons[0].expected) == ("0.500001 USDC", "at most 0.5 USDC")


@pytest.mark.parametrize("amount", [0, PRICE - 1, PRICE])
def test_an_amount_up_to_the_price_is_none_of_the_judges_business(amount: int) -> None:
    verdict = judge(resigned(proved(), amount=amount))
    assert isinstance(verdict, Accepted)
    assert verdict.statement is not None
    assert verdict.statement.amount == amount


def test_no_evidence_where_the_job_asks_for_it_is_rejected() -> None:
    only = make_job(unproved().exchange.input, evidence_kinds=("ezkl",))
    fallback = SayingBackend("replay", FINDING)
    verdict = judge(resigned(unproved(), job=only), fallback=fallback)
    rejected(verdict, ("claim.no_evidence", "provider"))
    assert (verdict.reasons[0].got, verdict.reasons[0].expected) == ("none", "ezkl")
    assert fallback.asked == []


@pytest.mark.parametrize("kind", ["other", "replay"])
def test_evidence_of_a_kind_that_the_job_does_not_allow_is_rejected(kind: str) -> None:
    verdict = judge(resigned(proved(), evidence=(*proved().evidence, Evidence(kind, b""))))
    rejected(verdict, ("claim.evidence_kind", "provider"))
    assert verdict.reasons[0].got == f"ezkl, {kind}"
    assert verdict.reasons[0].expected == "ezkl, replay"


def test_an_input_outside_of_the_domain_is_the_buyers_fault() -> None:
    verdict = judge(resigned(proved(), payload=shifted(proved().exchange.input, 100.0)))
    rejected(verdict, ("input.domain.range", "buyer"))
    assert isinstance(verdict, Rejected)
    assert not verdict.settles_blame


def test_everything_against_the_claim_is_reported_at_once() -> None:
    wrong = resigned(
        proved(),
        payload=Document("text/plain", b""),
        evidence=(OTHER,),
        seq=5,
        amount=PRICE + 1,
    )
    rejected(
        judge(wrong),
        ("claim.seq", "provider"),
        ("claim.amount", "provider"),
        ("claim.evidence_kind", "provider"),
        ("input.domain.kind", "buyer"),
    )


def test_an_input_of_a_senseless_shape_is_a_verdict() -> None:
    bundle = resigned(proved(), payload=shifted(proved().exchange.input, 0.0, dtype="float16"))
    rejected(judge(bundle), ("input.domain.dtype", "buyer"))


# --- step 4: who judges ---------------------------------------------------------------------------------


def _altered(position: int) -> Bundle:
    instances = list(proof().instances)
    instances[position] = "00" * 32
    return with_proof(replace(proof(), instances=tuple(instances)))


REFUTED_PROOFS: dict[str, Callable[[], tuple[Bundle, Runner]]] = {
    "another output": lambda: (resigned(proved(), output=logits(0.0)), AnsweringRunner(VALID)),
    "another tag": lambda: (_altered(30), AnsweringRunner(VALID)),
    "a false proof": lambda: (proved(), AnsweringRunner(INVALID)),
    "no proof at all": lambda: (with_proof(b"nonsense"), AnsweringRunner(VALID)),
    "a document": lambda: (resigned(proved(), output=Document("a/b", b"")), AnsweringRunner(VALID)),
}


@pytest.mark.parametrize("what", REFUTED_PROOFS)
def test_a_refuted_proof_never_reaches_the_fallback(what: str) -> None:
    bundle, run = REFUTED_PROOFS[what]()
    fallback = SayingBackend("replay", Finding("replay", PROVED))
    verdict = judge(bundle, reveal(), using=run, fallback=fallback)
    assert isinstance(verdict, Rejected)
    assert verdict.settles_blame
    assert verdict.findings == ()
    assert fallback.asked == []


def test_a_proof_that_could_not_be_checked_never_reaches_the_fallback() -> None:
    fallback = SayingBackend("replay", Finding("replay", PROVED))
    verdict = judge(proved(), reveal(), using=FailingRunner(), fallback=fallback)
    inconclusive(verdict, ("ezkl.check_failed", "nobody", Need(NeedKind.RETRY)))
    assert fallback.asked == []


def test_the_fallback_is_asked_once_where_the_claim_names_nothing() -> None:
    fallback = SayingBackend("replay", Finding("replay", PROVED))
    assert isinstance(judge(unproved(), reveal(), fallback=fallback), Accepted)
    assert fallback.asked == [(None, unproved().exchange, entry(), (reveal(),), NOW)]


def test_without_a_fallback_a_claim_without_evidence_is_inconclusive() -> None:
    verdict = Verifier(catalogue(), (SayingBackend("ezkl", FINDING),)).verify(
        unproved().exchange, policy=policy(), now=NOW
    )
    inconclusive(verdict, ("backend.unknown_kind", "verifier", Need(NeedKind.RETRY)))
    assert verdict.reasons[0].got == "replay"


def test_evidence_of_a_kind_that_we_cannot_judge_is_our_lack() -> None:
    job = make_job(proved().exchange.input, evidence_kinds=("other", "replay"))
    verdict = judge(resigned(proved(), job=job, evidence=(OTHER,)))
    inconclusive(verdict, ("backend.unknown_kind", "verifier", Need(NeedKind.RETRY)))
    assert verdict.reasons[0].got == "other"


@pytest.mark.parametrize("part", ["input", "output"])
def test_a_payload_that_the_kind_cannot_speak_of_is_refuted_unseen(part: str) -> None:
    class Picky(SayingBackend):
        def accepts(self, payload: object) -> bool:
            return payload is not getattr(proved().exchange, part)

    picky = Picky("ezkl", FINDING)
    verdict = Verifier(catalogue(), (picky,)).verify(
        proved().exchange, proved().evidence, policy=policy(), now=NOW
    )
    rejected(verdict, ("evidence.payload", "provider"))
    assert picky.asked == []


def _several(*checks: Check) -> Verdict:
    """Judge a claim that names as many pieces of evidence as there are backends, each saying its word."""
    backends = tuple(SayingBackend(check.kind, check) for check in checks)
    kinds = tuple(sorted(check.kind for check in checks))
    job = make_job(proved().exchange.input, evidence_kinds=kinds)
    evidence = tuple(Evidence(check.kind, b"body") for check in checks)
    bundle = resigned(proved(), job=job, evidence=evidence)
    verifier = Verifier(catalogue(), backends)
    return verifier.verify(bundle.exchange, bundle.evidence, policy=policy(), now=NOW)


def test_one_refutation_outweighs_all_findings_which_are_kept() -> None:
    verdict = rejected(_several(FINDING, REFUTED, UNCLEAR), ("two.false", "provider"))
    assert verdict.findings == (FINDING,)


def test_one_unclear_check_outweighs_findings_which_are_kept() -> None:
    verdict = inconclusive(_several(FINDING, UNCLEAR), ("three.unclear", "nobody", Need(NeedKind.RETRY)))
    assert verdict.findings == (FINDING,)
    assert verdict.statement is not None


def test_all_refutations_are_reported() -> None:
    other = Refuted("four", (replace(REASON, code="four.a"), replace(REASON, code="four.b")))
    rejected(
        _several(REFUTED, other), ("two.false", "provider"), ("four.a", "provider"), ("four.b", "provider")
    )


def test_all_needs_are_named_each_once() -> None:
    other = Unclear("four", UNCLEAR.reasons, (Need(NeedKind.COLLATERAL, "x"), Need(NeedKind.RETRY)))
    verdict = _several(UNCLEAR, other)
    assert isinstance(verdict, Inconclusive)
    assert verdict.needs == (Need(NeedKind.RETRY), Need(NeedKind.COLLATERAL, "x"))
    assert len(verdict.reasons) == 2


def test_all_findings_count_together() -> None:
    verdict = _several(FINDING, Finding("two", {Property.PROVIDER: Assurance.ATTESTED}))
    assert isinstance(verdict, Accepted)
    assert verdict.not_shown == ()


def test_every_piece_of_one_kind_is_judged() -> None:
    twice = resigned(proved(), evidence=(*proved().evidence, Evidence("ezkl", b"nonsense")))
    assert isinstance(judge(twice), Rejected)


# --- step 5: the policy ---------------------------------------------------------------------------------


def test_a_policy_that_accepts_no_danger_rejects_a_proof_on_the_development_srs() -> None:
    verdict = rejected(judge(proved(), policy_name="proved"), ("policy.danger", "nobody"))
    assert len(verdict.findings) == 1
    assert not verdict.settles_blame


def test_a_policy_that_wants_a_proof_rejects_a_re_execution() -> None:
    verdict = judge(unproved(), reveal(), using=runner(), policy_name="dangerous_demo_proved")
    assert isinstance(verdict, Rejected)
    assert len(verdict.findings) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"price": 1_001_000_000}, "policy.price"),
        ({"sampling_rate_ppm": 0}, "policy.sampling_rate"),
    ],
)
def test_price_and_rate_are_the_jobs(change: dict[str, int], code: str) -> None:
    job = make_job(unproved().exchange.input, **change)
    fallback = SayingBackend("replay", Finding("replay", dict.fromkeys(PROVED, Assurance.NOT_DRAWN)))
    verdict = judge(resigned(unproved(), job=job), reveal(), fallback=fallback)
    assert isinstance(verdict, Rejected)
    assert code in {reason.code for reason in verdict.reasons}


def test_the_currency_is_the_jobs() -> None:
    euro = replace(job_of(proved()).currency, code="EUR")
    fallback = SayingBackend("replay", Finding("replay", PROVED))
    verdict = judge(
        resigned(unproved(), job=make_job(unproved().exchange.input, currency=euro)), fallback=fallback
    )
    rejected(verdict, ("policy.currency", "buyer"))


# --- before anyone pays ---------------------------------------------------------------------------------


def test_a_verifier_has_one_backend_a_kind_and_at_least_one() -> None:
    one, same = SayingBackend("replay", FINDING), SayingBackend("replay", FINDING)
    for backends, fallback in (((), None), ((one, same), None), ((one,), same)):
        with pytest.raises(Misuse):
            Verifier(catalogue(), backends, fallback)
    assert Verifier(catalogue(), (), one).judges == (one,)


def test_judges_are_all_backends_the_fallback_last() -> None:
    one, two, three = (SayingBackend(kind, FINDING) for kind in ("b", "c", "a"))
    assert Verifier(catalogue(), (one, two), three).judges == (one, two, three)
    assert Verifier(catalogue(), (one, two)).judges == (one, two)


def test_offers_are_those_of_the_kinds_that_the_job_names() -> None:
    verifier = standard_verifier(catalogue(), runner())
    by_kinds = {
        kinds: [
            offer.kind for offer in verifier.offers(make_job(proved().exchange.input, evidence_kinds=kinds))
        ]
        for kinds in (("ezkl",), ("replay",), ("ezkl", "replay"), ("other",))
    }
    assert by_kinds == {
        ("ezkl",): ["ezkl"],
        ("replay",): ["replay", "replay"],
        ("ezkl", "replay"): ["ezkl", "replay", "replay"],
        ("other",): [],
    }


def test_offers_are_about_the_pinned_entry() -> None:
    asked: list[object] = []

    class Noting(SayingBackend):
        def offers(self, entry: object) -> tuple[Offer, ...]:
            asked.append(entry)
            return ()

    verifier = Verifier(catalogue(), (Noting("ezkl", FINDING),))
    assert verifier.offers(job_of(proved())) == ()
    assert asked == [entry()]


def test_a_job_with_other_locks_is_offered_nothing() -> None:
    verifier = standard_verifier(catalogue(), runner())
    assert verifier.offers(job_of(with_model(OnnxModel(entry().model, None, None)))) == ()


def objections(job: Job, payload: object = None) -> Sequence[tuple[str, str, str]]:
    verifier = standard_verifier(catalogue(), runner())
    found = verifier.objections_to(job, payload or proved().exchange.input)  # type: ignore[arg-type]
    return [(reason.code, reason.fault.value, reason.got) for reason in found]


def test_nothing_speaks_against_an_honest_job() -> None:
    assert objections(job_of(proved())) == []


def test_unknown_kinds_and_a_bad_input_are_named_before_anyone_pays() -> None:
    job = make_job(proved().exchange.input, evidence_kinds=("a", "ezkl", "z"))
    codes = objections(job, Document("text/plain", b""))
    assert codes == [
        ("backend.unknown_kind", "verifier", "a"),
        ("backend.unknown_kind", "verifier", "z"),
        ("input.domain.kind", "buyer", "document"),
    ]


def test_an_unknown_model_is_the_only_objection() -> None:
    job = make_job(proved().exchange.input, model=OnnxModel("00" * 32, None, None), evidence_kinds=("a",))
    assert objections(job) == [("catalogue.unknown_model", "verifier", "00" * 32)]


# --- as it ships ----------------------------------------------------------------------------------------


def test_the_standard_verifier_judges_proofs_and_falls_back_to_re_execution() -> None:
    verifier = standard_verifier(catalogue(), runner())
    assert [backend.kind for backend in verifier.backends] == ["ezkl"]
    assert verifier.fallback is not None
    assert verifier.fallback.kind == "replay"
    assert verifier.catalogue is catalogue()


def test_the_standard_offers_are_those_of_its_backends() -> None:
    assert [offer.kind for offer in standard_offers()] == ["ezkl", "replay", "replay"]
    assert standard_offers()[0].dangers == ()
    assert standard_offers(entry())[0].dangers == ("unsafe-dev-srs",)


def test_whoever_signs_as_another_is_not_the_provider() -> None:
    assert PROVIDER.public == job_of(proved()).provider
    forged = Signed.new(claim_of(proved()), STRANGER)
    verdict = judge(replace(proved(), exchange=replace(proved().exchange, claim=forged)))
    assert isinstance(verdict, Inconclusive)
    assert verdict.reasons[0].got == STRANGER.public
