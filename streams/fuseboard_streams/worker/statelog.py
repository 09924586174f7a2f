"""Entries of the state log: cut into records under a megabyte, and joined again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fuseboard_schemas.records import InputRange, StateKind, StateRecord
from fuseboard_streams.worker.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuseboard_streams.core.store import Delta

FORMAT: Final = 1
"""Version of the layout of entries."""
CHUNK_BYTES: Final = 900_000
"""Longest block in one record: below Kafka's default limit of 1 MiB with all that goes around it."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What the block of an entry does not hold, so that the transaction can be repeated exactly."""

    shard: int
    writer: str
    sequence: int
    restore_from: int
    stream_time: int
    advanced_us: int
    rules_version: str
    inputs: tuple[InputRange, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the state log, whole again."""

    first_offset: int
    """Offset of its first record."""
    last_offset: int
    head: StateRecord
    """Its first record; all fields but the block are the entry's."""
    block: bytes

    @property
    def next_offsets(self) -> dict[str, int]:
        """Where to continue each input, by topic name without the prefix."""
        return {each.topic: each.next_offset for each in self.head.inputs}


def ranges(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[InputRange, ...]:
    """The ranges of offsets between two positions, for every input."""
    return tuple(
        InputRange(topic=topic, from_offset=start, next_offset=after[topic]) for topic, start in sorted(before.items())
    )


def to_records(journal: Journal, delta: Delta | None, chunk_bytes: int = CHUNK_BYTES) -> list[StateRecord]:
    """The records of one entry: a DELTA with the given changes, or a CLAIM without any."""
    block = delta.block if delta is not None else b""
    pieces = [block[at : at + chunk_bytes] for at in range(0, len(block), chunk_bytes)] or [b""]
    return [
        StateRecord(
            format=FORMAT,
            shard=journal.shard,
            writer=journal.writer,
            sequence=journal.sequence,
            chunk=number,
            chunks=len(pieces),
            kind=StateKind.CLAIM if delta is None else StateKind.DELTA,
            restore_from=journal.restore_from,
            starts_round=delta is not None and delta.starts_round,
            ends_round=delta is not None and delta.ends_round,
            stream_time=journal.stream_time,
            advanced_us=journal.advanced_us,
            rules_version=journal.rules_version,
            inputs=journal.inputs,
            block=piece,
        )
        for number, piece in enumerate(pieces)
    ]


class EntryJoiner:
    """Joins committed records of one shard, in log order, to entries.

    Args:
        where: The partition in words, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._open: list[StateRecord] = []
        self._first_offset = 0
        self._last_sequence: int | None = None

    def add(self, record: StateRecord, offset: int) -> Entry | None:
        """Take the next record; the entry, if it completes one.

        Raises:
            WorkerError: The record is of an unknown kind or does not follow the one before.
        """
        if record.format != FORMAT or record.kind is StateKind.OTHER:
            raise self._refuse(offset, f"format {record.format} and kind {record.kind}, which this version cannot read")
        if record.chunk == 0:
            if self._open:
                raise self._refuse(offset, "a new entry before the end of the last one")
            if self._last_sequence is not None and record.sequence != self._last_sequence + 1:
                raise self._refuse(offset, f"entry {record.sequence} after entry {self._last_sequence}")
            self._first_offset = offset
        elif not self._open or not _follows(self._open[-1], record):
            raise self._refuse(offset, f"chunk {record.chunk} of entry {record.sequence} without the one before")
        self._open.append(record)
        if len(self._open) < record.chunks:
            return None
        whole, self._open = self._open, []
        self._last_sequence = record.sequence
        return Entry(self._first_offset, offset, whole[0], b"".join([each.block for each in whole]))

    def finish(self) -> None:
        """Nothing may be left open at the end of the log.

        Raises:
            WorkerError: An entry is cut off.
        """
        if self._open:
            raise self._refuse(self._first_offset, "an entry that is cut off")

    def _refuse(self, offset: int, what: str) -> WorkerError:
        return WorkerError(
            f"{self._where}, offset {offset}: the state log holds {what}. Every transaction writes its entry whole and "
            "in order, so records were lost or another program writes to this topic. Restore the topic from a copy, or "
            "run the version that wrote it."
        )


def _follows(before: StateRecord, record: StateRecord) -> bool:
    return (
        record.sequence == before.sequence
        and record.writer == before.writer
        and record.chunk == before.chunk + 1
        and record.chunks == before.chunks
    )
