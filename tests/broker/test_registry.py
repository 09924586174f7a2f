"""The schema registry client and resolver against Apicurio Registry's Confluent API."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard_schemas import catalogue, topics
from fuseboard_schemas.codec import DecodeError, Decoder, Encoder
from fuseboard_schemas.columnar import decode
from fuseboard_schemas.errors import ConfigurationError, UnreachableError
from fuseboard_schemas.records import Effect, Outcome, ToolCall
from fuseboard_schemas.records.enums import DeadLetterReason
from fuseboard_schemas.registry import Registry, RegistryRefusedError, RegistryResolver, compare, register_all
from fuseboard_schemas.topics import TopicNames

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.registry

CALL = ToolCall(event_id="e", ts=1_767_225_600_000_000, actor="a", tool="t", effect=Effect.READ, outcome=Outcome.OK)


@pytest.fixture
def registry(apicurio: str) -> Iterator[Registry]:
    with Registry({"url": apicurio, "timeout": 30}) as client:
        yield client


@pytest.fixture
def names(unique_prefix: str) -> TopicNames:
    return TopicNames(unique_prefix)


def subject(names: TopicNames) -> str:
    return f"{names.tool_calls}-value"


def changed(**changes: Any) -> catalogue.Schema:
    """ToolCall with one field changed, or added if there is no such field."""
    schema = copy.deepcopy(catalogue.schema("ToolCall"))
    fields = {field["name"]: field for field in schema["fields"]}
    for name, field in changes.items():
        fields[name] = {"name": name, **field}
    schema["fields"] = list(fields.values())
    return schema


def test_every_schema_registers_and_is_found_again(registry: Registry, names: TopicNames) -> None:
    assert {entry.status for entry in compare(registry, names)} == {"missing"}
    first = register_all(registry, names)
    assert [entry.record for entry in first] == [topic.record for topic in topics.TOPICS]
    assert register_all(registry, names) == first
    assert {(entry.status, entry.problems) for entry in compare(registry, names)} == {("same", ())}
    by_record = {entry.record: entry for entry in first}
    assert registry.lookup(subject(names), catalogue.schema("ToolCall")) == by_record["ToolCall"].schema_id


def test_a_registered_id_decodes_like_the_packaged_one(registry: Registry, names: TopicNames) -> None:
    schema_id = registry.register(subject(names), catalogue.schema("ToolCall"))
    assert not catalogue.is_packaged_id(schema_id)
    resolver = RegistryResolver(registry)
    values = [Encoder("ToolCall", schema_id).encode(CALL), Encoder("ToolCall").encode(CALL)]
    assert [Decoder(resolver).decode(value, "ToolCall") for value in values] == [CALL, CALL]
    assert decode("ToolCall", values, resolver).frame["event_id"].to_list() == ["e", "e"]


def test_a_newer_compatible_writer_is_read(registry: Registry, names: TopicNames) -> None:
    registry.register(subject(names), catalogue.schema("ToolCall"))
    effect = next(field for field in catalogue.schema("ToolCall")["fields"] if field["name"] == "effect")
    symbols = ["READ", "WRITE", "IRREVERSIBLE", "TELEPORT"]
    newer = changed(
        region={"type": ["null", "string"], "default": None},
        effect={"type": {**effect["type"], "symbols": symbols}, "default": "IRREVERSIBLE"},
    )
    schema_id = registry.register(subject(names), newer)
    body = Encoder("ToolCall").encode(CALL)[5:]
    value = b"\x00" + schema_id.to_bytes(4, "big") + body + b"\x02\x04eu"
    resolver = RegistryResolver(registry)
    assert Decoder(resolver).decode(value, "ToolCall") == CALL
    decoded = decode("ToolCall", [value], resolver)
    assert (decoded.bad, decoded.frame.columns) == ([], [f["name"] for f in catalogue.schema("ToolCall")["fields"]])


def test_an_incompatible_schema_is_refused_and_named(registry: Registry, names: TopicNames) -> None:
    registry.register(subject(names), catalogue.schema("ToolCall"))
    with pytest.raises(RegistryRefusedError, match="refuses a schema"):
        registry.register(subject(names), changed(region={"type": "string"}))


def test_compare_names_what_cannot_be_read(registry: Registry, names: TopicNames) -> None:
    registry.register(subject(names), changed(actor={"type": "long"}))
    [entry] = [entry for entry in compare(registry, names) if entry.record == "ToolCall"]
    assert entry.status == "incompatible"
    assert [problem.field for problem in entry.problems] == ["ToolCall.actor"]


def test_an_unknown_id_is_unknown_and_asked_for_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = registry.schema
    monkeypatch.setattr(registry, "schema", lambda schema_id: asked.append(schema_id) or ask(schema_id))
    now = [0.0]
    resolver = RegistryResolver(registry, missing_ttl_s=60, clock=lambda: now[0])
    value = b"\x00\x7f\xff\xff\xf0" + Encoder("ToolCall").encode(CALL)[5:]
    for _ in range(3):
        with pytest.raises(DecodeError) as raised:
            Decoder(resolver).decode(value, "ToolCall")
        assert raised.value.reason is DeadLetterReason.UNKNOWN_SCHEMA
    assert asked == [0x7FFFFFF0]
    now[0] = 61.0
    assert resolver.resolve(0x7FFFFFF0) is None
    assert asked == [0x7FFFFFF0] * 2


def test_packaged_ids_never_ask(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "schema", lambda _: pytest.fail("asked"))
    resolver = RegistryResolver(registry)
    assert resolver.resolve(catalogue.packaged_id("Signal")).record == "Signal"  # type: ignore[union-attr]
    assert resolver.resolve(catalogue.PACKAGED_ID_BASE + 0xFFFF) is None


def test_another_kind_of_schema_is_the_wrong_record(registry: Registry, names: TopicNames, apicurio: str) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    with SchemaRegistryClient({"url": apicurio}) as client:
        schema_id = client.register_schema(f"{names.prefix}json-value", Schema(json.dumps(schema), "JSON"))
    with pytest.raises(DecodeError, match="not Avro but JSON") as raised:
        Decoder(RegistryResolver(registry)).decode(b"\x00" + schema_id.to_bytes(4, "big"), "ToolCall")
    assert raised.value.reason is DeadLetterReason.WRONG_RECORD


def test_a_wrong_path_is_no_missing_schema(apicurio: str) -> None:
    refused = pytest.raises(UnreachableError, match="Confluent-compatible API")
    with Registry({"url": apicurio + "/nowhere", "max.retries": 0}) as elsewhere, refused:
        RegistryResolver(elsewhere).resolve(7)


def test_a_registry_that_is_down_is_no_missing_schema() -> None:
    with Registry({"url": "http://user:secret@127.0.0.1:9", "max.retries": 0}) as down:
        resolver = RegistryResolver(down)
        with pytest.raises(UnreachableError) as raised:
            decode("ToolCall", [b"\x00\x00\x00\x00\x07abc"], resolver)
    assert "http://127.0.0.1:9" in str(raised.value)
    assert "secret" not in str(raised.value) + repr(resolver)


def test_wrong_settings_are_named() -> None:
    for config in (
        {"url": "nonsense"},
        {},
        {"url": "http://x", "colour": "red"},
        {"url": "http://x", "timeout": "soon"},
    ):
        with pytest.raises(ConfigurationError, match="FUSEBOARD_REGISTRY__"):
            Registry(config)
