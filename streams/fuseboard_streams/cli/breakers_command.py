"""``fuseboard breakers``: list them, show one in words, or order something for one."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli import orders_command
from fuseboard_streams.cli.options import config_file, connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confluent_kafka import Message

    from fuseboard_schemas.records import BreakerCommand, EnforcementAck
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.probeable import Probeable

_MINUTE_US = 60_000_000
_LOOK_UP_S = 5.0


@click.group("breakers")
def command() -> None:
    """List the breakers, show one in words, or order something for one."""


for _each in orders_command.COMMANDS:
    command.add_command(_each)


@command.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only breakers that are not closed.")
@click.option("--actor", metavar="PATTERN", help="Only this actor's; * and ? match as in file names.")
@click.option("--tenant", metavar="PATTERN", help="Only this tenant's.")
@json_option
@connection_options
def list_command(only_open: bool, actor: str | None, tenant: str | None, as_json: bool, connection: Connection) -> None:
    """List all breakers that ever tripped, the open ones first."""
    from fuseboard_schemas.records import BreakerCommand
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.render.breakers import breakers_table, is_open, ordered
    from fuseboard_streams.cli.selection import parse_conditions

    conditions = parse_conditions(BreakerCommand, (), actor=actor, tenant=tenant)
    with Reader(connection) as reader:
        found, probeable = latest_commands(reader, connection)
        shown = [c for c in found.values() if all(x.holds(c) for x in conditions) and (is_open(c) or not only_open)]
        probed = probeable.of(ordered(shown), reader, _LOOK_UP_S)
    if as_json:
        from fuseboard_schemas.jsonform import to_json

        rows = [{**to_json(c), "can_be_probed": probed.get(c.breaker_id)} for c in ordered(shown)]
        click.echo(json.dumps(rows, ensure_ascii=False))
    elif shown:
        click.echo("\n".join(breakers_table(shown, _now(), paint(), terminal_columns(), probed)))
    else:
        click.echo("no breaker is open" if only_open else "no breaker has tripped")


@command.command("show", short_help="Show one breaker in words.")
@click.argument("target")
@click.argument("tool", required=False)
@click.option("--tenant", default="default", show_default=True, help="Tenant of the actor.")
@json_option
@connection_options
def show_command(target: str, tool: str | None, tenant: str, as_json: bool, connection: Connection) -> None:
    """Show one breaker: state, evidence, who applied it, recovery, the settings here.

    TARGET is a breaker's id as `fuseboard breakers list --json` has it, or an actor; with an actor, TOOL names one of
    its tools, and without TOOL all breakers of the actor are shown.
    """
    from fuseboard_schemas.errors import FuseboardError
    from fuseboard_streams.cli.kafka import Reader

    with Reader(connection) as reader:
        found, probeable = latest_commands(reader, connection)
        chosen = choose(list(found.values()), target, tool, tenant)
        if not chosen:
            what = target if tool is None else f"{target} · {tool}"
            raise FuseboardError(
                f"No breaker of {what!r} (tenant {tenant!r}) is known under {connection.prefix!r}: it has never "
                "tripped, or the name is another one. `fuseboard breakers list` shows them all."
            )
        acks = {c.breaker_id: read_acks(reader, connection, c) for c in chosen}
        probed = probeable.of(chosen, reader, _LOOK_UP_S)
        quiets = {c.breaker_id: quiet_times(reader, connection, c) for c in chosen if c.holds}
    _show(chosen, acks, probed, quiets, as_json)


def _show(
    chosen: Sequence[BreakerCommand],
    acks: dict[str, tuple[int, list[EnforcementAck]]],
    probed: dict[str, bool | None],
    quiets: dict[str, dict[str, str]],
    as_json: bool,
) -> None:
    """Print the breakers chosen."""
    from fuseboard_streams.cli.render.breakers import breaker_words
    from fuseboard_streams.cli.settings_words import settings_in_force

    settings = settings_in_force(config_file(click.get_current_context()))
    if as_json:
        from fuseboard_schemas.jsonform import to_json

        out: list[dict[str, Any]] = [
            {
                **to_json(c),
                "can_be_probed": probed.get(c.breaker_id),
                "quiet": quiets.get(c.breaker_id, {}),
                "shard": acks[c.breaker_id][0],
                "acks": [to_json(ack) for ack in acks[c.breaker_id][1]],
                "settings": None if settings is None else dict(settings.pairs),
            }
            for c in chosen
        ]
        click.echo(json.dumps(out[0] if len(out) == 1 else out, ensure_ascii=False))
        return
    colours = paint()
    for i, c in enumerate(chosen):
        shard, known = acks[c.breaker_id]
        last = settings if i == len(chosen) - 1 else None
        quiet = quiets.get(c.breaker_id, {})
        lines = breaker_words(c, known, last, _now(), colours, shard, probed.get(c.breaker_id), quiet)
        click.echo(("\n" if i else "") + "\n".join(lines))


def latest_commands(reader: Reader, connection: Connection) -> tuple[dict[str, BreakerCommand], Probeable]:
    """Return the newest committed command of every breaker, by id, and what the older ones say about probes."""
    return newest_commands(reader.all_of(connection.prefix + "breaker-commands"), reader, connection)


def newest_commands(
    messages: Iterable[Message], reader: Reader, connection: Connection
) -> tuple[dict[str, BreakerCommand], Probeable]:
    """Return the newest command of each breaker among messages, and what the older ones say about probes."""
    from fuseboard_streams.cli import decode
    from fuseboard_streams.cli.probeable import Probeable
    from fuseboard_streams.cli.render.breakers import is_open

    values: dict[bytes | None, list[bytes | None]] = {}
    for message in messages:
        values.setdefault(message.key(), []).append(message.value())
    decoder = decode.TopicDecoder("BreakerCommand", reader.resolver)
    commands, probeable = {}, Probeable(connection.prefix)
    for history in values.values():
        # Only what is asked for is decoded: the log may be long.
        newest_first = (decoder.decode(value) for value in reversed(history))
        newest = next(newest_first)
        if isinstance(newest, decode.Tombstone | decode.Undecodable):
            continue
        commands[newest.breaker_id] = newest
        if is_open(newest):
            for each in itertools.chain((newest,), newest_first):
                if isinstance(each, type(newest)) and probeable.note(each):
                    break
    return commands, probeable


def choose(commands: Sequence[BreakerCommand], target: str, tool: str | None, tenant: str) -> list[BreakerCommand]:
    """Return the breakers that a target on the command line means: by id, or by actor and perhaps tool."""
    by_id = [c for c in commands if c.breaker_id == target]
    if by_id and tool is None:
        return by_id
    mine = [c for c in commands if c.tenant == tenant and c.actor == target and (tool is None or c.tool == tool)]
    return sorted(mine, key=lambda c: c.breaker_id)


def read_acks(reader: Reader, connection: Connection, breaker: BreakerCommand) -> tuple[int, list[EnforcementAck]]:
    """Return a breaker's shard and what enforcers have said about it since a minute before it left its last state.

    Acknowledgements lie in the breaker's home partition; only those that can name its present episode are read.
    """
    from fuseboard_schemas.keys import home_partition
    from fuseboard_streams.cli.decode import TopicDecoder

    topic = connection.prefix + "enforcement-acks"
    count = len(reader.partitions(topic))
    shard = home_partition(breaker.scope, breaker.tenant, breaker.actor, breaker.tool, count)
    starts = reader.offsets_at(topic, [shard], min(breaker.since, breaker.ts) - _MINUTE_US)
    records = TopicDecoder("EnforcementAck", reader.resolver).records(reader.to_end(topic, starts))
    return shard, [ack for ack in records if ack.breaker_id == breaker.breaker_id]


def quiet_times(reader: Reader, connection: Connection, breaker: BreakerCommand) -> dict[str, str]:
    """Return how long the conditions of a breaker's rules must be gone, by rule, as the rules in force say.

    Empty where they cannot be known: without the extra ``worker``, or without the topic of rules.
    """
    from fuseboard_streams.cli.kafka import MissingTopicError

    if all(str(hold.recovery) != "CLEAR" for hold in breaker.holds):
        return {}
    try:
        from fuseboard_streams.cli.rules_topic import read_rules
        from fuseboard_streams.rules.explain import explain

        rules = read_rules(reader, connection).compiled
    except (ModuleNotFoundError, MissingTopicError):
        return {}
    found = explain(rules, breaker.tenant, breaker.actor or "", breaker.tool or "")
    mine = [each for each in found if each.section == "breaker" and each.scope == str(breaker.scope)]
    return {each.rule: value.value for each in mine for value in each.values if value.path == "recovery.quiet"}


def _now() -> int:
    """Return the wall clock in µs since the epoch."""
    return time.time_ns() // 1_000
