"""The follower without a broker."""

from __future__ import annotations

import itertools
import threading
from typing import Any, NamedTuple

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from fuseboard import Effect, OnStale
from fuseboard.follower import Follower
from fuseboard.gate import FREE
from fuseboard_schemas.keys import partition_for
from fuseboard_schemas.topics import TopicNames
from tests.unit.sdk.support import ACTOR, NOW_US, TENANT, World, world


def follower_of(there: World, kind: type[Follower] = Follower, **other: Any) -> Follower:
    """A follower of this world, by its clocks unless others are given."""
    given = {"clock": there.clock, "wall_us": there.clock.wall_us, **other}
    return kind(there.runtime.settings, TopicNames("fuseboard."), there.view, there.runtime.publisher, **given)


def test_a_consumer_that_finds_no_broker_is_replaced() -> None:
    there = world(bootstrap="127.0.0.1:9")
    seconds = itertools.count(0.0, 20.0)
    replaced = threading.Event()

    class Watched(Follower):
        def _disconnect(self) -> None:
            if self._consumer is not None and not self._stop.is_set():
                replaced.set()
            super()._disconnect()

    follower = follower_of(there, Watched, clock=lambda: next(seconds), wall_us=lambda: NOW_US)
    assert follower.start()
    assert replaced.wait(30.0)
    follower.stop()


def test_what_is_to_be_done_in_every_turn_is_done_without_a_broker() -> None:
    there = world(bootstrap="127.0.0.1:9")
    turned = threading.Event()
    follower = follower_of(there, each_turn=turned.set)
    assert follower.start()
    assert turned.wait(30.0)
    follower.stop()


def test_what_cannot_be_followed_is_said_in_words(caplog: pytest.LogCaptureFixture) -> None:
    there = world(kafka={"no.such.setting": 1})
    follower = follower_of(there)
    said = threading.Event()
    follower._stop.wait = lambda timeout=None: said.set() or follower._stop.is_set()  # type: ignore[method-assign,func-returns-value]
    assert follower.start()
    assert said.wait(30.0)
    follower.stop()
    text = caplog.messages[0]
    assert text == (
        'The breaker topic cannot be followed: No such configuration property: "no.such.setting". Trying again.'
    )


class Log:
    """A consumer of three partitions that have an end, and nothing else."""

    def __init__(self, *, answers: bool = True, missing: frozenset[int] = frozenset()) -> None:
        self.assigned: list[list[tuple[str, int, int]]] = []
        self.unassigned: list[int] = []
        self.assigns = True
        self._answers = answers
        self._missing = missing

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        if not self.assigns:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.assigned.append([(each.topic.rpartition(".")[2], each.partition, each.offset) for each in partitions])

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        self.unassigned.extend(each.partition for each in partitions)

    def offsets_for_times(self, partitions: list[TopicPartition], timeout: float) -> list[Any]:
        if not self._answers:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [
            Located(each.topic, each.partition, -1, KafkaError(KafkaError._TIMED_OUT))
            if each.partition in self._missing
            else Located(each.topic, each.partition, 70 + each.partition, None)
            for each in partitions
        ]


class Located(NamedTuple):
    topic: str
    partition: int
    offset: int
    error: KafkaError | None


class End:
    """What librdkafka says at the end of a partition."""

    def __init__(self, topic: str, partition: int) -> None:
        self._topic, self._partition = topic, partition

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._PARTITION_EOF)


def following(there: World, log: Log, monkeypatch: pytest.MonkeyPatch) -> Follower:
    follower = follower_of(there)
    monkeypatch.setattr(follower, "_consumer", log)
    monkeypatch.setattr(follower, "_partitions", 3)
    return follower


def reach_end(follower: Follower, *partitions: int) -> None:
    for partition in partitions:
        follower._take(End("fuseboard.breaker-commands", partition))  # type: ignore[arg-type]


