"""Patterns against all short names of a small alphabet."""

from __future__ import annotations

import itertools

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
