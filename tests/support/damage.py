"""Records that are damaged in every way that we can think of, and what strict fastavro makes of each."""

from __future__ import annotations

import io
import random
import struct
from typing import TYPE_CHECKING, Any

import fastavro

from fuseboard_schemas import catalogue, wire
from fuseboard_schemas.codec import Encoder
from tests.property.schemas.strategies import FLAT

if TYPE_CHECKING:
    from collections.abc import Callable

ENCODERS = {name: Encoder(name) for name in FLAT}


def plain_schema(name: str) -> Any:
    """The schema for fastavro with times as integers, made without the code under test."""

    def strip(avro: Any) -> Any:
        if isinstance(avro, dict):
            return {key: strip(item) for key, item in avro.items() if key != "logicalType"}
        return [strip(item) for item in avro] if isinstance(avro, list) else avro

    return fastavro.parse_schema(strip(catalogue.schema(name)))


PLAIN = {name: plain_schema(name) for name in FLAT}
INTS = {name: [f["name"] for f in catalogue.schema(name)["fields"] if f["type"] == "int"] for name in FLAT}


def reference(name: str, value: bytes | None) -> dict[str, Any] | None:
    """What strict fastavro makes of a value; None if it refuses it."""
    if value is None or len(value) > wire.MAX_EVENT_BYTES or value[:5] != wire.header(catalogue.packaged_id(name)):
        return None
    stream = io.BytesIO(value[5:])
    try:
        fields = fastavro.schemaless_reader(stream, PLAIN[name], None)
    except Exception:
        return None
    assert isinstance(fields, dict)
    in_range = all(-(1 << 31) <= fields[field] < 1 << 31 for field in INTS[name])
    return fields if stream.tell() == len(value) - 5 and in_range else None


NULLABLE = [f for f in catalogue.schema("ToolCall")["fields"] if isinstance(f["type"], list)]
TEXTS = [field["name"] for field in NULLABLE if field["type"][1] == "string"]
NUMBERS = [field["name"] for field in NULLABLE if field["type"][1] == "long"]


def call(rng: random.Random) -> bytes:
    """A ToolCall as agents write them, with short and long fields."""

    def maybe(make: Callable[[], Any]) -> Any:
        return make() if rng.random() < 0.6 else None

    def text() -> str:
        return rng.choice(
            ["a", "tool_7", f"{rng.getrandbits(128):032x}", "é☃", "x" * rng.choice([62, 63, 64, 65, 200, 9000])]
        )

    def number() -> int:
        return rng.getrandbits(rng.choice([3, 6, 7, 13, 20, 31, 48, 62, 63])) * rng.choice([1, 1, -1])

    return ENCODERS["ToolCall"].encode(
        {
            "event_id": text(),
            "ts": 1_767_225_600_000_000 + rng.getrandbits(40),
            "tenant": "default",
            "actor": text(),
            "client_id": number(),
            **{name: maybe(text) for name in ("trace_id", "span_id", "session_id", "task_id", "intent", "error_type")},
            **{
                name: maybe(number)
                for name in ("seq", "duration_ms", "cost_usd_micros", "amount_usd_micros", "gate_epoch")
            },
            **{name: maybe(text) for name in ("idempotency_key", "compensates", "args_hash", "gate_breaker")},
            "tool": text(),
            "effect": rng.choice(["READ", "WRITE", "IRREVERSIBLE"]),
            "outcome": rng.choice(["OK", "ERROR", "TIMEOUT", "DENIED", "CANCELLED"]),
            "denied_by": rng.choice(["NONE", "POLICY", "BREAKER", "APPROVAL", "BUDGET"]),
            "attempt": rng.choice([1, 2, 70, 1 << 20, -(1 << 31)]),
            "probe": rng.random() < 0.5,
        }
    )


def flip(rng: random.Random, value: bytes) -> bytes:
    bits = bytearray(value)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
    return bytes(bits)


def replace_byte(rng: random.Random, value: bytes) -> bytes:
    at = rng.randrange(5, len(value))
    return (
        value[:at]
        + rng.choice([b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"\x7f", b"\x80", b"\xff"])
        + value[at + 1 :]
    )


def shift(rng: random.Random, value: bytes) -> bytes:
    at = rng.randrange(5, len(value))
    return rng.choice([value[:at] + value[at + 1 :], value[:at] + rng.randbytes(1) + value[at:]])


def lengthen_varint(rng: random.Random, value: bytes) -> bytes:
    """Write some byte below 128 as an over-long varint of 2 to 12 bytes: the same number where a varint stands."""
    at = rng.choice([i for i in range(5, len(value)) if value[i] < 128])
    return (
        value[:at]
        + bytes([value[at] | 0x80])
        + b"\x80" * rng.randrange(11)
        + rng.choice([b"\x00", b"\x01"])
        + value[at + 1 :]
    )


MUTATIONS: list[Callable[[random.Random, bytes], bytes | None]] = [
    flip,
    replace_byte,
    shift,
    lengthen_varint,
    lambda rng, value: value[: rng.randrange(len(value))],
    lambda rng, value: value + rng.randbytes(rng.choice([1, 2, 16, 300])),
    lambda _, value: value + value[5:],
    lambda _, value: value + value,
    lambda rng, _: value_of_another_record(rng),
    lambda rng, value: b"\x00\x46\x42\x00\x01" + value_of_another_record(rng)[5:],
    lambda rng, value: struct.pack(">bI", 0, rng.choice([1, 7, 0x46420000, 0x4642FFFF])) + value[5:],
    lambda rng, value: bytes([rng.randrange(1, 256)]) + value[1:],
    lambda rng, _: rng.randbytes(rng.choice([0, 1, 4, 5, 6, 30, 200])),
    lambda rng, _: wire.header(catalogue.packaged_id("ToolCall")) + rng.randbytes(rng.choice([0, 1, 30, 200])),
    lambda *_: None,
    lambda *_: b"",
]


def value_of_another_record(rng: random.Random) -> bytes:
    return ENCODERS["SessionRequest"].encode(
        {
            "event_id": f"{rng.getrandbits(64):x}",
            "ts": rng.getrandbits(50),
            "actor": "a",
            "session_id": "s" * rng.randrange(80),
        }
    )
