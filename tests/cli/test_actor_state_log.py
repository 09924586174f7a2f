"""``fuseboard actors show``: what a shard has learned of an actor, from its state log on a broker."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import InputRange, Outcome, StateRecord
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.cli.render.portrait import portrait_lines
from fuseboard_streams.core.portrait import portrait
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.core.store import Delta
from fuseboard_streams.rules.compile import PACKAGED, compile_rules
from fuseboard_streams.worker.statelog import Journal, to_records
from tests.cli.support import Board, run
from tests.support.calls import T0, Call, make_shard, prepared

ACTOR = "support"
PARTITIONS = 3
HOME = partition_for(actor_key("default", ACTOR), PARTITIONS)
# Other rules than the packaged ones: those that the state names must be used.
TEXT = PACKAGED.read_bytes().replace(b"usd: 20.00", b"usd: 30.00")
RULES = compile_rules(TEXT, "f").rules


@pytest.fixture
def board(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> Board:
    topics(broker, unique_prefix, PARTITIONS)
    return Board(broker, unique_prefix, PARTITIONS)


def history() -> list[Call]:
    """A thousand calls, of which every twentieth fails; then three failures, and one call that costs too much."""
    calls = [
        Call(i, Outcome.ERROR if i % 20 == 19 else Outcome.OK, actor=ACTOR, tool="pay", seq=i, cost=1_000)
        for i in range(1_000)
    ]
    calls += [Call(1_000 + i, Outcome.ERROR, actor=ACTOR, tool="pay", seq=1_000 + i) for i in range(3)]
    return [*calls, Call(1_010, actor=ACTOR, tool="book", seq=1_010, cost=2_500_000)]


class Log:
    """Writes a shard's state log as a worker does, without transactions."""

    def __init__(self, board: Board, chunk_bytes: int) -> None:
        self._board = board
        self._chunk_bytes = chunk_bytes
        self.sequence = 0
        self.offset = 0
        self.starts: list[int] = []
        """Where rounds of the checkpoint begin."""

    def write(self, delta: Delta | None, restore_from: int = 0) -> None:
        self.sequence += 1
        inputs = (InputRange(topic="tool-calls", from_offset=0, next_offset=1),)
        journal = Journal(HOME, "fuseboard-g-1", self.sequence, restore_from, T0, 0, RULES.version, inputs)
        if delta is not None and delta.starts_round:
            self.starts.append(self.offset)
        for record in to_records(journal, delta, self._chunk_bytes):
            self.put(record)

    def put(self, record: StateRecord) -> None:
        self._board.put("state", record, str(HOME), HOME)
        self.offset += 1


def filled(board: Board, chunk_bytes: int = 900_000) -> Shard:
    """A shard's log: a claim, the history in five transactions, many small ones, and another claim."""
    shard, log, calls = make_shard(number=HOME, partitions=PARTITIONS, rules=RULES), Log(board, chunk_bytes), history()
    log.write(None)
    for at in range(0, len(calls), 250):
        shard.begin()
        if at == 0:
            shard.change_rules(RULES, TEXT)
        shard.fold_tool_calls(prepared(calls[at : at + 250], HOME, at))
        log.write(shard.encode_changes(1 << 20))
        shard.commit()
        shard.take_outputs()
    for i in range(40):
        shard.begin()
        shard.fold_tool_calls(prepared([Call(1_020 + i, actor=ACTOR, tool="book", seq=1_020 + i)], HOME, 2_000 + i))
        # A round in each: the log may be read from the last but one on.
        log.write(shard.encode_changes(1 << 20), log.starts[-2])
        shard.commit()
    log.write(None, log.starts[-2])
    board.flush()
    return shard


