"""From records to what is produced: bytes, headers, partitions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams.worker.statereader import PARTITIONS_HEADER
from fuseboard_streams.worker.transaction import Headers, Outgoing, StateWrite

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.records import BreakerCommand, DeadLetter, Heartbeat, Signal, StateRecord
    from fuseboard_streams.core.decisions import Output
    from fuseboard_streams.core.mail import PaneOutput

_SOURCE: Final = "fuseboard/worker"
_BY_ATTRIBUTE: Final = {topic.attribute: topic for topic in TOPICS}
_OUTPUTS: Final = ("signals", "breaker_commands", "panes", "dead_letters", "heartbeats", "state")
_LARGEST_TIME_US: Final = 253_402_300_799_999_999


class Outbox:
    """Turns records into produced ones, each to the partition of its shard, but for panes.

    Values carry the packaged schema ids, with a registry too: every reader of ours knows them, also where it cannot
    reach the registry, and an enforcer must always be able to read a command.

    Args:
        names: Full topic names.
        partitions: Partition count of all topics, for the header of state records.
    """

    def __init__(self, names: TopicNames, partitions: int) -> None:
        self._topics = {each: getattr(names, each) for each in _OUTPUTS}
        self._encoders = {each: Encoder(_BY_ATTRIBUTE[each].record) for each in _OUTPUTS}
        self._state_headers: Headers = [(PARTITIONS_HEADER, b"%d" % partitions)]

    def decision(self, shard: int, output: Output) -> Outgoing:
        """A signal or a command; its headers are functions of the record alone, so that a replay repeats them."""
        topic, record = self._topics[output.topic], output.record
        if record is None:
            return Outgoing(topic, shard, output.key, None, [])
        value = self._encoders[output.topic].encode(record)
        return Outgoing(topic, shard, output.key, value, _cloud_event(record))

    def pane(self, shard: int, output: PaneOutput) -> Outgoing:
        """What a shard tells the owner of a tool or a tenant, or one of its actors' shards: to that one's partition."""
        record = output.record
        value = self._encoders["panes"].encode(record)
        identity = f"{shard}/{output.partition}/{record.sequence}/{record.ts}"
        return Outgoing(
            self._topics["panes"], output.partition, output.key, value, _headers(identity, record, record.ts)
        )

    def dead_letter(self, letter: DeadLetter) -> Outgoing:
        """A record that could not be used, to the partition it came from."""
        value = self._encoders["dead_letters"].encode(letter)
        identity = f"{letter.topic}/{letter.partition}/{letter.offset}"
        return Outgoing(
            self._topics["dead_letters"],
            letter.partition,
            letter.key,
            value,
            _headers(identity, letter, letter.arrival),
        )

    def heartbeat(self, beat: Heartbeat) -> Outgoing:
        """A sign of life, to the shard's own partition."""
        value = self._encoders["heartbeats"].encode(beat)
        identity = f"{beat.worker_id}/{beat.shard}/{beat.ts}"
        return Outgoing(
            self._topics["heartbeats"], beat.shard, beat.worker_id.encode(), value, _headers(identity, beat, beat.ts)
        )

    def state(self, records: Iterable[StateRecord]) -> StateWrite:
        """An entry of the state log."""
        encode = self._encoders["state"].encode
        topic = self._topics["state"]
        return StateWrite(
            [Outgoing(topic, each.shard, b"%d" % each.shard, encode(each), self._state_headers) for each in records]
        )


def _cloud_event(record: Signal | BreakerCommand) -> Headers:
    identity = (
        getattr(record, "signal_id", None) or f"{getattr(record, 'breaker_id', '')}#{getattr(record, 'epoch', 0)}"
    )
    return _headers(identity, record, record.ts)


def _headers(identity: str, record: Any, ts: int) -> Headers:  # noqa: ANN401 - any of the records
    return [
        ("ce_id", identity.encode()),
        ("ce_type", f"fuseboard.v1.{type(record).__name__}".encode()),
        ("ce_source", _SOURCE.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_time", _rfc3339(ts).encode()),
        ("content-type", b"application/avro"),
    ]


def _rfc3339(ts: int) -> str:
    seconds, micros = divmod(min(max(ts, 0), _LARGEST_TIME_US), 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
