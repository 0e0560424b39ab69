"""What one tier of a policy demands of the findings: a tree of `Show`, `AllOf` and `AnyOf`.

One `Show` is met by *one* piece of evidence. Properties are not collected from several, or evidence that the
model ran could be joined with evidence that some other run gave the output; whoever wants two kinds of
evidence says so with `AllOf` (docs/adr/0031-a-demand-is-met-by-one-finding.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar

from proofhold.canonical import Json
from proofhold.core import Assurance, Fault, Property, Reason
from proofhold.errors import Malformed, Misuse
from proofhold.job import PPM
from proofhold.records import Record

MAX_DEPTH = 4
MAX_BRANCHES = 8
MAX_SHOWS = 16
"""How many `Show` one demand may hold in all, which bounds the reasons that it can give."""

W = TypeVar("W", bound=StrEnum)


class Shows(Protocol):
    """What a demand looks at: a finding, or an offer of one."""

    @property
    def kind(self) -> str:
        """The kind of evidence."""

    @property
    def shows(self) -> Mapping[Property, Assurance]:
        """The properties, and on whose word each holds."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often jobs like this one are drawn, and how often the tier wants it (parts per million)."""

    rate_ppm: int
    least_ppm: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.rate_ppm <= PPM:
            raise Misuse(f"sampling rate: got {self.rate_ppm} ppm, expected 0 to {PPM}")

    @property
    def suffices(self) -> bool:
        """Whether a job that was not drawn may count for anything at this rate."""
        return self.least_ppm is not None and self.rate_ppm >= self.least_ppm


@dataclass(frozen=True, slots=True)
class Show:
    """These properties, each on one of these words, shown by one piece of evidence."""

    properties: tuple[Property, ...]
    by: tuple[Assurance, ...]

    def __post_init__(self) -> None:
        if not self.properties or not self.by:
            raise Misuse("show and by: expected at least one of each: an empty demand demands nothing")
        if Assurance.NOT_DRAWN in self.by and Assurance.REEXECUTED not in self.by:
            raise Misuse("by: not_drawn without reexecuted would refuse exactly the jobs that were checked")
        # One order, so that one demand has one digest however its author listed the words.
        object.__setattr__(self, "properties", _in_order(Property, self.properties))
        object.__setattr__(self, "by", _in_order(Assurance, self.by))


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part; different pieces of evidence may meet different parts."""

    parts: tuple[Demand, ...]

    def __post_init__(self) -> None:
        _check_parts("all", self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part."""

    parts: tuple[Demand, ...]

    def __post_init__(self) -> None:
        _check_parts("any", self.parts)


Demand: TypeAlias = Show | AllOf | AnyOf


def shortfalls(demand: Demand, evidence: Sequence[Shows], sampling: Sampling) -> tuple[Reason, ...]:
    """List what keeps the evidence from meeting the demand; empty when it is met.

    A provider is at fault only if it left *every* way closed: a branch that failed by the luck of the draw,
    or by the terms of the job, was the buyer's or nobody's failure, and the other branches were never owed.
    """
    match demand:
        case Show():
            return min((_lacks(demand, e, sampling) for e in (evidence or (None,))), key=_distance)
        case AllOf(parts):
            return _unique(r for part in parts for r in shortfalls(part, evidence, sampling))
        case AnyOf(parts):
            branches = [shortfalls(part, evidence, sampling) for part in parts]
            if not all(branches):
                return ()
            blameless = [branch for branch in branches if not _blames_provider(branch)]
            return _unique(reason for branch in (blameless or branches) for reason in branch)


def shows_in(demand: Demand) -> tuple[Show, ...]:
    """List the leaves of a demand, in the order in which they are written."""
    if isinstance(demand, Show):
        return (demand,)
    return tuple(leaf for part in demand.parts for leaf in shows_in(part))


def accepts(demand: Demand, word: Assurance) -> bool:
    """Tell whether any leaf takes this word."""
    return any(word in leaf.by for leaf in shows_in(demand))


def in_words(demand: Demand) -> list[str]:
    """Say the demand in English, one line a leaf, indented by two spaces a level."""
    match demand:
        case Show(properties, by):
            return [f"{_list(properties, 'and')}, each {_list(by, 'or')}, by one piece of evidence"]
        case AllOf(parts):
            return _nested("all of:", parts)
        case AnyOf(parts):
            return _nested("at least one of:", parts)


def to_json(demand: Demand) -> Json:
    """Give the demand as JSON: what a policy's digest is taken over."""
    match demand:
        case Show(properties, by):
            return {"by": list(by), "show": list(properties)}
        case AllOf(parts):
            return {"all": [to_json(part) for part in parts]}
        case AnyOf(parts):
            return {"any": [to_json(part) for part in parts]}