def shown(board: Board, *options: str) -> dict[str, Any]:
    result = run("actors", "show", ACTOR, "--json", *options, *board.options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["state"]
    return found


def plain(portrayed: Any) -> Any:
    """What a dataclass becomes in JSON."""
    import dataclasses

    return json.loads(json.dumps(dataclasses.asdict(portrayed)))


@pytest.mark.parametrize("chunk_bytes", [900_000, 2_000])
def test_all_that_the_shard_knows(board: Board, chunk_bytes: int) -> None:
    shard = filled(board, chunk_bytes)
    found = shown(board)
    assert found["problem"] is None
    assert found["written_us"] > T0
    assert found["known"] == plain(portrait(shard, "default", ACTOR))
    assert found["known"]["rules_version"] == RULES.version
    assert {each["limit_usd_micros"] for each in found["known"]["caps"]} == {30_000_000, 2_000_000}
    pay = next(each for each in found["known"]["failures"] if each["tool"] == "pay")
    assert (pay["learned_calls"], pay["learned_failures"]) == (800, 40)
    assert pay["failures_to_trip"] > 0


def test_an_actor_that_only_its_shard_knows_is_shown(board: Board) -> None:
    filled(board)
    result = run("actors", "show", ACTOR, *board.options)
    assert result.exit_code == 0, result.output
    rows = [re.split(" {2,}", line.strip()) for line in result.stdout.splitlines()]
    (pay,) = [row for row in rows if row[0] == "pay"]
    assert pay[2] == "800 calls, 40 failed"
    assert pay[4].startswith("10^")
    assert ["what is spent"] in rows
    assert any("$3.50 of $30.00 since midnight UTC, 11.67% (cost-day-cap" in line for row in rows for line in row)
    # Without the state nothing is left.
    refused = run("actors", "show", ACTOR, "--no-state", *board.options)
    assert refused.exit_code == 1
    assert "Nothing is known of actor 'support'" in refused.stderr


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda board: None, "no worker has written any state"),
        (lambda board: Log(board, 1_000).write(None), "has seen nothing yet"),
        (lambda board: board.raw("state", b"garbage", partition=HOME), "not a record of the state log"),
    ],
)
def test_where_it_cannot_be_read_the_rest_is_shown(board: Board, spoil: Callable[[Board], None], problem: str) -> None:
    from tests.cli import samples

    spoil(board)
    board.put("tool-calls", samples.call(actor=ACTOR), actor_key("default", ACTOR), HOME)
    board.flush()
    found = shown(board)
    assert found["known"] is None
    assert problem in found["problem"]
    text = run("actors", "show", ACTOR, *board.options).stdout
    assert "what its shard has learned of it is not shown: " in text
    assert "1 call within 15 min" in text


def test_a_topic_that_is_not_there_and_an_extra_that_is_not_installed(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fuseboard_streams.cli import kafka
    from fuseboard_streams.cli.kafka import MissingTopicError
    from tests.cli import samples

    board.put("tool-calls", samples.call(actor=ACTOR), actor_key("default", ACTOR), HOME)
    board.flush()
    partitions = kafka.Reader.partitions

    def missing(self: kafka.Reader, topic: str) -> list[int]:
        if topic.endswith("state"):
            raise MissingTopicError(topic, "b")
        return partitions(self, topic)

    monkeypatch.setattr(kafka.Reader, "partitions", missing)
    assert "may not be read" in shown(board)["problem"]
    monkeypatch.setitem(sys.modules, "fuseboard_streams.cli.shard_state", None)
    assert "extra `worker`" in shown(board)["problem"]


def test_in_words() -> None:
    """Every part of a portrait shows, whatever it is."""
    shard = make_shard(number=HOME, partitions=PARTITIONS, rules=RULES)
    shard.begin()
    shard.change_rules(RULES, TEXT)
    failing = [Call(i, Outcome.ERROR, actor=ACTOR, tool="pay", trace="x", cost=150_000) for i in range(8)]
    failing += [Call(8 + i, Outcome.ERROR, actor=ACTOR, tool="refund") for i in range(14)]
    shard.fold_tool_calls(prepared(failing, HOME))
    shard.encode_changes(256)
    shard.commit()
    found = portrait(shard, "default", ACTOR)
    assert found is not None
    lines = portrait_lines(found, found.stream_time_us + 60 * SECOND)
    text = "\n".join(lines)
    assert "last seen 60 s ago" in lines[0]
    for words in (
        "tripped, rests",
        "the actor as a whole",
        "$1.20 of $30.00 since midnight UTC, 4% (cost-day-cap, shadow only)",
        "$1.20 of $0.25 within 5 min and",
        "it burns",
        "1 of 1 session half way to the limit or further: at most 8 of 8 failures",
        "ACTOR_TOOL:default/support/refund: tool-failing DISABLE_TOOL since",
        "until probes come back clean, its cooldown is over",
        "ACTOR:default/support: cost-runaway would hold it since",
        "0 of 5 session requests unanswered",
        "no numbered event within 60 min (events-lost, warn only)",
    ):
        assert words in text, words
