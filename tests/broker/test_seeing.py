"""What heartbeats and the state log of a worker show, end to end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from fuseboard_schemas.keys import home_partition
from fuseboard_schemas.records import Heartbeat, NearTrip, Scope
from fuseboard_streams.cli.config import Connection
from fuseboard_streams.cli.kafka import Reader
from fuseboard_streams.cli.shard_state import read_shard
from fuseboard_streams.core.nearest import nearest_to_trip
from fuseboard_streams.core.portrait import portrait
from tests.support.first_stage import ALONE
from tests.support.workers import WorkerThread, calls, produce, read, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.topics import TopicNames

pytestmark = pytest.mark.broker

PARTITIONS = 4


def test_heartbeats_and_the_state_log_tell_the_same(
    broker: str, topics: Callable[..., TopicNames], unique_prefix: str
) -> None:
    """While the state log is trimmed again and again, it is read to what the worker itself has in memory."""
    names = topics(broker, unique_prefix)
    # In the midst of the outage: some have tripped, and some are on their way.
    made = calls(3_000)[:1_000]
    produce(broker, names.tool_calls, made)
    ends = {home_partition(Scope.ACTOR, each.tenant, each.actor, None, PARTITIONS): each.ts for each in made}
    beats: dict[int, Heartbeat] = {}

    def told() -> bool:
        for each in read(broker, names.heartbeats, settled=False):
            beats[each.partition] = each.decoded("Heartbeat")
        return {number: beat.stream_time for number, beat in beats.items()} == ends

    more = {
        "idle_after_s": 1000.0,
        "batch_records": 100,
        "checkpoint_slice_bytes": 1,
        "checkpoint_bytes_per_event": 1.0,
        **ALONE,
    }
    with WorkerThread(broker, unique_prefix, more) as worker:
        until(told, "what is nearest to a trip")
    assert worker.failure is None
    assert sum(len(beat.nearest) for beat in beats.values()) > 2
    known = set()
    with Reader(Connection(broker, unique_prefix)) as reader:
        for number in range(PARTITIONS):
            shard = read_shard(reader, Connection(broker, unique_prefix), number, {}, lambda _: None).shard
            nearest = [NearTrip(**dataclasses.asdict(each)) for each in nearest_to_trip(shard.parts, 5)]
            assert nearest == list(beats[number].nearest)
            for actor in {each.actor for each in made}:
                found = portrait(shard, "default", actor)
                if found is not None:
                    known.add(actor)
                    last = max(each.ts for each in made if each.actor == actor)
                    assert found.last_seen_us is not None
                    assert 0 <= last - found.last_seen_us <= 1_000_000
                    tools = {each.tool for each in made if each.actor == actor}
                    assert {each.tool for each in found.failures} == {None, *tools}
    assert known == {each.actor for each in made}