def read_demand(value: Json, *, what: str, path: str) -> Demand:
    """Read a demand.

    Args:
        value: an object with ``show`` and ``by``, or with ``all``, or with ``any``.
        what: the format's name, the first half of the error code.
        path: where the value stands in its document, for the message.

    Raises:
        Malformed: anything else, more than `MAX_DEPTH` levels or more than `MAX_SHOWS` leaves.

    """
    demand = _read(value, what=what, path=path, depth=1)
    if (count := len(shows_in(demand))) > MAX_SHOWS:
        raise Malformed(f"{what}.malformed", f"{what}: {path}: {count} demands, expected at most {MAX_SHOWS}")
    return demand


def _read(value: Json, *, what: str, path: str, depth: int) -> Demand:
    record = Record(value, what=what, path=path)
    if depth > MAX_DEPTH:
        raise record.error(f"nested deeper than {MAX_DEPTH} levels")
    forms = sorted({"show", "all", "any"} & set(value))
    if len(forms) != 1:
        raise record.error(f"got {' and '.join(forms) or 'none'} of show, all, any, expected exactly one")
    (form,) = forms
    try:
        if form == "show":
            show = Show(_read_words(record, "show", Property), _read_words(record, "by", Assurance))
            record.close()
            return show
        items = record.items(form, max_items=MAX_BRANCHES)
        record.close()
        parts = tuple(
            _read(item, what=what, path=f"{path}.{form}[{index}]", depth=depth + 1)
            for index, item in enumerate(items)
        )
        return AllOf(parts) if form == "all" else AnyOf(parts)
    except Misuse as error:
        raise record.error(str(error)) from error


def _read_words(record: Record, field: str, kind: type[W]) -> tuple[W, ...]:
    value = record.take(field)
    items = [value] if isinstance(value, str) else value
    names = [word.value for word in kind]
    if not isinstance(items, list) or not all(isinstance(item, str) and item in names for item in items):
        raise record.error(f"got {str(value)[:80]!r}, expected a list out of {', '.join(names)}", field)
    if len(set(items)) != len(items):
        raise record.error("the same word twice", field)
    return tuple(kind(item) for item in items)


def _lacks(show: Show, evidence: Shows | None, sampling: Sampling) -> tuple[Reason, ...]:
    """List what one piece of evidence lacks; `None` stands for no evidence at all."""
    found = []
    for prop in show.properties:
        word = evidence.shows.get(prop) if evidence else None
        if word is Assurance.NOT_DRAWN and Assurance.REEXECUTED in show.by:
            found.extend(_luck(show, sampling))
        elif word not in show.by:
            found.append(_not_shown(prop, word, evidence, show))
    return _unique(found)


def _luck(show: Show, sampling: Sampling) -> list[Reason]:
    """Judge a job that was not drawn, by a demand that re-execution would have met."""
    if Assurance.NOT_DRAWN not in show.by:
        text = "the job was not drawn, and the policy takes re-executed jobs only"
        return [Reason("policy.not_drawn", text, Fault.NOBODY, "not_drawn", _list(show.by, "or"))]
    if not sampling.suffices:
        text = "the job was not drawn, at a sampling rate below the one that the policy demands"
        got, expected = f"{sampling.rate_ppm} ppm", f"at least {sampling.least_ppm} ppm"
        return [Reason("policy.sampling_rate", text, Fault.BUYER, got, expected)]
    return []


def _not_shown(prop: Property, word: Assurance | None, evidence: Shows | None, show: Show) -> Reason:
    expected = f"{prop} {_list(show.by, 'or')}"
    if evidence is None:
        got = "no evidence"
    else:
        got = f"{prop} {word} ({evidence.kind})" if word else f"nothing on {prop} ({evidence.kind})"
    text = f"the policy demands that {prop} is {_list(show.by, 'or')}, and no evidence shows it so"
    return Reason("policy.not_shown", text, Fault.PROVIDER, got, expected)


def _distance(reasons: tuple[Reason, ...]) -> tuple[bool, int]:
    """Order pieces of evidence by how near they come: those that failed blamelessly come first."""
    return _blames_provider(reasons), len(reasons)


def _blames_provider(reasons: Iterable[Reason]) -> bool:
    return any(reason.fault is Fault.PROVIDER for reason in reasons)


def _unique(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(reasons))


def _in_order(kind: type[W], words: Iterable[W]) -> tuple[W, ...]:
    given = frozenset(words)
    return tuple(word for word in kind if word in given)


def _check_parts(name: str, parts: tuple[Demand, ...]) -> None:
    if not 0 < len(parts) <= MAX_BRANCHES:
        raise Misuse(f"{name}: {len(parts)} demands, expected 1 to {MAX_BRANCHES}")


def _nested(head: str, parts: Iterable[Demand]) -> list[str]:
    lines = [head]
    for part in parts:
        first, *rest = in_words(part)
        lines += [f"  - {first}", *(f"    {line}" for line in rest)]
    return lines


def _list(words: Sequence[str], last: str) -> str:
    *head, tail = words
    return f"{', '.join(head)} {last} {tail}" if head else tail
