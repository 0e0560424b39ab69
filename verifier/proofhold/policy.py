"""What a buyer demands before a payment is released: a TOML file with a digest, format version 1.

A policy judges facts (which properties are shown, on whose word, with which dangers) and never sees bytes or
backends. Everything that it does not accept by name, it refuses: another currency, a price above its last
tier, a danger, a word. docs/formats/policy.md describes the file.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias

from proofhold import canonical, demand
from proofhold.canonical import Digest, Json
from proofhold.core import Assurance, Fault, Finding, Offer, Reason
from proofhold.demand import Demand, Sampling, shortfalls
from proofhold.errors import Malformed, Misuse
from proofhold.job import NAME_PATTERN, PPM, read_amount
from proofhold.money import Currency
from proofhold.records import Record

MAX_POLICY_BYTES = 16 * 1024
"""Small, since the TOML parser's time grows with the square of a dotted key's length."""
MAX_TIERS = 8
MAX_DANGERS = 8
MAX_SUMMARY_CHARS = 280
MAX_STRATEGIES = 4096
"""How many combinations of offers are tried before the question is refused."""

DANGEROUS_PREFIX: Final = "dangerous_"
DANGER_PATTERN: Final = r"[a-z0-9][a-z0-9-]{0,63}"

_RATE = re.compile(r"1|0\.(?=[0-9]{1,6}\Z)([0-9]*[1-9])", re.ASCII)

_Chosen: TypeAlias = tuple[Offer | None, Offer | None]
"""What one kind of evidence will show: when the job is drawn, and when it is not."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What is demanded up to a price (atomic units, inclusive; None: whatever the price)."""

    up_to: int | None
    demand: Demand
    least_sampling_rate_ppm: int | None = None
    """How often such jobs must be drawn before one that was not drawn counts; stated exactly where the
    demand accepts ``not_drawn``, and nowhere else."""

    def __post_init__(self) -> None:
        if self.up_to is not None and self.up_to <= 0:
            raise Misuse(f"up_to: got {self.up_to}, expected more than nothing")
        least = self.least_sampling_rate_ppm
        if least is not None and not 0 < least <= PPM:
            raise Misuse(f"least_sampling_rate: got {least} ppm, expected 1 to {PPM}")
        if demand.accepts(self.demand, Assurance.NOT_DRAWN) and least is None:
            raise Misuse("least_sampling_rate: missing, where the demand accepts not_drawn")
        if not demand.accepts(self.demand, Assurance.NOT_DRAWN) and least is not None:
            raise Misuse("least_sampling_rate: given, where the demand does not accept not_drawn")

    def covers(self, price: int) -> bool:
        """Tell whether a price (atomic units) is not above the tier's."""
        return self.up_to is None or price <= self.up_to


@dataclass(frozen=True, slots=True)
class Way:
    """One smallest set of evidence kinds that meets a tier, and the lowest rate tried at which it does.

    The rates tried are 0 (no job is drawn), the tier's least (1 ppm where it states none) and `PPM` (every
    job is drawn); 0 says that the draw does not matter.
    """

    kinds: tuple[str, ...]
    rate_ppm: int


