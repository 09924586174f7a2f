"""A shard's state, read from its log as a worker that takes it over reads it; nothing is fenced or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_schemas.errors import FuseboardError
from fuseboard_streams.cli.kafka import MissingTopicError
from fuseboard_streams.core.blocks import StateFormatError
from fuseboard_streams.core.settings import HashSeeds
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.rules.compile import PACKAGED, compile_rules
from fuseboard_streams.worker.errors import WorkerError
from fuseboard_streams.worker.settings import load_settings
from fuseboard_streams.worker.statelog import EntryJoiner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from confluent_kafka import Message

    from fuseboard_schemas.records import StateRecord
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Partition, Reader
    from fuseboard_streams.core.settings import CoreSettings

_FIRST_WINDOW: Final = 32
_WIDER: Final = 16
_TRIES: Final = 2
_SEEDS: Final = HashSeeds(1, 2)
"""Nobody else's keys are in such a shard, so that none can be made to collide with them on purpose."""


class NoStateError(FuseboardError):
    """There is no state of a shard that can be read here; the message says why."""


@dataclass(frozen=True, slots=True)
class ShardState:
    """A shard as its state log has it."""

    shard: Shard
    written_us: int
    """When the broker had the last entry, µs since the epoch."""
    entries: int
    """How many were read."""
    block_bytes: int


def read_shard(
    reader: Reader, connection: Connection, number: int, file: Mapping[str, Any], progress: Callable[[float], None]
) -> ShardState:
    """Read one shard's state: one partition, from the last complete checkpoint round on.

    Args:
        reader: A client.
        connection: How to reach Kafka.
        number: The shard.
        file: The content of the configuration file, for the worker's settings in it; empty without one.
        progress: Called with the share that has been read.

    Raises:
        NoStateError: There is none, or it cannot be read.
    """
    topic = connection.prefix + "state"
    try:
        settings = load_settings(file).core
        partitions = len(reader.partitions(topic))
        for left in range(_TRIES - 1, -1, -1):
            try:
                return _read(reader, topic, number, partitions, settings, progress)
            except StateFormatError:
                # The worker has deleted the round meanwhile that was the last complete one when we looked.
                if left == 0:
                    raise
        raise AssertionError("unreachable")
    except MissingTopicError:
        raise NoStateError(f"{topic} is not there, or may not be read") from None
    except FuseboardError as error:
        raise NoStateError(str(error)) from error


def _read(
    reader: Reader,
    topic: str,
    number: int,
    partitions: int,
    settings: CoreSettings,
    progress: Callable[[float], None],
) -> ShardState:
    decoder = Decoder(reader.resolver)
    ends = reader.watermarks(topic, number)
    last = _last(reader, topic, ends)
    if last is None:
        raise NoStateError(f"no worker has written any state of shard {number} to {topic}")
    start = max(ends.low, _decoded(decoder, topic, last).restore_from)
    shard = Shard(number, partitions, settings, _SEEDS, compile_rules(PACKAGED.read_bytes(), PACKAGED.name).rules)
    joiner = EntryJoiner(f"{topic} [{number}]")
    entries = size = written = 0
    for message in reader.to_end(topic, {number: start}):
        offset = message.offset() or 0
        progress(min((offset - start + 1) / max(ends.high - start, 1), 1.0))
        entry = joiner.add(_decoded(decoder, topic, message), offset)
        if entry is None:
            continue
        # A claim has no block.
        if entry.block:
            shard.apply(entry.block)
            entries += 1
            size += len(entry.block)
        written = message.timestamp()[1] * 1_000
    if not entries:
        raise NoStateError(f"a worker has taken shard {number} over, and has seen nothing yet")
    shard.finish_restore()
    _under_its_rules(shard, settings)
    return ShardState(shard, written, entries, size)


def _last(reader: Reader, topic: str, ends: Partition) -> Message | None:
    """Return the last committed record, found by reading ever larger windows before the end."""
    window = _FIRST_WINDOW
    while True:
        begin = max(ends.low, ends.high - window)
        last = None
        for last in reader.to_end(topic, {ends.number: begin}):  # noqa: B007 - the last one is wanted
            pass
        if last is not None or begin == ends.low:
            return last
        window *= _WIDER


def _decoded(decoder: Decoder, topic: str, message: Message) -> StateRecord:
    try:
        record: StateRecord = decoder.decode(message.value(), "StateRecord")
    except DecodeError as error:
        raise WorkerError(
            f"{topic} [{message.partition()}], offset {message.offset()}: not a record of the state log "
            f"({error.detail}). Only workers may write to this topic: stop the program that does, and restore the "
            "topic from a copy."
        ) from None
    return record


def _under_its_rules(shard: Shard, settings: CoreSettings) -> None:
    """Look at a shard under the rules that it was last run with; they are noted in its state, word for word."""
    text = shard.parts.state.rules_text
    if text is not None and shard.rules_version != shard.rules_in_force:
        shard.go_on_under(compile_rules(text, "the rules noted in the state", settings.failure).rules)
