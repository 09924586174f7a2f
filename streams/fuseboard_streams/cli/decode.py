"""From Kafka messages to records, with what cannot be decoded as a value of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_streams.cli.render.lines import Place

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Message

    from fuseboard_schemas.registry import Resolver


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A value that is no record of its topic: why, and how long it is."""

    reason: str
    detail: str
    length: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A record without a value: its key was deleted."""


class TopicDecoder:
    """Decodes the values of one topic."""

    def __init__(self, record: str, resolver: Resolver) -> None:
        self._record = record
        self._decoder = Decoder(resolver)

    def decode(self, value: bytes | None) -> Any:  # noqa: ANN401 - any of our records
        """Return the record, a `Tombstone` or an `Undecodable`."""
        if value is None:
            return Tombstone()
        try:
            return self._decoder.decode(value, self._record)
        except DecodeError as error:
            return Undecodable(str(error.reason), str(error.detail), len(value))

    def records(self, messages: Iterable[Message]) -> list[Any]:
        """Return the records among messages; tombstones and what cannot be decoded are left out."""
        decoded = (self.decode(message.value()) for message in messages)
        return [record for record in decoded if not isinstance(record, Tombstone | Undecodable)]


def place(message: Message) -> Place:
    """Return where a message lies and when it arrived."""
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Place(partition, offset, message.timestamp()[1] * 1_000)


def headers(message: Message) -> list[tuple[str, str | None]]:
    """Return a message's headers in their order, values as text."""
    found = message.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return [
        (name, value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value)
        for name, value in pairs
    ]


def key_text(message: Message) -> str:
    """Return a message's key as text; bytes that are no UTF-8 are escaped."""
    key = message.key()
    return "" if key is None else key.decode("utf-8", "backslashreplace")
