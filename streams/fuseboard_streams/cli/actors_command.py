"""``fuseboard actors``: one actor, as far as the topics tell."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuseboard_streams.cli.actor_state import ActorState
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader

_LOOK_UP_S = 5.0


@click.group("actors")
def command() -> None:
    """Look at one actor."""


@command.command("show", short_help="Show one actor: its breakers, findings, calls and rules.")
@click.argument("actor")
@click.option("--tenant", default="default", show_default=True, help="Tenant of the actor.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    help="How far back calls are counted.",
)
@json_option
@connection_options
def show_command(actor: str, tenant: str, minutes: float, as_json: bool, connection: Connection) -> None:
    """Show one actor: what holds it, what was found about it, its objectives, its calls, and its rules.

    Only what is in the topics: what a worker has learned of it but not said is not shown.
    """
    from fuseboard_schemas.errors import FuseboardError
    from fuseboard_streams.cli.actor_state import read_actor, read_breakers
    from fuseboard_streams.cli.kafka import Reader

    now = time.time_ns() // 1_000
    with Reader(connection) as reader:
        state = read_actor(reader, connection, tenant, actor, minutes, now)
        state.breakers, probeable = read_breakers(reader, connection, state)
        if not state.known:
            raise FuseboardError(
                f"Nothing is known of actor {actor!r} (tenant {tenant!r}) under {connection.prefix!r}: no call within "
                f"{minutes:g} min, no finding, no breaker. Check the name, or look further back with --minutes."
            )
        probed = probeable.of(state.breakers, reader, _LOOK_UP_S)
        _add_rules(state, reader, connection)
    if as_json:
        click.echo(json.dumps(_as_json(state, probed), ensure_ascii=False))
        return
    from fuseboard_streams.cli.render.actors import actor_lines

    click.echo("\n".join(actor_lines(state, now, paint(), terminal_columns(), probed)))


def _add_rules(state: ActorState, reader: Reader, connection: Connection) -> None:
    """Fill in the rules in force, where they can be known."""
    from fuseboard_streams.cli.actor_state import rules_for
    from fuseboard_streams.cli.kafka import MissingTopicError

    try:
        from fuseboard_streams.cli.rules_topic import read_rules

        found = read_rules(reader, connection)
    except (ModuleNotFoundError, MissingTopicError):
        return
    state.rules_version = found.version
    state.rules = rules_for(found.compiled, state.tenant, state.actor, state.tool_names())


def _as_json(state: ActorState, probed: Mapping[str, bool | None]) -> dict[str, Any]:
    from fuseboard_schemas.jsonform import to_json
    from fuseboard_streams.cli.objective_state import objective_json, of_objectives
    from fuseboard_streams.cli.render.breakers import ordered

    rules = None if state.rules is None else [dataclasses.asdict(each) for each in state.rules]
    return {
        "tenant": state.tenant,
        "actor": state.actor,
        "shard": state.shard,
        "breakers": [
            {**to_json(each), "can_be_probed": probed.get(each.breaker_id)} for each in ordered(state.breakers)
        ],
        "signals": [to_json(each) for each in state.signals],
        "objectives": [objective_json(each) for each in of_objectives(state.signals)],
        "minutes": state.minutes,
        "calls": [dataclasses.asdict(each) for _, each in sorted(state.tools.items())],
        "clients": [
            {"client_id": f"{client & 0xFFFF_FFFF_FFFF_FFFF:016x}", "last": last}
            for client, last in sorted(state.clients.items(), key=lambda each: -each[1])
        ],
        "rules_version": state.rules_version,
        "rules": rules,
    }
