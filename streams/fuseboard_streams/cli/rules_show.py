"""``fuseboard rules show``: which rules hold, who applied them, and which shards run them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.rules_topic import InForce, ShardRules


@click.command("show", short_help="Show which rules hold, and which shards run them.")
@click.option("--text", "only_text", is_flag=True, help="Only the rules file itself.")
@json_option
@connection_options
def show_command(only_text: bool, as_json: bool, connection: Connection) -> None:
    """Show the rules in force: who applied them, when and why, and the version that each shard runs.

    Exits with 1 if a shard that is alive runs another version.
    """
    from fuseboard_streams.cli.breakers_command import latest_commands
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.render.applied import differing
    from fuseboard_streams.cli.rules_topic import ShardWatch, other_versions, read_rules

    with Reader(connection) as reader:
        found = read_rules(reader, connection)
        if only_text and not as_json:
            click.echo(text_of(found), nl=False)
            return
        shards = list(ShardWatch(reader, connection).shards.values())
        commands, _ = latest_commands(reader, connection)
    restricting = {each.breaker_id: each.rules_version for each in commands.values() if str(each.state) != "CLOSED"}
    others = other_versions(restricting, found.version)
    now = time.time_ns() // 1_000
    _print(found, shards, others, now, as_json=as_json, with_text=only_text)
    if differing(shards, found.version, now):
        raise click.exceptions.Exit(1)


def text_of(found: InForce) -> str:
    """Return the rules file in force as it was written."""
    from fuseboard_streams.rules.compile import PACKAGED

    return PACKAGED.read_text(encoding="utf-8") if found.record is None else found.record.text


def _print(
    found: InForce,
    shards: Sequence[ShardRules],
    others: Mapping[str, int],
    now: int,
    *,
    as_json: bool,
    with_text: bool,
) -> None:
    from fuseboard_streams.cli.render.applied import differing, in_force_lines, silent

    if not as_json:
        click.echo("\n".join(in_force_lines(found, shards, others, now, paint(), terminal_columns())))
        return
    record = found.record
    differs = {each.shard for each in differing(shards, found.version, now)}
    out: dict[str, Any] = {
        "version": found.version,
        "packaged": record is None,
        "applied_at": None if record is None else record.ts,
        "applied_by": None if record is None else record.applied_by,
        "reason": None if record is None else record.reason,
        "previous_version": None if record is None else record.previous_version,
        "refused": list(found.refused),
        "shards": [
            {**each.as_json(), "alive": not silent(each, now), "differs": each.shard in differs} for each in shards
        ],
        "breakers_of_other_versions": dict(others),
    }
    click.echo(json.dumps(out | ({"text": text_of(found)} if with_text else {}), ensure_ascii=False))
