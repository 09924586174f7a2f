"""Errors of the single-record codec, and schemas of other versions."""

from __future__ import annotations

import copy
import dataclasses
import io
from typing import Any

import fastavro
import pytest

from fuseboard_schemas import catalogue, wire
from fuseboard_schemas.codec import DecodeError, Decoder, EncodeError, Encoder
from fuseboard_schemas.columnar import decode
from fuseboard_schemas.layouts import NotFlatError, layout_of
from fuseboard_schemas.records import DeadLetterReason, Effect, Outcome, ToolCall
from fuseboard_schemas.registry import PackagedResolver, Writer

CALL = ToolCall(
    event_id="e", ts=1, actor="a", tool="t", effect=Effect.WRITE, outcome=Outcome.ERROR, seq=7, attempt=3, probe=True
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actor": None}, r"ToolCall.actor cannot be None: expected a string"),
        ({"actor": 5}, r"ToolCall.actor cannot be 5"),
        ({"actor": "\ud800"}, r"ToolCall.actor cannot be"),
        ({"seq": "x"}, r"ToolCall.seq cannot be 'x': expected an integer of 64 bits or null"),
        ({"seq": 1 << 63}, r"ToolCall.seq cannot be"),
        ({"seq": 1.5}, r"ToolCall.seq cannot be 1.5"),
        ({"attempt": 1 << 31}, r"ToolCall.attempt cannot be 2147483648: expected an integer of 32 bits"),
        ({"ts": None}, r"ToolCall.ts cannot be None: expected a time"),
        ({"effect": "DESTROY"}, r"ToolCall.effect cannot be 'DESTROY': expected one of READ, WRITE, IRREVERSIBLE"),
        ({"probe": "yes"}, r"ToolCall.probe cannot be 'yes': expected boolean"),
    ],
)
def test_a_value_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        Encoder("ToolCall").encode(dataclasses.replace(CALL, **change))


def test_only_the_encoders_own_record_is_written() -> None:
    with pytest.raises(EncodeError, match="not ToolCall"):
        Encoder("Signal").encode(CALL)
    with pytest.raises(EncodeError, match="make no ToolCall"):
        Encoder("ToolCall").encode({"event_id": "e"})
    with pytest.raises(catalogue.CatalogueError, match="Nonsense"):
        Encoder("Nonsense")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, DeadLetterReason.TOMBSTONE),
        (b"", DeadLetterReason.NOT_WIRE_FORMAT),
        (b'{"a":1}', DeadLetterReason.NOT_WIRE_FORMAT),
        (b"\x00\x00\x00\x00\x01abc", DeadLetterReason.UNKNOWN_SCHEMA),
        (wire.header(catalogue.packaged_id("Signal")), DeadLetterReason.WRONG_RECORD),
        (wire.header(catalogue.packaged_id("ToolCall")), DeadLetterReason.UNDECODABLE),
        (Encoder("ToolCall").encode(CALL) + b"\x00", DeadLetterReason.UNDECODABLE),
    ],
)
def test_what_is_no_record_has_a_reason(value: bytes | None, reason: DeadLetterReason) -> None:
    with pytest.raises(DecodeError) as raised:
        Decoder().decode(value, "ToolCall")
    assert raised.value.reason is reason
    assert raised.value.detail


class OneSchema:
    """Knows one schema, under the id 7."""

    def __init__(self, schema: catalogue.Schema) -> None:
        self.writer = Writer.of(7, schema)

    def resolve(self, schema_id: int) -> Writer | None:
        return self.writer if schema_id == 7 else None


def evolved(*, drop: tuple[str, ...] = (), replace: dict[str, Any] | None = None, add: list[Any] | None = None) -> Any:
    schema = copy.deepcopy(catalogue.schema("ToolCall"))
    kept = [field for field in schema["fields"] if field["name"] not in drop]
    for field in kept:
        field.update((replace or {}).get(field["name"], {}))
    return {**schema, "fields": [*(add or []), *kept]}


