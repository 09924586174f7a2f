"""Patterns against all short names of a small alphabet."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.rules.patterns import covers, fits, normal, overlap

NAMES = ["".join(letters) for length in range(6) for letters in itertools.product("abc", repeat=length)]
patterns = st.text("ab?*", max_size=4)


@given(one=patterns, other=patterns)
def test_overlap_and_cover_mean_what_they_say(one: str, other: str) -> None:
    of_one = {name for name in NAMES if fits(one, name)}
    of_other = {name for name in NAMES if fits(other, name)}
    # Two patterns of four characters that have a name in common have one of at most eight, and with these letters of
    # five, or it differs only in what stars take.
    if of_one & of_other:
        assert overlap(one, other)
    if covers(one, other):
        assert of_other <= of_one
    assert fits(normal(one), "abca") == fits(one, "abca")


def plainly_fits(pattern: str, name: str) -> bool:
    """What a pattern means, by recursion."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return plainly_fits(pattern[1:], name) or (bool(name) and plainly_fits(pattern, name[1:]))
    return bool(name) and pattern[0] in ("?", name[0]) and plainly_fits(pattern[1:], name[1:])


@given(pattern=st.text("ab.?*", max_size=8), name=st.text("ab.\n", max_size=8))
def test_what_fits_is_what_a_plain_reading_says(pattern: str, name: str) -> None:
    assert fits(pattern, name) == plainly_fits(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 6 + "*b", "a" * 256),
        ("*_" * 100 + "*v2", "_" * 256),
        ("*" + "a" * 120 + "*" + "?" * 60 + "*b", "a" * 256),
        ("*a?" * 80 + "*b", "a" * 256),
    ],
)
def test_no_name_takes_long(pattern: str, name: str) -> None:
    # Seconds to days for a matcher that goes back; a shard would stand still meanwhile.
    started = time.process_time()
    assert not fits(pattern, name)
    assert fits(f"{pattern}*", f"{name}bv2bb")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("*", "a"),
        ("*", "*"),
        ("a*", "ab*"),
        ("a*b", "a*ab"),
        ("?*", "a*"),
        ("support_*", "support_eu_*"),
        ("*a*", "?a?"),
    ],
)
def test_what_covers(wide: str, narrow: str) -> None:
    assert covers(wide, narrow)


@pytest.mark.parametrize(("wide", "narrow"), [("a", "*"), ("a?", "a*"), ("a*", "*"), ("ab*", "a*"), ("a*b", "a*")])
def test_what_does_not(wide: str, narrow: str) -> None:
    assert not covers(wide, narrow)


@pytest.mark.parametrize(("one", "other"), [("a*", "b*"), ("a", "a?"), ("a*c", "*d"), ("??", "???")])
def test_what_has_no_name_in_common(one: str, other: str) -> None:
    assert not overlap(one, other)


def test_case_and_lines_are_no_wildcards() -> None:
    assert not fits("Support*", "support_agent")
    assert fits("a*", "a\nb")
    assert not fits("a.b", "axb")