@dataclass(frozen=True, slots=True)
class Reach:
    """By which kinds of evidence a tier can be met; `reasons` say why by none, when `ways` is empty."""

    tier: Tier
    ways: tuple[Way, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Policy:
    """A buyer's policy. One that demands nothing cannot be built."""

    name: str
    summary: str
    tiers: tuple[Tier, ...]
    currency: Currency | None = None
    accept_dangers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name, re.ASCII):
            raise Misuse(f"name: got {self.name[:80]!r}, expected the form {NAME_PATTERN}")
        if not self.summary.isprintable() or not 0 < len(self.summary) <= MAX_SUMMARY_CHARS:
            raise Misuse(f"summary: expected one line of 1 to {MAX_SUMMARY_CHARS} characters")
        self._check_tiers()
        self._check_dangers()

    def _check_tiers(self) -> None:
        if not 0 < len(self.tiers) <= MAX_TIERS:
            raise Misuse(f"tiers: got {len(self.tiers)}, expected 1 to {MAX_TIERS}")
        caps = [tier.up_to for tier in self.tiers]
        for lower, upper in itertools.pairwise(caps):
            if lower is None or (upper is not None and upper <= lower):
                raise Misuse("tiers: expected each up_to above the one before, and only the last one open")
        if self.currency is None and caps != [None]:
            raise Misuse("currency: missing, where a tier states up_to")

    def _check_dangers(self) -> None:
        dangers = self.accept_dangers
        if len(dangers) > MAX_DANGERS or len(set(dangers)) != len(dangers):
            raise Misuse(f"accept_dangers: expected at most {MAX_DANGERS}, each once")
        for danger in dangers:
            if not re.fullmatch(DANGER_PATTERN, danger, re.ASCII):
                raise Misuse(f"accept_dangers: got {danger[:80]!r}, expected the form {DANGER_PATTERN}")
        if dangers and not self.name.startswith(DANGEROUS_PREFIX):
            raise Misuse(
                f"accept_dangers: got {', '.join(dangers)} in a policy named {self.name!r}: one that accepts "
                f"dangers has a name that begins with {DANGEROUS_PREFIX}"
            )
        object.__setattr__(self, "accept_dangers", tuple(sorted(dangers)))

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Read a policy file (TOML 1.0, UTF-8).

        Raises:
            Malformed: ``policy.too_large``, ``policy.not_toml``, ``policy.version`` or ``policy.malformed``.

        """
        record = Record(_toml(data), what="policy")
        record.version(1)
        try:
            currency = _read_currency(record.record("currency")) if record.has("currency") else None
            policy = cls(
                name=record.text("name"),
                summary=record.text("summary"),
                tiers=tuple(_read_tier(r, currency) for r in record.records("tiers", max_items=MAX_TIERS)),
                currency=currency,
                accept_dangers=_read_dangers(record),
            )
        except Misuse as error:
            raise record.error(str(error)) from error
        record.close()
        return policy

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy file.

        Raises:
            Misuse: it cannot be read.
            Malformed: as `parse`.

        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_POLICY_BYTES + 1)
        except OSError as error:
            raise Misuse(f"cannot read the policy {path}: {error.strerror}") from error
        return cls.parse(data)

    @classmethod
    def shipped(cls, name: str) -> Policy:
        """Give a policy that ships with this library.

        Raises:
            Misuse: there is none of that name.

        """
        if name not in shipped_names():
            raise Misuse(f"no shipped policy {name[:80]!r}, expected one of {', '.join(shipped_names())}")
        return cls.load(_shipped_folder() / f"{name}.toml")

    def to_json(self) -> Json:
        """Give the content as JSON: what the digest is taken over."""
        currency = self.currency
        return {
            "accept_dangers": list(self.accept_dangers),
            "currency": {"code": currency.code, "exponent": currency.exponent} if currency else None,
            "name": self.name,
            "summary": self.summary,
            "tiers": [
                {
                    "demand": demand.to_json(tier.demand),
                    "least_sampling_rate_ppm": tier.least_sampling_rate_ppm,
                    "up_to_atomic": None if tier.up_to is None else str(tier.up_to),
                }
                for tier in self.tiers
            ],
            "version": 1,
        }

    @cached_property
    def digest(self) -> Digest:
        """The policy's name: of its content, so that comments and layout do not count."""
        return canonical.digest("proofhold/policy/v1", canonical.encode(self.to_json()))

    def objections(
        self, findings: Sequence[Finding], *, price: int, currency: Currency, sampling_rate_ppm: int
    ) -> tuple[Reason, ...]:
        """List everything about the findings that the policy does not accept; empty means that it is met.

        Args:
            findings: what the evidence established.
            price: the job's, in atomic units of `currency`.
            currency: the job's.
            sampling_rate_ppm: the job's.

        Raises:
            Misuse: a price below zero, or a rate outside 0 to `PPM`.

        """
        dangers = self._dangers(findings)
        tier = self._tier(price, currency)
        if isinstance(tier, Reason):
            return (tier, *dangers)
        sampling = Sampling(sampling_rate_ppm, tier.least_sampling_rate_ppm)
        return (*shortfalls(tier.demand, findings, sampling), *dangers)

    def satisfiable_by(
        self, offers: Sequence[Offer], *, price: int, currency: Currency, sampling_rate_ppm: int
    ) -> tuple[Reason, ...]:
        """List why a job on these terms could never be released, or might not be; empty means that it can.

        Whoever provides chooses the kinds of evidence before the draw, so one choice must meet the policy
        both when the job is drawn and when it is not. Several offers of one kind are alternatives: those
        that rest on the draw follow it, between others the provider chooses.

        Args:
            offers: what each kind of evidence that the job admits can show.
            price: the job's, in atomic units of `currency`.
            currency: the job's.
            sampling_rate_ppm: the job's; at 0 no job is drawn, at `PPM` every one.

        Raises:
            Misuse: as `objections`, or more than `MAX_STRATEGIES` combinations of offers.

        """
        tier = self._tier(price, currency)
        if isinstance(tier, Reason):
            return (tier,)
        return self._obstacles(tier, offers, sampling_rate_ppm)

    def reach(self, offers: Sequence[Offer]) -> tuple[Reach, ...]:
        """Say of each tier which kinds of evidence can meet it, at the best rate that a job could state."""
        return tuple(self._reach(tier, offers) for tier in self.tiers)

    def explain(self) -> list[str]:
        """Say the policy in English, a line each."""
        lines = [f"{self.name}: {self.summary}"]
        lower: int | None = None
        for tier in self.tiers:
            lines.append(f"{self.price_range(tier, lower)}:")
            lines += [f"  {line}" for line in demand.in_words(tier.demand)]
            if (least := tier.least_sampling_rate_ppm) is not None:
                lines.append(f"  a job that was not drawn counts where at least {percent(least)} are drawn")
            lower = tier.up_to
        if lower is not None:
            lines.append(f"above {self._money(lower)}: refused")
        if self.accept_dangers:
            lines.append(f"accepts dangers: {', '.join(self.accept_dangers)}")
        else:
            lines.append("accepts no danger")
        return lines

    def price_range(self, tier: Tier, lower: int | None) -> str:
        """Say which prices a tier is for, `lower` (atomic units) being where the one below it ends."""
        above = "" if lower is None else f"above {self._money(lower)}"
        if tier.up_to is None:
            return above or "whatever the price"
        return f"{above} up to {self._money(tier.up_to)}".strip()

    def _tier(self, price: int, currency: Currency) -> Tier | Reason:
        if price < 0:
            raise Misuse(f"price: got {price}, expected nothing below zero")
        if self.currency is not None and currency != self.currency:
            got, expected = _name(currency), _name(self.currency)
            text = "the job is paid in another currency than the policy's"
            return Reason("policy.currency", text, Fault.BUYER, got, expected)
        for tier in self.tiers:
            if tier.covers(price):
                return tier
        last = self.tiers[-1].up_to or 0
        text = "the price is above every tier of the policy"
        return Reason("policy.price", text, Fault.BUYER, currency.show(price), f"at most {self._money(last)}")

    def _dangers(self, evidence: Iterable[Finding | Offer]) -> tuple[Reason, ...]:
        expected = ", ".join(self.accept_dangers) or "none"
        text = "the evidence rests on something unsafe that the policy does not accept"
        return tuple(
            dict.fromkeys(
                # Nobody's fault: what is unsafe may be a lock that both sides signed for.
                Reason("policy.danger", text, Fault.NOBODY, f"{danger} ({piece.kind})", expected)
                for piece in evidence
                for danger in piece.dangers
                if danger not in self.accept_dangers
            )
        )

    def _obstacles(self, tier: Tier, offers: Sequence[Offer], rate_ppm: int) -> tuple[Reason, ...]:
        sampling = Sampling(rate_ppm, tier.least_sampling_rate_ppm)
        usable = [offer for offer in offers if not self._dangers([offer])]
        outcomes = [drawn for drawn in (True, False) if rate_ppm != (0 if drawn else PPM)]
        for strategy in _strategies(usable):
            shown = {drawn: _shown(strategy, drawn=drawn) for drawn in outcomes}
            if not any(shortfalls(tier.demand, shown[drawn], sampling) for drawn in outcomes):
                return ()
        kinds = ", ".join(sorted({offer.kind for offer in offers})) or "none"
        text = f"no kind of evidence on offer meets what {self.name} demands of such a job, drawn or not"
        expected = "; ".join(line.strip() for line in demand.in_words(tier.demand))
        details = [
            reason
            for drawn in outcomes
            for reason in shortfalls(tier.demand, [o for o in usable if _follows(o, drawn)], sampling)
        ]
        # Before a claim nobody has failed: terms that cannot be met are those of the job's author.
        blamed = (replace(reason, fault=Fault.BUYER) for reason in (*details, *self._dangers(offers)))
        headline = Reason("policy.unsatisfiable", text, Fault.BUYER, kinds, expected)
        return tuple(dict.fromkeys((headline, *blamed)))

    def _reach(self, tier: Tier, offers: Sequence[Offer]) -> Reach:
        kinds = sorted({offer.kind for offer in offers})
        ways: list[Way] = []
        for size in range(1, len(kinds) + 1):
            for chosen in itertools.combinations(kinds, size):
                if any(set(way.kinds) <= set(chosen) for way in ways):
                    continue  # a smaller set does already
                some = [offer for offer in offers if offer.kind in chosen]
                for rate_ppm in (0, tier.least_sampling_rate_ppm or 1, PPM):
                    if not self._obstacles(tier, some, rate_ppm):
                        ways.append(Way(chosen, rate_ppm))
                        break
        return Reach(tier, tuple(ways), () if ways else self._obstacles(tier, offers, PPM))

    def _money(self, atomic: int) -> str:
        if self.currency is None:
            raise Misuse("a policy without a currency states no amounts")
        return self.currency.show(atomic)


