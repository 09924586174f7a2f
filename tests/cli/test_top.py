"""``fuseboard top``: evidence on its way to a trip, and objectives."""

import dataclasses
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from fuseboard_schemas.records import Heartbeat, NearTrip, Scope, Signal, SignalLevel
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.cli import monitor
from fuseboard_streams.cli.config import Connection
from fuseboard_streams.cli.kafka import Reader
from fuseboard_streams.cli.objective_states import VALID_US, ObjectiveStates, is_objective, state_of, words_of
from fuseboard_streams.cli.render.text import Paint, width
from fuseboard_streams.cli.render.top import MOST_NEAREST, ShardView, top_lines
from fuseboard_streams.cli.render.watching import bar
from fuseboard_streams.cli.top_command import snapshot_json
from tests.cli.samples import MINUTE, NOW, SECOND
from tests.cli.support import Board, run
from tests.cli.test_render import snapshot


def near(actor: str | None, tool: str | None, evidence: float, **changes: Any) -> NearTrip:
    values: dict[str, Any] = {
        "tenant": "default", "actor": actor, "tool": tool, "evidence_log10": evidence, "trip_log10": 6.0,
        "calls": 1_234, "failures": 7,
    }  # fmt: skip
    return NearTrip(**{**values, **changes})


def objective(number: int = 0, **changes: Any) -> Signal:
    values: dict[str, Any] = {
        "signal_id": f"o{number}", "ts": NOW - MINUTE + number, "source": "fuseboard/task-cost", "tenant": "default",
        "scope": Scope.ACTOR, "actor": "a", "tool": None, "rule": "task-cost", "level": SignalLevel.WARN,
        "metric": "tasks.cost_usd", "value": 0.6,
        "reason": "violated: 60 of 100 tasks cost $0.02 or more; at least 51% with 95% confidence",
    }  # fmt: skip
    return Signal(**{**values, **changes})


@pytest.mark.parametrize(
    ("evidence", "trip", "shown"),
    [(0.0, 6.0, "░░░░"), (3.0, 6.0, "██░░"), (5.99, 6.0, "███░"), (6.0, 6.0, "████"), (8.0, 6.0, "████"),
     (-1.0, 6.0, "░░░░"), (1.0, 0.0, "████")],
)  # fmt: skip
def test_a_bar_is_full_when_the_level_is_reached(evidence: float, trip: float, shown: str) -> None:
    assert bar(evidence, trip, 4) == shown


def shards(*several: tuple[NearTrip, ...], heard: int = NOW) -> list[ShardView]:
    return [ShardView(i, "w", 0.1, NOW, heard, nearest) for i, nearest in enumerate(several)]


def test_the_nearest_of_all_live_shards() -> None:
    first = (near("a", "pay", 5.5), near("a", None, 3.0))
    second = (near(None, "pay", 4.0, trip_log10=4.2, calls=30, failures=30), near("x", "t", 0.5))
    view = snapshot(shards=shards(first, second))
    rows = [re.split(" {2,}", line) for line in top_lines(view)]
    at = rows.index(["nearest to a trip"])
    assert rows[at + 2 : at + 6] == [
        ["█" * 15 + "░", "10^4.00 of 10^4.2", "30/30", "any actor · pay"],
        ["█" * 15 + "░", "10^5.50 of 10^6", "7/1,234", "a · pay"],
        ["█" * 8 + "░" * 8, "10^3.00 of 10^6", "7/1,234", "a"],
        ["█" + "░" * 15, "10^0.50 of 10^6", "7/1,234", "x · t"],
    ]
    assert snapshot_json(view)["nearest"][0] == dataclasses.asdict(second[0])
    many = snapshot(shards=shards(*[first] * 30))
    assert len(many.nearest()) == MOST_NEAREST


def test_a_shard_that_is_silent_says_nothing_of_evidence() -> None:
    view = snapshot(shards=shards((near("a", "pay", 5.5),), heard=NOW - MINUTE))
    assert view.nearest() == []
    assert "nearest to a trip" not in top_lines(view)


def test_states_of_objectives() -> None:
    met = objective(1, level=SignalLevel.INFO, reason="met: 1 of 100 tasks")
    unknown = objective(2, level=SignalLevel.INFO, reason="unknown: 3 tasks within 24 h, it takes 200")
    assert [state_of(each) for each in (objective(), met, unknown)] == ["violated", "met", "unknown"]
    assert words_of(unknown) == "3 tasks within 24 h, it takes 200"
    assert is_objective(objective())
    assert not is_objective(objective(metric="calls.failed"))
    assert not is_objective(objective(source="someone/task-cost"))
    # A rule that trips may be about the same metric.
    assert not is_objective(objective(metric="actions.violating", reason="denied by policy in 2 distinct traces"))
    assert not is_objective(objective(reason=None))