def test_what_is_read_again_when_something_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    there, log = world(), Log()
    follower = following(there, log, monkeypatch)

    def placed(tenant: str, actor: str, tool: str | None) -> list[int]:
        log.assigned.clear()
        there.view.register(tenant, actor, tool)
        follower._place()
        return [number for each in log.assigned for topic, number, _ in each if topic == "breaker-commands"]

    assert placed(TENANT, ACTOR, "first") == [0, 1, 2]
    assert [placed(TENANT, ACTOR, f"tool_{number}") for number in range(20)] == [[]] * 20, "tools"
    assert log.unassigned == []
    again = placed(TENANT, "another", None)
    assert len(again) == 1, "an actor"
    assert log.unassigned == again
    assert placed("elsewhere", "x", "y") == [0, 1, 2], "a tenant, of whose tools nothing was kept"


def test_everything_is_assigned_at_once_and_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is assigned later, or has to be looked up first, waits behind a fetch of half a second."""
    there, log = world(), Log()
    there.fuse.as_actor("another")
    follower = following(there, log, monkeypatch)
    follower._place()
    ((*first, one, two, three),) = log.assigned
    assert [one, two, three] == [("breaker-commands", number, 0) for number in range(3)]
    shards = {partition_for(f"{TENANT}/{actor}", 3) for actor in (ACTOR, "another")}
    assert first == [("heartbeats", shard, 70 + shard) for shard in sorted(shards)]


def test_where_the_end_is_cannot_be_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    for log in (Log(answers=False), Log(missing=frozenset(range(3)))):
        follower = following(world(), log, monkeypatch)
        follower._place()
        assert [each for each in log.assigned[0] if each[0] == "heartbeats"] == [
            ("heartbeats", partition_for(f"{TENANT}/{ACTOR}", 3), OFFSET_END)
        ]


def test_an_assignment_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    there, log = world(), Log()
    follower = following(there, log, monkeypatch)
    follower._place()
    reach_end(follower, 0, 1, 2)
    there.view.register(TENANT, "another", None)
    log.assigns = False
    with pytest.raises(KafkaException):
        follower._place()
    log.assigns = True
    follower._place()
    assert [each[:2] for each in log.assigned[-1]][-1:] == [("breaker-commands", log.unassigned[0])]
    assert len(log.unassigned) == 1, "what is not assigned cannot be taken away"


def test_a_tool_that_was_never_seen_is_known_once_everything_has_been_read(monkeypatch: pytest.MonkeyPatch) -> None:
    there = world()
    follower = following(there, Log(), monkeypatch)
    follower._place()
    there.view.freshness(TENANT, ACTOR).until = 1e9
    tool_of = {partition_for(f"{TENANT}/tool_{number}", 3): f"tool_{number}" for number in range(20)}

    def known(name: str) -> bool:
        slot = there.runtime.slot(ACTOR, name, Effect.WRITE, OnStale.WARN)
        return there.runtime.gate.decide(slot, None, there.clock()) is FREE

    home = partition_for(f"{TENANT}/{ACTOR}", 3)
    whole = partition_for(TENANT, 3)
    last = next(each for each in range(3) if each not in (home, whole))
    reach_end(follower, *({0, 1, 2} - {last}))
    assert not known(tool_of[last])
    assert not there.fuse.ready()
    reach_end(follower, last)
    assert there.fuse.ready()
    assert known("never_seen"), "at its very first call, whatever the follower is doing"


def test_a_partition_that_cannot_be_read_leaves_the_tools_of_others_known(monkeypatch: pytest.MonkeyPatch) -> None:
    there = world()
    there.view.freshness(TENANT, ACTOR).until = 1e9
    home, whole = partition_for(f"{TENANT}/{ACTOR}", 3), partition_for(TENANT, 3)
    lost = next(each for each in range(3) if each not in (home, whole))
    name = next(name for name in map(str, range(20)) if partition_for(f"{TENANT}/{name}", 3) == home)
    slot = there.runtime.slot(ACTOR, name, Effect.WRITE, OnStale.WARN)
    follower = following(there, Log(), monkeypatch)
    follower._place()
    reach_end(follower, *({0, 1, 2} - {lost}))
    assert there.runtime.gate.decide(slot, None, there.clock()) is FREE
