"""``fuseboard schema``: list, show, check or register the Avro schemas."""

from __future__ import annotations

import json
from typing import Any

import click

from fuseboard_streams.cli.options import json_option, paint, terminal_columns
from fuseboard_streams.cli.render.text import Cell, table


@click.group("schema")
def command() -> None:
    """List, show, check or register the Avro schemas."""


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the records with their topics, versions and fixed ids."""
    rows = [_row(name) for name in _records()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    header = ("record", "topic", "version", "id", "fields")
    cells = [
        (Cell(r["record"], "bold"), r["topic"], f"v{r['version']}", f"0x{r['id']:08x}", str(r["fields"])) for r in rows
    ]
    click.echo("\n".join(table(header, cells, paint=paint(), right=frozenset({4}), columns=terminal_columns())))


@command.command("show")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="A released version; the current schema without it.")
def show_command(name: str, version: int | None) -> None:
    """Print the schema of a record (ToolCall) or topic (tool-calls) as JSON."""
    from fuseboard_schemas import catalogue

    record = find_schema(name)
    schema = catalogue.schema(record) if version is None else _release(record, version).schema
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))


def _records() -> list[str]:
    """Return the records in the order of their topics."""
    from fuseboard_schemas.topics import TOPICS

    return [topic.record for topic in TOPICS]


def _row(record: str) -> dict[str, Any]:
    """Return what ``list`` shows of a record."""
    from fuseboard_schemas import catalogue
    from fuseboard_schemas.topics import for_record

    schema = catalogue.schema(record)
    release = catalogue.latest(record)
    return {
        "record": record,
        "topic": for_record(record).name,
        "version": release.version if release else 0,
        "id": release.schema_id if release else 0,
        "released": release is not None and catalogue.fingerprint(release.schema) == catalogue.fingerprint(schema),
        "fields": len(schema["fields"]),
        "doc": schema.get("doc", ""),
    }


def find_schema(name: str) -> str:
    """Return the record that a record's or topic's name means.

    Raises:
        ConfigurationError: There is no such record.
    """
    from fuseboard_schemas import catalogue
    from fuseboard_schemas.errors import ConfigurationError
    from fuseboard_schemas.topics import by_name

    topic = by_name(name.replace("_", "-"))
    record = topic.record if topic is not None else name.removeprefix(f"{catalogue.NAMESPACE}.")
    if record not in catalogue.record_names():
        raise ConfigurationError(f"{name!r} is no record and no topic. Records: {', '.join(catalogue.record_names())}.")
    return record


def _release(record: str, version: int) -> Any:  # noqa: ANN401 - catalogue.Release, imported lazily
    """Return a released version of a record's schema.

    Raises:
        ConfigurationError: It was never released.
    """
    from fuseboard_schemas import catalogue
    from fuseboard_schemas.errors import ConfigurationError

    versions = {release.version: release for release in catalogue.releases() if release.record == record}
    if version not in versions:
        listed = ", ".join(map(str, sorted(versions))) or "none"
        raise ConfigurationError(f"{record} has no released version {version}. Released: {listed}.")
    return versions[version]
