"""The packaged schemas, what is generated from them, and the imports' cost."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from fuseboard_schemas import catalogue, generate, records, topics
from fuseboard_schemas.records import enums

HEAVY = ["numpy", "polars", "fastavro", "confluent_kafka"]
TOPICS_YAML = Path(__file__).parents[3] / "ops" / "kafka" / "topics.yaml"


def schemas(avro: Any) -> list[dict[str, Any]]:
    """Every type and field in a schema."""
    if isinstance(avro, list):
        return [found for item in avro for found in schemas(item)]
    if not isinstance(avro, dict):
        return []
    return [avro, *(found for key in ("type", "items", "fields") for found in schemas(avro.get(key)))]


@pytest.mark.parametrize("record", catalogue.record_names())
def test_every_record_field_and_enum_is_documented(record: str) -> None:
    schema = catalogue.schema(record)
    assert schema["namespace"] == catalogue.NAMESPACE
    named = [part for part in schemas(schema) if "name" in part]
    assert [part["name"] for part in named if not part.get("doc", "").endswith(".")] == []
    assert [
        part["name"] for part in named if part.get("type") == "enum" and part.get("default") not in part["symbols"]
    ] == []


@pytest.mark.parametrize("record", generate.MODULES["events"][1])
def test_agents_events_are_flat_and_share_an_envelope(record: str) -> None:
    fields = catalogue.schema(record)["fields"]
    envelope = ["event_id", "ts", "tenant", "actor", "client_id", "seq", "trace_id", "span_id", "session_id", "task_id"]
    assert [field["name"] for field in fields[:10]] == envelope
    for field in fields:
        kind = field["type"]
        if isinstance(kind, list):
            assert kind[0] == "null"
            assert kind[1] in ("string", "long", "double")
            assert field["default"] is None
        else:
            assert kind in ("string", "long", "int", "double", "boolean") or kind["type"] in ("enum", "long")


def test_generated_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check", "--topics", str(TOPICS_YAML)]) == 0, capsys.readouterr().err


def test_a_stale_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "topics.yaml"
    assert generate.main(["--check", "--topics", str(path)]) == 1
    path.write_text("prefix: x\n")
    assert generate.main(["--check", "--topics", str(path)]) == 1


@pytest.mark.parametrize("record", catalogue.record_names())
def test_the_newest_release_is_the_current_schema(record: str) -> None:
    release = catalogue.latest(record)
    assert release is not None
    assert catalogue.fingerprint(release.schema) == catalogue.fingerprint(catalogue.schema(record))
    assert catalogue.packaged_id(record) == release.schema_id
    assert catalogue.by_id(release.schema_id) == release


def test_ids_are_unique_and_in_the_packages_range() -> None:
    ids = [release.schema_id for release in catalogue.releases()]
    assert len(set(ids)) == len(ids)
    assert all(map(catalogue.is_packaged_id, ids))
    assert catalogue.by_id(7) is None
    with pytest.raises(catalogue.CatalogueError, match="ToolCall"):
        catalogue.packaged_id("Toolcall")


def test_a_release_takes_the_next_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "RELEASED", tmp_path)
    first = generate.release(["ToolCall", "Signal"])
    assert [(new.record, new.version, new.schema_id) for new in first] == [
        ("ToolCall", 1, catalogue.PACKAGED_ID_BASE + 1),
        ("Signal", 1, catalogue.PACKAGED_ID_BASE + 2),
    ]
    assert generate.release(["ToolCall", "Signal"]) == []
    changed = {**catalogue.schema("ToolCall"), "fields": catalogue.schema("ToolCall")["fields"][:-1]}
    monkeypatch.setattr(catalogue, "schema", lambda _: changed)
    assert [(new.version, new.schema_id) for new in generate.release(["ToolCall"])] == [
        (2, catalogue.PACKAGED_ID_BASE + 3)
    ]
    assert json.loads((tmp_path / "ids.json").read_text())["Signal.v1"] == "0x46420002"


def test_the_fingerprint_sees_all_but_docs() -> None:
    schema = catalogue.schema("ToolCall")
    assert catalogue.fingerprint(schema) == catalogue.fingerprint({**schema, "doc": "another"})
    assert catalogue.fingerprint(schema) != catalogue.fingerprint({**schema, "fields": schema["fields"][::-1]})


@pytest.mark.parametrize("record", catalogue.record_names())
def test_classes_are_frozen_slotted_and_in_the_schemas_order(record: str) -> None:
    cls = records.RECORDS[record]
    fields = dataclasses.fields(cls)
    assert [field.name for field in fields] == [field["name"] for field in catalogue.schema(record)["fields"]]
    assert cls.__dataclass_params__.frozen  # type: ignore[union-attr]
    assert not hasattr(cls, "__dict__") or "__slots__" in vars(cls)


def test_everything_the_package_exports_is_there() -> None:
    assert {name for name in records.__all__ if not hasattr(records, name)} == set()
    symbols = {name for name, value in vars(enums).items() if isinstance(value, type) and issubclass(value, StrEnum)}
    assert symbols - {"StrEnum"} <= set(records.__all__)
    with pytest.raises(AttributeError):
        records.Nonsense  # noqa: B018


@pytest.mark.parametrize("module", ["records", "keys", "wire", "topics", "codec", "catalogue", "rules"])
def test_light_modules_load_no_heavy_ones(module: str) -> None:
    code = f"import fuseboard_schemas.{module}, sys; print([m for m in {HEAVY} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_topic_names() -> None:
    names = topics.TopicNames("team.")
    assert {names.of(topic) for topic in topics.TOPICS} == {getattr(names, topic.attribute) for topic in topics.TOPICS}
    assert names.tool_calls == "team.tool-calls"
    assert names.find("team.dead-letters") == topics.by_name("dead-letters")
    assert names.find("fuseboard.dead-letters") is None
    assert names.subject(topics.for_record("Signal")) == "team.signals-value"
    assert [topic.name for topic in topics.TOPICS if topic.is_input] == [
        "tool-calls", "traces", "policy-decisions", "session-requests", "signals", "overrides", "panes",
        "enforcement-acks",
    ]  # fmt: skip
    assert {topic.record for topic in topics.TOPICS} == set(catalogue.record_names())
    assert all(topic.config["message.timestamp.type"] == "LogAppendTime" for topic in topics.TOPICS)


@pytest.mark.parametrize("prefix", ["a b", "é.", "x" * 240, "a/b"])
def test_a_prefix_that_kafka_would_refuse_is_refused(prefix: str) -> None:
    with pytest.raises(topics.ConfigurationError, match="prefix"):
        topics.TopicNames(prefix)
