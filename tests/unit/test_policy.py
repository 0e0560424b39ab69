"""What a policy objects to, whom it blames, and which jobs it says can be released at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import FOUR, USDC
from proofhold.core import Assurance, Fault, Finding, Offer, Property, Reason
from proofhold.demand import AllOf, AnyOf, Demand, Sampling, Show, in_words, shortfalls, shows_in
from proofhold.errors import Misuse
from proofhold.job import PPM
from proofhold.money import Currency
from proofhold.policy import MAX_STRATEGIES, Policy, Tier, Way, percent, shipped_names
from proofhold.standard import standard_reach

PROVED, ATTESTED, REEXECUTED, NOT_DRAWN = Assurance
MODEL, INPUT, OUTPUT, FRESH, PROVIDER = Property

BY_PROOF = Show(FOUR, (PROVED,))
BY_SAMPLE = Show(FOUR, (REEXECUTED, NOT_DRAWN))
ALWAYS_CHECKED = Show(FOUR, (REEXECUTED,))


def finding(kind: str, word: Assurance, *properties: Property, dangers: tuple[str, ...] = ()) -> Finding:
    return Finding(kind, dict.fromkeys(properties or FOUR, word), dangers=dangers)


def offer(kind: str, word: Assurance, *properties: Property, dangers: tuple[str, ...] = ()) -> Offer:
    return Offer(kind, dict.fromkeys(properties or FOUR, word), dangers)


def policy(demand: Demand, least_ppm: int | None = None, *, dangers: tuple[str, ...] = ()) -> Policy:
    name = "dangerous_test" if dangers else "test"
    return Policy(name, "For a test.", (Tier(None, demand, least_ppm),), accept_dangers=dangers)


def objections(asked: Policy, *findings: Finding, price: int = 1, rate_ppm: int = 0) -> tuple[Reason, ...]:
    return asked.objections(findings, price=price, currency=USDC, sampling_rate_ppm=rate_ppm)


def obstacles(asked: Policy, *offers: Offer, price: int = 1, rate_ppm: int = 0) -> tuple[Reason, ...]:
    return asked.satisfiable_by(offers, price=price, currency=USDC, sampling_rate_ppm=rate_ppm)


def blamed(reasons: Sequence[Reason]) -> list[tuple[str, Fault]]:
    return [(reason.code, reason.fault) for reason in reasons]


PROOF = finding("ezkl", PROVED)
CHECKED = finding("replay", REEXECUTED)
PASSED_OVER = finding("replay", NOT_DRAWN)
REPLAY = (offer("replay", REEXECUTED), offer("replay", NOT_DRAWN))


# --- what is shown ---------------------------------------------------------------------------------------


def test_a_proof_meets_a_demand_for_a_proof() -> None:
    assert objections(policy(BY_PROOF), PROOF) == ()


def test_every_property_that_is_missing_is_named_with_what_was_got() -> None:
    reasons = objections(policy(BY_PROOF), finding("ezkl", PROVED, MODEL, INPUT))
    assert [(r.code, r.fault, r.got, r.expected) for r in reasons] == [
        ("policy.not_shown", Fault.PROVIDER, "nothing on output (ezkl)", "output proved"),
        ("policy.not_shown", Fault.PROVIDER, "nothing on fresh (ezkl)", "fresh proved"),
    ]
    assert "output is proved" in reasons[0].message
    assert not reasons[0].measured


def test_no_evidence_at_all_is_the_providers_fault() -> None:
    reasons = objections(policy(BY_PROOF))
    assert blamed(reasons) == [("policy.not_shown", Fault.PROVIDER)] * 4
    assert reasons[0].got == "no evidence"


def test_another_word_does_not_do() -> None:
    reasons = objections(policy(BY_PROOF), finding("nitro", ATTESTED))
    assert blamed(reasons) == [("policy.not_shown", Fault.PROVIDER)] * 4
    assert reasons[0].got == "model attested (nitro)"


def test_properties_of_two_runs_are_not_joined() -> None:
    halves = finding("ezkl", PROVED, MODEL, INPUT), finding("other", PROVED, OUTPUT, FRESH)
    assert blamed(objections(policy(BY_PROOF), *halves)) == [("policy.not_shown", Fault.PROVIDER)] * 2


def test_two_kinds_of_evidence_meet_two_demands() -> None:
    both = policy(AllOf((BY_PROOF, Show((PROVIDER,), (ATTESTED,)))))
    assert objections(both, PROOF, finding("nitro", ATTESTED, PROVIDER)) == ()
    assert [r.expected for r in objections(both, PROOF)] == ["provider attested"]
    assert len(objections(both)) == 5


def test_the_nearest_evidence_is_the_one_that_is_told_of() -> None:
    far, near = finding("far", PROVED, MODEL), finding("near", PROVED, MODEL, INPUT, OUTPUT)
    for order in ([far, near], [near, far]):
        assert [r.got for r in objections(policy(BY_PROOF), *order)] == ["nothing on fresh (near)"]


def test_of_two_equally_near_the_first_is_told_of() -> None:
    one, other = finding("one", PROVED, MODEL), finding("other", PROVED, MODEL)
    assert objections(policy(BY_PROOF), one, other)[0].got == "nothing on input (one)"


def test_a_reason_is_given_once() -> None:
    twice = policy(AllOf((BY_PROOF, BY_PROOF)))
    assert len(objections(twice)) == 4


# --- the draw --------------------------------------------------------------------------------------------


def test_a_job_that_was_not_drawn_counts_at_the_least_rate_and_not_below() -> None:
    sampled = policy(BY_SAMPLE, 20_000)
    assert objections(sampled, PASSED_OVER, rate_ppm=20_000) == ()
    (reason,) = objections(sampled, PASSED_OVER, rate_ppm=19_999)
    assert (reason.code, reason.fault) == ("policy.sampling_rate", Fault.BUYER)
    assert (reason.got, reason.expected) == ("19999 ppm", "at least 20000 ppm")


def test_a_job_that_was_checked_counts_at_any_rate() -> None:
    assert objections(policy(BY_SAMPLE, 20_000), CHECKED, rate_ppm=1) == ()


def test_nobody_is_blamed_for_the_luck_of_the_draw() -> None:
    (reason,) = objections(policy(ALWAYS_CHECKED), PASSED_OVER, rate_ppm=500_000)
    assert (reason.code, reason.fault) == ("policy.not_drawn", Fault.NOBODY)
    assert (reason.got, reason.expected) == ("not_drawn", "reexecuted")


def test_luck_is_no_excuse_where_a_proof_was_demanded() -> None:
    assert blamed(objections(policy(BY_PROOF), PASSED_OVER)) == [("policy.not_shown", Fault.PROVIDER)] * 4


def test_of_several_ways_one_that_failed_blamelessly_clears_the_provider() -> None:
    either = policy(AnyOf((BY_PROOF, ALWAYS_CHECKED)))
    assert blamed(objections(either, PASSED_OVER)) == [("policy.not_drawn", Fault.NOBODY)]
    assert (
        blamed(objections(either, finding("nitro", ATTESTED))) == [("policy.not_shown", Fault.PROVIDER)] * 8
    )


def test_a_way_that_is_met_makes_good_for_one_that_luck_closed() -> None:
    either = policy(AnyOf((ALWAYS_CHECKED, BY_PROOF)))
    assert objections(either, PASSED_OVER, PROOF) == ()


def test_a_way_that_luck_closed_only_in_part_does_not_clear_the_provider() -> None:
    either = policy(AnyOf((BY_PROOF, Show((MODEL, OUTPUT), (PROVED, REEXECUTED)))))
    reasons = objections(either, finding("replay", NOT_DRAWN, MODEL))
    assert blamed(reasons)[-2:] == [("policy.not_drawn", Fault.NOBODY), ("policy.not_shown", Fault.PROVIDER)]
    assert len(reasons) == 6
    assert reasons[-2].expected == "proved or reexecuted"


def test_blameless_evidence_is_nearer_than_evidence_that_blames() -> None:
    almost = finding("almost", REEXECUTED, MODEL, INPUT, OUTPUT)
    for order in ([almost, PASSED_OVER], [PASSED_OVER, almost]):
        assert blamed(objections(policy(ALWAYS_CHECKED), *order)) == [("policy.not_drawn", Fault.NOBODY)]


def test_a_rate_outside_zero_to_one_is_misuse() -> None:
    for rate_ppm in (-1, PPM + 1):
        with pytest.raises(Misuse, match="sampling rate"):
            objections(policy(BY_PROOF), PROOF, rate_ppm=rate_ppm)
    assert objections(policy(BY_PROOF), PROOF, rate_ppm=PPM) == ()


def test_where_no_least_rate_is_stated_no_rate_suffices() -> None:
    assert not Sampling(PPM, None).suffices
    assert [r.code for r in shortfalls(BY_SAMPLE, [PASSED_OVER], Sampling(PPM, None))] == [
        "policy.sampling_rate"
    ]


# --- prices, currencies, dangers -------------------------------------------------------------------------

TIERED = Policy("tiered", "By value.", (Tier(10, BY_SAMPLE, 1), Tier(20, BY_PROOF)), USDC)


def test_the_tier_is_that_of_the_price() -> None:
    assert objections(TIERED, CHECKED, price=0) == ()
    assert objections(TIERED, CHECKED, price=10) == ()
    assert len(objections(TIERED, CHECKED, price=11)) == 4
    assert objections(TIERED, PROOF, price=20) == ()


def test_a_price_above_every_tier_is_refused() -> None:
    (reason,) = objections(TIERED, PROOF, price=21)
    assert (reason.code, reason.fault) == ("policy.price", Fault.BUYER)
    assert (reason.got, reason.expected) == ("0.000021 USDC", "at most 0.00002 USDC")
    assert obstacles(TIERED, offer("ezkl", PROVED), price=21) == (reason,)


def test_an_open_last_tier_takes_any_price() -> None:
    assert (
        objections(replace(TIERED, tiers=(Tier(10, BY_PROOF), Tier(None, BY_PROOF))), PROOF, price=10**60)
        == ()
    )


def test_a_price_below_zero_is_misuse() -> None:
    with pytest.raises(Misuse, match="price"):
        objections(TIERED, PROOF, price=-1)


@pytest.mark.parametrize("currency", [Currency("USDC", 18), Currency("EURC", 6)])
def test_another_currency_is_refused(currency: Currency) -> None:
    (reason,) = TIERED.objections([PROOF], price=1, currency=currency, sampling_rate_ppm=0)
    assert (reason.code, reason.fault) == ("policy.currency", Fault.BUYER)
    assert reason.expected == "USDC with exponent 6"
    assert reason.got == f"{currency.code} with exponent {currency.exponent}"
    given_offers = [offer("ezkl", PROVED)]
    assert TIERED.satisfiable_by(given_offers, price=1, currency=currency, sampling_rate_ppm=0) == (reason,)


def test_without_caps_or_currency_any_currency_does() -> None:
    open_to_all = policy(BY_PROOF)
    assert open_to_all.objections([PROOF], price=5, currency=Currency("XYZ", 0), sampling_rate_ppm=0) == ()


def test_a_danger_that_is_not_accepted_is_an_objection_and_nobodys_fault() -> None:
    unsafe = finding("ezkl", PROVED, dangers=("unsafe-dev-srs", "sim"))
    reasons = objections(policy(BY_PROOF), unsafe)
    assert blamed(reasons) == [("policy.danger", Fault.NOBODY)] * 2
    assert (reasons[0].got, reasons[0].expected) == ("unsafe-dev-srs (ezkl)", "none")
    accepting = policy(BY_PROOF, dangers=("unsafe-dev-srs",))
    (reason,) = objections(accepting, unsafe)
    assert (reason.got, reason.expected) == ("sim (ezkl)", "unsafe-dev-srs")
    assert objections(accepting, finding("ezkl", PROVED, dangers=("unsafe-dev-srs",))) == ()


def test_a_danger_is_an_objection_even_where_the_finding_is_not_needed() -> None:
    superfluous = finding("other", ATTESTED, PROVIDER, dangers=("sim",))
    assert blamed(objections(policy(BY_PROOF), PROOF, superfluous)) == [("policy.danger", Fault.NOBODY)]


def test_shortfalls_prices_and_dangers_are_reported_together() -> None:
    unsafe = finding("nitro", ATTESTED, dangers=("sim",))
    assert [r.code for r in objections(policy(BY_PROOF), unsafe)] == ["policy.not_shown"] * 4 + [
        "policy.danger"
    ]
    assert [r.code for r in objections(TIERED, unsafe, price=99)] == ["policy.price", "policy.danger"]


# --- can it be satisfied ---------------------------------------------------------------------------------


def test_a_proof_on_offer_satisfies_at_any_rate() -> None:
    for rate_ppm in (0, 1, PPM):
        assert obstacles(policy(BY_PROOF), offer("ezkl", PROVED), rate_ppm=rate_ppm) == ()


def test_nothing_on_offer_satisfies_nothing() -> None:
    reasons = obstacles(policy(BY_PROOF))
    assert (
        blamed(reasons) == [("policy.unsatisfiable", Fault.BUYER)] + [("policy.not_shown", Fault.BUYER)] * 4
    )
    assert (reasons[0].got, reasons[0].expected) == (
        "none",
        "model, input, output and fresh, each proved, by one piece of evidence",
    )


def test_both_outcomes_of_the_draw_must_do() -> None:
    sampled = policy(BY_SAMPLE, 100)
    assert obstacles(sampled, *REPLAY, rate_ppm=100) == ()
    assert obstacles(sampled, *REPLAY, rate_ppm=PPM) == ()
    assert [r.code for r in obstacles(sampled, *REPLAY, rate_ppm=99)] == [
        "policy.unsatisfiable",
        "policy.sampling_rate",
    ]
    assert obstacles(sampled, REPLAY[0], rate_ppm=100) != ()
    assert obstacles(sampled, REPLAY[1], rate_ppm=100) != ()


def test_re_execution_alone_is_satisfiable_only_where_every_job_is_drawn() -> None:
    assert obstacles(policy(ALWAYS_CHECKED), *REPLAY, rate_ppm=PPM) == ()
    reasons = obstacles(policy(ALWAYS_CHECKED), *REPLAY, rate_ppm=PPM - 1)
    assert blamed(reasons) == [("policy.unsatisfiable", Fault.BUYER), ("policy.not_drawn", Fault.BUYER)]
    assert obstacles(policy(ALWAYS_CHECKED), *REPLAY, rate_ppm=0) != ()


def test_half_of_the_draw_does_only_where_the_other_half_cannot_be() -> None:
    assert obstacles(policy(ALWAYS_CHECKED), REPLAY[0], rate_ppm=PPM) == ()
    assert obstacles(policy(BY_SAMPLE, 1), REPLAY[1], rate_ppm=1) != ()
    assert obstacles(policy(BY_SAMPLE, 1), REPLAY[0], rate_ppm=PPM - 1) != ()


def test_at_rate_zero_nothing_is_ever_re_executed() -> None:
    assert obstacles(policy(BY_SAMPLE, 1), *REPLAY, rate_ppm=0) != ()


def test_a_danger_keeps_an_offer_out_and_is_named() -> None:
    unsafe = offer("ezkl", PROVED, dangers=("unsafe-dev-srs",))
    reasons = obstacles(policy(BY_PROOF), unsafe)
    assert [r.code for r in reasons] == ["policy.unsatisfiable"] + ["policy.not_shown"] * 4 + [
        "policy.danger"
    ]
    assert {r.fault for r in reasons} == {Fault.BUYER}
    assert reasons[0].got == "ezkl"
    assert obstacles(policy(BY_PROOF, dangers=("unsafe-dev-srs",)), unsafe) == ()
    assert obstacles(policy(BY_PROOF), unsafe, offer("other", PROVED)) == ()


def test_alternatives_of_one_kind_are_not_had_at_once() -> None:
    both = policy(AllOf((Show((MODEL,), (ATTESTED,)), Show((PROVIDER,), (ATTESTED,)))))
    one, other = offer("nitro", ATTESTED, MODEL), offer("nitro", ATTESTED, PROVIDER)
    assert [r.code for r in obstacles(both, one, other)] == ["policy.unsatisfiable"]
    assert obstacles(both, one, replace(other, kind="dcap")) == ()


def test_the_choice_is_made_before_the_draw() -> None:
    """Neither alternative of the attestation does in both worlds, and no provider knows the world."""
    if_drawn = AllOf((Show((MODEL,), (ATTESTED,)), ALWAYS_CHECKED))
    if_not = AllOf((Show((PROVIDER,), (ATTESTED,)), BY_SAMPLE))
    asked = policy(AnyOf((if_drawn, if_not)), 1)
    model, provider = offer("nitro", ATTESTED, MODEL), offer("nitro", ATTESTED, PROVIDER)
    assert obstacles(asked, model, *REPLAY, rate_ppm=5) != ()
    assert obstacles(asked, model, provider, *REPLAY, rate_ppm=5) == ()  # the second does in both
    other_way = policy(AnyOf((if_drawn, AllOf((Show((PROVIDER,), (ATTESTED,)), Show((FRESH,), (PROVED,)))))))
    only_if_not = Offer("replay", {INPUT: NOT_DRAWN, FRESH: PROVED})
    assert obstacles(other_way, model, provider, REPLAY[0], only_if_not, rate_ppm=5) != ()
    assert (
        obstacles(other_way, model, replace(provider, kind="dcap"), REPLAY[0], only_if_not, rate_ppm=5) == ()
    )


def test_too_many_combinations_are_refused_not_tried() -> None:
    fits = [offer(f"kind-{i}", ATTESTED, p) for i in range(12) for p in (MODEL, INPUT)]
    assert MAX_STRATEGIES == 2**12
    assert obstacles(policy(BY_PROOF), *fits) != ()
    with pytest.raises(Misuse, match="8192 combinations"):
        obstacles(policy(BY_PROOF), *fits, *(offer("one-more", ATTESTED, p) for p in (MODEL, INPUT)))


def test_reach_names_the_smallest_sets_of_kinds_and_the_rate() -> None:
    asked = replace(
        TIERED,
        tiers=(
            Tier(1, AnyOf((BY_PROOF, BY_SAMPLE)), 300),
            Tier(2, ALWAYS_CHECKED),
            Tier(3, AllOf((BY_PROOF, ALWAYS_CHECKED))),
            Tier(None, Show((PROVIDER,), (ATTESTED,))),
        ),
    )
    first, second, third, last = asked.reach([offer("ezkl", PROVED), *REPLAY])
    assert first.ways == (Way(("ezkl",), 0), Way(("replay",), 300))
    assert second.ways == (Way(("replay",), PPM),)
    assert third.ways == (Way(("ezkl", "replay"), PPM),)
    assert last.ways == ()
    assert [r.code for r in last.reasons] == ["policy.unsatisfiable", "policy.not_shown"]
    assert (first.reasons, first.tier) == ((), asked.tiers[0])


def test_reach_goes_on_after_a_set_that_is_no_smallest_one() -> None:
    pair = AllOf((Show((PROVIDER,), (ATTESTED,)), Show((MODEL,), (REEXECUTED,))))
    offers = [offer("a", PROVED), offer("b", ATTESTED, PROVIDER), offer("c", REEXECUTED, MODEL)]
    (reach,) = policy(AnyOf((BY_PROOF, pair))).reach(offers)
    assert reach.ways == (Way(("a",), 0), Way(("b", "c"), PPM))


def test_reach_tries_the_least_rate_that_can_be_stated_where_the_tier_states_none() -> None:
    both_worlds = AnyOf((ALWAYS_CHECKED, Show((FRESH,), (PROVED,))))
    (reach,) = policy(both_worlds).reach([REPLAY[0], Offer("replay", {INPUT: NOT_DRAWN, FRESH: PROVED})])
    assert reach.ways == (Way(("replay",), 0),)


# --- the shape of a policy -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Show((), (PROVED,)), "empty demand"),
        (lambda: Show((MODEL,), ()), "empty demand"),
        (lambda: Show((MODEL,), (NOT_DRAWN,)), "not_drawn without reexecuted"),
        (lambda: AllOf(()), "all: 0 demands"),
        (lambda: AnyOf(()), "any: 0 demands"),
        (lambda: AnyOf((BY_PROOF,) * 9), "any: 9 demands"),
        (lambda: Tier(0, BY_PROOF), "up_to"),
        (lambda: Tier(None, BY_SAMPLE), "least_sampling_rate: missing"),
        (lambda: Tier(None, AllOf((BY_PROOF, BY_SAMPLE))), "least_sampling_rate: missing"),
        (lambda: Tier(None, BY_PROOF, 5), "least_sampling_rate: given"),
        (lambda: Tier(None, ALWAYS_CHECKED, 5), "least_sampling_rate: given"),
        (lambda: Tier(None, BY_SAMPLE, 0), "1 to 1000000"),
        (lambda: Tier(None, BY_SAMPLE, PPM + 1), "1 to 1000000"),
        (lambda: Policy("p", "s", ()), "tiers: got 0"),
        (lambda: Policy("p", "s", tuple(Tier(i, BY_PROOF) for i in range(1, 10)), USDC), "tiers: got 9"),
        (lambda: Policy("p", "s", (Tier(2, BY_PROOF), Tier(2, BY_PROOF)), USDC), "above the one before"),
        (lambda: Policy("p", "s", (Tier(2, BY_PROOF), Tier(1, BY_PROOF)), USDC), "above the one before"),
        (lambda: Policy("p", "s", (Tier(None, BY_PROOF), Tier(1, BY_PROOF)), USDC), "only the last one open"),
        (lambda: Policy("p", "s", (Tier(None, BY_PROOF), Tier(None, BY_PROOF)), USDC), "only the last"),
        (lambda: Policy("p", "s", (Tier(2, BY_PROOF),)), "currency: missing"),
        (lambda: Policy("P", "s", (Tier(None, BY_PROOF),)), "name"),
        (lambda: Policy("p", "", (Tier(None, BY_PROOF),)), "summary"),
        (lambda: Policy("p", "s" * 281, (Tier(None, BY_PROOF),)), "summary"),
        (lambda: Policy("p", "a\nb", (Tier(None, BY_PROOF),)), "summary"),
        (lambda: policy(BY_PROOF, dangers=("Sim",)), "accept_dangers"),
        (lambda: policy(BY_PROOF, dangers=("sim", "sim")), "each once"),
        (lambda: policy(BY_PROOF, dangers=tuple(f"d{i}" for i in range(9))), "at most 8"),
        (lambda: replace(policy(BY_PROOF, dangers=("sim",)), name="safe"), "dangerous_"),
        (lambda: replace(policy(BY_PROOF, dangers=("sim",)), name="not_dangerous_"), "dangerous_"),
    ],
)
def test_what_makes_no_sense_cannot_be_built(build: object, said: str) -> None:
    assert callable(build)
    with pytest.raises(Misuse, match=said):
        build()


def test_bounds_are_inclusive() -> None:
    Policy("p", "s" * 280, tuple(Tier(i, BY_PROOF) for i in range(1, 9)), USDC)
    policy(AnyOf((BY_PROOF,) * 8), dangers=tuple(f"d{i}" for i in range(8)))
    policy(BY_SAMPLE, PPM)


def test_words_have_one_order_and_so_one_digest() -> None:
    one, other = Show((FRESH, MODEL), (PROVED, ATTESTED)), Show((MODEL, FRESH, MODEL), (ATTESTED, PROVED))
    assert one == other
    dangerous = policy(one, dangers=("sim", "dev"))
    assert dangerous.accept_dangers == ("dev", "sim")
    assert dangerous.digest == policy(other, dangers=("dev", "sim")).digest


def test_a_policy_can_be_said_in_words() -> None:
    asked = replace(
        TIERED,
        tiers=(
            Tier(
                10_000_000,
                AnyOf((BY_PROOF, AllOf((BY_SAMPLE, Show((PROVIDER,), (ATTESTED, PROVED)))))),
                20_500,
            ),
            Tier(20_000_000, Show((MODEL, OUTPUT), (PROVED,))),
        ),
    )
    assert asked.explain() == [
        "tiered: By value.",
        "up to 10 USDC:",
        "  at least one of:",
        "    - model, input, output and fresh, each proved, by one piece of evidence",
        "    - all of:",
        "        - model, input, output and fresh, each reexecuted or not_drawn, by one piece of evidence",
        "        - provider, each proved or attested, by one piece of evidence",
        "  a job that was not drawn counts where at least 2.05 % are drawn",
        "above 10 USDC up to 20 USDC:",
        "  model and output, each proved, by one piece of evidence",
        "above 20 USDC: refused",
        "accepts no danger",
    ]
    open_ended = replace(asked, tiers=(Tier(1_000_000, BY_PROOF), Tier(None, BY_PROOF)))
    assert "above 1 USDC:" in open_ended.explain()
    assert not any("refused" in line for line in open_ended.explain())
    assert policy(BY_PROOF, dangers=("dev", "sim")).explain()[1:] == [
        "whatever the price:",
        "  model, input, output and fresh, each proved, by one piece of evidence",
        "accepts dangers: dev, sim",
    ]


@pytest.mark.parametrize(
    ("ppm", "said"),
    [(20_000, "2 %"), (1, "0.0001 %"), (PPM, "100 %"), (25_000, "2.5 %"), (10_010, "1.001 %"), (0, "0 %")],
)
def test_rates_are_said_exactly(ppm: int, said: str) -> None:
    assert percent(ppm) == said


def test_leaves_are_listed_in_order() -> None:
    assert shows_in(AllOf((BY_PROOF, AnyOf((BY_SAMPLE, ALWAYS_CHECKED))))) == (
        BY_PROOF,
        BY_SAMPLE,
        ALWAYS_CHECKED,
    )
    assert in_words(Show((MODEL,), (PROVED,))) == ["model, each proved, by one piece of evidence"]


# --- shipped ---------------------------------------------------------------------------------------------


def test_shipped_policies_are_named_like_their_files_and_the_unsafe_ones_say_so() -> None:
    names = shipped_names()
    assert set(names) >= {"proved", "proved-or-sampled", "sampled", "dangerous_demo_proved"}
    for name in names:
        shipped = Policy.shipped(name)
        assert shipped.name == name
        assert bool(shipped.accept_dangers) == name.startswith("dangerous_")
        assert all(tier.up_to is not None for tier in shipped.tiers)
        assert all(reach.ways for reach in standard_reach(shipped))


@pytest.mark.parametrize("name", ["proved", "proved-or-sampled", "sampled"])
def test_the_demos_policies_differ_in_the_danger_alone(name: str) -> None:
    safe, demo = Policy.shipped(name), Policy.shipped(f"dangerous_demo_{name.replace('-', '_')}")
    assert demo.tiers == safe.tiers
    assert demo.accept_dangers == ("unsafe-dev-srs",)
    assert safe.accept_dangers == ()
    assert demo.digest != safe.digest


def test_an_unknown_shipped_policy_is_misuse_and_no_path() -> None:
    for name in ("nothing", "../policies/proved", "proved.toml"):
        with pytest.raises(Misuse, match="expected one of attested-routing, dangerous_demo_"):
            Policy.shipped(name)


# --- properties ------------------------------------------------------------------------------------------

words = st.sampled_from(Assurance)
properties = st.sampled_from(Property)
shown = st.dictionaries(properties, words, min_size=1, max_size=3)
findings = st.builds(Finding, kind=st.sampled_from(["a", "b", "c"]), shows=shown)
by = st.sets(words, min_size=1).map(lambda s: tuple(s | {REEXECUTED}) if NOT_DRAWN in s else tuple(s))
leaves = st.builds(Show, st.sets(properties, min_size=1, max_size=2).map(tuple), by)
demands: st.SearchStrategy[Demand] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)
LEAST_PPM = 1000
rates = st.sampled_from([0, 1, LEAST_PPM - 1, LEAST_PPM, 500_000, PPM])


def any_policy(demand: Demand, dangers: tuple[str, ...] = ()) -> Policy:
    least = LEAST_PPM if any(NOT_DRAWN in leaf.by for leaf in shows_in(demand)) else None
    return policy(demand, least, dangers=dangers)


def blames_provider(reasons: Sequence[Reason]) -> bool:
    return any(reason.fault is Fault.PROVIDER for reason in reasons)


@settings(deadline=None)
@given(demands, st.lists(findings, max_size=3), findings, rates)
def test_more_evidence_never_makes_it_worse(
    demand: Demand, held: list[Finding], more: Finding, rate_ppm: int
) -> None:
    asked = any_policy(demand)
    before = objections(asked, *held, rate_ppm=rate_ppm)
    after = objections(asked, *held, more, rate_ppm=rate_ppm)
    assert before or not after
    assert blames_provider(before) or not blames_provider(after)


@settings(deadline=None)
@given(demands, st.lists(findings, max_size=3), findings, rates)
def test_a_danger_adds_exactly_one_objection(
    demand: Demand, held: list[Finding], more: Finding, rate_ppm: int
) -> None:
    asked = any_policy(demand, ("dev",))
    unsafe = replace(more, dangers=("sim", "dev"))
    without = objections(asked, *held, more, rate_ppm=rate_ppm)
    assert objections(asked, *held, unsafe, rate_ppm=rate_ppm)[: len(without)] == without
    assert len(objections(asked, *held, unsafe, rate_ppm=rate_ppm)) == len(without) + 1


@settings(deadline=None)
@given(demands, st.lists(findings, max_size=3), rates)
def test_objections_agree_with_a_plain_reading(demand: Demand, held: list[Finding], rate_ppm: int) -> None:
    def holds(part: Demand) -> bool:
        match part:
            case AllOf(parts):
                return all(holds(p) for p in parts)
            case AnyOf(parts):
                return any(holds(p) for p in parts)
            case Show(wanted, by):
                good = [w for w in by if w is not NOT_DRAWN or rate_ppm >= LEAST_PPM]
                return any(all(f.shows.get(p) in good for p in wanted) for f in held)

    assert (objections(any_policy(demand), *held, rate_ppm=rate_ppm) == ()) == holds(demand)


def by_brute_force(asked: Policy, offers: Sequence[Offer], rate_ppm: int) -> bool:
    """Whether some choice of one offer a kind and a draw's outcome meets the policy in every outcome."""

    def drawn_only(o: Offer) -> bool:
        return NOT_DRAWN not in o.shows.values() and REEXECUTED in o.shows.values()

    def not_drawn_only(o: Offer) -> bool:
        return NOT_DRAWN in o.shows.values()

    def choices(world: bool) -> Iterator[tuple[Offer, ...]]:
        possible = [o for o in offers if not (not_drawn_only(o) if world else drawn_only(o))]
        for size in range(len(possible) + 1):
            for chosen in itertools.combinations(possible, size):
                if len({o.kind for o in chosen}) == size:
                    yield chosen

    def meets(chosen: tuple[Offer, ...]) -> bool:
        made = [Finding(o.kind, o.shows, dangers=o.dangers) for o in chosen]
        return not objections(asked, *made, rate_ppm=rate_ppm)

    def steady(chosen: tuple[Offer, ...]) -> set[Offer]:
        return {o for o in chosen if not drawn_only(o) and not not_drawn_only(o)}

    def one_choice(a: tuple[Offer, ...], b: tuple[Offer, ...]) -> bool:
        """Two outcomes of one choice: a kind that the draw does not touch is the same in both."""
        fixed = {o.kind: o for o in steady(a) | steady(b)}
        return all(fixed.get(o.kind, o) == o for o in (*a, *b))

    good = {world: [c for c in choices(world) if meets(c)] for world in (True, False)}
    if rate_ppm == PPM:
        return bool(good[True])
    if rate_ppm == 0:
        return bool(good[False])
    return any(one_choice(a, b) for a in good[True] for b in good[False])


class HashableOffer(Offer):
    """An offer that can stand in a set."""

    def __hash__(self) -> int:
        return hash((self.kind, tuple(sorted(self.shows.items())), self.dangers))


offers = st.builds(
    HashableOffer,
    kind=st.sampled_from(["a", "b", "c"]),
    shows=shown,
    dangers=st.sampled_from([(), (), ("dev",), ("sim",)]),
)


@settings(deadline=None)
@given(demands, st.lists(offers, max_size=5), rates)
def test_satisfiable_by_agrees_with_brute_force(demand: Demand, given_: list[Offer], rate_ppm: int) -> None:
    asked = any_policy(demand, ("dev",))
    assert (obstacles(asked, *given_, rate_ppm=rate_ppm) == ()) == by_brute_force(asked, given_, rate_ppm)
