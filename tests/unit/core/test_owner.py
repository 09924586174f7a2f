"""The owner of tools: what it keeps, what it forgets, and what its breadth asks for."""

from __future__ import annotations

from collections.abc import Iterable

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Pane, PaneKind
from fuseboard_streams.core.owner import Found, Owner
from fuseboard_streams.core.rulebook import Rulebook
from fuseboard_streams.core.settings import CoreSettings
from tests.support.fleet import rules

WEEK_S = 7 * 86_400


def owner() -> Owner:
    return Owner(Rulebook(CoreSettings(), rules(FailureParams(known_null=0.01))).pooled, WEEK_S)


def pane(
    second: int, calls: int, failures: int, *, failing: Iterable[int] = (), callers: int = 10, shard: int = 0
) -> Pane:
    return Pane(
        tenant="t", tool="pay", kind=PaneKind.SUMS, ts=second * 1_000_000, source_shard=shard, from_offset=0,
        next_offset=0, calls=calls, failures=failures, actors=callers, actors_failing=tuple(failing), rules_version="v",
    )  # fmt: skip


def stepped(owned: Owner, second: int, *panes: Pane) -> list[Found]:
    for each in panes:
        owned.take(each, second)
    return owned.step(second)


def twice(*actors: int) -> list[int]:
    return [actor for actor in actors for _ in range(2)]


def test_evidence_waits_for_breadth() -> None:
    """Two actors of ten are too few; when a third one suffers, the tool trips with what came before."""
    owned = owner()
    assert stepped(owned, 1, pane(1, 20, 20, failing=[*twice(1, 2), 3])) == []
    (found,) = stepped(owned, 2, pane(2, 1, 1, failing=[3]))
    assert (found.tripped, found.suspects, found.callers, found.calls, found.since) == (True, 3, 10, 21, 1)


def test_a_share_of_the_callers_of_all_shards_must_suffer() -> None:
    owned = owner()
    many = pane(1, 20, 0, callers=90, shard=1)
    assert stepped(owned, 1, many, pane(1, 20, 20, failing=twice(*range(5)))) == []
    more = pane(2, 10, 10, failing=twice(*range(10, 19)), shard=1, callers=90)
    assert stepped(owned, 2, more, pane(2, 5, 5, failing=twice(*range(10)))) == []
    (found,) = stepped(owned, 3, pane(3, 5, 5, failing=twice(30)))
    assert (found.tripped, found.suspects, found.callers) == (True, 20, 100)


def test_a_second_in_which_nothing_failed_takes_nobody_back() -> None:
    owned = owner()
    stepped(owned, 1, pane(1, 20, 20, failing=twice(1, 2)), pane(1, 5, 0, shard=1, callers=5))
    stepped(owned, 2, pane(2, 1, 0), pane(2, 2, 2, failing=[7, 7], shard=1, callers=5))
    (found,) = stepped(owned, 3, pane(3, 1, 0), pane(3, 1, 1, failing=[8], shard=1, callers=5))
    assert (found.tripped, found.suspects) == (True, 3)


def test_failures_before_the_onset_count_for_nobody() -> None:
    """Two actors had it fail twice; then all was well again, until a third one alone is in trouble."""
    owned = owner()
    stepped(owned, 1, pane(1, 20, 4, failing=twice(1, 2)))
    for second in range(2, 40):
        stepped(owned, second, pane(second, 50, 0))
    assert stepped(owned, 40, pane(40, 20, 20, failing=twice(3))) == []
    (found,) = stepped(owned, 41, pane(41, 2, 2, failing=[1, 2])) or stepped(owned, 42, pane(42, 2, 2, failing=[1, 2]))
    assert (found.since, found.suspects) == (40, 3)


def test_what_was_long_ago_counts_no_more() -> None:
    owned = owner()
    assert stepped(owned, 1, pane(1, 20, 20, failing=twice(1, 2))) == []
    assert stepped(owned, 700, pane(700, 20, 20, failing=twice(3, 4))) == []
    assert [each[0] for each in (owned.saved(("t", "pay")) or {})["failing"]] == [3, 4]


def test_while_its_breaker_holds_nothing_counts_and_then_it_begins_anew() -> None:
    owned = owner()
    stepped(owned, 1, pane(1, 10, 2, failing=[1, 2]))
    owned.freeze(("t", "pay"), "tool-failing")
    assert owned.frozen_by(("t", "pay")) == "tool-failing"
    assert stepped(owned, 2, pane(2, 50, 50, failing=twice(*range(9)))) == []
    owned.freeze(("t", "pay"), None)
    saved = owned.saved(("t", "pay"))
    assert saved is not None
    assert set(saved["state"]["r"]) == {0.0}


def test_an_idle_tool_is_forgotten_whether_it_is_swept_or_not() -> None:
    def ends(*, sweeps: bool) -> dict[str, object] | None:
        owned = owner()
        stepped(owned, 1, pane(1, 10, 2, failing=[1, 2]))
        if sweeps:
            other = Pane(
                tenant="t", tool="mail", kind=PaneKind.SUMS, ts=0, source_shard=0, from_offset=0, next_offset=0,
                calls=1, rules_version="v",
            )  # fmt: skip
            stepped(owned, WEEK_S + 10, other)
            assert set(owned.tools) == {("t", "mail")}
            assert owned.saved(("t", "pay")) is None
        stepped(owned, WEEK_S + 20, pane(WEEK_S + 20, 4, 0))
        return owned.saved(("t", "pay"))

    fresh = owner()
    stepped(fresh, WEEK_S + 20, pane(WEEK_S + 20, 4, 0))
    assert ends(sweeps=True) == ends(sweeps=False) == fresh.saved(("t", "pay"))


def test_what_is_saved_is_everything() -> None:
    owned, again = owner(), owner()
    stepped(owned, 1, pane(1, 10, 2, failing=[1, 2]))
    owned.take(pane(9, 30, 30, failing=twice(*range(8))), 9)
    saved = owned.saved(("t", "pay"))
    assert saved is not None
    sums = owned.saved_sums(9)
    assert sums is not None
    again.restore([(("t", "pay"), saved)], {9: sums})
    assert again.step(9) == owned.step(9) != []
    assert again.saved(("t", "pay")) == owned.saved(("t", "pay"))
