"""``fuseboard topics``: plan or apply the topics Fuseboard needs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_streams.admin import Change
    from fuseboard_streams.cli.config import Connection


@click.group("topics")
def command() -> None:
    """Plan or apply the topics Fuseboard needs."""


def _shape(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options for partitions and replication."""
    partitions = click.option(
        "--partitions",
        type=click.IntRange(min=1),
        envvar="FUSEBOARD_PARTITIONS",
        show_envvar=True,
        help="Partitions of every topic: the same for all, for ever. [default: as they are, or 12]",
    )
    replication = click.option(
        "--replication",
        type=click.IntRange(min=1),
        help="Copies of each partition of a new topic. [default: the broker's]",
    )
    return partitions(replication(function))


@command.command("plan")
@_shape
@json_option
@connection_options
def plan_command(partitions: int | None, replication: int | None, as_json: bool, connection: Connection) -> None:
    """Show what differs from the declaration; changes nothing. Exits with 1 if something differs."""
    from fuseboard_streams import admin

    client = admin.Admin(connection.client_settings())
    changes = admin.plan(client, connection.prefix, partitions, replication or admin.BROKER_DEFAULT)
    _report(changes, connection, applied=False, as_json=as_json)


@command.command("apply")
@_shape
@click.option("--alter", is_flag=True, help="Also correct settings of topics that exist.")
@json_option
@connection_options
def apply_command(
    partitions: int | None, replication: int | None, alter: bool, as_json: bool, connection: Connection
) -> None:
    """Create what is missing. Never deletes a topic or changes its partitions. Exits with 1 if something is left."""
    from fuseboard_streams import admin

    client = admin.Admin(connection.client_settings())
    copies = replication or admin.BROKER_DEFAULT
    changes = admin.apply(client, connection.prefix, partitions, copies, alter=alter)
    _report(changes, connection, applied=True, as_json=as_json)


def _report(changes: Sequence[Change], connection: Connection, *, applied: bool, as_json: bool) -> None:
    """Print the differences and exit with 1 if any is left."""
    from fuseboard_streams.cli.render.topics import changes_lines

    if as_json:
        click.echo(json.dumps({"changes": [dataclasses.asdict(change) for change in changes]}))
    else:
        where = f"{connection.bootstrap} ({connection.prefix}*)"
        click.echo("\n".join(changes_lines(changes, applied=applied, where=where, paint=paint())))
    if any(not change.done for change in changes):
        raise click.exceptions.Exit(1)