def test_the_newest_state_of_each_target_is_kept() -> None:
    states = ObjectiveStates()
    met = objective(5, level=SignalLevel.INFO, reason="met: well")
    other = objective(1, actor="b")
    for each in (met, objective(1), other, objective(9, actor="gone")):
        states.take(each, NOW if each.actor != "gone" else NOW - VALID_US)
    assert states.latest(NOW) == [other, met]


def test_objectives_are_shown_those_violated_first() -> None:
    found = [objective(1, actor="b"), objective(5, level=SignalLevel.INFO, reason="met: 1 of 100 tasks")]
    found += [objective(i, actor=f"m{i}", level=SignalLevel.INFO, reason="met: well") for i in range(10, 20)]
    lines = top_lines(snapshot(objectives=found))
    rows = [re.split(" {2,}", line) for line in lines]
    at = rows.index(["objectives: 1 violated, 11 met"])
    assert rows[at + 2] == [
        "violated", "task-cost", "b", "60 s ago", "60 of 100 tasks cost $0.02 or more; at least 51% with 95% confidence"
    ]  # fmt: skip
    assert rows[at + 3] == ["met", "task-cost", "a", "60 s ago", "1 of 100 tasks"]
    assert rows[at + 10] == ["and 4 others; --json has all"]
    assert [each["state"] for each in snapshot_json(snapshot(objectives=found))["objectives"]][:2] == [
        "violated",
        "met",
    ]


@pytest.mark.parametrize("paint", [Paint(), Paint(enabled=True)])
def test_it_fits_the_terminal(paint: Paint) -> None:
    view = snapshot(shards=shards((near("a" * 60, "pay", 5.5),)), objectives=[objective(tool="t" * 90)])
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in top_lines(view, paint, columns=80)]
    assert max(width(line) for line in plain[3:]) <= 80


PARTITIONS = 2


@pytest.fixture
def board(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> Board:
    topics(broker, unique_prefix, PARTITIONS)
    return Board(broker, unique_prefix, PARTITIONS)


def beat(shard: int, *nearest: NearTrip) -> Heartbeat:
    return Heartbeat(
        worker_id="w", group="g", shard=shard, ts=NOW, stream_time=NOW, lag_s=0.1, version="1", rules_version="r",
        nearest=nearest,
    )  # fmt: skip


def put_signal(board: Board, signal: Signal) -> None:
    board.put("signals", signal, "default/a", 0)


def test_on_a_broker(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board.put("heartbeats", beat(0, near("a", "pay", 2.0)), "w", 0)
    board.put("heartbeats", beat(0, near("a", "pay", 3.5)), "w", 0)
    board.put("heartbeats", beat(1, near("b", "pay", 3.0)), "w", 1)
    put_signal(board, objective(1))
    put_signal(board, objective(2, level=SignalLevel.INFO, reason="met: well"))
    put_signal(board, objective(3, source="guest/cost", actor="c"))
    board.raw("signals", b"garbage with fuseboard/ in it")
    board.raw("signals", None)
    board.flush()
    result = run("top", "--once", "--json", *board.options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(each["actor"], each["evidence_log10"]) for each in found["nearest"]] == [("a", 3.5), ("b", 3.0)]
    assert [(each["state"], each["signal_id"]) for each in found["objectives"]] == [("met", "o2")]
    # Beyond so many records nobody looks: others may publish any number.
    monkeypatch.setattr(monitor, "MOST_SIGNALS", 3)
    assert json.loads(run("top", "--once", "--json", *board.options).stdout)["objectives"] == []
    assert "nearest to a trip" in run("top", "--once", *board.options).stdout


def test_trips_that_hold_nothing_back_are_looked_for_within_the_hour(board: Board) -> None:
    shadow = Signal(
        signal_id="s", ts=NOW, source="fuseboard/r", tenant="default", scope=Scope.ACTOR, actor="a", rule="r",
        level=SignalLevel.INFO, metric="calls.failed", reason="x (the rule is in shadow: nothing is held back)",
    )  # fmt: skip
    put_signal(board, shadow)
    board.flush()
    found = json.loads(run("top", "--once", "--json", *board.options).stdout)
    assert [each["signal_id"] for each in found["watched"]] == ["s"]
    with Reader(Connection(board.options[1], board.prefix)) as reader:
        taken = monitor.Board(board.prefix, reader.resolver)
        taken.watched_since = time.time_ns() // 1_000 + 60 * SECOND
        for message in reader.all_of(board.prefix + "signals"):
            taken.take(message)
    assert taken.watched == []
