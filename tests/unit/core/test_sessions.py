"""Stuck sessions against one call at a time, whatever the cuts."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from fuseboard_schemas.records import Scope
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.ruleset import Match, Rule, RunsTest
from fuseboard_streams.core.sessions import HELD_US, MOST, SessionCalls, Sessions, sessions_table
from fuseboard_streams.core.settings import SECOND, CoreSettings
from tests.unit.core.rules_support import actors, book_of, opened, rule

T0_S = 1_767_225_600
TOOLS = ("search", "book", "poll_status")
RULES = (
    rule(
        "loops", "calls.repeated", Scope.SESSION, RunsTest(5, 3, ("poll_*",)), (Match(actor="agent-1"), RunsTest(4, 6))
    ),
)
Call = tuple[int, int, int, int, bool, int]
"""Actor, trace, tool, arguments (0: unknown), whether it failed, seconds."""


def subject(rules: tuple[Rule, ...] = RULES) -> Sessions:
    settings, book = CoreSettings(), book_of(*rules)
    return Sessions(opened(sessions_table(settings)), actors(book, 3), book, settings, lambda *_: False)


def calls(seed: int, n: int = 1_500) -> list[Call]:
    rng = random.Random(seed)
    now, made = T0_S, []
    for _ in range(n):
        now += int(4_000 * rng.random()) if rng.random() < 0.01 else rng.randrange(2)
        tool, arguments = rng.choice((0, 1, 2)), rng.choice((0, 7, 7, 7, 9))
        made.append((rng.randrange(3), rng.randrange(1, 4), tool, arguments, rng.random() < 0.6, now))
    return made


def fold(sessions: Sessions, part: list[Call]) -> list[tuple[int, str, str, int]]:
    actor, trace, tool, arguments, failed, seconds = (np.array(each) for each in zip(*part, strict=True))
    chosen = SessionCalls(
        np.arange(len(part)),
        actor,
        trace.astype(np.uint64),
        tool,
        arguments.astype(np.uint64),
        failed,
        (seconds - EPOCH_S).astype(np.int32),
        seconds * SECOND,
    )
    found = sessions.fold(chosen, lambda number: TOOLS[number], lambda at: f"trace-{part[at][1]}")
    assert all(f.until_us == f.time_us + HELD_US and f.target.scope is Scope.SESSION for f in found)
    return [(f.time_us // SECOND, f.target.actor or "", f.target.trace_id or "", f.facts.calls or 0) for f in found]


def model(made: list[Call]) -> list[tuple[int, str, str, int]]:
    found = []
    state: dict[tuple[int, int], list[object]] = {}
    for actor, trace, tool, arguments, failed, now in made:
        row = state.setdefault((actor, trace), [0, None, 0, now])
        if now - int(str(row[3])) > 3_600:
            row[:3] = [0, None, 0]
        row[3] = now
        row[0] = int(str(row[0])) + 1 if failed else 0
        # Only the rule as it is written lets anybody poll.
        polled = TOOLS[tool].startswith("poll_") and actor != 1
        if not polled:
            same = arguments != 0 and row[1] == (tool, arguments)
            row[2] = int(str(row[2])) + 1 if same else 1
            row[1] = (tool, arguments) if arguments else None
        most, alike = (4, 6) if actor == 1 else (5, 3)
        failures, identical = int(str(row[0])), int(str(row[2]))
        if failed and failures >= most:
            found.append((now, f"agent-{actor}", f"trace-{trace}", failures))
        elif identical >= alike and not polled:
            found.append((now, f"agent-{actor}", f"trace-{trace}", identical))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    made = calls(seed)
    expected = sorted(model(made))
    assert len(expected) > 20
    rng = random.Random(seed)
    for pieces in (0, 20, len(made) - 1):
        gaps = {i for i in range(1, len(made)) if made[i][5] - made[i - 1][5] > 60}
        cuts = [0, *sorted(gaps | set(rng.sample(range(1, len(made)), pieces))), len(made)]
        sessions = subject()
        found = [each for a, b in pairwise(cuts) for each in fold(sessions, made[a:b])]
        assert sorted(found) == expected


def test_new_traces_beyond_the_limit_are_not_followed_and_are_counted() -> None:
    sessions = subject()
    sessions._table.limit = 2
    part = [(0, trace, 0, 5, True, T0_S) for trace in (1, 2, 3) for _ in range(5)]
    found = fold(sessions, part)
    assert len({trace for _, _, trace, _ in found}) == 2
    assert sessions.untracked == 5


def test_runs_beyond_what_one_byte_holds_are_counted_however_they_are_cut() -> None:
    part = [(0, 1, 0, 0, True, T0_S + i // 10) for i in range(400)]
    whole, torn = (subject((rule("long", "calls.repeated", Scope.SESSION, RunsTest(300, 5)),)) for _ in range(2))
    expected = [(T0_S + i // 10, "agent-0", "trace-1", i + 1) for i in range(299, 400)]
    assert fold(whole, part) == expected
    assert [each for call in part for each in fold(torn, [call])] == expected


def test_counts_stop_where_two_bytes_end_and_rules_that_ask_for_more_never_fire() -> None:
    sessions = subject((rule("long", "calls.repeated", Scope.SESSION, RunsTest(MOST + 1, 5)),))
    assert fold(sessions, [(0, 1, 0, 0, True, T0_S)] * (MOST + 2)) == []
    assert fold(sessions, [(0, 1, 0, 0, True, T0_S)] * 2) == []


def test_a_session_that_is_held_is_not_looked_at_call_by_call() -> None:
    asked = []
    sessions = subject()
    sessions._settled = lambda view, number, target, now, until: not asked.append((target.trace_id, now))
    assert fold(sessions, [(0, 1, 0, 0, True, T0_S + i) for i in range(30)]) == []
    assert asked == [("trace-1", (T0_S + 29) * SECOND)]
    assert fold(sessions, [(0, 1, 0, 0, False, T0_S + 30)]) == []
    assert len(asked) == 1


def test_a_person_s_reset_begins_a_session_anew_for_that_rule_alone() -> None:
    both = tuple(rule(name, "calls.repeated", Scope.SESSION, RunsTest(5, 9)) for name in ("one", "other"))
    sessions = subject(both)
    fold(sessions, [(0, trace, 0, 0, True, T0_S) for trace in (1, 2) for _ in range(6)])
    sessions.forget("one", 0, 1)
    sessions.forget("one", 0, 3)
    part = [(0, trace, 0, 0, True, T0_S) for trace in (1, 2)]
    assert [each[2:] for each in fold(sessions, part)] == [("trace-2", 7), ("trace-1", 7), ("trace-2", 7)]
