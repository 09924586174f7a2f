"""Records that cannot be used, and what is kept of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from fuseboard_schemas.records import DeadLetter
from fuseboard_schemas.topics import MEGABYTE

if TYPE_CHECKING:
    from fuseboard_schemas.records import DeadLetterReason

PAYLOAD_BYTES: Final = 4 * MEGABYTE - 128 * 1024
"""Longest payload that is kept whole: the topic allows 4 MB for everything together."""
_KEY_BYTES: Final = 32 * 1024
_DETAIL_CHARACTERS: Final = 2_000


class BadRecord(NamedTuple):
    """A record that could not be used, as it was read."""

    topic: str
    """Topic name without the prefix."""
    partition: int
    offset: int
    arrival_us: int
    reason: DeadLetterReason
    detail: str
    key: bytes | None
    value: bytes | None


def to_dead_letter(bad: BadRecord) -> DeadLetter:
    """The dead letter of a record: a function of the record alone, so that a replay gives the same one."""
    value = bad.value
    return DeadLetter(
        topic=bad.topic,
        partition=bad.partition,
        offset=bad.offset,
        arrival=bad.arrival_us,
        reason=bad.reason,
        detail=_printable(bad.detail[:_DETAIL_CHARACTERS]),
        key=None if bad.key is None else bad.key[:_KEY_BYTES],
        payload=None if value is None else value[:PAYLOAD_BYTES],
        payload_length=0 if value is None else len(value),
        payload_sha256="" if value is None else hashlib.sha256(value).hexdigest(),
    )


def _printable(text: str) -> str:
    # A detail may quote bytes of the record; lone surrogates could not be encoded.
    return text.encode("utf-8", "replace").decode()