def shipped_names() -> tuple[str, ...]:
    """Name the policies that ship with this library."""
    return tuple(sorted(path.stem for path in _shipped_folder().glob("*.toml")))


def percent(rate_ppm: int) -> str:
    """Write a rate for people, exactly: 20000 ppm as ``2 %``."""
    whole, rest = divmod(rate_ppm, PPM // 100)
    fraction = f".{rest:04d}".rstrip("0") if rest else ""
    return f"{whole}{fraction} %"


def _shipped_folder() -> Path:
    return Path(__file__).parent / "policies"


def _toml(data: bytes) -> Json:
    import tomllib

    if len(data) > MAX_POLICY_BYTES:
        raise Malformed("policy.too_large", f"policy: expected at most {MAX_POLICY_BYTES} bytes")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Malformed("policy.not_toml", f"policy: not TOML: {text}") from error


def _read_currency(record: Record) -> Currency:
    currency = Currency(record.text("code"), record.integer("exponent"))
    record.close()
    return currency


def _read_dangers(record: Record) -> tuple[str, ...]:
    if not record.has("accept_dangers"):
        return ()
    dangers = record.items("accept_dangers", max_items=MAX_DANGERS)
    if not all(isinstance(danger, str) for danger in dangers):
        raise record.error("expected a list of strings", "accept_dangers")
    return tuple(dangers)


def _read_tier(record: Record, currency: Currency | None) -> Tier:
    up_to = None
    if record.has("up_to"):
        if currency is None:
            raise record.error("an amount, in a policy that states no currency", "up_to")
        up_to = read_amount(record, "up_to", currency)
    least = _read_rate(record, "least_sampling_rate") if record.has("least_sampling_rate") else None
    asked = demand.read_demand(record.take("demand"), what="policy", path=record.at("demand"))
    record.close()
    try:
        return Tier(up_to, asked, least)
    except Misuse as error:
        raise record.error(str(error)) from error


def _read_rate(record: Record, field: str) -> int:
    text = record.text(field)
    match = _RATE.fullmatch(text)
    if match is None:
        raise record.error(
            f"got {text[:80]!r}, expected a decimal above 0 and up to 1, at most six places, without zeros "
            'at its end, such as "0.02"',
            field,
        )
    return int(match[1].ljust(6, "0")) if match[1] else PPM


def _strategies(offers: Sequence[Offer]) -> Iterator[tuple[_Chosen, ...]]:
    """List what a provider can choose: for each kind, what it will show under either outcome of the draw.

    All kinds at once: to offer more evidence never makes a demand harder to meet.
    """
    options = []
    for kind in sorted({offer.kind for offer in offers}):
        own = [offer for offer in offers if offer.kind == kind]
        steady: list[_Chosen] = [(o, o) for o in own if _follows(o, drawn=True) and _follows(o, drawn=False)]
        if_drawn: list[Offer | None] = [o for o in own if not _follows(o, drawn=False)]
        if_not: list[Offer | None] = [o for o in own if not _follows(o, drawn=True)]
        sampled = itertools.product(if_drawn or [None], if_not or [None]) if if_drawn or if_not else ()
        options.append([*steady, *sampled])
    if (count := math.prod(len(option) for option in options)) > MAX_STRATEGIES:
        raise Misuse(f"{count} combinations of offers, expected at most {MAX_STRATEGIES}")
    return itertools.product(*options)


def _shown(strategy: Iterable[_Chosen], *, drawn: bool) -> list[Offer]:
    return [offer for pair in strategy if (offer := pair[0 if drawn else 1]) is not None]


def _follows(offer: Offer, drawn: bool) -> bool:
    """Tell whether an offer can come true under an outcome of the draw."""
    words = set(offer.shows.values())
    if Assurance.NOT_DRAWN in words:
        return not drawn
    return drawn or Assurance.REEXECUTED not in words


def _name(currency: Currency) -> str:
    return f"{currency.code} with exponent {currency.exponent}"
