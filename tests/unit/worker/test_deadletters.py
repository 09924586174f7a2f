"""What is kept of a record that cannot be used."""

from __future__ import annotations

import hashlib

from fuseboard_schemas.codec import Decoder, Encoder
from fuseboard_schemas.records import DeadLetter, DeadLetterReason
from fuseboard_schemas.topics import by_name
from fuseboard_streams.worker.deadletters import PAYLOAD_BYTES, BadRecord, to_dead_letter


def letter(value: bytes | None, detail: str = "why", key: bytes | None = b"t/a") -> DeadLetter:
    return to_dead_letter(BadRecord("tool-calls", 3, 17, 5, DeadLetterReason.UNDECODABLE, detail, key, value))


def test_it_holds_the_record_and_where_it_was() -> None:
    made = letter(b"\x00bytes")
    assert (made.topic, made.partition, made.offset, made.arrival) == ("tool-calls", 3, 17, 5)
    assert (made.key, made.payload, made.payload_length) == (b"t/a", b"\x00bytes", 6)
    assert made.payload_sha256 == hashlib.sha256(b"\x00bytes").hexdigest()
    assert made == letter(b"\x00bytes")


def test_a_tombstone_has_no_payload() -> None:
    made = letter(None, key=None)
    assert (made.payload, made.payload_length, made.payload_sha256, made.key) == (None, 0, "", None)


def test_the_largest_fits_into_the_topic() -> None:
    value = bytes(8 * 1024 * 1024)
    made = letter(value, "x" * 10_000, bytes(1024 * 1024))
    assert made.payload_length == len(value)
    assert made.payload == value[:PAYLOAD_BYTES]
    assert made.payload_sha256 == hashlib.sha256(value).hexdigest()
    topic = by_name("dead-letters")
    assert topic is not None
    encoded = Encoder("DeadLetter").encode(made)
    assert len(encoded) + len(made.key or b"") + 4_096 < topic.max_message_bytes


def test_a_detail_that_quotes_odd_text_can_be_encoded() -> None:
    made = letter(b"v", "tool \ud800 is odd")
    assert Decoder().decode(Encoder("DeadLetter").encode(made), "DeadLetter") == made
