"""Columns agree with fastavro record by record, whatever happens to the bytes, and no bad record changes another."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_schemas import catalogue, wire
from fuseboard_schemas.columnar import Decoded, decode
from fuseboard_schemas.encoding import long
from fuseboard_schemas.records.enums import DeadLetterReason
from fuseboard_schemas.registry import PackagedResolver
from tests.property.schemas.strategies import FLAT, records
from tests.support.damage import ENCODERS, MUTATIONS, call, reference

if TYPE_CHECKING:
    from collections.abc import Sequence

RESOLVER = PackagedResolver()


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
    # Fewer columns: the same verdicts, and the same values.
    for some in (decoded.frame.columns[::3], decoded.frame.columns[1::2]):
        part = decode(name, values, RESOLVER, only=some)
        assert part.frame.equals(decoded.frame.select(some))
        assert part.bad == decoded.bad
        assert (part.positions is None) == (decoded.positions is None)
    return decoded


@pytest.mark.parametrize("name", FLAT)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_good_records_come_back(name: str, data: st.DataObject) -> None:
    values = [ENCODERS[name].encode(record) for record in data.draw(st.lists(records(name), max_size=6))]
    decoded = check(name, values)
    assert decoded.bad == []
    assert decoded.positions is None


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
