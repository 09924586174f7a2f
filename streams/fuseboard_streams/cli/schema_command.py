"""``fuseboard schema``: list, show, check or register the Avro schemas."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli.options import json_option, paint, registry_options, terminal_columns

if TYPE_CHECKING:
    from fuseboard_schemas.registry import Comparison


@click.group("schema")
def command() -> None:
    """List, show, check or register the Avro schemas."""


@command.command("list", short_help="List records, topics, versions and ids.")
@json_option
def list_command(as_json: bool) -> None:
    """List the records with their topics, released versions and fixed ids."""
    from fuseboard_schemas.compat import list_schemas
    from fuseboard_streams.cli.render.schema import list_lines

    schemas = list_schemas()
    if as_json:
        _echo_json([dataclasses.asdict(info) for info in schemas])
    else:
        click.echo("\n".join(list_lines(schemas, paint(), terminal_columns())))


@command.command("show", short_help="Print one schema as JSON.")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="A released version; the current schema without it.")
@click.option("--json", "_as_json", is_flag=True, help="Accepted for symmetry: the output is JSON anyway.")
def show_command(name: str, version: int | None, _as_json: bool) -> None:
    """Print the schema of a record (ToolCall) or topic (tool-calls) as JSON."""
    from fuseboard_schemas.catalogue import CatalogueError
    from fuseboard_schemas.compat import show
    from fuseboard_schemas.errors import ConfigurationError

    try:
        schema = show(record_of(name), version)
    except CatalogueError as error:
        raise ConfigurationError(str(error)) from None
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))


@command.command("check", short_help="Check what a change would break.")
@click.argument("directory", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
@registry_options
def check_command(directory: Path | None, as_json: bool, registry: dict[str, str], prefix: str) -> None:
    """Check that today's schemas can read what was written with every released one.

    DIRECTORY has <Record>.avsc files to check instead of the packaged ones. With a registry, what is registered there
    is compared too. Exits with 1 and names the offending fields if something cannot be read.
    """
    from fuseboard_schemas.compat import check
    from fuseboard_schemas.registry import Registry, compare
    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams.cli.render.schema import check_lines, comparison_lines

    checks = check(directory)
    comparisons: list[Comparison] = []
    if registry.get("url"):
        with Registry(registry) as client:
            comparisons = compare(client, TopicNames(prefix))
    failed = any(c.problems for c in checks) or any(c.problems for c in comparisons)
    if as_json:
        released = [dataclasses.asdict(c) for c in checks]
        registered = [dataclasses.asdict(c) for c in comparisons]
        _echo_json({"ok": not failed, "schemas": released, "registry": registered})
    else:
        lines = check_lines(checks, paint())
        if comparisons:
            lines += ["", *comparison_lines(comparisons, registry["url"], paint())]
        click.echo("\n".join(lines))
    if failed:
        raise click.exceptions.Exit(1)


@command.command("register", short_help="Register the schemas of all topics.")
@json_option
@registry_options
def register_command(as_json: bool, registry: dict[str, str], prefix: str) -> None:
    """Register the schemas of all topics, subjects <topic>-value, compatibility BACKWARD.

    What is registered already stays as it is, so it can be run again at any time.
    """
    from fuseboard_schemas.registry import Registry, register_all
    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams.cli.render.schema import registration_lines

    if not registry.get("url"):
        raise click.UsageError("No registry given: use --registry URL, FUSEBOARD_REGISTRY__URL or [registry] url.")
    with Registry(registry) as client:
        made = register_all(client, TopicNames(prefix))
    if as_json:
        _echo_json([dataclasses.asdict(registration) for registration in made])
    else:
        click.echo("\n".join(registration_lines(made, registry["url"], paint())))


def record_of(name: str) -> str:
    """Return the record that a topic's name means; another name is taken for a record's."""
    from fuseboard_schemas import catalogue
    from fuseboard_schemas.topics import by_name

    topic = by_name(name.replace("_", "-"))
    return topic.record if topic is not None else name.removeprefix(f"{catalogue.NAMESPACE}.")


def _echo_json(value: Any) -> None:  # noqa: ANN401 - anything that JSON can say
    """Print one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))
