"""``fuseboard actors show``: one actor, from the topics."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from fuseboard_schemas.keys import actor_key, breaker_id, home_partition, partition_for
from fuseboard_schemas.records import Action, BreakerState, Effect, Outcome, Rules, Scope, Signal, SignalLevel
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.cli.actor_state import read_actor, rules_for
from fuseboard_streams.cli.config import Connection
from fuseboard_streams.cli.kafka import Reader
from fuseboard_streams.rules.compile import compile_rules, version_of
from fuseboard_streams.worker.rules_source import RULES_KEY
from tests.cli import samples
from tests.cli.samples import MINUTE, NOW, SECOND
from tests.cli.support import Board, run
from tests.unit.rules.example import EXAMPLE, changed

ACTOR = "support_agent_v4"
PARTITIONS = 3
HOME = partition_for(actor_key("default", ACTOR), PARTITIONS)


@pytest.fixture
def board(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> Board:
    topics(broker, unique_prefix, PARTITIONS)
    return Board(broker, unique_prefix, PARTITIONS)


def put_call(board: Board, number: int, **changes: Any) -> None:
    call = samples.call(**{"event_id": f"e{number}", "seq": number, "client_id": -1, **changes})
    board.put("tool-calls", call, actor_key(call.tenant, call.actor), HOME)


def finding(number: int, **changes: Any) -> Signal:
    values: dict[str, Any] = {
        "signal_id": f"s{number}", "ts": NOW + number * SECOND, "source": "fuseboard/tool-failing",
        "tenant": "default", "scope": Scope.ACTOR_TOOL, "actor": ACTOR, "tool": "pay", "rule": "tool-failing",
        "level": SignalLevel.WARN, "metric": "calls.failed", "evidence_log10": 4.5, "null_p0": 0.005, "calls": 20,
        "failures": 5, "reason": f"finding {number}",
    }  # fmt: skip
    return Signal(**{**values, **changes})


def filled(board: Board) -> Board:
    put_call(board, 0, outcome=Outcome.OK, ts=NOW - 5 * SECOND, cost_usd_micros=None)
    put_call(board, 1)
    put_call(board, 2, outcome=Outcome.DENIED, client_id=7)
    put_call(board, 3, tool="pay", effect=Effect.READ, outcome=Outcome.TIMEOUT)
    put_call(board, 4, actor="another")
    board.raw("tool-calls", b"garbage", actor_key("default", ACTOR).encode(), HOME)
    others = {"actor": "another"}
    for signal in (finding(1), finding(3), finding(2), finding(4, **others), finding(5, tool=None, scope=Scope.ACTOR)):
        board.put("signals", signal, "default/x", HOME)
    tools: dict[str, Any] = {"actor": None, "scope": Scope.TOOL, "metric": "calls.ok", "rule": "tool-success"}
    for number, tool, reason in (
        (6, "pay", "met: 3"),
        (7, "pay", "violated: 4"),
        (8, "unused", "met: 5"),
        (9, "pay", ""),
    ):
        signal = finding(number, tool=tool, reason=reason, **tools)
        board.put("signals", signal, "default/x", home_partition(Scope.TOOL, "default", None, tool, PARTITIONS))
    board.breakers(
        samples.command(),
        samples.command(state=BreakerState.CLOSED, epoch=samples.command().epoch + 1),
        samples.command(breaker_id=breaker_id(Scope.TENANT, "default"), scope=Scope.TENANT, actor=None, tool=None),
        samples.command(
            breaker_id=breaker_id(Scope.TOOL, "default", tool="pay"), scope=Scope.TOOL, actor=None, tool="pay",
            state=BreakerState.FORCED_OPEN, person="anna", reason="db", action=Action.DISABLE_TOOL,
        ),
        samples.command(
            breaker_id=breaker_id(Scope.TOOL, "default", tool="unused"), scope=Scope.TOOL, actor=None, tool="unused"
        ),
        samples.command(breaker_id="ACTOR:default/another", scope=Scope.ACTOR, actor="another", tool=None),
    )  # fmt: skip
    return board


def shown(board: Board, *options: str) -> dict[str, Any]:
    result = run("actors", "show", ACTOR, "--json", *options, *board.options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_the_topics_tell_about_an_actor(board: Board) -> None:
    found = shown(filled(board))
    assert (found["tenant"], found["actor"], found["shard"]) == ("default", ACTOR, HOME)
    assert [(each["breaker_id"], each["state"]) for each in found["breakers"]] == [
        ("TOOL:default/pay", "FORCED_OPEN"),
        ("TENANT:default", "OPEN"),
        (samples.BREAKER, "CLOSED"),
    ]
    assert [each["signal_id"] for each in found["signals"]] == ["s5", "s3"]
    objectives = [(each["objective"], each["scope"], each["tool"], each["words"]) for each in found["objectives"]]
    assert objectives == [("tool-success", "TOOL", "pay", "4")]
    calls = {each.pop("tool"): each for each in found["calls"]}
    assert calls["billing.refund"] == {
        "effect": "WRITE", "calls": 3, "failed": 1, "refused": 1, "cost_usd_micros": 2_400, "last": NOW,
    }  # fmt: skip
    assert (calls["pay"]["failed"], calls["pay"]["effect"]) == (1, "READ")
    assert {each["client_id"] for each in found["clients"]} == {"f" * 16, "0" * 15 + "7"}


def test_the_rules_are_those_in_force(board: Board) -> None:
    filled(board)
    text = changed("mode: enforce", "mode: warn")
    board.put("rules", Rules(ts=NOW, version=version_of(text.encode()), text=text, applied_by="a"), RULES_KEY, 0)
    board.flush()
    found = shown(board)
    assert found["rules_version"] == version_of(text.encode())
    rules = {(each["rule"], each["scope"]): each for each in found["rules"]}
    failing = rules["tool-failing", "ACTOR_TOOL"]
    assert (failing["mode"], failing["recovery"]) == ("warn", "probe")
    assert failing["tools"] == ["billing.refund", "get_reservation_details", "pay"]
    assert rules["cost-runaway", "ACTOR"]["tools"] == []


def test_tools_whose_rules_differ_are_apart() -> None:
    text = changed("overrides:\n", "overrides:\n  - {match: {tool: pay}, set: {tool-failing: {mode: shadow}}}\n")
    compiled = compile_rules(text.encode(), "f")
    found = [each for each in rules_for(compiled, "default", ACTOR, ["a", "b", "pay"]) if each.rule == "tool-failing"]
    assert [(each.scope, each.mode, each.tools) for each in found] == [
        ("ACTOR_TOOL", "enforce", ("a", "b")),
        ("TOOL", "enforce", ("a", "b")),
        ("ACTOR_TOOL", "shadow", ("pay",)),
        ("TOOL", "shadow", ("pay",)),
    ]
    without = rules_for(compile_rules(EXAMPLE.encode(), "f"), "default", ACTOR, [])
    assert {each.scope for each in without} == {"ACTOR"}


def test_how_it_looks(board: Board) -> None:
    result = run("actors", "show", ACTOR, *filled(board).options)
    assert result.exit_code == 0, result.output
    rows = [re.split(" {2,}", line) for line in result.stdout.splitlines()]
    assert rows[0] == [ACTOR, f"shard {HOME}"]
    assert ["", "└ anna: db"] in rows
    assert [row[1:] for row in rows if row[-1] == "finding 3"] == [
        ["warning", "tool-failing", "pay", "10^4.50", "5/20", "0.5%", "finding 3"]
    ]
    assert ["4 calls within 15 min from 2 clients, $0.0036"] in rows
    assert [row[:6] for row in rows if row[0] == "billing.refund"] == [
        ["billing.refund", "WRITE", "3", "1", "1", "$0.0024"]
    ]


@pytest.mark.parametrize(("minutes", "calls"), [(59.0, 0), (61.0, 1)])
def test_how_far_back_calls_count(board: Board, broker: str, minutes: float, calls: int) -> None:
    put_call(board, 0)
    board.flush()
    connection = Connection(broker, board.prefix)
    in_an_hour = time.time_ns() // 1_000 + 60 * MINUTE
    with Reader(connection) as reader:
        state = read_actor(reader, connection, "default", ACTOR, minutes, in_an_hour)
    assert sum(each.calls for each in state.tools.values()) == calls
    assert state.known is bool(calls)


def test_an_actor_that_is_not_there(board: Board) -> None:
    filled(board)
    result = run("actors", "show", ACTOR, "--tenant", "acme", *board.options)
    assert result.exit_code == 1
    assert "(tenant 'acme')" in " ".join(result.stderr.split())
