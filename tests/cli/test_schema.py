"""``schema list|show|check|register``, the last two also against a registry."""

import copy
import json
from pathlib import Path

import pytest

from fuseboard_schemas import catalogue
from fuseboard_schemas.compat import Check, Problem
from fuseboard_schemas.topics import TOPICS
from fuseboard_streams.cli.render.schema import check_lines
from tests.cli import samples
from tests.cli.support import Board, run


def test_list_has_every_topic_with_its_fixed_id() -> None:
    listed = json.loads(run("schema", "list", "--json").stdout)
    assert [s["topic"] for s in listed] == [topic.name for topic in TOPICS]
    assert listed[0]["schema_id"] == catalogue.packaged_id("ToolCall")
    text = run("schema", "list").stdout
    assert "0x46420001" in text
    assert len(text.splitlines()) == len(TOPICS) + 1


@pytest.mark.parametrize("name", ["ToolCall", "tool-calls", "fuseboard.v1.ToolCall"])
def test_show_prints_the_schema(name: str) -> None:
    assert json.loads(run("schema", "show", name).stdout) == catalogue.schema("ToolCall")
    assert json.loads(run("schema", "show", name, "--version", "1", "--json").stdout)["name"] == "ToolCall"


@pytest.mark.parametrize(
    ("arguments", "text"), [(("Zebra",), "Zebra"), (("ToolCall", "--version", "99"), "no version 99")]
)
def test_show_of_what_is_not_there(arguments: tuple[str, ...], text: str) -> None:
    result = run("schema", "show", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr


def test_check_passes_for_the_packaged_schemas() -> None:
    result = run("schema", "check")
    assert result.exit_code == 0, result.output
    assert f"All {len(TOPICS)} schemas can read" in result.stdout


def test_check_names_the_offending_field(tmp_path: Path) -> None:
    schema = copy.deepcopy(catalogue.schema("ToolCall"))
    schema["fields"].append({"name": "region", "type": "string"})
    (tmp_path / "ToolCall.avsc").write_text(json.dumps(schema), encoding="utf-8")
    result = run("schema", "check", str(tmp_path))
    assert result.exit_code == 1
    assert "ToolCall.region" in result.stdout
    found = json.loads(run("schema", "check", str(tmp_path), "--json").stdout)
    assert found["ok"] is False
    assert found["schemas"][0]["problems"][0]["field"] == "ToolCall.region"


def test_how_a_check_looks() -> None:
    checks = [Check("A", 1, "unchanged", ()), Check("B", 2, "incompatible", (Problem("B.x", "is new"),))]
    assert check_lines(checks) == [
        "record  released  schema",
        "A       v1        unchanged",
        "B       v2        incompatible",
        "    B.x  is new",
        "",
        "1 schema of 2 cannot read what was written with the released versions",
    ]


def test_register_needs_a_registry() -> None:
    result = run("schema", "register")
    assert result.exit_code == 2
    assert "--registry URL" in result.stderr


def test_a_registry_that_is_away_exits_with_3() -> None:
    result = run("schema", "register", "--registry", "http://127.0.0.1:1")
    assert result.exit_code == 3
    assert "http://127.0.0.1:1" in result.stderr


@pytest.mark.registry
class TestRegistry:
    """Against a running registry."""

    def test_register_and_check(self, apicurio: str, unique_prefix: str) -> None:
        options = ("--registry", apicurio, "--prefix", unique_prefix)
        before = json.loads(run("schema", "check", "--json", *options).stdout)
        assert {c["status"] for c in before["registry"]} == {"missing"}
        made = json.loads(run("schema", "register", "--json", *options).stdout)
        assert [m["subject"] for m in made] == [f"{unique_prefix}{topic.name}-value" for topic in TOPICS]
        assert json.loads(run("schema", "register", "--json", *options).stdout) == made
        after = run("schema", "check", *options)
        assert after.exit_code == 0, after.output
        statuses = {line.split()[0]: line.split()[1] for line in after.stdout.splitlines() if "-value" in line}
        assert statuses == {f"{unique_prefix}{topic.name}-value": "same" for topic in TOPICS}

    @pytest.mark.broker
    def test_tap_reads_what_was_written_under_an_id_of_the_registry(
        self, apicurio: str, embedded: str, unique_prefix: str, topics: object
    ) -> None:
        from fuseboard_schemas.codec import Encoder

        assert callable(topics)
        topics(embedded, unique_prefix, 1)
        board = Board(embedded, unique_prefix, 1)
        options = ("--registry", apicurio, "--prefix", unique_prefix)
        made = json.loads(run("schema", "register", "--json", *options).stdout)
        schema_id = next(m["schema_id"] for m in made if m["record"] == "ToolCall")
        board.raw("tool-calls", Encoder("ToolCall", schema_id).encode(samples.call()))
        board.flush()
        tap = ("tap", "tool-calls", "--from", "beginning", "--until-end", "--json", *board.options)
        assert json.loads(run(*tap).stdout)["undecodable"]["reason"] == "UNKNOWN_SCHEMA"
        found = json.loads(run(*tap, env={"FUSEBOARD_REGISTRY__URL": apicurio}).stdout)
        assert found["tool"] == "billing.refund"
