"""Two workers and a tool that all their actors call: what one shard's owner tells the others, over Apache Kafka."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.keys import home_partition
from fuseboard_schemas.records import (
    BreakerCommand,
    BreakerState,
    Cause,
    Effect,
    Outcome,
    PaneKind,
    Scope,
    ToolCall,
)
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.worker.errors import TransactionAborted
from fuseboard_streams.worker.rules_source import compiled
from tests.support.journal_replay import REPLAYED, Inputs, panes_by_way, replay, state_log
from tests.support.workers import T0_US, WorkerThread, produce, read, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fuseboard_schemas.topics import TopicNames
    from tests.support.workers import Read

    Topics = Callable[..., TopicNames]

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

ACTORS, SECOND, PARTITIONS = 40, 1_000_000, 4
BEGINS = 20
RULES = b"""\
version: 1
defaults: {mode: enforce}
breakers:
  tool-failing:
    metric: calls.failed
    scope: [ACTOR_TOOL, TOOL]
    test: {kind: e-detector, baseline: {floor: 0.5%, quantile: 99%}, warn: 10000, trip: 1000000}
    breadth: {actors: 3, share: 20%, max_per_actor: 3}
    action: DISABLE_TOOL
  actor-failing:
    metric: calls.failed
    scope: ACTOR
    test: {kind: e-detector, baseline: {floor: 0.5%, quantile: 99%}, warn: 10000, trip: 1000000}
    action: READ_ONLY
"""


def ruled(folder: Path) -> str:
    """A file of the rules."""
    file = folder / "rules.yaml"
    file.write_bytes(RULES)
    return str(file)


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


def commands(bootstrap: str, names: TopicNames, scope: Scope, state: BreakerState) -> list[BreakerCommand]:
    found = [each.decoded("BreakerCommand") for each in read(bootstrap, names.breaker_commands, settled=False)]
    return [each for each in found if each.scope is scope and each.state is state]


def told(bootstrap: str, names: TopicNames, until_us: int) -> bool:
    """Whether every shard has told everybody that it has come so far."""
    panes = [each.decoded("Pane") for each in read(bootstrap, names.panes, settled=False)]
    return len({each.source_shard for each in panes if each.kind is PaneKind.MARKER and each.ts >= until_us}) == (
        PARTITIONS
    )


def check_journal(bootstrap: str, prefix: str, sent: list[Read]) -> None:
    """What was published is what a fresh shard makes of each journal, byte for byte."""
    log = state_log(bootstrap, prefix, PARTITIONS)
    known = [compiled(RULES, "test", FailureParams())]
    again = replay(log, Inputs.of(bootstrap, prefix, PARTITIONS), CoreSettings(), prefix, known)
    assert panes_by_way(again.panes, PARTITIONS) == panes_by_way(sent, PARTITIONS)
    for topic in REPLAYED:
        rows: list[list[tuple[bytes | None, bytes | None]]] = [[] for _ in range(PARTITIONS)]
        for row in read(bootstrap, prefix + topic):
            rows[row.partition].append((row.key, row.value))
        assert [[row[:2] for row in mine] for mine in again.outputs[topic]] == rows


def two_shards(worker: WorkerThread) -> bool:
    assigned = worker.events("assigned")
    return bool(assigned) and len(assigned[-1]["shards"]) == PARTITIONS // 2


@pytest.mark.parametrize("period", [0, 4], ids=["calm", "aborts"])
def test_two_workers_find_that_it_is_the_tool_and_a_journal_repeats_it(
    apache_kafka: str, topics: Topics, unique_prefix: str, tmp_path: Path, period: int
) -> None:
    """One of them leaves in between; panes go on being numbered where they were."""
    names = topics(apache_kafka, unique_prefix)
    faults = [Every("before_commit", period or 10**9) for _ in range(2)]
    more = {"rules": ruled(tmp_path)}
    known = partial(commands, apache_kafka, names)

    with WorkerThread(apache_kafka, unique_prefix, more, fault=faults[0]) as one:
        with WorkerThread(apache_kafka, unique_prefix, more, fault=faults[1]) as other:
            until(lambda: two_shards(one) and two_shards(other), "two shards each")
            for begin in range(0, 15, 5):
                produce(apache_kafka, names.tool_calls, history(begin, begin + 5))
            until(lambda: told(apache_kafka, names, T0_US + 14 * SECOND), "the first calls to be told")
        for begin in range(15, 35, 5):
            produce(apache_kafka, names.tool_calls, history(begin, begin + 5))
        until(lambda: bool(known(Scope.TOOL, BreakerState.OPEN)), "a trip of the tool")
        opened = len(known(Scope.ACTOR_TOOL, BreakerState.OPEN))
        until(lambda: len(known(Scope.ACTOR_TOOL, BreakerState.CLOSED)) >= opened, "the actors' own to be superseded")
    assert one.failure is None
    assert other.failure is None
    assert bool(sum(fault.aborted for fault in faults)) == bool(period)

    assert {each.breaker_id for each in known(Scope.TOOL, BreakerState.OPEN)} == {"TOOL:default/tool-0"}
    assert {each.cause for each in known(Scope.ACTOR_TOOL, BreakerState.CLOSED)} <= {Cause.ATTRIBUTED}
    assert not known(Scope.ACTOR, BreakerState.OPEN)
    sent = read(apache_kafka, names.panes)
    for way in panes_by_way(sent, PARTITIONS)["panes"]:
        numbers = [Decoder().decode(value, "Pane").sequence for _, value, _ in way]
        assert numbers == list(range(1, len(numbers) + 1))
    states = [row.partition for row in sent if row.decoded("Pane").kind is PaneKind.TOOL_STATE]
    assert sorted(states) == list(range(PARTITIONS))
    check_journal(apache_kafka, unique_prefix, sent)


def test_a_transaction_left_open_delays_the_owner_and_nobody_else(
    apache_kafka: str, topics: Topics, unique_prefix: str, tmp_path: Path
) -> None:
    """As one of a worker that was killed: it hides what others tell the owner until somebody ends it."""
    names = topics(apache_kafka, unique_prefix)
    killed = Producer({"bootstrap.servers": apache_kafka, "transactional.id": unique_prefix})
    killed.init_transactions(30)
    killed.begin_transaction()
    killed.produce(names.panes, b"never", partition=home_partition(Scope.TOOL, "default", None, "tool-0", PARTITIONS))
    assert killed.flush(30) == 0

    def opened(scope: Scope) -> bool:
        return bool(commands(apache_kafka, names, scope, BreakerState.OPEN))

    with WorkerThread(apache_kafka, unique_prefix, {"rules": ruled(tmp_path)}) as worker:
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
