"""Two workers and a tool that all their actors call: what one shard's owner tells the others, over Apache Kafka."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from fuseboard_schemas.keys import home_partition
from fuseboard_schemas.records import (
    BreakerCommand,
    BreakerState,
    Cause,
    Effect,
    Outcome,
    Pane,
    PaneKind,
    Scope,
    ToolCall,
)
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.worker import loop
from fuseboard_streams.worker.errors import TransactionAborted
from tests.support.fleet import rules
from tests.support.journal_replay import REPLAYED, Inputs, replay, state_log
from tests.support.workers import T0_US, WorkerThread, produce, read, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.topics import TopicNames

    Topics = Callable[..., TopicNames]

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

ACTORS, SECOND, PARTITIONS = 40, 1_000_000, 4
BEGINS = 20


def history(begin: float, end: float) -> list[ToolCall]:
    """Everybody calls three tools; the first one is down from `BEGINS` on."""
    rng = random.Random(begin)
    made = []
    for i in range(int((end - begin) * ACTORS)):
        number, at = rng.randrange(ACTORS), begin + i / ACTORS
        tool = f"tool-{rng.randrange(3)}"
        down = tool == "tool-0" and at >= BEGINS
        made.append(
            ToolCall(
                event_id=f"e{begin}-{i}", ts=T0_US + round(at * SECOND), actor=f"agent-{number}", tool=tool,
                effect=Effect.WRITE, outcome=Outcome.ERROR if down else Outcome.OK, duration_ms=5,
            )
        )  # fmt: skip
    return made


class Every:
    """Aborts at every ``period``-th time of a step."""

    def __init__(self, step: str, period: int) -> None:
        self._step, self._period, self._seen = step, period, 0
        self.aborted = 0

    def __call__(self, name: str) -> None:
        """A step has been made."""
        if name == self._step:
            self._seen += 1
            if self._seen % self._period == 0:
                self.aborted += 1
                raise TransactionAborted("injected")


@pytest.mark.parametrize("period", [0, 4], ids=["calm", "aborts"])
def test_two_workers_find_that_it_is_the_tool_and_a_journal_repeats_it(
    apache_kafka: str, topics: Topics, unique_prefix: str, monkeypatch: pytest.MonkeyPatch, period: int
) -> None:
    """One of them leaves in between; panes go on being numbered where they were."""
    names = topics(apache_kafka, unique_prefix)
    ruleset = rules()
    faults = [Every("before_commit", period or 10**9) for _ in range(2)]
    monkeypatch.setattr(loop, "Shard", partial(Shard, rules=ruleset))

    def commands(scope: Scope, state: BreakerState) -> list[BreakerCommand]:
        found = [each.decoded("BreakerCommand") for each in read(apache_kafka, names.breaker_commands, settled=False)]
        return [each for each in found if each.scope is scope and each.state is state]

    def panes() -> list[Pane]:
        return [each.decoded("Pane") for each in read(apache_kafka, names.panes, settled=False)]

    def told(until_us: int) -> bool:
        """Whether every shard has told everybody that it has come so far."""
        marks = [each for each in panes() if each.kind is PaneKind.MARKER and each.ts >= until_us]
        return len({each.source_shard for each in marks}) == PARTITIONS

    with WorkerThread(apache_kafka, unique_prefix, fault=faults[0]) as one:
        with WorkerThread(apache_kafka, unique_prefix, fault=faults[1]) as other:
            both = (one, other)
            until(
                lambda: all(
                    each.events("assigned") and len(each.events("assigned")[-1]["shards"]) == 2 for each in both
                ),
                "two shards each",
            )
            for begin in range(0, 15, 5):
                produce(apache_kafka, names.tool_calls, history(begin, begin + 5))
            until(lambda: told(T0_US + 14 * SECOND), "the first calls to be told")
        for begin in range(15, 35, 5):
            produce(apache_kafka, names.tool_calls, history(begin, begin + 5))
        until(lambda: bool(commands(Scope.TOOL, BreakerState.OPEN)), "a trip of the tool")
        opened = len(commands(Scope.ACTOR_TOOL, BreakerState.OPEN))
        until(
            lambda: len(commands(Scope.ACTOR_TOOL, BreakerState.CLOSED)) >= opened, "the actors' own to be superseded"
        )
    for each in both:
        assert each.failure is None
    assert bool(sum(fault.aborted for fault in faults)) == bool(period)

    assert {each.breaker_id for each in commands(Scope.TOOL, BreakerState.OPEN)} == {"TOOL:default/tool-0"}
    assert {each.cause for each in commands(Scope.ACTOR_TOOL, BreakerState.CLOSED)} <= {Cause.ATTRIBUTED}
    assert not commands(Scope.ACTOR, BreakerState.OPEN)
    sent = read(apache_kafka, names.panes)
    said: dict[tuple[int, int], list[int]] = {}
    for row in sent:
        pane = row.decoded("Pane")
        if pane.kind is not PaneKind.MARKER:
            said.setdefault((pane.source_shard, row.partition), []).append(pane.sequence)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in said.values())
    states = [row.partition for row in sent if row.decoded("Pane").kind is PaneKind.TOOL_STATE]
    assert sorted(states) == list(range(PARTITIONS))

    log = state_log(apache_kafka, unique_prefix, PARTITIONS)
    again = replay(log, Inputs(apache_kafka, unique_prefix, PARTITIONS), CoreSettings(), unique_prefix, ruleset)
    published = {(row.partition, row.decoded("Pane").source_shard): [] for row in sent}  # type: dict[tuple[int, int], list[bytes | None]]
    for row in sent:
        if row.decoded("Pane").kind is not PaneKind.MARKER:
            published[row.partition, row.decoded("Pane").source_shard].append(row.value)
    repeated: dict[tuple[int, int], list[bytes | None]] = {key: [] for key in published}
    for out in again.panes:
        source = int(dict(out.headers)["ce_id"].split(b"/")[0])  # type: ignore[union-attr]
        repeated[out.partition, source].append(out.value)
    assert repeated == published
    for topic in REPLAYED:
        rows = [
            [(each.key, each.value) for each in read(apache_kafka, unique_prefix + topic) if each.partition == n]
            for n in range(PARTITIONS)
        ]
        assert [[row[:2] for row in mine] for mine in again.outputs[topic]] == rows


def test_a_transaction_left_open_delays_the_owner_and_nobody_else(
    apache_kafka: str, topics: Topics, unique_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a worker that was killed: it hides what others tell the owner until somebody ends it."""
    names = topics(apache_kafka, unique_prefix)
    monkeypatch.setattr(loop, "Shard", partial(Shard, rules=rules()))
    killed = Producer({"bootstrap.servers": apache_kafka, "transactional.id": unique_prefix})
    killed.init_transactions(30)
    killed.begin_transaction()
    killed.produce(names.panes, b"never", partition=home_partition(Scope.TOOL, "default", None, "tool-0", PARTITIONS))
    assert killed.flush(30) == 0

    def opened(scope: Scope) -> bool:
        found = [each.decoded("BreakerCommand") for each in read(apache_kafka, names.breaker_commands, settled=False)]
        return any(each.scope is scope and each.state is BreakerState.OPEN for each in found)

    with WorkerThread(apache_kafka, unique_prefix) as worker:
        for begin in range(0, 35, 5):
            produce(apache_kafka, names.tool_calls, history(begin, begin + 5))
        until(lambda: opened(Scope.ACTOR_TOOL), "trips of actors' own breakers")
        # A later call is decided about as ever, and still nothing has been heard of the tool.
        alone = [
            replace(call, event_id=f"alone{i}", tool="alone", outcome=Outcome.ERROR, actor="agent-1")
            for i, call in enumerate(history(35, 37))
        ]
        produce(apache_kafka, names.tool_calls, alone)
        until(lambda: "alone" in str(read(apache_kafka, names.breaker_commands, settled=False)), "another trip")
        assert not opened(Scope.TOOL)
        killed.abort_transaction(30)
        until(lambda: opened(Scope.TOOL), "the tool's trip")
    assert worker.failure is None
