"""Breakers with several holds, orders of people, and rules that hold nothing back: what people are shown."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from fuseboard_schemas.records import (
    Action,
    BreakerState,
    Cause,
    Hold,
    Mode,
    Recovery,
    Rules,
    RunAccess,
    Scope,
    Signal,
    SignalLevel,
    ToolAccess,
)
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.cli.monitor import NOTHING_HELD_BACK, held_nothing_back
from fuseboard_streams.cli.probeable import Probeable
from fuseboard_streams.cli.render.breakers import breaker_words, breakers_table, next_step
from fuseboard_streams.cli.render.top import top_lines
from fuseboard_streams.core import rulings
from fuseboard_streams.rules.compile import version_of
from fuseboard_streams.worker.rules_source import RULES_KEY
from tests.cli.samples import MINUTE, NOW, SECOND, command
from tests.cli.support import Board, run
from tests.cli.test_render import snapshot
from tests.unit.rules.example import EXAMPLE, changed


def hold(rule: str, action: Action, recovery: Recovery, minutes: int = 1) -> Hold:
    return Hold(rule=rule, action=action, since=NOW - minutes * MINUTE, recovery=recovery)


FAILING = hold("tool-failing", Action.DISABLE_TOOL, Recovery.PROBE)
SPENDING = hold("cost-runaway", Action.FAST_MODEL_ONLY, Recovery.CLEAR, 2)
CAPPED = hold("day-cap", Action.HALT, Recovery.WINDOW, 3)
FORBIDDEN = hold("forbidden", Action.HALT, Recovery.PERSON, 4)


def held(*holds: Hold, **changes: Any) -> Any:
    given = {"retry_at": None, "holds": holds, "scope": Scope.ACTOR, "tool": None, "action": Action.HALT}
    return command(**{**given, "tool_access": ToolAccess.ON, "run": RunAccess.HALT, **changes})


def words(breaker: Any, **more: Any) -> str:
    return "\n".join(breaker_words(breaker, [], None, NOW, **more))


def test_every_hold_says_what_releases_it() -> None:
    text = words(held(FAILING, SPENDING, CAPPED, FORBIDDEN), quiets={"cost-runaway": "5m"})
    assert (
        "  Holds       tool-failing asks for DISABLE_TOOL since 60 s ago, until its probes come back clean; they wait "
        "until all other holds are released\n"
        "              cost-runaway asks for FAST_MODEL_ONLY since 2 min ago, until the condition has been gone "
        "for 5m\n"
        "              day-cap asks for HALT since 3 min ago, until its window is over at 2026-11-24 00:00:00 UTC "
        "(in 20 h)\n"
        "              forbidden asks for HALT since 4 min ago, until a person releases it: "
        "`fuseboard breakers reset`\n"
    ) in text
    assert "until the condition is gone\n" in words(held(SPENDING))


def test_the_window_of_a_session_is_an_hour() -> None:
    session = held(CAPPED, scope=Scope.SESSION, trace_id="t")
    assert "until its window is over at 2026-11-23 04:57:00 UTC (in 57 min)" in words(session)
    assert next_step(session, NOW) == "window over in 57 min"


@pytest.mark.parametrize(
    ("holds", "text"),
    [
        ((SPENDING,), "until the condition is gone"),
        ((CAPPED,), "window over in 20 h"),
        ((FORBIDDEN,), "waits for a person"),
        ((FAILING, SPENDING), "until the condition is gone, then probes"),
        ((SPENDING, FORBIDDEN, FORBIDDEN), "until the condition is gone, waits for a person"),
        ((), "waits for a person"),
    ],
)  # fmt: skip
def test_what_an_open_breaker_waits_for_that_is_not_probed(holds: tuple[Hold, ...], text: str) -> None:
    assert next_step(held(*holds), NOW) == text


def test_several_holds_are_rows_below_their_breaker() -> None:
    table = breakers_table([held(SPENDING, FORBIDDEN), held(SPENDING, actor="b", ts=NOW - MINUTE)], NOW)
    assert [re.split(" {2,}", line) for line in table[1:4]] == [
        ["OPEN", "HALT", "support_agent_v4", "12 s ago", "10^6.31", "13/21", "0.5%",
         "until the condition is gone, waits for a person"],
        ["", "FAST_MODEL_ONLY", "└ cost-runaway", "2 min ago", "until the condition is gone"],
        ["", "HALT", "└ forbidden", "4 min ago", "waits for a person"],
    ]  # fmt: skip
    assert len(table) == 5
    probed = held(FAILING, hold("tool-slow", Action.REQUIRE_APPROVAL, Recovery.PROBE), retry_at=NOW + 18 * SECOND)
    assert [line.endswith("  probes in 18 s") for line in breakers_table([probed], NOW)[1:]] == [True, True, True]


def test_an_order_says_who_gave_it_why_and_until_when() -> None:
    forced = held(
        SPENDING, state=BreakerState.FORCED_OPEN, person="an\x1bna", reason="looking", expires_at=NOW + 30 * MINUTE
    )
    assert next_step(forced, NOW) == "order of an\\x1bna ends in 30 min"
    rows = breakers_table([forced], NOW)[2:]
    assert rows[0].split() == ["└", "an\\x1bna:", "looking"]
    assert rows[1].split()[:3] == ["FAST_MODEL_ONLY", "└", "cost-runaway"]
    assert "ordered by an\\x1bna, until 2026-11-23 04:30:00.000 UTC (in 30 min)" in words(forced)
    for_good = held(state=BreakerState.FORCED_OPEN, person="anna", expires_at=None)
    assert next_step(for_good, NOW) == "order of anna, until it is reset"
    assert "ordered by anna, until it is reset" in words(for_good)


def test_an_order_lies_in_another_topic_than_calls() -> None:
    ordered = held(state=BreakerState.FORCED_OPEN, cause=Cause.OVERRIDE, person="anna", event_id="o1", source_offset=7)
    assert "  Decided by  order o1, overrides 2@7" in words(ordered, shard=2)
    assert not Probeable("t.").note(ordered)
    assert Probeable("t.").note(held(event_id="e1", source_offset=7))


def test_an_order_among_the_latest_transitions_names_its_person_and_reason() -> None:
    ordered = held(
        state=BreakerState.FORCED_CLOSED, cause=Cause.OVERRIDE, person="anna", reason="a\x1btest", actor="a\x1bb",
        rule="manual", rules_version="",
    )  # fmt: skip
    lines = top_lines(snapshot(transitions=[ordered, command()]))
    assert lines[-2] == "03:59:48.000  FORCED_CLOSED  a\\x1bb  anna: a\\x1btest"
    assert "  Rule        manual (enforce, page), an order of a person\n" in words(ordered)


# --- rules that hold nothing back


def watched(**changes: Any) -> Signal:
    values: dict[str, Any] = {
        "signal_id": "s1",
        "ts": NOW - 11 * SECOND,
        "source": "fuseboard/day-cap",
        "tenant": "default",
        "scope": Scope.ACTOR,
        "actor": "support_agent_v4",
        "rule": "day-cap",
        "level": SignalLevel.INFO,
        "metric": "spend.usd",
        "reason": "$51 of $50" + rulings._ONLY[Mode.SHADOW],
    }
    return Signal(**{**values, **changes})


def test_which_signals_are_trips_that_hold_nothing_back() -> None:
    assert all(NOTHING_HELD_BACK in words for words in rulings._ONLY.values())
    assert held_nothing_back(watched())
    assert held_nothing_back(watched(level=SignalLevel.WARN))
    assert not held_nothing_back(watched(level=SignalLevel.TRIP))
    assert not held_nothing_back(watched(reason="suspect", level=SignalLevel.WARN))
    assert not held_nothing_back(watched(source="judge"))
    assert not held_nothing_back(watched(reason=None))


def test_top_has_them_among_the_latest() -> None:
    warning = watched(level=SignalLevel.WARN, ts=NOW, reason="w")
    lines = top_lines(snapshot(watched=[warning, watched()]))
    latest = lines[lines.index("latest transitions") + 1 :]
    assert latest[0] == "04:00:00.000  warning    support_agent_v4  day-cap: w"
    assert [line[14:23] for line in latest] == ["warning  ", "HALF_OPEN", "in shadow", "OPEN     ", "CLOSED   "]
    assert "(the rule is in shadow: nothing is held back)" in latest[2]
    assert max(map(len, top_lines(snapshot(watched=[watched()]), columns=80)[-4:])) <= 80


@pytest.fixture
def board(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> Board:
    topics(broker, unique_prefix, 3)
    return Board(broker, unique_prefix, 3)


def test_top_reads_them_from_the_signals(board: Board) -> None:
    for signal in (watched(), watched(signal_id="s2", level=SignalLevel.TRIP), watched(signal_id="s3", source="x")):
        board.put("signals", signal, "default/support_agent_v4", 1)
    board.raw("signals", b"garbage")
    board.flush()
    found = json.loads(run("top", "--once", "--json", *board.options).stdout)
    assert [each["signal_id"] for each in found["watched"]] == ["s1"]


def test_show_knows_how_long_a_condition_must_be_gone(board: Board) -> None:
    board.breakers(held(SPENDING, breaker_id="ACTOR:default/support_agent_v4"))
    text = changed("by: clear, quiet: 5m", "by: clear, quiet: 7m")
    record = Rules(ts=NOW, version=version_of(text.encode()), text=text, applied_by="anna")
    board.put("rules", record, RULES_KEY, 0)
    board.flush()
    assert text != EXAMPLE
    shown = run("breakers", "show", "support_agent_v4", *board.options)
    assert "until the condition has been gone for 7m" in shown.stdout, shown.output
    found = json.loads(run("breakers", "show", "support_agent_v4", "--json", *board.options).stdout)
    assert found["quiet"] == {"cost-runaway": "7m"}
