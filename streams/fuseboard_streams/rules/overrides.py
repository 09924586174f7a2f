"""Overrides: which of them change a rule, which meet on one target, and what becomes of the rule there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from fuseboard_streams.rules import patterns
from fuseboard_streams.rules.catalogue import TARGET_PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fuseboard_streams.rules.document import Document, Path, Plain
    from fuseboard_streams.rules.model import Match, RulesFile

MOST_COMBINATIONS: Final = 64
"""Ways in which overrides of one rule may meet on a target."""
MOST_OVERRIDES: Final = 500
"""Overrides of one rule."""
Names: TypeAlias = tuple[str, str, str]
"""Patterns of tenant, actor and tool."""
_LAST: Final = chr(0x10FFFF)
_PARTS: Final = ("tenant", "actor", "tool")
_EXCLUSIVE: Final = {"action": "ladder", "ladder": "action"}


@dataclass(frozen=True, slots=True)
class Layer:
    """What one override sets for one rule."""

    index: int
    """Of the override in the file."""
    match: Match
    fields: dict[str, Plain]

    @property
    def names(self) -> Names:
        """Its patterns."""
        return names(self.match)


def names(match: Match) -> Names:
    """The patterns of a match."""
    return match.tenant, match.actor, match.tool


def meet(one: Names, other: Names) -> bool:
    """Whether any target fits both."""
    return all(map(patterns.overlap, one, other))


def covers(wide: Names, narrow: Names) -> bool:
    """Whether every target that fits ``narrow`` surely fits ``wide``."""
    return all(map(patterns.covers, wide, narrow))


def narrower(narrow: Names, wide: Names) -> bool:
    """Whether one is strictly narrower than the other."""
    return covers(wide, narrow) and not covers(narrow, wide)


def reaches(match: Names, scope: str) -> bool:
    """Whether targets of a scope can fit: one has no name that its scope does not have."""
    return all(pattern == "*" or part in TARGET_PARTS[scope] for part, pattern in zip(_PARTS, match, strict=True))


def layers_of(file: RulesFile, document: Document, rule: str) -> tuple[Layer, ...]:
    """The overrides that set something of a rule or objective, in the order of the file."""
    overrides = document.content["overrides"] if file.overrides else []
    found = []
    for i, (override, raw) in enumerate(zip(file.overrides, _tables(overrides), strict=True)):
        fields = _table(raw["set"]).get(rule)
        if isinstance(fields, dict):
            found.append(Layer(i, override.match, fields))
    return tuple(found)


def _tables(value: Plain) -> list[dict[str, Plain]]:
    return [_table(each) for each in value] if isinstance(value, list) else []


def _table(value: Plain) -> dict[str, Plain]:
    return value if isinstance(value, dict) else {}


def written(document: Document, section: str, rule: str) -> dict[str, Plain]:
    """A rule or objective as it stands in the file."""
    return _table(_table(document.content.get(section)).get(rule))


def merged(base: dict[str, Plain], layers: Sequence[Layer]) -> dict[str, Plain]:
    """A rule as it is where all of some overrides fit, the later ones winning.

    Tables are merged field by field, but for one whose ``by`` changes, which is another; lists and all else are
    replaced. ``action`` replaces ``ladder`` and the other way round.
    """
    result = dict(base)
    for layer in layers:
        for name in layer.fields:
            result.pop(_EXCLUSIVE.get(name, ""), None)
        result = _merge(result, layer.fields)
    return result


def _merge(base: dict[str, Plain], fields: dict[str, Plain]) -> dict[str, Plain]:
    result = dict(base)
    for name, value in fields.items():
        before = result.get(name)
        if (
            isinstance(before, dict)
            and isinstance(value, dict)
            and value.get("by", before.get("by")) == before.get("by")
        ):
            result[name] = _merge(before, value)
        else:
            result[name] = value
    return result


def leaves(fields: dict[str, Plain], before: Path = ()) -> list[Path]:
    """The places of all values that a table sets, without the tables around them."""
    found: list[Path] = []
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            found += leaves(value, (*before, name))
        else:
            found.append((*before, name))
    return found


def clashes(one: Layer, later: Layer) -> list[Path]:
    """What two overrides both set, unless no target fits both or the later one is strictly narrower."""
    if not meet(one.names, later.names) or narrower(later.names, one.names):
        return []
    mine = [_as_set(path) for path in leaves(one.fields)]
    return [path for path in leaves(later.fields) if any(_same(_as_set(path), other) for other in mine)]


def _as_set(path: Path) -> Path:
    """``action`` and ``ladder`` replace each other: to set either is to set both."""
    return ("action", *path[1:]) if path[0] == "ladder" else path


def _same(one: Path, other: Path) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def combinations(layers: Sequence[Layer]) -> list[tuple[Layer, ...]] | None:
    """The sets of overrides that can be all those that fit a target, each after those that it contains.

    A set without an override that covers one of its members can be no target's, and is left out: nested patterns make
    a chain, not all its subsets.

    Returns:
        None if there are more than ``MOST_COMBINATIONS`` besides the overrides themselves, or more than
        ``MOST_OVERRIDES`` of these.
    """
    if len(layers) > MOST_OVERRIDES:
        return None
    sets = _sets(tuple(layer.names for layer in layers))
    return None if sets is None else [tuple(layers[i] for i in members) for members in sets]


@lru_cache(maxsize=64)
def _sets(given: tuple[Names, ...]) -> tuple[tuple[int, ...], ...] | None:
    """The same of patterns by their places; checking and compiling ask for the same ones again and again."""
    most, crossing = MOST_COMBINATIONS + len(given), 0
    first = {each: i for i, each in reversed(list(enumerate(given)))}
    meeting: list[set[int]] = []
    wider: list[set[int]] = []
    for i, beside in enumerate(neighbours(given)):
        meeting.append(beside)
        wider.append({i} | {j for j in beside if covers(given[j], given[i])})
        if first[given[i]] == i:
            # Each two patterns that meet, and of which neither contains the other, are a set at least.
            crossing += sum(
                j < i and first[given[j]] == j and not covers(given[i], given[j]) for j in beside - wider[i]
            )
        if crossing > most:
            return None
    found: set[frozenset[int]] = set()
    waiting: list[frozenset[int]] = [frozenset()]
    while waiting:
        here = waiting.pop()
        for i in set.intersection(*(meeting[each] for each in here)) - here if here else range(len(given)):
            more = here | wider[i]
            if more in found or not all(more <= meeting[each] for each in more):
                continue
            found.add(more)
            waiting.append(more)
            if len(found) > most:
                return None
    return tuple(sorted((tuple(sorted(members)) for members in found), key=lambda each: (len(each), each)))


def neighbours(given: Sequence[Names]) -> Iterator[set[int]]:
    """For each of n, which of them have targets in common with it, itself among them.

    Only those whose letters before the first wildcard go together are compared at all, so that n that lie apart take
    time that grows with n.
    """
    heads = [_Heads([patterns.ends(each[part])[0] for each in given]) for part in range(3)]
    for i, mine in enumerate(given):
        candidates = min((each.beside(i) for each in heads), key=len)
        yield {j for j in candidates if meet(mine, given[j])}


class _Heads:
    """Finds those of n texts that begin with a text, or that it begins with."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._order = sorted(range(len(texts)), key=texts.__getitem__)
        self._sorted = [texts[i] for i in self._order]

    def beside(self, i: int) -> list[int]:
        mine = self._texts[i]
        if not mine:
            return self._order
        found = self._order[bisect_left(self._sorted, mine) : bisect_left(self._sorted, mine + _LAST)]
        for length in range(len(mine)):
            short = mine[:length]
            found += self._order[bisect_left(self._sorted, short) : bisect_right(self._sorted, short)]
        return found
