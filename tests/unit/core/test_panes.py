"""What a shard tells of a tool in a second: what counts for its breaker, and all that came of its calls."""

from __future__ import annotations

from collections import Counter

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import DeniedBy, Outcome, Pane, PaneKind
from fuseboard_streams.core import panes
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.ruleset import RuleSet
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import T0, Call, fold, make_shard, prepared
from tests.support.fleet import rules

OBJECTIVE = b'version: 1\nobjectives: {o: {metric: calls.ok, per: TOOL, target: ">99%", window: 1h, min: 9}}\n'


def measured() -> RuleSet:
    """An objective, and no rule about failures."""
    return compile_rules(OBJECTIVE, "test").rules


def told(shard: Shard, calls: list[Call], first: int = 0) -> list[Pane]:
    shard.begin()
    shard.fold_tool_calls(prepared(calls, shard.number, first))
    found = [each.record for each in shard.take_panes()]
    shard.encode_changes(256)
    shard.commit()
    return found


def sums(panes: list[Pane]) -> list[tuple[int, str | None, int, int, int, int]]:
    """Second, tool, what counts and the failures among it, all results and the bad ones among them."""
    return [
        ((each.ts - T0) // SECOND, each.tool, each.calls, each.failures, each.results, each.results_bad)
        for each in panes
        if each.kind is PaneKind.SUMS and each.tool is not None
    ]


def passed(panes: list[Pane]) -> list[int]:
    return [(each.ts - T0) // SECOND for each in panes if each.kind is PaneKind.MARKER]


def storm() -> list[Call]:
    """Ten failures of one actor, two good calls, and what says nothing of the tool."""
    failures = [Call(0.01 * i, Outcome.ERROR if i % 2 else Outcome.TIMEOUT, "a") for i in range(10)]
    others = [
        Call(0.5, Outcome.CANCELLED), Call(0.51, Outcome.DENIED, denied_by=DeniedBy.POLICY),
        Call(0.52, probe=True, gate=("ACTOR:default/a", 1)), Call(0.53, actor="b"), Call(0.54, actor="c"),
        Call(-400.0, Outcome.ERROR), Call(0.6, actor="b", tool="u"),
    ]  # fmt: skip
    return failures + others


def test_for_whom_it_failed_is_told_in_parts_that_a_topic_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each actor stands there once, and once more if it failed for it again; what counts is told once."""
    monkeypatch.setattr(panes, "MOST_LISTED", 4)
    calls = [Call(0.1 * i, Outcome.ERROR, name) for i, name in enumerate("abcdabca")]
    found = [
        each
        for each in told(make_shard(rules=rules(FailureParams())), [*calls, Call(1.5)])
        if each.kind is PaneKind.SUMS and each.tool is not None
    ]
    assert [(each.calls, each.failures, each.results, each.actors) for each in found] == [(8, 8, 8, 4), (0, 0, 0, 4)]
    times = Counter(actor for each in found for actor in each.actors_failing)
    assert sorted(times.values()) == [1, 2, 2, 2]
    assert [len(each.actors_failing) for each in found] == [4, 3]


def test_what_others_have_passed_does_not_begin_a_shards_time() -> None:
    """Another shard has read an hour of a backlog before this one begins with it."""
    calls = [Call(i, Outcome.ERROR if i > 300 else Outcome.OK) for i in range(320)]

    def decided(*, after: bool) -> list[Output]:
        shard = make_shard(rules=rules(FailureParams()))
        if after:
            marker = Pane(
                tenant="", kind=PaneKind.MARKER, ts=T0 + 3_600 * SECOND, source_shard=0, from_offset=0, next_offset=0,
                rules_version="test",
            )  # fmt: skip
            shard.begin()
            shard.fold_panes([Received(0, T0, marker)])
            shard.commit()
            assert (shard.stream_time, shard.clock) == (0, T0 + 3_600 * SECOND)
        outputs = fold(shard, calls)
        assert shard.stream_time == T0 + 319 * SECOND
        return outputs

    assert decided(after=True) == decided(after=False) != []


@pytest.mark.parametrize("ruleset", [rules(FailureParams()), measured()], ids=["followed", "measured"])
def test_results_are_not_capped(ruleset: RuleSet) -> None:
    """Three failures of an actor count for a breaker; a tool that no rule follows has results alone."""
    panes = told(make_shard(rules=ruleset), [*storm(), Call(1.5, actor="b", tool="u")])
    counts = [(0, "t", 5, 3, 12, 10), (0, "u", 1, 0, 1, 0)]
    if not ruleset.rules:
        counts = [(second, tool, 0, 0, *results) for second, tool, _, _, *results in counts]
    assert sums(panes) == counts


def test_a_second_under_way_survives_a_restore() -> None:
    shard, other = (make_shard(rules=measured()) for _ in range(2))
    shard.begin()
    shard.fold_tool_calls(prepared(storm()))
    assert sums([each.record for each in shard.take_panes()]) == []
    other.apply(shard.encode_changes(1 << 20).block)
    other.finish_restore()
    assert sums(told(other, [Call(1.5, actor="b")], 17)) == [(0, "t", 0, 0, 12, 10), (0, "u", 0, 0, 1, 0)]


@pytest.mark.parametrize("telling", [Outcome.OK, Outcome.DENIED])
def test_no_second_is_marked_before_it_is_told(telling: Outcome) -> None:
    """What tells that a second is over may say nothing of any tool; its pane must still come before the marker."""
    shard = make_shard(rules=rules(FailureParams()))
    first = told(shard, [Call(0.5), Call(1.5, telling)])
    then = told(shard, [Call(2.5)], 2)
    panes = first + then
    assert [each[0] for each in sums(panes)] == ([0, 1] if telling is Outcome.OK else [0])
    for second in (0, 1):
        marks = [i for i, each in enumerate(panes) if each.kind is PaneKind.MARKER and each.ts > T0 + second * SECOND]
        mine = [i for i, each in enumerate(panes) if each.kind is PaneKind.SUMS and each.ts == T0 + second * SECOND]
        assert not mine or mine[0] < marks[0]
    assert passed(panes)[-1] == 2


@pytest.mark.parametrize("known", [b"version: 1\n", OBJECTIVE])
def test_what_rules_ask_for_is_told_from_their_first_call_on(known: bytes) -> None:
    """A rule about failures that comes or goes within a second takes nothing from the results."""
    both = rules(FailureParams(), version="both")
    shard = make_shard(rules=both)
    told(shard, [Call(0.1), Call(0.2, Outcome.ERROR)])
    shard.begin()
    shard.change_rules(compile_rules(known, "test").rules, known)
    shard.encode_changes(256)
    shard.commit()
    panes = told(shard, [Call(0.3), Call(1.5)], 2)
    assert sums(panes) == ([(0, "t", 0, 0, 3, 1)] if known == OBJECTIVE else [])
