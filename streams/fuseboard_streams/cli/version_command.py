"""``fuseboard version``."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import click

from fuseboard_streams.cli.options import json_option, paint
from fuseboard_streams.cli.render.text import Cell, table

_PARTS = ("confluent-kafka", "fastavro", "click", "numpy", "polars", "pydantic", "rich", "noida-db")


def versions() -> dict[str, str | None]:
    """Return the version of Fuseboard and of everything it runs on; ``None`` where it is not installed."""
    found: dict[str, str | None] = {"fuseboard": _version("fuseboard"), "python": platform.python_version()}
    found |= {name: _version(name) for name in _PARTS}
    try:
        import confluent_kafka

        found["librdkafka"] = confluent_kafka.libversion()[0]
    except ImportError:
        found["librdkafka"] = None
    return found


def _version(distribution: str) -> str | None:
    """Return the installed version of a distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """Print the versions of Fuseboard and of what it runs on."""
    found = versions()
    if as_json:
        click.echo(json.dumps(found))
        return
    rows = [(name, Cell(version or "not installed", "" if version else "dim")) for name, version in found.items()]
    click.echo("\n".join(table(("package", "version"), rows, paint=paint())))
