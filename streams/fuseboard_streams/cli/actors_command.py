"""``fuseboard actors``: one actor, as the topics and its shard's state tell."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli.options import config_file, connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fuseboard_streams.cli.actor_state import ActorState, Known
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
@click.option(
    "--state/--no-state",
    "with_state",
    default=True,
    show_default=True,
    help="Read what its shard has learned and counted, from the topic `state`: one partition.",
)
@json_option
@connection_options
def show_command(
    actor: str, tenant: str, minutes: float, with_state: bool, as_json: bool, connection: Connection
) -> None:
    """Show one actor: what holds it, what its shard knows of it, what was found, its objectives, calls and rules.

    What the shard has learned and counted is read from its state log, as a worker that takes the shard over reads it;
    where that cannot be read, the rest is shown.
    """
    from fuseboard_schemas.errors import FuseboardError
    from fuseboard_streams.cli.actor_state import Known, read_actor, read_breakers
    from fuseboard_streams.cli.kafka import Reader

    now = time.time_ns() // 1_000
    with Reader(connection) as reader:
        state = read_actor(reader, connection, tenant, actor, minutes, now)
        state.breakers, probeable = read_breakers(reader, connection, state)
        known = _portrait(reader, connection, state) if with_state else Known(problem="not asked for")
        if not state.known and known.portrait is None:
            raise FuseboardError(
                f"Nothing is known of actor {actor!r} (tenant {tenant!r}) under {connection.prefix!r}: no call within "
                f"{minutes:g} min, no finding, no breaker, nothing in its shard's state. Check the name, or look "
                "further back with --minutes."
            )
        probed = probeable.of(state.breakers, reader, _LOOK_UP_S)
        _add_rules(state, reader, connection)
    if as_json:
        click.echo(json.dumps({**_as_json(state, probed), "state": known.as_json()}, ensure_ascii=False))
        return
    from fuseboard_streams.cli.render.actors import actor_lines

    click.echo("\n".join(actor_lines(state, now, paint(), terminal_columns(), probed, known)))


def _portrait(reader: Reader, connection: Connection, state: ActorState) -> Known:
    """Read what the actor's shard knows of it."""
    from fuseboard_streams.cli.actor_state import Known

    try:
        from fuseboard_streams.cli.shard_state import NoStateError, read_shard
        from fuseboard_streams.core.portrait import portrait
    except ModuleNotFoundError:
        return Known(problem="it takes the extra `worker` to read it")
    file = config_file(click.get_current_context())
    try:
        with _progress(f"state of shard {state.shard}") as progress:
            read = read_shard(reader, connection, state.shard, file, progress)
    except NoStateError as error:
        return Known(problem=str(error))
    found = portrait(read.shard, state.tenant, state.actor)
    return Known(found, read.written_us, "" if found is not None else "its shard does not know it")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[float], None]]:
    """Show a progress bar on a terminal; yield the function that is told the share that is done."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


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
        "objectives": [objective_json(each) for each in of_objectives([*state.signals, *state.shared])],
        "minutes": state.minutes,
        "calls": [dataclasses.asdict(each) for _, each in sorted(state.tools.items())],
        "clients": [
            {"client_id": f"{client & 0xFFFF_FFFF_FFFF_FFFF:016x}", "last": last}
            for client, last in sorted(state.clients.items(), key=lambda each: -each[1])
        ],
        "rules_version": state.rules_version,
        "rules": rules,
    }
