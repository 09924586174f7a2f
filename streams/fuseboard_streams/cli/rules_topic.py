"""The topic of rules and the heartbeats: which rules hold, and which shards run them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_streams.cli.decode import Tombstone, TopicDecoder, Undecodable, place
from fuseboard_streams.rules.compile import PACKAGED, compile_rules, version_of
from fuseboard_streams.rules.document import RulesError
from fuseboard_streams.worker.rules_source import RULES_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from fuseboard_schemas.records import Rules
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.rules.compile import Compiled

# One heartbeat and one transaction marker a second: this is about a minute back.
_LOOK_BACK: Final = 128


@dataclass(frozen=True, slots=True)
class InForce:
    """The rules that every shard is to run, as far as the topic says."""

    record: Rules | None
    """None if the packaged rules hold."""
    compiled: Compiled
    refused: tuple[str, ...] = ()
    """Newer records that cannot be used, newest first: where each lies, and why."""

    @property
    def version(self) -> str:
        """Their version."""
        return self.compiled.rules.version


def read_rules(reader: Reader, connection: Connection) -> InForce:
    """Return the newest rules in the topic that can be used, as a worker takes them; else the packaged ones.

    Raises:
        FuseboardError: The topic cannot be read.
    """
    topic = connection.prefix + "rules"
    mine = [message for message in reader.all_of(topic) if message.key() == RULES_KEY.encode()]
    decoder = Decoder(reader.resolver)
    refused: list[str] = []
    for message in sorted(mine, key=_age, reverse=True):
        where = f"{topic} {place(message)}"
        value = message.value()
        if value is None:
            break
        try:
            record: Rules = decoder.decode(value, "Rules")
            text = record.text.encode()
            compiled = compile_rules(text, where)
        except (DecodeError, RulesError) as error:
            refused.append(f"{where}: {error}")
            continue
        if version_of(text) != record.version:
            refused.append(f"{where}: its text has the version {version_of(text)} and not {record.version}.")
            continue
        return InForce(record, compiled, tuple(refused))
    return InForce(None, compile_rules(PACKAGED.read_bytes(), PACKAGED.name), tuple(refused))


def _age(message: Message) -> tuple[int, int]:
    found = place(message)
    return found.arrival, found.offset


@dataclass(frozen=True, slots=True)
class ShardRules:
    """Which rules a shard's last heartbeat names."""

    shard: int
    worker: str | None = None
    version: str | None = None
    """None if it has never had one."""
    heard: int | None = None
    """When the broker had it, µs since the epoch."""
    live: bool = False
    """Whether it was written while we were reading."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"shard": self.shard, "worker": self.worker, "version": self.version, "heard": self.heard}


class ShardWatch:
    """Reads heartbeats, for the rules that they name.

    Args:
        reader: A client; it reads nothing else meanwhile.
        connection: How to reach Kafka.

    Raises:
        FuseboardError: The topic cannot be read.
    """

    def __init__(self, reader: Reader, connection: Connection) -> None:
        self._reader = reader
        self._decoder = TopicDecoder("Heartbeat", reader.resolver)
        topic = connection.prefix + "heartbeats"
        numbers = reader.partitions(topic)
        self.shards = {number: ShardRules(number) for number in numbers}
        ends = [reader.watermarks(topic, number) for number in numbers]
        for message in reader.to_end(topic, {each.number: max(each.low, each.high - _LOOK_BACK) for each in ends}):
            self._take(message, live=False)

    def wait(self, version: str, seconds: float) -> list[ShardRules]:
        """Return the shards that do not show a version within a time; none as soon as all show it alive."""
        deadline = time.monotonic() + seconds
        while missing := [each for each in self.shards.values() if not (each.live and each.version == version)]:
            left = deadline - time.monotonic()
            if left <= 0:
                return missing
            for message in self._reader.poll(min(left, 0.5))[0]:
                self._take(message, live=True)
        return []

    def _take(self, message: Message, *, live: bool) -> None:
        beat = self._decoder.decode(message.value())
        if isinstance(beat, Tombstone | Undecodable):
            return
        heard = place(message).arrival
        self.shards[beat.shard] = ShardRules(beat.shard, beat.worker_id, beat.rules_version, heard, live)


def other_versions(versions: Mapping[str, str], version: str) -> dict[str, int]:
    """Return how many breakers in force were decided under which other version.

    Args:
        versions: By breaker's id, the version of its last command; empty for an order of a person.
        version: The one that holds.
    """
    found: dict[str, int] = {}
    for each in versions.values():
        if each and each != version:
            found[each] = found.get(each, 0) + 1
    return dict(sorted(found.items()))