def enum_of(name: str, symbols: list[str]) -> dict[str, Any]:
    [field] = [field for field in catalogue.schema("ToolCall")["fields"] if field["name"] == name]
    return {"type": {**field["type"], "symbols": symbols, "default": symbols[-1]}}


ROW = dataclasses.asdict(CALL)
NULLABLE_STRING = {"type": ["null", "string"], "default": None}


@pytest.mark.parametrize(
    ("schema", "row", "expected", "columns"),
    [
        (evolved(drop=("intent", "attempt", "denied_by", "probe")), {}, {"attempt": 1, "probe": False}, True),
        (evolved(add=[{"name": "region", **NULLABLE_STRING}]), {"region": "eu"}, {}, True),
        (evolved(add=[{"name": "tags", "type": {"type": "array", "items": "string"}}]), {"tags": ["x"]}, {}, False),
        (
            evolved(replace={"client_id": {"type": "int"}, "seq": {"type": "long", "default": 0}}),
            {"client_id": 9},
            {"client_id": 9},
            True,
        ),
        (evolved(replace={"effect": enum_of("effect", ["IRREVERSIBLE", "WRITE", "READ"])}), {}, {}, True),
        (
            evolved(replace={"effect": enum_of("effect", ["READ", "TELEPORT", "WRITE"])}),
            {"effect": "TELEPORT"},
            {"effect": Effect.IRREVERSIBLE},
            True,
        ),
        (evolved(replace={"actor": {"type": ["null", "string"]}}), {}, {}, False),
        (evolved(replace={"actor": {"type": "bytes"}}), {"actor": b"a"}, {}, False),
        ({**catalogue.schema("ToolCall"), "namespace": "com.example"}, {}, {}, True),
    ],
)
def test_other_versions_are_read_alike(
    schema: Any, row: dict[str, Any], expected: dict[str, Any], columns: bool
) -> None:
    resolver = OneSchema(schema)
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), {**ROW, **row})
    value = wire.header(7) + stream.getvalue()
    call = dataclasses.replace(CALL, **expected)
    assert Decoder(resolver).decode(value, "ToolCall") == call
    assert (layout_of(resolver.writer, "ToolCall") is not None) is columns
    packaged = Encoder("ToolCall").encode(call)
    same = decode("ToolCall", [packaged, packaged], PackagedResolver()).frame
    assert decode("ToolCall", [value, value], resolver).frame.equals(same)
    mixed = decode("ToolCall", [value, None, value[:-1], value], resolver)
    assert mixed.frame.equals(same)
    assert mixed.positions is not None
    assert mixed.positions.tolist() == [0, 3]


def test_a_null_where_none_may_be_is_bad_alone() -> None:
    schema = evolved(replace={"actor": {"type": ["null", "string"]}})
    values: list[bytes | None] = []
    for actor in ("a", None, "b"):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), {**ROW, "actor": actor})
        values.append(wire.header(7) + stream.getvalue())
    decoded = decode("ToolCall", values, OneSchema(schema))
    assert decoded.frame["actor"].to_list() == ["a", "b"]
    assert [bad.position for bad in decoded.bad] == [1]


def test_a_schema_that_cannot_be_resolved_is_named() -> None:
    resolver = OneSchema(evolved(drop=("actor",)))
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(resolver.writer.schema), ROW)
    value = wire.header(7) + stream.getvalue()
    with pytest.raises(DecodeError, match="actor") as raised:
        Decoder(resolver).decode(value, "ToolCall")
    assert raised.value.reason is DeadLetterReason.UNDECODABLE
    assert [bad.reason for bad in decode("ToolCall", [value], resolver).bad] == [DeadLetterReason.UNDECODABLE]


def test_records_with_arrays_have_no_columns() -> None:
    with pytest.raises(NotFlatError, match=r"BreakerCommand\.holds"):
        decode("BreakerCommand", [], PackagedResolver())
