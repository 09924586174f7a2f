"""What the compatibility check finds, and that Avro's own resolution agrees."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from fuseboard_schemas import catalogue, compat, topics
from fuseboard_schemas.errors import FuseboardError


def record(*fields: dict[str, Any]) -> catalogue.Schema:
    return {"type": "record", "name": "R", "fields": list(fields)}


def field(avro: Any, name: str = "x", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": avro, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


NULL_STRING = ["null", "string"]
KEEP = "keep it, or give the enum a default symbol"
ADD = "is new and has no default: give it one, so that older records can be read"


def array(items: str) -> dict[str, Any]:
    return {"type": "array", "items": items}


def fixed(size: int) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size}


def nested(avro: str) -> dict[str, Any]:
    return {"type": "record", "name": "S", "fields": [field(avro, "z")]}


CASES = [
    (field("long"), field("long"), 1, None),
    (field("long"), field("int"), 1, None),
    (field("double"), field("long"), 1, None),
    (field("int"), field("long"), 1, "R.x was long and cannot become int"),
    (field("string"), field("long"), 1, "R.x was long and cannot become string"),
    (field(NULL_STRING), field("string"), "a", None),
    (field("string"), field(NULL_STRING), None, "R.x was null and cannot become string"),
    (field(["null", "long"]), field(NULL_STRING), "a", "R.x was string, which none of [null, long] can read"),
    (field(enum("A", "B", "C")), field(enum("A", "B")), "B", None),
    (field(enum("A", "B")), field(enum("A", "C")), "C", f"R.x lost C: {KEEP}"),
    (field(enum("A", default="A")), field(enum("A", "C")), "C", None),
    (field(array("int")), field(array("long")), [1], "R.x[] was long and cannot become int"),
    (field("long", "y"), field("long"), 1, f"R.y {ADD}"),
    (field("long", "y", default=0), field("long"), 1, None),
    (field("long", "y", aliases=["x"]), field("long"), 1, None),
    (field(nested("int")), field(nested("long")), {"z": 1}, "R.x.z was long and cannot become int"),
    (field("bytes"), field("string"), "a", None),
    (field(fixed(3)), field(fixed(2)), b"ab", "R.x had 2 bytes and has 3"),
    (field({"type": "long", "logicalType": "timestamp-micros"}), field("long"), 1, None),
]


@pytest.mark.parametrize(("new", "old", "value", "problem"), CASES)
def test_each_rule(new: dict[str, Any], old: dict[str, Any], value: Any, problem: str | None) -> None:
    reader, writer = record(new), record(old)
    found = [f"{each.field} {each.reason}" for each in compat.backward_problems(reader, writer)]
    assert found == ([] if problem is None else [problem])
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(copy.deepcopy(writer)), {"x": value})
    stream.seek(0)
    try:
        fastavro.schemaless_reader(stream, copy.deepcopy(writer), copy.deepcopy(reader))
        resolved = True
    except Exception:
        resolved = False
    assert resolved is (problem is None)


def test_a_lost_symbol_is_refused_in_a_check_even_with_a_default() -> None:
    new, old = record(field(enum("A", default="A"))), record(field(enum("A", "C", default="A")))
    assert compat.backward_problems(new, old) == []
    [problem] = compat.backward_problems(new, old, keep_symbols=True)
    assert problem == compat.Problem("R.x", "lost C, which would silently read as A: keep it")


def test_renamed_types_are_found() -> None:
    renamed = record(field({**enum("A"), "name": "F"}))
    assert [p.reason for p in compat.backward_problems(renamed, record(field(enum("A"))))] == [
        "the type was called E and is called F"
    ]


def test_the_packaged_schemas_pass() -> None:
    assert {(entry.status, entry.problems) for entry in compat.check()} == {("unchanged", ())}
    assert [entry.record for entry in compat.list_schemas()] == [topic.record for topic in topics.TOPICS]
    assert compat.show("ToolCall", 1) == compat.show("ToolCall")
    with pytest.raises(catalogue.CatalogueError, match="no version 99"):
        compat.show("ToolCall", 99)


def test_a_directory_is_checked_and_the_offending_field_named(tmp_path: Path) -> None:
    call = copy.deepcopy(catalogue.schema("ToolCall"))
    call["fields"] = [each for each in call["fields"] if each["name"] != "tool"] + [field("string", "instrument")]
    (tmp_path / "ToolCall.avsc").write_text(json.dumps(call))
    signal = copy.deepcopy(catalogue.schema("Signal"))
    signal["fields"].append(field(NULL_STRING, "note", default=None))
    (tmp_path / "Signal.avsc").write_text(json.dumps(signal))
    (tmp_path / "Novel.avsc").write_text(json.dumps(record()))
    found = {entry.record: entry for entry in compat.check(tmp_path)}
    assert found["ToolCall"].status == "incompatible"
    assert [problem.field for problem in found["ToolCall"].problems] == ["ToolCall.instrument"]
    assert (found["Signal"].status, found["Signal"].released) == ("unreleased", 1)
    assert (found["Novel"].status, found["Novel"].released) == ("unreleased", 0)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"type": "enum"}', '{"type": "record"}'])
def test_files_that_are_no_schemas_are_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ToolCall.avsc"
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    with pytest.raises(FuseboardError, match=r"ToolCall\.avsc"):
        compat.check(tmp_path)


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FuseboardError, match=r"holds no \.avsc files"):
        compat.check(tmp_path)
