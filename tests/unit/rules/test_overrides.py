"""Overrides: what they make of a rule, and which of them can meet on a target."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.core import ruleset
from fuseboard_streams.core.variants import matches
from fuseboard_streams.rules import overrides
from fuseboard_streams.rules.model import Match
from fuseboard_streams.rules.overrides import (
    MOST_COMBINATIONS,
    Layer,
    clashes,
    combinations,
    leaves,
    meet,
    merged,
    narrower,
    neighbours,
    reaches,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["".join(letters) for length in range(1, 5) for letters in itertools.product("ab", repeat=length)]


def layer(index: int, actor: str, tenant: str = "*", tool: str = "*", **fields: object) -> Layer:
    return Layer(index, Match(tenant=tenant, actor=actor, tool=tool), fields)  # type: ignore[arg-type]


def test_tables_are_merged_and_all_else_is_replaced() -> None:
    base = {"test": {"kind": "x", "warn": 1, "baseline": {"floor": 1, "known": 2}}, "mode": "warn", "list": [1, 2]}
    one = layer(0, "a", test={"warn": 5, "baseline": {"floor": 9}}, list=[3])
    two = layer(1, "a", test={"warn": 6}, severity="page")
    assert merged(base, [one, two]) == {
        "test": {"kind": "x", "warn": 6, "baseline": {"floor": 9, "known": 2}}, "mode": "warn", "list": [3],
        "severity": "page",
    }  # fmt: skip
    assert base["test"] == {"kind": "x", "warn": 1, "baseline": {"floor": 1, "known": 2}}


def test_action_and_ladder_replace_each_other() -> None:
    assert merged({"action": "HALT"}, [layer(0, "a", ladder=[1])]) == {"ladder": [1]}
    assert merged({"ladder": [1]}, [layer(0, "a", action="HALT")]) == {"action": "HALT"}
    assert clashes(layer(0, "a", ladder=[1]), layer(1, "a", action="HALT")) == [("action",)]


def test_another_recovery_keeps_nothing_of_the_one_before() -> None:
    base = {"recovery": {"by": "probe", "cooldown": "30s"}}
    assert merged(base, [layer(0, "a", recovery={"by": "person"})]) == {"recovery": {"by": "person"}}
    assert merged(base, [layer(0, "a", recovery={"cooldown": "9s"})]) == {"recovery": {"by": "probe", "cooldown": "9s"}}


def test_leaves_are_what_is_set() -> None:
    assert leaves({"a": 1, "b": {"c": [1], "d": {}}}) == [("a",), ("b", "c"), ("b", "d")]


@pytest.mark.parametrize(
    ("one", "later", "clash"),
    [
        (("a*", {"mode": "warn"}), ("ab*", {"mode": "shadow"}), False),
        (("ab*", {"mode": "warn"}), ("a*", {"mode": "shadow"}), True),
        (("a*", {"mode": "warn"}), ("a*", {"mode": "warn"}), True),
        (("a*", {"mode": "warn"}), ("*b", {"mode": "shadow"}), True),
        (("a*", {"mode": "warn"}), ("b*", {"mode": "shadow"}), False),
        (("a*", {"mode": "warn"}), ("*b", {"severity": "page"}), False),
        (("a*", {"test": {"warn": 1}}), ("*b", {"test": {"trip": 1}}), False),
        (("a*", {"recovery": None}), ("*b", {"recovery": {"by": "person"}}), True),
    ],
)
def test_one_field_set_twice(
    one: tuple[str, dict[str, object]], later: tuple[str, dict[str, object]], clash: bool
) -> None:
    assert bool(clashes(layer(0, one[0], **one[1]), layer(1, later[0], **later[1]))) is clash


def test_narrower_means_strictly() -> None:
    assert narrower(("*", "ab", "*"), ("*", "a*", "*"))
    assert not narrower(("*", "a*", "*"), ("*", "a*", "*"))
    assert not narrower(("*", "ab", "*"), ("t", "a*", "*"))


def test_a_pattern_for_a_name_that_targets_have_not_reaches_none() -> None:
    assert reaches(("t", "a", "x*"), "ACTOR_TOOL")
    assert not reaches(("*", "*", "x*"), "ACTOR")
    assert not reaches(("*", "a", "*"), "TOOL")
    assert not reaches(("*", "a", "*"), "TENANT")
    assert reaches(("*", "a", "*"), "SESSION")


patterns = st.text("ab?*", min_size=1, max_size=3)


@given(st.lists(patterns, max_size=5))
def test_for_every_target_the_last_set_that_fits_is_all_that_fit(given_patterns: list[str]) -> None:
    layers = [layer(i, pattern) for i, pattern in enumerate(given_patterns)]
    sets = combinations(layers)
    assert sets is not None
    for name in NAMES:
        fitting = tuple(each for each in layers if _fits(each, name))
        last = next((each for each in reversed(sets) if all(_fits(member, name) for member in each)), ())
        assert last == fitting


def _fits(each: Layer, name: str) -> bool:
    return matches(ruleset.Match(each.match.tenant, each.match.actor, each.match.tool), "t", name, None)


def test_nested_patterns_make_a_chain() -> None:
    layers = [layer(i, "a" * i + "*") for i in range(30)]
    assert [len(each) for each in combinations(layers) or []] == list(range(1, 31))


def test_patterns_that_do_not_meet_make_no_sets() -> None:
    layers = [layer(i, f"actor-{i}") for i in range(300)]
    assert [len(each) for each in combinations(layers) or []] == [1] * 300


def test_too_many_sets_are_refused_and_do_not_take_long() -> None:
    assert combinations([layer(i, f"*{i}*") for i in range(40)]) is None
    assert len(combinations([layer(i, f"*{i}*") for i in range(6)]) or []) == 63 <= MOST_COMBINATIONS
    assert combinations([layer(i, f"actor-{i}") for i in range(501)]) is None


@given(st.lists(st.tuples(patterns, patterns, patterns), max_size=6))
def test_neighbours_are_all_that_meet(names: list[tuple[str, str, str]]) -> None:
    expected = [{j for j, other in enumerate(names) if meet(each, other)} for each in names]
    assert list(neighbours(names)) == expected


def test_the_same_patterns_twice_are_no_more_sets() -> None:
    layers = [layer(i, "a*" if i < 30 else "*b") for i in range(60)]
    assert [len(each) for each in combinations(layers) or []] == [30, 30, 60]


@pytest.mark.parametrize("form", ["team-{}", "team-{}-*", "*-{}-team", "{}-?"])
def test_overrides_that_lie_apart_are_not_compared_pair_by_pair(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counted(one: str, other: str) -> bool:
        nonlocal asked
        asked += 1
        return before(one, other)

    before = overrides.patterns._overlap
    monkeypatch.setattr(overrides.patterns, "_overlap", counted)
    layers = [layer(i, form.format(1_000 + i)) for i in range(500)]
    assert [len(each) for each in combinations(layers) or []] == [1] * 500
    assert asked <= 500


def test_overrides_that_all_meet_are_refused_before_all_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 0

    def counted(given: list[tuple[str, str, str]]) -> Iterator[set[int]]:
        nonlocal rows
        for each in neighbours(given):
            rows += 1
            yield each

    monkeypatch.setattr(overrides, "neighbours", counted)
    assert combinations([layer(i, f"*={i}=*") for i in range(500)]) is None
    assert 0 < rows < 50
