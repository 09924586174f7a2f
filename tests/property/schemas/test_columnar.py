"""Columns agree with fastavro record by record, whatever happens to the bytes, and no bad record changes another."""

from __future__ import annotations

import io
import random
import struct
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_schemas import catalogue, wire
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.columnar import Decoded, decode
from fuseboard_schemas.encoding import long
from fuseboard_schemas.records.enums import DeadLetterReason
from fuseboard_schemas.registry import PackagedResolver
from tests.property.schemas.strategies import FLAT, records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESOLVER = PackagedResolver()
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


def rows(name: str, decoded: Decoded) -> list[dict[str, Any]]:
    """The frame's rows with symbols instead of codes."""
    frame = decoded.frame
    symbols = {f["name"]: f["type"]["symbols"] for f in catalogue.schema(name)["fields"] if is_enum(f["type"])}
    found = frame.to_dicts()
    for row in found:
        for field, names in symbols.items():
            row[field] = names[row[field]]
    return found


def is_enum(avro: Any) -> bool:
    return isinstance(avro, dict) and avro["type"] == "enum"


def check(name: str, values: Sequence[bytes | None]) -> Decoded:
    decoded = decode(name, values, RESOLVER)
    expected = [(i, reference(name, value)) for i, value in enumerate(values)]
    good = [(i, fields) for i, fields in expected if fields is not None]
    assert [bad.position for bad in decoded.bad] == [i for i, fields in expected if fields is None]
    positions = range(len(values)) if decoded.positions is None else decoded.positions.tolist()
    assert list(positions) == [i for i, _ in good]
    # repr() also tells NaN from NaN's absence, 0.0 from -0.0 and True from 1.
    assert [repr(row) for row in rows(name, decoded)] == [repr(fields) for _, fields in good]
    assert all(bad.detail for bad in decoded.bad)
    return decoded


@pytest.mark.parametrize("name", FLAT)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_good_records_come_back(name: str, data: st.DataObject) -> None:
    values = [ENCODERS[name].encode(record) for record in data.draw(st.lists(records(name), max_size=6))]
    decoded = check(name, values)
    assert decoded.bad == []
    assert decoded.positions is None


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


@pytest.mark.parametrize("seed", range(24))
def test_damage_stays_where_it_is(seed: int) -> None:
    rng = random.Random(seed)
    share = rng.choice([0.003, 0.1, 0.5, 1.0])
    values: list[bytes | None] = [call(rng) for _ in range(400)]
    for i, value in enumerate(values):
        if rng.random() < share:
            assert value is not None
            values[i] = rng.choice(MUTATIONS)(rng, value)
    for _ in range(rng.choice([0, 3])):
        a, b = rng.randrange(400), rng.randrange(400)
        values[a], values[b] = values[b], values[a]
    check("ToolCall", values)


@pytest.mark.parametrize(
    "field", ["event_id", "tenant", "actor", "trace_id", "intent", "tool", "error_type", "gate_breaker"]
)
@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"a\x80", b"\xf5\x80\x80\x80", b"\xe2\x98"])
def test_invalid_text_is_bad_in_every_field(field: str, bad: bytes) -> None:
    marker = "M" * len(bad)
    good = {"event_id": "e", "ts": 5, "actor": "a", "tool": "t", "outcome": "OK"}
    value = ENCODERS["ToolCall"].encode({**good, field: marker})
    values: list[bytes | None] = [call(random.Random(i)) for i in range(150)]
    values[77] = value.replace(marker.encode(), bad)
    decoded = check("ToolCall", values)
    assert [(entry.position, entry.reason) for entry in decoded.bad] == [(77, DeadLetterReason.UNDECODABLE)]


