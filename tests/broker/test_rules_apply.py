"""Rules applied on the command line reach every shard of running workers, and what cannot be used changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.records import Rules
from fuseboard_streams.rules.compile import PACKAGED, version_of
from fuseboard_streams.worker.rules_source import RULES_KEY
from tests.cli.support import run as command_line
from tests.support.workers import WorkerThread, calls, produce, read, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fuseboard_schemas.topics import TopicNames

    Topics = Callable[..., TopicNames]

pytestmark = pytest.mark.broker

OTHER = PACKAGED.read_bytes().replace(b"trip: 1e6", b"trip: 1e5").replace(b"tool-failing:", b"tool-broken:")


def put(broker: str, topic: str, value: bytes) -> None:
    """Write a record past the command line."""
    producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2_random"})
    producer.produce(topic, key=RULES_KEY.encode(), value=value)
    assert producer.flush(30) == 0


def shown(*options: str, code: int) -> dict[str, Any]:
    result = command_line("rules", "show", "--json", *options)
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_rules_are_applied_to_running_workers(broker: str, topics: Topics, unique_prefix: str, tmp_path: Path) -> None:
    names = topics(broker, unique_prefix)
    options = ("--bootstrap", broker, "--prefix", unique_prefix)
    file = tmp_path / "rules.yaml"
    file.write_bytes(OTHER)
    produce(broker, names.tool_calls, calls(60))
    with WorkerThread(broker, unique_prefix) as worker:
        until(lambda: len(read(broker, names.heartbeats)) > 0, "a heartbeat")
        applied = command_line("rules", "apply", str(file), "--reason", "a test", "--wait", "60", "--json", *options)
        assert applied.exit_code == 0, applied.output
        found = shown(*options, code=0)
        assert version_of(OTHER) in json.dumps(found)
        # Neither a text that is no rules file, nor one that was changed on its way.
        for text, version in ((b"version: 1\nbreakers: {x: {}}\n", None), (OTHER, "0123456789abcdef")):
            record = Rules(
                tenant="default", ts=0, version=version or version_of(text), text=text.decode(), applied_by="nobody"
            )
            put(broker, names.rules, Encoder("Rules").encode(record))
        until(lambda: len(worker.events("rules_refused")) == 2, "both are refused")
        assert shown(*options, code=0)["version"] == found["version"]
    assert worker.failure is None


def test_a_file_is_watched(broker: str, topics: Topics, unique_prefix: str, tmp_path: Path) -> None:
    names = topics(broker, unique_prefix)
    file = tmp_path / "rules.yaml"
    file.write_bytes(PACKAGED.read_bytes())
    produce(broker, names.tool_calls, calls(60))

    def running(version: str) -> bool:
        beats = [each.decoded("Heartbeat") for each in read(broker, names.heartbeats)]
        newest = {each.shard: each.rules_version for each in beats}
        return bool(newest) and set(newest.values()) == {version}

    with WorkerThread(broker, unique_prefix, {"rules": str(file)}) as worker:
        until(lambda: running(version_of(PACKAGED.read_bytes())), "the file's rules")
        file.write_bytes(b"version: 1\nbreakers: {broken: {}}\n")
        until(lambda: len(worker.events("rules_refused")) == 1, "it is refused")
        file.write_bytes(OTHER)
        until(lambda: running(version_of(OTHER)), "the other rules")
    assert worker.failure is None
