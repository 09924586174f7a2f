"""Patterns of names with ``*`` for any characters and ``?`` for any one: what fits, what overlaps, what is narrower."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def normal(pattern: str) -> str:
    """The same pattern in one form: of a run of wildcards first the ``?``, then one ``*``."""
    return re.sub(r"[*?]{2,}", lambda run: "?" * run[0].count("?") + ("*" if "*" in run[0] else ""), pattern)


_WILD = frozenset("*?")


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = ["".join("." if char == "?" else re.escape(char) for char in part) for part in normal(pattern).split("*")]
    if len(parts) == 1:
        return re.compile(parts[0], re.DOTALL)
    # What stands between two stars is best taken where it comes first: such a group is never tried again, or names that
    # agents choose could make a match take exponential time.
    between = "".join(f"(?>.*?{part})" for part in parts[1:-1])
    return re.compile(f"{parts[0]}{between}.*{parts[-1]}", re.DOTALL)


def fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern as a whole, upper and lower case told apart.

    Takes time that grows with the product of the two lengths at most, whatever they are.
    """
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=4096)
def ends(pattern: str) -> tuple[str, str]:
    """What every name that fits a pattern begins and ends with: all before the first wildcard, all after the last."""
    parts = normal(pattern).replace("?", "*").split("*")
    return parts[0], parts[-1]


def overlap(one: str, other: str) -> bool:
    """Whether any name fits both patterns."""
    if one == "*" or other == "*":
        return True
    (head, tail), (its_head, its_tail) = ends(one), ends(other)
    if not (head.startswith(its_head) or its_head.startswith(head)):
        return False
    return (tail.endswith(its_tail) or its_tail.endswith(tail)) and _overlap(one, other)


@lru_cache(maxsize=65_536)
def _overlap(one: str, other: str) -> bool:
    if not _WILD.intersection(one):
        return fits(other, one)
    if not _WILD.intersection(other):
        return fits(one, other)
    one, other = normal(one), normal(other)
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if i == len(one) and j == len(other):
            return True
        for step in _steps(one[i : i + 1], other[j : j + 1], i, j):
            if step not in reached:
                reached.add(step)
                waiting.append(step)
    return False


def _steps(a: str, b: str, i: int, j: int) -> list[tuple[int, int]]:
    """The places in two patterns that can follow when both take the same character, or a star takes none."""
    found = []
    if a == "*":
        found.append((i + 1, j))
    if b == "*":
        found.append((i, j + 1))
    if a and b and (a == b or "?" in (a, b) or "*" in (a, b)):
        found.append((i if a == "*" else i + 1, j if b == "*" else j + 1))
    return found


@lru_cache(maxsize=65_536)
def covers(wide: str, narrow: str) -> bool:
    """Whether every name that fits ``narrow`` surely fits ``wide``.

    For these patterns it is enough to read the narrow one as text, in which a ``?`` can be taken by ``?`` or ``*`` and
    a ``*`` by ``*`` alone; a true answer is never wrong, and a false one is wrong only where ``wide`` has letters that
    every name of ``narrow`` happens to have.
    """
    if not _WILD.intersection(narrow):
        return fits(wide, narrow)
    wide, narrow = normal(wide), normal(narrow)
    places = _closed({0}, wide)
    for char in narrow:
        following = set()
        for place in places:
            here = wide[place : place + 1]
            if here == "*":
                following.add(place)
            elif here and (here == char or here == "?") and char != "*":
                following.add(place + 1)
        places = _closed(following, wide)
    return len(wide) in places


def _closed(places: set[int], pattern: str) -> set[int]:
    """With the places behind the stars that may take nothing."""
    found = set(places)
    for place in places:
        while pattern[place : place + 1] == "*":
            place += 1
            found.add(place)
    return found