def body(**replaced: bytes) -> bytes:
    """A ToolCall's bytes, field by field, with some of them replaced."""
    fields = {
        "event_id": b"\x02e",
        "ts": long(1_767_225_600_000_000),
        "tenant": b"\x02t",
        "actor": b"\x02a",
        "client_id": long(-(1 << 63)),
        "seq": b"\x02\x0a",
        **dict.fromkeys(("trace_id", "span_id", "session_id", "task_id"), b"\x02\x02s"),
        "intent": b"\x00",
        "tool": b"\x02t",
        "effect": b"\x00",
        "outcome": b"\x02",
        "denied_by": b"\x00",
        **dict.fromkeys(("error_type", "duration_ms", "cost_usd_micros", "amount_usd_micros"), b"\x00"),
        "attempt": b"\x02",
        **dict.fromkeys(("idempotency_key", "compensates"), b"\x00"),
        "probe": b"\x00",
        **dict.fromkeys(("args_hash", "gate_breaker", "gate_epoch"), b"\x00"),
    }
    return wire.header(catalogue.packaged_id("ToolCall")) + b"".join((fields | replaced).values())


INDEXES = [
    long(i) for i in (0, 1, 2, 3, 4, 5, -1, -2, -3, -5, -6, 63, 64, 1 << 31, 1 << 32, (1 << 32) + 1, (1 << 63) - 1)
]
LENGTHS = [long(i) for i in (0, 1, 2, 63, 64, 8192, -1, -2, -64, 1 << 31, 1 << 32, 1 << 61, (1 << 63) - 1, -(1 << 63))]
OVERLONG = [b"\x82" + b"\x80" * n + last for n in range(12) for last in (b"\x00", b"\x01", b"\x02")]


@pytest.mark.parametrize(
    ("field", "bytes_"),
    [(field, raw) for field in ("effect", "outcome", "denied_by") for raw in (*INDEXES, *OVERLONG)]
    + [
        (field, tag + raw)
        for field in ("seq", "duration_ms", "gate_epoch")
        for tag in INDEXES
        for raw in (b"", b"\x0a")
    ]
    + [(field, raw) for field in ("tenant", "tool") for raw in (*LENGTHS, *(n + b"x" * 64 for n in LENGTHS), *OVERLONG)]
    + [("trace_id", b"\x02" + raw) for raw in (*LENGTHS, *OVERLONG)]
    + [("probe", bytes([raw])) for raw in (0, 1, 2, 3, 127, 128, 255)]
    + [("attempt", long(n)) for n in (0, (1 << 31) - 1, 1 << 31, -(1 << 31), -(1 << 31) - 1, 1 << 32, (1 << 63) - 1)]
    + [("client_id", b"\xff" * n + last) for n in range(12) for last in (b"\x00", b"\x01", b"\x02", b"\x7f")],
)
def test_every_odd_encoding_alone_and_among_others(field: str, bytes_: bytes) -> None:
    odd = body(**{field: bytes_})
    check("ToolCall", [odd])
    check("ToolCall", [body(), odd, body(event_id=b"\x04ff"), odd, body()])


def test_a_long_value_is_too_large() -> None:
    values: list[bytes | None] = [body(), body(tool=long(900_000) + b"x" * 900_000), body()]
    decoded = check("ToolCall", values)
    assert [bad.reason for bad in decoded.bad] == [DeadLetterReason.TOO_LARGE]


def test_each_reason_is_named() -> None:
    another = ENCODERS["SessionRequest"].encode({"event_id": "e", "ts": 1, "actor": "a", "session_id": "s"})
    values = [None, b"", b"\x00\x01", b"\x01" + body()[1:], b"\x00\x00\x00\x00\x07" + body()[5:], another, body()[:-1]]
    values += [body(attempt=long(1 << 40)), body()]
    decoded = check("ToolCall", values)
    assert [bad.reason.value for bad in decoded.bad] == [
        "TOMBSTONE",
        "NOT_WIRE_FORMAT",
        "NOT_WIRE_FORMAT",
        "NOT_WIRE_FORMAT",
        "UNKNOWN_SCHEMA",
        "WRONG_RECORD",
        "UNDECODABLE",
        "INVALID_FIELD",
    ]


def test_no_values() -> None:
    decoded = check("ToolCall", [])
    assert decoded.frame.height == 0
    assert decoded.frame.columns == [field["name"] for field in catalogue.schema("ToolCall")["fields"]]
    assert decoded.frame.schema == decode("ToolCall", [body()], RESOLVER).frame.schema
    assert decode("ToolCall", [None], RESOLVER).frame.schema == decoded.frame.schema
