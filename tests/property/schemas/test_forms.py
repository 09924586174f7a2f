"""Every record survives its forms: bytes, JSON, keys."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_schemas import catalogue, keys, wire
from fuseboard_schemas.codec import Decoder, Encoder, without_logical_types
from fuseboard_schemas.jsonform import JsonFormError, from_json, load_object, parse_line, to_json
from fuseboard_schemas.records.enums import Scope
from tests.property.schemas.strategies import records

STEADY = settings(max_examples=15, deadline=None, derandomize=True)
ENCODERS = {name: Encoder(name) for name in catalogue.record_names()}
PLAIN = {name: fastavro.parse_schema(without_logical_types(catalogue.schema(name))) for name in ENCODERS}


@pytest.mark.parametrize("name", catalogue.record_names())
@STEADY
@given(data=st.data())
def test_bytes_are_fastavros_and_come_back(name: str, data: st.DataObject) -> None:
    record = data.draw(records(name))
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, PLAIN[name], asdict(record))
    value = ENCODERS[name].encode(record)
    assert value == wire.header(catalogue.packaged_id(name)) + stream.getvalue()
    assert Decoder().decode(value, name) == record
    assert ENCODERS[name].encode(asdict(record)) == value


@pytest.mark.parametrize("name", catalogue.record_names())
@STEADY
@given(data=st.data())
def test_json_comes_back(name: str, data: st.DataObject) -> None:
    record = data.draw(records(name))
    line = json.dumps(to_json(record), allow_nan=False)
    assert parse_line(name, line, where="t:1") == record
    assert from_json(name, json.loads(line), where="t:1") == record


TEXT = st.text(alphabet=st.sampled_from("%/:ab25F2é"), max_size=6) | st.text(max_size=4)


@STEADY
@given(TEXT)
def test_parts_of_keys_come_back(part: str) -> None:
    assert keys.decode_part(keys.encode_part(part)) == part
    assert "/" not in keys.encode_part(part)


@STEADY
@given(TEXT, TEXT, TEXT, TEXT)
def test_breaker_ids_come_back(tenant: str, actor: str, tool: str, trace: str) -> None:
    targets = [
        keys.Target(Scope.ACTOR, tenant, actor=actor),
        keys.Target(Scope.ACTOR_TOOL, tenant, actor=actor, tool=tool),
        keys.Target(Scope.TOOL, tenant, tool=tool),
        keys.Target(Scope.TENANT, tenant),
        keys.Target(Scope.SESSION, tenant, actor=actor, trace_id=trace),
    ]
    ids = [keys.breaker_id(t.scope, t.tenant, t.actor, t.tool, t.trace_id) for t in targets]
    assert [keys.parse_breaker_id(identity) for identity in ids] == targets
    assert len(set(ids)) == len(ids)


@STEADY
@given(TEXT, TEXT, TEXT, TEXT)
def test_keys_are_equal_only_for_equal_parts(a: str, b: str, c: str, d: str) -> None:
    assert (keys.actor_key(a, b) == keys.actor_key(c, d)) == ((a, b) == (c, d))


@STEADY
@given(st.text() | st.binary())
def test_no_text_breaks_the_parser(text: Any) -> None:
    message = "t:1: "
    try:
        load_object(text, where="t:1")
    except JsonFormError as error:
        message = str(error)
    assert message.startswith("t:1: ")
