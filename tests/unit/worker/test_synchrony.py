"""Which inputs of a shard wait for others."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TopicPartition

from fuseboard_streams.worker.ownership import OwnedShard
from fuseboard_streams.worker.source import Source
from fuseboard_streams.worker.synchrony import Synchrony, ahead
from tests.support.calls import make_shard

SECOND = 1_000_000
TOPICS = ("calls", "steps", "acks")


def owned(number: int = 0, **read_up_to: int) -> OwnedShard:
    each = OwnedShard(number, make_shard(), dict.fromkeys(TOPICS, 0))
    each.processed({topic: 1_000 * SECOND + at * SECOND for topic, at in read_up_to.items()})
    return each


@pytest.mark.parametrize(
    ("read_up_to", "ends", "held", "expected"),
    [
        ({"calls": 0, "steps": 10, "acks": 5}, (), (), []),
        ({"calls": 0, "steps": 11, "acks": 5}, (), (), ["steps"]),
        ({"calls": 0, "steps": 11, "acks": 12}, (), (), ["steps", "acks"]),
        ({"calls": 0, "steps": 11, "acks": 5}, ("calls",), (), []),
        ({"calls": 0, "steps": 21, "acks": 5}, ("calls",), (), ["steps"]),
        ({"calls": 0, "steps": 99, "acks": 99}, ("steps", "acks"), (), []),
        ({"calls": 0, "steps": 6, "acks": 0}, (), ("steps",), ["steps"]),
        ({"calls": 0, "steps": 5, "acks": 0}, (), ("steps",), []),
        ({"calls": 0, "steps": 0}, (), (), ["calls", "steps"]),
        ({"calls": 0, "steps": 0}, ("acks",), (), []),
        ({}, (), (), []),
    ],
)
def test_who_is_ahead(
    read_up_to: dict[str, int], ends: tuple[str, ...], held: tuple[str, ...], expected: list[str]
) -> None:
    """Of those not at their end, whoever is more than ten seconds ahead, until it is less than five."""
    each = owned(**read_up_to)
    for topic in ends:
        each.saw_end(topic, 0, now=1.0)
    assert ahead(each, 10 * SECOND, held) == expected


def test_after_a_new_start_old_records_say_nothing() -> None:
    each = owned(calls=0, steps=500, acks=1)
    each.rewind()
    assert ahead(each, 10 * SECOND, ()) == []
    each.processed({"calls": 2_000 * SECOND})
    assert ahead(each, 10 * SECOND, ()) == ["calls"], "until the others have been heard of"


class Recorder:
    """A consumer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[tuple[str, int]]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda parts: self._note(name, parts)

    def _note(self, name: str, parts: list[TopicPartition]) -> None:
        self.told.append((name, [(each.topic, each.partition) for each in parts]))


def test_each_shard_waits_for_itself_and_every_change_is_told_once() -> None:
    consumer: Any = Recorder()
    clients: Any = None
    source = Source(consumer, clients, {f"p.{topic}": topic for topic in TOPICS})
    synchrony = Synchrony(source, 10.0)
    shards = [owned(0, calls=0, steps=30, acks=0), owned(1, calls=500, steps=500, acks=500)]
    synchrony.run(shards)
    synchrony.run(shards)
    shards[0].processed({"calls": 1_028 * SECOND, "acks": 1_028 * SECOND})
    shards[1].processed({"calls": 2_000 * SECOND})
    synchrony.run(shards)
    source.position({})
    synchrony.run(())
    assert consumer.told == [
        ("pause", [("p.steps", 0)]),
        ("resume", [("p.steps", 0)]),
        ("pause", [("p.calls", 1)]),
        ("resume", [("p.calls", 1)]),
        ("assign", []),
    ]
